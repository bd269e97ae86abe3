//! Panic reports: the cause, the registers decoded, and a backtrace with names; then the machine stops.

use core::fmt::Write;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::early_port;
use super::log;
use super::log::Raw;
use crate::arch::syndrome::Syndrome;
use crate::arch::trap::TrapFrame;
use crate::arch::{cpu, regs, timer};
use crate::backtrace::callers;
use crate::backtrace::symbols::Named;
use crate::interrupts;
use crate::power;

/// The exit status under `--exec`.
pub const PANIC_STATUS: u32 = 101;

/// PSTATE's exception level; 0 is EL0.
const PSTATE_EL: u64 = 3 << 2;

/// The number of the CPU that panics, plus one: others park, and a nested panic stops at once.
static OWNER: AtomicUsize = AtomicUsize::new(0);

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let here = regs::snapshot();
    begin();
    let at = info.location();
    let _ = match at {
        Some(l) => writeln!(Raw, "kernel panic at {}:{}: {}", l.file(), l.line(), info.message()),
        None => writeln!(Raw, "kernel panic: {}", info.message()),
    };
    registers(&here);
    last_exception();
    backtrace(cpu::frame_pointer());
    end()
}

/// Panics for an exception that the kernel cannot handle.
pub fn exception(frame: &TrapFrame, what: &str, syndrome: Syndrome, far: usize) -> ! {
    begin();
    let _ = writeln!(Raw, "kernel panic: {what}: {syndrome}, address {far:#x}");
    registers(frame);
    let _ = writeln!(Raw, "  at {}", Named(frame.pc as usize));
    backtrace(frame.x[29] as usize);
    end()
}

/// Panics because init has ended.
pub fn init_ended(status: u32) -> ! {
    begin();
    let _ = writeln!(Raw, "kernel panic: init ended with wait status {status:#x}");
    end()
}

fn begin() {
    cpu::irq_disable();
    let me = cpu::this().id() + 1;
    match OWNER.compare_exchange(0, me, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {}
        Err(owner) if owner == me => end(),
        Err(_) => cpu::park(),
    }
    interrupts::stop_others();
    early_port::open();
    log::drain();
    let now = timer::now_ns() / 1000;
    let _ = write!(Raw, "[{:5}.{:06}] CPU {} ", now / 1_000_000, now % 1_000_000, me - 1);
}

fn registers(frame: &TrapFrame) {
    for (i, pair) in frame.x.chunks(2).enumerate() {
        let _ = write!(Raw, "  x{:<2} {:016x}", i * 2, pair[0]);
        let _ = match pair.get(1) {
            Some(v) => writeln!(Raw, "  x{:<2} {v:016x}", i * 2 + 1),
            None => writeln!(Raw, "  sp  {:016x}", frame.sp),
        };
    }
    let _ = writeln!(Raw, "  pc  {:016x}  pstate {:08x}", frame.pc, frame.pstate);
}

/// Prints the exception that brought this CPU into the kernel, if there was one: a program's call or fault, or an
/// interrupt, of which only the pc is meaningful.
fn last_exception() {
    let last = regs::last_exception();
    if last.elr == 0 {
        return;
    }
    let from = if last.spsr & PSTATE_EL == 0 { "a program" } else { "the kernel" };
    let _ = writeln!(
        Raw,
        "  last exception, from {from} at pc {:#x}: {}, address {:#x}",
        last.elr,
        Syndrome(last.esr),
        last.far
    );
}

fn backtrace(fp: usize) {
    for pc in callers(fp).take(64) {
        let _ = writeln!(Raw, "  from {}", Named(pc.wrapping_sub(4)));
    }
}

fn end() -> ! {
    power::stop_after_panic(PANIC_STATUS)
}
