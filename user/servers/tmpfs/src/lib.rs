//! tmpfs: a tree of names in memory. The contents of its files are not here: each file is a memory object of the
//! kernel, to which the tree has a handle, and which also keeps the file's attributes.
//!
//! Nothing in here sleeps, recurses, or panics, whatever is requested: nodes, names and their bytes are limited
//! ([`table::MOST`], [`tree::MOST_BYTES`]), and a lack of memory is ENOSPC.
//!
//! Floors, lowest first; none imports a higher one:
//! - [`objects`]: queries and requests to the kernel.
//! - [`directory`]: the names in one directory.
//! - [`table`]: nodes by number.
//! - [`tree`]: the tree, and its elementary operations.
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
