//! Shrinking: its cost for concurrent users, and caches that are destroyed during it.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering::Relaxed;

use super::machine::*;
use crate::machine::Machine;
use crate::page_alloc::Gfp;
use crate::slab::{Backend, CacheSpec};

#[test]
fn empty_slabs_are_found_without_a_look_at_others() {
    for backend in [Backend::Slub, Backend::Slab] {
        let machine = machine();
        let heap = heap(machine, backend);
        let cache = heap.create(CacheSpec::new("mixed", 1000, 8)).unwrap();
        let objects: Vec<_> = (0..400).map(|_| cache.alloc(Gfp::KERNEL).unwrap()).collect();
        // Most slabs keep one object of eight, some none.
        let (kept, freed): (Vec<_>, Vec<_>) = (0..400).partition(|i| i % 8 == 0 && *i > 60);
        for &i in &freed {
            // SAFETY: freed once.
            unsafe { cache.free(objects[i]) };
        }
        cache.validate();
        let empty = |cache: &crate::slab::KmemCache<_>| {
            cache.nodes.iter().map(|node| node.lists.lock().empty.len()).sum::<usize>()
        };
        let before = (pages_taken(machine), empty(&cache));
        assert!(before.1 > 0, "{backend:?}");
        let given = cache.shrink();
        cache.validate();
        assert!(given > 0 && empty(&cache) == 0);
        assert_eq!(pages_taken(machine), before.0 - given, "{backend:?}: what it says is what it gave");
        for i in kept {
            // SAFETY: freed once.
            unsafe { cache.free(objects[i]) };
        }
        cache.validate();
        assert!(cache.destroy().is_ok());
    }
}

#[test]
fn caches_are_visited_without_a_lock_and_may_end_meanwhile() {
    for backend in BACKENDS {
        let machine = machine();
        let heap = heap(machine, backend);
        let before = (pages_taken(machine), heap.pages());
        let mut caches =
            ["first", "second", "third"].map(|name| Some(heap.create(CacheSpec::new(name, 40, 8)).unwrap()));
        for cache in caches.iter().flatten() {
            let object = cache.alloc(Gfp::KERNEL).unwrap();
            // SAFETY: freed once.
            unsafe { cache.free(object) };
        }
        let mut seen = Vec::new();
        heap.visit_caches(|cache| {
            assert_eq!(machine.held_ranks().load(Relaxed), 0, "a lock is held");
            seen.push(cache.name());
            if cache.name() == "second" {
                // This one and the one after it, and both while it is visited a second time.
                heap.visit_caches(|inner| {
                    if inner.name() == "first" {
                        caches[1..].iter_mut().for_each(|cache| assert!(cache.take().unwrap().destroy().is_ok()));
                    }
                    ControlFlow::Continue(())
                });
                assert_eq!(cache.name(), "second", "it is still there");
                assert!(cache.setup.get().is_some(), "and the other visitor has not ended it");
            }
            ControlFlow::Continue(())
        });
        assert_eq!(seen[seen.len() - 2..], ["first", "second"]);
        let named = |name| heap.find_cache(|cache| (cache.name() == name).then_some(())).is_some();
        assert!(named("first") && !named("second") && !named("third"));
        let cache = heap.create(CacheSpec::new("fourth", 40, 8)).unwrap();
        assert!(named("fourth"), "the list's end is right");
        assert!(cache.destroy().is_ok() && caches[0].take().unwrap().destroy().is_ok());
        heap.shrink();
        heap.validate();
        assert!(pages_taken(machine) <= before.0 && heap.pages() <= before.1, "{backend:?}");
    }
}
