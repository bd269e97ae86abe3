//! Sockets: the arguments of their system calls.

use crate::layout::pod;

/// Families.
#[allow(missing_docs)]
pub mod family {
    pub const UNIX: u16 = 1;
    /// One more than the highest family of Linux.
    pub const END: u32 = 46;
}

/// Kinds of sockets, and the flags that come with them.
#[allow(missing_docs)]
pub mod kind {
    pub const STREAM: u32 = 1;
    pub const DGRAM: u32 = 2;
    /// On a local socket: a datagram socket.
    pub const RAW: u32 = 3;
    pub const SEQPACKET: u32 = 5;
    /// One more than the highest kind of Linux.
    pub const END: u32 = 11;
    pub const MASK: u32 = 0xf;
    pub const NONBLOCK: u32 = 0o4000;
    pub const CLOEXEC: u32 = 0o2000000;
}

/// Flags of messages.
#[allow(missing_docs)]
pub mod msg {
    pub const OOB: u32 = 1;
    pub const PEEK: u32 = 2;
    pub const CTRUNC: u32 = 8;
    pub const TRUNC: u32 = 0x20;
    pub const DONTWAIT: u32 = 0x40;
    pub const EOR: u32 = 0x80;
    pub const WAITALL: u32 = 0x100;
    pub const NOSIGNAL: u32 = 0x4000;
    pub const WAITFORONE: u32 = 0x1_0000;
    pub const CMSG_CLOEXEC: u32 = 0x4000_0000;
}

/// The directions that `shutdown` ends.
#[allow(missing_docs)]
pub mod how {
    pub const READ: u32 = 0;
    pub const WRITE: u32 = 1;
    pub const BOTH: u32 = 2;
}

/// The level of options and control messages that belong to no protocol.
pub const SOL_SOCKET: i32 = 1;

/// Kinds of control messages.
pub mod control {
    /// Descriptors.
    pub const RIGHTS: i32 = 1;
    /// A [`Ucred`](super::Ucred).
    pub const CREDENTIALS: i32 = 2;
    /// The size of a header, in bytes; headers and data are aligned to [`ALIGN`].
    pub const HEADER: usize = 16;
    /// The alignment of headers and data.
    pub const ALIGN: usize = 8;
}

/// Options.
#[allow(missing_docs)]
pub mod option {
    pub const DEBUG: u32 = 1;
    pub const REUSEADDR: u32 = 2;
    pub const TYPE: u32 = 3;
    pub const ERROR: u32 = 4;
    pub const DONTROUTE: u32 = 5;
    pub const BROADCAST: u32 = 6;
    pub const SNDBUF: u32 = 7;
    pub const RCVBUF: u32 = 8;
    pub const KEEPALIVE: u32 = 9;
    pub const OOBINLINE: u32 = 10;
    pub const REUSEPORT: u32 = 15;
    pub const PASSCRED: u32 = 16;
    pub const PEERCRED: u32 = 17;
    pub const RCVTIMEO: u32 = 20;
    pub const SNDTIMEO: u32 = 21;
    pub const ACCEPTCONN: u32 = 30;
    pub const SNDBUFFORCE: u32 = 32;
    pub const RCVBUFFORCE: u32 = 33;
    pub const PROTOCOL: u32 = 38;
    pub const DOMAIN: u32 = 39;
    pub const RCVTIMEO_NEW: u32 = 66;
    pub const SNDTIMEO_NEW: u32 = 67;
}

/// A process and its user and group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)]
pub struct Ucred {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
}

/// A message with everything that belongs to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MsgHdr {
    /// The address of the buffer for the socket address.
    pub name: u64,
    /// Its length.
    pub name_len: u32,
    /// Nothing.
    pub pad: u32,
    /// The address of the vector of buffers.
    pub vector: u64,
    /// The number of buffers.
    pub count: u64,
    /// The address of the buffer for control messages.
    pub control: u64,
    /// Its length in bytes.
    pub control_len: u64,
    /// The flags of a received message.
    pub flags: u32,
    /// Nothing.
    pub pad_end: u32,
}

/// One of several messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MMsgHdr {
    /// The message.
    pub header: MsgHdr,
    /// How many bytes were sent or received.
    pub len: u32,
    /// Nothing.
    pub pad: u32,
}

/// The header of a control message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CmsgHdr {
    /// The length in bytes, header included.
    pub len: u64,
    /// Level.
    pub level: i32,
    /// Kind.
    pub kind: i32,
}

pod!(Ucred, MsgHdr, MMsgHdr, CmsgHdr);

const _: () = assert!(size_of::<MsgHdr>() == 56 && size_of::<MMsgHdr>() == 64 && size_of::<CmsgHdr>() == 16);
