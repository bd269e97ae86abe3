//! Running a program's signal handler, and coming back: Linux's frame layout on AArch64
//! (`arch/arm64/include/uapi/asm/sigcontext.h`), so that handlers find what they know.

use quire_abi::Errno;
use quire_abi::layout::{Pod, sa};
use quire_mm::UserAddr;

use super::signal::{FaultInfo, HandlerAction, UNBLOCKABLE, bit};
use super::thread::current;
use crate::arch::fp::FpState;
use crate::arch::trap::{PSTATE_USER_MASK, TrapFrame};
use crate::arch::uaccess;
use crate::task::startup::SIGRETURN_PAGE;

/// `siginfo_t`: signal, errno, code, then what the code says.
#[derive(Clone, Copy)]
#[repr(C)]
struct SigInfo {
    signal: i32,
    errno: i32,
    code: i32,
    pad: i32,
    addr: u64,
    rest: [u64; 13],
}

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
    x: [u64; 31],
    sp: u64,
    pc: u64,
    pstate: u64,
    align2: u64,
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
const CONTEXT: usize = size_of::<SigInfo>();
const RESERVED: usize = CONTEXT + size_of::<Context>();
const FRAME_RECORD: usize = RESERVED + 4096;
const FRAME: usize = FRAME_RECORD + 16;

// SAFETY: `repr(C)`, integers only, and the assertion below shows that nothing is padding.
unsafe impl Pod for SigInfo {}
// SAFETY: as above.
unsafe impl Pod for Context {}
// SAFETY: as above.
unsafe impl Pod for FpContext {}
const _: () =
    assert!(size_of::<SigInfo>() == 128 && size_of::<Context>() == 176 + 288 && size_of::<FpContext>() == 528);

/// Makes the thread enter the handler of `signal` when it gets to user mode. EFAULT when its stack can't hold the
/// frame.
pub fn enter(frame: &mut TrapFrame, signal: u32, action: &HandlerAction) -> Result<(), Errno> {
    let thread = current();
    let (mask, fault, alt) = {
        let mut signals = thread.signals.lock();
        let mask = signals.restore.take().unwrap_or(signals.blocked);
        (mask, signals.fault, signals.alt_stack)
    };
    let on_alt = frame.sp.wrapping_sub(alt.0) < alt.1;
    let top = if action.flags & sa::ONSTACK != 0 && alt.1 != 0 && !on_alt { alt.0 + alt.1 } else { frame.sp };
    let at = top.checked_sub(FRAME as u64).ok_or(Errno::EFAULT)? & !15;
    let base = UserAddr::new(at as usize);
    let fault = if fault.signal == signal { fault } else { FaultInfo::default() };
    uaccess::put(base + INFO, &info(signal, fault))?;
    uaccess::put(base + CONTEXT, &context(frame, mask, fault, alt))?;
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
    frame.x[30] = if action.flags & sa::RESTORER != 0 { action.restorer } else { SIGRETURN_PAGE as u64 };
    frame.sp = at;
    frame.pc = action.handler;
    let mut signals = thread.signals.lock();
    signals.blocked |= action.mask & !UNBLOCKABLE;
    if action.flags & sa::NODEFER == 0 {
        signals.blocked |= bit(signal);
    }
    signals.fault = FaultInfo::default();
    Ok(())
}

fn info(signal: u32, fault: FaultInfo) -> SigInfo {
    SigInfo { signal: signal as i32, errno: 0, code: fault.code, pad: 0, addr: fault.addr, rest: [0; 13] }
}

fn context(frame: &TrapFrame, mask: u64, fault: FaultInfo, alt: (u64, u64)) -> Context {
    const SS_DISABLE: u64 = 2;
    let flags = if alt.1 == 0 { SS_DISABLE } else { 0 };
    Context {
        flags: 0,
        link: 0,
        stack: [alt.0, flags, alt.1],
        mask,
        unused: [0; 15],
        align: 0,
        fault_address: fault.addr,
        x: frame.x,
        sp: frame.sp,
        pc: frame.pc,
        pstate: frame.pstate,
        align2: 0,
    }
}

/// Undoes [`enter`] with what the handler left in its frame, which is at SP. EFAULT on a bad frame.
pub fn leave(frame: &mut TrapFrame) -> Result<(), Errno> {
    let thread = current();
    let base = UserAddr::new(frame.sp as usize);
    if !base.is_aligned(16) {
        return Err(Errno::EFAULT);
    }
    let saved: Context = uaccess::get(base + CONTEXT)?;
    let head: [i32; 2] = uaccess::get(base + RESERVED)?;
    if head[0] as u32 == FP_MAGIC {
        let record: FpContext = uaccess::get(base + RESERVED)?;
        thread.set_fp_state(&FpState { v: record.v, fpsr: record.fpsr, fpcr: record.fpcr });
    }
    frame.x = saved.x;
    frame.sp = saved.sp;
    frame.pc = saved.pc;
    frame.pstate = saved.pstate & PSTATE_USER_MASK;
    thread.signals.lock().blocked = saved.mask & !UNBLOCKABLE;
    Ok(())
}
