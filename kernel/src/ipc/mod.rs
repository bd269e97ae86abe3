//! Shared objects and communication: open files, pipes, futexes.

pub mod futex;
pub mod handle;
pub mod handles;
pub mod message;
pub mod pipe;
pub mod poll;
pub mod table;
