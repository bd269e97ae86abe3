//! Belady's anomaly: all policies with one frame, two frames, three frames and so on.
//!
//! More frames should mean fewer faults. This holds for *stack algorithms* such as LRU and OPT: the pages in n frames
//! are always a subset of the pages in n + 1 frames. FIFO is not a stack algorithm, and for some references an
//! additional frame causes more faults (Belady, Nelson and Shedler, 1969).

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;

use super::engine::{self, Rules};
use super::policies;
use crate::Error;
use crate::report::{Chart, Measure, Picture, Report};
use crate::trace::Trace;

/// The maximum number of frames.
const MOST_FRAMES: usize = 10;

/// Plays all policies: a report with the curves, then one for each policy.
pub fn run(trace: &Trace) -> Result<Vec<Report>, Error> {
    let references = trace.references()?;
    let pages: BTreeSet<u64> = references.iter().map(|reference| reference.page).collect();
    let most = pages.len().min(MOST_FRAMES);
    let rules = Rules::of(&trace.settings);
    let mut all = Report::new("faults");
    let mut reports = Vec::new();
    let mut chart = Chart { x: "frames", y: "faults", lines: Vec::new() };
    for number in 0..policies(&trace.settings).len() {
        let mut points = Vec::new();
        let mut name = "";
        for frames in 1..=most {
            // A policy has state, so each run starts with a new one.
            let Some(mut policy) = policies(&trace.settings).into_iter().nth(number) else { continue };
            let played = engine::play(policy.as_mut(), Rules { frames, ..rules }, &references);
            name = played.name;
            points.push((frames as u64, played.faults));
        }
        let anomalies = points.windows(2).filter(|pair| pair[1].1 > pair[0].1);
        let mut report = Report::new(name);
        report.count(Measure::References, references.len() as u64);
        report.count(Measure::Anomalies, anomalies.clone().count() as u64);
        all.notes.extend(anomalies.map(|pair| {
            let [(few, faults), (more, more_faults)] = [pair[0], pair[1]];
            format!("Belady's anomaly, {name}: {faults} faults with {few} frames, {more_faults} with {more}")
        }));
        chart.lines.push((name.into(), points));
        reports.push(report);
    }
    all.pictures.push(Picture::Chart(chart));
    reports.insert(0, all);
    Ok(reports)
}
