//! Moving bytes: read, write and their kin. What lies in the archive is copied from there; the rest goes through a small
//! buffer, since no lock is held while user memory is touched.

use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::flags::sig;
use quire_abi::layout::Iovec;
use quire_mm::UserAddr;
use quire_mm::addr::PAGE_SIZE;
use quire_mm::fallible::try_zeroed;

use super::file::table;
use super::{Answer, Args};
use crate::arch::uaccess;
use crate::console::tty;
use crate::ipc::handle::{Object, OpenFile, Rights};
use crate::ipc::pipe::Pipe;
use crate::task::point::resched_point;
use crate::task::process::TABLE;
use crate::task::signal;
use crate::task::thread::current;
use crate::task::wait::Sleep;

/// Most bytes that one call moves: a whole number of pages below 2 GiB, as on Linux.
const MAX_RW: usize = 0x7fff_f000;

/// Bytes that go through the kernel's stack at a time.
const PIECE: usize = 1024;

/// Reads at a position, or at the file's own and on. Bytes go through the stack, or straight from the archive.
fn read_to(file: &OpenFile, to: UserAddr, len: usize, position: Option<u64>) -> Answer {
    uaccess::check(to, len)?;
    let len = len.min(MAX_RW);
    match &file.object {
        Object::Archive(node) if node.is_dir() => Err(Errno::EISDIR),
        Object::Archive(node) => {
            let at = position.unwrap_or_else(|| file.offset.load(Ordering::Relaxed));
            let from = usize::try_from(at).ok().and_then(|at| node.data.get(at..)).unwrap_or(&[]);
            let n = uaccess::copy_to_user(to, &from[..len.min(from.len())])?;
            if position.is_none() {
                file.offset.store(at + n as u64, Ordering::Relaxed);
            }
            Ok(n)
        }
        _ if position.is_some() => Err(Errno::ESPIPE),
        Object::Null => Ok(0),
        Object::Zero => repeat(len, |at, n| uaccess::copy_to_user(to + at, &[0; PIECE][..n])),
        Object::Console => through(to, len, |piece| tty::read(piece, file.is_nonblocking())),
        Object::Pipe(pipe, _) => read_pipe(pipe, file.is_nonblocking(), to, len),
    }
}

/// The first piece may sleep; what else is there comes along.
fn read_pipe(pipe: &Pipe, nonblocking: bool, to: UserAddr, len: usize) -> Answer {
    let mut done = 0;
    while done < len {
        let mut piece = [0; PIECE];
        let room = PIECE.min(len - done);
        let moved = pipe.peek(&mut piece[..room], nonblocking || done > 0).and_then(|(n, position)| {
            if n > 0 && uaccess::copy_to_user(to + done, &piece[..n])? != n {
                return Err(Errno::EFAULT);
            }
            Ok((n, n == 0 || pipe.consume(n, position)))
        });
        match moved {
            Ok((n, true)) => {
                done += n;
                if n < room {
                    break;
                }
            }
            // Another reader was faster.
            Ok((_, false)) => {}
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// One read through the stack.
fn through(to: UserAddr, len: usize, read: impl FnOnce(&mut [u8]) -> Answer) -> Answer {
    let mut piece = [0; PIECE];
    let n = read(&mut piece[..len.min(PIECE)])?;
    if n == 0 { Ok(0) } else { uaccess::copy_to_user(to, &piece[..n]) }
}

/// Moves `len` bytes in pieces; an error after the first counts as the end.
fn repeat(len: usize, mut step: impl FnMut(usize, usize) -> Answer) -> Answer {
    let mut done = 0;
    while done < len {
        let n = PIECE.min(len - done);
        match step(done, n) {
            Ok(moved) => {
                done += moved;
                if moved < n {
                    break;
                }
            }
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
        if resched_point(Sleep::Killable).is_err() {
            break;
        }
    }
    Ok(done)
}

fn write_from(file: &OpenFile, from: UserAddr, len: usize) -> Answer {
    uaccess::check(from, len)?;
    let len = len.min(MAX_RW);
    match &file.object {
        Object::Null | Object::Zero => Ok(len),
        Object::Archive(_) => Err(Errno::EROFS),
        Object::Console => repeat(len, |at, n| {
            let mut piece = [0; PIECE];
            let n = uaccess::copy_from_user(&mut piece[..n], from + at)?;
            Ok(tty::write(&piece[..n]))
        }),
        Object::Pipe(pipe, _) => write_pipe(pipe, file.is_nonblocking(), from, len),
    }
}

/// Writes of up to a page go in whole; larger ones in pages.
fn write_pipe(pipe: &Pipe, nonblocking: bool, from: UserAddr, len: usize) -> Answer {
    let write = |bytes: &[u8]| -> Answer {
        let result = pipe.write(bytes, nonblocking);
        if result == Err(Errno::EPIPE) {
            signal::send_to_thread(&TABLE.lock(), current(), sig::PIPE);
        }
        result
    };
    if len <= 256 {
        let mut small = [0; 256];
        let n = uaccess::copy_from_user(&mut small[..len], from)?;
        return write(&small[..n]);
    }
    let mut buffer = try_zeroed(PAGE_SIZE)?;
    let mut done = 0;
    while done < len {
        let n = PAGE_SIZE.min(len - done);
        let moved = uaccess::copy_from_user(&mut buffer[..n], from + done).and_then(|n| write(&buffer[..n]));
        match moved {
            Ok(moved) => done += moved,
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(done)
}

pub fn read(a: Args) -> Answer {
    let file = table()?.get(a.int(0))?.file_for(Rights::READ)?;
    read_to(&file, a.addr(1), a.word(2), None)
}

pub fn pread(a: Args) -> Answer {
    let file = table()?.get(a.int(0))?.file_for(Rights::READ)?;
    let position = i64::try_from(a.0[3]).map_err(|_| Errno::EINVAL)?;
    read_to(&file, a.addr(1), a.word(2), Some(position as u64))
}

pub fn write(a: Args) -> Answer {
    let file = table()?.get(a.int(0))?.file_for(Rights::WRITE)?;
    write_from(&file, a.addr(1), a.word(2))
}

/// Calls `move_one` for each piece of a vector until one comes up short.
fn vector(a: Args, mut move_one: impl FnMut(UserAddr, usize) -> Answer) -> Answer {
    const IOV_MAX: usize = 1024;
    if a.word(2) > IOV_MAX {
        return Err(Errno::EINVAL);
    }
    let mut done = 0;
    for i in 0..a.word(2) {
        let [base, len]: [u64; 2] = uaccess::get(a.addr(1) + i * size_of::<Iovec>())?;
        if len == 0 {
            continue;
        }
        let len = len as usize;
        match move_one(UserAddr::new(base as usize), len) {
            Ok(n) => {
                done += n;
                if n < len {
                    break;
                }
            }
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(done)
}

pub fn readv(a: Args) -> Answer {
    let file = table()?.get(a.int(0))?.file_for(Rights::READ)?;
    vector(a, |base, len| read_to(&file, base, len, None))
}

pub fn writev(a: Args) -> Answer {
    let file = table()?.get(a.int(0))?.file_for(Rights::WRITE)?;
    vector(a, |base, len| write_from(&file, base, len))
}

/// From a file of the archive to anything: EINVAL for other sources, after which programs copy by hand.
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
    let mut done = 0;
    for piece in data.chunks(PAGE_SIZE) {
        let moved = match &to.object {
            Object::Console => Ok(tty::write(piece)),
            Object::Pipe(pipe, _) => pipe.write(piece, to.is_nonblocking()),
            Object::Null | Object::Zero => Ok(piece.len()),
            Object::Archive(_) => Err(Errno::EROFS),
        };
        match moved {
            Ok(n) => done += n,
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
    }
    match a.opt_addr(2) {
        Some(at) => uaccess::put(at, &(start + done as u64))?,
        None => from.offset.store(start + done as u64, Ordering::Relaxed),
    }
    Ok(done)
}
