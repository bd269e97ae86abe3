//! Registers of the kernel's own few devices, most of them mapped for good. Driver processes map their devices
//! themselves.

use core::ptr::NonNull;

use quire_mm::addr::{PhysAddr, VirtAddr};
use quire_mm::kernel_table::KernelAttrs;
use quire_mm::vmalloc::VmError;
use quire_platform::tree::Region;

use super::vmalloc::VMALLOC;
use crate::board::BOARD;

/// Maps `size` bytes of registers at physical `base`. Memory is refused: the direct map has it with other attributes,
/// which would mismatch (Arm ARM B2.8).
#[track_caller]
pub fn map(base: u64, size: u64) -> Result<NonNull<u8>, VmError> {
    if BOARD.get().touches_memory(&Region { base, size }) {
        return Err(VmError::Invalid);
    }
    // Strict ordering: an interrupt controller must be done with an interrupt when the write has completed, not soon
    // after.
    let va = VMALLOC.ioremap(PhysAddr::new(base as usize), size as usize, KernelAttrs::DEVICE_STRICT)?;
    NonNull::new(core::ptr::with_exposed_provenance_mut(va.get())).ok_or(VmError::NoSpace)
}

/// Unmaps registers.
///
/// # Safety
/// [`map`] made the mapping, and nothing uses it any more.
pub unsafe fn unmap(registers: NonNull<u8>) {
    // SAFETY: the caller's promise. An error only means that there is no such mapping.
    let _ = unsafe { VMALLOC.iounmap(VirtAddr::new(registers.as_ptr().addr())) };
}
