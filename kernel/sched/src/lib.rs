//! Which thread runs next on a CPU, and for how long. `docs/scheduling.md` gives an overview.
//!
//! Floors, lowest first; none imports a higher one:
//! - [`class`]: policies, priorities, and the weights of nice values.
//! - `place`: the protocol between a change of a thread's class and its queue.
//! - [`share`]: a thread's share: its due time, and its position in a queue.
//! - [`queue`]: the ready threads of a CPU.
//! - [`spread`]: from which CPU another one takes a thread, and when.
//!
//! Nothing here knows threads, locks or clocks: times are nanoseconds that the caller measures, and a queue is used
//! under a lock of the caller. Nothing is allocated. Each operation is O(log n) in the number of ready threads, except
//! for a search among a bounded number of them.

#![cfg_attr(not(test), no_std)]
#![deny(unsafe_op_in_unsafe_fn)]

pub mod class;
mod place;
pub mod queue;
pub mod share;
pub mod spread;
#[cfg(test)]
mod tests;

/// The atomics that loom replaces.
mod atomic {
    pub use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
}

pub use class::{Class, Policy};
pub use queue::{Enters, Former, Preempts, Queue};
pub use share::Share;
