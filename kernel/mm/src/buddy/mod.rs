//! The buddy allocator of one zone: blocks of `1 << order` frames, split on allocation and merged when freed.
//!
//! The buddy of a block is the other half of the next larger one, at `pfn ^ (1 << order)`; it merges if its own record
//! says that it heads a free block of the same order. There is no bitmap in addition to the records.
//!
//! Costs: a free follows at most [`MAX_ORDER`] buddies, an allocation splits at most as many times, and both only
//! access the first block of a list.
//!
//! Everything here runs under the zone's lock.

pub mod pageblock;

mod free_area;
mod isolate;
mod steal;
#[cfg(test)]
mod tests;

pub use free_area::{Frames, FreeArea};
pub(crate) use pageblock::List;
pub use pageblock::{MigrateType, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, Pageblock, PageblockTable};

use crate::addr::Pfn;
use crate::page::Machine;

pub use crate::page::MAX_ORDER;

/// Number of orders.
pub const ORDERS: usize = MAX_ORDER as usize + 1;

const _: () = assert!(ORDERS == quire_abi::info::ORDERS);

/// Frames in the largest block.
pub const MAX_ORDER_PAGES: usize = 1 << MAX_ORDER;

impl FreeArea {
    /// Frees a block whose head's record the caller owns. It merges with its buddies as far as they are free.
    pub(crate) fn free_block<M: Machine>(&mut self, frames: Frames<M>, pfn: Pfn, order: u32) {
        let (mut pfn, mut order) = (pfn, order);
        let own = frames.pageblocks.of(pfn);
        frames.page(pfn).make_absent();
        while order < MAX_ORDER {
            let buddy = Pfn(pfn.0 ^ 1 << order);
            if !frames.page(buddy).is_free_block(order) {
                break;
            }
            if order >= PAGEBLOCK_ORDER && !may_merge(own, frames.pageblocks.of(buddy)) {
                break;
            }
            self.remove(frames, buddy, order);
            frames.page(buddy).make_absent();
            pfn = Pfn(pfn.0 & buddy.0);
            order += 1;
        }
        self.insert(frames, pfn, order, frames.pageblocks.of(pfn).migrate_type());
    }

    /// Frees consecutive single frames, whose records the caller owns, as the largest blocks that they form.
    #[inline]
    pub(crate) fn free_run<M: Machine>(&mut self, frames: Frames<M>, first: Pfn, count: usize) {
        let (mut at, end) = (first.0, first.0 + count);
        for pfn in at..end {
            frames.page(Pfn(pfn)).make_absent();
        }
        while at < end {
            let order = at.trailing_zeros().min((end - at).ilog2()).min(PAGEBLOCK_ORDER);
            self.free_block(frames, Pfn(at), order);
            at += 1 << order;
        }
    }

    /// Allocates consecutive blocks of `order` for `wanted`, at most `limit`: those that single allocations would use
    /// next. Returns how many.
    #[inline]
    pub(crate) fn allocate_run<M: Machine>(
        &mut self,
        frames: Frames<M>,
        order: u32,
        limit: usize,
        wanted: Wanted,
    ) -> Option<(Pfn, usize)> {
        let list = if self.prefers_cma(wanted) { MigrateType::Cma } else { wanted.list };
        let found = self.smallest(list, order).map_or(order, |found| found.min(order + limit.ilog2()));
        Some((self.allocate(frames, found, wanted)?, 1 << (found - order)))
    }

    /// Movable allocations use CMA's pages in proportion: if these were used last, they would be the only free pages
    /// left for allocations that cannot use them.
    #[inline]
    fn prefers_cma(&self, wanted: Wanted) -> bool {
        wanted.cma && self.free_of[MigrateType::Cma as usize] > self.usable() / 2
    }

    /// Takes a block of `order` off the lists of one migrate type, splitting a larger one if necessary.
    #[inline]
    pub(crate) fn take<M: Machine>(&mut self, frames: Frames<M>, order: u32, list: MigrateType) -> Option<Pfn> {
        let found = self.smallest(list, order)?;
        let pfn = self.first(list, found)?;
        self.remove(frames, pfn, found);
        frames.page(pfn).make_absent();
        self.split(frames, pfn, found, order, list);
        Some(pfn)
    }

    /// Frees all of a block of order `from` except its first `1 << to` frames.
    #[inline]
    fn split<M: Machine>(&mut self, frames: Frames<M>, pfn: Pfn, from: u32, to: u32, list: MigrateType) {
        for order in (to..from).rev() {
            self.insert(frames, Pfn(pfn.0 + (1 << order)), order, list);
        }
    }

    /// Takes a block for `wanted`: from its own lists, from CMA's where that is allowed, otherwise from a type that it
    /// may fall back to.
    #[inline]
    pub(crate) fn allocate<M: Machine>(&mut self, frames: Frames<M>, order: u32, wanted: Wanted) -> Option<Pfn> {
        if self.prefers_cma(wanted)
            && let Some(pfn) = self.take(frames, order, MigrateType::Cma)
        {
            return Some(pfn);
        }
        if let Some(pfn) = self.take(frames, order, wanted.list) {
            return Some(pfn);
        }
        self.allocate_elsewhere(frames, order, wanted)
    }

    #[cold]
    fn allocate_elsewhere<M: Machine>(&mut self, frames: Frames<M>, order: u32, wanted: Wanted) -> Option<Pfn> {
        if wanted.cma
            && let Some(pfn) = self.take(frames, order, MigrateType::Cma)
        {
            return Some(pfn);
        }
        if wanted.list.is_mobile()
            && let Some(pfn) = self.steal(frames, order, wanted.list)
        {
            return Some(pfn);
        }
        if wanted.reserves { self.take(frames, order, MigrateType::HighAtomic) } else { None }
    }
}

/// The number of the pair of buddies that a block belongs to, among all pairs of its order.
///
/// Freeing page 11 while 10, 8–9 and 12–15 are free visits pairs 5, 2 and 1, and ends as the block of order 3 at
/// page 8, of pair 0:
///
/// ```
/// use quire_mm::buddy::buddy_index;
/// assert_eq!([buddy_index(11, 0), buddy_index(10, 1), buddy_index(8, 2), buddy_index(8, 3)], [5, 2, 1, 0]);
/// ```
pub const fn buddy_index(page_index: usize, order: u32) -> usize {
    page_index >> (order + 1)
}

/// Which lists an allocation may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Its own.
    pub list: MigrateType,
    /// CMA's too: the page can be moved away when the area's owner needs it.
    pub cma: bool,
    /// As a last resort also the blocks kept for high-order atomic allocations.
    pub reserves: bool,
}

/// Whether whole free page blocks may become one larger block: same zone, and either the same type or two that
/// may turn into each other.
fn may_merge(a: &Pageblock, b: &Pageblock) -> bool {
    let (of_a, of_b) = (a.migrate_type(), b.migrate_type());
    a.zone() == b.zone() && (of_a == of_b || of_a.is_mobile() && of_b.is_mobile())
}
