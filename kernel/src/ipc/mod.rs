//! Shared objects and communication: open files, pipes, futexes, messages.

pub mod ask;
pub mod attachments;
pub mod deferred;
pub mod descriptor;
pub mod epoll;
pub mod eventfd;
pub mod file_locks;
pub mod futex;
pub mod handles;
pub mod handover;
pub mod memory_file;
pub mod message;
mod nesting;
pub mod pidfd;
pub mod pipe;
pub mod poll;
pub mod signalfd;
pub mod socket;
pub mod source;
pub mod table;
pub mod timerfd;
pub mod trigger;
