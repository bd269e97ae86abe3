//! Signals.

use quire_abi::Errno;
use quire_abi::flags::{si, sig};
use quire_abi::layout::{Sigaction, sa};
use quire_mm::UserAddr;

use super::{Answer, Args, time};
use crate::arch::trap::{NO_SYSCALL, TrapFrame};
use crate::arch::{timer, uaccess};
use crate::task::credentials::permit_signal;
use crate::task::entity::work;
use crate::task::posix_timer;
use crate::task::process::{Process, TABLE};
use crate::task::sigframe;
use crate::task::signal::{self, Info, UNBLOCKABLE, bit};
use crate::task::thread::current;
use crate::task::wait::{self, Sleep};
use crate::task::walk::Among;

/// The only valid size of a signal set.
pub(super) const SET_SIZE: usize = 8;

pub(super) fn valid(signal: u32) -> Result<u32, Errno> {
    if signal < sig::COUNT { Ok(signal) } else { Err(Errno::EINVAL) }
}

/// The record of a signal from the calling process.
pub(super) fn from_here(signal: u32, code: i32) -> Info {
    let process = current().process();
    Info::of_user(signal, code, process.pid, process.uid())
}

pub fn kill(a: Args) -> Answer {
    let info = from_here(valid(a.uint(1))?, si::USER);
    let me = current().process();
    let sent = match a.int(0) {
        pid if pid > 0 => {
            let table = TABLE.lock();
            let process = table.owner(pid as u32).ok_or(Errno::ESRCH)?;
            permit_signal(&table, process, info.signal)?;
            // A record for which there is no room is dropped, as on Linux.
            signal::send_or_ask(&table, process, &info);
            Ok(())
        }
        -1 => match send_to_permitted(Among::All, &info, |process| process.pid != 1 && process.pid != me.pid) {
            // As on Linux this is not an error if any process was found.
            Err(Errno::EPERM) => Ok(()),
            sent => sent,
        },
        0 => send_to_permitted(Among::Group(me.pgid()), &info, |_| true),
        group => send_to_permitted(Among::Group(group.unsigned_abs()), &info, |_| true),
    };
    sent.map(|()| 0)
}

/// Sends a signal to the members of a group that the caller may signal.
pub(super) fn send_to_group(pgid: u32, info: &Info) -> Result<(), Errno> {
    send_to_permitted(Among::Group(pgid), info, |_| true)
}

/// Sends a signal to those selected processes that the caller may signal. ESRCH if there are none, EPERM if it may
/// signal none of them.
fn send_to_permitted(among: Among, info: &Info, is_meant: impl Fn(&Process) -> bool) -> Result<(), Errno> {
    let mut refused = false;
    let sent = signal::send_to_many(among, info, |table, process| {
        let meant = is_meant(process);
        let permitted = meant && permit_signal(table, process, info.signal).is_ok();
        refused |= meant && !permitted;
        permitted
    });
    match (sent, refused) {
        (0, true) => Err(Errno::EPERM),
        (0, false) => Err(Errno::ESRCH),
        _ => Ok(()),
    }
}

/// Sends a signal to one thread, of the process `pid` if given.
fn send_to_thread(pid: Option<u32>, tid: i32, info: Info) -> Answer {
    let tid = u32::try_from(tid).ok().filter(|t| *t > 0).ok_or(Errno::EINVAL)?;
    let table = TABLE.lock();
    let process = table.owner(tid).ok_or(Errno::ESRCH)?;
    if pid.is_some_and(|pid| process.pid != pid) {
        return Err(Errno::ESRCH);
    }
    permit_signal(&table, process, info.signal)?;
    // A process's first thread keeps its number after it has ended; signals to it are lost.
    let Some(thread) = table.thread(tid).filter(|_| info.signal != 0) else { return Ok(0) };
    if signal::send_to_thread(&table, thread, &info) { Ok(0) } else { Err(Errno::EAGAIN) }
}

fn positive(pid: i32) -> Result<u32, Errno> {
    u32::try_from(pid).ok().filter(|p| *p > 0).ok_or(Errno::EINVAL)
}

pub fn tkill(a: Args) -> Answer {
    send_to_thread(None, a.int(0), from_here(valid(a.uint(1))?, si::TKILL))
}

pub fn tgkill(a: Args) -> Answer {
    let pid = positive(a.int(0))?;
    send_to_thread(Some(pid), a.int(1), from_here(valid(a.uint(2))?, si::TKILL))
}

/// The record of a `*sigqueueinfo` call. EPERM for a record to another process that claims to come from the kernel,
/// `kill` or `tkill`.
fn queued(signal: u32, record: UserAddr, pid: u32) -> Result<Info, Errno> {
    let info = Info::from_user(valid(signal)?, &uaccess::get(record)?)?;
    let is_false = info.code >= 0 || info.code == si::TKILL;
    if is_false && current().process().pid != pid { Err(Errno::EPERM) } else { Ok(info) }
}

pub fn sigqueueinfo(a: Args) -> Answer {
    let info = queued(a.uint(1), a.addr(2), a.uint(0))?;
    let table = TABLE.lock();
    let process = u32::try_from(a.int(0)).ok().and_then(|pid| table.owner(pid)).ok_or(Errno::ESRCH)?;
    permit_signal(&table, process, info.signal)?;
    if signal::send_or_ask(&table, process, &info) { Ok(0) } else { Err(Errno::EAGAIN) }
}

pub fn tgsigqueueinfo(a: Args) -> Answer {
    let info = queued(a.uint(2), a.addr(3), a.uint(0))?;
    send_to_thread(Some(positive(a.int(0))?), a.int(1), info)
}

/// Waits for one of a set of signals, which the caller blocks, and accepts it: returns its number and, if requested,
/// its record. EAGAIN on timeout.
pub fn sigtimedwait(a: Args) -> Answer {
    if a.word(3) != SET_SIZE {
        return Err(Errno::EINVAL);
    }
    let set = uaccess::get::<u64>(a.addr(0))? & !UNBLOCKABLE;
    let deadline = match a.opt_addr(2) {
        Some(at) => Some(timer::now_ns().saturating_add(time::to_ns(uaccess::get(at)?)?)),
        None => None,
    };
    let thread = current();
    let process = thread.process();
    let info = match signal::take_of(thread, process, set) {
        Some(info) => info,
        None => {
            // The signals count as unblocked during the wait, so that their senders wake this thread.
            let blocked = {
                let mut signals = thread.signals.lock();
                let blocked = signals.blocked;
                signals.awaited = set & blocked;
                signals.blocked &= !set;
                blocked
            };
            // A signal that arrived between the last check and the decision to end the sleep has ended it, and is
            // accepted too.
            let result = wait::sleep(Sleep::Interruptible, deadline, || signal::take_of(thread, process, set))
                .or_else(|error| signal::take_of(thread, process, set).ok_or(error));
            let mut signals = thread.signals.lock();
            signals.blocked = blocked;
            signals.awaited = 0;
            drop(signals);
            thread.set_work(work::SIGNAL);
            result.map_err(|e| if e == Errno::ETIMEDOUT { Errno::EAGAIN } else { e })?
        }
    };
    if let Some(at) = a.opt_addr(1) {
        uaccess::put(at, &info.to_user())?;
    }
    Ok(info.signal as usize)
}

pub fn sigaction(a: Args) -> Answer {
    const KNOWN_FLAGS: u64 = sa::NOCLDSTOP
        | sa::NOCLDWAIT
        | sa::SIGINFO
        | sa::RESTORER
        | sa::ONSTACK
        | sa::RESTART
        | sa::NODEFER
        | sa::RESETHAND;
    let signal = a.uint(0);
    if signal == 0 || signal >= sig::COUNT || a.word(3) != SET_SIZE {
        return Err(Errno::EINVAL);
    }
    let new: Option<Sigaction> = a.opt_addr(1).map(uaccess::get).transpose()?;
    if new.is_some() && bit(signal) & UNBLOCKABLE != 0 {
        return Err(Errno::EINVAL);
    }
    let process = current().process();
    let old = {
        let actions = process.actions.lock();
        match new {
            // Programs detect which flags exist by reading the action back.
            Some(new) => {
                let (mask, flags) = (new.mask & !UNBLOCKABLE, new.flags & KNOWN_FLAGS);
                actions.set(signal, Sigaction { mask, flags, ..new })
            }
            None => actions.get(signal),
        }
    };
    if new.is_some() {
        if signal::is_ignored(process, signal) {
            // A pending signal that is now ignored is discarded (POSIX).
            signal::remove_everywhere(process, bit(signal));
        } else {
            posix_timer::heed(process, signal);
        }
    }
    if let Some(at) = a.opt_addr(2) {
        uaccess::put(at, &old)?;
    }
    Ok(0)
}

pub fn sigprocmask(a: Args) -> Answer {
    const BLOCK: u32 = 0;
    const UNBLOCK: u32 = 1;
    const SETMASK: u32 = 2;
    if a.word(3) != SET_SIZE {
        return Err(Errno::EINVAL);
    }
    let set: Option<u64> = a.opt_addr(1).map(uaccess::get).transpose()?;
    let thread = current();
    let old = {
        let mut signals = thread.signals.lock();
        let old = signals.blocked;
        if let Some(set) = set {
            let set = set & !UNBLOCKABLE;
            signals.blocked = match a.uint(0) {
                BLOCK => old | set,
                UNBLOCK => old & !set,
                SETMASK => set,
                _ => return Err(Errno::EINVAL),
            };
        }
        old
    };
    if set.is_some() {
        thread.set_work(work::SIGNAL);
    }
    if let Some(at) = a.opt_addr(2) {
        uaccess::put(at, &old)?;
    }
    Ok(0)
}

pub fn sigpending(a: Args) -> Answer {
    if a.word(1) != SET_SIZE {
        return Err(Errno::EINVAL);
    }
    let thread = current();
    let pending = signal::pending(thread, thread.process());
    let blocked = thread.signals.lock().blocked;
    uaccess::put(a.addr(0), &(pending & blocked))?;
    Ok(0)
}

/// The mask at `addr`, for a call that sleeps with it; `None` for a null address. EINVAL if `size` is not the size of a
/// mask.
pub fn mask_at(addr: Option<UserAddr>, size: usize) -> Result<Option<u64>, Errno> {
    let mask = addr.map(uaccess::get).transpose()?;
    if mask.is_some() && size != SET_SIZE { Err(Errno::EINVAL) } else { Ok(mask) }
}

/// Sleeps with a mask. The old mask is restored at once, unless a signal has ended the sleep: then after the handler.
pub fn sleep_with(mask: Option<u64>, sleep: impl FnOnce() -> Answer) -> Answer {
    if let Some(mask) = mask {
        replace_mask(mask);
    }
    let result = sleep();
    if mask.is_some() && result != Err(Errno::EINTR) {
        restore_mask();
    }
    result
}

/// Replaces the mask while a call sleeps; the old mask is restored when a handler has returned, or by [`restore_mask`].
fn replace_mask(mask: u64) {
    let thread = current();
    let mut signals = thread.signals.lock();
    signals.restore = Some(signals.blocked);
    signals.blocked = mask & !UNBLOCKABLE;
    drop(signals);
    thread.set_work(work::SIGNAL);
}

/// Ends [`replace_mask`] at once: no signal has ended the sleep.
fn restore_mask() {
    let mut signals = current().signals.lock();
    if let Some(mask) = signals.restore.take() {
        signals.blocked = mask;
    }
}

pub fn sigsuspend(a: Args) -> Answer {
    if a.word(1) != SET_SIZE {
        return Err(Errno::EINVAL);
    }
    replace_mask(uaccess::get(a.addr(0))?);
    Err(wait::pause())
}

pub fn sigreturn(frame: &mut TrapFrame) -> Answer {
    if sigframe::leave(frame).is_err() {
        const MAPERR: i32 = 1;
        signal::force(current(), Info::of_fault(sig::SEGV, MAPERR, frame.sp));
    }
    frame.syscall = NO_SYSCALL;
    // Other signals may be deliverable now; and all registers must be loaded from the frame.
    current().set_work(work::SIGNAL);
    // x0 is restored with the interrupted program's registers.
    Ok(frame.x[0] as usize)
}

pub fn sigaltstack(a: Args, frame: &TrapFrame) -> Answer {
    let old = current().signals.lock().alt_stack;
    let new: Option<[u64; 3]> = a.opt_addr(0).map(uaccess::get).transpose()?;
    if let Some(new) = new {
        sigframe::set_alt_stack(new, frame.sp)?;
    }
    if let Some(at) = a.opt_addr(1) {
        uaccess::put(at, &[old.base, sigframe::stack_flags(old, frame.sp), old.size])?;
    }
    Ok(0)
}
