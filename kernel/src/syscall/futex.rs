//! futex, and the lists of robust ones. Arguments are checked before anything changes, in Linux's order.

use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::flags::futex as op;
use quire_abi::layout::{RobustListHead, Timespec};
use quire_mm::UserAddr;

use super::{Answer, Args, time};
use crate::arch::{timer, uaccess};
use crate::ipc::futex;
use crate::task::clock::Until;
use crate::task::credentials::permit_inspection;
use crate::task::process::TABLE;
use crate::task::signal::Resume;
use crate::task::thread::current;

pub fn futex(a: Args) -> Answer {
    let (word, value) = (a.addr(0), a.uint(2));
    let private = a.uint(1) & op::PRIVATE != 0;
    let command = a.uint(1) & !(op::PRIVATE | op::CLOCK_REALTIME);
    let until = if matches!(command, op::WAIT | op::WAIT_BITSET) { until(a, command)? } else { None };
    // The clock only matters for a point in time.
    if a.uint(1) & op::CLOCK_REALTIME != 0 && command != op::WAIT_BITSET {
        return Err(Errno::ENOSYS);
    }
    match command {
        op::WAIT => wait(word, value, u32::MAX, until, private),
        op::WAIT_BITSET => wait(word, value, a.uint(5), until, private),
        op::WAKE => futex::wake(word, at_least_one(value), u32::MAX, private),
        op::WAKE_BITSET => futex::wake(word, at_least_one(value), a.uint(5), private),
        op::REQUEUE => requeue(a, None, private),
        op::CMP_REQUEUE => requeue(a, Some(a.uint(5)), private),
        op::WAKE_OP => {
            let counts = [value, a.uint(3)].map(at_least_one);
            futex::wake_op(word, a.addr(4), counts, a.uint(5), private)
        }
        _ => Err(Errno::ENOSYS),
    }
}

/// The time of WAIT is relative, that of WAIT_BITSET is absolute.
fn until(a: Args, command: u32) -> Result<Option<Until>, Errno> {
    let Some(at) = a.opt_addr(3) else { return Ok(None) };
    let time: Timespec = uaccess::get(at)?;
    let ns = time::to_ns(time)?;
    Ok(Some(match command {
        op::WAIT => Until::Monotonic(timer::now_ns().saturating_add(ns)),
        _ if a.uint(1) & op::CLOCK_REALTIME != 0 => Until::Real(ns),
        _ => Until::Monotonic(ns),
    }))
}

/// Sleeps on a word. With a deadline, an interrupted sleep may be resumed by `restart_syscall`.
pub fn wait(word: UserAddr, expected: u32, bits: u32, until: Option<Until>, private: bool) -> Answer {
    let result = futex::wait(word, expected, bits, until, private);
    if result == Err(Errno::EINTR)
        && let Some(until) = until
    {
        current().signals.lock().resume = Some(Resume::Futex { word, expected, bits, until, private });
    }
    result.map(|()| 0)
}

/// The count is signed, and Linux compares it after waking: 0 and negative counts wake one.
fn at_least_one(count: u32) -> u32 {
    (count as i32).max(1) as u32
}

fn requeue(a: Args, expected: Option<u32>, private: bool) -> Answer {
    let count = |i: usize| u32::try_from(a.int(i)).map_err(|_| Errno::EINVAL);
    let (woken, moved) = (count(2)?, count(3)?);
    futex::requeue(a.addr(0), a.addr(4), woken, moved, expected, private)
}

pub fn set_robust_list(a: Args) -> Answer {
    if a.word(1) != size_of::<RobustListHead>() {
        return Err(Errno::EINVAL);
    }
    current().robust_list.store(a.word(0), Ordering::Relaxed);
    Ok(0)
}

pub fn get_robust_list(a: Args) -> Answer {
    let head = match a.uint(0) {
        0 => current().robust_list.load(Ordering::Relaxed),
        tid => {
            let table = TABLE.lock();
            let thread = table.thread(tid).ok_or(Errno::ESRCH)?;
            permit_inspection(thread.process())?;
            thread.robust_list.load(Ordering::Relaxed)
        }
    };
    uaccess::put(a.addr(2), &size_of::<RobustListHead>())?;
    uaccess::put(a.addr(1), &head)?;
    Ok(0)
}
