//! State shared by all address spaces of a machine.

mod commit;
mod huge;
mod moves;

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::addr::PhysAddr;
use crate::asid::AsidAllocator;
use crate::fallible::AllocError;
use crate::frame;
use crate::swap::Swap;

pub use commit::Commit;
pub use huge::{HugePages, Mode};
pub use moves::{Move, Moves};

/// The machine with the state that its address spaces share.
pub trait Machine: crate::cgroup::Machine {
    /// It.
    fn spaces(self) -> &'static Spaces<Self>;
}

/// The zero page, the ASIDs, and machine-wide counters. A `static` in the kernel.
pub struct Spaces<M: Machine> {
    machine: M,
    zero_page: AtomicUsize,
    asids: AsidAllocator<M>,
    tables: AtomicUsize,
    commit: Commit,
    moves: Moves<M>,
    swap: Swap<M>,
    cached: AtomicUsize,
    marked: AtomicUsize,
    unlocks: AtomicUsize,
    hardware_updates: AtomicBool,
    huge_pages: Mode,
}

impl<M: Machine> Spaces<M> {
    /// Before [`Spaces::init`] no space can be made.
    pub const fn new(machine: M) -> Self {
        Self {
            machine,
            zero_page: AtomicUsize::new(0),
            asids: AsidAllocator::new(machine),
            tables: AtomicUsize::new(0),
            commit: Commit::new(),
            moves: Moves::new(machine),
            swap: Swap::new(machine),
            cached: AtomicUsize::new(0),
            marked: AtomicUsize::new(0),
            unlocks: AtomicUsize::new(0),
            hardware_updates: AtomicBool::new(false),
            huge_pages: Mode::new(),
        }
    }

    /// Once at boot, when the page allocator has memory: takes a frame for the zero page. `asid_bits` is 8 or 16,
    /// as ID_AA64MMFR0_EL1.ASIDBits says.
    pub fn init(&self, asid_bits: u32) -> Result<(), AllocError> {
        self.asids.set_bits(asid_bits);
        let zero = frame::alloc_unmovable(self.machine)?.addr();
        self.zero_page.store(zero.get(), Ordering::Release);
        self.commit.set_total(self.machine.pages().total_managed());
        Ok(())
    }

    /// Switches swap on ([`Swap::init`]). Its slots can be promised to programs.
    pub fn init_swap(&self, slots: usize, limit: usize, streams: usize) -> Result<(), AllocError> {
        self.swap.init(slots, limit, streams)?;
        self.commit.set_swap(slots);
        Ok(())
    }

    /// Records that some CPU sets the access flag or the dirty state of entries by itself. Before the first space is
    /// made.
    pub fn set_hardware_updates(&self) {
        self.hardware_updates.store(true, Ordering::Relaxed);
    }

    /// Whether CPUs update entries: then software changes present ones atomically (see [`crate::table::entry`]). Other
    /// CPUs may lack this; their faults are handled.
    #[inline(always)]
    pub fn hardware_updates(&self) -> bool {
        self.hardware_updates.load(Ordering::Relaxed)
    }

    /// The page that is all zeros and shared by everyone.
    #[inline]
    pub fn zero_page(&self) -> PhysAddr {
        PhysAddr::new(self.zero_page.load(Ordering::Relaxed))
    }

    /// Where programs get huge pages.
    pub fn huge_pages(&self) -> &Mode {
        &self.huge_pages
    }

    /// The ASIDs.
    pub fn asids(&self) -> &AsidAllocator<M> {
        &self.asids
    }

    /// Commit accounting.
    #[inline]
    pub fn commit(&self) -> &Commit {
        &self.commit
    }

    /// Moves of pages that are under way.
    pub fn moves(&self) -> &Moves<M> {
        &self.moves
    }

    /// The store of pages that have left memory.
    #[inline]
    pub fn swap(&self) -> &Swap<M> {
        &self.swap
    }

    /// Pages in translation tables of processes, their roots included.
    pub fn tables(&self) -> usize {
        self.tables.load(Ordering::Relaxed)
    }

    /// Pages of paged files that are in memory.
    #[inline]
    pub fn cached(&self) -> usize {
        self.cached.load(Ordering::Relaxed)
    }

    /// Of these, pages that have to be written back.
    #[inline]
    pub fn marked(&self) -> usize {
        self.marked.load(Ordering::Relaxed)
    }

    /// Notes that a locked area has ended, or is no longer locked: pages that could not be reclaimed because of it now
    /// can.
    #[inline]
    pub(crate) fn note_unlock(&self) {
        self.unlocks.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was noted.
    #[inline]
    pub(crate) fn unlocks(&self) -> usize {
        self.unlocks.load(Ordering::Relaxed)
    }

    /// Whether a fifth of memory has to be written back: then a thread that marks more pages must write back first, so
    /// that there is always memory that can be reclaimed without waiting.
    #[inline]
    pub fn must_write_back(&self) -> bool {
        let marked = self.marked();
        marked != 0 && marked > self.commit.total() / 5
    }

    pub(crate) fn count_cached(&self, by: isize) {
        self.cached.fetch_add(by as usize, Ordering::Relaxed);
    }

    pub(crate) fn count_marked(&self, by: isize) {
        self.marked.fetch_add(by as usize, Ordering::Relaxed);
    }

    pub(crate) fn count_tables(&self, by: isize) {
        self.tables.fetch_add(by as usize, Ordering::Relaxed);
    }
}
