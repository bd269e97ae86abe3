//! Allocation of a range that the caller names: what contiguous memory areas, huge pages and offlining stand on.
//!
//! The page blocks under the range are isolated first, so that what is free in them, and what is freed from then
//! on, goes to nobody. Then what is still in use is moved away, if somebody has offered to do that, and what is
//! free is taken off the lists. Each step goes from page block to page block, and holds the zone's lock for one of them
//! at a time: who needs the lock otherwise waits no longer for a large range than for a small one.

use core::ops::Range;

use crate::addr::Pfn;
use crate::buddy::{MigrateType, PAGEBLOCK_PAGES};
use crate::machine::Machine;
#[cfg(doc)]
use crate::page::Page;
use crate::zone::ZoneKind;

use super::PageAllocator;

/// Why a range cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeError {
    /// It is empty, spans zones, or has frames that are not the page allocator's.
    BadRange,
    /// Somebody else collects pages in one of its page blocks.
    Isolated,
    /// Somebody uses a page of it.
    Busy,
}

/// Who can move pages that are in use.
pub trait MigrateRange {
    /// Moves what is in use in `start..end` elsewhere. `false` if something cannot be moved. The page blocks are
    /// isolated; no lock is held.
    fn migrate(&self, start: Pfn, end: Pfn) -> bool;
}

/// Rounds of migration and draining before a range counts as busy: pages may be on their way through a per-CPU list.
const ROUNDS: usize = 3;

impl<M: Machine> PageAllocator<M> {
    /// Allocates all frames of `range`, each as a block of order 0 of its own. On error nothing has changed, but
    /// that pages may have moved.
    pub fn alloc_range(&self, range: Range<Pfn>, migrate: Option<&dyn MigrateRange>) -> Result<(), RangeError> {
        let zone = self.zone_of_range(&range)?;
        self.isolate(zone, &range)?;
        let taken = (0..ROUNDS).any(|_| {
            if let Some(migrate) = migrate
                && !self.is_range_free(zone, &range)
                && !migrate.migrate(range.start, range.end)
            {
                return false;
            }
            self.drain_all();
            self.take_isolated(zone, &range)
        });
        self.end_isolation(zone, &range);
        if taken { Ok(()) } else { Err(RangeError::Busy) }
    }

    /// Frees a range of order-0 blocks, all the way to the buddy: they are wanted together again, and would be scattered
    /// if the next to come got them from per-CPU lists.
    ///
    /// # Safety
    /// As [`PageAllocator::free_pages`] for each frame.
    pub unsafe fn free_range(&self, range: Range<Pfn>) {
        parts(&range).for_each(|part| self.free_within_page_block(part));
    }

    /// As [`PageAllocator::free_range`], for frames of one page block.
    fn free_within_page_block(&self, part: Range<Pfn>) {
        let frames = self.frames();
        let zone = usize::from(frames.pageblocks.of(part.start).zone());
        let (mut at, end) = (part.start.0, part.end.0);
        while at < end {
            let run = (at..end).take_while(|&pfn| frames.page(Pfn(pfn)).fit_to_free(0)).count();
            if run > 0 {
                self.poison(Pfn(at), run);
                self.zones[zone].with_area(|area| area.free_run(frames, Pfn(at), run));
            }
            at += run;
            if at < end {
                self.bad_page(Pfn(at));
                at += 1;
            }
        }
    }

    /// Pins a page, of which the caller holds a reference, for as long as a device likes: it stays where it is until
    /// [`Page::unpin`]. Refused where others count on moving it away: the caller moves it first, to a page that was
    /// allocated without MOVABLE. There is no other way to pin.
    #[must_use]
    pub fn pin_long_term(&self, pfn: Pfn) -> bool {
        self.allows_long_term_pin(pfn) && self.frames().page(pfn).pin()
    }

    /// Whether a page may stay here for as long as a device likes: neither in a contiguous memory area nor in zone
    /// MOVABLE, nor where somebody collects a range just now.
    pub fn allows_long_term_pin(&self, pfn: Pfn) -> bool {
        self.topology().pageblocks.get(pfn).is_some_and(|block| {
            let movable_zone = usize::from(block.zone()) % ZoneKind::COUNT == ZoneKind::Movable as usize;
            !movable_zone && !matches!(block.migrate_type(), MigrateType::Cma | MigrateType::Isolate)
        })
    }

    /// The zone that all of a range's page blocks belong to.
    fn zone_of_range(&self, range: &Range<Pfn>) -> Result<usize, RangeError> {
        if range.is_empty() || range.start.0 == 0 {
            return Err(RangeError::BadRange);
        }
        let table = self.topology().pageblocks;
        let zone = table.get(range.start).ok_or(RangeError::BadRange)?.zone();
        let same = page_blocks(range).all(|pfn| table.get(pfn).is_some_and(|block| block.zone() == zone));
        if same && usize::from(zone) < self.zones.len() { Ok(zone.into()) } else { Err(RangeError::BadRange) }
    }

    /// Makes all page blocks of the range `Isolate`, or none.
    fn isolate(&self, zone: usize, range: &Range<Pfn>) -> Result<(), RangeError> {
        let frames = self.frames();
        for part in parts(range) {
            let isolated = self.zones[zone].with_area(|area| {
                let block = frames.pageblocks.of(part.start);
                let is_ours = block.migrate_type() != MigrateType::Isolate;
                if is_ours {
                    block.isolate();
                    area.move_free_blocks(frames, part.start, MigrateType::Isolate);
                }
                is_ours
            });
            if !isolated {
                self.end_isolation(zone, &(range.start..part.start));
                return Err(RangeError::Isolated);
            }
        }
        Ok(())
    }

    fn end_isolation(&self, zone: usize, range: &Range<Pfn>) {
        let frames = self.frames();
        for part in parts(range) {
            self.zones[zone].with_area(|area| {
                let block = frames.pageblocks.of(part.start);
                let back = block.type_before_isolation();
                block.set_migrate_type(back);
                area.move_free_blocks(frames, part.start, back);
            });
        }
    }

    fn is_range_free(&self, zone: usize, range: &Range<Pfn>) -> bool {
        let is_free = |part: Range<Pfn>| {
            self.zones[zone].with_area(|area| area.is_range_free(self.frames(), part.start, part.end))
        };
        parts(range).all(is_free)
    }

    /// Takes the range off the lists if all of it is free. What is isolated and free stays so, so it can be taken bit by
    /// bit.
    fn take_isolated(&self, zone: usize, range: &Range<Pfn>) -> bool {
        for part in parts(range) {
            if !self.take_part(zone, &part) {
                // SAFETY: these were taken just now, and nobody knows of them.
                unsafe { self.free_range(range.start..part.start) };
                return false;
            }
        }
        let irq = self.machine.irq_save();
        self.own_lists(zone).count_allocated((range.end.0 - range.start.0) as u64);
        self.machine.irq_restore(irq);
        true
    }

    fn take_part(&self, zone: usize, part: &Range<Pfn>) -> bool {
        let frames = self.frames();
        self.zones[zone].with_area(|area| {
            let is_free = area.is_range_free(frames, part.start, part.end);
            if is_free {
                area.take_range(frames, part.start, part.end);
                (part.start.0..part.end.0).for_each(|pfn| frames.page(Pfn(pfn)).make_allocated(0));
            }
            is_free
        })
    }

    /// Makes whole page blocks that are reserved (at boot) free CMA ones.
    ///
    /// # Safety
    /// As [`PageAllocator::free_reserved`]; the range consists of whole page blocks.
    pub(crate) unsafe fn free_reserved_as_cma(&self, range: Range<Pfn>) -> Result<(), RangeError> {
        let whole = |pfn: Pfn| pfn.0.is_multiple_of(PAGEBLOCK_PAGES);
        if !whole(range.start) || !whole(range.end) {
            return Err(RangeError::BadRange);
        }
        self.zone_of_range(&range)?;
        for pfn in page_blocks(&range) {
            self.frames().pageblocks.of(pfn).set_migrate_type(MigrateType::Cma);
        }
        // SAFETY: the caller's promise.
        unsafe { self.free_reserved(range.start.addr()..range.end.addr()) };
        Ok(())
    }
}

/// The first frame of each page block that a range touches.
fn page_blocks(range: &Range<Pfn>) -> impl Iterator<Item = Pfn> + use<> {
    parts(range).map(|part| Pfn(part.start.0 & !(PAGEBLOCK_PAGES - 1)))
}

/// A range's parts in each page block.
fn parts(range: &Range<Pfn>) -> impl Iterator<Item = Range<Pfn>> + use<> {
    let (mut at, end) = (range.start.0, range.end.0);
    core::iter::from_fn(move || {
        let part = at..(at + 1).next_multiple_of(PAGEBLOCK_PAGES).min(end);
        at = part.end;
        (!part.is_empty()).then_some(Pfn(part.start)..Pfn(part.end))
    })
}
