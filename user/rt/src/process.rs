//! Processes: creating, replacing, waiting for and ending them.

use alloc::vec::Vec;
use core::ffi::CStr;
use core::fmt;

use quire_abi::flags::{sig, wait};
use quire_abi::layout::{Rlimit, Rusage};
use quire_abi::{Errno, nr};

use crate::sys;

/// Ends the process after writing the rest of standard output's buffer.
pub fn exit(status: i32) -> ! {
    crate::io::flush();
    exit_now(status)
}

/// Ends the process, all its threads, at once.
pub fn exit_now(status: i32) -> ! {
    loop {
        let _ = sys::plain!(nr::EXIT_GROUP, status);
    }
}

/// Two processes return from here: the parent with the child's id, the child with 0. Standard output is flushed first,
/// so that nothing is written twice. Only the calling thread continues in the child: it must not wait for locks that
/// other threads may have held.
pub fn fork() -> Result<i32, Errno> {
    crate::io::flush();
    crate::heap::around_fork(|| sys::plain!(nr::CLONE, sig::CHLD).map(|pid| pid as i32))
}

/// Executes another program; returns only on an error.
pub fn execve<'a, 'b>(
    path: &CStr,
    args: impl IntoIterator<Item = &'a CStr>,
    env: impl IntoIterator<Item = &'b CStr>,
) -> Errno {
    let args = pointers(args);
    let env = pointers(env);
    // SAFETY: the path and both vectors are terminated and outlive the call, which on success does not return.
    match unsafe { sys::call(nr::EXECVE, [path.as_ptr() as usize, args.as_ptr() as usize, env.as_ptr() as usize]) } {
        Err(error) => error,
        Ok(_) => Errno::EIO,
    }
}

fn pointers<'a>(strings: impl IntoIterator<Item = &'a CStr>) -> Vec<usize> {
    strings.into_iter().map(|string| string.as_ptr() as usize).chain([0]).collect()
}

/// How a child changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It exited with this status.
    Exited(u8),
    /// This signal ended it.
    Killed(u32),
    /// This signal stopped it.
    Stopped(u32),
    /// It continues after a stop.
    Continued,
}

impl Status {
    /// Decodes the word that `wait4` stores.
    pub const fn decode(word: u32) -> Status {
        match (word & 0x7f, word >> 8 & 0xff) {
            (0, status) => Status::Exited(status as u8),
            (0x7f, _) if word == 0xffff => Status::Continued,
            (0x7f, signal) => Status::Stopped(signal),
            (signal, _) => Status::Killed(signal),
        }
    }

    /// The shell's single number: the exit status, or 128 and the signal.
    pub const fn code(self) -> i32 {
        match self {
            Status::Exited(status) => status as i32,
            Status::Killed(signal) | Status::Stopped(signal) => 128 + signal as i32,
            Status::Continued => 0,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Status::Exited(status) => write!(f, "exit status {status}"),
            Status::Killed(signal) => write!(f, "{}", crate::signal::describe(signal)),
            Status::Stopped(signal) => write!(f, "stopped by signal {signal}"),
            Status::Continued => f.write_str("continued"),
        }
    }
}

/// The result of [`wait4`].
#[derive(Clone, Copy, Debug)]
pub struct Changed {
    /// The child.
    pub pid: i32,
    /// How it changed.
    pub status: Status,
    /// The resources that it used, if it ended.
    pub usage: Rusage,
}

/// Waits for a child (`pid` > 0), any child (−1), or one of a group (0 or less than −1). `None` if `WNOHANG` is set and
/// no child has changed.
pub fn wait4(pid: i32, options: u32) -> Result<Option<Changed>, Errno> {
    let mut word = 0u32;
    let mut usage = Rusage::default();
    // SAFETY: the kernel writes one word and one record, for which there is room.
    let pid = unsafe {
        sys::call(nr::WAIT4, [pid as usize, &raw mut word as usize, options as usize, &raw mut usage as usize])
    }?;
    Ok((pid != 0).then(|| Changed { pid: pid as i32, status: Status::decode(word), usage }))
}

/// Waits for one child to end; repeats the wait after interruptions.
pub fn waitpid(pid: i32) -> Result<Status, Errno> {
    loop {
        match wait4(pid, 0) {
            Ok(Some(changed)) => return Ok(changed.status),
            Ok(None) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// As [`wait4`] for any child, without waiting: `None` if none has changed or there is none.
pub fn reap() -> Option<Changed> {
    wait4(-1, wait::WNOHANG).ok().flatten()
}

/// Sends a signal to a process (> 0), the caller's group (0), all processes (−1) or a group (less than −1); signal 0
/// only checks whether a signal could be sent.
pub fn kill(pid: i32, signal: u32) -> Result<(), Errno> {
    sys::plain!(nr::KILL, pid, signal).map(drop)
}

/// Sets this process's name, which ps shows; it is truncated to 15 bytes.
pub fn set_name(name: &CStr) {
    const PR_SET_NAME: usize = 15;
    // SAFETY: the kernel reads a string. It cannot fail.
    let _ = unsafe { sys::call(nr::PRCTL, [PR_SET_NAME, name.as_ptr() as usize]) };
}

/// The process's id.
pub fn getpid() -> i32 {
    sys::plain!(nr::GETPID).map_or(0, |pid| pid as i32)
}

/// The parent's id.
pub fn getppid() -> i32 {
    sys::plain!(nr::GETPPID).map_or(0, |pid| pid as i32)
}

/// The thread's id.
pub fn gettid() -> i32 {
    sys::plain!(nr::GETTID).map_or(0, |pid| pid as i32)
}

/// Moves a process (0: this one) to a group (0: its own).
pub fn setpgid(pid: i32, group: i32) -> Result<(), Errno> {
    sys::plain!(nr::SETPGID, pid, group).map(drop)
}

/// The group of a process (0: this one).
pub fn getpgid(pid: i32) -> Result<i32, Errno> {
    sys::plain!(nr::GETPGID, pid).map(|group| group as i32)
}

/// Starts a session and its first group.
pub fn setsid() -> Result<i32, Errno> {
    sys::plain!(nr::SETSID).map(|session| session as i32)
}

/// Time and faults of this process (0), its waited-for children (−1) or this thread (1).
pub fn getrusage(who: i32) -> Result<Rusage, Errno> {
    let mut usage = Rusage::default();
    // SAFETY: the kernel writes one record, for which there is room.
    unsafe { sys::call(nr::GETRUSAGE, [who as usize, &raw mut usage as usize]) }?;
    Ok(usage)
}

/// Reads a limit and, if `new` is given, sets it.
pub fn prlimit(resource: usize, new: Option<Rlimit>) -> Result<Rlimit, Errno> {
    let mut old = Rlimit { cur: 0, max: 0 };
    let new = new.as_ref().map_or(0, |new| new as *const Rlimit as usize);
    // SAFETY: the kernel reads one record if there is one, and writes one, for which there is room.
    unsafe { sys::call(nr::PRLIMIT64, [0, resource, new, &raw mut old as usize]) }?;
    Ok(old)
}
