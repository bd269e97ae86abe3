//! What the kernel keeps of the names that servers give to files, so that it need not ask again. `docs/names.md` has
//! the whole picture.
//!
//! Floors, lowest first; none imports a higher one:
//! - [`changes`]: what changes in one file system, and whether an answer may be kept.
//! - [`cache`]: what was kept, by directory and name.
//!
//! Why nothing old is ever found: whoever has a name changed says so ([`Changes::begin`]), takes out what is kept of
//! that name, and only then asks the server; whoever wants to keep an answer has noted [`Changes::sample`] before it
//! asked, and enters the answer only if no change was under way then and none has begun since ([`Changes::may_keep`],
//! which [`Cache::put`] asks under the lock that also the removal takes). So an entry that is there was true when no
//! change was under way, and is gone before the next change of it is asked for.
//!
//! Lock order: a set's lock ([`Rank::Names`](quire_mm::sync::Rank::Names)), one at a time. Nothing is allocated, freed
//! or dropped under it, and all that is done is O(1) and one comparison of names.

#![cfg_attr(not(test), no_std)]
#![cfg_attr(not(test), deny(clippy::disallowed_macros, clippy::disallowed_methods, clippy::disallowed_types))]

extern crate alloc;

pub mod cache;
pub mod changes;
#[cfg(test)]
mod tests;

pub use cache::{Cache, Entry, Set};
pub use changes::{Change, Changes, Sample};
