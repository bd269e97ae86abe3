//! The translation lookaside buffer: the translations that were used last, so that most accesses need no walk.
//!
//! The TLB is fully associative; the entry that was not used for the longest time makes room. An access costs the look into
//! the TLB, a walk (an access to memory for each level of the page tables) if the TLB does not have the page, and the access
//! itself. The average is the *effective access time*. With `ratios` there is no need for references: the time is worked out
//! from the hit ratio, as textbooks do. With `service` and `every` it is that of demand paging, in which one access in so
//! many waits until a page fault is served.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::tables::Shape;
use crate::Error;
use crate::report::{Cell, Grid, Look, Measure, Picture, Report, Value};
use crate::trace::{Reference, Setting, Settings, Trace};
use crate::units::Ratio;

/// Sizes to compare if the trace does not say.
const SIZES: [u64; 3] = [4, 8, 16];
/// References that are drawn.
const MOST_COLUMNS: usize = 48;
/// The largest TLB of which a picture is drawn.
const LARGEST_DRAWN: u64 = 16;

/// What things cost, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// A look into the TLB.
    pub lookup: u64,
    /// An access to memory.
    pub cycle: u64,
    /// Accesses to memory that a walk takes.
    pub levels: u64,
}

impl Costs {
    /// As a trace has them; a page table has one level if it does not say.
    pub fn of(settings: &Settings) -> Result<Costs, Error> {
        let levels = match settings.get(Setting::Levels) {
            Some(_) => Shape::of(settings)?.levels(),
            None => 1,
        };
        Ok(Costs { lookup: settings.or(Setting::Lookup, 1), cycle: settings.or(Setting::Cycle, 100), levels })
    }

    /// The effective access time of `hits` hits among `all` accesses.
    pub fn effective(self, hits: u64, all: u64) -> Ratio {
        let hit = self.lookup + self.cycle;
        let miss = hit + self.levels * self.cycle;
        Ratio {
            over: u128::from(hits) * u128::from(hit) + u128::from(all - hits) * u128::from(miss),
            under: all.into(),
        }
    }
}

/// The effective access time of demand paging: one access in `every` takes `service` in place of `cycle` nanoseconds.
pub fn demand_paging(cycle: u64, service: u64, every: u64) -> Ratio {
    let all = u128::from(every.saturating_sub(1)) * u128::from(cycle) + u128::from(service);
    Ratio { over: all, under: every.into() }
}

/// A TLB: pages, the one that was used last at the end.
struct Tlb {
    entries: u64,
    pages: Vec<u64>,
}

impl Tlb {
    /// Looks a page up and puts it in; answers whether it was there.
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

/// What the settings alone say, without any reference.
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
            "{} times an access to memory",
            Ratio { under: time.under * u128::from(costs.cycle), ..time }
        ));
        reports.push(report);
    }
    reports
}

/// TLBs of several sizes, and what the settings alone say.
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
