//! Yielding, affinity, policies. There is one policy, `SCHED_OTHER`, in which all threads are alike: others are refused.

use core::ops::ControlFlow::{Break, Continue};
use core::sync::atomic::Ordering;

use quire_abi::Errno;

use super::{Answer, Args, time};
use crate::arch::{cpu, uaccess};
use crate::task::credentials::permit_scheduling;
use crate::task::percpu;
use crate::task::point::ENTRIES;
use crate::task::process::{Process, TABLE};
use crate::task::sched;
use crate::task::thread::current;
use crate::task::walk::{self, Among};

pub fn sched_yield() -> Answer {
    sched::yield_now();
    Ok(0)
}

const OTHER: i32 = 0;
const FIFO: i32 = 1;
const RR: i32 = 2;
const BATCH: i32 = 3;
const IDLE: i32 = 5;

/// The thread that a call names, 0 for the caller. EINVAL, ESRCH.
fn check_thread(tid: i32) -> Result<(), Errno> {
    let tid = u32::try_from(tid).map_err(|_| Errno::EINVAL)?;
    if tid == 0 || TABLE.lock().thread(tid).is_some() { Ok(()) } else { Err(Errno::ESRCH) }
}

/// EINVAL for a policy that there is not, and for a priority that it does not have.
fn check_policy(policy: i32, priority: i32) -> Result<(), Errno> {
    if policy == OTHER && priority == 0 { Ok(()) } else { Err(Errno::EINVAL) }
}

pub fn setscheduler(a: Args) -> Answer {
    /// Children begin anew: here all do.
    const RESET_ON_FORK: i32 = 0x4000_0000;
    if a.int(1) < 0 || a.int(0) < 0 || a.opt_addr(2).is_none() {
        return Err(Errno::EINVAL);
    }
    let priority: u32 = uaccess::get(a.addr(2))?;
    check_thread(a.int(0))?;
    check_policy(a.int(1) & !RESET_ON_FORK, priority as i32)?;
    Ok(0)
}

pub fn setparam(a: Args) -> Answer {
    if a.int(0) < 0 || a.opt_addr(1).is_none() {
        return Err(Errno::EINVAL);
    }
    let priority: u32 = uaccess::get(a.addr(1))?;
    check_thread(a.int(0))?;
    check_policy(OTHER, priority as i32)?;
    Ok(0)
}

pub fn getscheduler(a: Args) -> Answer {
    check_thread(a.int(0))?;
    Ok(OTHER as usize)
}

pub fn getparam(a: Args) -> Answer {
    let at = a.opt_addr(1).ok_or(Errno::EINVAL)?;
    check_thread(a.int(0))?;
    uaccess::put(at, &0u32)?;
    Ok(0)
}

/// The bound of priorities of a policy, `of_real_time` of those of Linux that have some. EINVAL for a policy that Linux has not.
pub fn priority_bound(a: Args, of_real_time: usize) -> Answer {
    const DEADLINE: i32 = 6;
    match a.int(0) {
        FIFO | RR => Ok(of_real_time),
        OTHER | BATCH | IDLE | DEADLINE => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

/// The slice of a thread.
pub fn interval(a: Args) -> Answer {
    check_thread(a.int(0))?;
    uaccess::put(a.addr(1), &time::from_ns(sched::slice()))?;
    Ok(0)
}

/// All are alike: nice 0, which the call answers as 20. EINVAL, ESRCH if there is nobody.
pub fn getpriority(a: Args) -> Answer {
    const PROCESS: u32 = 0;
    const GROUP: u32 = 1;
    const USER: u32 = 2;
    const NICE_0: usize = 20;
    let who = a.uint(1);
    let is_there = match a.uint(0) {
        PROCESS => who == 0 || TABLE.lock().thread(who).is_some(),
        GROUP => who == 0 || TABLE.lock().next_member(who, 0).is_some(),
        USER => {
            let has_one = |process: &Process| if process.uid() == who { Break(()) } else { Continue(()) };
            who == 0 || walk::each_process(Among::All, ENTRIES, |_, process| has_one(process)).is_some()
        }
        _ => return Err(Errno::EINVAL),
    };
    if is_there { Ok(NICE_0) } else { Err(Errno::ESRCH) }
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
