//! Contiguous memory areas: lent to movable pages, taken back as a whole.
//!
//! An area is reserved at boot, then handed to the buddy as page blocks of type CMA, which only movable
//! allocations use. [`PageAllocator::cma_alloc`] chooses a place by the area's bitmap, one bit a frame, which says
//! what the area's owners have; who borrows the rest does not matter to it, they are moved away
//! ([`MigrateRange`]). One place of an area is collected at a time, since two can share a page block.
//!
//! The lock over bitmaps is held to read and change them only. It has the rank of a zone's, and is not taken
//! together with one.

use core::fmt;
use core::ops::Range;

use crate::addr::{PAGE_SIZE, Pfn, PhysAddr};
use crate::buddy::PAGEBLOCK_PAGES;
use crate::machine::Machine;
use crate::memblock::{MemBlock, RegionKind};
use crate::page_alloc::{Config, Gfp, MigrateRange, PageAllocator, PageBlock};
use crate::sync::{Rank, SpinLock};

/// The most areas that a kernel serves: as many as it can hear of.
pub const MAX_AREAS: usize = 80;

/// Why memory that was set aside for an area is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AreaError {
    /// There are [`MAX_AREAS`] already.
    TooMany,
    /// It has no whole page block.
    TooSmall,
    /// It is not all memory of one zone.
    SpansZones,
    /// There is no memory for its bitmap.
    NoMemory,
}

impl fmt::Display for AreaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooMany => "there are too many",
            Self::TooSmall => "it has no whole page block of 2 MiB",
            Self::SpansZones => "it does not lie in one zone",
            Self::NoMemory => "there is no memory for its bitmap",
        })
    }
}

/// Why an area does not give pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CmaError {
    /// There is no such area, or nothing is asked for, or what is given back was not had.
    BadRequest,
    /// No place is large enough, or all that are have pages that cannot be moved.
    NoSpace,
}

/// What `cmainfo` shows; in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CmaInfo {
    /// First frame.
    pub start: Pfn,
    /// Its size.
    pub pages: usize,
    /// What its owners have.
    pub used: usize,
    /// Allocations that succeeded.
    pub allocated: usize,
    /// Allocations that failed.
    pub failed: usize,
}

struct Area {
    info: CmaInfo,
    bitmap: Bitmap,
    /// Somebody is collecting pages.
    collecting: bool,
}

struct Areas {
    areas: [Area; MAX_AREAS],
    len: usize,
}

/// All areas of a machine.
pub(crate) struct Cma<M: Machine>(SpinLock<Areas, M>);

impl<M: Machine> Cma<M> {
    pub(crate) const fn new(machine: M) -> Self {
        Self(SpinLock::new(machine, Rank::Zone, Areas { areas: [const { Area::empty() }; MAX_AREAS], len: 0 }))
    }

    fn with<R>(&self, area: usize, work: impl FnOnce(&mut Area) -> R) -> Result<R, CmaError> {
        let mut all = self.0.lock();
        let len = all.len;
        all.areas[..len].get_mut(area).map(work).ok_or(CmaError::BadRequest)
    }
}

impl<M: Machine> PageAllocator<M> {
    /// Makes areas of what memblock reserved as [`RegionKind::Cma`], whole page blocks of it; the rest, and what cannot
    /// be an area, of which `refused` is told, goes to the buddy as other memory does. The watermarks are set anew: zones
    /// have grown.
    ///
    /// # Safety
    /// Once, after [`PageAllocator::init`] with this memblock and `config`; nobody uses those regions.
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
                // SAFETY: the caller's promise; this part was not made an area's.
                unsafe { self.free_reserved(rest) };
            }
            if let Err(error) = made {
                refused(range, error);
            }
        }
        self.set_watermarks(config);
    }

    /// Answers what has become the area; on error nothing has.
    ///
    /// # Safety
    /// The range was present and reserved at boot, nobody uses it, and it was not handed out since.
    unsafe fn add_cma_area(&self, range: Range<PhysAddr>) -> Result<Range<PhysAddr>, AreaError> {
        let start = range.start.get().div_ceil(PAGE_SIZE).next_multiple_of(PAGEBLOCK_PAGES);
        let end = range.end.pfn().0 & !(PAGEBLOCK_PAGES - 1);
        if start >= end {
            return Err(AreaError::TooSmall);
        }
        if self.cma.0.lock().len == MAX_AREAS {
            return Err(AreaError::TooMany);
        }
        let order = Bitmap::order(end - start);
        let memory = self.alloc_zeroed_pages(order, Gfp::KERNEL).map_err(|_| AreaError::NoMemory)?;
        // SAFETY: the caller's promise.
        unsafe { self.free_reserved_as_cma(Pfn(start)..Pfn(end)) }.map_err(|_| AreaError::SpansZones)?;
        let bitmap = Bitmap::new(memory);
        let mut all = self.cma.0.lock();
        let len = all.len;
        let info = CmaInfo { start: Pfn(start), pages: end - start, ..CmaInfo::default() };
        all.areas[len] = Area { info, bitmap, collecting: false };
        all.len += 1;
        Ok(Pfn(start).addr()..Pfn(end).addr())
    }

    /// Pages that the areas' bitmaps take.
    pub fn cma_bitmap_pages(&self) -> usize {
        (0..MAX_AREAS).map_while(|area| self.cma_info(area)).map(|info| 1 << Bitmap::order(info.pages)).sum()
    }

    /// What there is to know about an area; `None` past the last.
    pub fn cma_info(&self, area: usize) -> Option<CmaInfo> {
        self.cma.with(area, |area| area.info).ok()
    }

    /// The area that a frame belongs to.
    pub fn cma_area_of(&self, pfn: Pfn) -> Option<usize> {
        let all = self.cma.0.lock();
        all.areas[..all.len].iter().position(|area| area.holds(pfn.0, 1))
    }

    /// Allocates `pages` frames in a row, the first at a multiple of `1 << align_order`. Each is a block of order 0.
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
        self.begin_collecting(area)?;
        let found = self.collect(area, pages, 1 << align_order, migrate);
        self.cma.with(area, |area| {
            area.collecting = false;
            match found {
                Ok(_) => area.info.allocated += 1,
                Err(_) => area.info.failed += 1,
            }
        })?;
        found
    }

    /// Tries each place that the owners have left free, in ascending order.
    fn collect(
        &self,
        area: usize,
        pages: usize,
        align: usize,
        migrate: Option<&dyn MigrateRange>,
    ) -> Result<Pfn, CmaError> {
        let mut from = 0;
        loop {
            let place = self.cma.with(area, |area| area.claim(from, pages, align))?.ok_or(CmaError::NoSpace)?;
            if self.alloc_range(place..Pfn(place.0 + pages), migrate).is_ok() {
                return Ok(place);
            }
            from = self.cma.with(area, |area| {
                area.give_back(place.0, pages);
                place.0 + 1 - area.info.start.0
            })?;
        }
    }

    /// Waits until nobody else collects in this area.
    fn begin_collecting(&self, area: usize) -> Result<(), CmaError> {
        while self.cma.with(area, |area| core::mem::replace(&mut area.collecting, true))? {
            self.wait_for_others();
        }
        Ok(())
    }

    /// Gives back what [`PageAllocator::cma_alloc`] gave.
    ///
    /// # Safety
    /// As [`PageAllocator::free_pages`] for each frame.
    pub unsafe fn cma_release(&self, area: usize, start: Pfn, pages: usize) -> Result<(), CmaError> {
        let had = |area: &mut Area| area.holds(start.0, pages) && area.is_claimed(start.0, pages);
        if pages == 0 || !self.cma.with(area, had)? {
            return Err(CmaError::BadRequest);
        }
        // The pages first: who finds the place by the bitmap must find them free.
        // SAFETY: the caller's promise.
        unsafe { self.free_range(start..Pfn(start.0 + pages)) };
        self.cma.with(area, |area| area.give_back(start.0, pages))
    }
}

impl Area {
    const fn empty() -> Self {
        let info = CmaInfo { start: Pfn(0), pages: 0, used: 0, allocated: 0, failed: 0 };
        Self { info, bitmap: Bitmap(&mut []), collecting: false }
    }

    fn holds(&self, start: usize, pages: usize) -> bool {
        let end = self.info.start.0 + self.info.pages;
        start >= self.info.start.0 && start <= end && pages <= end - start
    }

    fn is_claimed(&self, start: usize, pages: usize) -> bool {
        let first = start - self.info.start.0;
        (first..first + pages).all(|bit| self.bitmap.get(bit))
    }

    /// Marks the first free place from the area's frame `from` on.
    fn claim(&mut self, from: usize, pages: usize, align: usize) -> Option<Pfn> {
        let start = self.info.start.0;
        let aligned = |bit: usize| Some((start + bit).checked_next_multiple_of(align)? - start);
        let mut at = aligned(from)?;
        while at.checked_add(pages)? <= self.info.pages {
            match (at..at + pages).rev().find(|&bit| self.bitmap.get(bit)) {
                Some(taken) => at = aligned(taken + 1)?,
                None => {
                    (at..at + pages).for_each(|bit| self.bitmap.set(bit, true));
                    self.info.used += pages;
                    return Some(Pfn(start + at));
                }
            }
        }
        None
    }

    fn give_back(&mut self, start: usize, pages: usize) {
        let first = start - self.info.start.0;
        (first..first + pages).for_each(|bit| self.bitmap.set(bit, false));
        self.info.used -= pages;
    }
}

/// One bit a frame.
struct Bitmap(&'static mut [u64]);

impl Bitmap {
    /// The order of the block that so many bits need.
    fn order(bits: usize) -> u32 {
        bits.div_ceil(8 * PAGE_SIZE).next_power_of_two().ilog2()
    }

    /// All clear, in a zeroed block that is never freed: an area is for good.
    fn new<M: Machine>(memory: PageBlock<M>) -> Self {
        let (start, words) = (memory.as_ptr().cast(), memory.size() / size_of::<u64>());
        memory.into_raw();
        // SAFETY: the block is zeroed, aligned to a page, of this size, and nobody else's for ever.
        Self(unsafe { core::slice::from_raw_parts_mut(start, words) })
    }

    fn get(&self, bit: usize) -> bool {
        self.0[bit / 64] >> (bit % 64) & 1 != 0
    }

    fn set(&mut self, bit: usize, to: bool) {
        let mask = 1 << (bit % 64);
        if to {
            self.0[bit / 64] |= mask;
        } else {
            self.0[bit / 64] &= !mask;
        }
    }
}
