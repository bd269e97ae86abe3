//! FAT12, FAT16 and FAT32 with long names, as a server of the protocol of `docs/names.md`. The crate `hadris-fat` knows
//! the format, and in which order what is written must come; here are the numbers by which the kernel knows files, the
//! operations, what is cached, and what happens to a file system that is damaged (`docs/disks.md`).
//!
//! Nothing in here is without a bound: walks along chains and directories end (`hadris-fat` finds loops), nodes and the
//! cache have a most, and what memory there is not for is an error where it can be one.
//!
//! Floors, lowest first; none imports a higher one:
//! - [`disk`]: what a file system lies on, and its cache.
//! - [`error`]: errors of `hadris-fat` as errno.
//! - [`volume`]: the file system, whether it may be written, times.
//! - [`nodes`]: files and directories by number.
//! - `known`: what is remembered between two requests.
//! - [`tree`], `aside`: names, and what may be said of nodes; files that were removed while they were open.
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
