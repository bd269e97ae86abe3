//! DRAM: independent banks, each with at most one open row.
//!
//! An access opens its row (tRCD) and then selects its column (tCAS). If the row is open already, only the column
//! access is paid: a hit. If another row of the bank is open, it must be closed first (tRP): a conflict. The outcome
//! depends on the address bits that select the bank, and on whether rows are left open:
//!
//! - *Bank on top*: each bank is one contiguous stretch of memory.
//! - *Row on top*: consecutive rows lie in consecutive banks.
//! - *Lines across*: consecutive lines lie in consecutive banks.
//! - *Row on top, hashed*: the bank number is XORed with bits of the row number, so that a stride of a power of two
//!   does not always hit the same bank (Zhang, Zhu and Zhang, "A permutation-based page interleaving scheme", 2000).
//!
//! With *open* rows the next access may hit. With *closed* rows each access closes its row afterwards, in idle time, so
//! there are no conflicts. Accesses are sequential and do not overlap. See Jacob, Ng and Wang, "Memory Systems".

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::Error;
use crate::report::{Cell, Grid, Look, Measure, Picture, Report, Value};
use crate::trace::{Setting, Settings, Trace};
use crate::units::{Ratio, Size};

/// The maximum number of accesses in a picture.
const MOST_COLUMNS: usize = 48;

/// The address bits that select the bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// The topmost bits.
    BankOnTop,
    /// The bits below the row number.
    RowOnTop,
    /// The bits above the offset within a line.
    LinesAcross,
    /// The bits below the row number, XORed with bits of the row number.
    Hashed,
}

impl Mapping {
    /// All of them.
    pub const ALL: [Mapping; 4] = [Mapping::BankOnTop, Mapping::RowOnTop, Mapping::LinesAcross, Mapping::Hashed];

    fn name(self) -> &'static str {
        match self {
            Mapping::BankOnTop => "bank on top",
            Mapping::RowOnTop => "row on top",
            Mapping::LinesAcross => "lines across",
            Mapping::Hashed => "hashed",
        }
    }
}

/// The geometry of memory, and its timing in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Chip {
    memory: u64,
    banks: u64,
    row: u64,
    line: u64,
    cas: u64,
    rcd: u64,
    rp: u64,
}

impl Chip {
    /// The chip of a trace. Banks, rows and lines are powers of two, since address bits select them.
    pub fn of(settings: &Settings) -> Result<Chip, Error> {
        let chip = Chip {
            memory: settings.memory().unwrap_or(1 << 20),
            banks: settings.or(Setting::Banks, 4),
            row: settings.or(Setting::Row, 1024),
            line: settings.or(Setting::Line, 64),
            cas: settings.or(Setting::Cas, 14),
            rcd: settings.or(Setting::Rcd, 14),
            rp: settings.or(Setting::Rp, 14),
        };
        let powers = [("memory", chip.memory), ("banks", chip.banks), ("row", chip.row), ("line", chip.line)];
        if let Some((name, value)) = powers.into_iter().find(|(_, value)| !value.is_power_of_two()) {
            return Err(Error::new(format!("{name} must be a power of two for DRAM, and not {}", Size(value))));
        }
        if chip.line > chip.row || chip.banks * chip.row > chip.memory {
            return Err(Error::new("DRAM needs lines no longer than rows, and memory for a row in each bank"));
        }
        Ok(chip)
    }

    /// The bank and the row of an address.
    pub fn place(&self, mapping: Mapping, address: u64) -> (u64, u64) {
        // The number of the row, counted over all banks.
        let number = address / self.row;
        match mapping {
            Mapping::BankOnTop => {
                let rows = self.memory / self.row / self.banks;
                (number / rows, number % rows)
            }
            Mapping::RowOnTop => (number % self.banks, number / self.banks),
            Mapping::LinesAcross => (address / self.line % self.banks, number / self.banks),
            Mapping::Hashed => {
                let row = number / self.banks;
                ((number % self.banks) ^ (row % self.banks), row)
            }
        }
    }
}

/// The state of the bank at an access.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Open,
    Closed,
    Other,
}

/// Plays accesses on a chip.
pub fn play(chip: &Chip, mapping: Mapping, leave_open: bool, addresses: &[u64]) -> Report {
    let mut open: Vec<Option<u64>> = Vec::from_iter((0..chip.banks).map(|_| None));
    let (mut hits, mut opened, mut conflicts, mut time) = (0, 0, 0, 0);
    let mut grid = Grid { of: "bank", mark: "conflict: another row was open", ..Grid::default() };
    grid.rows = (0..chip.banks).map(|bank| (bank.to_string(), Vec::new())).collect();
    for &address in addresses {
        let (bank, row) = chip.place(mapping, address);
        let Some(state) = open.get_mut(bank as usize) else { continue };
        let found = match *state {
            Some(other) if other == row => Found::Open,
            Some(_) => Found::Other,
            None => Found::Closed,
        };
        let (count, cost) = match found {
            Found::Open => (&mut hits, chip.cas),
            Found::Closed => (&mut opened, chip.rcd + chip.cas),
            Found::Other => (&mut conflicts, chip.rp + chip.rcd + chip.cas),
        };
        *count += 1;
        time += cost;
        *state = leave_open.then_some(row);
        draw(&mut grid, address, bank, row, found);
    }
    let all = addresses.len() as u64;
    let rows = if leave_open { "open" } else { "closed" };
    let mut report = Report::new(format!("{}, {rows}", mapping.name()));
    report.count(Measure::Accesses, all);
    report.count(Measure::Hits, hits);
    report.count(Measure::Opened, opened);
    report.count(Measure::Conflicts, conflicts);
    report.figure(Measure::HitRate, Value::Ratio(Ratio::new(hits, all).percent()));
    report.figure(Measure::AverageTime, Value::Time(Ratio::new(time, all)));
    report.pictures.push(Picture::Grid(grid));
    report
}

/// Adds the column of an access, with the row number in the cell of the bank.
fn draw(grid: &mut Grid, address: u64, bank: u64, row: u64, found: Found) {
    if grid.columns.len() == MOST_COLUMNS {
        grid.left_out += 1;
        return;
    }
    let look = match found {
        Found::Open => Look::Hit,
        Found::Closed => Look::Filled,
        Found::Other => Look::Replaced,
    };
    grid.columns.push(short(address));
    grid.marks.push(found == Found::Other);
    for (number, (_, cells)) in grid.rows.iter_mut().enumerate() {
        cells.push(if number as u64 == bank { Cell { text: row.to_string(), look } } else { Cell::default() });
    }
}

fn short(address: u64) -> String {
    Size(address).to_string()
}

/// Plays each mapping with open rows, and one with closed rows.
pub fn run(trace: &Trace) -> Result<Vec<Report>, Error> {
    let chip = Chip::of(&trace.settings)?;
    let addresses: Vec<u64> = trace.accesses()?.into_iter().map(|access| access.address).collect();
    if let Some(beyond) = addresses.iter().find(|&&address| address >= chip.memory) {
        return Err(Error::new(format!("{beyond:#x} is beyond the memory of {}", Size(chip.memory))));
    }
    let mut reports: Vec<Report> =
        Mapping::ALL.into_iter().map(|mapping| play(&chip, mapping, true, &addresses)).collect();
    reports.push(play(&chip, Mapping::RowOnTop, false, &addresses));
    Ok(reports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_select_banks_and_rows() {
        let chip = Chip::of(&Settings::default()).unwrap();
        assert_eq!(chip.place(Mapping::BankOnTop, 256 << 10), (1, 0));
        assert_eq!(chip.place(Mapping::RowOnTop, 5 << 10), (1, 1));
        assert_eq!(chip.place(Mapping::LinesAcross, 3 * 64), (3, 0));
        assert_eq!(chip.place(Mapping::Hashed, 5 << 10), (0, 1));
    }

    /// Each row of each bank gets exactly as many addresses as it has bytes.
    #[test]
    fn each_bank_has_as_many_addresses_of_each_row() {
        let chip = Chip::of(&Settings::default()).unwrap();
        for mapping in Mapping::ALL {
            let mut counts = std::collections::BTreeMap::new();
            (0..chip.memory).step_by(64).for_each(|a| *counts.entry(chip.place(mapping, a)).or_insert(0u64) += 64);
            assert!(counts.values().all(|&count| count == chip.row), "{mapping:?}");
            assert_eq!(counts.len() as u64, chip.memory / chip.row);
        }
    }
}
