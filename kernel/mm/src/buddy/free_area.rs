//! The free blocks of a zone: a list for each order and migrate type.
//!
//! The lists are doubly linked through the heads' records, so that a buddy is unlinked in one step wherever it is. A
//! bitmap for each type says which orders have blocks, so nothing is searched.

use core::sync::atomic::Ordering::Relaxed;

use crate::addr::Pfn;
use crate::page::Machine;
use crate::page::{Page, link};

use super::pageblock::{MigrateType, PageblockTable};
use super::{MAX_ORDER, ORDERS};

/// The buddy's metadata: the records, and the table of page blocks.
#[derive(Clone, Copy)]
pub struct Frames<M: Machine> {
    pub(crate) machine: M,
    pub(crate) pageblocks: PageblockTable,
}

impl<M: Machine> Frames<M> {
    /// The record of a frame that the page allocator manages, or of its buddy.
    #[inline(always)]
    pub(crate) fn page(&self, pfn: Pfn) -> &'static Page {
        debug_assert!(self.pageblocks.get(pfn).is_some());
        // SAFETY: boot made records for all memory, rounded outward to blocks of the largest order (`init` requires
        // that), and blocks and buddies stay within that range.
        unsafe { Page::of(self.machine, pfn) }
    }

    /// The head of the block that contains such a frame; only a hint if the caller does not keep the block unchanged.
    pub(crate) fn head(&self, pfn: Pfn) -> Option<Pfn> {
        debug_assert!(self.pageblocks.get(pfn).is_some());
        // SAFETY: the frame has a record, as in `page`.
        unsafe { crate::page::compound_head(self.machine, pfn) }
    }

    #[inline(always)]
    fn linked(&self, link: u32) -> Option<&'static Page> {
        (link != 0).then(|| self.page(Pfn(link as usize)))
    }
}

/// All free blocks of a zone. Lives under the zone's lock.
pub struct FreeArea {
    /// First block of each list, 0 for none.
    heads: [[u32; ORDERS]; MigrateType::COUNT],
    /// Blocks on each list.
    counts: [[u32; ORDERS]; MigrateType::COUNT],
    /// Which orders have blocks: a bit for each.
    occupied: [u16; MigrateType::COUNT],
    /// Free frames, of all types.
    pub(crate) free: usize,
    /// Free frames of each type's lists.
    pub(crate) free_of: [usize; MigrateType::COUNT],
    /// Page blocks of type `HighAtomic`.
    pub(crate) high_atomic_blocks: usize,
}

impl FreeArea {
    pub(crate) const EMPTY: Self = Self {
        heads: [[0; ORDERS]; MigrateType::COUNT],
        counts: [[0; ORDERS]; MigrateType::COUNT],
        occupied: [0; MigrateType::COUNT],
        free: 0,
        free_of: [0; MigrateType::COUNT],
        high_atomic_blocks: 0,
    };

    /// Free blocks of an order on the lists of a type.
    pub fn blocks(&self, list: MigrateType, order: u32) -> u32 {
        self.counts[list as usize][order as usize]
    }

    /// Free frames that can be allocated: all except the isolated ones.
    #[inline]
    pub(crate) fn usable(&self) -> usize {
        self.free - self.free_of[MigrateType::Isolate as usize]
    }

    /// The lowest order at `order` or above of which a list has a block.
    #[inline]
    pub(crate) fn smallest(&self, list: MigrateType, order: u32) -> Option<u32> {
        let fitting = u32::from(self.occupied[list as usize]) >> order;
        (fitting != 0).then(|| order + fitting.trailing_zeros())
    }

    /// The highest order at `order` or above of which a list has a block.
    #[inline]
    pub(crate) fn largest(&self, list: MigrateType, order: u32) -> Option<u32> {
        let fitting = u32::from(self.occupied[list as usize]) >> order;
        (fitting != 0).then(|| order + fitting.ilog2())
    }

    /// The first block of a list.
    pub(crate) fn first(&self, list: MigrateType, order: u32) -> Option<Pfn> {
        match self.heads[list as usize][order as usize] {
            0 => None,
            head => Some(Pfn(head as usize)),
        }
    }

    /// Puts a block at the front of a list.
    #[inline]
    pub(crate) fn insert<M: Machine>(&mut self, frames: Frames<M>, pfn: Pfn, order: u32, list: MigrateType) {
        debug_assert!(order <= MAX_ORDER && pfn.0 != 0 && pfn.0 & ((1 << order) - 1) == 0);
        let page = frames.page(pfn);
        let head = &mut self.heads[list as usize][order as usize];
        if let Some(second) = frames.linked(*head) {
            second.prev().store(link(pfn), Relaxed);
        }
        page.make_free(order, list as u8);
        page.next().store(*head, Relaxed);
        page.prev().store(0, Relaxed);
        *head = link(pfn);
        self.occupied[list as usize] |= 1 << order;
        self.counts[list as usize][order as usize] += 1;
        self.free += 1 << order;
        self.free_of[list as usize] += 1 << order;
        frames.pageblocks.count_free(pfn, order, true);
    }

    /// Takes a block off the list that its head's record names. The caller changes the head's state.
    #[inline]
    pub(crate) fn remove<M: Machine>(&mut self, frames: Frames<M>, pfn: Pfn, order: u32) {
        let page = frames.page(pfn);
        debug_assert!(page.is_free_block(order));
        let list = usize::from(page.free_list());
        let (next, prev) = (page.next().load(Relaxed), page.prev().load(Relaxed));
        if let Some(after) = frames.linked(next) {
            after.prev().store(prev, Relaxed);
        }
        match frames.linked(prev) {
            Some(before) => before.next().store(next, Relaxed),
            None => {
                self.heads[list][order as usize] = next;
                if next == 0 {
                    self.occupied[list] &= !(1 << order);
                }
            }
        }
        self.counts[list][order as usize] -= 1;
        self.free -= 1 << order;
        self.free_of[list] -= 1 << order;
        frames.pageblocks.count_free(pfn, order, false);
    }
}
