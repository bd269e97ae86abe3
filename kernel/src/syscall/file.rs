//! Descriptors: closing, copying, seeking, pipes.

use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::flags::Open;
use quire_abi::layout::rlimit;

use super::{Answer, Args, content, message_file};
use crate::arch::uaccess;
use crate::ipc::descriptor::{Descriptor, Object, OpenFile, Rights};
use crate::ipc::pipe::{Pipe, Side};
use crate::ipc::socket::flight;
use crate::ipc::table::Descriptors;
use crate::names::target::Name;
use crate::task::oom;
use crate::task::thread::current;

/// The caller's descriptors.
pub(super) fn table() -> Result<&'static Descriptors, Errno> {
    // SAFETY: the calls that use this neither exec nor exit, and do not keep the reference after they return.
    unsafe { current().process().own_descriptors() }
}

/// The maximum number of descriptors, whatever the limit is: Linux's `nr_open`.
const MOST_DESCRIPTORS: u64 = 1 << 20;

pub(super) fn limit() -> u64 {
    current().process().limit(rlimit::NOFILE).min(MOST_DESCRIPTORS)
}

pub fn close(a: Args) -> Answer {
    let closed = table()?.remove(a.int(0))?;
    flight::closes(closed);
    Ok(0)
}

/// Closes all descriptors from x0 to x1, or marks them to be closed by exec. A table belongs to a process:
/// CLOSE_RANGE_UNSHARE, which gives a thread its own, is an unknown flag.
pub fn close_range(a: Args) -> Answer {
    const CLOEXEC: u32 = 4;
    let (first, last, flags) = (a.uint(0), a.uint(1), a.uint(2));
    if flags & !CLOEXEC != 0 || first > last {
        return Err(Errno::EINVAL);
    }
    let (first, last) = (first as usize, last as usize);
    match flags {
        0 => table()?.remove_range(first, last),
        _ => table()?.close_range_on_exec(first, last),
    }
    .map(|()| 0)
}

pub fn lseek(a: Args) -> Answer {
    const SET: u32 = 0;
    const CUR: u32 = 1;
    const END: u32 = 2;
    const DATA: u32 = 3;
    const HOLE: u32 = 4;
    let file = table()?.get(a.int(0))?.file;
    let len = match &file.object {
        Object::Archive(node) => node.data.len() as u64,
        Object::Memory(file) | Object::Name(Name { file: Some(file), .. }) => file.content.len(),
        Object::Name(name) if name.is_disk() && a.uint(2) == END => message_file::len(name)?,
        Object::Name(_) if a.uint(2) > CUR => return Err(Errno::EINVAL),
        Object::Name(_) => 0,
        // Linux's result for objects without a position for which lseek is not an error.
        Object::EventFd(_) | Object::Epoll(_) | Object::TimerFd(_) | Object::SignalFd(_) => return Ok(0),
        _ => return Err(Errno::ESPIPE),
    };
    let offset = a.0[1] as i64;
    let base = match a.uint(2) {
        SET => 0,
        CUR => file.offset.load(Ordering::Relaxed) as i64,
        END => len as i64,
        which @ (DATA | HOLE) => {
            let at = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
            let to = content::seek(&file, at, which == HOLE)?;
            file.offset.store(to, Ordering::Relaxed);
            return Ok(to as usize);
        }
        _ => return Err(Errno::EINVAL),
    };
    let to = base.checked_add(offset).ok_or(Errno::EOVERFLOW)?;
    if to < 0 {
        return Err(Errno::EINVAL);
    }
    file.offset.store(to as u64, Ordering::Relaxed);
    Ok(to as usize)
}

pub fn dup(a: Args) -> Answer {
    let table = table()?;
    let descriptor = Descriptor { close_on_exec: false, ..table.get(a.int(0))? };
    table.insert(descriptor, 0, limit()).map(|fd| fd as usize)
}

pub fn dup3(a: Args) -> Answer {
    let flags = Open::from_bits_retain(a.uint(2));
    if a.int(0) == a.int(1) || !(flags - Open::CLOEXEC).is_empty() {
        return Err(Errno::EINVAL);
    }
    let table = table()?;
    let descriptor = Descriptor { close_on_exec: flags.contains(Open::CLOEXEC), ..table.get(a.int(0))? };
    let replaced = table.replace(a.int(1), descriptor, limit())?;
    replaced.into_iter().for_each(flight::closes);
    Ok(a.word(1))
}

pub fn pipe2(a: Args) -> Answer {
    let flags = Open::from_bits_retain(a.uint(1));
    if !(flags - Open::CLOEXEC - Open::NONBLOCK).is_empty() {
        return Err(Errno::EINVAL);
    }
    let made = match make_pipe(a, flags) {
        Err(Errno::ENOMEM) => oom::again(Errno::ENOMEM, || make_pipe(a, flags)),
        made => made,
    };
    // pipe(2) documents no ENOMEM; as on Linux, return ENFILE if there is no memory for a pipe.
    made.map_err(|e| if e == Errno::ENOMEM { Errno::ENFILE } else { e })
}

fn make_pipe(a: Args, flags: Open) -> Answer {
    let pipe = Pipe::new()?;
    let status = flags & Open::NONBLOCK;
    let close_on_exec = flags.contains(Open::CLOEXEC);
    let reader = OpenFile::new(Object::Pipe(pipe.clone(), Side::Reader), status)?;
    let writer = OpenFile::new(Object::Pipe(pipe, Side::Writer), status | Open::WRONLY)?;
    let table = table()?;
    let reader = table.insert(Descriptor { file: reader, rights: Rights::READ, close_on_exec }, 0, limit())?;
    let writer = match table.insert(Descriptor { file: writer, rights: Rights::WRITE, close_on_exec }, 0, limit()) {
        Ok(fd) => fd,
        Err(e) => {
            drop(table.remove(reader));
            return Err(e);
        }
    };
    if let Err(e) = uaccess::put(a.addr(0), &[reader, writer]) {
        drop(table.remove(reader));
        drop(table.remove(writer));
        return Err(e);
    }
    Ok(0)
}
