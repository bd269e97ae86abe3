//! This CPU: its number, its interrupt mask, idling.

use core::arch::asm;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64};

/// The head of a CPU's record: what assembly, locks and counters use. Higher floors have more behind it
/// ([`PerCpu`](crate::task::percpu::PerCpu)).
#[repr(C)]
pub struct Head {
    /// The thread that runs here, by the first word of its record: the work that it does before it returns to user mode.
    /// Never null once the CPU runs threads. Assembly reads it.
    pub current: AtomicPtr<AtomicU32>,
    /// Ranks of the spin locks held here (debug builds).
    pub held_ranks: AtomicU64,
    /// The CPU's counters of events, one after the other. Never null.
    pub counters: AtomicPtr<AtomicU64>,
    id: u32,
}

impl Head {
    /// Of CPU `id`, with counters that live for ever.
    pub const fn new(id: u32, counters: *mut AtomicU64) -> Self {
        Self {
            current: AtomicPtr::new(core::ptr::null_mut()),
            held_ranks: AtomicU64::new(0),
            counters: AtomicPtr::new(counters),
            id,
        }
    }

    /// The CPU's number, 0 for the one that booted.
    #[inline(always)]
    pub fn id(&self) -> usize {
        self.id as usize
    }
}

/// Where this CPU's record is. TPIDR_EL1 holds its address from the CPU's first Rust instruction on.
#[inline(always)]
pub fn record() -> *const Head {
    let p: *const Head;
    // Not `pure`: a thread may be on another CPU after a switch.
    // SAFETY: reading TPIDR_EL1 has no effect.
    unsafe { asm!("mrs {}, tpidr_el1", out(reg) p, options(nomem, nostack, preserves_flags)) }
    p
}

/// The head of this CPU's record.
#[inline(always)]
pub fn this() -> &'static Head {
    // SAFETY: `set_record` ran before anything else on this CPU, with a record that lives for ever.
    unsafe { &*record() }
}

/// Makes `record` this CPU's own.
///
/// # Safety
/// It lives for ever, and begins what [`percpu::this`](crate::task::percpu::this) takes it for.
pub unsafe fn set_record(record: *const Head) {
    // SAFETY: TPIDR_EL1 is for this.
    unsafe { asm!("msr tpidr_el1, {}", in(reg) record, options(nostack, preserves_flags)) }
}

/// Masks interrupts; returns the former DAIF.
#[inline(always)]
pub fn irq_save() -> usize {
    let daif: usize;
    // SAFETY: masking interrupts is always safe. Memory accesses stay behind it.
    unsafe { asm!("mrs {}, daif", "msr daifset, #2", out(reg) daif, options(nostack, preserves_flags)) }
    daif
}

/// Restores the mask that [`irq_save`] returned.
#[inline(always)]
pub fn irq_restore(daif: usize) {
    // SAFETY: this is the mask that was in force before.
    unsafe { asm!("msr daif, {}", in(reg) daif, options(nostack, preserves_flags)) }
}

/// Whether interrupts are masked.
#[inline(always)]
pub fn irqs_masked() -> bool {
    const I: usize = 1 << 7;
    let daif: usize;
    // SAFETY: reading DAIF has no effect.
    unsafe { asm!("mrs {}, daif", out(reg) daif, options(nomem, nostack, preserves_flags)) }
    daif & I != 0
}

/// Unmasks interrupts.
#[inline(always)]
pub fn irq_enable() {
    // SAFETY: the vectors are installed before anyone calls this.
    unsafe { asm!("msr daifclr, #2", options(nostack, preserves_flags)) }
}

/// Takes the pending interrupts, then masks interrupts again.
#[inline(always)]
pub fn irq_window() {
    irq_enable();
    super::barrier::isb();
    irq_disable();
}

/// Masks interrupts.
#[inline(always)]
pub fn irq_disable() {
    // SAFETY: as `irq_save`.
    unsafe { asm!("msr daifset, #2", options(nostack, preserves_flags)) }
}

/// Sleeps until an interrupt is pending, masked or not.
#[inline(always)]
pub fn wait_for_interrupt() {
    // SAFETY: WFI only waits. The DSB lets stores drain first.
    unsafe { asm!("dsb sy", "wfi", options(nostack, preserves_flags)) }
}

/// A hint to the CPU that this is a spin loop.
#[inline(always)]
pub fn relax() {
    // SAFETY: a hint.
    unsafe { asm!("yield", options(nomem, nostack, preserves_flags)) }
}

/// Wakes CPUs that wait for an event: those in a spin table's loop.
pub fn send_event() {
    // SAFETY: a hint.
    unsafe { asm!("sev", options(nostack, preserves_flags)) }
}

/// Stops this CPU for good.
pub fn park() -> ! {
    irq_disable();
    loop {
        // SAFETY: as above.
        unsafe { asm!("wfi", options(nostack)) }
    }
}

/// The frame pointer, where a backtrace begins.
#[inline(always)]
pub fn frame_pointer() -> usize {
    let fp: usize;
    // SAFETY: reading a register.
    unsafe { asm!("mov {}, x29", out(reg) fp, options(nomem, nostack, preserves_flags)) }
    fp
}
