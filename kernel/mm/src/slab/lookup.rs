//! From a pointer to the record of its frame, and back.

use crate::addr::{PAGE_SHIFT, Pfn};
use crate::page::PAGE_RECORD_SHIFT;
use crate::page_alloc::Machine;
use crate::slab::record::SlabRecord;

/// The record of a frame that exists.
#[inline(always)]
pub(super) fn record<M: Machine>(machine: M, pfn: Pfn) -> &'static SlabRecord {
    // SAFETY: callers pass the frame of an object or of a slab, so its record exists; records are never freed, and a
    // `SlabRecord` consists of atomics, for which any bytes are valid.
    unsafe { &*machine.mem_map().add(pfn.0).cast::<SlabRecord>() }
}

/// The frame of a record.
#[inline]
pub(super) fn pfn_of<M: Machine>(machine: M, record: &SlabRecord) -> Pfn {
    Pfn((core::ptr::from_ref(record).addr() - machine.mem_map().addr()) >> PAGE_RECORD_SHIFT)
}

/// The record of the frame that a pointer of the direct map points into.
#[inline(always)]
pub(super) fn record_of<M: Machine>(machine: M, ptr: *const u8) -> &'static SlabRecord {
    record(machine, Pfn(machine.direct_map_to_phys(ptr).get() >> PAGE_SHIFT))
}
