//! Timers that are read: timerfd.

use quire_abi::Errno;
use quire_abi::flags::{Open, clock, tfd};
use quire_abi::layout::Itimerspec;
use quire_mm::fallible::KArc;

use super::epoll::install;
use super::file::table;
use super::{Answer, Args, time};
use crate::arch::uaccess;
use crate::ipc::descriptor::{Object, OpenFile};
use crate::ipc::timerfd::{Setting, TimerFd};
use crate::task::clock::Base;
use crate::task::credentials::{Privilege, require};
use crate::task::thread::current;

/// The machine never suspends, so the alarm clocks do not differ from the plain ones. EINVAL for a clock without
/// timers.
fn base_of(number: i32) -> Result<Base, Errno> {
    match number {
        clock::MONOTONIC | clock::BOOTTIME | clock::BOOTTIME_ALARM => Ok(Base::Monotonic),
        clock::REALTIME | clock::REALTIME_ALARM => Ok(Base::Real),
        _ => Err(Errno::EINVAL),
    }
}

pub fn create(a: Args) -> Answer {
    let flags = Open::from_bits_retain(a.uint(1));
    if !(flags - Open::CLOEXEC - Open::NONBLOCK).is_empty() {
        return Err(Errno::EINVAL);
    }
    let base = base_of(a.int(0))?;
    if matches!(a.int(0), clock::REALTIME_ALARM | clock::BOOTTIME_ALARM) {
        require(current().process(), Privilege::WakeAlarm)?;
    }
    install(Object::TimerFd(TimerFd::new(base)?), Open::RDWR | flags & Open::NONBLOCK, flags)
}

fn timer_of(file: &OpenFile) -> Result<&KArc<TimerFd>, Errno> {
    match &file.object {
        Object::TimerFd(timer) => Ok(timer),
        _ => Err(Errno::EINVAL),
    }
}

pub(super) fn record((left, interval): (u64, u64)) -> Itimerspec {
    Itimerspec { interval: time::from_ns(interval), value: time::from_ns(left) }
}

pub fn settime(a: Args) -> Answer {
    let new: Itimerspec = uaccess::get(a.addr(2))?;
    let flags = a.uint(1);
    if flags & !(tfd::ABSTIME | tfd::CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL);
    }
    let setting = Setting {
        first: time::to_ns(new.value)?,
        is_absolute: flags & tfd::ABSTIME != 0,
        interval: time::to_ns(new.interval)?,
        is_cancelled_by_set: flags & tfd::CANCEL_ON_SET != 0,
    };
    let file = table()?.get(a.int(0))?.file;
    let old = timer_of(&file)?.set(setting)?;
    if let Some(at) = a.opt_addr(3) {
        uaccess::put(at, &record(old))?;
    }
    Ok(0)
}

pub fn gettime(a: Args) -> Answer {
    let file = table()?.get(a.int(0))?.file;
    let now = timer_of(&file)?.get();
    uaccess::put(a.addr(1), &record(now))?;
    Ok(0)
}
