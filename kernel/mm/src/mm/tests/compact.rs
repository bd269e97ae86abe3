//! Compaction on the simulated machine: programs whose pages lie scattered, and whole page blocks made of what is between them.

use std::boxed::Box;
use std::vec::Vec;

use quire_abi::flags::madv;

use super::script::Random;
use super::*;
use crate::addr::Pfn;
use crate::buddy::{MigrateType, PAGEBLOCK_ORDER, PAGEBLOCK_PAGES};
use crate::event::Event;
use crate::mm::Mover;
use crate::page::PageState;
use crate::page_alloc::{Gfp, PageBlock};
use crate::sim::turns;

fn machine(mib: usize) -> Rig {
    let rig = Rig::new(mib);
    rig.sim.pages().set_mover(Box::leak(Box::new(Mover(rig.sim))));
    rig
}

/// Whole free page blocks.
fn whole(rig: &Rig) -> usize {
    rig.sim.pages().drain_all();
    let large = |blocks: [u64; 11]| blocks[9] as usize + 2 * blocks[10] as usize;
    rig.sim.pages().zones().map(|zone| large(zone.free_blocks())).sum()
}

/// A program with pages in nearly all of memory, of which it keeps those that `keeps` names.
fn scattered(rig: &Rig, mm: &Space, keeps: impl Fn(usize) -> bool) -> (usize, usize) {
    let pages = rig.sim.pages().total_free() - 600;
    let at = anon(rig, mm, pages * PAGE);
    (0..pages).for_each(|page| rig.write(mm, at + page * PAGE, page as u64 + 1).unwrap());
    for page in (0..pages).filter(|page| !keeps(*page)) {
        mm.advise(at + page * PAGE, PAGE, madv::DONTNEED).unwrap();
    }
    (at, pages)
}

fn check(rig: &Rig, mm: &Space, (at, pages): (usize, usize), keeps: impl Fn(usize) -> bool) {
    for page in 0..pages {
        let expected = if keeps(page) { page as u64 + 1 } else { 0 };
        assert_eq!(rig.read(mm, at + page * PAGE), Ok(expected), "page {page}");
    }
}

fn end(rig: Rig, mm: Space) {
    rig.idle(0);
    drop(mm);
    rig.sim.pages().drain_all();
    rig.sim.pages().validate().unwrap();
    rig.assert_balanced();
}

/// Every second page is in use: half of the blocks can be made whole, less those that have the kernel's pages.
#[test]
fn a_checkerboard_becomes_two_halves() {
    let rig = machine(64);
    let mm = rig.space();
    let keeps = |page: usize| page.is_multiple_of(2);
    let program = scattered(&rig, &mm, keeps);
    let before = whole(&rig);
    let done = rig.sim.pages().compact();
    let possible = rig.sim.pages().total_free() / PAGEBLOCK_PAGES;
    let now = whole(&rig);
    assert_eq!(now, before + done.blocks);
    assert!(now * 100 >= possible * 90, "{now} whole blocks of {possible} that there could be");
    check(&rig, &mm, program, keeps);
    end(rig, mm);
}

/// The emptiest blocks go first, and no page moves twice.
#[test]
fn as_few_pages_move_as_can() {
    let rig = machine(64);
    let mm = rig.space();
    // One page in 16 of the first half of them, 15 of the second.
    let half = rig.sim.pages().total_free() / 2;
    let keeps = move |page: usize| (page < half) == page.is_multiple_of(16);
    let program = scattered(&rig, &mm, keeps);
    whole(&rig);
    let moved_before = rig.sim.counted(Event::PageMoved);
    let done = rig.sim.pages().compact();
    let moved = rig.sim.counted(Event::PageMoved) - moved_before;
    assert!(done.blocks >= half / PAGEBLOCK_PAGES - 3, "{done:?}");
    assert!(moved <= done.blocks * (PAGEBLOCK_PAGES / 16 + 8), "{moved} pages moved for {done:?}");
    check(&rig, &mm, program, keeps);
    end(rig, mm);
}

/// A second compaction has nothing to do.
#[test]
fn what_is_whole_is_left_alone() {
    let rig = machine(64);
    let mm = rig.space();
    let keeps = |page: usize| page.is_multiple_of(3);
    let program = scattered(&rig, &mm, keeps);
    rig.sim.pages().compact();
    let (moved, now) = (rig.sim.counted(Event::PageMoved), whole(&rig));
    let again = rig.sim.pages().compact();
    assert_eq!((again.blocks, whole(&rig)), (0, now));
    assert_eq!(rig.sim.counted(Event::PageMoved), moved);
    check(&rig, &mm, program, keeps);
    end(rig, mm);
}

/// Pins, and pages of the kernel's, keep their blocks; the pages beside them stay or move, and have their contents.
#[test]
fn what_stays_keeps_its_block() {
    let rig = machine(64);
    let mm = rig.space();
    let keeps = |page: usize| page.is_multiple_of(2);
    let program = scattered(&rig, &mm, keeps);
    let pins: Vec<_> =
        (0..program.1).step_by(2 * 700).map(|page| mm.pin(program.0 + page * PAGE, true).unwrap()).collect();
    let frames: Vec<_> = pins.iter().map(|pin| pin.as_ptr()).collect();
    let done = rig.sim.pages().compact();
    assert!(done.kept >= 1 && done.blocks >= 1, "{done:?}");
    assert_eq!(pins.iter().map(|pin| pin.as_ptr()).collect::<Vec<_>>(), frames);
    drop(pins);
    check(&rig, &mm, program, keeps);
    end(rig, mm);
}

/// A request for a high order, of any kind, is served out of the middle of a program; nothing is reclaimed for it.
#[test]
fn a_large_request_is_served() {
    for gfp in [Gfp::KERNEL, Gfp::HIGHUSER_MOVABLE, Gfp::KERNEL | Gfp::RECLAIMABLE] {
        let rig = machine(64);
        let mm = rig.space();
        let keeps = |page: usize| page.is_multiple_of(2);
        let program = scattered(&rig, &mm, keeps);
        rig.sim.pages().drain_all();
        let mut blocks: Vec<PageBlock<&'static Sim>> = Vec::new();
        for order in [1, 3, 5, 9, 2, 9, 4, 1] {
            let block = rig.sim.pages().alloc_pages(order, gfp).unwrap();
            let first = block.pfn().0;
            assert!(first.is_multiple_of(1 << order));
            let inside = |pfn: usize| rig.sim.pages().frames().page(Pfn(pfn)).state();
            assert!((first + 1..first + (1 << order)).all(|pfn| inside(pfn) == PageState::Absent));
            // SAFETY: the block is the test's own.
            unsafe { block.as_ptr().write_bytes(0xee, PAGE << order) };
            blocks.push(block);
        }
        assert_ne!(rig.sim.counted(Event::CompactSuccess), 0);
        check(&rig, &mm, program, keeps);
        drop(blocks);
        end(rig, mm);
    }
}

/// What cannot move is taken out of the blocks of its own type, while there is room.
#[test]
fn types_stay_together() {
    let rig = machine(64);
    let mm = rig.space();
    let keeps = |page: usize| page.is_multiple_of(2);
    let program = scattered(&rig, &mm, keeps);
    rig.sim.pages().drain_all();
    let blocks: Vec<_> = (0..100).map(|_| rig.sim.pages().alloc_pages(2, Gfp::KERNEL).unwrap()).collect();
    let mut homes: Vec<_> = blocks.iter().map(|block| block.pfn().0 >> PAGEBLOCK_ORDER).collect();
    homes.sort_unstable();
    homes.dedup();
    assert!(homes.len() <= 4, "100 blocks of four pages are in {} page blocks", homes.len());
    let types = homes.iter().map(|home| rig.sim.pages().pageblocks().of(Pfn(home << PAGEBLOCK_ORDER)).migrate_type());
    assert!(types.filter(|kind| *kind == MigrateType::Movable).count() <= 1);
    check(&rig, &mm, program, keeps);
    drop(blocks);
    end(rig, mm);
}

/// Wherever the thread is killed, nothing is lost.
#[test]
fn a_killed_thread_gives_all_back() {
    let rig = machine(32);
    let mm = rig.space();
    let keeps = |page: usize| page.is_multiple_of(2);
    let program = scattered(&rig, &mm, keeps);
    for lives in (0..60).chain((60..2000).step_by(97)) {
        Sim::kill_after(lives);
        rig.sim.pages().compact();
        Sim::kill_after(usize::MAX);
        rig.sim.pages().drain_all();
        rig.sim.pages().validate().unwrap();
    }
    check(&rig, &mm, program, keeps);
    end(rig, mm);
}

/// Programs on two CPUs write to their pages, give pages up and pin them, while a third one compacts and asks for large
/// blocks.
#[test]
fn programs_go_on_beside_it() {
    (1..25).for_each(beside);
}

fn beside(seed: u64) {
    const PAGES: usize = 4096;
    let rig = machine(32);
    let mm = rig.space();
    let base = anon(&rig, &mm, PAGES * PAGE);
    (0..PAGES).for_each(|page| rig.write(&mm, base + page * PAGE, 0).unwrap());
    for page in (0..PAGES).filter(|page| !page.is_multiple_of(3)) {
        mm.advise(base + page * PAGE, PAGE, madv::DONTNEED).unwrap();
    }
    let compacts = || {
        Sim::set_cpu(0);
        for order in 1..6 {
            rig.sim.pages().compact();
            drop(rig.sim.pages().alloc_pages(order + 3, Gfp::KERNEL | Gfp::NORETRY | Gfp::NOWARN));
        }
    };
    let body = |cpu: usize| {
        let (rig, mm) = (&rig, &mm);
        move || {
            Sim::set_cpu(cpu);
            let mut random = Random::new(seed << 4 | cpu as u64);
            // Each CPU has pages of its own.
            let mut written = std::collections::BTreeMap::new();
            for step in 1..400_u64 {
                let page = random.below(PAGES / 2) * 2 + cpu - 1;
                if random.below(4) == 0 {
                    mm.advise(base + page * PAGE, PAGE, madv::DONTNEED).unwrap();
                    written.insert(page, 0);
                    continue;
                }
                let held = mm.pin(base + page * PAGE, true).unwrap();
                // SAFETY: the page is held for writing, and this CPU's alone.
                let word = unsafe { &mut *held.as_ptr().cast::<u64>() };
                assert_eq!(*word, *written.entry(page).or_insert(0), "seed {seed}, page {page}");
                (*word, _) = (step, written.insert(page, step));
                if random.below(16) == 0 {
                    rig.sim.pages().drain_cpu(cpu);
                }
            }
        }
    };
    let bodies: Vec<turns::Body> = [Box::new(compacts) as turns::Body, Box::new(body(1)), Box::new(body(2))].into();
    turns::run(seed, 1 + seed as usize % 20, bodies);
    mm.validate();
    (0..3).for_each(|cpu| rig.idle(cpu));
    for page in 0..PAGES {
        rig.read(&mm, base + page * PAGE).unwrap();
    }
    assert_eq!(rig.sim.pages().bad_pages(), 0);
    end(rig, mm);
}

/// The free frames of a block that is being emptied are nobody's meanwhile: where memory is short, no block is.
#[test]
fn it_is_not_for_memory_that_is_short() {
    let rig = machine(64);
    let mm = rig.space();
    let keeps = |page: usize| page.is_multiple_of(2);
    let program = scattered(&rig, &mm, keeps);
    rig.sim.pages().drain_all();
    let zone = || rig.sim.pages().zones().find(|zone| zone.managed() != 0).unwrap();
    let mut held = Vec::new();
    while zone().free() > zone().watermarks().min + 200 {
        held.push(rig.sim.pages().alloc_page(Gfp::KERNEL | Gfp::NORETRY | Gfp::NOWARN).unwrap());
        rig.sim.pages().drain_all();
    }
    let (blocks, moved) = (whole(&rig), rig.sim.counted(Event::PageMoved));
    assert_eq!(rig.sim.pages().compact().blocks, 0);
    assert_eq!((whole(&rig), rig.sim.counted(Event::PageMoved)), (blocks, moved));
    drop(held);
    check(&rig, &mm, program, keeps);
    end(rig, mm);
}

/// A few pages are got together where memory is nearly short, out of a block that is nearly full.
#[test]
fn a_small_request_needs_little_spare_memory() {
    let rig = machine(64);
    let mm = rig.space();
    // One page in 16 is free in half of memory, every second one in the other half.
    let half = rig.sim.pages().total_free() / 2;
    let keeps = move |page: usize| if page < half { !page.is_multiple_of(16) } else { page.is_multiple_of(2) };
    let program = scattered(&rig, &mm, keeps);
    rig.sim.pages().drain_all();
    let zone = || rig.sim.pages().zones().find(|zone| zone.managed() != 0).unwrap();
    let mut held = Vec::new();
    while zone().free() > zone().watermarks().low + 150 {
        held.push(rig.sim.pages().alloc_page(Gfp::KERNEL | Gfp::NORETRY | Gfp::NOWARN).unwrap());
        rig.sim.pages().drain_all();
    }
    drop(rig.sim.pages().alloc_pages(2, Gfp::KERNEL).unwrap());
    assert_eq!(rig.sim.counted(Event::CompactSuccess), 1);
    drop(held);
    check(&rig, &mm, program, keeps);
    end(rig, mm);
}
