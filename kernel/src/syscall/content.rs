//! Reading and writing files in memory: the bytes are copied once, between the program's memory and the file's pages
//! (docs/files.md, "Copying").
//!
//! A write has the file's turn until it is complete. Neither direction holds a page while it brings in one of the
//! program's pages.

use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::flags::{seal, sig};
use quire_abi::layout::rlimit;
use quire_mm::UserAddr;
use quire_mm::fallible::KArc;
use quire_mm::object::ObjectError;
use quire_mm::object::file::{MAX_LEN, Turn};
use quire_mm::supply::Supply;

use super::buffers::{Buffers, MAX_RW};
use super::file::table;
use super::{Answer, Args};
use crate::arch::{mem, uaccess};
use crate::ipc::descriptor::{Object as Open, OpenFile, Rights};
use crate::ipc::memory_file::MemoryFile;
use crate::task::point::resched_point;
use crate::task::signal;
use crate::task::thread::current;
use crate::task::wait::Sleep;
use crate::vm::{Cpu, Object, SPACES};

/// Reads at a position, or at the open file's position, which then advances.
pub fn read(open: &OpenFile, file: &MemoryFile, to: &mut Buffers<'_>, position: Option<u64>) -> Answer {
    let done = match position {
        Some(at) => {
            check_end(at, to.left())?;
            read_at(&file.content, at, to)?
        }
        None => {
            let (at, end) = claim(open, file, to.left())?;
            let done = read_at(&file.content, at, to);
            let next = at + done.unwrap_or(0) as u64;
            if next != end {
                // (If another thread has moved the position meanwhile, its change came later.)
                let _ = open.offset.compare_exchange(end, next, Ordering::Relaxed, Ordering::Relaxed);
            }
            done?
        }
    };
    file.note_read();
    Ok(done)
}

/// Advances the position by up to `len` bytes, so that no other read of the open file gets them; returns where they
/// begin and end.
#[inline]
fn claim(open: &OpenFile, file: &MemoryFile, len: usize) -> Result<(u64, u64), Errno> {
    let mut at = open.offset.load(Ordering::Relaxed);
    loop {
        check_end(at, len)?;
        let end = at + file.content.len().saturating_sub(at).min(len as u64);
        match open.offset.compare_exchange_weak(at, end, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return Ok((at, end)),
            Err(now) => at = now,
        }
    }
}

/// EINVAL for a transfer that would reach beyond the highest offset.
#[inline]
pub fn check_end(at: u64, len: usize) -> Result<(), Errno> {
    if at + len as u64 > i64::MAX as u64 { Err(Errno::EINVAL) } else { Ok(()) }
}

fn read_at(content: &Object, at: u64, to: &mut Buffers<'_>) -> Answer {
    let mut done = 0;
    while to.left() != 0 {
        // SAFETY: the bytes may be read, and are only copied.
        let copied = content.read(at + done as u64, to.left(), |from, n| unsafe { to.put_now(from, n) });
        match copied {
            None => return Ok(done),
            // Either side may be why.
            Some(0) => match content.bring_in_at(at + done as u64).map_err(Errno::from).and_then(|_| to.bring_in(true))
            {
                Err(e) if done == 0 => return Err(e),
                Err(_) => return Ok(done),
                Ok(()) => {}
            },
            Some(n) => {
                to.pass(n);
                done += n;
            }
        }
        if resched_point(Sleep::Killable).is_err() {
            break;
        }
    }
    Ok(done)
}

/// The source of the bytes of a write.
pub trait Feed {
    /// The number of bytes in the next contiguous piece; 0 at the end.
    fn most(&mut self) -> usize;

    /// Copies up to `n` of the next bytes; returns how many.
    ///
    /// # Safety
    /// `to` is valid for writes of `n` bytes; other threads may access them.
    unsafe fn copy(&mut self, to: *mut u8, n: usize) -> usize;

    /// Advances.
    fn pass(&mut self, n: usize);

    /// Called if no bytes could be copied: makes that possible, or returns the reason why it is not.
    fn unblock(&mut self) -> Result<(), Errno>;
}

impl Feed for Buffers<'_> {
    #[inline]
    fn most(&mut self) -> usize {
        self.part()
    }

    #[inline]
    unsafe fn copy(&mut self, to: *mut u8, n: usize) -> usize {
        // SAFETY: the caller's promise.
        unsafe { self.take_now(to, n) }
    }

    #[inline]
    fn pass(&mut self, n: usize) {
        Buffers::pass(self, n);
    }

    fn unblock(&mut self) -> Result<(), Errno> {
        self.bring_in(false)
    }
}

/// A part of a file's content.
pub struct Range<'a> {
    source: Source<'a>,
    at: u64,
    left: usize,
}

/// A file that can be copied from without sleeping.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    /// A file of the boot archive.
    Archive(&'static [u8]),
    /// A file in memory.
    Memory(&'a MemoryFile),
}

impl<'a> Source<'a> {
    /// The content of an open file. EINVAL if it is not a file.
    pub fn of(open: &'a OpenFile) -> Result<Self, Errno> {
        match &open.object {
            Open::Archive(node) if !node.is_dir() => Ok(Self::Archive(node.data)),
            object => object.memory().map(|file| Self::Memory(file)).ok_or(Errno::EINVAL),
        }
    }

    pub fn len(self) -> u64 {
        match self {
            Self::Archive(data) => data.len() as u64,
            Self::Memory(file) => file.content.len(),
        }
    }

    /// A range of up to `most` bytes of it.
    pub fn range(self, at: u64, most: usize) -> Range<'a> {
        let left = self.len().saturating_sub(at).min(most as u64) as usize;
        Range { source: self, at, left }
    }

    /// It was read.
    pub fn note_read(self) {
        if let Self::Memory(file) = self {
            file.note_read();
        }
    }
}

impl Range<'_> {
    /// Bytes left.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Copies the next bytes, and advances; returns how many. May sleep.
    pub fn take(&mut self, to: &mut [u8]) -> Answer {
        let mut done = 0;
        while done < to.len() && self.left > 0 {
            let rest = &mut to[done..];
            // SAFETY: they may be written.
            let n = unsafe { self.copy(rest.as_mut_ptr(), rest.len()) };
            if n == 0 {
                self.unblock()?;
                continue;
            }
            self.pass(n);
            done += n;
        }
        Ok(done)
    }
}

impl Feed for Range<'_> {
    fn most(&mut self) -> usize {
        self.left
    }

    unsafe fn copy(&mut self, to: *mut u8, n: usize) -> usize {
        let n = n.min(self.left);
        let copy = |from: *const u8, n: usize| {
            // SAFETY: the bytes may be read; for `to`, the caller's promise.
            unsafe { mem::copy_shared(to, from, n) };
            n
        };
        match self.source {
            Source::Archive(data) => {
                let data = &data[self.at as usize..][..n];
                copy(data.as_ptr(), n)
            }
            Source::Memory(file) => file.content.read(self.at, n, copy).unwrap_or(0),
        }
    }

    fn pass(&mut self, n: usize) {
        self.at += n as u64;
        self.left -= n;
    }

    /// The file has become shorter, or one of its pages is in swap.
    fn unblock(&mut self) -> Result<(), Errno> {
        match self.source {
            Source::Memory(file) if file.content.len() > self.at => _ = file.content.bring_in_at(self.at)?,
            _ => self.left = 0,
        }
        Ok(())
    }
}

/// Where a write begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At the end; if `moves`, the open file's position is set to the end of the written bytes.
    End { moves: bool },
    /// At the open file's position, which then advances.
    Position,
    /// There.
    At(u64),
}

/// Writes `len` bytes from a feed.
pub fn write(open: &OpenFile, file: &MemoryFile, from: &mut impl Feed, len: usize, place: Place) -> Answer {
    if len == 0 {
        return Ok(0);
    }
    let mut turn = Object::turn(&file.content)?;
    turn.agree()?;
    let wanted = match place {
        Place::At(at) => at,
        _ => open.offset.load(Ordering::Relaxed),
    };
    check_end(wanted, len)?;
    let at = if let Place::End { .. } = place { file.content.len() } else { wanted };
    let len = allowed(file, at, len)?;
    if file.has_set_ids() && !current().process().credentials.lock().is_privileged() {
        file.end_set_ids();
    }
    let done = write_pieces(&mut turn, at, len, from)?;
    file.note_write();
    let next = at + done as u64;
    match place {
        Place::End { moves: true } => open.offset.store(next, Ordering::Relaxed),
        // (If another thread has moved it meanwhile, its change came later.)
        Place::Position => _ = open.offset.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed),
        _ => {}
    }
    Ok(done)
}

/// How many of `len` bytes may be written at `at`. If none: EFBIG, with SIGXFSZ if the process's limit is the reason,
/// or EPERM because of a seal.
fn allowed(file: &MemoryFile, at: u64, len: usize) -> Answer {
    let limit = current().process().limit(rlimit::FSIZE);
    if at >= limit {
        signal::send_own(sig::XFSZ);
        return Err(Errno::EFBIG);
    }
    let left = limit.min(MAX_LEN).checked_sub(at).filter(|left| *left != 0).ok_or(Errno::EFBIG)?;
    let len = len.min(usize::try_from(left).unwrap_or(usize::MAX));
    match file.content.seals() {
        0 => Ok(len),
        seals => unsealed(file, seals, at, len),
    }
}

/// Whether the seals allow a write.
#[cold]
fn unsealed(file: &MemoryFile, seals: u32, at: u64, len: usize) -> Answer {
    if seals & (seal::WRITE | seal::FUTURE_WRITE) != 0 {
        return Err(Errno::EPERM);
    }
    let grows = at + len as u64 > file.content.len();
    if grows && seals & seal::GROW != 0 { Err(Errno::EPERM) } else { Ok(len) }
}

fn write_pieces(turn: &mut Turn<'_, Cpu>, at: u64, len: usize, from: &mut impl Feed) -> Answer {
    let supply = Supply::new(Cpu);
    let mut done = 0;
    while done < len {
        let most = from.most().min(len - done);
        if most == 0 {
            break;
        }
        // SAFETY: the page's bytes may be written.
        let written = turn.write(at + done as u64, most, &supply, |to, n| unsafe { from.copy(to, n) });
        let error = match written {
            Ok(0) => from.unblock().err(),
            Ok(n) => {
                from.pass(n);
                done += n;
                None
            }
            Err(ObjectError::OutOfMemory) if supply.is_short() => supply.refill().err().map(Errno::from),
            Err(error) => Some(error.into()),
        };
        match error {
            Some(e) if done == 0 => return Err(e),
            Some(_) => break,
            // A thread that fills memory with dirty pages must write them back itself.
            None if SPACES.must_write_back() && turn.write_back().is_err() => break,
            None => {}
        }
        if resched_point(Sleep::Killable).is_err() {
            break;
        }
    }
    let committed = turn.commit();
    if !turn.object().is_paged() {
        return Ok(done);
    }
    // The bytes before the end were written.
    let taken = turn.object().len().saturating_sub(at).min(done as u64) as usize;
    match committed {
        Err(e) if taken == 0 => Err(e),
        _ => Ok(taken),
    }
}

/// lseek's `SEEK_DATA`, or `SEEK_HOLE`. ENXIO at or after the end.
pub fn seek(open: &OpenFile, at: u64, hole: bool) -> Result<u64, Errno> {
    let (next, len) = match Source::of(open)? {
        Source::Memory(file) if hole => (file.content.next_hole(at)?, file.content.len()),
        Source::Memory(file) => (file.content.next_data(at)?, file.content.len()),
        // It has no holes.
        Source::Archive(data) if hole => (Some(data.len() as u64), data.len() as u64),
        Source::Archive(data) => (Some(at), data.len() as u64),
    };
    next.filter(|_| at < len).ok_or(Errno::ENXIO)
}

/// The position that a program passes, if it does.
pub fn position(a: &Args, i: usize) -> Result<Option<u64>, Errno> {
    let Some(at) = a.opt_addr(i) else { return Ok(None) };
    let at: i64 = uaccess::get(at)?;
    u64::try_from(at).map(Some).map_err(|_| Errno::EINVAL)
}

/// Copies between files in memory. EXDEV for files of the archive, which belong to another file system.
pub fn copy_file_range(a: Args) -> Answer {
    let (from, to) = (table()?.get(a.int(0))?, table()?.get(a.int(2))?);
    let (own_from, own_to) = (position(&a, 1)?, position(&a, 3)?);
    if a.uint(5) != 0 {
        return Err(Errno::EINVAL);
    }
    let is_dir = |open: &OpenFile| match &open.object {
        Open::Archive(node) => node.is_dir(),
        Open::Name(name) => name.is_dir(),
        _ => false,
    };
    if is_dir(&from.file) || is_dir(&to.file) {
        return Err(Errno::EISDIR);
    }
    let is_file = |open: &OpenFile| Source::of(open).is_ok();
    if !is_file(&from.file) || !is_file(&to.file) {
        return Err(Errno::EINVAL);
    }
    let (from, to) = (from.file_for(Rights::READ)?, to.file_for(Rights::WRITE)?);
    if to.appends() {
        return Err(Errno::EBADF);
    }
    let (Some(source), Some(target)) = (from.object.memory(), to.object.memory()) else { return Err(Errno::EXDEV) };
    let at = own_from.unwrap_or_else(|| from.offset.load(Ordering::Relaxed));
    let there = own_to.unwrap_or_else(|| to.offset.load(Ordering::Relaxed));
    let len = a.word(4).min(MAX_RW);
    let end = at.checked_add(a.0[4]).filter(|end| *end <= i64::MAX as u64).ok_or(Errno::EOVERFLOW)?;
    let mut range = Source::Memory(source).range(at, len);
    let len = range.left() as u64;
    if KArc::ptr_eq(source, target) && at < there + len && there < end.min(at + len) {
        return Err(Errno::EINVAL);
    }
    let place = own_to.map_or(Place::Position, Place::At);
    let done = write(&to, target, &mut range, len as usize, place)?;
    source.note_read();
    advance(&from, a.opt_addr(1), at, done)?;
    if let Some(address) = a.opt_addr(3) {
        uaccess::put(address, &(there + done as u64))?;
    }
    Ok(done)
}

/// Advances the program's own position, if it passed one, or else the open file's, by `done` from `at`.
pub fn advance(open: &OpenFile, own: Option<UserAddr>, at: u64, done: usize) -> Result<(), Errno> {
    let next = at + done as u64;
    match own {
        Some(address) => uaccess::put(address, &next),
        None => {
            open.offset.store(next, Ordering::Relaxed);
            Ok(())
        }
    }
}
