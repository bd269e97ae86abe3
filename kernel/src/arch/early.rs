//! The early tables once more, for a kernel that ends before it has any others.

use core::ptr::NonNull;

use quire_mm::pte::{ENTRIES, MemoryType, Pte, bits, index};

use super::barrier::dsb_ishst;
use super::smp::{image_to_phys, replace_tables};
use crate::vm::layout::FDT_WINDOW;

/// What one entry of the tree's level 2 table covers.
const BLOCK: u64 = 2 << 20;

/// Where registers are shown: a block's distance above the device tree's window.
const WINDOW: usize = FDT_WINDOW + (8 << 20);

const DEVICE_BLOCK: u64 = (MemoryType::Device as u64) << bits::ATTR_SHIFT
    | bits::VALID
    | bits::ACCESSED
    | bits::INNER_SHARE
    | bits::UXN
    | bits::PXN;

unsafe extern "C" {
    static early_l0: u8;
    static mut early_l2_fdt: [Pte; ENTRIES];
}

/// Goes back to the tables that the boot CPU began with, and shows the 2 MiB of registers around physical `base` in
/// them. Answers where `base` is.
///
/// # Safety
/// Boot, before [`super::smp::leave_identity_map`], on the stack in the image; nothing outside the image and the tree
/// is used any more.
pub unsafe fn show_registers(base: u64) -> Option<NonNull<u8>> {
    // SAFETY: boot is alone; the table is in the image, which is mapped writable, and the entry has been empty.
    unsafe { early_l2_fdt[index(WINDOW, 2)] = Pte(base & !(BLOCK - 1) | DEVICE_BLOCK) };
    dsb_ishst();
    replace_tables(image_to_phys((&raw const early_l0).addr()));
    NonNull::new(core::ptr::with_exposed_provenance_mut(WINDOW + (base & (BLOCK - 1)) as usize))
}
