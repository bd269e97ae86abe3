//! GFP flags: what a caller needs, what it will put up with, and combinations for common needs.

use bitflags::bitflags;

use crate::buddy::MigrateType;
use crate::pcp::List;
use crate::zone::ZoneKind;

bitflags! {
    /// How to get free pages.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Gfp: u32 {
        // Zone and mobility. The first five are in this order for `zone` and `migrate_type`; the first eight are what the
        // slab allocator's fast path looks for, with one test.
        /// What the weakest device reaches: zone DMA only.
        const DMA = 1 << 0;
        /// The kernel needs no address for it. There is no HIGHMEM zone on 64 bits: with MOVABLE, this opens zone
        /// MOVABLE.
        const HIGHMEM = 1 << 1;
        /// Below 4 GiB.
        const DMA32 = 1 << 2;
        /// Can be moved by migration: goes to movable page blocks, and may use CMA's.
        const MOVABLE = 1 << 3;
        /// A shrinker can give it back: goes to reclaimable page blocks.
        const RECLAIMABLE = 1 << 4;

        // What it is like.
        /// Filled with zeros.
        const ZERO = 1 << 5;
        /// From the caller's node or not at all; nobody is killed for it. NOFAIL wins.
        const THISNODE = 1 << 6;
        /// The block is one compound page: its head says so (reverse mapping of large pages will ask).
        const COMP = 1 << 7;

        // Behaviour.
        /// Urgent: may dip below the min watermark.
        const HIGH = 1 << 8;
        /// Reclaim may start input or output (write-back and swap give this its meaning).
        const IO = 1 << 9;
        /// Reclaim may call into a file system (the page cache gives this its meaning); the OOM killer needs it.
        const FS = 1 << 10;
        /// The caller may wait: shrinkers run on its behalf.
        const DIRECT_RECLAIM = 1 << 11;
        /// Wakes background reclaim below the low watermark (the reclaim floor brings a kswapd to wake; until then the
        /// handler of the kernel does nothing).
        const KSWAPD_RECLAIM = 1 << 12;
        /// No complaint in the log when it fails.
        const NOWARN = 1 << 13;
        /// Tries as long as reclaim frees anything, large blocks too, but neither kills for it nor waits for ever.
        const RETRY_MAYFAIL = 1 << 14;
        /// Never fails, and may have somebody killed for it: for who can wait, holds no lock, and asks for order 0 or 1;
        /// otherwise it has no effect.
        const NOFAIL = 1 << 15;
        /// One round of reclaim, no more; for who cannot wait, not even what other CPUs' lists hold.
        const NORETRY = 1 << 16;
        /// The caller frees memory with it soon: no watermark holds it back.
        const MEMALLOC = 1 << 17;
        /// The watermarks hold whatever else is said; wins over MEMALLOC.
        const NOMEMALLOC = 1 << 18;
        /// Charged to the caller's control group (memory control groups give this its meaning).
        const ACCOUNT = 1 << 19;
        /// Both ways of reclaim.
        const RECLAIM = Self::DIRECT_RECLAIM.bits() | Self::KSWAPD_RECLAIM.bits();

        // Combinations.
        /// Cannot wait, and needs it: interrupt handlers.
        const ATOMIC = Self::HIGH.bits() | Self::KSWAPD_RECLAIM.bits();
        /// The usual for the kernel's own memory.
        const KERNEL = Self::RECLAIM.bits() | Self::IO.bits() | Self::FS.bits();
        /// The kernel's memory on a process's behalf.
        const KERNEL_ACCOUNT = Self::KERNEL.bits() | Self::ACCOUNT.bits();
        /// Cannot wait, and can do without.
        const NOWAIT = Self::KSWAPD_RECLAIM.bits() | Self::NOWARN.bits();
        /// May wait, but not for input or output.
        const NOIO = Self::RECLAIM.bits();
        /// May wait, but not for a file system.
        const NOFS = Self::RECLAIM.bits() | Self::IO.bits();
        /// A process's memory that the kernel or a device accesses too.
        const USER = Self::KERNEL.bits();
        /// A process's memory that the kernel needs no address for.
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

    /// The per-CPU list of that type. Both bits make no sense; it is as if RECLAIMABLE were alone.
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
