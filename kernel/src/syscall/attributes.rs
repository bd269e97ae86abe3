//! What files and file systems say of themselves, beside `stat`: statx, statfs, extended attributes (which no file has).

use quire_abi::Errno;
use quire_abi::layout::{Stat, Statfs, Statx, Timespec, at, statfs as fs};
use quire_mm::UserAddr;
use quire_mm::addr::PAGE_SIZE;

use super::file::{device, path_buffer, resolve, stat_at, table};
use super::{Answer, Args};
use crate::arch::uaccess;
use crate::ipc::descriptor::{Object, Rights};

pub fn statx(a: Args) -> Answer {
    const NO_AUTOMOUNT: u32 = 0x800;
    const SYNC: u32 = 0x6000;
    let (flags, mask) = (a.uint(2), a.uint(3));
    let known = at::SYMLINK_NOFOLLOW | at::EMPTY_PATH | NO_AUTOMOUNT | SYNC;
    if flags & !known != 0 || flags & SYNC == SYNC || mask & Statx::RESERVED != 0 {
        return Err(Errno::EINVAL);
    }
    uaccess::put(a.addr(4), &extended(&stat_at(a, flags & !SYNC)?))?;
    Ok(0)
}

fn extended(stat: &Stat) -> Statx {
    let time = |time: Timespec| [time.sec, time.nsec];
    // As new_encode_dev has it: the minor number's low byte, the major number, the rest of the minor number.
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

/// The object that a path names.
fn named(path: UserAddr, flags: u32) -> Result<Object, Errno> {
    let mut buffer = path_buffer()?;
    match device(uaccess::get_string(&mut buffer, path)?) {
        Some(object) => Ok(object),
        None => resolve(at::FDCWD, path, flags).map(Object::Archive),
    }
}

pub fn statfs(a: Args) -> Answer {
    put_statfs(&named(a.addr(0), 0)?, a.addr(1))
}

pub fn fstatfs(a: Args) -> Answer {
    put_statfs(&table()?.get(a.int(0))?.file.object, a.addr(1))
}

/// No file system has a size of its own.
fn put_statfs(object: &Object, to: UserAddr) -> Answer {
    let (kind, flags) = match object {
        Object::Archive(_) => (fs::RAMFS, fs::RDONLY),
        Object::Memory(_) | Object::Console | Object::Null | Object::Zero => (fs::TMPFS, 0),
        Object::Pipe(..) => (fs::PIPEFS, 0),
        Object::PidFd(_) => (fs::PIDFS, 0),
        Object::EventFd(_) | Object::Epoll(_) | Object::TimerFd(_) | Object::SignalFd(_) => (fs::ANON_INODE, 0),
    };
    const PAGE: i64 = PAGE_SIZE as i64;
    let record =
        Statfs { kind, bsize: PAGE, namelen: 255, frsize: PAGE, flags: flags | fs::VALID, ..Statfs::default() };
    uaccess::put(to, &record)?;
    Ok(0)
}

/// Extended attributes of the file at a path: once the file is found, that there are none. EROFS for whoever would change them.
pub fn of_path(a: Args, flags: u32, changes: bool) -> Answer {
    answer(&named(a.addr(0), flags)?, changes)
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
