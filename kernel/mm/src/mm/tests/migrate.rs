//! Pages that move to other frames.

use std::boxed::Box;

use quire_abi::flags::{Mremap, madv};

use super::script::Random;
use super::*;
use crate::addr::Pfn;
use crate::fallible::AllocError;
use crate::frame;
use crate::memblock::RegionKind;
use crate::mm::{Mover, Out, PinnedPage, Stays, audit_page, migrate, page_out};
use crate::page::{PageFlags, PageState};
use crate::page_alloc::cma::CmaError;
use crate::pte::{NonPresent, Pte, index};
use crate::seeded::{self, Bug};
use crate::sim::{SimConfig, turns};
use crate::table::entry::Kind;
use crate::table::flush::flush_range;

fn entry(mm: &Space, va: usize) -> Pte {
    mm.entry(UserAddr::new(va))
}

fn pfn(mm: &Space, va: usize) -> Pfn {
    entry(mm, va).addr().pfn()
}

fn to_any(rig: &Rig) -> impl FnOnce() -> Result<Pfn, AllocError> + use<> {
    let sim = rig.sim;
    move || frame::alloc_to_move(sim)
}

#[test]
fn a_page_that_moves_takes_its_contents_and_its_mappings_along() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let at = anon(&rig, &mm, PAGE);
    rig.write(&mm, at, 7).unwrap();
    let child = mm.fork().unwrap();
    let (old, usage) = (pfn(&mm, at), mm.stats().rss_anon);
    assert_eq!(frame::page(rig.sim, old).refs(), 2);
    let new = migrate(rig.sim, old, to_any(&rig)).unwrap();
    assert_ne!(new, old);
    assert_eq!([pfn(&mm, at), pfn(&child, at)], [new, new]);
    assert!(!frame::page(rig.sim, old).state().is_user());
    assert_eq!(frame::page(rig.sim, new).refs(), 2);
    assert!(audit_page(rig.sim, new));
    assert_eq!(mm.stats().rss_anon, usage, "a move charges nobody");
    rig.write(&child, at, 8).unwrap();
    assert_eq!([rig.read(&mm, at), rig.read(&child, at)], [Ok(7), Ok(8)]);
    rig.idle(0);
    drop((mm, child));
    rig.assert_balanced();
}

#[test]
fn a_page_that_somebody_holds_stays() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let at = anon(&rig, &mm, 3 * PAGE);
    for page in 0..3 {
        rig.write(&mm, at + page * PAGE, 7).unwrap();
    }
    let before = [0, 1, 2].map(|page| entry(&mm, at + page * PAGE));
    let stays = |page: usize| migrate(rig.sim, before[page].addr().pfn(), to_any(&rig)).err();
    let held: PinnedPage<_> = mm.pin(at, true).unwrap();
    let pinned = frame::page(rig.sim, before[1].addr().pfn());
    assert!(rig.sim.pages().pin_long_term(before[1].addr().pfn()));
    assert_eq!([stays(0), stays(1)], [Some(Stays::Held); 2]);
    assert!(audit_page(rig.sim, before[1].addr().pfn()), "a pin is in the books");
    assert_eq!(migrate(rig.sim, before[2].addr().pfn(), || Err(AllocError)), Err(Stays::NoMemory));
    assert!(frame::page(rig.sim, before[2].addr().pfn()).isolate(PageState::Anon));
    assert_eq!(stays(2), Some(Stays::NotMovable), "another thread takes it away");
    frame::page(rig.sim, before[2].addr().pfn()).end_isolation();
    crate::rmap::Release::new(rig.sim).page(before[2].addr().pfn());
    assert_eq!([0, 1, 2].map(|page| entry(&mm, at + page * PAGE)), before, "all is as before");
    assert!(!pinned.unpin());
    drop(held);
    for (page, was) in before.iter().enumerate() {
        let old = was.addr().pfn();
        assert_eq!(frame::page(rig.sim, old).refs(), 1);
        assert!(migrate(rig.sim, old, to_any(&rig)).is_ok());
        assert_eq!(rig.read(&mm, at + page * PAGE), Ok(7));
    }
    let zero = anon(&rig, &mm, PAGE);
    rig.read(&mm, zero).unwrap();
    assert_eq!(migrate(rig.sim, pfn(&mm, zero), to_any(&rig)), Err(Stays::NotMovable), "the zero page");
    rig.idle(0);
    drop(mm);
    rig.assert_balanced();
}

#[test]
fn a_page_of_an_object_stays_the_object_s_when_it_moves() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let at = map_at(&mm, 0x10_0000, PAGE, RW, Map::SHARED | Map::FIXED).unwrap();
    rig.write(&mm, at, 7).unwrap();
    let other = mm.fork().unwrap();
    assert_eq!(rig.read(&other, at), Ok(7));
    let old = pfn(&mm, at);
    let usage = [mm.stats().rss_shared, other.stats().rss_shared];
    let new = migrate(rig.sim, old, to_any(&rig)).unwrap();
    assert_eq!([pfn(&mm, at), pfn(&other, at)], [new, new]);
    assert!(audit_page(rig.sim, new) && frame::page(rig.sim, new).flags().contains(PageFlags::DIRTY));
    assert!(!frame::page(rig.sim, old).state().is_user());
    rig.write(&other, at, 8).unwrap();
    assert_eq!(rig.read(&mm, at), Ok(8), "it is one page");
    assert_eq!([mm.stats().rss_shared, other.stats().rss_shared], usage);
    // Whoever maps it later gets the new frame.
    mm.advise(at, PAGE, madv::DONTNEED).unwrap();
    assert_eq!((rig.read(&mm, at), pfn(&mm, at)), (Ok(8), new));
    rig.idle(0);
    drop((mm, other));
    rig.assert_balanced();
}

/// Whether no migration entry is left in parent and child when a page moves, or goes to swap, beside a fork.
fn all_come_back_beside_a_fork(seed: u64) -> bool {
    let rig = Rig::new(16);
    rig.sim.spaces().init_swap(100, 100, 1).unwrap();
    let mm = rig.space();
    let at = anon(&rig, &mm, PAGE);
    rig.write(&mm, at, 7).unwrap();
    let (old, bug, mut child) = (pfn(&mm, at), seeded::current(), None);
    let to_swap = Out { even_raw: true, ..Out::default() };
    let away = || {
        Sim::set_cpu(0);
        if seed.is_multiple_of(2) {
            let _ = migrate(rig.sim, old, to_any(&rig));
        } else {
            let _ = page_out(rig.sim, old, to_swap);
        }
    };
    let fork = || {
        Sim::set_cpu(1);
        seeded::switch(bug);
        child = mm.fork().ok();
    };
    turns::run(seed, 1 + seed as usize % 20, std::vec![Box::new(away), Box::new(fork)]);
    let child = child.unwrap();
    (0..2).for_each(|cpu| rig.idle(cpu));
    let is_back = |mm| !matches!(entry(mm, at).kind(), Some(NonPresent::Migration(_)));
    let all = [&mm, &child].into_iter().all(is_back);
    if all {
        assert_eq!([rig.read(&mm, at), rig.read(&child, at)], [Ok(7); 2], "seed {seed}");
    }
    rig.idle(0);
    drop((mm, child));
    rig.assert_balanced();
    all
}

#[test]
fn a_copy_that_fork_makes_of_an_entry_comes_back_too() {
    assert!((1..400).all(all_come_back_beside_a_fork));
    seeded::switch(Some(Bug::ForkHidesCopyFromMover));
    let noticed = (1..400).any(|seed| !all_come_back_beside_a_fork(seed));
    seeded::switch(None);
    assert!(noticed);
}

/// What a walk leaves behind that missed an area: a migration entry, and nobody moves the page.
#[test]
fn a_fault_drops_an_entry_that_is_left_over_from_a_move() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let at = map_at(&mm, 0x10_0000, PAGE, RW, Map::SHARED | Map::FIXED).unwrap();
    rig.write(&mm, at, 7).unwrap();
    let pte = entry(&mm, at);
    {
        let leaf = mm.tables.walk(UserAddr::new(at)).unwrap();
        let mut guard = leaf.lock();
        let was = guard.take(index(at, 3));
        guard.fill(index(at, 3), was.set_aside(Kind::Shared));
    }
    flush_range(rig.sim, mm.tables.asid(), UserAddr::new(at), UserAddr::new(at + PAGE));
    // As the move would have done with the entry's reference.
    crate::rmap::Release::new(rig.sim).page(pte.addr().pfn());
    let rss = mm.stats().rss_shared;
    assert_eq!((rig.read(&mm, at), mm.stats().rss_shared), (Ok(7), rss));
    rig.idle(0);
    drop(mm);
    rig.assert_balanced();
}

/// Three CPUs use a page of an object through two spaces, while one of them moves it, changes the areas around it, and
/// punches holes: nobody misses a write of their own, except by a hole.
fn move_beside_everything(seed: u64) {
    const PAGES: usize = 3;
    let base = 0x10_0000;
    let rig = Rig::new(16);
    let mm = rig.space();
    map_at(&mm, base, PAGES * PAGE, RW, Map::SHARED | Map::FIXED).unwrap();
    let spaces = [mm.fork().unwrap(), mm];
    let has_holes = seed.is_multiple_of(3);
    let body = |cpu: usize| {
        let (rig, spaces) = (&rig, &spaces);
        move || {
            Sim::set_cpu(cpu);
            let mut random = Random::new(seed << 4 | cpu as u64);
            // Each CPU has words of its own.
            let mut written = [0; PAGES];
            for step in 1..80 {
                let (page, mm) = (random.below(PAGES), &spaces[random.below(2)]);
                let va = base + page * PAGE;
                match random.below(8) {
                    0 if cpu == 0 => drop(mm.protect(va, PAGE, [super::RW, Prot::READ][random.below(2)])),
                    1 if cpu == 0 && has_holes => drop(mm.advise(va, PAGE, madv::REMOVE)),
                    2 if cpu == 0 => {
                        let (away, flags) = (0x20_0000, Mremap::MAYMOVE | Mremap::FIXED);
                        mm.remap(va, PAGE, PAGE, flags, away).unwrap();
                        mm.remap(away, PAGE, PAGE, flags, va).unwrap();
                    }
                    0..4 => {
                        let pte = entry(mm, va);
                        if pte.is_present() && !pte.is_special() {
                            let _ = migrate(rig.sim, pte.addr().pfn(), to_any(rig));
                        }
                    }
                    4 => drop(mm.advise(va, PAGE, madv::DONTNEED)),
                    what => {
                        // (An area may be away, or read-only.)
                        let Ok(held) = mm.pin(va, what != 5) else { continue };
                        // SAFETY: the page is held, for writing if so, and the word is this CPU's alone.
                        let word = unsafe { &mut *held.as_ptr().cast::<u64>().add(cpu) };
                        // While a hole is being made, another space may still have the page of before.
                        let is_right = *word == written[page] || has_holes && *word < step;
                        assert!(is_right, "seed {seed}: {word} in page {page}, not {}", written[page]);
                        written[page] = *word;
                        if what != 5 {
                            (*word, written[page]) = (step, step);
                        }
                    }
                }
            }
        }
    };
    let bodies = (0..3).map(|cpu| Box::new(body(cpu)) as turns::Body).collect();
    turns::run(seed, 1 + seed as usize % 20, bodies);
    for mm in &spaces {
        mm.validate();
        (0..3).for_each(|cpu| rig.idle(cpu));
        for page in 0..PAGES {
            let va = base + page * PAGE;
            rig.read(mm, va).unwrap();
            assert!(audit_page(rig.sim, pfn(mm, va)));
        }
    }
    assert_eq!(rig.sim.pages().bad_pages(), 0);
    rig.idle(0);
    drop(spaces);
    rig.assert_balanced();
}

#[test]
fn shared_pages_move_beside_everything() {
    (1..60).for_each(move_beside_everything);
}

#[test]
fn a_contiguous_area_gets_its_pages_back_from_programs() {
    const MIB: usize = 1 << 20;
    let config = SimConfig::new().bank(1 << 30, 64 * MIB, 0).reserve((1 << 30) + 16 * MIB, 8 * MIB, RegionKind::Cma);
    let rig = Rig::on(Sim::boot(&config), None);
    let area = 8 * MIB / PAGE;
    let mm = rig.space();
    // Nearly all memory, so that the area is lent; then as much as the area is given back elsewhere.
    let pages = rig.sim.pages().total_free() - 1000;
    let at = anon(&rig, &mm, pages * PAGE);
    let value = |page: usize| 1000 + page as u64;
    (0..pages).for_each(|page| rig.write(&mm, at + page * PAGE, value(page)).unwrap());
    let is_there = |page: &usize| entry(&mm, at + page * PAGE).is_present();
    let in_area = |page: &usize| is_there(page) && rig.sim.pages().cma_area_of(pfn(&mm, at + page * PAGE)).is_some();
    for page in (0..pages).filter(|page| !in_area(page)).take(area + 1000) {
        mm.advise(at + page * PAGE, PAGE, madv::DONTNEED).unwrap();
    }
    let lent = (0..pages).filter(in_area).count();
    assert!(lent > area / 2, "{lent} of {area} pages are lent");
    assert_eq!(rig.sim.pages().cma_alloc(0, area, 0, None), Err(CmaError::NoSpace));
    let held = (0..pages).find(|page| in_area(page)).map(|page| mm.pin(at + page * PAGE, false).unwrap());
    assert_eq!(rig.sim.pages().cma_alloc(0, area, 0, Some(&Mover(rig.sim))), Err(CmaError::NoSpace), "one is held");
    drop(held);
    let start = rig.sim.pages().cma_alloc(0, area, 0, Some(&Mover(rig.sim))).unwrap();
    assert_eq!((0..pages).filter(in_area).count(), 0);
    for page in (0..pages).filter(is_there) {
        assert_eq!(rig.read(&mm, at + page * PAGE), Ok(value(page)));
    }
    // SAFETY: allocated above.
    unsafe { rig.sim.pages().cma_release(0, start, area) }.unwrap();
    assert_eq!(rig.sim.pages().validate(), Ok(()));
    rig.idle(0);
    drop(mm);
    rig.assert_balanced();
}

/// Where no other frame is to be had, what has to move goes to swap.
#[test]
fn a_contiguous_area_is_cleared_into_swap_if_there_is_no_room_elsewhere() {
    let start = 1 << 30;
    let config = SimConfig::new().bank(start, 64 << 20, 0).reserve(start + (32 << 20), 16 << 20, RegionKind::Cma);
    let rig = Rig::on(Sim::boot(&config), None);
    let managed = rig.sim.pages().total_managed();
    rig.sim.spaces().init_swap(managed, managed, 1).unwrap();
    let area = rig.sim.pages().cma_info(0).unwrap().pages;
    let mm = rig.space();
    let at = anon(&rig, &mm, managed * PAGE);
    let value = |page: usize| 1000 + page as u64;
    let pages = (0..managed).take_while(|page| rig.write(&mm, at + page * PAGE, value(*page)).is_ok()).count();
    assert!(frame::alloc_to_move(rig.sim).is_err());
    let start = rig.sim.pages().cma_alloc(0, area, 0, Some(&Mover(rig.sim))).unwrap();
    let stored = rig.sim.spaces().swap().stats();
    assert!(stored.used > area * 9 / 10 && stored.frames < area / 10, "{stored:?} of {area} pages");
    // SAFETY: allocated above.
    unsafe { rig.sim.pages().cma_release(0, start, area) }.unwrap();
    // (So that there is room for the slots of those that come back.)
    mm.advise(at, 1000 * PAGE, madv::DONTNEED).unwrap();
    assert!((1000..pages).all(|page| rig.read(&mm, at + page * PAGE) == Ok(value(page))));
    rig.idle(0);
    drop(mm);
    rig.assert_balanced();
}
