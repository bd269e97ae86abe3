//! From a program's paths to the objects that they name: lookups, reading links, the working directory.

use alloc::vec::Vec;
use quire_abi::Errno;
use quire_abi::layout::{Stat, Timespec, at, mode};
use quire_abi::names::{node, op};
use quire_mm::UserAddr;
use quire_mm::addr::PAGE_SIZE;
use quire_mm::fallible::try_zeroed;

use super::file::table;
use super::link_text::describe;
use super::{Answer, Args};
use crate::arch::uaccess;
use crate::archive::{self, Node};
use crate::ipc::descriptor::Object;
use crate::names::Place;
use crate::names::inodes;
use crate::names::mounts::{self, ARCHIVE};
use crate::names::path::{PATH_MAX, Path};
use crate::names::target::{self, Found, Name};
use crate::names::walk::{Reached, Request, Served, ask_at, walk_from};
use crate::task::thread::current;

/// The caller's working directory.
fn working_directory() -> Place {
    Place::from_word(current().process().directory.get())
}

/// The start of a path that is relative to a descriptor. ENOTDIR.
pub(super) fn start_of(dirfd: i32) -> Result<Place, Errno> {
    if dirfd == at::FDCWD {
        return Ok(working_directory());
    }
    match &table()?.get(dirfd)?.file.object {
        Object::Archive(node) if node.is_dir() => Ok(Place::archive(node.ino)),
        Object::Name(name) if name.is_dir() => Ok(name.place),
        _ => Err(Errno::ENOTDIR),
    }
}

/// Has a request done at the end of a path that starts at a directory.
pub(super) fn request(dirfd: i32, path: &mut Path, request: &Request<'_>) -> Result<Reached, Errno> {
    if path.is_empty() {
        return Err(Errno::ENOENT);
    }
    let start = if path.is_absolute() { Place::ROOT } else { start_of(dirfd)? };
    walk_from(start, path, request)
}

/// Has a request done for a place itself.
pub(super) fn request_of(place: Place, request: &Request<'_>) -> Result<Reached, Errno> {
    walk_from(place, &mut Path::new(b"")?, request)
}

/// The result of looking up a descriptor and a path.
pub(super) enum Named {
    /// A device of the kernel, or the object of the descriptor.
    Object(Object),
    /// The end of a walk.
    Reached(Reached),
}

/// Looks up a path relative to a directory's descriptor; if the path is empty and the flag for that is set, the
/// descriptor itself.
pub(super) fn named(dirfd: i32, path: UserAddr, flags: u32, asked: &Request<'_>) -> Result<Named, Errno> {
    if flags & at::EMPTY_PATH != 0 && is_empty(path)? {
        return match dirfd {
            at::FDCWD => request_of(working_directory(), asked).map(Named::Reached),
            dirfd => match table()?.get(dirfd)?.file.object.clone() {
                Object::Name(name) => request_of(name.place, asked).map(Named::Reached),
                object => Ok(Named::Object(object)),
            },
        };
    }
    let mut path = Path::from_user(path)?;
    if let Some(device) = device(path.rest()) {
        return Ok(Named::Object(device));
    }
    let follow = flags & at::SYMLINK_NOFOLLOW == 0;
    request(dirfd, &mut path, &Request { follow, ..*asked }).map(Named::Reached)
}

/// Whether a path is empty, or (as on Linux since 6.11) null.
fn is_empty(path: UserAddr) -> Result<bool, Errno> {
    Ok(path.get() == 0 || uaccess::get::<u8>(path)? == 0)
}

/// The devices that the kernel itself provides.
pub(super) fn device(path: &[u8]) -> Option<Object> {
    Some(match path {
        b"/dev/console" | b"/dev/tty" => Object::Console,
        b"/dev/null" => Object::Null,
        b"/dev/zero" => Object::Zero,
        _ => return None,
    })
}

fn stat_node(node: &Node) -> Stat {
    let time = Timespec { sec: i64::from(node.mtime), nsec: 0 };
    Stat {
        dev: mounts::device(ARCHIVE).into(),
        ino: u64::from(node.ino) + 1,
        mode: node.mode,
        nlink: 1,
        size: node.data.len() as i64,
        blksize: PAGE_SIZE as i32,
        blocks: node.data.len().div_ceil(512) as i64,
        atime: time,
        mtime: time,
        ctime: time,
        ..Stat::default()
    }
}

/// The record of an open object.
pub(super) fn stat_object(object: &Object) -> Result<Stat, Errno> {
    let special = |mode: u32, rdev: u64| Stat { mode, nlink: 1, rdev, blksize: 1024, ..Stat::default() };
    Ok(match object {
        Object::Archive(node) => stat_node(node),
        Object::Memory(file) => file.stat(),
        Object::Name(name) => return stat_name(name),
        // Linux's numbers: 5:1 console, 1:3 null, 1:5 zero.
        Object::Console => special(mode::CHR | 0o620, 5 << 8 | 1),
        Object::Null => special(mode::CHR | 0o666, 1 << 8 | 3),
        Object::Zero => special(mode::CHR | 0o666, 1 << 8 | 5),
        // (They are files of no type.)
        Object::EventFd(_) | Object::Epoll(_) | Object::TimerFd(_) | Object::SignalFd(_) => special(0o600, 0),
        Object::PidFd(_) => special(0o700, 0),
        Object::Socket(socket) => {
            Stat { ino: socket.number(), blksize: PAGE_SIZE as i32, ..special(mode::SOCK | 0o777, 0) }
        }
        Object::Pipe(pipe, _) => {
            Stat { ino: pipe.number(), blksize: PAGE_SIZE as i32, ..special(mode::FIFO | 0o600, 0) }
        }
    })
}

/// The record of an open object, if no server has to be asked.
pub(super) fn stat_here(object: &Object) -> Option<Stat> {
    match object {
        Object::Name(name) => Some(Stat {
            dev: mounts::device(name.place.mount).into(),
            ino: name.place.number() + 1,
            mode: name.mode & !node::NOTES,
            ..Stat::default()
        }),
        object => stat_object(object).ok(),
    }
}

/// For a directory that was removed, only its number and type remain.
fn stat_name(name: &Name) -> Result<Stat, Errno> {
    match request_of(name.place, &Request::LOOKUP) {
        Ok(reached) => stat_reached(reached),
        Err(Errno::ENOENT) => stat_here(&Object::Name(name.clone())).ok_or(Errno::ENOENT),
        Err(e) => Err(e),
    }
}

fn stat_reached(reached: Reached) -> Result<Stat, Errno> {
    match reached {
        Reached::Archive(node) => node.map(stat_node).ok_or(Errno::ENOENT),
        Reached::Held(object) => stat_object(&object),
        Reached::Server(served) => {
            let (mount, words) = (served.mount, served.answer.words);
            match Found::of(Reached::Server(served))? {
                Found::File(file, _) => Ok(file.stat()),
                Found::Name(name) if name.is_stored() && inodes::was_written_back(name.place) => {
                    Ok(target::stat(mount, &ask_at(name.place, &Request::LOOKUP, &mut [])?.words))
                }
                _ => Ok(target::stat(mount, &words)),
            }
        }
    }
}

/// The record of the object that a directory's descriptor and a path name.
pub(super) fn stat_at(dirfd: i32, path: UserAddr, flags: u32) -> Result<Stat, Errno> {
    match named(dirfd, path, flags, &Request::LOOKUP)? {
        Named::Object(object) => stat_object(&object),
        Named::Reached(reached) => stat_reached(reached),
    }
}

pub fn fstat(a: Args) -> Answer {
    let file = table()?.get(a.int(0))?.file;
    uaccess::put(a.addr(1), &stat_object(&file.object)?)?;
    Ok(0)
}

pub fn fstatat(a: Args) -> Answer {
    const NO_AUTOMOUNT: u32 = 0x800;
    let flags = a.uint(3);
    if flags & !(at::SYMLINK_NOFOLLOW | at::EMPTY_PATH | NO_AUTOMOUNT) != 0 {
        return Err(Errno::EINVAL);
    }
    uaccess::put(a.addr(2), &stat_at(a.int(0), a.addr(1), flags)?)?;
    Ok(0)
}

pub fn readlinkat(a: Args) -> Answer {
    if a.int(3) <= 0 {
        return Err(Errno::EINVAL);
    }
    let asked = Request { op: op::READLINK, ..Request::LOOKUP };
    match named(a.int(0), a.addr(1), at::SYMLINK_NOFOLLOW | at::EMPTY_PATH, &asked) {
        Ok(Named::Object(Object::Archive(node)) | Named::Reached(Reached::Archive(Some(node)))) if node.is_link() => {
            let n = node.data.len().min(a.word(3));
            uaccess::copy_to_user(a.addr(2), &node.data[..n])
        }
        Ok(Named::Reached(Reached::Archive(None))) => Err(Errno::ENOENT),
        Ok(Named::Reached(Reached::Held(object))) => {
            let mut text: Vec<u8> = try_zeroed(PATH_MAX)?;
            let len = describe(&object, &mut text)?;
            uaccess::copy_to_user(a.addr(2), &text[..len.min(a.word(3))])
        }
        Ok(Named::Reached(Reached::Server(served))) => {
            let text = text_of(&served)?;
            uaccess::copy_to_user(a.addr(2), &text[..text.len().min(a.word(3))])
        }
        // An empty path that does not name a link is an error.
        Ok(Named::Object(_)) if is_empty(a.addr(1))? => Err(Errno::ENOENT),
        Ok(_) => Err(Errno::EINVAL),
        Err(e) => Err(e),
    }
}

/// The text that a server has written to the window: EIO if its length is invalid.
pub(super) fn text_of(served: &Served) -> Result<&[u8], Errno> {
    let len = usize::try_from(served.answer.words[0]).map_err(|_| Errno::EIO)?;
    served.text.get(..len).ok_or(Errno::EIO)
}

pub fn faccessat(a: Args, flags: u32) -> Answer {
    const EXECUTE: u32 = 1;
    const WRITE: u32 = 2;
    const READ: u32 = 4;
    const EFFECTIVE_IDS: u32 = 0x200;
    let wanted = a.uint(2);
    if wanted > 7 || flags & !(at::SYMLINK_NOFOLLOW | at::EMPTY_PATH | EFFECTIVE_IDS) != 0 {
        return Err(Errno::EINVAL);
    }
    let real = {
        let credentials = current().process().credentials.lock();
        (credentials.user.real, credentials.group.real)
    };
    let identity = (flags & EFFECTIVE_IDS == 0).then_some(real);
    let asked = Request { op: op::ACCESS, argument: wanted.into(), identity, ..Request::LOOKUP };
    let (stat, is_read_only) = match named(a.int(0), a.addr(1), flags, &asked)? {
        Named::Reached(Reached::Server(_)) => return Ok(0),
        Named::Reached(Reached::Archive(node)) => (stat_node(node.ok_or(Errno::ENOENT)?), true),
        Named::Reached(Reached::Held(Object::Memory(file))) => {
            let credentials = current().process().credentials.lock().clone();
            let (read, write) = file.allows(&credentials);
            let execute = file.may_execute(&credentials);
            let has = [(READ, read), (WRITE, write), (EXECUTE, execute)];
            return if has.iter().all(|(bit, has)| wanted & bit == 0 || *has) { Ok(0) } else { Err(Errno::EACCES) };
        }
        Named::Object(object) | Named::Reached(Reached::Held(object)) => {
            (stat_object(&object)?, matches!(object, Object::Archive(_)))
        }
    };
    if wanted & WRITE != 0 && is_read_only {
        return Err(Errno::EROFS);
    }
    if wanted & EXECUTE != 0 && stat.mode & 0o111 == 0 {
        return Err(Errno::EACCES);
    }
    Ok(0)
}

pub fn getcwd(a: Args) -> Answer {
    let mut buffer: Vec<u8> = try_zeroed(PATH_MAX)?;
    let len = path_of(working_directory(), &mut buffer)?;
    if len > a.word(1) {
        return Err(Errno::ERANGE);
    }
    if uaccess::copy_to_user(a.addr(0), &buffer[..len])? == len { Ok(len) } else { Err(Errno::EFAULT) }
}

/// Writes the path of a directory, and a NUL; returns the length including the NUL. ENOENT if it was removed, ERANGE.
pub(super) fn path_of(place: Place, buffer: &mut [u8]) -> Result<usize, Errno> {
    let archive = |number: u32, buffer: &mut [u8]| archive::by_number(number).ok_or(Errno::ENOENT)?.path(buffer);
    if place.mount == ARCHIVE {
        return archive(place.number() as u32, buffer);
    }
    let Reached::Server(served) = request_of(place, &Request { op: op::PATH, ..Request::LOOKUP })? else {
        return Err(Errno::ENOENT);
    };
    // (Without its NUL.)
    let mount = archive(mounts::covered(place.mount), buffer)? - 1;
    let text = text_of(&served)?;
    let text = if text == b"/" { b"" } else { text };
    let len = mount + text.len();
    let to = buffer.get_mut(mount..len + 1).ok_or(Errno::ERANGE)?;
    to[..text.len()].copy_from_slice(text);
    to[text.len()] = 0;
    Ok(len + 1)
}

pub fn chdir(a: Args) -> Answer {
    let mut path = Path::from_user(a.addr(0))?;
    if device(path.rest()).is_some() {
        return Err(Errno::ENOTDIR);
    }
    match Found::of(request(at::FDCWD, &mut path, &Request::LOOKUP)?)? {
        Found::Archive(node) if node.is_dir() => enter(Place::archive(node.ino)),
        Found::Name(name) if name.is_dir() => enter(name.place),
        _ => Err(Errno::ENOTDIR),
    }
}

pub fn fchdir(a: Args) -> Answer {
    enter(match a.int(0) {
        at::FDCWD => return Err(Errno::EBADF),
        fd => start_of(fd)?,
    })
}

/// The directory of the archive that a path names, whatever is mounted there.
pub(super) fn covered(path: &mut Path) -> Result<&'static Node, Errno> {
    match request(at::FDCWD, path, &Request { only: Some(ARCHIVE), ..Request::LOOKUP })? {
        Reached::Archive(node) => node.ok_or(Errno::ENOENT),
        Reached::Server(_) | Reached::Held(_) => Err(Errno::EROFS),
    }
}

/// Makes a directory the working directory. EACCES without the right to search it.
fn enter(place: Place) -> Answer {
    const SEARCH: u64 = 1;
    if place.mount != ARCHIVE {
        request_of(place, &Request { op: op::ACCESS, argument: SEARCH, ..Request::LOOKUP })?;
    }
    current().process().directory.set(place.to_word());
    Ok(0)
}
