//! Reverse mapping: from a page to all its mappings.
//!
//! # Anonymous pages
//! A page that a process first touches belongs to that process's [`AnonVma`]; its `Page` has the anon_vma and the page's
//! *pgoff* (see [`crate::vma`]). Only that process and its descendants can map the page: in each space it is the area
//! with that pgoff, found by address in O(log n) or, for areas that mremap has moved, in the space's tree of areas that
//! are not at their pgoff. Few of those claim the same pgoff: where a move or growth would lead to that, the pages get
//! others (`mm/pgoff.rs`).
//!
//! Both change only while the page is frozen: a holder of a page relies on them.
//!
//! # Families
//! The anon_vmas that descend from one `Mm::new` are a family, a tree of forks. It is stored as a *tour*: a list in
//! which each anon_vma has an opening and a closing bracket, with its descendants between them. So
//! - a walk from an anon_vma follows the list from one bracket to the other, and meets an anon_vma before its
//!   descendants;
//! - a fork inserts a pair of brackets after its parent's opening one;
//! - an anon_vma leaves by removing its two brackets, and the anon_vmas between them become its parent's: O(1), however
//!   many children it has.
//!
//! An anon_vma is in the tour while its space exists, while it has two or more children in the tour, or while a walk is
//! at it. So of n anon_vmas in a tour at least n/2 have a space (apart from those at which walks are), and a walk's
//! length depends on the spaces that may map the page, not on ended generations. An anon_vma whose space ends with one
//! child in the tour is folded into it: all mappings of its pages are at the child's place or below, so the two become
//! one *class* with that place in the tour. An anon_vma without children has no place any more: nothing maps its pages.
//! Classes are a union-find forest, by rank: from an anon_vma to its class's place it is O(log n) steps.
//!
//! A walk that knows how many mappings there can be ([`Page::mappings_at_most`]) ends with the last of them. If many
//! children inherited a page, and all but one have replaced it by a copy, the page becomes that child's own when the child
//! writes to it, or else when a walk finds it there. So all children are searched at most once: a step for each copy that
//! was made. As on Linux, one case remains slow: while two or more of many children still map a page, a walk searches all
//! of them.
//!
//! # Lifetimes
//! An anon_vma's record is counted: by its space, by each of its pages, by the class mates that lead to it, and by the
//! tour. The family's lock (`Rank::AnonVma`) protects brackets and classes, and is held for a bounded number of
//! steps; references are dropped without it. The walk visits spaces without it, holding a reference to the space.
//!
//! # Pages of objects
//! Their `Page` has the object and the index, also for pages in place; the object has the areas that map it, by index
//! ([`crate::spans`]): each is found in O(log n).
//!
//! [`Page::mappings_at_most`]: crate::page::Page::mappings_at_most

mod release;
mod tour;
pub mod whole;

use core::cell::UnsafeCell;
use core::ptr;

use crate::fallible::{AllocError, KArc};
use crate::steps::count_step;
use crate::sync::{Rank, SpinLock};
use tour::{Brackets, Gone, Mark};

pub use release::{Release, make_anon};

/// The machine with the spaces that anonymous pages belong to.
pub trait Machine: crate::cgroup::Machine {
    /// An address space. Reverse mapping only holds references to it.
    type Space: Send + Sync;
}

/// State shared by all anon_vmas that descend from one `Mm::new`.
struct Family<M: Machine> {
    lock: SpinLock<(), M>,
}

/// The anonymous pages that one space has brought in.
pub struct AnonVma<M: Machine> {
    family: KArc<Family<M>>,
    links: UnsafeCell<Links<M>>,
}

/// Protected by the family's lock.
struct Links<M: Machine> {
    /// The space, until it ends.
    mm: *const M::Space,
    /// Before the anon_vma enters the tour: its parent, which forks it. After it has left: the next one whose reference
    /// is to be dropped.
    other: *const AnonVma<M>,
    brackets: Brackets<M>,
    /// Walks that are at it, or began at it.
    walks: u32,
    /// An upper bound of the depth of the classes below this one (union by rank).
    rank: u32,
    /// The class member that leads to the class's place, with a reference; null in the one that stores the place.
    forward: *const AnonVma<M>,
    /// The class's place in the tour; null if it has none.
    place: *const AnonVma<M>,
}

// SAFETY: the links are accessed under the family's lock; their targets are `Sync` and outlive the links: the tour and
// `forward` hold references, and a space unlinks itself, under that lock, before it ends.
unsafe impl<M: Machine> Send for AnonVma<M> {}
// SAFETY: as above.
unsafe impl<M: Machine> Sync for AnonVma<M> {}

impl<M: Machine> AnonVma<M> {
    /// The first anon_vma of a new family.
    pub fn new(machine: M) -> Result<KArc<Self>, AllocError> {
        let family = KArc::try_new(Family { lock: SpinLock::new(machine, Rank::AnonVma, ()) })?;
        Self::make(family, ptr::null())
    }

    /// An anon_vma for a space that is being forked from this anon_vma's space, which must exist until
    /// [`AnonVma::begin`].
    pub fn fork(parent: &KArc<Self>) -> Result<KArc<Self>, AllocError> {
        Self::make(parent.family.clone(), KArc::as_ptr(parent))
    }

    fn make(family: KArc<Family<M>>, parent: *const Self) -> Result<KArc<Self>, AllocError> {
        let links = Links {
            mm: ptr::null(),
            other: parent,
            brackets: Brackets::NONE,
            walks: 0,
            rank: 0,
            forward: ptr::null(),
            place: ptr::null(),
        };
        KArc::try_new(Self { family, links: UnsafeCell::new(links) })
    }

    /// Sets the space that the anon_vma's pages belong to: from now on walks find it. Called before it has pages, and
    /// before its parent ends.
    pub fn begin(this: &KArc<Self>, mm: *const M::Space) {
        KArc::add_owners(this, 1);
        let anon_vma = KArc::as_ptr(this);
        let _lock = this.family.lock.lock();
        // SAFETY: the family is locked; a parent has its space, so it is in the tour.
        unsafe {
            let links = &mut *this.links.get();
            let parent = core::mem::replace(&mut links.other, ptr::null());
            (links.mm, links.place) = (mm, anon_vma);
            tour::insert(parent, anon_vma);
        }
    }

    /// The space ends, if it had begun. After this, no walk can get a reference to it any more.
    pub fn end(this: &KArc<Self>) {
        let mut gone = Gone::new();
        let anon_vma = KArc::as_ptr(this);
        let lock = this.family.lock.lock();
        // SAFETY: the family is locked; an anon_vma with a space is in the tour.
        unsafe {
            if !core::mem::replace(&mut (*links(anon_vma)).mm, ptr::null()).is_null() {
                tour::trim(anon_vma, &mut gone);
            }
        }
        drop(lock);
        gone.give_back();
    }

    /// Visits every space that may map a page of this anon_vma, parents first, until `visit` returns `false`.
    pub fn for_each_space(this: &KArc<Self>, mut visit: impl FnMut(&KArc<M::Space>) -> bool) {
        let Some(mut walk) = Walk::begin(this) else { return };
        while let Some(mm) = walk.next() {
            if !visit(&mm) {
                return;
            }
        }
    }
}

impl<M: Machine> Drop for AnonVma<M> {
    fn drop(&mut self) {
        let forward = self.links.get_mut().forward;
        if !forward.is_null() {
            // SAFETY: `forward` came from `into_raw` when this joined the class. The drop goes on to class mates that
            // only this one led to: by rank that is O(log n) deep.
            drop(unsafe { KArc::from_raw(forward) });
        }
    }
}

/// Brackets that a walk passes at a time.
const STRIDE: usize = 32;

/// A walk between an anon_vma's brackets. The anon_vmas where it began and where it is stay in the tour.
struct Walk<'a, M: Machine> {
    anon_vma: &'a KArc<AnonVma<M>>,
    root: *const AnonVma<M>,
    /// The bracket visited last; none before the first one.
    at: Mark<M>,
}

impl<'a, M: Machine> Walk<'a, M> {
    /// A walk from the place of the anon_vma's class, if it has one.
    fn begin(anon_vma: &'a KArc<AnonVma<M>>) -> Option<Self> {
        let _lock = anon_vma.family.lock.lock();
        // SAFETY: the family is locked; the class's place is in the tour.
        unsafe {
            let root = (*links(tour::class_of(KArc::as_ptr(anon_vma)))).place;
            if root.is_null() {
                return None;
            }
            (*links(root)).walks += 1;
            Some(Self { anon_vma, root, at: Mark::NONE })
        }
    }

    /// The next space.
    fn next(&mut self) -> Option<KArc<M::Space>> {
        loop {
            let mut gone = Gone::new();
            let lock = self.anon_vma.family.lock.lock();
            // SAFETY: the family is locked; the walk's anon_vmas are in the tour.
            let step = unsafe { self.step(&mut gone) };
            drop(lock);
            gone.give_back();
            match step {
                Step::Space(mm) => return Some(mm),
                Step::End => return None,
                Step::Further => {}
            }
        }
    }

    /// Advances to the next space, or as far as one hold of the lock allows.
    ///
    /// # Safety
    /// The family is locked.
    unsafe fn step(&mut self, gone: &mut Gone<M>) -> Step<M> {
        let mut at = self.at;
        let mut found = Step::Further;
        // SAFETY: the caller holds the lock. `at` is in the tour, and so is all that follows it up to the root's end. A
        // space that is linked has not passed `end`: its memory is valid, though its count may be 0.
        unsafe {
            for _ in 0..STRIDE {
                count_step();
                at = if at.is_none() { Mark::open(self.root) } else { at.next() };
                if at.closes(self.root) {
                    found = Step::End;
                    break;
                }
                let mm = (*links(at.anon_vma())).mm;
                if at.is_open()
                    && !mm.is_null()
                    && let Some(mm) = KArc::upgrade(mm)
                {
                    found = Step::Space(mm);
                    break;
                }
            }
            (*links(at.anon_vma())).walks += 1;
            self.leave(gone);
        }
        self.at = at;
        found
    }

    /// Leaves the anon_vma where the walk is.
    ///
    /// # Safety
    /// As [`Walk::step`].
    unsafe fn leave(&mut self, gone: &mut Gone<M>) {
        let at = core::mem::replace(&mut self.at, Mark::NONE);
        if !at.is_none() {
            // SAFETY: the caller's promise.
            unsafe { tour::put(at.anon_vma(), gone) };
        }
    }
}

impl<M: Machine> Drop for Walk<'_, M> {
    fn drop(&mut self) {
        let mut gone = Gone::new();
        let lock = self.anon_vma.family.lock.lock();
        // SAFETY: the family is locked; the walk's anon_vmas are in the tour.
        unsafe {
            self.leave(&mut gone);
            tour::put(self.root, &mut gone);
        }
        drop(lock);
        gone.give_back();
    }
}

/// How far a walk has come.
enum Step<M: Machine> {
    /// To a space.
    Space(KArc<M::Space>),
    /// Past anon_vmas without one.
    Further,
    /// To the end.
    End,
}

/// The links of an anon_vma.
///
/// # Safety
/// The anon_vma's memory is valid. (No reference to it is made.)
unsafe fn links<M: Machine>(anon_vma: *const AnonVma<M>) -> *mut Links<M> {
    // SAFETY: the caller's promise.
    unsafe { UnsafeCell::raw_get(&raw const (*anon_vma).links) }
}
