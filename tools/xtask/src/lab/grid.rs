//! Draws cells in rows and columns.
//!
//! In a grid with lasting content (a page in a frame), equal neighbours form a ribbon whose colour depends on the content. In
//! other grids the colour shows the outcome of an access; a sign repeats it for readers who do not see the colours.

use quire_lab::report::{Cell, Grid, Look};

use super::svg::{Anchor, Svg, width_of};

const ROW: i32 = 24;
const HEAD: i32 = 22;
const FOOT: i32 = 20;
/// The number of colours in the style sheet.
const COLOURS: u64 = 8;

/// Draws a grid.
pub fn draw(grid: &Grid, label: &str) -> String {
    let labels = grid.rows.iter().map(|(name, _)| width_of(name) + width_of(grid.of) + 20).max().unwrap_or(0);
    let texts = grid.rows.iter().flat_map(|(_, cells)| cells).map(|cell| width_of(&cell.text));
    let cell = texts.chain(grid.columns.iter().map(|head| width_of(head))).max().unwrap_or(0) + 10;
    let cell = cell.max(22);
    let mut drawing = Drawing { svg: Svg::new(0, 0), grid, labels, cell };
    drawing.svg = Svg::new(labels + cell * grid.columns.len() as i32 + 6, HEAD + ROW * grid.rows.len() as i32 + FOOT);
    for (number, head) in grid.columns.iter().enumerate() {
        drawing.svg.text((drawing.middle(number), 14), Anchor::Middle, "head", head);
    }
    for (number, (name, cells)) in grid.rows.iter().enumerate() {
        let top = HEAD + number as i32 * ROW;
        drawing.svg.text((labels - 8, top + 16), Anchor::End, "label", &format!("{} {name}", grid.of));
        match grid.is_lasting {
            true => drawing.ribbons(cells, top),
            false => drawing.cells(cells, top),
        }
    }
    let foot = HEAD + grid.rows.len() as i32 * ROW + 10;
    for (number, _) in grid.marks.iter().enumerate().filter(|(_, mark)| **mark) {
        drawing.svg.path(&triangle(drawing.middle(number), foot), "mark");
    }
    drawing.svg.finish(label)
}

fn triangle(x: i32, y: i32) -> String {
    format!("M{} {} l5 -8 l5 8 z", x - 5, y + 3)
}

struct Drawing<'a> {
    svg: Svg,
    grid: &'a Grid,
    labels: i32,
    cell: i32,
}

impl Drawing<'_> {
    fn left(&self, column: usize) -> i32 {
        self.labels + column as i32 * self.cell
    }

    fn middle(&self, column: usize) -> i32 {
        self.left(column) + self.cell / 2
    }

    /// Draws runs of equal cells as ribbons, with the content at the start and a dot at each hit.
    fn ribbons(&mut self, cells: &[Cell], top: i32) {
        let mut from = 0;
        while from < cells.len() {
            let text = &cells[from].text;
            let begins = |cell: &Cell| matches!(cell.look, Look::Filled | Look::Replaced);
            let goes_on = |cell: &&Cell| cell.text == *text && !begins(cell);
            let to = from + 1 + cells[from + 1..].iter().take_while(goes_on).count();
            if !text.is_empty() {
                let at = (self.left(from) + 1, top + 2);
                let size = ((to - from) as i32 * self.cell - 2, ROW - 4);
                let during = format!("{text}: from column {} to {to}", from + 1);
                self.svg.rect(at, size, &format!("c{}", colour_of(text)), &during);
                let class = if begins(&cells[from]) { "name strong" } else { "name" };
                self.svg.text((self.middle(from), top + 16), Anchor::Middle, class, text);
                for column in (from..to).filter(|column| cells[*column].look == Look::Hit) {
                    // A hit at the start of a ribbon is a ring around its name.
                    let (radius, class) = if column == from { (9, "ring") } else { (4, "dot") };
                    let hit = format!("{} is hit", self.grid.columns[column]);
                    self.svg.circle((self.middle(column), top + ROW / 2), radius, class, &hit);
                }
            }
            from = to;
        }
    }

    /// Draws each cell by the outcome of its access.
    fn cells(&mut self, cells: &[Cell], top: i32) {
        for (column, cell) in cells.iter().enumerate() {
            let at = (self.left(column) + 1, top + 2);
            let size = (self.cell - 2, ROW - 4);
            let (class, sign) = match cell.look {
                Look::Plain => ("empty", ""),
                Look::Hit => ("hit", ""),
                Look::Filled => ("filled", "+"),
                Look::Replaced => ("replaced", "*"),
            };
            self.svg.rect(at, size, class, &self.grid.columns[column]);
            if !cell.text.is_empty() {
                let text = format!("{}{sign}", cell.text);
                self.svg.text((self.middle(column), top + 16), Anchor::Middle, "name", &text);
            }
        }
    }
}

/// The colour of a page; consecutive page numbers differ in colour.
fn colour_of(text: &str) -> u64 {
    text.parse::<u64>().unwrap_or(0) % COLOURS
}
