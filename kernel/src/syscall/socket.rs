//! Sockets: making, binding and connecting them. Messages are in `socket_message`, options in `socket_option`.
//!
//! Only local sockets exist: EAFNOSUPPORT for other families.

use quire_abi::Errno;
use quire_abi::access::WRITE;
use quire_abi::flags::Open;
use quire_abi::layout::mode;
use quire_abi::names::{node, op};
use quire_abi::socket::{family, how, kind};
use quire_mm::UserAddr;
use quire_mm::fallible::KArc;
use quire_sockets::address::{GIVEN_MAX, HEADER, TOLD_MAX};
use quire_sockets::{Address, Name};

use super::file::{limit, table};
use super::lookup::request;
use super::{Answer, Args};
use crate::arch::uaccess;
use crate::ipc::descriptor::{Descriptor, Object, OpenFile, Rights};
use crate::ipc::socket::{self, Kind, Socket};
use crate::names::Place;
use crate::names::cached_walk::Asker;
use crate::names::path::Path;
use crate::names::walk::{Reached, Request};
use crate::task::thread::current;

/// The family, kind and flags of a new socket. EAFNOSUPPORT, EINVAL, EPROTONOSUPPORT, ESOCKTNOSUPPORT.
fn asked(a: &Args) -> Result<(Kind, Open, bool), Errno> {
    let (domain, kind, protocol) = (a.uint(0), a.uint(1), a.uint(2));
    let flags = kind & !kind::MASK;
    if flags & !(kind::NONBLOCK | kind::CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    if domain >= family::END {
        return Err(Errno::EAFNOSUPPORT);
    }
    if kind & kind::MASK >= kind::END {
        return Err(Errno::EINVAL);
    }
    if domain != family::UNIX.into() {
        return Err(Errno::EAFNOSUPPORT);
    }
    if protocol != 0 && protocol != family::UNIX.into() {
        return Err(Errno::EPROTONOSUPPORT);
    }
    let status = if flags & kind::NONBLOCK != 0 { Open::NONBLOCK } else { Open::empty() };
    let kind = match kind & kind::MASK {
        kind::STREAM => Kind::Stream,
        kind::DGRAM | kind::RAW => Kind::Datagram,
        kind::SEQPACKET => Kind::Seqpacket,
        _ => return Err(Errno::ESOCKTNOSUPPORT),
    };
    Ok((kind, status, flags & kind::CLOEXEC != 0))
}

fn open(socket: KArc<Socket>, status: Open, close_on_exec: bool) -> Result<i32, Errno> {
    let file = OpenFile::new(Object::Socket(socket), status | Open::RDWR)?;
    table()?.insert(Descriptor { file, rights: Rights::READ | Rights::WRITE, close_on_exec }, 0, limit())
}

pub fn socket(a: Args) -> Answer {
    let (kind, status, close_on_exec) = asked(&a)?;
    open(Socket::new(kind)?, status, close_on_exec).map(|fd| fd as usize)
}

pub fn socketpair(a: Args) -> Answer {
    let (kind, status, close_on_exec) = asked(&a)?;
    let [first, second] = socket::pair(kind)?;
    // (Each file closes its socket, even if it gets no descriptor.)
    let first = OpenFile::new(Object::Socket(first), status | Open::RDWR)?;
    let second = OpenFile::new(Object::Socket(second), status | Open::RDWR)?;
    let rights = Rights::READ | Rights::WRITE;
    let table = table()?;
    let first = table.insert(Descriptor { file: first, rights, close_on_exec }, 0, limit())?;
    let second = match table.insert(Descriptor { file: second, rights, close_on_exec }, 0, limit()) {
        Ok(fd) => fd,
        Err(e) => {
            drop(table.remove(first));
            return Err(e);
        }
    };
    if let Err(e) = uaccess::put(a.addr(3), &[first, second]) {
        drop(table.remove(first));
        drop(table.remove(second));
        return Err(e);
    }
    Ok(0)
}

/// An open file that is a socket. EBADF, ENOTSOCK.
pub(super) fn file_at(fd: i32) -> Result<KArc<OpenFile>, Errno> {
    let file = table()?.get(fd)?.file;
    if file.is_name_only() { Err(Errno::EBADF) } else { Ok(file) }
}

/// Its socket.
pub(super) fn of(file: &OpenFile) -> Result<&KArc<Socket>, Errno> {
    match &file.object {
        Object::Socket(socket) => Ok(socket),
        _ => Err(Errno::ENOTSOCK),
    }
}

/// The bytes of an address that a program passes.
pub(super) struct Given {
    bytes: [u8; GIVEN_MAX],
    len: usize,
}

impl Given {
    /// Copies it. EINVAL, EFAULT.
    pub fn copy(at: UserAddr, len: usize) -> Result<Self, Errno> {
        let mut given = Self { bytes: [0; GIVEN_MAX], len };
        let to = given.bytes.get_mut(..len).ok_or(Errno::EINVAL)?;
        if uaccess::copy_from_user(to, at)? < len {
            return Err(Errno::EFAULT);
        }
        Ok(given)
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Whether it means that there is no address.
    fn is_unspecified(&self) -> bool {
        self.len >= HEADER && self.bytes[..HEADER] == [0; HEADER]
    }

    /// The socket with this name, of the same kind as `from`. EINVAL, ECONNREFUSED, EPROTOTYPE; errors of a path.
    pub fn find(&self, from: &KArc<Socket>) -> Result<KArc<Socket>, Errno> {
        let address = Address::parse(self.bytes())?.ok_or(Errno::EINVAL)?;
        match address.name() {
            Name::Abstract(_) => from.find_abstract(&address),
            Name::Path(path) => from.find_node(node_at(path)?),
        }
    }
}

/// The node of a socket at a path, if the caller may write to it. EACCES, ECONNREFUSED.
fn node_at(path: &[u8]) -> Result<Place, Errno> {
    let mut path = Path::new(path)?;
    let served = match request(quire_abi::layout::at::FDCWD, &mut path, &Request::LOOKUP)? {
        Reached::Server(served) => served,
        Reached::Archive(None) => return Err(Errno::ENOENT),
        Reached::Archive(Some(_)) | Reached::Held(_) => return Err(Errno::ECONNREFUSED),
    };
    let words = served.answer.words;
    let owned = crate::names::cache::owned(&words);
    let who = {
        let credentials = current().process().credentials.lock();
        Asker((credentials.user.files, credentials.group.files))
    };
    if !owned.permits(&who, WRITE) {
        return Err(Errno::EACCES);
    }
    if owned.mode & mode::FMT != mode::SOCK {
        return Err(Errno::ECONNREFUSED);
    }
    Place::new(served.mount, words[node::NUMBER]).ok_or(Errno::EIO)
}

pub fn bind(a: Args) -> Answer {
    let file = file_at(a.int(0))?;
    let socket = of(&file)?;
    let given = Given::copy(a.addr(1), a.uint(2) as usize)?;
    let Some(address) = Address::parse(given.bytes())? else { return Socket::bind_any(socket).map(|()| 0) };
    let Name::Path(path) = address.name() else { return Socket::bind_abstract(socket, address).map(|()| 0) };
    if socket.is_bound() {
        return Err(Errno::EINVAL);
    }
    let mode = 0o777 & !current().process().directory.umask();
    let asked = Request { op: op::SOCKET, mode: mode.into(), follow: false, ..Request::LOOKUP };
    let served = match request(quire_abi::layout::at::FDCWD, &mut Path::new(path)?, &asked) {
        Ok(Reached::Server(served)) => served,
        Ok(Reached::Archive(None)) => return Err(Errno::EROFS),
        Ok(_) | Err(Errno::EEXIST) => return Err(Errno::EADDRINUSE),
        Err(e) => return Err(e),
    };
    let place = Place::new(served.mount, served.answer.words[node::NUMBER]).ok_or(Errno::EIO)?;
    Socket::bind_node(socket, place, address).map(|()| 0)
}

pub fn listen(a: Args) -> Answer {
    /// Linux's `somaxconn`.
    const MOST: u32 = 4096;
    let file = file_at(a.int(0))?;
    of(&file)?.listen(a.uint(1).min(MOST) as usize).map(|()| 0)
}

pub fn connect(a: Args) -> Answer {
    let file = file_at(a.int(0))?;
    let socket = of(&file)?;
    let given = Given::copy(a.addr(1), a.uint(2) as usize)?;
    if socket.kind == Kind::Datagram && given.is_unspecified() {
        return Socket::set_destination(socket, None).map(|()| 0);
    }
    let to = given.find(socket)?;
    Socket::connect(socket, &to, file.is_nonblocking()).map(|()| 0)
}

pub fn accept(a: Args, flags: u32) -> Answer {
    if flags & !(kind::NONBLOCK | kind::CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    let file = file_at(a.int(0))?;
    let socket = of(&file)?.accept(file.is_nonblocking())?;
    let from = socket.peer().ok().and_then(|peer| peer.address());
    let status = if flags & kind::NONBLOCK != 0 { Open::NONBLOCK } else { Open::empty() };
    let fd = open(socket, status, flags & kind::CLOEXEC != 0)?;
    if let Some(at) = a.opt_addr(1)
        && let Err(e) = tell(from.as_deref(), at, a.addr(2))
    {
        drop(table()?.remove(fd));
        return Err(e);
    }
    Ok(fd as usize)
}

/// Stores an address at `at`; the word at `len_at` has the size of the buffer, and gets the address's length.
pub(super) fn tell(address: Option<&Address>, at: UserAddr, len_at: UserAddr) -> Result<(), Errno> {
    let room: i32 = uaccess::get(len_at)?;
    let len = store(address, at, usize::try_from(room).map_err(|_| Errno::EINVAL)?)?;
    uaccess::put(len_at, &(len as u32))
}

/// Stores up to `room` bytes of an address at `at`; returns its length.
pub(super) fn store(address: Option<&Address>, at: UserAddr, room: usize) -> Result<usize, Errno> {
    let mut told = [0; TOLD_MAX];
    let len = Address::tell(address, &mut told);
    let stored = &told[..len.min(room)];
    if uaccess::copy_to_user(at, stored)? < stored.len() { Err(Errno::EFAULT) } else { Ok(len) }
}

pub fn getsockname(a: Args) -> Answer {
    let file = file_at(a.int(0))?;
    tell(of(&file)?.address().as_deref(), a.addr(1), a.addr(2)).map(|()| 0)
}

pub fn getpeername(a: Args) -> Answer {
    let file = file_at(a.int(0))?;
    let peer = of(&file)?.peer()?;
    tell(peer.address().as_deref(), a.addr(1), a.addr(2)).map(|()| 0)
}

pub fn shutdown(a: Args) -> Answer {
    let file = file_at(a.int(0))?;
    let ends = match a.uint(1) {
        how::READ => 1,
        how::WRITE => 2,
        how::BOTH => 3,
        _ => return Err(Errno::EINVAL),
    };
    of(&file)?.shutdown(ends);
    Ok(0)
}
