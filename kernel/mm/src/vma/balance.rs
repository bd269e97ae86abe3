//! Keeping the area tree balanced, and each node's summary of its subtree up to date.

use core::cmp::max;
use core::ptr::NonNull;

use super::Vma;
use super::tree::{AreaTree, Link, at, links};
use crate::table::Machine;

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

impl<M: Machine> AreaTree<M> {
    /// Rotates `node` and its child on the other side so that the child moves up. Returns the new top.
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

    /// Updates heights and gaps from `link` upwards, and balances on the way. Ends where nothing changes any more, but
    /// not below `through`, whose own gap has changed and which is on the path.
    pub(super) fn retrace(&mut self, mut link: Link<M>, through: Link<M>) {
        let mut passed = through.is_none();
        while let Some(mut node) = link {
            passed |= link == through;
            // SAFETY: the tree is borrowed mutably.
            let (was_high, was_wide) = unsafe { (links(node).height, links(node).max_gap) };
            refresh(node);
            // SAFETY: as above.
            let (left, right) = unsafe { (links(node).left, links(node).right) };
            let lean = height(left) - height(right);
            if !(-1..=1).contains(&lean) {
                node = self.balance(node, lean > 0);
            }
            // SAFETY: as above.
            let l = unsafe { links(node) };
            link = l.parent;
            if l.height == was_high {
                if l.max_gap != was_wide || !passed {
                    self.retrace_gaps(link, (was_wide, l.max_gap), through, passed);
                }
                return;
            }
        }
    }

    /// As [`AreaTree::retrace`], if no height has changed below `link`, so that the shape above stays. The arguments
    /// are the old and new widest gaps of the child.
    fn retrace_gaps(
        &mut self,
        mut link: Link<M>,
        (mut was, mut now): (usize, usize),
        through: Link<M>,
        mut passed: bool,
    ) {
        while let Some(node) = link {
            let own_changed = !passed && link == through;
            if own_changed {
                passed = true;
                let gap = gap_below(node);
                // SAFETY: the tree is borrowed mutably.
                unsafe { links(node) }.gap = gap;
            }
            // SAFETY: as above.
            let l = unsafe { links(node) };
            let old = l.max_gap;
            // Only if the widest gap became narrower another one may be the widest now.
            let new = if own_changed || now < was && old == was {
                max(l.gap, max(max_gap(l.left), max_gap(l.right)))
            } else {
                max(old, now)
            };
            if new == old && passed {
                return;
            }
            l.max_gap = new;
            (was, now) = (old, new);
            link = l.parent;
        }
    }

    /// Rotates at `node`, whose left (or right) side is two levels higher than the other. Returns the new top.
    fn balance(&mut self, node: NonNull<Vma<M>>, left: bool) -> NonNull<Vma<M>> {
        // SAFETY: the tree is borrowed mutably.
        let higher = unsafe { if left { links(node).left } else { links(node).right } };
        if let Some(child) = higher {
            // SAFETY: as above.
            let (inner, outer) = unsafe {
                if left { (links(child).right, links(child).left) } else { (links(child).left, links(child).right) }
            };
            if height(outer) < height(inner) {
                self.rotate(child, left);
            }
        }
        self.rotate(node, !left)
    }
}

/// Recomputes a node's height and gaps from its children and neighbours.
#[inline]
pub(super) fn refresh<M: Machine>(node: NonNull<Vma<M>>) {
    let gap = gap_below(node);
    // SAFETY: only called by methods that borrow the tree mutably.
    let l = unsafe { links(node) };
    l.height = 1 + max(height(l.left), height(l.right)) as u8;
    l.gap = gap;
    l.max_gap = max(gap, max(max_gap(l.left), max_gap(l.right)));
}

/// The free bytes below a node.
#[inline]
fn gap_below<M: Machine>(node: NonNull<Vma<M>>) -> usize {
    // SAFETY: only called by methods that borrow the tree.
    let vma = unsafe { at(node) };
    // SAFETY: as above.
    let before = vma.links.prev.map_or(0, |p| unsafe { at(p) }.end.get());
    vma.guarded_start().saturating_sub(before)
}

/// Gives `heir` the summary of `node`, whose place it has taken, for `retrace` to compare with.
///
/// # Safety
/// As [`links`], for both; they are two.
pub(super) unsafe fn inherit<M: Machine>(heir: NonNull<Vma<M>>, node: NonNull<Vma<M>>) {
    // SAFETY: the caller's promise.
    unsafe {
        let (height, max_gap) = (links(node).height, links(node).max_gap);
        let l = links(heir);
        (l.height, l.max_gap) = (height, max_gap);
    }
}
