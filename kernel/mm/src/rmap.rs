//! Reverse mapping: from a page to all that map it.
//!
//! # Anonymous pages
//! A page that a process first touches belongs to that process's [`AnonGroup`] for good; its `Page` has the group
//! and the page's *home* (see [`crate::vma`]). Only the process and those forked from it since can map the page,
//! so the groups of a family form a tree that follows its forks, and a lookup visits the group's subtree: in each
//! space the area of that home, found by address in O(log n), or, for areas that mremap has moved, in the space's tree of
//! areas that are not at home.
//!
//! A group has as owners its space and each of its pages; it outlives its space while children map its pages.
//! When a group ends, its children become its parent's: whatever the parent's pages reach, they still reach.
//!
//! # Pages of objects
//! Their `Page` has the object and the index, also where the page lies in place; the object knows the areas that map it,
//! by index ([`crate::vma::spans`]): each is found in O(log n) of them.
//!
//! Lock order: a family's lock (`Rank::AnonGroup`) protects the links of its groups and is held for links only; the
//! walk visits spaces without it, holding a reference to the space and to the group where it stands.

use core::cell::UnsafeCell;
use core::ptr;

use crate::fallible::{AllocError, KArc};
use crate::machine::Machine;
use crate::mm::Mm;
use crate::sync::{Rank, SpinLock};

/// What all groups that stem from one `Mm::new` share.
struct Family<M: Machine> {
    lock: SpinLock<(), M>,
}

/// The anonymous pages that one space has brought in.
pub struct AnonGroup<M: Machine> {
    family: KArc<Family<M>>,
    links: UnsafeCell<Links<M>>,
}

/// Protected by the family's lock.
struct Links<M: Machine> {
    /// The space, until it ends.
    mm: *const Mm<M>,
    parent: *const AnonGroup<M>,
    child: *const AnonGroup<M>,
    next: *const AnonGroup<M>,
    prev: *const AnonGroup<M>,
}

// SAFETY: the links are accessed under the family's lock; what they point to is `Sync` itself and outlives the
// links: a group and a space unlink themselves, under that lock, before they end.
unsafe impl<M: Machine> Send for AnonGroup<M> {}
// SAFETY: as above.
unsafe impl<M: Machine> Sync for AnonGroup<M> {}

impl<M: Machine> AnonGroup<M> {
    /// The first group of a new family.
    pub fn new(machine: M) -> Result<KArc<Self>, AllocError> {
        let family = KArc::try_new(Family { lock: SpinLock::new(machine, Rank::AnonGroup, ()) })?;
        Self::make(family)
    }

    /// The group of a space that is being forked from this one's.
    pub fn fork(parent: &KArc<Self>) -> Result<KArc<Self>, AllocError> {
        let group = Self::make(parent.family.clone())?;
        let _lock = parent.family.lock.lock();
        let this = KArc::as_ptr(&group);
        // SAFETY: the family is locked; parent and first child are linked, so they live.
        unsafe {
            (*group.links.get()).parent = KArc::as_ptr(parent);
            let old = (*parent.links.get()).child;
            (*group.links.get()).next = old;
            if !old.is_null() {
                (*(*old).links.get()).prev = this;
            }
            (*parent.links.get()).child = this;
        }
        drop(_lock);
        Ok(group)
    }

    /// A group without relatives: one that could not be made ends without having been linked.
    fn make(family: KArc<Family<M>>) -> Result<KArc<Self>, AllocError> {
        let links =
            Links { mm: ptr::null(), parent: ptr::null(), child: ptr::null(), next: ptr::null(), prev: ptr::null() };
        KArc::try_new(Self { family, links: UnsafeCell::new(links) })
    }

    /// Says which space the group's pages come from; null when it ends. Once this has returned with null, no walk
    /// comes to hold the space any more.
    pub fn set_mm(&self, mm: *const Mm<M>) {
        let _lock = self.family.lock.lock();
        // SAFETY: the family is locked.
        unsafe { (*self.links.get()).mm = mm };
    }

    /// Visits every space that may map a page of this group, until `visit` answers `false`.
    pub fn for_each_space(this: &KArc<Self>, mut visit: impl FnMut(&KArc<Mm<M>>) -> bool) {
        let mut here = this.clone();
        loop {
            let mm = {
                let _lock = this.family.lock.lock();
                // SAFETY: the family is locked, so a space that is linked has not passed `set_mm(null)`: its memory
                // is there, though its count may be 0.
                unsafe {
                    let mm = (*here.links.get()).mm;
                    if mm.is_null() { None } else { KArc::upgrade(mm) }
                }
            };
            if let Some(mm) = mm
                && !visit(&mm)
            {
                return;
            }
            match Self::successor(this, &here) {
                Some(next) => here = next,
                None => return,
            }
        }
    }

    /// The group after `here` in `root`'s subtree, parents first.
    fn successor(root: &KArc<Self>, here: &KArc<Self>) -> Option<KArc<Self>> {
        let _lock = root.family.lock.lock();
        let mut at = KArc::as_ptr(here);
        // SAFETY: the family is locked; `here` is held, and all links lead to linked groups, whose memory is there.
        // One whose count is 0 waits for the lock to unlink itself: its children are visited all the same.
        unsafe {
            let mut down = (*(*at).links.get()).child;
            loop {
                let next = if !down.is_null() {
                    down
                } else {
                    while at != KArc::as_ptr(root) && (*(*at).links.get()).next.is_null() {
                        at = (*(*at).links.get()).parent;
                    }
                    if at == KArc::as_ptr(root) {
                        return None;
                    }
                    (*(*at).links.get()).next
                };
                if let Some(group) = KArc::upgrade(next) {
                    return Some(group);
                }
                at = next;
                down = (*(*at).links.get()).child;
            }
        }
    }
}

impl<M: Machine> Drop for AnonGroup<M> {
    fn drop(&mut self) {
        let _lock = self.family.lock.lock();
        // SAFETY: the family is locked; parent, siblings and children are linked, so their memory is there.
        unsafe {
            let links = &*self.links.get();
            // The children take this group's place among its siblings.
            let (mut first, mut last) = (links.child, ptr::null());
            let mut child = first;
            while !child.is_null() {
                (*(*child).links.get()).parent = links.parent;
                last = child;
                child = (*(*child).links.get()).next;
            }
            // A root's children become roots: nobody walks across roots.
            if links.parent.is_null() {
                child = first;
                while !child.is_null() {
                    let next = (*(*child).links.get()).next;
                    (*(*child).links.get()).next = ptr::null();
                    (*(*child).links.get()).prev = ptr::null();
                    child = next;
                }
                return;
            }
            if first.is_null() {
                first = links.next;
            } else {
                (*(*first).links.get()).prev = links.prev;
                (*(*last).links.get()).next = links.next;
            }
            if links.prev.is_null() {
                (*(*links.parent).links.get()).child = first;
            } else {
                (*(*links.prev).links.get()).next = first;
            }
            if !links.next.is_null() {
                (*(*links.next).links.get()).prev = if last.is_null() { links.prev } else { last };
            }
        }
    }
}
