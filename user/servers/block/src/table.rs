//! The partitions of a disk: the contents of its table, checked against the disk.
//!
//! A table may contain anything. So only partitions are accepted that are within limits, on the disk, and do not
//! overlap earlier ones; others are omitted and reported as damage. The file of the whole disk exists in any case.

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use quire_abi::Errno;

use crate::disk::{Disk, SECTOR};

/// The maximum number of partitions of a disk: the usual capacity of a GUID partition table.
pub const MOST: usize = 128;

/// The maximum number of reports of damage that are recorded.
const MOST_DAMAGE: usize = 8;

/// A sector's bytes.
pub(crate) type Sector = [u8; SECTOR];

/// A part of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1 on.
    pub number: u32,
    /// Its sectors.
    pub sectors: Range<u64>,
}

/// A defect of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// This partition is not completely on the disk.
    Outside(u32),
    /// This partition overlaps another one.
    Overlaps(u32),
    /// The chain of logical partitions is invalid from this sector on.
    Chain(u64),
    /// The first GUID partition table is damaged, and the second one is used.
    FirstTable,
    /// Both GUID partition tables are damaged.
    BothTables,
    /// There are more partitions than [`MOST`].
    TooMany,
    /// A sector of the table cannot be read.
    Unreadable(u64),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside(number) => write!(f, "partition {number} is not completely on the disk"),
            Self::Overlaps(number) => write!(f, "partition {number} overlaps another one"),
            Self::Chain(sector) => write!(f, "the chain of logical partitions is broken at sector {sector}"),
            Self::FirstTable => f.write_str("the first of the two tables is unusable, so the second one is used"),
            Self::BothTables => f.write_str("both tables are unusable"),
            Self::TooMany => write!(f, "it has more than {MOST} partitions"),
            Self::Unreadable(sector) => write!(f, "sector {sector} cannot be read"),
        }
    }
}

/// The contents of a table.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The partitions.
    pub partitions: Vec<Partition>,
    /// Its defects.
    pub damage: Vec<Damage>,
}

impl Table {
    /// Enters a partition if it fits on a disk of `disk` sectors and overlaps no other one. ENOMEM.
    pub(crate) fn enter(&mut self, number: u32, sectors: Range<u64>, disk: u64) -> Result<(), Errno> {
        if sectors.is_empty() || sectors.end > disk {
            return self.note(Damage::Outside(number));
        }
        let overlaps = |other: &Partition| other.sectors.start < sectors.end && sectors.start < other.sectors.end;
        if self.partitions.iter().any(overlaps) {
            return self.note(Damage::Overlaps(number));
        }
        if self.partitions.len() >= MOST {
            return self.note(Damage::TooMany);
        }
        self.partitions.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        self.partitions.push(Partition { number, sectors });
        Ok(())
    }

    /// Records damage, up to the maximum. ENOMEM.
    pub(crate) fn note(&mut self, damage: Damage) -> Result<(), Errno> {
        if self.damage.len() >= MOST_DAMAGE || self.damage.contains(&damage) {
            return Ok(());
        }
        self.damage.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        self.damage.push(damage);
        Ok(())
    }
}

/// Reads a sector of a table; if it cannot be read, records that and returns `None`.
pub(crate) fn read(disk: &mut dyn Disk, sector: u64, table: &mut Table) -> Result<Option<Sector>, Errno> {
    let mut bytes = [0; SECTOR];
    match disk.read(sector, &mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(Errno::ENOMEM) => Err(Errno::ENOMEM),
        Err(_) => table.note(Damage::Unreadable(sector)).map(|()| None),
    }
}
