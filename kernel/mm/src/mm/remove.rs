//! MADV_REMOVE, and the pages that go from a file in memory: they are freed for all spaces that map them. The next access finds
//! zeros.
//!
//! The object gives up a page first, so that no fault gets it any more, and then its entries are removed, in all spaces.
//! A fault that has got the page before, and not mapped it yet, holds a reference, as an entry does. So the page's count
//! tells whether that is over.

use quire_abi::Errno;
use quire_abi::flags::seal;

use super::Mm;
use super::non_present::wait_for_move;
use super::reverse::for_each_object_mapping;
use crate::addr::{PAGE_SHIFT, Pfn, UserAddr};
use crate::fallible::KArc;
use crate::frame;
use crate::machine::Killed;
use crate::mm::Machine;
use crate::object::Object;
use crate::pte::index;
use crate::rmap::Release;
use crate::table::gather::Gather;
use crate::vma::VmFlags;

/// The pages of an object that a part of an area maps.
struct Part<M: Machine> {
    object: KArc<Object<M>>,
    first: usize,
    end: usize,
}

impl<M: Machine> Mm<M> {
    /// Frees the pages of a range of shared memory: madvise's semantics and errors. It continues over holes, and returns
    /// ENOMEM in the end.
    pub(super) fn remove(&self, start: UserAddr, end: UserAddr) -> Result<(), Errno> {
        let mut hole = false;
        let mut at = start;
        while at < end {
            let Some(part) = self.next_part_to_remove(&mut at, end, &mut hole)? else { break };
            // The areas are not locked here, since this visits all spaces that map the object.
            if part.object.is_paged() {
                // Its content is elsewhere, where there are no holes.
                return Err(Errno::EOPNOTSUPP);
            }
            let turn = Object::turn(&part.object)?;
            if turn.object().seals() & (seal::WRITE | seal::FUTURE_WRITE) != 0 {
                return Err(Errno::EPERM);
            }
            remove_pages(&part.object, part.first, part.end, true)?;
        }
        if hole { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// The part of the first area at or above `at` and below `end`; `at` becomes its end.
    fn next_part_to_remove(&self, at: &mut UserAddr, end: UserAddr, hole: &mut bool) -> Result<Option<Part<M>>, Errno> {
        // Readers could see the middle of a change, where an area is missing.
        let areas = self.areas.intend_killable()?;
        let Some(vma) = areas.tree.find_from(*at).filter(|vma| vma.start < end) else {
            *hole = true;
            return Ok(None);
        };
        let from = vma.start.max(*at);
        *hole |= from > *at;
        *at = vma.end.min(end);
        // Locked memory stays, and private anonymous memory has no object.
        let backing = vma.backing_at(from).filter(|_| !vma.flags.contains(VmFlags::LOCKED)).ok_or(Errno::EINVAL)?;
        if !vma.flags.contains(VmFlags::SHARED | VmFlags::MAY_WRITE) {
            return Err(Errno::EACCES);
        }
        let (first, pages) = (backing.index, (*at - from) >> PAGE_SHIFT);
        Ok(Some(Part { object: backing.object, first, end: first + pages }))
    }

    /// Empties the entry for `addr` if it stands for the page `pfn`. The areas are locked for reading.
    fn unmap_page(&self, addr: UserAddr, pfn: Pfn) {
        let Some(leaf) = self.tables.walk(addr) else { return };
        let mut gather = Gather::beside_faults(self.machine, self.tables.asid());
        let mut guard = leaf.lock();
        let i = index(addr.get(), 3);
        if guard.get(i).holds(pfn) {
            let pte = guard.take(i);
            if pte.is_present() { gather.take(pte, addr) } else { gather.take_non_present(pte) }
        }
        gather.before_unlock();
        drop(guard);
        let counts = gather.finish();
        self.uncharge(counts);
    }
}

/// Frees the pages of an object from `first` on and below `end`. With `may_stop` it ends early if the thread is killed.
pub(super) fn remove_pages<M: Machine>(
    object: &KArc<Object<M>>,
    first: usize,
    end: usize,
    may_stop: bool,
) -> Result<(), Killed> {
    let machine = object.machine();
    let mut from = first;
    while let Some((index, pfn)) = object.give_up(from, end) {
        unmap_everywhere(machine, object, index, pfn);
        Release::new(machine).page(pfn);
        from = index + 1;
        let point = machine.resched_point();
        if may_stop {
            point?;
        }
    }
    Ok(())
}

/// Removes all entries of a page that the object has given up; the caller holds a reference. It repeats the walk until the
/// count says that there is no entry: a fault that holds the page may still map it, and while an area changes, no walk
/// finds it. Whoever holds a page without a pin, or moves it, does so for a short time, and does not wait for the caller.
fn unmap_everywhere<M: Machine>(machine: M, object: &KArc<Object<M>>, index: usize, pfn: Pfn) {
    let page = frame::page(machine, pfn);
    let is_unmapped = || page.mappings_at_most(1) == Some(0);
    while !is_unmapped() {
        for_each_object_mapping(object, index, pfn, |mm, _, addr| {
            mm.unmap_page(addr, pfn);
            !is_unmapped()
        });
        if is_unmapped() || seeded!(RemoveWalksOnce) {
            return;
        }
        // The page is given up for good, so this is completed even if the thread is killed.
        wait_for_move(machine, pfn);
        machine.relax();
    }
}
