//! What a request's flags mean to the slab allocator.
//!
//! | flag                                     | what becomes of it                                                |
//! | ---------------------------------------- | ----------------------------------------------------------------- |
//! | DMA, DMA32                               | `kmalloc`: whole pages of that zone; a cache must have been made for it |
//! | THISNODE                                 | the object's slab is on the caller's node                         |
//! | ZERO                                     | the object is cleared                                             |
//! | MOVABLE, HIGHMEM, RECLAIMABLE, COMP      | permissions of the caller's that are not used: see [`for_pages`]  |
//! | all others                               | the page allocator gets them when a slab is made                  |
//!
//! A device's buffer shares no page with other objects, as it should share no cache line with what the CPUs write
//! meanwhile. Who needs many small ones makes a cache with [`SlabFlags::DMA`] or [`SlabFlags::DMA32`], whose slabs
//! are of that zone. An object that is asked of a cache whose zone is too high for it is not to be had.
//!
//! [`SlabFlags::DMA`]: super::SlabFlags::DMA
//! [`SlabFlags::DMA32`]: super::SlabFlags::DMA32

use crate::page_alloc::Gfp;
use crate::slab::SlabFlags;

/// What bounds the zone from above.
pub(super) const ZONES: Gfp = Gfp::DMA.union(Gfp::DMA32);

/// What slabs have no use for: no object moves, none has no address, and who reclaims is no matter of one object of many;
/// and a slab's records leave no room for those of a compound page.
const UNUSED: Gfp = Gfp::MOVABLE.union(Gfp::HIGHMEM).union(Gfp::RECLAIMABLE).union(Gfp::COMP);

/// What the fast paths do not know of. They are adjacent bits, which is one instruction's operand.
pub(super) const SPECIAL: Gfp = ZONES.union(UNUSED).union(Gfp::ZERO).union(Gfp::THISNODE);
const _: () = assert!((SPECIAL.bits() + 1).is_power_of_two());

/// How pages are asked for that objects lie in: never as movable, for they would stay for ever in memory that is to
/// be emptied one day.
pub(super) const fn for_pages(gfp: Gfp) -> Gfp {
    gfp.difference(UNUSED.union(Gfp::ZERO))
}

/// How pages are asked for that would be welcome, when there is a smaller need to fall back to: nobody is reclaimed
/// from, killed or waited for, and no reserve touched.
pub(super) const fn wish(gfp: Gfp) -> Gfp {
    let modest = Gfp::NOWARN.union(Gfp::NORETRY).union(Gfp::NOMEMALLOC);
    gfp.difference(Gfp::NOFAIL.union(Gfp::DIRECT_RECLAIM)).union(modest)
}

/// The highest zone that will do, as a [`ZoneKind`]'s number.
///
/// [`ZoneKind`]: crate::zone::ZoneKind
pub(super) const fn zone(gfp: Gfp) -> usize {
    gfp.intersection(ZONES).zone()
}

impl SlabFlags {
    /// The flags that all slabs of a cache are asked for with, besides.
    pub(super) const fn gfp(self) -> Gfp {
        if self.contains(SlabFlags::DMA) {
            Gfp::DMA
        } else if self.contains(SlabFlags::DMA32) {
            Gfp::DMA32
        } else {
            Gfp::empty()
        }
    }

    /// Whether a cache's objects lie low enough for this request.
    pub(super) const fn reaches(self, gfp: Gfp) -> bool {
        zone(self.gfp()) <= zone(gfp)
    }
}
