//! Dropping references to pages.
//!
//! A frame of user memory ends when its count of references does ([`crate::page`] says what counts): others may have
//! found it by its record, so the last holder frees it, not the one that allocated it. An anonymous page's record also
//! owns its [`AnonVma`], which therefore lives as long as its pages do.

use core::ptr;

use super::{AnonVma, Machine};
use crate::addr::Pfn;
use crate::event::Event;
use crate::fallible::KArc;
use crate::frame::page;
use crate::page::{Page, PageState};
use crate::pte::ENTRIES;

/// Makes a new frame an anonymous page of `anon_vma`, which counts it as an owner, at this pgoff. From now on it can be
/// found.
#[inline]
pub fn make_anon<M: Machine>(machine: M, pfn: Pfn, anon_vma: &KArc<AnonVma<M>>, pgoff: usize) {
    page(machine, pfn).init_owner(PageState::Anon, KArc::as_ptr(anon_vma).expose_provenance(), pgoff as u64);
}

/// Drops references, and frees frames whose last reference was dropped. Anon_vmas lose their page owners in bulk when
/// this is dropped; then no lock of rank `AnonVma` or above may be held.
pub struct Release<M: Machine> {
    pub(super) machine: M,
    anon_vma: *const AnonVma<M>,
    pages: usize,
    /// The control group of pages that were freed, and how many.
    group: u16,
    charges: usize,
}

impl<M: Machine> Release<M> {
    /// Nothing yet.
    #[inline]
    pub fn new(machine: M) -> Self {
        Self { machine, anon_vma: ptr::null(), pages: 0, group: 0, charges: 0 }
    }

    /// Drops one reference.
    #[inline]
    pub fn page(&mut self, pfn: Pfn) {
        let page = page(self.machine, pfn);
        if page.put() {
            match page.state() {
                PageState::Anon => self.note(page),
                PageState::Object => self.machine.groups().count_files(page.control_group(), page.flags(), -1),
                _ => {}
            }
            self.free(pfn);
        }
    }

    /// Drops the reference of a caller that has isolated the page, and ends the isolation: the page stays.
    pub fn isolated(&mut self, pfn: Pfn) {
        page(self.machine, pfn).end_isolation();
        self.page(pfn);
    }

    /// Frees an anonymous page that the caller has frozen.
    #[inline]
    pub fn frozen_anon(&mut self, pfn: Pfn) {
        self.note(page(self.machine, pfn));
        self.free(pfn);
    }

    /// Frees a page of an object that the caller has frozen, and that is in no tree.
    pub fn frozen_object(&mut self, pfn: Pfn) {
        let page = page(self.machine, pfn);
        self.machine.groups().count_files(page.control_group(), page.flags(), -1);
        self.free(pfn);
    }

    #[inline(always)]
    fn free(&mut self, pfn: Pfn) {
        self.machine.count(Event::UserFree, 1);
        let group = page(self.machine, pfn).control_group();
        if group != 0 {
            self.note_charge(group);
        }
        // SAFETY: the count is 0, so nothing else can get the frame by its record; user mappings of it have been
        // invalidated (by the `Gather` and the callers of `LeafGuard::replace`).
        unsafe { self.machine.pages().free_frozen_pages(pfn, 0) }
    }

    /// Frees a whole page without references.
    pub(super) fn end_whole(&mut self, pfn: Pfn) {
        let whole = page(self.machine, pfn);
        self.note(whole);
        self.machine.count(Event::UserFree, ENTRIES);
        self.machine.count(Event::HugeFree, 1);
        let group = whole.control_group();
        if group != 0 {
            self.machine.groups().uncharge(group, ENTRIES);
        }
        // SAFETY: as in `free`; nobody finds a whole page.
        unsafe { self.machine.pages().free_frozen_pages(pfn, super::whole::ORDER) }
    }

    #[inline]
    fn note(&mut self, page: &Page) {
        let anon_vma = ptr::with_exposed_provenance::<AnonVma<M>>(page.owner_at_end());
        if anon_vma != self.anon_vma {
            self.end_owners();
            self.anon_vma = anon_vma;
        }
        self.pages += 1;
    }

    #[inline(never)]
    fn note_charge(&mut self, group: u16) {
        if group != self.group {
            self.end_charges();
            self.group = group;
        }
        self.charges += 1;
    }

    #[inline]
    fn end_charges(&mut self) {
        if self.charges != 0 {
            if !seeded!(FreeStaysCharged) {
                self.machine.groups().uncharge(self.group, self.charges);
            }
            self.charges = 0;
        }
    }

    fn end_owners(&mut self) {
        if self.pages != 0 {
            // SAFETY: each page counted here was one owner of its anon_vma (`make_anon`'s callers add the owners), and
            // has just been freed.
            unsafe { KArc::drop_owners(self.anon_vma, self.pages) };
            self.pages = 0;
        }
    }
}

impl<M: Machine> Drop for Release<M> {
    #[inline]
    fn drop(&mut self) {
        self.end_owners();
        self.end_charges();
    }
}
