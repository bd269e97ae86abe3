//! Memory that only waiting allocations get: each call gets what it needs, and holds no lock while it waits.

use std::boxed::Box;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::*};
use std::vec::Vec;

use super::*;
use crate::page_alloc::{Gfp, PageBlock, Shrinker};
use crate::sync::note_taken;
use quire_abi::flags::Mremap;

/// Everything that was free. A scan gives back a page at a time, and asks whether it might as well sleep.
struct Hoard {
    sim: &'static Sim,
    pages: Mutex<Vec<PageBlock<&'static Sim>>>,
    scans: AtomicUsize,
}

impl Hoard {
    fn new(sim: &'static Sim) -> &'static Self {
        let hoard: &'static Self =
            Box::leak(Box::new(Self { sim, pages: Mutex::default(), scans: AtomicUsize::new(0) }));
        assert!(sim.pages().register_shrinker(hoard));
        hoard
    }

    /// Takes all that those get who cannot wait.
    fn fill(&self) {
        let mut pages = self.pages.lock().unwrap();
        while let Ok(page) = self.sim.pages().alloc_page(Gfp::NOWAIT) {
            pages.push(page);
        }
    }

    fn scans(&self) -> usize {
        self.scans.swap(0, Relaxed)
    }

    fn empty(&self) {
        self.pages.lock().unwrap().clear();
    }
}

impl Shrinker for Hoard {
    fn count(&self) -> usize {
        self.pages.lock().unwrap().len()
    }

    fn scan(&self, _: usize, _: Gfp) -> usize {
        self.scans.fetch_add(1, Relaxed);
        assert_eq!(self.sim.held_ranks().load(Relaxed), 0, "reclaim under a lock");
        let mut pages = self.pages.lock().unwrap();
        let n = pages.len().saturating_sub(1);
        pages.truncate(n);
        1
    }
}

/// Does `work` with nothing free, and sees it wait for what it needs.
fn starved<R>(hoard: &Hoard, what: &str, work: impl FnOnce() -> R) -> R {
    hoard.fill();
    hoard.scans();
    let done = work();
    assert!(hoard.scans() != 0, "{what}: nothing was waited for");
    done
}

#[test]
fn calls_and_faults_wait_for_memory_with_no_lock_held() {
    let rig = Rig::new(16);
    let hoard = Hoard::new(rig.sim);
    let mm = rig.space();
    let at = anon(&rig, &mm, 2048 * PAGE);
    starved(hoard, "a write", || rig.write(&mm, at, 1)).unwrap();
    starved(hoard, "a write in another table", || rig.write(&mm, at + 1024 * PAGE, 2)).unwrap();
    rig.read(&mm, at + PAGE).unwrap();
    starved(hoard, "a write to zeros", || rig.write(&mm, at + PAGE, 3)).unwrap();
    let shared = map_at(&mm, 0, 64 * PAGE, RW, Map::SHARED).unwrap();
    starved(hoard, "a page of an object", || rig.write(&mm, shared, 4)).unwrap();
    let child = starved(hoard, "fork", || mm.fork()).unwrap();
    starved(hoard, "a copy", || rig.write(&mm, at, 5)).unwrap();
    let to = 0x7000_0000_0000;
    let moved =
        starved(hoard, "mremap", || mm.remap(at, 1024 * PAGE, 1024 * PAGE, Mremap::MAYMOVE | Mremap::FIXED, to));
    assert_eq!(moved.unwrap().get(), to);
    let populated = map_at(&mm, 0, 64 * PAGE, RW, Map::empty()).unwrap();
    let advice = quire_abi::flags::madv::POPULATE_WRITE;
    starved(hoard, "populate", || mm.advise(populated, 64 * PAGE, advice)).unwrap();
    assert_eq!(rig.read(&mm, to).unwrap(), 5);
    assert_eq!(rig.read(&mm, to + PAGE).unwrap(), 3);
    assert_eq!(rig.read(&child, at).unwrap(), 1);
    hoard.empty();
    rig.idle(0);
    drop((mm, child));
    rig.assert_balanced();
}

#[test]
fn what_cannot_be_had_is_an_error_and_leaves_nothing() {
    let rig = Rig::new(16);
    let mm = rig.space();
    let halves = [0; 2].map(|_| anon(&rig, &mm, 3000 * PAGE));
    let mut pages = halves.into_iter().flat_map(|at| (0..3000).map(move |n| at + n * PAGE));
    assert!(pages.any(|at| rig.write(&mm, at, 1) == Err(FaultError::OutOfMemory)));
    assert_eq!(mm.fork().err(), Some(Errno::ENOMEM));
    mm.validate();
    rig.idle(0);
    drop(mm);
    rig.assert_balanced();
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "memory is waited for under locks")]
fn waiting_for_memory_under_a_lock_is_noticed() {
    let rig = Rig::new(16);
    let hoard = Hoard::new(rig.sim);
    hoard.fill();
    note_taken(rig.sim, crate::sync::Rank::AddressSpace);
    let _ = rig.sim.pages().alloc_page(Gfp::KERNEL);
}
