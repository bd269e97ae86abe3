//! Fallback between migrate types, and the reserve for high-order atomic allocations.

use crate::addr::Pfn;
use crate::page::Machine;

use super::pageblock::{MigrateType, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES};
use super::{Frames, FreeArea};

/// For each mobile type, the types it steals from, in order. Unmovable and reclaimable pages prefer each other's
/// blocks, which are useless for large allocations already.
const FALLBACKS: [[MigrateType; 2]; MigrateType::PER_CPU] = [
    [MigrateType::Reclaimable, MigrateType::Movable],
    [MigrateType::Reclaimable, MigrateType::Unmovable],
    [MigrateType::Unmovable, MigrateType::Movable],
];

/// Share of a zone that may be kept for high-order atomic allocations: 1/100.
const HIGH_ATOMIC_DIVISOR: usize = 100;

impl FreeArea {
    /// Takes a block from another type's lists: the largest one, so that stealing is rare. The page block that contains
    /// it changes its type if most of it is free.
    ///
    /// The other free blocks of a page block that changes its type stay on their lists, and join the new ones when they
    /// next merge or are freed: moving them now would be a walk over up to 512 records.
    pub(super) fn steal<M: Machine>(&mut self, frames: Frames<M>, order: u32, thief: MigrateType) -> Option<Pfn> {
        let victims = FALLBACKS[thief as usize];
        let (found, victim) = victims
            .into_iter()
            .filter_map(|victim| Some((self.largest(victim, order)?, victim)))
            .reduce(|best, other| if other.0 > best.0 { other } else { best })?;
        // Movable pages can be moved away later, so they take the smallest block that fits, unless whole page blocks
        // are free.
        let found = match thief {
            MigrateType::Movable if found < PAGEBLOCK_ORDER => self.smallest(victim, order)?,
            _ => found,
        };
        let pfn = self.first(victim, found)?;
        let claimed = claim(frames, pfn, found, thief);
        self.remove(frames, pfn, found);
        frames.page(pfn).make_absent();
        self.split(frames, pfn, found, order, if claimed { thief } else { victim });
        Some(pfn)
    }

    /// For a block that was allocated for `taker` without stealing it from a list: its page blocks change their type as
    /// when stealing.
    pub(crate) fn claim_for<M: Machine>(&mut self, frames: Frames<M>, pfn: Pfn, order: u32, taker: MigrateType) {
        let block = frames.pageblocks.of(pfn);
        let covers = order >= PAGEBLOCK_ORDER || block.free() as usize + (1 << order) >= PAGEBLOCK_PAGES / 2;
        if covers && block.migrate_type().is_mobile() && block.migrate_type() != taker {
            block.set_migrate_type(taker);
            self.move_free_blocks(frames, pfn, taker);
        }
    }

    /// After a high-order atomic allocation was served from `pfn`'s page block: keeps the rest of the block for later
    /// ones, up to a hundredth of the zone.
    pub(crate) fn reserve_high_atomic<M: Machine>(&mut self, frames: Frames<M>, pfn: Pfn, managed: usize) {
        let block = frames.pageblocks.of(pfn);
        let reserved = (self.high_atomic_blocks + 1) * PAGEBLOCK_PAGES;
        if reserved > managed / HIGH_ATOMIC_DIVISOR || !block.migrate_type().is_mobile() {
            return;
        }
        self.high_atomic_blocks += 1;
        block.set_migrate_type(MigrateType::HighAtomic);
        self.move_free_blocks(frames, pfn, MigrateType::HighAtomic);
    }

    /// Under pressure: returns a reserved page block to `list`; `false` if there is none.
    pub(crate) fn unreserve_high_atomic<M: Machine>(&mut self, frames: Frames<M>, list: MigrateType) -> bool {
        let Some(order) = self.largest(MigrateType::HighAtomic, 0) else { return false };
        let Some(pfn) = self.first(MigrateType::HighAtomic, order) else { return false };
        self.high_atomic_blocks -= 1;
        frames.pageblocks.of(pfn).set_migrate_type(list);
        self.move_free_blocks(frames, pfn, list);
        true
    }
}

/// Changes the type of the page blocks under a stolen block: all those that it covers completely, or the one that
/// contains it if at least half of that is free. Returns whether it did.
fn claim<M: Machine>(frames: Frames<M>, pfn: Pfn, order: u32, thief: MigrateType) -> bool {
    if order < PAGEBLOCK_ORDER {
        let block = frames.pageblocks.of(pfn);
        if (block.free() as usize) < PAGEBLOCK_PAGES / 2 || !block.migrate_type().is_mobile() {
            return false;
        }
        block.set_migrate_type(thief);
        return true;
    }
    for i in 0..1 << (order - PAGEBLOCK_ORDER) {
        frames.pageblocks.of(Pfn(pfn.0 + i * PAGEBLOCK_PAGES)).set_migrate_type(thief);
    }
    true
}
