//! Renders reports as text, for terminals of 80 to 120 columns.

mod chart;
mod grid;
mod map;

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::report::{Measure, Picture, Report};

/// A table with a row for each report that has figures, and a column for each measure of any of them.
pub fn table(reports: &[Report]) -> String {
    let measures = measures(reports);
    let mut lines = Vec::from([Vec::from_iter(
        core::iter::once(String::new()).chain(measures.iter().map(|measure| measure.heading().to_string())),
    )]);
    for report in reports.iter().filter(|report| !report.figures.is_empty()) {
        let figure = |&measure: &Measure| report.value(measure).map_or("-".into(), |value| value.to_string());
        lines.push(core::iter::once(report.scheme.clone()).chain(measures.iter().map(figure)).collect());
    }
    let width = |column: usize| lines.iter().map(|line: &Vec<String>| line[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..=measures.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let mut row = String::new();
        for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            if column == 0 {
                row += cell;
                pad(&mut row, width);
            } else {
                let end = row.len() + 2 + width;
                pad(&mut row, end - cell.len());
                row += cell;
            }
        }
        text += row.trim_end();
        text.push('\n');
    }
    text
}

/// The measures of several reports, in order of first appearance.
pub fn measures<'a>(reports: impl IntoIterator<Item = &'a Report>) -> Vec<Measure> {
    let mut measures: Vec<Measure> = Vec::new();
    for (measure, _) in reports.into_iter().flat_map(|report| &report.figures) {
        if !measures.contains(measure) {
            measures.push(*measure);
        }
    }
    measures
}

/// The name, pictures and notes of a report.
pub fn pictures(report: &Report) -> String {
    let mut text = String::new();
    for picture in &report.pictures {
        text += &match picture {
            Picture::Map(picture) => map::draw(picture),
            Picture::Grid(picture) => grid::draw(picture),
            Picture::Chart(picture) => chart::draw(picture),
        };
    }
    for note in &report.notes {
        text += "  ";
        text += note;
        text.push('\n');
    }
    if text.is_empty() { text } else { report.scheme.clone() + "\n" + &text }
}

/// Pads with spaces up to a column.
fn pad(text: &mut String, column: usize) {
    while text.len() < column {
        text.push(' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Value;

    #[test]
    fn a_table_has_a_column_for_each_figure() {
        let mut one = Report::new("first fit");
        one.count(Measure::Refused, 1);
        let mut other = Report::new("buddy");
        other.figure(Measure::Refused, Value::Count(10));
        other.bytes(Measure::Free, 4096);
        assert_eq!(
            table(&[one, other]),
            "           refused  free\nfirst fit        1     -\nbuddy           10    4K\n"
        );
    }
}
