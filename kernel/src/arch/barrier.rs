//! Barriers, each with the rule it satisfies.

use core::arch::asm;

/// DSB ISHST: stores before it are complete, for all observers of the inner shareable domain, before anything
/// after it. After writing a table entry: Arm ARM D8.2.7 (a walk observes an entry written before a DSB).
#[inline(always)]
pub fn dsb_ishst() {
    // SAFETY: a barrier changes no memory and no register.
    unsafe { asm!("dsb ishst", options(nostack, preserves_flags)) }
}

/// DSB ISH: loads, stores, TLB and cache maintenance before it are complete in the inner shareable domain. After
/// a TLBI: Arm ARM D8.13.5 (complete when the DSB is).
#[inline(always)]
pub fn dsb_ish() {
    // SAFETY: as above.
    unsafe { asm!("dsb ish", options(nostack, preserves_flags)) }
}

/// DSB NSH: as DSB ISH, for this CPU alone.
#[inline(always)]
pub fn dsb_nsh() {
    // SAFETY: as above.
    unsafe { asm!("dsb nsh", options(nostack, preserves_flags)) }
}

/// DSB SY: as DSB ISH, for the whole system: before a device or a CPU with its MMU off reads memory that this CPU has
/// written.
#[inline(always)]
pub fn dsb_sy() {
    // SAFETY: as above.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) }
}

/// ISB: later instructions are fetched again, in a context that includes all earlier system register writes and
/// completed maintenance (Arm ARM D1.2.3, context synchronisation).
#[inline(always)]
pub fn isb() {
    // SAFETY: as above.
    unsafe { asm!("isb", options(nostack, preserves_flags)) }
}
