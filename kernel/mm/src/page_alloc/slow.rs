//! The slow path: the whole zonelist, lower watermarks, reclaim.

use core::sync::atomic::Ordering::Relaxed;

use crate::addr::{PAGE_SIZE, Pfn};
use crate::buddy::{MAX_ORDER, MigrateType};
use crate::event::Event;
use crate::fallible::AllocError;
use crate::page::link;
use crate::page_alloc::Machine;
use crate::pcp::{CACHED_ORDERS, Chain, PerCpuLists};
use crate::psi::Stall;
use crate::sync::WAITING;
use crate::zone::{Demand, Depth, MAX_NODES};

use super::{Gfp, POISON, PageAllocator, trap};

/// The number of rounds of reclaim without a freed page after which it counts as hopeless.
const FRUITLESS_ROUNDS: u32 = 3;

/// The number of rounds of reclaim for a large order, for which freed pages seldom merge to a sufficient block.
const COSTLY_ROUNDS: u32 = 2;

/// Orders above this are not worth killing for.
const COSTLY_ORDER: u32 = 3;

/// The minimum number of pages that a round of reclaim requests.
pub(super) const RECLAIM_TARGET: usize = 32;

impl<M: Machine> PageAllocator<M> {
    /// Allocates by all means that `gfp` permits. `None` means this CPU's node.
    #[cold]
    #[inline(never)]
    pub(super) fn alloc_slow(&self, node: Option<usize>, order: u32, gfp: Gfp) -> Result<Pfn, AllocError> {
        let node = node.unwrap_or_else(|| self.topology().node_of_cpu[self.machine.cpu()].into());
        debug_assert!(
            !gfp.may_wait() || self.machine.held_ranks().load(Relaxed) & !WAITING == 0,
            "memory is waited for under locks of ranks {:#x}",
            self.machine.held_ranks().load(Relaxed)
        );
        debug_assert!(!gfp.may_wait() || self.machine.may_wait(), "memory is waited for with interrupts masked");
        if order > MAX_ORDER || node >= MAX_NODES {
            return Err(AllocError);
        }
        let traps = self.trap.load(Relaxed);
        if traps & trap::INJECT != 0 && self.injection.hits(order, PAGE_SIZE << order, gfp) {
            return Err(AllocError);
        }
        if traps >= trap::ASK && !gfp.contains(Gfp::NOFAIL) && self.machine.fails_allocation(gfp) {
            return Err(AllocError);
        }
        let Some(pfn) = self.find(node, order, gfp) else {
            if !gfp.contains(Gfp::NOWARN) {
                self.pressure.handler().report_failure(order, gfp);
            }
            return Err(AllocError);
        };
        if traps & trap::POISON != 0 {
            self.check_poison(pfn, order);
        }
        if gfp.contains(Gfp::ZERO) {
            self.clear(pfn, order);
        }
        if gfp.contains(Gfp::COMP) && order > 0 {
            self.frames().page(pfn).set_flags(crate::page::PageFlags::COMPOUND);
        }
        Ok(pfn)
    }

    fn find(&self, node: usize, order: u32, gfp: Gfp) -> Option<Pfn> {
        let demand = Demand {
            order,
            list: gfp.list(),
            highest: gfp.zone(),
            depth: Depth::Low,
            cma: gfp.migrate_type() == MigrateType::Movable,
        };
        if let Some(pfn) = self.take_from_zonelist(node, &demand, gfp) {
            return Some(pfn);
        }
        if gfp.contains(Gfp::KSWAPD_RECLAIM) {
            self.wake_background(node, &demand, gfp);
        }
        // Only for kernel memory on the exit path, not for the dying program's own pages.
        let is_dying = !gfp.intersects(Gfp::NOMEMALLOC | Gfp::MOVABLE) && self.pressure.handler().may_use_reserves();
        let depth = if is_dying { Depth::Nothing } else { deepest(gfp) };
        let demand = Demand { depth, ..demand };
        if let Some(pfn) = self.take_from_zonelist(node, &demand, gfp) {
            return Some(pfn);
        }
        // Pages on per-CPU lists are free, so they are used before anything is reclaimed. For callers that do not
        // insist the lists are left alone; those that cannot wait may have interrupts masked, and unless nothing else helps
        // them they get what this CPU has.
        if !gfp.contains(Gfp::NORETRY) || gfp.may_wait() {
            if gfp.may_wait() {
                self.drain_all_waiting()
            } else if gfp.intersects(Gfp::HIGH | Gfp::MEMALLOC) {
                self.drain_all()
            } else {
                self.drain_cpu(self.machine.cpu())
            }
            if let Some(pfn) = self.take_from_zonelist(node, &demand, gfp) {
                return Some(pfn);
            }
        }
        if gfp.may_wait() {
            let _stall = Stall::begin(self.machine);
            if let Some(pfn) = self.compact_and_take(node, &demand, gfp, false) {
                return Some(pfn);
            }
            return self.reclaim_and_retry(node, &demand, gfp);
        }
        if !gfp.contains(Gfp::NORETRY) {
            self.pressure.handler().cannot_wait(order);
        }
        None
    }

    /// Tries the zones of the list in turn: this CPU's list for the zone, refilled as far as the watermark allows, or
    /// the zone's buddy.
    fn take_from_zonelist(&self, node: usize, demand: &Demand, gfp: Gfp) -> Option<Pfn> {
        let zonelist = &self.topology().zonelists[node][demand.highest];
        let wanted = zonelist.iter().filter(|&zone| !gfp.contains(Gfp::THISNODE) || super::init::node_of(zone) == node);
        // Allocations that may use the high-order reserve also add to it, which only the buddy does.
        let from_lists = demand.order == 0 || demand.order < CACHED_ORDERS && !demand.reserves();
        let best = zonelist.iter().next()?;
        let lends = from_lists && node == self.local_node();
        for zone in wanted {
            let pfn = match zone {
                _ if !from_lists => self.take_from_buddy(zone, demand),
                _ if lends && zone != best => self.take_from_later(best, zone, demand, gfp),
                _ => self.take_from_lists(zone, demand, gfp),
            };
            if pfn.is_some() {
                return pfn;
            }
        }
        None
    }

    fn take_from_buddy(&self, zone: usize, demand: &Demand) -> Option<Pfn> {
        let pfn = self.zones[zone].allocate(self.frames(), demand)?;
        let irq = self.machine.irq_save();
        self.own_lists(zone).count_allocated(1 << demand.order);
        self.machine.irq_restore(irq);
        Some(pfn)
    }

    /// A block from this CPU's list for a zone, which is refilled if it is empty.
    pub(super) fn take_from_lists(&self, zone: usize, demand: &Demand, gfp: Gfp) -> Option<Pfn> {
        let irq = self.machine.irq_save();
        let frames = self.frames();
        let lists = self.own_lists(zone).of(demand.order);
        let mut pfn = lists.pop(frames, demand.list);
        if pfn.is_none() {
            lists.refill(demand.list, self.next_chain(zone, lists, demand));
            pfn = lists.pop(frames, demand.list);
        }
        if let Some(lent) = pfn.filter(|&pfn| !self.serves(pfn, zone, gfp)) {
            lists.push(frames, demand.list, lent);
            lists.count_allocated(-1);
            self.machine.irq_restore(irq);
            return self.take_from_buddy(zone, demand);
        }
        self.machine.irq_restore(irq);
        frames.page(pfn?).make_allocated(demand.order);
        pfn
    }

    /// The replacement for an empty active stack: the spare one, or a batch from the buddy.
    pub(super) fn next_chain(&self, zone: usize, lists: &PerCpuLists, demand: &Demand) -> Chain {
        let spare = lists.take_spare(demand.list);
        if spare.count() != 0 {
            return spare;
        }
        // A request below the ordinary watermark takes only what it needs, not a batch.
        let batch = if demand.depth.is_ordinary() { lists.batch() } else { 1 };
        self.batch_from_buddy(zone, batch, demand)
    }

    /// Takes a batch of blocks from the buddy, or as many as there are above the watermark.
    fn batch_from_buddy(&self, zone: usize, batch: usize, demand: &Demand) -> Chain {
        let frames = self.frames();
        let zone = &self.zones[zone];
        let order = demand.order;
        let room = zone.room(demand, batch << order) >> order;
        let mut chain = Chain::EMPTY;
        if room == 0 {
            return chain;
        }
        let wanted =
            crate::buddy::Wanted { list: demand.list.migrate_type(), cma: demand.cma, reserves: demand.reserves() };
        zone.with_area(|area| {
            while (chain.count() as usize) < room {
                let limit = room - chain.count() as usize;
                let Some((first, run)) = area.allocate_run(frames, order, limit, wanted) else { break };
                // So that they are taken off the chain in the order of their addresses.
                for i in (0..run).rev() {
                    let pfn = Pfn(first.0 + (i << order));
                    frames.page(pfn).make_cached(order);
                    chain.push(frames, link(pfn));
                }
            }
        });
        chain
    }

    /// Reclaims in rounds until the demand can be met, or that is hopeless.
    fn reclaim_and_retry(&self, node: usize, demand: &Demand, gfp: Gfp) -> Option<Pfn> {
        let must_not_fail = gfp.contains(Gfp::NOFAIL) && demand.order <= 1;
        // A NOFAIL caller prefers a page from another node to none.
        let gfp = if must_not_fail { gfp - Gfp::THISNODE } else { gfp };
        let mut fruitless = 0;
        let mut rounds = 0;
        loop {
            rounds += 1;
            // (A killed thread has reserves, or gets an error.)
            let _ = self.machine.resched_point();
            let freed = self.reclaim_once(node, demand, gfp);
            let found = self.take_from_zonelist(node, demand, gfp);
            if let Some(pfn) = found.or_else(|| self.compact_and_take(node, demand, gfp, false)) {
                return Some(pfn);
            }
            fruitless = if freed == 0 { fruitless + 1 } else { 0 };
            let costly = demand.order > COSTLY_ORDER && rounds >= COSTLY_ROUNDS && !gfp.contains(Gfp::RETRY_MAYFAIL);
            let give_up = gfp.contains(Gfp::NORETRY) || fruitless >= FRUITLESS_ROUNDS || costly;
            if !give_up {
                continue;
            }
            // Nobody is killed because of mere fragmentation.
            if let Some(pfn) = self.compact_and_take(node, demand, gfp, true) {
                return Some(pfn);
            }
            if self.kill_for(demand.order, gfp) {
                fruitless = 0;
                rounds = 0;
            } else if must_not_fail {
                self.pressure.handler().wait_for_memory();
            } else {
                return None;
            }
        }
    }

    /// One round: runs the shrinkers, reclaims pages of programs if that is not enough, drains all these from per-CPU
    /// lists to the buddy, and releases the high-order atomic reserve. Returns the number of pages freed.
    fn reclaim_once(&self, node: usize, demand: &Demand, gfp: Gfp) -> usize {
        self.machine.count(Event::AllocStall, 1);
        let target = RECLAIM_TARGET.max(2 << demand.order);
        let mut freed = self.shrink(target, gfp);
        if freed < target {
            let taken = self.reclaim(node, demand.highest, target - freed);
            self.machine.count(Event::StealDirect, taken);
            freed += taken;
        }
        if freed != 0 {
            self.background_has_hope(node);
        }
        self.drain_all();
        for zone in self.topology().zonelists[node][demand.highest].iter() {
            self.zones[zone].with_area(|area| area.unreserve_high_atomic(self.frames(), demand.list.migrate_type()));
        }
        freed
    }

    /// Releases one page block per zone from the high-order atomic reserve. Returns whether there was any.
    pub fn shrink_high_atomic(&self) -> bool {
        let give = |zone: &crate::zone::Zone<M>| {
            zone.with_area(|area| area.unreserve_high_atomic(self.frames(), MigrateType::Movable))
        };
        self.zones.iter().filter(|&zone| give(zone)).count() != 0
    }

    /// Runs the OOM killer; returns whether that will free memory. Not for large blocks, nor for callers that accept
    /// failure, that are bound to a node, or that must not call into file systems, on which a dying process may wait.
    fn kill_for(&self, order: u32, gfp: Gfp) -> bool {
        let worth = order <= COSTLY_ORDER || gfp.contains(Gfp::NOFAIL);
        let willing = !gfp.intersects(Gfp::NORETRY | Gfp::RETRY_MAYFAIL | Gfp::THISNODE) && gfp.contains(Gfp::FS);
        worth && willing && self.pressure.handler().out_of_memory(order, gfp)
    }

    /// Debugging: checks that free memory still holds the fill pattern, so that writes after the free are found.
    #[cold]
    fn check_poison(&self, pfn: Pfn, order: u32) {
        let start = self.machine.direct_map(pfn.addr());
        // SAFETY: the block was just allocated; nobody else reaches it.
        let bytes = unsafe { core::slice::from_raw_parts(start, PAGE_SIZE << order) };
        if let Some(offset) = bytes.iter().position(|&byte| byte != POISON) {
            let page = Pfn(pfn.0 + offset / PAGE_SIZE);
            self.pressure.handler().report_poison(page, offset % PAGE_SIZE, bytes[offset]);
        }
    }
}

/// The lowest watermark for this caller once reclaim has been woken.
fn deepest(gfp: Gfp) -> Depth {
    if gfp.contains(Gfp::NOMEMALLOC) {
        Depth::Min
    } else if gfp.contains(Gfp::MEMALLOC) {
        Depth::Nothing
    } else if gfp.contains(Gfp::HIGH) {
        if gfp.may_wait() { Depth::High } else { Depth::Atomic }
    } else {
        Depth::Min
    }
}
