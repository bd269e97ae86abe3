//! The part of the shell that needs no machine, so that it runs under `cargo test` on the host: from bytes that
//! someone types to a line ([`edit`], [`history`], [`complete`]), from a line to commands ([`parse`]), and from the
//! words of a command to arguments ([`expand`], [`glob`]). [`help`] has the words on every command. Running them is the
//! program's part.
//!
//! Words are bytes: nothing here minds text that is not UTF-8.

#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod complete;
pub mod edit;
pub mod expand;
pub mod glob;
pub mod help;
pub mod history;
pub mod keys;
pub mod parse;
pub mod token;
