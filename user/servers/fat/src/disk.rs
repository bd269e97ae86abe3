//! The disk under a file system, and a cache for small transfers: sectors of the allocation table, of directories, and
//! the beginnings and ends of files.
//!
//! Writes go to the disk at once, in their order: that order determines what a power failure leaves. The cache is only
//! for reading.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;

use hadris_io::{Error, ErrorKind, ErrorType};
use hadris_storage::sync::BlockDevice;
use hadris_storage::{BlockIndex, BlockSize};
use quire_abi::Errno;

/// Bytes of a sector.
pub const SECTOR: usize = 512;

/// The size of a line of the cache in bytes; longer transfers bypass it.
const LINE: usize = 4096;

/// The most lines: 1 MiB.
const LINES: usize = 256;

/// The number of lines that are read at once if the preceding line was read before.
const AHEAD: u64 = 8;

/// The number of positions that are remembered at which sequential reading may continue: those of a table and its copy,
/// of directories.
const STREAMS: usize = 4;

/// A disk or partition.
pub trait Disk {
    /// Its length in bytes.
    fn len(&self) -> u64;
    /// Whether it has none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Whether it cannot be written.
    fn is_read_only(&self) -> bool;
    /// Reads bytes from a position on, all of them.
    fn read(&mut self, at: u64, to: &mut [u8]) -> Result<(), Errno>;
    /// Writes bytes from a position on, all of them.
    fn write(&mut self, at: u64, from: &[u8]) -> Result<(), Errno>;
    /// Makes everything that was written permanent, whatever happens to the machine.
    fn flush(&mut self) -> Result<(), Errno>;
}

struct Line {
    bytes: Box<[u8]>,
    used: u64,
}

struct Cached<D> {
    disk: D,
    lines: BTreeMap<u64, Line>,
    /// Counts uses of lines.
    now: u64,
    /// The lines after those that were read last.
    ends: [u64; STREAMS],
}

impl<D: Disk> Cached<D> {
    /// The line with this number, read from the disk if it is not in the cache. `None` if there is no memory for it.
    fn line(&mut self, number: u64) -> Result<Option<&mut Line>, Errno> {
        self.now += 1;
        if !self.lines.contains_key(&number) && !self.fetch(number)? {
            return Ok(None);
        }
        let Some(line) = self.lines.get_mut(&number) else { return Ok(None) };
        line.used = self.now;
        Ok(Some(line))
    }

    /// Reads a line, and the following ones if it follows a line that was read: tables are read from the beginning to
    /// the end. `false` if memory is lacking.
    fn fetch(&mut self, number: u64) -> Result<bool, Errno> {
        let stream = self.ends.iter().position(|end| *end == number);
        let count = if stream.is_some() { AHEAD } else { 1 };
        let at = number * LINE as u64;
        let len = self.disk.len().saturating_sub(at).min(count * LINE as u64) as usize;
        let mut bytes = Vec::new();
        if bytes.try_reserve_exact(len).is_err() {
            return Ok(false);
        }
        bytes.resize(len, 0);
        self.disk.read(at, &mut bytes)?;
        self.ends[stream.unwrap_or((self.now % STREAMS as u64) as usize)] = number + count;
        for (number, line) in (number..).zip(bytes.chunks(LINE)) {
            let mut copy = Vec::new();
            if copy.try_reserve_exact(line.len()).is_err() {
                return Ok(self.lines.contains_key(&number));
            }
            copy.extend_from_slice(line);
            self.make_room();
            self.lines.insert(number, Line { bytes: copy.into_boxed_slice(), used: self.now });
        }
        Ok(true)
    }

    /// Removes the line that was not used for the longest time, if the maximum is reached. O(lines).
    fn make_room(&mut self) {
        if self.lines.len() >= LINES
            && let Some(oldest) = self.lines.iter().min_by_key(|(_, line)| line.used).map(|(number, _)| *number)
        {
            self.lines.remove(&oldest);
        }
    }

    fn read(&mut self, mut at: u64, mut to: &mut [u8]) -> Result<(), Errno> {
        if to.len() > LINE {
            return self.disk.read(at, to);
        }
        while !to.is_empty() {
            let within = (at % LINE as u64) as usize;
            let here = to.len().min(LINE - within);
            let (piece, rest) = to.split_at_mut(here);
            match self.line(at / LINE as u64) {
                Ok(Some(line)) => piece.copy_from_slice(line.bytes.get(within..within + here).ok_or(Errno::EIO)?),
                // (Bytes that were not requested may be unreadable.)
                Ok(None) | Err(_) => self.disk.read(at, piece)?,
            }
            to = rest;
            at += here as u64;
        }
        Ok(())
    }

    fn write(&mut self, at: u64, from: &[u8]) -> Result<(), Errno> {
        let written = self.disk.write(at, from);
        let end = at + from.len() as u64;
        let touched = at / LINE as u64..end.div_ceil(LINE as u64);
        if written.is_err() {
            // The present contents of the disk are unknown.
            self.lines.retain(|number, _| !touched.contains(number));
            return written;
        }
        for (number, line) in self.lines.range_mut(touched) {
            let start = number * LINE as u64;
            let (first, last) = (at.max(start), end.min(start + line.bytes.len() as u64));
            if first < last {
                let source = &from[(first - at) as usize..(last - at) as usize];
                line.bytes[(first - start) as usize..(last - start) as usize].copy_from_slice(source);
            }
        }
        Ok(())
    }
}

/// A disk with the interface of `hadris-fat`. Copies share the disk and the cache.
pub struct Device<D>(Rc<RefCell<Cached<D>>>);

impl<D> Clone for Device<D> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<D: Disk> Device<D> {
    /// For a disk.
    pub fn new(disk: D) -> Self {
        Self(Rc::new(RefCell::new(Cached { disk, lines: BTreeMap::new(), now: 0, ends: [0; STREAMS] })))
    }

    /// Calls `with` with the disk itself.
    pub fn with<R>(&self, with: impl FnOnce(&mut D) -> R) -> R {
        with(&mut self.0.borrow_mut().disk)
    }
}

/// An error of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure(pub Errno);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl core::error::Error for Failure {}

impl<D> ErrorType for Device<D> {
    type Error = Failure;
}

fn failed(errno: Errno) -> Error<Failure> {
    match errno {
        Errno::EROFS => Error::new(ErrorKind::ReadOnly, "the disk is read-only"),
        errno => Error::device(Failure(errno), "the disk"),
    }
}

impl<D: Disk> BlockDevice for Device<D> {
    fn block_size(&self) -> BlockSize {
        const { BlockSize::new(SECTOR as u32).unwrap() }
    }

    fn block_count(&self) -> u64 {
        self.with(|disk| disk.len()) / SECTOR as u64
    }

    fn writable(&self) -> bool {
        !self.with(|disk| disk.is_read_only())
    }

    fn read_blocks(&mut self, first: BlockIndex, to: &mut [u8]) -> Result<(), Error<Failure>> {
        self.0.borrow_mut().read(first.get() * SECTOR as u64, to).map_err(failed)
    }

    fn write_blocks(&mut self, first: BlockIndex, from: &[u8]) -> Result<(), Error<Failure>> {
        self.0.borrow_mut().write(first.get() * SECTOR as u64, from).map_err(failed)
    }

    fn flush(&mut self) -> Result<(), Error<Failure>> {
        self.with(|disk| disk.flush()).map_err(failed)
    }
}
