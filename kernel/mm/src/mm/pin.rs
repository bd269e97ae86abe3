//! Access to a page of a space from outside of it: futexes, and copies to and from other processes.

use super::Mm;
use super::fault::{Access, FaultError};
use crate::addr::{Pfn, PhysAddr, UserAddr};
use crate::frame;
use crate::mm::Machine;
use crate::pte::{Pte, index};
use crate::rmap;

/// A user page that stays in place until this is dropped. For short times only: fork does not copy such a page early.
pub struct PinnedPage<M: Machine> {
    machine: M,
    addr: PhysAddr,
    counted: bool,
}

impl<M: Machine> PinnedPage<M> {
    /// The byte at the pinned address.
    pub fn addr(&self) -> PhysAddr {
        self.addr
    }

    /// The frame.
    pub fn pfn(&self) -> Pfn {
        self.addr.pfn()
    }

    /// The kernel's address of the byte and the rest of its page.
    pub fn as_ptr(&self) -> *mut u8 {
        self.machine.direct_map(self.addr)
    }
}

impl<M: Machine> Drop for PinnedPage<M> {
    fn drop(&mut self) {
        if self.counted {
            rmap::Release::new(self.machine).page(self.addr.pfn());
        }
    }
}

impl<M: Machine> Mm<M> {
    /// Brings in the page at `addr` for reading, or for writing, and holds it.
    ///
    /// Other threads may take the page away each time before it is held. No number of attempts distinguishes that from
    /// a fault that makes no progress, so this repeats like a program's own access, until it succeeds or the thread is
    /// killed; then any error will do.
    pub fn pin(&self, addr: usize, write: bool) -> Result<PinnedPage<M>, FaultError> {
        let access = if write { Access::Write } else { Access::Read };
        let addr = UserAddr::new(addr);
        loop {
            self.fault_if_needed(addr.page_floor(), access)?;
            if let Some(held) = self.hold(addr, access)? {
                return Ok(held);
            }
            if self.machine.is_killed() {
                return Err(FaultError::OutOfMemory);
            }
        }
    }

    /// As [`Mm::pin`], if the page is present for such an access; brings nothing in. For another process's space: it waits for
    /// changes of its map at most, and for no pager.
    pub fn pin_resident(&self, addr: usize, write: bool) -> Option<PinnedPage<M>> {
        let access = if write { Access::Write } else { Access::Read };
        self.hold(UserAddr::new(addr), access).ok().flatten()
    }

    /// Holds the page at `addr`, if it is present for such an access.
    fn hold(&self, addr: UserAddr, access: Access) -> Result<Option<PinnedPage<M>>, FaultError> {
        let areas = self.areas.read();
        if !areas.tree.find(addr).is_some_and(|vma| vma.flags.allows(access)) {
            return Ok(None);
        }
        let Some(leaf) = self.tables.find_leaf(addr) else {
            let held = self.hold_in_block(addr, |pte| is_usable(pte, access == Access::Write))?;
            let pinned =
                |pfn: Pfn| PinnedPage { machine: self.machine, addr: pfn.addr() + addr.page_offset(), counted: true };
            return Ok(held.map(pinned));
        };
        let guard = leaf.lock();
        let pte = guard.get(index(addr.get(), 3));
        if !is_usable(pte, access == Access::Write) {
            return Ok(None);
        }
        let counted = !pte.is_special();
        if counted && !frame::page(self.machine, pte.addr().pfn()).get() {
            return Err(FaultError::OutOfMemory);
        }
        Ok(Some(PinnedPage { machine: self.machine, addr: pte.addr() + addr.page_offset(), counted }))
    }

    /// As [`Mm::fault`], but does nothing if the access would succeed.
    fn fault_if_needed(&self, page: UserAddr, access: Access) -> Result<(), FaultError> {
        {
            let areas = self.areas.read();
            if areas.tree.find(page).is_some_and(|vma| vma.flags.allows(access))
                && is_usable(self.entry(page), access == Access::Write)
            {
                return Ok(());
            }
        }
        self.fault(page.get(), access)
    }
}

/// Whether a program's access would succeed without changing the entry. Accesses through the direct map do not change
/// it either, so otherwise a fault must set access flag and dirty state first.
#[inline]
fn is_usable(pte: Pte, write: bool) -> bool {
    pte.is_present() && pte.is_young() && (!write || pte.is_writable())
}
