//! Signals.

use quire_abi::Errno;
use quire_abi::flags::sig;
use quire_abi::layout::Sigaction;

use super::{Answer, Args};
use crate::arch::trap::{NO_SYSCALL, TrapFrame};
use crate::arch::{speculation, uaccess};
use crate::task::process::TABLE;
use crate::task::signal::{self, UNBLOCKABLE, bit};
use crate::task::thread::{current, work};
use crate::task::{sigframe, wait};

/// The one size of a signal set.
const SET_SIZE: usize = 8;

fn valid(signal: u32) -> Result<u32, Errno> {
    if signal < sig::COUNT { Ok(signal) } else { Err(Errno::EINVAL) }
}

pub fn kill(a: Args) -> Answer {
    let signal = valid(a.uint(1))?;
    match a.int(0) {
        pid if pid > 0 => {
            let table = TABLE.lock();
            let process = table.process(pid as u32).ok_or(Errno::ESRCH)?;
            if signal != 0 {
                signal::send_to_process(&table, process, signal);
            }
        }
        -1 => {
            let me = current().process().pid;
            if signal::send_to_many(signal, |_, process| process.pid != 1 && process.pid != me) == 0 {
                return Err(Errno::ESRCH);
            }
        }
        group => {
            let own = || TABLE.lock().family(current().process()).pgid;
            let pgid = if group == 0 { own() } else { group.unsigned_abs() };
            if signal::send_to_group(pgid, signal) == 0 {
                return Err(Errno::ESRCH);
            }
        }
    }
    Ok(0)
}

fn kill_thread(pid: Option<u32>, tid: i32, signal: u32) -> Answer {
    let signal = valid(signal)?;
    let tid = u32::try_from(tid).ok().filter(|t| *t > 0).ok_or(Errno::EINVAL)?;
    let table = TABLE.lock();
    let thread = table.thread(tid).ok_or(Errno::ESRCH)?;
    if pid.is_some_and(|pid| thread.process().pid != pid) {
        return Err(Errno::ESRCH);
    }
    if signal != 0 {
        signal::send_to_thread(&table, thread, signal);
    }
    Ok(0)
}

pub fn tkill(a: Args) -> Answer {
    kill_thread(None, a.int(0), a.uint(1))
}

pub fn tgkill(a: Args) -> Answer {
    let pid = u32::try_from(a.int(0)).ok().filter(|p| *p > 0).ok_or(Errno::EINVAL)?;
    kill_thread(Some(pid), a.int(1), a.uint(2))
}

pub fn sigaction(a: Args) -> Answer {
    let signal = a.uint(0);
    if signal == 0 || signal >= sig::COUNT || a.word(3) != SET_SIZE {
        return Err(Errno::EINVAL);
    }
    let new: Option<Sigaction> = a.opt_addr(1).map(uaccess::get).transpose()?;
    if new.is_some() && bit(signal) & UNBLOCKABLE != 0 {
        return Err(Errno::EINVAL);
    }
    let process = current().process();
    let actions = process.actions.lock().clone();
    let old = {
        let mut table = actions.0.lock();
        let action = speculation::get_mut(&mut *table, signal as usize).ok_or(Errno::EINVAL)?;
        let old = *action;
        if let Some(mut new) = new {
            new.mask &= !UNBLOCKABLE;
            *action = new;
        }
        old
    };
    if new.is_some() && signal::is_ignored(process, signal) {
        // What is ignored now and pending is discarded (POSIX).
        process.pending.remove(bit(signal));
        current().signals.lock().pending &= !bit(signal);
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
    let (pending, blocked) = {
        let signals = thread.signals.lock();
        (signals.pending, signals.blocked)
    };
    uaccess::put(a.addr(0), &((pending | thread.process().pending.get()) & blocked))?;
    Ok(0)
}

/// Swaps the mask for as long as a call sleeps; it comes back when a handler has returned, or at once.
pub fn with_mask(mask: u64) {
    let thread = current();
    let mut signals = thread.signals.lock();
    signals.restore = Some(signals.blocked);
    signals.blocked = mask & !UNBLOCKABLE;
    drop(signals);
    thread.set_work(work::SIGNAL);
}

pub fn sigsuspend(a: Args) -> Answer {
    if a.word(1) != SET_SIZE {
        return Err(Errno::EINVAL);
    }
    with_mask(uaccess::get(a.addr(0))?);
    Err(wait::pause())
}

pub fn sigreturn(frame: &mut TrapFrame) -> Answer {
    if sigframe::leave(frame).is_err() {
        signal::force(current(), signal::FaultInfo { signal: sig::SEGV, ..Default::default() });
    }
    frame.syscall = NO_SYSCALL;
    current().set_work(work::SIGNAL);
    // x0 is the interrupted program's.
    Ok(frame.x[0] as usize)
}

pub fn sigaltstack(a: Args, frame: &TrapFrame) -> Answer {
    const ON_STACK: u64 = 1;
    const DISABLE: u64 = 2;
    const MIN: u64 = 5120;
    let thread = current();
    let old = thread.signals.lock().alt_stack;
    let is_on = frame.sp.wrapping_sub(old.0) < old.1;
    let new: Option<[u64; 3]> = a.opt_addr(0).map(uaccess::get).transpose()?;
    if let Some([base, flags, size]) = new {
        if is_on {
            return Err(Errno::EPERM);
        }
        // The upper half of the flags' word is padding.
        let stack = match flags & 0xffff_ffff {
            DISABLE => (0, 0),
            0 | ON_STACK if size < MIN => return Err(Errno::ENOMEM),
            0 | ON_STACK => (base, size),
            _ => return Err(Errno::EINVAL),
        };
        thread.signals.lock().alt_stack = stack;
    }
    if let Some(at) = a.opt_addr(1) {
        let flags = if old.1 == 0 { DISABLE } else { u64::from(is_on) };
        uaccess::put(at, &[old.0, flags, old.1])?;
    }
    Ok(0)
}
