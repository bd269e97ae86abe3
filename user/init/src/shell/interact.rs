//! The interactive shell.

use alloc::vec::Vec;

use quire_rt::abi::flags::sig;
use quire_rt::{Errno, io, print, println, process, signal, tty};

use super::Shell;

/// Signals that the terminal sends and the interactive shell itself does not heed.
pub const IGNORED: [u32; 5] = [sig::INT, sig::QUIT, sig::TSTP, sig::TTIN, sig::TTOU];

impl Shell {
    /// Reads commands from the terminal until it ends, and returns the shell's status.
    pub fn interact(&mut self) -> i32 {
        let _ = process::setsid();
        for signal in IGNORED {
            let _ = signal::ignore(signal);
        }
        let _ = tty::set_foreground(0, process::getpgid(0).unwrap_or(0));
        loop {
            for (pid, status) in self.children.reap() {
                println!("[{pid}] {status}");
            }
            print!("quire$ ");
            io::flush();
            let Some(line) = read_line() else { return self.status };
            let status = self.run_text(&line);
            if self.exit.is_some() {
                return status;
            }
        }
    }
}

fn read_line() -> Option<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        match io::read(0, &mut byte) {
            Ok(0) => return (!line.is_empty()).then_some(line),
            Ok(_) if byte[0] == b'\n' => return Some(line),
            Ok(_) => line.push(byte[0]),
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}
