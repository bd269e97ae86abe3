//! Table indices that programs choose, bounded under speculation.
//!
//! A CPU that mispredicts a bounds check reads beyond the table, and the value read selects the cache line that it
//! touches next. In this way a program can learn the kernel's memory (Spectre variant 1, CVE-2017-5753). So an index
//! from a program goes through [`bounded`]: even on a mispredicted path the index lies within the table.
//!
//! This is not needed for data that the program can read anyway, nor for addresses in its own half: the copy routines
//! access those with its own rights (LDTR, STTR), which hold on speculative paths too.

use core::arch::asm;

/// Indices that this kernel has bounded, so that the self-test sees which lookups do.
#[cfg(feature = "selftest")]
pub static BOUNDED: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(0);

/// `index` if it is below `len`. On a mispredicted path it is 0.
#[inline(always)]
pub fn bounded(index: usize, len: usize) -> Option<usize> {
    #[cfg(feature = "selftest")]
    BOUNDED.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
    if index >= len {
        return None;
    }
    let masked: usize;
    // SAFETY: a comparison and a select. CSDB keeps the select from being predicted (Arm, "Cache Speculation
    // Side-channels", 3.2); older CPUs, which do not predict selects, execute this hint as a NOP.
    unsafe {
        asm!(
            "cmp {index}, {len}",
            "csel {masked}, {index}, xzr, lo",
            "hint #20",
            index = in(reg) index,
            len = in(reg) len,
            masked = lateout(reg) masked,
            options(pure, nomem, nostack),
        );
    }
    // SAFETY: `masked` is `index` here, which is below `len`. (Said so that nobody checks it again.)
    unsafe { core::hint::assert_unchecked(masked < len) };
    Some(masked)
}

/// The element of a table that a program's number names.
#[inline(always)]
pub fn get<T>(table: &[T], index: usize) -> Option<&T> {
    table.get(bounded(index, table.len())?)
}

/// The element of a table that a program's number names, to change.
#[inline(always)]
pub fn get_mut<T>(table: &mut [T], index: usize) -> Option<&mut T> {
    let index = bounded(index, table.len())?;
    table.get_mut(index)
}
