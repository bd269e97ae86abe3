//! Fixed partitions: memory is divided once, when the machine starts, as in OS/360 MFT.
//!
//! - *Equal size*: any free partition will do. A process that is larger than a partition can never run.
//! - *Unequal size, one queue*: a process takes the smallest free partition that holds it. It may waste most of a large
//!   partition, but it does not wait while a sufficient partition is free.
//! - *Unequal size, a queue for each partition*: a process waits for the smallest partition that can hold it. This
//!   wastes less memory inside partitions, but processes may wait while other partitions are free.
//!
//! Waiting processes enter in order of arrival when a partition is freed. Stallings (Operating Systems, "Fixed
//! partitioning") shows the two disciplines.

use alloc::borrow::ToOwned;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{Outcome, Placement, Translation, base_and_limit, memory_of, play_all, reject_location};
use crate::Error;
use crate::report::{Kind, Piece, Report};
use crate::trace::{Request, Setting, Trace};

/// The number of equal partitions if the trace does not list partitions.
const EQUAL: usize = 4;

/// The discipline of queueing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queues {
    /// One queue, partitions of equal size.
    Equal,
    /// One queue: the smallest free partition.
    One,
    /// A queue for each partition: the smallest sufficient one.
    Each,
}

/// A partition and its process.
struct Partition {
    start: u64,
    size: u64,
    owner: Option<(String, u64)>,
}

/// Memory in fixed partitions.
pub struct Fixed {
    queues: Queues,
    partitions: Vec<Partition>,
    waiting: VecDeque<(String, u64)>,
}

impl Fixed {
    /// Creates partitions of these sizes, from the bottom of memory.
    pub fn new(queues: Queues, sizes: &[u64]) -> Fixed {
        let mut start = 0;
        let mut partitions = Vec::new();
        for &size in sizes {
            partitions.push(Partition { start, size, owner: None });
            start += size;
        }
        Fixed { queues, partitions, waiting: VecDeque::new() }
    }

    /// The smallest partition that holds `size` bytes, of all partitions or of the free ones.
    fn smallest(&self, size: u64, free_only: bool) -> Option<usize> {
        let holds = |p: &&Partition| p.size >= size && !(free_only && p.owner.is_some());
        let smallest = self.partitions.iter().filter(holds).map(|p| p.size).min()?;
        // A free partition is preferred to another one of the same size.
        let of_size = || self.partitions.iter().enumerate().filter(|(_, p)| p.size == smallest);
        let free = of_size().find(|(_, p)| p.owner.is_none());
        free.or_else(|| of_size().next()).map(|(index, _)| index)
    }

    /// Puts a process into a partition if the discipline permits one that is free; returns whether it does.
    fn enter(&mut self, name: &str, size: u64) -> bool {
        let Some(index) = self.smallest(size, self.queues != Queues::Each) else { return false };
        let partition = &mut self.partitions[index];
        if partition.owner.is_some() {
            return false;
        }
        partition.owner = Some((name.to_owned(), size));
        true
    }

    /// Admits the waiting processes that can enter now, in order of arrival; returns their names.
    fn admit(&mut self) -> Vec<String> {
        let mut admitted = Vec::new();
        for _ in 0..self.waiting.len() {
            let Some((name, size)) = self.waiting.pop_front() else { break };
            match self.enter(&name, size) {
                true => admitted.push(name),
                false => self.waiting.push_back((name, size)),
            }
        }
        admitted
    }
}

impl Placement for Fixed {
    fn name(&self) -> String {
        match self.queues {
            Queues::Equal => "equal",
            Queues::One => "unequal, one queue",
            Queues::Each => "unequal, a queue each",
        }
        .to_string()
    }

    fn place(&mut self, request: &Request) -> Result<Outcome, String> {
        reject_location("a system of fixed partitions", request)?;
        if self.smallest(request.size, false).is_none() {
            return Ok(Outcome::Refused);
        }
        if self.enter(&request.name, request.size) {
            return Ok(Outcome::Placed(String::new()));
        }
        self.waiting.push_back((request.name.clone(), request.size));
        Ok(Outcome::Waits)
    }

    fn release(&mut self, name: &str) -> String {
        self.waiting.retain(|(waiting, _)| waiting != name);
        for partition in &mut self.partitions {
            if partition.owner.as_ref().is_some_and(|(owner, _)| owner == name) {
                partition.owner = None;
            }
        }
        let admitted = self.admit();
        if admitted.is_empty() { String::new() } else { format!("{} enters", admitted.join(", ")) }
    }

    fn pieces(&self) -> Vec<Piece> {
        let kind = |partition: &Partition| match &partition.owner {
            None => Kind::Free,
            Some((name, size)) => Kind::Used { name: name.clone(), wasted: partition.size - size },
        };
        self.partitions.iter().map(|p| Piece { start: p.start, size: p.size, kind: kind(p) }).collect()
    }

    fn translate(&self, space: &str, address: u64) -> Option<Translation> {
        let owner_is = |p: &&Partition| p.owner.as_ref().is_some_and(|(owner, _)| owner == space);
        let partition = self.partitions.iter().find(owner_is)?;
        Some(base_and_limit(partition.start, partition.size, address))
    }

    fn tell(&self, report: &mut Report) {
        if !self.waiting.is_empty() {
            let names: Vec<&str> = self.waiting.iter().map(|(name, _)| name.as_str()).collect();
            report.notes.push(format!("still waiting at the end: {}", names.join(", ")));
        }
    }

    fn check(&self) -> Result<(), String> {
        match self.partitions.iter().all(|p| p.owner.as_ref().is_none_or(|(_, size)| *size <= p.size)) {
            true => Ok(()),
            false => Err("a process is larger than its partition".into()),
        }
    }
}

/// Plays equal partitions (as many as the trace lists, or four), and the trace's own with both disciplines.
pub fn run(trace: &Trace) -> Result<Vec<Report>, Error> {
    let memory = memory_of(trace)?;
    let own = trace.settings.list(Setting::Partitions);
    let count = own.map_or(EQUAL, <[u64]>::len);
    let equal = Vec::from_iter(core::iter::repeat_n((memory / count as u64).max(1), count));
    let mut schemes = Vec::from([Fixed::new(Queues::Equal, &equal)]);
    if let Some(sizes) = own {
        schemes.extend([Fixed::new(Queues::One, sizes), Fixed::new(Queues::Each, sizes)]);
    }
    play_all(schemes, trace)
}
