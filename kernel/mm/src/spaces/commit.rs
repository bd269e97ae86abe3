//! Commit accounting: how much memory processes have been promised, and whether they may be promised more.
//!
//! A promise covers mappings that can take memory of their own: private writable areas (`VmFlags::ACCOUNT` marks
//! counted ones) and shared anonymous objects. An address space charges in [`Mm::promise`](crate::mm::Mm) and uncharges
//! in `Mm::uncharge_rest`; an object does both itself. Nothing else calls [`Commit::charge`] and [`Commit::uncharge`].
//!
//! The count has one slot per CPU, so that promises on different CPUs do not contend; only mode 2 sums the slots.

use core::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};

use quire_abi::Errno;
use quire_abi::flags::setting;

use crate::addr::{PAGE_SHIFT, PAGE_SIZE};
use crate::machine::MAX_CPUS;
use crate::machine::Machine;

/// Linux's default for `vm.overcommit_ratio`.
const DEFAULT_RATIO: usize = 50;

/// The most memory that mode 2 withholds from a single process, so that a recovery program can still be started.
const MAX_RESERVE: usize = (128 << 20) / PAGE_SIZE;

#[repr(align(64))]
struct Slot(AtomicIsize);

/// See the module. Sizes are in pages.
pub struct Commit {
    slots: [Slot; MAX_CPUS],
    /// All memory of the page allocator.
    total: AtomicUsize,
    /// Slots of swap.
    swap: AtomicUsize,
    mode: AtomicUsize,
    ratio: AtomicUsize,
    /// In KiB; takes the ratio's place unless 0.
    kbytes: AtomicUsize,
}

impl Commit {
    pub(super) const fn new() -> Self {
        Self {
            slots: [const { Slot(AtomicIsize::new(0)) }; MAX_CPUS],
            total: AtomicUsize::new(0),
            swap: AtomicUsize::new(0),
            mode: AtomicUsize::new(setting::OVERCOMMIT_GUESS),
            ratio: AtomicUsize::new(DEFAULT_RATIO),
            kbytes: AtomicUsize::new(0),
        }
    }

    /// The total number of pages.
    pub fn total(&self) -> usize {
        self.total.load(Relaxed)
    }

    pub(super) fn set_total(&self, pages: usize) {
        self.total.store(pages, Relaxed);
    }

    pub(super) fn set_swap(&self, slots: usize) {
        self.swap.store(slots, Relaxed);
    }

    /// Promises `pages` more to a space that has `mapped` pages already; ENOMEM if that is too much. Mode 0 refuses a
    /// single request that exceeds all memory and swap, mode 1 nothing, mode 2 requests beyond the limit.
    #[inline]
    pub(crate) fn charge<M: Machine>(&self, machine: M, pages: usize, mapped: usize) -> Result<(), Errno> {
        match self.mode.load(Relaxed) {
            setting::OVERCOMMIT_NEVER => return self.charge_strictly(machine, pages, mapped),
            setting::OVERCOMMIT_GUESS if pages > self.total.load(Relaxed) + self.swap.load(Relaxed) => {
                return Err(Errno::ENOMEM);
            }
            _ => {}
        }
        self.add(machine, pages as isize);
        Ok(())
    }

    #[cold]
    fn charge_strictly<M: Machine>(&self, machine: M, pages: usize, mapped: usize) -> Result<(), Errno> {
        let pages = isize::try_from(pages).map_err(|_| Errno::ENOMEM)?;
        let reserve = (self.total.load(Relaxed) * 3 / 100).min(MAX_RESERVE).min(mapped / 32);
        // Counted first, so that two concurrent requests cannot both get the last page.
        self.add(machine, pages);
        if self.committed() <= self.limit().saturating_sub(reserve) {
            return Ok(());
        }
        self.add(machine, -pages);
        Err(Errno::ENOMEM)
    }

    /// Takes a promise back.
    #[inline]
    pub(crate) fn uncharge<M: Machine>(&self, machine: M, pages: usize) {
        self.add(machine, -(pages as isize));
    }

    /// Charges a page of a mapping with NORESERVE, which was not promised.
    pub(crate) fn charge_unasked<M: Machine>(&self, machine: M) {
        self.add(machine, 1);
    }

    #[inline]
    fn add<M: Machine>(&self, machine: M, pages: isize) {
        self.slots[machine.cpu()].0.fetch_add(pages, Relaxed);
    }

    /// Pages promised (`Committed_AS`).
    pub fn committed(&self) -> usize {
        self.sum().max(0) as usize
    }

    /// The raw sum: negative if more was uncharged than charged, or if a slot changes during the summation.
    pub(crate) fn sum(&self) -> isize {
        self.slots.iter().map(|slot| slot.0.load(Relaxed)).sum()
    }

    /// The limit of all promises in mode 2, in pages (`CommitLimit`).
    pub fn limit(&self) -> usize {
        let memory = match self.kbytes.load(Relaxed) {
            0 => self.total.load(Relaxed) / 100 * self.ratio.load(Relaxed),
            kbytes => kbytes >> (PAGE_SHIFT - 10),
        };
        memory + self.swap.load(Relaxed)
    }

    /// Whether NORESERVE is honoured: mode 2 counts everything.
    pub(crate) fn may_skip(&self) -> bool {
        self.mode.load(Relaxed) != setting::OVERCOMMIT_NEVER
    }

    /// A setting's value, by its number in [`setting`].
    pub fn setting(&self, which: usize) -> Result<usize, Errno> {
        match which {
            setting::OVERCOMMIT_MEMORY => Ok(self.mode.load(Relaxed)),
            setting::OVERCOMMIT_RATIO => Ok(self.ratio.load(Relaxed)),
            setting::OVERCOMMIT_KBYTES => Ok(self.kbytes.load(Relaxed)),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Changes a setting. Only the last one set of ratio and kbytes has an effect, and the other one becomes 0.
    pub fn set(&self, which: usize, value: usize) -> Result<(), Errno> {
        match which {
            setting::OVERCOMMIT_MEMORY if value <= setting::OVERCOMMIT_NEVER => self.mode.store(value, Relaxed),
            setting::OVERCOMMIT_RATIO if value <= i32::MAX as usize => {
                self.ratio.store(value, Relaxed);
                self.kbytes.store(0, Relaxed);
            }
            setting::OVERCOMMIT_KBYTES if value <= isize::MAX as usize => {
                self.kbytes.store(value, Relaxed);
                self.ratio.store(0, Relaxed);
            }
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }
}
