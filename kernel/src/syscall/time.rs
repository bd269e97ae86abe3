//! Clocks and sleeping.

use core::sync::atomic::{AtomicU64, Ordering};

use quire_abi::Errno;
use quire_abi::flags::{clock, itimer};
use quire_abi::layout::{Itimerval, Timespec, Timeval};
use quire_mm::UserAddr;

use super::{Answer, Args};
use crate::arch::{timer, uaccess};
use crate::task::clock::{self as task_clock, real_ns};
use crate::task::cpu_alarm::{self, Part};
use crate::task::cpu_clock::{CpuClock, Whose};
use crate::task::cputime::Spent;
use crate::task::credentials::{Privilege, require};
use crate::task::itimer as real;
use crate::task::process::TABLE;
use crate::task::signal::Resume;
use crate::task::thread::current;
use crate::task::{sched, wait};

const NS: u64 = 1_000_000_000;

/// A timespec in nanoseconds, saturating; EINVAL for an invalid one.
pub fn to_ns(t: Timespec) -> Result<u64, Errno> {
    if t.sec < 0 || !(0..NS as i64).contains(&t.nsec) {
        return Err(Errno::EINVAL);
    }
    Ok((t.sec as u64).saturating_mul(NS).saturating_add(t.nsec as u64))
}

/// Nanoseconds as a timespec.
pub fn from_ns(ns: u64) -> Timespec {
    Timespec { sec: (ns / NS) as i64, nsec: (ns % NS) as i64 }
}

pub fn clock_gettime(a: Args) -> Answer {
    let ns = match a.int(0) {
        clock::MONOTONIC | clock::MONOTONIC_RAW | clock::MONOTONIC_COARSE | clock::BOOTTIME => timer::now_ns(),
        clock::REALTIME | clock::REALTIME_COARSE | clock::TAI => real_ns(),
        clock::THREAD_CPUTIME_ID => {
            sched::charge_current();
            current().time.spent().total()
        }
        clock::PROCESS_CPUTIME_ID => process_time().total(),
        number => cpu_clock(number, true)?.now().ok_or(Errno::EINVAL)?,
    };
    uaccess::put(a.addr(1), &from_ns(ns))?;
    Ok(0)
}

/// The CPU-time clock with this number: 2 and 3 are the caller's. A C library makes negative numbers from the number of
/// a process, or of a thread of the calling process, and from the part of its time that is measured. To read its clock,
/// the caller may name itself as a process. EINVAL.
pub fn cpu_clock(number: i32, to_read: bool) -> Result<CpuClock, Errno> {
    const OF_THREAD: i32 = 4;
    let me = current();
    let number = match number {
        clock::PROCESS_CPUTIME_ID => !0 << 3 | 2,
        clock::THREAD_CPUTIME_ID => !0 << 3 | OF_THREAD | 2,
        number => number,
    };
    let part = match number & 3 {
        0 | 2 => Part::Total,
        1 => Part::User,
        _ => return Err(Errno::EINVAL),
    };
    let id = u32::try_from(!(number >> 3)).map_err(|_| Errno::EINVAL)?;
    let whose = if number & OF_THREAD != 0 {
        Whose::Thread(if id == 0 { me.tid() } else { id })
    } else if id == 0 || to_read && id == me.tid() {
        Whose::Process(me.process().clone())
    } else {
        Whose::Process(TABLE.lock().process(id).cloned().ok_or(Errno::EINVAL)?)
    };
    let clock = CpuClock { whose, part };
    // The caller cannot use the clock of a thread of another process.
    clock.now().map(|_| clock).ok_or(Errno::EINVAL)
}

/// CPU time of all threads of the calling process.
pub fn process_time() -> Spent {
    sched::charge_current();
    current().process().whole.time.spent()
}

pub fn clock_getres(a: Args) -> Answer {
    if !matches!(a.int(0), clock::REALTIME..=clock::BOOTTIME | clock::TAI) {
        cpu_clock(a.int(0), false)?;
    }
    if let Some(at) = a.opt_addr(1) {
        uaccess::put(at, &from_ns(timer::to_ns(1).max(1)))?;
    }
    Ok(0)
}

pub fn gettimeofday(a: Args) -> Answer {
    if let Some(at) = a.opt_addr(0) {
        let t = from_ns(real_ns());
        uaccess::put(at, &Timeval { sec: t.sec, usec: t.nsec / 1000 })?;
    }
    if let Some(at) = a.opt_addr(1) {
        let zone = ZONE.load(Ordering::Relaxed);
        uaccess::put(at, &[zone as i32, (zone >> 32) as i32])?;
    }
    Ok(0)
}

/// The time zone that settimeofday has set last: minutes west, and the type of daylight-saving time. The kernel does
/// not use it.
static ZONE: AtomicU64 = AtomicU64::new(0);

pub fn clock_settime(a: Args) -> Answer {
    if a.int(0) != clock::REALTIME {
        return Err(Errno::EINVAL);
    }
    set_time(Some(uaccess::get(a.addr(1))?), None)
}

pub fn settimeofday(a: Args) -> Answer {
    let time: Option<Timeval> = a.opt_addr(0).map(uaccess::get).transpose()?;
    let time = match time {
        Some(t) if !(0..=1_000_000).contains(&t.usec) => return Err(Errno::EINVAL),
        time => time.map(|t| Timespec { sec: t.sec, nsec: t.usec * 1000 }),
    };
    let zone: Option<[i32; 2]> = a.opt_addr(1).map(uaccess::get).transpose()?;
    set_time(time, zone)
}

/// The checks are in Linux's order: first the time, then the caller's privilege.
fn set_time(time: Option<Timespec>, zone: Option<[i32; 2]>) -> Answer {
    /// The latest time in seconds that a clock may be set to, so that it can run for 30 more years
    /// (`TIME_SETTOD_SEC_MAX`).
    const LATEST: i64 = i64::MAX / NS as i64 - 30 * 365 * 24 * 3600;
    const WIDEST_ZONE: i32 = 15 * 60;
    let time = match time {
        Some(t) if t.sec >= LATEST => return Err(Errno::EINVAL),
        time => time.map(to_ns).transpose()?,
    };
    require(current().process(), Privilege::SetTime)?;
    if let Some([west, daylight]) = zone {
        if !(-WIDEST_ZONE..=WIDEST_ZONE).contains(&west) {
            return Err(Errno::EINVAL);
        }
        ZONE.store(u64::from(west as u32) | u64::from(daylight as u32) << 32, Ordering::Relaxed);
    }
    time.map_or(Ok(()), task_clock::set).map(|()| 0)
}

pub fn nanosleep(a: Args) -> Answer {
    let span = to_ns(uaccess::get(a.addr(0))?)?;
    sleep(timer::now_ns().saturating_add(span), a.opt_addr(1))
}

pub fn clock_nanosleep(a: Args) -> Answer {
    match a.int(0) {
        clock::REALTIME | clock::MONOTONIC | clock::BOOTTIME | clock::TAI => {}
        // The clocks on which Linux cannot sleep, and one on which this kernel cannot.
        clock::MONOTONIC_RAW | clock::REALTIME_COARSE | clock::MONOTONIC_COARSE | clock::PROCESS_CPUTIME_ID => {
            return Err(Errno::EOPNOTSUPP);
        }
        _ => return Err(Errno::EINVAL),
    }
    let time = to_ns(uaccess::get(a.addr(2))?)?;
    // As on Linux, other flags are ignored.
    if a.uint(1) & clock::TIMER_ABSTIME == 0 {
        return sleep(timer::now_ns().saturating_add(time), a.opt_addr(3));
    }
    if !matches!(a.int(0), clock::REALTIME | clock::TAI) {
        return wait::sleep_until(time).map(|()| 0);
    }
    match task_clock::sleep_until(time, || None::<()>) {
        Err(Errno::ETIMEDOUT) => Ok(0),
        other => other.map(|()| 0),
    }
}

/// Sleeps until `deadline`. If interrupted, the remaining time is stored at `rest`, and `restart_syscall` may resume
/// the sleep.
pub fn sleep(deadline: u64, rest: Option<UserAddr>) -> Answer {
    let result = wait::sleep_until(deadline);
    if result == Err(Errno::EINTR) {
        if let Some(at) = rest {
            uaccess::put(at, &from_ns(deadline.saturating_sub(timer::now_ns())))?;
        }
        current().signals.lock().resume = Some(Resume::Sleep { deadline, rest });
    }
    result.map(|()| 0)
}

/// The CPU time that a timer of `setitimer` measures; `None` for the timer of real time. EINVAL.
fn part_of(which: i32) -> Result<Option<Part>, Errno> {
    match which {
        itimer::REAL => Ok(None),
        itimer::VIRTUAL => Ok(Some(Part::User)),
        itimer::PROF => Ok(Some(Part::Total)),
        _ => Err(Errno::EINVAL),
    }
}

fn micros(t: Timeval) -> Result<u64, Errno> {
    let nsec = t.usec.checked_mul(1000).ok_or(Errno::EINVAL)?;
    to_ns(Timespec { sec: t.sec, nsec })
}

fn timer_value((value, interval): (u64, u64)) -> Itimerval {
    let time = |ns: u64| Timeval { sec: (ns / NS) as i64, usec: (ns % NS / 1000) as i64 };
    Itimerval { interval: time(interval), value: time(value) }
}

pub fn getitimer(a: Args) -> Answer {
    let now = match part_of(a.int(0))? {
        Some(part) => cpu_alarm::interval(part),
        None => current().process().real_timer.get(),
    };
    uaccess::put(a.addr(1), &timer_value(now))?;
    Ok(0)
}

pub fn setitimer(a: Args) -> Answer {
    let part = part_of(a.int(0))?;
    // As on Linux, a null pointer means a new value of 0.
    let new: Itimerval = a.opt_addr(1).map(uaccess::get).transpose()?.unwrap_or_default();
    let (value, interval) = (micros(new.value)?, micros(new.interval)?);
    let old = match part {
        Some(part) => cpu_alarm::set_interval(part, value, interval)?,
        None => real::set(current().process(), value, interval),
    };
    if let Some(at) = a.opt_addr(2) {
        uaccess::put(at, &timer_value(old))?;
    }
    Ok(0)
}
