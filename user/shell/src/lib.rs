//! The part of the shell that makes no system calls, so that it runs under `cargo test` on the host: line editing
//! ([`edit`], [`history`], [`complete`]), parsing of a line into commands ([`parse`]), and expansion of a command's
//! words to arguments ([`expand`], [`glob`]). [`help`] has a line on every command, [`limits`] reads how much
//! programs may have, and [`pause`] says when a shell that has ended is started again. The program `init` runs the commands.
//!
//! Words are bytes: text need not be UTF-8.

#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod bracket;
pub mod complete;
pub mod edit;
pub mod expand;
pub mod glob;
pub mod help;
pub mod history;
pub mod keys;
pub mod limits;
pub mod parse;
pub mod pause;
pub mod token;
