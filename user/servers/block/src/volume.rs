//! Disks and their partitions, with the names and numbers of their files.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::ops::Range;

use quire_abi::Errno;
use quire_abi::names::device_of;

use crate::disk::Disk;
use crate::table::{Damage, Table, read};
use crate::{gpt, mbr};

/// The directory's number.
pub const ROOT: u64 = 0;
/// The number of the file that lists all disks and partitions.
pub const LIST: u64 = 1;
/// The number of the first disk.
const FIRST: u64 = 2;
/// Numbers of partitions have this bit.
const PARTITION: u64 = 1 << 47;

/// The name of that file.
pub const LIST_NAME: &[u8] = b"partitions";

/// The major number of partitions for which their disk has no minor number left, as on Linux.
const FURTHER: u64 = 259;

/// The naming scheme of a driver's disks, as on Linux.
#[derive(Clone, Copy, Debug)]
pub struct Naming {
    /// The prefix of all names.
    pub prefix: &'static [u8],
    /// The suffix of the first one; the next character for the next one.
    pub first: u8,
    /// Their major number.
    pub major: u64,
    /// The number of minor numbers per disk, including the whole disk's.
    pub minors: u64,
}

/// A disk or a partition.
#[derive(Debug)]
pub struct Volume {
    /// Its name in the directory.
    pub name: Vec<u8>,
    /// Its number in the protocol: the same whenever a driver finds it, and different from every other partition's.
    pub number: u64,
    /// Its device number.
    pub device: u64,
    /// Its partition number; 0 for a whole disk.
    pub partition: u32,
    disk: usize,
    sectors: Range<u64>,
}

impl Volume {
    /// How many sectors it has.
    pub fn len(&self) -> u64 {
        self.sectors.end - self.sectors.start
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is a whole disk.
    pub fn is_whole(&self) -> bool {
        self.partition == 0
    }
}

/// All disks of a driver.
pub struct Disks<'a> {
    naming: Naming,
    disks: Vec<Box<dyn Disk + 'a>>,
    /// Disks, each followed by its partitions.
    volumes: Vec<Volume>,
    /// The number of minor numbers in use for partitions for which their disk had none left.
    further: u64,
    report: fn(&[u8], &Damage),
}

/// A part of a disk that is accessed as a disk.
struct Part<'a> {
    disk: &'a mut dyn Disk,
    sectors: Range<u64>,
}

impl Disk for Part<'_> {
    fn sectors(&self) -> u64 {
        self.sectors.end - self.sectors.start
    }
    fn is_read_only(&self) -> bool {
        self.disk.is_read_only()
    }
    fn most(&self) -> usize {
        self.disk.most()
    }
    fn physical(&self) -> u32 {
        self.disk.physical()
    }
    fn read(&mut self, sector: u64, to: &mut [u8]) -> Result<(), Errno> {
        self.disk.read(self.sectors.start + sector, to)
    }
    fn write(&mut self, sector: u64, from: &[u8]) -> Result<(), Errno> {
        self.disk.write(self.sectors.start + sector, from)
    }
    fn flush(&mut self) -> Result<(), Errno> {
        self.disk.flush()
    }
    fn discard(&mut self, sector: u64, sectors: u64) -> Result<(), Errno> {
        self.disk.discard(self.sectors.start + sector, sectors)
    }
}

/// The number of a disk or partition. It is derived from its properties, so that a file that is open when the driver is
/// restarted or the table is changed refers to the same sectors or to nothing.
fn number_of(disk: usize, partition: u32, sectors: &Range<u64>) -> u64 {
    if partition == 0 {
        return FIRST + disk as u64;
    }
    let mut hash = 0;
    for word in [disk as u64, partition.into(), sectors.start, sectors.end] {
        // (MurmurHash3's finalizer.)
        hash = (hash ^ word ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^= hash >> 33;
    }
    PARTITION + hash % PARTITION
}

/// Reads a disk's table. A disk without a table has no partitions. ENOMEM.
pub fn find(disk: &mut dyn Disk) -> Result<Table, Errno> {
    let mut table = Table::default();
    let Some(first) = read(disk, 0, &mut table)? else { return Ok(table) };
    match mbr::parse(&first) {
        Some(entries) if mbr::protects(&entries) => gpt::find(disk, &mut table)?,
        Some(entries) => mbr::find(disk, &entries, &mut table)?,
        None => {}
    }
    Ok(table)
}

impl<'a> Disks<'a> {
    /// No disks yet. `report` is called with the name of a disk and a defect of its table.
    pub fn new(naming: Naming, report: fn(&[u8], &Damage)) -> Self {
        Self { naming, disks: Vec::new(), volumes: Vec::new(), further: 0, report }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.disks.is_empty()
    }

    /// Adds a disk, with its partitions. ENOMEM.
    pub fn add(&mut self, disk: Box<dyn Disk + 'a>) -> Result<(), Errno> {
        let (number, sectors) = (self.disks.len(), disk.sectors());
        self.disks.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let whole = self.volume(number, 0, 0..sectors)?;
        self.volumes.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        self.volumes.push(whole);
        self.disks.push(disk);
        self.scan(number)
    }

    /// The name and numbers of a partition of a disk, or of the whole disk. ENOMEM.
    fn volume(&mut self, disk: usize, partition: u32, sectors: Range<u64>) -> Result<Volume, Errno> {
        let mut name = Vec::new();
        name.try_reserve_exact(self.naming.prefix.len() + 16).map_err(|_| Errno::ENOMEM)?;
        name.extend_from_slice(self.naming.prefix);
        name.push(self.naming.first.saturating_add(disk as u8));
        if partition != 0 {
            if name.last().is_some_and(u8::is_ascii_digit) {
                name.push(b'p');
            }
            let _ = write!(Text(&mut name), "{partition}");
        }
        let device = if u64::from(partition) < self.naming.minors {
            device_of(self.naming.major, disk as u64 * self.naming.minors + u64::from(partition))
        } else {
            self.further += 1;
            device_of(FURTHER, self.further - 1)
        };
        let number = number_of(disk, partition, &sectors);
        Ok(Volume { name, number, device, partition, disk, sectors })
    }

    /// Reads a disk's table again. Unchanged partitions keep their numbers; files of others return ENOENT.
    pub fn scan(&mut self, disk: usize) -> Result<(), Errno> {
        let table = find(&mut **self.disks.get_mut(disk).ok_or(Errno::ENXIO)?)?;
        let whole = self.volumes.iter().position(|volume| volume.disk == disk).ok_or(Errno::ENXIO)?;
        for damage in &table.damage {
            (self.report)(&self.volumes[whole].name, damage);
        }
        let mut partitions = Vec::new();
        partitions.try_reserve_exact(table.partitions.len()).map_err(|_| Errno::ENOMEM)?;
        for found in table.partitions {
            let is_it = |volume: &Volume| {
                (volume.disk, volume.partition, &volume.sectors) == (disk, found.number, &found.sectors)
            };
            partitions.push(match self.volumes.iter().position(is_it) {
                Some(same) => self.volumes.remove(same),
                None => self.volume(disk, found.number, found.sectors)?,
            });
        }
        partitions.sort_by_key(|volume| volume.partition);
        self.volumes.retain(|volume| volume.disk != disk || volume.is_whole());
        self.volumes.try_reserve(partitions.len()).map_err(|_| Errno::ENOMEM)?;
        let at = self.volumes.iter().position(|volume| volume.disk == disk).ok_or(Errno::ENXIO)? + 1;
        self.volumes.splice(at..at, partitions);
        Ok(())
    }

    /// Disks, each followed by its partitions.
    pub fn volumes(&self) -> &[Volume] {
        &self.volumes
    }

    /// The volume with this number. ENOENT.
    pub fn with_number(&self, number: u64) -> Result<&Volume, Errno> {
        self.volumes.iter().find(|volume| volume.number == number).ok_or(Errno::ENOENT)
    }

    /// Whether a volume is read-only.
    pub fn is_read_only(&self, volume: &Volume) -> bool {
        self.disks[volume.disk].is_read_only()
    }

    /// Calls `with` with the disk or partition that has this number. ENOENT.
    pub fn with<R>(&mut self, number: u64, with: impl FnOnce(&mut dyn Disk) -> Result<R, Errno>) -> Result<R, Errno> {
        let volume = self.with_number(number)?;
        let (disk, sectors) = (volume.disk, volume.sectors.clone());
        with(&mut Part { disk: &mut *self.disks[disk], sectors })
    }

    /// Reads the table of a disk again. EINVAL for a partition, as on Linux.
    pub fn scan_again(&mut self, number: u64) -> Result<(), Errno> {
        let volume = self.with_number(number)?;
        if volume.is_whole() { self.scan(volume.disk) } else { Err(Errno::EINVAL) }
    }

    /// Makes everything that was written to any disk permanent.
    pub fn flush(&mut self) -> Result<(), Errno> {
        // (All are tried.)
        self.disks.iter_mut().map(|disk| disk.flush()).fold(Ok(()), Result::and)
    }

    /// The list of all disks and partitions, in the format of Linux's /proc/partitions. ENOMEM.
    pub fn list(&self) -> Result<Vec<u8>, Errno> {
        const LINE: usize = 64;
        let mut list = Vec::new();
        list.try_reserve_exact(LINE * (self.volumes.len() + 1)).map_err(|_| Errno::ENOMEM)?;
        list.extend_from_slice(b"major minor  #blocks  name\n\n");
        for volume in &self.volumes {
            let (major, minor) = quire_abi::names::device_parts(volume.device);
            let _ = write!(Text(&mut list), "{major:4}  {minor:7} {:10} ", volume.len() / 2);
            list.extend_from_slice(&volume.name);
            list.push(b'\n');
        }
        Ok(list)
    }
}

/// Appends to a vector that has room.
struct Text<'a>(&'a mut Vec<u8>);

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}
