//! The address space that a CPU has in TTBR0, and keeps alive: an idle CPU leaves it there.

use core::sync::atomic::Ordering;

use quire_mm::fallible::KArc;

use super::percpu::{self, PerCpu};
use crate::arch::{cpu, regs, smp};
use crate::vm::Mm;

/// Loads an address space into TTBR0, unless it is loaded already.
#[inline(always)]
pub fn activate(here: &'static PerCpu, mm: &KArc<Mm>) {
    // SAFETY: `active_mm` is this CPU's, and interrupts are masked.
    let active = unsafe { &mut *here.active_mm.get() };
    if active.as_ref().is_none_or(|a| !KArc::ptr_eq(a, mm)) {
        let ttbr = mm.activate(here.id());
        regs::set_ttbr0(ttbr.table.get() as u64, ttbr.asid.0);
        // If this was the last reference to the old space, its owner has emptied it already (see `Space`).
        *active = Some(mm.clone());
    }
}

/// An idle CPU that was asked to unloads the space in its TTBR0, whose process may have ended.
pub fn let_go(here: &PerCpu) {
    if here.let_go.swap(false, Ordering::SeqCst) {
        leave(|_| true);
    }
}

/// Unloads the space in this CPU's TTBR0, if it matches `which`.
pub fn leave(which: impl FnOnce(&KArc<Mm>) -> bool) {
    let irq = cpu::irq_save();
    let here = percpu::this();
    // SAFETY: `active_mm` is this CPU's, and interrupts are masked.
    let active = unsafe { &mut *here.active_mm.get() };
    let mut old = None;
    if active.as_ref().is_some_and(which) {
        regs::set_ttbr0(smp::empty_table().get() as u64, 0);
        old = active.take();
    }
    cpu::irq_restore(irq);
    drop(old);
}
