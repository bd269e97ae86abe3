//! What drivers of disks share: a directory in which each disk and each of its partitions is a file, as a part of the
//! protocol of `docs/names.md`.
//!
//! Floors, lowest first; none imports a higher one:
//! - [`disk`]: what a driver provides, and transfers of any length by whole sectors.
//! - [`table`]: what a disk's table says of its partitions.
//! - `mbr`, `gpt`: the two kinds of it.
//! - [`volume`]: disks and partitions with their names and numbers.
//! - [`control`]: what ioctl asks.
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
