//! Fallback zones, for when the preferred zone is exhausted.
//!
//! Without this every page of a later zone would cost a walk of the zonelist. When the slow path refills a CPU's list
//! for a later zone, it also grants that many blocks: while the CPU's list for the preferred zone is empty, the fast
//! path takes blocks from the later zone's list instead. Then the slow path checks the better zones again. So a zone
//! that has memory again serves each CPU after at most one more batch, and a page that the CPU frees to the preferred
//! zone is used at once.
//!
//! A CPU's grants are read and written by that CPU, with interrupts masked.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::zone::MAX_ZONES;

use super::Gfp;

/// For each [`Gfp::zone_bits`], a zone's number and, in units of [`BLOCK`], the blocks granted. One cache line.
#[repr(align(64))]
pub(super) struct Fallbacks([AtomicU32; 16]);

/// One block of a grant.
const BLOCK: u32 = 1 << 8;

const _: () = assert!(MAX_ZONES <= BLOCK as usize && size_of::<Fallbacks>() == 64);

impl Fallbacks {
    pub(super) const fn new() -> Self {
        Self([const { AtomicU32::new(0) }; 16])
    }

    /// Uses one block of the grant for such requests; returns the zone's number.
    #[inline(always)]
    pub(super) fn spend(&self, gfp: Gfp) -> Option<u8> {
        // SAFETY: the four bits are below 16.
        let grant = unsafe { self.0.get_unchecked(gfp.zone_bits()) };
        let left = grant.load(Relaxed).checked_sub(BLOCK)?;
        grant.store(left, Relaxed);
        Some(left as u8)
    }

    /// Grants `blocks` of this zone, which is in their zonelist, to such requests.
    pub(super) fn grant(&self, gfp: Gfp, zone: usize, blocks: usize) {
        self.0[gfp.zone_bits()].store(blocks as u32 * BLOCK + zone as u32, Relaxed);
    }
}
