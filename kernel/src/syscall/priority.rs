//! Policies, real-time priorities and nice values, by Linux's rules: which threads a call is about, and whether the
//! caller may change them. There is no SCHED_DEADLINE.

use core::ops::ControlFlow::{Break, Continue};
use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::layout::{SchedAttr, bytes_of, rlimit};
use quire_sched::class::{NICE, PRIORITIES};
use quire_sched::queue::ROUND;
use quire_sched::{Class, Policy};

use super::{Answer, Args, extensible, time};
use crate::arch::uaccess;
use crate::task::credentials::permit_scheduling;
use crate::task::point::{ENTRIES, resched_point};
use crate::task::process::{Process, TABLE};
use crate::task::thread::{Thread, current};
use crate::task::wait::Sleep;
use crate::task::walk::{self, Among};
use crate::task::{balance, sched};

/// In a policy: children start with SCHED_OTHER, and without a priority.
const RESET_ON_FORK: i32 = 0x4000_0000;

/// The same flag in [`SchedAttr::flags`], and Linux's other flags.
mod flag {
    pub const RESET_ON_FORK: u64 = 1;
    pub const KEEP_POLICY: u64 = 8;
    pub const KEEP_PARAMS: u64 = 16;
    pub const KNOWN: u64 = RESET_ON_FORK | KEEP_POLICY | KEEP_PARAMS;
}

fn policy(number: i32) -> Result<Policy, Errno> {
    Ok(match number {
        0 => Policy::Other,
        1 => Policy::Fifo,
        2 => Policy::RoundRobin,
        3 => Policy::Batch,
        5 => Policy::Idle,
        _ => return Err(Errno::EINVAL),
    })
}

fn number(policy: Policy) -> usize {
    match policy {
        Policy::Other => 0,
        Policy::Fifo => 1,
        Policy::RoundRobin => 2,
        Policy::Batch => 3,
        Policy::Idle => 5,
    }
}

/// A thread's class in the format of [`ThreadInfo`](quire_abi::process::ThreadInfo).
pub fn shown(thread: &Thread) -> u32 {
    let class = thread.share.class();
    number(class.policy) as u32 | u32::from(class.nice as u8) << 8 | thread.share.rank() << 16
}

/// Calls `act` with the thread that a call names, 0 for the caller. EINVAL, ESRCH.
fn with_thread<T>(tid: i32, act: impl FnOnce(&Thread) -> Result<T, Errno>) -> Result<T, Errno> {
    let tid = u32::try_from(tid).map_err(|_| Errno::EINVAL)?;
    if tid == 0 { act(current()) } else { act(TABLE.lock().thread(tid).ok_or(Errno::ESRCH)?) }
}

/// The class with this priority. EINVAL if the policy does not have that priority.
fn class(policy: Policy, nice: i8, priority: i32) -> Result<Class, Errno> {
    let class = Class { policy, nice, priority: u8::try_from(priority).map_err(|_| Errno::EINVAL)? };
    let has = if class.is_real_time() { PRIORITIES.contains(&priority) } else { priority == 0 };
    if has { Ok(class) } else { Err(Errno::EINVAL) }
}

/// Whether a process's limits allow this nice value for its threads.
fn limits_allow(process: &Process, nice: i8) -> bool {
    i64::from(20 - i32::from(nice)) <= process.limit(rlimit::NICE).min(i64::MAX as u64) as i64
}

/// EPERM unless the caller may change a thread's class to this one.
fn permit(thread: &Thread, new: Class, reset: bool) -> Result<(), Errno> {
    let (process, old) = (thread.process(), thread.share.class());
    permit_scheduling(process)?;
    let limit = process.limit(rlimit::RTPRIO);
    let asks_for_more = if new.is_real_time() {
        new.policy != old.policy && limit == 0 || new.priority > old.priority && u64::from(new.priority) > limit
    } else {
        new.nice < old.nice && !limits_allow(process, new.nice)
    };
    let leaves_idle = old.policy == Policy::Idle && new.policy != Policy::Idle && !limits_allow(process, old.nice);
    let drops_reset = thread.resets_on_fork.load(Ordering::Relaxed) && !reset;
    let is_more = asks_for_more || leaves_idle || drops_reset;
    let is_privileged = || current().process().credentials.lock().is_privileged();
    if is_more && !is_privileged() { Err(Errno::EPERM) } else { Ok(()) }
}

/// The slices that a program may request, in nanoseconds, as on Linux.
const SLICES: core::ops::RangeInclusive<u64> = 100_000..=100_000_000;

/// Sets a thread's class, and its slice; 0 for the usual one.
fn give(thread: &Thread, class: Class, reset: bool, slice: u64) -> Result<(), Errno> {
    permit(thread, class, reset)?;
    if !class.is_real_time() {
        thread.share.set_slice(if slice == 0 { 0 } else { slice.clamp(*SLICES.start(), *SLICES.end()) });
    }
    thread.resets_on_fork.store(reset, Ordering::Relaxed);
    thread.share.set_class(class);
    balance::place_anew(thread);
    Ok(())
}

pub fn setscheduler(a: Args) -> Answer {
    if a.int(1) < 0 || a.int(0) < 0 || a.opt_addr(2).is_none() {
        return Err(Errno::EINVAL);
    }
    let priority: i32 = uaccess::get(a.addr(2))?;
    let policy = policy(a.int(1) & !RESET_ON_FORK);
    with_thread(a.int(0), |thread| {
        let class = class(policy?, thread.share.class().nice, priority)?;
        give(thread, class, a.int(1) & RESET_ON_FORK != 0, 0)
    })?;
    Ok(0)
}

pub fn setparam(a: Args) -> Answer {
    if a.int(0) < 0 || a.opt_addr(1).is_none() {
        return Err(Errno::EINVAL);
    }
    let priority: i32 = uaccess::get(a.addr(1))?;
    with_thread(a.int(0), |thread| {
        let old = thread.share.class();
        give(thread, class(old.policy, old.nice, priority)?, thread.resets_on_fork.load(Ordering::Relaxed), 0)
    })?;
    Ok(0)
}

pub fn getscheduler(a: Args) -> Answer {
    with_thread(a.int(0), |thread| {
        let reset = if thread.resets_on_fork.load(Ordering::Relaxed) { RESET_ON_FORK as usize } else { 0 };
        Ok(number(thread.share.class().policy) | reset)
    })
}

pub fn getparam(a: Args) -> Answer {
    let at = a.opt_addr(1).ok_or(Errno::EINVAL)?;
    let priority = with_thread(a.int(0), |thread| Ok(thread.share.rank()))?;
    uaccess::put(at, &priority)?;
    Ok(0)
}

/// sched_setattr. E2BIG for a record with unknown fields, after storing the known size; EINVAL.
pub fn setattr(a: Args) -> Answer {
    let at = a.opt_addr(1).filter(|_| a.int(0) >= 0 && a.int(2) == 0).ok_or(Errno::EINVAL)?;
    let size: u32 = uaccess::get(at)?;
    let size = if size == 0 { SchedAttr::FIRST } else { size as usize };
    let read = if size < SchedAttr::FIRST { Err(Errno::E2BIG) } else { extensible::read(at, size) };
    if read == Err(Errno::E2BIG) {
        let _ = uaccess::put(at, &(size_of::<SchedAttr>() as u32));
    }
    let attr = SchedAttr::from_words(read?);
    if attr.flags & !flag::KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let reset = attr.flags & flag::RESET_ON_FORK != 0;
    with_thread(a.int(0), |thread| {
        let old = thread.share.class();
        let keeps = attr.flags & flag::KEEP_POLICY != 0;
        let policy = if keeps { old.policy } else { policy(attr.policy as i32)? };
        if attr.flags & flag::KEEP_PARAMS != 0 {
            let class = class(policy, old.nice, i32::from(old.priority))?;
            return give(thread, class, reset, thread.share.slice(0));
        }
        let priority = i32::try_from(attr.priority).map_err(|_| Errno::EINVAL)?;
        let mut class = class(policy, old.nice, priority)?;
        if !class.is_real_time() {
            class.nice = attr.nice.clamp(*NICE.start(), *NICE.end()) as i8;
        }
        give(thread, class, reset, attr.runtime)
    })?;
    Ok(0)
}

/// sched_getattr: as much of the record as fits.
pub fn getattr(a: Args) -> Answer {
    let (at, size) = (a.opt_addr(1).ok_or(Errno::EINVAL)?, a.uint(2) as usize);
    if a.int(0) < 0 || a.int(3) != 0 || !(SchedAttr::FIRST..=4096).contains(&size) {
        return Err(Errno::EINVAL);
    }
    let size = size.min(size_of::<SchedAttr>());
    let attr = with_thread(a.int(0), |thread| {
        let class = thread.share.class();
        let by_weight = !class.is_real_time();
        Ok(SchedAttr {
            size: size as u32,
            policy: number(class.policy) as u32,
            flags: if thread.resets_on_fork.load(Ordering::Relaxed) { flag::RESET_ON_FORK } else { 0 },
            nice: if by_weight { i32::from(class.nice) } else { 0 },
            priority: thread.share.rank(),
            runtime: if by_weight { thread.share.slice(sched::slice()) } else { 0 },
            ..SchedAttr::default()
        })
    })?;
    uaccess::put_all(at, &bytes_of(&attr)[..size])?;
    Ok(0)
}

/// The limit of a policy's priorities: `of_real_time` for policies with priorities. EINVAL for a policy that Linux does
/// not have.
pub fn priority_bound(a: Args, of_real_time: usize) -> Answer {
    const DEADLINE: i32 = 6;
    match policy(a.int(0)) {
        Ok(Policy::Fifo | Policy::RoundRobin) => Ok(of_real_time),
        Ok(_) => Ok(0),
        Err(_) if a.int(0) == DEADLINE => Ok(0),
        Err(error) => Err(error),
    }
}

/// The time that a thread runs before it is the turn of threads of equal priority; 0 if that is not limited.
pub fn interval(a: Args) -> Answer {
    let ns = with_thread(a.int(0), |thread| {
        Ok(match thread.share.class().policy {
            Policy::Fifo => 0,
            Policy::RoundRobin => ROUND,
            Policy::Other | Policy::Batch | Policy::Idle => thread.share.slice(sched::slice()),
        })
    })?;
    uaccess::put(a.addr(1), &time::from_ns(ns))?;
    Ok(0)
}

/// Visits the threads that getpriority and setpriority name: a thread, those of a process group, or those of a user.
/// EINVAL.
fn each_named(which: u32, who: u32, mut visit: impl FnMut(&Thread)) -> Result<(), Errno> {
    const THREAD: u32 = 0;
    const GROUP: u32 = 1;
    const USER: u32 = 2;
    let own = current().process();
    let (among, user) = match which {
        THREAD if who == 0 => {
            visit(current());
            return Ok(());
        }
        THREAD => {
            TABLE.lock().thread(who).into_iter().for_each(visit);
            return Ok(());
        }
        GROUP => (Among::Group(if who == 0 { own.pgid() } else { who }), None),
        USER => (Among::All, Some(if who == 0 { own.uid() } else { who })),
        _ => return Err(Errno::EINVAL),
    };
    let mut from = 0;
    loop {
        // One process after the other, and of each a few threads at a time: the number of either is not limited.
        let next = walk::each_process_from(among, from, ENTRIES, |_, process| {
            if user.is_none_or(|user| process.uid() == user) { Break(process.clone()) } else { Continue(()) }
        });
        let Some(process) = next else { return Ok(()) };
        from = process.pid + 1;
        let mut tid = 0;
        loop {
            let table = TABLE.lock();
            let mut threads = table.family(&process).threads_from(tid);
            let last = threads.by_ref().take(ENTRIES).inspect(|thread| visit(thread)).last().map(Thread::tid);
            let is_over = threads.next().is_none();
            drop(threads);
            drop(table);
            let _ = resched_point(Sleep::Killable);
            match last {
                Some(last) if !is_over => tid = last + 1,
                _ => break,
            }
        }
    }
}

/// The best nice value, subtracted from 20. EINVAL, ESRCH if there is no thread.
pub fn getpriority(a: Args) -> Answer {
    let mut best = None;
    each_named(a.uint(0), a.uint(1), |thread| {
        let nice = thread.share.class().nice;
        best = Some(best.map_or(nice, |best: i8| best.min(nice)));
    })?;
    best.map(|nice| (20 - i32::from(nice)) as usize).ok_or(Errno::ESRCH)
}

/// EINVAL, ESRCH if there is no thread, EPERM for threads of other users, EACCES for a value that the limits do not
/// allow.
pub fn setpriority(a: Args) -> Answer {
    let nice = a.int(2).clamp(*NICE.start(), *NICE.end()) as i8;
    let mut result = Err(Errno::ESRCH);
    each_named(a.uint(0), a.uint(1), |thread| {
        let one = set_nice(thread, nice);
        if one.is_err() || result == Err(Errno::ESRCH) {
            result = one;
        }
    })?;
    result.map(|()| 0)
}

fn set_nice(thread: &Thread, nice: i8) -> Result<(), Errno> {
    permit_scheduling(thread.process())?;
    let class = thread.share.class();
    let is_privileged = || current().process().credentials.lock().is_privileged();
    if nice < class.nice && !limits_allow(thread.process(), nice) && !is_privileged() {
        return Err(Errno::EACCES);
    }
    thread.share.set_class(Class { nice, ..class });
    balance::place_anew(thread);
    Ok(())
}
