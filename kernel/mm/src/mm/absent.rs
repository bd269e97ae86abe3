//! Entries whose page is elsewhere: in swap, or on its way to another frame.
//!
//! The floors that make such entries stand above this one; what they owe to whoever meets an entry is [`Absent`], and what
//! an entry stands for is the same for all who walk tables:
//! - A swap entry is a user of its slot, and is not charged. fork adds a user; who takes the entry away, or brings the page
//!   back, ends one.
//! - A migration entry holds what the present entry held: a reference to the old frame, and its charge. fork copies
//!   both. Whoever moves the page finds the entry by reverse mapping, and puts the new frame into its place.
//! - A marker holds nothing.

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

    /// Waits until a frame that is being moved has been, or has stayed where it was. May sleep, and ends early, as
    /// `read_slot`.
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
        self.machine.publish_tables();
        self.charge(Counts { anon: 1, ..Counts::default() });
        true
    }
}
