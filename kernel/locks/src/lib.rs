//! The state of file locks: which owner has locked what, who is in whose way, and who waits for whom. `docs/locks.md`
//! has the whole picture.
//!
//! Floors, lowest first; none imports a higher one:
//! - [`tree`]: a balanced tree whose nodes carry a summary of what is below them.
//! - [`range`]: a lock, and what it excludes.
//! - [`records`]: the record locks of a file.
//! - [`flocks`]: the locks of a whole file, by flock.
//! - [`waits`]: which owners wait for which others.
//!
//! Nothing here knows a process, a file or a lock of the kernel's: whoever calls has the state for itself. Nothing is
//! allocated but what the caller supplies ([`Spare`]), so no operation fails for want of memory once it has begun. Each
//! is O(log n), and O(log n) more for each lock of the same owner that a new one replaces.

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
