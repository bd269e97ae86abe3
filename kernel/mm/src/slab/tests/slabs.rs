//! The origin of slabs, the order in which they are used, and when they are freed.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ptr::NonNull;

use super::machine::*;
use crate::addr::PAGE_SIZE;
use crate::machine::Machine;
use crate::page_alloc::Gfp;
use crate::slab::{Backend, CacheSpec, KernelHeap, KmemCache, arrays};

/// The back ends with separate slabs for each cache.
const WITH_SLABS: [Backend; 2] = [Backend::Slub, Backend::Slab];

type Cache = KmemCache<TestMachine>;

fn cache(heap: &'static KernelHeap<TestMachine>, size: usize) -> &'static Cache {
    heap.create(CacheSpec::new("test", size, 8)).ok().unwrap().leak()
}

fn take(cache: &Cache, count: usize, gfp: Gfp) -> Vec<NonNull<u8>> {
    (0..count).map(|_| cache.alloc(gfp).unwrap()).collect()
}

fn give(cache: &Cache, objects: impl IntoIterator<Item = NonNull<u8>>) {
    // SAFETY: the tests free what they took from the cache, once.
    objects.into_iter().for_each(|object| unsafe { cache.free(object) });
}

fn node_of(machine: TestMachine, object: NonNull<u8>) -> usize {
    machine.pages().node_of(machine.direct_map_to_phys(object.as_ptr()).pfn())
}

/// Leaves slabs with free objects, on no CPU, on the node of a CPU.
fn leave_partial_slabs(cache: &Cache, cpu: usize) {
    run_on(cpu);
    let objects = take(cache, 300, Gfp::KERNEL);
    give(cache, objects.into_iter().enumerate().filter(|(i, _)| i % 5 != 0).map(|(_, object)| object));
    cache.shrink();
}

#[test]
fn objects_come_from_this_node_first_and_with_thisnode_from_no_other() {
    for backend in WITH_SLABS {
        let machine = machine();
        let heap = heap(machine, backend);
        // CPU 0 is on node 0, CPU 1 on node 1.
        for cpu in [1, 0] {
            let cache = cache(heap, 100);
            run_on(cpu);
            let objects = take(cache, 50, Gfp::KERNEL);
            assert!(objects.iter().all(|object| node_of(machine, *object) == cpu));
            // On a CPU of the other node they wait for the next request that is not bound to a node.
            run_on(1 - cpu);
            give(cache, objects[..10].iter().copied());
            let bound = take(cache, 3, Gfp::KERNEL | Gfp::THISNODE);
            assert!(bound.iter().all(|object| node_of(machine, *object) == 1 - cpu), "{backend:?}");
            let any = take(cache, 10, Gfp::KERNEL);
            assert!(any.iter().rev().eq(&objects[..10]) || backend == Backend::Slub, "the last is the first");
            heap.validate();
        }
        let other = cache(heap, 100);
        leave_partial_slabs(other, 1);
        run_on(0);
        let pages = pages_taken(machine);
        assert_eq!(node_of(machine, other.alloc(Gfp::KERNEL).unwrap()), 1, "a free object before a new page");
        assert_eq!(pages_taken(machine), pages);
        other.shrink();
        assert_eq!(node_of(machine, other.alloc(Gfp::KERNEL | Gfp::THISNODE).unwrap()), 0, "{backend:?}");
        assert!(pages_taken(machine) > pages);
        leave_partial_slabs(other, 0);
        for cpu in [0, 1] {
            run_on(cpu);
            assert_eq!(node_of(machine, other.alloc(Gfp::KERNEL).unwrap()), cpu, "{backend:?}");
        }
        heap.validate();
        run_on(0);
    }
}

/// With the CPUs' arrays, and with no page for them.
#[test]
fn empty_slabs_beyond_a_reserve_go_back_at_once() {
    for (backend, with_arrays) in WITH_SLABS.into_iter().flat_map(|backend| [(backend, true), (backend, false)]) {
        run_on(0);
        let machine = machine();
        let heap = heap(machine, backend);
        // From here on there is a slab for caches.
        cache(heap, 8);
        fail(machine, !with_arrays as u32);
        let cache = cache(heap, 200);
        fail(machine, 0);
        assert_eq!(arrays::of(cache.this_cpu()).is_some(), with_arrays);
        for seed in 0..4 {
            let mut objects = Vec::new();
            while cache.info().slabs < 30 {
                objects.extend(take(cache, 1, Gfp::KERNEL));
                heap.validate();
            }
            // In the order of their addresses or the other way, one by one, and at random.
            objects.sort_by_key(|object| match seed {
                0 => object.as_ptr().addr(),
                1 => !object.as_ptr().addr(),
                _ => object.as_ptr().addr().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (seed * 7),
            });
            for object in objects {
                give(cache, [object]);
                heap.validate();
            }
            // The objects that an array keeps may each be from another slab.
            let kept = arrays::of(cache.this_cpu()).map_or(0, |array| array.objects().len());
            let slabs = cache.info().slabs;
            assert!(slabs <= 6 + if seed < 2 { 2 } else { kept }, "{backend:?}, seed {seed}: {slabs}");
            cache.shrink();
            heap.validate();
            assert_eq!(cache.info().slabs, 0);
        }
    }
}

thread_local! {
    /// The cache from which an interrupt allocates while the next slab is made.
    static INTERRUPT: Cell<Option<&'static Cache>> = const { Cell::new(None) };
    static FOUND: Cell<Option<NonNull<u8>>> = const { Cell::new(None) };
}

#[test]
fn a_slab_that_an_interrupt_made_unnecessary_is_kept() {
    for backend in WITH_SLABS {
        run_on(0);
        let machine = machine();
        let heap = heap(machine, backend);
        let mut spec = CacheSpec::new("test", 200, 8);
        // Interrupts are on while a slab is made.
        spec.constructor = Some(|_| {
            if let Some(cache) = INTERRUPT.take() {
                FOUND.set(cache.alloc(Gfp::KERNEL));
            }
        });
        let cache: &'static Cache = heap.create(spec).ok().unwrap().leak();
        INTERRUPT.set(Some(cache));
        let object = cache.alloc(Gfp::KERNEL).unwrap();
        let found = FOUND.take().unwrap();
        assert_ne!(found, object);
        heap.validate();
        let info = cache.info();
        assert_eq!((info.slabs, info.active), (2, 2));
        // All objects of both slabs can be allocated.
        let rest = take(cache, info.total - 2, Gfp::KERNEL);
        assert_eq!(cache.info().slabs, 2);
        heap.validate();
        give(cache, rest.into_iter().chain([object, found]));
        cache.shrink();
        assert_eq!(cache.info().slabs, 0);
    }
}

#[test]
fn slab_takes_from_partial_slabs_before_empty_ones() {
    run_on(0);
    let heap = heap(machine(), Backend::Slab);
    let cache = cache(heap, 500);
    let mut slabs: BTreeMap<usize, Vec<NonNull<u8>>> = BTreeMap::new();
    let first = cache.alloc(Gfp::KERNEL).unwrap();
    let (per, size) = (cache.info().total, cache.info().pages * PAGE_SIZE);
    for object in take(cache, 4 * per - 1, Gfp::KERNEL).into_iter().chain([first]) {
        slabs.entry(object.as_ptr().addr() & !(size - 1)).or_default().push(object);
    }
    let [empty, partial, other, full] = slabs.into_values().collect::<Vec<_>>().try_into().unwrap();
    give(cache, empty.iter().copied());
    give(cache, partial.into_iter().skip(1));
    // They wait in the CPU's array until others push them out.
    give(cache, other.into_iter().chain(full).take(20));
    heap.validate();
    // Another CPU of the same node has none yet.
    run_on(2);
    let empty: BTreeSet<_> = empty.into_iter().collect();
    assert!(!empty.contains(&cache.alloc(Gfp::KERNEL).unwrap()));
    run_on(0);
}

#[test]
fn what_lies_behind_the_last_object_of_a_slab_is_none() {
    for backend in WITH_SLABS {
        run_on(0);
        let heap = heap(machine(), backend);
        let cache = cache(heap, 1000);
        let first = cache.alloc(Gfp::KERNEL).unwrap();
        let info = cache.info();
        let objects = take(cache, info.total - 1, Gfp::KERNEL);
        assert_eq!(cache.info().slabs, 1);
        let last = objects.into_iter().chain([first]).max().unwrap();
        let behind = NonNull::new(last.as_ptr().wrapping_add(info.stride)).unwrap();
        assert!(!(behind.as_ptr().addr() + 8).is_multiple_of(PAGE_SIZE), "there is room for its beginning");
        // Another CPU, so that it is not in the active slab.
        run_on(2);
        give(cache, [behind]);
        assert_eq!(reports().len(), 1, "{backend:?}");
        heap.validate();
        run_on(0);
    }
}
