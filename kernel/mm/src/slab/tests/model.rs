//! Random work, checked object by object.

use std::ptr::NonNull;
use std::sync::mpsc;

use proptest::prelude::*;

use super::machine::*;
use crate::addr::PAGE_SIZE;
use crate::page_alloc::Gfp;
use crate::slab::{Backend, CacheSpec, Config, KernelHeap, KmemCache, SlabFlags};

/// An object and what it must contain.
struct Live {
    object: NonNull<u8>,
    size: usize,
    tag: u8,
}

// SAFETY: an object belongs to whoever has its record.
unsafe impl Send for Live {}

impl Live {
    fn new(object: NonNull<u8>, size: usize, tag: u8) -> Self {
        // SAFETY: the object is new and has this many bytes.
        unsafe { object.write_bytes(tag, size) };
        Self { object, size, tag }
    }

    fn check(&self) {
        // SAFETY: the object lives and has this many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(self.object.as_ptr(), self.size) };
        assert!(bytes.iter().all(|&byte| byte == self.tag), "contents changed");
    }
}

/// Objects that live at the same time do not overlap.
fn check_disjoint(live: &[Live]) {
    let mut ranges: Vec<_> = live.iter().map(|l| (l.object.as_ptr() as usize, l.size.max(1))).collect();
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        assert!(pair[0].0 + pair[0].1 <= pair[1].0, "objects overlap");
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Alloc(usize),
    Zalloc(usize),
    Free(usize),
    Resize(usize, usize),
    Cpu(usize),
    Fail(u32),
    /// This number of objects of one size.
    Many(usize),
    /// This number of objects, those that came last first.
    FreeMany(usize),
    Shrink,
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 0..300usize, 4 => 300..9000usize, 1 => 9000..40_000usize]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => size().prop_map(Step::Alloc),
        2 => size().prop_map(Step::Zalloc),
        8 => any::<usize>().prop_map(Step::Free),
        2 => (any::<usize>(), size()).prop_map(|(i, s)| Step::Resize(i, s)),
        1 => (0..4usize).prop_map(Step::Cpu),
        1 => (0..4u32).prop_map(Step::Fail),
        1 => (1..80usize).prop_map(Step::Many),
        1 => (1..100usize).prop_map(Step::FreeMany),
        1 => Just(Step::Shrink),
    ];
    prop::collection::vec(step, 1..400)
}

fn run_kmalloc(config: Config, steps: &[Step]) {
    run_on(0);
    let machine = machine();
    let heap = heap_with(machine, config);
    let before = (pages_taken(machine), heap.pages());
    let mut live: Vec<Live> = Vec::new();
    for (i, &step) in steps.iter().enumerate() {
        let tag = i as u8;
        match step {
            Step::Alloc(size) => {
                if let Some(object) = heap.kmalloc(size, Gfp::KERNEL) {
                    // SAFETY: the object is new.
                    assert!(unsafe { heap.ksize(object) } >= size);
                    live.push(Live::new(object, size, tag));
                }
            }
            Step::Zalloc(size) => {
                if let Some(object) = heap.kzalloc(size, Gfp::KERNEL) {
                    Live { object, size, tag: 0 }.check();
                    live.push(Live::new(object, size, tag));
                }
            }
            Step::Free(index) if !live.is_empty() => {
                let gone = live.swap_remove(index % live.len());
                gone.check();
                // SAFETY: the object is from the heap, and its record is gone.
                unsafe { heap.kfree(gone.object.as_ptr()) };
            }
            Step::Resize(index, size) if !live.is_empty() => {
                let index = index % live.len();
                let old = &live[index];
                // SAFETY: the object is from the heap, and its record is replaced if it moves.
                if let Some(object) = unsafe { heap.krealloc(old.object.as_ptr(), size, Gfp::KERNEL) } {
                    Live { object, size: size.min(old.size), tag: old.tag }.check();
                    live[index] = Live::new(object, size, tag);
                }
            }
            Step::Many(count) => {
                let size = [16, 200, 1000, 3000][count % 4];
                let objects = (0..count).filter_map(|_| heap.kmalloc(size, Gfp::KERNEL));
                live.extend(objects.map(|object| Live::new(object, size, tag)));
            }
            Step::FreeMany(count) => {
                for gone in live.drain(live.len().saturating_sub(count)..) {
                    gone.check();
                    // SAFETY: as above.
                    unsafe { heap.kfree(gone.object.as_ptr()) };
                }
            }
            Step::Shrink => drop(heap.shrink()),
            Step::Cpu(cpu) => run_on(cpu),
            Step::Fail(nth) => fail(machine, nth),
            _ => {}
        }
        assert_eq!(heap.live_objects(), live.len());
        heap.validate();
    }
    check_disjoint(&live);
    for gone in live {
        gone.check();
        // SAFETY: the object is from the heap, and its record is gone.
        unsafe { heap.kfree(gone.object.as_ptr()) };
    }
    assert_eq!(heap.live_objects(), 0);
    assert_eq!(heap.pages() - before.1, pages_taken(machine) - before.0, "the books agree with the source");
    for cpu in 0..4 {
        run_on(cpu);
        heap.shrink();
        heap.validate();
    }
    assert_eq!((pages_taken(machine), heap.pages()), before, "all pages are back");
    assert_eq!(reports(), []);
}

fn run_cache(config: Config, spec: CacheSpec, steps: &[Step]) {
    run_on(0);
    let machine = machine();
    let heap = heap_with(machine, config);
    let cache = heap.create(spec).unwrap();
    let baseline = pages_taken(machine);
    let books = |heap: &KernelHeap<_>| pages_taken(machine) - heap.pages();
    let balance = books(heap);
    let new = |object: NonNull<u8>, tag: usize| {
        assert_eq!(object.as_ptr() as usize % spec.align.max(8), 0, "aligned");
        if spec.constructor.is_none() {
            return Live::new(object, spec.size, tag as u8);
        }
        let live = Live { object, size: spec.size, tag: CONSTRUCTED };
        live.check();
        live
    };
    let mut live: Vec<Live> = Vec::new();
    for (i, &step) in steps.iter().enumerate() {
        match step {
            Step::Alloc(_) | Step::Zalloc(_) => live.extend(cache.alloc(Gfp::KERNEL).map(|object| new(object, i))),
            Step::Many(count) => live.extend((0..count).filter_map(|_| Some(new(cache.alloc(Gfp::KERNEL)?, i)))),
            Step::FreeMany(count) => {
                for gone in live.drain(live.len().saturating_sub(count)..) {
                    gone.check();
                    // SAFETY: the object is from the cache, and its record is gone.
                    unsafe { cache.free(gone.object) };
                }
            }
            Step::Shrink => drop(cache.shrink()),
            Step::Free(index) if !live.is_empty() => {
                let gone = live.swap_remove(index % live.len());
                gone.check();
                // SAFETY: the object is from the cache, and its record is gone.
                unsafe { cache.free(gone.object) };
            }
            Step::Cpu(cpu) => run_on(cpu),
            Step::Fail(nth) => fail(machine, nth),
            _ => {}
        }
        assert_eq!(cache.live_objects(), live.len());
        heap.validate();
    }
    check_disjoint(&live);
    assert_eq!(books(heap), balance, "the books agree with the source");
    let info = cache.info();
    assert!(info.active <= info.total);
    assert!(config.backend == Backend::Slob || info.total * info.stride <= info.pages * PAGE_SIZE);
    let cache = if live.is_empty() { cache } else { cache.destroy().expect_err("objects live") };
    for gone in live {
        gone.check();
        // SAFETY: the object is from the cache, and its record is gone.
        unsafe { cache.free(gone.object) };
    }
    assert!(cache.destroy().is_ok());
    run_on(0);
    heap.shrink();
    assert!(pages_taken(machine) <= baseline, "destroy gives all pages back");
    assert_eq!(heap.live_objects(), 0);
    assert_eq!(reports(), []);
}

const CONSTRUCTED: u8 = 0xc3;

fn specs() -> impl Strategy<Value = CacheSpec> {
    (prop_oneof![4 => 1..3000usize, 1 => 3000..9000usize], 0..10u32, any::<bool>(), any::<bool>()).prop_map(
        |(size, align, line, construct)| {
            let mut spec = CacheSpec::new("test", size, 1 << align);
            if line {
                spec.flags |= SlabFlags::HWCACHE_ALIGN;
            }
            if construct {
                // The whole object, whatever its size: the test's objects are at most this large.
                spec.size = 200;
                // SAFETY: objects of this cache have 200 bytes.
                spec.constructor = Some(|object| unsafe { object.write_bytes(CONSTRUCTED, 200) });
            }
            spec
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn kmalloc_agrees_with_a_model(steps in steps()) {
        for config in configs() {
            run_kmalloc(config, &steps);
        }
    }

    #[test]
    fn caches_agree_with_a_model(spec in specs(), steps in steps()) {
        for config in configs() {
            run_cache(config, spec, &steps);
        }
    }
}

#[test]
fn every_size_has_a_class_and_its_alignment() {
    configs().for_each(check_sizes_and_alignments);
}

fn check_sizes_and_alignments(config: Config) {
    let heap = heap_with(machine(), config);
    let step = if config.debug.is_empty() { 1 } else { 61 };
    for size in (0..=8192usize).step_by(step) {
        let object = heap.kmalloc(size, Gfp::KERNEL).unwrap();
        // SAFETY: the object lives until the second line.
        unsafe {
            assert!(heap.ksize(object) >= size.max(1) && (size <= 8 || heap.ksize(object) < 2 * size));
            let natural = if size.is_power_of_two() { size.clamp(8, PAGE_SIZE) } else { 8 };
            assert_eq!(object.as_ptr() as usize % natural, 0);
            heap.kfree(object.as_ptr());
        }
    }
    for align in (0..=14).map(|shift| 1 << shift) {
        for size in [1, 8, 65, 96, 100, 192, 200, 4095, 8192, 8193, 20_000] {
            let layout = std::alloc::Layout::from_size_align(size, align).unwrap();
            let object = heap.alloc_layout(layout, Gfp::KERNEL).unwrap();
            assert_eq!(object.as_ptr() as usize % align, 0, "{layout:?}");
            // SAFETY: from this heap with this layout.
            unsafe { heap.free_layout(object, layout) };
        }
    }
    assert_eq!(heap.live_objects(), 0);
}

#[test]
fn a_heap_before_its_time_answers_that_there_is_no_memory() {
    let machine = machine();
    let heap: &'static KernelHeap<_> = Box::leak(Box::new(KernelHeap::new(machine)));
    assert!(heap.kmalloc(64, Gfp::KERNEL).is_none());
    assert!(heap.kmalloc(64 << 10, Gfp::KERNEL).is_none());
    assert!(heap.create(CacheSpec::new("early", 8, 8)).is_err());
    assert!(heap.kcalloc(usize::MAX, 2, Gfp::KERNEL).is_none());
}

/// Four CPUs allocate, and hand half of what they get to their neighbour, which frees it.
#[test]
fn remote_frees_balance() {
    for config in configs() {
        let machine = machine();
        let heap = heap_with(machine, config);
        let small: &'static KmemCache<_> = heap.create(CacheSpec::new("small", 40, 8)).ok().unwrap().leak();
        let sizes = [64usize, 40, 1000, 8192, 16];
        // Poison is slow without optimisation.
        let rounds = if config.debug.is_empty() { 6000usize } else { 600 };
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..4).map(|_| mpsc::sync_channel::<Live>(64)).unzip();
        std::thread::scope(|scope| {
            for (cpu, inbox) in receivers.into_iter().enumerate() {
                let outbox = senders[(cpu + 1) % 4].clone();
                scope.spawn(move || {
                    run_on(cpu);
                    let give_back = |live: Live| {
                        live.check();
                        if live.size == 40 {
                            // SAFETY: from this cache; whoever has the record frees it.
                            unsafe { small.free(live.object) };
                        } else {
                            // SAFETY: as above.
                            unsafe { heap.kfree(live.object.as_ptr()) };
                        }
                    };
                    let mut mine = Vec::new();
                    let mut random = cpu as u64 + 1;
                    for i in 0..rounds {
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        let size = sizes[random as usize % sizes.len()];
                        let object =
                            if size == 40 { small.alloc(Gfp::KERNEL) } else { heap.kmalloc(size, Gfp::KERNEL) };
                        let live = Live::new(object.unwrap(), size, (cpu * 50 + i % 50) as u8);
                        if i % 2 == 0 {
                            if let Err(mpsc::TrySendError::Full(live)) = outbox.try_send(live) {
                                mine.push(live);
                            }
                        } else {
                            mine.push(live);
                        }
                        if let Ok(live) = inbox.try_recv() {
                            give_back(live);
                        }
                        if mine.len() > 100 {
                            give_back(mine.swap_remove(random as usize % mine.len()));
                        }
                    }
                    drop(outbox);
                    mine.into_iter().for_each(give_back);
                    inbox.iter().for_each(give_back);
                    heap.shrink();
                    assert_eq!(reports(), []);
                });
            }
            drop(senders);
        });
        assert_eq!(heap.live_objects(), 1, "the cache itself");
        for cpu in 0..4 {
            run_on(cpu);
            heap.shrink();
        }
        let slabs: usize = (0..).map_while(|i| heap.slab_info(i)).map(|info| info.slabs).sum();
        assert_eq!(slabs, usize::from(config.backend != Backend::Slob), "only the slab with the cache is left");
        assert_eq!(pages_taken(machine), heap.pages());
    }
}

#[test]
fn a_slab_in_use_on_one_cpu_takes_frees_from_another() {
    let machine = machine();
    let heap = heap(machine, Backend::Slub);
    run_on(0);
    let objects: Vec<_> = (0..40).map(|_| heap.kmalloc(64, Gfp::KERNEL).unwrap()).collect();
    run_on(1);
    for object in &objects {
        // SAFETY: each is freed once.
        unsafe { heap.kfree(object.as_ptr()) };
    }
    assert_eq!(heap.live_objects(), 0);
    run_on(0);
    // The active slab has 64 objects: CPU 0 gets the remaining ones, and those that did not fit into CPU 1's array,
    // without another page.
    let pages = pages_taken(machine);
    let again: Vec<_> = (0..64 - 40 + 15).map(|_| heap.kmalloc(64, Gfp::KERNEL).unwrap()).collect();
    assert_eq!(pages_taken(machine), pages);
    assert!(objects[..15].iter().all(|object| again.contains(object)));
    // CPU 1 gets what it freed, the last first.
    run_on(1);
    assert!(objects[15..].iter().rev().all(|object| heap.kmalloc(64, Gfp::KERNEL) == Some(*object)));
}
