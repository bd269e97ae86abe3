//! Permissions, owners, times and lengths of files, by path and by descriptor. Those of the boot archive cannot be
//! changed: EROFS.

use quire_abi::Errno;
use quire_abi::flags::Open;
use quire_abi::layout::{Timespec, at};
use quire_abi::names::{Change, op};
use quire_mm::UserAddr;

use super::file::table;
use super::lookup::{Named, named, request, request_of};
use super::memory_file::{cut, set_owner, set_permissions};
use super::{Answer, Args, message_file};
use crate::arch::uaccess;
use crate::ipc::descriptor::{Object, OpenFile};
use crate::ipc::memory_file::MemoryFile;
use crate::names::path::Path;
use crate::names::target::Found;
use crate::names::walk::{Reached, Request, ask_at};
use crate::names::{Place, inodes, mounts};
use crate::task::clock;
use crate::task::credentials::KEEP;
use crate::task::thread::current;

/// Changes attributes of an open object: EBADF if it was opened as a name only.
fn change_open(open: &OpenFile, change: &Change) -> Answer {
    match &open.object {
        _ if open.is_name_only() => Err(Errno::EBADF),
        Object::Name(name) => with_bytes(change, |asked| change_reached(request_of(name.place, asked)?, change)),
        object => change_object(object, change),
    }
}

fn change_object(object: &Object, change: &Change) -> Answer {
    match object {
        Object::Memory(file) => change_file(file, change),
        Object::Archive(_) => Err(Errno::EROFS),
        _ => Err(Errno::EPERM),
    }
}

/// Calls `ask` with the request for this change.
fn with_bytes<R>(change: &Change, ask: impl FnOnce(&Request<'_>) -> R) -> R {
    let text = quire_abi::layout::bytes_of(change);
    ask(&Request { op: op::SET, text, ..Request::LOOKUP })
}

/// Completes a change: a server has changed the attributes that it keeps; those of a file are changed here.
fn change_reached(reached: Reached, change: &Change) -> Answer {
    match Found::of(reached)? {
        Found::Archive(_) => Err(Errno::EROFS),
        Found::File(file, _) => change_file(&file, change),
        // A later write-back must not overwrite the times that are set.
        Found::Name(name) if name.is_stored() && inodes::was_written_back(name.place) => {
            with_bytes(change, |asked| ask_at(name.place, asked, &mut [])).map(|_| 0)
        }
        Found::Name(_) => Ok(0),
        Found::Held(object) => change_object(&object, change),
    }
}

fn change_file(file: &MemoryFile, change: &Change) -> Answer {
    if change.what & Change::MODE != 0 {
        set_permissions(file, change.mode)?;
    }
    if change.what & (Change::USER | Change::GROUP) != 0 {
        set_owner(file, change.user, change.group)?;
    }
    if change.what & (Change::ACCESSED | Change::MODIFIED) != 0 {
        let by = current().process().credentials.lock().clone();
        file.set_times(&by, change)?;
    }
    Ok(0)
}

/// Changes attributes of the object that a path names.
fn change_path(dirfd: i32, path: UserAddr, flags: u32, change: &Change) -> Answer {
    let reached = with_bytes(change, |asked| named(dirfd, path, flags, asked))?;
    match reached {
        Named::Object(object) => change_object(&object, change),
        Named::Reached(reached) => change_reached(reached, change),
    }
}

fn of_mode(mode: u32) -> Change {
    Change { what: Change::MODE, mode: mode & 0o7777, ..Change::default() }
}

pub fn fchmod(a: Args) -> Answer {
    change_open(&table()?.get(a.int(0))?.file, &of_mode(a.uint(1)))
}

/// The call without flags passes 0, whatever x3 contains.
pub fn fchmodat(a: Args, flags: u32) -> Answer {
    if flags & !(at::SYMLINK_NOFOLLOW | at::EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    change_path(a.int(0), a.addr(1), flags, &of_mode(a.uint(2)))
}

fn of_owner(user: u32, group: u32) -> Change {
    let what = |is_kept: bool, bit: u32| if is_kept { 0 } else { bit };
    Change {
        what: what(user == KEEP, Change::USER) | what(group == KEEP, Change::GROUP),
        user,
        group,
        ..Change::default()
    }
}

pub fn fchown(a: Args) -> Answer {
    change_open(&table()?.get(a.int(0))?.file, &of_owner(a.uint(1), a.uint(2)))
}

pub fn fchownat(a: Args) -> Answer {
    let flags = a.uint(4);
    if flags & !(at::SYMLINK_NOFOLLOW | at::EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    change_path(a.int(0), a.addr(1), flags, &of_owner(a.uint(2), a.uint(3)))
}

/// The times that utimensat sets; `None` for a call that changes nothing.
fn times(at: Option<UserAddr>) -> Result<Option<Change>, Errno> {
    const NOW: i64 = (1 << 30) - 1;
    const OMIT: i64 = (1 << 30) - 2;
    const SECOND: u64 = 1_000_000_000;
    let now = clock::real_ns();
    let present = Change {
        what: Change::ACCESSED | Change::MODIFIED | Change::NOW,
        accessed: now,
        modified: now,
        ..Change::default()
    };
    let Some(at) = at else { return Ok(Some(present)) };
    let mut both = [Timespec::default(); 2];
    uaccess::get_all(at, &mut both)?;
    let [accessed, modified] = both;
    let time = |time: Timespec| match time.nsec {
        NOW => Ok(Some(now)),
        OMIT => Ok(None),
        0..1_000_000_000 => {
            // (Times before 1970 become 1970, and times beyond 64 bits of nanoseconds become the maximum.)
            let seconds = u64::try_from(time.sec).unwrap_or(0);
            Ok(Some(seconds.saturating_mul(SECOND).saturating_add(time.nsec as u64)))
        }
        _ => Err(Errno::EINVAL),
    };
    let (a, m) = (time(accessed)?, time(modified)?);
    let bit = |time: Option<u64>, bit: u32| if time.is_some() { bit } else { 0 };
    let are_now = accessed.nsec == NOW && modified.nsec == NOW;
    let what = bit(a, Change::ACCESSED) | bit(m, Change::MODIFIED) | if are_now { Change::NOW } else { 0 };
    let change = Change { what, accessed: a.unwrap_or(0), modified: m.unwrap_or(0), ..Change::default() };
    Ok((what != 0).then_some(change))
}

pub fn utimensat(a: Args) -> Answer {
    let flags = a.uint(3);
    if flags & !(at::SYMLINK_NOFOLLOW | at::EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let Some(change) = times(a.opt_addr(2))? else { return Ok(0) };
    match a.opt_addr(1) {
        Some(path) => change_path(a.int(0), path, flags, &change),
        None if a.int(0) == at::FDCWD => Err(Errno::EFAULT),
        None => change_open(&table()?.get(a.int(0))?.file, &change),
    }
}

pub fn truncate(a: Args) -> Answer {
    let len = u64::try_from(a.0[1] as i64).map_err(|_| Errno::EINVAL)?;
    let mut path = Path::from_user(a.addr(0))?;
    let asked = Request { op: op::OPEN, argument: Open::WRONLY.bits().into(), ..Request::LOOKUP };
    match Found::of(request(at::FDCWD, &mut path, &asked)?)? {
        Found::Archive(node) => Err(if node.is_dir() { Errno::EISDIR } else { Errno::EROFS }),
        Found::File(file, allows) if allows.write => cut(&file, len).map(|()| 0),
        Found::File(..) => Err(Errno::EACCES),
        Found::Name(name) if name.is_stored() => cut(&*inodes::open(&name)?, len).map(|()| 0),
        Found::Name(name) => Err(if name.is_dir() { Errno::EISDIR } else { Errno::EINVAL }),
        Found::Held(_) => Err(Errno::EINVAL),
    }
}

/// Only disks and the file systems on them have data to be written back: other files are memory. EINVAL for an object
/// without content that could be made permanent.
pub fn fsync(a: Args) -> Answer {
    let open = table()?.get(a.int(0))?.file;
    match &open.object {
        Object::Name(name) if mounts::stores(name.place.mount) => {
            let written = name.file.as_ref().map_or(Ok(()), |file| inodes::write_back(file));
            // (A write-back error is reported once, whichever call has met it.)
            open.take_error()?;
            written?;
            message_file::sync(name.place).map(|()| 0)
        }
        Object::Archive(_) | Object::Memory(_) | Object::Name(_) => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

/// The same for a whole file system, whichever of its files the descriptor refers to.
pub fn syncfs(a: Args) -> Answer {
    match &table()?.get(a.int(0))?.file.object {
        Object::Name(name) if mounts::stores(name.place.mount) => {
            inodes::write_back_all(name.place.mount)?;
            message_file::sync(Place::root_of(name.place.mount)).map(|()| 0)
        }
        _ => Ok(0),
    }
}

/// The same for all file systems. Errors are reported to nobody, as on Linux. The last mounts come first, since they
/// write to other ones.
pub fn sync() -> Answer {
    for mount in mounts::all().rev().filter(|mount| mounts::stores(*mount)) {
        let _ = inodes::write_back_all(mount);
        let _ = message_file::sync(Place::root_of(mount));
    }
    Ok(0)
}
