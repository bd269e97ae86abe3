//! The common part of servers of file systems (`docs/names.md` describes the protocol).
//!
//! Floors, lowest first; none imports a higher one:
//! - [`who`]: identities, and their permissions.
//! - [`records`]: lists of directories.
//! - [`walk`]: along a path, through the directories of one file system.
//! - [`request`]: requests of the kernel, and a server's answers.
//! - [`trigger`]: writes to files of memory pressure.

#![no_std]

extern crate alloc;

pub mod records;
pub mod request;
pub mod trigger;
pub mod walk;
pub mod who;
