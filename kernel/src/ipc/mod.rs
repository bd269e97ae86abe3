//! Shared objects and communication: open files, pipes, futexes, messages.

pub mod cargo;
pub mod descriptor;
pub mod epoll;
pub mod eventfd;
pub mod futex;
pub mod handles;
pub mod handover;
pub mod message;
mod nesting;
pub mod pipe;
pub mod poll;
pub mod source;
pub mod table;
