//! GFP flags: requirements of the caller, its context, and common combinations.

use bitflags::bitflags;

use crate::buddy::{List, MigrateType};
use crate::zone::ZoneKind;

bitflags! {
    /// How to get free pages.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Gfp: u32 {
        // Zone and mobility. `zone` and `migrate_type` rely on the order of the first five; the slab allocator's fast
        // path tests for the first eight at once.
        /// Only zone DMA, which the most restricted device can reach.
        const DMA = 1 << 0;
        /// The kernel needs no mapping of it. There is no HIGHMEM zone on 64 bits: with MOVABLE, this permits zone
        /// MOVABLE.
        const HIGHMEM = 1 << 1;
        /// Below 4 GiB.
        const DMA32 = 1 << 2;
        /// Can be moved by migration: goes to movable page blocks, and may use CMA's.
        const MOVABLE = 1 << 3;
        /// A shrinker can free it: goes to reclaimable page blocks.
        const RECLAIMABLE = 1 << 4;

        // Properties of the block.
        /// Filled with zeros.
        const ZERO = 1 << 5;
        /// Only from the caller's node; the OOM killer is not used. NOFAIL overrides it.
        const THISNODE = 1 << 6;
        /// The block is one compound page, as its head records (for reverse mapping of large pages later).
        const COMP = 1 << 7;

        // Behaviour.
        /// Urgent: may go below the min watermark.
        const HIGH = 1 << 8;
        /// Reclaim may start I/O (takes effect with write-back and swap).
        const IO = 1 << 9;
        /// Reclaim may call into a file system (takes effect with the page cache); required for the OOM killer.
        const FS = 1 << 10;
        /// The caller may wait: shrinkers run on its behalf.
        const DIRECT_RECLAIM = 1 << 11;
        /// Wakes background reclaim below the low watermark.
        const KSWAPD_RECLAIM = 1 << 12;
        /// No message in the log if it fails.
        const NOWARN = 1 << 13;
        /// Retries as long as reclaim frees anything, for large blocks too, but neither kills nor waits for ever.
        const RETRY_MAYFAIL = 1 << 14;
        /// Never fails, and may use the OOM killer: only for callers that can wait, hold no lock, and allocate order 0
        /// or 1; otherwise it has no effect.
        const NOFAIL = 1 << 15;
        /// At most one round of reclaim; for callers that cannot wait, the per-CPU lists are not drained either.
        const NORETRY = 1 << 16;
        /// The caller frees memory with it soon: no watermark holds it back.
        const MEMALLOC = 1 << 17;
        /// The watermarks always apply; overrides MEMALLOC.
        const NOMEMALLOC = 1 << 18;
        /// Charged to the caller's control group (takes effect with memory control groups).
        const ACCOUNT = 1 << 19;
        /// Both ways of reclaim.
        const RECLAIM = Self::DIRECT_RECLAIM.bits() | Self::KSWAPD_RECLAIM.bits();

        // Combinations.
        /// Cannot wait, and is urgent: interrupt handlers.
        const ATOMIC = Self::HIGH.bits() | Self::KSWAPD_RECLAIM.bits();
        /// The usual flags for the kernel's own memory.
        const KERNEL = Self::RECLAIM.bits() | Self::IO.bits() | Self::FS.bits();
        /// The kernel's memory on a process's behalf.
        const KERNEL_ACCOUNT = Self::KERNEL.bits() | Self::ACCOUNT.bits();
        /// Cannot wait, and failure is acceptable.
        const NOWAIT = Self::KSWAPD_RECLAIM.bits() | Self::NOWARN.bits();
        /// May wait, but not for I/O.
        const NOIO = Self::RECLAIM.bits();
        /// May wait, but not for a file system.
        const NOFS = Self::RECLAIM.bits() | Self::IO.bits();
        /// A process's memory that the kernel or a device accesses too.
        const USER = Self::KERNEL.bits();
        /// A process's memory for which the kernel needs no mapping.
        const HIGHUSER = Self::USER.bits() | Self::HIGHMEM.bits();
        /// A process's memory that can move.
        const HIGHUSER_MOVABLE = Self::HIGHUSER.bits() | Self::MOVABLE.bits();
    }
}

/// For each combination of the low four bits, the highest zone, in two bits.
const ZONES: u32 = {
    let mut table = 0;
    let mut bits = 0;
    while bits < 16 {
        let zone = if bits & Gfp::DMA.bits() != 0 {
            ZoneKind::Dma
        } else if bits & Gfp::DMA32.bits() != 0 {
            ZoneKind::Dma32
        } else if bits & Gfp::MOVABLE.bits() != 0 && bits & Gfp::HIGHMEM.bits() != 0 {
            ZoneKind::Movable
        } else {
            ZoneKind::Normal
        };
        table |= (zone as u32) << (2 * bits);
        bits += 1;
    }
    table
};

impl Gfp {
    /// The highest zone that may serve this, as a [`ZoneKind`]'s number.
    pub(crate) const fn zone(self) -> usize {
        (ZONES >> (2 * self.zone_bits()) & 3) as usize
    }

    /// The migrate type, one of the three that per-CPU lists hold.
    #[inline(always)]
    pub(crate) const fn migrate_type(self) -> MigrateType {
        self.list().migrate_type()
    }

    /// The per-CPU list of that type. Both bits together are invalid, and treated as RECLAIMABLE alone.
    #[inline(always)]
    pub(crate) const fn list(self) -> List {
        List::of_bits(self.bits() >> 3)
    }

    /// The bits that choose the zone.
    #[inline(always)]
    pub(crate) const fn zone_bits(self) -> usize {
        (self.bits() & 15) as usize
    }

    /// Whether the caller may wait.
    pub const fn may_wait(self) -> bool {
        self.contains(Self::DIRECT_RECLAIM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_name_zone_and_migrate_type() {
        let cases = [
            (Gfp::KERNEL, ZoneKind::Normal, MigrateType::Unmovable),
            (Gfp::KERNEL | Gfp::RECLAIMABLE, ZoneKind::Normal, MigrateType::Reclaimable),
            (Gfp::KERNEL | Gfp::DMA, ZoneKind::Dma, MigrateType::Unmovable),
            (Gfp::KERNEL | Gfp::DMA32, ZoneKind::Dma32, MigrateType::Unmovable),
            (Gfp::HIGHUSER, ZoneKind::Normal, MigrateType::Unmovable),
            (Gfp::USER | Gfp::MOVABLE, ZoneKind::Normal, MigrateType::Movable),
            (Gfp::HIGHUSER_MOVABLE, ZoneKind::Movable, MigrateType::Movable),
            (Gfp::HIGHUSER_MOVABLE | Gfp::DMA32, ZoneKind::Dma32, MigrateType::Movable),
        ];
        for (gfp, zone, migrate_type) in cases {
            assert_eq!((gfp.zone(), gfp.migrate_type()), (zone as usize, migrate_type), "{gfp:?}");
        }
    }
}
