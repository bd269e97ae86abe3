//! Segmentation: a program consists of a few segments (code, data, stack), each with a base and a limit.
//!
//! An address consists of a segment and an offset. The hardware reads the segment's entry, traps if the offset is not
//! below the limit, and adds the base. A segment is contiguous, so memory suffers from external fragmentation as with
//! dynamic partitions. If the trace gives no address, first fit chooses one.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::Error;
use crate::place::fits::holes;
use crate::place::memory::{Memory, State};
use crate::place::{Outcome, Placement, Translation, base_and_limit, play_all};
use crate::report::{Piece, Report};
use crate::trace::{Request, Trace};
use crate::units::Size;

/// Memory with segments.
pub struct Segments {
    memory: Memory,
}

impl Placement for Segments {
    fn name(&self) -> String {
        "segmentation".into()
    }

    fn place(&mut self, request: &Request) -> Result<Outcome, String> {
        if !request.frames.is_empty() {
            return Err("segmentation does not support 'in'".into());
        }
        let placed = match request.at {
            Some(start) => self.memory.take_at(start, &request.name, request.size),
            None => {
                let hole = self.memory.holes().find(|(_, hole)| hole.size >= request.size).map(|(index, _)| index);
                hole.map(|hole| self.memory.take(hole, &request.name, request.size)).is_some()
            }
        };
        Ok(if placed { Outcome::Placed(String::new()) } else { Outcome::Refused })
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
        for block in self.memory.blocks() {
            if let State::Used(name) = &block.state {
                report.notes.push(format!("segment {name}: base {}, limit {}", Size(block.start), Size(block.size)));
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        self.memory.check()
    }
}

/// Plays segmentation.
pub fn run(trace: &Trace) -> Result<Vec<Report>, Error> {
    play_all([Segments { memory: Memory::new(&holes(trace)?) }], trace)
}
