//! The laboratory: the classic schemes of memory management as exact simulations.
//!
//! A [`Trace`] lists events: requests for memory, references to pages, accesses to addresses. A scheme plays a trace
//! and returns one [`Report`] for each of its variants, so that they can be compared: first fit with best fit, FIFO
//! with LRU. A report contains figures ([`report::Measure`]), pictures ([`report::Picture`]) and notes. [`draw`]
//! renders it as text, and `cargo xtask lab` renders it as a page. [`command`] implements the command line of the
//! program `lab`.
//!
//! | module | schemes |
//! | --- | --- |
//! | [`place`] | placement: fixed partitions, fits, quick fit, compaction, buddy; swapping and overlays |
//! | [`translate`] | address translation: paging, segmentation, segmented paging, the TLB, multi-level tables |
//! | [`replace`] | page replacement: FIFO, OPT, LRU, clock, second chance, NRU, LFU, working set, WSClock |
//! | [`pressure`] | page replacement with thousands of frames: OPT, LRU, ARC, LIRS, clock, two lists, generations, LIRS by flags |
//! | [`dram`] | the cost of an access in banks and rows |
//!
//! All results are deterministic and computed in whole numbers: the same trace gives the same report on every machine.
//! The simulations share no code with Quire's memory manager. They are written to be read, with the simplest data
//! structure that does the work. Traces are user input: a scheme returns an [`Error`] for one that it cannot play, and
//! never panics.

#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod command;
pub mod dram;
pub mod draw;
mod error;
pub mod place;
pub mod pressure;
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
