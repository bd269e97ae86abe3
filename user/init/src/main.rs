//! The first process, and the shell that it keeps running.
//!
//! As process 1: starts the [services]; then, if `/etc/exec` exists, a shell runs its text and the machine switches off
//! with the last status; else an interactive shell runs for ever, a new one whenever one ends, and its programs have
//! [limits]. Process 1 itself only waits: it reaps every orphan, and nothing that a command does can end it.
//!
//! As any other process it is the shell: `init -c TEXT`, `init FILE`, or interactive.

#![no_std]
#![no_main]

extern crate alloc;

mod limits;
mod services;
mod shell;

use alloc::vec::Vec;
use core::ffi::CStr;

use limits::Limited;
use quire_rt::abi::flags::{Control, Open, reboot, setting};
use quire_rt::process::{Changed, Status};
use quire_rt::{Errno, args, eprintln, fs, handles, info, println, process, time};
use quire_shell::pause::Pause;
use services::Services;
use shell::{Mode, Shell};

quire_rt::entry!(main);

/// The first process has a shell run this text instead of starting an interactive shell.
const EXEC: &CStr = c"/etc/exec";

fn main() -> i32 {
    // The shell and the children that run parts of its commands keep all handles that the shell was started with. A
    // file says which programs get which rights.
    if let Err(error) = handles::grant(Control::all()) {
        eprintln!("sh: cannot pass machine control on: {error}");
    }
    if process::getpid() == 1 {
        return init();
    }
    let mut words = args().skip(1);
    match (words.next().map(CStr::to_bytes), words.next()) {
        (None, _) => Shell::new(Mode::Interactive).interact(None),
        (Some(b"-c"), Some(text)) => Shell::new(Mode::Text).run_text(text.to_bytes()),
        (Some(b"-c"), None) => {
            eprintln!("sh: -c needs a text");
            2
        }
        (Some(_), _) => run_file(args().nth(1).unwrap_or(c"")),
    }
}

fn run_file(path: &CStr) -> i32 {
    match read(path) {
        Ok(text) => Shell::new(Mode::Text).run_text(&text),
        Err(error) => {
            eprintln!("sh: {}: {error}", path.to_string_lossy());
            127
        }
    }
}

fn read(path: &CStr) -> Result<Vec<u8>, Errno> {
    fs::File::open(path, Open::empty())?.read_to_end()
}

/// A file's text, if there is the file. For as long as it cannot be read, for want of memory say, it is tried again:
/// without its text the machine would do something else.
fn read_if_there(path: &CStr) -> Option<Vec<u8>> {
    loop {
        match read(path) {
            Ok(text) => return Some(text),
            Err(Errno::ENOENT) => return None,
            Err(error) => {
                eprintln!("init: {}: {error}; trying again", path.to_string_lossy());
                time::sleep_ms(100);
            }
        }
    }
}

fn init() -> i32 {
    let mut services = Services::start();
    if let Some(text) = read_if_there(EXEC) {
        let status = supervise(&mut services, || {
            shell::no_input();
            Shell::new(Mode::Text).run_text(&text)
        });
        if let Status::Killed(_) = status {
            eprintln!("init: the shell ended: {status}");
        }
        switch_off(status.code());
    }
    let mut pause = Pause::default();
    loop {
        let started = time::monotonic();
        let limited = Limited::make();
        let status = supervise(&mut services, || Shell::new(Mode::Interactive).interact(limited));
        match pause.after(time::monotonic() - started) {
            0 => println!("init: the shell ended ({status}); here is a new one"),
            seconds => {
                println!("init: the shell ended ({status}); a new one comes in {seconds} s");
                time::sleep_ms(seconds * 1000);
            }
        }
    }
}

/// Runs a shell in a process of its own until it ends; meanwhile reaps every orphan, and starts services again.
fn supervise(services: &mut Services, run: impl FnOnce() -> i32) -> Status {
    let shell = loop {
        match process::fork() {
            Ok(0) => {
                // Without the shell nobody could act on a shortage of memory. Programs that it starts are not exempt.
                let _ = info::setting(setting::OOM_SCORE_ADJ, Some(0));
                process::exit(run())
            }
            Ok(pid) => break pid,
            Err(error) => {
                eprintln!("init: cannot start a shell: {error}; trying again");
                time::sleep_ms(1000);
            }
        }
    };
    loop {
        match process::wait4(-1, 0) {
            Ok(Some(Changed { pid, status, .. })) if pid == shell => return status,
            Ok(Some(Changed { pid, status, .. })) => services.note_end(pid, status),
            Ok(_) | Err(Errno::EINTR) => {}
            // The shell is no longer a child, though nothing else can have waited for it: treat it as killed.
            Err(_) => return Status::Killed(quire_rt::abi::flags::sig::KILL),
        }
    }
}

/// Ends the machine; process 1 must not return.
fn switch_off(status: i32) -> ! {
    fs::sync();
    let error = info::poweroff(status);
    // A kernel other than Quire's has only the older call.
    let _ = info::reboot(reboot::POWER_OFF);
    eprintln!("init: cannot switch off: {error}");
    loop {
        time::sleep_ms(60_000);
    }
}
