//! Compaction: moving what is in memory, so that holes become one.
//!
//! It needs *dynamic relocation*. A program whose addresses were bound when it was loaded (*static relocation*) is full of
//! them and cannot be moved. If the hardware adds a base register to every address, after comparing it with a limit register,
//! then moving a program means copying it and changing its base.
//!
//! - *Static* never moves anything.
//! - *Slide* moves everything down to the bottom of memory, in order: simple, and the most to copy.
//! - *Evacuate* looks for the window of the size that is asked for whose blocks are the cheapest to move into holes outside of
//!   it. Contiguous memory for devices is made so on real kernels. If no window can be emptied for less, it slides.
//!
//! Requests take the first hole that is large enough. Memory is compacted when none is and all holes together would be.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::memory::{Block, Memory, State};
use super::{Outcome, Placement, Translation, base_and_limit, chooses_itself, memory_of, play_all};
use crate::Error;
use crate::report::{Measure, Piece, Report};
use crate::trace::{Request, Trace};
use crate::units::Size;

/// How memory is compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Never.
    Static,
    /// Everything goes to the bottom.
    Slide,
    /// The cheapest window is emptied.
    Evacuate,
}

/// A block that is to be moved.
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
    /// Memory of this size.
    pub fn new(strategy: Strategy, size: u64) -> Compact {
        Compact { strategy, memory: Memory::new(&[size]), moves: 0, moved: 0, notes: Vec::new() }
    }

    fn first_fit(&mut self, request: &Request) -> bool {
        let hole = self.memory.holes().find(|(_, hole)| hole.size >= request.size).map(|(index, _)| index);
        hole.map(|hole| self.memory.take(hole, &request.name, request.size)).is_some()
    }

    /// Makes a hole of this size out of all holes; answers how many bytes were copied.
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
                    "{name} moves, {} are copied: base {} -> {}",
                    Size(size),
                    Size(from),
                    Size(to)
                ));
            }
        }
        self.moved - before
    }
}

/// Bytes that moves copy.
fn cost(plan: &[Move]) -> u64 {
    plan.iter().map(|step| step.size).sum()
}

/// The moves that bring all blocks down to the bottom. Each goes below where it is, into what those before it have left.
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

/// The moves that empty the window of `size` bytes that has the least in it; the lowest one among equals. None if what is in
/// each window has no room outside of it. A window begins or ends where a block does.
fn cheapest_window(memory: &Memory, size: u64) -> Option<Vec<Move>> {
    let end = memory.blocks().last()?.end();
    let starts = memory.blocks().iter().flat_map(|block| [Some(block.start), block.end().checked_sub(size)]);
    let mut windows: Vec<u64> = starts.flatten().filter(|start| start + size <= end).collect();
    windows.sort_unstable();
    windows.dedup();
    let plans = windows.into_iter().filter_map(|start| empty(memory, start, start + size));
    plans.min_by_key(|plan| cost(plan))
}

/// The moves that empty the window from `start` to `end`: the largest block first, each into the smallest hole outside that
/// holds it.
fn empty(memory: &Memory, start: u64, end: u64) -> Option<Vec<Move>> {
    let overlaps = |block: &&Block| block.is_used() && block.start < end && start < block.end();
    let mut inside: Vec<&Block> = memory.blocks().iter().filter(overlaps).collect();
    inside.sort_by_key(|block| core::cmp::Reverse(block.size));
    // What of each hole is below the window, and what is above it, as an address and a size.
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
        chooses_itself("compaction", request)?;
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

/// The three strategies, side by side.
pub fn run(trace: &Trace) -> Result<Vec<Report>, Error> {
    let memory = memory_of(trace)?;
    let strategies = [Strategy::Static, Strategy::Slide, Strategy::Evacuate];
    play_all(strategies.map(|strategy| Compact::new(strategy, memory)), trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of these sizes from the bottom; those in small letters are freed again.
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
        // B has no room outside of any window of 6: only sliding helps.
        assert_eq!(cheapest_window(&memory(10, &[("a", 3), ("B", 4), ("c", 3)]), 6), None);
        // Among equals the lowest window is emptied.
        let plan = cheapest_window(&memory(20, &[("a", 3), ("B", 1), ("c", 6), ("D", 10)]), 7).unwrap();
        assert_eq!(plan, [Move { name: "B".into(), size: 1, to: 7 }]);
    }
}
