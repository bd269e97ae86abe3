//! Which page block is emptied next, and which ones are filled: the emptiest and the fullest, by the free counts of the
//! page blocks' entries; among equal ones the first and the last, respectively. Each choice reads all entries of the
//! zone once or twice.

use crate::addr::Pfn;
use crate::buddy::{MigrateType, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, Pageblock};
use crate::page_alloc::Machine;

use super::super::PageAllocator;

/// The number of entries that are read between two points at which others may run.
const POINT_EVERY: usize = 1024;

/// A page block that is to be emptied.
#[derive(Clone, Copy)]
pub(super) struct Source {
    /// Its first frame.
    pub start: Pfn,
    /// How many of its frames were free.
    pub free: u32,
}

impl Source {
    /// Whether pages of this block may move to that one: it is fuller, or as full and at a higher address. Only to
    /// blocks of movable pages: in others they would take the place of pages that cannot move.
    fn may_fill(self, start: Pfn, block: &Pageblock) -> bool {
        let free = block.free();
        free != 0 && (free, self.start.0) < (self.free, start.0) && block.migrate_type() == MigrateType::Movable
    }
}

/// The best page blocks of a choice, best first.
pub(super) struct Best<const N: usize> {
    found: [(u32, Pfn); N],
    len: usize,
}

impl<const N: usize> Best<N> {
    pub const fn new() -> Self {
        Self { found: [(0, Pfn(0)); N], len: 0 }
    }

    /// Adds a block with this many free frames. Among equal ones the later one is better.
    fn note(&mut self, free: u32, start: Pfn) {
        let at = self.found[..self.len].partition_point(|(other, _)| *other < free);
        if at < N {
            self.len = (self.len + 1).min(N);
            self.found[at..self.len].rotate_right(1);
            self.found[at] = (free, start);
        }
    }

    /// Takes the best one.
    pub fn take(&mut self) -> Option<Pfn> {
        let (_, best) = *self.found[..self.len].first()?;
        self.found[..self.len].rotate_left(1);
        self.len -= 1;
        Some(best)
    }
}

impl<M: Machine> PageAllocator<M> {
    /// The page block with the fewest frames in use, of a type that is wanted and without a mark, if its pages fit into
    /// fuller ones. (If they do not, no other block's do.) `for_part` selects the mark; blocks with more than `most`
    /// free frames are excluded.
    pub(super) fn choose_source(
        &self,
        zone: usize,
        for_part: bool,
        most: usize,
        is_wanted: &dyn Fn(MigrateType) -> bool,
    ) -> Option<Source> {
        let search = self.compaction[zone].search();
        let mut best = Source { start: Pfn(0), free: 0 };
        self.for_each_block(zone, |start, block| {
            let free = block.free();
            let is_free = free as usize == PAGEBLOCK_PAGES;
            if free > best.free
                && free as usize <= most
                && !is_free
                && block.mark(for_part) != search
                && is_wanted(block.migrate_type())
            {
                best = Source { start, free };
            }
        });
        let mut room = 0;
        self.for_each_block(zone, |start, block| {
            if best.may_fill(start, block) {
                room += block.free() as usize;
            }
        });
        let needed = if for_part { 1 } else { PAGEBLOCK_PAGES - best.free as usize };
        (best.free != 0 && room >= needed).then_some(best)
    }

    /// The page blocks with the fewest free frames to which the source's pages may move.
    pub(super) fn choose_targets<const N: usize>(&self, zone: usize, source: Source) -> Best<N> {
        let mut best = Best::new();
        self.for_each_block(zone, |start, block| {
            if source.may_fill(start, block) {
                best.note(block.free(), start);
            }
        });
        best
    }

    fn for_each_block(&self, zone: usize, mut work: impl FnMut(Pfn, &Pageblock)) {
        let (start, spanned) = self.zones[zone].span();
        let first = start.0 >> PAGEBLOCK_ORDER;
        for number in first..(start.0 + spanned).div_ceil(PAGEBLOCK_PAGES) {
            let start = Pfn(number << PAGEBLOCK_ORDER);
            let Some(block) = self.topology().pageblocks.get(start) else { return };
            if usize::from(block.zone()) == zone {
                work(start, block);
            }
            if (number - first) % POINT_EVERY == POINT_EVERY - 1 {
                // (A choice is completed even if the thread is killed.)
                let _ = self.machine.resched_point();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_blocks_come_in_order() {
        let mut best = Best::<3>::new();
        for (free, start) in [(5, 1), (2, 2), (9, 3), (2, 4), (7, 5)] {
            best.note(free, Pfn(start));
        }
        assert_eq!([(); 4].map(|()| best.take().map(|pfn| pfn.0)), [Some(4), Some(2), Some(1), None]);
    }
}
