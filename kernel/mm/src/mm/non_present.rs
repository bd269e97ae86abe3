//! Entries whose page is elsewhere: in swap, or on its way to another frame.
//!
//! Pages move to other frames ([`migrate`](fn@crate::mm::migrate)) and to swap ([`page_out`](fn@crate::mm::page_out)). All
//! code that walks tables relies on the following meanings:
//! - A swap entry is a user of its slot, and is not charged. fork adds a user; code that removes the entry, or brings
//!   the page back, drops one.
//! - A migration entry keeps the charge of the present entry, whose kind it records itself ([`Pte::moved_kind`]), with
//!   age, dirty state, and whether it was writable. It holds no reference. fork copies entry and charge, tells the move
//!   of the copy, and makes both entries read-only for when the page is back. Code that removes it uncharges.
//! - A marker holds nothing.
//!
//! # Moving a page
//! Only the mover holds the old frame while migration entries stand for it. It
//! 1. isolates the page ([`Page::isolate`]), which gives it a reference, and keeps others from moving it too (not by the
//!    page lock: a walk may sleep, and takes that lock for a page of an object);
//! 2. replaces each entry that maps it, found by reverse mapping, by a migration entry, and invalidates, both under the
//!    table's lock: whoever removes the migration entry may map another page there at once. Only then it drops the
//!    entry's reference;
//! 3. freezes the page ([`Page::freeze`]), which expects 1, its own reference. A page in an object's tree has the
//!    object's too: the freeze expects 2, under the object's lock, and the new frame is in the tree before that lock is
//!    released. If the freeze fails, somebody else holds the page, or a walk has missed a mapping: the entries are put
//!    back. If the object has given the page up, the move ends in the same way, and others remove the entries;
//! 4. copies the contents, makes the new frame an anonymous page of the same anon_vma and pgoff, or the object's, and
//!    walks again: each migration entry becomes a present one, under the table's lock, with a reference to the new
//!    frame. Aborting a move does the same with the old frame, which is unfrozen first;
//! 5. frees the old frame, frozen until then, and drops its own reference to the new one.
//!
//! The last walk misses no entry of an anonymous page that was made meanwhile. Only fork makes new ones. It puts the
//! child's anon_vma after the parent's in their family's tour before it copies, and a walk visits an anon_vma before
//! those below it. So an entry that is copied before the walk reaches the parent is found in the child, and one that is
//! copied afterwards is present. The walk ends with the last entry: the move counts its entries, and fork its copies
//! ([`Move`](crate::spaces::Move)). mremap moves entries within a space, whose areas' lock a visit holds. munmap and the
//! end of a space remove entries without accessing the frame. (The walk skips a space that is being torn down, so its
//! entries may outlive the move: this is why they record the kind of their charge.)
//!
//! A walk to the mappings of an object's page may miss an area that is being changed. Then a migration entry is left
//! over from the move. A fault that meets it drops it, since the object has the page.
//!
//! A thread that waits for a move ([`Moves`](crate::spaces::Moves)) knows the frame only from the entry, and holds
//! nothing: by the time of the call the move may be over and the frame reused. So a wait guarantees nothing, and the
//! caller must look again.
//!
//! [`Page::isolate`]: crate::page::Page::isolate
//! [`Page::freeze`]: crate::page::Page::freeze

use core::sync::atomic::Ordering;

use super::Mm;
use super::fault::FaultError;
use crate::addr::{Pfn, UserAddr};
use crate::cgroup::Stat;
use crate::event::Event;
use crate::fallible::KArc;
use crate::frame;
use crate::mm::Machine;
use crate::page::PageFlags;
use crate::psi::Stall;
use crate::pte::{NonPresent, Pte, bits, index};
use crate::rmap;
use crate::swap::Slot;
use crate::table::entry::{self, ANON};
use crate::table::gather::Counts;

/// Waits until the move of a frame is over, if it is under way.
pub(super) fn wait_for_move<M: Machine>(machine: M, old: Pfn) {
    #[cfg(test)]
    if machine.wait_for_move(old) {
        return;
    }
    machine.spaces().moves().wait(old);
}

impl<M: Machine> Mm<M> {
    /// Brings back the page of a non-present entry for `addr`, or the page of the object that it maps. No lock is held
    /// meanwhile, so the caller must look everything up again.
    #[cold]
    pub(super) fn bring_back(&self, addr: UserAddr) -> Result<(), FaultError> {
        if self.bring(addr)? {
            self.machine.note_major_fault();
        }
        Ok(())
    }

    /// As [`Mm::bring_back`], where nobody waits for the page.
    pub(super) fn bring_back_early(&self, addr: UserAddr) -> Result<(), FaultError> {
        self.bring(addr).map(drop)
    }

    /// Whether the page was read.
    fn bring(&self, addr: UserAddr) -> Result<bool, FaultError> {
        let swap = self.machine.spaces().swap();
        let i = index(addr.get(), 3);
        let (pte, slot) = {
            let areas = self.areas.read();
            let Some(leaf) = self.tables.walk(addr) else { return Ok(false) };
            let guard = leaf.lock();
            let pte = guard.get(i);
            match pte.kind() {
                Some(NonPresent::Migration(old)) => {
                    drop(guard);
                    drop(areas);
                    wait_for_move(self.machine, old.pfn());
                    self.drop_left_over(addr, pte);
                    return Ok(false);
                }
                Some(NonPresent::Swap(swapped)) => {
                    // Keeps the slot from being freed until it has been read.
                    swap.share(swapped.slot);
                    (pte, swapped.slot)
                }
                None => return Ok(false),
                Some(NonPresent::None | NonPresent::Marker(_)) => {
                    drop(guard);
                    let backing = areas.tree.find(addr).and_then(|vma| vma.backing_at(addr));
                    drop(areas);
                    return match backing {
                        Some(backing) => Ok(backing.object.bring_in(backing.index)?),
                        None => Ok(false),
                    };
                }
            }
        };
        let _stall = Stall::begin(self.machine);
        let read = frame::alloc_user(self.machine, false).map_err(FaultError::from).and_then(|pfn| {
            let done = self.read_slot(slot, pfn);
            if done.is_err() {
                frame::free(self.machine, pfn);
            }
            done.map(|()| pfn)
        });
        let done = read.map(|pfn| {
            let is_back = self.put_back(addr, pte, pfn);
            if is_back {
                self.machine.count(Event::SwapIn, 1);
                // (The slot has this user still, and keeps its group.)
                self.machine.groups().count_stat(swap.group(slot), Stat::SwapIn, 1);
                if !seeded!(SwapInLeaksSlot) {
                    swap.release(slot);
                }
            } else {
                frame::free(self.machine, pfn);
            }
            is_back
        });
        if done.is_ok() || !seeded!(FailedSwapInKeepsSlot) {
            swap.release(slot);
        }
        done
    }

    fn read_slot(&self, slot: Slot, into: Pfn) -> Result<(), FaultError> {
        #[cfg(test)]
        crate::fallible::inject::pass().map_err(FaultError::from)?;
        self.machine.spaces().swap().read(slot, into.addr()).map_err(|_| FaultError::BeyondObject)?;
        #[cfg(test)]
        self.machine.note_filled(into);
        Ok(())
    }

    /// Maps a frame with the contents of `pte`'s page, if `pte` is still the entry for `addr`. Read-only, so that a
    /// write decides about reuse as for any other page. Dirty, since this is the only copy of the contents.
    fn put_back(&self, addr: UserAddr, pte: Pte, pfn: Pfn) -> bool {
        let areas = self.areas.read();
        let (Some(vma), Some(leaf)) = (areas.tree.find(addr), self.tables.walk(addr)) else { return false };
        self.before_exec(vma, pfn.addr());
        let i = index(addr.get(), 3);
        let mut guard = leaf.lock();
        if guard.get(i) != pte && !seeded!(SwapInTrustsItsFirstLook) {
            return false;
        }
        if let Some(NonPresent::Swap(swapped)) = pte.kind() {
            let page = frame::page(self.machine, pfn);
            page.next().store(swapped.shadow.into(), Ordering::Relaxed);
            page.set_flags(PageFlags::RETURNED);
        }
        rmap::make_anon(self.machine, pfn, &self.anon_vma, vma.pgoff_of(addr));
        KArc::add_owners(&self.anon_vma, 1);
        guard.clear(i);
        guard.fill(i, Pte::page(pfn.addr(), entry::read_only(vma.flags) | ANON | bits::DIRTY));
        drop(guard);
        // (The fault looks again, and publishes the entry.)
        self.charge(Counts { anon: 1, ..Counts::default() });
        true
    }
}
