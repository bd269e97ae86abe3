//! Quick fit: free lists for the most frequently requested sizes.
//!
//! A freed block of such a size is not merged with its neighbours but kept on the list of its size. The next request of
//! exactly this size takes it from there without a search. Requests of other sizes use first fit. If that fails, all
//! lists are emptied, their blocks become holes, and the search is repeated. The kept blocks are the price: they
//! fragment memory. See Weinstock and Wulf, "Quick Fit: an efficient algorithm for heap storage allocation" (1988).

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::fits::holes;
use super::memory::Memory;
use super::{Outcome, Placement, play, reject_location};
use crate::Error;
use crate::report::{Measure, Piece, Report};
use crate::trace::{Event, Request, Setting, Trace};
use crate::units::Size;

/// The number of lists if the trace does not name sizes.
const LISTS: usize = 4;

/// Memory in dynamic partitions, with free lists.
pub struct QuickFit {
    memory: Memory,
    /// The addresses of the kept blocks of each size; the last one is reused first.
    lists: BTreeMap<u64, Vec<u64>>,
    searched: u64,
    reused: u64,
}

impl QuickFit {
    /// Creates memory with these initial holes, and lists for these sizes.
    pub fn new(holes: &[u64], sizes: &[u64]) -> QuickFit {
        let lists = sizes.iter().map(|&size| (size, Vec::new())).collect();
        QuickFit { memory: Memory::new(holes), lists, searched: 0, reused: 0 }
    }

    fn first_fit(&mut self, request: &Request) -> bool {
        let mut looked_at = 0;
        let mut holes = self.memory.holes().inspect(|_| looked_at += 1);
        let found = holes.find(|(_, hole)| hole.size >= request.size).map(|(index, _)| index);
        drop(holes);
        self.searched += looked_at;
        found.map(|hole| self.memory.take(hole, &request.name, request.size)).is_some()
    }
}

impl Placement for QuickFit {
    fn name(&self) -> String {
        "quick fit".into()
    }

    fn place(&mut self, request: &Request) -> Result<Outcome, String> {
        reject_location("quick fit", request)?;
        if let Some(start) = self.lists.get_mut(&request.size).and_then(Vec::pop) {
            self.memory.reuse(start, &request.name);
            self.reused += 1;
            return Ok(Outcome::Placed("from a list".into()));
        }
        if self.first_fit(request) {
            return Ok(Outcome::Placed(String::new()));
        }
        self.memory.give_up_kept();
        self.lists.values_mut().for_each(Vec::clear);
        let found = self.first_fit(request);
        Ok(if found { Outcome::Placed("lists given up".into()) } else { Outcome::Refused })
    }

    fn release(&mut self, name: &str) -> String {
        let size = self.memory.of(name).map_or(0, |block| block.size);
        match self.lists.get_mut(&size) {
            Some(list) => {
                list.extend(self.memory.keep(name).map(|(start, _)| start));
                "to a list".into()
            }
            None => {
                self.memory.release(name);
                String::new()
            }
        }
    }

    fn pieces(&self) -> Vec<Piece> {
        self.memory.pieces()
    }

    fn tell(&self, report: &mut Report) {
        report.count(Measure::Searched, self.searched);
        report.count(Measure::Reused, self.reused);
        let sizes: Vec<String> = self.lists.keys().map(|&size| format!("{}", Size(size))).collect();
        report.notes.push(match sizes.is_empty() {
            true => "no lists: no size is requested twice".into(),
            false => format!("lists for {}", sizes.join(", ")),
        });
    }

    fn check(&self) -> Result<(), String> {
        let kept: usize = self.lists.values().map(Vec::len).sum();
        let shown = self.memory.blocks().iter().filter(|block| block.state == super::memory::State::Kept).count();
        if kept != shown {
            return Err(format!("{kept} blocks on lists, {shown} kept"));
        }
        self.memory.check()
    }
}

/// The most frequently requested sizes of a trace, each requested at least twice.
fn frequent(trace: &Trace) -> Vec<u64> {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for step in &trace.steps {
        if let Event::Alloc(request) = &step.event {
            *counts.entry(request.size).or_default() += 1;
        }
    }
    let mut sizes: Vec<(u64, usize)> = counts.into_iter().filter(|&(_, count)| count > 1).collect();
    sizes.sort_by_key(|&(_, count)| core::cmp::Reverse(count));
    sizes.into_iter().take(LISTS).map(|(size, _)| size).collect()
}

/// Plays quick fit; returns `None` if the trace requires addresses with `at`.
pub fn run(trace: &Trace) -> Result<Option<Report>, Error> {
    let demands = trace.steps.iter().any(|step| matches!(&step.event, Event::Alloc(request) if request.at.is_some()));
    if demands {
        return Ok(None);
    }
    let sizes = trace.settings.list(Setting::Quick).map_or_else(|| frequent(trace), <[u64]>::to_vec);
    play(&mut QuickFit::new(&holes(trace)?, &sizes), trace).map(Some)
}
