//! Virtio devices with their own registers (virtio-mmio), for the crate `virtio-drivers`.
//!
//! Registers are accessed by calls: eight of QEMU's devices have theirs in one page, which could only be mapped for all
//! of them together. A request takes three such accesses.

mod console;
mod memory;
mod transport;

pub use console::Console;
pub use memory::{Memory, Slot};
pub use transport::{Registers, kind};
