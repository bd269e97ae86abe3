//! Statistics of zones.

use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;

use quire_abi::info::ZoneInfo;

use crate::addr::Pfn;
use crate::buddy::{MigrateType, ORDERS, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, Pageblock, PageblockTable};
use crate::machine::MAX_CPUS;
use crate::page_alloc::Machine;
use crate::pcp::ZoneLists;
use crate::zone::{MAX_ZONES, Zone, ZoneKind};

use super::PageAllocator;

/// A zone that has memory, with its number.
pub struct ZoneView<'a, M: Machine> {
    pages: &'a PageAllocator<M>,
    number: usize,
}

impl<M: Machine> core::ops::Deref for ZoneView<'_, M> {
    type Target = Zone<M>;
    fn deref(&self) -> &Zone<M> {
        &self.pages.zones[self.number]
    }
}

impl<M: Machine> ZoneView<'_, M> {
    /// The node's number.
    pub fn node(&self) -> usize {
        super::init::node_of(self.number)
    }

    /// The zone's kind.
    pub fn kind(&self) -> ZoneKind {
        ZoneKind::ALL[self.number % ZoneKind::COUNT]
    }

    /// The numbers of the page blocks from its first to its last one: some may belong to other zones, or have no
    /// memory.
    pub fn block_numbers(&self) -> Range<usize> {
        let (start, spanned) = self.span();
        start.0 >> PAGEBLOCK_ORDER..(start.0 + spanned).div_ceil(PAGEBLOCK_PAGES)
    }

    /// The page block with this number, if it belongs to the zone.
    pub fn block(&self, number: usize) -> Option<&'static Pageblock> {
        let block = self.pages.topology().pageblocks.get(Pfn(number << PAGEBLOCK_ORDER))?;
        (usize::from(block.zone()) == self.number).then_some(block)
    }

    /// Pages that per-CPU lists hold for the zone.
    pub fn per_cpu(&self) -> usize {
        self.pages.lists[self.number].iter().map(ZoneLists::held).sum()
    }

    /// Pages allocated from the zone and freed to it since boot.
    pub fn events(&self) -> (u64, u64) {
        let allocated: i64 = self.pages.lists[self.number].iter().map(ZoneLists::allocated).sum();
        let allocated = allocated.max(0) as u64;
        let in_use = self.managed().saturating_sub(self.free() + self.per_cpu());
        (allocated, allocated.saturating_sub(in_use as u64))
    }

    /// The record that programs get.
    pub fn info(&self) -> ZoneInfo {
        let (start, spanned) = self.span();
        let marks = self.watermarks();
        let mut name = [0; 8];
        name[..self.kind().name().len()].copy_from_slice(self.kind().name().as_bytes());
        ZoneInfo {
            node: self.node() as u32,
            per_cpu: self.per_cpu() as u32,
            name,
            start_pfn: start.0 as u64,
            spanned: spanned as u64,
            present: self.present() as u64,
            managed: self.managed() as u64,
            free: self.free() as u64,
            min: marks.min as u64,
            low: marks.low as u64,
            high: marks.high as u64,
            blocks: self.free_blocks(),
        }
    }

    /// The unusable share of the zone's free memory for blocks of `order`, in thousandths: the part in smaller blocks.
    pub fn unusable_free_index(&self, order: u32) -> u32 {
        let blocks = self.free_blocks();
        let pages = |range: core::ops::Range<usize>| range.map(|o| (blocks[o] as usize) << o).sum::<usize>();
        match pages(0..ORDERS) {
            0 => 0,
            all => (pages(0..order as usize) * 1000 / all) as u32,
        }
    }
}

impl<M: Machine> PageAllocator<M> {
    /// The zones that have memory, by node and kind.
    pub fn zones(&self) -> impl Iterator<Item = ZoneView<'_, M>> {
        (0..MAX_ZONES).map(|number| ZoneView { pages: self, number }).filter(|zone| zone.present() != 0)
    }

    /// Free pages of all zones, per-CPU lists included.
    pub fn total_free(&self) -> usize {
        self.zones().map(|zone| zone.free() + zone.per_cpu()).sum()
    }

    /// The number of pages that the buddy was given, in all zones.
    pub fn total_managed(&self) -> usize {
        self.zones().map(|zone| zone.managed()).sum()
    }

    /// Pages that one CPU's lists hold.
    pub fn held_by_cpu(&self, cpu: usize) -> usize {
        self.lists.iter().map(|zone| zone[cpu % MAX_CPUS].held()).sum()
    }

    /// The table of page blocks.
    pub fn pageblocks(&self) -> PageblockTable {
        self.topology().pageblocks
    }

    /// Page blocks of a zone by type, as `pagetypeinfo` shows them.
    pub fn pageblock_types(&self, zone: &ZoneView<'_, M>) -> [usize; MigrateType::COUNT] {
        let mut counts = [0; MigrateType::COUNT];
        self.topology()
            .pageblocks
            .iter()
            .filter(|block| usize::from(block.zone()) == zone.number)
            .for_each(|block| counts[block.migrate_type() as usize] += 1);
        counts
    }

    /// Bad frames, which were not fit to be freed and are not reused.
    pub fn bad_pages(&self) -> usize {
        self.bad_pages.load(Relaxed)
    }
}
