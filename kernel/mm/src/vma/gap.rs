//! Where there is room: the highest or the lowest gap of a size, found in O(log n) by the largest gap that each subtree
//! of the area tree knows.
//!
//! Both searches start at the bound that they prefer and go away from it: first the gap at the bound, then whole
//! subtrees. In a subtree that has a gap of the size the way down to the nearest is known at each node.

use super::Vma;
use super::tree::{AreaTree, Link, at};
use crate::addr::UserAddr;
use crate::machine::Machine;

impl<M: Machine> AreaTree<M> {
    /// The highest `len` free bytes within `low..high`.
    pub fn highest_gap(&self, len: usize, low: usize, high: usize) -> Option<UserAddr> {
        let last_in = |start: usize, end: usize| {
            let (start, end) = (start.max(low), end.min(high));
            (end >= start && end - start >= len).then(|| UserAddr::new(end - len))
        };
        // The first area that ends above `high`; the gaps beyond it are too high.
        let mut node = match self.seek(UserAddr::new(high)) {
            Some(node) => node,
            None => {
                // SAFETY: `self` is borrowed.
                let top = self.last.map_or(0, |n| unsafe { at(n) }.end.get());
                let found = last_in(top, usize::MAX);
                return found.or_else(|| highest_in(self.root, len).and_then(|(start, end)| last_in(start, end)));
            }
        };
        loop {
            // SAFETY: `self` is borrowed.
            let vma = unsafe { at(node) };
            let (start, end) = gap_of(vma);
            if let Some(found) = last_in(start, end) {
                return Some(found);
            }
            if let Some((start, end)) = highest_in(vma.links.left, len) {
                return last_in(start, end);
            }
            // On to the area before this one's subtree.
            let mut below = node;
            loop {
                // SAFETY: as above.
                let parent = unsafe { at(below) }.links.parent?;
                // SAFETY: as above.
                if unsafe { at(parent) }.links.right == Some(below) {
                    node = parent;
                    break;
                }
                below = parent;
            }
        }
    }

    /// The lowest `len` free bytes within `low..high`.
    pub fn lowest_gap(&self, len: usize, low: usize, high: usize) -> Option<UserAddr> {
        let first_in = |start: usize, end: usize| {
            let (start, end) = (start.max(low), end.min(high));
            (end >= start && end - start >= len).then(|| UserAddr::new(start))
        };
        let above = || {
            // SAFETY: `self` is borrowed.
            let top = self.last.map_or(0, |n| unsafe { at(n) }.end.get());
            first_in(top, usize::MAX)
        };
        // The first area that ends above `low`; the gap below it may reach up from there.
        let Some(mut node) = self.seek(UserAddr::new(low)) else { return above() };
        loop {
            // SAFETY: `self` is borrowed.
            let vma = unsafe { at(node) };
            let (start, end) = gap_of(vma);
            if let Some(found) = first_in(start, end) {
                return Some(found);
            }
            if let Some((start, end)) = lowest_in(vma.links.right, len) {
                return first_in(start, end);
            }
            // On to the area after this one's subtree.
            let mut below = node;
            loop {
                // SAFETY: as above.
                let Some(parent) = (unsafe { at(below) }).links.parent else { return above() };
                // SAFETY: as above.
                if unsafe { at(parent) }.links.left == Some(below) {
                    node = parent;
                    break;
                }
                below = parent;
            }
        }
    }
}

/// The gap below an area.
#[inline]
fn gap_of<M: Machine>(vma: &Vma<M>) -> (usize, usize) {
    let end = vma.guarded_start();
    (end - vma.links.gap, end)
}

/// The highest gap of at least `len` bytes in a subtree.
fn highest_in<M: Machine>(mut link: Link<M>, len: usize) -> Option<(usize, usize)> {
    loop {
        let vma = wide(link, len)?;
        if wide(vma.links.right, len).is_some() {
            link = vma.links.right;
        } else if vma.links.gap >= len {
            return Some(gap_of(vma));
        } else {
            link = vma.links.left;
        }
    }
}

/// The lowest gap of at least `len` bytes in a subtree.
fn lowest_in<M: Machine>(mut link: Link<M>, len: usize) -> Option<(usize, usize)> {
    loop {
        let vma = wide(link, len)?;
        if wide(vma.links.left, len).is_some() {
            link = vma.links.left;
        } else if vma.links.gap >= len {
            return Some(gap_of(vma));
        } else {
            link = vma.links.right;
        }
    }
}

/// The node of a subtree in which some gap has `len` bytes.
#[inline]
fn wide<'a, M: Machine>(link: Link<M>, len: usize) -> Option<&'a Vma<M>> {
    // SAFETY: only called by methods that borrow the tree.
    link.map(|n| unsafe { at(n) }).filter(|vma| vma.links.max_gap >= len)
}
