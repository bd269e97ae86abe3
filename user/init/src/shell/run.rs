//! Running parsed commands: conditions, pipelines, and messages about how they ended.

use alloc::vec::Vec;

use quire_rt::abi::flags::{Open, setting, sig};
use quire_rt::process::{self, Status};
use quire_rt::{Errno, eprintln, info, io, println, signal, time, tty};
use quire_shell::expand;
use quire_shell::parse::{AndOr, Command, List, Pipeline, When};

use super::builtin::Builtin;
use super::launch::{Launch, redirect_saving};
use super::{Mode, Shell};

/// Status of a command whose process could not be made.
const NO_PROCESS: i32 = 254;

impl Shell {
    pub(super) fn run_list(&mut self, list: &List) {
        for item in &list.items {
            if item.background {
                self.run_in_background(&item.chain);
            } else {
                self.run_chain(&item.chain);
            }
            if self.exit.is_some() {
                return;
            }
        }
    }

    fn run_chain(&mut self, chain: &AndOr) {
        self.run_pipeline(&chain.first);
        for (when, pipeline) in &chain.rest {
            if self.exit.is_some() {
                return;
            }
            if (*when == When::Success) == (self.status == 0) {
                self.run_pipeline(pipeline);
            }
        }
    }

    fn run_pipeline(&mut self, pipeline: &Pipeline) {
        let begin = time::monotonic();
        let (mut user, mut system) = (0, 0);
        let status = match &pipeline.commands[..] {
            [command] => self.run_single(command, &mut user, &mut system),
            commands => {
                let launches = commands.iter().map(|command| self.expand(command)).collect::<Vec<_>>();
                self.run_processes(&launches, &mut user, &mut system)
            }
        };
        self.status = if pipeline.negated { (status == 0) as i32 } else { status };
        if pipeline.timed {
            let real = (time::monotonic() - begin) / 1000;
            for (what, time) in [("real", real), ("user", user), ("sys", system)] {
                let milliseconds = time / 1000;
                let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
                eprintln!("{what}\t{}m{}.{rest:03}s", seconds / 60, seconds % 60);
            }
        }
    }

    fn expand(&self, command: &Command) -> Launch {
        Launch {
            arguments: expand::arguments(&command.words, self),
            assignments: command
                .assignments
                .iter()
                .map(|(name, word)| (name.clone(), expand::value(word, self)))
                .collect(),
            redirects: command
                .redirects
                .iter()
                .map(|redirect| (redirect.fd, redirect.direction, expand::value(&redirect.target, self)))
                .collect(),
        }
    }

    /// Runs a single command; a builtin runs without another process.
    fn run_single(&mut self, command: &Command, user: &mut u64, system: &mut u64) -> i32 {
        let launch = self.expand(command);
        if launch.arguments.is_empty() {
            return match redirect_saving(&launch.redirects) {
                Ok(_restored_when_dropped) => {
                    for (name, value) in launch.assignments {
                        self.set(&name, value);
                    }
                    0
                }
                Err(()) => 1,
            };
        }
        match Builtin::find(&launch.arguments[0]) {
            Some(Builtin::Exec) => self.replace(&launch),
            Some(builtin) => match redirect_saving(&launch.redirects) {
                Ok(_restored_when_dropped) => self.run_builtin(builtin, &launch.arguments),
                Err(()) => 1,
            },
            None => self.run_processes(&[launch], user, system),
        }
    }

    /// Runs commands side by side and waits; the last one's status counts.
    fn run_processes(&mut self, launches: &[Launch], user: &mut u64, system: &mut u64) -> i32 {
        let pids = self.start(launches, true);
        let complete = pids.len() == launches.len();
        let outcome = self.children.wait_for(&pids);
        if self.mode == Mode::Interactive {
            // Fails if the terminal has no process groups; then there is nothing to take back.
            let _ = tty::set_foreground(0, process::getpgid(0).unwrap_or(0));
        }
        *user += outcome.user;
        *system += outcome.system;
        for status in &outcome.statuses {
            self.tell(*status);
        }
        match outcome.statuses.last() {
            Some(status) if complete => status.code(),
            _ => NO_PROCESS,
        }
    }

    /// Says what killed a process, unless the user can tell (Ctrl-C, a closed pipe).
    fn tell(&self, status: Status) {
        match status {
            Status::Killed(sig::INT) if self.mode == Mode::Interactive => println!(),
            Status::Killed(sig::INT | sig::PIPE) => {}
            Status::Killed(signal) => eprintln!("{}", signal::describe(signal)),
            _ => {}
        }
    }

    fn run_in_background(&mut self, chain: &AndOr) {
        let pid = match process::fork() {
            Ok(0) => {
                self.become_child(0, false);
                self.mode = Mode::Text;
                self.run_chain(chain);
                process::exit(self.exit.unwrap_or(self.status))
            }
            Ok(pid) => pid,
            Err(error) => {
                eprintln!("sh: cannot fork: {error}");
                self.status = NO_PROCESS;
                return;
            }
        };
        self.children.add_background(pid);
        self.last_background = Some(pid);
        self.status = 0;
        if self.mode == Mode::Interactive {
            // Parent and child both do this, so that it holds whichever runs first.
            let _ = process::setpgid(pid, pid);
            println!("[{pid}]");
        }
    }

    /// Starts processes with pipes between them; fewer than asked for if one could not be made.
    fn start(&mut self, launches: &[Launch], foreground: bool) -> Vec<i32> {
        let mut pids: Vec<i32> = Vec::new();
        let mut input = None;
        for (i, launch) in launches.iter().enumerate() {
            let pipe = if i + 1 < launches.len() { io::pipe(Open::CLOEXEC.bits()).map(Some) } else { Ok(None) };
            let forked = pipe.and_then(|pipe| self.start_one(launch, input, pipe, &pids, foreground));
            if let Some(fd) = input.take() {
                let _ = io::close(fd);
            }
            match forked {
                Ok((pid, next)) => {
                    pids.push(pid);
                    input = next;
                }
                Err(error) => {
                    eprintln!("sh: cannot start a process: {error}");
                    break;
                }
            }
        }
        pids
    }

    /// Starts one process and returns it and the end of `pipe` that the next one reads.
    fn start_one(
        &mut self,
        launch: &Launch,
        input: Option<i32>,
        pipe: Option<(i32, i32)>,
        before: &[i32],
        foreground: bool,
    ) -> Result<(i32, Option<i32>), Errno> {
        let leader = before.first().copied().unwrap_or(0);
        let forked = process::fork();
        if let Ok(0) = forked {
            self.become_child(leader, foreground);
            for (fd, place) in [(input, 0), (pipe.map(|(_, write)| write), 1)] {
                if let Some(fd) = fd
                    && io::dup3(fd, place, 0).is_err()
                {
                    process::exit_now(NO_PROCESS);
                }
            }
            self.run_child(launch);
        }
        if let Some((read, write)) = pipe {
            let _ = io::close(write);
            if forked.is_err() {
                let _ = io::close(read);
            }
        }
        let pid = forked?;
        if self.mode == Mode::Interactive {
            let group = if leader == 0 { pid } else { leader };
            let _ = process::setpgid(pid, group);
            if foreground {
                let _ = tty::set_foreground(0, group);
            }
        }
        Ok((pid, pipe.map(|(read, _)| read)))
    }

    /// What a new child does first: its group, the terminal, and signals as they were before the shell.
    fn become_child(&mut self, leader: i32, foreground: bool) {
        let _ = info::setting(setting::OOM_SCORE_ADJ, Some(1000));
        // (What it starts is there, too.)
        if let Some(limited) = self.limited.take() {
            limited.enter();
        }
        if self.mode == Mode::Interactive {
            let _ = process::setpgid(0, leader);
            if foreground && leader == 0 {
                let _ = tty::set_foreground(0, process::getpid());
            }
            for signal in super::interact::IGNORED {
                let _ = signal::default(signal);
            }
        } else if !foreground {
            // Without groups, the terminal's signals and input must still not reach it.
            let _ = signal::ignore(sig::INT);
            let _ = signal::ignore(sig::QUIT);
        }
        if !foreground {
            super::no_input();
        }
        self.children = Default::default();
    }
}
