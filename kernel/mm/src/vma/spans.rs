//! Areas by the pages that they map, for lookups by reverse mapping.
//!
//! A [`Spans`] holds areas as intervals of page numbers, with the links inside the areas: nothing is ever allocated.
//! There are two kinds. An object's, by index, holds every area of every space that maps it. A space's, by home, holds
//! the areas that are not at home. Areas may overlap, and several may begin at one number.
//!
//! It is a treap, in order of (first page, address of the area), with the highest last page of each subtree; its shape
//! depends on a hash of the areas' addresses, so that its depth is O(log n) whatever programs do.
//!
//! # Who may do what
//! An object's tree is under the object's lock (`Rank::MemoryObject`). The range of an area in such a tree changes, and
//! the area leaves its space's tree, only under both that lock and its space's; so a holder of either may read the
//! range. Links are only accessed by the holder of the tree's lock. A space's tree is under its areas' lock.

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use super::Vma;
use super::tree::Link;
use crate::addr::PAGE_SHIFT;
use crate::mm::Machine;
use crate::mm::Mm;
use crate::rmap::count_step;

/// By index in the object that the areas map.
pub const BY_INDEX: usize = 0;
/// By home.
pub const BY_HOME: usize = 1;

struct Place<M: Machine> {
    left: Link<M>,
    right: Link<M>,
    /// The highest last page here and below.
    highest: usize,
}

/// An area's nodes in the trees; each is written when the area is inserted.
pub struct Places<M: Machine> {
    places: [UnsafeCell<MaybeUninit<Place<M>>>; 2],
    /// The space, for a walk that finds the area through its object.
    mm: UnsafeCell<MaybeUninit<*const Mm<M>>>,
}

impl<M: Machine> Default for Places<M> {
    #[inline(always)]
    fn default() -> Self {
        Self {
            places: [const { UnsafeCell::new(MaybeUninit::uninit()) }; 2],
            mm: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }
}

/// The key of an area, after which a search continues.
pub type Key = (usize, usize);

/// The result of a search by page.
pub struct Found<M: Machine> {
    /// The area's key.
    pub key: Key,
    /// The space; it may be ending, but its memory is valid as long as the tree is locked.
    pub mm: *const Mm<M>,
    /// The area, as long as the tree is locked.
    pub vma: NonNull<Vma<M>>,
}

/// See the module. `WHICH` is [`BY_INDEX`] or [`BY_HOME`].
pub struct Spans<M: Machine, const WHICH: usize> {
    root: Link<M>,
    count: usize,
    changes: u64,
}

// SAFETY: the tree only borrows areas, which can be sent and shared themselves; see "Who may do what".
unsafe impl<M: Machine, const WHICH: usize> Send for Spans<M, WHICH> {}
// SAFETY: as above; `&Spans` only reads links.
unsafe impl<M: Machine, const WHICH: usize> Sync for Spans<M, WHICH> {}

impl<M: Machine, const WHICH: usize> Default for Spans<M, WHICH> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Machine, const WHICH: usize> Spans<M, WHICH> {
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

    /// Inserts an area of the space `mm`.
    ///
    /// # Safety
    /// The area is in no tree of this kind, lives until [`Spans::remove`], and its range does not change before that.
    pub unsafe fn insert(&mut self, node: NonNull<Vma<M>>, mm: *const Mm<M>) {
        // SAFETY: the caller's promise covers the area, and the tree is borrowed mutably; all its nodes live.
        unsafe {
            (*place_cell::<M, WHICH>(node)).write(Place { left: None, right: None, highest: last::<M, WHICH>(node) });
            if WHICH == BY_INDEX {
                (*(*node.as_ptr()).places.mm.get()).write(mm);
            }
            self.root = Some(add::<M, WHICH>(self.root, node));
        }
        self.count += 1;
        self.changes += 1;
    }

    /// Removes an area, before its range changes.
    ///
    /// # Safety
    /// The area is in this tree.
    pub unsafe fn remove(&mut self, node: NonNull<Vma<M>>) {
        // SAFETY: the tree is borrowed mutably, and all nodes of it live.
        unsafe { self.root = take::<M, WHICH>(self.root, node) };
        self.count -= 1;
        self.changes += 1;
    }

    /// Whether an area covers any of the pages `from` to `to`: O(log n).
    pub fn meets(&self, from: usize, to: usize) -> bool {
        // SAFETY: the tree is borrowed, and all nodes of it live.
        unsafe { first::<M, WHICH>(self.root, from, to) }.is_some()
    }

    /// The first area after `after`, in order of keys, that covers `page`: O(log n).
    pub fn find(&self, page: usize, after: Option<Key>) -> Option<Found<M>> {
        // SAFETY: the tree is borrowed, and all nodes of it live.
        unsafe {
            let node = match after {
                None => first::<M, WHICH>(self.root, page, page),
                Some(after) => next::<M, WHICH>(self.root, page, after),
            }?;
            let mm =
                if WHICH == BY_INDEX { (*(*node.as_ptr()).places.mm.get()).assume_init() } else { core::ptr::null() };
            Some(Found { key: key::<M, WHICH>(node), mm, vma: node })
        }
    }

    /// Checks order, shape and highest pages against their definitions.
    pub fn validate(&self) {
        // SAFETY (of the function): `link` is of a borrowed tree.
        unsafe fn walk<M: Machine, const W: usize>(link: Link<M>, n: &mut usize, before: &mut Option<Key>) -> usize {
            let Some(node) = link else { return 0 };
            // SAFETY: as the caller's.
            unsafe {
                let p = seen::<M, W>(node);
                let (left, right, highest) = (p.left, p.right, p.highest);
                for child in [left, right].into_iter().flatten() {
                    assert!(weight(child) <= weight(node), "a span above its parent");
                }
                let low = walk::<M, W>(left, n, before);
                assert!(before.is_none_or(|key| key < self::key::<M, W>(node)), "spans out of order");
                *before = Some(self::key::<M, W>(node));
                *n += 1;
                let high = walk::<M, W>(right, n, before);
                assert_eq!(highest, low.max(high).max(last::<M, W>(node)), "highest page of a subtree");
                highest
            }
        }
        let mut n = 0;
        // SAFETY: `self` is borrowed.
        unsafe { walk::<M, WHICH>(self.root, &mut n, &mut None) };
        assert_eq!(n, self.count, "spans");
    }
}

// Below: nodes are of a tree that the caller has borrowed, mutably where links change; so they live, their ranges do
// not change, and there are no two references to one node.

type Node<M> = NonNull<Vma<M>>;

unsafe fn place_cell<M: Machine, const W: usize>(node: Node<M>) -> *mut MaybeUninit<Place<M>> {
    // SAFETY: the node lives.
    unsafe { (*node.as_ptr()).places.places[W].get() }
}

unsafe fn place<'a, M: Machine, const W: usize>(node: Node<M>) -> &'a mut Place<M> {
    // SAFETY: the node is in the tree (or about to be), so its links were written.
    unsafe { (*place_cell::<M, W>(node)).assume_init_mut() }
}

/// As [`place`], for a caller that only reads; others may read it too.
unsafe fn seen<'a, M: Machine, const W: usize>(node: Node<M>) -> &'a Place<M> {
    // SAFETY: as for `place`.
    unsafe { (*place_cell::<M, W>(node)).assume_init_ref() }
}

unsafe fn begin<M: Machine, const W: usize>(node: Node<M>) -> usize {
    // SAFETY: the node lives, and its range does not change.
    unsafe {
        match W {
            BY_INDEX => (*node.as_ptr()).backing.as_ref().map_or(0, |b| b.index),
            _ => (*node.as_ptr()).home,
        }
    }
}

unsafe fn last<M: Machine, const W: usize>(node: Node<M>) -> usize {
    // SAFETY: the node lives, and its range does not change.
    unsafe { begin::<M, W>(node) + (((*node.as_ptr()).end - (*node.as_ptr()).start) >> PAGE_SHIFT) - 1 }
}

unsafe fn key<M: Machine, const W: usize>(node: Node<M>) -> Key {
    // SAFETY: as the caller's.
    (unsafe { begin::<M, W>(node) }, node.addr().get())
}

/// The priority of a node, which is above all nodes of lower weight: a bijective hash of its address.
fn weight<M: Machine>(node: Node<M>) -> u64 {
    mix(node.addr().get() as u64)
}

/// The finaliser of SplitMix64.
#[inline]
pub(super) fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

unsafe fn refresh<M: Machine, const W: usize>(node: Node<M>) {
    // SAFETY: as the caller's.
    unsafe {
        let below = |link: Link<M>| link.map_or(0, |n| place::<M, W>(n).highest);
        let (left, right) = (place::<M, W>(node).left, place::<M, W>(node).right);
        place::<M, W>(node).highest = last::<M, W>(node).max(below(left)).max(below(right));
    }
}

unsafe fn add<M: Machine, const W: usize>(link: Link<M>, new: Node<M>) -> Node<M> {
    let Some(node) = link else { return new };
    // SAFETY: as the caller's.
    unsafe {
        if weight(new) > weight(node) {
            let (left, right) = split::<M, W>(link, key::<M, W>(new));
            (place::<M, W>(new).left, place::<M, W>(new).right) = (left, right);
            refresh::<M, W>(new);
            return new;
        }
        let p = place::<M, W>(node);
        if key::<M, W>(new) < key::<M, W>(node) {
            p.left = Some(add::<M, W>(p.left, new));
        } else {
            p.right = Some(add::<M, W>(p.right, new));
        }
        refresh::<M, W>(node);
        node
    }
}

/// Splits into the nodes before `at` and those after.
unsafe fn split<M: Machine, const W: usize>(link: Link<M>, at: Key) -> (Link<M>, Link<M>) {
    let Some(node) = link else { return (None, None) };
    // SAFETY: as the caller's.
    unsafe {
        let p = place::<M, W>(node);
        let halves = if key::<M, W>(node) < at {
            let (left, right) = split::<M, W>(p.right, at);
            p.right = left;
            (link, right)
        } else {
            let (left, right) = split::<M, W>(p.left, at);
            p.left = right;
            (left, link)
        };
        refresh::<M, W>(node);
        halves
    }
}

unsafe fn take<M: Machine, const W: usize>(link: Link<M>, old: Node<M>) -> Link<M> {
    let node = link?;
    // SAFETY: as the caller's.
    unsafe {
        let p = place::<M, W>(node);
        if node == old {
            return join::<M, W>(p.left, p.right);
        }
        if key::<M, W>(old) < key::<M, W>(node) {
            p.left = take::<M, W>(p.left, old);
        } else {
            p.right = take::<M, W>(p.right, old);
        }
        refresh::<M, W>(node);
    }
    link
}

/// Joins two trees, where all of `left` comes first.
unsafe fn join<M: Machine, const W: usize>(left: Link<M>, right: Link<M>) -> Link<M> {
    let (Some(l), Some(r)) = (left, right) else { return left.or(right) };
    // SAFETY: as the caller's.
    unsafe {
        if weight(l) > weight(r) {
            let p = place::<M, W>(l);
            p.right = join::<M, W>(p.right, right);
            refresh::<M, W>(l);
            left
        } else {
            let p = place::<M, W>(r);
            p.left = join::<M, W>(left, p.left);
            refresh::<M, W>(r);
            right
        }
    }
}

/// The first area that covers any of the pages `from` to `to`: one path down.
unsafe fn first<M: Machine, const W: usize>(mut link: Link<M>, from: usize, to: usize) -> Link<M> {
    // SAFETY: as the caller's.
    unsafe {
        while let Some(node) = link {
            count_step();
            let p = seen::<M, W>(node);
            // If all areas on the left that reach `from` start after `to`, those here and on the right do too.
            if p.left.is_some_and(|left| seen::<M, W>(left).highest >= from) {
                link = p.left;
            } else if begin::<M, W>(node) > to {
                return None;
            } else if last::<M, W>(node) >= from {
                return link;
            } else {
                link = p.right;
            }
        }
    }
    None
}

/// The first area after `after` that covers `page`. Only on the two paths along `page` and `after` a subtree may be
/// entered without a match.
unsafe fn next<M: Machine, const W: usize>(link: Link<M>, page: usize, after: Key) -> Link<M> {
    let node = link?;
    count_step();
    // SAFETY: as the caller's.
    unsafe {
        let p = seen::<M, W>(node);
        if p.highest < page {
            return None;
        }
        if key::<M, W>(node) > after {
            let found = next::<M, W>(p.left, page, after);
            if found.is_some() {
                return found;
            }
            if begin::<M, W>(node) > page {
                return None;
            }
            if page <= last::<M, W>(node) {
                return link;
            }
        }
        next::<M, W>(p.right, page, after)
    }
}
