//! Faults on memory that block entries map, or may come to be mapped by one (docs/huge-pages.md).
//!
//! All of it is behind the question whether there is a last-level table, so a fault on an ordinary page pays nothing for it.

use core::sync::atomic::Ordering::Relaxed;

use super::Mm;
use super::fault::{FaultError, Stop, Touch};
use crate::addr::{PAGE_SIZE, Pfn, UserAddr};
use crate::event::Event;
use crate::frame;
use crate::mm::Machine;
use crate::pte::{ENTRIES, Pte, bits, index};
use crate::rmap::{self, whole};
use crate::spaces::HugePages;
use crate::table::LEAF_SPAN;
use crate::table::block::{Block, LaidBy};
use crate::table::entry::{self, ANON};
use crate::table::flush::{flush_page, flush_range};
use crate::table::gather::Counts;
use crate::vma::{VmFlags, Vma};

impl VmFlags {
    /// Whether private anonymous areas like this can have huge pages. Executable ones cannot: their pages are made fit for
    /// fetches one by one. Stacks grow downwards, a page at a time.
    pub(super) fn can_be_huge(self) -> bool {
        let never = VmFlags::SHARED | VmFlags::EXEC | VmFlags::GROWSDOWN | VmFlags::NOHUGEPAGE;
        self.contains(VmFlags::WRITE) && !self.intersects(never)
    }

    /// Whether faults bring them into such areas in this mode.
    fn may_be_huge(self, mode: HugePages) -> bool {
        self.can_be_huge()
            && !self.contains(VmFlags::RANDOM)
            && match mode {
                HugePages::Never => false,
                HugePages::Madvise => self.contains(VmFlags::HUGEPAGE),
                HugePages::Always => true,
            }
    }
}

impl<M: Machine> Mm<M> {
    /// No fault brings huge pages into this space from now on, nor into those that are forked from it; or again
    /// (`PR_SET_THP_DISABLE`).
    pub fn refuse_huge_pages(&self, refuses: bool) {
        self.refuses_huge_pages.store(refuses, Relaxed);
    }

    /// Whether it refuses them.
    pub fn refuses_huge_pages(&self) -> bool {
        self.refuses_huge_pages.load(Relaxed)
    }

    /// Where it gets them.
    pub(super) fn huge_pages(&self) -> HugePages {
        if self.refuses_huge_pages() { HugePages::Never } else { self.machine.spaces().huge_pages().get() }
    }

    /// A fault where there is no last-level table. `false` if the fault is to make one and go on.
    #[cold]
    pub(super) fn fault_above(&self, vma: &Vma<M>, addr: UserAddr, touch: &Touch<'_, M>) -> Result<bool, Stop> {
        match self.tables.block_at(addr) {
            Some(block) => self.fault_block(vma, &block, addr, touch),
            None => self.new_block(vma, addr, touch),
        }
    }

    /// A fault on a block: as [`Mm::fault_present`](super::fault). If it is to be copied, it is split.
    fn fault_block(
        &self,
        vma: &Vma<M>,
        block: &Block<'_, M>,
        addr: UserAddr,
        touch: &Touch<'_, M>,
    ) -> Result<bool, Stop> {
        let machine = self.machine;
        let Some(mut guard) = block.lock() else { return Ok(false) };
        let pte = guard.get();
        if (!pte.is_readable() || touch.exec && !pte.is_executable()) && !seeded!(FaultIgnoresChange) {
            return Err(Stop::Changing);
        }
        if touch.write && !pte.is_writable() {
            let pfn = pte.addr().pfn();
            let is_sole = whole::is_sole(machine, pfn) || seeded!(BlockReuseWithTwoOwners);
            if !vma.flags.contains(VmFlags::WRITE) || !pte.is_writable_clean() && !is_sole {
                return Ok(false);
            }
            let former = whole::adopt(machine, pfn, &self.anon_vma);
            guard.update(pte, Pte::written);
            drop(guard);
            drop(former);
            machine.count(Event::FaultReuse, 1);
            flush_page(machine, self.tables.asid(), addr);
            return Ok(true);
        }
        if !pte.is_young() {
            guard.update(pte, |pte| Pte(pte.0 | bits::ACCESSED));
            drop(guard);
            machine.count(Event::FaultYoung, 1);
            machine.publish_tables();
            return Ok(true);
        }
        drop(guard);
        // Another thread was faster. Whoever gives a block more rights invalidates it, so no TLB has it as it was for long.
        machine.count(Event::FaultSpurious, 1);
        Ok(true)
    }

    /// Whether the fault is to bring in all of the 2 MiB around `addr`.
    #[cold]
    pub(super) fn wants_block(&self, vma: &Vma<M>, addr: UserAddr, touch: &Touch<'_, M>) -> bool {
        let start = UserAddr::new(addr.get() & !(LEAF_SPAN - 1));
        let fits = vma.start <= start && vma.end > start && LEAF_SPAN <= vma.end - start && vma.backing.is_none();
        touch.write && fits && vma.flags.may_be_huge(self.huge_pages())
    }

    /// A new whole page around `addr`, if the area is to have some.
    fn new_block(&self, vma: &Vma<M>, addr: UserAddr, touch: &Touch<'_, M>) -> Result<bool, Stop> {
        let machine = self.machine;
        if !self.wants_block(vma, addr, touch) {
            return Ok(false);
        }
        let start = UserAddr::new(addr.get() & !(LEAF_SPAN - 1));
        let laid_by = LaidBy::new(machine, touch.supply)?;
        let Ok(pfn) = frame::alloc_block(machine, whole::ORDER, || machine.resched_point().is_ok()) else {
            machine.count(Event::HugeFallback, 1);
            return Ok(false);
        };
        whole::make(machine, pfn, &self.anon_vma, vma.pgoff_of(start));
        let attrs = entry::writable(vma.flags) | ANON;
        let put = self.tables.put_block(start, pfn.addr(), attrs, laid_by, touch.supply);
        if !seeded!(BlockFaultForgetsPublication) {
            machine.publish_tables();
        }
        if put != Ok(true) {
            rmap::Release::new(machine).block(pfn);
            // Another thread was faster, or the fault waits for memory.
            return Ok(put.map(|_| false)?);
        }
        machine.count(Event::FaultAnon, 1);
        self.charge(Counts { anon: ENTRIES, ..Counts::default() });
        Ok(true)
    }

    /// The frame of the page at `addr`, if a block maps it and `may` accepts the entry, with a reference of its own; `None` if the caller must look again.
    pub(super) fn hold_in_block(
        &self,
        addr: UserAddr,
        may: impl FnOnce(Pte) -> bool,
    ) -> Result<Option<Pfn>, FaultError> {
        let Some(block) = self.tables.block_at(addr) else { return Ok(None) };
        let Some(guard) = block.lock() else { return Ok(None) };
        let pte = guard.get();
        if !may(pte) {
            return Ok(None);
        }
        whole::take_apart(self.machine, pte.addr().pfn());
        let pfn = pte.page_of_block(index(addr.get(), 3)).addr().pfn();
        if frame::page(self.machine, pfn).get() { Ok(Some(pfn)) } else { Err(FaultError::OutOfMemory) }
    }

    /// As [`Mm::look_at_block`], if there is no last-level table.
    pub(super) fn look_at_block_of(&self, addr: UserAddr, pfn: Pfn) -> bool {
        self.tables.find_leaf(addr).is_none() && self.look_at_block(addr, pfn)
    }

    /// Takes the access flag of the block around `addr`, and notes in all of its pages if it was set; whether it was, and maps the page `pfn` at `addr`,
    /// which the caller holds. (So it is apart. Where DONTNEED and a fault have put another block meanwhile, that may be whole, and has no
    /// records to be noted in.) The areas are locked for reading.
    #[cold]
    pub(super) fn look_at_block(&self, addr: UserAddr, pfn: Pfn) -> bool {
        let Some(block) = self.tables.block_at(addr) else { return false };
        let Some(mut guard) = block.lock() else { return false };
        let pte = guard.get();
        if pte.page_of_block(index(addr.get(), 3)).addr().pfn() != pfn {
            return false;
        }
        let (was, _) = guard.update(pte, |pte| Pte(pte.0 & !bits::ACCESSED));
        if !was.is_young() {
            return false;
        }
        whole::note_used(self.machine, was.addr().pfn());
        drop(guard);
        if !seeded!(LookForgetsFlush) {
            flush_range(self.machine, self.tables.asid(), block.start(), block.start() + PAGE_SIZE);
        }
        true
    }
}
