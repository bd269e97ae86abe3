//! Yielding, and CPUs.

use core::sync::atomic::Ordering;

use quire_abi::Errno;

use super::{Answer, Args};
use crate::arch::{cpu, uaccess};
use crate::task::credentials::permit_scheduling;
use crate::task::percpu;
use crate::task::process::TABLE;
use crate::task::sched;
use crate::task::thread::current;

pub fn sched_yield() -> Answer {
    sched::yield_now();
    Ok(0)
}

fn online_mask() -> u64 {
    percpu::online().map(|cpu| cpu.id()).fold(0, |mask, id| mask | 1 << id)
}

pub fn setaffinity(a: Args) -> Answer {
    let len = a.word(1).min(8);
    let mut bytes = [0; 8];
    if uaccess::copy_from_user(&mut bytes[..len], a.addr(2))? != len {
        return Err(Errno::EFAULT);
    }
    let mask = u64::from_le_bytes(bytes) & online_mask();
    let checked = if mask == 0 { Err(Errno::EINVAL) } else { Ok(()) };
    let tid = a.uint(0);
    if tid == 0 || tid == current().tid() {
        checked?;
        current().affinity.store(mask, Ordering::Relaxed);
        if mask >> cpu::this().id() & 1 == 0 {
            sched::yield_now();
        }
        return Ok(0);
    }
    let table = TABLE.lock();
    let thread = table.thread(tid).ok_or(Errno::ESRCH)?;
    permit_scheduling(thread.process())?;
    checked?;
    thread.affinity.store(mask, Ordering::Relaxed);
    // If it runs on a CPU that it may no longer use, it moves on its next return to user mode.
    thread.set_work(crate::task::entity::work::RESCHEDULE);
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
    let here = percpu::this();
    if let Some(at) = a.opt_addr(0) {
        uaccess::put(at, &(here.id() as u32))?;
    }
    if let Some(at) = a.opt_addr(1) {
        uaccess::put(at, &here.node.load(Ordering::Relaxed))?;
    }
    Ok(0)
}
