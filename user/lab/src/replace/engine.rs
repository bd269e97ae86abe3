//! Plays references on frames: finds the page, or loads it into a free frame or into the frame of a victim.

use alloc::collections::BTreeMap;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::{Frame, Policy};
use crate::report::{Cell, Grid, Look, Measure, Picture, Report, Value};
use crate::trace::{Reference, Setting, Settings};
use crate::units::Ratio;

/// The maximum number of references in a picture.
pub const MOST_COLUMNS: usize = 48;
/// The maximum number of frames in a picture.
const MOST_ROWS: usize = 16;
/// The next use of a page that is not used again.
const NEVER: u64 = u64::MAX;

/// The parameters of a run.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The number of frames.
    pub frames: usize,
    /// The number of references between two ticks.
    pub tick: u64,
}

impl Rules {
    /// The parameters of a trace.
    pub fn of(settings: &Settings) -> Rules {
        Rules { frames: settings.or(Setting::Frames, 3) as usize, tick: settings.or(Setting::Tick, 4) }
    }
}

/// The result of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Played {
    /// The name of the policy.
    pub name: &'static str,
    /// The number of references.
    pub references: u64,
    /// The number of references whose page was not in memory.
    pub faults: u64,
    /// The number of pages that were written back.
    pub write_backs: u64,
    grid: Grid,
}

/// For each reference, the time of the next reference to the same page.
fn next_uses(references: &[Reference]) -> Vec<u64> {
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    let mut uses: Vec<u64> = Vec::new();
    for (time, reference) in references.iter().enumerate().rev() {
        uses.push(next.insert(reference.page, time as u64).unwrap_or(NEVER));
    }
    uses.reverse();
    uses
}

/// Plays references with a policy.
pub fn play(policy: &mut dyn Policy, rules: Rules, references: &[Reference]) -> Played {
    play_watched(policy, rules, references, |_| {})
}

/// Like [`play`]; `watch` sees the frames after each reference.
pub fn play_watched(
    policy: &mut dyn Policy,
    rules: Rules,
    references: &[Reference],
    mut watch: impl FnMut(&[Frame]),
) -> Played {
    let mut frames: Vec<Frame> = Vec::new();
    let mut played = Played {
        name: policy.name(),
        references: references.len() as u64,
        faults: 0,
        write_backs: 0,
        grid: new_grid(rules.frames),
    };
    for (time, (reference, next_use)) in references.iter().zip(next_uses(references)).enumerate() {
        let now = time as u64;
        if policy.ticks() && now > 0 && now.is_multiple_of(rules.tick) {
            tick(&mut frames, now);
        }
        let found = frames.iter().position(|frame| frame.page == reference.page);
        let (at, look) = match found {
            Some(at) => (at, Look::Hit),
            None => {
                played.faults += 1;
                load(policy, &mut frames, rules.frames, reference.page, now, &mut played.write_backs)
            }
        };
        let frame = &mut frames[at];
        frame.used = now;
        frame.uses += 1;
        frame.next_use = next_use;
        frame.referenced = true;
        frame.dirty |= reference.write;
        played.draw(reference, &frames, at, look);
        watch(&frames);
    }
    played.write_backs += policy.written_back();
    played
}

/// A timer interrupt: records the time for referenced pages, and clears their reference bits.
fn tick(frames: &mut [Frame], now: u64) {
    for frame in frames.iter_mut().filter(|frame| frame.referenced) {
        frame.referenced = false;
        frame.seen = now;
    }
}

/// Loads a page into a free frame, or into the frame of the policy's victim.
fn load(
    policy: &mut dyn Policy,
    frames: &mut Vec<Frame>,
    most: usize,
    page: u64,
    now: u64,
    write_backs: &mut u64,
) -> (usize, Look) {
    let new =
        Frame { page, loaded: now, used: now, uses: 0, next_use: NEVER, referenced: true, dirty: false, seen: now };
    let (at, look) = if frames.len() < most {
        frames.push(new);
        (frames.len() - 1, Look::Filled)
    } else {
        let at = policy.victim(frames, now);
        *write_backs += u64::from(frames[at].dirty);
        frames[at] = new;
        (at, Look::Replaced)
    };
    policy.loaded(at);
    (at, look)
}

fn new_grid(frames: usize) -> Grid {
    let rows = (0..frames).map(|frame| (frame.to_string(), Vec::new())).collect();
    Grid { of: "frame", mark: "fault", is_lasting: true, rows, ..Grid::default() }
}

impl Played {
    fn draw(&mut self, reference: &Reference, frames: &[Frame], at: usize, look: Look) {
        if self.grid.columns.len() == MOST_COLUMNS {
            self.grid.left_out += 1;
            return;
        }
        let store = if reference.write { "w" } else { "" };
        self.grid.columns.push(reference.page.to_string() + store);
        self.grid.marks.push(look != Look::Hit);
        for (number, (_, cells)) in self.grid.rows.iter_mut().enumerate() {
            let look = if number == at { look } else { Look::Plain };
            let cell = frames.get(number).map(|frame| Cell { text: frame.page.to_string(), look });
            cells.push(cell.unwrap_or_default());
        }
    }

    /// Converts the result into a report.
    pub fn report(self) -> Report {
        let mut report = Report::new(self.name);
        report.count(Measure::References, self.references);
        report.count(Measure::Faults, self.faults);
        report.figure(Measure::FaultRate, Value::Ratio(Ratio::new(self.faults, self.references).percent()));
        report.count(Measure::WriteBacks, self.write_backs);
        if self.grid.rows.len() <= MOST_ROWS {
            report.pictures.push(Picture::Grid(self.grid));
        }
        report
    }
}
