//! Address translation.
//!
//! [`paging`] and [`segments`] are placements too: they satisfy requests for memory and translate accesses. [`tables`]
//! shows the shape of multi-level page tables, and [`tlb`] the effect of a translation lookaside buffer.

pub mod paging;
pub mod segments;
pub mod tables;
pub mod tlb;
