//! The state of file locks: which owner has locked what, which locks conflict, and which owners wait for which.
//! `docs/locks.md` gives an overview.
//!
//! Floors, lowest first; none imports a higher one:
//! - [`tree`]: a balanced tree whose nodes carry a summary of what is below them.
//! - [`range`]: a lock, and what it excludes.
//! - [`records`]: the record locks of a file.
//! - [`flocks`]: the locks of a whole file, by flock.
//! - [`waits`]: which owners wait for which others.
//!
//! Nothing here knows processes, files or locks of the kernel: the caller has exclusive access to the state. The caller
//! supplies all memory ([`Spare`]), so no operation fails for lack of memory once it has begun. Each is O(log n), plus
//! O(log n) for each lock of the same owner that a new one replaces.

#![cfg_attr(not(test), no_std)]
#![cfg_attr(not(test), deny(clippy::disallowed_macros, clippy::disallowed_methods, clippy::disallowed_types))]

extern crate alloc;

pub mod flocks;
pub mod range;
pub mod records;
#[cfg(test)]
mod tests;
pub mod tree;
pub mod waits;

pub use flocks::{Flock, Flocks};
pub use range::{Kind, Lock, Owner, Range};
pub use records::{Records, Spare};
pub use waits::{Edge, Waits};
