//! TLB maintenance. Every operation here is complete when it returns.
//!
//! The order (Arm ARM D8.13.5, D8.14.1): the entry was changed by a store; DSB ISHST makes the store visible to
//! walkers; TLBI ..IS tells every CPU of the inner shareable domain to invalidate; DSB ISH waits for all of them; ISB
//! where this CPU's own next instructions rely on it. For a process's entries the caller executes the first barrier and
//! reads the ASID after it (`quire_mm::table::flush`).

use core::arch::asm;

use quire_mm::addr::{PAGE_SHIFT, PAGE_SIZE};
use quire_mm::machine::Asid;

use super::barrier::{dsb_ish, dsb_ishst, dsb_nsh, isb};

/// TLBI's operand: VA\[55:12\], with the ASID above.
fn operand(va: usize, asid: u16) -> u64 {
    (va as u64 >> PAGE_SHIFT) & ((1 << 44) - 1) | u64::from(asid) << 48
}

/// Last-level entries of `pages` pages from `start`, one ASID, all CPUs. The caller has published its stores to the
/// tables.
pub fn flush_pages(asid: Asid, start: usize, pages: usize) {
    for i in 0..pages {
        let x = operand(start + i * PAGE_SIZE, asid.0);
        // SAFETY: invalidating a cached translation is always safe; the next walk reads the tables again.
        unsafe { asm!("tlbi vale1is, {}", in(reg) x, options(nostack, preserves_flags)) }
    }
    dsb_ish();
}

/// All entries of one ASID, tables included, all CPUs. The caller has published its stores to the tables.
pub fn flush_asid(asid: Asid) {
    let x = u64::from(asid.0) << 48;
    // SAFETY: as above.
    unsafe { asm!("tlbi aside1is, {}", in(reg) x, options(nostack, preserves_flags)) }
    dsb_ish();
}

/// Everything, all CPUs.
pub fn flush_all() {
    dsb_ishst();
    // SAFETY: as above.
    unsafe { asm!("tlbi vmalle1is", options(nostack, preserves_flags)) }
    dsb_ish();
    isb();
}

/// Everything in this CPU's TLB.
pub fn flush_local() {
    // SAFETY: as above.
    unsafe { asm!("tlbi vmalle1", options(nostack, preserves_flags)) }
    dsb_nsh();
    isb();
}

/// Entries of `pages` kernel pages from `start`, for any ASID, tables included, all CPUs.
pub fn flush_kernel(start: usize, pages: usize) {
    dsb_ishst();
    for i in 0..pages {
        let x = operand(start + i * PAGE_SIZE, 0);
        // SAFETY: as above.
        unsafe { asm!("tlbi vaae1is, {}", in(reg) x, options(nostack, preserves_flags)) }
    }
    dsb_ish();
    isb();
}
