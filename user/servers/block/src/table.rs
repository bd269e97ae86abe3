//! The partitions of a disk: what its table says, checked against the disk.
//!
//! A table may say anything. So what it names is bounded, lies on the disk, and overlaps nothing that came before; what
//! does not is left out, and is said to be damage. The whole disk is there in any case.

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

use quire_abi::Errno;

use crate::disk::{Disk, SECTOR};

/// The most partitions of a disk: what a table of GUIDs ordinarily has room for.
pub const MOST: usize = 128;

/// The most damage that is noted.
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

/// What is wrong with a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// This partition does not lie on the disk.
    Outside(u32),
    /// This partition overlaps another one.
    Overlaps(u32),
    /// The chain of logical partitions ends here in nothing that makes sense.
    Chain(u64),
    /// The first table of GUIDs is not usable, and the second one is used.
    FirstTable,
    /// Neither table of GUIDs is usable.
    BothTables,
    /// There are more partitions than [`MOST`].
    TooMany,
    /// A sector of the table cannot be read.
    Unreadable(u64),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside(number) => write!(f, "partition {number} does not lie on the disk"),
            Self::Overlaps(number) => write!(f, "partition {number} overlaps another one"),
            Self::Chain(sector) => write!(f, "the chain of logical partitions is broken at sector {sector}"),
            Self::FirstTable => f.write_str("the first of the two tables is not usable, the second one is used"),
            Self::BothTables => f.write_str("neither of the two tables is usable"),
            Self::TooMany => write!(f, "it has more than {MOST} partitions"),
            Self::Unreadable(sector) => write!(f, "sector {sector} cannot be read"),
        }
    }
}

/// What a table says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The partitions.
    pub partitions: Vec<Partition>,
    /// What is wrong with it.
    pub damage: Vec<Damage>,
}

impl Table {
    /// Enters a partition if there is room for it on a disk of `disk` sectors, and nothing of it is another's. ENOMEM.
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

    /// Notes damage, the first of it. ENOMEM.
    pub(crate) fn note(&mut self, damage: Damage) -> Result<(), Errno> {
        if self.damage.len() >= MOST_DAMAGE || self.damage.contains(&damage) {
            return Ok(());
        }
        self.damage.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        self.damage.push(damage);
        Ok(())
    }
}

/// A sector of a table; `None`, and it is noted, if it cannot be read.
pub(crate) fn read(disk: &mut dyn Disk, sector: u64, table: &mut Table) -> Result<Option<Sector>, Errno> {
    let mut bytes = [0; SECTOR];
    match disk.read(sector, &mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(Errno::ENOMEM) => Err(Errno::ENOMEM),
        Err(_) => table.note(Damage::Unreadable(sector)).map(|()| None),
    }
}
