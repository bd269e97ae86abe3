//! From memblock to zones: initialisation, once at boot, on one CPU.
//!
//! The caller has mapped the direct map, and zero-filled `mem_map` for all of [`mem_map_ranges`]. Zones begin and
//! end at boundaries of the largest block, so no block and no buddy pair spans two zones.

use core::ops::Range;
use core::sync::atomic::Ordering::Relaxed;

use crate::addr::{PAGE_SHIFT, PAGE_SIZE, Pfn, PhysAddr};
use crate::buddy::pageblock::NO_ZONE;
use crate::buddy::{MAX_ORDER, MAX_ORDER_PAGES, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES, Pageblock, PageblockTable};
use crate::machine::MAX_CPUS;
use crate::memblock::{MemBlock, MemBlockError, RegionKind};
use crate::page_alloc::Machine;
use crate::zone::{MAX_NODES, MAX_ZONES, Watermarks, ZoneKind};

use super::bounds::whole_frames;
use super::lend::STRICT;
use super::{Gfp, MovableSplit, NO_LISTS, PageAllocator, Topology, ZoneBounds, Zonelist, trap};

/// The configuration of zones by the command line and the device tree.
pub struct Config<'a> {
    /// The end (exclusive) of the addresses that every device reaches (from `dma-ranges`); `None` if all devices reach
    /// all memory.
    pub dma_limit: Option<PhysAddr>,
    /// `kernelcore=` or `movablecore=`.
    pub movable: MovableSplit,
    /// `min_free_kbytes=`; `None` for the formula.
    pub min_free_kbytes: Option<usize>,
    /// The node of each CPU.
    pub node_of_cpu: [u8; MAX_CPUS],
    /// The number of possible CPUs.
    pub cpus: usize,
    /// Debugging (`page_poison=`): all free memory is filled with a pattern, which is checked when it is handed out.
    /// The fast paths are off then.
    pub poison: bool,
    /// The distance between two nodes: 10 to itself, more to others.
    pub distance: &'a dyn Fn(usize, usize) -> u32,
}

impl Default for Config<'_> {
    fn default() -> Self {
        Self {
            dma_limit: None,
            movable: MovableSplit::None,
            min_free_kbytes: None,
            node_of_cpu: [0; MAX_CPUS],
            cpus: MAX_CPUS,
            poison: false,
            distance: &|a, b| if a == b { 10 } else { 20 },
        }
    }
}

/// Why initialisation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitError {
    /// Memblock has no whole frame.
    NoMemory,
    /// The number of a node, or of a CPU's node, is [`MAX_NODES`] or more.
    TooManyNodes,
    /// A frame's number has more than 32 bits.
    AddressTooHigh,
    /// Memblock could not supply the memory for the tables.
    MemBlock(MemBlockError),
}

impl From<MemBlockError> for InitError {
    fn from(error: MemBlockError) -> Self {
        Self::MemBlock(error)
    }
}

/// What boot has handed out, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Whole frames of memory that the kernel may map.
    pub present: usize,
    /// Of these, reserved ones.
    pub reserved: usize,
    /// Of these, those given to the buddy: the remaining ones.
    pub managed: usize,
}

/// The frames that need a record: all memory, rounded out to blocks of the largest order, so that every buddy of
/// a managed block has one. Disjoint, ascending; each is a whole number of pages of records.
pub fn mem_map_ranges(memory: &MemBlock) -> impl Iterator<Item = Range<Pfn>> + '_ {
    let mut regions = memory.memory().peekable();
    core::iter::from_fn(move || {
        let mut range = rounded_out(regions.next()?.range);
        while let Some(next) = regions.peek()
            && rounded_out(next.range.clone()).start <= range.end
        {
            range.end = range.end.max(rounded_out(next.range.clone()).end);
            regions.next();
        }
        Some(range)
    })
}

fn rounded_out(range: Range<PhysAddr>) -> Range<Pfn> {
    let start = range.start.pfn().0 & !(MAX_ORDER_PAGES - 1);
    let end = range.end.get().div_ceil(PAGE_SIZE).next_multiple_of(MAX_ORDER_PAGES);
    Pfn(start)..Pfn(end)
}

/// The size of the tables that [`PageAllocator::init`] allocates from memblock, in bytes.
pub fn table_bytes(memory: &MemBlock) -> usize {
    table_len(memory) * size_of::<Pageblock>()
}

fn table_len(memory: &MemBlock) -> usize {
    mem_map_ranges(memory).last().map_or(0, |range| range.end.0 >> PAGEBLOCK_ORDER)
}

/// The number of a zone in all arrays of zones.
fn zone_number(node: usize, kind: ZoneKind) -> usize {
    node * ZoneKind::COUNT + kind as usize
}

/// Whether a zone may contain pages that cannot move.
fn is_low(zone: usize) -> bool {
    zone % ZoneKind::COUNT != ZoneKind::Movable as usize
}

pub(super) fn node_of(zone: usize) -> usize {
    zone / ZoneKind::COUNT
}

impl<M: Machine> PageAllocator<M> {
    /// Builds nodes and zones from memblock, and hands every unreserved frame to the buddy, as the largest blocks that
    /// fit. After that memblock must not be used: later allocations from it would be unknown here.
    ///
    /// Frame 0 is reserved if it exists: address 0 stays invalid, for devices too, and links need a null.
    ///
    /// # Safety
    /// Called once, while one CPU runs, before anything else here. Memblock's memory is DRAM in the direct map (except
    /// no-map), unused where not reserved; records exist for all of [`mem_map_ranges`], all zeros.
    pub unsafe fn init(&self, memory: &mut MemBlock, config: &Config<'_>) -> Result<Summary, InitError> {
        check(memory, config)?;
        reserve_frame_0(memory)?;
        let pageblocks = self.new_table(memory)?;
        let bounds = ZoneBounds::new(memory, config.dma_limit, config.movable);
        let present = self.assign_zones(memory, pageblocks, &bounds);
        let zonelists = self.zonelists(config);
        // SAFETY: the allocator is not in use yet (the caller's promise), so this is the only reference.
        unsafe {
            *self.topology.get() = Topology {
                pageblocks,
                preferred: config.node_of_cpu.map(|node| preferred(&zonelists[usize::from(node)])),
                node_of_cpu: config.node_of_cpu,
                cpus: config.cpus.clamp(1, MAX_CPUS),
                zonelists,
            };
        }
        if config.poison {
            self.trap.fetch_or(trap::POISON, Relaxed);
        }
        let mut managed = 0;
        for free in memory.free_ranges() {
            managed += self.hand_out(whole_frames(&free));
        }
        self.set_watermarks(config);
        Ok(Summary { present, reserved: present - managed, managed })
    }

    /// The table of page blocks, in memory from memblock, without zones.
    fn new_table(&self, memory: &mut MemBlock) -> Result<PageblockTable, InitError> {
        let len = table_len(memory);
        let bytes = table_bytes(memory);
        let place =
            memory.alloc(bytes, PAGE_SIZE, PhysAddr::new(0)..PhysAddr::new(usize::MAX), None, RegionKind::MemMap)?;
        let table = self.machine.direct_map(place).cast::<Pageblock>();
        for i in 0..len {
            // SAFETY: memblock has just allocated this memory for `len` entries, aligned to a page.
            unsafe { table.add(i).write(Pageblock::new(NO_ZONE)) };
        }
        // SAFETY: all entries were written, the memory is never freed, and from now on only shared.
        Ok(PageblockTable::new(unsafe { core::slice::from_raw_parts(table, len) }))
    }

    /// Assigns a zone to each page block with memory, and its extent to each zone. Returns the number of existing
    /// frames.
    fn assign_zones(&self, memory: &MemBlock, table: PageblockTable, bounds: &ZoneBounds) -> usize {
        let mut present = 0;
        for region in memory.memory().filter(|region| !region.no_map) {
            let frames = whole_frames(&region.range);
            present += frames.len();
            let mut at = frames.start;
            while at < frames.end {
                let end = (at + 1).next_multiple_of(MAX_ORDER_PAGES).min(frames.end);
                let block = at & !(MAX_ORDER_PAGES - 1);
                // A block shared by two nodes belongs to the first.
                if table.of(Pfn(block)).zone() == NO_ZONE {
                    let zone = zone_number(region.node, bounds.kind(region.node, block));
                    (0..1 << (MAX_ORDER - PAGEBLOCK_ORDER))
                        .for_each(|i| table.of(Pfn(block + i * PAGEBLOCK_PAGES)).set_zone(zone as u8));
                }
                self.zones[usize::from(table.of(Pfn(block)).zone())].extend(at..end);
                at = end;
            }
        }
        present
    }

    /// For each node and highest zone: its own zones from the highest down, then those of the nearest node, and so on.
    /// If no device is limited, DMA means DMA32.
    fn zonelists(&self, config: &Config<'_>) -> [[Zonelist; ZoneKind::COUNT]; MAX_NODES] {
        let mut lists = [[Zonelist::EMPTY; ZoneKind::COUNT]; MAX_NODES];
        for (node, of_node) in lists.iter_mut().enumerate() {
            let mut order: [usize; MAX_NODES] = core::array::from_fn(|other| other);
            // Equally far nodes are taken in the order that begins after this one, to spread the load.
            let key = |&other: &usize| {
                let distance = if other == node { 0 } else { (config.distance)(node, other) };
                (distance, (other + MAX_NODES - node) % MAX_NODES)
            };
            order.sort_unstable_by_key(key);
            for highest in ZoneKind::ALL {
                let top =
                    if highest == ZoneKind::Dma && config.dma_limit.is_none() { ZoneKind::Dma32 } else { highest };
                for &other in &order {
                    for kind in ZoneKind::ALL.into_iter().rev().filter(|&kind| kind <= top) {
                        let zone = zone_number(other, kind);
                        if self.zones[zone].present() != 0 {
                            of_node[highest as usize].push(zone);
                        }
                    }
                }
            }
        }
        lists
    }

    /// Frees frames that were never used, as the largest blocks that fit. Returns how many.
    fn hand_out(&self, frames: Range<usize>) -> usize {
        let mut at = frames.start;
        while at < frames.end {
            let end = (at + 1).next_multiple_of(MAX_ORDER_PAGES).min(frames.end);
            self.hand_out_within_block(at..end);
            at = end;
        }
        frames.len()
    }

    /// The same for frames of one aligned block of the largest order, all of one zone.
    fn hand_out_within_block(&self, frames: Range<usize>) {
        let reach = self.frames();
        let zone = &self.zones[usize::from(reach.pageblocks.of(Pfn(frames.start)).zone())];
        zone.add_managed(frames.len());
        self.poison(Pfn(frames.start), frames.len());
        zone.with_area(|area| {
            let mut at = frames.start;
            while at < frames.end {
                let order = at.trailing_zeros().min((frames.end - at).ilog2()).min(MAX_ORDER);
                area.free_block(reach, Pfn(at), order);
                at += 1 << order;
            }
        });
    }

    /// Hands frames that were reserved at boot and are no longer used (initrd, device tree) to the buddy.
    ///
    /// # Safety
    /// The frames were present and reserved at [`PageAllocator::init`], were not handed out since, and are unused.
    pub unsafe fn free_reserved(&self, range: Range<PhysAddr>) -> usize {
        let mut frames = whole_frames(&range);
        if frames.start == 0 && frames.end > 0 {
            frames.start = 1;
        }
        self.hand_out(frames)
    }

    /// Sets the watermarks, and other values that depend on the sizes of zones, from `config`.
    pub(crate) fn set_watermarks(&self, config: &Config<'_>) {
        self.set_min_free(config.min_free_kbytes.unwrap_or_else(|| self.default_min_free_kbytes()));
    }

    /// Linux's formula: the square root of 16 times the low memory, between 128 KiB and 256 MiB.
    fn default_min_free_kbytes(&self) -> usize {
        let kbytes = self.lowmem_pages() * (PAGE_SIZE / 1024);
        (kbytes * 16).isqrt().clamp(128, 262_144)
    }

    fn lowmem_pages(&self) -> usize {
        let low = (0..MAX_ZONES).filter(|&zone| is_low(zone));
        low.map(|zone| self.zones[zone].managed()).sum()
    }

    /// Low memory that is not available to pages that cannot move.
    fn lent_lowmem_pages(&self) -> usize {
        let zone_of = |pfn| usize::from(self.frames().pageblocks.of(pfn).zone());
        let areas = (0..).map_while(|area| self.cma_info(area));
        areas.filter(|info| is_low(zone_of(info.start))).map(|info| info.pages).sum()
    }

    /// Spreads `min_free_kbytes` over the zones in proportion, and derives the other values that depend on sizes: the
    /// other watermarks, the lowmem reserves, the batches of per-CPU lists. Returns the KiB set, which are limited to a
    /// quarter of the memory for pages that cannot move.
    pub fn set_min_free(&self, kbytes: usize) -> usize {
        const KBYTES: usize = PAGE_SIZE / 1024;
        let lowmem = self.lowmem_pages().max(1);
        let pages_min = (kbytes / KBYTES).min((lowmem - self.lent_lowmem_pages()) / 4);
        for (number, zone) in self.zones.iter().enumerate() {
            let managed = zone.managed();
            let min = match is_low(number) {
                true => (pages_min as u128 * managed as u128 / lowmem as u128) as usize,
                // Nothing depends on this zone's last pages: a token amount, as on Linux.
                false => (managed / 1024).clamp(32, 128).min(managed),
            };
            let step = (min / 4).max(managed / 1000);
            zone.set_watermarks(Watermarks { min, low: min + step, high: min + 2 * step });
            self.lists[number].iter().for_each(|lists| lists.set_batch(batch(managed, self.topology().cpus)));
        }
        self.set_lowmem_reserves();
        pages_min * KBYTES
    }

    /// A zone withholds 1/256 (DMA, DMA32) or 1/32 (NORMAL) of the size of the zones above it in its node from requests
    /// that could have used those.
    fn set_lowmem_reserves(&self) {
        const RATIO: [usize; ZoneKind::COUNT - 1] = [256, 256, 32];
        for node in 0..MAX_NODES {
            for (kind, ratio) in RATIO.into_iter().enumerate() {
                let mut above = 0;
                for highest in kind + 1..ZoneKind::COUNT {
                    above += self.zones[node * ZoneKind::COUNT + highest].managed();
                    self.zones[node * ZoneKind::COUNT + kind].set_lowmem_reserve(highest, above / ratio);
                }
            }
        }
    }
}

/// The first zone of a node's zonelist for each [`Gfp::zone_bits`]; if there is none, any zone will do, since it is
/// empty. A strict request must not use the fast path, since the list may hold blocks that other zones have lent.
fn preferred(of_node: &[Zonelist; ZoneKind::COUNT]) -> [u8; 16] {
    core::array::from_fn(|bits| {
        let gfp = Gfp::from_bits_retain(bits as u32);
        if gfp.intersects(STRICT) { NO_LISTS as u8 } else { of_node[gfp.zone()].zones[0] }
    })
}

/// Pages that a per-CPU list fetches at once, between 2 and 64: such that all full lists of all CPUs together hold a
/// 34th of the zone. Even, because two records share a cache line: adjacent pages stay with one CPU.
fn batch(managed: usize, cpus: usize) -> usize {
    (managed / (512 * cpus)).clamp(2, 64) & !1
}

fn check(memory: &MemBlock, config: &Config<'_>) -> Result<(), InitError> {
    if config.node_of_cpu.iter().any(|&node| usize::from(node) >= MAX_NODES) {
        return Err(InitError::TooManyNodes);
    }
    let mut frames = 0;
    for region in memory.memory() {
        if region.node >= MAX_NODES {
            return Err(InitError::TooManyNodes);
        }
        if region.range.end.get() >> PAGE_SHIFT > u32::MAX as usize {
            return Err(InitError::AddressTooHigh);
        }
        frames += whole_frames(&region.range).len();
    }
    if frames == 0 { Err(InitError::NoMemory) } else { Ok(()) }
}

fn reserve_frame_0(memory: &mut MemBlock) -> Result<(), InitError> {
    let frame_0 = PhysAddr::new(0)..PhysAddr::new(PAGE_SIZE);
    if memory.memory().any(|region| region.range.start < frame_0.end) {
        memory.reserve(frame_0, RegionKind::Reserved, "frame 0")?;
    }
    Ok(())
}
