//! What processes share and talk through: objects behind descriptors, pipes, futexes.

pub mod futex;
pub mod handle;
pub mod pipe;
pub mod poll;
pub mod table;
