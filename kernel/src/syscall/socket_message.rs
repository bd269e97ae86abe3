//! Sending and receiving: send, recv and related calls, and control messages.
//!
//! Linux ignores message flags that local sockets do not support, and so does this; MSG_OOB is refused.

use alloc::vec::Vec;

use quire_abi::Errno;
use quire_abi::layout::Timespec;
use quire_abi::socket::{CmsgHdr, MMsgHdr, MsgHdr, SOL_SOCKET, Ucred, control, msg};
use quire_mm::UserAddr;
use quire_mm::fallible::{KArc, TryVec, try_zeroed};

use super::buffers::{Buffers, with_vector};
use super::file::{limit, table};
use super::socket::{Given, file_at, of, store};
use super::{Answer, Args, socket, time};
use crate::arch::{timer, uaccess};
use crate::ipc::descriptor::{Descriptor, OpenFile};
use crate::ipc::socket::flight::MOST;
use crate::ipc::socket::{Got, Kind, Outgoing, Receive, Socket, own_credentials};
use crate::task::point::resched_point;
use crate::task::thread::current;
use crate::task::wait::Sleep;

/// The maximum length of control messages (Linux's `optmem_max`).
const CONTROL_MAX: u64 = 131_072;

/// Most parts of a vector.
const IOV_MAX: u64 = 1024;

/// The maximum number of bytes of an address that are examined: the rest is cut off.
const NAME_MAX: u32 = 128;

/// What a program sends in addition to bytes.
#[derive(Default)]
struct Control {
    files: Vec<Descriptor>,
    credentials: Option<Ucred>,
}

impl Control {
    /// Reads control messages. EINVAL, EBADF, EPERM, ENOBUFS.
    fn read(at: UserAddr, len: u64) -> Result<Self, Errno> {
        let mut found = Self::default();
        if len == 0 {
            return Ok(found);
        }
        if len > CONTROL_MAX {
            return Err(Errno::ENOBUFS);
        }
        let mut bytes: Vec<u8> = try_zeroed(len as usize)?;
        if uaccess::copy_from_user(&mut bytes, at)? < bytes.len() {
            return Err(Errno::EFAULT);
        }
        let mut rest = &bytes[..];
        while rest.len() >= control::HEADER {
            let word = |at: usize| rest[at..at + 4].try_into().map(i32::from_ne_bytes).unwrap_or_default();
            let len = rest[..8].try_into().map(u64::from_ne_bytes).unwrap_or_default();
            let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
            if len < control::HEADER || len > rest.len() {
                return Err(Errno::EINVAL);
            }
            if word(8) == SOL_SOCKET {
                found.add(word(12), &rest[control::HEADER..len])?;
            }
            rest = rest.get(len.next_multiple_of(control::ALIGN)..).unwrap_or(&[]);
        }
        Ok(found)
    }

    fn add(&mut self, kind: i32, data: &[u8]) -> Result<(), Errno> {
        match kind {
            control::RIGHTS => {
                let fds = data.as_chunks().0;
                if self.files.len() + fds.len() > MOST {
                    return Err(Errno::EINVAL);
                }
                for fd in fds {
                    self.files.try_push(table()?.get(i32::from_ne_bytes(*fd))?)?;
                }
            }
            control::CREDENTIALS => {
                let words = data.as_chunks().0.iter().map(|word| u32::from_ne_bytes(*word));
                let mut words = words.chain([0; 3]);
                let mut word = || words.find(|_| true).unwrap_or(0);
                let said = Ucred { pid: word(), uid: word(), gid: word() };
                if data.len() != size_of::<Ucred>() {
                    return Err(Errno::EINVAL);
                }
                check_credentials(&said)?;
                self.credentials = Some(said);
            }
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }
}

/// EPERM for credentials that the caller may not use; ESRCH for a process that does not exist.
fn check_credentials(said: &Ucred) -> Result<(), Errno> {
    let credentials = current().process().credentials.lock().clone();
    let has = |ids: &crate::task::credentials::Ids, id: u32| [ids.real, ids.effective, ids.saved].contains(&id);
    let is_own =
        said.pid == current().process().pid && has(&credentials.user, said.uid) && has(&credentials.group, said.gid);
    if !is_own && !credentials.is_privileged() {
        return Err(Errno::EPERM);
    }
    let is_there = said.pid == own_credentials().pid || crate::task::process::TABLE.lock().process(said.pid).is_some();
    if is_there { Ok(()) } else { Err(Errno::ESRCH) }
}

/// Sends bytes, as write does, without flags.
pub(super) fn send_from(file: &OpenFile, from: &mut Buffers<'_>) -> Answer {
    transmit(file, from, None, Control::default(), 0)
}

/// Receives bytes, as read does.
pub(super) fn receive_to(file: &OpenFile, to: &mut Buffers<'_>) -> Answer {
    if to.left() == 0 {
        return Ok(0);
    }
    receive(file, to, 0, false).map(|got| got.len)
}

fn transmit(file: &OpenFile, from: &mut Buffers<'_>, name: Option<&Given>, control: Control, flags: u32) -> Answer {
    let len = from.left();
    transmit_by(file, len, &mut |to| from.take(to), name, control, flags)
}

/// Receives up to `len` bytes, which `put` stores.
pub(super) fn receive_bytes(file: &OpenFile, len: usize, put: &mut dyn FnMut(&[u8]) -> Answer) -> Answer {
    let nonblocking = file.is_nonblocking();
    of(file)?.receive(Receive { len, put, peek: false, all: false, nonblocking, names: false }).map(|got| got.len)
}

/// Sends `len` bytes that `take` supplies.
pub(super) fn transmit_bytes(file: &OpenFile, len: usize, take: &mut dyn FnMut(&mut [u8]) -> Answer) -> Answer {
    transmit_by(file, len, take, None, Control::default(), 0)
}

fn transmit_by(
    file: &OpenFile,
    len: usize,
    take: &mut dyn FnMut(&mut [u8]) -> Answer,
    name: Option<&Given>,
    control: Control,
    flags: u32,
) -> Answer {
    let socket = of(file)?;
    if flags & msg::OOB != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let to = match (socket.kind, name) {
        (Kind::Stream, Some(_)) => {
            return Err(if socket.peer().is_ok() { Errno::EISCONN } else { Errno::EOPNOTSUPP });
        }
        (Kind::Datagram, Some(name)) => Some(find_destination(socket, name)?),
        _ => None,
    };
    Socket::send(
        socket,
        Outgoing {
            len,
            take,
            to,
            files: control.files,
            credentials: control.credentials,
            nonblocking: file.is_nonblocking() || flags & msg::DONTWAIT != 0,
            quiet: flags & msg::NOSIGNAL != 0,
        },
    )
}

fn find_destination(socket: &KArc<Socket>, name: &Given) -> Result<KArc<Socket>, Errno> {
    let to = name.find(socket)?;
    if socket.passes_credentials() && !socket.is_bound() {
        Socket::bind_any(socket)?;
    }
    Ok(to)
}

fn receive(file: &OpenFile, to: &mut Buffers<'_>, flags: u32, names: bool) -> Result<Got, Errno> {
    let socket = of(file)?;
    if flags & msg::OOB != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    socket.receive(Receive {
        len: to.left(),
        put: &mut |bytes| to.put(bytes),
        peek: flags & msg::PEEK != 0,
        all: flags & msg::WAITALL != 0,
        nonblocking: file.is_nonblocking() || flags & msg::DONTWAIT != 0,
        names,
    })
}

/// The result of recv for a message: with MSG_TRUNC its whole length, including the part that was cut off.
fn length(got: &Got, kind: Kind, flags: u32) -> usize {
    if kind != Kind::Stream && flags & msg::TRUNC != 0 { got.whole } else { got.len }
}

pub fn sendto(a: Args) -> Answer {
    let file = file_at(a.int(0))?;
    of(&file)?;
    let name = match a.opt_addr(4) {
        Some(at) => Some(Given::copy(at, a.uint(5) as usize)?),
        None => None,
    };
    let mut from = Buffers::one(a.addr(1), a.word(2))?;
    transmit(&file, &mut from, name.as_ref(), Control::default(), a.uint(3))
}

pub fn recvfrom(a: Args) -> Answer {
    let file = file_at(a.int(0))?;
    let kind = of(&file)?.kind;
    let mut to = Buffers::one(a.addr(1), a.word(2))?;
    let names = a.opt_addr(4);
    let got = receive(&file, &mut to, a.uint(3), names.is_some())?;
    if let Some(at) = names {
        match &got.from {
            Some(from) => socket::tell(Some(from), at, a.addr(5))?,
            None => uaccess::put(a.addr(5), &0u32)?,
        }
    }
    Ok(length(&got, kind, a.uint(3)))
}

/// Sends one message, as described by a header.
fn send_one(file: &OpenFile, header: &MsgHdr, flags: u32) -> Answer {
    if header.count > IOV_MAX {
        return Err(Errno::EMSGSIZE);
    }
    // (If the pointer is null, the length does not matter.)
    if header.name != 0 && (header.name_len as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    let name = match (header.name, header.name_len) {
        (0, _) | (_, 0) => None,
        (at, len) => Some(Given::copy(UserAddr::new(at as usize), len.min(NAME_MAX) as usize)?),
    };
    let control = match header.control {
        0 => Control::default(),
        at => Control::read(UserAddr::new(at as usize), header.control_len)?,
    };
    with_vector(UserAddr::new(header.vector as usize), header.count as usize, |from| {
        transmit(file, from, name.as_ref(), control, flags)
    })
}

pub fn sendmsg(a: Args) -> Answer {
    let file = file_at(a.int(0))?;
    of(&file)?;
    send_one(&file, &uaccess::get(a.addr(1))?, a.uint(2))
}

pub fn sendmmsg(a: Args) -> Answer {
    let file = file_at(a.int(0))?;
    of(&file)?;
    let mut sent = 0;
    for i in 0..u64::from(a.uint(2)).min(IOV_MAX) as usize {
        let at = a.addr(1) + i * size_of::<MMsgHdr>();
        let one = || {
            let message: MMsgHdr = uaccess::get(at)?;
            let len = send_one(&file, &message.header, a.uint(3))? as u32;
            uaccess::put(at + core::mem::offset_of!(MMsgHdr, len), &len)
        };
        match one() {
            Ok(()) => sent += 1,
            Err(e) if sent == 0 => return Err(e),
            Err(_) => break,
        }
        if resched_point(Sleep::Interruptible).is_err() {
            break;
        }
    }
    Ok(sent)
}

/// Where control messages go.
struct Told {
    at: UserAddr,
    room: usize,
    used: usize,
    flags: u32,
}

impl Told {
    /// Stores one control message, cut off where the buffer ends.
    fn put(&mut self, kind: i32, data: &[u8]) -> Result<(), Errno> {
        let len = control::HEADER + data.len();
        if self.room - self.used < control::HEADER {
            self.flags |= msg::CTRUNC;
            return Ok(());
        }
        let here = (self.room - self.used).min(len);
        if here < len {
            self.flags |= msg::CTRUNC;
        }
        let at = self.at + self.used;
        uaccess::put(at, &CmsgHdr { len: here as u64, level: SOL_SOCKET, kind })?;
        let data = &data[..here - control::HEADER];
        if uaccess::copy_to_user(at + control::HEADER, data)? < data.len() {
            return Err(Errno::EFAULT);
        }
        self.used += here.next_multiple_of(control::ALIGN).min(self.room - self.used);
        Ok(())
    }

    /// Stores as many descriptors as fit; the others are closed.
    fn put_files(&mut self, files: Vec<Descriptor>, close_on_exec: bool) -> Result<(), Errno> {
        let room = (self.room - self.used).saturating_sub(control::HEADER) / size_of::<i32>();
        let mut fds: [[u8; 4]; MOST] = [[0; 4]; MOST];
        let (mut count, wanted) = (0, files.len());
        for descriptor in files.into_iter().take(room) {
            let Ok(fd) = table()?.insert(Descriptor { close_on_exec, ..descriptor }, 0, limit()) else { break };
            fds[count] = fd.to_ne_bytes();
            count += 1;
        }
        if count < wanted {
            self.flags |= msg::CTRUNC;
        }
        if count == 0 {
            return Ok(());
        }
        let told = self.put(control::RIGHTS, fds[..count].as_flattened());
        if told.is_err() {
            for fd in &fds[..count] {
                drop(table()?.remove(i32::from_ne_bytes(*fd)));
            }
        }
        told
    }
}

/// Receives one message, as described by the header at `at`.
fn receive_one(file: &OpenFile, at: UserAddr, flags: u32) -> Answer {
    let mut header: MsgHdr = uaccess::get(at)?;
    if header.count > IOV_MAX {
        return Err(Errno::EMSGSIZE);
    }
    if (header.name_len as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    let socket = of(file)?;
    let got = with_vector(UserAddr::new(header.vector as usize), header.count as usize, |to| {
        receive(file, to, flags, header.name != 0)
    })?;
    let len = length(&got, socket.kind, flags);
    let room = if header.control == 0 { 0 } else { header.control_len as usize };
    let mut told = Told { at: UserAddr::new(header.control as usize), room, used: 0, flags: 0 };
    if socket.passes_credentials() {
        /// Credentials if the sender is unknown.
        const NOBODY: Ucred = Ucred { pid: 0, uid: 65534, gid: 65534 };
        let who = got.credentials.unwrap_or(NOBODY);
        let words = [who.pid, who.uid, who.gid].map(u32::to_ne_bytes);
        told.put(control::CREDENTIALS, words.as_flattened())?;
    }
    if !got.files.is_empty() {
        told.put_files(got.files, flags & msg::CMSG_CLOEXEC != 0)?;
    }
    header.flags = told.flags | flags & msg::CMSG_CLOEXEC;
    if socket.kind != Kind::Stream && got.whole > got.len {
        header.flags |= msg::TRUNC;
    }
    header.control_len = told.used as u64;
    if header.name != 0 {
        header.name_len = match &got.from {
            Some(from) => store(Some(from), UserAddr::new(header.name as usize), header.name_len as usize)? as u32,
            None => 0,
        };
    }
    uaccess::put(at + core::mem::offset_of!(MsgHdr, name_len), &header.name_len)?;
    uaccess::put(at + core::mem::offset_of!(MsgHdr, control_len), &header.control_len)?;
    uaccess::put(at + core::mem::offset_of!(MsgHdr, flags), &header.flags)?;
    Ok(len)
}

pub fn recvmsg(a: Args) -> Answer {
    let file = file_at(a.int(0))?;
    of(&file)?;
    receive_one(&file, a.addr(1), a.uint(2))
}

/// The time is only checked between messages, as on Linux.
pub fn recvmmsg(a: Args) -> Answer {
    let file = file_at(a.int(0))?;
    of(&file)?;
    let span = a.opt_addr(4).map(uaccess::get::<Timespec>).transpose()?.map(time::to_ns).transpose()?;
    let deadline = span.map(|span| timer::now_ns().saturating_add(span));
    let mut flags = a.uint(3) & !msg::WAITFORONE;
    let mut received = 0;
    for i in 0..u64::from(a.uint(2)).min(IOV_MAX) as usize {
        let at = a.addr(1) + i * size_of::<MMsgHdr>();
        let one = receive_one(&file, at, flags)
            .and_then(|len| uaccess::put(at + core::mem::offset_of!(MMsgHdr, len), &(len as u32)));
        match one {
            Ok(()) => received += 1,
            Err(e) if received == 0 => return Err(e),
            Err(_) => break,
        }
        if a.uint(3) & msg::WAITFORONE != 0 {
            flags |= msg::DONTWAIT;
        }
        let is_over = deadline.is_some_and(|at| timer::now_ns() >= at);
        if is_over || resched_point(Sleep::Interruptible).is_err() {
            break;
        }
    }
    if let (Some(at), Some(deadline)) = (a.opt_addr(4), deadline) {
        let _ = uaccess::put(at, &time::from_ns(deadline.saturating_sub(timer::now_ns())));
    }
    Ok(received)
}
