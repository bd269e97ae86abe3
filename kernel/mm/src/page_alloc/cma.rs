//! Contiguous memory areas: lent to movable pages, taken back as a whole.
//!
//! An area is reserved at boot, then handed to the buddy as page blocks of type CMA, which only movable allocations
//! use. [`PageAllocator::cma_alloc`] chooses a range by the area's bitmap, one bit per frame, which marks the owners'
//! allocations; borrowed pages elsewhere are moved away ([`MigrateRange`]).
//!
//! There is no lock. One thread at a time collects pages in an area, since two ranges can share a page block, and only
//! that thread sets bits; a release clears its bits. An allocation reads each word of the bitmap and each frame at most
//! a few times, however many are in use, and no step masks interrupts for longer than the work on one page block.

use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};

use spin::Once;

use crate::addr::{PAGE_SIZE, Pfn, PhysAddr};
use crate::bitmap;
use crate::buddy::PAGEBLOCK_PAGES;
use crate::memblock::{MemBlock, RegionKind};
use crate::page_alloc::Machine;

use super::{Config, Gfp, MigrateRange, PageAllocator, PageBlock, RangeError};

/// The maximum number of areas: as many as the tree and the command line can define.
pub const MAX_AREAS: usize = 80;

/// Why reserved memory cannot become an area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AreaError {
    /// There are [`MAX_AREAS`] already.
    TooMany,
    /// It contains no whole page block.
    TooSmall,
    /// It is not completely in one zone.
    SpansZones,
    /// There is no memory for its bitmap.
    NoMemory,
}

impl fmt::Display for AreaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooMany => "there are too many",
            Self::TooSmall => "it has no whole page block of 2 MiB",
            Self::SpansZones => "it is not in a single zone",
            Self::NoMemory => "there is no memory for its bitmap",
        })
    }
}

/// Why an allocation from an area failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CmaError {
    /// There is no such area, the size is 0, or the range to release was not allocated.
    BadRequest,
    /// No free range is large enough, or all such ranges contain pages that cannot be moved.
    NoSpace,
    /// The calling thread was killed before it had the pages.
    Killed,
}

/// The record behind `cmainfo`, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CmaInfo {
    /// First frame.
    pub start: Pfn,
    /// Its size.
    pub pages: usize,
    /// Pages allocated to its owners.
    pub used: usize,
    /// Allocations that succeeded.
    pub allocated: usize,
    /// Allocations that failed.
    pub failed: usize,
}

struct Area {
    start: Pfn,
    pages: usize,
    /// One bit per frame: set if it belongs to an owner's allocation.
    bitmap: &'static [AtomicU64],
    /// A thread is collecting pages.
    collecting: AtomicBool,
    used: AtomicUsize,
    allocated: AtomicUsize,
    failed: AtomicUsize,
}

/// All areas of a machine: existing ones come first, and are never removed.
pub(crate) struct Cma([Once<Area>; MAX_AREAS]);

impl Cma {
    pub(crate) const fn new() -> Self {
        Self([const { Once::new() }; MAX_AREAS])
    }

    fn iter(&self) -> impl Iterator<Item = &Area> {
        self.0.iter().map_while(Once::get)
    }

    fn get(&self, area: usize) -> Result<&Area, CmaError> {
        self.0.get(area).and_then(Once::get).ok_or(CmaError::BadRequest)
    }
}

impl<M: Machine> PageAllocator<M> {
    /// Makes areas of the memory that memblock reserved as [`RegionKind::Cma`], in whole page blocks. The rest, and
    /// ranges that cannot be areas, which are passed to `refused`, go to the buddy as ordinary memory. The watermarks
    /// are recomputed, since zones have grown.
    ///
    /// # Safety
    /// Once, after [`PageAllocator::init`] with this memblock and `config`; those regions are unused.
    pub unsafe fn init_cma(
        &self,
        memory: &MemBlock,
        config: &Config<'_>,
        refused: &mut dyn FnMut(Range<PhysAddr>, AreaError),
    ) {
        for (range, _) in memory.reserved().filter(|(_, kind)| *kind == RegionKind::Cma) {
            // SAFETY: the caller's promise.
            let made = unsafe { self.add_cma_area(range.clone()) };
            let area = made.clone().unwrap_or(range.end..range.end);
            for rest in [range.start..area.start, area.end..range.end] {
                // SAFETY: the caller's promise; this part did not become part of an area.
                unsafe { self.free_reserved(rest) };
            }
            if let Err(error) = made {
                refused(range, error);
            }
        }
        self.set_watermarks(config);
    }

    /// Returns the range that has become the area; on an error there is none.
    ///
    /// # Safety
    /// The range was present and reserved at boot, is unused, and was not handed out since.
    unsafe fn add_cma_area(&self, range: Range<PhysAddr>) -> Result<Range<PhysAddr>, AreaError> {
        let start = range.start.get().div_ceil(PAGE_SIZE).next_multiple_of(PAGEBLOCK_PAGES);
        let end = range.end.pfn().0 & !(PAGEBLOCK_PAGES - 1);
        if start >= end {
            return Err(AreaError::TooSmall);
        }
        let slot = self.cma.0.iter().find(|slot| slot.get().is_none()).ok_or(AreaError::TooMany)?;
        let memory =
            self.alloc_zeroed_pages(bitmap_order(end - start), Gfp::KERNEL).map_err(|_| AreaError::NoMemory)?;
        // SAFETY: the caller's promise.
        unsafe { self.free_reserved_as_cma(Pfn(start)..Pfn(end)) }.map_err(|_| AreaError::SpansZones)?;
        slot.call_once(|| Area::new(Pfn(start), end - start, memory));
        Ok(Pfn(start).addr()..Pfn(end).addr())
    }

    /// The number of pages in the areas' bitmaps.
    pub fn cma_bitmap_pages(&self) -> usize {
        self.cma.iter().map(|area| 1 << bitmap_order(area.pages)).sum()
    }

    /// Information about an area; `None` past the last.
    pub fn cma_info(&self, area: usize) -> Option<CmaInfo> {
        self.cma.get(area).ok().map(Area::info)
    }

    /// The area that a frame belongs to.
    pub fn cma_area_of(&self, pfn: Pfn) -> Option<usize> {
        self.cma.iter().position(|area| area.holds(pfn, 1))
    }

    /// Allocates `pages` consecutive frames, the first at a multiple of `1 << align_order`. Each is a block of order 0.
    /// The caller holds no lock, and may sleep.
    pub fn cma_alloc(
        &self,
        area: usize,
        pages: usize,
        align_order: u32,
        migrate: Option<&dyn MigrateRange>,
    ) -> Result<Pfn, CmaError> {
        if pages == 0 || align_order >= usize::BITS {
            return Err(CmaError::BadRequest);
        }
        let area = self.cma.get(area)?;
        self.begin_collecting(area)?;
        let found = self.collect_in_area(area, pages, 1 << align_order, migrate);
        area.collecting.store(false, Release);
        let counter = if found.is_ok() { &area.allocated } else { &area.failed };
        counter.fetch_add(1, Relaxed);
        found
    }

    /// Tries the ranges that the owners have left free, in ascending order, and each time continues after the last page
    /// that was in the way. So no page is in the way twice, and the work is at most twice the area.
    fn collect_in_area(
        &self,
        area: &Area,
        pages: usize,
        align: usize,
        migrate: Option<&dyn MigrateRange>,
    ) -> Result<Pfn, CmaError> {
        let mut from = area.start;
        loop {
            let place = area.find(from, pages, align).ok_or(CmaError::NoSpace)?;
            match self.alloc_range(place..Pfn(place.0 + pages), migrate) {
                Ok(()) => {
                    area.claim(place, pages);
                    return Ok(place);
                }
                Err(RangeError::Busy(pfn) | RangeError::Isolated(pfn)) => from = Pfn(pfn.0 + 1),
                Err(RangeError::Killed) => return Err(CmaError::Killed),
                Err(RangeError::BadRange) => return Err(CmaError::BadRequest),
            }
        }
    }

    /// Waits until no other thread collects in this area.
    fn begin_collecting(&self, area: &Area) -> Result<(), CmaError> {
        while area.collecting.swap(true, Acquire) {
            self.machine.resched_point().map_err(|_| CmaError::Killed)?;
            self.machine.relax();
        }
        Ok(())
    }

    /// Frees a range from [`PageAllocator::cma_alloc`].
    ///
    /// # Safety
    /// As [`PageAllocator::free_pages`] for each frame.
    pub unsafe fn cma_release(&self, area: usize, start: Pfn, pages: usize) -> Result<(), CmaError> {
        let area = self.cma.get(area)?;
        if pages == 0 || !area.holds(start, pages) || !area.is_claimed(start, pages) {
            return Err(CmaError::BadRequest);
        }
        // The pages first: when the bitmap shows the range as free, its pages must be free. SAFETY: the caller's
        // promise.
        unsafe { self.free_range(start..Pfn(start.0 + pages)) };
        area.give_back(start, pages);
        Ok(())
    }
}

impl Area {
    /// An area without allocations; `memory` is zeroed, and becomes its bitmap for good.
    fn new<M: Machine>(start: Pfn, pages: usize, memory: PageBlock<M>) -> Self {
        let (words, len) = (memory.as_ptr().cast::<AtomicU64>(), memory.size() / size_of::<u64>());
        memory.into_raw();
        // SAFETY: the block is zeroed, page-aligned, of this size, and never freed, and is only accessed through this
        // slice.
        let bitmap = unsafe { core::slice::from_raw_parts(words, len) };
        let zero = || AtomicUsize::new(0);
        let collecting = AtomicBool::new(false);
        Self { start, pages, bitmap, collecting, used: zero(), allocated: zero(), failed: zero() }
    }

    fn info(&self) -> CmaInfo {
        CmaInfo {
            start: self.start,
            pages: self.pages,
            used: self.used.load(Relaxed),
            allocated: self.allocated.load(Relaxed),
            failed: self.failed.load(Relaxed),
        }
    }

    fn holds(&self, start: Pfn, pages: usize) -> bool {
        let end = self.start.0 + self.pages;
        start >= self.start && start.0 <= end && pages <= end - start.0
    }

    /// The words of the bitmap for a range, each with a mask of its bits.
    fn words(&self, start: Pfn, pages: usize) -> impl Iterator<Item = (&AtomicU64, u64)> {
        let first = start.0 - self.start.0;
        bitmap::words(first..first + pages).map(|(index, mask)| (&self.bitmap[index], mask))
    }

    fn is_claimed(&self, start: Pfn, pages: usize) -> bool {
        self.words(start, pages).all(|(word, mask)| word.load(Relaxed) & mask == mask)
    }

    /// The first range at or after `from` without pages of an owner.
    fn find(&self, from: Pfn, pages: usize, align: usize) -> Option<Pfn> {
        let start = self.start.0;
        let aligned = |bit: usize| Some((start + bit).checked_next_multiple_of(align)? - start);
        // Acquire: a release has freed the pages before it cleared the bits.
        let word = |index: usize| self.bitmap[index].load(Acquire);
        let first = bitmap::find_clear_run(word, self.pages, from.0 - start, pages, aligned)?;
        Some(Pfn(start + first))
    }

    /// By the thread that collects.
    fn claim(&self, start: Pfn, pages: usize) {
        self.words(start, pages).for_each(|(word, mask)| _ = word.fetch_or(mask, Relaxed));
        self.used.fetch_add(pages, Relaxed);
    }

    fn give_back(&self, start: Pfn, pages: usize) {
        self.used.fetch_sub(pages, Relaxed);
        self.words(start, pages).for_each(|(word, mask)| _ = word.fetch_and(!mask, Release));
    }
}

/// The order of the block that a bitmap of `bits` bits needs.
fn bitmap_order(bits: usize) -> u32 {
    bits.div_ceil(8 * PAGE_SIZE).next_power_of_two().ilog2()
}
