//! Dropping references to pages.
//!
//! A frame of user memory ends when its count of references does ([`crate::page`] says what counts): others may have
//! found it by its record, so the last holder frees it, not the one that allocated it. An anonymous page's record also
//! owns its [`AnonGroup`], which therefore lives as long as its pages do.

use core::ptr;

use super::{AnonGroup, Machine};
use crate::addr::Pfn;
use crate::event::Event;
use crate::fallible::KArc;
use crate::frame::page;
use crate::page::{Page, PageState};

/// Makes a new frame an anonymous page of `group`, which counts it as an owner, at this home. From now on it can be
/// found.
#[inline]
pub fn make_anon<M: Machine>(machine: M, pfn: Pfn, group: &KArc<AnonGroup<M>>, home: usize) {
    page(machine, pfn).init_owner(PageState::Anon, KArc::as_ptr(group).expose_provenance(), home as u64);
}

/// Drops references, and frees frames whose last reference was dropped. Groups lose their page owners in bulk when this
/// is dropped; then no lock of rank `AnonGroup` or above may be held.
pub struct Release<M: Machine> {
    machine: M,
    group: *const AnonGroup<M>,
    pages: usize,
}

impl<M: Machine> Release<M> {
    /// Nothing yet.
    #[inline]
    pub fn new(machine: M) -> Self {
        Self { machine, group: ptr::null(), pages: 0 }
    }

    /// Drops one reference.
    #[inline]
    pub fn page(&mut self, pfn: Pfn) {
        let page = page(self.machine, pfn);
        if page.put() {
            if page.state() == PageState::Anon {
                self.note(page);
            }
            self.free(pfn);
        }
    }

    /// Frees an anonymous page that the caller has frozen.
    #[inline]
    pub fn frozen_anon(&mut self, pfn: Pfn) {
        self.note(page(self.machine, pfn));
        self.free(pfn);
    }

    #[inline]
    fn free(&self, pfn: Pfn) {
        self.machine.count(Event::UserFree, 1);
        // SAFETY: the count is 0, so nothing else can get the frame by its record; user mappings of it have been
        // invalidated (by the `Gather` and the callers of `LeafGuard::replace`).
        unsafe { self.machine.pages().free_frozen_pages(pfn, 0) }
    }

    #[inline]
    fn note(&mut self, page: &Page) {
        let group = ptr::with_exposed_provenance::<AnonGroup<M>>(page.owner_at_end());
        if group != self.group {
            self.end_owners();
            self.group = group;
        }
        self.pages += 1;
    }

    fn end_owners(&mut self) {
        if self.pages != 0 {
            // SAFETY: each page counted here was one owner of its group (`make_anon`'s callers add the owners), and has
            // just been freed.
            unsafe { KArc::drop_owners(self.group, self.pages) };
            self.pages = 0;
        }
    }
}

impl<M: Machine> Drop for Release<M> {
    #[inline]
    fn drop(&mut self) {
        self.end_owners();
    }
}
