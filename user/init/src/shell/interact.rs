//! The interactive shell: prompt, line editor, and the terminal's two modes. Keys come one by one while a line is
//! edited; while programs run the terminal is as it was found, so that Ctrl-C ends them.

use alloc::collections::BTreeSet;
use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use quire_rt::abi::flags::sig;
use quire_rt::abi::layout::{Termios, tty as bits};
use quire_rt::{Errno, fs, info, io, println, process, signal, tty};
use quire_shell::complete::complete;
use quire_shell::edit::{ASK_SIZE, Completer, Completion, Editor, Event};
use quire_shell::parse::parse;
use quire_shell::token::Error;

use super::builtin;
use super::launch::show;
use super::{Mode, Shell};
use crate::limits::Limited;

/// Signals from the terminal that the interactive shell itself ignores.
pub const IGNORED: [u32; 5] = [sig::INT, sig::QUIT, sig::TSTP, sig::TTIN, sig::TTOU];

/// Columns assumed for a terminal of unknown size.
const COLUMNS: usize = 80;

/// The terminal and its settings as they were found.
struct Terminal {
    cooked: Termios,
    raw: Termios,
}

impl Terminal {
    fn open() -> Option<Terminal> {
        /// `lflag`: Ctrl-V and similar keys.
        const IEXTEN: u32 = 0o100000;
        let cooked = tty::get(0).ok()?;
        let mut raw = cooked;
        raw.iflag &= !bits::ICRNL;
        raw.lflag &= !(bits::ICANON | bits::ECHO | bits::ISIG | IEXTEN);
        raw.cc[bits::VMIN] = 1;
        raw.cc[bits::VTIME] = 0;
        Some(Terminal { cooked, raw })
    }

    /// Edits one line.
    fn read(&self, editor: &mut Editor, prompt: &str, shell: &Shell) -> Event {
        let _ = tty::set(0, &self.raw);
        let mut out = Vec::new();
        // A serial line does not know the size of the terminal at its other end; the terminal itself may. If keys are
        // waiting already, its answer would come after them and might go to the program that they start.
        if matches!(io::wait_readable(0, 0), Ok(false)) {
            out.extend(ASK_SIZE);
        }
        let columns = tty::size(0).map_or(COLUMNS, |(columns, _)| columns);
        editor.begin(prompt, columns, &mut out);
        let event = loop {
            let mut byte = [0];
            // A terminal that takes no output gives no input either; reading finds out.
            let _ = io::write_all(1, &out);
            out.clear();
            match io::read(0, &mut byte) {
                // One byte at a time: input after the line is for the program that the line starts.
                Ok(1) => {
                    let event = editor.feed(byte[0], shell, &mut out);
                    self.tell_size(editor);
                    if let Some(event) = event {
                        break event;
                    }
                }
                Err(Errno::EINTR) => {}
                _ => break Event::End,
            }
        };
        let _ = io::write_all(1, &out);
        let _ = tty::set(0, &self.cooked);
        event
    }

    /// Passes the size that the terminal reported on to programs.
    fn tell_size(&self, editor: &Editor) {
        if let Some((columns, rows)) = editor.size()
            && tty::size(0) != editor.size()
        {
            // Only the shell itself needs it.
            let _ = tty::set_size(0, columns, rows);
        }
    }
}

impl Shell {
    /// Reads commands from the terminal until it ends, and returns the shell's status.
    /// What it starts goes to a control group.
    pub fn interact(&mut self, limited: Option<Limited>) -> i32 {
        limited.inspect(|limited| limited.precede());
        self.limited = limited;
        let Some(terminal) = Terminal::open() else { return self.run_input() };
        if process::setsid().is_ok() {
            let _ = tty::make_controlling(0);
        }
        for signal in IGNORED {
            let _ = signal::ignore(signal);
        }
        let _ = tty::set_foreground(0, process::getpgid(0).unwrap_or(0));
        banner();
        let mut editor = Editor::default();
        while self.exit.is_none() {
            for (pid, status) in self.children.reap() {
                println!("[{pid}] {status}");
            }
            match self.read_command(&terminal, &mut editor) {
                Event::Line(text) => drop(self.run_text(text.as_bytes())),
                Event::Interrupted => self.status = 128 + sig::INT as i32,
                Event::End => break,
            }
            io::flush();
        }
        self.exit.unwrap_or(self.status)
    }

    /// Reads lines until they are a whole command.
    fn read_command(&self, terminal: &Terminal, editor: &mut Editor) -> Event {
        let mut text = String::new();
        loop {
            let prompt = if text.is_empty() { self.prompt() } else { "> ".into() };
            match terminal.read(editor, &prompt, self) {
                Event::Line(line) => {
                    text += &line;
                    if !matches!(parse(text.as_bytes()), Err(Error::Incomplete(_))) {
                        return Event::Line(text);
                    }
                    text.push('\n');
                }
                // End of input within a command abandons the command, not the shell.
                Event::End if !text.is_empty() => return Event::Interrupted,
                other => return other,
            }
        }
    }

    fn prompt(&self) -> String {
        let directory = fs::getcwd().unwrap_or_else(|_| b"?".to_vec());
        let directory: String = show(&directory).chars().filter(|char| !char.is_control()).collect();
        match self.status {
            0 => format!("quire:{directory}# "),
            status => format!("[{status}] quire:{directory}# "),
        }
    }

    /// Runs commands from input that is not a terminal: all of it at once, without prompts.
    fn run_input(&mut self) -> i32 {
        self.mode = Mode::Text;
        let mut text = Vec::new();
        let mut buffer = [0; 512];
        loop {
            match io::read(0, &mut buffer) {
                Ok(0) => return self.run_text(&text),
                Ok(n) => text.extend_from_slice(&buffer[..n]),
                Err(Errno::EINTR) => {}
                Err(_) => return 2,
            }
        }
    }
}

impl Completer for Shell {
    fn complete(&self, before: &str) -> Completion {
        let mut commands: BTreeSet<String> = builtin::NAMES.iter().map(|(name, _)| String::from(*name)).collect();
        for directory in self.search_path().split(|byte| *byte == b':') {
            let entries = CString::new(directory).ok().and_then(|path| fs::read_dir(&path).ok()).unwrap_or_default();
            commands.extend(entries.into_iter().filter_map(|entry| String::from_utf8(entry.name).ok()));
        }
        complete(before, &commands.into_iter().collect::<Vec<_>>(), self)
    }
}

/// The greeting: the system, its CPUs and its memory.
fn banner() {
    let Ok(names) = info::uname() else { return };
    println!("\n{} {}, {}", info::text(&names.sysname), info::text(&names.release), info::text(&names.machine));
    if let Ok(system) = info::system() {
        println!(
            "{}: {} CPU{}, {} MiB of memory, {} MiB free",
            info::text(&system.board),
            system.cpus,
            if system.cpus == 1 { "" } else { "s" },
            system.ram >> 8,
            system.free >> 8
        );
    }
    println!("Try help, memmap, free, ps, or selftest.\n");
}
