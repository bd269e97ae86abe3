//! The virtual counter and its timer. Time in the kernel is nanoseconds since the counter was 0.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

use aarch64_cpu::registers::{CNTFRQ_EL0, CNTV_CTL_EL0, CNTV_CVAL_EL0, Readable, Writeable};

/// Nanoseconds per tick, as a 32.32 fixed-point number; and its inverse. Set once from CNTFRQ_EL0.
static NS_PER_TICK: AtomicU64 = AtomicU64::new(0);
static TICKS_PER_NS: AtomicU64 = AtomicU64::new(0);

/// Reads the counter's frequency. If firmware left the register at 0, 1 GHz is assumed: time is then wrong, but nothing
/// divides by 0.
pub fn init_clock() {
    let hz = match CNTFRQ_EL0.get() {
        0 => 1_000_000_000,
        hz => hz,
    };
    NS_PER_TICK.store(((1_000_000_000u128 << 32) / u128::from(hz)) as u64, Ordering::Relaxed);
    TICKS_PER_NS.store(((u128::from(hz) << 32) / 1_000_000_000) as u64, Ordering::Relaxed);
}

/// The counter. The ISB keeps it from being read early (Arm ARM D12.1.2).
#[inline(always)]
pub fn ticks() -> u64 {
    let t: u64;
    // SAFETY: reading a counter.
    unsafe { asm!("isb", "mrs {}, cntvct_el0", out(reg) t, options(nostack, preserves_flags)) }
    t
}

/// Now, in nanoseconds.
#[inline]
pub fn now_ns() -> u64 {
    to_ns(ticks())
}

/// Ticks as nanoseconds.
#[inline]
pub fn to_ns(ticks: u64) -> u64 {
    ((u128::from(ticks) * u128::from(NS_PER_TICK.load(Ordering::Relaxed))) >> 32) as u64
}

/// The first tick at or after `ns`, saturating.
fn to_ticks(ns: u64) -> u64 {
    let t = ((u128::from(ns) * u128::from(TICKS_PER_NS.load(Ordering::Relaxed))) >> 32) as u64;
    t.saturating_add(1)
}

/// Interrupts this CPU at `ns`, or never with `u64::MAX`.
pub fn set_deadline(ns: u64) {
    if ns == u64::MAX {
        CNTV_CTL_EL0.write(CNTV_CTL_EL0::ENABLE::CLEAR);
    } else {
        CNTV_CVAL_EL0.set(to_ticks(ns));
        CNTV_CTL_EL0.write(CNTV_CTL_EL0::ENABLE::SET + CNTV_CTL_EL0::IMASK::CLEAR);
    }
}
