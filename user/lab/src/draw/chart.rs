//! Renders curves: as a table of numbers if there are few points, otherwise as bar charts.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::pad;
use crate::report::Chart;

/// The maximum number of points in a table.
const FEW: u64 = 12;
/// The maximum width of a bar chart, in characters.
const WIDTH: u64 = 64;
/// The maximum height of a bar chart, in characters.
const HEIGHT: u64 = 8;

pub(super) fn draw(chart: &Chart) -> String {
    let (from, to) = chart.span();
    if to - from < FEW { numbers(chart) } else { chart.lines.iter().map(|line| bars(chart, line)).collect() }
}

fn numbers(chart: &Chart) -> String {
    let (from, to) = chart.span();
    let labels = chart.lines.iter().map(|(name, _)| name.len()).chain([chart.x.len()]).max().unwrap_or(0);
    let width = chart.highest().max(to).to_string().len() + 2;
    let mut text = String::new();
    let mut line = |name: &str, cells: Vec<Option<u64>>| {
        let mut line = format!("  {name}");
        for (number, cell) in cells.into_iter().enumerate() {
            let shown = cell.map_or("-".into(), |y| y.to_string());
            pad(&mut line, 2 + labels + (number + 1) * width - shown.len());
            line += &shown;
        }
        text += &line;
        text.push('\n');
    };
    line(chart.x, (from..=to).map(Some).collect());
    for (name, points) in &chart.lines {
        line(name, (from..=to).map(|x| points.iter().find(|point| point.0 == x).map(|point| point.1)).collect());
    }
    text
}

/// Renders a bar for each point. A character that covers several points shows the highest.
fn bars(chart: &Chart, (name, points): &(String, Vec<(u64, u64)>)) -> String {
    let (from, to) = chart.span();
    let width = (to - from + 1).min(WIDTH);
    let mut columns: Vec<u64> = Vec::from_iter((0..width).map(|_| 0));
    for &(x, y) in points {
        let at = ((x - from) * width / (to - from + 1)) as usize;
        columns[at] = columns[at].max(y);
    }
    let highest = chart.highest();
    let height = highest.clamp(1, HEIGHT);
    let mut text = format!("  {name}: {} over {}\n", chart.y, chart.x);
    for level in (1..=height).rev() {
        let scale = highest * level / height;
        let row: String = columns.iter().map(|&y| if y >= scale { '#' } else { ' ' }).collect();
        text += format!("  {scale:>5} |{row}").trim_end();
        text.push('\n');
    }
    let rule: String = core::iter::repeat_n('-', width as usize).collect();
    let ends = format!("{from}{to:>rest$}", rest = (width as usize).saturating_sub(from.to_string().len()));
    text + &format!("        +{rule}\n         {ends}\n")
}
