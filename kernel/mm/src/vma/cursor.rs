//! Changing the area tree: cursors, and areas that were removed.

use alloc::boxed::Box;
use core::ptr::NonNull;

use super::tree::{AreaTree, Link, at};
use super::{VmFlags, Vma};
use crate::addr::UserAddr;
use crate::fallible::KArc;
use crate::table::Machine;

/// Areas removed from a tree, in a chain that needs no memory. Freed when this is dropped.
pub struct Detached<M: Machine> {
    first: Link<M>,
}

impl<M: Machine> Detached<M> {
    /// None yet.
    pub const fn new() -> Self {
        Self { first: None }
    }

    /// Adds one.
    pub fn push(&mut self, mut vma: Box<Vma<M>>) {
        vma.links.next = self.first;
        self.first = Some(NonNull::from(Box::leak(vma)));
    }

    /// All areas, the last added one first.
    pub fn iter(&self) -> impl Iterator<Item = &Vma<M>> {
        // SAFETY: the chain owns its nodes and is borrowed.
        let follow = |link: Link<M>| link.map(|n| unsafe { at(n) });
        core::iter::successors(follow(self.first), move |vma| follow(vma.links.next))
    }

    /// Removes the area that was added last.
    pub fn pop(&mut self) -> Option<Box<Vma<M>>> {
        // SAFETY: the node was leaked by `push` and is taken out of the chain here, once.
        let vma = unsafe { Box::from_raw(self.first?.as_ptr()) };
        self.first = vma.links.next;
        Some(vma)
    }
}

impl<M: Machine> Default for Detached<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Machine> Drop for Detached<M> {
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

/// A place in a tree that is being changed.
pub struct Cursor<'a, M: Machine> {
    pub(super) tree: &'a mut AreaTree<M>,
    pub(super) current: Link<M>,
}

impl<M: Machine> Cursor<'_, M> {
    /// The area here; `None` after the last one.
    #[inline]
    pub fn current(&self) -> Option<&Vma<M>> {
        // SAFETY: the cursor borrows the tree.
        self.current.map(|n| unsafe { at(n) })
    }

    #[inline]
    fn prev_link(&self) -> Link<M> {
        match self.current() {
            Some(vma) => vma.links.prev,
            None => self.tree.last,
        }
    }

    /// The area before this place.
    #[inline]
    pub fn prev(&self) -> Option<&Vma<M>> {
        // SAFETY: the cursor borrows the tree.
        self.prev_link().map(|n| unsafe { at(n) })
    }

    /// Goes to the next area.
    #[inline]
    pub fn advance(&mut self) {
        self.current = self.current().and_then(|vma| vma.links.next);
    }

    /// Goes to the area before.
    #[inline]
    pub fn retreat(&mut self) {
        self.current = self.prev_link();
    }

    /// Inserts an area before this place, between two neighbours; the cursor does not move.
    pub fn insert_before(&mut self, vma: Box<Vma<M>>) {
        let prev = self.prev_link();
        self.tree.insert_between(prev, self.current, vma);
    }

    /// Removes this area and moves to the next one.
    pub fn remove(&mut self) -> Option<Box<Vma<M>>> {
        let node = self.current?;
        self.advance();
        Some(self.tree.unlink(node))
    }

    /// Moves the first address of the area here, not past its neighbour; the rest of the area keeps its properties.
    pub fn set_start(&mut self, start: UserAddr) {
        let edited = self.edit_range(|vma| {
            let (pgoff, index) = (vma.pgoff_of(start), vma.index_of(start));
            vma.start = start;
            vma.pgoff = pgoff;
            if let (Some(backing), Some(index)) = (&mut vma.backing, index) {
                backing.index = index;
            }
        });
        // This changes the area's own gap.
        self.tree.retrace(edited, None);
        self.tree.has_room_below(edited);
    }

    /// Moves the end of the area here, not past its neighbour.
    pub fn set_end(&mut self, end: UserAddr) {
        let Some(node) = self.edit_range(|vma| vma.end = end) else { return };
        // This changes the next area's gap. SAFETY: the cursor borrows the tree.
        let next = unsafe { at(node) }.links.next;
        self.tree.retrace(next, None);
        self.tree.has_room_below(next);
    }

    /// Changes the flags of the area here.
    pub fn set_flags(&mut self, flags: VmFlags) {
        let Some(node) = self.current else { return };
        // SAFETY: the cursor borrows the tree mutably. Only the field is borrowed: the rest of an area that maps an
        // object may be read through that.
        unsafe { (*node.as_ptr()).flags = flags };
        self.tree.retrace(Some(node), None);
        self.tree.has_room_below(Some(node));
    }

    /// Changes the pgoff of the area here; its pages, if there are any, already have it.
    pub fn set_pgoff(&mut self, pgoff: usize) {
        if let Some(node) = self.current {
            self.edit_known(node, |vma| vma.pgoff = pgoff);
        }
    }

    /// Changes the range of the area here, and returns the area. `change` must not modify the links.
    #[inline]
    fn edit_range(&mut self, change: impl FnOnce(&mut Vma<M>)) -> Link<M> {
        let node = self.current?;
        // SAFETY: the cursor borrows the tree.
        if unsafe { at(node) }.is_plain() {
            // SAFETY: the cursor borrows the tree mutably, so this is the only reference to the node.
            unsafe { change(&mut *node.as_ptr()) };
        } else {
            self.edit_known(node, change);
        }
        Some(node)
    }

    /// Changes the range of an area that reverse mapping finds by its range, so that it is never missing or found by a
    /// wrong range.
    #[cold]
    fn edit_known(&mut self, node: NonNull<Vma<M>>, change: impl FnOnce(&mut Vma<M>)) {
        // SAFETY: the area is in the tree that the cursor borrows mutably, and in the `Spans` that it belongs to
        // (`AreaTree::enter`). Its object's lock, if any, is held, so the reference for `change` is the only one; the
        // object lives, since the area's hold on it does not change.
        unsafe {
            let object = at(node).backing.as_ref().map(|backing| KArc::as_ptr(&backing.object));
            let is_away = !at(node).is_at_pgoff();
            let mut mappings = object.map(|object| (*object).mappings().lock());
            mappings.iter_mut().for_each(|mappings| mappings.remove(node));
            if is_away {
                self.tree.away.remove(node);
            }
            change(&mut *node.as_ptr());
            if !seeded!(SplitLosesReverseMapping) {
                mappings.iter_mut().for_each(|mappings| mappings.insert(node));
            }
            if !at(node).is_at_pgoff() {
                self.tree.away.insert(node);
            }
        }
    }
}
