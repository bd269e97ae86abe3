//! MADV_REMOVE: holes in shared memory.

use std::boxed::Box;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::vec::Vec;

use super::non_present::{Elsewhere, How};
use super::*;
use crate::addr::PhysAddr;
use crate::frame;
use crate::object::Object;
use crate::rmap::Release;
use crate::seeded::{self, Bug};
use crate::sim::mmu::Drain;
use crate::sim::turns;
use quire_abi::flags::{Mremap, madv};

fn remove(mm: &Space, at: usize, len: usize) -> Result<(), Errno> {
    mm.advise(at, len, madv::REMOVE)
}

#[test]
fn a_hole_is_there_for_all_who_map_the_object() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let at = map_at(&mm, 0x4000_0000, 8 * PAGE, RW, Map::SHARED).unwrap();
    (0..8).for_each(|n| rig.write(&mm, at + n * PAGE, 10 + n as u64).unwrap());
    let child = mm.fork().unwrap();
    // Elsewhere there, and a second time here.
    let there = 0x5000_0000;
    child.remap(at, 8 * PAGE, 8 * PAGE, Mremap::MAYMOVE | Mremap::FIXED, there).unwrap();
    let twice = mm.remap(at, 0, 8 * PAGE, Mremap::MAYMOVE, 0).unwrap().get();
    (0..8).for_each(|n| assert_eq!(rig.read(&child, there + n * PAGE), Ok(10 + n as u64)));
    (0..8).for_each(|n| assert_eq!(rig.read(&mm, twice + n * PAGE), Ok(10 + n as u64)));
    let before = rig.sim.pages().total_free();
    remove(&mm, at + 2 * PAGE, 3 * PAGE).unwrap();
    assert_eq!(rig.sim.pages().total_free(), before + 3);
    assert_eq!((mm.rss(), child.rss()), (10, 5));
    let value = |n: usize| if (2..5).contains(&n) { 0 } else { 10 + n as u64 };
    for n in 0..8 {
        assert_eq!(rig.read(&child, there + n * PAGE), Ok(value(n)));
        assert_eq!(rig.read(&mm, at + n * PAGE), Ok(value(n)));
    }
    // A page that is brought into the hole is shared as before.
    rig.write(&child, there + 3 * PAGE, 77).unwrap();
    assert_eq!([rig.read(&mm, at + 3 * PAGE), rig.read(&mm, twice + 3 * PAGE)], [Ok(77); 2]);
    remove(&child, there, 8 * PAGE).unwrap();
    (0..8).for_each(|n| assert_eq!(rig.read(&mm, at + n * PAGE), Ok(0)));
    [&mm, &child].into_iter().for_each(|mm| mm.validate());
    rig.idle(0);
    drop((mm, child));
    rig.assert_balanced();
}

#[test]
fn promises_follow_the_pages() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let commit = || rig.sim.spaces().commit().sum();
    let reserved = map_at(&mm, 0x4000_0000, 8 * PAGE, RW, Map::SHARED).unwrap();
    let as_it_comes = map_at(&mm, 0x5000_0000, 8 * PAGE, RW, Map::SHARED | Map::NORESERVE).unwrap();
    let before = commit();
    [reserved, as_it_comes].iter().for_each(|at| (0..4).for_each(|n| rig.write(&mm, at + n * PAGE, 1).unwrap()));
    assert_eq!(commit(), before + 4);
    [reserved, as_it_comes].iter().for_each(|at| remove(&mm, *at, 3 * PAGE).unwrap());
    assert_eq!(commit(), before + 1);
    rig.idle(0);
    drop(mm);
    rig.assert_balanced();
}

#[test]
fn only_shared_memory_that_may_be_written_has_holes() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let private = anon(&rig, &mm, PAGE);
    assert_eq!(remove(&mm, private, PAGE), Err(Errno::EINVAL));
    let shared = map_at(&mm, 0x4000_0000, 4 * PAGE, RW, Map::SHARED).unwrap();
    mm.lock(shared, PAGE, false).unwrap();
    assert_eq!(remove(&mm, shared, PAGE), Err(Errno::EINVAL));
    mm.unlock(shared, PAGE).unwrap();
    assert_eq!(remove(&mm, shared + 1, PAGE), Err(Errno::EINVAL));
    assert_eq!(remove(&mm, shared, 0), Ok(()));
    // It may not be written now, but mprotect could allow it: as on Linux that is enough.
    mm.protect(shared, PAGE, Prot::READ).unwrap();
    assert_eq!(remove(&mm, shared, PAGE), Ok(()));
    // A hole in the range is skipped.
    (0..4).for_each(|n| _ = rig.write(&mm, shared + n * PAGE, 1));
    mm.unmap(shared + 2 * PAGE, PAGE).unwrap();
    assert_eq!(remove(&mm, shared, 4 * PAGE), Err(Errno::ENOMEM));
    assert_eq!([rig.read(&mm, shared + PAGE), rig.read(&mm, shared + 3 * PAGE)], [Ok(0); 2]);
    rig.idle(0);
    drop(mm);
    rig.assert_balanced();
}

#[test]
fn a_file_has_no_holes() {
    const FILE: usize = 0x2000;
    let rig = Rig::new(64);
    let mm = rig.space();
    let file = Object::boot_file(rig.sim, PhysAddr::new(FILE), PAGE, true).unwrap();
    let map = |flags| {
        let request = MapRequest {
            addr: 0,
            len: PAGE,
            prot: Prot::READ,
            flags,
            object: Some((file.clone(), 0)),
            max_prot: Prot::READ,
        };
        mm.map(&request).unwrap().get()
    };
    for at in [map(Map::SHARED), map(Map::PRIVATE)] {
        assert_eq!(remove(&mm, at, PAGE), Err(Errno::EACCES));
    }
    drop(mm);
    rig.assert_balanced();
}

/// A device that has a page pinned keeps it, and shares it with no space any more.
#[test]
fn a_pinned_page_outlives_its_removal() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let at = map_at(&mm, 0x4000_0000, PAGE, RW, Map::SHARED).unwrap();
    rig.write(&mm, at, 5).unwrap();
    let pfn = {
        let held = mm.pin(at, true).unwrap();
        assert!(rig.sim.pages().pin_long_term(held.pfn()));
        held.pfn()
    };
    remove(&mm, at, PAGE).unwrap();
    assert_eq!(rig.read(&mm, at), Ok(0));
    // SAFETY: the page is pinned, and nothing else has it any more.
    assert_eq!(unsafe { rig.sim.direct_map(pfn.addr()).cast::<u64>().read() }, 5);
    let page = frame::page(rig.sim, pfn);
    assert_eq!(page.refs(), 1);
    assert!(page.get() && !page.unpin());
    Release::new(rig.sim).page(pfn);
    rig.idle(0);
    drop(mm);
    rig.assert_balanced();
    assert_eq!(rig.sim.pages().bad_pages(), 0);
}

/// Its entries are of a page on its way to another frame.
#[test]
fn a_page_that_is_being_moved_is_removed() {
    let rig = Rig::new(64);
    let elsewhere = Elsewhere::attach(rig.sim);
    let mm = rig.space();
    let at = map_at(&mm, 0x4000_0000, PAGE, RW, Map::SHARED).unwrap();
    rig.write(&mm, at, 5).unwrap();
    let child = mm.fork().unwrap();
    rig.read(&child, at).unwrap();
    elsewhere.take_away(&mm, UserAddr::new(at), How::Move);
    assert!(!child.entry(UserAddr::new(at)).is_present());
    remove(&mm, at, PAGE).unwrap();
    assert_eq!((mm.rss(), child.rss()), (0, 0));
    elsewhere.finish_moves();
    assert_eq!((rig.read(&mm, at), rig.read(&child, at)), (Ok(0), Ok(0)));
    rig.idle(0);
    drop((mm, child));
    rig.assert_balanced();
}

/// A page is removed while a child brings it in and moves its area. In the end both have the same memory there.
fn is_coherent_after(seed: u64) -> bool {
    let rig = ManuallyDrop::new(Rig::new(16));
    rig.mmu.set_chance(seed, Drain::Late);
    let mm = rig.space();
    let (at, there) = (0x4000_0000, 0x5000_0000);
    map_at(&mm, at, 3 * PAGE, RW, Map::SHARED).unwrap();
    let page = at + PAGE;
    rig.write(&mm, page, 1).unwrap();
    let child = mm.fork().unwrap();
    if seed.is_multiple_of(2) {
        rig.read(&child, page).unwrap();
    }
    let bug = seeded::current();
    let on = |cpu, work: Box<dyn Fn() + Send>| -> turns::Body { body(cpu, bug, work) };
    let (mm, child) = (&mm, &child);
    let write = |cpu, mm: &Space, at, value| {
        if let Ok(to) = rig.touch(cpu, mm, at, Access::Write) {
            // SAFETY: the MMU allows the write, and no other thread has its turn.
            unsafe { to.cast::<u64>().write(value) };
        }
    };
    let write = &write;
    let bodies = [
        on(0, Box::new(|| remove(mm, at, 3 * PAGE).unwrap())),
        on(1, Box::new(move || write(1, child, page, 2))),
        on(
            2,
            Box::new(move || {
                child.remap(at, 3 * PAGE, 3 * PAGE, Mremap::MAYMOVE | Mremap::FIXED, there).unwrap();
                write(2, child, there + PAGE, 3);
            }),
        ),
    ];
    turns::run(seed, 1 + seed as usize % 20, bodies.into());
    Sim::set_cpu(0);
    let coherent = rig.read(mm, page) == rig.read(child, there + PAGE);
    let known = [mm, child].into_iter().all(|mm| Mm::audit(mm, || true).unlisted == 0);
    (0..3).for_each(|cpu| rig.idle(cpu));
    coherent && known && rig.sim.pages().bad_pages() == 0
}

#[test]
fn no_space_keeps_a_page_that_was_removed_while_it_was_brought_in() {
    assert!((1..400).all(is_coherent_after));
    seeded::switch(Some(Bug::RemoveWalksOnce));
    let noticed = (1..400).any(|seed| !is_coherent_after(seed));
    seeded::switch(None);
    assert!(noticed);
}

/// Others bring in and drop the pages meanwhile.
#[test]
fn holes_are_made_beside_faults() {
    const PAGES: usize = 8;
    let rig = Rig::new(64);
    let mm = rig.space();
    let at = map_at(&mm, 0x4000_0000, PAGES * PAGE, RW, Map::SHARED).unwrap();
    let child = mm.fork().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (child, mm, done) = (&child, &mm, &done);
        let touchers: Vec<_> = [(1, child), (2, mm)]
            .into_iter()
            .map(|(cpu, mm)| {
                scope.spawn(move || {
                    Sim::set_cpu(cpu);
                    while !done.load(Ordering::Relaxed) {
                        (0..PAGES).for_each(|page| mm.fault(at + page * PAGE, Access::Write).unwrap());
                        mm.advise(at, PAGES * PAGE, madv::DONTNEED).unwrap();
                    }
                })
            })
            .collect();
        Sim::set_cpu(0);
        (0..300).for_each(|_| remove(mm, at, PAGES * PAGE).unwrap());
        done.store(true, Ordering::Relaxed);
        touchers.into_iter().for_each(|toucher| toucher.join().unwrap());
    });
    remove(&mm, at, PAGES * PAGE).unwrap();
    [&mm, &child].into_iter().for_each(|mm| mm.validate());
    drop((mm, child));
    rig.assert_balanced();
    assert_eq!(rig.sim.pages().bad_pages(), 0);
}
