//! The page interface: who needs page frames asks here.
//!
//! An allocation goes, in this order, to the CPU's list for its best zone ([`crate::pcp`]: no lock, no loop), to
//! the zones of its zonelist as far as their low watermarks allow ([`crate::zone`], [`crate::buddy`]), and then to
//! the slow path, which digs deeper and reclaims ([`slow`]). A free goes to the CPU's list or to the buddy.
//!
//! Locks: a zone's ([`Rank::Zone`](crate::sync::Rank::Zone)), and never two of them; shrinkers run with none held by
//! this module.

mod block;
mod gfp;
mod init;
mod inject;
mod pressure;
mod range;
mod slow;
mod stats;
mod validate;

pub use block::{PageBlock, PageList};
pub use gfp::Gfp;
pub use init::{Config, InitError, MovableSplit, Summary, mem_map_ranges, table_bytes};
pub use inject::FaultInjection;
pub use pressure::{PressureHandler, Shrinker};
pub use range::{MigrateRange, RangeError};
pub use stats::ZoneView;
pub use validate::Imbalance;

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use crate::addr::{PAGE_SIZE, Pfn};
use crate::buddy::{Frames, MAX_ORDER, MigrateType, PageblockTable};
use crate::fallible::AllocError;
use crate::machine::{MAX_CPUS, Machine};
use crate::pcp::PerCpuLists;
use crate::zone::{MAX_NODES, MAX_ZONES, Zone, ZoneKind};

/// The zones that a request may use, best first.
#[derive(Clone, Copy)]
pub(crate) struct Zonelist {
    zones: [u8; MAX_ZONES],
    len: u8,
}

impl Zonelist {
    const EMPTY: Self = Self { zones: [0; MAX_ZONES], len: 0 };

    fn push(&mut self, zone: usize) {
        self.zones[usize::from(self.len)] = zone as u8;
        self.len += 1;
    }

    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.zones[..usize::from(self.len)].iter().map(|&zone| usize::from(zone))
    }
}

/// What boot finds out once, and what only changes while one CPU runs.
pub(crate) struct Topology {
    pageblocks: PageblockTable,
    /// For each CPU and highest zone, the first zone of its zonelist.
    preferred: [[u8; ZoneKind::COUNT]; MAX_CPUS],
    node_of_cpu: [u8; MAX_CPUS],
    /// For each node and highest zone.
    zonelists: [[Zonelist; ZoneKind::COUNT]; MAX_NODES],
}

impl Topology {
    const EMPTY: Self = Self {
        pageblocks: PageblockTable::EMPTY,
        preferred: [[0; ZoneKind::COUNT]; MAX_CPUS],
        node_of_cpu: [0; MAX_CPUS],
        zonelists: [[Zonelist::EMPTY; ZoneKind::COUNT]; MAX_NODES],
    };
}

/// Reasons for the fast paths to give way, as bits of [`PageAllocator::trap`].
mod trap {
    pub(super) const INJECT: u32 = 1;
    pub(super) const POISON: u32 = 2;
}

/// What freed pages are filled with while `page_poison` is on.
const POISON: u8 = 0xaa;

/// The page allocator of a machine: its nodes and their zones. A `static` in the kernel; before
/// [`PageAllocator::init`] it has no memory, and says so.
pub struct PageAllocator<M: Machine> {
    machine: M,
    topology: UnsafeCell<Topology>,
    trap: AtomicU32,
    /// Frames that were not fit to be freed, and were kept out of circulation.
    bad_pages: AtomicUsize,
    lists: [[PerCpuLists; MAX_ZONES]; MAX_CPUS],
    zones: [Zone<M>; MAX_ZONES],
    pressure: pressure::Pressure<M>,
    injection: inject::Injection,
}

// SAFETY: all fields but `topology` are atomics and locks. `topology` is written by `init` alone, whose caller
// promises that nobody else uses the allocator meanwhile.
unsafe impl<M: Machine> Sync for PageAllocator<M> {}

impl<M: Machine> PageAllocator<M> {
    /// An allocator without memory.
    pub const fn new(machine: M) -> Self {
        Self {
            machine,
            topology: UnsafeCell::new(Topology::EMPTY),
            trap: AtomicU32::new(0),
            bad_pages: AtomicUsize::new(0),
            lists: [const { [const { PerCpuLists::new() }; MAX_ZONES] }; MAX_CPUS],
            zones: new_zones(machine),
            pressure: pressure::Pressure::new(machine),
            injection: inject::Injection::new(),
        }
    }

    #[inline(always)]
    fn topology(&self) -> &Topology {
        // SAFETY: `init` is the only writer, and runs before anybody else calls anything.
        unsafe { &*self.topology.get() }
    }

    #[inline(always)]
    pub(crate) fn frames(&self) -> Frames<M> {
        Frames { machine: self.machine, pageblocks: self.topology().pageblocks }
    }

    /// A block of `1 << order` frames. Its contents are what the last owner left, unless `gfp` has ZERO.
    #[inline]
    pub fn alloc_pages(&self, order: u32, gfp: Gfp) -> Result<PageBlock<M>, AllocError> {
        let pfn = self.alloc_raw(order, gfp)?;
        // SAFETY: the block was just allocated at this order, and nobody else knows of it.
        Ok(unsafe { PageBlock::from_raw(self.machine, pfn, order) })
    }

    /// One frame.
    #[inline]
    pub fn alloc_page(&self, gfp: Gfp) -> Result<PageBlock<M>, AllocError> {
        self.alloc_pages(0, gfp)
    }

    /// A block filled with zeros.
    #[inline]
    pub fn alloc_zeroed_pages(&self, order: u32, gfp: Gfp) -> Result<PageBlock<M>, AllocError> {
        self.alloc_pages(order, gfp | Gfp::ZERO)
    }

    /// One frame filled with zeros.
    #[inline]
    pub fn alloc_zeroed_page(&self, gfp: Gfp) -> Result<PageBlock<M>, AllocError> {
        self.alloc_pages(0, gfp | Gfp::ZERO)
    }

    /// A block as the kernel sees it; [`PageAllocator::free_address`] takes it back.
    pub fn get_free_pages(&self, order: u32, gfp: Gfp) -> Result<*mut u8, AllocError> {
        Ok(self.machine.direct_map(self.alloc_raw(order, gfp)?.addr()))
    }

    /// A zeroed page as the kernel sees it.
    pub fn get_zeroed_page(&self, gfp: Gfp) -> Result<*mut u8, AllocError> {
        self.get_free_pages(0, gfp | Gfp::ZERO)
    }

    /// Takes back what [`PageAllocator::get_free_pages`] gave.
    ///
    /// # Safety
    /// As [`PageAllocator::free_pages`], for the block at `address`.
    pub unsafe fn free_address(&self, address: *mut u8, order: u32) {
        // SAFETY: the caller's promise.
        unsafe { self.free_pages(self.machine.direct_map_to_phys(address).pfn(), order) }
    }

    /// A block without an owner: the caller must see to its end.
    #[inline]
    pub fn alloc_raw(&self, order: u32, gfp: Gfp) -> Result<Pfn, AllocError> {
        if order == 0
            && !gfp.contains(Gfp::THISNODE)
            && self.trap.load(Relaxed) == 0
            && let Some(pfn) = self.alloc_cached(gfp)
        {
            if gfp.contains(Gfp::ZERO) {
                self.machine.clear_page(pfn.addr());
            }
            return Ok(pfn);
        }
        let node = usize::from(self.topology().node_of_cpu[self.machine.cpu()]);
        self.alloc_slow(node, order, gfp)
    }

    /// A block from a certain node if it has one; from others only without THISNODE.
    pub fn alloc_pages_node(&self, node: usize, order: u32, gfp: Gfp) -> Result<PageBlock<M>, AllocError> {
        let pfn = self.alloc_slow(node, order, gfp)?;
        // SAFETY: the block was just allocated at this order, and nobody else knows of it.
        Ok(unsafe { PageBlock::from_raw(self.machine, pfn, order) })
    }

    /// The node that a frame of the allocator's is on.
    #[inline]
    pub fn node_of(&self, pfn: Pfn) -> usize {
        self.topology().pageblocks.get(pfn).map_or(0, |block| init::node_of(usize::from(block.zone())))
    }

    /// The node that this CPU is on.
    #[inline]
    pub fn local_node(&self) -> usize {
        usize::from(self.topology().node_of_cpu[self.machine.cpu()])
    }

    /// The fast path: a page from this CPU's list for the request's best zone.
    #[inline(always)]
    fn alloc_cached(&self, gfp: Gfp) -> Option<Pfn> {
        let irq = self.machine.irq_save();
        let cpu = self.machine.cpu();
        let zone = usize::from(self.topology().preferred[cpu][gfp.zone()]);
        let pfn = self.lists(cpu, zone).and_then(|lists| lists.pop(self.frames(), gfp.migrate_type()));
        self.machine.irq_restore(irq);
        let pfn = pfn?;
        self.frames().page(pfn).make_allocated(0);
        Some(pfn)
    }

    #[inline(always)]
    fn lists(&self, cpu: usize, zone: usize) -> Option<&PerCpuLists> {
        debug_assert!(cpu < MAX_CPUS);
        // SAFETY: a CPU's number is below MAX_CPUS (`Machine`'s contract).
        unsafe { self.lists.get_unchecked(cpu) }.get(zone)
    }

    /// Frees a block.
    ///
    /// # Safety
    /// The caller owns the block: it was allocated at this order, by raw means or [`PageBlock::into_raw`], nobody
    /// else reaches it (in particular no TLB), and nobody uses it from here on.
    #[inline]
    pub unsafe fn free_pages(&self, pfn: Pfn, order: u32) {
        let Some(block) = self.topology().pageblocks.get(pfn) else { return self.bad_page(pfn) };
        let page = self.frames().page(pfn);
        if !page.fit_to_free(order) {
            return self.bad_page(pfn);
        }
        let (zone, list) = (usize::from(block.zone()), block.migrate_type());
        if order != 0 || !list.is_mobile() || self.trap.load(Relaxed) != 0 {
            return self.free_slow(pfn, order);
        }
        self.free_cached(zone, list, pfn);
    }

    /// The fast path: a page to this CPU's list for its zone.
    #[inline(always)]
    fn free_cached(&self, zone: usize, list: MigrateType, pfn: Pfn) {
        self.frames().page(pfn).make_cached();
        let irq = self.machine.irq_save();
        if let Some(lists) = self.lists(self.machine.cpu(), zone) {
            let held = lists.push(self.frames(), list, pfn);
            if held as usize >= self.zones[zone].batch() {
                self.drain_chain(zone, lists.retire(list));
            }
        }
        self.machine.irq_restore(irq);
    }

    /// Frees all blocks of a list, whatever their orders.
    ///
    /// # Safety
    /// As [`PageAllocator::free_pages`] for each.
    pub unsafe fn free_batch(&self, list: &mut PageList) {
        while let Some(pfn) = list.pop(self.machine) {
            let order = self.frames().page(pfn).order();
            // SAFETY: the caller's promise.
            unsafe { self.free_pages(pfn, order) };
        }
    }

    /// A frame that is not fit to be freed: mapped, on a list, referenced, or freed before. It stays out of
    /// circulation, for a leak harms less than a page with two owners.
    #[cold]
    fn bad_page(&self, pfn: Pfn) {
        self.bad_pages.fetch_add(1, Relaxed);
        self.pressure.report_bad_page(pfn);
    }

    /// Frees a block, which is fit for it, to where it belongs if that is not the fast path's list.
    #[cold]
    #[inline(never)]
    fn free_slow(&self, pfn: Pfn, order: u32) {
        if self.trap.load(Relaxed) & trap::POISON != 0 {
            self.fill(pfn, order, POISON);
        }
        let frames = self.frames();
        let block = frames.pageblocks.of(pfn);
        let zone = usize::from(block.zone());
        match block.migrate_type() {
            list if order == 0 && list.is_mobile() => return self.free_cached(zone, list, pfn),
            // CMA's single pages serve movable allocations like any other.
            MigrateType::Cma if order == 0 => return self.free_cached(zone, MigrateType::Movable, pfn),
            _ => {}
        }
        let irq = self.machine.irq_save();
        if let Some(lists) = self.lists(self.machine.cpu(), zone) {
            lists.count_freed(1 << order);
        }
        self.zones[zone].with_area(|area| area.free_block(frames, pfn, order));
        self.machine.irq_restore(irq);
    }

    /// Gives a chain of cached pages to the buddy of their zone.
    #[cold]
    #[inline(never)]
    fn drain_chain(&self, zone: usize, mut chain: crate::pcp::Chain) {
        if chain.count() == 0 {
            return;
        }
        let frames = self.frames();
        self.zones[zone].with_area(|area| {
            while let Some(pfn) = chain.pop(frames) {
                area.free_block(frames, pfn, 0);
            }
        });
    }

    /// Gives the pages on one CPU's lists to the buddy. Any CPU may do it for any other.
    pub fn drain_cpu(&self, cpu: usize) {
        for zone in 0..MAX_ZONES {
            let Some(lists) = self.lists(cpu, zone) else { continue };
            for list in &MigrateType::ALL[..MigrateType::PER_CPU] {
                for chain in lists.take(*list) {
                    self.drain_chain(zone, chain);
                }
            }
        }
    }

    /// Gives the pages on all CPUs' lists to the buddy.
    pub fn drain_all(&self) {
        (0..MAX_CPUS).for_each(|cpu| self.drain_cpu(cpu));
    }

    fn fill(&self, pfn: Pfn, order: u32, byte: u8) {
        let start = self.machine.direct_map(pfn.addr());
        // SAFETY: the block is the allocator's own at this moment, and the direct map reaches all of it.
        unsafe { core::ptr::write_bytes(start, byte, PAGE_SIZE << order) };
    }
}

/// An array of zones; `[const { … }; N]` cannot hold a value that comes from a parameter.
const fn new_zones<M: Machine>(machine: M) -> [Zone<M>; MAX_ZONES] {
    let mut zones = [const { MaybeUninit::<Zone<M>>::uninit() }; MAX_ZONES];
    let mut i = 0;
    while i < MAX_ZONES {
        zones[i] = MaybeUninit::new(Zone::new(machine));
        i += 1;
    }
    // SAFETY: every element was written above, and `MaybeUninit<T>` is laid out as `T`.
    unsafe { (&raw const zones).cast::<[Zone<M>; MAX_ZONES]>().read() }
}

const _: () = assert!(MAX_ORDER < 16, "a page record has four bits for it");
