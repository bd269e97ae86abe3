//! Frames that pages move to: taken off the buddy's lists in batches, from one page block after the other. They belong
//! to the compaction; unused ones go back to the buddy.

use crate::addr::Pfn;
use crate::buddy::{MigrateType, PAGEBLOCK_PAGES};
use crate::event::Event;
use crate::page_alloc::Machine;

use super::super::{PageAllocator, PageList};
use super::choice::{Best, Source};

/// The number of frames that are taken under one hold of the zone's lock.
pub(super) const AT_ONCE: usize = 32;

/// The number of page blocks that are chosen at a time.
const BLOCKS: usize = 16;

/// See the module.
pub(super) struct Targets<'a, M: Machine> {
    pages: &'a PageAllocator<M>,
    zone: usize,
    source: Option<Source>,
    /// The next page blocks.
    blocks: Best<BLOCKS>,
    /// Where the search for free frames continues within a block; at its end, the next block begins.
    at: Pfn,
    frames: PageList,
}

impl<'a, M: Machine> Targets<'a, M> {
    pub fn new(pages: &'a PageAllocator<M>, zone: usize) -> Self {
        Self { pages, zone, source: None, blocks: Best::new(), at: Pfn(0), frames: PageList::new() }
    }

    /// Selects targets for pages of this block.
    pub fn aim(&mut self, source: Source) {
        self.source = Some(source);
    }

    /// Takes a frame, which the caller then owns.
    pub fn take(&mut self) -> Option<Pfn> {
        if self.frames.is_empty() {
            self.refill();
        }
        self.frames.pop(self.pages.machine)
    }

    /// Takes back a frame that was not used.
    pub fn give_back(&mut self, frame: Pfn) {
        // SAFETY: the caller owns it, since `take` returned it.
        unsafe { self.frames.push(self.pages.machine, frame) };
    }

    fn refill(&mut self) {
        let Some(source) = self.source else { return };
        // (The chosen blocks may be full by now.)
        let mut is_fresh = false;
        while self.frames.is_empty() {
            let room = self.pages.spare(self.zone, AT_ONCE);
            if room == 0 {
                return;
            }
            if self.at.0.is_multiple_of(PAGEBLOCK_PAGES) {
                match self.blocks.take() {
                    Some(block) => self.at = block,
                    None if is_fresh => return,
                    None => {
                        is_fresh = true;
                        self.blocks = self.pages.choose_targets(self.zone, source);
                        continue;
                    }
                }
            }
            self.take_from_block(source, room);
        }
    }

    /// Takes free frames of the block at `at`, starting there.
    fn take_from_block(&mut self, source: Source, most: usize) {
        let (pages, frames) = (self.pages, self.pages.frames());
        let start = Pfn(self.at.0 & !(PAGEBLOCK_PAGES - 1));
        let end = Pfn(start.0 + PAGEBLOCK_PAGES);
        let (at, list) = (self.at, &mut self.frames);
        let before = list.len();
        self.at = pages.zones[self.zone].with_area(|area| {
            // Another thread may collect it by now, or all of it has become free.
            let block = frames.pageblocks.of(start);
            let is_whole = block.free() as usize == PAGEBLOCK_PAGES;
            if is_whole || start == source.start || block.migrate_type() != MigrateType::Movable {
                return end;
            }
            area.take_singles(frames, at..end, most, |pfn| {
                // SAFETY: it was just taken off the lists, and has no other owner.
                unsafe { list.push(pages.machine, pfn) };
            })
        });
        let taken = list.len() - before;
        pages.machine.count(Event::CompactFreeScanned, taken);
        let irq = pages.machine.irq_save();
        pages.own_lists(self.zone).count_allocated(taken);
        pages.machine.irq_restore(irq);
    }
}

impl<M: Machine> Drop for Targets<'_, M> {
    fn drop(&mut self) {
        while let Some(pfn) = self.frames.pop(self.pages.machine) {
            // SAFETY: it is allocated at order 0, and was owned by the list.
            unsafe { self.pages.free_range(pfn..Pfn(pfn.0 + 1)) };
        }
    }
}
