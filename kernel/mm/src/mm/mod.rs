//! `Mm`: an address space.
//!
//! # Locks
//! One [`SharedLock`] over the areas, in three modes:
//! - a fault, a pin or a view *reads*: any number at once;
//! - a call that will change the map holds an *intent*: one at a time, concurrently with faults; it looks up, checks
//!   and allocates;
//! - for the change of the tree itself it *writes*, exclusively.
//!
//! A change removes areas from the tree first, under the write lock, and then clears their entries: a fault that found
//! the area has finished by then, and a later one does not find it. A fault that finds no area, or insufficient rights,
//! waits for the holder of the intent and looks again before it fails ([`Mm::fault`]): so a MAP_FIXED over an existing
//! mapping never exposes the hole.
//!
//! Lock order: areas (`Rank::AddressSpace`), then, for a change of the tree, the object that an area maps
//! (`Rank::MemoryObject`); or a table page (see [`crate::table`]). Only fork and reverse-mapping walks lock fork's
//! child; a walk reads and holds no other space's lock.
//!
//! # Counters
//! Pages are charged in [`Mm::charge`] and uncharged in [`Mm::uncharge`], nowhere else. Promised memory is charged in
//! [`Mm::promise`], before the map changes, and the excess is returned in [`Mm::uncharge_rest`], at the end of the change.

mod advise;
mod ahead;
mod around;
mod audit;
mod brk;
mod change_flags;
mod collapse;
mod fault;
mod fork;
mod fresh;
mod give_up;
mod huge;
pub(crate) mod look;
mod map;
mod migrate;
mod msync;
mod need;
mod non_present;
mod object_out;
pub(crate) mod page_out;
mod pgoff;
mod pin;
mod protect;
mod remap;
mod remove;
mod residence;
mod reverse;
mod translation;
mod truncate;
mod unmap;
mod usage;
mod view;
mod write_back;
mod write_fault;

#[cfg(test)]
mod tests;

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use quire_abi::Errno;

use crate::addr::{PAGE_SHIFT, PhysAddr, USER_END, UserAddr};
use crate::fallible::KArc;
use crate::machine::{Asid, Limit};
use crate::rmap::AnonVma;
use crate::supply::Supply;
use crate::sync::{IntentGuard, Rank, SharedLock};
use crate::table::Tables;
use crate::table::flush::flush_dead_space;
use crate::table::gather::Counts;
use crate::vma::{AreaTree, VmFlags};

use brk::Heap;

pub use audit::{Audit, audit_page};
pub use fault::{Access, FaultError};
pub use map::MapRequest;
pub use migrate::{Mover, Stays, migrate, migrate_to};
pub use page_out::{Out, page_out};
pub use pin::PinnedPage;
pub use reverse::{for_each_mapping, for_each_mapping_of_held};
pub use translation::{FirstTouch, Outcome, Translation};
pub use usage::Usage;
pub use view::{AreaView, Stats};

/// The machine with its address spaces.
pub trait Machine: crate::table::Machine + crate::rmap::Machine<Space = Mm<Self>> {
    /// Waits for moves that tests leave unfinished; `false` if the frame is not moved in this way.
    #[cfg(test)]
    fn wait_for_move(self, old: crate::addr::Pfn) -> bool {
        let _ = old;
        false
    }
}

/// The most areas that a space may have (Linux's default `max_map_count`).
pub const MAX_MAP_COUNT: usize = 65530;

/// The layout of a new space. The caller has already applied any randomisation.
#[derive(Clone, Copy, Debug)]
pub struct MmLayout {
    /// mmap without an address goes below this.
    pub mmap_base: UserAddr,
    /// Nothing is mapped below this (`mmap_min_addr`).
    pub mmap_min: UserAddr,
    /// One past the highest address.
    pub task_size: UserAddr,
    /// The top of the stack, for views.
    pub stack_top: UserAddr,
}

impl Default for MmLayout {
    fn default() -> Self {
        Self {
            mmap_base: UserAddr::new(USER_END - (1 << 30)),
            mmap_min: UserAddr::new(1 << 16),
            task_size: UserAddr::new(USER_END),
            stack_top: UserAddr::new(USER_END),
        }
    }
}

/// The parts of TTBR0_EL1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttbr0 {
    /// The root table.
    pub table: PhysAddr,
    /// The ASID, for bits 63 to 48.
    pub asid: Asid,
}

/// The state that the lock over the areas protects.
pub(crate) struct Areas<M: Machine> {
    pub tree: AreaTree<M>,
    pub layout: MmLayout,
    /// Mapped pages, and those of writable private areas, of stacks, and locked ones.
    pub total: usize,
    pub data: usize,
    pub stack: usize,
    pub locked: usize,
    /// The most that `total` was.
    pub peak: usize,
    /// Pages of areas with ACCOUNT.
    pub accounted: usize,
    /// The flags that mlockall(MCL_FUTURE) gives new areas.
    pub default_flags: VmFlags,
}

impl<M: Machine> Areas<M> {
    /// Whether `pages` more fit this limit on all of them, in bytes. (The sum cannot overflow: both count pages of
    /// addresses.)
    fn may_map(&self, pages: usize, limit: u64) -> bool {
        self.total + pages <= (limit >> PAGE_SHIFT) as usize
    }

    /// The same for the limit on writable private memory.
    fn may_hold_data(&self, pages: usize, limit: u64) -> bool {
        self.data + pages <= (limit >> PAGE_SHIFT) as usize
    }

    /// Counts `pages` more mapped pages of this kind.
    pub fn count_in(&mut self, flags: VmFlags, pages: usize) {
        self.total += pages;
        self.peak = self.peak.max(self.total);
        if flags.is_data() {
            self.data += pages;
        }
        if flags.contains(VmFlags::GROWSDOWN) {
            self.stack += pages;
        }
        if flags.contains(VmFlags::LOCKED) {
            self.locked += pages;
        }
        if flags.contains(VmFlags::ACCOUNT) {
            self.accounted += pages;
        }
    }

    /// Takes `pages` of this kind off the counts.
    pub fn count_out(&mut self, machine: M, flags: VmFlags, pages: usize) {
        self.total -= pages;
        if flags.is_data() {
            self.data -= pages;
        }
        if flags.contains(VmFlags::GROWSDOWN) {
            self.stack -= pages;
        }
        if flags.contains(VmFlags::LOCKED) && !seeded!(LockedStaysCounted) {
            self.locked -= pages;
            machine.spaces().note_unlock();
        }
        if flags.contains(VmFlags::ACCOUNT) {
            self.accounted -= pages;
        }
    }
}

/// The right of a map-changing call.
pub(crate) type Intent<'a, M> = IntentGuard<'a, Areas<M>, M>;

/// An address space, shared by the threads of a process.
pub struct Mm<M: Machine> {
    pub(crate) machine: M,
    pub(crate) areas: SharedLock<Areas<M>, M>,
    pub(crate) tables: Tables<M>,
    pub(crate) anon_vma: KArc<AnonVma<M>>,
    heap: Heap,
    /// Pages promised; changed under the intent. At rest it equals the sum over the areas.
    promised: AtomicUsize,
    rss_anon: AtomicUsize,
    rss_file: AtomicUsize,
    rss_shared: AtomicUsize,
    rss_peak: AtomicUsize,
    /// Anonymous pages brought in ahead of the program (see [`ahead`]).
    unproven: AtomicUsize,
    refuses_huge_pages: AtomicBool,
}

impl<M: Machine> Mm<M> {
    /// An empty space.
    pub fn new(machine: M, layout: &MmLayout) -> Result<KArc<Self>, Errno> {
        let anon_vma = AnonVma::new(machine)?;
        Self::assemble(machine, *layout, anon_vma)
    }

    fn assemble(machine: M, layout: MmLayout, anon_vma: KArc<AnonVma<M>>) -> Result<KArc<Self>, Errno> {
        let tables = Tables::new(machine)?;
        let areas = Areas {
            tree: AreaTree::new(),
            layout,
            total: 0,
            data: 0,
            stack: 0,
            locked: 0,
            peak: 0,
            accounted: 0,
            default_flags: VmFlags::empty(),
        };
        let mm = KArc::try_unshared(|| Self {
            machine,
            areas: SharedLock::new(machine, Rank::AddressSpace, areas),
            tables,
            anon_vma,
            heap: Heap::new(),
            promised: AtomicUsize::new(0),
            rss_anon: AtomicUsize::new(0),
            rss_file: AtomicUsize::new(0),
            rss_shared: AtomicUsize::new(0),
            rss_peak: AtomicUsize::new(0),
            unproven: AtomicUsize::new(0),
            refuses_huge_pages: AtomicBool::new(false),
        })?
        .share();
        AnonVma::begin(&mm.anon_vma, KArc::as_ptr(&mm));
        // (fork holds the parent's areas.)
        mm.areas.intend_as(Rank::AddressSpaceChild).write().tree.set_mm(KArc::as_ptr(&mm));
        Ok(mm)
    }

    /// The value for `cpu`'s TTBR0 to run this space. Interrupts are masked until it is loaded.
    #[inline]
    pub fn activate(&self, cpu: usize) -> Ttbr0 {
        let asid = self.machine.spaces().asids().activate(self.tables.asid(), cpu);
        Ttbr0 { table: self.tables.root(), asid }
    }

    /// A limit of the calling process, in bytes; `u64::MAX` is none.
    fn limit(&self, which: Limit) -> u64 {
        self.machine.limit(which)
    }

    /// A limit in whole pages.
    pub(crate) fn limit_pages(&self, which: Limit) -> usize {
        (self.limit(which) >> PAGE_SHIFT) as usize
    }

    /// Charges pages that have been mapped here.
    #[inline]
    pub(crate) fn charge(&self, counts: Counts) {
        if counts.anon != 0 {
            self.rss_anon.fetch_add(counts.anon, Ordering::Relaxed);
        }
        if counts.file != 0 {
            self.rss_file.fetch_add(counts.file, Ordering::Relaxed);
        }
        if counts.shared != 0 {
            self.rss_shared.fetch_add(counts.shared, Ordering::Relaxed);
        }
        let rss = self.rss();
        // A race may lose another CPU's slightly higher peak; the next charge corrects that.
        if rss > self.rss_peak.load(Ordering::Relaxed) {
            self.rss_peak.store(rss, Ordering::Relaxed);
        }
    }

    /// Uncharges pages that are no longer mapped here.
    #[inline]
    pub(crate) fn uncharge(&self, counts: Counts) {
        if counts.anon != 0 {
            self.rss_anon.fetch_sub(counts.anon, Ordering::Relaxed);
        }
        if counts.ahead != 0 {
            self.unproven.fetch_sub(counts.ahead, Ordering::Relaxed);
        }
        if counts.file != 0 && !seeded!(FilesStayCharged) {
            self.rss_file.fetch_sub(counts.file, Ordering::Relaxed);
        }
        if counts.shared != 0 {
            self.rss_shared.fetch_sub(counts.shared, Ordering::Relaxed);
        }
    }

    /// Resident pages.
    #[inline]
    pub fn rss(&self) -> usize {
        self.rss_anon.load(Ordering::Relaxed)
            + self.rss_file.load(Ordering::Relaxed)
            + self.rss_shared.load(Ordering::Relaxed)
    }

    /// Resident pages and pages of tables: the memory that ending this space would free. No lock is taken.
    pub fn footprint(&self) -> (usize, usize) {
        (self.rss(), self.tables.pages())
    }

    /// Promises `pages` more, if areas with these flags are counted; returns the flags, then with ACCOUNT.
    /// [`Mm::uncharge_rest`] returns the part that does not become part of the map.
    #[inline]
    pub(crate) fn promise(&self, areas: &Areas<M>, flags: VmFlags, pages: usize) -> Result<VmFlags, Errno> {
        if !flags.is_accountable() && !flags.contains(VmFlags::ACCOUNT) {
            return Ok(flags);
        }
        self.machine.spaces().commit().charge(self.machine, pages, areas.total)?;
        self.promised.store(self.promised.load(Ordering::Relaxed) + pages, Ordering::Relaxed);
        Ok(flags | VmFlags::ACCOUNT)
    }

    /// Returns promised pages beyond those of the areas.
    #[inline]
    pub(crate) fn uncharge_rest(&self, areas: &Areas<M>) {
        let promised = self.promised.load(Ordering::Relaxed);
        debug_assert!(promised >= areas.accounted, "an area that was not promised");
        if promised != areas.accounted {
            self.machine.spaces().commit().uncharge(self.machine, promised - areas.accounted);
            self.promised.store(areas.accounted, Ordering::Relaxed);
        }
    }

    /// Whether `pages` more of this kind fit the limits on address space and data.
    pub(crate) fn may_expand(&self, areas: &Areas<M>, flags: VmFlags, pages: usize) -> bool {
        let [total, data] = self.machine.limits([Limit::AddressSpace, Limit::Data]);
        areas.may_map(pages, total) && (!flags.is_data() || areas.may_hold_data(pages, data))
    }

    /// Whether `pages` more of writable private memory fit the limit on data.
    pub(crate) fn may_hold_data(&self, areas: &Areas<M>, pages: usize) -> bool {
        areas.may_hold_data(pages, self.limit(Limit::Data))
    }

    /// Removes all mappings while the space itself may still be held or even active: the last thread of a process has
    /// exited. If nothing else holds the space, dropping it does the same at less cost; by then the CPU runs another
    /// table.
    pub fn teardown(&self) {
        let mut areas = self.areas.intend();
        // Removing whole areas splits none, so this needs no memory and cannot fail.
        let supply = Supply::new(self.machine);
        let done = self.unmap_range(&mut areas, UserAddr::new(0), UserAddr::new(USER_END), &supply);
        debug_assert!(done.is_ok());
        self.uncharge_rest(&areas);
        let _alone = areas.write();
        self.tables.sweep();
    }
}

impl<M: Machine> Drop for Mm<M> {
    fn drop(&mut self) {
        AnonVma::end(&self.anon_vma);
        self.machine.spaces().commit().uncharge(self.machine, *self.promised.get_mut());
        // The space is active nowhere, so after one invalidation its entries cannot get into a TLB again, and its pages
        // and tables can be freed at once.
        flush_dead_space(self.machine, self.tables.asid());
        let counts = self.tables.zap_dead();
        self.uncharge(counts);
        // A test that fails leaves spaces as they are: a second panic would hide the first.
        #[cfg(test)]
        if std::thread::panicking() {
            return;
        }
        let machine = self.machine;
        let areas = self.areas.get_mut();
        if areas.locked != 0 {
            machine.spaces().note_unlock();
        }
        // A kill does not end this.
        areas.tree.clear(|| _ = machine.resched_point());
        debug_assert_eq!(self.rss(), 0, "pages charged to a dead space");
        self.machine.spaces().asids().release(self.tables.asid());
    }
}
