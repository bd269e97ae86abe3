//! Serves a request for a high order by emptying a range of its size and taking that as a whole, so that nobody else
//! gets it.

use core::ops::Range;

use crate::addr::Pfn;
use crate::buddy::{MigrateType, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES};
use crate::event::Event;
use crate::page_alloc::Machine;
use crate::zone::{Demand, ZoneKind};

use super::super::init::node_of;
use super::super::{Gfp, PageAllocator};
use super::choice::Source;
use super::targets::AT_ONCE;
use super::{Emptied, Run};

/// The number of page blocks that are tried for a request, and for one that gives up early.
const TRIES: usize = 8;
const FEW_TRIES: usize = 2;

/// Requests are not worth compaction when less than this, in thousandths, of their failure is due to fragmentation:
/// Linux's default of `vm.extfrag_threshold`.
const FRAGMENTED: u64 = 500;

impl<M: Machine> PageAllocator<M> {
    /// A block for a request that found none, made by moving pages. `None` if memory is short rather than fragmented,
    /// or if the pages in the way stay. With `insists`, it is also tried if it has failed recently. The caller holds no
    /// lock, and may sleep.
    pub(in crate::page_alloc) fn compact_and_take(
        &self,
        node: usize,
        demand: &Demand,
        gfp: Gfp,
        insists: bool,
    ) -> Option<Pfn> {
        if demand.order == 0 || demand.order > PAGEBLOCK_ORDER || !self.may_compact() {
            return None;
        }
        let (mut has_tried, mut taken) = (false, None);
        for zone in self.topology().zonelists[node][demand.highest].iter() {
            let of_zone = &self.compaction[zone];
            let is_foreign = gfp.contains(Gfp::THISNODE) && node_of(zone) != node;
            if is_foreign || !self.is_worth_it(zone, demand, insists) {
                continue;
            }
            if insists {
                of_zone.begin_search();
            } else if of_zone.deferral.refuses(demand.order) {
                continue;
            }
            has_tried = true;
            taken = self.capture(zone, demand, if gfp.contains(Gfp::NORETRY) { FEW_TRIES } else { TRIES });
            if taken.is_some() {
                of_zone.deferral.succeeded(demand.order);
                break;
            }
            if self.machine.is_killed() {
                break;
            }
            of_zone.deferral.failed(demand.order);
            of_zone.begin_search();
        }
        if has_tried {
            self.machine.count(Event::CompactStall, 1);
            self.machine.count(if taken.is_some() { Event::CompactSuccess } else { Event::CompactFail }, 1);
        }
        taken
    }

    /// Whether the zone has enough memory for the demand, but only in smaller blocks.
    fn is_worth_it(&self, zone: usize, demand: &Demand, insists: bool) -> bool {
        let with_room = Demand { order: demand.order + 1, ..*demand };
        if !self.zones[zone].is_above_watermark(&with_room) {
            return false;
        }
        let (mut free, mut count) = (0, 0);
        self.zones[zone].with_area(|area| {
            for kind in MigrateType::ALL.into_iter().filter(|kind| demand.may_use(*kind)) {
                free += area.free_of[kind as usize] as u64;
                count += (0..crate::buddy::ORDERS as u32).map(|order| u64::from(area.blocks(kind, order))).sum::<u64>();
            }
        });
        // Linux's fragmentation index: 0 is lack of memory, 1,000 is fragmentation.
        let index = || 1000_u64.saturating_sub((1000 + free * 1000 / (1 << demand.order)) / count);
        insists || count != 0 && index() > FRAGMENTED
    }

    /// Blocks of the demand's own type are tried first, so that pages that cannot move stay together.
    fn capture(&self, zone: usize, demand: &Demand, tries: usize) -> Option<Pfn> {
        let own = demand.list.migrate_type();
        let is_other = |kind: MigrateType| kind.is_mobile() || kind == MigrateType::Cma && demand.cma;
        let run = Run::new(self, zone)?;
        let in_own = || self.capture_of(&run, demand, tries, &|kind| kind == own);
        in_own().or_else(|| self.capture_of(&run, demand, tries, &is_other))
    }

    fn capture_of(
        &self,
        run: &Run<'_, M>,
        demand: &Demand,
        tries: usize,
        is_wanted: &dyn Fn(MigrateType) -> bool,
    ) -> Option<Pfn> {
        for _ in 0..tries {
            if run.is_at_end.get() || self.machine.resched_point().is_err() {
                return None;
            }
            let _turn = self.compaction[run.zone].turn().ok()?;
            // (The free pages that are isolated with the range must not be needed.)
            let kept = AT_ONCE + (1 << demand.order);
            let most = self.spare(run.zone, PAGEBLOCK_PAGES + kept).saturating_sub(kept);
            let source = self.choose_source(run.zone, true, most, is_wanted)?;
            let emptied = match self.cheapest_range(source, demand.order) {
                Some(range) => (run.empty(source, &range, is_wanted), range),
                None => (Emptied::Stays, source.start..source.start),
            };
            match emptied {
                (Emptied::Taken, range) => return Some(self.make_block(run.zone, &range, demand)),
                (Emptied::Stays | Emptied::Elsewhere, _) => self.mark(run.zone, source, true),
                (Emptied::End, _) => return None,
            }
        }
        None
    }

    /// The aligned range of this order in a page block that has the fewest pages in use.
    fn cheapest_range(&self, source: Source, order: u32) -> Option<Range<Pfn>> {
        let (first, len) = (source.start.0, 1 << order);
        let ranges = (first..first + PAGEBLOCK_PAGES).step_by(len).map(|at| Pfn(at)..Pfn(at + len));
        let costs = ranges.filter_map(|range| Some((self.pages_to_move(&range)?, range)));
        costs.min_by_key(|(used, _)| *used).map(|(_, range)| range)
    }

    /// Merges single allocated frames into one allocated block, whose page block changes its type as when stealing.
    fn make_block(&self, zone: usize, range: &Range<Pfn>, demand: &Demand) -> Pfn {
        let frames = self.frames();
        let head = range.start;
        (head.0 + 1..range.end.0).for_each(|pfn| frames.page(Pfn(pfn)).make_absent());
        frames.page(head).make_allocated(demand.order);
        if zone % ZoneKind::COUNT != ZoneKind::Movable as usize {
            self.zones[zone].with_area(|area| area.claim_for(frames, head, demand.order, demand.list.migrate_type()));
        }
        head
    }
}
