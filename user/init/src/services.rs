//! Services: what process 1 starts before the shell, and starts again when it ends.
//!
//! [`LIST`] names them: on each line a name, a program, and its arguments; `#` begins a comment. `device:` and what
//! devices are compatible with stands for all such devices that nobody drives, which the service gets; without one it
//! is not started. A service gets of machine control what the list of grants says. The word `wait` has it start when
//! those above are ready or have ended. One that ends with status 0 is done, and is not started again. Its descriptor 3
//! is a pipe, and it closes that when it is ready: process 1 waits for it.

use alloc::ffi::CString;
use alloc::vec::Vec;
use core::ffi::CStr;

use quire_rt::abi::flags::{Open, setting};
use quire_rt::process::{Status, exit_now};
use quire_rt::{Errno, device, env, eprintln, handles, info, io, process, sched, time};
use quire_shell::pause::Pause;

/// The list.
const LIST: &CStr = c"/etc/services";

/// The descriptor that a service closes when it is ready.
const READY: i32 = 3;

/// The nice value of a service.
const FIRST: i32 = -20;

/// A program that could not be executed.
const NOT_FOUND: i32 = 127;

struct Service {
    name: CString,
    program: CString,
    /// The program's name first.
    arguments: Vec<CString>,
    /// What the devices that it drives are compatible with.
    devices: Vec<CString>,
    /// It starts when those above are ready.
    waits: bool,
    pid: Option<i32>,
    /// It has ended with status 0.
    is_done: bool,
    started: u64,
    pause: Pause,
}

/// All of them.
#[derive(Default)]
pub struct Services(Vec<Service>);

impl Services {
    /// Starts what the list names, and returns when all are ready or have ended. Without a list there are none.
    pub fn start() -> Self {
        let text = crate::read_if_there(LIST).unwrap_or_default();
        let mut services = Self(text.split(|byte| *byte == b'\n').filter_map(Service::parse).collect());
        let mut starting = Vec::new();
        for service in &mut services.0 {
            if service.waits {
                wait_for(&mut starting);
            }
            starting.extend(service.start(0));
        }
        wait_for(&mut starting);
        services
    }

    /// A child has ended: if it was a service, it is started again, at once or after a pause. What could not be started
    /// before is tried again.
    pub fn note_end(&mut self, pid: i32, status: Status) {
        for service in self.0.iter_mut().filter(|service| service.pid.is_none() && !service.is_done) {
            service.start_alone(0);
        }
        let Some(service) = self.0.iter_mut().find(|service| service.pid == Some(pid)) else { return };
        service.pid = None;
        if status == Status::Exited(0) {
            service.is_done = true;
            return;
        }
        let seconds = service.pause.after(time::monotonic() - service.started);
        let name = service.name.to_string_lossy();
        eprintln!("init: {name} ended ({status}); it starts again in {seconds} s");
        service.start_alone(seconds);
    }
}

impl Service {
    fn parse(line: &[u8]) -> Option<Self> {
        let line = line.split(|byte| *byte == b'#').next()?;
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let name = CString::new(words.next()?).ok()?;
        let program = CString::new(words.next()?).ok()?;
        let (mut arguments, mut devices) = (Vec::from([program.clone()]), Vec::new());
        let mut waits = false;
        for word in words {
            if word == b"wait" {
                waits = true;
                continue;
            }
            match word.strip_prefix(b"device:") {
                Some(kind) => devices.push(CString::new(kind).ok()?),
                None => arguments.push(CString::new(word).ok()?),
            }
        }
        let pause = Pause::default();
        Some(Self { name, program, arguments, devices, waits, pid: None, is_done: false, started: 0, pause })
    }

    /// Starts it after `seconds`; returns the end of a pipe that is at its end when it is ready, or has ended.
    fn start(&mut self, seconds: u64) -> Option<i32> {
        let started = io::pipe(Open::CLOEXEC.bits()).and_then(|(reader, writer)| match process::fork() {
            Ok(0) => {
                time::sleep_ms(seconds * 1000);
                self.run(writer)
            }
            forked => {
                let _ = io::close(writer);
                if forked.is_err() {
                    let _ = io::close(reader);
                }
                forked.map(|pid| (reader, pid))
            }
        });
        self.started = time::monotonic() + seconds * 1_000_000_000;
        match started {
            Ok((reader, pid)) => {
                self.pid = Some(pid);
                Some(reader)
            }
            Err(error) => {
                self.pid = None;
                eprintln!("init: cannot start {}: {error}", self.name.to_string_lossy());
                None
            }
        }
    }

    /// The same, where nobody waits until it is ready.
    fn start_alone(&mut self, seconds: u64) {
        if let Some(ready) = self.start(seconds) {
            let _ = io::close(ready);
        }
    }

    /// Becomes the service.
    fn run(&self, ready: i32) -> ! {
        // What programs do to their own process group, or their terminal to its, is not for it.
        let _ = process::setsid();
        // Others depend on it: it is ended for want of memory after all others.
        let _ = info::setting(setting::OOM_SCORE_ADJ, Some(0));
        // And it has its turn before those who wait for it, however many run.
        let _ = sched::set_nice(FIRST, false);
        // (By a copy: if it has that number already, exec would close it.)
        let placed = io::dup(ready).and_then(|copy| {
            let placed = io::dup3(copy, READY, 0);
            let _ = io::close(copy);
            placed
        });
        let taken: usize = self.devices.iter().map(|kind| take_all(kind)).sum();
        if taken == 0 && !self.devices.is_empty() {
            exit_now(0);
        }
        if placed.is_ok() {
            let _ = handles::grant_to(self.program.to_bytes());
            let error = process::execve(&self.program, self.arguments.iter().map(|word| &**word), env());
            eprintln!("init: {}: {error}", self.program.to_string_lossy());
        }
        exit_now(NOT_FOUND)
    }
}

/// Waits until services whose pipes these are are ready, or have ended.
fn wait_for(starting: &mut Vec<i32>) {
    for fd in starting.drain(..) {
        while io::read(fd, &mut [0]) == Err(Errno::EINTR) {}
        let _ = io::close(fd);
    }
}

/// Takes all devices of a kind that nobody drives, for the next program; returns how many there are.
fn take_all(kind: &CStr) -> usize {
    let mut taken = 0;
    for number in 0.. {
        match device::take(kind, number) {
            Ok(device) if device.grant().is_ok() => taken += 1,
            // Somebody else's.
            Ok(_) | Err(Errno::EBUSY) => {}
            Err(Errno::ENOENT) => break,
            Err(error) => {
                eprintln!("init: {}: {error}", kind.to_string_lossy());
                break;
            }
        }
    }
    taken
}
