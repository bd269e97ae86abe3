//! The areas of a space, by address: an AVL tree augmented with the largest gaps, and threaded by a list.
//!
//! Each node has the gap below it (from the end of the area before it; a stack keeps [`STACK_GUARD`] free below itself)
//! and the largest gap in its subtree, so finding an area, a neighbour, or the highest gap of a size takes O(log n).
//! Areas do not overlap.
//!
//! Areas that map an object are also in that object's [`Spans`], and areas that are not at their pgoff in the tree's
//! own: both are updated with each change of the tree here and in cursor.rs.
//!
//! The tree owns its areas; all `unsafe` about their links is in this folder. Invariant: every link of
//! a node in the tree points to a node of the same tree or is empty, and `prev`/`next` are the neighbours by address.

use alloc::boxed::Box;
use core::ptr::NonNull;

use super::balance::{inherit, refresh};
use super::cursor::Cursor;
use super::gap::Searched;
use super::{Kind, STACK_GUARD, VmFlags, Vma};
use crate::addr::{PAGE_SHIFT, USER_END, UserAddr};
use crate::spans::{BY_PGOFF, Spans, mix};
use crate::table::Machine;

pub(crate) type Link<M> = Option<NonNull<Vma<M>>>;

/// The bits of a pgoff that a [`Page`](crate::page::Page) can store.
const PGOFF_BITS: u32 = 40;

/// A node's place in the tree.
pub struct Links<M: Machine> {
    pub(super) parent: Link<M>,
    pub(super) left: Link<M>,
    pub(super) right: Link<M>,
    pub(super) prev: Link<M>,
    pub(super) next: Link<M>,
    pub(super) height: u8,
    pub(super) gap: usize,
    pub(super) max_gap: usize,
}

impl<M: Machine> Default for Links<M> {
    fn default() -> Self {
        Self { parent: None, left: None, right: None, prev: None, next: None, height: 1, gap: 0, max_gap: 0 }
    }
}

/// A place in a tree, valid until the tree changes; `None` for the place after the last area.
pub(crate) struct Spot<M: Machine>(Link<M>);

impl<M: Machine> Clone for Spot<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M: Machine> Copy for Spot<M> {}

/// The areas of a space.
pub struct AreaTree<M: Machine> {
    pub(super) root: Link<M>,
    pub(super) first: Link<M>,
    pub(super) last: Link<M>,
    pub(super) count: usize,
    pub(super) searched: Searched,
    /// The space, for reverse mapping.
    pub(super) mm: *const M::Space,
    /// The areas that are not at their pgoff.
    pub(super) away: Spans<Vma<M>, BY_PGOFF>,
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

impl<M: Machine> Vma<M> {
    /// The highest address at which a neighbour below may end.
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
        Self {
            root: None,
            first: None,
            last: None,
            count: 0,
            searched: Searched::new(),
            mm: core::ptr::null(),
            away: Spans::new(),
        }
    }

    /// Sets the space of these areas. Before the first one is inserted.
    pub fn set_mm(&mut self, mm: *const M::Space) {
        self.mm = mm;
    }

    /// The areas that are not at their pgoff, by pgoff.
    pub(crate) fn away(&self) -> &Spans<Vma<M>, BY_PGOFF> {
        &self.away
    }

    /// Whether an area that is not at its pgoff claims any of the `pages` pgoffs from `first` on.
    #[inline]
    pub(crate) fn is_claimed(&self, first: usize, pages: usize) -> bool {
        pages != 0 && self.away.meets(first, first + (pages - 1))
    }

    /// The pgoff of a new area without pages for this free range, of kind `kind` except for its pgoff: its address; or,
    /// if areas that were moved away claim those numbers, the pgoff that lets it merge with a neighbour; or else
    /// numbers of its own.
    #[inline]
    pub(crate) fn pgoff_for(&self, start: UserAddr, end: UserAddr, kind: &Kind<'_, M>) -> usize {
        let straight = start.get() >> PAGE_SHIFT;
        if self.away.is_empty() {
            return straight;
        }
        self.free_pgoff(start, end, kind, straight)
    }

    #[cold]
    #[inline(never)]
    fn free_pgoff(&self, start: UserAddr, end: UserAddr, kind: &Kind<'_, M>, straight: usize) -> usize {
        let pages = (end - start) >> PAGE_SHIFT;
        let is_free = |pgoff: &usize| !self.is_claimed(*pgoff, pages);
        let next = self.find_from(start).filter(|vma| vma.start == end);
        let prev = self.find_before(start).filter(|vma| vma.end == start);
        let after = prev
            .map(|vma| vma.pgoff_of(start))
            .filter(|pgoff| prev.is_some_and(|vma| vma.continues_with(&Kind { pgoff: *pgoff, ..*kind })));
        let before = next
            .and_then(|vma| vma.pgoff.checked_sub(pages))
            .filter(|pgoff| next.is_some_and(|vma| Kind { pgoff: *pgoff, ..*kind }.after(pages) == vma.kind()));
        [Some(straight), after, before].into_iter().flatten().find(is_free).unwrap_or_else(|| self.own_pgoff(start))
    }

    /// Numbers above all addresses, for an area at `start`: at random, so that areas rarely claim the
    /// same ones. There are 15 times as many as pages in a space, and all areas together cover no more than those
    /// pages. So on average less than one area claims a number, even as areas grow.
    pub(crate) fn own_pgoff(&self, start: UserAddr) -> usize {
        const LOWEST: usize = USER_END >> PAGE_SHIFT;
        // Each area with such a pgoff changes the tree of moved areas. The space's address distinguishes spaces.
        let seed = self.mm.addr() as u64 ^ mix(self.away.changes() ^ mix(start.get() as u64));
        // (Room for the largest area after the highest pgoff.)
        LOWEST + (mix(seed) % ((1 << PGOFF_BITS) - 2 * LOWEST as u64)) as usize
    }

    /// Inserts an area of this tree into the `Spans` in which reverse mapping looks for it.
    #[cold]
    pub(super) fn enter(&mut self, node: NonNull<Vma<M>>) {
        // SAFETY: the area is in this tree, so it lives; it is in no `Spans`, and leaves those before it ends.
        unsafe {
            let vma = at(node);
            if let Some(backing) = &vma.backing {
                (*vma.space.get()).write(self.mm);
                backing.object.mappings().lock().insert(node);
                backing.object.note_mapping(vma.flags, true);
            }
            if !vma.is_at_pgoff() && !seeded!(MoveLosesReverseMapping) {
                self.away.insert(node);
            }
        }
    }

    /// Removes an area of this tree from the `Spans` in which reverse mapping looks for it.
    #[cold]
    pub(super) fn leave(&mut self, node: NonNull<Vma<M>>) {
        // SAFETY: `enter` put the area in.
        unsafe {
            let vma = at(node);
            if let Some(backing) = &vma.backing {
                backing.object.mappings().lock().remove(node);
                backing.object.note_mapping(vma.flags, false);
            }
            if !vma.is_at_pgoff() {
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
                // If this contains `addr`, all nodes on its left end at or below `addr`: so the search needs no second
                // comparison per level.
                found = link;
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

    /// The area that contains `addr`, else the next above it, for [`AreaTree::cursor_at`].
    #[inline]
    pub(crate) fn spot(&self, addr: UserAddr) -> Spot<M> {
        Spot(self.seek(addr))
    }

    /// The area at a spot.
    ///
    /// # Safety
    /// `spot` is from this tree, which has not changed since.
    #[inline]
    pub(crate) unsafe fn at_spot(&self, spot: Spot<M>) -> Option<&Vma<M>> {
        // SAFETY: by the caller's promise the node is in the tree, which is borrowed.
        spot.0.map(|n| unsafe { at(n) })
    }

    /// A cursor at a spot, without another search.
    ///
    /// # Safety
    /// `spot` is from this tree, which has not changed since.
    #[inline]
    pub(crate) unsafe fn cursor_at(&mut self, spot: Spot<M>) -> Cursor<'_, M> {
        Cursor { tree: self, current: spot.0 }
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

    pub(super) fn replace_child(&mut self, parent: Link<M>, old: NonNull<Vma<M>>, new: Link<M>) {
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
        // The new node is a leaf, so the area after it, whose gap has changed, is above it.
        self.retrace(parent, next);
        // The range may reach into the stack's guard gap. SAFETY: the tree is borrowed, and the area is its own.
        if next.is_some_and(|n| unsafe { at(n) }.flags.contains(VmFlags::GROWSDOWN)) {
            self.has_room_below(Some(node));
        }
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
                if let Some(r) = right {
                    // An only child on the right is the area after this one.
                    inherit(r, node);
                    return self.unlinked(node, right, next);
                }
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
            inherit(heir, node);
            (from, next)
        };
        self.unlinked(node, from, next)
    }

    /// Restores the tree's invariants after a node was unlinked below `from` and before `next`, which is `from` or
    /// above it.
    fn unlinked(&mut self, node: NonNull<Vma<M>>, from: Link<M>, next: Link<M>) -> Box<Vma<M>> {
        self.count -= 1;
        self.retrace(from, next);
        self.has_room_below(next);
        // SAFETY: the node came from a box and nothing points to it any more.
        unsafe { Box::from_raw(node.as_ptr()) }
    }
}

impl<M: Machine> AreaTree<M> {
    /// Ends all areas; `point` is passed after each.
    pub fn clear(&mut self, mut point: impl FnMut()) {
        let mut link = self.first.take();
        (self.root, self.last, self.count) = (None, None, 0);
        while let Some(node) = link {
            // SAFETY: the node is the tree's own.
            if !unsafe { at(node) }.is_plain() {
                self.leave(node);
            }
            // SAFETY: the tree is going; every node came from a box and is freed once, after its successor
            // has been read.
            let vma = unsafe { Box::from_raw(node.as_ptr()) };
            link = vma.links.next;
            drop(vma);
            point();
        }
    }
}

impl<M: Machine> Drop for AreaTree<M> {
    fn drop(&mut self) {
        self.clear(|| {});
    }
}
