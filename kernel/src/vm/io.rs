//! Registers of the kernel's own few devices, mapped for good: what a driver process uses it maps for itself.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use quire_mm::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use quire_mm::kernel_table::{KernelAttrs, MapError};

use super::kernel_map;
use super::layout::{IO_END, IO_START};

static NEXT: AtomicUsize = AtomicUsize::new(IO_START);

/// Maps `size` bytes of registers at physical `base`, as Device-nGnRnE.
pub fn map(base: u64, size: u64) -> Result<NonNull<u8>, MapError> {
    let base = PhysAddr::new(base as usize);
    let offset = base.page_offset();
    let pages = (offset + size as usize).div_ceil(PAGE_SIZE);
    // A guard page after each.
    let va = NEXT.fetch_add((pages + 1) * PAGE_SIZE, Ordering::Relaxed);
    if va + pages * PAGE_SIZE > IO_END {
        return Err(MapError::NoMemory);
    }
    kernel_map::map(VirtAddr::new(va), base.page_floor(), pages, KernelAttrs::DEVICE)?;
    NonNull::new(core::ptr::with_exposed_provenance_mut(va + offset)).ok_or(MapError::NoMemory)
}
