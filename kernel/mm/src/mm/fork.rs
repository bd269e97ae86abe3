//! fork: a space that is a copy of another.

use quire_abi::Errno;

use super::Mm;
use crate::fallible::{AllocError, KArc};
use crate::mm::Machine;
use crate::rmap::AnonVma;
use crate::supply::{Supply, supplied};
use crate::sync::Rank;
use crate::table::flush::flush_space;
use crate::table::gather::Counts;
use crate::vma::VmFlags;

impl<M: Machine> Mm<M> {
    /// A copy of this space. Private pages are shared until one side writes; entries of areas that share their object
    /// are left to the child's faults.
    ///
    /// Faults of other threads wait meanwhile, so that the child gets a consistent snapshot of private memory.
    pub fn fork(&self) -> Result<KArc<Self>, Errno> {
        supplied(self.machine, |supply| self.try_fork(supply))
    }

    fn try_fork(&self, supply: &Supply<M>) -> Result<KArc<Self>, Errno> {
        let anon_vma = AnonVma::fork(&self.anon_vma)?;
        let layout = self.areas.read().layout;
        let child = Self::assemble(self.machine, layout, anon_vma)?;
        child.refuse_huge_pages(self.refuses_huge_pages());
        let mut areas = self.areas.intend_killable()?;
        let areas = areas.write();
        let mut counts = Counts::default();
        let mut protected = false;
        let copied = {
            // Only this function and walks of the family, which only read, can access the child.
            let mut theirs = child.areas.intend_as(Rank::AddressSpaceChild);
            let mut theirs = theirs.write();
            child.heap.copy_from(&self.heap);
            let left_out = if seeded!(DontForkIgnored) { VmFlags::empty() } else { VmFlags::DONTFORK };
            let wiped = if seeded!(WipeOnForkIgnored) { VmFlags::empty() } else { VmFlags::WIPEONFORK };
            areas.tree.iter().try_for_each(|vma| {
                self.machine.resched_point().map_err(|_| AllocError)?;
                if vma.flags.intersects(left_out) {
                    return Ok(());
                }
                let mut copy = supply.boxed(|| vma.part(vma.start, vma.end))?;
                // Locks are not inherited.
                copy.flags -= VmFlags::ANY_LOCK;
                let flags = copy.flags;
                let pages = copy.pages();
                child.promise(&theirs, flags & VmFlags::ACCOUNT, pages).map_err(|_| AllocError)?;
                // Without its lock flag an area may become mergeable with its lower neighbour.
                let joins = areas.default_flags.contains(VmFlags::LOCKED) || areas.locked != 0;
                let mut end = theirs.tree.end();
                if joins && end.prev().is_some_and(|prev| prev.end == copy.start && prev.continues_with(&copy.kind())) {
                    end.retreat();
                    end.set_end(copy.end);
                } else {
                    end.insert_before(copy);
                }
                theirs.count_in(flags, pages);
                if flags.intersects(VmFlags::SHARED | wiped) {
                    return Ok(());
                }
                child.tables.copy_from(&self.tables, vma.start, vma.end, &mut counts, &mut protected, supply)
            })
        };
        child.charge(counts);
        if protected {
            flush_space(self.machine, self.tables.asid());
        }
        drop(areas);
        if copied.is_err() && seeded!(FailedForkKeepsChild) {
            core::mem::forget(child.clone());
        }
        copied?;
        Ok(child)
    }
}
