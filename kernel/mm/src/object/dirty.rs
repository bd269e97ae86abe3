//! Dirty pages of a paged object: they are marked in the tree (docs/page-cache.md, "What has to be written").
//!
//! A page is marked before anybody can store to it through a mapping, and after a write to it. The thread that writes
//! back has the file's turn, and clears the mark before the entries become read-only: a later store faults, and marks
//! the page again.
//!
//! Lock order: `Rank::MemoryObject`; a fault holds it while it changes its entry ([`Marking`]).

use core::sync::atomic::Ordering;

use super::Object;
use super::held::Held;
use super::paged::{Paging, RUN};
use super::radix::Radix;
use crate::addr::Pfn;
use crate::frame;
use crate::sync::SpinGuard;
use crate::table::Machine;

/// A marked page, which stays marked and in place while this value exists: the object is locked.
pub(crate) struct Marking<'a, M: Machine> {
    object: &'a Object<M>,
    owned: SpinGuard<'a, Radix, M>,
}

impl<M: Machine> Marking<'_, M> {
    /// The entry is changed.
    pub fn end(self) {
        let Self { object, owned } = self;
        drop(owned);
        object.note_marked();
    }
}

/// Consecutive marked pages.
pub(crate) struct MarkedRun {
    /// The first one's index.
    pub first: usize,
    /// Their frames, each with a reference.
    pub frames: [Pfn; RUN],
    /// How many.
    pub len: usize,
}

impl<M: Machine> Object<M> {
    /// Sets or clears the mark of page `index`. Under the lock.
    pub(super) fn set_mark(&self, paging: &Paging, owned: &mut Radix, index: usize, on: bool) {
        let was = owned.set_mark(index, on);
        let change = isize::from(on) - isize::from(was);
        if change != 0 {
            self.count_marked(paging, change);
        }
    }

    fn count_marked(&self, paging: &Paging, change: isize) {
        paging.marked.store(paging.marked.load(Ordering::Relaxed).wrapping_add_signed(change), Ordering::Relaxed);
        self.machine.spaces().count_marked(change);
    }

    /// Marks the page at `index`, which was written: the caller has a reference to it, and the turn.
    pub(super) fn mark(&self, paging: &Paging, index: usize) {
        {
            let mut owned = self.owned.lock();
            self.set_mark(paging, &mut owned, index, true);
        }
        self.note_marked();
    }

    fn note_marked(&self) {
        if let Some(paging) = self.paging()
            && !paging.is_noted.swap(true, Ordering::AcqRel)
        {
            paging.pager.note_marked();
        }
    }

    /// Marks page `index`, if it is still `pfn`, for a fault that will make its entry writable.
    pub(crate) fn mark_for_store(&self, index: usize, pfn: Pfn) -> Option<Marking<'_, M>> {
        let paging = self.paging()?;
        let mut owned = self.owned.lock();
        if owned.get(index) != Some(Held::Page(pfn).word()) {
            return None;
        }
        if !seeded!(StoreIsNotMarked) {
            self.set_mark(paging, &mut owned, index, true);
        }
        Some(Marking { object: self, owned })
    }

    /// Takes the next consecutive marked pages at `from` or above, and clears their marks. Pages with too many
    /// references stay marked.
    pub(crate) fn take_marked(&self, from: usize) -> Option<MarkedRun> {
        let paging = self.paging()?;
        let mut owned = self.owned.lock();
        let mut run = MarkedRun { first: 0, frames: [Pfn(0); RUN], len: 0 };
        let mut at = from;
        while run.len < RUN {
            let Some(index) = owned.next_marked(at).filter(|index| run.len == 0 || *index == at) else { break };
            at = index + 1;
            let page = owned.get(index).and_then(Held::page).filter(|pfn| frame::page(self.machine, *pfn).get());
            match page {
                Some(pfn) => {
                    if run.len == 0 {
                        run.first = index;
                    }
                    self.set_mark(paging, &mut owned, index, false);
                    run.frames[run.len] = pfn;
                    run.len += 1;
                }
                None if run.len == 0 => {}
                None => break,
            }
        }
        (run.len != 0).then_some(run)
    }

    /// Marks a page again that [`Object::take_marked`] took, if it is still there, and drops its reference.
    pub(crate) fn mark_again(&self, index: usize, pfn: Pfn) {
        if let Some(marking) = self.mark_for_store(index, pfn) {
            marking.end();
        }
    }

    /// Begins a write-back: from now on, marking a page is reported.
    pub(crate) fn begin_write_back(&self) {
        if let Some(paging) = self.paging() {
            paging.is_noted.store(false, Ordering::Release);
        }
    }

    /// Notes that a write-back has failed, so that those who have the file open are told.
    pub(crate) fn note_error(&self, error: quire_abi::Errno) {
        if let Some(paging) = self.paging() {
            paging.note_error(error);
        }
    }

    /// Pages that are marked.
    pub fn marked_pages(&self) -> usize {
        self.paging().map_or(0, |paging| paging.marked.load(Ordering::Relaxed))
    }

    /// Removes a clean page from a paged object, if the caller, which has isolated it, has the only other reference:
    /// then it is frozen. `Err` if it stays, with whether the reason is its mark.
    pub(crate) fn let_page_go(&self, index: usize, pfn: Pfn) -> Result<(), bool> {
        let Some(paging) = self.paging() else { return Err(false) };
        let mut owned = self.owned.lock();
        let is_marked = owned.is_marked(index) && !seeded!(MarkedPageGoes);
        let Some(place) = owned.get_mut(index).filter(|place| **place == Held::Page(pfn).word()) else {
            return Err(false);
        };
        if is_marked || !frame::page(self.machine, pfn).freeze(2) {
            return Err(is_marked);
        }
        *place = 0;
        self.count_cached(paging, -1);
        Ok(())
    }

    /// Whether page `index` is dirty.
    pub fn is_marked(&self, index: usize) -> bool {
        self.marked_pages() != 0 && self.owned.lock().is_marked(index)
    }

    /// Updates the counts after a page and its mark were taken out of the tree. Under the lock.
    pub(super) fn note_taken(&self, is_page: bool, was_marked: bool) {
        if let Some(paging) = self.paging() {
            if is_page {
                self.count_cached(paging, -1);
            }
            if was_marked {
                self.count_marked(paging, -1);
            }
        }
    }

    /// Updates the counts when the object ends, for its pages and those of them that are marked.
    pub(super) fn note_end(&self) {
        if let Some(paging) = self.paging() {
            let (pages, marked) = (paging.pages.load(Ordering::Relaxed), paging.marked.load(Ordering::Relaxed));
            self.machine.spaces().count_cached(-(pages as isize));
            self.machine.spaces().count_marked(-(marked as isize));
        }
    }
}
