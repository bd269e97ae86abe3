//! Zones: the frames of one node that the same devices can reach, with their free blocks and watermarks.
//!
//! The lock of a zone ([`Rank::Zone`]) protects its free area, the records of its free frames, and the types and free
//! counts of its page blocks. Two zones' locks are never held at once.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::addr::Pfn;
use crate::buddy::{Frames, FreeArea, List, MigrateType};
use crate::page::Machine;
use crate::sync::{Rank, SpinLock};

/// The maximum number of NUMA nodes that the kernel supports.
pub const MAX_NODES: usize = 8;

/// The maximum number of zones: each node may have all kinds.
pub const MAX_ZONES: usize = MAX_NODES * ZoneKind::COUNT;

/// The kinds of zones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ZoneKind {
    /// The memory that the most limited device can reach.
    Dma = 0,
    /// Below 4 GiB.
    Dma32 = 1,
    /// The rest.
    Normal = 2,
    /// For movable pages only (`kernelcore=`, `movablecore=`), so that migration can evacuate all of it.
    Movable = 3,
}

impl ZoneKind {
    /// How many there are.
    pub const COUNT: usize = 4;
    /// All kinds, from the lowest to the highest.
    pub const ALL: [Self; Self::COUNT] = [Self::Dma, Self::Dma32, Self::Normal, Self::Movable];

    /// The name in `/proc/zoneinfo`, without the spaces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dma => "DMA",
            Self::Dma32 => "DMA32",
            Self::Normal => "NORMAL",
            Self::Movable => "MOVABLE",
        }
    }
}

/// Watermarks in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watermarks {
    /// Below this, only callers that cannot wait or that free memory get pages.
    pub min: usize,
    /// Below this background reclaim starts.
    pub low: usize,
    /// At this it stops.
    pub high: usize,
}

/// How far below a watermark an allocation may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// To the high watermark: what background reclaim restores.
    Balanced,
    /// To the low watermark: the first attempt of every caller.
    Low,
    /// To the min watermark: during reclaim.
    Min,
    /// To half of min: GFP HIGH by a caller that can wait.
    High,
    /// To 3/8 of min: GFP HIGH by a caller that cannot wait.
    Atomic,
    /// To the last page: a caller that frees memory with it.
    Nothing,
}

impl Depth {
    /// Whether all reserves are respected.
    pub(crate) fn is_ordinary(self) -> bool {
        matches!(self, Self::Low | Self::Min)
    }
}

/// A request to a zone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    pub order: u32,
    pub list: List,
    /// The highest kind of zone that could be used: lower zones keep their reserve from it.
    pub highest: usize,
    pub depth: Depth,
    pub cma: bool,
}

impl Demand {
    /// Whether blocks on the lists of this type may serve it.
    pub(crate) fn may_use(&self, kind: MigrateType) -> bool {
        match kind {
            MigrateType::Unmovable | MigrateType::Movable | MigrateType::Reclaimable => true,
            MigrateType::HighAtomic => self.reserves(),
            MigrateType::Cma => self.cma,
            MigrateType::Isolate => false,
        }
    }

    /// Whether it may use the reserve for high-order atomic allocations.
    pub(crate) fn reserves(&self) -> bool {
        matches!(self.depth, Depth::Atomic | Depth::Nothing)
    }
}

/// One zone of one node.
pub struct Zone<M: Machine> {
    area: SpinLock<FreeArea, M>,
    /// Copies of the area's counts for readers without the lock; written under it.
    free: AtomicUsize,
    free_cma: AtomicUsize,
    free_high_atomic: AtomicUsize,
    managed: AtomicUsize,
    present: AtomicUsize,
    start: AtomicUsize,
    spanned: AtomicUsize,
    min: AtomicUsize,
    low: AtomicUsize,
    high: AtomicUsize,
    reserve: [AtomicUsize; ZoneKind::COUNT],
}

impl<M: Machine> Zone<M> {
    pub(crate) const fn new(machine: M) -> Self {
        Self {
            area: SpinLock::new(machine, Rank::Zone, FreeArea::EMPTY),
            free: AtomicUsize::new(0),
            free_cma: AtomicUsize::new(0),
            free_high_atomic: AtomicUsize::new(0),
            managed: AtomicUsize::new(0),
            present: AtomicUsize::new(0),
            start: AtomicUsize::new(0),
            spanned: AtomicUsize::new(0),
            min: AtomicUsize::new(0),
            low: AtomicUsize::new(0),
            high: AtomicUsize::new(0),
            reserve: [const { AtomicUsize::new(0) }; ZoneKind::COUNT],
        }
    }

    /// Calls `work` with the free area under the zone's lock, and publishes its counts.
    #[inline]
    pub(crate) fn with_area<R>(&self, work: impl FnOnce(&mut FreeArea) -> R) -> R {
        let mut area = self.area.lock();
        let result = work(&mut area);
        self.free.store(area.usable(), Relaxed);
        self.free_cma.store(area.free_of[MigrateType::Cma as usize], Relaxed);
        self.free_high_atomic.store(area.free_of[MigrateType::HighAtomic as usize], Relaxed);
        result
    }

    /// Takes a block if the zone stays above its watermark.
    pub(crate) fn allocate(&self, frames: Frames<M>, demand: &Demand) -> Option<Pfn> {
        if !self.is_above_watermark(demand) {
            return None;
        }
        self.with_area(|area| {
            let wanted =
                crate::buddy::Wanted { list: demand.list.migrate_type(), cma: demand.cma, reserves: demand.reserves() };
            // The watermark check may have used stale counts; the lists are exact.
            let pfn = area.allocate(frames, demand.order, wanted)?;
            if demand.order > 0 && demand.depth == Depth::Atomic {
                area.reserve_high_atomic(frames, pfn, self.managed());
            }
            frames.page(pfn).make_allocated(demand.order);
            Some(pfn)
        })
    }

    /// Whether the zone stays above its watermark and reserves after serving the demand. Whether it has a large enough
    /// block is found out by the attempt.
    pub(crate) fn is_above_watermark(&self, demand: &Demand) -> bool {
        let taken = (1 << demand.order) - 1;
        self.spendable(demand) > taken + self.kept_from(demand)
    }

    /// How many single pages may be taken before the watermark is reached, at most `most`.
    pub(crate) fn room(&self, demand: &Demand, most: usize) -> usize {
        self.spendable(demand).saturating_sub(self.kept_from(demand)).min(most)
    }

    /// Free pages that this demand may use at all.
    fn spendable(&self, demand: &Demand) -> usize {
        let mut free = self.free();
        if !demand.cma {
            free = free.saturating_sub(self.free_cma.load(Relaxed));
        }
        if !demand.reserves() {
            free = free.saturating_sub(self.free_high_atomic.load(Relaxed));
        }
        free
    }

    /// Pages withheld from this demand: the watermark, and the reserve for requests that cannot use a higher zone.
    fn kept_from(&self, demand: &Demand) -> usize {
        let min = self.min.load(Relaxed);
        let mark = match demand.depth {
            Depth::Balanced => self.high.load(Relaxed),
            Depth::Low => self.low.load(Relaxed),
            Depth::Min => min,
            Depth::High => min - min / 2,
            Depth::Atomic => (min - min / 2) - (min - min / 2) / 4,
            Depth::Nothing => return 0,
        };
        mark + self.reserve[demand.highest].load(Relaxed)
    }

    /// Free pages, without those on per-CPU lists, and without isolated ones: these cannot be allocated, so watermarks
    /// must not count them.
    #[inline]
    pub fn free(&self) -> usize {
        self.free.load(Relaxed)
    }

    /// Free pages in CMA page blocks; part of [`Zone::free`].
    pub fn free_cma(&self) -> usize {
        self.free_cma.load(Relaxed)
    }

    /// Pages that the buddy was given.
    pub fn managed(&self) -> usize {
        self.managed.load(Relaxed)
    }

    /// Pages that exist.
    pub fn present(&self) -> usize {
        self.present.load(Relaxed)
    }

    /// The first frame, and the number of frames up to the last one, holes included.
    pub fn span(&self) -> (Pfn, usize) {
        (Pfn(self.start.load(Relaxed)), self.spanned.load(Relaxed))
    }

    /// The watermarks.
    pub fn watermarks(&self) -> Watermarks {
        Watermarks { min: self.min.load(Relaxed), low: self.low.load(Relaxed), high: self.high.load(Relaxed) }
    }

    /// Pages withheld from allocations that could use zones up to each kind.
    pub fn lowmem_reserve(&self) -> [usize; ZoneKind::COUNT] {
        core::array::from_fn(|kind| self.reserve[kind].load(Relaxed))
    }

    /// Free blocks of each order, summed over types.
    pub fn free_blocks(&self) -> [u64; crate::buddy::ORDERS] {
        self.with_area(|area| {
            core::array::from_fn(|order| {
                MigrateType::ALL.iter().map(|&list| u64::from(area.blocks(list, order as u32))).sum()
            })
        })
    }

    /// Free blocks of each order on the lists of one type.
    pub fn free_blocks_of(&self, list: MigrateType) -> [u64; crate::buddy::ORDERS] {
        self.with_area(|area| core::array::from_fn(|order| area.blocks(list, order as u32).into()))
    }

    /// Adds frames to the zone, at boot.
    pub(crate) fn extend(&self, frames: core::ops::Range<usize>) {
        let end = self.start.load(Relaxed) + self.spanned.load(Relaxed);
        let (start, end) = match self.present() {
            0 => (frames.start, frames.end),
            _ => (frames.start.min(self.start.load(Relaxed)), frames.end.max(end)),
        };
        self.start.store(start, Relaxed);
        self.spanned.store(end - start, Relaxed);
        self.present.fetch_add(frames.len(), Relaxed);
    }

    pub(crate) fn add_managed(&self, pages: usize) {
        self.managed.fetch_add(pages, Relaxed);
    }

    pub(crate) fn set_watermarks(&self, marks: Watermarks) {
        self.min.store(marks.min, Relaxed);
        self.low.store(marks.low, Relaxed);
        self.high.store(marks.high, Relaxed);
    }

    pub(crate) fn set_lowmem_reserve(&self, highest: usize, pages: usize) {
        self.reserve[highest].store(pages, Relaxed);
    }
}
