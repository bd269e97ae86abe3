//! Placement: where a request for memory is satisfied.
//!
//! Each scheme is a [`Placement`]. [`play`] passes a trace's requests to it one by one, records memory after each, and
//! computes the figures from the recorded pieces, not from the scheme's own counters. [`swap`] and [`overlays`] decide
//! what is in memory at all and have runners of their own.

pub mod buddy;
pub mod compact;
pub mod fits;
pub mod fixed;
pub mod memory;
pub mod overlays;
pub mod quick;
pub mod swap;

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::Error;
use crate::report::{Kind, Map, MapRow, Measure, Picture, Piece, Report, Value};
use crate::trace::{Access, Event, Request, Trace};
use crate::units::Size;

/// The maximum number of rows in a picture of memory.
pub const MOST_ROWS: usize = 40;

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The request is satisfied. The text is a note for the picture.
    Placed(String),
    /// The request is refused.
    Refused,
    /// The request waits until memory is freed.
    Waits,
}

/// The translation of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The physical address; `None` if the access traps.
    pub physical: Option<u64>,
    /// The steps, in words.
    pub how: String,
}

/// A scheme that allocates memory.
pub trait Placement {
    /// The display name.
    fn name(&self) -> String;

    /// Allocates memory for a request. An error means that the scheme cannot honour `at` or `in`.
    fn place(&mut self, request: &Request) -> Result<Outcome, String>;

    /// Frees the memory of `name`, or removes it from the queue; returns a note for the picture.
    fn release(&mut self, name: &str) -> String;

    /// All of memory, sorted by address.
    fn pieces(&self) -> Vec<Piece>;

    /// Translates an address of `space`, which has memory; `None` if the scheme does not translate.
    fn translate(&self, _space: &str, _address: u64) -> Option<Translation> {
        None
    }

    /// Whether a request may be satisfied by non-contiguous memory, so that there is no external fragmentation.
    fn scatters(&self) -> bool {
        false
    }

    /// Adds the figures and notes that only this scheme has.
    fn tell(&self, _report: &mut Report) {}

    /// Checks the invariants of the scheme's own data; for tests.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Plays a trace on each scheme.
pub fn play_all<P: Placement>(schemes: impl IntoIterator<Item = P>, trace: &Trace) -> Result<Vec<Report>, Error> {
    schemes.into_iter().map(|mut scheme| play(&mut scheme, trace)).collect()
}

/// Plays the requests and accesses of a trace.
pub fn play(scheme: &mut dyn Placement, trace: &Trace) -> Result<Report, Error> {
    play_watched(scheme, trace, |_| {})
}

/// Like [`play`]; `watch` sees the scheme after each step.
pub fn play_watched(
    scheme: &mut dyn Placement,
    trace: &Trace,
    mut watch: impl FnMut(&dyn Placement),
) -> Result<Report, Error> {
    let mut player = Player::default();
    for step in &trace.steps {
        let wrong = |what: String| Error::at(step.line, what);
        match &step.event {
            Event::Alloc(request) => player.alloc(scheme, request, &step.event).map_err(wrong)?,
            Event::Free(name) => player.free(scheme, name, &step.event),
            Event::Access(access) => player.access(scheme, access).map_err(wrong)?,
            Event::Run(_) | Event::Refer(_) | Event::Module(_) | Event::Call(_) | Event::Pattern(_) => continue,
        }
        watch(scheme);
    }
    if player.requests == 0 {
        return Err(Error::new("the trace has no 'alloc', which this scheme needs"));
    }
    Ok(player.report(scheme))
}

/// The state of a run.
#[derive(Default)]
struct Player {
    requests: u64,
    refused: u64,
    waited: u64,
    accesses: u64,
    traps: u64,
    internal_peak: u64,
    /// The names that have memory or wait for it.
    served: BTreeSet<String>,
    rows: Vec<MapRow>,
    left_out: usize,
    notes: Vec<String>,
}

impl Player {
    fn alloc(&mut self, scheme: &mut dyn Placement, request: &Request, event: &Event) -> Result<(), String> {
        self.requests += 1;
        let note = match scheme.place(request)? {
            Outcome::Placed(note) => note,
            Outcome::Refused => {
                self.refused += 1;
                self.row(scheme, event, "refused");
                return Ok(());
            }
            Outcome::Waits => {
                self.waited += 1;
                "waits".into()
            }
        };
        self.served.insert(request.name.clone());
        self.row(scheme, event, &note);
        Ok(())
    }

    fn free(&mut self, scheme: &mut dyn Placement, name: &str, event: &Event) {
        // A refused request has no memory to free.
        if self.served.remove(name) {
            let note = scheme.release(name);
            self.row(scheme, event, &note);
        }
    }

    fn access(&mut self, scheme: &dyn Placement, access: &Access) -> Result<(), String> {
        let space = match (&access.space, self.served.first()) {
            (Some(space), _) => space,
            (None, Some(only)) if self.served.len() == 1 => only,
            (None, _) => {
                return Err(format!("the address belongs to no process or segment; write NAME:{}", access.address));
            }
        };
        let Some(Translation { physical, how }) = scheme.translate(space, access.address) else { return Ok(()) };
        self.accesses += 1;
        self.traps += u64::from(physical.is_none());
        let end = physical.map_or("trap".into(), |address| address.to_string());
        self.notes.push(format!("{space}:{:<6} {how} -> {end}", access.address));
        Ok(())
    }

    /// Records the current state of memory.
    fn row(&mut self, scheme: &dyn Placement, event: &Event, note: &str) {
        let pieces = scheme.pieces();
        self.internal_peak = self.internal_peak.max(internal(&pieces));
        match self.rows.len() < MOST_ROWS {
            true => self.rows.push(MapRow { label: event.to_string(), pieces, note: note.into() }),
            false => self.left_out += 1,
        }
    }

    fn report(mut self, scheme: &dyn Placement) -> Report {
        let mut report = Report::new(scheme.name());
        report.count(Measure::Requests, self.requests);
        report.count(Measure::Refused, self.refused);
        if self.waited > 0 {
            report.count(Measure::Waited, self.waited);
        }
        let pieces = scheme.pieces();
        space_figures(&mut report, &pieces, scheme.scatters());
        report.bytes(Measure::InternalPeak, self.internal_peak);
        if self.accesses > 0 {
            report.count(Measure::Accesses, self.accesses);
            report.count(Measure::Traps, self.traps);
        }
        scheme.tell(&mut report);
        report.notes.append(&mut self.notes);
        if self.left_out > 0 {
            report.notes.push(format!("{} more steps are not shown", self.left_out));
        }
        let whole = pieces.last().map_or(0, |last| last.start + last.size);
        report.pictures.push(Picture::Map(Map { whole, rows: self.rows }));
        report
    }
}

/// Adds the figures of fragmentation, computed from the pieces.
fn space_figures(report: &mut Report, pieces: &[Piece], scatters: bool) {
    let holes = || pieces.iter().filter(|piece| piece.kind != Kind::Kept && is_free(piece));
    let free: u64 = pieces.iter().filter(|piece| is_free(piece)).map(|piece| piece.size).sum();
    let largest = holes().map(|piece| piece.size).max().unwrap_or(0);
    report.bytes(Measure::Internal, internal(pieces));
    report.bytes(Measure::Free, free);
    if scatters {
        report.bytes(Measure::External, 0);
        return;
    }
    report.count(Measure::Holes, holes().count() as u64);
    report.bytes(Measure::Largest, largest);
    report.bytes(Measure::External, free - largest);
}

fn is_free(piece: &Piece) -> bool {
    matches!(piece.kind, Kind::Free | Kind::Kept)
}

/// Internal fragmentation: allocated bytes that were not requested.
pub fn internal(pieces: &[Piece]) -> u64 {
    let wasted = |piece: &Piece| match piece.kind {
        Kind::Used { wasted, .. } => wasted,
        Kind::Free | Kind::Kept => 0,
    };
    pieces.iter().map(wasted).sum()
}

/// An address within a block that begins at `base` and ends `limit` further: the check and the sum that base and limit
/// registers do.
pub fn base_and_limit(base: u64, limit: u64, address: u64) -> Translation {
    let (limit_shown, base_shown) = (Size(limit), Size(base));
    match address < limit {
        true => Translation {
            physical: Some(base + address),
            how: format!("below the limit {limit_shown}; base {base_shown} + {address}"),
        },
        false => Translation { physical: None, how: format!("not below the limit {limit_shown}") },
    }
}

/// Rejects a request with `at` or `in` for a scheme that chooses the location itself.
pub fn reject_location(scheme: &str, request: &Request) -> Result<(), String> {
    match (request.at, request.frames.is_empty()) {
        (Some(_), _) => Err(format!("{scheme} does not support 'at'")),
        (None, false) => Err(format!("{scheme} does not support 'in'")),
        (None, true) => Ok(()),
    }
}

/// The size of memory, which the trace must specify.
pub fn memory_of(trace: &Trace) -> Result<u64, Error> {
    trace
        .settings
        .memory()
        .ok_or_else(|| Error::new("the trace does not specify the size of memory; add a line such as: memory 1M"))
}

/// A percentage.
pub fn percent(measure: Measure, part: u64, whole: u64) -> (Measure, Value) {
    (measure, Value::Ratio(crate::units::Ratio::new(part, whole).percent()))
}
