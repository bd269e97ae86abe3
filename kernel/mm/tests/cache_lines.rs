//! CPUs that work independently write no common cache line: each operation's writes are found by comparing all of the
//! allocator's memory before and after.

mod lines;

use std::collections::BTreeSet;
use std::ptr::NonNull;

use lines::{LINE, Snapshot, assert_apart};
use quire_mm::page::Page;
use quire_mm::page_alloc::{Gfp, PageAllocator, PageBlock};
use quire_mm::sim::Sim;
use quire_mm::slab::{CacheHandle, CacheSpec, Config, KernelHeap, KmemCache};

const CPUS: usize = 4;

type Heap = KernelHeap<&'static Sim>;
type Cache = CacheHandle<&'static Sim>;

/// What the CPUs work with.
#[derive(Clone, Copy)]
struct Rig {
    sim: &'static Sim,
    heap: &'static Heap,
    /// A cache of somebody's own.
    cache: &'static Cache,
}

/// The allocators and all records: where they are, and how many bytes.
fn shared(rig: Rig) -> [(usize, usize); 4] {
    let zone = rig.sim.pages().zones().next().unwrap();
    let (start, frames) = zone.span();
    [
        (std::ptr::from_ref(rig.sim.pages()).addr(), size_of::<PageAllocator<&'static Sim>>()),
        (rig.sim.mem_map().wrapping_add(start.0).addr(), frames * size_of::<Page>()),
        (std::ptr::from_ref(rig.heap).addr(), size_of::<Heap>()),
        (std::ptr::from_ref(&**rig.cache).addr(), size_of::<KmemCache<&'static Sim>>()),
    ]
}

/// The lines that one CPU writes in one step.
fn lines_of(rig: Rig, cpu: usize, step: impl FnOnce()) -> Vec<usize> {
    Sim::set_cpu(cpu);
    let before = Snapshot::take(shared(rig));
    step();
    before.written().collect()
}

/// Allocations and frees of `blocks` blocks, which stay within a full and an empty list; the lines that they write.
fn work_with_pages(rig: Rig, cpu: usize, order: u32, blocks: usize) -> BTreeSet<usize> {
    let pages = rig.sim.pages();
    let mut held: Vec<PageBlock<&'static Sim>> = Vec::with_capacity(blocks);
    let mut lines = BTreeSet::new();
    for _ in 0..blocks {
        let alloc = || held.push(pages.alloc_pages(order, Gfp::HIGHUSER_MOVABLE).unwrap());
        lines.extend(lines_of(rig, cpu, alloc));
    }
    while let Some(block) = held.pop() {
        lines.extend(lines_of(rig, cpu, || drop(block)));
    }
    lines
}

/// Allocations and frees of objects within a CPU's active slab; the lines that they write, those of the objects too.
fn work_with_objects(
    rig: Rig,
    cpu: usize,
    alloc: impl Fn() -> Option<NonNull<u8>>,
    free: impl Fn(NonNull<u8>),
) -> BTreeSet<usize> {
    let mut held: [Option<NonNull<u8>>; 6] = [None; 6];
    let mut lines = BTreeSet::new();
    for slot in &mut held {
        lines.extend(lines_of(rig, cpu, || *slot = alloc()));
    }
    for slot in held.iter_mut().rev() {
        let object = slot.take().unwrap();
        lines.extend(lines_of(rig, cpu, || free(object)));
        lines.insert(object.as_ptr().addr() / LINE);
    }
    lines
}

/// The same on each CPU, after a first object that brings it a slab.
fn assert_objects_apart(rig: Rig, alloc: impl Fn() -> Option<NonNull<u8>>, free: impl Fn(NonNull<u8>)) {
    for cpu in 0..CPUS {
        Sim::set_cpu(cpu);
        free(alloc().unwrap());
    }
    let lines: Vec<BTreeSet<usize>> = (0..CPUS).map(|cpu| work_with_objects(rig, cpu, &alloc, &free)).collect();
    Sim::set_cpu(0);
    // The CPU's line of the cache, and six objects of a line each.
    assert_apart(&lines, 7);
}

fn machine() -> Rig {
    // So large that a list of any order holds a few blocks.
    let sim = Sim::with_mib(512);
    let heap: &'static Heap = Box::leak(Box::new(KernelHeap::new(sim)));
    heap.init(Config { seed: 7, ..Config::default() });
    let cache: &'static Cache = Box::leak(Box::new(heap.create(CacheSpec::new("own", 200, 64)).unwrap()));
    std::ptr::from_ref(sim.pages()).expose_provenance();
    std::ptr::from_ref(heap).expose_provenance();
    std::ptr::from_ref(&**cache).expose_provenance();
    sim.mem_map().expose_provenance();
    Rig { sim, heap, cache }
}

#[test]
fn cpus_that_allocate_pages_apart_write_no_common_line() {
    // The lists' line and those of the records: two of single pages share one.
    for (order, blocks, at_least) in [(0, 6, 4), (1, 2, 3), (2, 2, 3), (3, 2, 3)] {
        let rig = machine();
        // The first allocation of each CPU fills its list from the buddy: that is the common path.
        for cpu in 0..CPUS {
            Sim::set_cpu(cpu);
            drop(rig.sim.pages().alloc_pages(order, Gfp::HIGHUSER_MOVABLE).unwrap());
        }
        let work = |cpu| work_with_pages(rig, cpu, order, blocks);
        let lines: Vec<BTreeSet<usize>> = (0..CPUS).map(work).collect();
        Sim::set_cpu(0);
        assert_apart(&lines, at_least);
    }
}

#[test]
fn cpus_that_kmalloc_apart_write_no_common_line() {
    let rig = machine();
    // SAFETY: each object came from the heap and is given back once.
    assert_objects_apart(
        rig,
        || rig.heap.kmalloc(64, Gfp::KERNEL),
        |object| unsafe { rig.heap.kfree(object.as_ptr()) },
    );
}

#[test]
fn cpus_that_use_a_cache_apart_write_no_common_line() {
    let rig = machine();
    // SAFETY: each object came from the cache and is given back once.
    assert_objects_apart(rig, || rig.cache.alloc(Gfp::KERNEL), |object| unsafe { rig.cache.free(object) });
}
