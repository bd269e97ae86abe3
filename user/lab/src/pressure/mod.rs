//! Page replacement under pressure: memory is a little too small, and there are thousands of frames.
//!
//! [`crate::replace`] shows each step of the textbooks' policies on a few frames. Here a [`Pattern`] makes the
//! references, and only faults are counted, for sets of pages from a little less than memory to twice of it. The
//! policies in [`exact`] and [`lirs`] learn of every access. A kernel does not: it looks at access flags. The policies
//! in [`flags`] and [`lirs_flags`] do so, and their looks are counted too, since a look costs time.

pub mod exact;
pub mod flags;
pub mod lirs;
pub mod lirs_flags;
mod lists;

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::Error;
use crate::report::{Chart, Measure, Picture, Report, Value};
use crate::trace::pattern::{Pattern, Play};
use crate::trace::{Setting, Settings, Trace};
use crate::units::Ratio;

/// A replacement policy, with its memory.
pub trait Policy {
    /// The display name.
    fn name(&self) -> &'static str;

    /// A reference to a page; returns whether the page was not in memory.
    fn refer(&mut self, page: usize) -> bool;

    /// Whether a page is in memory.
    fn holds(&self, page: usize) -> bool;

    /// How many access flags the policy has looked at; `None` if it learns of every access.
    fn looks(&self) -> Option<u64> {
        None
    }
}

/// All policies, with empty memories of `frames` frames.
pub fn policies(frames: usize, play: &Play) -> Vec<Box<dyn Policy>> {
    let pages = play.pages;
    Vec::from([
        Box::new(exact::Opt::new(frames, pages, &play.references)) as Box<dyn Policy>,
        Box::new(exact::Lru::new(frames, pages)),
        Box::new(exact::Arc::new(frames, pages)),
        Box::new(lirs::Lirs::new(frames, frames / 100, pages)),
        Box::new(flags::Clock::new(frames, pages)),
        Box::new(flags::TwoLists::new(frames, pages)),
        Box::new(flags::Generations::new(frames, pages)),
        Box::new(lirs_flags::LirsByFlags::new(frames, pages)),
    ])
}

/// The result of a run, of its measured part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Played {
    /// Accesses to the pages whose faults count.
    pub references: u64,
    /// Their faults.
    pub faults: u64,
    /// Faults of all pages.
    pub all_faults: u64,
    /// Flags that were looked at; `None` if the policy learns of every access.
    pub looks: Option<u64>,
}

/// Plays references with a policy.
pub fn play(policy: &mut dyn Policy, play: &Play) -> Played {
    let (before, measured) = play.references.split_at(play.from);
    for page in before {
        policy.refer(*page as usize);
    }
    let looks = policy.looks();
    let mut played = Played::default();
    for page in measured {
        let is_fault = u64::from(policy.refer(*page as usize));
        let counts = u64::from((*page as usize) < play.below);
        played.references += counts;
        played.faults += is_fault * counts;
        played.all_faults += is_fault;
    }
    played.looks = policy.looks().map(|now| now - looks.unwrap_or(0));
    played
}

/// The frames that are left for pages in use if the others of `n` pages are in a store that is in memory itself, where
/// each takes `percent` of a frame.
pub fn frames_beside_store(frames: u64, n: u64, percent: u64) -> u64 {
    if n <= frames {
        return frames;
    }
    ((frames * 100).saturating_sub(n * percent) / (100 - percent).max(1)).max(1)
}

/// A pattern's references for a set of `tenths` tenths of memory, and the frames.
fn set(pattern: Pattern, settings: &Settings, tenths: u64) -> (usize, Play) {
    let memory = settings.or(Setting::Ram, 512);
    let n = (memory * tenths / 10).max(1);
    let frames = frames_beside_store(memory, n, settings.or(Setting::Store, 0)) as usize;
    (frames, pattern.play(frames, n as usize))
}

/// Plays all policies: a report with the curves, then one for each policy.
pub fn run(trace: &Trace) -> Result<Vec<Report>, Error> {
    let settings = &trace.settings;
    let pattern = trace.pattern()?;
    let sizes = if pattern == Pattern::Scan { 1..=9 } else { 9..=20 };
    let mut chart = Chart { x: "tenths of memory", y: "faults in 1,000 accesses", lines: Vec::new() };
    for tenths in sizes {
        let (frames, played) = set(pattern, settings, tenths);
        for (number, mut policy) in policies(frames, &played).into_iter().enumerate() {
            if chart.lines.len() == number {
                chart.lines.push((policy.name().into(), Vec::new()));
            }
            let Played { faults, references, .. } = play(policy.as_mut(), &played);
            chart.lines[number].1.push((tenths, (faults * 1000 + references / 2) / references.max(1)));
        }
    }
    let (frames, played) = set(pattern, settings, settings.or(Setting::Tenths, pattern.usual_size()));
    let mut curves = Report::new("faults in 1,000 accesses");
    curves.pictures.push(Picture::Chart(chart));
    let mut reports = Vec::from([curves]);
    for mut policy in policies(frames, &played) {
        let Played { references, faults, all_faults, looks } = play(policy.as_mut(), &played);
        let mut report = Report::new(policy.name());
        report.count(Measure::References, references);
        report.count(Measure::Faults, faults);
        report.figure(Measure::FaultRate, Value::Ratio(Ratio::new(faults, references).percent()));
        if let Some(looks) = looks.filter(|_| all_faults != 0) {
            report.figure(Measure::Looks, Value::Ratio(Ratio::new(looks, all_faults)));
        }
        reports.push(report);
    }
    Ok(reports)
}
