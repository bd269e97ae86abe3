//! A person at a terminal: a machine that runs interactively on a pseudo-terminal.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::harness::Machine;

/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the shell's prompt ends with.
pub const PROMPT: &str = "# ";

/// A machine's console.
pub struct Terminal {
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    child: Child,
    /// Output that no expectation has consumed yet.
    pending: String,
    /// Everything that came, for the report of a failure.
    seen: String,
    line: File,
}

impl Terminal {
    /// Boots a machine and waits for the shell's prompt.
    pub fn boot(machine: &Machine) -> Terminal {
        let mut terminal = Terminal::open(machine);
        terminal.expect(PROMPT);
        terminal
    }

    /// Boots a machine, and waits for nothing.
    pub fn open(machine: &Machine) -> Terminal {
        Terminal::of(machine.command(), 25, 80)
    }

    /// Starts a command on a terminal of this size.
    pub fn of(mut command: Command, rows: u16, columns: u16) -> Terminal {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&master).expect("a pseudo-terminal of ours");
        unlockpt(&master).expect("a pseudo-terminal to open");
        let name = ptsname(&master, Vec::new()).expect("a pseudo-terminal with a name");
        let name = name.to_str().expect("its name is text");
        let line = OpenOptions::new().read(true).write(true).open(name).expect("the other end");
        tcsetwinsize(&line, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).expect("a size");

        let end = || line.try_clone().expect("another handle");
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("xtask starts");
        let keyboard = File::from(master);
        let mut reader = keyboard.try_clone().expect("another handle");
        let (bytes, screen) = channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if bytes.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Terminal { keyboard, screen, child, pending: String::new(), seen: String::new(), line }
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Types a command line whose program keeps running, and gives it a moment to take over the terminal.
    #[track_caller]
    pub fn start(&mut self, line: &str) {
        self.press(line);
        self.expect(line);
        self.press("\r");
        self.expect("\n");
        thread::sleep(Duration::from_secs(1));
    }

    /// Waits for a text and returns what came before it.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.pending.find(text) {
                let rest = self.pending.split_off(at + text.len());
                let mut before = std::mem::replace(&mut self.pending, rest);
                before.truncate(at);
                return before;
            }
            match self.screen.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.take(&bytes),
                Err(error) => {
                    let why = if error == RecvTimeoutError::Timeout { "in time" } else { "before the end" };
                    panic!("'{}' did not come {why}; the terminal showed:\n{}", text.escape_debug(), self.seen);
                }
            }
        }
    }

    /// Runs a command line and returns what it printed.
    #[track_caller]
    pub fn run(&mut self, line: &str) -> String {
        self.press(line);
        self.expect(line);
        self.press("\r");
        self.expect("\n");
        let output = self.expect(PROMPT);
        // The prompt's own line is not part of the command's output.
        output.rsplit_once('\n').map_or(String::new(), |(lines, _)| lines.to_owned())
    }

    /// Waits until xtask has ended and returns its exit status.
    pub fn status(&mut self) -> i32 {
        self.child.wait().expect("xtask can be waited for").code().expect("xtask ends by itself")
    }

    /// Whether the terminal is in cooked mode: it edits and echoes lines.
    pub fn is_cooked(&self) -> bool {
        let settings = tcgetattr(&self.line).expect("a terminal has settings");
        settings.local_modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    fn take(&mut self, bytes: &[u8]) {
        // A serial console's line ends are \r\n, once more translated by a terminal that is not raw yet.
        let text = String::from_utf8_lossy(bytes).replace('\r', "");
        self.pending += &text;
        self.seen += &text;
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already; QEMU ends with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
