//! The working set itself (Denning, 1968): the pages that a process used within its last references.
//!
//! Its size over time is the number of frames that the process needs. If the working sets of all processes exceed
//! memory, each fault evicts a page that another process is about to use: *thrashing*. Here a page leaves memory as
//! soon as it leaves the window, even if its frame is not needed.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::Error;
use crate::report::{Chart, Measure, Picture, Report, Value};
use crate::trace::{Reference, Setting, Trace};
use crate::units::Ratio;

/// The working set at a moment.
struct Window {
    length: usize,
    /// The number of references within the window to each page.
    pages: BTreeMap<u64, u64>,
}

impl Window {
    /// Advances the window to the reference at `time`; returns whether its page was outside of the set.
    fn advance(&mut self, references: &[Reference], time: usize) -> bool {
        let is_fault = !self.pages.contains_key(&references[time].page);
        *self.pages.entry(references[time].page).or_default() += 1;
        if let Some(leaving) = time.checked_sub(self.length).map(|left| references[left].page) {
            let count = self.pages.entry(leaving).or_default();
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.pages.remove(&leaving);
            }
        }
        is_fault
    }
}

/// Plays references with a window of this length.
fn play(length: u64, moments: &[u64], references: &[Reference]) -> (Report, Vec<(u64, u64)>) {
    let mut window = Window { length: length as usize, pages: BTreeMap::new() };
    let mut report = Report::new(format!("window {length}"));
    let (mut faults, mut sum, mut largest) = (0, 0, 0);
    let mut points = Vec::new();
    for time in 0..references.len() {
        faults += u64::from(window.advance(references, time));
        let size = window.pages.len() as u64;
        (sum, largest) = (sum + size, largest.max(size));
        points.push((time as u64 + 1, size));
        if moments.contains(&(time as u64 + 1)) {
            let pages: Vec<String> = window.pages.keys().map(u64::to_string).collect();
            report.notes.push(format!("after {} references: {{{}}}", time + 1, pages.join(", ")));
        }
    }
    let all = references.len() as u64;
    report.count(Measure::References, all);
    report.count(Measure::Faults, faults);
    report.figure(Measure::MeanSet, Value::Ratio(Ratio::new(sum, all)));
    report.count(Measure::LargestSet, largest);
    (report, points)
}

/// Plays the trace's window, half of it, and twice of it.
pub fn run(trace: &Trace) -> Result<Vec<Report>, Error> {
    let references = trace.references()?;
    let window = trace.settings.or(Setting::Window, 4);
    let moments = trace.settings.list(Setting::Moments).unwrap_or_default();
    let mut lengths = Vec::from([window.div_ceil(2), window, 2 * window]);
    lengths.dedup();
    let mut chart = Chart { x: "references", y: "pages", lines: Vec::new() };
    let mut reports = Vec::new();
    for length in lengths {
        let (report, points) = play(length, moments, &references);
        chart.lines.push((report.scheme.clone(), points));
        reports.push(report);
    }
    let mut all = Report::new("the size of the working set");
    all.pictures.push(Picture::Chart(chart));
    reports.insert(0, all);
    Ok(reports)
}
