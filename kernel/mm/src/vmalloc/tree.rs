//! The areas of an address range, in a balanced tree augmented with the largest gap.
//!
//! An AVL tree (Adelson-Velsky and Landis 1962) by start address. A node's `gap` is the free space between it and the
//! area before it, and `max_gap` the largest `gap` of its subtree; the tree itself has the space after the last area.
//! So finding the lowest gap of a size or an address's area, insertion and removal are each O(log n), no node
//! represents free space, and freeing an area never needs memory.

use alloc::boxed::Box;
use core::ops::Range;

/// The node of an area in the tree.
pub(super) struct Node<T> {
    start: usize,
    end: usize,
    /// Free bytes before `start`.
    gap: usize,
    /// The largest `gap` of this subtree.
    max_gap: usize,
    height: u8,
    left: Link<T>,
    right: Link<T>,
    /// The area's data.
    pub(super) value: T,
}

type Link<T> = Option<Box<Node<T>>>;

impl<T> Node<T> {
    /// A node that is in no tree yet.
    pub(super) const fn new(value: T) -> Self {
        Self { start: 0, end: 0, gap: 0, max_gap: 0, height: 1, left: None, right: None, value }
    }

    /// The addresses that the area takes.
    pub(super) fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// Recomputes the node's summary of its subtree.
    fn refresh(&mut self) {
        self.height = 1 + height(&self.left).max(height(&self.right));
        self.max_gap = self.gap.max(max_gap(&self.left)).max(max_gap(&self.right));
    }
}

fn height<T>(link: &Link<T>) -> u8 {
    link.as_ref().map_or(0, |node| node.height)
}

fn max_gap<T>(link: &Link<T>) -> usize {
    link.as_ref().map_or(0, |node| node.max_gap)
}

/// Areas in a range of addresses.
pub(super) struct AreaTree<T> {
    root: Link<T>,
    bounds: Range<usize>,
    /// The end of the last area, or the start of the bounds.
    last_end: usize,
    len: usize,
}

impl<T> AreaTree<T> {
    pub(super) const fn new(bounds: Range<usize>) -> Self {
        let last_end = bounds.start;
        Self { root: None, bounds, last_end, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Inserts the node at the lowest place with `size` free bytes, aligned to `align`, and returns its address. `size`
    /// and the bounds are multiples of `unit`, and so are all areas; `align` is a power of two, at least `unit`. The
    /// search requires a gap that is large enough for any alignment, so if `align` exceeds `unit` a gap that fits only
    /// barely may be skipped.
    pub(super) fn insert(
        &mut self,
        mut node: Box<Node<T>>,
        size: usize,
        align: usize,
        unit: usize,
    ) -> Result<usize, Box<Node<T>>> {
        let place = size.checked_add(align - unit).and_then(|need| self.lowest_gap(need));
        let Some(gap_start) = place else { return Err(node) };
        let start = gap_start.next_multiple_of(align);
        let end = start + size;
        node.start = start;
        node.end = end;
        node.gap = start - gap_start;
        node.refresh();
        // The next area now has this one before it.
        if gap_start == self.last_end {
            self.last_end = end;
        } else {
            change_gap_after(&mut self.root, start, |next_start, _| next_start - end);
        }
        insert(&mut self.root, node);
        self.len += 1;
        Ok(start)
    }

    /// Removes the area that starts at `start`.
    pub(super) fn remove(&mut self, start: usize) -> Option<Box<Node<T>>> {
        let mut node = remove(&mut self.root, start)?;
        self.len -= 1;
        let freed = node.gap + (node.end - node.start);
        if self.last_end == node.end {
            self.last_end = node.start - node.gap;
        } else {
            change_gap_after(&mut self.root, start, |_, gap| gap + freed);
        }
        (node.gap, node.height) = (0, 1);
        Some(node)
    }

    /// The area that contains `address`.
    pub(super) fn find(&self, address: usize) -> Option<&Node<T>> {
        self.first_ending_after(address).filter(|node| node.start <= address)
    }

    /// The same, mutably.
    pub(super) fn find_mut(&mut self, address: usize) -> Option<&mut Node<T>> {
        let mut at = self.root.as_deref_mut();
        while let Some(node) = at {
            if address < node.start {
                at = node.left.as_deref_mut();
            } else if address >= node.end {
                at = node.right.as_deref_mut();
            } else {
                return Some(node);
            }
        }
        None
    }

    /// The first area that ends after `address`.
    pub(super) fn first_ending_after(&self, address: usize) -> Option<&Node<T>> {
        let (mut at, mut best) = (self.root.as_deref(), None);
        while let Some(node) = at {
            if node.end > address {
                best = Some(node);
                at = node.left.as_deref();
            } else {
                at = node.right.as_deref();
            }
        }
        best
    }

    /// Where the lowest gap of at least `need` bytes starts.
    fn lowest_gap(&self, need: usize) -> Option<usize> {
        let mut at = self.root.as_deref().filter(|root| root.max_gap >= need);
        while let Some(node) = at {
            if max_gap(&node.left) >= need {
                at = node.left.as_deref();
            } else if node.gap >= need {
                return Some(node.start - node.gap);
            } else {
                at = node.right.as_deref();
            }
        }
        (self.bounds.end - self.last_end >= need).then_some(self.last_end)
    }

    /// Checks every node's summary; for tests.
    #[cfg(test)]
    pub(super) fn validate(&self) {
        fn walk<T>(link: &Link<T>, before: &mut usize) -> usize {
            let Some(node) = link else { return 0 };
            let left = walk(&node.left, before);
            assert_eq!(node.start - node.gap, *before, "gap");
            assert!(node.start < node.end);
            *before = node.end;
            let right = walk(&node.right, before);
            let (l, r) = (height(&node.left), height(&node.right));
            assert!(l.abs_diff(r) <= 1, "balanced");
            assert_eq!(node.height, 1 + l.max(r));
            assert_eq!(node.max_gap, node.gap.max(max_gap(&node.left)).max(max_gap(&node.right)));
            left + 1 + right
        }
        let mut before = self.bounds.start;
        assert_eq!(walk(&self.root, &mut before), self.len);
        assert_eq!(before, self.last_end);
        assert!(before <= self.bounds.end);
    }
}

fn insert<T>(link: &mut Link<T>, node: Box<Node<T>>) {
    match link {
        None => *link = Some(node),
        Some(here) => {
            insert(if node.start < here.start { &mut here.left } else { &mut here.right }, node);
            balance(link);
        }
    }
}

fn remove<T>(link: &mut Link<T>, start: usize) -> Link<T> {
    let here = link.as_mut()?;
    let found = if start < here.start {
        remove(&mut here.left, start)
    } else if start > here.start {
        remove(&mut here.right, start)
    } else {
        let mut node = link.take()?;
        *link = match (node.left.take(), node.right.take()) {
            (left, None) => left,
            (None, right) => right,
            (left, mut right) => {
                let mut first = take_first(&mut right)?;
                first.left = left;
                first.right = right;
                Some(first)
            }
        };
        Some(node)
    };
    balance(link);
    found
}

/// Takes the first node out of a subtree.
fn take_first<T>(link: &mut Link<T>) -> Link<T> {
    let here = link.as_mut()?;
    if here.left.is_some() {
        let first = take_first(&mut here.left);
        balance(link);
        return first;
    }
    let mut first = link.take()?;
    *link = first.right.take();
    Some(first)
}

/// Gives the first area that starts after `address` another gap, which `change` computes from its start and its old
/// gap. Returns whether there was one.
fn change_gap_after<T>(link: &mut Link<T>, address: usize, change: impl FnOnce(usize, usize) -> usize + Copy) -> bool {
    let Some(here) = link else { return false };
    let done = if here.start <= address {
        change_gap_after(&mut here.right, address, change)
    } else if change_gap_after(&mut here.left, address, change) {
        true
    } else {
        here.gap = change(here.start, here.gap);
        true
    };
    if done {
        here.refresh();
    }
    done
}

/// Restores the balance of a node whose subtrees are balanced and differ by at most two levels.
fn balance<T>(link: &mut Link<T>) {
    let Some(node) = link else { return };
    node.refresh();
    let (left, right) = (height(&node.left), height(&node.right));
    if left > right + 1 {
        if let Some(child) = &mut node.left
            && height(&child.right) > height(&child.left)
        {
            rotate_left(&mut node.left);
        }
        rotate_right(link);
    } else if right > left + 1 {
        if let Some(child) = &mut node.right
            && height(&child.left) > height(&child.right)
        {
            rotate_right(&mut node.right);
        }
        rotate_left(link);
    }
}

fn rotate_right<T>(link: &mut Link<T>) {
    let Some(mut node) = link.take() else { return };
    let Some(mut top) = node.left.take() else {
        *link = Some(node);
        return;
    };
    node.left = top.right.take();
    node.refresh();
    top.right = Some(node);
    top.refresh();
    *link = Some(top);
}

fn rotate_left<T>(link: &mut Link<T>) {
    let Some(mut node) = link.take() else { return };
    let Some(mut top) = node.right.take() else {
        *link = Some(node);
        return;
    };
    node.right = top.left.take();
    node.refresh();
    top.left = Some(node);
    top.refresh();
    *link = Some(top);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const UNIT: usize = 16;

    /// The lowest place, found by examining every gap in turn.
    fn model_place(areas: &BTreeMap<usize, usize>, bounds: Range<usize>, size: usize, align: usize) -> Option<usize> {
        let need = size + align - UNIT;
        let ends = std::iter::once(bounds.start).chain(areas.values().copied());
        let starts = areas.keys().copied().chain(std::iter::once(bounds.end));
        ends.zip(starts).find(|(end, start)| start - end >= need).map(|(end, _)| end.next_multiple_of(align))
    }

    proptest! {
        #[test]
        fn agrees_with_a_linear_search(
            ops in prop::collection::vec((0usize..3, 1usize..20, 0u32..4, any::<usize>()), 1..300)
        ) {
            let bounds = 4 * UNIT..400 * UNIT;
            let mut tree = AreaTree::new(bounds.clone());
            let mut model = BTreeMap::new();
            for (kind, units, align, pick) in ops {
                if kind < 2 {
                    let (size, align) = (units * UNIT, UNIT << align);
                    let want = model_place(&model, bounds.clone(), size, align);
                    let got = tree.insert(Box::new(Node::new(units)), size, align, UNIT).ok();
                    prop_assert_eq!(got, want);
                    if let Some(start) = got {
                        model.insert(start, start + size);
                    }
                } else if let Some((&start, &end)) = model.iter().nth(pick % model.len().max(1)) {
                    let node = tree.remove(start).expect("the model has it");
                    prop_assert_eq!(node.range(), start..end);
                    model.remove(&start);
                    prop_assert!(tree.remove(start).is_none());
                }
                tree.validate();
                prop_assert_eq!(tree.len(), model.len());
            }
            for address in (bounds.start - UNIT..bounds.end).step_by(UNIT / 2) {
                let want = model.range(..=address).next_back().filter(|&(_, &end)| address < end).map(|(&start, _)| start);
                prop_assert_eq!(tree.find(address).map(|node| node.start), want);
                prop_assert_eq!(tree.find_mut(address).map(|node| node.start), want);
                let next = model.iter().find(|&(_, &end)| end > address).map(|(&start, _)| start);
                prop_assert_eq!(tree.first_ending_after(address).map(|node| node.start), next);
            }
        }
    }

    #[test]
    fn a_large_tree_stays_flat() {
        let mut tree = AreaTree::new(0..usize::MAX / 2);
        for _ in 0..100_000 {
            tree.insert(Box::new(Node::new(())), UNIT, UNIT, UNIT).ok().unwrap();
        }
        tree.validate();
        assert!(tree.root.as_ref().unwrap().height <= 20, "AVL's bound is 1.44 log2(n)");
        for i in (0..100_000).step_by(2) {
            tree.remove(i * UNIT).unwrap();
        }
        tree.validate();
        // Only single holes in between: two units find their place at the end.
        assert_eq!(tree.insert(Box::new(Node::new(())), 2 * UNIT, UNIT, UNIT).ok(), Some(100_000 * UNIT));
    }
}
