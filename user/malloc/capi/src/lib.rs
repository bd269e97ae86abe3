//! What the two C libraries share: Linux as a [`System`](quire_malloc::System), and the C functions.
//!
//! The thin crates beside this one invoke [`export!`], which defines the functions under their C names there. So a
//! program that only uses this crate as a library keeps its own malloc.
#![no_std]

mod api;
mod env;
mod export;
mod linux;
mod report;
mod sys;
mod tls;

pub use api::*;
pub use linux::{Linux, panicked};
pub use quire_malloc::Mallinfo;
pub use report::{mallinfo2, malloc_info, malloc_stats};

/// The process's allocator.
pub static MALLOC: quire_malloc::Malloc<Linux> = quire_malloc::Malloc::new(Linux::new());
