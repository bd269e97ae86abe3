//! References of a process to kernel objects: entries of an object and rights, which can only be reduced.
//!
//! Descriptors are entries for files, with Linux's rules for their numbers, dup, fork and exec. [`Handle`]s are entries
//! for all other objects. Their numbers begin at [`HandleInfo::FIRST`], above any descriptor's, so descriptor limits,
//! the search for the lowest free number and `close_range` do not apply to them. They pass to a child or a new program
//! only if the holder has granted them (`QUIRE_GRANT`), with the rights that it granted.
//!
//! An open object is an [`OpenFile`], shared by all descriptors that `dup`, `fork` and descriptor passing make for it.
//! The rights belong to the descriptor. A process's descriptors are in its [table](super::table).

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bitflags::bitflags;
use quire_abi::Errno;
use quire_abi::flags::{Control, Open};
use quire_abi::layout::HandleInfo;
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

/// The object of a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The machine as a whole: power, settings, audits. The rights are those of [`Control`].
    Machine,
}

impl Target {
    fn kind(self) -> u32 {
        match self {
            Self::Machine => HandleInfo::MACHINE,
        }
    }
}

/// An entry for an object that is no file.
#[derive(Clone, Copy)]
pub struct Handle {
    target: Target,
    rights: u32,
    /// The rights that a child or a new program gets; with 0 it does not get the handle.
    granted: u32,
}

impl Handle {
    /// Machine control with all rights: the kernel makes it once, for init.
    pub fn machine() -> Self {
        Self { target: Target::Machine, rights: Control::all().bits(), granted: 0 }
    }

    /// Sets the rights that pass on. EPERM for rights that the handle does not have.
    pub fn grant(&mut self, rights: u32) -> Result<(), Errno> {
        if rights & !self.rights != 0 {
            return Err(Errno::EPERM);
        }
        self.granted = rights;
        Ok(())
    }

    /// The child's copy, with the same grant, so that a program that the child executes gets it too.
    pub fn for_child(self) -> Option<Self> {
        (self.granted != 0).then_some(Self { rights: self.granted, ..self })
    }

    /// The new program's copy, which grants nothing yet.
    pub fn for_program(self) -> Option<Self> {
        self.for_child().map(|handle| Self { granted: 0, ..handle })
    }

    /// Whether this is machine control with these rights.
    pub fn controls(&self, rights: Control) -> bool {
        self.target == Target::Machine && self.rights & rights.bits() == rights.bits()
    }

    /// The record that a program gets about it.
    pub fn info(&self, number: u32) -> HandleInfo {
        HandleInfo { number, kind: self.target.kind(), rights: self.rights, reserved: 0 }
    }
}
