//! What ioctl asks of a disk: Linux's numbers, and the sizes of what they carry.

/// Whether it cannot be written (`int`).
pub const ROGET: usize = 0x125e;
/// Reads the table of partitions again.
pub const RRPART: usize = 0x125f;
/// How many sectors of 512 bytes (`unsigned long`).
pub const GETSIZE: usize = 0x1260;
/// Writes back what waits to be written.
pub const FLSBUF: usize = 0x1261;
/// The logical sector size (`int`).
pub const SSZGET: usize = 0x1268;
/// The block size of its cache (`int`).
pub const BSZGET: usize = 0x8008_1270;
/// How many bytes (`u64`).
pub const GETSIZE64: usize = 0x8008_1272;
/// Some bytes are not needed any more: where they begin, and how many (two `u64`).
pub const DISCARD: usize = 0x1277;
/// The least efficient size of a transfer (`unsigned int`).
pub const IOMIN: usize = 0x1278;
/// The best size of a transfer, 0 if unknown (`unsigned int`).
pub const IOOPT: usize = 0x1279;
/// How far it is out of alignment (`int`).
pub const ALIGNOFF: usize = 0x127a;
/// The physical sector size (`unsigned int`).
pub const PBSZGET: usize = 0x127b;
/// Whether what was discarded reads as zeros (`unsigned int`).
pub const DISCARDZEROES: usize = 0x127c;
/// Whether it turns (`unsigned short`).
pub const ROTATIONAL: usize = 0x127e;

/// What a request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carries {
    /// Bytes that the program gives.
    pub from: usize,
    /// Bytes that it gets.
    pub to: usize,
    /// It needs a descriptor that may write.
    pub writes: bool,
}

/// What a request carries; `None` for one that is not for disks.
pub const fn carries(request: usize) -> Option<Carries> {
    let (from, to) = match request {
        RRPART | FLSBUF => (0, 0),
        DISCARD => (16, 0),
        GETSIZE | GETSIZE64 => (0, 8),
        ROTATIONAL => (0, 2),
        ROGET | SSZGET | BSZGET | IOMIN | IOOPT | ALIGNOFF | PBSZGET | DISCARDZEROES => (0, 4),
        _ => return None,
    };
    Some(Carries { from, to, writes: from != 0 })
}
