//! Making, moving and removing names: directories, links, files. Names of the boot archive cannot be changed: EROFS.

use quire_abi::Errno;
use quire_abi::layout::{at, mode};
use quire_abi::names::op;
use quire_mm::UserAddr;

use super::lookup::request;
use super::{Answer, Args};
use crate::names::path::Path;
use crate::names::walk::{Reached, Request};
use crate::task::thread::current;

/// Has a server make something at the end of a path.
fn make(dirfd: i32, path: UserAddr, asked: &Request<'_>) -> Answer {
    match request(dirfd, &mut Path::from_user(path)?, &Request { follow: false, ..*asked })? {
        Reached::Archive(Some(_)) | Reached::Held(_) => Err(Errno::EEXIST),
        Reached::Archive(None) => Err(Errno::EROFS),
        Reached::Server(_) => Ok(0),
    }
}

pub fn mkdirat(a: Args) -> Answer {
    let mode = a.uint(2) & 0o1777 & !current().process().directory.umask();
    make(a.int(0), a.addr(1), &Request { op: op::MKDIR, mode: mode.into(), ..Request::LOOKUP })
}

/// Makes empty files, and sockets that are not bound: EPERM for other types, as on a file system without them.
pub fn mknodat(a: Args) -> Answer {
    let kind = a.uint(2) & mode::FMT;
    if kind == mode::SOCK {
        let mode = a.uint(2) & 0o7777 & !current().process().directory.umask();
        return make(a.int(0), a.addr(1), &Request { op: op::SOCKET, mode: mode.into(), ..Request::LOOKUP });
    }
    if kind != mode::REG && kind != 0 {
        return Err(Errno::EPERM);
    }
    let mode = a.uint(2) & 0o7777 & !current().process().directory.umask();
    let flags = quire_abi::flags::Open::CREAT | quire_abi::flags::Open::EXCL;
    make(
        a.int(0),
        a.addr(1),
        &Request { op: op::OPEN, argument: flags.bits().into(), mode: mode.into(), ..Request::LOOKUP },
    )
}

pub fn symlinkat(a: Args) -> Answer {
    let target = Path::from_user(a.addr(0))?;
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    make(a.int(1), a.addr(2), &Request { op: op::SYMLINK, text: target.rest(), ..Request::LOOKUP })
}

pub fn unlinkat(a: Args) -> Answer {
    let flags = a.uint(2);
    if flags & !at::REMOVEDIR != 0 {
        return Err(Errno::EINVAL);
    }
    let asked = Request { op: op::UNLINK, argument: flags.into(), follow: false, ..Request::LOOKUP };
    match request(a.int(0), &mut Path::from_user(a.addr(1))?, &asked)? {
        Reached::Archive(node) => Err(if node.is_some() { Errno::EROFS } else { Errno::ENOENT }),
        Reached::Server(_) => Ok(0),
        Reached::Held(_) => Err(Errno::EPERM),
    }
}

/// An existing name: its directory, and the name.
struct Old {
    mount: u16,
    directory: u64,
    path: Path,
}

impl Old {
    /// Finds it for an operation. EROFS if it is in the archive.
    fn find(dirfd: i32, path: UserAddr, op: u64, follow: bool) -> Result<Self, Errno> {
        let mut path = Path::from_user(path)?;
        let asked = Request { op: op::PARENT, argument: op, follow, ..Request::LOOKUP };
        let served = match request(dirfd, &mut path, &asked)? {
            Reached::Archive(Some(_)) => return Err(Errno::EROFS),
            Reached::Archive(None) => return Err(Errno::ENOENT),
            Reached::Server(served) => served,
            // (An object that a process holds may have no name in any directory.)
            Reached::Held(_) => return Err(Errno::EXDEV),
        };
        let [directory, name, ..] = served.answer.words;
        let name = usize::try_from(name).ok().filter(|name| *name < path.rest().len()).ok_or(Errno::EIO)?;
        path.advance(name);
        Ok(Self { mount: served.mount, directory, path })
    }

    /// Has an operation done with it at the end of another path in its mount.
    fn to(&self, dirfd: i32, path: UserAddr, op: u64, argument: u64) -> Answer {
        let asked = Request {
            op,
            argument,
            mode: self.directory,
            text: self.path.rest(),
            only: Some(self.mount),
            follow: false,
            ..Request::LOOKUP
        };
        match request(dirfd, &mut Path::from_user(path)?, &asked)? {
            Reached::Archive(_) | Reached::Held(_) => Err(Errno::EXDEV),
            Reached::Server(_) => Ok(0),
        }
    }
}

pub fn linkat(a: Args) -> Answer {
    let flags = a.uint(4);
    if flags & !(at::SYMLINK_FOLLOW | at::EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    // (With EMPTY_PATH a path is needed too, as on Linux for callers that may not read all directories.)
    let old = Old::find(a.int(0), a.addr(1), op::LINK, flags & at::SYMLINK_FOLLOW != 0)?;
    old.to(a.int(2), a.addr(3), op::LINK, 0)
}

pub fn renameat(a: Args, flags: u32) -> Answer {
    const KNOWN: u32 = 7;
    const EXCHANGE: u32 = 2;
    if flags & !KNOWN != 0 || flags & EXCHANGE != 0 && flags != EXCHANGE {
        return Err(Errno::EINVAL);
    }
    let old = Old::find(a.int(0), a.addr(1), op::RENAME, false)?;
    old.to(a.int(2), a.addr(3), op::RENAME, flags.into())
}

pub fn umask(a: Args) -> Answer {
    Ok(current().process().directory.set_umask(a.uint(0)) as usize)
}
