//! The common part of drivers of disks: a directory in which each disk and each of its partitions is a file,
//! implementing a part of the protocol of `docs/names.md`.
//!
//! Floors, lowest first; none imports a higher one:
//! - [`disk`]: the interface of a driver, and transfers of any length made of whole sectors.
//! - [`table`]: a disk's partitions according to its table.
//! - `mbr`, `gpt`: the two kinds of tables.
//! - [`volume`]: disks and partitions with their names and numbers.
//! - [`control`]: requests of ioctl.
//! - [`serve`]: requests and their answers.

#![no_std]

extern crate alloc;

pub mod control;
pub mod disk;
mod gpt;
mod mbr;
pub mod serve;
pub mod table;
pub mod volume;
