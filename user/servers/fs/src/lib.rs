//! What servers of file systems share (`docs/names.md` has the protocol).
//!
//! Floors, lowest first; none imports a higher one:
//! - [`who`]: who asks, and what that one may do.
//! - [`records`]: lists of directories.
//! - [`walk`]: along a path, through the directories of one file system.
//! - [`request`]: what the kernel asks, and what a server answers.
//! - [`trigger`]: what is written to files of memory pressure.

#![no_std]

extern crate alloc;

pub mod records;
pub mod request;
pub mod trigger;
pub mod walk;
pub mod who;
