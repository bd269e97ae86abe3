//! Swapping pages of memory objects out and in.
//!
//! Such a page is recorded in its object's tree, as a [`Held`]. No entry of a translation table refers to it: in a
//! mapping it is absent, and a fault asks the object for it as for a page that was never touched.
//!
//! A page is swapped out in two steps under the object's lock, between which its contents are stored without the lock:
//! [`Object::begin_swap_out`] makes the page unreachable, and [`Object::end_swap_out`] records where it is. Whoever
//! finds it in between waits for the end of the move.

use core::sync::atomic::Ordering;

use super::held::Held;
use super::{Object, ObjectError};
use crate::addr::Pfn;
use crate::cgroup::Stat;
use crate::event::Event;
use crate::frame;
use crate::page::PageFlags;
use crate::psi::Stall;
use crate::pte::Swapped;
use crate::rmap::Release;
use crate::swap::Slot;
use crate::table::Machine;

impl<M: Machine> Object<M> {
    /// Makes page `index`, which is `pfn`, unreachable: it is frozen then, and stays with the caller until
    /// [`Object::end_swap_out`]. The caller has isolated it. `false`, with nothing changed, if the object has given the
    /// page up, or if it has other references than the object's and the caller's.
    pub(crate) fn begin_swap_out(&self, index: usize, pfn: Pfn) -> bool {
        let mut owned = self.owned.lock();
        let Some(place) = owned.get_mut(index).filter(|place| **place == Held::Page(pfn).word()) else { return false };
        let is_ours = frame::page(self.machine, pfn).freeze(2);
        if is_ours || seeded!(ObjectOutIgnoresHolders) {
            *place = Held::Leaving(pfn).word();
        }
        is_ours || seeded!(ObjectOutIgnoresHolders)
    }

    /// Ends what [`Object::begin_swap_out`] has begun: the page is in swap, or is restored with its references. `false`
    /// if the object has given it up meanwhile: then it is as it was before the call, and belongs to the caller alone.
    pub(crate) fn end_swap_out(&self, index: usize, pfn: Pfn, to: Option<Swapped>) -> bool {
        let mut owned = self.owned.lock();
        let is_there = |place: &&mut u64| **place == Held::Leaving(pfn).word() || seeded!(ObjectOutTrustsItsFirstLook);
        let Some(place) = owned.get_mut(index).filter(is_there) else { return false };
        *place = match to {
            Some(swapped) => {
                self.count_swapped(1);
                if seeded!(ObjectOutLosesPage) { 0 } else { Held::Swapped(swapped).word() }
            }
            None => {
                frame::page(self.machine, pfn).unfreeze(2);
                Held::Page(pfn).word()
            }
        };
        true
    }

    /// Changed under the lock only.
    fn count_swapped(&self, by: isize) {
        self.swapped.store(self.swapped.load(Ordering::Relaxed).wrapping_add_signed(by), Ordering::Relaxed);
    }

    /// Drops a word that was just taken out of the tree: returns the frame, with the object's reference, if it is a
    /// page in memory. Otherwise nothing remains of it. Under the lock, or when the object ends.
    pub(super) fn let_go(&self, word: u64) -> Option<Pfn> {
        match Held::of(word) {
            Held::Page(pfn) => return Some(pfn),
            Held::Swapped(swapped) => {
                self.count_swapped(-1);
                let uses = if seeded!(RemoveFreesSlotTwice) { 2 } else { usize::from(!seeded!(RemoveLeaksSlot)) };
                (0..uses).for_each(|_| self.machine.spaces().swap().release(swapped.slot));
            }
            // The thread that takes it to swap frees it.
            Held::Leaving(_) => {}
        }
        None
    }

    /// Whether there is a page at `index`, in memory or not.
    pub fn has(&self, index: usize) -> bool {
        self.in_place(index).is_some() || self.owned.lock().get(index).is_some()
    }

    /// Whether any page is in swap.
    #[inline]
    pub fn has_swapped(&self) -> bool {
        self.swapped.load(Ordering::Relaxed) != 0
    }

    /// Whether the page at `index` is in swap.
    pub fn is_swapped(&self, index: usize) -> bool {
        self.has_swapped() && self.owned.lock().get(index).is_some_and(|word| Held::page(word).is_none())
    }

    /// Brings the page at `index` back from swap, or waits if it is just being swapped out. No lock is held (a file's
    /// turn may be), so the caller must check again. Returns whether it was not in memory.
    #[cold]
    pub fn bring_in(&self, index: usize) -> Result<bool, ObjectError> {
        let (machine, swap) = (self.machine, self.machine.spaces().swap());
        let word = {
            let owned = self.owned.lock();
            let Some(word) = owned.get(index) else {
                drop(owned);
                return match self.paging() {
                    Some(paging) => self.page_in(paging, index).map(|()| true),
                    None => Ok(false),
                };
            };
            match Held::of(word) {
                Held::Page(_) => return Ok(false),
                Held::Leaving(pfn) => {
                    drop(owned);
                    machine.spaces().moves().wait(pfn);
                    // (A killed thread does not wait, and its error does not matter.)
                    return if machine.is_killed() { Err(ObjectError::OutOfMemory) } else { Ok(true) };
                }
                // Keeps the slot from being freed until it has been read.
                Held::Swapped(swapped) => swap.share(swapped.slot),
            }
            word
        };
        let Held::Swapped(swapped) = Held::of(word) else { return Ok(false) };
        let done = self.read_in(index, word, swapped);
        if done.is_ok() || !seeded!(FailedBringInKeepsSlot) {
            swap.release(swapped.slot);
        }
        done.map(|()| true)
    }

    /// Makes a frame with the contents of a slot the page at `index`, if `word` is still there. The caller is a user of
    /// the slot.
    fn read_in(&self, index: usize, word: u64, swapped: Swapped) -> Result<(), ObjectError> {
        let machine = self.machine;
        let _stall = Stall::begin(machine);
        let pfn = frame::alloc_user(machine, false)?;
        if let Err(error) = self.read_slot(swapped.slot, pfn) {
            frame::free(machine, pfn);
            return Err(error);
        }
        let page = frame::page(machine, pfn);
        page.next().store(swapped.shadow.into(), Ordering::Relaxed);
        // Dirty, since this is the only copy of the contents.
        page.set_flags(if seeded!(BringInIsClean) {
            PageFlags::RETURNED
        } else {
            PageFlags::RETURNED | PageFlags::DIRTY
        });
        let is_page = {
            let mut owned = self.owned.lock();
            let is_there = |place: &&mut u64| **place == word || seeded!(BringInTrustsItsFirstLook);
            let place = owned.get_mut(index).filter(is_there);
            let is_page = place.is_some();
            if let Some(place) = place {
                let owner = core::ptr::from_ref(self).expose_provenance();
                frame::make_object(machine, pfn, owner, index, PageFlags::SWAP_BACKED);
                *place = Held::Page(pfn).word();
                self.count_swapped(-1);
                machine.groups().count_stat(machine.spaces().swap().group(swapped.slot), Stat::SwapIn, 1);
                if !seeded!(BringInLeaksSlot) {
                    machine.spaces().swap().release(swapped.slot);
                }
            }
            is_page
        };
        if is_page {
            machine.count(Event::SwapIn, 1);
            // The object has its reference.
            Release::new(machine).page(pfn);
        } else {
            frame::free(machine, pfn);
        }
        Ok(())
    }

    fn read_slot(&self, slot: Slot, into: Pfn) -> Result<(), ObjectError> {
        #[cfg(test)]
        crate::fallible::inject::pass()?;
        self.machine.spaces().swap().read(slot, into.addr()).map_err(|_| ObjectError::Damaged)?;
        #[cfg(test)]
        self.machine.note_filled(into);
        Ok(())
    }
}

/// Looks of tests.
#[cfg(test)]
impl<M: Machine> Object<M> {
    /// The frame or the slot of the page at `index`; `None` if there is no such page, or it is just being swapped out.
    pub(crate) fn look_at(&self, index: usize) -> Option<Result<Pfn, Slot>> {
        match Held::of(self.owned.lock().get(index)?) {
            Held::Page(pfn) => Some(Ok(pfn)),
            Held::Swapped(swapped) => Some(Err(swapped.slot)),
            Held::Leaving(_) => None,
        }
    }

    /// The number of pages in swap, according to the object's count.
    pub(crate) fn swapped_pages(&self) -> usize {
        self.swapped.load(Ordering::Relaxed)
    }
}
