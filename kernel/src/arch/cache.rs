//! Cache maintenance by address.

use core::arch::asm;

use super::barrier::{dsb_ish, dsb_sy, isb};

/// CTR_EL0: the properties of this CPU's caches.
fn ctr() -> u64 {
    let ctr: u64;
    // SAFETY: a constant of the CPU.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(pure, nomem, nostack, preserves_flags)) }
    ctr
}

fn data_line() -> usize {
    4 << (ctr() >> 16 & 15)
}

fn instruction_line() -> usize {
    4 << (ctr() & 15)
}

/// Cleans to the point of coherency: so that a CPU with its MMU off, or a device that does not snoop, reads the data
/// written (Arm ARM B2.8).
pub fn clean_to_memory(start: *const u8, len: usize) {
    let line = data_line();
    let mut at = start.addr() & !(line - 1);
    while at < start.addr() + len {
        // SAFETY: DC CVAC writes back a line; it changes no value that an observer of the address sees.
        unsafe { asm!("dc cvac, {}", in(reg) at, options(nostack, preserves_flags)) }
        at += line;
    }
    dsb_sy();
}

/// Cleans to the point of coherency and invalidates, in all CPUs' caches, whatever the attributes of the mapping used.
/// Ordered after all earlier and before all later accesses, as mappings of the same memory with different attributes
/// require (Arm ARM, mismatched memory attributes).
pub fn flush_to_memory(start: *const u8, len: usize) {
    let line = data_line();
    let mut at = start.addr() & !(line - 1);
    // Earlier uncached writes have reached memory.
    dsb_sy();
    while at < start.addr() + len {
        // SAFETY: DC CIVAC writes back and invalidates a line; it changes no value that an observer of the address
        // sees.
        unsafe { asm!("dc civac, {}", in(reg) at, options(nostack, preserves_flags)) }
        at += line;
    }
    dsb_sy();
}

/// Makes instructions written at `start` visible to instruction fetch on all CPUs (Arm ARM B2.7.4.2): clean data to the
/// point of unification, invalidate instructions, each followed by DSB. CTR_EL0.IDC and DIC say which of the two a CPU
/// can do without.
pub fn sync_instructions(start: *const u8, len: usize) {
    let ctr = ctr();
    let (idc, dic) = (ctr >> 28 & 1 == 1, ctr >> 29 & 1 == 1);
    let end = start.addr() + len;
    if !idc {
        let line = data_line();
        let mut at = start.addr() & !(line - 1);
        while at < end {
            // SAFETY: as for DC CVAC.
            unsafe { asm!("dc cvau, {}", in(reg) at, options(nostack, preserves_flags)) }
            at += line;
        }
    }
    dsb_ish();
    if !dic {
        let line = instruction_line();
        let mut at = start.addr() & !(line - 1);
        while at < end {
            // SAFETY: invalidating a cached instruction is safe; it is fetched again.
            unsafe { asm!("ic ivau, {}", in(reg) at, options(nostack, preserves_flags)) }
            at += line;
        }
        dsb_ish();
    }
    isb();
}

/// Fills a page with zeros by DC ZVA where the CPU allows it, a cache line (or more) at a time without reading it
/// first.
pub fn clear_page(page: *mut u8) {
    /// Bytes in a page.
    const PAGE: usize = quire_mm::addr::PAGE_SIZE;
    if zva_is_64() {
        // SAFETY: the caller owns the page; DCZID_EL0 says that each DC ZVA clears 64 aligned bytes of it.
        unsafe {
            asm!(
                "2:",
                ".rept 16",
                "dc zva, {p}",
                "add {p}, {p}, #64",
                ".endr",
                "cmp {p}, {end}",
                "b.lo 2b",
                p = inout(reg) page => _,
                end = in(reg) page.wrapping_add(PAGE),
                options(nostack)
            );
        }
    } else {
        // SAFETY: the caller owns the page.
        unsafe { core::ptr::write_bytes(page, 0, PAGE) }
    }
}

/// Whether DC ZVA is allowed and clears 64 bytes, as on every Cortex-A.
#[inline(always)]
fn zva_is_64() -> bool {
    let dczid: u64;
    // SAFETY: DCZID_EL0 is a constant of the CPU.
    unsafe { asm!("mrs {}, dczid_el0", out(reg) dczid, options(pure, nomem, nostack, preserves_flags)) }
    dczid & 0x1f == 4
}

/// Copies a page, 128 bytes a round. (`memcpy` of the compiler's library moves a word at a time.)
pub fn copy_page(to: *mut u8, from: *const u8) {
    // SAFETY: both are whole pages that the caller may write and read, and they are distinct; the loop covers
    // 32 × 128 bytes of each.
    unsafe {
        asm!(
            "2:",
            "ldp {a}, {b}, [{from}], #128",
            "ldp {c}, {d}, [{from}, #-112]",
            "ldp {e}, {f}, [{from}, #-96]",
            "ldp {g}, {h}, [{from}, #-80]",
            "stp {a}, {b}, [{to}], #128",
            "stp {c}, {d}, [{to}, #-112]",
            "stp {e}, {f}, [{to}, #-96]",
            "stp {g}, {h}, [{to}, #-80]",
            "ldp {a}, {b}, [{from}, #-64]",
            "ldp {c}, {d}, [{from}, #-48]",
            "ldp {e}, {f}, [{from}, #-32]",
            "ldp {g}, {h}, [{from}, #-16]",
            "stp {a}, {b}, [{to}, #-64]",
            "stp {c}, {d}, [{to}, #-48]",
            "stp {e}, {f}, [{to}, #-32]",
            "stp {g}, {h}, [{to}, #-16]",
            "subs {n}, {n}, #1",
            "b.ne 2b",
            n = inout(reg) 32_u64 => _,
            from = inout(reg) from => _,
            to = inout(reg) to => _,
            a = out(reg) _, b = out(reg) _, c = out(reg) _, d = out(reg) _,
            e = out(reg) _, f = out(reg) _, g = out(reg) _, h = out(reg) _,
            options(nostack),
        )
    }
}
