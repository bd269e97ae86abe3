//! Who runs next on a CPU, and for how long. `docs/scheduling.md` has the whole picture.
//!
//! Floors, lowest first; none imports a higher one:
//! - [`class`]: policies, priorities, and the weights of nice values.
//! - `place`: how a thread's class and its queue find each other.
//! - [`share`]: a thread's part: what it is due, and where it stands in a queue.
//! - [`queue`]: the ready threads of a CPU.
//! - [`spread`]: from which CPU a busy one takes a thread, and when.
//!
//! Nothing here knows a thread, a lock or a clock: times are nanoseconds that the caller measures, and a queue is used
//! under a lock of the caller's. Nothing is allocated. Each operation is O(log n) of the ready threads, but for a
//! search among a bounded number of them.

#![cfg_attr(not(test), no_std)]
#![deny(unsafe_op_in_unsafe_fn)]

pub mod class;
mod place;
pub mod queue;
pub mod share;
pub mod spread;
#[cfg(test)]
mod tests;

/// What loom replaces.
mod atomic {
    pub use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
}

pub use class::{Class, Policy};
pub use queue::{Enters, Former, Preempts, Queue};
pub use share::Share;
