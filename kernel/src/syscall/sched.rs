//! futex, yielding, affinity.

use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::layout::Timespec;

use super::{Answer, Args, time};
use crate::arch::{cpu, timer, uaccess};
use crate::ipc::futex;
use crate::task::percpu::{self, PerCpu};
use crate::task::process::TABLE;
use crate::task::sched;
use crate::task::thread::current;

/// Operations and flags of futex(2).
mod op {
    pub const WAIT: u32 = 0;
    pub const WAKE: u32 = 1;
    pub const REQUEUE: u32 = 3;
    pub const CMP_REQUEUE: u32 = 4;
    pub const WAKE_OP: u32 = 5;
    pub const WAIT_BITSET: u32 = 9;
    pub const WAKE_BITSET: u32 = 10;
    pub const PRIVATE: u32 = 128;
    pub const CLOCK_REALTIME: u32 = 256;
}

pub fn futex(a: Args) -> Answer {
    let (word, value) = (a.addr(0), a.uint(2));
    let private = a.uint(1) & op::PRIVATE != 0;
    let on_realtime = a.uint(1) & op::CLOCK_REALTIME != 0;
    let command = a.uint(1) & !(op::PRIVATE | op::CLOCK_REALTIME);
    if on_realtime && command != op::WAIT_BITSET && command != op::WAIT {
        return Err(Errno::ENOSYS);
    }
    let limit = || -> Result<Option<u64>, Errno> {
        let Some(at) = a.opt_addr(3) else { return Ok(None) };
        let time: Timespec = uaccess::get(at)?;
        let ns = time::to_ns(time)?;
        // WAIT's time is a span, WAIT_BITSET's a point.
        Ok(Some(if command == op::WAIT { timer::now_ns().saturating_add(ns) } else { ns }))
    };
    match command {
        op::WAIT => futex::wait(word, value, u32::MAX, limit()?, private).map(|()| 0),
        op::WAIT_BITSET => futex::wait(word, value, a.uint(5), limit()?, private).map(|()| 0),
        op::WAKE => futex::wake(word, value, u32::MAX, private),
        op::WAKE_BITSET => futex::wake(word, value, a.uint(5), private),
        op::REQUEUE => futex::requeue(word, a.addr(4), value, a.uint(3), None, private),
        op::CMP_REQUEUE => futex::requeue(word, a.addr(4), value, a.uint(3), Some(a.uint(5)), private),
        op::WAKE_OP => futex::wake_op(word, a.addr(4), value, a.uint(3), a.uint(5), private),
        _ => Err(Errno::ENOSYS),
    }
}

pub fn sched_yield() -> Answer {
    sched::yield_now();
    Ok(0)
}

fn online_mask() -> u64 {
    percpu::online().map(PerCpu::id).fold(0, |mask, id| mask | 1 << id)
}

pub fn setaffinity(a: Args) -> Answer {
    let len = a.word(1).min(8);
    let mut bytes = [0; 8];
    if uaccess::copy_from_user(&mut bytes[..len], a.addr(2))? != len {
        return Err(Errno::EFAULT);
    }
    let mask = u64::from_le_bytes(bytes) & online_mask();
    if mask == 0 {
        return Err(Errno::EINVAL);
    }
    let tid = a.uint(0);
    if tid == 0 || tid == current().tid() {
        current().affinity.store(mask, Ordering::Relaxed);
        if mask >> cpu::this().id() & 1 == 0 {
            sched::yield_now();
        }
        return Ok(0);
    }
    let table = TABLE.lock();
    let thread = table.thread(tid).ok_or(Errno::ESRCH)?;
    thread.affinity.store(mask, Ordering::Relaxed);
    // If it runs where it may not any more, it moves at its next way to user mode.
    thread.set_work(crate::task::thread::work::RESCHEDULE);
    sched::kick(thread);
    Ok(0)
}

pub fn getaffinity(a: Args) -> Answer {
    if a.word(1) < 8 || !a.word(1).is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let tid = a.uint(0);
    let mask = if tid == 0 {
        current().affinity.load(Ordering::Relaxed)
    } else {
        TABLE.lock().thread(tid).ok_or(Errno::ESRCH)?.affinity.load(Ordering::Relaxed)
    };
    uaccess::put(a.addr(2), &(mask & online_mask()))?;
    Ok(8)
}

pub fn getcpu(a: Args) -> Answer {
    let here = cpu::this();
    if let Some(at) = a.opt_addr(0) {
        uaccess::put(at, &(here.id() as u32))?;
    }
    if let Some(at) = a.opt_addr(1) {
        uaccess::put(at, &here.node.load(Ordering::Relaxed))?;
    }
    Ok(0)
}
