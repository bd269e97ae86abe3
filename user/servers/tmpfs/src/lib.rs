//! tmpfs: a tree of names in memory. The content of its files is not here: each is a memory object of the kernel's, to
//! which the tree has a handle, and which has the file's attributes too.
//!
//! Nothing in here sleeps, recurses, or fails by a panic, whatever is asked: nodes, names and their bytes are
//! bounded ([`table::MOST`], [`tree::MOST_BYTES`]), and want of memory is ENOSPC.
//!
//! Floors, lowest first; none imports a higher one:
//! - [`objects`]: what the tree asks of the kernel.
//! - [`directory`]: the names in one directory.
//! - [`table`]: nodes by number.
//! - [`tree`]: the tree, and what can be done to it in one step.
//! - [`open`], [`change`], [`rename`], [`list`]: the operations.
//! - [`serve`]: requests and answers.

#![no_std]

extern crate alloc;

pub mod change;
pub mod directory;
pub mod list;
pub mod objects;
pub mod open;
pub mod rename;
pub mod serve;
pub mod table;
pub mod tree;
