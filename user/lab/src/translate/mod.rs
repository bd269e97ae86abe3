//! What an address of a program means to the machine.
//!
//! [`paging`] and [`segments`] are placements too: they give memory for requests and translate accesses. [`tables`] looks at
//! the shape of the page tables alone, [`tlb`] at what is remembered of them and what that is worth.

pub mod paging;
pub mod segments;
pub mod tables;
pub mod tlb;
