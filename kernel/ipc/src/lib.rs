//! Messages between threads, free of hardware: what a call, a reply and a signal do to an [`Endpoint`] and to those who
//! wait there. `docs/messages.md` has the whole picture.
//!
//! Nothing here sleeps or switches. A thread that is to sleep is told so, and whoever makes it runnable calls a closure
//! with its name, under the endpoint's lock: in the kernel that is a claim for a direct switch or a wake-up, in tests
//! the host's unpark.
//!
//! Lock order: an endpoint's lock ([`Rank::Object`](quire_mm::sync::Rank::Object)), then whatever the closure takes (a
//! run queue). Two endpoints are never locked at a time. Nothing is allocated, freed or dropped under an endpoint's
//! lock, and all that is done under one is O(1), or a batch of a stated size.

#![cfg_attr(not(test), no_std)]
#![deny(unsafe_op_in_unsafe_fn)]

extern crate alloc;

mod call;
mod endpoint;
mod reply;
#[cfg(test)]
mod tests;
mod transfer;
mod word;

/// What loom replaces.
mod atomic {
    pub use core::sync::atomic::{AtomicU64, Ordering};
}

pub use call::{Call, Caller, Registers};
pub use endpoint::{Endpoint, HandedBack, HandedOver, Received, Receiver, Sent};
pub use reply::{News, Reply, Saved};
pub use transfer::{Item, Refused, check, transfer};
pub use word::{Generation, Outcome};
