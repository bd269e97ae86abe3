//! Entering a program's signal handler and returning from it, with Linux's frame layout on AArch64
//! (`arch/arm64/include/uapi/asm/sigcontext.h`), which handlers expect.

use core::mem::offset_of;

use quire_abi::Errno;
use quire_abi::layout::{Pod, Siginfo, sa};
use quire_mm::UserAddr;

use super::signal::{AltStack, HandlerAction, Info, ThreadSignals, UNBLOCKABLE, bit};
use super::thread::current;
use crate::arch::fp::FpState;
use crate::arch::trap::{Registers, TrapFrame};
use crate::arch::uaccess;
use crate::task::startup::SIGNAL_FRAME;

/// `ucontext_t` and `struct sigcontext` up to the registers, which are a [`Registers`].
#[derive(Clone, Copy)]
#[repr(C)]
struct Context {
    flags: u64,
    link: u64,
    stack: [u64; 3],
    mask: u64,
    unused: [u64; 15],
    align: u64,
    fault_address: u64,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct FpContext {
    magic: u32,
    size: u32,
    fpsr: u32,
    fpcr: u32,
    v: [u128; 32],
}

const FP_MAGIC: u32 = 0x4650_8001;
const INFO: usize = 0;
const CONTEXT: usize = size_of::<Siginfo>();
const REGISTERS: usize = CONTEXT + size_of::<Context>();
/// (Aligned to 16 bytes.)
const RESERVED: usize = REGISTERS + size_of::<Registers>() + 8;
const FRAME_RECORD: usize = RESERVED + 4096;
const FRAME: usize = FRAME_RECORD + 16;
const _: () = assert!(FRAME.next_multiple_of(16) + 16 == SIGNAL_FRAME, "programs are told how much it is");

// SAFETY: `repr(C)`, integers only, and the assertion below shows that nothing is padding.
unsafe impl Pod for Context {}
// SAFETY: as above.
unsafe impl Pod for FpContext {}
const _: () = assert!(RESERVED - CONTEXT == 176 + 288 && size_of::<FpContext>() == 528);

/// `ss_flags`.
pub mod ss {
    /// The thread runs on it (reported; accepted when set, without effect).
    pub const ONSTACK: u64 = 1;
    /// There is no alternate stack.
    pub const DISABLE: u64 = 2;
    /// The alternate stack is disabled while a handler runs on it.
    pub const AUTODISARM: u64 = 1 << 31;
}

/// Where a handler of the calling process returns to if it has not said so.
fn sigreturn() -> u64 {
    current().process().space.lock().as_ref().map_or(0, |space| space.sigreturn()) as u64
}

/// Makes the thread enter the handler of a signal when it returns to user mode. EFAULT if its stack cannot hold the
/// frame. All addresses come from the program: their sums may wrap, and the copy routines refuse addresses that are out
/// of bounds.
pub fn enter(frame: &mut TrapFrame, info: &Info, action: &HandlerAction) -> Result<(), Errno> {
    let thread = current();
    let signal = info.signal;
    let (mask, fault, alt) = {
        let mut signals = thread.signals.lock();
        let mask = signals.restore.take().unwrap_or(signals.blocked);
        (mask, signals.fault_address, signals.alt_stack)
    };
    let uses_alt = action.flags & sa::ONSTACK != 0 && alt.size != 0 && !alt.holds(frame.sp);
    let top = if uses_alt { alt.base.wrapping_add(alt.size) } else { frame.sp };
    let at = top.checked_sub(FRAME as u64).ok_or(Errno::EFAULT)? & !15;
    let base = UserAddr::new(at as usize);
    uaccess::check(base, FRAME)?;
    uaccess::put(base + INFO, &info.to_user())?;
    uaccess::put(base + CONTEXT, &context(frame.sp, mask, fault, alt))?;
    uaccess::put(base + REGISTERS, frame.registers())?;
    let mut end = RESERVED;
    if let Some(fp) = thread.fp_state() {
        let record =
            FpContext { magic: FP_MAGIC, size: size_of::<FpContext>() as u32, fpsr: fp.fpsr, fpcr: fp.fpcr, v: fp.v };
        uaccess::put(base + end, &record)?;
        end += size_of::<FpContext>();
    }
    uaccess::put(base + end, &[0u64; 2])?;
    uaccess::put(base + FRAME_RECORD, &[frame.x[29], frame.x[30]])?;

    frame.x[0] = u64::from(signal);
    frame.x[1] = at + INFO as u64;
    frame.x[2] = at + CONTEXT as u64;
    frame.x[29] = at + FRAME_RECORD as u64;
    frame.x[30] = if action.flags & sa::RESTORER != 0 { action.restorer } else { sigreturn() };
    frame.sp = at;
    frame.pc = action.handler;
    let mut signals = thread.signals.lock();
    signals.blocked |= action.mask & !UNBLOCKABLE;
    if action.flags & sa::NODEFER == 0 {
        signals.blocked |= bit(signal);
    }
    signals.resume = None;
    if alt.disarms && alt.size != 0 {
        signals.alt_stack = AltStack::default();
    }
    Ok(())
}

/// `ss_flags` for a thread with this stack pointer.
pub fn stack_flags(alt: AltStack, sp: u64) -> u64 {
    let state = match alt.size {
        0 => ss::DISABLE,
        _ if alt.holds(sp) => ss::ONSTACK,
        _ => 0,
    };
    state | if alt.disarms { ss::AUTODISARM } else { 0 }
}

fn context(sp: u64, mask: u64, fault_address: u64, alt: AltStack) -> Context {
    Context {
        flags: 0,
        link: 0,
        stack: [alt.base, stack_flags(alt, sp), alt.size],
        mask,
        unused: [0; 15],
        align: 0,
        fault_address,
    }
}

/// Returns from a handler: restores the state from the frame at SP, which the handler may have changed. EFAULT on a bad
/// frame.
pub fn leave(frame: &mut TrapFrame) -> Result<(), Errno> {
    let thread = current();
    let base = UserAddr::new(frame.sp as usize);
    if !base.is_aligned(16) {
        return Err(Errno::EFAULT);
    }
    uaccess::check(base, FRAME)?;
    let stack: [u64; 3] = uaccess::get(base + CONTEXT + offset_of!(Context, stack))?;
    let mask: u64 = uaccess::get(base + CONTEXT + offset_of!(Context, mask))?;
    let registers: Registers = uaccess::get(base + REGISTERS)?;
    let head: [i32; 2] = uaccess::get(base + RESERVED)?;
    if head[0] as u32 == FP_MAGIC {
        let record: FpContext = uaccess::get(base + RESERVED)?;
        thread.set_fp_state(&FpState { v: record.v, fpsr: record.fpsr, fpcr: record.fpcr });
    }
    frame.set_registers(&registers);
    let mut signals = thread.signals.lock();
    // The handler may have changed the stack in the frame, as by sigaltstack; an invalid one is ignored.
    let _ = change_alt_stack(&mut signals, stack, frame.sp);
    signals.blocked = mask & !UNBLOCKABLE;
    signals.resume = None;
    Ok(())
}

/// Sets the current thread's alternate stack from a `stack_t`: base, flags, size. EPERM while the thread is on one.
pub fn set_alt_stack(wish: [u64; 3], sp: u64) -> Result<(), Errno> {
    change_alt_stack(&mut current().signals.lock(), wish, sp)
}

fn change_alt_stack(signals: &mut ThreadSignals, wish: [u64; 3], sp: u64) -> Result<(), Errno> {
    const LEAST: u64 = 5120;
    let [base, flags, size] = wish;
    if signals.alt_stack.holds(sp) {
        return Err(Errno::EPERM);
    }
    // The upper half of the flags' word is padding.
    let flags = flags & 0xffff_ffff;
    let disarms = flags & ss::AUTODISARM != 0;
    signals.alt_stack = match flags & !ss::AUTODISARM {
        ss::DISABLE => AltStack { base: 0, size: 0, disarms },
        0 | ss::ONSTACK if size < LEAST => return Err(Errno::ENOMEM),
        0 | ss::ONSTACK => AltStack { base, size, disarms },
        _ => return Err(Errno::EINVAL),
    };
    Ok(())
}
