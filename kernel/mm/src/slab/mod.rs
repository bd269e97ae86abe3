//! Slab caches: objects smaller than a page, and the kernel's own heap.
//!
//! One front, [`KmemCache`] and [`KernelHeap`] (`kmalloc` and its family), is the interface to a back end that is
//! chosen once at boot.
//!
//! Floors, lowest first; none imports a higher one (`cargo xtask lint` checks it against this list):
//! - `atomic`, [`spec`], [`state`]: the specification of a cache; a slab's counters in one word, and the rules for
//!   changing it.
//! - [`lookup`], [`record`]: from a pointer to the record of its frame, and what that means while the frame is in a
//!   slab.
//! - [`demand`], [`report`]: the interpretation of GFP flags; reports of misused objects.
//! - [`debug_flags`]: boot options for further checks.
//! - [`geometry`]: the layout of objects in a slab.
//! - [`mod@array`], [`node`]: a CPU's free objects; a cache's lists on a NUMA node.
//! - [`slob`]: the smallest back end: a heap that all caches share.
//! - [`cache`]: a cache's data, its CPUs' lines, and the links of free objects.
//! - [`debug`]: the checks of every object.
//! - [`slabs`]: creation and disposal of slabs.
//! - [`arrays`]: the arrays of a cache's CPUs.
//! - [`slub`]: the default back end.
//! - [`mod@slab`]: the third one.
//! - [`front`]: the per-CPU fast path, and the choice of the back end behind it.
//! - [`heap`], [`kmalloc`]: the heap; size classes, allocations of whole pages, `#[global_allocator]`. One floor, since
//!   the heap consists of the caches of the classes.
//! - [`visit`], [`validate`]: shrinking caches while others destroy them; comparing the counts with the lists, for
//!   tests.
//!
//! Lock order: the list of caches ([`Rank::SlabCaches`]), a node of a cache ([`Rank::SlabNode`]), the page allocator.
//! No pages are allocated or freed under the first two.
//!
//! [`Rank::SlabCaches`]: crate::sync::Rank::SlabCaches
//! [`Rank::SlabNode`]: crate::sync::Rank::SlabNode

/// The atomics of [`state`]; a test replaces them by loom's.
mod atomic {
    pub(super) use core::sync::atomic::{AtomicU64, Ordering};
}
mod array;
mod arrays;
mod cache;
mod debug;
mod debug_flags;
mod demand;
mod front;
mod geometry;
mod heap;
mod kmalloc;
mod lookup;
mod node;
mod record;
mod report;
#[allow(clippy::module_inception)] // It is what the field calls this back end.
mod slab;
mod slabs;
mod slob;
mod slub;
mod spec;
mod state;
#[cfg(test)]
mod tests;
mod validate;
mod visit;

pub use cache::KmemCache;
pub use debug_flags::DebugFlags;
pub use heap::{CacheHandle, Config, CreateError, KernelHeap, SlabInfo};
pub use report::{Fault, Report, Track};
pub use spec::{Backend, CacheSpec, SlabFlags};
