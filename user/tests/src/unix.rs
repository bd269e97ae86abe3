//! Local sockets: calls, and messages with control data.

use alloc::vec;
use alloc::vec::Vec;

use quire_rt::Errno;
use quire_rt::abi::layout::{Iovec, PollFd, poll};
use quire_rt::abi::nr;
use quire_rt::abi::socket::{CmsgHdr, MsgHdr, SOL_SOCKET, Ucred, control};

use crate::raw;
use crate::ready::look;

const UNIX: usize = 1;
/// What a poll says of a socket that can be read.
pub const IN: u16 = poll::IN | poll::RDNORM;
/// Of one that can be written.
pub const OUT: u16 = poll::OUT | poll::WRNORM;

/// A socket of a kind.
pub fn socket(what: u32) -> Result<i32, Errno> {
    raw(nr::SOCKET, [UNIX, what as usize, 0]).map(|fd| fd as i32)
}

/// Two of a kind that are connected.
pub fn pair(what: u32) -> (i32, i32) {
    let mut fds = [0i32; 2];
    let made = raw(nr::SOCKETPAIR, [UNIX, what as usize, 0, fds.as_mut_ptr() as usize]);
    assert_eq!(made, Ok(0));
    (fds[0], fds[1])
}

/// An address: the family and a path, or an abstract name.
pub fn address(name: &[u8]) -> Vec<u8> {
    [&1u16.to_ne_bytes()[..], name].concat()
}

/// Gives it a name.
pub fn bind(fd: i32, name: &[u8]) -> Result<usize, Errno> {
    let address = address(name);
    raw(nr::BIND, [fd as usize, address.as_ptr() as usize, address.len()])
}

/// Connects it to a name.
pub fn connect(fd: i32, name: &[u8]) -> Result<usize, Errno> {
    let address = address(name);
    raw(nr::CONNECT, [fd as usize, address.as_ptr() as usize, address.len()])
}

/// Lets others connect.
pub fn listen(fd: i32, backlog: usize) -> Result<usize, Errno> {
    raw(nr::LISTEN, [fd as usize, backlog])
}

/// The next connection.
pub fn accept(fd: i32, flags: u32) -> Result<i32, Errno> {
    raw(nr::ACCEPT4, [fd as usize, 0, 0, flags as usize]).map(|fd| fd as i32)
}

/// Sends to the other end.
pub fn send(fd: i32, bytes: &[u8], flags: u32) -> Result<usize, Errno> {
    raw(nr::SENDTO, [fd as usize, bytes.as_ptr() as usize, bytes.len(), flags as usize, 0, 0])
}

/// Sends to a name.
pub fn send_to(fd: i32, bytes: &[u8], name: &[u8]) -> Result<usize, Errno> {
    let to = address(name);
    let words = [fd as usize, bytes.as_ptr() as usize, bytes.len(), 0, to.as_ptr() as usize, to.len()];
    raw(nr::SENDTO, words)
}

/// Up to `most` bytes.
pub fn receive(fd: i32, most: usize, flags: u32) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; most];
    let words = [fd as usize, bytes.as_mut_ptr() as usize, most, flags as usize, 0, 0];
    let n = raw(nr::RECVFROM, words)?;
    bytes.truncate(n);
    Ok(bytes)
}

/// Up to `most` bytes, and the name of who has sent them.
pub fn receive_from(fd: i32, most: usize) -> Result<(Vec<u8>, Vec<u8>), Errno> {
    let (mut bytes, mut from, mut len) = (vec![0; most], vec![0; 110], 110u32);
    let words =
        [fd as usize, bytes.as_mut_ptr() as usize, most, 0, from.as_mut_ptr() as usize, (&raw mut len) as usize];
    bytes.truncate(raw(nr::RECVFROM, words)?);
    from.truncate(len as usize);
    Ok((bytes, from))
}

/// What getsockname or getpeername says.
pub fn name_of(fd: i32, call: usize) -> Result<Vec<u8>, Errno> {
    let (mut name, mut len) = (vec![0; 110], 110u32);
    raw(call, [fd as usize, name.as_mut_ptr() as usize, (&raw mut len) as usize])?;
    name.truncate(len as usize);
    Ok(name)
}

/// Ends one or both directions.
pub fn shutdown(fd: i32, how: u32) -> Result<usize, Errno> {
    raw(nr::SHUTDOWN, [fd as usize, how as usize])
}

/// What a poll that does not wait finds.
pub fn events(fd: i32) -> u16 {
    let events = IN | OUT | poll::RDHUP;
    look(&mut [PollFd { fd, events, revents: 0 }])[0]
}

/// Sets an option that is a number.
pub fn set_option(fd: i32, which: u32, value: u32) -> Result<usize, Errno> {
    let at = (&raw const value) as usize;
    raw(nr::SETSOCKOPT, [fd as usize, SOL_SOCKET as usize, which as usize, at, 4])
}

/// Its value.
pub fn get_option(fd: i32, which: u32) -> Result<u32, Errno> {
    let (mut value, mut len) = (0u32, 4u32);
    let words = [fd as usize, SOL_SOCKET as usize, which as usize, (&raw mut value) as usize, (&raw mut len) as usize];
    raw(nr::GETSOCKOPT, words).map(|_| value)
}

/// What came: bytes, descriptors, credentials, flags.
#[derive(Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Came {
    pub bytes: Vec<u8>,
    pub files: Vec<i32>,
    pub who: Option<Ucred>,
    pub flags: u32,
}

/// A message with `room` bytes for control data.
pub fn receive_message(fd: i32, most: usize, room: usize, flags: u32) -> Result<Came, Errno> {
    let mut bytes = vec![0; most];
    let vector = [Iovec { base: bytes.as_mut_ptr() as u64, len: most as u64 }];
    let mut control = vec![0u64; room.div_ceil(8)];
    let mut header = MsgHdr {
        vector: vector.as_ptr() as u64,
        count: 1,
        control: control.as_mut_ptr() as u64,
        control_len: room as u64,
        ..MsgHdr::default()
    };
    let n = raw(nr::RECVMSG, [fd as usize, (&raw mut header) as usize, flags as usize])?;
    bytes.truncate(n);
    let mut came = Came { bytes, flags: header.flags, ..Came::default() };
    let control: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let mut rest = &control[..header.control_len as usize];
    while rest.len() >= size_of::<CmsgHdr>() {
        let len = u64::from_ne_bytes(rest[..8].try_into().unwrap_or_default()) as usize;
        let what = i32::from_ne_bytes(rest[12..16].try_into().unwrap_or_default());
        let words: Vec<i32> = rest[16..len].as_chunks().0.iter().map(|word| i32::from_ne_bytes(*word)).collect();
        if what == control::RIGHTS {
            came.files = words;
        } else if let [pid, uid, gid] = words[..] {
            came.who = Some(Ucred { pid: pid as u32, uid: uid as u32, gid: gid as u32 });
        }
        rest = rest.get(len.next_multiple_of(8)..).unwrap_or(&[]);
    }
    Ok(came)
}

/// Bytes for control data.
pub const ROOM: usize = 64;

/// A message with control data; the bytes are one.
pub fn send_message(fd: i32, byte: u8, level: i32, what: i32, data: &[u8]) -> Result<usize, Errno> {
    let bytes = [byte];
    let vector = [Iovec { base: bytes.as_ptr() as u64, len: 1 }];
    let mut control = Vec::new();
    control.extend_from_slice(&(control::HEADER + data.len()).to_ne_bytes());
    control.extend_from_slice(&level.to_ne_bytes());
    control.extend_from_slice(&what.to_ne_bytes());
    control.extend_from_slice(data);
    let header = MsgHdr {
        vector: vector.as_ptr() as u64,
        count: 1,
        control: control.as_ptr() as u64,
        control_len: control.len() as u64,
        ..MsgHdr::default()
    };
    raw(nr::SENDMSG, [fd as usize, (&raw const header) as usize, 0])
}

/// A message of one byte with descriptors.
pub fn send_files(fd: i32, byte: u8, files: &[i32]) -> Result<usize, Errno> {
    let data: Vec<u8> = files.iter().flat_map(|file| file.to_ne_bytes()).collect();
    send_message(fd, byte, SOL_SOCKET, control::RIGHTS, &data)
}
