//! Close-ups of memory as text: what the programs `walk`, `fraginfo`, `pressure`, `grouptop` and `memtop` print, and what a view is sent. The kernel's records come in, lines go out; no call is
//! made here, so all of it runs under `cargo test`.
//!
//! - [`blocks`]: zones as maps of page blocks.
//! - [`entry`]: the bits of a translation table entry, in words.
//! - [`fragmentation`]: how fragmented free memory is.
//! - [`groups`]: the tree of control groups.
//! - [`overview`]: all of memory on one screen.
//! - [`pressure`]: who waits for memory, how old pages are, swap, reclaim.
//! - [`stream`]: the frames between a machine and its view.
//! - [`walk`]: the translation of an address, step by step.

#![no_std]

extern crate alloc;

pub mod blocks;
pub mod entry;
pub mod fragmentation;
pub mod groups;
pub mod overview;
pub mod pressure;
pub mod stream;
pub mod walk;

/// The text of a NUL-padded field; bytes that are no UTF-8 end it.
pub fn text(field: &[u8]) -> &str {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    let bytes = &field[..end];
    core::str::from_utf8(bytes).or_else(|e| core::str::from_utf8(&bytes[..e.valid_up_to()])).unwrap_or("")
}
