//! Quire's memory manager: no assembly, no MMIO, no globals except those passed to it.
//!
//! It accesses the machine only through [`machine::Machine`] and the traits of that name on higher floors, so that the
//! kernel's code also runs under `cargo test`, with host threads as CPUs.
//!
//! Floors, lowest first; none imports a higher one (`cargo xtask lint` checks it against this list):
//! - [`addr`], `bitmap`, [`event`], [`hash`], [`load`], [`numbers`], `steps`, [`vm_flags`]: basic types.
//! - [`machine`]: the hardware, and the threads on it.
//! - [`psi`]: how much of the time these wait for memory.
//! - [`sync`], [`fallible`]: locks, allocation that can fail.
//! - [`spans`]: intervals of page numbers, in trees.
//! - [`memblock`]: the boot allocator.
//! - [`page`]: the records of page frames.
//! - [`buddy`]: free blocks of a zone, and the table of page blocks.
//! - [`pcp`], [`zone`]: per-CPU lists, watermarks.
//! - [`page_alloc`]: the page allocator; [`cma`] is part of it.
//! - [`slab`]: objects smaller than a page.
//! - [`cgroup`]: control groups, which memory of programs is charged to.
//! - [`supply`], [`frame`]: memory for work that must not wait for it; the frames of programs and of their tables.
//! - [`swap`]: the contents of pages that have left memory.
//! - [`pte`], [`kernel_table`], [`asid`]: table entries, the kernel's tables, TLB tags.
//! - [`vmalloc`], [`percpu`]: kernel memory that is contiguous only virtually, or private to a CPU.
//! - [`spaces`]: what all address spaces share: ASIDs, committed memory, the zero page, swap.
//! - [`rmap`]: reverse mapping of anonymous pages.
//! - [`table`]: the tables of an address space.
//! - [`object`], [`vma`]: memory objects, and areas. One floor, since an area refers to its object, and an object to
//!   all areas that map it.
//! - [`mm`]: address spaces.
//! - [`reclaim`]: which pages go to swap when memory is short.
//! - `sim`, `seeded`: the machine of the host's tests, and deliberate bugs.

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
pub mod cgroup;
pub mod event;
pub mod fallible;
pub mod frame;
pub mod hash;
pub mod kernel_table;
pub mod load;
pub mod machine;
pub mod memblock;
pub mod mm;
pub mod numbers;
pub mod object;
pub mod page;
pub mod page_alloc;
pub mod pcp;
pub mod percpu;
pub mod psi;
pub mod pte;
pub mod reclaim;
pub mod rmap;
#[cfg(test)]
mod seeded;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod slab;
pub mod spaces;
pub mod spans;
mod steps;
pub mod supply;
pub mod swap;
pub mod sync;
pub mod table;
pub mod vm_flags;
pub mod vma;
pub mod vmalloc;
pub mod zone;

pub use addr::{PhysAddr, UserAddr, VirtAddr};
pub use machine::Machine;
pub use page_alloc::cma;
