//! Quire's memory manager: no assembly, no MMIO, no globals except those passed to it.
//!
//! It accesses the machine only through [`Machine`], so that the kernel's code also runs under `cargo test`, with host
//! threads as CPUs.
//!
//! Floors, ground first; none imports a higher one:
//! - [`addr`], [`machine`], [`event`], [`sync`], [`fallible`]: words, the machine, locks, allocation that can fail.
//! - [`memblock`]: the boot allocator.
//! - [`page`], [`zone`], [`buddy`], [`pcp`], [`page_alloc`], [`cma`]: page frames.
//! - [`slab`]: objects smaller than a page.
//! - [`supply`]: memory for work that must not wait for it.
//! - [`vmalloc`], [`percpu`]: kernel memory that is contiguous only virtually, or private to a CPU.
//! - [`pte`], [`table`], [`asid`], [`kernel_table`]: translation tables and what caches them.
//! - [`object`], [`rmap`], [`vma`], [`mm`]: address spaces.

#![cfg_attr(not(any(test, feature = "sim")), no_std)]
#![deny(unsafe_op_in_unsafe_fn)]
#![cfg_attr(
    not(any(test, feature = "sim")),
    deny(clippy::disallowed_macros, clippy::disallowed_methods, clippy::disallowed_types)
)]

extern crate alloc;

/// One of the deliberate bugs that tests can switch on (`seeded.rs`).
#[cfg(test)]
macro_rules! seeded {
    ($bug:ident) => {
        $crate::seeded::is_on($crate::seeded::Bug::$bug)
    };
}
#[cfg(not(test))]
macro_rules! seeded {
    ($bug:ident) => {
        false
    };
}

pub mod addr;
pub mod asid;
mod bitmap;
pub mod buddy;
pub mod event;
pub mod fallible;
pub mod kernel_table;
pub mod machine;
pub mod memblock;
pub mod mm;
pub mod object;
pub mod page;
pub mod page_alloc;
pub mod pcp;
pub mod percpu;
pub mod pte;
pub mod rmap;
#[cfg(test)]
mod seeded;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod slab;
#[cfg(test)]
mod steps;
pub mod supply;
pub mod sync;
pub mod table;
pub mod vma;
pub mod vmalloc;
pub mod zone;

pub use addr::{PhysAddr, UserAddr, VirtAddr};
pub use machine::Machine;
pub use page_alloc::cma;
