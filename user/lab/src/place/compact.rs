//! Compaction: moving blocks so that the holes between them become one.
//!
//! Compaction requires *dynamic relocation*. With *static relocation* the addresses of a program are bound when it is
//! loaded, so it cannot be moved. If the hardware compares each address with a limit register and adds a base register,
//! moving a program means copying it and changing its base.
//!
//! - *Static* never moves a block.
//! - *Slide* moves all blocks down to the bottom of memory, in order: simple, but it copies the most.
//! - *Evacuate* chooses the window of the requested size whose blocks are the cheapest to move into holes outside of
//!   it. Real kernels make contiguous memory for devices in this way. If sliding is cheaper, or no window can be
//!   emptied, it slides.
//!
//! Requests use first fit. Memory is compacted when no hole is large enough but the sum of all holes is.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::memory::{Block, Memory, State};
use super::{Outcome, Placement, Translation, base_and_limit, memory_of, play_all, reject_location};
use crate::Error;
use crate::report::{Measure, Piece, Report};
use crate::trace::{Request, Trace};
use crate::units::Size;

/// The strategy of compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// No block is ever moved.
    Static,
    /// All blocks move to the bottom.
    Slide,
    /// The window that is cheapest to empty is emptied.
    Evacuate,
}

/// The move of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Move {
    name: String,
    size: u64,
    to: u64,
}

/// Memory that is compacted when a request finds no hole.
pub struct Compact {
    strategy: Strategy,
    memory: Memory,
    moves: u64,
    moved: u64,
    notes: Vec<String>,
}

impl Compact {
    /// Creates memory of this size.
    pub fn new(strategy: Strategy, size: u64) -> Compact {
        Compact { strategy, memory: Memory::new(&[size]), moves: 0, moved: 0, notes: Vec::new() }
    }

    fn first_fit(&mut self, request: &Request) -> bool {
        let hole = self.memory.holes().find(|(_, hole)| hole.size >= request.size).map(|(index, _)| index);
        hole.map(|hole| self.memory.take(hole, &request.name, request.size)).is_some()
    }

    /// Compacts memory for a request of this size; returns the number of copied bytes.
    fn compact(&mut self, size: u64) -> u64 {
        let plan = match self.strategy {
            Strategy::Static => Vec::new(),
            Strategy::Slide => slide(&self.memory),
            Strategy::Evacuate => {
                let plans = cheapest_window(&self.memory, size).into_iter().chain([slide(&self.memory)]);
                plans.min_by_key(|plan| cost(plan)).unwrap_or_default()
            }
        };
        let before = self.moved;
        for Move { name, size, to } in plan {
            let from = self.memory.of(&name).map_or(0, |block| block.start);
            if self.memory.relocate(&name, to) {
                self.moves += 1;
                self.moved += size;
                self.notes.push(format!(
                    "{name} is moved ({} copied): base {} -> {}",
                    Size(size),
                    Size(from),
                    Size(to)
                ));
            }
        }
        self.moved - before
    }
}

/// The number of bytes that moves copy.
fn cost(plan: &[Move]) -> u64 {
    plan.iter().map(|step| step.size).sum()
}

/// The moves of all blocks to the bottom, in order of address. Each block moves down into space that is free by then.
fn slide(memory: &Memory) -> Vec<Move> {
    let mut bottom = 0;
    let mut plan = Vec::new();
    for block in memory.blocks() {
        if let State::Used(name) = &block.state {
            if block.start != bottom {
                plan.push(Move { name: name.clone(), size: block.size, to: bottom });
            }
            bottom += block.size;
        }
    }
    plan
}

/// The moves that empty the window of `size` bytes that has the least in it; the lowest one among equals. None if what
/// is in each window has no room outside of it. A window begins or ends where a block does.
fn cheapest_window(memory: &Memory, size: u64) -> Option<Vec<Move>> {
    let end = memory.blocks().last()?.end();
    let starts = memory.blocks().iter().flat_map(|block| [Some(block.start), block.end().checked_sub(size)]);
    let mut windows: Vec<u64> = starts.flatten().filter(|start| start + size <= end).collect();
    windows.sort_unstable();
    windows.dedup();
    let plans = windows.into_iter().filter_map(|start| empty(memory, start, start + size));
    plans.min_by_key(|plan| cost(plan))
}

/// The moves that empty the window from `start` to `end`: the largest block first, each into the smallest hole outside
/// that holds it.
fn empty(memory: &Memory, start: u64, end: u64) -> Option<Vec<Move>> {
    let overlaps = |block: &&Block| block.is_used() && block.start < end && start < block.end();
    let mut inside: Vec<&Block> = memory.blocks().iter().filter(overlaps).collect();
    inside.sort_by_key(|block| core::cmp::Reverse(block.size));
    // The parts of a hole below and above the window, as address and size.
    let parts = |hole: &Block| {
        let below = (hole.start, hole.end().min(start).saturating_sub(hole.start));
        let above = (hole.start.max(end), hole.end().saturating_sub(hole.start.max(end)));
        [below, above]
    };
    let mut room: Vec<(u64, u64)> = memory.holes().flat_map(|(_, hole)| parts(hole)).collect();
    let mut plan = Vec::new();
    for block in inside {
        let State::Used(name) = &block.state else { continue };
        let (at, left) = room.iter_mut().filter(|(_, left)| *left >= block.size).min_by_key(|(_, left)| *left)?;
        plan.push(Move { name: name.clone(), size: block.size, to: *at });
        *at += block.size;
        *left -= block.size;
    }
    Some(plan)
}

impl Placement for Compact {
    fn name(&self) -> String {
        match self.strategy {
            Strategy::Static => "static relocation",
            Strategy::Slide => "dynamic, slide",
            Strategy::Evacuate => "dynamic, evacuate",
        }
        .to_string()
    }

    fn place(&mut self, request: &Request) -> Result<Outcome, String> {
        reject_location("compaction", request)?;
        if self.first_fit(request) {
            return Ok(Outcome::Placed(String::new()));
        }
        if self.strategy == Strategy::Static || self.memory.free() < request.size {
            return Ok(Outcome::Refused);
        }
        let moved = self.compact(request.size);
        let placed = self.first_fit(request);
        Ok(if placed { Outcome::Placed(format!("{} copied", Size(moved))) } else { Outcome::Refused })
    }

    fn release(&mut self, name: &str) -> String {
        self.memory.release(name);
        String::new()
    }

    fn pieces(&self) -> Vec<Piece> {
        self.memory.pieces()
    }

    fn translate(&self, space: &str, address: u64) -> Option<Translation> {
        self.memory.of(space).map(|block| base_and_limit(block.start, block.size, address))
    }

    fn tell(&self, report: &mut Report) {
        report.count(Measure::Moves, self.moves);
        report.bytes(Measure::Moved, self.moved);
        report.notes.extend(self.notes.iter().cloned());
    }

    fn check(&self) -> Result<(), String> {
        self.memory.check()
    }
}

/// Plays the three strategies.
pub fn run(trace: &Trace) -> Result<Vec<Report>, Error> {
    let memory = memory_of(trace)?;
    let strategies = [Strategy::Static, Strategy::Slide, Strategy::Evacuate];
    play_all(strategies.map(|strategy| Compact::new(strategy, memory)), trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Allocates blocks of these sizes from the bottom, and frees those with names in lower case.
    fn memory(size: u64, blocks: &[(&str, u64)]) -> Memory {
        let mut memory = Memory::new(&[size]);
        let mut at = 0;
        for (name, size) in blocks {
            assert!(memory.take_at(at, name, *size));
            at += size;
        }
        for (name, _) in blocks.iter().filter(|(name, _)| name.chars().all(char::is_lowercase)) {
            memory.release(name);
        }
        memory
    }

    #[test]
    fn a_block_may_slide_over_itself() {
        let mut compact = Compact::new(Strategy::Slide, 10);
        compact.memory = memory(10, &[("a", 2), ("B", 5), ("c", 3)]);
        assert_eq!(compact.compact(5), 5);
        assert_eq!(compact.memory.of("B").map(|block| block.start), Some(0));
    }

    #[test]
    fn a_window_that_cannot_be_emptied_is_not_chosen() {
        // No window of 6 leaves room for B outside: only sliding helps.
        assert_eq!(cheapest_window(&memory(10, &[("a", 3), ("B", 4), ("c", 3)]), 6), None);
        // Ties go to the lowest window.
        let plan = cheapest_window(&memory(20, &[("a", 3), ("B", 1), ("c", 6), ("D", 10)]), 7).unwrap();
        assert_eq!(plan, [Move { name: "B".into(), size: 1, to: 7 }]);
    }

    #[test]
    fn a_block_moves_into_the_smallest_hole_that_holds_it() {
        let memory = memory(20, &[("a", 5), ("X", 1), ("b", 3), ("Y", 1), ("C", 3), ("d", 7)]);
        assert_eq!(empty(&memory, 10, 20), Some([Move { name: "C".into(), size: 3, to: 6 }].to_vec()));
    }
}
