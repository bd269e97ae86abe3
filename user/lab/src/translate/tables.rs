//! Multi-level page tables: tables that exist only for the used parts of an address space.
//!
//! An address is divided into an index for each level and an offset. The first index selects an entry of the top table,
//! which points to a table of the next level, and so on; the last entry contains the frame. A table exists only if an
//! address below it is used. In return a walk needs an access to memory for each level. The report also shows the size
//! of a single flat table.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::Error;
use crate::report::{Cell, Grid, Look, Measure, Picture, Report, Value};
use crate::trace::{Setting, Settings, Trace};
use crate::units::Ratio;

/// The levels of AArch64 with 4 KiB pages and 48-bit addresses.
const DEFAULT: [u64; 5] = [9, 9, 9, 9, 12];
/// The maximum number of accesses in a picture.
const MOST_COLUMNS: usize = 32;

/// The division of an address: the bits of each index, from the top, and of the offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    indices: Vec<u64>,
    offset: u64,
}

impl Shape {
    /// The shape of a trace, or AArch64's.
    pub fn of(settings: &Settings) -> Result<Shape, Error> {
        let bits = settings.list(Setting::Levels).unwrap_or(&DEFAULT);
        let [indices @ .., offset] = bits else { return Err(Error::new("levels needs an index and an offset")) };
        match indices.is_empty() || bits.iter().sum::<u64>() > 48 {
            true => Err(Error::new(
                "levels needs an index and an offset, at most 48 bits in total, such as: levels 10 10 12",
            )),
            false => Ok(Shape { indices: indices.to_vec(), offset: *offset }),
        }
    }

    /// The number of levels.
    pub fn levels(&self) -> u64 {
        self.indices.len() as u64
    }

    /// The index at each level, and the offset; `None` if the address has more bits than the shape.
    pub fn cut(&self, address: u64) -> Option<(Vec<u64>, u64)> {
        let mut left = self.offset + self.indices.iter().sum::<u64>();
        if address >> left != 0 {
            return None;
        }
        let mut cut = Vec::new();
        for bits in &self.indices {
            left -= bits;
            cut.push((address >> left) & ((1 << bits) - 1));
        }
        Some((cut, address & ((1 << self.offset) - 1)))
    }

    /// The size of a table of this level.
    fn table(&self, level: usize, entry: u64) -> u64 {
        self.indices.get(level).map_or(0, |bits| entry << bits)
    }
}

/// Plays accesses and counts the tables that they need.
pub fn run(trace: &Trace) -> Result<Vec<Report>, Error> {
    let shape = Shape::of(&trace.settings)?;
    let entry = trace.settings.or(Setting::Entry, 8);
    // A table is identified by the indices of the levels above it.
    let mut tables: BTreeSet<Vec<u64>> = BTreeSet::from([Vec::new()]);
    let mut report = Report::new("levels");
    let (mut accesses, mut traps) = (0, 0);
    let mut grid = Grid { of: "level", mark: "a table was allocated", ..Grid::default() };
    grid.rows = (1..=shape.levels()).map(|level| (format!("{level}"), Vec::new())).collect();
    for access in trace.accesses()? {
        accesses += 1;
        let Some((indices, offset)) = shape.cut(access.address) else {
            traps += 1;
            report.notes.push(format!("{:#x}: too many bits for the tables -> trap", access.address));
            continue;
        };
        let made: Vec<bool> = (0..indices.len()).map(|level| tables.insert(indices[..level].to_vec())).collect();
        draw(&mut grid, access.address, &indices, &made);
        if report.notes.len() < MOST_COLUMNS {
            report.notes.push(walk(access.address, &indices, offset));
        }
    }
    let table_bytes: u64 = tables.iter().map(|above| shape.table(above.len(), entry)).sum();
    let flat = entry << shape.indices.iter().sum::<u64>();
    report.scheme = format!("{} level{}", shape.levels(), if shape.levels() == 1 { "" } else { "s" });
    report.count(Measure::Accesses, accesses);
    report.count(Measure::Traps, traps);
    report.bytes(Measure::TableBytes, table_bytes);
    report.bytes(Measure::FlatBytes, flat);
    report.count(Measure::Walks, shape.levels() * (accesses - traps));
    let cycle = trace.settings.or(Setting::Cycle, 100);
    report.figure(Measure::AverageTime, Value::Time(Ratio::new((shape.levels() + 1) * cycle, 1)));
    report.pictures.push(Picture::Grid(grid));
    Ok(Vec::from([report]))
}

fn draw(grid: &mut Grid, address: u64, indices: &[u64], made: &[bool]) {
    if grid.columns.len() == MOST_COLUMNS {
        grid.left_out += 1;
        return;
    }
    grid.columns.push(format!("{address:x}"));
    for ((_, cells), (index, &made)) in grid.rows.iter_mut().zip(indices.iter().zip(made)) {
        cells.push(Cell { text: index.to_string(), look: if made { Look::Filled } else { Look::Hit } });
    }
    grid.marks.push(made.contains(&true));
}

fn walk(address: u64, indices: &[u64], offset: u64) -> String {
    let steps: Vec<String> = indices.iter().map(u64::to_string).collect();
    format!("{address:#x}: indices {}, offset {offset}", steps.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tanenbaum's example of a 32-bit address in two levels.
    #[test]
    fn an_address_is_cut() {
        let two = Shape { indices: [10, 10].to_vec(), offset: 12 };
        assert_eq!(two.cut(0x0040_3004), Some(([1, 3].to_vec(), 4)));
        assert_eq!(two.cut(0xffff_ffff), Some(([1023, 1023].to_vec(), 4095)));
        assert_eq!(two.cut(1 << 32), None);
    }
}
