//! The kernel's cache of the names that servers give to files, which saves it from asking again. `docs/names.md` gives
//! an overview.
//!
//! Floors, lowest first; none imports a higher one:
//! - [`changes`]: changes of the names in one file system, and whether an answer may be cached.
//! - [`cache`]: the cached entries, by directory and name.
//!
//! Why no stale entry is ever found: whoever has a name changed announces this ([`Changes::begin`]), removes the cached
//! entry of that name, and only then asks the server. Whoever wants to cache an answer has taken a [`Changes::sample`]
//! before it asked, and enters the answer only if no change was under way then and none has begun since
//! ([`Changes::may_keep`], which [`Cache::put`] evaluates under the lock that the removal takes too). So a cached entry
//! was valid at a time when no change was under way, and is removed before the server is asked for the next change of
//! it.
//!
//! Lock order: the lock of a set ([`Rank::Names`](quire_mm::sync::Rank::Names)), one at a time. Nothing is allocated,
//! freed or dropped under it, and each operation under it is O(1) plus one comparison of names.

#![cfg_attr(not(test), no_std)]
#![cfg_attr(not(test), deny(clippy::disallowed_macros, clippy::disallowed_methods, clippy::disallowed_types))]

extern crate alloc;

pub mod cache;
pub mod changes;
#[cfg(test)]
mod tests;

pub use cache::{Cache, Entry, Set};
pub use changes::{Change, Changes, Sample};
