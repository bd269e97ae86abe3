//! Swapping: whole processes are written to the disk and read back.
//!
//! A process arrives with `alloc`, gets the processor with `run`, and exits with `free`. It must be in memory as a
//! whole when it arrives and when it runs. If there is no hole for it, other processes are swapped out until there is
//! one. The variants differ in the choice of the victim:
//!
//! - *Idle longest*: the process that has not run for the longest time.
//! - *Largest*: the largest process.
//!
//! A transfer takes the latency of the disk plus the size divided by its rate. Early time-sharing systems worked this
//! way (CTSS, early UNIX).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::memory::Memory;
use super::{MOST_ROWS, memory_of, reject_location};
use crate::Error;
use crate::report::{Map, MapRow, Measure, Picture, Report, Value};
use crate::trace::{Event, Request, Setting, Settings, Trace};
use crate::units::{Ratio, Size};

/// The choice of the victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// The process that has not run for the longest time.
    IdleLongest,
    /// The largest process.
    Largest,
}

/// The parameters of the disk.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// The transfer rate, in bytes per second.
    pub rate: u64,
    /// The latency before a transfer, in nanoseconds.
    pub latency: u64,
}

impl Disk {
    /// The disk of a trace.
    pub fn of(settings: &Settings) -> Disk {
        Disk { rate: settings.or(Setting::Rate, 40 << 20), latency: settings.or(Setting::Latency, 8_000_000) }
    }

    /// The duration of a transfer in one direction, in nanoseconds.
    pub fn transfer(self, size: u64) -> u64 {
        let moving = u128::from(size) * 1_000_000_000 / u128::from(self.rate.max(1));
        self.latency.saturating_add(u64::try_from(moving).unwrap_or(u64::MAX))
    }
}

/// A process that has arrived and not exited.
struct Process {
    name: String,
    size: u64,
    /// The step in which it ran last.
    ran: usize,
}

/// The state of a run.
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
    /// Brings a process into memory; returns a note about the swaps. `is_new` means that it is not on the disk.
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

    /// The next victim among the processes in memory.
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
        reject_location("swapping", request)?;
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
            Victim::IdleLongest => "idle longest",
            Victim::Largest => "largest",
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

/// Plays a trace with one choice of victims.
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
        0 => Err(Error::new("the trace has no 'alloc', which this scheme needs")),
        _ => Ok(swapping.report()),
    }
}

/// Plays both choices of victims.
pub fn run(trace: &Trace) -> Result<Vec<Report>, Error> {
    [Victim::IdleLongest, Victim::Largest].into_iter().map(|victim| play(victim, trace)).collect()
}
