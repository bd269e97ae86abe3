//! Changing the area tree: a place in it, and the areas that were taken out.

use alloc::boxed::Box;
use core::ptr::NonNull;

use super::tree::{AreaTree, Link, at};
use super::{VmFlags, Vma};
use crate::addr::UserAddr;
use crate::machine::Machine;

/// Areas that were taken out of a tree, in a chain that needs no memory. Freed when this is dropped.
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

    /// All of them, the last added first.
    pub fn iter(&self) -> impl Iterator<Item = &Vma<M>> {
        // SAFETY: the chain owns its nodes and is borrowed.
        let follow = |link: Link<M>| link.map(|n| unsafe { at(n) });
        core::iter::successors(follow(self.first), move |vma| follow(vma.links.next))
    }

    /// Takes the one that was added last.
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
    /// The area here; nothing past the last.
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

    /// Puts an area in before this place, between two neighbours; the cursor stays where it is.
    pub fn insert_before(&mut self, vma: Box<Vma<M>>) {
        let prev = self.prev_link();
        self.tree.insert_between(prev, self.current, vma);
    }

    /// Takes this area out and goes to the next.
    pub fn remove(&mut self) -> Option<Box<Vma<M>>> {
        let node = self.current?;
        self.advance();
        Some(self.tree.unlink(node))
    }

    /// Moves the first address of the area here, not past its neighbour; what lies above stays what it was.
    pub fn set_start(&mut self, start: UserAddr) {
        self.edit(|vma| {
            let (home, index) = (vma.home_of(start), vma.index_of(start));
            vma.start = start;
            vma.home = home;
            if let (Some(backing), Some(index)) = (&mut vma.backing, index) {
                backing.index = index;
            }
        });
    }

    /// Moves the end of the area here, not past its neighbour.
    pub fn set_end(&mut self, end: UserAddr) {
        self.edit(|vma| vma.end = end);
    }

    /// Changes what the area here is.
    pub fn set_flags(&mut self, flags: VmFlags) {
        self.edit(|vma| vma.flags = flags);
    }

    /// `change` leaves the links alone.
    fn edit(&mut self, change: impl FnOnce(&mut Vma<M>)) {
        let Some(node) = self.current else { return };
        // SAFETY: the cursor borrows the tree mutably, so this is the only reference to the node.
        unsafe { change(&mut *node.as_ptr()) };
        self.tree.retrace(Some(node));
        // SAFETY: the cursor borrows the tree.
        let next = unsafe { at(node) }.links.next;
        self.tree.retrace(next);
    }
}
