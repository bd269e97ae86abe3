//! Plays references on frames: finds the page, or a free frame, or asks the policy.

use alloc::collections::BTreeMap;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::{Frame, Policy};
use crate::report::{Cell, Grid, Look, Measure, Picture, Report, Value};
use crate::trace::{Reference, Setting, Settings};
use crate::units::Ratio;

/// References that are drawn.
pub const MOST_COLUMNS: usize = 48;
/// The most frames of which a picture is drawn.
const MOST_ROWS: usize = 16;
/// A page that is not used again.
const NEVER: u64 = u64::MAX;

/// What holds for every policy.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Frames that there are.
    pub frames: usize,
    /// References between two ticks.
    pub tick: u64,
}

impl Rules {
    /// As a trace has them.
    pub fn of(settings: &Settings) -> Rules {
        Rules { frames: settings.or(Setting::Frames, 3) as usize, tick: settings.or(Setting::Tick, 4) }
    }
}

/// What came of playing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Played {
    /// The policy.
    pub name: &'static str,
    /// References.
    pub references: u64,
    /// Those whose page was not in memory.
    pub faults: u64,
    /// Pages that were written back.
    pub write_backs: u64,
    grid: Grid,
}

/// When each reference's page is referenced next.
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

/// The same; `watch` sees the frames after each reference.
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

/// The clock's interrupt: what was referenced since the last one was seen now.
fn tick(frames: &mut [Frame], now: u64) {
    for frame in frames.iter_mut().filter(|frame| frame.referenced) {
        frame.referenced = false;
        frame.seen = now;
    }
}

/// Brings a page into a free frame, or into the one that the policy chooses.
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

    /// As a report.
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
