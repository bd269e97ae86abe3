//! Dynamic partitions: each request takes the beginning of a hole that is large enough. The fits differ in the choice:
//!
//! - *First fit*: the first such hole from the bottom of memory.
//! - *Next fit*: the first such hole after the end of the previous search, wrapping around.
//! - *Best fit*: the smallest such hole, so that the remainder is as small as possible.
//! - *Worst fit*: the largest hole, so that the remainder is still useful.
//!
//! Ties go to the lower address. Knuth (The Art of Computer Programming, volume 1, section 2.5) and Shore (1975)
//! compare them.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::Cell;
use core::cmp::Reverse;

use super::memory::Memory;
use super::{Outcome, Placement, Translation, base_and_limit, memory_of, play_all};
use crate::report::{Measure, Piece, Report};
use crate::trace::{Request, Setting, Trace};
use crate::{Error, place::quick};

/// The choice of a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// The first hole that is large enough.
    First,
    /// The first hole that is large enough after the previous search.
    Next,
    /// The smallest hole that is large enough.
    Best,
    /// The largest hole.
    Worst,
}

impl Fit {
    /// All of them.
    pub const ALL: [Fit; 4] = [Fit::First, Fit::Next, Fit::Best, Fit::Worst];

    fn name(self) -> &'static str {
        match self {
            Fit::First => "first fit",
            Fit::Next => "next fit",
            Fit::Best => "best fit",
            Fit::Worst => "worst fit",
        }
    }
}

/// Memory in dynamic partitions.
pub struct Fits {
    fit: Fit,
    memory: Memory,
    /// The address at which the last search of next fit ended.
    rover: u64,
    /// The number of examined holes.
    searched: u64,
}

impl Fits {
    /// Creates memory with these initial holes.
    pub fn new(fit: Fit, holes: &[u64]) -> Fits {
        Fits { fit, memory: Memory::new(holes), rover: 0, searched: 0 }
    }

    /// The index of the block that is chosen for a request.
    fn choose(&mut self, size: u64) -> Option<usize> {
        let looked_at = Cell::new(0);
        let holes = || self.memory.holes().inspect(|_| looked_at.set(looked_at.get() + 1));
        let is_enough = |hole: &(usize, &super::memory::Block)| hole.1.size >= size;
        let chosen = match self.fit {
            Fit::First => holes().find(is_enough),
            Fit::Best => holes().filter(is_enough).min_by_key(|(_, hole)| hole.size),
            Fit::Worst => holes().filter(is_enough).max_by_key(|&(index, hole)| (hole.size, Reverse(index))),
            Fit::Next => {
                let rover = self.rover;
                let (ahead, behind): (Vec<_>, Vec<_>) = self.memory.holes().partition(|(_, hole)| hole.end() > rover);
                ahead.into_iter().chain(behind).inspect(|_| looked_at.set(looked_at.get() + 1)).find(is_enough)
            }
        };
        let index = chosen.map(|(index, _)| index);
        self.searched += looked_at.get();
        index
    }
}

impl Placement for Fits {
    fn name(&self) -> String {
        self.fit.name().to_string()
    }

    fn place(&mut self, request: &Request) -> Result<Outcome, String> {
        if let Some(start) = request.at {
            let placed = self.memory.take_at(start, &request.name, request.size);
            return Ok(if placed { Outcome::Placed(String::new()) } else { Outcome::Refused });
        }
        super::reject_location(self.fit.name(), request)?;
        let Some(hole) = self.choose(request.size) else { return Ok(Outcome::Refused) };
        let start = self.memory.take(hole, &request.name, request.size);
        self.rover = start + request.size;
        Ok(Outcome::Placed(String::new()))
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
        report.count(Measure::Searched, self.searched);
    }

    fn check(&self) -> Result<(), String> {
        self.memory.check()
    }
}

/// The initial holes of a trace.
pub fn holes(trace: &Trace) -> Result<Vec<u64>, Error> {
    match trace.settings.list(Setting::Partitions) {
        Some(partitions) => Ok(partitions.to_vec()),
        None => Ok(Vec::from([memory_of(trace)?])),
    }
}

/// Plays the four fits and quick fit.
pub fn run(trace: &Trace) -> Result<Vec<Report>, Error> {
    let holes = holes(trace)?;
    let mut reports = play_all(Fit::ALL.map(|fit| Fits::new(fit, &holes)), trace)?;
    reports.extend(quick::run(trace)?);
    Ok(reports)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The addresses of requests of these sizes.
    fn starts(fit: Fit, holes: &[u64], sizes: &[u64]) -> Vec<Option<u64>> {
        let mut scheme = Fits::new(fit, holes);
        let place = |(number, &size): (usize, &u64)| {
            let name = number.to_string();
            scheme.place(&Request { name: name.clone(), size, ..Request::default() }).unwrap();
            scheme.memory.of(&name).map(|block| block.start)
        };
        sizes.iter().enumerate().map(place).collect()
    }

    #[test]
    fn next_fit_goes_around() {
        assert_eq!(starts(Fit::Next, &[10, 10], &[6, 6, 4, 4, 1]), [Some(0), Some(10), Some(16), Some(6), None]);
    }

    #[test]
    fn among_equals_the_lower_address_wins() {
        for fit in Fit::ALL {
            assert_eq!(starts(fit, &[5, 5, 5], &[5]), [Some(0)], "{fit:?}");
        }
    }
}
