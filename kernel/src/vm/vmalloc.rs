//! vmalloc, vmap and ioremap over the kernel's live tables.
//!
//! Kernel stacks are not areas of this space; [`super::stack`] says why.

use quire_mm::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use quire_mm::kernel_table::{KernelAttrs, MapError};
use quire_mm::vmalloc::{KernelMapper, VmSpace};

use super::kernel_map;
use super::machine::Cpu;
use crate::arch::cache;
use crate::layout::{VMALLOC_END, VMALLOC_START};

/// Virtually contiguous kernel memory.
pub static VMALLOC: VmSpace<Cpu, LiveTables> =
    VmSpace::new(Cpu, LiveTables, VirtAddr::new(VMALLOC_START)..VirtAddr::new(VMALLOC_END));

/// Pages that are mapped or unmapped at once: interrupts are masked meanwhile.
const AT_ONCE: usize = 512;

/// The tables in TTBR1.
pub struct LiveTables;

impl KernelMapper for LiveTables {
    fn map(&self, va: VirtAddr, pa: PhysAddr, pages: usize, attrs: KernelAttrs) -> Result<(), MapError> {
        pieces(pages).try_for_each(|(done, n)| kernel_map::map(va + done * PAGE_SIZE, pa + done * PAGE_SIZE, n, attrs))
    }

    fn unmap(&self, va: VirtAddr, pages: usize) {
        pieces(pages).for_each(|(done, n)| kernel_map::unmap_lazily(va + done * PAGE_SIZE, n));
    }

    fn flush_caches(&self, va: VirtAddr, pages: usize) {
        cache::flush_to_memory(core::ptr::with_exposed_provenance(va.get()), pages * PAGE_SIZE);
    }
}

/// Splits a range: for each piece, the pages before it and its length.
fn pieces(pages: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..pages).step_by(AT_ONCE).map(move |done| (done, AT_ONCE.min(pages - done)))
}
