//! FAT12, FAT16 and FAT32 with long names, as a server of the protocol of `docs/names.md`. The crate `hadris-fat`
//! implements the format, and the order in which changes must be written; this crate has the numbers by which the
//! kernel knows files, the operations, the caches, and the treatment of damaged file systems (`docs/disks.md`).
//!
//! Everything here has a limit: walks along chains and directories end (`hadris-fat` detects loops), the numbers of
//! nodes and of cached lines are limited, and a lack of memory is reported as an error where possible.
//!
//! Floors, lowest first; none imports a higher one:
//! - [`disk`]: the disk under a file system, and its cache.
//! - [`error`]: errors of `hadris-fat` as errno.
//! - [`volume`]: the file system, whether it may be written, times.
//! - [`nodes`]: files and directories by number.
//! - `known`: what is remembered between requests.
//! - [`tree`], `aside`: names, and attributes of nodes; files that were removed while they were open.
//! - `open`, `content`, `change`, `rename`, `list`: the operations.
//! - `serve`: requests and answers.

#![no_std]

extern crate alloc;

mod aside;
mod change;
mod content;
pub mod disk;
pub mod error;
mod known;
mod list;
pub mod nodes;
mod open;
mod rename;
mod serve;
pub mod tree;
pub mod volume;

pub use hadris_fs::{Clock, DateTime, NoClock};
