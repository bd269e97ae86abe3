//! File locks: the arguments of `fcntl` and `flock`.

use crate::layout::pod;

/// A record lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FileLock {
    /// [`RDLCK`], [`WRLCK`] or [`UNLCK`].
    pub kind: i16,
    /// What `start` is relative to, as for lseek.
    pub whence: i16,
    /// Zero.
    pub padding: u32,
    /// The first byte.
    pub start: i64,
    /// The number of bytes; a negative number counts the bytes before `start`, and 0 means up to the end of any file.
    pub len: i64,
    /// The process that has set the lock; -1 for a lock of an open file.
    pub pid: i32,
    /// Zero.
    pub reserved: u32,
}

pod!(FileLock);

/// A shared lock.
pub const RDLCK: i16 = 0;
/// An exclusive lock.
pub const WRLCK: i16 = 1;
/// No lock.
pub const UNLCK: i16 = 2;

/// Commands of `fcntl`.
#[allow(missing_docs)]
pub mod command {
    pub const GETLK: u32 = 5;
    pub const SETLK: u32 = 6;
    pub const SETLKW: u32 = 7;
    pub const OFD_GETLK: u32 = 36;
    pub const OFD_SETLK: u32 = 37;
    pub const OFD_SETLKW: u32 = 38;
    pub const SETLEASE: u32 = 1024;
    pub const GETLEASE: u32 = 1025;
}

/// Operations of `flock`.
#[allow(missing_docs)]
pub mod operation {
    pub const SH: u32 = 1;
    pub const EX: u32 = 2;
    pub const NB: u32 = 4;
    pub const UN: u32 = 8;
    /// Linux no longer supports these, and ignores a call with them.
    pub const MAND: u32 = 32;
}

const _: () = assert!(size_of::<FileLock>() == 32);
