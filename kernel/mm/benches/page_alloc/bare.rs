//! A machine with one CPU and no interrupts, for the page allocator alone: in the simulation, masking interrupts costs
//! more than the operations measured.

use std::alloc::{Layout, alloc_zeroed};
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use quire_mm::addr::{PAGE_SIZE, PhysAddr, VirtAddr};
use quire_mm::machine::{Asid, Machine, Threads};
use quire_mm::memblock::MemBlock;
use quire_mm::page::{self, Page};
use quire_mm::page_alloc::{self, Config, FailsOnDemand, PageAllocator};

/// Where its memory begins.
const BASE: usize = 1 << 30;

/// Zeroed memory for the life of the process, aligned as a machine requires: to the largest block of frames. The host
/// maps it with huge pages, as the kernel does with blocks.
pub fn memory(bytes: usize) -> *mut u8 {
    const ALIGN: usize = 4 << 20;
    // Not allocated with this alignment, since the host would then write the zeros itself.
    let layout = Layout::from_size_align(bytes + ALIGN, 16).expect("a size that fits");
    // SAFETY: the size is not 0.
    let start = unsafe { alloc_zeroed(layout) };
    let start = start.wrapping_add(start.align_offset(ALIGN));
    // SAFETY: the range was just allocated. (The result does not matter.)
    unsafe { libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE) };
    start
}

/// The addresses of the machine's parts, and its allocator.
pub struct World {
    dram: usize,
    mem_map: usize,
    pages: OnceLock<Box<PageAllocator<Bare>>>,
    held_ranks: AtomicU64,
}

#[derive(Clone, Copy)]
pub struct Bare(&'static World);

impl Bare {
    pub fn with_mib(mib: usize) -> Self {
        let bytes = mib << 20;
        let mem_map_len = (BASE + bytes) / PAGE_SIZE * size_of::<Page>();
        let machine = Bare(Box::leak(Box::new(World {
            dram: memory(bytes).expose_provenance(),
            mem_map: memory(mem_map_len).expose_provenance(),
            pages: OnceLock::new(),
            held_ranks: AtomicU64::new(0),
        })));
        let mut memory = MemBlock::new();
        memory.add(PhysAddr::new(BASE)..PhysAddr::new(BASE + bytes), 0).expect("there is room for one");
        let pages = machine.0.pages.get_or_init(|| Box::new(PageAllocator::new(machine)));
        // SAFETY: nothing else uses the machine yet; its memory and all records exist and are zeros.
        unsafe { pages.init(&mut memory, &Config { cpus: 1, ..Config::default() }) }.expect("there is memory");
        machine
    }
}

// SAFETY: memory is never freed; there is one CPU, used by one thread, and nothing that interrupts it or caches
// translations.
unsafe impl Machine for Bare {
    fn cpu(self) -> usize {
        0
    }
    fn irq_save(self) -> usize {
        0
    }
    fn irq_restore(self, _: usize) {}
    fn direct_map(self, addr: PhysAddr) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(addr.get() - BASE + self.0.dram)
    }
    fn direct_map_to_phys(self, ptr: *const u8) -> PhysAddr {
        PhysAddr::new(ptr.addr() - self.0.dram + BASE)
    }
    fn held_ranks(self) -> &'static AtomicU64 {
        &self.0.held_ranks
    }
    fn publish_tables(self) {}
    fn sync_instructions(self, _: PhysAddr) {}
    fn tlb_flush_pages(self, _: Asid, _: usize, _: usize) {}
    fn tlb_flush_asid(self, _: Asid) {}
    fn tlb_flush_all(self) {}
    fn tlb_flush_local(self) {}
    fn tlb_flush_kernel(self, _: VirtAddr, _: usize) {}
}

impl Threads for Bare {}

impl FailsOnDemand for Bare {}

// SAFETY: the array was allocated as zeros, spans all frames, and is never freed.
unsafe impl page::Machine for Bare {
    fn mem_map(self) -> *mut Page {
        std::ptr::with_exposed_provenance_mut(self.0.mem_map)
    }
}

impl page_alloc::Machine for Bare {
    fn pages(self) -> &'static PageAllocator<Self> {
        self.0.pages.get().expect("made at boot")
    }
}
