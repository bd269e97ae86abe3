//! Attributes of files and file systems beyond `stat`: statx, statfs, and extended attributes (which no file has).

use quire_abi::Errno;
use quire_abi::layout::{Stat, Statfs, Statx, Timespec, at, statfs as fs};
use quire_abi::names::{op, statfs as names};
use quire_mm::addr::PAGE_SIZE;

use super::file::table;
use super::lookup::{Named, named, request_of, stat_at};
use super::{Answer, Args};
use crate::arch::uaccess;
use crate::ipc::descriptor::{Object, Rights};
use crate::names::walk::{Reached, Request};
use crate::names::{Place, mounts};

pub fn statx(a: Args) -> Answer {
    const NO_AUTOMOUNT: u32 = 0x800;
    const SYNC: u32 = 0x6000;
    let (flags, mask) = (a.uint(2), a.uint(3));
    let known = at::SYMLINK_NOFOLLOW | at::EMPTY_PATH | NO_AUTOMOUNT | SYNC;
    if flags & !known != 0 || flags & SYNC == SYNC || mask & Statx::RESERVED != 0 {
        return Err(Errno::EINVAL);
    }
    uaccess::put(a.addr(4), &extended(&stat_at(a.int(0), a.addr(1), flags & !SYNC)?))?;
    Ok(0)
}

fn extended(stat: &Stat) -> Statx {
    let time = |time: Timespec| [time.sec, time.nsec];
    // In the format of new_encode_dev: the minor number's low byte, the major number, the rest of the minor number.
    let device = |dev: u64| [(dev >> 8 & 0xfff) as u32, (dev & 0xff | dev >> 12 & 0xf_ff00) as u32];
    Statx {
        mask: Statx::BASIC,
        blksize: stat.blksize as u32,
        nlink: stat.nlink,
        uid: stat.uid,
        gid: stat.gid,
        mode: stat.mode as u16,
        ino: stat.ino,
        size: stat.size as u64,
        blocks: stat.blocks as u64,
        atime: time(stat.atime),
        ctime: time(stat.ctime),
        mtime: time(stat.mtime),
        rdev: device(stat.rdev),
        dev: device(stat.dev),
        ..Statx::default()
    }
}

pub fn statfs(a: Args) -> Answer {
    let record = match named(at::FDCWD, a.addr(0), 0, &Request::LOOKUP)? {
        Named::Object(object) | Named::Reached(Reached::Held(object)) => of_object(&object)?,
        Named::Reached(Reached::Archive(node)) => of_object(&Object::Archive(node.ok_or(Errno::ENOENT)?))?,
        Named::Reached(Reached::Server(served)) => of_mount(served.mount)?,
    };
    uaccess::put(a.addr(1), &record)?;
    Ok(0)
}

pub fn fstatfs(a: Args) -> Answer {
    uaccess::put(a.addr(1), &of_object(&table()?.get(a.int(0))?.file.object)?)?;
    Ok(0)
}

/// The record that a mount's server returns.
fn of_mount(mount: u16) -> Result<Statfs, Errno> {
    let asked = Request { op: op::STATFS, ..Request::LOOKUP };
    let Reached::Server(served) = request_of(Place::root_of(mount), &asked)? else { return Err(Errno::EIO) };
    let word = |i: usize| served.answer.words[i];
    Ok(Statfs {
        kind: word(names::KIND) as i64,
        blocks: word(names::PAGES),
        bfree: word(names::FREE),
        bavail: word(names::FREE),
        files: word(names::FILES),
        ffree: word(names::FREE_FILES),
        ..sized(0, if mounts::kind(mount).is_some_and(|kind| kind.is_read_only) { fs::RDONLY } else { 0 })
    })
}

fn sized(kind: i64, flags: i64) -> Statfs {
    const PAGE: i64 = PAGE_SIZE as i64;
    Statfs { kind, bsize: PAGE, namelen: 255, frsize: PAGE, flags: flags | fs::VALID, ..Statfs::default() }
}

/// The kernel's own file systems have no size.
fn of_object(object: &Object) -> Result<Statfs, Errno> {
    Ok(match object {
        Object::Name(name) => return of_mount(name.place.mount),
        Object::Memory(file) => match mounts::with_device(file.device()) {
            Some(mount) => return of_mount(mount),
            None => sized(fs::TMPFS, 0),
        },
        Object::Archive(_) => sized(fs::RAMFS, fs::RDONLY),
        Object::Console | Object::Null | Object::Zero => sized(fs::TMPFS, 0),
        Object::Pipe(..) => sized(fs::PIPEFS, 0),
        Object::Socket(_) => sized(fs::SOCKFS, 0),
        Object::PidFd(_) => sized(fs::PIDFS, 0),
        Object::EventFd(_) | Object::Epoll(_) | Object::TimerFd(_) | Object::SignalFd(_) => sized(fs::ANON_INODE, 0),
    })
}

/// Extended attributes of the file at a path: the error after the file was found, since it has none. EROFS for calls
/// that would change them.
pub fn of_path(a: Args, flags: u32, changes: bool) -> Answer {
    match named(at::FDCWD, a.addr(0), flags, &Request::LOOKUP)? {
        Named::Object(object) | Named::Reached(Reached::Held(object)) => answer(&object, changes),
        Named::Reached(Reached::Archive(node)) => answer(&Object::Archive(node.ok_or(Errno::ENOENT)?), changes),
        Named::Reached(Reached::Server(_)) => Err(Errno::EOPNOTSUPP),
    }
}

/// The same of a descriptor.
pub fn of_descriptor(a: Args, changes: bool) -> Answer {
    let descriptor = table()?.get(a.int(0))?;
    if descriptor.rights == Rights::empty() {
        return Err(Errno::EBADF);
    }
    answer(&descriptor.file.object, changes)
}

fn answer(object: &Object, changes: bool) -> Answer {
    let is_read_only = matches!(object, Object::Archive(_));
    Err(if changes && is_read_only { Errno::EROFS } else { Errno::EOPNOTSUPP })
}
