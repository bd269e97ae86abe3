//! Compaction: makes large free blocks by moving pages in use from the emptiest page blocks to the fullest ones.
//! docs/compaction.md describes the design.
//!
//! A block is emptied in the same way as a contiguous range is allocated ([`super::range`]): it is isolated, its pages
//! are moved out, and it is taken as a whole. [`choice`] selects the block, [`targets`] the destinations of its pages.
//! [`capture`] uses this to serve a request for a high order.
//!
//! One thread at a time empties a block of a zone (`Rank::Compaction`, a sleeping lock, released between blocks). No
//! other lock is held between two steps.

mod capture;
mod choice;
mod deferral;
mod targets;

use core::cell::{Cell, RefCell};
use core::ops::Range;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use spin::Once;

use crate::addr::Pfn;
use crate::buddy::{MigrateType, ORDERS, PAGEBLOCK_PAGES};
use crate::event::Event;
use crate::machine::Killed;
use crate::page::PageState;
use crate::page_alloc::Machine;
use crate::sync::{IntentGuard, Rank, SharedLock};
use crate::zone::{Demand, Depth, MAX_ZONES, ZoneKind};

use super::range::{MigrateRange, RangeError};
use super::{Gfp, PageAllocator};

use choice::Source;
use deferral::Deferral;
use targets::Targets;

/// How often the move of a page with other holders is tried: holders without a pin are quick.
const TRIES: usize = 10;

/// A mover of pages that are in use, implemented above the page allocator.
pub trait MovePages: Sync {
    /// Moves the page of user memory at `from` to the frame `to`, which the caller has allocated. If this returns
    /// `false`, the page stays, and the caller still owns its frame. No lock is held, and the call may sleep.
    fn move_page(&self, from: Pfn, to: Pfn) -> bool;
}

/// The result of a compaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Page blocks that were emptied.
    pub blocks: usize,
    /// Page blocks in which a page could not be moved.
    pub kept: usize,
}

/// The state of a zone.
pub(super) struct OfZone<M: Machine> {
    /// The number of the search: blocks marked with it are not used as sources. A hint.
    search: AtomicU8,
    deferral: Deferral,
    machine: M,
    turn: Once<SharedLock<(), M>>,
}

impl<M: Machine> OfZone<M> {
    pub const fn new(machine: M) -> Self {
        Self { search: AtomicU8::new(1), deferral: Deferral::new(), machine, turn: Once::new() }
    }

    /// Waits for the turn to empty a block.
    fn turn(&self) -> Result<IntentGuard<'_, (), M>, Killed> {
        self.turn.call_once(|| SharedLock::new(self.machine, Rank::Compaction, ())).intend_killable()
    }

    fn search(&self) -> u8 {
        self.search.load(Relaxed)
    }

    /// Starts a new search, in which all blocks may be sources again. (A mark that is 255 searches old hides its block
    /// for one search. No block is marked with 0.)
    fn begin_search(&self) {
        let now = self.search();
        self.search.store(if now == u8::MAX { 1 } else { now + 1 }, Relaxed);
    }
}

/// The result of an attempt to empty a range.
enum Emptied {
    /// The range is allocated, one frame at a time.
    Taken,
    /// Something stays there.
    Stays,
    /// Another thread collects pages there, or the block's type has changed.
    Elsewhere,
    /// There is no frame to move to, or the thread was killed.
    End,
}

/// A thread's work on a zone.
struct Run<'a, M: Machine> {
    pages: &'a PageAllocator<M>,
    zone: usize,
    mover: &'static dyn MovePages,
    targets: RefCell<Targets<'a, M>>,
    /// Whether no frame is left, or the thread was killed.
    is_at_end: Cell<bool>,
}

impl<M: Machine> MigrateRange for Run<'_, M> {
    fn migrate(&self, start: Pfn, end: Pfn) -> Result<(), Pfn> {
        (start.0..end.0).map(Pfn).find(|pfn| !self.clears(*pfn)).map_or(Ok(()), Err)
    }
}

impl<'a, M: Machine> Run<'a, M> {
    /// `None` if there is no mover.
    fn new(pages: &'a PageAllocator<M>, zone: usize) -> Option<Self> {
        let targets = RefCell::new(Targets::new(pages, zone));
        Some(Self { pages, zone, mover: pages.pressure.mover()?, targets, is_at_end: Cell::new(false) })
    }

    /// Whether the frame holds no page in use, possibly because this has moved the page.
    fn clears(&self, pfn: Pfn) -> bool {
        let machine = self.pages.machine;
        let page = self.pages.frames().page(pfn);
        for _ in 0..TRIES {
            match page.state() {
                PageState::Absent | PageState::Free | PageState::Cached => return true,
                PageState::Slab | PageState::Table | PageState::Whole => return false,
                // A new page that is about to be entered into its table.
                PageState::Kernel => {}
                PageState::Anon | PageState::Object if page.is_pinned() => return false,
                PageState::Anon | PageState::Object => {
                    machine.count(Event::CompactIsolated, 1);
                    let frame = self.targets.borrow_mut().take();
                    self.is_at_end.set(frame.is_none() || machine.resched_point().is_err());
                    let Some(to) = frame else { return false };
                    if !self.is_at_end.get() && self.mover.move_page(pfn, to) {
                        machine.count(Event::UserAlloc, 1);
                        return true;
                    }
                    self.targets.borrow_mut().give_back(to);
                    if self.is_at_end.get() {
                        return false;
                    }
                }
            }
            machine.relax();
        }
        false
    }

    /// Allocates a range of the source's page block, one frame at a time, after moving its pages in use. The turn is
    /// held.
    fn empty(&self, source: Source, range: &Range<Pfn>, is_wanted: &dyn Fn(MigrateType) -> bool) -> Emptied {
        let pages = self.pages;
        let Some(used) = pages.pages_to_move(range) else { return Emptied::Stays };
        // Isolated frames cannot be allocated: without them, and without the frames that pages move to, the zone must
        // keep its reserve.
        let needed = source.free as usize + used + targets::AT_ONCE;
        if pages.spare(self.zone, needed) < needed {
            return Emptied::End;
        }
        self.targets.borrow_mut().aim(source);
        match pages.alloc_range_of(range.clone(), Some(self), is_wanted) {
            Ok(()) => Emptied::Taken,
            Err(RangeError::Isolated(_)) => Emptied::Elsewhere,
            Err(RangeError::Killed) => Emptied::End,
            Err(RangeError::Busy(_) | RangeError::BadRange) if self.is_at_end.get() => Emptied::End,
            Err(RangeError::Busy(_) | RangeError::BadRange) => Emptied::Stays,
        }
    }
}

impl<M: Machine> PageAllocator<M> {
    /// Registers the mover of pages; the last one registered is used. Without one there is no compaction.
    pub fn set_mover(&self, mover: &'static dyn MovePages) {
        self.pressure.set_mover(mover);
    }

    pub(super) fn may_compact(&self) -> bool {
        self.pressure.mover().is_some()
    }

    /// Compacts all zones as far as possible, including blocks in which a page could not be moved before. The caller
    /// holds no lock, and may sleep; it ends early if the thread is killed.
    pub fn compact(&self) -> Compacted {
        let mut done = Compacted::default();
        self.drain_all();
        for zone in (0..MAX_ZONES).filter(|zone| self.zones[*zone].managed() != 0) {
            self.compaction[zone].begin_search();
            self.compact_zone(zone, &mut done, &|| false);
        }
        done
    }

    /// Compacts zones of a node until one has a block for the demand, or as far as possible; for kswapd, which stops
    /// when it has other work.
    pub(super) fn compact_for(&self, node: usize, demand: &Demand) {
        for zone in self.zones_of(node, demand.highest) {
            let of_zone = &self.compaction[zone];
            if of_zone.deferral.refuses(demand.order) {
                continue;
            }
            let single = Demand { order: 0, depth: Depth::Low, ..*demand };
            let is_needed = || self.wants_balance(node) || !self.zones[zone].is_above_watermark(&single);
            self.compact_zone(zone, &mut Compacted::default(), &|| self.has_block(zone, demand) || is_needed());
            if self.has_block(zone, demand) {
                of_zone.deferral.succeeded(demand.order);
                return;
            }
            if !is_needed() {
                of_zone.deferral.failed(demand.order);
                of_zone.begin_search();
            }
        }
    }

    fn compact_zone(&self, zone: usize, done: &mut Compacted, is_enough: &dyn Fn() -> bool) {
        let Some(run) = Run::new(self, zone) else { return };
        let is_wanted = MigrateType::is_mobile;
        // (A search has at most one round for each block.)
        for _ in 0..self.zones[zone].span().1.div_ceil(PAGEBLOCK_PAGES) {
            if is_enough() || self.machine.resched_point().is_err() {
                return;
            }
            let Ok(_turn) = self.compaction[zone].turn() else { return };
            let Some(source) = self.choose_source(zone, false, PAGEBLOCK_PAGES, &is_wanted) else { return };
            let range = source.start..Pfn(source.start.0 + PAGEBLOCK_PAGES);
            let emptied = run.empty(source, &range, &is_wanted);
            // Whatever the result: others may be filling it again.
            self.mark(zone, source, false);
            match emptied {
                Emptied::Taken => {
                    // SAFETY: it was allocated just now, and nothing else refers to it.
                    unsafe { self.free_range(range) };
                    done.blocks += 1;
                }
                Emptied::Stays => done.kept += 1,
                Emptied::Elsewhere => {}
                Emptied::End => return,
            }
        }
    }

    /// Excludes the block as a source in this search.
    fn mark(&self, zone: usize, source: Source, for_part: bool) {
        self.topology().pageblocks.of(source.start).set_mark(for_part, self.compaction[zone].search());
    }

    /// How many pages the zone has above its reserve, at most `most`.
    fn spare(&self, zone: usize, most: usize) -> usize {
        let list = Gfp::HIGHUSER_MOVABLE.list();
        let demand = Demand { order: 0, list, highest: zone % ZoneKind::COUNT, depth: Depth::Min, cma: true };
        self.zones[zone].room(&demand, most)
    }

    /// How many pages in use a range has, or `None` if one of them cannot be moved, as far as can be seen without a
    /// lock. A record that changes meanwhile may look as if its page could not.
    fn pages_to_move(&self, range: &Range<Pfn>) -> Option<usize> {
        self.machine.count(Event::CompactScanned, range.end.0 - range.start.0);
        let (mut at, mut used) = (range.start.0, 0);
        while at < range.end.0 {
            let page = self.frames().page(Pfn(at));
            at += match page.state() {
                PageState::Free | PageState::Cached => 1 << (page.order() as usize).min(ORDERS - 1),
                PageState::Anon | PageState::Object if !page.is_pinned() => {
                    used += 1;
                    1
                }
                _ => return None,
            };
        }
        Some(used)
    }

    /// Whether a zone has a free block for a demand, whatever its watermarks.
    pub(super) fn has_block(&self, zone: usize, demand: &Demand) -> bool {
        let sizes = demand.order..ORDERS as u32;
        self.zones[zone].with_area(|area| {
            MigrateType::ALL
                .into_iter()
                .filter(|kind| demand.may_use(*kind))
                .any(|kind| area.smallest(kind, sizes.start).is_some())
        })
    }
}
