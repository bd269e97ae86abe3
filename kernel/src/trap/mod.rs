//! Exceptions from programs and from the kernel: one path for page faults, one for interrupts, one back to user mode.

pub mod irq;
pub mod spurious;

use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::flags::sig;
use quire_mm::UserAddr;
use quire_mm::addr::USER_END;

use crate::arch::syndrome::{Class, Syndrome};
use crate::arch::trap::TrapFrame;
use crate::arch::{cpu, mmio, uaccess};
use crate::console::panic;
use crate::syscall::restart;
use crate::task::entity::work;
use crate::task::signal::{Disposition, HandlerAction, Info};
use crate::task::thread::current;
use crate::task::wait::Sleep;
use crate::task::{cpu_alarm, exit, freezer, membership, oom, percpu, rseq, sched, sigframe, signal, stop};
use crate::vm::fault::{self, Access, FaultError};

/// PSTATE.I: interrupts were masked, so a spin lock may be held.
const IRQ_MASKED: u64 = 1 << 7;

/// Codes of `siginfo_t` for faults.
mod code {
    pub const SEGV_MAPERR: i32 = 1;
    pub const SEGV_ACCERR: i32 = 2;
    pub const BUS_ADRALN: i32 = 1;
    pub const BUS_ADRERR: i32 = 2;
    pub const BUS_OBJERR: i32 = 3;
    pub const ILL_ILLOPC: i32 = 1;
    pub const TRAP_BRKPT: i32 = 1;
    pub const FPE_FLTINV: i32 = 7;
}

/// A synchronous exception from EL0 other than a system call.
#[unsafe(no_mangle)]
extern "C" fn trap_from_user(frame: &mut TrapFrame, esr: u64, far: usize) {
    let syndrome = Syndrome(esr);
    let far = uaccess::untagged(far);
    let pc = frame.pc;
    let (signal, code, addr, why) = match syndrome.class() {
        Class::DataAbortLower | Class::InstructionAbortLower => match memory_fault(syndrome, far) {
            Ok(()) => return rseq::note(current()),
            Err(e) => {
                let (signal, code) = signal_of(e);
                (signal, code, far as u64, e.reason())
            }
        },
        Class::FpAccess => match enable_fp() {
            Ok(()) => return,
            Err(_) => (sig::KILL, 0, pc, "no memory for its FP registers"),
        },
        Class::PcAlignment => (sig::BUS, code::BUS_ADRALN, far as u64, "misaligned program counter"),
        Class::SpAlignment => (sig::BUS, code::BUS_ADRALN, frame.sp, "misaligned stack pointer"),
        Class::Breakpoint => (sig::TRAP, code::TRAP_BRKPT, pc, "breakpoint"),
        Class::FpException => (sig::FPE, code::FPE_FLTINV, pc, "floating-point exception"),
        _ => (sig::ILL, code::ILL_ILLOPC, pc, "illegal instruction"),
    };
    if signal == sig::KILL && signal::interrupts(current(), Sleep::Killable) {
        // It found no memory since it is to die.
        return;
    }
    report(frame, syndrome, addr, why, signal);
    if signal == sig::KILL {
        signal::end_process(sig::KILL);
    } else {
        signal::force(current(), Info::of_fault(signal, code, addr));
    }
}

/// Gives the calling thread FP registers of its own. Where there is no memory for them, the OOM killer makes some, as for a page.
fn enable_fp() -> Result<(), Errno> {
    loop {
        match current().enable_fp() {
            Err(_) if oom::relieve() => {}
            done => return done,
        }
    }
}

fn memory_fault(syndrome: Syndrome, far: usize) -> Result<(), FaultError> {
    if far >= USER_END {
        return Err(FaultError::Unmapped);
    }
    if !syndrome.is_translation_permission_or_access() {
        return Err(if syndrome.is_alignment() { FaultError::Misaligned } else { FaultError::Hardware });
    }
    let access = if syndrome.class() == Class::InstructionAbortLower {
        Access::Exec
    } else if syndrome.is_write() {
        Access::Write
    } else {
        Access::Read
    };
    let mm = current().mm().ok_or(FaultError::Unmapped)?;
    fault::handle(mm, UserAddr::new(far), access, oom::relieve)
}

fn signal_of(error: FaultError) -> (u32, i32) {
    match error {
        FaultError::Unmapped => (sig::SEGV, code::SEGV_MAPERR),
        FaultError::Protection => (sig::SEGV, code::SEGV_ACCERR),
        FaultError::BeyondObject => (sig::BUS, code::BUS_ADRERR),
        FaultError::Misaligned => (sig::BUS, code::BUS_ADRALN),
        FaultError::Hardware => (sig::BUS, code::BUS_OBJERR),
        FaultError::OutOfMemory => (sig::KILL, 0),
    }
}

/// Logs a line for a fault that will end the program: which program, where and why.
fn report(frame: &TrapFrame, syndrome: Syndrome, addr: u64, why: &str, signal: u32) {
    let thread = current();
    let process = thread.process();
    if let Disposition::Handle(_) = signal::disposition(process, signal) {
        return;
    }
    let name = *process.name.lock();
    let name = name.split(|&b| b == 0).next().unwrap_or(&[]).escape_ascii();
    log::info!(
        "{name}[{}]: {why}: {syndrome} at address {addr:#x}, pc {:#x}, sp {:#x}",
        thread.tid(),
        frame.pc,
        frame.sp
    );
}

/// A synchronous exception from EL1: a user access of the copy routines, a spurious fault, or a bug.
#[unsafe(no_mangle)]
extern "C" fn trap_from_kernel(frame: &mut TrapFrame, esr: u64, far: usize) {
    let syndrome = Syndrome(esr);
    let pc = frame.pc as usize;
    if syndrome.class() == Class::DataAbortSame
        && far < USER_END
        && let Some(fix) = uaccess::fixup(pc, &frame.x)
    {
        if fix.is_now {
            frame.pc = fix.at as u64;
            return;
        }
        let space = current().mm().filter(|_| current().process.is_some());
        let may_sleep = frame.pstate & IRQ_MASKED == 0;
        let access = if syndrome.is_write() { Access::Write } else { Access::Read };
        let served = space
            .filter(|_| syndrome.is_translation_permission_or_access())
            .is_some_and(|mm| fault::handle(mm, UserAddr::new(far), access, || may_sleep && oom::relieve()).is_ok());
        if !served {
            frame.pc = fix.at as u64;
        }
        return;
    }
    if spurious::is_spurious(syndrome, far) || mmio::fix_up(frame, syndrome.class()) {
        return;
    }
    #[cfg(feature = "selftest")]
    if crate::arch::probe::fix_up(frame, syndrome.class()) {
        return;
    }
    panic::exception(frame, "exception in the kernel", syndrome, far);
}

/// An interrupt, from either level. Interrupts are masked, and stay so.
#[unsafe(no_mangle)]
extern "C" fn trap_interrupt() {
    irq::handle();
}

/// An exception that cannot be handled.
#[unsafe(no_mangle)]
extern "C" fn trap_dead(frame: &TrapFrame, what: u64, esr: u64, far: usize) -> ! {
    let what = match what {
        1 => "FIQ",
        2 => "SError: an access that failed after it was made",
        3 => "exception from 32-bit code",
        5 => "kernel stack overflow",
        _ => "exception with the wrong stack",
    };
    panic::exception(frame, what, Syndrome(esr), far)
}

/// Does the thread's pending work before it returns to user mode. Called with interrupts masked and work pending;
/// returns with interrupts masked and none pending.
#[unsafe(no_mangle)]
extern "C" fn trap_before_user(frame: &mut TrapFrame) {
    let thread = current();
    loop {
        let todo = thread.work.load(Ordering::Acquire);
        if todo == 0 {
            return;
        }
        cpu::irq_enable();
        if todo & work::CPU_TIME != 0 {
            thread.clear_work(work::CPU_TIME);
            cpu_alarm::expire();
        }
        if todo & work::ABOVE_HIGH != 0 {
            thread.clear_work(work::ABOVE_HIGH);
            membership::pay_debt();
        }
        if todo & work::SIGNAL != 0 {
            thread.clear_work(work::SIGNAL);
            signals(frame);
        }
        if thread.work.load(Ordering::Relaxed) & work::RESCHEDULE != 0 {
            let switches = || percpu::this().switches.load(Ordering::Relaxed);
            let before = switches();
            sched::schedule();
            // (If the thread has moved, that was noted.)
            if switches() != before {
                rseq::note(thread);
            }
        }
        if thread.work.load(Ordering::Relaxed) & work::RSEQ != 0 {
            thread.clear_work(work::RSEQ);
            rseq::resume(frame);
        }
        cpu::irq_disable();
    }
}

fn signals(frame: &mut TrapFrame) {
    let thread = current();
    let process = thread.process();
    let born = thread.set_child_tid.load(Ordering::Relaxed);
    if born != 0 {
        thread.set_child_tid.store(0, Ordering::Relaxed);
        // As on Linux, a bad address is ignored.
        let _ = uaccess::put(UserAddr::new(born), &thread.tid());
    }
    let mut delivered = false;
    loop {
        leave_if_ending();
        if process.freezer.is_active() {
            freezer::halt(process);
            continue;
        }
        if process.stop.is_active() {
            stop::halt(process);
            continue;
        }
        let continuations = process.stop.continuations();
        let Some(info) = signal::take(thread, process) else { break };
        match signal::disposition(process, info.signal) {
            Disposition::Ignore => {}
            Disposition::Terminate => signal::end_process(info.signal),
            Disposition::Stop => stop::begin(process, info.signal, continuations),
            Disposition::Handle(action) => {
                restart::after_handler(frame, &action);
                handle(frame, &info, &action);
                delivered = true;
            }
        }
    }
    if !delivered {
        restart::without_handler(frame);
        let mut signals = thread.signals.lock();
        if let Some(mask) = signals.restore.take() {
            signals.blocked = mask;
            // What the other mask has kept back may be deliverable now.
            thread.set_work(work::SIGNAL);
        }
    }
}

/// Enters a handler; if its frame does not fit on the stack, delivers that fault instead.
fn handle(frame: &mut TrapFrame, info: &Info, action: &HandlerAction) {
    let process = current().process();
    rseq::before_handler(frame);
    if action.flags & quire_abi::layout::sa::RESETHAND != 0 {
        signal::reset_action(process, info.signal);
    }
    if sigframe::enter(frame, info, action).is_err() {
        if info.signal == sig::SEGV {
            signal::reset_action(process, sig::SEGV);
        }
        signal::force(current(), Info::of_kernel(sig::SEGV));
    }
}

fn leave_if_ending() {
    let thread = current();
    if let Some(status) = thread.process().exit_status() {
        exit::exit_thread(status);
    }
    if signal::is_doomed(thread, thread.process()) {
        exit::exit_thread(0);
    }
}
