//! Virtio devices behind registers of their own (virtio-mmio), for the crate `virtio-drivers`.
//!
//! Registers are accessed by calls: eight devices of QEMU's have theirs in one page, which could only be mapped
//! together. A request costs three such accesses.

mod console;
mod memory;
mod transport;

pub use console::Console;
pub use memory::{Memory, Slot};
pub use transport::{Registers, kind};
