//! Misuse that the boot options detect, and their reports.

use std::ptr::NonNull;

use proptest::prelude::*;

use super::machine::*;
use crate::page_alloc::{FaultInjection, Gfp};
use crate::sim::Sim;
use crate::slab::{Backend, CacheSpec, Config, DebugFlags, Fault, KernelHeap};

const ALLOC_SITE: usize = 0xa110c;
const FREE_SITE: usize = 0xf4ee;
const OTHER_SITE: usize = 0x07e4;

fn debug_heap(debug: DebugFlags) -> [&'static KernelHeap<TestMachine>; 2] {
    [Backend::Slub, Backend::Slab].map(|backend| heap_with(machine(), Config { backend, debug, ..Config::default() }))
}

fn alloc(heap: &KernelHeap<TestMachine>, size: usize) -> NonNull<u8> {
    Sim::set_call_site(ALLOC_SITE);
    heap.kmalloc(size, Gfp::KERNEL).unwrap()
}

fn free(heap: &KernelHeap<TestMachine>, object: NonNull<u8>, site: usize) {
    Sim::set_call_site(site);
    // SAFETY: from this heap; where it is freed twice, that is the test, and the allocator must stand it.
    unsafe { heap.kfree(object.as_ptr()) };
}

#[test]
fn a_double_free_is_found_however_late_and_names_both() {
    for heap in debug_heap(DebugFlags::LAYOUT) {
        let objects: Vec<_> = (0..50).map(|_| alloc(heap, 100)).collect();
        objects.iter().for_each(|&object| free(heap, object, FREE_SITE));
        run_on(1);
        free(heap, objects[7], OTHER_SITE);
        run_on(0);
        let [report] = reports()[..] else { panic!("one report") };
        assert_eq!(
            (report.fault, report.cache, report.object),
            (Fault::DoubleFree, "kmalloc-128", objects[7].as_ptr() as usize)
        );
        assert_eq!((report.found.callers[0], report.found.cpu), (OTHER_SITE, 1));
        assert_eq!(report.allocated.unwrap().callers[0], ALLOC_SITE);
        let freed = report.freed.unwrap();
        assert_eq!((freed.callers[0], freed.cpu), (FREE_SITE, 0));
        let text = report.to_string();
        for word in ["double free", "kmalloc-128", "0xa110c", "0xf4ee", "0x7e4"] {
            assert!(text.contains(word), "{text}");
        }
        assert_eq!(heap.live_objects(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn one_wrong_byte_is_found_wherever_it_is(size in 1usize..600, at in -8isize..608, value in any::<u8>()) {
        for heap in debug_heap(DebugFlags::LAYOUT) {
            let cache = heap.create(CacheSpec::new("victim", size, 1)).unwrap();
            Sim::set_call_site(ALLOC_SITE);
            let object = cache.alloc(Gfp::KERNEL).unwrap();
            let neighbour = cache.alloc(Gfp::KERNEL).unwrap();
            let inside = (0..size as isize).contains(&at);
            // Past the red zone are the allocator's own words.
            prop_assume!(at < size as isize + 8);
            // SAFETY: the byte is the object's own or its red zone's.
            let byte = unsafe { object.as_ptr().offset(at) };
            if inside {
                Sim::set_call_site(FREE_SITE);
                // SAFETY: freed once.
                unsafe { cache.free(object) };
            }
            // SAFETY: mapped memory; that it is not ours is the test.
            let harmless = unsafe {
                let old = byte.read();
                byte.write(value);
                old == value
            };
            if inside {
                // It comes up again at the latest when all others have.
                let all: Vec<_> = (0..1000).map(|_| cache.alloc(Gfp::KERNEL).unwrap()).collect();
                prop_assert_eq!(all.contains(&object), harmless);
            } else {
                // SAFETY: freed once.
                unsafe { cache.free(object) };
            }
            let reports = reports();
            prop_assert_eq!(reports.len(), usize::from(!harmless));
            if let Some(report) = reports.first() {
                let want = if inside { Fault::UseAfterFree } else { Fault::Overrun };
                prop_assert_eq!((report.fault, report.offset), (want, at));
                prop_assert_eq!((report.cache, report.object), ("victim", object.as_ptr() as usize));
                prop_assert_eq!(report.allocated.unwrap().callers[0], ALLOC_SITE);
            }
            // SAFETY: freed once.
            unsafe { cache.free(neighbour) };
        }
    }
}

#[test]
fn each_option_finds_what_it_is_for_and_no_more() {
    let overruns = |flags| {
        debug_heap(flags).map(|heap| {
            let object = alloc(heap, 64);
            // SAFETY: within the cell's memory; that it is not ours is the test.
            unsafe { object.as_ptr().add(64).write(1) };
            free(heap, object, FREE_SITE);
            reports().len()
        })
    };
    assert_eq!(overruns(DebugFlags::RED_ZONE), [1, 1]);
    assert_eq!(overruns(DebugFlags::CHECKS), [0, 0]);
    let late_writes = |flags| {
        debug_heap(flags).map(|heap| {
            let object = alloc(heap, 64);
            free(heap, object, FREE_SITE);
            // SAFETY: mapped memory; that it is not ours is the test.
            unsafe { object.as_ptr().add(3).write(1) };
            for _ in 0..100 {
                alloc(heap, 64);
            }
            reports().len()
        })
    };
    assert_eq!(late_writes(DebugFlags::POISON), [1, 1]);
    assert_eq!(late_writes(DebugFlags::RED_ZONE), [0, 0]);
}

#[test]
fn a_cache_that_was_misused_ends_without_harm() {
    for heap in debug_heap(DebugFlags::LAYOUT) {
        let cache = heap.create(CacheSpec::new("victim", 64, 8)).unwrap();
        let object = cache.alloc(Gfp::KERNEL).unwrap();
        // SAFETY: within the cell's memory; that it is not ours is the test. Freed once.
        unsafe {
            object.as_ptr().add(64).write(1);
            cache.free(object);
        }
        assert_eq!((cache.live_objects(), reports().len()), (0, 1));
        assert!(cache.destroy().is_ok());
        // SAFETY: freed twice, long after its cache; the allocator must stand it.
        unsafe { heap.kfree(object.as_ptr()) };
        assert_eq!(reports().len(), 1);
    }
}

#[test]
fn allocations_fail_when_told_to() {
    for backend in BACKENDS {
        let config = Config { backend, debug: DebugFlags::INJECT, ..Config::default() };
        let heap = heap_with(machine(), config);
        for n in 1..20 {
            heap.inject_failures(FaultInjection::nth(n));
            let first_failure = (1..).find(|_| heap.kmalloc(32, Gfp::KERNEL).is_none());
            assert_eq!(first_failure, Some(n), "{backend:?}");
        }
        heap.inject_failures(FaultInjection::OFF);
        assert!(heap.kmalloc(32, Gfp::KERNEL).is_some());
    }
}

#[test]
fn the_command_line_chooses() {
    let config = Config::from_args(|key| match key {
        "slab" => Some("slob"),
        "slub_debug" => Some("FZ"),
        "failslab" => Some("10,50,0,-1"),
        _ => None,
    });
    assert_eq!(config.backend, Backend::Slob);
    assert_eq!(config.debug, DebugFlags::CHECKS | DebugFlags::RED_ZONE | DebugFlags::INJECT);
    assert_eq!((config.failures.interval, config.failures.probability), (10, 50));
    let config = Config::from_args(|key| (key == "slab").then_some("slap"));
    assert_eq!((config.backend, config.debug), (Backend::Slub, DebugFlags::empty()));
    for all in ["", ",dentry"] {
        assert_eq!((DebugFlags::from_letters(all), DebugFlags::unknown_letter(all)), (DebugFlags::LAYOUT, None));
    }
    assert_eq!(DebugFlags::from_letters("P,buffer"), DebugFlags::POISON, "no letter is in a cache's name");
    assert_eq!((DebugFlags::unknown_letter("fzpu,x"), DebugFlags::unknown_letter("FXQ")), (None, Some('X')));
}
