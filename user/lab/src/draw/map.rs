//! Renders memory as bars of characters: `[##P1##~~]` is a block of P1 with waste at its end, `.` is free, `:` is kept.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::pad;
use crate::report::{Kind, Map, MapRow, Piece};
use crate::units::Size;

/// The width of all of memory, in characters.
const WIDTH: u64 = 56;

pub(super) fn draw(map: &Map) -> String {
    let labels = map.rows.iter().map(|row| row.label.len()).max().unwrap_or(0);
    let mut text = String::new();
    text += "  ";
    pad(&mut text, labels + 4);
    let (first, last) = ("0", format!("{}", Size(map.whole)));
    text += first;
    pad(&mut text, labels + 4 + WIDTH as usize - last.len());
    text += &last;
    text.push('\n');
    for row in &map.rows {
        let mut line = format!("  {}", row.label);
        pad(&mut line, labels + 3);
        line += &format!("|{}| {}", bar(row, map.whole), row.note);
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// Renders one moment. Pieces narrower than a character are not visible.
fn bar(row: &MapRow, whole: u64) -> String {
    let column = |address: u64| (u128::from(address) * u128::from(WIDTH) / u128::from(whole.max(1))) as usize;
    let mut cells = Vec::new();
    for Piece { start, size, kind } in &row.pieces {
        let width = column(start + size) - column(*start);
        match kind {
            Kind::Free => cells.extend(core::iter::repeat_n('.', width)),
            Kind::Kept => cells.extend(core::iter::repeat_n(':', width)),
            Kind::Used { name, wasted } => {
                let waste = (u128::from(*wasted) * width as u128 / u128::from((*size).max(1))) as usize;
                cells.extend(block(name, width, waste));
            }
        }
    }
    cells.into_iter().collect()
}

/// Renders a block: brackets if there is room for them, and the name in the middle of the used part.
fn block(name: &str, width: usize, waste: usize) -> Vec<char> {
    let used = width - waste;
    let mut cells: Vec<char> = core::iter::repeat_n('#', used).chain(core::iter::repeat_n('~', waste)).collect();
    if width >= 2 {
        cells[0] = '[';
        cells[width - 1] = ']';
    }
    // A name that is longer than the used part extends into the waste.
    let inside = if width >= 2 { 1..used.max(1 + name.len()).min(width - 1) } else { 0..width };
    let shown = name.len().min(inside.len());
    let from = inside.start + (inside.len() - shown) / 2;
    for (cell, letter) in cells.iter_mut().skip(from).zip(name.chars().take(shown)) {
        *cell = letter;
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_has_its_name_and_its_waste() {
        let shown = |name, width, waste| block(name, width, waste).into_iter().collect::<String>();
        assert_eq!(shown("P1", 9, 0), "[##P1###]");
        assert_eq!(shown("P1", 9, 4), "[#P1#~~~]");
        assert_eq!([shown("P1", 2, 0), shown("P1", 1, 0), shown("P1", 0, 0)], ["[]", "P", ""]);
        assert_eq!([shown("longer", 5, 5), shown("P1", 8, 7)], ["[lon]", "[P1~~~~]"]);
    }

    #[test]
    fn a_bar_is_as_wide_as_memory() {
        for whole in [1, 7, 56, 57, 1000, 1 << 40] {
            let cut = whole / 3;
            let used = Kind::Used { name: "A".into(), wasted: 0 };
            let pieces = [(0, cut, used), (cut, whole - cut, Kind::Free)];
            let pieces = pieces.map(|(start, size, kind)| Piece { start, size, kind }).to_vec();
            let row = MapRow { label: String::new(), pieces, note: String::new() };
            assert_eq!(bar(&row, whole).len(), WIDTH as usize);
        }
    }
}
