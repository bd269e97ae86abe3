//! Paging, and segmented paging: memory is allocated in frames of one size, at any position.
//!
//! - *Paging*: each process has a page table. An address consists of a page number and an offset; the table maps the
//!   page to a frame. Any free frame will do, so there is no external fragmentation; a part of the last page is wasted.
//! - *Segmented paging*: each segment has a length and a page table of its own. The length is checked first. A table is
//!   only as long as its segment. Multics and the 80386 work this way.
//!
//! An `alloc` of the trace is a process for paging, and a segment for segmented paging.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::Error;
use crate::place::{Outcome, Placement, Translation, memory_of, play_all};
use crate::report::{Kind, Measure, Piece, Report};
use crate::trace::{Request, Setting, Trace};
use crate::units::Size;

/// The maximum number of frames.
const MOST_FRAMES: u64 = 4096;

/// The meaning of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A process: the last page is accessible as a whole.
    Process,
    /// A segment: accesses beyond its length trap, even within its last page.
    Segment,
}

/// A page table and the size of the memory that it maps.
struct Table {
    frames: Vec<usize>,
    size: u64,
}

/// Memory in frames.
pub struct Paging {
    unit: Unit,
    page: u64,
    entry: u64,
    /// The owner of each frame.
    frames: Vec<Option<String>>,
    tables: BTreeMap<String, Table>,
}

impl Paging {
    /// Creates memory divided into frames. A remainder that is smaller than a frame is not used.
    pub fn new(unit: Unit, memory: u64, page: u64, entry: u64) -> Result<Paging, Error> {
        match memory / page {
            0 => Err(Error::new(format!("memory of {} is smaller than a frame of {}", Size(memory), Size(page)))),
            count if count > MOST_FRAMES => Err(Error::new(format!(
                "memory of {} has {count} frames of {}, more than {MOST_FRAMES}; use a larger page",
                Size(memory),
                Size(page)
            ))),
            count => {
                let frames = Vec::from_iter(core::iter::repeat_n(None, count as usize));
                Ok(Paging { unit, page, entry, frames, tables: BTreeMap::new() })
            }
        }
    }

    /// The frames for a request: the required ones, or the lowest free ones. `None` if there are too few.
    fn choose(&self, request: &Request) -> Result<Option<Vec<usize>>, String> {
        let wanted = request.size.div_ceil(self.page);
        if !request.frames.is_empty() {
            if request.frames.len() as u64 != wanted {
                return Err(format!("{} has {wanted} pages, and not {}", request.name, request.frames.len()));
            }
            return request.frames.iter().map(|&frame| self.free_frame(frame)).collect::<Result<_, _>>().map(Some);
        }
        let free = self.frames.iter().enumerate().filter(|(_, owner)| owner.is_none()).map(|(frame, _)| frame);
        let chosen: Vec<usize> = free.take(wanted.min(MOST_FRAMES) as usize).collect();
        Ok((chosen.len() as u64 == wanted).then_some(chosen))
    }

    fn free_frame(&self, frame: u64) -> Result<usize, String> {
        let index = usize::try_from(frame).ok().filter(|&index| self.frames.get(index).is_some_and(Option::is_none));
        index.ok_or_else(|| format!("frame {frame} does not exist or is not free"))
    }

    /// The unrequested bytes in a frame.
    fn wasted(&self, owner: &str, frame: usize) -> u64 {
        let table = self.tables.get(owner);
        let last = table.filter(|table| table.frames.last() == Some(&frame));
        last.map_or(0, |table| table.frames.len() as u64 * self.page - table.size)
    }
}

impl Placement for Paging {
    fn name(&self) -> String {
        match self.unit {
            Unit::Process => "paging",
            Unit::Segment => "segmented paging",
        }
        .to_string()
    }

    fn place(&mut self, request: &Request) -> Result<Outcome, String> {
        if request.at.is_some() {
            return Err("paging does not support 'at'; use 'in' with frames".into());
        }
        let Some(chosen) = self.choose(request)? else { return Ok(Outcome::Refused) };
        for (number, &frame) in chosen.iter().enumerate() {
            if chosen[..number].contains(&frame) {
                return Err(format!("frame {frame} is listed twice for {}", request.name));
            }
        }
        chosen.iter().for_each(|&frame| self.frames[frame] = Some(request.name.clone()));
        let count = chosen.len();
        self.tables.insert(request.name.clone(), Table { frames: chosen, size: request.size });
        Ok(Outcome::Placed(format!("{count} page{}", if count == 1 { "" } else { "s" })))
    }

    fn release(&mut self, name: &str) -> String {
        if let Some(table) = self.tables.remove(name) {
            table.frames.into_iter().for_each(|frame| self.frames[frame] = None);
        }
        String::new()
    }

    fn pieces(&self) -> Vec<Piece> {
        let kind = |frame: usize, owner: &Option<String>| match owner {
            None => Kind::Free,
            Some(name) => Kind::Used { name: name.clone(), wasted: self.wasted(name, frame) },
        };
        let piece =
            |(frame, owner)| Piece { start: frame as u64 * self.page, size: self.page, kind: kind(frame, owner) };
        self.frames.iter().enumerate().map(piece).collect()
    }

    fn translate(&self, space: &str, address: u64) -> Option<Translation> {
        let table = self.tables.get(space)?;
        let (page, offset) = (address / self.page, address % self.page);
        if self.unit == Unit::Segment && address >= table.size {
            return Some(Translation { physical: None, how: format!("not below the length {}", Size(table.size)) });
        }
        let frame = usize::try_from(page).ok().and_then(|page| table.frames.get(page));
        let Some(&frame) = frame else {
            return Some(Translation { physical: None, how: format!("page {page} is not mapped") });
        };
        let checked = if self.unit == Unit::Segment { "below the length; " } else { "" };
        let how = format!("{checked}page {page} offset {offset}; frame {frame} of {} + {offset}", Size(self.page));
        Some(Translation { physical: Some(frame as u64 * self.page + offset), how })
    }

    fn scatters(&self) -> bool {
        true
    }

    fn tell(&self, report: &mut Report) {
        let entries: usize = self.tables.values().map(|table| table.frames.len()).sum();
        report.bytes(Measure::TableBytes, entries as u64 * self.entry);
        for (name, table) in &self.tables {
            let shown: Vec<String> = table.frames.iter().take(16).map(usize::to_string).collect();
            let more = if table.frames.len() > shown.len() { " ..." } else { "" };
            report.notes.push(format!("page table of {name}: {}{more}", shown.join(" ")));
        }
    }

    /// Checks that owners and page tables agree.
    fn check(&self) -> Result<(), String> {
        let mapped: usize = self.tables.values().map(|table| table.frames.len()).sum();
        let owned = self.frames.iter().flatten().count();
        let agrees = |(name, table): (&String, &Table)| {
            table.frames.iter().all(|&frame| self.frames[frame].as_ref() == Some(name))
        };
        match mapped == owned && self.tables.iter().all(agrees) {
            true => Ok(()),
            false => Err(format!("{mapped} pages are mapped and {owned} frames owned")),
        }
    }
}

fn scheme(unit: Unit, trace: &Trace) -> Result<Paging, Error> {
    Paging::new(unit, memory_of(trace)?, trace.settings.page(), trace.settings.or(Setting::Entry, 8))
}

/// Plays paging.
pub fn run(trace: &Trace) -> Result<Vec<Report>, Error> {
    play_all([scheme(Unit::Process, trace)?], trace)
}

/// Plays segmented paging.
pub fn run_segmented(trace: &Trace) -> Result<Vec<Report>, Error> {
    play_all([scheme(Unit::Segment, trace)?], trace)
}
