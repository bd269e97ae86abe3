//! Stores by mappings: each first one to a clean page is noticed.

use core::mem::ManuallyDrop;

use quire_abi::flags::{Mremap, madv};

use std::collections::HashSet;

use super::*;
use crate::addr::Pfn;
use crate::fallible::AllocError;
use crate::frame;
use crate::mm::migrate;
use crate::sim::Call;
use crate::sim::mmu::Sabotage;

/// A program that another thread runs as well.
fn program(scene: &Scene) -> Rig {
    Rig { sim: scene.rig.sim, mmu: scene.rig.mmu.clone(), free: 0 }
}

fn to_any(sim: &'static Sim) -> impl FnOnce() -> Result<Pfn, AllocError> {
    move || frame::alloc_to_move(sim)
}

/// With hardware that makes entries dirty, and without.
fn both(check: impl Fn(Scene)) {
    for hardware in [false, true] {
        let rig = Rig::new(16);
        if hardware {
            rig.sim.spaces().set_hardware_updates();
        }
        check(Scene::on(rig, pages(8, 0)));
    }
}

/// Stores and write-backs, perhaps with one call to the machine left out: a store needs one fault at most, and each one after a write-back is noticed.
pub(in crate::mm::tests) fn run_script(without: Option<Call>) -> HashSet<Call> {
    let scene = Scene::on(Rig::broken(16, without.map(Sabotage::Without)), pages(2, 0));
    let mm = scene.space();
    scene.map(&mm, AT, 2, Map::SHARED);
    for round in 1..4 {
        scene.rig.read(&mm, AT).unwrap();
        Sim::set_cpu(0);
        scene.rig.mmu.load(0, Some(mm.activate(0)));
        if scene.rig.mmu.access(0, AT, Access::Write).is_err() {
            mm.fault(AT, Access::Write).unwrap();
            scene.rig.mmu.access(0, AT, Access::Write).expect("one fault is enough");
        }
        scene.rig.write(&mm, AT, round).unwrap();
        assert_eq!(scene.marked(), [0], "round {round}");
        scene.write_back().unwrap();
        assert_eq!((scene.marked(), u64::from(scene.disk.at(0))), (std::vec![], round));
    }
    let calls = scene.rig.mmu.calls();
    drop(mm);
    scene.end();
    calls
}

#[test]
fn the_first_store_marks_and_each_store_reaches_the_disk() {
    notices(&[Bug::StoreIsNotMarked, Bug::WriteBackLeavesEntries, Bug::WriteBackForgetsFlush], || both(store_again));
}

fn store_again(scene: Scene) {
    let scene = ManuallyDrop::new(scene);
    let (mm, other) = (scene.space(), scene.space());
    scene.map(&mm, AT, 8, Map::SHARED);
    scene.map(&other, THERE, 8, Map::SHARED);
    // A read maps it for reading only, its neighbours too.
    scene.rig.read(&mm, AT + PAGE).unwrap();
    for page in 1..4 {
        let pte = entry(&mm, AT + page * PAGE);
        assert!(pte.is_present() && !pte.is_writable() && !pte.is_writable_clean(), "page {page}");
    }
    assert_eq!(scene.marked(), []);
    for round in 1..4_u64 {
        // By either space, the second one beside the first.
        scene.rig.write(&mm, AT + PAGE, 10 * round).unwrap();
        assert_eq!(scene.marked(), [1]);
        assert!(entry(&mm, AT + PAGE).is_writable());
        scene.rig.write(&other, THERE + PAGE + 8, 10 * round + 1).unwrap();
        scene.rig.write(&other, THERE + 5 * PAGE, 10 * round + 2).unwrap();
        assert_eq!(scene.marked(), [1, 5]);
        assert_eq!(scene.write_back(), Ok(()));
        assert_eq!(scene.marked(), []);
        for pte in [entry(&mm, AT + PAGE), entry(&other, THERE + PAGE), entry(&other, THERE + 5 * PAGE)] {
            assert!(pte.is_present() && !pte.is_writable() && !pte.is_dirty(), "{pte:?}");
        }
        let at = [PAGE, PAGE + 8, 5 * PAGE].map(|at| u64::from(scene.disk.at(at)));
        assert_eq!(at, [10 * round, 10 * round + 1, 10 * round + 2]);
        // Beside a write to the same page.
        scene.rig.write(&mm, AT + 2 * PAGE, round).unwrap();
        scene.write(2 * PAGE + 8, &[round as u8]).unwrap();
        scene.write_back().unwrap();
        assert_eq!([2 * PAGE, 2 * PAGE + 8].map(|at| scene.disk.at(at)), [round as u8; 2]);
    }
    [&mm, &other].iter().for_each(|mm| mm.validate());
    scene.rig.idle(0);
    drop((mm, other));
    ManuallyDrop::into_inner(scene).end();
}

#[test]
fn mprotect_lets_no_store_go_unnoticed() {
    notices(&[Bug::ProtectForgetsNotice], || both(protect));
}

fn protect(scene: Scene) {
    let scene = ManuallyDrop::new(scene);
    let mm = scene.space();
    scene.map(&mm, AT, 8, Map::SHARED);
    scene.rig.read(&mm, AT).unwrap();
    scene.rig.write(&mm, AT + PAGE, 5).unwrap();
    for round in 1..4 {
        mm.protect(AT, 8 * PAGE, Prot::READ).unwrap();
        assert_eq!(scene.rig.write(&mm, AT + PAGE, 1), Err(FaultError::Protection));
        if round == 2 {
            // What was written before is still to be written back.
            assert_eq!(scene.write_back(), Ok(()));
        }
        mm.protect(AT, 8 * PAGE, RW).unwrap();
        scene.write_back().unwrap();
        mm.protect(AT, 8 * PAGE, Prot::empty()).unwrap();
        mm.protect(AT, 8 * PAGE, RW).unwrap();
        assert_eq!(scene.marked(), []);
        for page in 0..3 {
            scene.rig.write(&mm, AT + page * PAGE, 10 * round + page as u64).unwrap();
        }
        assert_eq!(scene.marked(), [0, 1, 2]);
        scene.write_back().unwrap();
        assert_eq!(
            [0, 1, 2].map(|page| u64::from(scene.disk.at(page * PAGE))),
            [0, 1, 2].map(|page| 10 * round + page)
        );
        // Written, read-only for a time, and written again without being written back.
        scene.rig.write(&mm, AT, 3).unwrap();
        mm.protect(AT, PAGE, Prot::READ).unwrap();
        mm.protect(AT, PAGE, RW).unwrap();
        assert!(entry(&mm, AT).is_writable(), "it is marked");
        scene.rig.write(&mm, AT, 4).unwrap();
        scene.write_back().unwrap();
        assert_eq!(scene.disk.at(0), 4);
    }
    mm.validate();
    scene.rig.idle(0);
    drop(mm);
    ManuallyDrop::into_inner(scene).end();
}

#[test]
fn children_and_moved_areas_notice_as_well() {
    both(|scene| {
        let mm = scene.space();
        scene.map(&mm, AT, 8, Map::SHARED);
        scene.rig.write(&mm, AT, 1).unwrap();
        let child = mm.fork().unwrap();
        scene.rig.write(&child, AT, 2).unwrap();
        scene.rig.write(&child, AT + PAGE, 3).unwrap();
        scene.write_back().unwrap();
        assert_eq!((scene.disk.at(0), scene.disk.at(PAGE), scene.marked()), (2, 3, vec![]));
        // Elsewhere, larger, and a second time.
        let flags = Mremap::MAYMOVE | Mremap::FIXED;
        scene.rig.write(&child, AT, 4).unwrap();
        child.remap(AT, 4 * PAGE, 6 * PAGE, flags, THERE).unwrap();
        let twice = child.remap(THERE, 0, 6 * PAGE, Mremap::MAYMOVE, 0).unwrap().get();
        scene.rig.write(&child, THERE + PAGE, 5).unwrap();
        scene.rig.write(&child, twice + 5 * PAGE, 6).unwrap();
        assert_eq!(scene.marked(), [0, 1, 5]);
        scene.write_back().unwrap();
        assert_eq!([0, PAGE, 5 * PAGE].map(|at| scene.disk.at(at)), [4, 5, 6]);
        assert_eq!(scene.marked(), []);
        for (mm, at, page) in [(&mm, AT, 0), (&mm, AT, 1), (&child, THERE, 0), (&child, twice, 1), (&child, THERE, 5)] {
            scene.rig.write(mm, at + page * PAGE, 10 + page as u64).unwrap();
            assert_eq!(scene.marked(), [page]);
            scene.write_back().unwrap();
            assert_eq!(usize::from(scene.disk.at(page * PAGE)), 10 + page);
        }
        // What a space has stored stays marked when it ends, or lets go of the page.
        scene.rig.write(&child, twice, 20).unwrap();
        scene.rig.write(&mm, AT + PAGE, 21).unwrap();
        scene.rig.write(&mm, AT + 2 * PAGE, 22).unwrap();
        mm.unmap(AT + PAGE, PAGE).unwrap();
        mm.advise(AT + 2 * PAGE, PAGE, madv::DONTNEED).unwrap();
        scene.rig.idle(0);
        drop(child);
        assert_eq!(scene.marked(), [0, 1, 2]);
        assert_eq!(scene.drop_cache(), 3);
        scene.write_back().unwrap();
        assert_eq!([0, PAGE, 2 * PAGE].map(|at| scene.disk.at(at)), [20, 21, 22]);
        // Everything by one call.
        mm.advise(AT + 2 * PAGE, 6 * PAGE, madv::POPULATE_WRITE).unwrap();
        assert_eq!(scene.marked(), [2, 3, 4, 5, 6, 7]);
        mm.validate();
        drop(mm);
        scene.end();
    });
}

/// A private mapping is no store to the file.
#[test]
fn private_copies_mark_nothing() {
    both(|scene| {
        let mm = scene.space();
        scene.map(&mm, AT, 8, Map::PRIVATE);
        scene.rig.read(&mm, AT).unwrap();
        scene.rig.write(&mm, AT, 1).unwrap();
        scene.rig.write(&mm, AT + PAGE, 1).unwrap();
        let child = mm.fork().unwrap();
        scene.rig.write(&child, AT, 2).unwrap();
        mm.protect(AT, 8 * PAGE, Prot::READ).unwrap();
        mm.protect(AT, 8 * PAGE, RW).unwrap();
        scene.rig.write(&mm, AT + 2 * PAGE, 1).unwrap();
        assert_eq!((scene.marked(), scene.word(0), scene.word(2)), (vec![], Ok(word_of(0)), Ok(word_of(2))));
        scene.rig.idle(0);
        drop((mm, child));
        scene.end();
    });
}

#[test]
fn a_page_that_has_moved_asks_before_it_is_written() {
    notices(&[Bug::MoveForgetsNotice], || both(move_away));
}

fn move_away(scene: Scene) {
    let scene = ManuallyDrop::new(scene);
    let (mm, other) = (scene.space(), scene.space());
    scene.map(&mm, AT, 8, Map::SHARED);
    scene.map(&other, AT, 8, Map::SHARED);
    scene.rig.write(&mm, AT, 1).unwrap();
    scene.rig.read(&other, AT).unwrap();
    let old = scene.pfn(0);
    let new = migrate(scene.rig.sim, old, to_any(scene.rig.sim)).unwrap();
    assert_eq!((scene.pfn(0), scene.marked()), (new, vec![0]));
    assert_eq!([entry(&mm, AT), entry(&other, AT)].map(|pte| (pte.addr().pfn(), pte.is_writable())), [(new, false); 2]);
    assert_eq!(scene.rig.read(&other, AT), Ok(1));
    scene.write_back().unwrap();
    assert_eq!((scene.disk.at(0), scene.marked()), (1, vec![]));
    scene.rig.write(&other, AT, 2).unwrap();
    assert_eq!(scene.marked(), [0]);
    // It moves while the pager writes it: it stays, since the write has a reference.
    let (sim, file) = (scene.rig.sim, scene.file.clone());
    let hook = move || {
        let pfn = file.look_at(0).unwrap().unwrap();
        assert_eq!(migrate(sim, pfn, to_any(sim)), Err(Stays::Held));
        assert_eq!(page_out(sim, pfn, OUT), Err(Stays::Held));
    };
    scene.disk.lock().during_write = Some(Box::new(hook));
    scene.write_back().unwrap();
    assert_eq!((scene.disk.at(0), scene.marked()), (2, vec![]));
    scene.rig.write(&mm, AT, 3).unwrap();
    assert_eq!(scene.marked(), [0]);
    // In the middle of a move the page is written back.
    let (file, pfn) = (scene.file.clone(), scene.pfn(0));
    let alloc = || {
        Object::turn(&file).unwrap().write_back().unwrap();
        frame::alloc_to_move(scene.rig.sim)
    };
    assert!(migrate(scene.rig.sim, pfn, alloc).is_ok());
    scene.rig.write(&mm, AT, 4).unwrap();
    assert_eq!(scene.marked(), [0]);
    scene.write_back().unwrap();
    assert_eq!(scene.disk.at(0), 4);
    scene.rig.idle(0);
    drop((file, mm, other));
    ManuallyDrop::into_inner(scene).end();
}

/// Whoever holds a page may store to it at any time: it is written again until nobody does.
#[test]
fn a_page_that_is_held_stays_marked() {
    notices(&[Bug::WriteBackTrustsWalk], hold_and_store);
}

fn hold_and_store() {
    let scene = ManuallyDrop::new(Scene::new(pages(8, 0)));
    let mm = scene.space();
    scene.map(&mm, AT, 8, Map::SHARED);
    let held = mm.pin(AT + PAGE, true).unwrap();
    assert_eq!((scene.marked(), scene.write_back()), (vec![1], Ok(())));
    // SAFETY: the page is held for writing.
    unsafe { held.as_ptr().write(99) };
    drop(held);
    assert_eq!((scene.marked(), scene.write_back()), (vec![1], Ok(())));
    assert_eq!((scene.disk.at(PAGE), scene.marked()), (99, vec![]));
    // Not held, but by a device.
    scene.rig.write(&mm, AT + PAGE, 5).unwrap();
    let pfn = scene.pfn(1);
    assert!(scene.rig.sim.pages().pin_long_term(pfn));
    assert_eq!((scene.write_back(), scene.marked()), (Ok(()), vec![1]));
    // SAFETY: as a device does.
    unsafe { scene.rig.sim.direct_map(pfn.addr()).write(98) };
    assert!(!frame::page(scene.rig.sim, pfn).unpin());
    assert_eq!((scene.write_back(), scene.disk.at(PAGE), scene.marked()), (Ok(()), 98, vec![]));
    // For reading: an entry that is read-only stays so, and nobody holds it for writing.
    let held = mm.pin(AT + PAGE, false).unwrap();
    drop(held);
    assert!(mm.pin_resident(AT + PAGE, true).is_none());
    drop(mm.pin(AT + PAGE, true).unwrap());
    assert_eq!(scene.marked(), [1]);
    scene.rig.idle(0);
    drop(mm);
    ManuallyDrop::into_inner(scene).end();
}

/// A program stores a counter to a page, again and again, while others write it back, move it, let go of it, and change the areas. In the end
/// the disk has the last number of each.
fn store_beside_everything(seed: u64) {
    let rig = Rig::new(16);
    rig.mmu.set_chance(seed, crate::sim::mmu::Drain::Late);
    if seed.is_multiple_of(2) {
        rig.sim.spaces().set_hardware_updates();
    }
    let scene = Scene::on(rig, pages(4, 0));
    let (mm, other) = (scene.space(), scene.space());
    scene.map(&mm, AT, 4, Map::SHARED);
    scene.map(&other, AT, 4, Map::SHARED);
    let bug = seeded::current();
    let on = |cpu, work: Box<dyn Fn() + Send>| -> turns::Body { body(cpu, bug, work) };
    let rig = program(&scene);
    let (file, sim) = (&scene.file, scene.rig.sim);
    let stores = |rig, mm, cpu: usize| {
        let (rig, mm): (&Rig, &Space) = (rig, mm);
        move || {
            for n in 1..12_u64 {
                let page = n as usize % 2;
                let va = AT + page * PAGE + 8 * cpu;
                // (It may be read-only just now.)
                if let Ok(at) = rig.touch(cpu, mm, va, Access::Write) {
                    // SAFETY: the MMU allows it, and the turn does not pass in between; only this thread has the word.
                    unsafe { at.cast::<u64>().write(n) };
                }
            }
        }
    };
    let bodies = [
        on(0, Box::new(stores(&rig, &mm, 0))),
        on(1, Box::new(stores(&rig, &other, 1))),
        on(
            2,
            Box::new(move || {
                (0..6).for_each(|_| Object::turn(file).unwrap().write_back().unwrap());
            }),
        ),
        on(3, {
            let other = &other;
            Box::new(move || {
                for n in 0..10 {
                    if let Some(Ok(pfn)) = file.look_at(n % 2) {
                        match (n + seed as usize) % 5 {
                            0 | 1 => _ = migrate(sim, pfn, to_any(sim)),
                            2 => _ = page_out(sim, pfn, OUT),
                            3 => {
                                other.protect(AT, 2 * PAGE, Prot::READ).unwrap();
                                other.protect(AT, 2 * PAGE, RW).unwrap();
                            }
                            _ => other.advise(AT, PAGE, madv::DONTNEED).unwrap(),
                        }
                    }
                }
            })
        }),
    ];
    turns::run(seed, 1 + seed as usize % 20, bodies.into());
    Sim::set_cpu(0);
    let seen = scene.read(0, 2 * PAGE).unwrap();
    scene.write_back().unwrap();
    assert_eq!(scene.marked(), []);
    let disk = scene.disk.bytes();
    for at in [0, 8, PAGE, PAGE + 8] {
        assert_eq!(disk[at..at + 8], seen[at..at + 8], "seed {seed}, {at:#x}");
    }
    assert_eq!(disk[PAGE], 11);
    scene.rig.idle(0);
    [&mm, &other].iter().for_each(|mm| mm.validate());
    (0..4).for_each(|cpu| scene.rig.idle(cpu));
    drop((mm, other));
    scene.end();
}

#[test]
fn no_store_is_lost_beside_write_back() {
    (1..200).for_each(store_beside_everything);
}
