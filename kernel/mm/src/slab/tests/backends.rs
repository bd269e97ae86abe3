//! The special properties of each back end, and the common ones.

use std::alloc::{GlobalAlloc, Layout};

use proptest::prelude::*;

use super::machine::*;
use crate::addr::PAGE_SIZE;
use crate::page_alloc::{Gfp, Shrinker};
use crate::slab::{Backend, CacheSpec, CreateError};

/// Work that needs pages in many places.
fn work(backend: Backend, fail_at: u32) -> bool {
    let machine = machine();
    let heap = heap(machine, backend);
    let pages = |heap: &crate::slab::KernelHeap<_>| (pages_taken(machine), heap.pages());
    let before = pages(heap);
    fail(machine, fail_at);
    let mut failed = false;
    let cache = match heap.create(CacheSpec::new("work", 700, 64)) {
        Ok(cache) => Some(cache),
        Err(error) => {
            assert_eq!(error, CreateError::NoMemory);
            failed = true;
            None
        }
    };
    let mut objects = Vec::new();
    for i in 0..200 {
        run_on(i % 4);
        let size = [24, 700, 3000, 20_000, 100][i % 5];
        let object = match &cache {
            Some(cache) if size == 700 => cache.alloc(Gfp::KERNEL),
            _ => heap.kzalloc(size, Gfp::KERNEL),
        };
        failed |= object.is_none();
        objects.extend(object.map(|object| (object, size)));
    }
    for (i, (object, size)) in objects.into_iter().enumerate() {
        run_on((i / 3) % 4);
        match &cache {
            // SAFETY: from this cache, freed once.
            Some(cache) if size == 700 => unsafe { cache.free(object) },
            // SAFETY: from this heap, freed once.
            _ => unsafe { heap.kfree(object.as_ptr()) },
        }
    }
    assert!(cache.is_none_or(|cache| cache.destroy().is_ok()));
    for cpu in 0..4 {
        run_on(cpu);
        heap.shrink();
    }
    assert_eq!(heap.live_objects(), 0);
    assert_eq!(pages(heap), before);
    assert_eq!(reports(), []);
    failed
}

#[test]
fn a_failure_at_any_step_is_an_answer_and_leaks_nothing() {
    for backend in BACKENDS {
        assert!(!work(backend, 0));
        // Early requests for a large slab fall back to a small one, so not each failure is seen outside.
        let seen = (1..60).filter(|&nth| work(backend, nth)).count();
        assert!(seen > 10, "{backend:?}: {seen}");
    }
}

#[test]
fn the_page_allocator_gets_empty_slabs_before_it_fails() {
    for backend in [Backend::Slub, Backend::Slab] {
        let machine = machine();
        let heap = heap(machine, backend);
        assert!(machine.pages().register_shrinker(heap));
        let objects: Vec<_> = (0..400).map(|_| heap.kmalloc(1000, Gfp::KERNEL).unwrap()).collect();
        // SAFETY: each came from the heap and is given back once.
        objects.into_iter().for_each(|object| unsafe { heap.kfree(object.as_ptr()) });
        let kept = heap.pages();
        assert!(heap.count() > 0 && kept > 0, "some slabs are kept empty");
        let mut hoard = Vec::new();
        while let Ok(page) = machine.pages().alloc_page(Gfp::KERNEL | Gfp::NOWARN) {
            hoard.push(page);
        }
        assert!(heap.pages() < kept, "{backend:?} has still {} of {kept} pages", heap.pages());
        drop(hoard);
    }
}

#[test]
fn slob_needs_the_fewest_pages() {
    let footprint = |backend| {
        let machine = machine();
        let heap = heap(machine, backend);
        let before = pages_taken(machine);
        // SAFETY: the layout is not empty.
        let all = (0..2000).map(|i| unsafe { heap.alloc(Layout::from_size_align(8 + i % 300, 8).unwrap()) });
        assert!(all.into_iter().all(|object| !object.is_null()));
        pages_taken(machine) - before
    };
    let [slub, slab, slob] = BACKENDS.map(footprint);
    let bytes: usize = (0..2000).map(|i| (8 + i % 300usize).next_multiple_of(8)).sum();
    assert!(slob < slub && slob < slab, "{slub} {slab} {slob}");
    assert!(slob * PAGE_SIZE < bytes * 21 / 20, "at most 5 % over what was asked for");
}

#[test]
fn slob_merges_what_is_freed_in_any_order() {
    let machine = machine();
    let heap = heap(machine, Backend::Slob);
    let layout = Layout::from_size_align(56, 8).unwrap();
    for stride in [1, 2, 3, 7, 72] {
        let before = pages_taken(machine);
        // 73 objects fill one page except for 8 bytes.
        let objects: Vec<_> = (0..73).map(|_| heap.alloc_layout(layout, Gfp::KERNEL).unwrap()).collect();
        assert_eq!(pages_taken(machine), before + 1);
        let kept = objects[0];
        for i in 1..73 {
            // SAFETY: 73 is a prime, so each but the first comes up once.
            unsafe { heap.free_layout(objects[i * stride % 73], layout) };
        }
        let rest = Layout::from_size_align(PAGE_SIZE - 56, 8).unwrap();
        let large = heap.alloc_layout(rest, Gfp::KERNEL).unwrap();
        assert_eq!(pages_taken(machine), before + 1, "the page is one hole again");
        // SAFETY: both live.
        unsafe {
            heap.free_layout(large, rest);
            heap.free_layout(kept, layout);
        }
        assert_eq!(pages_taken(machine), before);
    }
}

#[test]
fn slab_colours_its_slabs() {
    let machine = machine();
    let heap = heap(machine, Backend::Slab);
    let cache = heap.create(CacheSpec::new("coloured", 360, 8)).unwrap();
    let objects: Vec<_> = (0..100).map(|_| cache.alloc(Gfp::KERNEL).unwrap()).collect();
    let mut firsts: Vec<_> = objects.iter().map(|object| object.as_ptr() as usize % PAGE_SIZE).collect();
    firsts.retain(|offset| *offset < 360);
    firsts.sort_unstable();
    firsts.dedup();
    // 11 objects leave 136 bytes: three colours.
    assert_eq!(firsts, [0, 64, 128]);
    for object in objects {
        // SAFETY: freed once.
        unsafe { cache.free(object) };
    }
    assert!(cache.destroy().is_ok());
}

#[test]
fn slab_frees_the_coldest_first() {
    let machine = machine();
    let heap = heap(machine, Backend::Slab);
    let objects: Vec<_> = (0..200).map(|_| heap.kmalloc(64, Gfp::KERNEL).unwrap()).collect();
    for object in &objects {
        // SAFETY: freed once.
        unsafe { heap.kfree(object.as_ptr()) };
    }
    let hottest: Vec<_> = (0..10).map(|_| heap.kmalloc(64, Gfp::KERNEL).unwrap()).collect();
    assert!(hottest.iter().eq(objects.iter().rev().take(10)));
}

#[test]
fn freeing_twice_in_a_row_is_reported_and_does_no_harm() {
    for backend in BACKENDS {
        let heap = heap(machine(), backend);
        let keep = heap.kmalloc(64, Gfp::KERNEL).unwrap();
        let object = heap.kmalloc(64, Gfp::KERNEL).unwrap();
        // SAFETY: that is the test; the allocator must stand it.
        unsafe {
            heap.kfree(object.as_ptr());
            heap.kfree(object.as_ptr());
        }
        assert_eq!(reports().len(), 1, "{backend:?}");
        let (a, b) = (heap.kmalloc(64, Gfp::KERNEL).unwrap(), heap.kmalloc(64, Gfp::KERNEL).unwrap());
        assert!(a != b && a != keep && b != keep);
        assert_eq!(heap.live_objects(), 3);
    }
}

#[test]
fn a_link_that_was_written_over_is_not_followed() {
    for backend in [Backend::Slub, Backend::Slab] {
        let heap = heap(machine(), backend);
        let objects: Vec<_> = (0..300).map(|_| heap.kmalloc(64, Gfp::KERNEL).unwrap()).collect();
        for object in &objects {
            // SAFETY: freed once.
            unsafe { heap.kfree(object.as_ptr()) };
        }
        for object in &objects {
            // SAFETY: the memory is mapped; that it is not ours any more is the test.
            unsafe { object.write_bytes(0x41, 64) };
        }
        let again: std::collections::BTreeSet<_> = (0..1000).map(|_| heap.kmalloc(64, Gfp::KERNEL).unwrap()).collect();
        assert_eq!(again.len(), 1000, "no object is handed out twice");
        assert!(!reports().is_empty());
    }
}

#[test]
fn pointers_that_are_nobodys_are_reported() {
    for backend in BACKENDS {
        let heap = heap(machine(), backend);
        let large = heap.kmalloc(5 * PAGE_SIZE, Gfp::KERNEL).unwrap();
        // SAFETY: that is the test; the allocator must stand it.
        unsafe {
            heap.kfree(large.as_ptr().add(PAGE_SIZE));
            heap.kfree(large.as_ptr().add(8));
            assert_eq!(reports().len(), 2);
            heap.kfree(large.as_ptr());
            heap.kfree(large.as_ptr());
        }
        assert_eq!(reports().len(), 1);
    }
}

fn layouts() -> impl Strategy<Value = Vec<(usize, u32, usize, usize)>> {
    prop::collection::vec((1..10_000usize, 0..13u32, any::<usize>(), 0..12_000usize), 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn the_global_allocator_keeps_its_contract(steps in layouts()) {
        for backend in BACKENDS {
            run_on(0);
            let machine = machine();
            let heap = heap(machine, backend);
            let before = pages_taken(machine);
            let mut live: Vec<(*mut u8, Layout, u8)> = Vec::new();
            for (i, &(size, align, pick, new_size)) in steps.iter().enumerate() {
                let layout = Layout::from_size_align(size, 1 << align).unwrap();
                let tag = i as u8;
                // SAFETY: layouts are not empty, and each object is used by its entry in `live` alone.
                unsafe {
                    let object = heap.alloc_zeroed(layout);
                    prop_assert!(!object.is_null() && object.addr().is_multiple_of(layout.align()));
                    prop_assert!(std::slice::from_raw_parts(object, size).iter().all(|&byte| byte == 0));
                    object.write_bytes(tag, size);
                    live.push((object, layout, tag));
                    let index = pick % live.len();
                    let (old, layout, tag) = live.swap_remove(index);
                    prop_assert!(std::slice::from_raw_parts(old, layout.size()).iter().all(|&byte| byte == tag));
                    if new_size == 0 || pick % 3 == 0 {
                        heap.dealloc(old, layout);
                    } else {
                        let new = heap.realloc(old, layout, new_size);
                        let kept = new_size.min(layout.size());
                        prop_assert!(new.addr().is_multiple_of(layout.align()));
                        prop_assert!(std::slice::from_raw_parts(new, kept).iter().all(|&byte| byte == tag));
                        new.write_bytes(tag, new_size);
                        live.push((new, Layout::from_size_align(new_size, layout.align()).unwrap(), tag));
                    }
                }
                prop_assert_eq!(heap.live_objects(), live.len());
            }
            for (object, layout, tag) in live {
                // SAFETY: as above.
                unsafe {
                    prop_assert!(std::slice::from_raw_parts(object, layout.size()).iter().all(|&byte| byte == tag));
                    heap.dealloc(object, layout);
                }
            }
            heap.shrink();
            prop_assert_eq!(pages_taken(machine), if backend == Backend::Slob { 0 } else { before });
            prop_assert_eq!(reports(), []);
        }
    }
}
