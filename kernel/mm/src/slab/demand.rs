//! The slab allocator's interpretation of GFP flags.
//!
//! | flag                                     | what becomes of it                                                |
//! | ---------------------------------------- | ----------------------------------------------------------------- |
//! | DMA, DMA32                               | `kmalloc`: whole pages of that zone; a cache must have been made for it |
//! | THISNODE                                 | the object's slab is on the caller's node                         |
//! | ZERO                                     | the object is cleared                                             |
//! | MOVABLE, HIGHMEM, RECLAIMABLE, COMP      | permissions of the caller's that are not used: see [`for_pages`]  |
//! | all others                               | the page allocator gets them when a slab is made                  |
//!
//! A device's buffer shares no page with other objects, since it must not share a cache line with data that CPUs write
//! meanwhile. A driver that needs many small ones makes a cache with [`SlabFlags::DMA`] or [`SlabFlags::DMA32`], whose
//! slabs are in that zone. A request to a cache whose zone is too high fails.
//!
//! [`SlabFlags::DMA`]: super::SlabFlags::DMA
//! [`SlabFlags::DMA32`]: super::SlabFlags::DMA32

use crate::page_alloc::Gfp;
use crate::slab::spec::SlabFlags;

/// The flags that limit the zone.
pub(super) const ZONES: Gfp = Gfp::DMA.union(Gfp::DMA32);

/// Flags without meaning for slabs: objects do not move, all have addresses, and reclaim does not work on single
/// objects; and a slab's records leave no room for those of a compound page.
const UNUSED: Gfp = Gfp::MOVABLE.union(Gfp::HIGHMEM).union(Gfp::RECLAIMABLE).union(Gfp::COMP);

/// Flags that the fast paths do not handle. They are adjacent bits, so that one instruction tests them.
pub(super) const SPECIAL: Gfp = ZONES.union(UNUSED).union(Gfp::ZERO).union(Gfp::THISNODE);
const _: () = assert!((SPECIAL.bits() + 1).is_power_of_two());

/// The flags for pages of objects: never movable, since such pages would stay for ever in memory that must be
/// evacuable.
pub(super) const fn for_pages(gfp: Gfp) -> Gfp {
    gfp.difference(UNUSED.union(Gfp::ZERO))
}

/// The flags for optional pages, when a smaller request can follow: no reclaim, no OOM kill, no waiting, and no
/// reserves.
pub(super) const fn wish(gfp: Gfp) -> Gfp {
    let modest = Gfp::NOWARN.union(Gfp::NORETRY).union(Gfp::NOMEMALLOC);
    gfp.difference(Gfp::NOFAIL.union(Gfp::DIRECT_RECLAIM)).union(modest)
}

/// The highest acceptable zone, as a [`ZoneKind`]'s number.
///
/// [`ZoneKind`]: crate::zone::ZoneKind
pub(super) const fn zone(gfp: Gfp) -> usize {
    gfp.intersection(ZONES).zone()
}

impl SlabFlags {
    /// Additional flags for all slabs of a cache.
    pub(super) const fn gfp(self) -> Gfp {
        if self.contains(SlabFlags::DMA) {
            Gfp::DMA
        } else if self.contains(SlabFlags::DMA32) {
            Gfp::DMA32
        } else {
            Gfp::empty()
        }
    }

    /// Whether a cache's objects are in a low enough zone for this request.
    pub(super) const fn reaches(self, gfp: Gfp) -> bool {
        zone(self.gfp()) <= zone(gfp)
    }
}
