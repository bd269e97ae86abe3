//! What a local socket has that needs no machine: its address, the messages that nobody has read yet, and which sockets
//! that are under way to somebody nobody can ever receive. `docs/sockets.md` has the whole picture.
//!
//! Floors, lowest first; none imports a higher one:
//! - [`address`]: names, as programs give them and get them.
//! - [`queue`]: messages that wait for a reader.
//! - [`graph`]: sockets that only refer to each other.
//!
//! Nothing here knows a process or a lock: whoever calls has the state for itself. Queues allocate nothing.

#![cfg_attr(not(test), no_std)]
#![cfg_attr(not(test), deny(clippy::disallowed_macros, clippy::disallowed_methods, clippy::disallowed_types))]

extern crate alloc;

pub mod address;
pub mod graph;
pub mod queue;
#[cfg(test)]
mod tests;

pub use address::{Address, Name};
pub use graph::{Graph, garbage};
pub use queue::{Message, Messages, Queue};
