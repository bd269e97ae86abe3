//! Entries whose page is elsewhere: in swap, or on its way to another frame.
//!
//! The floors that make such entries stand above this one; what they owe to whoever meets an entry is [`Absent`], and what
//! an entry stands for is the same for all who walk tables:
//! - A swap entry is a user of its slot, and is not charged. fork adds a user; whoever takes the entry away, or brings the
//!   page back, ends one.
//! - A migration entry has the charge of the present entry, of which it tells the kind itself ([`Pte::moved_kind`]), and no
//!   reference. fork copies entry and charge. Whoever takes it away ends the charge.
//! - A marker holds nothing.
//!
//! # Moving a page
//! The mover, and nobody else, keeps the old frame while entries stand for it. It
//! 1. takes a reference to the page, and the page lock;
//! 2. replaces each entry that maps it, found by reverse mapping, by a migration entry, under the table's lock;
//!    invalidates; and only then gives the entry's reference back;
//! 3. freezes the page ([`Page::freeze`]), which expects 1, its own reference. A page in an object's tree has the object's
//!    too: expected are 2, under the object's lock, and the new frame is in the tree before that is given back. If the
//!    freeze fails, somebody else holds the page, or a walk has missed a mapping: the entries are put back;
//! 4. copies the contents, makes the new frame an anonymous page of the same group and home, or the object's, and walks
//!    again: each migration entry becomes a present one, under the table's lock, with a reference to the new frame. To
//!    give up is the same with the old frame, which is unfrozen first;
//! 5. frees the old frame, frozen until then, and gives back its own reference to the new one.
//!
//! No entry of an anonymous page is missed by the last walk for having come meanwhile. Only a fork makes new ones. It puts
//! the child's group behind the parent's in their family's tour before it copies, and a walk visits a group before those
//! below it: so an entry that is copied before the walk has come to the parent is found in the child, and one that is
//! copied after is present. mremap moves entries within a space, whose areas' lock a visit holds. munmap and the end of a
//! space take entries away, and ask nothing of the frame. (The walk does not come to a space that has begun to end, so
//! its entries may outlast the move: this is why they tell the kind of their charge.)
//!
//! A thread that waits for a move knows the frame by the entry alone, and holds nothing: when it asks, the move may be
//! over and the frame another's. So a wait is no promise, and whoever has waited looks again.
//!
//! [`Page::freeze`]: crate::page::Page::freeze

use super::fault::FaultError;
use super::{Mm, frame};
use crate::addr::{Pfn, PhysAddr, UserAddr};
use crate::fallible::{AllocError, KArc};
use crate::machine::Machine;
use crate::pte::{NonPresent, Pte, bits, index};
use crate::table::entry::{self, ANON};
use crate::table::gather::Counts;

/// What stands behind entries that are neither present nor empty.
pub trait Absent: Sync {
    /// One more user of a swap slot that has users. May be called with a table locked.
    fn share_slot(&self, slot: u64) -> Result<(), AllocError>;

    /// One user fewer. May be called with a table locked.
    fn release_slot(&self, slot: u64);

    /// Reads a slot that has users into a frame. May sleep; ends early when the thread is killed, with any error.
    fn read_slot(&self, slot: u64, into: PhysAddr) -> Result<(), FaultError>;

    /// Waits until a frame that is being moved has been, or has stayed where it was; not at all if it is not (any more).
    /// May sleep, and ends early, as `read_slot`.
    fn wait_for_move(&self, old: Pfn) -> Result<(), FaultError>;
}

impl<M: Machine> Mm<M> {
    /// The entry for `addr` stood for a page elsewhere: sees to it that it is there. No lock is held while that takes
    /// its time, so the caller looks everything up again.
    #[cold]
    pub(super) fn bring_back(&self, addr: UserAddr) -> Result<(), FaultError> {
        // Without a floor that makes such entries there are none.
        let absent = self.machine.absent().ok_or(FaultError::BeyondObject)?;
        let i = index(addr.get(), 3);
        let (pte, slot) = {
            let _areas = self.areas.read();
            let Some(leaf) = self.tables.walk(addr) else { return Ok(()) };
            let guard = leaf.lock();
            let pte = guard.get(i);
            match pte.kind() {
                Some(NonPresent::Migration(old)) => {
                    drop(guard);
                    drop(_areas);
                    return absent.wait_for_move(old.pfn());
                }
                Some(NonPresent::Swap(slot)) => {
                    // Until it has been read it must not become somebody else's.
                    absent.share_slot(slot)?;
                    (pte, slot)
                }
                _ => return Ok(()),
            }
        };
        let read = frame::alloc_user(self.machine, false).map_err(FaultError::from).and_then(|pfn| {
            let done = absent.read_slot(slot, pfn.addr());
            if done.is_err() {
                frame::free(self.machine, pfn);
            }
            done.map(|()| pfn)
        });
        let done = read.map(|pfn| {
            if self.put_back(addr, pte, pfn) {
                if !seeded!(SwapInLeaksSlot) {
                    absent.release_slot(slot);
                }
            } else {
                frame::free(self.machine, pfn);
            }
        });
        if done.is_ok() || !seeded!(FailedSwapInKeepsSlot) {
            absent.release_slot(slot);
        }
        done
    }

    /// Maps a frame with the contents of what `pte` stands for, if that is still the entry for `addr`. Read-only: a write
    /// asks whether it may reuse the page, as for any other. Dirty: there is nothing else that has these contents.
    fn put_back(&self, addr: UserAddr, pte: Pte, pfn: Pfn) -> bool {
        let areas = self.areas.read();
        let (Some(vma), Some(leaf)) = (areas.tree.find(addr), self.tables.walk(addr)) else { return false };
        self.before_exec(vma, pfn.addr());
        let i = index(addr.get(), 3);
        let mut guard = leaf.lock();
        if guard.get(i) != pte {
            return false;
        }
        frame::make_anon(self.machine, pfn, &self.group, vma.home_of(addr));
        KArc::add_owners(&self.group, 1);
        guard.clear(i);
        guard.fill(i, Pte::page(pfn.addr(), entry::read_only(vma.flags) | ANON | bits::DIRTY));
        drop(guard);
        // (The fault looks again, and publishes what it finds.)
        self.charge(Counts { anon: 1, ..Counts::default() });
        true
    }
}
