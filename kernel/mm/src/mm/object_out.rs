//! The page of a memory object goes to swap. It differs from an anonymous page going out in that its entries are emptied: the
//! object's tree knows the slot (docs/pressure.md, "A page of an object").
//!
//! A mapping that the walk misses, or that a fault makes after it, has a reference, by which the freeze fails. A page that stays has
//! lost entries nevertheless; faults make them again from the page, which is in the tree.

use super::Mm;
use super::migrate::Stays;
use super::page_out::Out;
use super::reverse::for_each_object_mapping;
use crate::addr::{Pfn, UserAddr};
use crate::fallible::KArc;
use crate::mm::Machine;
use crate::object::Object;
use crate::page::{Page, PageFlags};
use crate::pte::{Swapped, index};
use crate::swap::Refused;
use crate::table::flush::flush_page;
use crate::table::gather::Gather;
use crate::vma::VmFlags;

/// The object that `page`, which the caller has isolated, may leave, and its index there.
pub(super) fn object_to_leave<M: Machine>(machine: M, page: &Page) -> Result<(KArc<Object<M>>, usize), Stays> {
    if !page.flags().intersects(PageFlags::SWAP_BACKED | PageFlags::PAGED) {
        return Err(Stays::NotMovable);
    }
    // (Others free a page that its object has given up.)
    Object::of_page(machine, page).ok_or(Stays::NotMovable)
}

/// Makes page `index` of the object, at `pfn`, a slot in the object's tree; if the object is paged, nothing: its pager has it. Afterwards the page is frozen and in no tree. On an error
/// it stays; it may have lost entries.
pub(super) fn move_object_to_slot<M: Machine>(
    machine: M,
    (object, index): (&KArc<Object<M>>, usize),
    page: &Page,
    pfn: Pfn,
    out: Out,
) -> Result<(), Stays> {
    if object.is_marked(index) {
        // (It is asked for again when it has no entries.)
        return Err(Stays::Marked);
    }
    // The caller's reference and the object's are no mappings.
    let is_mapped = || page.mappings_at_most(2) != Some(0);
    let (mut is_locked, mut is_used) = (false, false);
    if is_mapped() {
        for_each_object_mapping(object, index, pfn, |mm, vma, addr| {
            is_locked |= vma.flags.contains(VmFlags::LOCKED) && !seeded!(ObjectOutIgnoresLocks);
            if !is_locked {
                is_used = mm.unmap_unless_used(addr, pfn, out.if_unused);
            }
            !is_locked && !is_used && is_mapped()
        });
    }
    match (is_locked, is_used) {
        (true, _) => return Err(Stays::Locked),
        (_, true) => return Err(Stays::Used),
        _ => {}
    }
    if object.is_paged() {
        let gone = object.let_page_go(index, pfn);
        return gone.map_err(|is_marked| if is_marked { Stays::Marked } else { Stays::Held });
    }
    if !object.begin_swap_out(index, pfn) {
        return Err(Stays::Held);
    }
    let swap = machine.spaces().swap();
    match swap.write(pfn.addr(), out.even_raw, page.control_group()) {
        Ok(slot) => {
            // The caller's use of the slot becomes the tree's.
            if !object.end_swap_out(index, pfn, Some(Swapped { slot, shadow: out.shadow }))
                && !seeded!(ObjectOutKeepsSlot)
            {
                swap.release(slot);
            }
            Ok(())
        }
        // If the object has given it up meanwhile, it is gone.
        Err(_) if !object.end_swap_out(index, pfn, None) => Ok(()),
        Err(Refused::Incompressible) => Err(Stays::Incompressible),
        Err(Refused::Full) => Err(Stays::NoSwap),
    }
}

impl<M: Machine> Mm<M> {
    /// Empties the entry for `addr`, if it maps the page `pfn`, of which the caller has a reference. The areas are locked for reading.
    /// With `look`, an entry that is young becomes old instead; returns whether it was.
    fn unmap_unless_used(&self, addr: UserAddr, pfn: Pfn, look: bool) -> bool {
        let Some(leaf) = self.tables.walk(addr) else { return false };
        let i = index(addr.get(), 3);
        let mut guard = leaf.lock();
        let pte = guard.get(i);
        if !pte.is_present() || pte.addr().pfn() != pfn {
            return false;
        }
        if look && pte.is_young() {
            guard.test_and_clear_young(i);
            drop(guard);
            flush_page(self.machine, self.tables.asid(), addr);
            return true;
        }
        let mut gather = Gather::beside_faults(self.machine, self.tables.asid());
        let was = guard.take(i);
        gather.take(was, addr);
        gather.before_unlock();
        drop(guard);
        let counts = gather.finish();
        self.uncharge(counts);
        false
    }
}
