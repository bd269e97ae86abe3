//! Descriptors: entries for files, with Linux's rules for their numbers, dup, fork and exec. (Entries for other objects are
//! [handles](super::handles).)
//!
//! An open object is an [`OpenFile`], shared by all descriptors that `dup`, `fork` and descriptor passing make for it.
//! The rights belong to the descriptor. A process's descriptors are in its [table](super::table).

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bitflags::bitflags;
use quire_abi::Errno;
use quire_abi::flags::Open;
use quire_mm::fallible::KArc;

use super::pipe::{Pipe, Side};
use crate::archive::Node;

bitflags! {
    /// What a descriptor allows.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Rights: u8 {
        /// Reading, and mapping readable.
        const READ = 1;
        /// Writing.
        const WRITE = 2;
    }
}

/// What can be open.
pub enum Object {
    /// The console.
    Console,
    /// One end of a pipe.
    Pipe(KArc<Pipe>, Side),
    /// A file or directory of the boot archive.
    Archive(&'static Node),
    /// `/dev/null`.
    Null,
    /// `/dev/zero`.
    Zero,
}

/// An open object with its position and status flags.
pub struct OpenFile {
    /// What is open.
    pub object: Object,
    /// `O_APPEND`, `O_NONBLOCK` and the access mode, as `fcntl` shows them.
    pub status: AtomicU32,
    /// Where the next read begins; for a directory, the index of its next entry.
    pub offset: AtomicU64,
}

/// The number of open objects, for the resource counts.
static OPEN: AtomicU64 = AtomicU64::new(0);

impl OpenFile {
    /// Opens an object.
    pub fn new(object: Object, status: Open) -> Result<KArc<Self>, Errno> {
        let file = Self { object, status: AtomicU32::new(status.bits()), offset: AtomicU64::new(0) };
        OPEN.fetch_add(1, Ordering::Relaxed);
        Ok(KArc::try_new(file)?)
    }

    /// Whether calls on it do not sleep.
    pub fn is_nonblocking(&self) -> bool {
        Open::from_bits_retain(self.status.load(Ordering::Relaxed)).contains(Open::NONBLOCK)
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if let Object::Pipe(pipe, side) = &self.object {
            pipe.close(*side);
        }
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Open objects, system-wide.
pub fn open_objects() -> u64 {
    OPEN.load(Ordering::Relaxed)
}

/// An entry of the table.
#[derive(Clone)]
pub struct Descriptor {
    /// What it refers to.
    pub file: KArc<OpenFile>,
    /// What it allows.
    pub rights: Rights,
    /// Whether exec closes it.
    pub close_on_exec: bool,
}

impl Descriptor {
    /// The file, if the descriptor has these rights; EBADF if not, as for read(2) and write(2).
    pub fn file_for(self, rights: Rights) -> Result<KArc<OpenFile>, Errno> {
        if self.rights.contains(rights) { Ok(self.file) } else { Err(Errno::EBADF) }
    }
}
