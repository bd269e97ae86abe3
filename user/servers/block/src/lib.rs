//! What drivers of disks share: a directory in which each disk is a file, as a part of the protocol of `docs/names.md`.
//!
//! Floors, lowest first; none imports a higher one:
//! - [`disk`]: what a driver provides, and transfers of any length by whole sectors.
//! - [`serve`]: requests and their answers.

#![no_std]

extern crate alloc;

pub mod disk;
pub mod serve;
