//! Messages between threads, independent of hardware: what a call, a reply and a signal do to an [`Endpoint`] and to
//! the threads that wait there. `docs/messages.md` gives an overview.
//!
//! Nothing here sleeps or switches. Functions return whether the thread must sleep, and call a closure with the name of
//! each thread that becomes runnable, under the endpoint's lock: in the kernel the closure claims the thread for a
//! direct switch or wakes it, in tests it unparks a thread of the host.
//!
//! Lock order: an endpoint's lock ([`Rank::Object`](quire_mm::sync::Rank::Object)), then the locks that the closure
//! takes (of a run queue). Two endpoints are never locked at a time. Nothing is allocated, freed or dropped under an
//! endpoint's lock, and every operation under one is O(1), or handles a batch of bounded size.

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

/// The atomics that loom replaces.
mod atomic {
    pub use core::sync::atomic::{AtomicU64, Ordering};
}

pub use call::{Call, Caller, Registers};
pub use endpoint::{Endpoint, HandedBack, HandedOver, Received, Receiver, Sent};
pub use reply::{News, Reply, Saved};
pub use transfer::{Item, Refused, check, transfer};
pub use word::{Generation, Outcome};
