//! Virtually contiguous kernel memory: vmalloc, vmap, ioremap.
//!
//! [`VmSpace`] hands out addresses of one range of the kernel's half and maps frames there, page by page.
//!
//! ```text
//! start                                                                       end
//! | guard | area | guard | free ... | area | guard | lazily freed | guard | ... |
//! ```
//!
//! Each area ends with a guard page that is never mapped, and the range starts with one: an access beyond either end of
//! an area faults. (Kernel stacks are not areas; they have their own range.)
//!
//! # Freeing
//! Freeing removes the table entries at once, but other CPUs' TLBs may still have them. Invalidating costs an interrupt
//! or a broadcast to every CPU, so areas are collected and invalidated together: a freed area keeps its addresses and
//! its frames (`Life::Lazy`) until a purge has invalidated them on all CPUs. So neither is reused while a stale
//! translation may exist. A purge runs when [`LAZY_MAX_PAGES`] pages have been collected, when addresses run out, and
//! when the page allocator needs memory.
//!
//! # Aliases
//! The frames of a vmap stay in the direct map, as write-back memory, and any CPU may fetch their lines through it at
//! any time. A mapping of another cacheability is therefore mismatched (Arm ARM, mismatched memory attributes), which
//! is allowed among Normal types if caches are maintained where the use of one mapping ends and that of the other
//! begins, with a barrier: [`VmSpace::vmap`] cleans and invalidates the lines before it returns, so that no dirty line
//! is later written back over uncached writes; [`VmSpace::vunmap`] does so again, so that no stale clean line hides
//! those writes from the direct map. In between, the direct map must not be used to write to the frames, and reads
//! through it are unreliable. Device memory is refused: no maintenance would make that correct.
//!
//! # Locks
//! The tree's ([`Rank::Vmalloc`]) is held for O(log n) steps; no memory is allocated or freed under it, and tables are
//! changed outside of it, by the area's owner. The mapper has its own.
//!
//! [`Rank::Vmalloc`]: crate::sync::Rank::Vmalloc

mod space;
#[cfg(test)]
pub(crate) mod tests;
mod tree;

pub use space::{AreaInfo, AreaKind, VmError, VmSpace};

use crate::addr::{PhysAddr, VirtAddr};
use crate::kernel_table::{KernelAttrs, MapError};

/// The interface to the kernel's tables.
pub trait KernelMapper: Send + Sync {
    /// Maps `pages` pages from `va` to the frames from `pa`, in page entries. On an error, some may be mapped.
    fn map(&self, va: VirtAddr, pa: PhysAddr, pages: usize, attrs: KernelAttrs) -> Result<(), MapError>;

    /// Removes the entries of `pages` pages from `va`, as far as there are any, without invalidating TLBs.
    fn unmap(&self, va: VirtAddr, pages: usize);

    /// Cleans and invalidates the lines of `pages` mapped pages from `va` in all data caches, to the point of
    /// coherency, after all accesses before and before all after it.
    fn flush_caches(&self, va: VirtAddr, pages: usize);
}

/// Freed pages that may wait for a purge.
pub const LAZY_MAX_PAGES: usize = 512;
