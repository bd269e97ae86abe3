//! procfs: what the kernel knows of processes, memory and CPUs, as the files of Linux's /proc and /sys, in its formats.
//! Each read says what is true then. A file, a line or a field is here if Quire counts what it stands for; fields of a
//! fixed place that it does not count are 0.
//!
//! Floors, lowest first; none imports a higher one:
//! - [`facts`]: what is asked of the kernel. [`out`]: the part of a text that is asked for.
//! - [`machine`], [`process`], [`system`]: the texts. [`change`], [`settings`]: what writing does.
//! - [`names`]: which files there are.
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
