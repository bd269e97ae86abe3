//! Where there is room: the highest or the lowest gap of a size, found in O(log n) by the largest gap that each subtree
//! of the area tree knows.

use core::cmp::max;

use super::Vma;
use super::tree::{AreaTree, Link, at};
use crate::addr::UserAddr;
use crate::machine::Machine;

impl<M: Machine> AreaTree<M> {
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
}

/// The part of `start..end` within `low..high`, if `len` bytes fit.
#[inline]
fn clip(start: usize, end: usize, low: usize, high: usize, len: usize) -> Option<(usize, usize)> {
    let (start, end) = (max(start, low), end.min(high));
    (end >= start && end - start >= len).then_some((start, end))
}

// In both searches a subtree is entered in vain only on the two paths along `low` and `high`: O(log n).

fn highest<M: Machine>(mut link: Link<M>, len: usize, low: usize, high: usize) -> Option<usize> {
    while let Some(vma) = wide(link, len) {
        if vma.end.get().saturating_add(len) <= high
            && wide(vma.links.right, len).is_some()
            && let Some(found) = highest(vma.links.right, len, low, high)
        {
            return Some(found);
        }
        if vma.links.gap >= len {
            let end = vma.guarded_start();
            if let Some((_, end)) = clip(end - vma.links.gap, end, low, high, len) {
                return Some(end - len);
            }
        }
        if vma.start.get() < low.saturating_add(len) {
            return None;
        }
        link = vma.links.left;
    }
    None
}

fn lowest<M: Machine>(mut link: Link<M>, len: usize, low: usize, high: usize) -> Option<usize> {
    while let Some(vma) = wide(link, len) {
        if vma.start.get() >= low.saturating_add(len)
            && wide(vma.links.left, len).is_some()
            && let Some(found) = lowest(vma.links.left, len, low, high)
        {
            return Some(found);
        }
        if vma.links.gap >= len {
            let end = vma.guarded_start();
            if let Some((start, _)) = clip(end - vma.links.gap, end, low, high, len) {
                return Some(start);
            }
        }
        if vma.end.get().saturating_add(len) > high {
            return None;
        }
        link = vma.links.right;
    }
    None
}

/// The node of a subtree in which some gap has `len` bytes.
#[inline]
fn wide<'a, M: Machine>(link: Link<M>, len: usize) -> Option<&'a Vma<M>> {
    // SAFETY: only called by methods that borrow the tree.
    link.map(|n| unsafe { at(n) }).filter(|vma| vma.links.max_gap >= len)
}
