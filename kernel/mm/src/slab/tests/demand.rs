//! The effect of a request's flags, on every back end.

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::machine::*;
use crate::addr::{PAGE_SIZE, PhysAddr};
use crate::machine::Machine;
use crate::memblock::RegionKind;
use crate::page_alloc::{Gfp, PageBlock, PressureHandler, Shrinker};
use crate::sim::{Sim, SimConfig};
use crate::slab::{Backend, CacheSpec, Fault, KernelHeap, SlabFlags};

/// The end of zone DMA, and the end of zone DMA32.
const LIMITS: [(Gfp, usize); 2] = [(Gfp::DMA, 1 << 30), (Gfp::DMA32, 4 << 30)];

/// A machine with memory in three zones; requests without a limit are served from the highest one.
fn three_zones() -> TestMachine {
    let config = SimConfig::new().bank(512 << 20, 32 << 20, 0).bank(2 << 30, 32 << 20, 0).bank(5 << 30, 128 << 20, 0);
    Sim::boot(&SimConfig { dma_limit: Some(PhysAddr::new(1 << 30)), ..config })
}

fn address(machine: TestMachine, object: NonNull<u8>) -> usize {
    machine.direct_map_to_phys(object.as_ptr()).get()
}

fn node(machine: TestMachine, object: NonNull<u8>) -> usize {
    machine.pages().node_of(PhysAddr::new(address(machine, object)).pfn())
}

fn bytes<'a>(object: NonNull<u8>, len: usize) -> &'a [u8] {
    // SAFETY: callers have an object of `len` bytes.
    unsafe { std::slice::from_raw_parts(object.as_ptr(), len) }
}

fn free(heap: &KernelHeap<TestMachine>, object: NonNull<u8>) {
    // SAFETY: from this heap; where it is freed twice, that is the test.
    unsafe { heap.kfree(object.as_ptr()) }
}

#[test]
fn kmalloc_answers_memory_of_the_zone_that_was_asked_for() {
    for backend in BACKENDS {
        let machine = three_zones();
        let heap = heap(machine, backend);
        let before = pages_taken(machine);
        for (zone, limit) in LIMITS {
            let gfp = Gfp::KERNEL | zone;
            for size in [1, 64, 100, 8192, 20_000] {
                let high = heap.kmalloc(size, Gfp::KERNEL).unwrap();
                assert!(address(machine, high) >= 4 << 30);
                let low = heap.kzalloc(size, gfp).unwrap();
                assert!(address(machine, low) + size <= limit, "{backend:?} {zone:?} {size}");
                // SAFETY: the object lives.
                assert!(unsafe { heap.ksize(low) } >= size);
                assert!(bytes(low, size).iter().all(|&byte| byte == 0));
                // SAFETY: both live until they are replaced.
                let (low, high) = unsafe {
                    low.write_bytes(1, size);
                    high.write_bytes(2, size);
                    (heap.krealloc(low.as_ptr(), size + 1, gfp), heap.krealloc(high.as_ptr(), size, gfp))
                };
                let (low, high) = (low.unwrap(), high.unwrap());
                assert!(address(machine, low) < limit && address(machine, high) < limit, "what was high moves");
                assert!(bytes(low, size).iter().all(|&byte| byte == 1));
                assert!(bytes(high, size).iter().all(|&byte| byte == 2));
                free(heap, low);
                free(heap, high);
            }
        }
        heap.shrink();
        assert!(pages_taken(machine) <= before.max(heap.pages()));
        assert_eq!((heap.live_objects(), heap.pages_outside_caches(), reports().len()), (0, 0, 0));
    }
}

#[test]
fn what_came_for_one_zone_is_not_taken_for_a_lower_one() {
    let machine = three_zones();
    let heap = heap(machine, Backend::Slub);
    let object = heap.kmalloc(100, Gfp::KERNEL | Gfp::DMA32).unwrap();
    assert!(address(machine, object) >= 1 << 30);
    // SAFETY: the object lives until it is replaced.
    let object = unsafe { heap.krealloc(object.as_ptr(), 100, Gfp::KERNEL | Gfp::DMA) }.unwrap();
    assert!(address(machine, object) < 1 << 30);
    free(heap, object);
}

#[test]
fn a_cache_is_of_one_zone_and_refuses_what_is_bound_to_a_lower_one() {
    for config in configs() {
        let machine = three_zones();
        let heap = heap_with(machine, config);
        for ((_, limit), flags) in LIMITS.into_iter().zip([SlabFlags::DMA, SlabFlags::DMA32]) {
            let cache = heap.create(CacheSpec { flags, ..CacheSpec::new("bounce", 40, 8) }).unwrap();
            for gfp in [Gfp::KERNEL, Gfp::KERNEL | Gfp::DMA32] {
                let objects: Vec<_> = (0..300).map(|_| cache.alloc(gfp).unwrap()).collect();
                assert!(objects.iter().all(|&object| address(machine, object) < limit), "{:?}", config.backend);
                // SAFETY: each is freed once.
                objects.into_iter().for_each(|object| unsafe { cache.free(object) });
            }
            assert!(cache.info().pages < 20, "they share pages");
            assert_eq!(cache.alloc(Gfp::KERNEL | Gfp::DMA).is_some(), flags == SlabFlags::DMA);
            if flags == SlabFlags::DMA32 {
                assert!(cache.destroy().is_ok());
            }
        }
        let plain = heap.create(CacheSpec::new("plain", 40, 8)).unwrap();
        assert!(plain.alloc(Gfp::KERNEL | Gfp::DMA).is_none() && plain.alloc(Gfp::KERNEL | Gfp::DMA32).is_none());
        assert!(heap.alloc_layout(Layout::new::<u64>(), Gfp::KERNEL | Gfp::DMA).is_none());
        assert_eq!(reports(), []);
    }
}

#[test]
fn objects_stay_out_of_memory_that_is_to_be_emptied() {
    const AREA: usize = 20 << 20;
    for backend in BACKENDS {
        let config = SimConfig::new().bank(1 << 30, 32 << 20, 0);
        let machine = Sim::boot(&config.reserve((1 << 30) + (8 << 20), AREA, RegionKind::Cma));
        let heap = heap(machine, backend);
        for size in [100, 2048, 5000, 20_000] {
            for _ in 0..8 {
                heap.kmalloc(size, Gfp::HIGHUSER_MOVABLE).unwrap();
            }
        }
        let cache = heap.create(CacheSpec::new("movable", 700, 8)).unwrap();
        cache.alloc(Gfp::HIGHUSER_MOVABLE).unwrap();
        assert!(machine.pages().cma_alloc(0, AREA / PAGE_SIZE, 0, None).is_ok(), "{backend:?}");
    }
}

/// Counts the reactions to a lack of memory.
#[derive(Default)]
struct Pressure {
    waits: AtomicUsize,
    kills: AtomicUsize,
    scans: AtomicUsize,
}

impl PressureHandler for Pressure {
    fn wait_for_memory(&self) {
        assert!(self.waits.fetch_add(1, Relaxed) < 100, "waits for ever");
    }

    fn out_of_memory(&self, _: u32, _: Gfp) -> bool {
        self.kills.fetch_add(1, Relaxed);
        false
    }
}

impl Shrinker for Pressure {
    fn count(&self) -> usize {
        1
    }

    fn scan(&self, _: usize, _: Gfp) -> usize {
        self.scans.fetch_add(1, Relaxed);
        0
    }
}

/// Leaves every second frame free, so that there is no larger block.
fn shatter(machine: TestMachine) -> Vec<PageBlock<TestMachine>> {
    let all = std::iter::from_fn(|| machine.pages().alloc_page(Gfp::NOWAIT | Gfp::MEMALLOC).ok());
    let (keep, give): (Vec<_>, Vec<_>) = all.partition(|block| block.pfn().0.is_multiple_of(2));
    drop(give);
    machine.pages().drain_all();
    keep
}

#[test]
fn a_large_slab_is_a_wish_for_which_nobody_waits_or_is_reclaimed_from() {
    let machine = Sim::with_mib(32);
    let heap = heap(machine, Backend::Slub);
    let pressure: &'static Pressure = Box::leak(Box::default());
    machine.pages().set_pressure_handler(pressure);
    assert!(machine.pages().register_shrinker(pressure));
    let _scattered = shatter(machine);
    for gfp in [Gfp::KERNEL, Gfp::KERNEL | Gfp::NOFAIL] {
        for _ in 0..20 {
            assert!(heap.kmalloc(1024, gfp).is_some());
        }
    }
    let counts = [&pressure.waits, &pressure.kills, &pressure.scans].map(|count| count.load(Relaxed));
    assert_eq!(counts, [0, 0, 0]);
}

#[test]
fn who_is_bound_to_a_node_gets_its_memory() {
    for config in configs() {
        let machine = machine();
        let heap = heap_with(machine, config);
        run_on(0);
        let bound = Gfp::KERNEL | Gfp::THISNODE;
        let hoard: Vec<_> =
            std::iter::from_fn(|| machine.pages().alloc_page(Gfp::NOWAIT | Gfp::MEMALLOC | Gfp::THISNODE).ok())
                .collect();
        let cache = heap.create(CacheSpec::new("bound", 64, 8)).unwrap();
        let far: Vec<_> =
            (0..5).map(|_| (heap.kmalloc(64, Gfp::KERNEL).unwrap(), cache.alloc(Gfp::KERNEL).unwrap())).collect();
        assert!(far.iter().all(|&(a, b)| node(machine, a) == 1 && node(machine, b) == 1));
        assert!(heap.kmalloc(64, bound).is_none() && cache.alloc(bound).is_none(), "none here, and none from there");
        drop(hoard);
        machine.pages().drain_all();
        for _ in 0..100 {
            let (a, b) = (heap.kmalloc(64, bound).unwrap(), cache.alloc(bound).unwrap());
            assert_eq!((node(machine, a), node(machine, b)), (0, 0), "{:?}", config.backend);
            let layout = Layout::new::<u64>();
            assert_eq!(node(machine, heap.alloc_layout(layout, bound).unwrap()), 0);
        }
        heap.validate();
        assert_eq!(reports(), []);
    }
}

#[test]
fn what_krealloc_adds_is_zero_if_zero_is_asked_for() {
    let gfp = Gfp::KERNEL | Gfp::ZERO;
    for backend in BACKENDS {
        let heap = heap(machine(), backend);
        let stale: Vec<_> = (0..64).flat_map(|_| [64, 200].map(|size| heap.kmalloc(size, gfp).unwrap())).collect();
        for object in stale {
            // SAFETY: the object lives.
            unsafe { object.write_bytes(0x41, heap.ksize(object)) };
            free(heap, object);
        }
        let mut object = heap.kzalloc(40, Gfp::KERNEL).unwrap();
        let mut size = 40;
        for new in [60, 42, 64, 200, 50, 63, 20_000, 10_000, 20_001, 30] {
            // SAFETY: the object lives until it is replaced, and has this many bytes.
            object = unsafe {
                object.write_bytes(0x42, size);
                heap.krealloc(object.as_ptr(), new, gfp).unwrap()
            };
            let (old, added) = bytes(object, new).split_at(size.min(new));
            assert!(old.iter().all(|&byte| byte == 0x42), "{backend:?}: {size} to {new}");
            assert!(added.iter().all(|&byte| byte == 0), "{backend:?}: {size} to {new}");
            size = new;
        }
        free(heap, object);
    }
}

#[test]
fn no_bytes_are_aligned_too() {
    for backend in BACKENDS {
        let heap = heap(machine(), backend);
        for align in [1, 8, 64, 1 << 12, 1 << 14] {
            let layout = Layout::from_size_align(0, align).unwrap();
            let objects: Vec<_> = (0..3).map(|_| heap.alloc_layout(layout, Gfp::KERNEL).unwrap()).collect();
            assert!(objects.iter().all(|object| object.addr().get().is_multiple_of(align)), "{backend:?} {align}");
            // SAFETY: each is freed once.
            objects.into_iter().for_each(|object| unsafe { heap.free_layout(object, layout) });
        }
        assert_eq!((heap.live_objects(), reports().len()), (0, 0));
    }
}

#[test]
fn a_ring_of_free_objects_is_reported_and_dropped() {
    for backend in [Backend::Slub, Backend::Slab] {
        let heap = heap(machine(), backend);
        let (a, b) = (heap.kmalloc(64, Gfp::KERNEL).unwrap(), heap.kmalloc(64, Gfp::KERNEL).unwrap());
        for object in [a, b, a] {
            free(heap, object);
        }
        heap.shrink();
        let distinct: std::collections::BTreeSet<_> =
            (0..1000).map(|_| heap.kmalloc(64, Gfp::KERNEL).unwrap()).collect();
        // SLAB's list does not remember what was on it before: it may hand out the ring once.
        assert!(distinct.len() >= if backend == Backend::Slub { 1000 } else { 998 }, "{backend:?}: {}", distinct.len());
        let faults: Vec<_> = reports().iter().map(|report| report.fault).collect();
        assert!(
            faults.iter().all(|fault| matches!(fault, Fault::FreeListCorrupted | Fault::DoubleFree))
                && !faults.is_empty()
        );
    }
}

#[test]
fn an_ended_cache_has_no_arrays() {
    use crate::slab::cache::KmemCache;
    for backend in [Backend::Slub, Backend::Slab] {
        let heap = heap(machine(), backend);
        let cache: &'static mut KmemCache<TestMachine> =
            Box::leak(Box::new(KmemCache::new(heap.machine, CacheSpec::new("ended", 64, 8))));
        let shared = &raw mut *cache;
        // SAFETY: the cache lives for good, and is used through this one pointer.
        unsafe {
            assert!(heap.adopt(&*shared).is_ok());
            assert!((*shared).all_cpus().iter().all(|cpu| !cpu.array.get().is_null()));
            (*shared).release_all();
            assert!((*shared).all_cpus().iter().all(|cpu| cpu.array.get().is_null()));
        }
    }
}

/// The pages of a line of slabinfo are those of its slabs, which are all as large as each other while memory is plenty;
/// the arrays in which CPUs keep objects at hand are counted apart, and all together are what the page allocator gave.
#[test]
fn a_cache_s_pages_are_its_slabs() {
    for backend in [Backend::Slub, Backend::Slab] {
        let machine = machine();
        let before = pages_taken(machine);
        let heap = heap(machine, backend);
        let objects: Vec<_> = (0..200).map(|i| heap.kmalloc(64 << (i % 7), Gfp::KERNEL).unwrap()).collect();
        let lines: Vec<_> = (0..).map_while(|index| heap.slab_info(index)).collect();
        assert!(lines.iter().any(|line| line.slabs > 1));
        for line in &lines {
            let of_a_slab = line.pages.checked_div(line.slabs).unwrap_or(0);
            let fits = line.slabs == 0 || of_a_slab.is_power_of_two();
            assert!(fits && line.pages == line.slabs * of_a_slab, "{backend:?}: {line:?}");
        }
        let slabs: usize = lines.iter().map(|line| line.pages).sum();
        assert_eq!(
            slabs + heap.array_pages() + heap.pages_outside_caches(),
            pages_taken(machine) - before,
            "{backend:?}"
        );
        objects.into_iter().for_each(|object| free(heap, object));
    }
}
