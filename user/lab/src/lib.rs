//! The laboratory: the classic schemes of memory management as exact simulations.
//!
//! A [`Trace`] is what happens: requests for memory, references to pages, accesses to addresses. A scheme plays a trace and
//! answers one [`Report`] for each of its variants, so that they stand side by side: first fit beside best fit, FIFO beside
//! LRU. A report has figures ([`report::Measure`]), pictures ([`report::Picture`]) and notes; [`draw`] makes text of it, and
//! `cargo xtask lab` makes a page of it. [`command`] is what the program `lab` does with its command line.
//!
//! | module | schemes |
//! | --- | --- |
//! | [`place`] | where a request goes: fixed partitions, fits, quick fit, compaction, buddy; swapping and overlays |
//! | [`translate`] | what an address means: paging, segmentation, both, the TLB, multi-level tables |
//! | [`replace`] | which page goes: FIFO, OPT, LRU, clock, second chance, NRU, LFU, working set, WSClock |
//! | [`dram`] | what an access costs in banks and rows |
//!
//! Everything is deterministic and in whole numbers: the same trace gives the same report on every machine. Nothing here
//! is Quire's own memory manager; the code is written to be read, with the simplest structure that does the work.
//! A trace comes from a user: whatever is in it, a scheme answers an [`Error`] and does not panic.

#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod command;
pub mod dram;
pub mod draw;
mod error;
pub mod place;
pub mod replace;
pub mod report;
pub mod scheme;
pub mod trace;
pub mod translate;
pub mod units;

pub use error::Error;
pub use report::Report;
pub use scheme::{SCHEMES, Scheme};
pub use trace::Trace;
