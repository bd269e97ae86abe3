//! The zones that stand in for best zones that have nothing left.
//!
//! Without this every page of a later zone would cost a walk down the zonelist. A batch that the slow path brings from a
//! later zone to a CPU's list comes with a grant: while the CPU's list for the best zone is empty, the fast path takes so
//! many blocks from that list instead. Then the slow path looks at the better zones again. So a zone that has memory again
//! serves each CPU after one more batch at most, and a page that the CPU frees to the best zone serves at once.
//!
//! A CPU's grants are read and written by that CPU, with interrupts masked.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::zone::MAX_ZONES;

use super::Gfp;

/// For each [`Gfp::zone_bits`], a zone's number and, in units of [`BLOCK`], how many blocks it is good for. One cache line.
#[repr(align(64))]
pub(super) struct Fallbacks([AtomicU32; 16]);

/// One block of a grant.
const BLOCK: u32 = 1 << 8;

const _: () = assert!(MAX_ZONES <= BLOCK as usize && size_of::<Fallbacks>() == 64);

impl Fallbacks {
    pub(super) const fn new() -> Self {
        Self([const { AtomicU32::new(0) }; 16])
    }

    /// Uses up one block of the grant for such requests; the zone's number.
    #[inline(always)]
    pub(super) fn spend(&self, gfp: Gfp) -> Option<u8> {
        // SAFETY: the four bits are below 16.
        let grant = unsafe { self.0.get_unchecked(gfp.zone_bits()) };
        let left = grant.load(Relaxed).checked_sub(BLOCK)?;
        grant.store(left, Relaxed);
        Some(left as u8)
    }

    /// Such requests may take `blocks` from this zone, which is of their zonelist.
    pub(super) fn grant(&self, gfp: Gfp, zone: usize, blocks: usize) {
        self.0[gfp.zone_bits()].store(blocks as u32 * BLOCK + zone as u32, Relaxed);
    }
}
