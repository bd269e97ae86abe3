//! Disks, and transfers of any position and length made of whole sectors.

use alloc::vec::Vec;
use core::ops::Range;

use quire_abi::Errno;

/// The size of a sector in bytes: the unit of disks.
pub const SECTOR: usize = 512;

/// The interface of a driver. Transfers consist of whole sectors within the disk, and have at most [`Disk::most`]
/// bytes.
pub trait Disk {
    /// How many sectors it has.
    fn sectors(&self) -> u64;
    /// Whether it cannot be written.
    fn is_read_only(&self) -> bool;
    /// The maximum number of bytes of a transfer, a multiple of a sector.
    fn most(&self) -> usize;
    /// Reads from a sector on.
    fn read(&mut self, sector: u64, to: &mut [u8]) -> Result<(), Errno>;
    /// Writes from a sector on.
    fn write(&mut self, sector: u64, from: &[u8]) -> Result<(), Errno>;
    /// Makes everything that was written permanent, whatever happens to the machine.
    fn flush(&mut self) -> Result<(), Errno>;
    /// The number of bytes that it writes at once.
    fn physical(&self) -> u32 {
        SECTOR as u32
    }
    /// Discards the content of `sectors` sectors from `sector` on, possibly the whole disk. EOPNOTSUPP if the disk does
    /// not support that.
    fn discard(&mut self, sector: u64, sectors: u64) -> Result<(), Errno> {
        let _ = (sector, sectors);
        Err(Errno::EOPNOTSUPP)
    }
}

/// The bytes of a disk.
pub fn len(disk: &dyn Disk) -> u64 {
    disk.sectors().saturating_mul(SECTOR as u64)
}

/// The part of a transfer that is within the disk.
fn within(disk: &dyn Disk, at: u64, wanted: usize) -> usize {
    usize::try_from(len(disk).saturating_sub(at)).unwrap_or(usize::MAX).min(wanted)
}

/// The sectors that hold these bytes.
fn sectors_of(at: u64, bytes: usize) -> Range<u64> {
    at / SECTOR as u64..(at + bytes as u64).div_ceil(SECTOR as u64)
}

/// Memory for these sectors. ENOMEM.
fn room_for(sectors: &Range<u64>) -> Result<Vec<u8>, Errno> {
    let bytes = (sectors.end - sectors.start) as usize * SECTOR;
    let mut room = Vec::new();
    room.try_reserve_exact(bytes).map_err(|_| Errno::ENOMEM)?;
    room.resize(bytes, 0);
    Ok(room)
}

/// The number of bytes of a transfer's next part, whose sectors fit one transfer of the disk.
fn piece(disk: &dyn Disk, at: u64, left: usize) -> usize {
    let before = (at % SECTOR as u64) as usize;
    left.min(disk.most() - before)
}

/// Reads `wanted` bytes from a position on, fewer at the disk's end.
pub fn read(disk: &mut dyn Disk, at: u64, wanted: usize) -> Result<Vec<u8>, Errno> {
    let wanted = within(disk, at, wanted);
    if wanted == 0 {
        return Ok(Vec::new());
    }
    let sectors = sectors_of(at, wanted);
    let mut all = room_for(&sectors)?;
    let most = disk.most();
    for (n, part) in all.chunks_mut(most).enumerate() {
        disk.read(sectors.start + (n * (most / SECTOR)) as u64, part)?;
    }
    all.drain(..(at % SECTOR as u64) as usize);
    all.truncate(wanted);
    Ok(all)
}

/// Writes bytes from a position on; returns how many, fewer at the disk's end. If a sector is only partly written, the
/// rest of it is read first. ENOSPC at the end, EROFS.
pub fn write(disk: &mut dyn Disk, at: u64, bytes: &[u8]) -> Result<usize, Errno> {
    if disk.is_read_only() {
        return Err(Errno::EROFS);
    }
    let bytes = &bytes[..within(disk, at, bytes.len())];
    if bytes.is_empty() {
        return Err(Errno::ENOSPC);
    }
    let mut done = 0;
    while done < bytes.len() {
        let here = at + done as u64;
        let part = &bytes[done..done + piece(disk, here, bytes.len() - done)];
        match write_part(disk, here, part) {
            // Bytes that were written count.
            Err(_) if done > 0 => break,
            written => written?,
        }
        done += part.len();
    }
    Ok(done)
}

fn write_part(disk: &mut dyn Disk, at: u64, part: &[u8]) -> Result<(), Errno> {
    let sectors = sectors_of(at, part.len());
    let before = (at % SECTOR as u64) as usize;
    if before == 0 && part.len().is_multiple_of(SECTOR) {
        return disk.write(sectors.start, part);
    }
    let mut whole = room_for(&sectors)?;
    disk.read(sectors.start, &mut whole)?;
    whole[before..before + part.len()].copy_from_slice(part);
    disk.write(sectors.start, &whole)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use alloc::vec;

    /// A disk in memory, which transfers three sectors at a time.
    pub(crate) struct Memory {
        pub bytes: Vec<u8>,
        pub is_read_only: bool,
        pub flushes: usize,
    }

    impl Memory {
        pub(crate) fn new(sectors: usize) -> Self {
            let bytes = (0..sectors * SECTOR).map(|at| (at / 7) as u8).collect();
            Self { bytes, is_read_only: false, flushes: 0 }
        }

        fn range(&self, sector: u64, len: usize) -> Range<usize> {
            assert!(len > 0 && len.is_multiple_of(SECTOR) && len <= self.most(), "a transfer of {len} bytes");
            let start = sector as usize * SECTOR;
            start..start + len
        }
    }

    impl Disk for Memory {
        fn sectors(&self) -> u64 {
            (self.bytes.len() / SECTOR) as u64
        }
        fn is_read_only(&self) -> bool {
            self.is_read_only
        }
        fn most(&self) -> usize {
            3 * SECTOR
        }
        fn read(&mut self, sector: u64, to: &mut [u8]) -> Result<(), Errno> {
            to.copy_from_slice(&self.bytes[self.range(sector, to.len())]);
            Ok(())
        }
        fn write(&mut self, sector: u64, from: &[u8]) -> Result<(), Errno> {
            let range = self.range(sector, from.len());
            self.bytes[range].copy_from_slice(from);
            Ok(())
        }
        fn flush(&mut self) -> Result<(), Errno> {
            self.flushes += 1;
            Ok(())
        }
    }

    #[test]
    fn any_place_and_length_is_read_and_written_as_in_memory() {
        let mut disk = Memory::new(10);
        let mut model = disk.bytes.clone();
        let places = [0, 1, 511, 512, 513, 1024, 1535, 1536, 2000, 5119, 5120, 6000];
        let lengths = [0, 1, 2, 511, 512, 513, 1024, 1536, 1537, 3000, 5120];
        for (n, (at, len)) in places.iter().flat_map(|at| lengths.map(|len| (*at, len))).enumerate() {
            let there = model.get(at..model.len().min(at + len)).unwrap_or(&[]).to_vec();
            assert_eq!(read(&mut disk, at as u64, len), Ok(there.clone()), "{len} bytes at {at}");
            let new = vec![n as u8 ^ 0x55; len];
            let wrote = write(&mut disk, at as u64, &new);
            if there.is_empty() {
                assert_eq!(wrote, Err(Errno::ENOSPC));
            } else {
                assert_eq!(wrote, Ok(there.len()));
                model[at..at + there.len()].fill(n as u8 ^ 0x55);
            }
            assert_eq!(disk.bytes, model, "{len} bytes at {at}");
        }
    }

    #[test]
    fn what_is_for_reading_is_not_written() {
        let mut disk = Memory::new(1);
        disk.is_read_only = true;
        assert_eq!(write(&mut disk, 0, &[1]), Err(Errno::EROFS));
    }
}
