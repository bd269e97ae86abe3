//! Names: from a path to the object that it names (`docs/names.md`).
//!
//! The kernel knows the names of the boot archive, and which server's file system is mounted over which of its
//! directories; all other names belong to servers.
//!
//! - [`mounts`]: what is mounted where.
//! - [`path`]: a path while it is walked.
//! - [`cache`]: cached answers of servers.
//! - [`walk`]: the walk, from mount to mount.
//! - [`cached_walk`]: the part of the walk that uses the cache.
//! - [`target`]: the result of a walk, checked.
//! - [`magic_links`]: the destinations of links in /proc.
//! - [`inodes`]: the objects of files that servers store.
//! - [`pager`]: requests for their pages.
//! - [`flusher`]: the threads that write back dirty pages.
//!
//! No lock is held during a walk, which may sleep until a server answers; only a kill ends that.

pub mod cache;
pub mod cached_walk;
pub mod flusher;
pub mod inodes;
pub mod magic_links;
pub mod mounts;
pub mod pager;
pub mod path;
pub mod target;
pub mod walk;

use mounts::ARCHIVE;

/// Numbers of files are below this.
const NUMBERS: u64 = 1 << 48;

/// A directory or another node with a number: its mount, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The mount.
    pub mount: u16,
    /// The number, below 2⁴⁸.
    number: u64,
}

impl Place {
    /// The root of all.
    pub const ROOT: Self = Self::archive(0);

    /// A file of the boot archive.
    pub const fn archive(number: u32) -> Self {
        Self { mount: ARCHIVE, number: number as u64 }
    }

    /// The root of a mount.
    pub const fn root_of(mount: u16) -> Self {
        Self { mount, number: 0 }
    }

    /// `None` for a number that no file can have.
    pub fn new(mount: u16, number: u64) -> Option<Self> {
        (number < NUMBERS).then_some(Self { mount, number })
    }

    /// Its number in its mount.
    pub fn number(self) -> u64 {
        self.number
    }

    /// As one word.
    pub fn to_word(self) -> u64 {
        u64::from(self.mount) * NUMBERS + self.number
    }

    /// From one word.
    pub fn from_word(word: u64) -> Self {
        Self { mount: (word / NUMBERS) as u16, number: word % NUMBERS }
    }
}
