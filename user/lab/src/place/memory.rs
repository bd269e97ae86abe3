//! Memory as a list of blocks: the structure behind dynamic partitions, compaction and segments.
//!
//! The blocks are sorted by address and cover memory without gaps. Two holes are never adjacent within a region: a
//! block that is freed is merged with its neighbours. There is one region, or several if the trace lists the initial
//! holes; the memory between regions is in use by others and is not shown.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::report::{Kind, Piece};

/// A block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its address.
    pub start: u64,
    /// Its size.
    pub size: u64,
    /// Its region.
    region: usize,
    /// Its state.
    pub state: State,
}

/// The state of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// A hole.
    Free,
    /// Free but not merged with other holes: on a list of quick fit.
    Kept,
    /// In use by the process, segment or block of this name.
    Used(String),
}

impl Block {
    /// The end address.
    pub fn end(&self) -> u64 {
        self.start + self.size
    }

    /// Whether the block is in use.
    pub fn is_used(&self) -> bool {
        matches!(self.state, State::Used(_))
    }
}

/// Memory.
#[derive(Clone, Debug)]
pub struct Memory {
    size: u64,
    blocks: Vec<Block>,
}

impl Memory {
    /// Creates memory of one hole for each region.
    pub fn new(regions: &[u64]) -> Memory {
        let mut memory = Memory { size: 0, blocks: Vec::new() };
        for (region, &size) in regions.iter().enumerate() {
            memory.blocks.push(Block { start: memory.size, size, region, state: State::Free });
            memory.size += size;
        }
        memory
    }

    /// All blocks, sorted by address.
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// The holes, each with its index in the list of blocks.
    pub fn holes(&self) -> impl Iterator<Item = (usize, &Block)> {
        self.blocks.iter().enumerate().filter(|(_, block)| block.state == State::Free)
    }

    /// The block of `name`.
    pub fn of(&self, name: &str) -> Option<&Block> {
        self.find(name).and_then(|index| self.blocks.get(index))
    }

    /// The number of free bytes, including kept blocks.
    pub fn free(&self) -> u64 {
        self.blocks.iter().filter(|block| !block.is_used()).map(|block| block.size).sum()
    }

    /// Allocates the first `size` bytes of a hole for `name`; the rest stays a hole. Returns the address.
    pub fn take(&mut self, hole: usize, name: &str, size: u64) -> u64 {
        let start = self.blocks[hole].start;
        self.take_at(start, name, size);
        start
    }

    /// Allocates the `size` bytes at `start` for `name` if all of them are in one hole; returns whether they are.
    pub fn take_at(&mut self, start: u64, name: &str, size: u64) -> bool {
        let holds = |hole: &Block| hole.start <= start && start + size <= hole.end();
        let Some((index, hole)) = self.holes().find(|(_, hole)| holds(hole)) else { return false };
        let Block { start: hole_start, region, .. } = *hole;
        let hole_end = hole.end();
        let parts = [
            Block { start: hole_start, size: start - hole_start, region, state: State::Free },
            Block { start, size, region, state: State::Used(name.to_owned()) },
            Block { start: start + size, size: hole_end - (start + size), region, state: State::Free },
        ];
        self.blocks.splice(index..=index, parts.into_iter().filter(|part| part.size > 0));
        true
    }

    /// Frees the block of `name` and merges it with adjacent holes. Returns the block.
    pub fn release(&mut self, name: &str) -> Option<Block> {
        let index = self.find(name)?;
        let block = self.blocks[index].clone();
        self.blocks[index].state = State::Free;
        self.join(index);
        Some(block)
    }

    /// Frees the block of `name` without merging it. Returns its address and size.
    pub fn keep(&mut self, name: &str) -> Option<(u64, u64)> {
        let index = self.find(name)?;
        self.blocks[index].state = State::Kept;
        Some((self.blocks[index].start, self.blocks[index].size))
    }

    /// Allocates the kept block at this address for `name`.
    pub fn reuse(&mut self, start: u64, name: &str) {
        let kept = self.blocks.iter_mut().find(|block| block.start == start && block.state == State::Kept);
        if let Some(block) = kept {
            block.state = State::Used(name.to_owned());
        }
    }

    /// Turns all kept blocks into holes.
    pub fn give_up_kept(&mut self) {
        while let Some(index) = self.blocks.iter().position(|block| block.state == State::Kept) {
            self.blocks[index].state = State::Free;
            self.join(index);
        }
    }

    /// Moves the block of `name` to an address; returns whether there was room. The ranges may overlap.
    pub fn relocate(&mut self, name: &str, to: u64) -> bool {
        let before = self.clone();
        let Some(block) = self.release(name) else { return false };
        if !self.take_at(to, name, block.size) {
            *self = before;
            return false;
        }
        true
    }

    /// The pieces for a picture.
    pub fn pieces(&self) -> Vec<Piece> {
        let kind = |state: &State| match state {
            State::Free => Kind::Free,
            State::Kept => Kind::Kept,
            State::Used(name) => Kind::Used { name: name.clone(), wasted: 0 },
        };
        self.blocks.iter().map(|b| Piece { start: b.start, size: b.size, kind: kind(&b.state) }).collect()
    }

    /// Checks that the blocks cover memory without gap or overlap, and that adjacent holes are merged.
    pub fn check(&self) -> Result<(), String> {
        let mut at = 0;
        let mut before: Option<&Block> = None;
        for block in &self.blocks {
            if block.start != at || block.size == 0 {
                return Err(format!("a block at {} where {at} was expected", block.start));
            }
            let are_one = |b: &Block| b.region == block.region && b.state == State::Free && block.state == State::Free;
            if before.is_some_and(are_one) {
                return Err(format!("two holes meet at {at}"));
            }
            at = block.end();
            before = Some(block);
        }
        if at == self.size { Ok(()) } else { Err(format!("memory ends at {at} and not at {}", self.size)) }
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.blocks.iter().position(|block| matches!(&block.state, State::Used(owner) if owner == name))
    }

    /// Merges a hole with the following and the preceding hole.
    fn join(&mut self, index: usize) {
        for first in [Some(index), index.checked_sub(1)].into_iter().flatten() {
            let [one, other, ..] = &self.blocks[first..] else { continue };
            if one.state == State::Free && other.state == State::Free && one.region == other.region {
                self.blocks[first].size += other.size;
                self.blocks.remove(first + 1);
            }
        }
    }
}
