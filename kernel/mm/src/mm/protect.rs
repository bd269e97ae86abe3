//! mprotect.

use quire_abi::Errno;
use quire_abi::flags::Prot;

use super::unmap::checked_range;
use super::{Intent, Mm};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, USER_END, UserAddr};
use crate::mm::Machine;
use crate::supply::{Supply, supplied};
use crate::table::flush::flush_range;
use crate::vma::VmFlags;

impl<M: Machine> Mm<M> {
    /// Changes the rights of a range: mprotect's semantics and errors. As on Linux, a failing call has changed the part
    /// before the first hole or refusal.
    pub fn protect(&self, addr: usize, len: usize, prot: Prot) -> Result<(), Errno> {
        let grows = prot & (Prot::GROWSDOWN | Prot::GROWSUP);
        if prot.contains(Prot::GROWSDOWN | Prot::GROWSUP) || !UserAddr::new(addr).is_aligned(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        if len == 0 {
            return Ok(());
        }
        if !(prot & !grows).difference(Prot::READ | Prot::WRITE | Prot::EXEC).is_empty() {
            return Err(Errno::EINVAL);
        }
        let mut wants_copies = false;
        // Parts that were changed already have the new flags, and are skipped.
        let done = supplied(self.machine, |supply| {
            let mut areas = self.areas.intend_killable()?;
            let done = self.protect_range(&mut areas, (addr, len), prot, grows, &mut wants_copies, supply);
            self.uncharge_rest(&areas);
            done
        });
        if wants_copies {
            let end = addr.saturating_add(len).checked_next_multiple_of(PAGE_SIZE);
            self.populate_locked(UserAddr::new(addr), UserAddr::new(end.unwrap_or(USER_END)));
        }
        done
    }

    /// The part under the intent.
    fn protect_range(
        &self,
        areas: &mut Intent<'_, M>,
        (addr, len): (usize, usize),
        prot: Prot,
        grows: Prot,
        wants_copies: &mut bool,
        supply: &Supply<M>,
    ) -> Result<(), Errno> {
        // Beyond the end of the address space nothing is mapped, which is ENOMEM here.
        let (mut start, end) = checked_range(addr, len, areas.layout.task_size).map_err(|_| Errno::ENOMEM)?;
        if !grows.is_empty() {
            let Some(vma) = areas.tree.find_from(start).filter(|vma| vma.start < end) else {
                return Err(Errno::ENOMEM);
            };
            if grows == Prot::GROWSUP || !vma.flags.contains(VmFlags::GROWSDOWN) {
                return Err(Errno::EINVAL);
            }
            start = vma.start;
        }
        self.protect_areas(areas, start, end, VmFlags::from_prot(prot), wants_copies, supply)
    }

    /// Sets `wants_copies` if locked private memory becomes writable: its pages are copied now, not at the first write.
    fn protect_areas(
        &self,
        areas: &mut Intent<'_, M>,
        mut start: UserAddr,
        end: UserAddr,
        rights: VmFlags,
        wants_copies: &mut bool,
        supply: &Supply<M>,
    ) -> Result<(), Errno> {
        let all = VmFlags::READ | VmFlags::WRITE | VmFlags::EXEC;
        while start < end {
            self.machine.resched_point()?;
            let vma = areas.tree.find(start).ok_or(Errno::ENOMEM)?;
            let (old, to) = (vma.flags, vma.end.min(end));
            let may = VmFlags::from_bits_truncate(old.bits() >> 4 & 7);
            if !may.contains(rights) {
                return Err(Errno::EACCES);
            }
            let mut new = (old - all) | rights;
            if new != old {
                let pages = (to - start) >> PAGE_SHIFT;
                let more_data = new.is_data() && !old.is_data();
                // The limit on address space is kept: only the data count grows.
                if more_data && !self.may_hold_data(areas, pages) {
                    return Err(Errno::ENOMEM);
                }
                // Counted once, for good: written pages stay when the right to write is removed.
                if !old.contains(VmFlags::ACCOUNT) {
                    new = self.promise(areas, new, pages)?;
                }
                if seeded!(FailedProtectChangesEntries) {
                    self.tables.protect(start, to, new);
                }
                self.change_flags(areas, start, to, new, supply)?;
                *wants_copies |= old & (VmFlags::WRITE | VmFlags::SHARED | VmFlags::LOCKED) == VmFlags::LOCKED
                    && new.contains(VmFlags::WRITE);
                if let Some((from, to)) = self.tables.protect(start, to, new) {
                    flush_range(self.machine, self.tables.asid(), from, to);
                }
            }
            start = to;
        }
        Ok(())
    }
}
