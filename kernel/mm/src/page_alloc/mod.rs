//! The page allocator's interface.
//!
//! An allocation goes, in this order, to the CPU's list for its best zone ([`crate::pcp`]: no lock, no loop), to the
//! zones of its zonelist as far as their low watermarks allow ([`crate::zone`], [`crate::buddy`]; a later zone lends
//! that list a batch, [`lend`]), and then to the slow path, which goes below those watermarks and reclaims ([`slow`]).
//! A free goes to the CPU's list or to the buddy.
//!
//! Locks: a zone's ([`Rank::Zone`](crate::sync::Rank::Zone)), and never two of them; shrinkers are called without locks
//! of this module.

mod background;
mod block;
mod bounds;
pub mod cma;
mod compact;
mod gfp;
mod init;
mod inject;
mod lend;
mod pressure;
mod range;
mod slow;
mod stats;
mod validate;
mod view;

pub use block::{PageBlock, PageList};
pub use bounds::{MovableSplit, ZoneBounds};
pub use compact::{Compacted, MovePages};
pub use gfp::Gfp;
pub use init::{Config, InitError, Summary, mem_map_ranges, table_bytes};
pub use inject::FaultInjection;
pub(crate) use inject::Injection;
pub use pressure::{PressureHandler, Reclaimer, Shrinker};
pub use range::{MigrateRange, RangeError};
pub use stats::ZoneView;
pub use validate::Imbalance;
pub use view::FrameView;

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use crate::addr::{PAGE_SIZE, Pfn};
use crate::buddy::pageblock::NO_ZONE;
use crate::buddy::{Frames, List, MAX_ORDER, PageblockTable};
use crate::fallible::AllocError;
use crate::machine::MAX_CPUS;
use crate::pcp::{CACHED_ORDERS, PerCpuLists, ZoneLists};
use crate::zone::{MAX_NODES, MAX_ZONES, Zone, ZoneKind};

/// Failures of allocations although there is memory.
pub trait FailsOnDemand: Copy {
    /// Whether the calling thread's present allocation must fail. Called once for each allocation, while failures are
    /// [enabled](PageAllocator::ask_about_failures).
    ///
    /// If a non-waiting allocation fails, the next waiting one must fail too, unless the caller does not need it
    /// (NORETRY): otherwise the caller's retry would hide the failure.
    fn fails_allocation(self, gfp: Gfp) -> bool {
        let _ = gfp;
        false
    }
}

/// The machine with its page frames.
pub trait Machine: crate::page::Machine + FailsOnDemand {
    /// The page allocator of this machine: the same at each call.
    fn pages(self) -> &'static PageAllocator<Self>;
}

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

/// The topology, determined at boot.
#[repr(C)]
pub(crate) struct Topology {
    pageblocks: PageblockTable,
    /// For each CPU and each [`Gfp::zone_bits`], the zone whose list the fast path uses: the first of the zonelist, or
    /// [`NO_LISTS`] for requests that are limited to a lower zone. All values are at most that.
    preferred: [[u8; 16]; MAX_CPUS],
    node_of_cpu: [u8; MAX_CPUS],
    /// How many CPUs there are.
    cpus: usize,
    /// For each node and highest zone.
    zonelists: [[Zonelist; ZoneKind::COUNT]; MAX_NODES],
}

impl Topology {
    const EMPTY: Self = Self {
        pageblocks: PageblockTable::EMPTY,
        preferred: [[0; 16]; MAX_CPUS],
        node_of_cpu: [0; MAX_CPUS],
        cpus: MAX_CPUS,
        zonelists: [[Zonelist::EMPTY; ZoneKind::COUNT]; MAX_NODES],
    };
}

/// The index of lists that are always empty, after those of the zones.
const NO_LISTS: usize = MAX_ZONES;

/// This CPU's list is empty.
struct Empty;

/// Reasons to bypass the fast paths, as bits of [`PageAllocator::trap`].
mod trap {
    pub(super) const INJECT: u32 = 1;
    pub(super) const POISON: u32 = 2;
    /// The unit of the number of users that have enabled [`FailsOnDemand`](super::FailsOnDemand).
    pub(super) const ASK: u32 = 4;
}

/// The fill pattern of free pages if `page_poison` is on.
const POISON: u8 = 0xaa;

/// The page allocator of a machine: its nodes and their zones. A `static` in the kernel; before [`PageAllocator::init`]
/// it has no memory, so allocations fail. The fields that the fast paths read come first, within the reach of one base
/// register.
#[repr(C)]
pub struct PageAllocator<M: Machine> {
    machine: M,
    trap: AtomicU32,
    topology: UnsafeCell<Topology>,
    /// By zone and CPU. Those of [`NO_LISTS`] stay empty.
    lists: [[ZoneLists; MAX_CPUS]; MAX_ZONES + 1],
    /// By zone and CPU, whether other zones may have lent something to the list.
    loans: [[lend::Loans; MAX_CPUS]; MAX_ZONES],
    zones: [Zone<M>; MAX_ZONES],
    /// Bad frames, which were not fit to be freed and are not reused.
    bad_pages: AtomicUsize,
    pressure: pressure::Pressure<M>,
    injection: inject::Injection,
    cma: cma::Cma,
    background: [background::Background; MAX_NODES],
    compaction: [compact::OfZone<M>; MAX_ZONES],
}

// SAFETY: all fields except `topology` are atomics and locks. `topology` is only written by `init`, whose caller
// promises that nothing else uses the allocator meanwhile.
unsafe impl<M: Machine> Sync for PageAllocator<M> {}

impl<M: Machine> PageAllocator<M> {
    /// An allocator without memory.
    pub const fn new(machine: M) -> Self {
        Self {
            machine,
            topology: UnsafeCell::new(Topology::EMPTY),
            trap: AtomicU32::new(0),
            bad_pages: AtomicUsize::new(0),
            lists: [const { [const { ZoneLists::new() }; MAX_CPUS] }; MAX_ZONES + 1],
            loans: [const { [const { lend::Loans::new() }; MAX_CPUS] }; MAX_ZONES],
            zones: new_zones(machine),
            pressure: pressure::Pressure::new(machine),
            injection: inject::Injection::new(),
            cma: cma::Cma::new(),
            background: [const { background::Background::new() }; MAX_NODES],
            compaction: new_compaction(machine),
        }
    }

    #[inline(always)]
    fn topology(&self) -> &Topology {
        // SAFETY: `init` is the only writer, and runs before all other calls.
        unsafe { &*self.topology.get() }
    }

    #[inline(always)]
    pub(crate) fn frames(&self) -> Frames<M> {
        Frames { machine: self.machine, pageblocks: self.topology().pageblocks }
    }

    /// A block of `1 << order` frames. Its contents are undefined unless `gfp` has ZERO.
    #[inline]
    pub fn alloc_pages(&self, order: u32, gfp: Gfp) -> Result<PageBlock<M>, AllocError> {
        if !self.is_for_lists(order, gfp) {
            return self.alloc_block_slow(order, gfp);
        }
        match self.alloc_cached(order, gfp) {
            Ok(pfn) if gfp.contains(Gfp::ZERO) => Ok(self.cleared(pfn, order)),
            // SAFETY: the block was just allocated at this order, and has no other owner.
            Ok(pfn) => Ok(unsafe { PageBlock::from_raw(self.machine, pfn, order) }),
            Err(Empty) => self.alloc_block_slow(order, gfp),
        }
    }

    /// Zeroes an allocated block: out of line, so that the fast path needs no stack frame.
    #[inline(never)]
    fn cleared(&self, pfn: Pfn, order: u32) -> PageBlock<M> {
        self.clear(pfn, order);
        // SAFETY: the block was just allocated at this order, and has no other owner.
        unsafe { PageBlock::from_raw(self.machine, pfn, order) }
    }

    fn clear(&self, pfn: Pfn, order: u32) {
        (0..1 << order).for_each(|i| self.machine.clear_page(Pfn(pfn.0 + i).addr()));
    }

    /// [`PageAllocator::alloc_slow`], with the result in the form that the fast path returns, so that it can tail-call
    /// this.
    #[cold]
    #[inline(never)]
    fn alloc_block_slow(&self, order: u32, gfp: Gfp) -> Result<PageBlock<M>, AllocError> {
        let pfn = self.alloc_slow(None, order, gfp)?;
        // SAFETY: the block was just allocated at this order, and has no other owner.
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

    /// The kernel's address of a new block; [`PageAllocator::free_address`] frees it.
    pub fn get_free_pages(&self, order: u32, gfp: Gfp) -> Result<*mut u8, AllocError> {
        Ok(self.machine.direct_map(self.alloc_raw(order, gfp)?.addr()))
    }

    /// The kernel's address of a new zeroed page.
    pub fn get_zeroed_page(&self, gfp: Gfp) -> Result<*mut u8, AllocError> {
        self.get_free_pages(0, gfp | Gfp::ZERO)
    }

    /// Frees a block from [`PageAllocator::get_free_pages`].
    ///
    /// # Safety
    /// As [`PageAllocator::free_pages`], for the block at `address`.
    pub unsafe fn free_address(&self, address: *mut u8, order: u32) {
        // SAFETY: the caller's promise.
        unsafe { self.free_pages(self.machine.direct_map_to_phys(address).pfn(), order) }
    }

    /// A block without an owner: the caller must free it.
    #[inline]
    pub fn alloc_raw(&self, order: u32, gfp: Gfp) -> Result<Pfn, AllocError> {
        if !self.is_for_lists(order, gfp) {
            return self.alloc_slow(None, order, gfp);
        }
        match self.alloc_cached(order, gfp) {
            Ok(pfn) => {
                if gfp.contains(Gfp::ZERO) {
                    self.clear(pfn, order);
                }
                Ok(pfn)
            }
            Err(Empty) => self.alloc_slow(None, order, gfp),
        }
    }

    /// `pages` consecutive frames, each a block of its own without an owner: the caller must free them one by one.
    pub fn alloc_single_pages(&self, pages: usize, gfp: Gfp) -> Result<Pfn, AllocError> {
        let order = pages.next_power_of_two().trailing_zeros();
        let first = self.alloc_raw(order, gfp)?;
        for pfn in (first.0..first.0 + (1 << order)).map(Pfn) {
            self.frames().page(pfn).make_allocated(0);
            if pfn.0 >= first.0 + pages {
                // SAFETY: it was just allocated, and has no other owner.
                unsafe { self.free_pages(pfn, 0) };
            }
        }
        Ok(first)
    }

    /// A block from the given node if possible; from others only without THISNODE.
    pub fn alloc_pages_node(&self, node: usize, order: u32, gfp: Gfp) -> Result<PageBlock<M>, AllocError> {
        let pfn = self.alloc_slow(Some(node), order, gfp)?;
        // SAFETY: the block was just allocated at this order, and has no other owner.
        Ok(unsafe { PageBlock::from_raw(self.machine, pfn, order) })
    }

    /// The node of one of the allocator's frames.
    #[inline]
    pub fn node_of(&self, pfn: Pfn) -> usize {
        self.topology().pageblocks.get(pfn).map_or(0, |block| init::node_of(usize::from(block.zone())))
    }

    /// The kind of a frame's zone, as a number.
    pub(crate) fn zone_kind_of(&self, pfn: Pfn) -> usize {
        usize::from(self.topology().pageblocks.of(pfn).zone()) % ZoneKind::COUNT
    }

    /// Whether a frame exists, and belongs to this node.
    pub(crate) fn has(&self, node: usize, pfn: Pfn) -> bool {
        let block = self.topology().pageblocks.get(pfn);
        block.is_some_and(|block| block.zone() != NO_ZONE && init::node_of(block.zone().into()) == node)
    }

    /// Notes that a page of a control group is here: see [`Pageblock::note_group`](crate::buddy::Pageblock).
    #[inline(always)]
    pub(crate) fn note_group(&self, pfn: Pfn, group: u16) {
        self.topology().pageblocks.of(pfn).note_group(group);
    }

    /// The node that a CPU is on.
    pub fn node_of_cpu(&self, cpu: usize) -> usize {
        usize::from(self.topology().node_of_cpu[cpu])
    }

    /// The node that this CPU is on.
    #[inline]
    pub fn local_node(&self) -> usize {
        usize::from(self.topology().node_of_cpu[self.machine.cpu()])
    }

    /// Whether a request may use the fast path.
    #[inline(always)]
    fn is_for_lists(&self, order: u32, gfp: Gfp) -> bool {
        let special = if order == 0 { Gfp::THISNODE } else { Gfp::THISNODE.union(Gfp::COMP) };
        order < CACHED_ORDERS && !gfp.intersects(special) && self.trap.load(Relaxed) == 0
    }

    /// The fast path: a block from this CPU's list for the request's best zone, its own or [lent](lend); its contents
    /// are undefined.
    #[inline(always)]
    fn alloc_cached(&self, order: u32, gfp: Gfp) -> Result<Pfn, Empty> {
        let irq = self.machine.irq_save();
        let cpu = self.machine.cpu();
        // SAFETY: a CPU's number is below MAX_CPUS (`Machine`'s contract), and the four bits are below 16.
        let zone = unsafe { *self.topology().preferred.get_unchecked(cpu).get_unchecked(gfp.zone_bits()) };
        // SAFETY: as above; `init` enters no others.
        let lists = unsafe { self.lists_unchecked(cpu, zone) }.of(order);
        let Some(pfn) = lists.pop(self.frames(), gfp.list()) else {
            self.machine.irq_restore(irq);
            return Err(Empty);
        };
        self.machine.irq_restore(irq);
        self.frames().page(pfn).make_allocated(order);
        Ok(pfn)
    }

    /// A CPU's lists for a zone.
    ///
    /// # Safety
    /// `cpu` is below MAX_CPUS, `zone` a zone or [`NO_LISTS`].
    #[inline(always)]
    unsafe fn lists_unchecked(&self, cpu: usize, zone: u8) -> &ZoneLists {
        debug_assert!(cpu < MAX_CPUS && usize::from(zone) <= NO_LISTS);
        // SAFETY: the caller's promise.
        unsafe { self.lists.get_unchecked(usize::from(zone)).get_unchecked(cpu) }
    }

    /// This CPU's lists for a zone. With interrupts masked.
    fn own_lists(&self, zone: usize) -> &ZoneLists {
        &self.lists[zone][self.machine.cpu()]
    }

    /// Frees a kernel block with its one reference. (A page of user memory may have other holders that found it:
    /// [`PageAllocator::free_frozen_pages`].)
    ///
    /// # Safety
    /// The caller owns the block: it was allocated at this order, by raw means or [`PageBlock::into_raw`], nothing else
    /// can access it (in particular through a TLB), and nothing uses it from here on.
    #[inline]
    pub unsafe fn free_pages(&self, pfn: Pfn, order: u32) {
        let fit = self.frames().page(pfn).fit_to_free(order);
        self.free_if_fit(pfn, order, fit);
    }

    /// Frees a block whose count the caller has taken to 0, by [`put`](crate::page::Page::put) or
    /// [`freeze`](crate::page::Page::freeze).
    ///
    /// # Safety
    /// As [`PageAllocator::free_pages`].
    #[inline]
    pub unsafe fn free_frozen_pages(&self, pfn: Pfn, order: u32) {
        let fit = self.frames().page(pfn).fit_to_free_frozen(order);
        self.free_if_fit(pfn, order, fit);
    }

    #[inline(always)]
    fn free_if_fit(&self, pfn: Pfn, order: u32, fit: bool) {
        if !fit {
            return self.bad_page(pfn);
        }
        // SAFETY: its record says that it was allocated, so it exists.
        let block = unsafe { self.topology().pageblocks.of_existing(pfn) };
        if order < CACHED_ORDERS
            && self.trap.load(Relaxed) == 0
            && let Some(list) = block.list()
        {
            return self.free_cached(block.zone(), list, pfn, order);
        }
        self.free_slow(pfn, order);
    }

    /// The fast path: a block to this CPU's list for its zone, which is that of a managed frame.
    #[inline(always)]
    fn free_cached(&self, zone: u8, list: List, pfn: Pfn, order: u32) {
        self.frames().page(pfn).make_cached(order);
        let irq = self.machine.irq_save();
        // SAFETY: a CPU's number is below MAX_CPUS (`Machine`'s contract); a managed frame's zone exists.
        let lists = unsafe { self.lists_unchecked(self.machine.cpu(), zone) }.of(order);
        if lists.push(self.frames(), list, pfn) {
            return self.spill(lists, zone, list, order, irq);
        }
        self.machine.irq_restore(irq);
    }

    /// A list has overflowed: its older half goes to the buddy.
    #[cold]
    #[inline(never)]
    fn spill(&self, lists: &PerCpuLists, zone: u8, list: List, order: u32, irq: usize) {
        let ended = self.ended(zone.into(), self.machine.cpu());
        let old = lists.retire(self.frames(), list);
        let is_mixed = self.is_mixed(zone.into(), self.machine.cpu(), ended);
        // The blocks taken off the list belong to this thread.
        self.machine.irq_restore(irq);
        self.drain_chain(zone.into(), order, old, is_mixed);
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

    /// A frame that is not fit to be freed: mapped, on a list, referenced, or freed before. It is not reused, since a
    /// leak is less harmful than a page with two owners.
    #[cold]
    fn bad_page(&self, pfn: Pfn) {
        self.bad_pages.fetch_add(1, Relaxed);
        self.pressure.report_bad_page(pfn);
    }

    /// Frees a block that is fit to be freed, when the fast path does not apply.
    #[cold]
    #[inline(never)]
    fn free_slow(&self, pfn: Pfn, order: u32) {
        self.poison(pfn, 1 << order);
        let frames = self.frames();
        let block = frames.pageblocks.of(pfn);
        match block.list() {
            Some(list) if order < CACHED_ORDERS => self.free_cached(block.zone(), list, pfn, order),
            _ => self.zones[usize::from(block.zone())].with_area(|area| area.free_block(frames, pfn, order)),
        }
    }

    /// Gives the pages on one CPU's lists to the buddy. Any CPU may do this for any other.
    pub fn drain_cpu(&self, cpu: usize) {
        self.drain(cpu, &|| ());
    }

    /// Calls `between` after each list.
    fn drain(&self, cpu: usize, between: &dyn Fn()) {
        for zone in (0..MAX_ZONES).filter(|&zone| self.zones[zone].present() != 0) {
            if cpu == self.machine.cpu() {
                self.call_in(zone);
            }
            // (Most lists are empty, those of CPUs that are not there too; the caller may have interrupts masked.)
            if self.lists[zone][cpu].held() == 0 {
                continue;
            }
            let ended = self.ended(zone, cpu);
            for (order, lists) in self.lists[zone][cpu].iter() {
                let chains = List::ALL.into_iter().flat_map(|list| lists.take(list));
                for chain in chains.filter(|chain| chain.count() != 0) {
                    self.drain_chain(zone, order, chain, self.is_mixed(zone, cpu, ended));
                    between();
                }
            }
        }
    }

    /// Gives the pages on all CPUs' lists to the buddy.
    pub fn drain_all(&self) {
        (0..MAX_CPUS).for_each(|cpu| self.drain_cpu(cpu));
    }

    /// The same for a caller that may wait: others may run between two lists. (A killed thread continues.)
    fn drain_all_waiting(&self) {
        (0..MAX_CPUS).for_each(|cpu| self.drain(cpu, &|| _ = self.machine.resched_point()));
    }

    /// Debugging: fills freed frames.
    fn poison(&self, first: Pfn, frames: usize) {
        if self.trap.load(Relaxed) & trap::POISON == 0 {
            return;
        }
        for pfn in (first.0..first.0 + frames).map(Pfn) {
            // SAFETY: the frame belongs to the allocator at this moment, and the direct map covers all of it.
            unsafe { self.machine.direct_map(pfn.addr()).write_bytes(POISON, PAGE_SIZE) };
        }
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

/// As [`new_zones`].
const fn new_compaction<M: Machine>(machine: M) -> [compact::OfZone<M>; MAX_ZONES] {
    let mut zones = [const { MaybeUninit::<compact::OfZone<M>>::uninit() }; MAX_ZONES];
    let mut i = 0;
    while i < MAX_ZONES {
        zones[i] = MaybeUninit::new(compact::OfZone::new(machine));
        i += 1;
    }
    // SAFETY: as there.
    unsafe { (&raw const zones).cast::<[compact::OfZone<M>; MAX_ZONES]>().read() }
}

const _: () = assert!(MAX_ORDER < 16, "a page record has four bits for it");
