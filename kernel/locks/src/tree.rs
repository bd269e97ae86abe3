//! A balanced tree (AVL) of items in the order of their keys, whose nodes carry a summary of their subtrees.
//!
//! Invariants: the heights of a node's two subtrees differ by at most 1; `sum` is the result of [`Item::sum`] for the
//! node's item and its children's sums. Every operation restores both on its way up. The recursion is as deep as the
//! tree is high: 1.44 log₂ n.

use alloc::boxed::Box;
use core::cmp::Ordering;

use quire_mm::fallible::{AllocError, try_box};

/// An item of a tree.
pub trait Item {
    /// The key. The keys of a tree are distinct.
    type Key: Ord;
    /// The summary of a subtree.
    type Sum;
    /// Its place.
    fn key(&self) -> Self::Key;
    /// The summary of this item and two subtrees.
    fn sum(&self, left: Option<&Self::Sum>, right: Option<&Self::Sum>) -> Self::Sum;
}

type Link<T> = Option<Box<Node<T>>>;

/// A node, which may or may not be in a tree.
pub struct Node<T: Item> {
    item: T,
    sum: T::Sum,
    height: u8,
    left: Link<T>,
    right: Link<T>,
}

impl<T: Item> Node<T> {
    /// A node of no tree.
    pub fn new(item: T) -> Result<Box<Self>, AllocError> {
        try_box(Self { sum: item.sum(None, None), item, height: 1, left: None, right: None })
    }

    /// Replaces the item of a node that is in no tree.
    pub fn set(&mut self, item: T) {
        self.sum = item.sum(None, None);
        self.item = item;
    }

    /// Its item.
    pub fn item(&self) -> &T {
        &self.item
    }

    /// The subtree of the lower keys.
    pub fn left(&self) -> Option<&Self> {
        self.left.as_deref()
    }

    /// The subtree of the higher keys.
    pub fn right(&self) -> Option<&Self> {
        self.right.as_deref()
    }

    /// The summary of its subtree.
    pub fn sum(&self) -> &T::Sum {
        &self.sum
    }

    fn update(&mut self) {
        self.height = 1 + height(&self.left).max(height(&self.right));
        self.sum = self.item.sum(sum(&self.left), sum(&self.right));
    }

    fn lean(&self) -> i32 {
        i32::from(height(&self.left)) - i32::from(height(&self.right))
    }
}

fn height<T: Item>(link: &Link<T>) -> u8 {
    link.as_ref().map_or(0, |node| node.height)
}

fn sum<T: Item>(link: &Link<T>) -> Option<&T::Sum> {
    link.as_ref().map(|node| &node.sum)
}

/// Rotates right: the left child takes the place of `link`'s node.
fn turn_right<T: Item>(link: &mut Link<T>) {
    let Some(mut top) = link.take() else { return };
    if let Some(mut left) = top.left.take() {
        top.left = left.right.take();
        top.update();
        left.right = Some(top);
        left.update();
        *link = Some(left);
    } else {
        *link = Some(top);
    }
}

fn turn_left<T: Item>(link: &mut Link<T>) {
    let Some(mut top) = link.take() else { return };
    if let Some(mut right) = top.right.take() {
        top.right = right.left.take();
        top.update();
        right.left = Some(top);
        right.update();
        *link = Some(right);
    } else {
        *link = Some(top);
    }
}

fn balance<T: Item>(link: &mut Link<T>) {
    let Some(node) = link else { return };
    node.update();
    match node.lean() {
        2.. => {
            if node.left.as_ref().is_some_and(|left| left.lean() < 0) {
                turn_left(&mut node.left);
            }
            turn_right(link);
        }
        ..=-2 => {
            if node.right.as_ref().is_some_and(|right| right.lean() > 0) {
                turn_right(&mut node.right);
            }
            turn_left(link);
        }
        _ => {}
    }
}

fn insert<T: Item>(link: &mut Link<T>, new: Box<Node<T>>) {
    match link {
        None => *link = Some(new),
        Some(node) => {
            insert(if new.item.key() < node.item.key() { &mut node.left } else { &mut node.right }, new);
            balance(link);
        }
    }
}

fn take_first<T: Item>(link: &mut Link<T>) -> Link<T> {
    let node = link.as_mut()?;
    if node.left.is_some() {
        let first = take_first(&mut node.left);
        balance(link);
        return first;
    }
    let mut first = link.take()?;
    *link = first.right.take();
    first.update();
    Some(first)
}

fn remove<T: Item>(link: &mut Link<T>, key: &T::Key) -> Link<T> {
    let node = link.as_mut()?;
    let removed = match key.cmp(&node.item.key()) {
        Ordering::Less => remove(&mut node.left, key),
        Ordering::Greater => remove(&mut node.right, key),
        Ordering::Equal => {
            let mut node = link.take()?;
            *link = match (node.left.take(), node.right.take()) {
                (left, None) => left,
                (None, right) => right,
                (left, mut right) => {
                    let next = take_first(&mut right);
                    next.map(|mut next| {
                        (next.left, next.right) = (left, right);
                        next
                    })
                }
            };
            node.update();
            Some(node)
        }
    };
    balance(link);
    removed
}

/// See the module.
pub struct Tree<T: Item> {
    root: Link<T>,
    len: usize,
}

impl<T: Item> Default for Tree<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Item> Tree<T> {
    /// Empty.
    pub const fn new() -> Self {
        Self { root: None, len: 0 }
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many items it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The root, from which all nodes can be reached.
    pub fn root(&self) -> Option<&Node<T>> {
        self.root.as_deref()
    }

    /// Inserts a node that is in no tree. Its key must be new.
    pub fn insert(&mut self, node: Box<Node<T>>) {
        debug_assert!(node.height == 1 && node.left.is_none() && node.right.is_none());
        insert(&mut self.root, node);
        self.len += 1;
    }

    /// Removes the node with a key.
    pub fn remove(&mut self, key: &T::Key) -> Link<T> {
        let removed = remove(&mut self.root, key);
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// The first item whose key is not below `key`.
    pub fn at_or_above(&self, key: &T::Key) -> Option<&T> {
        let (mut node, mut found) = (self.root(), None);
        while let Some(at) = node {
            if at.item.key() >= *key {
                (node, found) = (at.left(), Some(&at.item));
            } else {
                node = at.right();
            }
        }
        found
    }

    /// The last item whose key is below `key`.
    pub fn below(&self, key: &T::Key) -> Option<&T> {
        let (mut node, mut found) = (self.root(), None);
        while let Some(at) = node {
            if at.item.key() < *key {
                (node, found) = (at.right(), Some(&at.item));
            } else {
                node = at.left();
            }
        }
        found
    }

    /// Panics unless the invariants hold.
    #[cfg(test)]
    pub fn validate(&self)
    where
        T::Sum: PartialEq + core::fmt::Debug,
    {
        fn check<T: Item>(link: &Link<T>, count: &mut usize) -> u8
        where
            T::Sum: PartialEq + core::fmt::Debug,
        {
            let Some(node) = link else { return 0 };
            let (left, right) = (check(&node.left, count), check(&node.right, count));
            assert!(left.abs_diff(right) <= 1 && node.height == 1 + left.max(right));
            assert!(node.left.as_ref().is_none_or(|left| left.item.key() < node.item.key()));
            assert!(node.right.as_ref().is_none_or(|right| right.item.key() > node.item.key()));
            assert_eq!(node.sum, node.item.sum(sum(&node.left), sum(&node.right)));
            *count += 1;
            node.height
        }
        let mut count = 0;
        check(&self.root, &mut count);
        assert_eq!(count, self.len);
    }
}
