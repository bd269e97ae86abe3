//! Per-CPU lists of free blocks, which make the common allocation and free cheap.
//!
//! For each CPU, zone and small order there are, for each mobile migrate type, two stacks of blocks: one at work and
//! one spare (the magazines of Bonwick and Adams 2001). A free pushes, an allocation pops, with interrupts masked and
//! no lock. When a full stack overflows, all of it except the new block becomes the spare, and the old spare, whose
//! blocks have been unused longest, goes back to the buddy at once. When it is empty the spare replaces it, and only if
//! that is empty too a batch comes from the buddy. So a CPU whose allocations and frees fluctuate around any level
//! takes the zone's lock at most once per batch, and not at all if it alternates between the two. The lists are per
//! zone, not per node, because the zone is what a request limits; a free finds it in the page block table either way.
//!
//! A block on a list cannot merge, so a list holds few blocks of the larger orders, and none above order 3.
//!
//! One cache line holds a CPU's lists for a zone and order, so that CPUs that work apart write no common line.

mod stack;
#[cfg(test)]
mod tests;

mod atomic {
    pub(super) use core::sync::atomic::{AtomicU64, Ordering};
}

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::addr::Pfn;
use crate::buddy::{Frames, List, MigrateType};
use crate::page::Machine;
use crate::page::link;

pub(crate) use stack::Chain;
use stack::{Links, Stack};

impl<M: Machine> Links for Frames<M> {
    #[inline(always)]
    fn next(self, page: u32) -> u32 {
        self.page(Pfn(page as usize)).next().load(Relaxed)
    }

    #[inline(always)]
    fn set_next(self, page: u32, next: u32) {
        self.page(Pfn(page as usize)).next().store(next, Relaxed);
    }
}

/// The number of orders with per-CPU lists, which slabs, stacks and tables use (the same as Linux's
/// PAGE_ALLOC_COSTLY_ORDER).
pub(crate) const CACHED_ORDERS: u32 = 4;

/// One CPU's lists for one zone, by order.
pub(crate) struct ZoneLists([PerCpuLists; CACHED_ORDERS as usize]);

impl ZoneLists {
    pub(crate) const fn new() -> Self {
        Self([const { PerCpuLists::new() }; CACHED_ORDERS as usize])
    }

    /// The lists of an order that has some.
    #[inline(always)]
    pub(crate) fn of(&self, order: u32) -> &PerCpuLists {
        debug_assert!(order < CACHED_ORDERS);
        // SAFETY: the mask keeps the index below the length, which is a power of two.
        unsafe { self.0.get_unchecked((order & (CACHED_ORDERS - 1)) as usize) }
    }

    /// Each order and its lists.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &PerCpuLists)> {
        (0..).zip(&self.0)
    }

    /// Counts an allocation that bypassed the lists.
    pub(crate) fn count_allocated(&self, pages: usize) {
        self.0[0].count_allocated(pages as i64);
    }

    /// Pages held now.
    pub(crate) fn held(&self) -> usize {
        self.iter().map(|(order, lists)| lists.held() << order).sum()
    }

    /// Pages allocated since boot; may be below 0, as for each order.
    pub(crate) fn allocated(&self) -> i64 {
        self.iter().map(|(order, lists)| lists.allocated() << order).sum()
    }

    /// Changes how many single pages are fetched at once. For the larger orders it is half as much memory, but at least
    /// one block. Two such stacks for each type and order contain fifteen times as many pages in total.
    pub(crate) fn set_batch(&self, pages: usize) {
        for (order, lists) in self.iter() {
            lists.set_batch(if order == 0 { pages } else { (pages >> (order + 1)).max(1) });
        }
    }
}

const _: () = assert!(CACHED_ORDERS.is_power_of_two());

/// One CPU's lists for one zone and order.
#[repr(C, align(64))]
pub(crate) struct PerCpuLists {
    active: [Stack; MigrateType::PER_CPU],
    spare: [Stack; MigrateType::PER_CPU],
    /// Blocks that this CPU allocated from the zone since boot. The number freed follows from the number in use.
    allocated: AtomicU64,
    /// Blocks that make a stack full, and that are fetched at once.
    batch: AtomicU64,
}

const _: () = assert!(size_of::<PerCpuLists>() == 64);

impl PerCpuLists {
    pub(crate) const fn new() -> Self {
        Self {
            active: [const { Stack(AtomicU64::new(0)) }; MigrateType::PER_CPU],
            spare: [const { Stack(AtomicU64::new(0)) }; MigrateType::PER_CPU],
            allocated: AtomicU64::new(0),
            batch: AtomicU64::new(1),
        }
    }

    /// Takes a block from the active stack. Called by its CPU, with interrupts masked, as are all functions down to
    /// `count_allocated`.
    #[inline(always)]
    pub(crate) fn pop<M: Machine>(&self, frames: Frames<M>, list: List) -> Option<Pfn> {
        let page = list.pick(&self.active).pop(frames)?;
        self.count_allocated(1);
        Some(Pfn(page as usize))
    }

    /// Puts a block on the active stack; returns whether that was full.
    #[inline(always)]
    pub(crate) fn push<M: Machine>(&self, frames: Frames<M>, list: List, pfn: Pfn) -> bool {
        u64::from(list.pick(&self.active).push(frames, link(pfn))) > self.batch.load(Relaxed)
    }

    /// Whether the active stack is empty.
    pub(crate) fn is_empty(&self, list: List) -> bool {
        list.pick(&self.active).count() == 0
    }

    /// Takes the spare.
    pub(crate) fn take_spare(&self, list: List) -> Chain {
        list.pick(&self.spare).take()
    }

    /// Takes the stack at work.
    pub(crate) fn take_active(&self, list: List) -> Chain {
        list.pick(&self.active).take()
    }

    /// Replaces the active stack, which is empty, by these blocks.
    pub(crate) fn refill(&self, list: List, chain: Chain) {
        list.pick(&self.active).fill(chain);
    }

    /// Replaces the spare by the active stack, which is more than full, except its top block. Returns the old spare,
    /// for the buddy.
    pub(crate) fn retire<M: Machine>(&self, frames: Frames<M>, list: List) -> Chain {
        let (active, spare) = (list.pick(&self.active), list.pick(&self.spare));
        let top = active.pop(frames);
        let old = spare.take();
        spare.fill(active.take());
        if let Some(top) = top {
            active.push(frames, top);
        }
        old
    }

    /// Counts blocks as allocated, or (below 0) as not allocated after all.
    #[inline(always)]
    pub(crate) fn count_allocated(&self, blocks: i64) {
        self.allocated.store(self.allocated.load(Relaxed).wrapping_add_signed(blocks), Relaxed);
    }

    /// Takes both stacks of a type. By any CPU.
    pub(crate) fn take(&self, list: List) -> [Chain; 2] {
        // An empty stack is left alone: its line stays with its CPU.
        [&self.active, &self.spare].map(|stacks| match list.pick(stacks) {
            stack if stack.count() == 0 => Chain::EMPTY,
            stack => stack.take(),
        })
    }

    /// Blocks held now.
    fn held(&self) -> usize {
        self.active.iter().chain(&self.spare).map(|stack| stack.count() as usize).sum()
    }

    /// Blocks allocated since boot. For one CPU it may be below 0: blocks that others lent it do not count as allocated
    /// yet.
    fn allocated(&self) -> i64 {
        self.allocated.load(Relaxed) as i64
    }

    pub(crate) fn batch(&self) -> usize {
        self.batch.load(Relaxed) as usize
    }

    fn set_batch(&self, blocks: usize) {
        self.batch.store(blocks as u64, Relaxed);
    }
}
