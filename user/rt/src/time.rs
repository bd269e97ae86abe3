//! Time and sleep.

use quire_abi::flags::{clock, itimer};
use quire_abi::layout::{Itimerval, Timespec, Timeval};
use quire_abi::{Errno, nr};

use crate::sys;

/// Nanoseconds as a `timespec`.
pub const fn timespec(nanoseconds: u64) -> Timespec {
    Timespec { sec: (nanoseconds / 1_000_000_000) as i64, nsec: (nanoseconds % 1_000_000_000) as i64 }
}

/// The time of one of the clocks in [`clock`].
pub fn get(clock: i32) -> Result<Timespec, Errno> {
    let mut time = Timespec::default();
    // SAFETY: the kernel writes one record.
    unsafe { sys::call(nr::CLOCK_GETTIME, [clock as usize, &raw mut time as usize]) }?;
    Ok(time)
}

/// The time of one of the clocks in [`clock`], in nanoseconds; 0 if there is no such clock.
pub fn nanoseconds(clock: i32) -> u64 {
    get(clock).map_or(0, |time| time.sec as u64 * 1_000_000_000 + time.nsec as u64)
}

/// Nanoseconds since some point in the past, never going back.
pub fn monotonic() -> u64 {
    nanoseconds(clock::MONOTONIC)
}

/// Makes the kernel send SIGALRM after `value` nanoseconds and then every `interval`; a `value` of 0 stops that.
/// Returns the time that was left, and the old interval.
pub fn set_alarm(value: u64, interval: u64) -> Result<(u64, u64), Errno> {
    let time = |ns: u64| Timeval { sec: (ns / 1_000_000_000) as i64, usec: (ns % 1_000_000_000 / 1000) as i64 };
    let new = Itimerval { interval: time(interval), value: time(value) };
    let mut old = Itimerval::default();
    // SAFETY: the kernel reads one record and writes one.
    unsafe { sys::call(nr::SETITIMER, [itimer::REAL as usize, &raw const new as usize, &raw mut old as usize]) }?;
    let ns = |time: Timeval| time.sec as u64 * 1_000_000_000 + time.usec as u64 * 1000;
    Ok((ns(old.value), ns(old.interval)))
}

/// Sleeps; on EINTR the second value is the remaining time.
pub fn nanosleep(nanoseconds: u64) -> Result<(), (Errno, Timespec)> {
    let time = timespec(nanoseconds);
    let mut rest = Timespec::default();
    // SAFETY: the kernel reads one record and writes one.
    unsafe { sys::call(nr::NANOSLEEP, [&raw const time as usize, &raw mut rest as usize]) }
        .map(drop)
        .map_err(|error| (error, rest))
}

/// Sleeps for at least `nanoseconds`, whatever signals are handled meanwhile.
pub fn sleep(nanoseconds: u64) {
    let mut left = nanoseconds;
    while let Err((Errno::EINTR, rest)) = nanosleep(left) {
        left = rest.sec as u64 * 1_000_000_000 + rest.nsec as u64;
    }
}

/// Sleeps for at least `milliseconds`.
pub fn sleep_ms(milliseconds: u64) {
    sleep(milliseconds * 1_000_000);
}
