//! A machine for slab tests: some frames, and a source of pages that can fail.

use std::alloc::{Layout, alloc_zeroed};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicIsize, AtomicU64, Ordering};

use crate::addr::{PAGE_SIZE, Pfn, PhysAddr, VirtAddr};
use crate::machine::{Asid, MAX_CPUS, Machine};
use crate::page::Page;
use crate::page_alloc::PageAllocator;
use crate::slab::page_source::{Gfp, PageSource};
use crate::slab::{Backend, Config, KernelHeap, Report};

thread_local! {
    static CPU: Cell<usize> = const { Cell::new(0) };
}

/// Makes this thread a CPU.
pub fn run_on(cpu: usize) {
    CPU.set(cpu);
}

/// Frames, all of the machine's blocks aligned to their size, handed out lowest address first.
pub struct Frames {
    base: usize,
    records: usize,
    frames: usize,
    free: Mutex<BTreeMap<usize, usize>>,
    taken: Mutex<BTreeMap<usize, u32>>,
    /// Allocations that still succeed; negative for all.
    pub fuel: AtomicIsize,
    held: [AtomicU64; MAX_CPUS],
}

pub type TestMachine = &'static Frames;

/// Frame 0 is nobody's.
const FIRST: usize = 16;

pub fn machine(frames: usize) -> TestMachine {
    let bytes = Layout::from_size_align(frames * PAGE_SIZE, 4 << 20).unwrap();
    let records = Layout::from_size_align(frames * size_of::<Page>(), 64).unwrap();
    // SAFETY: neither layout is empty.
    let (base, records) = unsafe { (alloc_zeroed(bytes), alloc_zeroed(records)) };
    assert!(!base.is_null() && !records.is_null());
    Box::leak(Box::new(Frames {
        base: base.expose_provenance(),
        records: records.expose_provenance(),
        frames,
        free: Mutex::new(BTreeMap::from([(FIRST, frames - FIRST)])),
        taken: Mutex::new(BTreeMap::new()),
        fuel: AtomicIsize::new(-1),
        held: [const { AtomicU64::new(0) }; MAX_CPUS],
    }))
}

impl Frames {
    /// Frames that somebody has.
    pub fn pages_taken(&self) -> usize {
        self.taken.lock().unwrap().values().map(|order| 1 << order).sum()
    }
}

// SAFETY: the direct map is one allocation that lives for ever; CPU numbers are the tests' and below `MAX_CPUS`.
unsafe impl Machine for TestMachine {
    fn cpu(self) -> usize {
        CPU.get()
    }
    fn irq_save(self) -> usize {
        0
    }
    fn irq_restore(self, _: usize) {}
    fn relax(self) {
        std::thread::yield_now();
    }
    fn direct_map(self, addr: PhysAddr) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.base + addr.get())
    }
    fn direct_map_to_phys(self, ptr: *const u8) -> PhysAddr {
        PhysAddr::new(ptr as usize - self.base)
    }
    fn held_ranks(self) -> &'static AtomicU64 {
        &self.held[CPU.get()]
    }
    fn pages(self) -> &'static PageAllocator<Self> {
        unreachable!("slab tests have a page source of their own")
    }
    fn mem_map(self) -> *mut Page {
        std::ptr::with_exposed_provenance_mut(self.records)
    }
    fn publish_tables(self) {}
    fn sync_instructions(self, _: PhysAddr) {}
    fn tlb_flush_pages(self, _: Asid, _: usize, _: usize) {}
    fn tlb_flush_asid(self, _: Asid) {}
    fn tlb_flush_all(self) {}
    fn tlb_flush_local(self) {}
    fn tlb_flush_kernel(self, _: VirtAddr, _: usize) {}
}

impl PageSource for TestMachine {
    fn alloc_pages(self, order: u32, gfp: Gfp) -> Option<PhysAddr> {
        let fuel = self.fuel.load(Ordering::Relaxed);
        if fuel == 0 {
            return None;
        }
        if fuel > 0 {
            self.fuel.store(fuel - 1, Ordering::Relaxed);
        }
        let pages = 1usize << order;
        let mut free = self.free.lock().unwrap();
        let (start, len, at) = free.iter().find_map(|(&start, &len)| {
            let at = start.next_multiple_of(pages);
            (at + pages <= start + len).then_some((start, len, at))
        })?;
        free.remove(&start);
        if at > start {
            free.insert(start, at - start);
        }
        if at + pages < start + len {
            free.insert(at + pages, start + len - at - pages);
        }
        drop(free);
        self.taken.lock().unwrap().insert(at, order);
        let fill = if gfp.contains(Gfp::ZERO) { 0 } else { 0xa5 };
        let addr = Pfn(at).addr();
        // SAFETY: the frames are free, and from here on the caller's.
        unsafe { self.direct_map(addr).write_bytes(fill, pages * PAGE_SIZE) };
        Some(addr)
    }

    unsafe fn free_pages(self, addr: PhysAddr, order: u32) {
        let start = addr.pfn().0;
        assert!(start < self.frames);
        assert_eq!(self.taken.lock().unwrap().remove(&start), Some(order), "freed as it was allocated");
        for pfn in start..start + (1 << order) {
            // SAFETY: the frame's record exists.
            let words = unsafe { self.mem_map().add(pfn).cast::<[u64; 4]>().read() };
            assert_eq!(words[1..], [0; 3], "the record is clean");
        }
        let mut free = self.free.lock().unwrap();
        let (mut start, mut len) = (start, 1usize << order);
        let before = free.range(..start).next_back().map(|(&before, &before_len)| (before, before_len));
        if let Some((before, before_len)) = before.filter(|(before, before_len)| before + before_len == start) {
            free.remove(&before);
            (start, len) = (before, before_len + len);
        }
        if let Some(after_len) = free.remove(&(start + len)) {
            len += after_len;
        }
        free.insert(start, len);
    }

    fn node_of(self, pfn: Pfn) -> usize {
        pfn.0 * 2 / self.frames
    }

    fn local_node(self) -> usize {
        CPU.get() % 2
    }
}

thread_local! {
    static REPORTS: Cell<Vec<Report>> = const { Cell::new(Vec::new()) };
}

fn note(report: &Report) {
    let mut reports = REPORTS.take();
    reports.push(*report);
    REPORTS.set(reports);
}

/// What was reported on this thread since the last call.
pub fn reports() -> Vec<Report> {
    REPORTS.take()
}

/// A heap with this back end.
pub fn heap(machine: TestMachine, backend: Backend) -> &'static KernelHeap<TestMachine> {
    let heap = Box::leak(Box::new(KernelHeap::new(machine)));
    heap.init(Config { backend, seed: 0x5eed, report: note });
    heap
}

pub const BACKENDS: [Backend; 1] = [Backend::Slub];
