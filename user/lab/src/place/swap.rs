//! Swapping: whole processes go to the disk and come back.
//!
//! A process arrives with `alloc`, gets the processor with `run`, ends with `free`. It must be in memory as a whole to arrive
//! or to run. If there is no hole for it, other processes are swapped out until there is one. Which?
//!
//! - *Idle longest* takes the one that has not run for the longest time.
//! - *Largest* takes the one that frees the most at once.
//!
//! A transfer costs the disk's latency and the size over the disk's rate; out and in again cost twice that. Before pages,
//! time-sharing systems worked so (CTSS, early UNIX).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::memory::Memory;
use super::{MOST_ROWS, chooses_itself, memory_of};
use crate::Error;
use crate::report::{Map, MapRow, Measure, Picture, Report, Value};
use crate::trace::{Event, Request, Setting, Settings, Trace};
use crate::units::{Ratio, Size};

/// Which process makes room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The one that has not run for the longest time.
    IdleLongest,
    /// The largest one.
    Largest,
}

/// What the disk can do.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// Bytes that it transfers in a second.
    pub rate: u64,
    /// Nanoseconds before it begins.
    pub latency: u64,
}

impl Disk {
    /// The disk that a trace describes.
    pub fn of(settings: &Settings) -> Disk {
        Disk { rate: settings.or(Setting::Rate, 40 << 20), latency: settings.or(Setting::Latency, 8_000_000) }
    }

    /// Nanoseconds that the transfer of a process takes, one way.
    pub fn transfer(self, size: u64) -> u64 {
        let moving = u128::from(size) * 1_000_000_000 / u128::from(self.rate.max(1));
        self.latency.saturating_add(u64::try_from(moving).unwrap_or(u64::MAX))
    }
}

/// A process that was admitted.
struct Process {
    name: String,
    size: u64,
    /// The step in which it ran last.
    ran: usize,
}

/// Memory, the disk, and who is where.
struct Swapping {
    victim: Victim,
    disk: Disk,
    memory: Memory,
    processes: Vec<Process>,
    swaps: u64,
    time: u64,
    refused: u64,
    requests: u64,
    rows: Vec<MapRow>,
    notes: Vec<String>,
}

impl Swapping {
    /// Brings a process into memory; answers what had to be done for it. `is_new` means that it is not on the disk.
    fn bring_in(&mut self, name: &str, size: u64, is_new: bool) -> String {
        let mut done = String::new();
        loop {
            let hole = self.memory.holes().find(|(_, hole)| hole.size >= size).map(|(index, _)| index);
            if let Some(hole) = hole {
                self.memory.take(hole, name, size);
                break;
            }
            let Some(victim) = self.choose() else { break };
            let block = self.memory.release(&victim);
            self.transfer(&victim, block.map_or(0, |block| block.size), "out");
            done += &format!("{victim} out, ");
        }
        if !is_new {
            self.transfer(name, size, "in");
            done += &format!("{name} in, ");
        }
        done.truncate(done.len().saturating_sub(2));
        done
    }

    /// The process in memory that makes room next.
    fn choose(&self) -> Option<String> {
        let here = self.processes.iter().filter(|process| self.memory.of(&process.name).is_some());
        let victim = match self.victim {
            Victim::IdleLongest => here.min_by_key(|process| process.ran),
            Victim::Largest => here.max_by_key(|process| (process.size, core::cmp::Reverse(process.ran))),
        };
        victim.map(|process| process.name.clone())
    }

    fn transfer(&mut self, name: &str, size: u64, way: &str) {
        let time = self.disk.transfer(size);
        self.swaps += 1;
        self.time = self.time.saturating_add(time);
        self.notes.push(format!("{name} ({}) {way}: {} ms", Size(size), Ratio::new(time, 1_000_000)));
    }

    fn arrive(&mut self, request: &Request, step: usize) -> Result<String, String> {
        chooses_itself("swapping", request)?;
        self.requests += 1;
        let whole: u64 = self.memory.blocks().iter().map(|block| block.size).sum();
        if request.size > whole {
            self.refused += 1;
            return Ok("refused".into());
        }
        let done = self.bring_in(&request.name, request.size, true);
        self.processes.push(Process { name: request.name.clone(), size: request.size, ran: step });
        Ok(done)
    }

    fn run(&mut self, name: &str, step: usize) -> Option<String> {
        let process = self.processes.iter_mut().find(|process| process.name == name)?;
        process.ran = step;
        let size = process.size;
        match self.memory.of(name) {
            Some(_) => Some(String::new()),
            None => Some(self.bring_in(name, size, false)),
        }
    }

    fn end(&mut self, name: &str) {
        self.processes.retain(|process| process.name != name);
        self.memory.release(name);
    }

    fn report(self) -> Report {
        let mut report = Report::new(match self.victim {
            Victim::IdleLongest => "idle longest goes",
            Victim::Largest => "largest goes",
        });
        report.count(Measure::Requests, self.requests);
        report.count(Measure::Refused, self.refused);
        report.count(Measure::Swaps, self.swaps);
        report.figure(Measure::SwapTime, Value::Time(Ratio::new(self.time, 1_000_000)));
        let whole = self.memory.blocks().iter().map(|block| block.size).sum();
        report.pictures.push(Picture::Map(Map { whole, rows: self.rows }));
        report.notes = self.notes;
        report
    }
}

/// Plays a trace with one way to choose.
pub fn play(victim: Victim, trace: &Trace) -> Result<Report, Error> {
    let mut swapping = Swapping {
        victim,
        disk: Disk::of(&trace.settings),
        memory: Memory::new(&[memory_of(trace)?]),
        processes: Vec::new(),
        swaps: 0,
        time: 0,
        refused: 0,
        requests: 0,
        rows: Vec::new(),
        notes: Vec::new(),
    };
    for (number, step) in trace.steps.iter().enumerate() {
        let note = match &step.event {
            Event::Alloc(request) => Some(swapping.arrive(request, number).map_err(|what| Error::at(step.line, what))?),
            Event::Run(name) => swapping.run(name, number),
            Event::Free(name) => {
                swapping.end(name);
                Some(String::new())
            }
            _ => None,
        };
        let Some(note) = note.filter(|_| swapping.rows.len() < MOST_ROWS) else { continue };
        swapping.rows.push(MapRow { label: step.event.to_string(), pieces: swapping.memory.pieces(), note });
    }
    match swapping.requests {
        0 => Err(Error::new("the trace has no 'alloc' for this scheme to work on")),
        _ => Ok(swapping.report()),
    }
}

/// Both ways to choose, side by side.
pub fn run(trace: &Trace) -> Result<Vec<Report>, Error> {
    [Victim::IdleLongest, Victim::Largest].into_iter().map(|victim| play(victim, trace)).collect()
}
