//! The memory manager's machine: a zero-sized type over `arch`.

use core::alloc::Layout;
use core::sync::atomic::AtomicU64;

use quire_mm::VirtAddr;
use quire_mm::addr::PhysAddr;
use quire_mm::cgroup::Groups;
use quire_mm::event::Event;
use quire_mm::machine::{Asid, Machine};
use quire_mm::memblock::MemBlock;
use quire_mm::mm;
use quire_mm::page::{self, Page};
use quire_mm::page_alloc::{self, PageAllocator};
use quire_mm::reclaim::{self, Reclaim};
use quire_mm::rmap;
use quire_mm::spaces::{self, Spaces};
use quire_mm::table;

use super::events;
use crate::arch::{barrier, cache, cpu, tlb};
use crate::backtrace::callers;
use crate::board::BootCell;
use crate::layout::{PAGE_OFFSET, VMEMMAP};

/// This computer.
#[derive(Clone, Copy, Debug)]
pub struct Cpu;

/// The nodes and zones of this computer.
pub static PAGES: PageAllocator<Cpu> = PageAllocator::new(Cpu);

/// The state that all address spaces share.
pub static SPACES: Spaces<Cpu> = Spaces::new(Cpu);

/// Control groups: what memory of programs is charged to.
pub static GROUPS: Groups<Cpu> = Groups::new(Cpu);

/// Which pages go to swap when memory is short.
pub static RECLAIM: Reclaim<Cpu> = Reclaim::new(Cpu);

/// The physical memory map; `memmap` shows it.
pub static MEMORY: BootCell<MemBlock> = BootCell::new(MemBlock::new());

/// Locks of the kernel, with its lock order.
pub type SpinLock<T> = quire_mm::sync::SpinLock<T, Cpu>;

/// An address space.
pub type Mm = quire_mm::mm::Mm<Cpu>;

/// A memory object.
pub type Object = quire_mm::object::Object<Cpu>;

// SAFETY: boot maps all DRAM at PAGE_OFFSET before anything uses the direct map; TPIDR_EL1 gives the CPU its number,
// which never changes; the TLB operations end with the barriers that complete them.
unsafe impl Machine for Cpu {
    #[inline(always)]
    fn cpu(self) -> usize {
        cpu::this().id()
    }

    #[inline(always)]
    fn irq_save(self) -> usize {
        cpu::irq_save()
    }

    #[inline(always)]
    fn irq_restore(self, state: usize) {
        cpu::irq_restore(state);
    }

    #[inline(always)]
    fn relax(self) {
        cpu::relax();
    }

    #[inline(always)]
    fn count(self, event: Event, n: usize) {
        events::count(event, n);
    }

    fn user_allocs(self) -> Option<u64> {
        Some(events::sum(Event::UserAlloc))
    }

    fn backtrace(self, into: &mut [usize]) -> usize {
        let found = into.iter_mut().zip(callers(cpu::frame_pointer())).map(|(slot, pc)| *slot = pc);
        found.count()
    }

    #[inline(always)]
    fn direct_map(self, addr: PhysAddr) -> *mut u8 {
        core::ptr::with_exposed_provenance_mut(addr.get() | PAGE_OFFSET)
    }

    #[inline(always)]
    fn direct_map_to_phys(self, ptr: *const u8) -> PhysAddr {
        PhysAddr::new(ptr.addr() & !PAGE_OFFSET)
    }

    #[inline(always)]
    fn held_ranks(self) -> &'static AtomicU64 {
        &cpu::this().held_ranks
    }

    #[inline(always)]
    fn alloc_now(self, layout: Layout) -> *mut u8 {
        super::heap::alloc_now(layout)
    }

    #[inline(always)]
    fn clear_page(self, addr: PhysAddr) {
        cache::clear_page(self.direct_map(addr));
    }

    fn copy_page(self, to: PhysAddr, from: PhysAddr) {
        cache::copy_page(self.direct_map(to), self.direct_map(from));
    }

    #[inline(always)]
    fn publish_tables(self) {
        barrier::dsb_ishst();
        // The store is visible to walkers; the ISB keeps this CPU from faulting on an entry that it just made valid.
        barrier::isb();
    }

    fn sync_instructions(self, addr: PhysAddr) {
        cache::sync_instructions(self.direct_map(addr), quire_mm::addr::PAGE_SIZE);
    }

    #[inline]
    fn tlb_flush_pages(self, asid: Asid, start: usize, pages: usize) {
        self.count(Event::TlbFlushRange, 1);
        self.count(Event::TlbFlushPage, pages);
        tlb::flush_pages(asid, start, pages);
    }

    #[inline]
    fn tlb_flush_asid(self, asid: Asid) {
        self.count(Event::TlbFlushAsid, 1);
        tlb::flush_asid(asid);
    }

    fn tlb_flush_all(self) {
        self.count(Event::TlbFlushAll, 1);
        tlb::flush_all();
    }

    fn tlb_flush_local(self) {
        self.count(Event::TlbFlushLocal, 1);
        tlb::flush_local();
    }

    fn tlb_flush_kernel(self, start: VirtAddr, pages: usize) {
        self.count(Event::TlbFlushKernel, 1);
        tlb::flush_kernel(start.get(), pages);
    }
}

// SAFETY: boot maps zeros at VMEMMAP for the records of all frames that exist.
unsafe impl page::Machine for Cpu {
    #[inline(always)]
    fn mem_map(self) -> *mut Page {
        core::ptr::with_exposed_provenance_mut(VMEMMAP)
    }
}

impl page_alloc::Machine for Cpu {
    #[inline(always)]
    fn pages(self) -> &'static PageAllocator<Self> {
        &PAGES
    }
}

impl reclaim::Machine for Cpu {}

impl spaces::Machine for Cpu {
    #[inline(always)]
    fn spaces(self) -> &'static Spaces<Self> {
        &SPACES
    }
}

impl rmap::Machine for Cpu {
    type Space = Mm;
}

impl table::Machine for Cpu {}

impl mm::Machine for Cpu {}
