//! Requests of ioctl for disks: Linux's numbers, and the sizes of their arguments and results.

/// Whether the disk is read-only (`int`).
pub const ROGET: usize = 0x125e;
/// Reads the table of partitions again.
pub const RRPART: usize = 0x125f;
/// The number of sectors of 512 bytes (`unsigned long`).
pub const GETSIZE: usize = 0x1260;
/// Writes back dirty data.
pub const FLSBUF: usize = 0x1261;
/// The logical sector size (`int`).
pub const SSZGET: usize = 0x1268;
/// The block size of its cache (`int`).
pub const BSZGET: usize = 0x8008_1270;
/// The size in bytes (`u64`).
pub const GETSIZE64: usize = 0x8008_1272;
/// Discards bytes that are not needed any more: the first one, and their number (two `u64`).
pub const DISCARD: usize = 0x1277;
/// The least efficient size of a transfer (`unsigned int`).
pub const IOMIN: usize = 0x1278;
/// The best size of a transfer, 0 if unknown (`unsigned int`).
pub const IOOPT: usize = 0x1279;
/// By how much the disk is misaligned (`int`).
pub const ALIGNOFF: usize = 0x127a;
/// The physical sector size (`unsigned int`).
pub const PBSZGET: usize = 0x127b;
/// Whether discarded bytes read as zeros (`unsigned int`).
pub const DISCARDZEROES: usize = 0x127c;
/// Whether the disk is rotational (`unsigned short`).
pub const ROTATIONAL: usize = 0x127e;

/// The sizes of a request's argument and result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carries {
    /// Bytes that the program passes.
    pub from: usize,
    /// Bytes that the program receives.
    pub to: usize,
    /// Whether the request needs a descriptor that is open for writing.
    pub writes: bool,
}

/// The sizes for a request; `None` if it is not a request for disks.
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
