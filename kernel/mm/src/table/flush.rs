//! TLB invalidation for a space: the only place where its ASID is read for that.
//!
//! # Publish, read, invalidate
//! First the stores to the tables are published (DSB): otherwise a walk could bring the invalidated entry back at once.
//! Only then the ASID is read. A space without one has never run, so no TLB has its entries; but it may be run for the
//! first time, or get another ASID after a roll-over, at any moment. [`AsidAllocator::activate`] publishes a new ASID
//! before the CPU walks with it. So one of the two barriers is the later one: either the ASID is seen here, or the new
//! CPU's walker sees the changed entries. Reading the ASID first and publishing afterwards would lose both guarantees.
//!
//! An entry that is not valid, or whose access flag is clear, is in no TLB.
//!
//! [`AsidAllocator::activate`]: crate::asid::AsidAllocator::activate

use crate::addr::{PAGE_SHIFT, UserAddr};
use crate::asid::AsidSlot;
use crate::machine::{Asid, Machine};

/// Up to this many pages are invalidated one by one, beyond that the whole ASID: refilling the process's other TLB
/// entries costs about as much as a few more broadcasts (tiny Linux spends most of a 1 MiB mprotect on single TLBIs;
/// QEMU breaks even at about 8).
pub const FLUSH_BY_PAGE: usize = 8;

/// Publishes changed entries, and invalidates `start..end` of their space on all CPUs, by page or as a whole.
#[inline]
#[cfg_attr(test, track_caller)]
pub fn flush_range<M: Machine>(machine: M, asid: &AsidSlot, start: UserAddr, end: UserAddr) {
    let Some(asid) = publish_and_read(machine, asid) else { return };
    let pages = (end - start) >> PAGE_SHIFT;
    if pages <= FLUSH_BY_PAGE {
        machine.tlb_flush_pages(asid, start.get(), pages);
    } else {
        machine.tlb_flush_asid(asid);
    }
}

/// As [`flush_range`], for the one page at `va`.
#[inline]
#[cfg_attr(test, track_caller)]
pub fn flush_page<M: Machine>(machine: M, asid: &AsidSlot, va: UserAddr) {
    if let Some(asid) = publish_and_read(machine, asid) {
        machine.tlb_flush_pages(asid, va.get(), 1);
    }
}

/// Publishes changed entries, and invalidates all of a space on all CPUs, including cached table entries.
#[cfg_attr(test, track_caller)]
pub fn flush_space<M: Machine>(machine: M, asid: &AsidSlot) {
    if let Some(asid) = publish_and_read(machine, asid) {
        machine.tlb_flush_asid(asid);
    }
}

/// As [`flush_space`], for a space that runs nowhere and never will again, and whose tables nobody has changed since the last
/// invalidation: nothing of it is to be published, and its ASID is what it is.
#[cfg_attr(test, track_caller)]
pub fn flush_dead_space<M: Machine>(machine: M, asid: &AsidSlot) {
    if let Some(asid) = asid.current() {
        machine.tlb_flush_asid(asid);
    }
}

/// In this order.
#[inline(always)]
#[cfg_attr(test, track_caller)]
fn publish_and_read<M: Machine>(machine: M, asid: &AsidSlot) -> Option<Asid> {
    let early = if seeded!(FlushReadsAsidFirst) { Some(asid.current()) } else { None };
    if !seeded!(FlushForgetsPublication) {
        machine.publish_tables();
    }
    early.unwrap_or_else(|| asid.current())
}
