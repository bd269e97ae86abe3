//! Building the kernel's real tables while the early ones are live.
//!
//! The first table pages come from a pool in the image, since nothing else is mapped; with them the image, the
//! device tree's window and the memory around the kernel are mapped, and TTBR1 is replaced. From then on table
//! pages come from memblock, out of what the direct map already covers.

use core::cell::UnsafeCell;

use quire_mm::Machine;
use quire_mm::addr::{PAGE_SIZE, PhysAddr, PhysRange, VirtAddr};
use quire_mm::fallible::AllocError;
use quire_mm::kernel_table::TableMemory;
use quire_mm::memblock::{MemBlock, RegionKind};
use quire_mm::pte::{ENTRIES, Pte};

use crate::layout::KIMAGE;
use crate::vm::Cpu;

/// Root, two tables for the image and the tree's window each, one for a page-grained edge of the image, and for
/// the direct map two and an edge at either end.
const POOL: usize = 12;

#[repr(C, align(4096))]
struct Pool(UnsafeCell<[[u8; PAGE_SIZE]; POOL]>);

// SAFETY: only `BootTables`, on the boot CPU, hands out its pages, each once.
unsafe impl Sync for Pool {}

static POOL_PAGES: Pool = Pool(UnsafeCell::new([[0; PAGE_SIZE]; POOL]));

/// The source of table pages at boot.
pub struct BootTables<'a> {
    /// Physical address of KIMAGE.
    image: PhysAddr,
    taken: usize,
    /// Memblock, and the part of memory that the live direct map covers.
    direct: Option<(&'a mut MemBlock, PhysRange)>,
}

impl<'a> BootTables<'a> {
    /// From the pool alone.
    pub fn from_pool(image: PhysAddr) -> Self {
        Self { image, taken: 0, direct: None }
    }

    /// From memblock, within what is mapped.
    pub fn from_memblock(image: PhysAddr, memory: &'a mut MemBlock, mapped: PhysRange) -> Self {
        Self { image, taken: POOL, direct: Some((memory, mapped)) }
    }

    fn image_to_phys(&self, ptr: *const u8) -> PhysAddr {
        self.image + (ptr.addr() - KIMAGE)
    }

    fn pool_start(&self) -> PhysAddr {
        self.image_to_phys(POOL_PAGES.0.get().cast())
    }
}

impl TableMemory for BootTables<'_> {
    fn alloc(&mut self) -> Result<PhysAddr, AllocError> {
        let Some((memory, mapped)) = &mut self.direct else {
            if self.taken == POOL {
                return Err(AllocError);
            }
            self.taken += 1;
            return Ok(self.pool_start() + (self.taken - 1) * PAGE_SIZE);
        };
        let page =
            memory.alloc(PAGE_SIZE, PAGE_SIZE, mapped.clone(), None, RegionKind::Boot).map_err(|_| AllocError)?;
        Cpu.clear_page(page);
        Ok(page)
    }

    fn entries(&self, table: PhysAddr) -> *mut Pte {
        let start = self.pool_start();
        if (start..start + POOL * PAGE_SIZE).contains(&table) {
            let va = VirtAddr::new(KIMAGE + (table - self.image));
            return core::ptr::with_exposed_provenance_mut::<[Pte; ENTRIES]>(va.get()).cast();
        }
        Cpu.direct_map(table).cast()
    }
}
