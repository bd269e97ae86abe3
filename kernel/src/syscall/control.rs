//! fcntl and ioctl: an open file's flags and properties.

use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::flags::Open;
use quire_abi::layout::tty as request;
use quire_mm::UserAddr;

use super::content::Source;
use super::file::{limit, table};
use super::{Answer, Args, locks, memory_file, message_file};
use crate::arch::uaccess;
use crate::console::tty;
use crate::ipc::descriptor::{Descriptor, Object, OpenFile};

pub fn fcntl(a: Args) -> Answer {
    const DUPFD: u32 = 0;
    const GETFD: u32 = 1;
    const SETFD: u32 = 2;
    const GETFL: u32 = 3;
    const SETFL: u32 = 4;
    const DUPFD_CLOEXEC: u32 = 1030;
    const SETPIPE_SZ: u32 = 1031;
    const GETPIPE_SZ: u32 = 1032;
    const ADD_SEALS: u32 = 1033;
    const GET_SEALS: u32 = 1034;
    let table = table()?;
    let descriptor = table.get(a.int(0))?;
    match a.uint(1) {
        which @ (DUPFD | DUPFD_CLOEXEC) => {
            if a.0[2] >= limit() {
                return Err(Errno::EINVAL);
            }
            let copy = Descriptor { close_on_exec: which == DUPFD_CLOEXEC, ..descriptor };
            table.insert(copy, a.word(2), limit()).map(|fd| fd as usize)
        }
        GETFD => Ok(usize::from(descriptor.close_on_exec)),
        SETFD => table.set_close_on_exec(a.int(0), a.uint(2) & 1 != 0).map(|()| 0),
        GETFL => Ok(descriptor.file.status.load(Ordering::Relaxed) as usize),
        SETFL => {
            let changeable = (Open::APPEND | Open::NONBLOCK).bits();
            set_status(&descriptor.file, changeable, a.uint(2));
            Ok(0)
        }
        which @ (SETPIPE_SZ | GETPIPE_SZ) => match &descriptor.file.object {
            Object::Pipe(pipe, _) if which == SETPIPE_SZ => pipe.set_capacity(a.uint(2) as usize),
            Object::Pipe(pipe, _) => Ok(pipe.capacity()),
            _ => Err(Errno::EBADF),
        },
        which if locks::is_command(which) => locks::fcntl(&descriptor, a.int(0), which, a.addr(2)),
        ADD_SEALS => memory_file::add_seals(&descriptor, a.uint(2)),
        GET_SEALS => memory_file::seals(&descriptor),
        _ => Err(Errno::EINVAL),
    }
}

/// Sets the status flags in `which` to those of `value`.
fn set_status(file: &OpenFile, which: u32, value: u32) {
    let old = file.status.load(Ordering::Relaxed);
    file.status.store(old & !which | value & which, Ordering::Relaxed);
}

/// Requests that every open file supports; then the terminal's, and those of disks.
pub fn ioctl(a: Args) -> Answer {
    let table = table()?;
    let descriptor = table.get(a.int(0))?;
    match a.word(1) {
        which @ (request::FIOCLEX | request::FIONCLEX) => {
            table.set_close_on_exec(a.int(0), which == request::FIOCLEX).map(|()| 0)
        }
        request::FIONBIO => {
            let on: u32 = uaccess::get(a.addr(2))?;
            let nonblock = Open::NONBLOCK.bits();
            set_status(&descriptor.file, nonblock, if on != 0 { nonblock } else { 0 });
            Ok(0)
        }
        request::FIONREAD => unread(&descriptor.file, a.addr(2)),
        which => match &descriptor.file.object {
            Object::Console => tty::ioctl(which, a.addr(2)),
            Object::Socket(socket) if which == request::TIOCOUTQ => {
                uaccess::put(a.addr(2), &(socket.unsent() as u32)).map(|()| 0)
            }
            Object::Name(name) if name.is_disk() && !descriptor.file.is_name_only() => {
                message_file::control(name, descriptor.rights, which, a.addr(2))
            }
            _ => Err(Errno::ENOTTY),
        },
    }
}

/// The number of bytes that can be read at once, truncated to an `int`.
fn unread(file: &OpenFile, at: UserAddr) -> Answer {
    let bytes = match &file.object {
        Object::Console => tty::unread() as u64,
        Object::Pipe(pipe, _) => pipe.unread() as u64,
        Object::Socket(socket) => socket.unread()? as u64,
        _ => {
            let len = Source::of(file).map_err(|_| Errno::ENOTTY)?.len();
            len.wrapping_sub(file.offset.load(Ordering::Relaxed))
        }
    };
    uaccess::put(at, &(bytes as u32))?;
    Ok(0)
}
