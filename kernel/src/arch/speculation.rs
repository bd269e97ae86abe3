//! Numbers that programs choose, as indices of the kernel's tables.
//!
//! A CPU that guesses that a bounds check will pass reads beyond the table before it knows better, and what it read
//! chooses which cache line it touches next: a program learns the kernel's memory so (Spectre variant 1,
//! CVE-2017-5753). So the number that a table is read at goes through [`bounded`]: whatever the CPU guesses, the index that
//! it reads with is one of the table.
//!
//! Not for what a program can read anyway, nor for addresses in its own half: the copy routines reach those with its own
//! rights (LDTR, STTR), which hold on guessed paths too.

use core::arch::asm;

/// `index` if it is below `len`. On a path that the CPU takes by a wrong guess it is 0.
#[inline(always)]
pub fn bounded(index: usize, len: usize) -> Option<usize> {
    if index >= len {
        return None;
    }
    let masked: usize;
    // SAFETY: a comparison and a choice. CSDB keeps the choice from being guessed (Arm, "Cache Speculation
    // Side-channels", 3.2); it is a hint that older CPUs, which choose by what is, take as a NOP.
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
