//! The pages of an object, by index: a radix tree of 64-way nodes, as high as its highest index needs. It stores words,
//! of which 0 means nothing ([`held`](super::held) defines the others).
//!
//! A word may be *marked*: a bit in its leaf, and one in each node above it. So the next marked word is found in
//! O(height), and marking needs no memory.

use alloc::boxed::Box;

use crate::cgroup::Machine;
use crate::fallible::AllocError;
use crate::supply::Supply;

const BITS: u32 = 6;
const WAYS: usize = 1 << BITS;

/// The maximum number of nodes that one search visits: more than the levels of the highest tree, so that it makes
/// progress.
const NODES: usize = 80;

struct Node {
    /// The ways that are marked, or have a marked word below them.
    marks: u64,
    ways: Ways,
}

enum Ways {
    Inner([Option<Box<Node>>; WAYS]),
    /// Words; 0 for nothing.
    Leaf([u64; WAYS]),
}

impl Node {
    fn inner() -> Self {
        Self { marks: 0, ways: Ways::Inner([const { None }; WAYS]) }
    }

    fn leaf() -> Self {
        Self { marks: 0, ways: Ways::Leaf([0; WAYS]) }
    }
}

/// See the module.
pub struct Radix {
    root: Option<Box<Node>>,
    /// Levels below the root.
    height: u32,
    nodes: u32,
}

/// The number of bits that a tree with this many levels below its root resolves.
#[inline]
const fn reach(height: u32) -> u32 {
    BITS * (height + 1)
}

impl Radix {
    /// An empty tree.
    pub const fn new() -> Self {
        Self { root: None, height: 0, nodes: 0 }
    }

    /// How many nodes it has.
    #[inline]
    pub fn nodes(&self) -> usize {
        self.nodes as usize
    }

    /// The word at `index`, if it is not 0.
    pub fn get(&self, index: usize) -> Option<u64> {
        if index.checked_shr(reach(self.height)).unwrap_or(0) != 0 {
            return None;
        }
        let mut node = self.root.as_deref()?;
        let mut shift = BITS * self.height;
        loop {
            let way = index >> shift & (WAYS - 1);
            match &node.ways {
                Ways::Leaf(words) => return Some(words[way]).filter(|word| *word != 0),
                Ways::Inner(nodes) => node = nodes[way].as_deref()?,
            }
            shift -= BITS;
        }
    }

    /// The place of the word at `index`, allocated if necessary.
    pub fn place<M: Machine>(&mut self, index: usize, supply: &Supply<M>) -> Result<&mut u64, AllocError> {
        while index.checked_shr(reach(self.height)).unwrap_or(0) != 0 {
            if self.root.is_some() {
                let mut top = supply.boxed(Node::inner)?;
                self.nodes += 1;
                top.marks = u64::from(self.root.as_ref().is_some_and(|root| root.marks != 0));
                if let Ways::Inner(nodes) = &mut top.ways {
                    nodes[0] = self.root.take();
                }
                self.root = Some(top);
            }
            self.height += 1;
        }
        let mut place = &mut self.root;
        let mut level = self.height;
        loop {
            let node = match place {
                Some(node) => node,
                None => {
                    let made = match level {
                        0 => supply.boxed(Node::leaf)?,
                        _ => supply.boxed(Node::inner)?,
                    };
                    self.nodes += 1;
                    place.insert(made)
                }
            };
            let way = index >> (BITS * level) & (WAYS - 1);
            match &mut node.ways {
                Ways::Leaf(words) => return Ok(&mut words[way]),
                Ways::Inner(nodes) => place = &mut nodes[way],
            }
            level -= 1;
        }
    }

    /// Searches for the first word that is not 0, at `index` or above, in at most [`NODES`] nodes: nodes that were
    /// emptied stay, and there may be many.
    pub fn next(&self, index: usize) -> Next {
        fn walk(node: &Node, index: usize, shift: u32, left: &mut usize) -> Next {
            let first = index >> shift;
            let Some(less) = left.checked_sub(1) else { return Next::Later(index) };
            *left = less;
            match &node.ways {
                Ways::Leaf(words) => {
                    let way = (first..WAYS).find(|way| words[*way] != 0);
                    way.map_or(Next::Nothing, |way| Next::Word(way, words[way]))
                }
                Ways::Inner(nodes) => {
                    for (way, node) in nodes.iter().enumerate().skip(first) {
                        // Below the first way the search begins at the index, below the others at 0.
                        let rest = if way == first { index & ((1 << shift) - 1) } else { 0 };
                        let Some(node) = node.as_deref() else { continue };
                        match walk(node, rest, shift - BITS, left) {
                            Next::Nothing => {}
                            Next::Word(found, word) => return Next::Word(way << shift | found, word),
                            Next::Later(from) => return Next::Later(way << shift | from),
                        }
                    }
                    Next::Nothing
                }
            }
        }
        match self.root.as_deref() {
            Some(root) if index.checked_shr(reach(self.height)).unwrap_or(0) == 0 => {
                walk(root, index, BITS * self.height, &mut { NODES })
            }
            _ => Next::Nothing,
        }
    }

    /// Sets the word at `index` to 0 and unmarks it; returns whether it was marked. The nodes stay.
    pub fn take(&mut self, index: usize) -> bool {
        let Some(place) = self.get_mut(index) else { return false };
        *place = 0;
        self.has_marks() && self.set_mark(index, false)
    }

    fn has_marks(&self) -> bool {
        self.root.as_ref().is_some_and(|root| root.marks != 0)
    }

    /// Sets or clears the mark of the word at `index`, if there is a leaf for it; returns whether it was marked before.
    pub fn set_mark(&mut self, index: usize, on: bool) -> bool {
        fn walk(node: &mut Node, index: usize, shift: u32, on: bool) -> bool {
            let bit = 1 << (index >> shift & (WAYS - 1));
            let (was, is) = match &mut node.ways {
                Ways::Leaf(_) => (node.marks & bit != 0, on),
                Ways::Inner(nodes) => {
                    let Some(below) = nodes[index >> shift & (WAYS - 1)].as_deref_mut() else { return false };
                    (walk(below, index, shift - BITS, on), below.marks != 0)
                }
            };
            node.marks = node.marks & !bit | if is { bit } else { 0 };
            was
        }
        match self.root.as_deref_mut() {
            Some(root) if index.checked_shr(reach(self.height)).unwrap_or(0) == 0 => {
                walk(root, index, BITS * self.height, on)
            }
            _ => false,
        }
    }

    /// Whether the word at `index` is marked.
    pub fn is_marked(&self, index: usize) -> bool {
        self.next_marked(index) == Some(index)
    }

    /// The first marked word at `index` or above.
    pub fn next_marked(&self, index: usize) -> Option<usize> {
        fn walk(node: &Node, index: usize, shift: u32) -> Option<usize> {
            let first = index >> shift;
            let mut left = node.marks & (u64::MAX << first);
            while left != 0 {
                let way = left.trailing_zeros() as usize;
                left &= left - 1;
                let found = match &node.ways {
                    Ways::Leaf(_) => Some(0),
                    Ways::Inner(nodes) => {
                        let rest = if way == first { index & ((1 << shift) - 1) } else { 0 };
                        nodes[way].as_deref().and_then(|below| walk(below, rest, shift - BITS))
                    }
                };
                if let Some(found) = found {
                    return Some(way << shift | found);
                }
            }
            None
        }
        let root = self.root.as_deref().filter(|_| index.checked_shr(reach(self.height)).unwrap_or(0) == 0)?;
        walk(root, index, BITS * self.height)
    }

    /// The place of the word at `index`, if there is one.
    pub fn get_mut(&mut self, index: usize) -> Option<&mut u64> {
        if index.checked_shr(reach(self.height)).unwrap_or(0) != 0 {
            return None;
        }
        let mut node = self.root.as_deref_mut()?;
        let mut shift = BITS * self.height;
        loop {
            let way = index >> shift & (WAYS - 1);
            match &mut node.ways {
                Ways::Leaf(words) => return Some(&mut words[way]),
                Ways::Inner(nodes) => node = nodes[way].as_deref_mut()?,
            }
            shift -= BITS;
        }
    }

    /// Takes out all words, by index, and frees the nodes: `see` gets at most 64 words at a time, including zeros. The
    /// depth of the recursion is at most 11.
    pub fn drain(&mut self, mut see: impl FnMut(&[u64])) {
        fn walk(node: Box<Node>, see: &mut impl FnMut(&[u64])) {
            match node.ways {
                Ways::Leaf(words) => see(&words),
                Ways::Inner(nodes) => nodes.into_iter().flatten().for_each(|node| walk(node, see)),
            }
        }
        if let Some(root) = self.root.take() {
            walk(root, &mut see);
        }
        (self.height, self.nodes) = (0, 0);
    }
}

/// The result of [`Radix::next`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A word, and its index.
    Word(usize, u64),
    /// There is none.
    Nothing,
    /// None yet: the search must continue there.
    Later(usize),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn next(tree: &Radix, mut at: usize) -> Option<(usize, u64)> {
        loop {
            match tree.next(at) {
                Next::Word(index, word) => return Some((index, word)),
                Next::Nothing => return None,
                Next::Later(from) => {
                    assert!(from > at, "it goes on");
                    at = from;
                }
            }
        }
    }

    #[test]
    fn a_search_through_what_was_emptied_is_cut_into_pieces() {
        let supply = Supply::new(crate::sim::Sim::with_mib(16));
        let mut tree = Radix::new();
        for leaf in 0..200 {
            *tree.place(leaf * WAYS + 5, &supply).unwrap() = 1;
            tree.take(leaf * WAYS + 5);
        }
        *tree.place(300 * WAYS + 7, &supply).unwrap() = 9;
        assert_eq!(pieces(&tree, 3), (Next::Word(300 * WAYS + 7, 9), 3));
        assert_eq!(pieces(&tree, 300 * WAYS + 8), (Next::Nothing, 1));
        tree.drain(|_| {});
    }

    /// Nodes without leaves count as well: here there are ten for each leaf.
    #[test]
    fn a_search_through_a_sparse_tree_is_cut_into_pieces() {
        let supply = Supply::new(crate::sim::Sim::with_mib(16));
        let mut tree = Radix::new();
        const APART: usize = 1 << 54;
        for leaf in 0..100 {
            *tree.place(leaf * APART, &supply).unwrap() = 1;
            tree.take(leaf * APART);
        }
        let (found, pieces) = pieces(&tree, 0);
        assert!(found == Next::Nothing && pieces >= tree.nodes as usize / NODES, "{pieces} for {} nodes", tree.nodes);
        tree.drain(|_| {});
    }

    /// Searches until the end, while each piece must make progress; returns what was found, and in how many pieces.
    fn pieces(tree: &Radix, mut at: usize) -> (Next, usize) {
        for n in 1.. {
            match tree.next(at) {
                Next::Later(from) => {
                    assert!(from > at);
                    at = from;
                }
                end => return (end, n),
            }
        }
        unreachable!()
    }

    #[test]
    fn a_sparse_set_of_indices_is_found_again() {
        let supply = Supply::new(crate::sim::Sim::with_mib(16));
        let mut tree = Radix::new();
        let mut model = BTreeMap::new();
        let mut seed = 1_u64;
        for n in 1..2000_u64 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let index = (seed >> 33) as usize & ((1 << (seed >> 59)) - 1);
            *tree.place(index, &supply).unwrap() = n;
            model.insert(index, n);
            assert_eq!(tree.get(index), Some(n));
        }
        for index in 0..5000 {
            assert_eq!(tree.get(index), model.get(&index).copied());
        }
        for _ in 0..2 {
            let mut at = 0;
            for (index, frame) in &model {
                assert_eq!(next(&tree, at), Some((*index, *frame)));
                at = index + 1;
            }
            assert_eq!(next(&tree, at), None);
            model.retain(|index, frame| {
                if *frame % 3 == 0 {
                    tree.take(*index);
                }
                *frame % 3 != 0
            });
        }
        let mut seen = Vec::new();
        tree.drain(|frames| seen.extend(frames.iter().copied().filter(|frame| *frame != 0)));
        assert_eq!(seen, model.values().copied().collect::<Vec<_>>());
        assert_eq!((tree.nodes(), tree.get(0)), (0, None));
    }

    /// Compares marks with a set: they are set and cleared, also while the tree grows higher.
    #[test]
    fn marks_are_found_in_order() {
        let supply = Supply::new(crate::sim::Sim::with_mib(16));
        let mut tree = Radix::new();
        let mut model = std::collections::BTreeSet::new();
        let mut seed = 7_u64;
        for round in 0..4000 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let bits = 1 + (round / 250) as u32;
            let index = (seed >> 33) as usize & ((1 << bits) - 1);
            match seed >> 30 & 7 {
                0 => {
                    tree.take(index);
                    model.remove(&index);
                }
                1 | 2 => assert_eq!(tree.set_mark(index, false), model.remove(&index)),
                3 => {
                    // Only a word that has a leaf can be marked.
                    if tree.get(index).is_some() {
                        assert_eq!(tree.set_mark(index, true), !model.insert(index));
                    }
                }
                _ => {
                    *tree.place(index, &supply).unwrap() = 1;
                    assert_eq!(tree.set_mark(index, true), !model.insert(index));
                }
            }
            let from = (seed >> 20) as usize & ((1 << bits) - 1);
            assert_eq!(tree.next_marked(from), model.range(from..).next().copied());
            assert_eq!(tree.is_marked(from), model.contains(&from));
        }
        assert!(!model.is_empty());
        tree.drain(|_| {});
        assert_eq!(tree.next_marked(0), None);
    }
}
