//! Moving bytes: read, write and similar calls. Files of the archive and pipes' pages are copied directly; the rest goes
//! through a small buffer, since no spin lock is held while user memory is accessed.
//!
//! A call may move 2 GiB. It passes a point every few pages: a killed thread stops there, and a signal interrupts the
//! transfer where it does on Linux (devices and the console, not files).

use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::flags::sig;
use quire_mm::addr::PAGE_SIZE;

use super::buffers::{Buffers, MAX_RW, with_vector};
use super::file::table;
use super::{Answer, Args, signalfd};
use crate::arch::uaccess;
use crate::console::tty;
use crate::ipc::descriptor::{Object, OpenFile, Rights};
use crate::ipc::eventfd::EventFd;
use crate::ipc::pipe::{self, Pipe, Writing};
use crate::task::point::{COPY, resched_point};
use crate::task::signal;
use crate::task::wait::Sleep;

/// Bytes copied through the kernel's stack at a time.
const PIECE: usize = 1024;

static ZEROS: [u8; PAGE_SIZE] = [0; PAGE_SIZE];

/// Reads at a position, or at the file's own position, which then advances.
fn read_to(file: &OpenFile, to: &mut Buffers<'_>, position: Option<u64>) -> Answer {
    match &file.object {
        Object::Archive(node) if node.is_dir() => Err(Errno::EISDIR),
        Object::Archive(node) => {
            let at = position.unwrap_or_else(|| file.offset.load(Ordering::Relaxed));
            let from = usize::try_from(at).ok().and_then(|at| node.data.get(at..)).unwrap_or(&[]);
            let from = &from[..from.len().min(to.left())];
            let n = in_pieces(from.len(), Sleep::Killable, |done, n| to.put(&from[done..done + n]))?;
            if position.is_none() {
                file.offset.store(at + n as u64, Ordering::Relaxed);
            }
            Ok(n)
        }
        _ if position.is_some() => Err(Errno::ESPIPE),
        Object::Null => Ok(0),
        Object::Zero => in_pieces(to.left(), Sleep::Interruptible, |_, n| to.put(&ZEROS[..n.min(PAGE_SIZE)])),
        Object::Console => {
            let mut piece = [0; PIECE];
            let n = tty::read(&mut piece[..to.left().min(PIECE)], file.is_nonblocking())?;
            to.put(&piece[..n])
        }
        Object::Pipe(pipe, _) => read_pipe(pipe, file.is_nonblocking(), to),
        Object::EventFd(_) if to.left() < size_of::<u64>() => Err(Errno::EINVAL),
        Object::EventFd(counter) => {
            let value = counter.read(file.is_nonblocking())?.to_ne_bytes();
            if to.put(&value)? < value.len() { Err(Errno::EFAULT) } else { Ok(value.len()) }
        }
        Object::TimerFd(_) if to.left() < size_of::<u64>() => Err(Errno::EINVAL),
        Object::TimerFd(timer) => {
            let count = timer.read(file.is_nonblocking())?.to_ne_bytes();
            if to.put(&count)? < count.len() { Err(Errno::EFAULT) } else { Ok(count.len()) }
        }
        Object::SignalFd(signals) => signalfd::read(signals, file.is_nonblocking(), to),
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

/// The first bytes may take a sleep; then everything else that is there is read.
fn read_pipe(pipe: &Pipe, nonblocking: bool, to: &mut Buffers<'_>) -> Answer {
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
                // (What was copied stays in the pipe.)
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

fn write_from(file: &OpenFile, from: &mut Buffers<'_>) -> Answer {
    match &file.object {
        Object::Null | Object::Zero => Ok(from.left()),
        Object::Archive(_) => Err(Errno::EROFS),
        Object::Console => {
            // One call's bytes are not interleaved with others'.
            let turn = tty::writer(file.is_nonblocking())?;
            let mut piece = [0; PIECE];
            in_pieces(from.left(), Sleep::Interruptible, |_, n| {
                let n = from.take(&mut piece[..n.min(PIECE)])?;
                turn.write(&piece[..n])
            })
        }
        Object::Pipe(pipe, _) => write_pipe(pipe, file.is_nonblocking(), from),
        Object::EventFd(counter) => write_counter(counter, file.is_nonblocking(), from),
        Object::Epoll(_) | Object::TimerFd(_) | Object::SignalFd(_) | Object::PidFd(_) => Err(Errno::EINVAL),
    }
}

/// Each part of a vector is a write of its own, as on Linux; 8 bytes of it count, and one that has more is the last.
fn write_counter(counter: &EventFd, nonblocking: bool, from: &mut Buffers<'_>) -> Answer {
    let mut more = [0; size_of::<u64>()];
    let mut done = 0;
    loop {
        let part = from.part();
        let written = match from.take(&mut more[..part.min(size_of::<u64>())]) {
            _ if part < more.len() => Err(Errno::EINVAL),
            Ok(n) if n < more.len() => Err(Errno::EFAULT),
            Ok(_) => counter.write(u64::from_ne_bytes(more), nonblocking),
            Err(e) => Err(e),
        };
        match written {
            Ok(()) => done += more.len(),
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
        if part > more.len() || from.left() == 0 || resched_point(Sleep::Interruptible).is_err() {
            break;
        }
    }
    Ok(done)
}

/// Up to [`pipe::ATOMIC`] bytes are written as a whole.
fn write_pipe(pipe: &Pipe, nonblocking: bool, from: &mut Buffers<'_>) -> Answer {
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

/// Writes `len` bytes to a pipe, which `take` puts where it is told; it returns how many. If they cannot be read to the end,
/// whole pages of them are written, as on Linux. Without a reader it also sends SIGPIPE.
fn put_in(pipe: &Pipe, len: usize, nonblocking: bool, mut take: impl FnMut(&mut [u8]) -> Answer) -> Answer {
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
            // What is cut off has been taken all the same, so the transfer ends here.
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

/// Fills a claim from `take`; returns how many bytes, and why not all.
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

fn or_signal<T>(result: Result<T, Errno>) -> Result<T, Errno> {
    if matches!(result, Err(Errno::EPIPE)) {
        signal::send_own(sig::PIPE);
    }
    result
}

pub fn read(a: Args) -> Answer {
    let file = table()?.get(a.int(0))?.file_for(Rights::READ)?;
    read_to(&file, &mut Buffers::one(a.addr(1), a.word(2))?, None)
}

pub fn pread(a: Args) -> Answer {
    let file = table()?.get(a.int(0))?.file_for(Rights::READ)?;
    let position = i64::try_from(a.0[3]).map_err(|_| Errno::EINVAL)?;
    read_to(&file, &mut Buffers::one(a.addr(1), a.word(2))?, Some(position as u64))
}

pub fn write(a: Args) -> Answer {
    let file = table()?.get(a.int(0))?.file_for(Rights::WRITE)?;
    write_from(&file, &mut Buffers::one(a.addr(1), a.word(2))?)
}

pub fn readv(a: Args) -> Answer {
    let file = table()?.get(a.int(0))?.file_for(Rights::READ)?;
    with_vector(a.addr(1), a.word(2), |to| read_to(&file, to, None))
}

pub fn writev(a: Args) -> Answer {
    let file = table()?.get(a.int(0))?.file_for(Rights::WRITE)?;
    with_vector(a.addr(1), a.word(2), |from| write_from(&file, from))
}

/// From a file of the archive to anything: EINVAL for other sources, programs then copy by read and write.
pub fn sendfile(a: Args) -> Answer {
    let to = table()?.get(a.int(0))?.file_for(Rights::WRITE)?;
    let from = table()?.get(a.int(1))?.file_for(Rights::READ)?;
    let Object::Archive(node) = &from.object else { return Err(Errno::EINVAL) };
    if node.is_dir() {
        return Err(Errno::EINVAL);
    }
    let own: Option<u64> = a.opt_addr(2).map(uaccess::get).transpose()?;
    let start = own.unwrap_or_else(|| from.offset.load(Ordering::Relaxed));
    let data = usize::try_from(start).ok().and_then(|at| node.data.get(at..)).unwrap_or(&[]);
    let data = &data[..data.len().min(a.word(3)).min(MAX_RW)];
    let done = in_pieces(data.len(), Sleep::Interruptible, |done, n| {
        let piece = &data[done..done + n.min(PAGE_SIZE)];
        match &to.object {
            Object::Console => tty::writer(to.is_nonblocking())?.write(piece),
            Object::Pipe(pipe, _) => {
                let mut left = piece;
                put_in(pipe, piece.len(), to.is_nonblocking(), |to| {
                    let (now, later) = left.split_at(to.len().min(left.len()));
                    to[..now.len()].copy_from_slice(now);
                    left = later;
                    Ok(now.len())
                })
            }
            Object::Null | Object::Zero => Ok(piece.len()),
            Object::Archive(_) => Err(Errno::EROFS),
            _ => Err(Errno::EINVAL),
        }
    })?;
    match a.opt_addr(2) {
        Some(at) => uaccess::put(at, &(start + done as u64))?,
        None => from.offset.store(start + done as u64, Ordering::Relaxed),
    }
    Ok(done)
}
