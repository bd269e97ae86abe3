//! The translation lookaside buffer: it keeps recent translations, so that most accesses need no walk.
//!
//! The TLB is fully associative with LRU replacement. An access costs the lookup in the TLB, on a miss a walk (one
//! access to memory for each level of the page tables), and the access itself. The average is the *effective access
//! time*. The setting `ratios` computes it from hit ratios, without references, as textbooks do. The settings `service`
//! and `every` compute it for demand paging, in which one of `every` accesses causes a page fault.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::tables::Shape;
use crate::Error;
use crate::report::{Cell, Grid, Look, Measure, Picture, Report, Value};
use crate::trace::{Reference, Setting, Settings, Trace};
use crate::units::Ratio;

/// The default sizes.
const SIZES: [u64; 3] = [4, 8, 16];
/// The maximum number of references in a picture.
const MOST_COLUMNS: usize = 48;
/// The largest TLB with a picture.
const LARGEST_DRAWN: u64 = 16;

/// Costs, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// A lookup in the TLB.
    pub lookup: u64,
    /// An access to memory.
    pub cycle: u64,
    /// The number of accesses to memory in a walk.
    pub levels: u64,
}

impl Costs {
    /// The costs of a trace; without `levels`, page tables have one level.
    pub fn of(settings: &Settings) -> Result<Costs, Error> {
        let levels = match settings.get(Setting::Levels) {
            Some(_) => Shape::of(settings)?.levels(),
            None => 1,
        };
        Ok(Costs { lookup: settings.or(Setting::Lookup, 1), cycle: settings.or(Setting::Cycle, 100), levels })
    }

    /// The effective access time for `hits` hits in `all` accesses.
    pub fn effective(self, hits: u64, all: u64) -> Ratio {
        let hit = self.lookup + self.cycle;
        let miss = hit + self.levels * self.cycle;
        Ratio {
            over: u128::from(hits) * u128::from(hit) + u128::from(all - hits) * u128::from(miss),
            under: all.into(),
        }
    }
}

/// The effective access time of demand paging: one access in `every` takes `service` instead of `cycle` nanoseconds.
pub fn demand_paging(cycle: u64, service: u64, every: u64) -> Ratio {
    let all = u128::from(every.saturating_sub(1)) * u128::from(cycle) + u128::from(service);
    Ratio { over: all, under: every.into() }
}

/// A TLB; the most recently used page is last.
struct Tlb {
    entries: u64,
    pages: Vec<u64>,
}

impl Tlb {
    /// Looks up a page and inserts it; returns whether it was present.
    fn look(&mut self, page: u64) -> bool {
        let found = self.pages.iter().position(|&other| other == page);
        match found {
            Some(index) => drop(self.pages.remove(index)),
            None if self.pages.len() as u64 == self.entries => drop(self.pages.remove(0)),
            None => {}
        }
        self.pages.push(page);
        found.is_some()
    }
}

/// Plays references on a TLB of this size.
pub fn play(entries: u64, costs: Costs, references: &[Reference]) -> Report {
    let mut tlb = Tlb { entries, pages: Vec::new() };
    let mut hits = 0;
    let mut grid = Grid { of: "used", mark: "miss: a walk", is_lasting: true, ..Grid::default() };
    grid.rows =
        (0..entries).map(|age| (if age == 0 { "last".into() } else { format!("-{age}") }, Vec::new())).collect();
    for reference in references {
        let is_hit = tlb.look(reference.page);
        hits += u64::from(is_hit);
        if grid.columns.len() == MOST_COLUMNS {
            grid.left_out += 1;
            continue;
        }
        grid.columns.push(reference.page.to_string());
        grid.marks.push(!is_hit);
        for (age, (_, cells)) in grid.rows.iter_mut().enumerate() {
            let page = tlb.pages.iter().rev().nth(age);
            let look = if age > 0 {
                Look::Plain
            } else if is_hit {
                Look::Hit
            } else {
                Look::Filled
            };
            cells.push(page.map_or_else(Cell::default, |page| Cell { text: page.to_string(), look }));
        }
    }
    let all = references.len() as u64;
    let mut report = Report::new(format!("{entries} entries"));
    report.count(Measure::References, all);
    report.count(Measure::Hits, hits);
    report.count(Measure::Misses, all - hits);
    report.figure(Measure::HitRate, Value::Ratio(Ratio::new(hits, all).percent()));
    report.count(Measure::Walks, (all - hits) * costs.levels);
    report.figure(Measure::AverageTime, Value::Time(costs.effective(hits, all)));
    if entries <= LARGEST_DRAWN {
        report.pictures.push(Picture::Grid(grid));
    }
    report
}

/// The results that depend on settings alone.
fn worked_out(settings: &Settings, costs: Costs) -> Vec<Report> {
    let mut reports = Vec::new();
    for &ratio in settings.list(Setting::Ratios).unwrap_or_default() {
        let mut report = Report::new(format!("{ratio} % hits"));
        report.figure(Measure::HitRate, Value::Ratio(Ratio::new(ratio, 1)));
        report.figure(Measure::AverageTime, Value::Time(costs.effective(ratio, 100)));
        reports.push(report);
    }
    if let (Some(service), Some(every)) = (settings.get(Setting::Service), settings.get(Setting::Every)) {
        let mut report = Report::new(format!("1 fault in {every}"));
        let time = demand_paging(costs.cycle, service, every);
        report.figure(Measure::AverageTime, Value::Time(time));
        report.notes.push(format!(
            "{} times the time without faults",
            Ratio { under: time.under * u128::from(costs.cycle), ..time }
        ));
        reports.push(report);
    }
    reports
}

/// Plays TLBs of several sizes, and computes the results that depend on settings alone.
pub fn run(trace: &Trace) -> Result<Vec<Report>, Error> {
    let costs = Costs::of(&trace.settings)?;
    let mut reports = worked_out(&trace.settings, costs);
    match trace.references() {
        Err(error) if reports.is_empty() => return Err(error),
        Err(_) => {}
        Ok(references) => {
            let sizes = trace.settings.list(Setting::Tlb).unwrap_or(&SIZES);
            reports.extend(sizes.iter().map(|&entries| play(entries, costs, &references)));
        }
    }
    Ok(reports)
}
