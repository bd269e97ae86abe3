//! Signals.

use quire_abi::flags::{si, sig};
use quire_abi::layout::{Sigaction, Siginfo, sa};
use quire_abi::{Errno, nr};

use crate::{arch, sys};

/// The beginning of the record to which a handler's second argument points.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Info {
    /// The signal.
    pub signo: i32,
    /// An errno, mostly 0.
    pub errno: i32,
    /// The reason; codes greater than 0 come from the kernel.
    pub code: i32,
    /// Unused.
    pub pad: i32,
    /// The address that faulted; for other signals, the sender: [`Info::pid`], [`Info::uid`].
    pub addr: usize,
    /// The rest, by kind of signal.
    pub more: [u64; 3],
}

impl Info {
    /// The sender's process, or the child.
    pub fn pid(&self) -> i32 {
        self.addr as u32 as i32
    }

    /// The sender's user.
    pub fn uid(&self) -> u32 {
        (self.addr >> 32) as u32
    }

    /// For SIGCHLD: the exit status, or the signal that ended or stopped the child.
    pub fn status(&self) -> i32 {
        self.more[0] as i32
    }

    /// The value that its sender attached.
    pub fn value(&self) -> u64 {
        self.more[0]
    }
}

/// A handler; the last argument points to the interrupted registers.
pub type Handler = extern "C" fn(i32, *const Info, *mut u8);

/// Sets of signals: bit n−1 is signal n.
pub const fn set(signals: &[u32]) -> u64 {
    let mut set = 0;
    let mut i = 0;
    while i < signals.len() {
        set |= 1 << (signals[i] - 1);
        i += 1;
    }
    set
}

fn action(signal: u32, action: &Sigaction) -> Result<Sigaction, Errno> {
    let mut old = Sigaction::default();
    // SAFETY: the kernel reads one record and writes one; a handler in it is a function of this program with the
    // right type, since only this module's functions make the record.
    unsafe {
        sys::call(
            nr::RT_SIGACTION,
            [signal as usize, action as *const Sigaction as usize, &raw mut old as usize, size_of::<u64>()],
        )
    }?;
    Ok(old)
}

/// Installs `handler` for `signal`; `flags` are those of [`sa`], and the signals in `mask` are blocked while it runs.
pub fn handle(signal: u32, handler: Handler, flags: u64, mask: u64) -> Result<Sigaction, Errno> {
    action(
        signal,
        &Sigaction {
            handler: handler as usize as u64,
            flags: flags | sa::SIGINFO | sa::RESTORER,
            restorer: arch::signal_return as *const () as usize as u64,
            mask,
        },
    )
}

/// Ignores `signal`.
pub fn ignore(signal: u32) -> Result<Sigaction, Errno> {
    action(signal, &Sigaction { handler: 1, ..Sigaction::default() })
}

/// Restores the default action for `signal`.
pub fn default(signal: u32) -> Result<Sigaction, Errno> {
    action(signal, &Sigaction::default())
}

/// How [`mask`] changes the set of blocked signals.
#[derive(Clone, Copy, Debug)]
pub enum How {
    /// Adds to it.
    Block = 0,
    /// Takes from it.
    Unblock = 1,
    /// Replaces it.
    Set = 2,
}

/// Changes this thread's blocked signals and returns the former ones.
pub fn mask(how: How, set: u64) -> Result<u64, Errno> {
    let mut old = 0u64;
    // SAFETY: the kernel reads one word and writes one.
    unsafe {
        sys::call(nr::RT_SIGPROCMASK, [how as usize, &raw const set as usize, &raw mut old as usize, size_of::<u64>()])
    }?;
    Ok(old)
}

/// Pending signals: those that were sent while they were blocked.
pub fn pending() -> Result<u64, Errno> {
    let mut set = 0u64;
    // SAFETY: the kernel writes one word.
    unsafe { sys::call(nr::RT_SIGPENDING, [&raw mut set as usize, size_of::<u64>()]) }?;
    Ok(set)
}

/// Sleeps until a signal outside of `mask` was handled; always returns EINTR.
pub fn suspend(mask: u64) -> Errno {
    // SAFETY: the kernel reads one word.
    match unsafe { sys::call(nr::RT_SIGSUSPEND, [&raw const mask as usize, size_of::<u64>()]) } {
        Err(error) => error,
        Ok(_) => Errno::EIO,
    }
}

/// Waits for one of a set of blocked signals, at most for `nanoseconds`, accepts it, and returns its record.
pub fn timed_wait(set: u64, nanoseconds: Option<u64>) -> Result<Siginfo, Errno> {
    let time = nanoseconds.map(crate::time::timespec);
    let time = time.as_ref().map_or(0, |time| time as *const _ as usize);
    let mut info = Siginfo::default();
    // SAFETY: the kernel reads a word and a time and writes one record.
    unsafe {
        sys::call(nr::RT_SIGTIMEDWAIT, [&raw const set as usize, &raw mut info as usize, time, size_of::<u64>()])
    }?;
    Ok(info)
}

/// Sends a signal with a value to a process.
pub fn queue(pid: i32, signal: u32, value: u64) -> Result<(), Errno> {
    let me = crate::process::getpid() as u32;
    let info =
        Siginfo { signo: signal as i32, code: si::QUEUE, fields: [me as u64, value, 0, 0], ..Siginfo::default() };
    // SAFETY: the kernel reads one record.
    unsafe { sys::call(nr::RT_SIGQUEUEINFO, [pid as usize, signal as usize, &raw const info as usize]) }.map(drop)
}

/// Names without `SIG`, by number from 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// The name without `SIG`; `None` for numbers that have none.
pub fn name(signal: u32) -> Option<&'static str> {
    NAMES.get((signal as usize).checked_sub(1)?).copied()
}

/// The number of a name, with or without `SIG`, or of a number in digits.
pub fn parse(text: &str) -> Option<u32> {
    if let Ok(number) = text.parse() {
        return (number < sig::COUNT).then_some(number);
    }
    let bare = text.strip_prefix("SIG").unwrap_or(text);
    NAMES.iter().position(|name| name.eq_ignore_ascii_case(bare)).map(|at| at as u32 + 1)
}

/// The message that a shell prints for a program killed by the signal.
pub fn describe(signal: u32) -> &'static str {
    match signal {
        sig::HUP => "Hangup",
        sig::INT => "Interrupt",
        sig::QUIT => "Quit",
        sig::ILL => "Illegal instruction",
        sig::TRAP => "Trace/breakpoint trap",
        sig::ABRT => "Aborted",
        sig::BUS => "Bus error",
        sig::FPE => "Floating point exception",
        sig::KILL => "Killed",
        sig::USR1 => "User defined signal 1",
        sig::SEGV => "Segmentation fault",
        sig::USR2 => "User defined signal 2",
        sig::PIPE => "Broken pipe",
        sig::ALRM => "Alarm clock",
        sig::TERM => "Terminated",
        _ => "Killed by a signal",
    }
}
