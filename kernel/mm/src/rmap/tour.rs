//! A family's tour: brackets in a list, and the classes that have a place in it. See [`super`].
//!
//! Everything here is under the family's lock. Invariant of an anon_vma in the tour, outside of these functions: it has
//! a space, or two or more children in the tour, or a walk is at it.

use core::ptr;

use super::{AnonVma, Machine, links};
use crate::fallible::KArc;
use crate::steps::count_step;

/// A bracket: an anon_vma, and which of its two brackets, in the lowest bit of the address.
pub(super) struct Mark<M: Machine>(*const AnonVma<M>);

impl<M: Machine> Clone for Mark<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Machine> Copy for Mark<M> {}

impl<M: Machine> PartialEq for Mark<M> {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self.0, other.0)
    }
}

/// An anon_vma's two places in the list.
pub(super) struct Brackets<M: Machine> {
    open: Neighbours<M>,
    close: Neighbours<M>,
}

impl<M: Machine> Brackets<M> {
    /// In no list.
    pub(super) const NONE: Self = Self { open: Neighbours::NONE, close: Neighbours::NONE };
}

struct Neighbours<M: Machine> {
    prev: Mark<M>,
    next: Mark<M>,
}

impl<M: Machine> Neighbours<M> {
    const NONE: Self = Self { prev: Mark::NONE, next: Mark::NONE };
}

impl<M: Machine> Mark<M> {
    /// The end of the list.
    pub(super) const NONE: Self = Self(ptr::null());

    pub(super) fn open(anon_vma: *const AnonVma<M>) -> Self {
        Self(anon_vma)
    }

    fn close(anon_vma: *const AnonVma<M>) -> Self {
        Self(anon_vma.map_addr(|addr| addr | 1))
    }

    pub(super) fn is_none(self) -> bool {
        self.0.is_null()
    }

    pub(super) fn is_open(self) -> bool {
        !self.is_none() && self.0.addr() & 1 == 0
    }

    pub(super) fn closes(self, anon_vma: *const AnonVma<M>) -> bool {
        self == Self::close(anon_vma)
    }

    /// The anon_vma whose bracket it is.
    pub(super) fn anon_vma(self) -> *const AnonVma<M> {
        self.0.map_addr(|addr| addr & !1)
    }

    /// # Safety
    /// The bracket's anon_vma is valid memory, and the family is locked.
    unsafe fn neighbours(self) -> *mut Neighbours<M> {
        // SAFETY: the caller's promise; no reference is made.
        unsafe {
            let brackets = &raw mut (*links(self.anon_vma())).brackets;
            if self.is_open() { &raw mut (*brackets).open } else { &raw mut (*brackets).close }
        }
    }

    /// # Safety
    /// As [`Mark::neighbours`].
    pub(super) unsafe fn next(self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { (*self.neighbours()).next }
    }

    /// # Safety
    /// As [`Mark::neighbours`].
    unsafe fn prev(self) -> Self {
        // SAFETY: the caller's promise.
        unsafe { (*self.neighbours()).prev }
    }

    /// Makes `next` follow this; either may be the end of the list.
    ///
    /// # Safety
    /// As [`Mark::neighbours`], for both.
    unsafe fn join(self, next: Self) {
        // SAFETY: the caller's promise.
        unsafe {
            if !self.is_none() {
                (*self.neighbours()).next = next;
            }
            if !next.is_none() {
                (*next.neighbours()).prev = self;
            }
        }
    }
}

// Below, all unsafe functions require this: the family is locked, and the anon_vmas passed are in its tour, or are
// being inserted.

/// Inserts an anon_vma into the tour: after its parent's opening bracket, or alone.
///
/// # Safety
/// See above. The tour gets one reference to the anon_vma.
pub(super) unsafe fn insert<M: Machine>(parent: *const AnonVma<M>, anon_vma: *const AnonVma<M>) {
    let (open, close) = (Mark::open(anon_vma), Mark::close(anon_vma));
    // SAFETY: the caller's promise.
    unsafe {
        open.join(close);
        if !parent.is_null() {
            let after = Mark::open(parent).next();
            Mark::open(parent).join(open);
            close.join(after);
        }
    }
}

/// A walk leaves the anon_vma.
///
/// # Safety
/// See above.
pub(super) unsafe fn put<M: Machine>(anon_vma: *const AnonVma<M>, gone: &mut Gone<M>) {
    // SAFETY: the caller's promise.
    unsafe {
        (*links(anon_vma)).walks -= 1;
        trim(anon_vma, gone);
    }
}

/// Removes the anon_vma from the tour if nothing keeps it there, and then its parent, which may be left with one child.
///
/// # Safety
/// See above.
pub(super) unsafe fn trim<M: Machine>(mut anon_vma: *const AnonVma<M>, gone: &mut Gone<M>) {
    // SAFETY: the caller's promise. A second round handles the parent, and is the last unless walks were at its
    // ancestors.
    unsafe {
        loop {
            count_step();
            if !(*links(anon_vma)).mm.is_null() || (*links(anon_vma)).walks != 0 {
                return;
            }
            let first = Mark::open(anon_vma).next();
            let is_leaf = first.closes(anon_vma);
            if !is_leaf && !Mark::close(first.anon_vma()).next().closes(anon_vma) {
                return;
            }
            if is_leaf {
                (*links(class_of(anon_vma))).place = ptr::null();
            } else {
                unite(class_of(anon_vma), class_of(first.anon_vma()), first.anon_vma());
            }
            let (before, after) = remove(anon_vma);
            gone.push(anon_vma);
            if !is_leaf {
                return;
            }
            anon_vma = if before.is_open() {
                before.anon_vma()
            } else if !after.is_none() && !after.is_open() {
                after.anon_vma()
            } else {
                // Siblings on both sides, or the tour's end.
                return;
            };
        }
    }
}

/// Removes an anon_vma's brackets; returns the brackets before the first and after the second.
///
/// # Safety
/// See above.
unsafe fn remove<M: Machine>(anon_vma: *const AnonVma<M>) -> (Mark<M>, Mark<M>) {
    // SAFETY: the caller's promise. One bracket after the other, since they may be neighbours.
    unsafe {
        let (open, close) = (Mark::open(anon_vma), Mark::close(anon_vma));
        let before = open.prev();
        before.join(open.next());
        let after = close.next();
        close.prev().join(after);
        (before, after)
    }
}

/// The member of this anon_vma's class that stores the place.
///
/// # Safety
/// The family is locked, and the anon_vma's count is not 0.
pub(super) unsafe fn class_of<M: Machine>(mut anon_vma: *const AnonVma<M>) -> *const AnonVma<M> {
    // SAFETY: each holds a reference to the next.
    unsafe {
        while !(*links(anon_vma)).forward.is_null() {
            count_step();
            anon_vma = (*links(anon_vma)).forward;
        }
    }
    anon_vma
}

/// Unites two classes at `place`: the one of lower rank joins the other.
///
/// # Safety
/// See above; both are results of [`class_of`], and differ.
unsafe fn unite<M: Machine>(a: *const AnonVma<M>, b: *const AnonVma<M>, place: *const AnonVma<M>) {
    // SAFETY: the caller's promise. Members of both are in the tour, so the counts are not 0.
    unsafe {
        let (lower, higher) = if (*links(a)).rank > (*links(b)).rank { (b, a) } else { (a, b) };
        if let Some(mate) = KArc::upgrade(higher) {
            (*links(lower)).forward = KArc::into_raw(mate);
        }
        (*links(higher)).rank += ((*links(a)).rank == (*links(b)).rank) as u32;
        (*links(higher)).place = place;
    }
}

/// Anon_vmas that have left the tour, whose references are dropped after the lock is released.
#[must_use]
pub(super) struct Gone<M: Machine>(*const AnonVma<M>);

impl<M: Machine> Gone<M> {
    pub(super) fn new() -> Self {
        Self(ptr::null())
    }

    /// # Safety
    /// The anon_vma has left the tour, and the tour's reference is still held.
    unsafe fn push(&mut self, anon_vma: *const AnonVma<M>) {
        // SAFETY: the caller's promise.
        unsafe { (*links(anon_vma)).other = core::mem::replace(&mut self.0, anon_vma) };
    }

    /// Without the family's lock.
    pub(super) fn give_back(self) {
        let mut anon_vma = self.0;
        while !anon_vma.is_null() {
            // SAFETY: nothing else writes `other` of an anon_vma that has left the tour, and `begin` added this
            // reference.
            unsafe {
                let next = (*links(anon_vma)).other;
                KArc::drop_owners(anon_vma, 1);
                anon_vma = next;
            }
        }
    }
}
