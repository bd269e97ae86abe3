//! Messages with control data.

use alloc::vec::Vec;

use quire_rt::Errno;
use quire_rt::abi::layout::Iovec;
use quire_rt::abi::nr;
use quire_rt::abi::socket::{MsgHdr, SOL_SOCKET, control};

use crate::raw;

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
