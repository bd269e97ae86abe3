//! Clocks and sleeping. There is no real-time clock: CLOCK_REALTIME starts at 0 (1970) with the machine.

use quire_abi::Errno;
use quire_abi::flags::clock;
use quire_abi::layout::{Timespec, Timeval};
use quire_mm::UserAddr;

use super::{Answer, Args};
use crate::arch::{timer, uaccess};
use crate::task::cputime::Spent;
use crate::task::process::TABLE;
use crate::task::thread::current;
use crate::task::{sched, wait};

const NS: u64 = 1_000_000_000;

/// A span or point of time in nanoseconds, saturating; EINVAL for one that is none.
pub fn to_ns(t: Timespec) -> Result<u64, Errno> {
    if t.sec < 0 || !(0..NS as i64).contains(&t.nsec) {
        return Err(Errno::EINVAL);
    }
    Ok((t.sec as u64).saturating_mul(NS).saturating_add(t.nsec as u64))
}

fn from_ns(ns: u64) -> Timespec {
    Timespec { sec: (ns / NS) as i64, nsec: (ns % NS) as i64 }
}

pub fn clock_gettime(a: Args) -> Answer {
    let ns = match a.int(0) {
        clock::REALTIME
        | clock::MONOTONIC
        | clock::MONOTONIC_RAW
        | clock::REALTIME_COARSE
        | clock::MONOTONIC_COARSE
        | clock::BOOTTIME => timer::now_ns(),
        clock::THREAD_CPUTIME_ID => {
            sched::charge_current();
            current().time.spent().total()
        }
        clock::PROCESS_CPUTIME_ID => process_time().total(),
        _ => return Err(Errno::EINVAL),
    };
    uaccess::put(a.addr(1), &from_ns(ns))?;
    Ok(0)
}

/// CPU time of the calling process, all threads.
pub fn process_time() -> Spent {
    sched::charge_current();
    TABLE.lock().cpu_time(current().process())
}

pub fn clock_getres(a: Args) -> Answer {
    if !(clock::REALTIME..=clock::BOOTTIME).contains(&a.int(0)) {
        return Err(Errno::EINVAL);
    }
    if let Some(at) = a.opt_addr(1) {
        uaccess::put(at, &from_ns(timer::to_ns(1).max(1)))?;
    }
    Ok(0)
}

pub fn gettimeofday(a: Args) -> Answer {
    if let Some(at) = a.opt_addr(0) {
        let t = from_ns(timer::now_ns());
        uaccess::put(at, &Timeval { sec: t.sec, usec: t.nsec / 1000 })?;
    }
    if let Some(at) = a.opt_addr(1) {
        uaccess::put(at, &[0i32; 2])?;
    }
    Ok(0)
}

pub fn nanosleep(a: Args) -> Answer {
    let span = to_ns(uaccess::get(a.addr(0))?)?;
    sleep(timer::now_ns().saturating_add(span), a.opt_addr(1))
}

pub fn clock_nanosleep(a: Args) -> Answer {
    match a.int(0) {
        clock::REALTIME | clock::MONOTONIC | clock::BOOTTIME => {}
        clock::PROCESS_CPUTIME_ID => return Err(Errno::EOPNOTSUPP),
        _ => return Err(Errno::EINVAL),
    }
    let time = to_ns(uaccess::get(a.addr(2))?)?;
    match a.uint(1) {
        0 => sleep(timer::now_ns().saturating_add(time), a.opt_addr(3)),
        clock::TIMER_ABSTIME => sleep(time, None),
        _ => Err(Errno::EINVAL),
    }
}

/// Sleeps until `deadline`; when cut short, what is left goes to `rest`.
fn sleep(deadline: u64, rest: Option<UserAddr>) -> Answer {
    let result = wait::sleep_until(deadline);
    if result.is_err()
        && let Some(at) = rest
    {
        uaccess::put(at, &from_ns(deadline.saturating_sub(timer::now_ns())))?;
    }
    result.map(|()| 0)
}
