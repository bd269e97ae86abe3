//! splice, tee and vmsplice: transfers from and to pipes. Bytes are copied once, as by read and write; pages are not
//! moved.
//!
//! The holder of a claim on the bytes of one pipe does not wait for room in another one: it gives up the claim first,
//! so two threads that splice in opposite directions do not wait for each other.

use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_mm::fallible::KArc;

use super::buffers::with_vector;
use super::content::{self, Feed, Place, Source};
use super::file::table;
use super::transfer::{or_signal, put_in, read_pipe, write_pipe};
use super::{Answer, Args, socket_message};
use crate::ipc::descriptor::{Object, OpenFile, Rights};
use crate::ipc::pipe::{Pipe, Reading, Side};
use crate::names::target::Name;
use crate::task::point::{COPY, resched_point};
use crate::task::wait::Sleep;

/// Flags. MOVE, MORE and GIFT are hints.
const NONBLOCK: u32 = 2;
const KNOWN: u32 = 0xf;

/// The pipe of an open file that is one of its sides.
fn pipe(file: &OpenFile, side: Side) -> Option<&KArc<Pipe>> {
    match &file.object {
        Object::Pipe(pipe, here) if *here == side => Some(pipe),
        _ => None,
    }
}

/// Bytes of a pipe that are to be written to a file.
struct FromPipe<'a, 'b> {
    claim: &'a mut Reading<'b>,
    left: usize,
}

impl Feed for FromPipe<'_, '_> {
    fn most(&mut self) -> usize {
        self.claim.next().len().min(self.left)
    }

    unsafe fn copy(&mut self, to: *mut u8, n: usize) -> usize {
        let bytes = self.claim.next();
        let n = n.min(bytes.len()).min(self.left);
        // SAFETY: the bytes are covered by the claim; `to` may be written, which the caller promises. A page of a pipe
        // is never a page of a file.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, n) };
        n
    }

    fn pass(&mut self, n: usize) {
        self.claim.pass(n);
        self.left -= n;
    }

    fn unblock(&mut self) -> Result<(), Errno> {
        Err(Errno::EIO)
    }
}

pub fn splice(a: Args) -> Answer {
    let (len, flags) = (a.word(4), a.uint(5));
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return Ok(0);
    }
    let from = table()?.get(a.int(0))?.file_for(Rights::READ)?;
    let to = table()?.get(a.int(2))?.file_for(Rights::WRITE)?;
    let (has_from, has_to) = (a.opt_addr(1).is_some(), a.opt_addr(3).is_some());
    let now = |file: &OpenFile| flags & NONBLOCK != 0 || file.is_nonblocking();
    match (pipe(&from, Side::Reader), pipe(&to, Side::Writer)) {
        (Some(_), _) if has_from => Err(Errno::ESPIPE),
        (_, Some(_)) if has_to => Err(Errno::ESPIPE),
        (Some(source), Some(target)) => {
            if KArc::ptr_eq(source, target) {
                return Err(Errno::EINVAL);
            }
            between(source, target, len, now(&from) || now(&to), true)
        }
        (Some(source), None) => out_of(source, &to, &a, len, now(&from)),
        (None, Some(target)) => into(&from, &a, target, len, now(&to)),
        (None, None) => Err(Errno::EINVAL),
    }
}

pub fn tee(a: Args) -> Answer {
    let (len, flags) = (a.word(2), a.uint(3));
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return Ok(0);
    }
    let from = table()?.get(a.int(0))?.file_for(Rights::READ)?;
    let to = table()?.get(a.int(1))?.file_for(Rights::WRITE)?;
    let now = flags & NONBLOCK != 0 || from.is_nonblocking() || to.is_nonblocking();
    match (pipe(&from, Side::Reader), pipe(&to, Side::Writer)) {
        (Some(source), Some(target)) if !KArc::ptr_eq(source, target) => between(source, target, len, now, false),
        _ => Err(Errno::EINVAL),
    }
}

/// Copies up to [`COPY`] of the bytes in one pipe to another; if `moves`, they are removed from the first one.
fn between(from: &Pipe, to: &Pipe, len: usize, now: bool, moves: bool) -> Answer {
    loop {
        let Some(mut source) = from.read(len, now)? else { return Ok(0) };
        let mut target = match or_signal(to.write(1, len, true)) {
            Ok(target) => target,
            Err(Errno::EAGAIN) if !now => {
                drop(source);
                drop(or_signal(to.write(1, 1, false))?);
                resched_point(Sleep::Interruptible)?;
                continue;
            }
            Err(e) => return Err(e),
        };
        let mut done = 0;
        // (Reading is only noted at the end, so that a peek leaves the bytes there.)
        while done < len {
            let bytes = source.next();
            let room = match target.next() {
                Ok(room) => room,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            };
            let n = bytes.len().min(room.len()).min(len - done);
            if n == 0 {
                break;
            }
            room[..n].copy_from_slice(&bytes[..n]);
            source.pass(n);
            target.pass(n);
            done += n;
        }
        if !moves {
            source.keep_all();
        }
        return Ok(done);
    }
}

/// From a pipe to another object: the bytes that are there, once there are some.
fn out_of(source: &Pipe, to: &OpenFile, a: &Args, len: usize, now: bool) -> Answer {
    let own = content::position(a, 3)?;
    let is_file = to.object.memory().is_some();
    if own.is_some() && !is_file {
        return Err(Errno::ESPIPE);
    }
    if is_file && to.appends() {
        return Err(Errno::EINVAL);
    }
    let there = own.unwrap_or(0);
    let mut done = 0;
    while done < len {
        let mut claim = match source.read(len - done, now || done > 0) {
            Ok(Some(claim)) => claim,
            Err(e) if done == 0 => return Err(e),
            Ok(None) | Err(_) => break,
        };
        let most = (len - done).min(COPY);
        let place = own.map_or(Place::Position, |at| Place::At(at + done as u64));
        match write_claim(&mut claim, to, most, place) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
        drop(claim);
        if resched_point(Sleep::Interruptible).is_err() {
            break;
        }
    }
    if own.is_some() {
        content::advance(to, a.opt_addr(3), there, done)?;
    }
    Ok(done)
}

fn write_claim(claim: &mut Reading<'_>, to: &OpenFile, most: usize, place: Place) -> Answer {
    match &to.object {
        Object::Memory(file) | Object::Name(Name { file: Some(file), .. }) => {
            let len = claim.left().min(most);
            content::write(to, file, &mut FromPipe { claim, left: len }, len, place)
        }
        Object::Socket(_) => {
            let len = claim.next().len().min(most);
            let sent = socket_message::transmit_bytes(to, len, &mut |to| {
                let bytes = claim.next();
                let n = bytes.len().min(to.len());
                to[..n].copy_from_slice(&bytes[..n]);
                Ok(n)
            })?;
            claim.pass(sent);
            Ok(sent)
        }
        Object::Null | Object::Zero => {
            let mut done = 0;
            while done < most {
                let n = claim.next().len().min(most - done);
                if n == 0 {
                    break;
                }
                claim.pass(n);
                done += n;
            }
            Ok(done)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// From another object to a pipe: as much as there is room for, once there is some.
fn into(from: &OpenFile, a: &Args, target: &Pipe, len: usize, now: bool) -> Answer {
    const PIECE: usize = crate::ipc::pipe::ATOMIC;
    if let Object::Socket(_) = &from.object {
        if a.opt_addr(1).is_some() {
            return Err(Errno::ESPIPE);
        }
        let mut claim = or_signal(target.write(1, len, now))?;
        return socket_message::receive_bytes(from, claim.left().min(len), &mut |bytes| {
            let mut done = 0;
            while done < bytes.len() {
                let room = claim.next()?;
                let n = room.len().min(bytes.len() - done);
                if n == 0 {
                    break;
                }
                room[..n].copy_from_slice(&bytes[done..done + n]);
                claim.pass(n);
                done += n;
            }
            Ok(done)
        });
    }
    let source = Source::of(from)?;
    let start = content::position(a, 1)?.unwrap_or_else(|| from.offset.load(Ordering::Relaxed));
    let mut range = source.range(start, len);
    let mut done = 0;
    while range.left() > 0 {
        let n = range.left().min(PIECE);
        match put_in(target, n, now || done > 0, |to| range.take(to)) {
            Ok(n) => done += n,
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
        if resched_point(Sleep::Interruptible).is_err() {
            break;
        }
    }
    source.note_read();
    content::advance(from, a.opt_addr(1), start, done)?;
    Ok(done)
}

/// Between a program's memory and a pipe, like writev and readv.
pub fn vmsplice(a: Args) -> Answer {
    let flags = a.uint(3);
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let descriptor = table()?.get(a.int(0))?;
    let now = flags & NONBLOCK != 0 || descriptor.file.is_nonblocking();
    match &descriptor.file.object {
        Object::Pipe(pipe, side) => with_vector(a.addr(1), a.word(2), |parts| match side {
            Side::Writer => write_pipe(pipe, now, parts),
            Side::Reader => read_pipe(pipe, now, parts),
        }),
        _ => Err(Errno::EBADF),
    }
}
