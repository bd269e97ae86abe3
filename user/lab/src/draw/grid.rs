//! Renders rows of cells, in strips that fit a terminal.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::pad;
use crate::report::{Cell, Grid, Look};

/// The maximum width of a strip, in characters.
const WIDTH: usize = 76;

pub(super) fn draw(grid: &Grid) -> String {
    let labels = grid.rows.iter().map(|(name, _)| name.len() + grid.of.len() + 1).max().unwrap_or(0);
    let texts = grid.rows.iter().flat_map(|(_, cells)| cells).map(|cell| cell.text.len() + 1);
    let cell = texts.chain(grid.columns.iter().map(String::len)).max().unwrap_or(1) + 1;
    let in_strip = (WIDTH.saturating_sub(labels + 2) / cell).max(1);
    let mut text = String::new();
    for from in (0..grid.columns.len()).step_by(in_strip) {
        let columns = from..(from + in_strip).min(grid.columns.len());
        // The mark of a cell has a column of its own after the text.
        let heads = grid.columns[columns.clone()].iter().map(|head| format!("{head} "));
        line(&mut text, "", labels, cell, heads.collect());
        for (name, cells) in &grid.rows {
            let shown = cells[columns.clone()].iter().map(shown).collect();
            line(&mut text, &format!("{} {name}", grid.of), labels, cell, shown);
        }
        let marks = &grid.marks[columns];
        if marks.contains(&true) {
            let marks = marks.iter().map(|&mark| if mark { "^ ".into() } else { String::new() });
            line(&mut text, "", labels, cell, marks.collect());
        }
    }
    if grid.left_out > 0 {
        text += &format!("  {} more columns are not shown\n", grid.left_out);
    }
    text + &legend(grid)
}

fn shown(cell: &Cell) -> String {
    let mark = match cell.look {
        Look::Filled => '+',
        Look::Replaced => '*',
        Look::Plain | Look::Hit => ' ',
    };
    if cell.text.is_empty() { ". ".into() } else { format!("{}{mark}", cell.text) }
}

fn line(text: &mut String, label: &str, labels: usize, cell: usize, cells: Vec<String>) {
    let mut line = format!("  {label}");
    for (number, shown) in cells.iter().enumerate() {
        pad(&mut line, 2 + labels + (number + 1) * cell - shown.len());
        line += shown;
    }
    *text += line.trim_end();
    text.push('\n');
}

fn legend(grid: &Grid) -> String {
    let has = |look| grid.rows.iter().flat_map(|(_, cells)| cells).any(|cell| cell.look == look);
    let mut parts = Vec::from([format!("^ {}", grid.mark)]);
    parts.extend(has(Look::Filled).then(|| "+ into an empty place".into()));
    parts.extend(has(Look::Replaced).then(|| "* replaces another".into()));
    format!("  {}\n", parts.join("; "))
}
