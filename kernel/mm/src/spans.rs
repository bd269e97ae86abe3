//! Areas by the pages that they map, for lookups by reverse mapping.
//!
//! A [`Spans`] holds areas as intervals of page numbers, with the links inside the areas: nothing is ever allocated.
//! There are two kinds. An object's, by index, holds every area of every space that maps it. A space's, by pgoff, holds
//! the areas that are not at their pgoff. Areas may overlap, and several may begin at one number.
//!
//! It is a treap, in order of (first page, address of the area), with the highest last page of each subtree; its shape
//! depends on a hash of the areas' addresses, so that its depth is O(log n) whatever programs do.
//!
//! # Why this is not one tree with the other two
//! Three trees keep a maximum for each subtree: this one, the areas of a space (`vma/tree.rs`) and those of vmalloc
//! (`vmalloc/tree.rs`). What they could share is less than what sets them apart:
//! - Insertion, removal and balancing are about 75 lines here and 110 in vmalloc's tree, which owns its nodes and so
//!   has no unsafe code. An adapter for each of the three, and the links' accesses, would be about as many, all of them
//!   unsafe.
//! - The areas of a space are also a list, and their tree's updates end at the first node that does not change. The
//!   calls that change a map rely on both for their cost.
//! - A node here is three words, since a treap needs neither parents nor heights, and an area has two of them. With
//!   those two an area would be 32 bytes larger, and no longer fit `kmalloc-192`.
//!
//! # Who may do what
//! An object's tree is under the object's lock (`Rank::MemoryObject`). The range of an area in such a tree changes, and
//! the area leaves its space's tree, only under both that lock and its space's; so a holder of either may read the
//! range. Links are only accessed by the holder of the tree's lock. A space's tree is under its areas' lock.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use crate::steps::count_step;

/// By index in the object that the areas map.
pub const BY_INDEX: usize = 0;
/// By pgoff.
pub const BY_PGOFF: usize = 1;

type Link<T> = Option<NonNull<T>>;

/// A node of spans: it stores its links in trees, and knows the pages that it covers.
///
/// # Safety
/// `places` returns the same pointer as long as the node lives. `first` and `last` do not change while the node is in a
/// tree of the kind, and are in order.
pub unsafe trait Spanned: Sized {
    /// Its places.
    ///
    /// # Safety
    /// The node lives. (No reference to it is made, here and below.)
    unsafe fn places(node: NonNull<Self>) -> *const Places<Self>;

    /// The first page.
    ///
    /// # Safety
    /// The node lives, and its range does not change.
    unsafe fn first<const WHICH: usize>(node: NonNull<Self>) -> usize;

    /// The last page.
    ///
    /// # Safety
    /// As [`Spanned::first`].
    unsafe fn last<const WHICH: usize>(node: NonNull<Self>) -> usize;
}

struct Place<T> {
    left: Link<T>,
    right: Link<T>,
    /// The highest last page here and below.
    highest: usize,
}

/// An area's nodes in the trees; each is written when the area is inserted.
pub struct Places<T>([UnsafeCell<MaybeUninit<Place<T>>>; 2]);

impl<T> Default for Places<T> {
    #[inline(always)]
    fn default() -> Self {
        Self([const { UnsafeCell::new(MaybeUninit::uninit()) }; 2])
    }
}

/// The key of an area, after which a search continues.
pub type Key = (usize, usize);

/// The result of a search by page.
pub struct Found<T> {
    /// The area's key.
    pub key: Key,
    /// The area, as long as the tree is locked.
    pub area: NonNull<T>,
}

/// See the module. `WHICH` is [`BY_INDEX`] or [`BY_PGOFF`].
pub struct Spans<T: Spanned, const WHICH: usize> {
    root: Link<T>,
    count: usize,
    changes: u64,
}

// SAFETY: the tree only borrows areas, which can be sent and shared themselves; see "Who may do what".
unsafe impl<T: Spanned, const WHICH: usize> Send for Spans<T, WHICH> {}
// SAFETY: as above; `&Spans` only reads links.
unsafe impl<T: Spanned, const WHICH: usize> Sync for Spans<T, WHICH> {}

impl<T: Spanned, const WHICH: usize> Default for Spans<T, WHICH> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Spanned, const WHICH: usize> Spans<T, WHICH> {
    /// No areas.
    pub const fn new() -> Self {
        Self { root: None, count: 0, changes: 0 }
    }

    /// Whether there are no areas.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// How many areas there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// How often the tree has changed: a search in several steps can tell from it whether it saw a consistent state.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Inserts an area.
    ///
    /// # Safety
    /// The area is in no tree of this kind, lives until [`Spans::remove`], and its range does not change before that.
    pub unsafe fn insert(&mut self, node: NonNull<T>) {
        // SAFETY: the caller's promise covers the area, and the tree is borrowed mutably; all its nodes live.
        unsafe {
            (*place_cell::<T, WHICH>(node)).write(Place { left: None, right: None, highest: T::last::<WHICH>(node) });
            self.root = Some(add::<T, WHICH>(self.root, node));
        }
        self.count += 1;
        self.changes += 1;
    }

    /// Removes an area, before its range changes.
    ///
    /// # Safety
    /// The area is in this tree.
    pub unsafe fn remove(&mut self, node: NonNull<T>) {
        // SAFETY: the tree is borrowed mutably, and all nodes of it live.
        unsafe { self.root = take::<T, WHICH>(self.root, node) };
        self.count -= 1;
        self.changes += 1;
    }

    /// Whether an area covers any of the pages `from` to `to`: O(log n).
    pub fn meets(&self, from: usize, to: usize) -> bool {
        // SAFETY: the tree is borrowed, and all nodes of it live.
        unsafe { first::<T, WHICH>(self.root, from, to) }.is_some()
    }

    /// The first area after `after`, in order of keys, that covers `page`: O(log n).
    pub fn find(&self, page: usize, after: Option<Key>) -> Option<Found<T>> {
        self.find_in(page, page, after)
    }

    /// As [`Spans::find`], for any of the pages `from` to `to`.
    pub fn find_in(&self, from: usize, to: usize, after: Option<Key>) -> Option<Found<T>> {
        // SAFETY: the tree is borrowed, and all nodes of it live.
        unsafe {
            let node = match after {
                None => first::<T, WHICH>(self.root, from, to),
                Some(after) => next::<T, WHICH>(self.root, from, to, after),
            }?;
            Some(Found { key: key::<T, WHICH>(node), area: node })
        }
    }

    /// Checks order, shape and highest pages against their definitions.
    pub fn validate(&self) {
        // SAFETY (of the function): `link` is of a borrowed tree.
        unsafe fn walk<T: Spanned, const W: usize>(link: Link<T>, n: &mut usize, before: &mut Option<Key>) -> usize {
            let Some(node) = link else { return 0 };
            // SAFETY: as the caller's.
            unsafe {
                let p = seen::<T, W>(node);
                let (left, right, highest) = (p.left, p.right, p.highest);
                for child in [left, right].into_iter().flatten() {
                    assert!(weight(child) <= weight(node), "a span above its parent");
                }
                let low = walk::<T, W>(left, n, before);
                assert!(before.is_none_or(|key| key < self::key::<T, W>(node)), "spans out of order");
                *before = Some(self::key::<T, W>(node));
                *n += 1;
                let high = walk::<T, W>(right, n, before);
                assert_eq!(highest, low.max(high).max(T::last::<W>(node)), "highest page of a subtree");
                highest
            }
        }
        let mut n = 0;
        // SAFETY: `self` is borrowed.
        unsafe { walk::<T, WHICH>(self.root, &mut n, &mut None) };
        assert_eq!(n, self.count, "spans");
    }
}

// Below: nodes are of a tree that the caller has borrowed, mutably where links change; so they live, their ranges do
// not change, and there are no two references to one node.

type Node<T> = NonNull<T>;

unsafe fn place_cell<T: Spanned, const W: usize>(node: Node<T>) -> *mut MaybeUninit<Place<T>> {
    // SAFETY: the node lives.
    unsafe { (*T::places(node)).0[W].get() }
}

unsafe fn place<'a, T: Spanned, const W: usize>(node: Node<T>) -> &'a mut Place<T> {
    // SAFETY: the node is in the tree (or about to be), so its links were written.
    unsafe { (*place_cell::<T, W>(node)).assume_init_mut() }
}

/// As [`place`], for a caller that only reads; others may read it too.
unsafe fn seen<'a, T: Spanned, const W: usize>(node: Node<T>) -> &'a Place<T> {
    // SAFETY: as for `place`.
    unsafe { (*place_cell::<T, W>(node)).assume_init_ref() }
}

unsafe fn key<T: Spanned, const W: usize>(node: Node<T>) -> Key {
    // SAFETY: as the caller's.
    (unsafe { T::first::<W>(node) }, node.addr().get())
}

/// The priority of a node, which is above all nodes of lower weight: a bijective hash of its address.
fn weight<T: Spanned>(node: Node<T>) -> u64 {
    mix(node.addr().get() as u64)
}

/// The finaliser of SplitMix64.
#[inline]
pub(crate) fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

unsafe fn refresh<T: Spanned, const W: usize>(node: Node<T>) {
    // SAFETY: as the caller's.
    unsafe {
        let below = |link: Link<T>| link.map_or(0, |n| place::<T, W>(n).highest);
        let (left, right) = (place::<T, W>(node).left, place::<T, W>(node).right);
        place::<T, W>(node).highest = T::last::<W>(node).max(below(left)).max(below(right));
    }
}

unsafe fn add<T: Spanned, const W: usize>(link: Link<T>, new: Node<T>) -> Node<T> {
    let Some(node) = link else { return new };
    // SAFETY: as the caller's.
    unsafe {
        if weight(new) > weight(node) {
            let (left, right) = split::<T, W>(link, key::<T, W>(new));
            (place::<T, W>(new).left, place::<T, W>(new).right) = (left, right);
            refresh::<T, W>(new);
            return new;
        }
        let p = place::<T, W>(node);
        if key::<T, W>(new) < key::<T, W>(node) {
            p.left = Some(add::<T, W>(p.left, new));
        } else {
            p.right = Some(add::<T, W>(p.right, new));
        }
        refresh::<T, W>(node);
        node
    }
}

/// Splits into the nodes before `at` and those after.
unsafe fn split<T: Spanned, const W: usize>(link: Link<T>, at: Key) -> (Link<T>, Link<T>) {
    let Some(node) = link else { return (None, None) };
    // SAFETY: as the caller's.
    unsafe {
        let p = place::<T, W>(node);
        let halves = if key::<T, W>(node) < at {
            let (left, right) = split::<T, W>(p.right, at);
            p.right = left;
            (link, right)
        } else {
            let (left, right) = split::<T, W>(p.left, at);
            p.left = right;
            (left, link)
        };
        refresh::<T, W>(node);
        halves
    }
}

unsafe fn take<T: Spanned, const W: usize>(link: Link<T>, old: Node<T>) -> Link<T> {
    let node = link?;
    // SAFETY: as the caller's.
    unsafe {
        let p = place::<T, W>(node);
        if node == old {
            return join::<T, W>(p.left, p.right);
        }
        if key::<T, W>(old) < key::<T, W>(node) {
            p.left = take::<T, W>(p.left, old);
        } else {
            p.right = take::<T, W>(p.right, old);
        }
        refresh::<T, W>(node);
    }
    link
}

/// Joins two trees, where all of `left` comes first.
unsafe fn join<T: Spanned, const W: usize>(left: Link<T>, right: Link<T>) -> Link<T> {
    let (Some(l), Some(r)) = (left, right) else { return left.or(right) };
    // SAFETY: as the caller's.
    unsafe {
        if weight(l) > weight(r) {
            let p = place::<T, W>(l);
            p.right = join::<T, W>(p.right, right);
            refresh::<T, W>(l);
            left
        } else {
            let p = place::<T, W>(r);
            p.left = join::<T, W>(left, p.left);
            refresh::<T, W>(r);
            right
        }
    }
}

/// The first area that covers any of the pages `from` to `to`: one path down.
unsafe fn first<T: Spanned, const W: usize>(mut link: Link<T>, from: usize, to: usize) -> Link<T> {
    // SAFETY: as the caller's.
    unsafe {
        while let Some(node) = link {
            count_step();
            let p = seen::<T, W>(node);
            // If all areas on the left that reach `from` start after `to`, those here and on the right do too.
            if p.left.is_some_and(|left| seen::<T, W>(left).highest >= from) {
                link = p.left;
            } else if T::first::<W>(node) > to {
                return None;
            } else if T::last::<W>(node) >= from {
                return link;
            } else {
                link = p.right;
            }
        }
    }
    None
}

/// The first area after `after` that covers any of the pages `from` to `to`. Only on the paths along these and `after`
/// a subtree may be entered without a match.
unsafe fn next<T: Spanned, const W: usize>(link: Link<T>, from: usize, to: usize, after: Key) -> Link<T> {
    let node = link?;
    count_step();
    // SAFETY: as the caller's.
    unsafe {
        let p = seen::<T, W>(node);
        if p.highest < from {
            return None;
        }
        if key::<T, W>(node) > after {
            let found = next::<T, W>(p.left, from, to, after);
            if found.is_some() {
                return found;
            }
            if T::first::<W>(node) > to {
                return None;
            }
            if from <= T::last::<W>(node) {
                return link;
            }
        }
        next::<T, W>(p.right, from, to, after)
    }
}
