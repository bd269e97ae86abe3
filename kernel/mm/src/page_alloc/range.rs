//! Allocation of a given range: the basis of contiguous memory areas, huge pages and offlining.
//!
//! First the page blocks under the range are isolated, so that pages that are free in them, or freed from then on, are
//! not allocated. Then pages in use are moved away, if the caller provides a migrator, and free pages are taken off the
//! lists. Each step goes through the page blocks from the last to the first, so that an error names the last frame that
//! is in the way: a caller that is free to choose a range continues after it. The zone's lock is held for one page
//! block at a time; between two of them other threads may run, and a kill ends the work.

use core::ops::Range;

use crate::addr::Pfn;
use crate::buddy::{MigrateType, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES};
use crate::machine::Killed;
#[cfg(doc)]
use crate::page::Page;
use crate::page_alloc::Machine;
use crate::zone::ZoneKind;

use super::PageAllocator;

/// Why a range cannot be allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeError {
    /// It is empty, spans zones, or has frames that do not belong to the page allocator.
    BadRange,
    /// Another thread collects pages in the page block that ends with this frame of the range; the last one of several.
    Isolated(Pfn),
    /// This page is in use; the last one of several or, if pages can be moved, the last that was not moved.
    Busy(Pfn),
    /// The calling thread was killed.
    Killed,
}

impl From<Killed> for RangeError {
    fn from(_: Killed) -> Self {
        Self::Killed
    }
}

/// A migrator of pages that are in use.
pub trait MigrateRange {
    /// Moves the pages in use in `start..end` elsewhere. The page blocks are isolated; no lock is held. An error names
    /// a page that cannot be moved, the last one of several.
    fn migrate(&self, start: Pfn, end: Pfn) -> Result<(), Pfn>;
}

/// Rounds of migration and draining before a range counts as busy: pages may be on their way through a per-CPU list.
const ROUNDS: usize = 3;

impl<M: Machine> PageAllocator<M> {
    /// Allocates all frames of `range`, each as a block of order 0 of its own. On an error nothing has changed, except
    /// that pages may have moved. The caller holds no lock, and may sleep.
    pub fn alloc_range(&self, range: Range<Pfn>, migrate: Option<&dyn MigrateRange>) -> Result<(), RangeError> {
        self.alloc_range_of(range, migrate, &|kind| kind != MigrateType::Isolate)
    }

    /// As [`PageAllocator::alloc_range`], if the page blocks are of types that `is_wanted` accepts; others count as
    /// isolated.
    pub(super) fn alloc_range_of(
        &self,
        range: Range<Pfn>,
        migrate: Option<&dyn MigrateRange>,
        is_wanted: &dyn Fn(MigrateType) -> bool,
    ) -> Result<(), RangeError> {
        let zone = self.zone_of_range(&range)?;
        self.isolate(zone, &range, is_wanted)?;
        let outcome = self.collect(zone, &range, migrate);
        self.end_isolation(zone, &range);
        outcome
    }

    /// Takes all of an isolated range, once no page in it is in use.
    fn collect(&self, zone: usize, range: &Range<Pfn>, migrate: Option<&dyn MigrateRange>) -> Result<(), RangeError> {
        let mut outcome = Ok(());
        for _ in 0..ROUNDS {
            if let Some(migrate) = migrate
                && !self.is_range_free(zone, range)
            {
                let in_range = |pfn: Pfn| pfn.clamp(range.start, Pfn(range.end.0 - 1));
                migrate.migrate(range.start, range.end).map_err(|stays| RangeError::Busy(in_range(stays)))?;
            }
            self.drain_all();
            outcome = self.take_isolated(zone, range);
            if !matches!(outcome, Err(RangeError::Busy(_))) {
                break;
            }
        }
        outcome
    }

    /// Frees a range of order-0 blocks, directly to the buddy: they will be needed together again, and per-CPU lists
    /// would scatter them. The caller holds no lock, and may sleep.
    ///
    /// # Safety
    /// As [`PageAllocator::free_pages`] for each frame.
    pub unsafe fn free_range(&self, range: Range<Pfn>) {
        for part in parts(&range) {
            self.let_others_run();
            self.free_within_page_block(part);
        }
    }

    /// Passes a preemption point in work that even a killed thread must complete.
    fn let_others_run(&self) {
        let _ = self.machine.resched_point();
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

    /// Pins a page, of which the caller holds a reference, for a device: it stays in place until [`Page::unpin`].
    /// Refused where pages must stay movable: the caller must first move the contents to a page that was allocated
    /// without MOVABLE. There is no other way to pin.
    #[must_use]
    pub fn pin_long_term(&self, pfn: Pfn) -> bool {
        self.allows_long_term_pin(pfn) && self.frames().page(pfn).pin()
    }

    /// Whether a page may be pinned here: not in a contiguous memory area, nor in zone MOVABLE. (A page elsewhere in a
    /// range that is being collected may be: whoever collects the range will find the pin.)
    pub fn allows_long_term_pin(&self, pfn: Pfn) -> bool {
        self.topology().pageblocks.get(pfn).is_some_and(|block| {
            let movable_zone = usize::from(block.zone()) % ZoneKind::COUNT == ZoneKind::Movable as usize;
            !movable_zone && block.lasting_type() != MigrateType::Cma
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
    fn isolate(
        &self,
        zone: usize,
        range: &Range<Pfn>,
        is_wanted: &dyn Fn(MigrateType) -> bool,
    ) -> Result<(), RangeError> {
        for part in parts(range).rev() {
            let point = self.machine.resched_point().map_err(RangeError::from);
            let isolated = point.and_then(|()| match self.isolate_page_block(zone, part.start, is_wanted) {
                true => Ok(()),
                false => Err(RangeError::Isolated(Pfn(part.end.0 - 1))),
            });
            if isolated.is_err() {
                self.end_isolation(zone, &(part.end..range.end));
                return isolated;
            }
        }
        Ok(())
    }

    /// `false` if its type is not wanted, or another thread has isolated it.
    fn isolate_page_block(&self, zone: usize, pfn: Pfn, is_wanted: &dyn Fn(MigrateType) -> bool) -> bool {
        let frames = self.frames();
        self.zones[zone].with_area(|area| {
            let block = frames.pageblocks.of(pfn);
            let is_ours = block.migrate_type() != MigrateType::Isolate && is_wanted(block.migrate_type());
            if is_ours {
                block.isolate();
                area.move_free_blocks(frames, pfn, MigrateType::Isolate);
            }
            is_ours
        })
    }

    fn end_isolation(&self, zone: usize, range: &Range<Pfn>) {
        let frames = self.frames();
        for part in parts(range) {
            self.let_others_run();
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
            self.let_others_run();
            self.zones[zone].with_area(|area| area.last_busy(self.frames(), part.start, part.end).is_none())
        };
        parts(range).all(is_free)
    }

    /// Takes the range off the lists if all of it is free. Isolated free pages stay free, so this can be done in steps.
    fn take_isolated(&self, zone: usize, range: &Range<Pfn>) -> Result<(), RangeError> {
        for part in parts(range).rev() {
            let point = self.machine.resched_point().map_err(RangeError::from);
            let taken = point.and_then(|()| self.take_part(zone, &part).map_err(RangeError::Busy));
            if taken.is_err() {
                // SAFETY: these were taken just now, and have no other owner.
                unsafe { self.free_range(part.end..range.end) };
                return taken;
            }
        }
        let irq = self.machine.irq_save();
        self.own_lists(zone).count_allocated(range.end.0 - range.start.0);
        self.machine.irq_restore(irq);
        Ok(())
    }

    /// Takes the part in one page block if all of it is free, otherwise returns the last frame that is not.
    fn take_part(&self, zone: usize, part: &Range<Pfn>) -> Result<(), Pfn> {
        let frames = self.frames();
        self.zones[zone].with_area(|area| match area.last_busy(frames, part.start, part.end) {
            Some(busy) => Err(busy),
            None => {
                area.take_range(frames, part.start, part.end);
                (part.start.0..part.end.0).for_each(|pfn| frames.page(Pfn(pfn)).make_allocated(0));
                Ok(())
            }
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
fn page_blocks(range: &Range<Pfn>) -> impl DoubleEndedIterator<Item = Pfn> + use<> {
    parts(range).map(|part| Pfn(part.start.0 & !(PAGEBLOCK_PAGES - 1)))
}

/// A range's parts in each page block.
fn parts(range: &Range<Pfn>) -> impl DoubleEndedIterator<Item = Range<Pfn>> + use<> {
    let Range { start: Pfn(start), end: Pfn(end) } = *range;
    let blocks = if start < end { start >> PAGEBLOCK_ORDER..end.div_ceil(PAGEBLOCK_PAGES) } else { 0..0 };
    blocks.map(move |block| {
        let first = block << PAGEBLOCK_ORDER;
        Pfn(start.max(first))..Pfn(end.min(first + PAGEBLOCK_PAGES))
    })
}
