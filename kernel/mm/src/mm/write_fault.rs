//! Writes to pages that are mapped read-only: copy-on-write, or reuse of the page if it has no other holder.

use super::Mm;
use super::fault::{FaultError, room};
use crate::addr::{PAGE_SIZE, UserAddr};
use crate::event::Event;
use crate::fallible::{AllocError, KArc};
use crate::frame;
use crate::mm::Machine;
use crate::mm::ahead::MAX_WINDOW;
use crate::mm::fresh::Fresh;
use crate::pte::{Pte, bits, index};
use crate::rmap;
use crate::supply::Supply;
use crate::table::entry::{self, ANON, Kind};
use crate::table::flush::{flush_page, flush_range};
use crate::table::gather::Counts;
use crate::table::{Leaf, LeafGuard};
use crate::vma::{VmFlags, Vma};

/// Entries after a reused page that are examined for reuse too.
const REUSE_AHEAD: usize = 16;

impl<M: Machine> Mm<M> {
    /// A write to the page at `addr`, which `pte` maps read-only in an area that may be written.
    pub(super) fn write_protected(
        &self,
        vma: &Vma<M>,
        leaf: &Leaf<'_, M>,
        addr: UserAddr,
        pte: Pte,
        supply: &Supply<M>,
    ) -> Result<(), FaultError> {
        let i = index(addr.get(), 3);
        let shared = (vma.flags.contains(VmFlags::SHARED) || seeded!(PrivateWriteIsShared)) && !pte.is_special();
        if vma.flags.contains(VmFlags::NOTES_STORES) {
            self.store_noticed(vma, leaf, addr, pte);
            return Ok(());
        }
        {
            let mut guard = leaf.lock();
            if guard.get(i) != pte {
                return Ok(());
            }
            if pte.is_writable_clean() || shared || self.is_sole(pte) {
                let former = if pte.is_anon() { self.adopt(pte.addr().pfn(), 1) } else { None };
                self.reuse(&mut guard, vma, addr, shared);
                drop(guard);
                drop(former);
                self.machine.count(Event::FaultReuse, 1);
                // This CPU has the read-only entry cached, and others may. (The neighbours reused along with it fault
                // once more if theirs is cached.)
                flush_page(self.machine, self.tables.asid(), addr);
                return Ok(());
            }
            // The copy is made without the lock; the reference keeps the source from being freed or reused.
            if !pte.is_special() && !frame::page(self.machine, pte.addr().pfn()).get() {
                return Err(FaultError::OutOfMemory);
            }
        }
        self.copy_held(vma, leaf, addr, pte, supply)
    }

    /// The first store to a page that has to be written back: it is marked before its entry is writable, and stays so until then. If the object has given
    /// it up, nothing changes: the entry goes, and the program faults again.
    fn store_noticed(&self, vma: &Vma<M>, leaf: &Leaf<'_, M>, addr: UserAddr, pte: Pte) {
        let (Some(backing), Some(object_index)) = (&vma.backing, vma.index_of(addr)) else { return };
        let Some(marking) = backing.object.mark_for_store(object_index, pte.addr().pfn()) else { return };
        let i = index(addr.get(), 3);
        let mut guard = leaf.lock();
        let is_same = guard.get(i) == pte;
        if is_same {
            self.reuse(&mut guard, vma, addr, true);
        }
        drop(guard);
        marking.end();
        if is_same {
            self.machine.count(Event::FaultReuse, 1);
            flush_page(self.machine, self.tables.asid(), addr);
        }
    }

    /// Replaces the page that the entry for `addr` maps by a copy, if [`Tables::is_shared`] says so.
    ///
    /// [`Tables::is_shared`]: crate::table::Tables::is_shared
    #[cold]
    pub(super) fn copy_shared(&self, vma: &Vma<M>, addr: UserAddr, supply: &Supply<M>) -> Result<(), AllocError> {
        let Some(leaf) = self.tables.walk(addr) else { return Ok(()) };
        let pte = {
            let guard = leaf.lock();
            let pte = guard.get(index(addr.get(), 3));
            if !self.tables.is_shared(pte) {
                return Ok(());
            }
            if !frame::page(self.machine, pte.addr().pfn()).get() {
                return Err(AllocError);
            }
            pte
        };
        self.copy_held(vma, &leaf, addr, pte, supply).map_err(|_| AllocError)
    }

    /// As [`Mm::copy_for_write`]; drops the caller's reference to the page.
    #[inline(always)]
    fn copy_held(
        &self,
        vma: &Vma<M>,
        leaf: &Leaf<'_, M>,
        addr: UserAddr,
        pte: Pte,
        supply: &Supply<M>,
    ) -> Result<(), FaultError> {
        let copied = self.copy_for_write(vma, leaf, addr, pte, supply);
        if !pte.is_special() && (copied.is_ok() || !seeded!(FailedCopyKeepsSource)) {
            rmap::Release::new(self.machine).page(pte.addr().pfn());
        }
        copied
    }

    /// Whether `pte` maps an anonymous page without other holders, except ones that only examine its record. Under its
    /// table's lock.
    ///
    /// A count of 1 is this entry's own. Other spaces and pins can only get a reference through this entry, which the
    /// lock excludes. Another thread may find the page by its record right after this check, but that gives it no right
    /// to the contents: to keep the page unchanged it must remove the entries, or their write permission, under their
    /// tables' locks, and then sees the result of this change. In the opposite order such a reference makes the count
    /// 2, and the page is copied unnecessarily.
    #[inline]
    fn is_sole(&self, pte: Pte) -> bool {
        let sole = if seeded!(ReuseWithTwoOwners) { 2 } else { 1 };
        pte.is_anon() && frame::page(self.machine, pte.addr().pfn()).refs() <= sole
    }

    /// Makes the page at `addr` writable without a copy, and also those after it that have no other holders.
    fn reuse(&self, guard: &mut LeafGuard<'_, M>, vma: &Vma<M>, addr: UserAddr, shared: bool) {
        let first = index(addr.get(), 3);
        guard.update(first, guard.get(first), Pte::written);
        if shared {
            return;
        }
        for i in first + 1..first + room(vma, addr).min(REUSE_AHEAD) {
            let pte = guard.get(i);
            // (What was given up stays so until it is written.)
            if !pte.is_present() || pte.is_writable() || !self.is_sole(pte) || !pte.is_dirty() {
                break;
            }
            // The access flag is unchanged, since the page was not accessed.
            guard.update(i, pte, |pte| Pte(pte.0 & !bits::READ_ONLY | bits::DIRTY));
        }
    }

    /// Replaces the page that `pte` maps by a copy.
    #[inline(always)]
    fn copy_for_write(
        &self,
        vma: &Vma<M>,
        leaf: &Leaf<'_, M>,
        addr: UserAddr,
        pte: Pte,
        supply: &Supply<M>,
    ) -> Result<(), FaultError> {
        let machine = self.machine;
        let kind = pte.owner_kind(machine);
        if kind == Kind::Zero {
            return self.replace_zeros(vma, leaf, addr, supply);
        }
        let pfn = supply.user(false)?;
        machine.copy_page(pfn.addr(), pte.addr());
        rmap::make_anon(machine, pfn, &self.anon_vma, vma.pgoff_of(addr));
        KArc::add_owners(&self.anon_vma, 1);
        self.before_exec(vma, pfn.addr());
        let i = index(addr.get(), 3);
        // Dirty also in an area that may not be written now: this is the only copy of the contents.
        let new = Pte::page(pfn.addr(), entry::writable(vma.flags) | ANON | bits::DIRTY);
        let replaced = {
            let mut guard = leaf.lock();
            let same = guard.get(i) == pte;
            if same {
                guard.replace(i, new, addr, self.tables.asid());
            }
            same
        };
        machine.publish_tables();
        let mut release = rmap::Release::new(machine);
        if !replaced {
            release.page(pfn);
            return Ok(());
        }
        machine.count(Event::FaultCopy, 1);
        if kind != Kind::Anon {
            let mut gone = Counts::default();
            gone.add(kind);
            self.uncharge(gone);
            self.charge(Counts { anon: 1, ..Counts::default() });
        } else if pte.ahead() != 0 {
            self.uncharge(Counts { ahead: pte.ahead(), ..Counts::default() });
        }
        if kind.is_counted() && !seeded!(CopyKeepsReference) {
            // The entry's own reference; the caller has another.
            release.page(pte.addr().pfn());
        }
        Ok(())
    }

    /// The page was only read so far: replaces the zero page by new zeroed pages, here and in the window after it,
    /// where they keep the access flag of the old entry. All entries are cleared, invalidated together, and then set.
    fn replace_zeros(
        &self,
        vma: &Vma<M>,
        leaf: &Leaf<'_, M>,
        addr: UserAddr,
        supply: &Supply<M>,
    ) -> Result<(), FaultError> {
        let machine = self.machine;
        let zero = machine.spaces().zero_page();
        let is_zero = |pte: Pte| pte.is_present() && pte.is_special() && pte.addr() == zero;
        let first = index(addr.get(), 3);
        let window = self.window(vma, leaf, addr, false).min(room(vma, addr));
        let mut pages = Fresh::new();
        self.take_fresh(&mut pages, vma, addr, supply, |got| got < window && is_zero(leaf.peek(first + got)))?;
        let attrs = entry::writable(vma.flags) | ANON;
        let mut filled = 0;
        let mut ages = [bits::ACCESSED; MAX_WINDOW];
        {
            let mut guard = leaf.lock();
            while filled < pages.len() && is_zero(guard.get(first + filled)) {
                let old = guard.take(first + filled);
                if filled > 0 {
                    ages[filled] = old.0 & bits::ACCESSED;
                }
                filled += 1;
            }
            if filled > 0 {
                flush_range(machine, self.tables.asid(), addr, addr + filled * PAGE_SIZE);
            }
            for (k, (pfn, age)) in pages[..filled].iter().zip(ages).enumerate() {
                guard.fill(first + k, Pte::page(pfn.addr(), attrs & !bits::ACCESSED | age));
            }
            self.note_window(&mut guard, vma, addr, filled, false);
        }
        machine.publish_tables();
        let mut release = rmap::Release::new(machine);
        for pfn in &pages[filled..] {
            release.page(*pfn);
        }
        if filled > 0 {
            machine.count(Event::FaultAnon, 1);
            self.charge(Counts { anon: filled, ..Counts::default() });
        }
        Ok(())
    }
}
