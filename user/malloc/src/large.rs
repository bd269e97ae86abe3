//! Free chunks of 1 KiB and more: 61 bins, each a bitwise trie keyed by size (as in Lea's allocator).
//!
//! A bin spans a quarter of a power of two. Inside it, each level of the trie looks at one bit of the size, from the highest
//! that can differ, so the depth is bounded by the number of bits and best fit needs no walk over a list. Chunks of
//! one size hang in a ring off the one that is in the trie.
//!
//! Links of a chunk here: 0 next and 1 previous in the ring, 2 and 3 children, 4 parent, 5 the bin's number.

use crate::chunk::Chunk;

/// The smallest size kept here.
pub const LARGE: usize = 1024;

/// Powers of two: the first bin's, and the first that has no bin of its own.
const LOW: u32 = LARGE.ilog2();
const HIGH: u32 = 25;
const BINS: usize = 4 * (HIGH - LOW) as usize + 1;
const NEXT: usize = 0;
const PREVIOUS: usize = 1;
const CHILD: usize = 2;
const PARENT: usize = 4;
const INDEX: usize = 5;

/// The parent of a root. A chunk in a ring but not in the trie has none at all.
const ROOT: Chunk = Chunk(core::ptr::without_provenance_mut(1));

/// The links of a free chunk do not agree with its neighbours'.
pub struct Damaged;

pub struct Large {
    map: u64,
    roots: [Chunk; BINS],
}

fn index(size: usize) -> usize {
    match size.checked_ilog2() {
        Some(k @ LOW..HIGH) => ((k - LOW) << 2) as usize + (size >> (k - 2) & 3),
        Some(HIGH..) => BINS - 1,
        _ => 0,
    }
}

/// How far to shift a size left so that the first bit the bin's sizes differ in is the top one.
fn first_bit(index: usize) -> u32 {
    if index == BINS - 1 { 0 } else { 63 - ((index as u32 >> 2) + LOW - 3) }
}

fn top_bit(bits: usize) -> usize {
    bits >> 63
}

fn leftmost_child(of: Chunk) -> Chunk {
    let left = of.link(CHILD);
    if left.is_none() { of.link(CHILD + 1) } else { left }
}

impl Large {
    pub const fn new() -> Large {
        Large { map: 0, roots: [Chunk::NONE; BINS] }
    }

    pub fn insert(&mut self, chunk: Chunk, size: usize) {
        let i = index(size);
        chunk.set_link(CHILD, Chunk::NONE);
        chunk.set_link(CHILD + 1, Chunk::NONE);
        chunk.set_link(NEXT, chunk);
        chunk.set_link(PREVIOUS, chunk);
        chunk.set_link(INDEX, Chunk(core::ptr::without_provenance_mut(i)));
        if self.map & 1 << i == 0 {
            self.map |= 1 << i;
            self.roots[i] = chunk;
            chunk.set_link(PARENT, ROOT);
            return;
        }
        let mut at = self.roots[i];
        let mut bits = size << first_bit(i);
        while at.size() != size {
            let child = CHILD + top_bit(bits);
            bits <<= 1;
            let below = at.link(child);
            if below.is_none() {
                at.set_link(child, chunk);
                chunk.set_link(PARENT, at);
                return;
            }
            at = below;
        }
        let next = at.link(NEXT);
        at.set_link(NEXT, chunk);
        next.set_link(PREVIOUS, chunk);
        chunk.set_link(NEXT, next);
        chunk.set_link(PREVIOUS, at);
        chunk.set_link(PARENT, Chunk::NONE);
    }

    /// The smallest chunk of at least `size` bytes.
    pub fn best(&self, size: usize) -> Option<Chunk> {
        let i = index(size);
        let (mut best, mut least) = (Chunk::NONE, usize::MAX);
        let mut at = Chunk::NONE;
        if self.map & 1 << i != 0 {
            at = self.roots[i];
            let mut bits = size << first_bit(i);
            let mut right = Chunk::NONE;
            loop {
                let have = at.size();
                if have >= size && have - size < least {
                    (best, least) = (at, have - size);
                    if least == 0 {
                        return Some(ring_member(best));
                    }
                }
                let larger = at.link(CHILD + 1);
                at = at.link(CHILD + top_bit(bits));
                if !larger.is_none() && larger != at {
                    right = larger;
                }
                if at.is_none() {
                    at = right;
                    break;
                }
                bits <<= 1;
            }
        }
        if at.is_none() && best.is_none() {
            let above = self.map & !((2u64 << i).wrapping_sub(1));
            if above != 0 {
                at = self.roots[above.trailing_zeros() as usize];
            }
        }
        while !at.is_none() {
            let have = at.size();
            if have >= size && have - size < least {
                (best, least) = (at, have - size);
            }
            at = leftmost_child(at);
        }
        best.some().map(ring_member)
    }

    pub fn remove(&mut self, chunk: Chunk) -> Result<(), Damaged> {
        let parent = chunk.link(PARENT);
        let mut heir = chunk.link(PREVIOUS);
        if heir != chunk {
            let next = chunk.link(NEXT);
            if !next.may_be_followed() || !heir.may_be_followed() {
                return Err(Damaged);
            }
            if next.link(PREVIOUS) != chunk || heir.link(NEXT) != chunk {
                return Err(Damaged);
            }
            next.set_link(PREVIOUS, heir);
            heir.set_link(NEXT, next);
        } else {
            heir = cut_leaf(chunk);
        }
        if parent.is_none() {
            return Ok(());
        }
        if parent == ROOT {
            let i = chunk.link(INDEX).0.addr();
            if i >= BINS || self.roots[i] != chunk {
                return Err(Damaged);
            }
            self.roots[i] = heir;
            if heir.is_none() {
                self.map &= !(1 << i);
            }
        } else if parent.link(CHILD) == chunk {
            parent.set_link(CHILD, heir);
        } else if parent.link(CHILD + 1) == chunk {
            parent.set_link(CHILD + 1, heir);
        } else {
            return Err(Damaged);
        }
        if !heir.is_none() {
            heir.set_link(PARENT, parent);
            heir.set_link(INDEX, chunk.link(INDEX));
            for side in [CHILD, CHILD + 1] {
                let child = chunk.link(side);
                heir.set_link(side, child);
                if !child.is_none() {
                    child.set_link(PARENT, heir);
                }
            }
        }
        Ok(())
    }

    /// Calls `f` with every chunk, in no particular order.
    pub fn each(&self, f: &mut impl FnMut(Chunk)) {
        for root in self.roots {
            each_below(root, f);
        }
    }
}

/// A chunk of `chunk`'s size whose removal leaves the trie alone, if there is one.
fn ring_member(chunk: Chunk) -> Chunk {
    chunk.link(NEXT)
}

/// Cuts some leaf below `chunk` and answers it; none if `chunk` is a leaf.
fn cut_leaf(chunk: Chunk) -> Chunk {
    let (mut above, mut side) = (chunk, CHILD + 1);
    let mut leaf = chunk.link(CHILD + 1);
    if leaf.is_none() {
        side = CHILD;
        leaf = chunk.link(CHILD);
    }
    if leaf.is_none() {
        return leaf;
    }
    loop {
        let right = leaf.link(CHILD + 1);
        let left = leaf.link(CHILD);
        let (next, next_side) = if right.is_none() { (left, CHILD) } else { (right, CHILD + 1) };
        if next.is_none() {
            break;
        }
        (above, side, leaf) = (leaf, next_side, next);
    }
    above.set_link(side, Chunk::NONE);
    leaf
}

fn each_below(root: Chunk, f: &mut impl FnMut(Chunk)) {
    if root.is_none() {
        return;
    }
    let mut member = root;
    loop {
        f(member);
        member = member.link(NEXT);
        if member == root {
            break;
        }
    }
    each_below(root.link(CHILD), f);
    each_below(root.link(CHILD + 1), f);
}
