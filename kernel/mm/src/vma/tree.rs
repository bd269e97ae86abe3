//! The areas of a space, by address: an AVL tree that knows its largest gaps, threaded by a list.
//!
//! Each node knows the gap below it (from the end of the area before it; a stack keeps [`STACK_GUARD`] clear
//! below itself) and the largest gap in its subtree, so finding an area, a neighbour, or the highest gap of a
//! size are all O(log n). Areas do not overlap.
//!
//! Areas that map an object are also in that object's [`Spans`], and areas that are not at home in the tree's own: both
//! follow each change of the tree here and in cursor.rs.
//!
//! The tree owns its areas; all `unsafe` about their links is in this file and in cursor.rs. Invariant: every link of
//! a node in the tree points to a node of the same tree or is empty, and `prev`/`next` are the neighbours by address.

use alloc::boxed::Box;
use core::cmp::max;
use core::ptr::NonNull;

use super::cursor::Cursor;
use super::spans::{BY_HOME, Spans};
use super::{STACK_GUARD, VmFlags, Vma};
use crate::addr::UserAddr;
use crate::machine::Machine;
use crate::mm::Mm;

pub(crate) type Link<M> = Option<NonNull<Vma<M>>>;

/// A node's place in the tree.
pub struct Links<M: Machine> {
    parent: Link<M>,
    left: Link<M>,
    right: Link<M>,
    pub(super) prev: Link<M>,
    pub(super) next: Link<M>,
    height: u8,
    gap: usize,
    max_gap: usize,
}

impl<M: Machine> Default for Links<M> {
    fn default() -> Self {
        Self { parent: None, left: None, right: None, prev: None, next: None, height: 1, gap: 0, max_gap: 0 }
    }
}

/// The areas of a space.
pub struct AreaTree<M: Machine> {
    root: Link<M>,
    first: Link<M>,
    pub(super) last: Link<M>,
    count: usize,
    /// The space, for reverse mapping.
    pub(super) mm: *const Mm<M>,
    /// The areas that are not at home.
    pub(super) away: Spans<M, BY_HOME>,
}

// SAFETY: the tree owns its areas, which can be sent and shared themselves.
unsafe impl<M: Machine> Send for AreaTree<M> {}
// SAFETY: as above; `&AreaTree` only reads links.
unsafe impl<M: Machine> Sync for AreaTree<M> {}

/// Follows a link for reading.
///
/// # Safety
/// `node` is in a tree that the caller borrows for `'a`.
#[inline]
pub(super) unsafe fn at<'a, M: Machine>(node: NonNull<Vma<M>>) -> &'a Vma<M> {
    // SAFETY: the caller's promise; nodes of a borrowed tree are live.
    unsafe { node.as_ref() }
}

/// The links of a node, for changing.
///
/// # Safety
/// `node` is in a tree that the caller borrows mutably, and no other reference to the node's links lives.
#[inline]
pub(super) unsafe fn links<'a, M: Machine>(node: NonNull<Vma<M>>) -> &'a mut Links<M> {
    // SAFETY: the caller's promise.
    unsafe { &mut (*node.as_ptr()).links }
}

#[inline]
fn height<M: Machine>(link: Link<M>) -> i32 {
    // SAFETY: only called by methods that borrow the tree.
    link.map_or(0, |n| unsafe { at(n) }.links.height as i32)
}

#[inline]
fn max_gap<M: Machine>(link: Link<M>) -> usize {
    // SAFETY: only called by methods that borrow the tree.
    link.map_or(0, |n| unsafe { at(n) }.links.max_gap)
}

impl<M: Machine> Vma<M> {
    /// The lowest address that a neighbour below may end at.
    #[inline]
    pub fn guarded_start(&self) -> usize {
        let guard = if self.flags.contains(VmFlags::GROWSDOWN) { STACK_GUARD } else { 0 };
        self.start.get().saturating_sub(guard)
    }
}

impl<M: Machine> Default for AreaTree<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Machine> AreaTree<M> {
    /// No areas.
    pub const fn new() -> Self {
        Self { root: None, first: None, last: None, count: 0, mm: core::ptr::null(), away: Spans::new() }
    }

    /// Says whose areas these are. Before the first one.
    pub fn set_mm(&mut self, mm: *const Mm<M>) {
        self.mm = mm;
    }

    /// The areas that are not at home, by home.
    pub(crate) fn away(&self) -> &Spans<M, BY_HOME> {
        &self.away
    }

    /// Enters an area of this tree where reverse mapping looks for it.
    #[cold]
    pub(super) fn enter(&mut self, node: NonNull<Vma<M>>) {
        // SAFETY: the area is in this tree, so it lives; it is in no `Spans`, and leaves those before it ends.
        unsafe {
            let vma = at(node);
            if let Some(backing) = &vma.backing {
                backing.object.mappings().lock().insert(node, self.mm);
            }
            if !vma.is_at_home() {
                self.away.insert(node, self.mm);
            }
        }
    }

    /// Takes an area of this tree out from where reverse mapping looks for it.
    #[cold]
    pub(super) fn leave(&mut self, node: NonNull<Vma<M>>) {
        // SAFETY: `enter` put the area in.
        unsafe {
            let vma = at(node);
            if let Some(backing) = &vma.backing {
                backing.object.mappings().lock().remove(node);
            }
            if !vma.is_at_home() {
                self.away.remove(node);
            }
        }
    }

    /// How many areas there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    #[inline]
    pub(super) fn seek(&self, addr: UserAddr) -> Link<M> {
        let mut found = None;
        let mut link = self.root;
        while let Some(node) = link {
            // SAFETY: `self` is borrowed.
            let vma = unsafe { at(node) };
            if vma.end > addr {
                found = link;
                if vma.start <= addr {
                    break;
                }
                link = vma.links.left;
            } else {
                link = vma.links.right;
            }
        }
        found
    }

    /// The area that contains `addr`, else the next above it.
    #[inline]
    pub fn find_from(&self, addr: UserAddr) -> Option<&Vma<M>> {
        // SAFETY: `self` is borrowed.
        self.seek(addr).map(|n| unsafe { at(n) })
    }

    /// The area that contains `addr`.
    #[inline]
    pub fn find(&self, addr: UserAddr) -> Option<&Vma<M>> {
        self.find_from(addr).filter(|vma| vma.start <= addr)
    }

    /// The last area that ends at or below `addr`.
    pub fn find_before(&self, addr: UserAddr) -> Option<&Vma<M>> {
        let link = match self.seek(addr) {
            // SAFETY: `self` is borrowed.
            Some(node) => unsafe { at(node) }.links.prev,
            None => self.last,
        };
        // SAFETY: as above.
        link.map(|n| unsafe { at(n) })
    }

    /// The area after `vma`, which is one of this tree.
    #[inline]
    pub fn next(&self, vma: &Vma<M>) -> Option<&Vma<M>> {
        // SAFETY: `self` is borrowed.
        vma.links.next.map(|n| unsafe { at(n) })
    }

    /// The area before `vma`, which is one of this tree.
    #[inline]
    pub fn prev(&self, vma: &Vma<M>) -> Option<&Vma<M>> {
        // SAFETY: `self` is borrowed.
        vma.links.prev.map(|n| unsafe { at(n) })
    }

    /// The areas that `start..end` meets, by address.
    pub fn range(&self, start: UserAddr, end: UserAddr) -> impl Iterator<Item = &Vma<M>> {
        core::iter::successors(self.find_from(start), |vma| self.next(vma)).take_while(move |vma| vma.start < end)
    }

    /// All areas, by address.
    pub fn iter(&self) -> impl Iterator<Item = &Vma<M>> {
        // SAFETY: `self` is borrowed.
        core::iter::successors(self.first.map(|n| unsafe { at(n) }), |vma| self.next(vma))
    }

    /// Whether no area meets `start..end`.
    pub fn is_free(&self, start: UserAddr, end: UserAddr) -> bool {
        self.find_from(start).is_none_or(|vma| vma.start >= end)
    }

    /// The highest `len` free bytes within `low..high`.
    pub fn highest_gap(&self, len: usize, low: usize, high: usize) -> Option<UserAddr> {
        // SAFETY: `self` is borrowed.
        let top = self.last.map_or(0, |n| unsafe { at(n) }.end.get());
        clip(top, usize::MAX, low, high, len)
            .map(|(_, end)| end - len)
            .or_else(|| highest(self.root, len, low, high))
            .map(UserAddr::new)
    }

    /// The lowest `len` free bytes within `low..high`.
    pub fn lowest_gap(&self, len: usize, low: usize, high: usize) -> Option<UserAddr> {
        // SAFETY: `self` is borrowed.
        let top = self.last.map_or(0, |n| unsafe { at(n) }.end.get());
        lowest(self.root, len, low, high)
            .or_else(|| clip(top, usize::MAX, low, high, len).map(|(start, _)| start))
            .map(UserAddr::new)
    }

    /// A place to change the tree: the area that contains `addr`, else the next above it, else the end.
    pub fn cursor(&mut self, addr: UserAddr) -> Cursor<'_, M> {
        let current = self.seek(addr);
        Cursor { tree: self, current }
    }

    /// The place after the last area.
    pub fn end(&mut self) -> Cursor<'_, M> {
        Cursor { tree: self, current: None }
    }

    fn replace_child(&mut self, parent: Link<M>, old: NonNull<Vma<M>>, new: Link<M>) {
        match parent {
            None => self.root = new,
            Some(p) => {
                // SAFETY: the tree is borrowed mutably, and this is the only reference to its links.
                let p = unsafe { links(p) };
                if p.left == Some(old) {
                    p.left = new;
                } else {
                    p.right = new;
                }
            }
        }
        if let Some(n) = new {
            // SAFETY: as above; the reference to the parent's links is gone.
            unsafe { links(n) }.parent = parent;
        }
    }

    /// Turns `node` and its child on the other side so that the child comes up. Answers what is up.
    fn rotate(&mut self, node: NonNull<Vma<M>>, left: bool) -> NonNull<Vma<M>> {
        // SAFETY: the tree is borrowed mutably, all nodes are its own, and each reference to links ends with its
        // statement.
        unsafe {
            let parent = links(node).parent;
            let Some(up) = (if left { links(node).right } else { links(node).left }) else { return node };
            let inner = if left { links(up).left } else { links(up).right };
            self.replace_child(parent, node, Some(up));
            if left {
                links(node).right = inner;
                links(up).left = Some(node);
            } else {
                links(node).left = inner;
                links(up).right = Some(node);
            }
            links(node).parent = Some(up);
            if let Some(inner) = inner {
                links(inner).parent = Some(node);
            }
            refresh(node);
            refresh(up);
            up
        }
    }

    /// Brings heights and gaps up to date from `link` to the root, and balances on the way.
    pub(super) fn retrace(&mut self, mut link: Link<M>) {
        while let Some(mut node) = link {
            let changed = refresh(node);
            // SAFETY: the tree is borrowed mutably.
            let (left, right) = unsafe { (links(node).left, links(node).right) };
            let lean = height(left) - height(right);
            if lean > 1 {
                if let Some(l) = left {
                    // SAFETY: as above.
                    let (ll, lr) = unsafe { (links(l).left, links(l).right) };
                    if height(ll) < height(lr) {
                        self.rotate(l, true);
                    }
                }
                node = self.rotate(node, false);
            } else if lean < -1 {
                if let Some(r) = right {
                    // SAFETY: as above.
                    let (rl, rr) = unsafe { (links(r).left, links(r).right) };
                    if height(rr) < height(rl) {
                        self.rotate(r, false);
                    }
                }
                node = self.rotate(node, true);
            } else if !changed {
                return;
            }
            // SAFETY: as above.
            link = unsafe { links(node) }.parent;
        }
    }

    pub(super) fn insert_between(&mut self, prev: Link<M>, next: Link<M>, vma: Box<Vma<M>>) {
        let node = NonNull::from(Box::leak(vma));
        // SAFETY: the node was leaked here; the tree is borrowed mutably, `prev` and `next` are its own, and each
        // reference to links ends with its statement.
        let parent = unsafe {
            *links(node) = Links { prev, next, ..Links::default() };
            match prev {
                Some(p) => links(p).next = Some(node),
                None => self.first = Some(node),
            }
            match next {
                Some(n) => links(n).prev = Some(node),
                None => self.last = Some(node),
            }
            // Of two neighbours in order, the lower has no right child or the upper no left child.
            let parent = match (prev, next) {
                (Some(p), _) if links(p).right.is_none() => {
                    links(p).right = Some(node);
                    prev
                }
                (_, Some(n)) => {
                    links(n).left = Some(node);
                    next
                }
                _ => {
                    self.root = Some(node);
                    None
                }
            };
            links(node).parent = parent;
            parent
        };
        self.count += 1;
        // SAFETY: the node is the tree's own.
        if !unsafe { at(node) }.is_plain() {
            self.enter(node);
        }
        refresh(node);
        self.retrace(parent);
        self.retrace(next);
    }

    pub(super) fn unlink(&mut self, node: NonNull<Vma<M>>) -> Box<Vma<M>> {
        // SAFETY: the node is the tree's own.
        if !unsafe { at(node) }.is_plain() {
            self.leave(node);
        }
        // SAFETY: the tree is borrowed mutably, the node and all that its links lead to are its own, and each
        // reference to links ends with its statement.
        let (from, next) = unsafe {
            let l = links(node);
            let (parent, left, right, prev, next) = (l.parent, l.left, l.right, l.prev, l.next);
            match prev {
                Some(p) => links(p).next = next,
                None => self.first = next,
            }
            match next {
                Some(n) => links(n).prev = prev,
                None => self.last = prev,
            }
            let (Some(l), Some(r), Some(heir)) = (left, right, next) else {
                self.replace_child(parent, node, left.or(right));
                return self.unlinked(node, parent, next);
            };
            // Two children: the successor, leftmost on the right, takes the node's place.
            let mut from = Some(heir);
            if heir != r {
                from = links(heir).parent;
                let orphan = links(heir).right;
                self.replace_child(from, heir, orphan);
                links(heir).right = Some(r);
                links(r).parent = Some(heir);
            }
            self.replace_child(parent, node, Some(heir));
            links(heir).left = Some(l);
            links(l).parent = Some(heir);
            // What its subtree looked like to those above, for `retrace` to compare with.
            links(heir).height = links(node).height;
            links(heir).max_gap = links(node).max_gap;
            (from, next)
        };
        self.unlinked(node, from, next)
    }

    /// Puts the tree in order after a node was unlinked below `from` and before `next`.
    fn unlinked(&mut self, node: NonNull<Vma<M>>, from: Link<M>, next: Link<M>) -> Box<Vma<M>> {
        self.count -= 1;
        self.retrace(from);
        self.retrace(next);
        // SAFETY: the node came from a box and nothing points to it any more.
        unsafe { Box::from_raw(node.as_ptr()) }
    }

    /// Checks order, balance, gaps, threading and what reverse mapping knows against their definitions.
    pub fn validate(&self) {
        fn walk<M: Machine>(tree: &AreaTree<M>, link: Link<M>, parent: Link<M>, n: &mut usize) -> (i32, usize) {
            let Some(node) = link else { return (0, 0) };
            // SAFETY: the tree is borrowed.
            let vma = unsafe { at(node) };
            assert!(vma.links.parent == parent, "parent link");
            assert!(vma.start < vma.end, "an empty area");
            let (hl, gl) = walk(tree, vma.links.left, link, n);
            *n += 1;
            let (hr, gr) = walk(tree, vma.links.right, link, n);
            assert!((hl - hr).abs() <= 1, "balance");
            let before = tree.prev(vma).map_or(0, |p| p.end.get());
            assert!(before <= vma.start.get(), "areas overlap");
            assert_eq!(vma.links.gap, vma.guarded_start().saturating_sub(before), "gap of {:?}", vma.start);
            let h = 1 + max(hl, hr);
            let g = max(vma.links.gap, max(gl, gr));
            assert_eq!((vma.links.height as i32, vma.links.max_gap), (h, g));
            (h, g)
        }
        let mut n = 0;
        walk(self, self.root, None, &mut n);
        assert_eq!(n, self.count);
        assert_eq!(self.iter().count(), n);
        let mut back = 0;
        let mut link = self.last;
        while let Some(node) = link {
            back += 1;
            // SAFETY: `self` is borrowed.
            link = unsafe { at(node) }.links.prev;
        }
        assert_eq!(back, n);
        self.away.validate();
        let away: usize = self.iter().filter(|vma| !vma.is_at_home()).count();
        assert_eq!(self.away.len(), away, "areas away from home");
    }
}

impl<M: Machine> Drop for AreaTree<M> {
    fn drop(&mut self) {
        let mut link = self.first;
        while let Some(node) = link {
            // SAFETY: the node is the tree's own.
            if !unsafe { at(node) }.is_plain() {
                self.leave(node);
            }
            // SAFETY: the tree is going; every node came from a box and is freed once, after its successor
            // has been read.
            let vma = unsafe { Box::from_raw(node.as_ptr()) };
            link = vma.links.next;
        }
    }
}

/// Recomputes a node's height and gaps from its children and neighbours; whether anything changed.
#[inline]
fn refresh<M: Machine>(node: NonNull<Vma<M>>) -> bool {
    // SAFETY: only called by methods that borrow the tree mutably; the shared references are gone before the
    // links are written.
    unsafe {
        let vma = at(node);
        let before = vma.links.prev.map_or(0, |p| at(p).end.get());
        let gap = vma.guarded_start().saturating_sub(before);
        let (left, right) = (vma.links.left, vma.links.right);
        let height = 1 + max(height(left), height(right)) as u8;
        let max_gap = max(gap, max(max_gap(left), max_gap(right)));
        let l = links(node);
        let changed = l.height != height || l.max_gap != max_gap;
        (l.height, l.gap, l.max_gap) = (height, gap, max_gap);
        changed
    }
}

/// The part of `start..end` within `low..high`, if `len` bytes fit.
#[inline]
fn clip(start: usize, end: usize, low: usize, high: usize, len: usize) -> Option<(usize, usize)> {
    let (start, end) = (max(start, low), end.min(high));
    (end >= start && end - start >= len).then_some((start, end))
}

// In both searches a subtree is entered in vain only on the two paths along `low` and `high`: O(log n).

fn highest<M: Machine>(link: Link<M>, len: usize, low: usize, high: usize) -> Option<usize> {
    // SAFETY: only called by methods that borrow the tree.
    let vma = unsafe { at(link?) };
    if vma.links.max_gap < len {
        return None;
    }
    if vma.end.get().saturating_add(len) <= high
        && let Some(found) = highest(vma.links.right, len, low, high)
    {
        return Some(found);
    }
    let end = vma.guarded_start();
    if let Some((_, end)) = clip(end.saturating_sub(vma.links.gap), end, low, high, len) {
        return Some(end - len);
    }
    if vma.start.get() < low.saturating_add(len) {
        return None;
    }
    highest(vma.links.left, len, low, high)
}

fn lowest<M: Machine>(link: Link<M>, len: usize, low: usize, high: usize) -> Option<usize> {
    // SAFETY: only called by methods that borrow the tree.
    let vma = unsafe { at(link?) };
    if vma.links.max_gap < len {
        return None;
    }
    let end = vma.guarded_start();
    if vma.start.get() >= low.saturating_add(len)
        && let Some(found) = lowest(vma.links.left, len, low, high)
    {
        return Some(found);
    }
    if let Some((start, _)) = clip(end.saturating_sub(vma.links.gap), end, low, high, len) {
        return Some(start);
    }
    if vma.end.get().saturating_add(len) > high {
        return None;
    }
    lowest(vma.links.right, len, low, high)
}
