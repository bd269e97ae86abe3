//! Page frames of address spaces: the only place that calls the page allocator.
//!
//! A frame of user memory ends when its count of references does ([`crate::page`] says what counts): others may have
//! found it by its record, so the last holder frees it, not the one that allocated it. An anonymous page's record also
//! owns its [`AnonGroup`], which therefore lives as long as its pages do.

use core::ptr;

use crate::addr::{Pfn, PhysAddr};
use crate::event::Event;
use crate::fallible::{AllocError, KArc};
use crate::mm::Machine;
use crate::page::{Page, PageFlags, PageState};
use crate::page_alloc::Gfp;
use crate::rmap::AnonGroup;

/// A frame for a process's memory, with one reference. Zeroed if asked.
#[inline]
pub fn alloc_user<M: Machine>(machine: M, zeroed: bool) -> Result<Pfn, AllocError> {
    let gfp = if zeroed { Gfp::HIGHUSER_MOVABLE | Gfp::ZERO } else { Gfp::HIGHUSER_MOVABLE };
    let pfn = machine.pages().alloc_raw(0, gfp)?;
    machine.count(Event::UserAlloc, 1);
    Ok(pfn)
}

/// As [`alloc_user`], for a page that the program has not accessed yet: gives up early.
#[inline]
pub fn alloc_ahead<M: Machine>(machine: M) -> Result<Pfn, AllocError> {
    let gfp = Gfp::HIGHMEM | Gfp::MOVABLE | Gfp::NOWAIT | Gfp::NORETRY | Gfp::NOMEMALLOC | Gfp::ZERO;
    let pfn = machine.pages().alloc_raw(0, gfp)?;
    machine.count(Event::UserAlloc, 1);
    Ok(pfn)
}

/// A frame for a translation table; its contents are undefined.
pub fn alloc_table<M: Machine>(machine: M) -> Result<PhysAddr, AllocError> {
    Ok(machine.pages().alloc_raw(0, Gfp::KERNEL_ACCOUNT)?.addr())
}

/// The record of a frame of the page allocator.
#[inline(always)]
pub fn page<M: Machine>(machine: M, pfn: Pfn) -> &'static Page {
    // SAFETY: callers pass frames of the page allocator, whose records exist as long as the kernel.
    unsafe { Page::of(machine, pfn) }
}

/// Frees a table that no walker can reach any more.
pub fn free_table<M: Machine>(machine: M, table: PhysAddr) {
    // SAFETY: the frame is from `alloc_table`, and the caller holds the last reference.
    unsafe { machine.pages().free_pages(table.pfn(), 0) }
}

/// Frees a frame that was allocated for user memory and has not become a page of it, so nothing else can have found it.
#[inline]
pub fn free<M: Machine>(machine: M, pfn: Pfn) {
    machine.count(Event::UserFree, 1);
    // SAFETY: the caller is the only holder and gives it up.
    unsafe { machine.pages().free_pages(pfn, 0) }
}

/// Makes a new frame an anonymous page of `group`, which counts it as an owner, at this home. From now on it can be
/// found.
#[inline]
pub fn make_anon<M: Machine>(machine: M, pfn: Pfn, group: &KArc<AnonGroup<M>>, home: usize) {
    page(machine, pfn).init_owner(PageState::Anon, KArc::as_ptr(group).expose_provenance(), home as u64);
}

/// Makes a new frame page `index` of the object at `owner`. From now on it can be found, and leads to the object. Under
/// the object's lock, which protects its membership in the object's tree from then on.
pub fn make_object<M: Machine>(machine: M, pfn: Pfn, owner: usize, index: usize, swap_backed: bool) {
    let page = page(machine, pfn);
    if swap_backed {
        page.set_flags(PageFlags::SWAP_BACKED);
    }
    page.init_owner(PageState::Object, owner, index as u64);
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
            self.settle();
            self.group = group;
        }
        self.pages += 1;
    }

    fn settle(&mut self) {
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
        self.settle();
    }
}
