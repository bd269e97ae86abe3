//! Device registers for a kernel that stops before it can map any: added to whichever tables are live.

use core::ptr::NonNull;

use aarch64_cpu::registers::{Readable, TTBR1_EL1};
use quire_mm::PhysAddr;
use quire_mm::pte::{ENTRIES, MemoryType, Pte, bits, index};

use super::barrier::{dsb_ishst, isb};
use super::smp::{IMAGE, image_to_phys};
use crate::layout::{FDT_WINDOW, KIMAGE};

/// Bytes that one entry of the tree's level 2 table maps.
const BLOCK: u64 = 2 << 20;

/// Where registers are mapped: blocks at this distance above the device tree's window.
const WINDOW: usize = FDT_WINDOW + (8 << 20);

/// The most blocks: a port, its pins and the firmware's mailbox.
const BLOCKS: usize = 4;

const TABLE: u64 = bits::TABLE | bits::VALID;

const DEVICE_BLOCK: u64 = (MemoryType::Device as u64) << bits::ATTR_SHIFT
    | bits::VALID
    | bits::ACCESSED
    | bits::INNER_SHARE
    | bits::UXN
    | bits::PXN;

unsafe extern "C" {
    static mut early_l2_fdt: [Pte; ENTRIES];
    static __image_start: u8;
    static __image_end: u8;
}

/// Maps the 2 MiB of registers around physical `base`; returns the address of `base`. The early tables have a table for
/// the tree's window; the final ones, whose first two levels above the image are in the image too, get the same table.
/// The mapping stays.
///
/// # Safety
/// Only at boot, on one CPU, or in a kernel that stops; nothing uses the registers of that block through another
/// mapping meanwhile.
pub unsafe fn show_registers(base: u64) -> Option<NonNull<u8>> {
    // SAFETY: the roots of both sets of tables map the image, so a table lies behind the entry; boot is alone.
    unsafe {
        let root = in_image(TTBR1_EL1.get() & bits::ADDR)?;
        let level_1 = in_image((*root)[index(WINDOW, 0)].0 & bits::ADDR)?;
        let slot = &mut (*level_1)[index(WINDOW, 1)];
        if slot.0 & bits::VALID == 0 {
            slot.0 = image_to_phys((&raw const early_l2_fdt).addr()).get() as u64 | TABLE;
        }
    }
    let wanted = Pte(base & !(BLOCK - 1) | DEVICE_BLOCK);
    let first = index(WINDOW, 2);
    // SAFETY: as above; the entries of the window were empty.
    let table = unsafe { (&raw mut early_l2_fdt).as_mut() }?;
    let blocks = &mut table[first..first + BLOCKS];
    let at = blocks.iter().position(|block| *block == wanted || block.0 == 0)?;
    blocks[at] = wanted;
    dsb_ishst();
    isb();
    NonNull::new(core::ptr::with_exposed_provenance_mut(WINDOW + at * BLOCK as usize + (base & (BLOCK - 1)) as usize))
}

/// A table in the image, by its physical address.
fn in_image(table: u64) -> Option<*mut [Pte; ENTRIES]> {
    let image = image_to_phys((&raw const __image_start).addr())..image_to_phys((&raw const __image_end).addr());
    let table = Some(PhysAddr::new(table as usize)).filter(|table| image.contains(table))?;
    Some(core::ptr::with_exposed_provenance_mut(KIMAGE + (table - *IMAGE.get())))
}
