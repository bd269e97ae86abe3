//! Background reclaim: the requests to a node's kswapd, its work, and when it has done enough.
//!
//! The kernel has a thread for each node, which sleeps until its node [has a request](PageAllocator::wants_balance) and
//! then [balances](PageAllocator::balance) it. Whoever makes a request may hold any lock of the allocator's callers;
//! the thread holds none.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::*};

use crate::buddy::ORDERS;
use crate::event::Event;
use crate::page_alloc::Machine;
use crate::psi::Stall;
use crate::zone::{Demand, Depth, MAX_NODES, ZoneKind};

use super::slow::RECLAIM_TARGET;
use super::{Gfp, PageAllocator};

/// The number of rounds in a row without a freed page after which the node is left alone.
const FRUITLESS_ROUNDS: u32 = 16;

/// The bits of a request: one for each order, then one for each highest kind of zone.
const KINDS: u32 = ORDERS as u32;
/// A request that may not use CMA's pages.
const UNMOVABLE: u32 = 1 << (KINDS + ZoneKind::COUNT as u32);

/// The state of a node's kswapd.
pub(super) struct Background {
    /// The requests: bits as above.
    wanted: AtomicU32,
    /// The number of rounds in a row without a freed page.
    fruitless: AtomicU32,
    /// The number of free pages of the node when there had been too many such rounds.
    free_then: AtomicUsize,
}

impl Background {
    pub const fn new() -> Self {
        Self { wanted: AtomicU32::new(0), fruitless: AtomicU32::new(0), free_then: AtomicUsize::new(0) }
    }

    fn ask(&self, demand: &Demand) {
        let unmovable = if demand.cma { 0 } else { UNMOVABLE };
        let wanted = 1 << demand.order | 1 << (KINDS + demand.highest as u32) | unmovable;
        if self.wanted.load(Relaxed) & wanted != wanted {
            self.wanted.fetch_or(wanted, Release);
        }
    }

    /// The most demanding of the requests since the last call.
    fn take(&self) -> Option<Demand> {
        let wanted = self.wanted.swap(0, Acquire);
        let kinds = wanted >> KINDS & ((1 << ZoneKind::COUNT) - 1);
        let orders = wanted & ((1 << KINDS) - 1);
        Some(Demand {
            order: orders.checked_ilog2()?,
            list: Gfp::HIGHUSER_MOVABLE.list(),
            highest: kinds.checked_ilog2()? as usize,
            depth: Depth::Balanced,
            cma: wanted & UNMOVABLE == 0,
        })
    }

    fn note(&self, freed: usize, free: impl FnOnce() -> usize) {
        if freed != 0 {
            self.fruitless.store(0, Relaxed);
        } else if self.fruitless.fetch_add(1, Relaxed) + 1 >= FRUITLESS_ROUNDS {
            self.free_then.store(free(), Relaxed);
        }
    }

    /// Whether nothing could be freed, and not much was freed by others since.
    fn is_hopeless(&self, free: impl FnOnce() -> usize) -> bool {
        if self.fruitless.load(Relaxed) < FRUITLESS_ROUNDS {
            return false;
        }
        let is_hopeless = free() < self.free_then.load(Relaxed) + RECLAIM_TARGET;
        if !is_hopeless {
            self.fruitless.store(0, Relaxed);
        }
        is_hopeless
    }
}

impl<M: Machine> PageAllocator<M> {
    fn free_of_node(&self, node: usize) -> usize {
        self.zones_of(node, ZoneKind::COUNT - 1).map(|zone| self.zones[zone].free()).sum()
    }

    /// The zones of a node that have memory, of kinds up to `highest`.
    pub(super) fn zones_of(&self, node: usize, highest: usize) -> impl Iterator<Item = usize> {
        (0..=highest).map(move |kind| node * ZoneKind::COUNT + kind).filter(|zone| self.zones[*zone].managed() != 0)
    }

    /// Called when an allocation found no zone above its low watermark: wakes the nodes that it could use.
    pub(super) fn wake_background(&self, node: usize, demand: &Demand, gfp: Gfp) {
        let mut asked = 0_u32;
        for zone in self.topology().zonelists[node][demand.highest].iter() {
            let its = super::init::node_of(zone);
            let is_wanted = its == node || !gfp.contains(Gfp::THISNODE);
            if !is_wanted || asked & 1 << its != 0 {
                continue;
            }
            asked |= 1 << its;
            if !self.background[its].is_hopeless(|| self.free_of_node(its)) {
                self.background[its].ask(demand);
                self.pressure.handler().wake_kswapd(its);
            }
        }
    }

    /// Called when direct reclaim of the node has freed something: its kswapd may succeed too.
    pub(super) fn background_has_hope(&self, node: usize) {
        self.background[node].fruitless.store(0, Relaxed);
    }

    /// Whether the node's kswapd has something to do.
    pub fn wants_balance(&self, node: usize) -> bool {
        node < MAX_NODES && self.background[node].wanted.load(Relaxed) != 0
    }

    /// Frees pages of the node until one of the requested zones is above its high watermark, and has a block that is
    /// large enough. It gives up when nothing can be freed, or when so much was freed that others must have taken it.
    /// Returns how many pages it freed. The caller holds no lock, and may sleep.
    pub fn balance(&self, node: usize) -> usize {
        let Some(mut demand) = self.background.get(node).and_then(Background::take) else { return 0 };
        self.machine.count(Event::Background, 1);
        let _stall = Stall::begin(self.machine);
        let background = &self.background[node];
        let enough =
            2 * self.zones_of(node, demand.highest).map(|zone| self.zones[zone].watermarks().high).sum::<usize>();
        let (mut freed, mut limit) = (0, enough);
        while !self.is_balanced(node, &demand) && !background.is_hopeless(|| self.free_of_node(node)) {
            // Fragmented free memory is compacted; freeing more of it would not help.
            if demand.order != 0 && self.may_compact() && self.is_balanced(node, &Demand { order: 0, ..demand }) {
                self.compact_for(node, &demand);
                demand.order = 0;
                continue;
            }
            if freed >= limit {
                // Single pages that are freed seldom merge: a large block is not worth more reclaim.
                if demand.order == 0 {
                    break;
                }
                (demand.order, limit) = (0, limit + enough);
                continue;
            }
            let now = self.balance_once(node, demand.highest);
            background.note(now, || self.free_of_node(node));
            freed += now;
        }
        freed
    }

    fn balance_once(&self, node: usize, highest: usize) -> usize {
        let mut freed = self.shrink(RECLAIM_TARGET, Gfp::KERNEL);
        if freed < RECLAIM_TARGET {
            let taken = self.reclaim(node, highest, RECLAIM_TARGET - freed);
            self.machine.count(Event::StealKswapd, taken);
            freed += taken;
        }
        // Pages on this CPU's lists do not count as free.
        self.drain_cpu(self.machine.cpu());
        // (The thread is never killed.)
        let _ = self.machine.resched_point();
        freed
    }

    fn is_balanced(&self, node: usize, demand: &Demand) -> bool {
        let is_balanced = |zone: usize| {
            self.zones[zone].is_above_watermark(demand) && (demand.order == 0 || self.has_block(zone, demand))
        };
        self.zones_of(node, demand.highest).any(is_balanced)
    }
}
