//! File locks: fcntl's locks of ranges, by process or by open file, and flock's locks of whole files. Leases are
//! refused, as by a file system that does not support them.

use core::sync::atomic::Ordering;

use quire_abi::Errno;
use quire_abi::locks::{FileLock, RDLCK, UNLCK, WRLCK, command, operation};
use quire_locks::{Flock, Kind, Lock, Owner, Range};
use quire_mm::UserAddr;
use quire_mm::fallible::KArc;

use super::content::Source;
use super::file::table;
use super::{Answer, Args};
use crate::arch::uaccess;
use crate::ipc::descriptor::{Descriptor, OpenFile, Rights};
use crate::ipc::file_locks;
use crate::task::oom;
use crate::task::thread::current;

/// The range in a program's record. EINVAL, EOVERFLOW.
fn range(file: &OpenFile, lock: &FileLock) -> Result<Range, Errno> {
    const SET: i16 = 0;
    const CUR: i16 = 1;
    const END: i16 = 2;
    let base = match lock.whence {
        SET => 0,
        CUR => file.offset.load(Ordering::Relaxed) as i64,
        END => Source::of(file).map_or(0, |source| source.len()) as i64,
        _ => return Err(Errno::EINVAL),
    };
    let start = base.checked_add(lock.start).ok_or(Errno::EOVERFLOW)?;
    let (first, last) = match lock.len {
        0 => (start, i64::MAX),
        1.. => (start, start.checked_add(lock.len - 1).ok_or(Errno::EOVERFLOW)?),
        _ => (start.checked_add(lock.len).ok_or(Errno::EINVAL)?, start.wrapping_sub(1)),
    };
    match (u64::try_from(first), u64::try_from(last)) {
        (Ok(start), Ok(end)) if start <= end => Ok(Range { start, end }),
        _ => Err(Errno::EINVAL),
    }
}

/// Whether a command of fcntl is one of these.
pub fn is_command(which: u32) -> bool {
    use command::*;
    matches!(which, GETLK | SETLK | SETLKW | OFD_GETLK | OFD_SETLK | OFD_SETLKW | SETLEASE | GETLEASE)
}

/// fcntl's commands for locks.
pub fn fcntl(descriptor: &Descriptor, fd: i32, which: u32, at: UserAddr) -> Answer {
    use command::*;
    if descriptor.file.is_name_only() {
        return Err(Errno::EBADF);
    }
    match which {
        GETLEASE => return Ok(UNLCK as usize),
        SETLEASE => return Err(Errno::EINVAL),
        _ => {}
    }
    let asked: FileLock = uaccess::get(at)?;
    let by_file = matches!(which, OFD_GETLK | OFD_SETLK | OFD_SETLKW);
    if matches!(which, GETLK | OFD_GETLK) {
        let answer = test(descriptor, &asked, by_file)?;
        return uaccess::put(at, &answer).map(|()| 0);
    }
    let waits = matches!(which, SETLKW | OFD_SETLKW);
    let set = || set(descriptor, fd, &asked, by_file, waits);
    match set() {
        // There is no memory for a lock: Linux returns ENOLCK.
        Err(Errno::ENOMEM) => {
            oom::again(Errno::ENOMEM, set).map_err(|e| if e == Errno::ENOMEM { Errno::ENOLCK } else { e })
        }
        answer => answer,
    }
}

/// The owner of a lock. EINVAL if the lock is for an open file but names a process.
fn owner(descriptor: &Descriptor, asked: &FileLock, by_file: bool) -> Result<Owner, Errno> {
    match by_file {
        true if asked.pid != 0 => Err(Errno::EINVAL),
        true => Ok(file_locks::owner_of(&descriptor.file)),
        false => Ok(table()?.lock_owner()),
    }
}

fn kind(asked: &FileLock) -> Result<Option<Kind>, Errno> {
    match asked.kind {
        RDLCK => Ok(Some(Kind::Shared)),
        WRLCK => Ok(Some(Kind::Exclusive)),
        UNLCK => Ok(None),
        _ => Err(Errno::EINVAL),
    }
}

/// The first conflicting lock. For UNLCK, an open file gets one of its own locks, as on Linux.
fn test(descriptor: &Descriptor, asked: &FileLock, by_file: bool) -> Result<FileLock, Errno> {
    let kind = kind(asked)?;
    if kind.is_none() && !by_file {
        return Err(Errno::EINVAL);
    }
    let range = range(&descriptor.file, asked)?;
    let owner = owner(descriptor, asked, by_file)?;
    let found = file_locks::look(&descriptor.file.object, |records| match kind {
        Some(kind) => records.conflict(&Lock { owner, range, kind, pid: 0 }).copied(),
        None => records.own(owner, range).copied(),
    })?;
    let Some(found) = found else { return Ok(FileLock { kind: UNLCK, ..*asked }) };
    Ok(FileLock {
        kind: if found.kind == Kind::Exclusive { WRLCK } else { RDLCK },
        whence: 0,
        start: found.range.start as i64,
        len: if found.range.end == Range::LAST { 0 } else { (found.range.end - found.range.start + 1) as i64 },
        pid: found.pid as i32,
        ..*asked
    })
}

fn set(descriptor: &Descriptor, fd: i32, asked: &FileLock, by_file: bool, waits: bool) -> Answer {
    let range = range(&descriptor.file, asked)?;
    let kind = kind(asked)?;
    let owner = owner(descriptor, asked, by_file)?;
    let file = &descriptor.file;
    let Some(kind) = kind else {
        file_locks::release(&file.object, owner, range)?;
        return Ok(0);
    };
    let needed = if kind == Kind::Exclusive { Rights::WRITE } else { Rights::READ };
    if !descriptor.rights.contains(needed) {
        return Err(Errno::EBADF);
    }
    let locks = file_locks::of(&file.object)?;
    // (Whoever closes the descriptor from now on checks for locks.)
    let pid = if by_file {
        file.note_locks();
        u32::MAX
    } else {
        table()?.note_records();
        current().process().pid
    };
    file_locks::set(&locks, Lock { owner, range, kind, pid }, waits)?;
    // Another thread may have closed the descriptor meanwhile, and found nothing to unlock.
    if !by_file && !table()?.get(fd).is_ok_and(|now| KArc::ptr_eq(&now.file, file)) {
        file_locks::release_all(&file.object, owner);
        return Err(Errno::EBADF);
    }
    Ok(0)
}

pub fn flock(a: Args) -> Answer {
    let asked = a.uint(1);
    if asked & operation::MAND != 0 {
        // As on Linux, which no longer supports these locks.
        return Ok(0);
    }
    let wanted = match asked & !operation::NB {
        operation::SH => Flock::Shared,
        operation::EX => Flock::Exclusive,
        operation::UN => Flock::None,
        _ => return Err(Errno::EINVAL),
    };
    let descriptor = table()?.get(a.int(0))?;
    let file = &descriptor.file;
    if file.is_name_only() || wanted != Flock::None && descriptor.rights.is_empty() {
        return Err(Errno::EBADF);
    }
    let lock = || {
        let locks = file_locks::of(&file.object)?;
        file.note_locks();
        file_locks::flock(&locks, file, wanted, asked & operation::NB == 0).map(|()| 0)
    };
    match lock() {
        Err(Errno::ENOMEM) => {
            oom::again(Errno::ENOMEM, lock).map_err(|e| if e == Errno::ENOMEM { Errno::ENOLCK } else { e })
        }
        answer => answer,
    }
}
