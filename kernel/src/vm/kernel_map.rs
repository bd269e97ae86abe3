//! The kernel's live translation tables after boot.

use core::sync::atomic::{AtomicUsize, Ordering};

use quire_mm::Machine;
use quire_mm::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use quire_mm::fallible::AllocError;
use quire_mm::kernel_table::{Granularity, KernelAttrs, KernelTable, MapError, TableMemory};
use quire_mm::page_alloc::Gfp;
use quire_mm::pte::{Path, Pte};
use quire_mm::sync::Rank;

use super::machine::{Cpu, PAGES, SpinLock};

static TABLE: SpinLock<Option<KernelTable>> = SpinLock::new(Cpu, Rank::KernelTable, None);

/// Table pages from the page allocator. They are never freed.
static TABLE_PAGES: AtomicUsize = AtomicUsize::new(0);

/// Table pages from the page allocator, through the direct map.
struct FromPages;

impl TableMemory for FromPages {
    fn alloc(&mut self) -> Result<PhysAddr, AllocError> {
        let page = PAGES.alloc_zeroed_page(Gfp::ATOMIC)?;
        TABLE_PAGES.fetch_add(1, Ordering::Relaxed);
        Ok(page.into_raw().addr())
    }

    fn entries(&self, table: PhysAddr) -> *mut Pte {
        Cpu.direct_map(table).cast()
    }
}

/// Takes over the tables that boot built.
pub fn adopt(table: KernelTable) {
    *TABLE.lock() = Some(table);
}

/// TTBR1 for a secondary CPU.
pub fn root() -> Option<PhysAddr> {
    TABLE.lock().as_ref().map(KernelTable::root)
}

/// Maps pages one after the other.
pub fn map(va: VirtAddr, pa: PhysAddr, pages: usize, attrs: KernelAttrs) -> Result<(), MapError> {
    let mut table = TABLE.lock();
    let Some(table) = table.as_mut() else { return Err(MapError::NoMemory) };
    table.map(&mut FromPages, va, pa, pages * PAGE_SIZE, attrs, Granularity::Pages)?;
    Cpu.publish_tables();
    Ok(())
}

/// Removes a mapping of pages, on all CPUs.
pub fn unmap(va: VirtAddr, pages: usize) {
    unmap_lazily(va, pages);
    Cpu.tlb_flush_kernel(va, pages);
}

/// Removes the entries of pages; TLBs may still hold them. Until a flush of the kernel's entries, the addresses must
/// not be mapped again and the frames must not be reused.
pub fn unmap_lazily(va: VirtAddr, pages: usize) {
    if let Some(table) = TABLE.lock().as_mut() {
        table.unmap(&FromPages, va, pages);
    }
}

/// The entries that a walk for an address reads.
pub fn path(va: VirtAddr) -> Path {
    TABLE.lock().as_ref().map_or_else(Path::default, |table| table.path(&FromPages, va))
}

/// The entry that maps an address.
#[cfg(feature = "selftest")]
pub fn entry(va: VirtAddr) -> Option<Pte> {
    TABLE.lock().as_ref()?.leaf(&FromPages, va).map(|(pte, _)| pte)
}

/// Pages in the kernel's own tables, those that boot made not included.
pub fn table_pages() -> usize {
    TABLE_PAGES.load(Ordering::Relaxed)
}
