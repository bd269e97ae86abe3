//! Lending of blocks by a later zone, when the best zone of a request is exhausted.
//!
//! The fast path only checks one list: the CPU's for the best zone. To avoid a walk of the zonelist for each page of a
//! later zone, the slow path puts a batch of the later zone's blocks on that list. The next allocations take them as if
//! they were the best zone's own. A page that the CPU frees goes to the list of the zone that it belongs to. So a page
//! of the best zone that is freed is used at once, and the slow path checks the best zone again after the batch at the
//! latest.
//!
//! - A list may serve every request that prefers its zone, so lent blocks must be suitable for all of them: requests
//!   that are limited to a zone below NORMAL or to a node ([`STRICT`]) never take a block of another zone from a list,
//!   and zone MOVABLE only lends to another zone MOVABLE.
//! - A lent block counts as allocated from its own zone when it is lent. Until it is allocated it counts as free in the
//!   list's zone: the sum over all zones is exact, each zone's share within a batch for each CPU.
//! - A block leaves a list for the buddy of its own zone, which its page block's record names; the record is only read
//!   if something has been lent to the list since its CPU last emptied it ([`Loans`]).

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::addr::Pfn;
use crate::buddy::{List, MigrateType};
use crate::page_alloc::Machine;
use crate::pcp::{CACHED_ORDERS, Chain};
use crate::zone::{Demand, ZoneKind};

use super::{Gfp, PageAllocator};

/// Flags of requests that must not get a block of a zone other than the one they name.
pub(super) const STRICT: Gfp = Gfp::THISNODE.union(Gfp::DMA).union(Gfp::DMA32);

/// How often something was lent to a CPU's lists for a zone, and up to which of these loans all blocks are known to be
/// gone. Only the CPU itself changes these counts.
///
/// Whoever takes a chain off a list reads `ended` before, and `made` afterwards. If the chain contains a block of the
/// `n`th loan, `made` is at least `n`, since it was changed before the block was put on the list; and `ended` was less,
/// since it only becomes `n` when the list is empty, and the block was there later.
pub(super) struct Loans {
    made: AtomicU32,
    ended: AtomicU32,
}

impl Loans {
    pub(super) const fn new() -> Self {
        Self { made: AtomicU32::new(0), ended: AtomicU32::new(0) }
    }
}

impl<M: Machine> PageAllocator<M> {
    /// A block of `zone`, which is not the request's best zone. Others may be lent to this CPU's list for the best
    /// zone.
    pub(super) fn take_from_later(&self, best: usize, zone: usize, demand: &Demand, gfp: Gfp) -> Option<Pfn> {
        let is_movable = |zone: usize| zone % ZoneKind::COUNT == ZoneKind::Movable as usize;
        if gfp.intersects(STRICT) || is_movable(zone) && !is_movable(best) {
            return self.take_from_lists(zone, demand, gfp);
        }
        let irq = self.machine.irq_save();
        let (to, from) = (self.own_lists(best).of(demand.order), self.own_lists(zone).of(demand.order));
        // (The thread may have moved to another CPU, whose list is not empty.)
        if to.is_empty(demand.list) {
            let mut lent = from.take_active(demand.list);
            if lent.count() == 0 {
                lent = self.next_chain(zone, from, demand);
            }
            from.count_allocated(i64::from(lent.count()));
            to.count_allocated(-i64::from(lent.count()));
            // Before the blocks are on the list: whoever takes them off the list sees this.
            let made = &self.loans[best][self.machine.cpu()].made;
            made.store(made.load(Relaxed).wrapping_add(1), Release);
            to.refill(demand.list, lent);
        }
        let pfn = to.pop(self.frames(), demand.list);
        self.machine.irq_restore(irq);
        self.frames().page(pfn?).make_allocated(demand.order);
        pfn
    }

    /// The zone to which a block on a list belongs.
    fn home(&self, pfn: Pfn) -> usize {
        self.frames().pageblocks.of(pfn).zone().into()
    }

    /// Whether a block from a list of `zone` may serve such a request.
    pub(super) fn serves(&self, pfn: Pfn, zone: usize, gfp: Gfp) -> bool {
        !gfp.intersects(STRICT) || self.home(pfn) == zone
    }

    /// Up to which loan the blocks lent to a CPU's lists for a zone are gone. Read before a chain is taken off a list.
    #[inline]
    pub(super) fn ended(&self, zone: usize, cpu: usize) -> u32 {
        self.loans[zone][cpu].ended.load(Acquire)
    }

    /// Whether a chain may contain lent blocks. Called after it was taken off the list; `ended` was read before.
    #[inline]
    pub(super) fn is_mixed(&self, zone: usize, cpu: usize, ended: u32) -> bool {
        self.loans[zone][cpu].made.load(Acquire) != ended
    }

    /// Empties this CPU's lists for a zone, if something was lent to them.
    pub(super) fn call_in(&self, zone: usize) {
        let irq = self.machine.irq_save();
        let loans = &self.loans[zone][self.machine.cpu()];
        let made = loans.made.load(Relaxed);
        if made == loans.ended.load(Relaxed) {
            return self.machine.irq_restore(irq);
        }
        let mut chains = [[[Chain::EMPTY; 2]; MigrateType::PER_CPU]; CACHED_ORDERS as usize];
        for ((_, lists), of_order) in self.own_lists(zone).iter().zip(&mut chains) {
            for (list, of_type) in List::ALL.into_iter().zip(of_order) {
                *of_type = lists.take(list);
            }
        }
        // Only this CPU lends to these lists, so they contain no lent blocks now.
        loans.ended.store(made, Release);
        self.machine.irq_restore(irq);
        for (order, of_order) in (0..).zip(chains) {
            of_order.into_iter().flatten().for_each(|chain| self.drain_chain(zone, order, chain, true));
        }
    }

    /// Gives a chain of cached blocks of one order, from a list of `zone`, to the buddies of their zones.
    #[cold]
    #[inline(never)]
    pub(super) fn drain_chain(&self, zone: usize, order: u32, mut chain: Chain, is_mixed: bool) {
        if !is_mixed {
            return self.drain_to(zone, order, chain);
        }
        while let Some(first) = chain.peek() {
            let home = self.home(Pfn(first as usize));
            let (theirs, rest) = self.part(chain, home);
            let returned = i64::from(theirs.count());
            let irq = self.machine.irq_save();
            self.own_lists(home).of(order).count_allocated(-returned);
            self.own_lists(zone).of(order).count_allocated(returned);
            self.machine.irq_restore(irq);
            self.drain_to(home, order, theirs);
            chain = rest;
        }
    }

    /// Splits a chain into the blocks that belong to `zone`, and the others.
    fn part(&self, mut chain: Chain, zone: usize) -> (Chain, Chain) {
        let (mut theirs, mut others) = (Chain::EMPTY, Chain::EMPTY);
        while let Some(page) = chain.pop(self.frames()) {
            let to = if self.home(Pfn(page as usize)) == zone { &mut theirs } else { &mut others };
            to.push(self.frames(), page);
        }
        (theirs, others)
    }

    /// Gives the blocks of a chain to the buddy of their zone, a few under each hold of its lock: each may merge
    /// through all orders.
    #[inline]
    fn drain_to(&self, zone: usize, order: u32, mut chain: Chain) {
        /// The number of blocks, or runs of pages, under one hold.
        const AT_ONCE: usize = 16;
        let frames = self.frames();
        while chain.count() != 0 {
            self.zones[zone].with_area(|area| {
                for _ in 0..AT_ONCE {
                    let Some(page) = chain.pop(frames) else { return };
                    if order > 0 {
                        area.free_block(frames, Pfn(page as usize), order);
                        continue;
                    }
                    let (first, last) = self.rest_of_run(page, &mut chain);
                    area.free_run(frames, Pfn(first as usize), (last - first) as usize + 1);
                }
            });
        }
    }

    /// Takes the pages off a chain that continue a run of single pages, upwards or downwards, as when pages are freed
    /// that were mapped in order. Returns the first and the last page of the run.
    #[inline(always)]
    fn rest_of_run(&self, page: u32, chain: &mut Chain) -> (u32, u32) {
        let (mut first, mut last) = (page, page);
        while let Some(page) = chain.peek() {
            match page {
                _ if page == last + 1 => last = page,
                _ if page + 1 == first => first = page,
                _ => break,
            }
            chain.pop(self.frames());
        }
        (first, last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Sim, SimConfig};
    use crate::zone::ZoneKind;

    const MOVABLE: Gfp = Gfp::HIGHUSER_MOVABLE.difference(Gfp::RECLAIM);

    /// Node 0's zone is exhausted, and node 1's has lent to the list of CPU 0; also returns what was allocated.
    fn lent() -> (&'static Sim, std::vec::Vec<Pfn>, usize) {
        let sim = Sim::boot(&SimConfig::new().bank(1 << 30, 32 << 20, 0).bank(2 << 30, 32 << 20, 1));
        Sim::set_cpu(0);
        let mut held = std::vec::Vec::new();
        while held.last().is_none_or(|pfn| sim.pages().node_of(*pfn) == 0) {
            held.push(sim.pages().alloc_raw(0, MOVABLE).unwrap());
        }
        let best = sim.pages().home(held[0]);
        assert_eq!(best / ZoneKind::COUNT, 0);
        (sim, held, best)
    }

    /// If another CPU drains the list, that does not prove that no loan is left: the list's own CPU may be taking a
    /// part of it.
    #[test]
    fn only_its_cpu_says_that_nothing_is_lent_to_a_list() {
        let (sim, held, best) = lent();
        let pages = sim.pages();
        assert!(pages.is_mixed(best, 0, pages.ended(best, 0)));
        Sim::set_cpu(1);
        pages.drain_cpu(0);
        assert!(pages.is_mixed(best, 0, pages.ended(best, 0)), "CPU 0 may have taken a chain before");
        Sim::set_cpu(0);
        pages.drain_cpu(0);
        assert!(!pages.is_mixed(best, 0, pages.ended(best, 0)), "its lists are empty");
        held.into_iter().for_each(|pfn| crate::frame::free(sim, pfn));
        pages.drain_all();
        assert!(pages.zones().all(|zone| zone.free() == zone.managed()) && pages.validate().is_ok());
    }

    /// A thread that has asked before the lending, and takes the list after it, knows that it is mixed.
    #[test]
    fn what_is_lent_between_the_question_and_the_chain_is_noticed() {
        let (sim, held, best) = lent();
        let pages = sim.pages();
        pages.drain_cpu(0);
        let ended = pages.ended(best, 0);
        let more = pages.alloc_raw(0, MOVABLE).unwrap();
        assert_eq!(pages.node_of(more), 1);
        assert!(pages.is_mixed(best, 0, ended));
        held.into_iter().chain([more]).for_each(|pfn| crate::frame::free(sim, pfn));
        pages.drain_all();
        assert!(pages.zones().all(|zone| zone.free() == zone.managed()) && pages.validate().is_ok());
    }
}
