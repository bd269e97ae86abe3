//! Compares the counters with the records.

use crate::addr::Pfn;
use crate::buddy::pageblock::NO_ZONE;
use crate::buddy::{MAX_ORDER, MigrateType, ORDERS, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES};
use crate::page::{Page, PageState};
use crate::page_alloc::Machine;
use crate::zone::MAX_ZONES;

use super::PageAllocator;

/// A mismatch: the counter's value, and the value found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Imbalance {
    /// A zone's list has another number of blocks than there are heads whose records name that list.
    Blocks { zone: usize, list: usize, order: usize, counted: u32, found: u32 },
    /// A zone's free count is not the sum of its blocks.
    Free { zone: usize, counted: usize, found: usize },
    /// A page block's free count is wrong.
    Pageblock { pfn: Pfn, counted: u32, found: u32 },
    /// Per-CPU lists hold another number of pages than there are records of cached pages. (For all zones together: they
    /// lend each other blocks.)
    Cached { counted: usize, found: usize },
    /// A free block is not aligned to its size, or its buddy is free too.
    Unmerged { pfn: Pfn, order: u32 },
}

/// What a walk over all records finds in one zone.
#[derive(Clone, Copy)]
struct Found {
    blocks: [[u32; ORDERS]; MigrateType::COUNT],
    free: usize,
    cached: usize,
}

impl<M: Machine> PageAllocator<M> {
    /// Checks every record. For tests and self-tests, while nothing allocates or frees.
    pub fn validate(&self) -> Result<(), Imbalance> {
        let mut found = 0;
        for zone in (0..MAX_ZONES).filter(|&zone| self.zones[zone].present() != 0) {
            found += self.validate_zone(zone)?;
        }
        let counted = self.zones().map(|zone| zone.per_cpu()).sum();
        if counted == found { Ok(()) } else { Err(Imbalance::Cached { counted, found }) }
    }

    /// The first frame at or above `from` whose record satisfies `wanted`.
    pub fn next_frame(&self, from: Pfn, wanted: impl Fn(&Page) -> bool) -> Option<Pfn> {
        let blocks = self.topology().pageblocks;
        (from.0 >> PAGEBLOCK_ORDER..blocks.len()).find_map(|block| {
            let start = block << PAGEBLOCK_ORDER;
            if blocks.get(Pfn(start))?.zone() == NO_ZONE {
                return None;
            }
            let frames = start.max(from.0)..start + PAGEBLOCK_PAGES;
            frames.map(Pfn).find(|pfn| wanted(self.frames().page(*pfn)))
        })
    }

    /// Returns how many of its pages are cached.
    fn validate_zone(&self, zone: usize) -> Result<usize, Imbalance> {
        let mut found = Found { blocks: [[0; ORDERS]; MigrateType::COUNT], free: 0, cached: 0 };
        let (start, spanned) = self.zones[zone].span();
        let first = start.0 & !(PAGEBLOCK_PAGES - 1);
        let mut rest_of_last = 0;
        for pfn in (first..start.0 + spanned).step_by(PAGEBLOCK_PAGES) {
            let here = self.topology().pageblocks.get(Pfn(pfn)).is_some_and(|block| usize::from(block.zone()) == zone);
            if here {
                self.walk_pageblock(Pfn(pfn), &mut found, &mut rest_of_last)?;
            }
        }
        self.compare(zone, &found)?;
        Ok(found.cached)
    }

    /// Adds up a page block. `covered` is the number of frames at its beginning that a larger free block already
    /// covers.
    fn walk_pageblock(&self, start: Pfn, found: &mut Found, covered: &mut usize) -> Result<(), Imbalance> {
        let frames = self.frames();
        let mut free = (*covered).min(PAGEBLOCK_PAGES);
        let mut at = free;
        *covered -= free;
        while at < PAGEBLOCK_PAGES {
            let pfn = Pfn(start.0 + at);
            let page = frames.page(pfn);
            let order = page.order();
            match page.state() {
                PageState::Free => {
                    self.check_merged(pfn, order)?;
                    found.blocks[usize::from(page.free_list())][order as usize] += 1;
                    found.free += 1 << order;
                    let here = (1 << order).min(PAGEBLOCK_PAGES - at);
                    *covered = (1 << order) - here;
                    free += here;
                    at += here;
                }
                PageState::Cached => {
                    found.cached += 1 << order;
                    at += 1 << order;
                }
                _ => at += 1,
            }
        }
        let counted = frames.pageblocks.of(start).free();
        match counted as usize == free {
            true => Ok(()),
            false => Err(Imbalance::Pageblock { pfn: start, counted, found: free as u32 }),
        }
    }

    fn check_merged(&self, pfn: Pfn, order: u32) -> Result<(), Imbalance> {
        let aligned = pfn.0.is_multiple_of(1 << order);
        let buddy = Pfn(pfn.0 ^ 1 << order);
        let should_merge = order < PAGEBLOCK_ORDER.min(MAX_ORDER) && self.frames().page(buddy).is_free_block(order);
        if aligned && !should_merge { Ok(()) } else { Err(Imbalance::Unmerged { pfn, order }) }
    }

    fn compare(&self, zone: usize, found: &Found) -> Result<(), Imbalance> {
        self.zones[zone].with_area(|area| {
            for (list, of_type) in found.blocks.iter().enumerate() {
                for (order, &blocks) in of_type.iter().enumerate() {
                    let counted = area.blocks(MigrateType::ALL[list], order as u32);
                    if counted != blocks {
                        return Err(Imbalance::Blocks { zone, list, order, counted, found: blocks });
                    }
                }
            }
            let counted = area.free;
            let sum: usize = area.free_of.iter().sum();
            match counted == found.free && sum == counted {
                true => Ok(()),
                false => Err(Imbalance::Free { zone, counted, found: found.free }),
            }
        })
    }
}
