//! Shared objects and communication: open files, pipes, futexes, messages.

pub mod descriptor;
pub mod futex;
pub mod handles;
pub mod handover;
pub mod message;
pub mod pipe;
pub mod poll;
pub mod table;
