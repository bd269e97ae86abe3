//! Timers that send signals: timer_create and related calls.

use quire_abi::Errno;
use quire_abi::flags::{clock, sig, sigev};
use quire_abi::layout::{Itimerspec, Sigevent};

use super::timerfd::record;
use super::{Answer, Args, time};
use crate::arch::uaccess;
use crate::task::clock::Base;
use crate::task::credentials::{Privilege, require};
use crate::task::posix_timer::{self, Clock, Notify, Plan, Setting};
use crate::task::thread::current;

/// EINVAL for a clock that does not exist, EOPNOTSUPP for one without timers.
fn clock_of(number: i32) -> Result<Clock, Errno> {
    match number {
        clock::MONOTONIC | clock::BOOTTIME | clock::BOOTTIME_ALARM => Ok(Clock::Time(Base::Monotonic)),
        clock::REALTIME | clock::REALTIME_ALARM | clock::TAI => Ok(Clock::Time(Base::Real)),
        clock::MONOTONIC_RAW | clock::REALTIME_COARSE | clock::MONOTONIC_COARSE => Err(Errno::EOPNOTSUPP),
        number => Ok(Clock::Cpu(time::cpu_clock(number, false)?)),
    }
}

/// As on Linux, `SIGEV_THREAD` is implemented by the C library; here it is a signal to the process.
fn plan_of(clock: Clock, event: &Sigevent) -> Result<Plan, Errno> {
    let notify = match event.notify {
        sigev::SIGNAL | sigev::THREAD => Notify::Process,
        sigev::NONE => Notify::Nobody,
        sigev::THREAD_ID => Notify::Thread(u32::try_from(event.tid).map_err(|_| Errno::EINVAL)?),
        _ => return Err(Errno::EINVAL),
    };
    let is_valid = (1..sig::COUNT as i32).contains(&event.signo);
    if notify != Notify::Nobody && !is_valid {
        return Err(Errno::EINVAL);
    }
    Ok(Plan { clock, notify, signal: event.signo as u32, value: Some(event.value) })
}

pub fn create(a: Args) -> Answer {
    let event: Option<Sigevent> = a.opt_addr(1).map(uaccess::get).transpose()?;
    let clock = clock_of(a.int(0))?;
    if matches!(a.int(0), clock::REALTIME_ALARM | clock::BOOTTIME_ALARM) {
        require(current().process(), Privilege::WakeAlarm)?;
    }
    let plan = match event {
        Some(event) => plan_of(clock, &event)?,
        None => Plan { clock, notify: Notify::Process, signal: sig::ALRM, value: None },
    };
    let id = posix_timer::create(plan)?;
    uaccess::put(a.addr(2), &id).inspect_err(|_| _ = posix_timer::delete(id))?;
    Ok(0)
}

pub fn settime(a: Args) -> Answer {
    // As on Linux, a null pointer to the new setting is EINVAL instead of EFAULT; other flags are ignored.
    let new: Itimerspec = uaccess::get(a.opt_addr(2).ok_or(Errno::EINVAL)?)?;
    let setting = Setting {
        interval: time::to_ns(new.interval)?,
        first: time::to_ns(new.value)?,
        is_absolute: a.uint(1) & clock::TIMER_ABSTIME != 0,
    };
    let old = posix_timer::set(a.uint(0), setting)?;
    if let Some(at) = a.opt_addr(3) {
        uaccess::put(at, &record(old))?;
    }
    Ok(0)
}

pub fn gettime(a: Args) -> Answer {
    uaccess::put(a.addr(1), &record(posix_timer::get(a.uint(0))?))?;
    Ok(0)
}

pub fn getoverrun(a: Args) -> Answer {
    posix_timer::overrun(a.uint(0)).map(|count| count as usize)
}

pub fn delete(a: Args) -> Answer {
    posix_timer::delete(a.uint(0)).map(|()| 0)
}
