//! The parts of local sockets that are independent of the machine: addresses, queues of unread messages, and the search
//! for sockets in flight that nobody can ever receive. `docs/sockets.md` gives an overview.
//!
//! Floors, lowest first; none imports a higher one:
//! - [`address`]: names, in the form that programs pass and receive.
//! - [`queue`]: messages that wait for a reader.
//! - [`graph`]: sockets that only refer to each other.
//!
//! Nothing here knows processes or locks: the caller has exclusive access to the state. Queues allocate nothing.

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
