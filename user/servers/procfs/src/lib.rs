//! procfs: what the kernel knows about processes, memory and CPUs, as the files of Linux's /proc and /sys, in their
//! formats. Each read returns the present state. A file, a line or a field exists if Quire counts what it reports;
//! fields at fixed positions that it does not count are 0.
//!
//! Floors, lowest first; none imports a higher one:
//! - [`facts`]: queries to the kernel. [`out`]: the requested part of a text.
//! - [`machine`], [`process`], [`system`]: the texts. [`change`], [`settings`]: the effects of writes.
//! - [`names`]: the files that exist.
//! - [`serve`]: requests and answers.

#![no_std]

extern crate alloc;

pub mod change;
pub mod facts;
pub mod machine;
pub mod names;
pub mod out;
pub mod process;
pub mod serve;
pub mod settings;
pub mod system;
