//! Finding free ranges: the highest or the lowest gap of a size, in O(log n), by the largest gap recorded for each
//! subtree of the area tree.
//!
//! Both searches start at their preferred bound and move away from it: first the gap at the bound, then whole subtrees.
//! In a subtree with a large enough gap, each node tells the way down to the nearest one.

use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::Vma;
use super::tree::{AreaTree, Link, at};
use crate::addr::UserAddr;
use crate::table::Machine;

/// A cached result of searches below a bound: no gap of `len` bytes or more extends above `end`. Only changed by the
/// holder of the intent; atomic, so that a search for a gap needs only shared access to the tree.
pub(super) struct Searched {
    len: AtomicUsize,
    high: AtomicUsize,
    end: AtomicUsize,
}

impl Searched {
    /// Nothing is known.
    pub const fn new() -> Self {
        Self { len: AtomicUsize::new(usize::MAX), high: AtomicUsize::new(0), end: AtomicUsize::new(0) }
    }

    /// Where a search for `len` bytes below `high` may begin.
    #[inline]
    fn start(&self, len: usize, high: usize) -> usize {
        let known = self.len.load(Relaxed) <= len && self.high.load(Relaxed) == high;
        if known { self.end.load(Relaxed).min(high) } else { high }
    }

    #[inline]
    fn note(&self, len: usize, high: usize, end: usize) {
        self.len.store(len, Relaxed);
        self.high.store(high, Relaxed);
        self.end.store(end, Relaxed);
    }
}

impl<M: Machine> AreaTree<M> {
    /// Notes that the gap below `above`, or that after the last area, may have grown.
    #[inline]
    pub(super) fn has_room_below(&self, above: Link<M>) {
        // SAFETY: `self` is borrowed, and the link is its own.
        let end = above.map_or(usize::MAX, |n| unsafe { at(n) }.guarded_start());
        if end > self.searched.end.load(Relaxed) {
            self.searched.end.store(end, Relaxed);
        }
    }

    /// The highest `len` free bytes within `low..high`. Consecutive searches with the same `high` start where the last
    /// one ended, unless space above that has been freed.
    pub fn highest_gap(&self, len: usize, low: usize, high: usize) -> Option<UserAddr> {
        let found = self.highest_gap_below(len, low, self.searched.start(len, high))?;
        self.searched.note(len, high, found.get() + len);
        Some(found)
    }

    /// Where the last area ends.
    #[inline]
    fn top(&self) -> usize {
        // SAFETY: `self` is borrowed.
        self.last.map_or(0, |n| unsafe { at(n) }.end.get())
    }

    fn highest_gap_below(&self, len: usize, low: usize, high: usize) -> Option<UserAddr> {
        let last_in =
            |start: usize, end: usize| clip(start, end, low..high, len).map(|within| UserAddr::new(within.end - len));
        // The first area that ends above `high`; the gaps beyond it are too high.
        let mut node = match self.seek(UserAddr::new(high)) {
            Some(node) => node,
            None => {
                let found = last_in(self.top(), usize::MAX);
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
            node = first_above(node, |parent, child| parent.links.right == Some(child))?;
        }
    }

    /// The lowest `len` free bytes within `low..high`.
    pub fn lowest_gap(&self, len: usize, low: usize, high: usize) -> Option<UserAddr> {
        let first_in =
            |start: usize, end: usize| clip(start, end, low..high, len).map(|within| UserAddr::new(within.start));
        let above = || first_in(self.top(), usize::MAX);
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
            match first_above(node, |parent, child| parent.links.left == Some(child)) {
                Some(next) => node = next,
                None => return above(),
            }
        }
    }
}

/// The part of `start..end` within `bounds`, if it has `len` bytes.
#[inline]
fn clip(start: usize, end: usize, bounds: Range<usize>, len: usize) -> Option<Range<usize>> {
    let (start, end) = (start.max(bounds.start), end.min(bounds.end));
    (end >= start && end - start >= len).then_some(start..end)
}

/// The nearest ancestor of `node` that is reached from the side given by `comes_from`: from the right, the area before
/// the subtree of `node`; from the left, the area after it.
#[inline]
fn first_above<M: Machine>(
    mut node: NonNull<Vma<M>>,
    comes_from: impl Fn(&Vma<M>, NonNull<Vma<M>>) -> bool,
) -> Link<M> {
    loop {
        // SAFETY: only called by methods that borrow the tree.
        let parent = unsafe { at(node) }.links.parent?;
        // SAFETY: as above.
        if comes_from(unsafe { at(parent) }, node) {
            return Some(parent);
        }
        node = parent;
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

/// The root of a subtree, if some gap in it has `len` bytes.
#[inline]
fn wide<'a, M: Machine>(link: Link<M>, len: usize) -> Option<&'a Vma<M>> {
    // SAFETY: only called by methods that borrow the tree.
    link.map(|n| unsafe { at(n) }).filter(|vma| vma.links.max_gap >= len)
}
