//! Moving bytes: read, write and similar calls. Files of the archive, pipes' pages and files in memory (`content.rs`)
//! are copied directly; the rest goes through a small buffer, since no spin lock is held while user memory is accessed.
//!
//! A call may move 2 GiB. It passes a point every few pages: a killed thread stops there, and a signal interrupts the
//! transfer where it does on Linux (devices and the console, not files).

use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::flags::{rwf, sig};
use quire_mm::addr::PAGE_SIZE;
use quire_mm::fallible::KArc;

use super::buffers::{Buffers, MAX_RW, with_vector};
use super::content::{self, Place, Range, Source};
use super::file::table;
use super::{Answer, Args, message_file, signalfd, socket_message};
use crate::console::tty;
use crate::ipc::descriptor::{Object, OpenFile, Rights};
use crate::ipc::eventfd::EventFd;
use crate::ipc::pipe::{self, Pipe, Writing};
use crate::names::inodes;
use crate::names::target::Name;
use crate::task::point::{COPY, resched_point};
use crate::task::signal;
use crate::task::wait::Sleep;

/// Bytes copied through the kernel's stack at a time.
const PIECE: usize = 1024;

static ZEROS: [u8; PAGE_SIZE] = [0; PAGE_SIZE];

/// The parameters of a transfer.
#[derive(Clone, Copy, Debug, Default)]
struct How {
    /// The position, if it is not the open file's own, which then advances.
    position: Option<u64>,
    /// Whether a write appends, whatever the file's status flags are.
    append: Option<bool>,
    /// It does not sleep.
    now: bool,
}

impl How {
    /// At a position. EINVAL for a negative one.
    fn at(position: u64) -> Result<Self, Errno> {
        let position = i64::try_from(position).map_err(|_| Errno::EINVAL)?;
        Ok(Self { position: Some(position as u64), ..Self::default() })
    }

    /// As for preadv2 and pwritev2: position -1 means the open file's own.
    fn with_flags(file: &OpenFile, position: u64, flags: u32) -> Result<Self, Errno> {
        let known = rwf::HIPRI | rwf::DSYNC | rwf::SYNC | rwf::NOWAIT | rwf::APPEND | rwf::NOAPPEND;
        let has = |flag: u32| flags & flag != 0;
        let may_now =
            !matches!(file.object, Object::Archive(_) | Object::Memory(_) | Object::Name(_) | Object::Console);
        if flags & !known != 0 || has(rwf::NOWAIT) && !may_now {
            return Err(Errno::EOPNOTSUPP);
        }
        if has(rwf::APPEND) && has(rwf::NOAPPEND) {
            return Err(Errno::EINVAL);
        }
        let how = if position == u64::MAX { Self::default() } else { Self::at(position)? };
        let append = has(rwf::APPEND | rwf::NOAPPEND).then_some(has(rwf::APPEND));
        Ok(Self { append, now: has(rwf::NOWAIT), ..how })
    }

    fn is_nonblocking(&self, file: &OpenFile) -> bool {
        self.now || file.is_nonblocking()
    }

    /// Where a write to a file begins.
    fn place(&self, file: &OpenFile) -> Place {
        match self.position {
            _ if self.append.unwrap_or_else(|| file.appends()) => Place::End { moves: self.position.is_none() },
            None => Place::Position,
            Some(at) => Place::At(at),
        }
    }
}

fn read_to(file: &OpenFile, to: &mut Buffers<'_>, how: How) -> Answer {
    let position = how.position;
    match &file.object {
        Object::Memory(memory) | Object::Name(Name { file: Some(memory), .. }) => {
            content::read(file, memory, to, position)
        }
        Object::Archive(node) if node.is_dir() => Err(Errno::EISDIR),
        Object::Name(name) if name.is_dir() => Err(Errno::EISDIR),
        Object::Name(name) => message_file::read(file, name, to, position),
        Object::Archive(node) => {
            let at = position.unwrap_or_else(|| file.offset.load(Ordering::Relaxed));
            content::check_end(at, to.left())?;
            let from = usize::try_from(at).ok().and_then(|at| node.data.get(at..)).unwrap_or(&[]);
            let from = &from[..from.len().min(to.left())];
            let n = in_pieces(from.len(), Sleep::Killable, |done, n| to.put(&from[done..done + n]))?;
            if position.is_none() {
                file.offset.store(at + n as u64, Ordering::Relaxed);
            }
            Ok(n)
        }
        Object::Null => Ok(0),
        Object::Zero => in_pieces(to.left(), Sleep::Interruptible, |_, n| to.put(&ZEROS[..n.min(PAGE_SIZE)])),
        _ if position.is_some() => Err(Errno::ESPIPE),
        Object::Console => {
            let mut piece = [0; PIECE];
            let n = tty::read(&mut piece[..to.left().min(PIECE)], file.is_nonblocking())?;
            to.put(&piece[..n])
        }
        Object::Pipe(pipe, _) => read_pipe(pipe, how.is_nonblocking(file), to),
        Object::EventFd(_) if to.left() < size_of::<u64>() => Err(Errno::EINVAL),
        Object::EventFd(counter) => {
            let value = counter.read(how.is_nonblocking(file))?.to_ne_bytes();
            if to.put(&value)? < value.len() { Err(Errno::EFAULT) } else { Ok(value.len()) }
        }
        Object::TimerFd(_) if to.left() < size_of::<u64>() => Err(Errno::EINVAL),
        Object::TimerFd(timer) => {
            let count = timer.read(how.is_nonblocking(file))?.to_ne_bytes();
            if to.put(&count)? < count.len() { Err(Errno::EFAULT) } else { Ok(count.len()) }
        }
        Object::SignalFd(signals) => signalfd::read(signals, how.is_nonblocking(file), to),
        Object::Socket(_) => socket_message::receive_to(file, to),
        Object::Epoll(_) | Object::PidFd(_) => Err(Errno::EINVAL),
    }
}

/// Moves `len` bytes in steps of at most [`COPY`] with a point between them; `step` gets the bytes done and the bytes
/// to move, and returns how many it moved. A step that moves nothing ends the transfer; so does an error after the
/// first step.
fn in_pieces(len: usize, cut: Sleep, mut step: impl FnMut(usize, usize) -> Answer) -> Answer {
    let mut done = 0;
    while done < len {
        match step(done, COPY.min(len - done)) {
            Ok(0) => break,
            Ok(moved) => done += moved,
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
        if resched_point(cut).is_err() {
            break;
        }
    }
    Ok(done)
}

/// Only the first bytes may require a sleep; then everything else that is there is read.
pub(super) fn read_pipe(pipe: &Pipe, nonblocking: bool, to: &mut Buffers<'_>) -> Answer {
    let mut done = 0;
    while to.left() > 0 {
        let mut claim = match pipe.read(to.left(), nonblocking || done > 0) {
            Ok(Some(claim)) => claim,
            Err(e) if done == 0 => return Err(e),
            Ok(None) | Err(_) => break,
        };
        loop {
            let bytes = claim.next();
            let wanted = bytes.len();
            if wanted == 0 {
                break;
            }
            match to.put(bytes) {
                Ok(n) if n == wanted => {
                    claim.pass(n);
                    done += n;
                }
                // (The bytes that were copied stay in the pipe.)
                Ok(_) | Err(_) if done > 0 => return Ok(done),
                _ => return Err(Errno::EFAULT),
            }
        }
        let is_all = claim.is_all();
        drop(claim);
        if is_all || resched_point(Sleep::Killable).is_err() {
            break;
        }
    }
    Ok(done)
}

fn write_from(file: &OpenFile, from: &mut Buffers<'_>, how: How) -> Answer {
    match &file.object {
        Object::Memory(memory) => content::write(file, memory, from, from.left(), how.place(file)),
        Object::Archive(_) => Err(Errno::EROFS),
        Object::Name(Name { file: Some(memory), place, .. }) => {
            let done = content::write(file, memory, from, from.left(), how.place(file))?;
            if done > 0 && file.writes_through() {
                inodes::write_back(memory)?;
                message_file::sync(*place)?;
            }
            Ok(done)
        }
        Object::Name(name) => message_file::write(file, name, from, how.place(file)),
        Object::Null | Object::Zero => Ok(from.left()),
        _ if how.position.is_some() => Err(Errno::ESPIPE),
        Object::Console => {
            // The bytes of one call are not interleaved with those of others.
            let turn = tty::writer(file.is_nonblocking())?;
            let mut piece = [0; PIECE];
            in_pieces(from.left(), Sleep::Interruptible, |_, n| {
                let n = from.take(&mut piece[..n.min(PIECE)])?;
                turn.write(&piece[..n])
            })
        }
        Object::Pipe(pipe, _) => write_pipe(pipe, how.is_nonblocking(file), from),
        Object::Socket(_) => socket_message::send_from(file, from),
        Object::EventFd(counter) => write_counter(counter, how.is_nonblocking(file), from),
        Object::Epoll(_) | Object::TimerFd(_) | Object::SignalFd(_) | Object::PidFd(_) => Err(Errno::EINVAL),
    }
}

/// Each part of a vector is a separate write, as on Linux, of exactly 8 bytes.
fn write_counter(counter: &EventFd, nonblocking: bool, from: &mut Buffers<'_>) -> Answer {
    let mut more = [0; size_of::<u64>()];
    let mut done = 0;
    loop {
        let part = from.part();
        let written = match from.take(&mut more[..part.min(size_of::<u64>())]) {
            _ if part != more.len() => Err(Errno::EINVAL),
            Ok(n) if n < more.len() => Err(Errno::EFAULT),
            Ok(_) => counter.write(u64::from_ne_bytes(more), nonblocking),
            Err(e) => Err(e),
        };
        match written {
            Ok(()) => done += more.len(),
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
        if from.left() == 0 || resched_point(Sleep::Interruptible).is_err() {
            break;
        }
    }
    Ok(done)
}

/// Up to [`pipe::ATOMIC`] bytes are written as a whole.
pub(super) fn write_pipe(pipe: &Pipe, nonblocking: bool, from: &mut Buffers<'_>) -> Answer {
    let len = from.left();
    if len == 0 {
        return Ok(0);
    }
    if len <= pipe::SHORT {
        let mut short = [0; pipe::SHORT];
        if from.clone().take(&mut short[..len])? < len {
            return Err(Errno::EFAULT);
        }
        if or_signal(pipe.put(&short[..len]))? {
            return Ok(len);
        }
    }
    put_in(pipe, len, nonblocking, |to| from.take(to))
}

/// Writes `len` bytes to a pipe; `take` copies them to the slice that it gets, and returns how many it copied. If they
/// cannot be read to the end, only whole pages of them are written, as on Linux. Without a reader it also sends
/// SIGPIPE.
pub(super) fn put_in(pipe: &Pipe, len: usize, nonblocking: bool, mut take: impl FnMut(&mut [u8]) -> Answer) -> Answer {
    let is_atomic = len <= pipe::ATOMIC;
    let mut done = 0;
    while done < len {
        let left = len - done;
        let wanted = if is_atomic || !nonblocking { left.min(pipe::ATOMIC) } else { 1 };
        let mut claim = match or_signal(pipe.write(wanted, left, nonblocking)) {
            Ok(claim) => claim,
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        };
        let (n, end) = fill(&mut claim, &mut take);
        if let Err(e) = end {
            // The bytes that are cut off have been taken nevertheless, so the transfer ends here.
            let whole = (done + n) / PAGE_SIZE * PAGE_SIZE;
            claim.keep(whole.saturating_sub(done));
            return if whole.max(done) == 0 { Err(e) } else { Ok(whole.max(done)) };
        }
        done += n;
        drop(claim);
        if resched_point(Sleep::Killable).is_err() {
            break;
        }
    }
    Ok(done)
}

/// Fills a claim from `take`; returns how many bytes, and the reason if not all.
fn fill(claim: &mut Writing<'_>, take: &mut impl FnMut(&mut [u8]) -> Answer) -> (usize, Result<(), Errno>) {
    let mut done = 0;
    loop {
        let to = match claim.next() {
            Ok([]) => return (done, Ok(())),
            Ok(to) => to,
            Err(e) => return (done, Err(e)),
        };
        let wanted = to.len();
        let n = match take(to) {
            Ok(n) => n,
            Err(e) => return (done, Err(e)),
        };
        claim.pass(n);
        done += n;
        if n < wanted {
            return (done, Err(Errno::EFAULT));
        }
    }
}

/// The same, but sends SIGPIPE to the caller if there is no reader.
pub(super) fn or_signal<T>(result: Result<T, Errno>) -> Result<T, Errno> {
    if matches!(result, Err(Errno::EPIPE)) {
        signal::send_own(sig::PIPE);
    }
    result
}

/// The open file of a descriptor that allows reading.
fn readable(a: &Args) -> Result<KArc<OpenFile>, Errno> {
    table()?.get(a.int(0))?.file_for(Rights::READ)
}

/// The open file of a descriptor that allows writing.
fn writable(a: &Args) -> Result<KArc<OpenFile>, Errno> {
    table()?.get(a.int(0))?.file_for(Rights::WRITE)
}

pub fn read(a: Args) -> Answer {
    read_to(&*readable(&a)?, &mut Buffers::one(a.addr(1), a.word(2))?, How::default())
}

pub fn pread(a: Args) -> Answer {
    let (file, how) = (readable(&a)?, How::at(a.0[3])?);
    read_to(&file, &mut Buffers::one(a.addr(1), a.word(2))?, how)
}

pub fn write(a: Args) -> Answer {
    write_from(&*writable(&a)?, &mut Buffers::one(a.addr(1), a.word(2))?, How::default())
}

pub fn pwrite(a: Args) -> Answer {
    let (file, how) = (writable(&a)?, How::at(a.0[3])?);
    write_from(&file, &mut Buffers::one(a.addr(1), a.word(2))?, how)
}

pub fn readv(a: Args) -> Answer {
    let file = readable(&a)?;
    with_vector(a.addr(1), a.word(2), |to| read_to(&file, to, How::default()))
}

pub fn writev(a: Args) -> Answer {
    let file = writable(&a)?;
    with_vector(a.addr(1), a.word(2), |from| write_from(&file, from, How::default()))
}

pub fn preadv(a: Args) -> Answer {
    let (file, how) = (readable(&a)?, How::at(a.0[3])?);
    with_vector(a.addr(1), a.word(2), |to| read_to(&file, to, how))
}

pub fn pwritev(a: Args) -> Answer {
    let (file, how) = (writable(&a)?, How::at(a.0[3])?);
    with_vector(a.addr(1), a.word(2), |from| write_from(&file, from, how))
}

pub fn preadv2(a: Args) -> Answer {
    let file = readable(&a)?;
    let how = How::with_flags(&file, a.0[3], a.uint(5))?;
    with_vector(a.addr(1), a.word(2), |to| read_to(&file, to, how))
}

pub fn pwritev2(a: Args) -> Answer {
    let file = writable(&a)?;
    let how = How::with_flags(&file, a.0[3], a.uint(5))?;
    with_vector(a.addr(1), a.word(2), |from| write_from(&file, from, how))
}

/// From a file to any object: EINVAL for other sources; programs then copy by read and write.
pub fn sendfile(a: Args) -> Answer {
    let to = writable(&a)?;
    let from = table()?.get(a.int(1))?.file_for(Rights::READ)?;
    let source = Source::of(&from)?;
    if a.word(3) > i64::MAX as usize {
        return Err(Errno::EINVAL);
    }
    let start = content::position(&a, 2)?.unwrap_or_else(|| from.offset.load(Ordering::Relaxed));
    let mut range = source.range(start, a.word(3).min(MAX_RW));
    let done = send(&to, &mut range)?;
    source.note_read();
    content::advance(&from, a.opt_addr(2), start, done)?;
    Ok(done)
}

/// Writes a part of a file's content.
fn send(to: &OpenFile, range: &mut Range<'_>) -> Answer {
    let len = range.left();
    match &to.object {
        Object::Memory(_) if to.appends() => Err(Errno::EINVAL),
        Object::Memory(memory) => content::write(to, memory, range, len, Place::Position),
        Object::Console => in_pieces(len, Sleep::Interruptible, |_, n| {
            let mut piece = [0; PIECE];
            let n = range.take(&mut piece[..n.min(PIECE)])?;
            tty::writer(to.is_nonblocking())?.write(&piece[..n])
        }),
        Object::Pipe(pipe, _) => in_pieces(len, Sleep::Interruptible, |_, n| {
            // (The file may have become shorter by now.)
            let n = n.min(PAGE_SIZE).min(range.left());
            put_in(pipe, n, to.is_nonblocking(), |to| range.take(to))
        }),
        Object::Socket(_) => in_pieces(len, Sleep::Interruptible, |_, n| {
            // (The file may have become shorter by now.)
            let n = n.min(range.left());
            socket_message::transmit_bytes(to, n, &mut |to| range.take(to))
        }),
        Object::Null | Object::Zero => Ok(len),
        Object::Archive(_) => Err(Errno::EROFS),
        _ => Err(Errno::EINVAL),
    }
}
