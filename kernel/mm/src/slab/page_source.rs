//! Where slabs get their pages, and how a pointer leads to the record of its frame.

use crate::addr::{PAGE_SHIFT, Pfn, PhysAddr};
use crate::machine::Machine;
use crate::slab::record::SlabRecord;

bitflags::bitflags! {
    /// How an allocation may behave.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Gfp: u32 {
        /// May sleep for reclaim.
        const DIRECT_RECLAIM = 1 << 0;
        /// The memory is to be zero.
        const ZERO = 1 << 1;
        /// From the wanted node or not at all.
        const THISNODE = 1 << 2;
        /// For process context.
        const KERNEL = 1 << 0;
        /// For contexts that cannot sleep.
        const ATOMIC = 0;
    }
}

/// The most NUMA nodes.
pub const MAX_NODES: usize = 4;

/// A machine with a source of pages.
pub trait PageSource: Machine {
    /// 2^order frames, naturally aligned, physically and in the direct map.
    fn alloc_pages(self, order: u32, gfp: Gfp) -> Option<PhysAddr>;
    /// Gives back what `alloc_pages` answered.
    ///
    /// # Safety
    /// The frames came from `alloc_pages` with this order and nothing uses them any more.
    unsafe fn free_pages(self, addr: PhysAddr, order: u32);
    /// The node of a frame.
    fn node_of(self, pfn: Pfn) -> usize;
    /// The node of this CPU.
    fn local_node(self) -> usize;
}

/// The record of a frame.
#[inline]
pub(super) fn record<M: Machine>(machine: M, pfn: Pfn) -> &'static SlabRecord {
    // SAFETY: the caller has a frame that exists; records are never freed and all their fields are atomics.
    unsafe { &*machine.mem_map().add(pfn.0).cast::<SlabRecord>() }
}

/// The frame of a record.
#[inline]
pub(super) fn pfn_of<M: Machine>(machine: M, record: &SlabRecord) -> Pfn {
    Pfn((&raw const *record as usize - machine.mem_map() as usize) / size_of::<SlabRecord>())
}

/// The record of the frame that a pointer of the direct map points into.
#[inline]
pub(super) fn record_of<M: Machine>(machine: M, ptr: *const u8) -> &'static SlabRecord {
    record(machine, Pfn(machine.direct_map_to_phys(ptr).get() >> PAGE_SHIFT))
}
