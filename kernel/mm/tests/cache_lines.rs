//! CPUs that work apart write no common cache line: each operation's writes are found by comparing all of the
//! allocator's memory before and after.

use std::collections::BTreeSet;
use std::ptr::NonNull;

use quire_mm::Machine;
use quire_mm::page::Page;
use quire_mm::page_alloc::{Gfp, PageAllocator, PageBlock};
use quire_mm::sim::Sim;
use quire_mm::slab::{CacheHandle, CacheSpec, Config, KernelHeap, KmemCache};

const LINE: usize = 64;
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

/// A copy of the allocators and of all records, and where they are.
struct Snapshot(Vec<(usize, Vec<u64>)>);

impl Snapshot {
    fn take(rig: Rig) -> Self {
        let zone = rig.sim.pages().zones().next().unwrap();
        let (start, frames) = zone.span();
        let allocator = (std::ptr::from_ref(rig.sim.pages()).addr(), size_of::<PageAllocator<&'static Sim>>());
        let records = (rig.sim.mem_map().wrapping_add(start.0).addr(), frames * size_of::<Page>());
        let heap = (std::ptr::from_ref(rig.heap).addr(), size_of::<Heap>());
        let cache = (std::ptr::from_ref(&**rig.cache).addr(), size_of::<KmemCache<&'static Sim>>());
        Self([allocator, records, heap, cache].map(|(at, len)| (at, words(at, len).collect())).into())
    }

    /// Lines that differ now.
    fn written(&self) -> impl Iterator<Item = usize> {
        self.0.iter().flat_map(|(at, before)| {
            let changed = words(*at, before.len() * 8).zip(before).enumerate().filter(|(_, (now, old))| now != *old);
            changed.map(move |(i, _)| (at + i * 8) / LINE)
        })
    }
}

fn words(at: usize, len: usize) -> impl Iterator<Item = u64> {
    let start = std::ptr::with_exposed_provenance::<u64>(at);
    // SAFETY: the range is the allocator's or the records', and nobody writes to them meanwhile.
    (0..len / 8).map(move |i| unsafe { start.add(i).read_volatile() })
}

/// The lines that one CPU writes in one step.
fn lines_of(rig: Rig, cpu: usize, step: impl FnOnce()) -> Vec<usize> {
    Sim::set_cpu(cpu);
    let before = Snapshot::take(rig);
    step();
    before.written().collect()
}

/// Allocations and frees of pages that stay within a full and an empty list; the lines that they write.
fn work_with_pages(rig: Rig, cpu: usize) -> BTreeSet<usize> {
    let pages = rig.sim.pages();
    let mut held: [Option<PageBlock<&'static Sim>>; 6] = [const { None }; 6];
    let mut lines = BTreeSet::new();
    for slot in &mut held {
        lines.extend(lines_of(rig, cpu, || *slot = Some(pages.alloc_page(Gfp::HIGHUSER_MOVABLE).unwrap())));
    }
    for slot in held.iter_mut().rev() {
        lines.extend(lines_of(rig, cpu, || drop(slot.take())));
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
    let sim = Sim::with_mib(128);
    let heap: &'static Heap = Box::leak(Box::new(KernelHeap::new(sim)));
    heap.init(Config { seed: 7, ..Config::default() });
    let cache: &'static Cache = Box::leak(Box::new(heap.create(CacheSpec::new("own", 200, 64)).unwrap()));
    std::ptr::from_ref(sim.pages()).expose_provenance();
    std::ptr::from_ref(heap).expose_provenance();
    std::ptr::from_ref(&**cache).expose_provenance();
    sim.mem_map().expose_provenance();
    Rig { sim, heap, cache }
}

/// No two sets have a line in common, and each has so many.
fn assert_apart(lines: &[BTreeSet<usize>], at_least: usize) {
    for cpu in 0..CPUS {
        assert!(lines[cpu].len() >= at_least, "CPU {cpu} wrote {:x?}", lines[cpu]);
        for other in 0..cpu {
            let common: Vec<_> = lines[cpu].intersection(&lines[other]).collect();
            assert!(common.is_empty(), "CPUs {other} and {cpu} both write {common:x?}");
        }
    }
}

#[test]
fn cpus_that_allocate_pages_apart_write_no_common_line() {
    let rig = machine();
    // The first allocation of each CPU fills its list from the buddy: that is the common path.
    for cpu in 0..CPUS {
        Sim::set_cpu(cpu);
        drop(rig.sim.pages().alloc_page(Gfp::HIGHUSER_MOVABLE).unwrap());
    }
    let lines: Vec<BTreeSet<usize>> = (0..CPUS).map(|cpu| work_with_pages(rig, cpu)).collect();
    Sim::set_cpu(0);
    // The lists and the records of six pages.
    assert_apart(&lines, 4);
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
