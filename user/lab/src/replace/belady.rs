//! Belady's anomaly: all policies with one frame, with two, with three and so on.
//!
//! More frames should mean fewer faults. For *stack algorithms* that is so: what LRU or OPT has in n frames is always a part of
//! what it has in n + 1. FIFO is none, and there are references for which a frame more makes more faults (Belady, Nelson and
//! Shedler, 1969).

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;

use super::engine::{self, Rules};
use super::policies;
use crate::Error;
use crate::report::{Chart, Measure, Picture, Report};
use crate::trace::Trace;

/// The most frames that are tried.
const MOST_FRAMES: usize = 10;

/// A report that draws all policies, and one with the figures of each.
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
            // A policy has a memory of its own: each run begins with a new one.
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
