//! Processes that access new memory on different CPUs write no common cache line: each fault's writes are found by
//! comparing the memory manager's memory before and after.
//!
//! The objects of the address spaces are allocated from an arena here, adjacent as in kmalloc's classes, so that two
//! objects in one line are detected.

mod lines;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use lines::{Snapshot, assert_apart};
use quire_abi::flags::Prot;
use quire_mm::Machine;
use quire_mm::addr::{PAGE_SIZE, Pfn};
use quire_mm::fallible::KArc;
use quire_mm::mm::{Access, MapRequest, Mm, MmLayout};
use quire_mm::page::{Page, PageState};
use quire_mm::page_alloc::{Gfp, PageAllocator};
use quire_mm::sim::Sim;
use quire_mm::spaces::Spaces;

const CPUS: usize = 4;

/// The classes of kmalloc. Powers of two are aligned to their size; so are the others to their largest power of two.
const CLASSES: [usize; 13] = [8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192];
/// Bytes for each class.
const SHARE: usize = 256 << 10;

#[repr(align(8192))]
struct Arena([Cell<u8>; CLASSES.len() * SHARE]);

// SAFETY: each piece is handed out once.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena([const { Cell::new(0) }; CLASSES.len() * SHARE]);
static USED: [AtomicUsize; CLASSES.len()] = [const { AtomicUsize::new(0) }; CLASSES.len()];

thread_local! {
    /// Whether the memory manager runs, and not the test around it.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

struct Classes;

#[global_allocator]
static GLOBAL: Classes = Classes;

// SAFETY: the arena's pieces are disjoint, aligned and large enough, and never used again; the rest is the system's.
unsafe impl GlobalAlloc for Classes {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let class = CLASSES.iter().position(|&size| size >= layout.size());
        match class.filter(|_| INSIDE.try_with(Cell::get) == Ok(true)) {
            Some(class) => {
                let at = USED[class].fetch_add(CLASSES[class], Relaxed);
                assert!(at + CLASSES[class] <= SHARE, "room in the arena");
                let piece = ARENA.0.as_ptr().cast::<u8>().cast_mut().wrapping_add(class * SHARE + at);
                assert!(piece.addr().is_multiple_of(layout.align()));
                piece
            }
            // SAFETY: the caller's promise.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        let start = ARENA.0.as_ptr().addr();
        if !(start..start + size_of::<Arena>()).contains(&object.addr()) {
            // SAFETY: the caller's promise.
            unsafe { System.dealloc(object, layout) }
        }
    }
}

/// Runs the memory manager's code on a CPU.
fn on<R>(cpu: usize, work: impl FnOnce() -> R) -> R {
    Sim::set_cpu(cpu);
    INSIDE.set(true);
    let result = work();
    INSIDE.set(false);
    result
}

/// All that CPUs share: where it is, and how many bytes.
fn shared(sim: &'static Sim) -> Vec<(usize, usize)> {
    let zone = sim.pages().zones().next().unwrap();
    let (start, frames) = zone.span();
    let mut parts = vec![
        (std::ptr::from_ref(sim.pages()).addr(), size_of::<PageAllocator<&'static Sim>>()),
        (std::ptr::from_ref(sim.spaces()).addr(), size_of::<Spaces<&'static Sim>>()),
        (sim.mem_map().wrapping_add(start.0).addr(), frames * size_of::<Page>()),
        (ARENA.0.as_ptr().addr(), size_of::<Arena>()),
    ];
    // Tables. What else a frame holds is its process's own.
    // SAFETY: a zone's frames have records.
    let is_table = |pfn: &Pfn| unsafe { Page::of(sim, *pfn) }.state() == PageState::Table;
    let tables = (start.0..start.0 + frames).map(Pfn).filter(is_table);
    parts.extend(tables.map(|pfn| (sim.direct_map(pfn.addr()).expose_provenance(), PAGE_SIZE)));
    parts
}

type Space = KArc<Mm<&'static Sim>>;

/// Pages that a process touches before it is watched: its tables are there then.
const BEFORE: usize = 4;
/// Pages that are watched.
const WATCHED: usize = 24;

/// A process with memory to touch.
fn process(sim: &'static Sim) -> (Space, usize) {
    let mm = Mm::new(sim, &MmLayout::default()).unwrap();
    let start = mm.map(&MapRequest::anonymous(64 * PAGE_SIZE, Prot::READ | Prot::WRITE)).unwrap().get();
    for page in 0..BEFORE {
        mm.fault(start + page * PAGE_SIZE, Access::Write).unwrap();
    }
    // The CPU's list has pages.
    let some: Vec<_> = (0..80).map(|_| sim.pages().alloc_page(Gfp::HIGHUSER_MOVABLE).unwrap()).collect();
    drop(some);
    (mm, start)
}

#[test]
fn processes_that_touch_memory_apart_write_no_common_line() {
    // As much as makes a CPU's list long.
    let sim = Sim::with_mib(1024);
    on(0, || sim.spaces().init(16)).unwrap();
    std::ptr::from_ref(sim.pages()).expose_provenance();
    std::ptr::from_ref(sim.spaces()).expose_provenance();
    sim.mem_map().expose_provenance();
    ARENA.0.as_ptr().expose_provenance();
    // Made side by side: their objects are neighbours.
    let processes: Vec<_> = (0..CPUS).map(|cpu| on(cpu, || process(sim))).collect();
    let watch = |cpu: usize| {
        let (mm, start) = &processes[cpu];
        let mut lines = BTreeSet::new();
        for page in BEFORE..BEFORE + WATCHED {
            let before = Snapshot::take(shared(sim));
            on(cpu, || mm.fault(start + page * PAGE_SIZE, Access::Write)).unwrap();
            lines.extend(before.written());
        }
        lines
    };
    let lines: Vec<BTreeSet<usize>> = (0..CPUS).map(watch).collect();
    Sim::set_cpu(0);
    // Counters of the space and of its `AnonVma`, the table's entries, the CPU's list, the pages' records.
    assert_apart(&lines, 12);
}
