//! Pages of memory objects that go to swap: directed cases. The oracles have random ones.

use std::boxed::Box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::vec;
use std::vec::Vec;

use quire_abi::flags::madv;

use super::*;
use crate::addr::Pfn;
use crate::frame;
use crate::mm::Stays;
use crate::mm::page_out::{Out, page_out};
use crate::object::{Object, ObjectError};
use crate::page::PageFlags;
use crate::reclaim::Reclaim;
use crate::seeded::{self, Bug};
use crate::sim::mmu::Drain;
use crate::sim::turns;
use crate::supply::Supply;

type File = KArc<Object<&'static Sim>>;

const AT: usize = 0x4000_0000;
const PAGES: usize = 8;
const OUT: Out = Out { shadow: 3, even_raw: true, if_unused: false, if_given_up: false };

fn rig() -> Rig {
    let rig = Rig::new(16);
    rig.sim.spaces().init_swap(1 << 12, 1 << 12, 1).unwrap();
    rig
}

fn map(mm: &Space, file: &File, at: usize, flags: Map) {
    let request = MapRequest {
        addr: at,
        len: PAGES * PAGE,
        prot: RW,
        flags: flags | Map::FIXED,
        object: Some((file.clone(), 0)),
        max_prot: Prot::all(),
    };
    mm.map(&request).unwrap();
}

/// A file of [`PAGES`] pages, each of which begins with its number plus 1 as a word.
fn file(rig: &Rig) -> File {
    let file = Object::file(rig.sim, 0).unwrap();
    let mut turn = Object::turn(&file).unwrap();
    for page in 0..PAGES {
        let copied = turn.write((page * PAGE) as u64, PAGE, &Supply::new(rig.sim), |to, n| {
            // SAFETY: a page's bytes, which only this thread accesses.
            unsafe {
                to.write_bytes(0x11, n);
                to.cast::<u64>().write(page as u64 + 1);
            }
            n
        });
        assert_eq!(copied, Ok(PAGE));
    }
    drop(turn);
    file
}

/// The first word of a page, as a call reads it.
fn word(file: &File, page: usize) -> Result<u64, ObjectError> {
    loop {
        let mut word = 0;
        let copy = |from: *const u8, n: usize| {
            // SAFETY: the page's bytes.
            word = unsafe { from.cast::<u64>().read() };
            n
        };
        match file.read((page * PAGE) as u64, 8, copy) {
            Some(0) => _ = file.bring_in_at((page * PAGE) as u64)?,
            _ => return Ok(word),
        }
    }
}

fn take_away(rig: &Rig, file: &File, page: usize) -> Result<(), Stays> {
    page_out(rig.sim, file.look_at(page).unwrap().unwrap(), OUT)
}

fn used(rig: &Rig) -> usize {
    rig.sim.spaces().swap().stats().used
}

#[test]
fn a_page_leaves_all_who_map_it_and_comes_back_to_all() {
    leave_and_come_back();
    seeded::switch(Some(Bug::BringInIsClean));
    let noticed = catch_unwind(leave_and_come_back).is_err();
    seeded::switch(None);
    assert!(noticed);
}

fn leave_and_come_back() {
    let rig = core::mem::ManuallyDrop::new(rig());
    let file = file(&rig);
    let (mm, other) = (rig.space(), rig.space());
    map(&mm, &file, AT, Map::SHARED);
    map(&other, &file, AT, Map::PRIVATE);
    rig.write(&mm, AT + PAGE, 7).unwrap();
    assert_eq!(rig.read(&other, AT + PAGE), Ok(7));
    let child = mm.fork().unwrap();
    assert_eq!(rig.read(&child, AT + PAGE), Ok(7));
    // Every space has its neighbours too.
    let (before, pfn) = (mm.rss() + other.rss() + child.rss(), file.look_at(1).unwrap().unwrap());
    assert_eq!(take_away(&rig, &file, 1), Ok(()));
    assert!(!frame::page(rig.sim, pfn).state().is_user());
    assert!([&mm, &other, &child].iter().all(|mm| !mm.entry(UserAddr::new(AT + PAGE)).is_present()));
    assert_eq!((before - mm.rss() - other.rss() - child.rss(), used(&rig)), (3, 1));
    assert!(file.has(1) && !file.is_resident(1) && file.is_swapped(1));
    assert_eq!((file.owned_pages(), file.next_hole(0)), (PAGES, Ok(Some((PAGES * PAGE) as u64))));
    let mut there = Vec::new();
    mm.in_core(AT, 3 * PAGE, |_, is_there| there.push(is_there)).unwrap();
    assert_eq!(there, [true, false, true]);
    let swapped = |mm: &Space| mm.usage_from(UserAddr::new(AT), |_, usage, _| usage.swapped);
    assert_eq!([swapped(&mm), swapped(&other)], [Some(1); 2]);
    // A private copy of a page that is away.
    rig.write(&other, AT + PAGE, 9).unwrap();
    assert_eq!((used(&rig), swapped(&mm)), (0, Some(0)));
    assert_eq!([rig.read(&mm, AT + PAGE), rig.read(&child, AT + PAGE)], [Ok(7); 2]);
    assert_eq!((rig.read(&other, AT + PAGE), word(&file, 1)), (Ok(9), Ok(7)));
    let flags = frame::page(rig.sim, file.look_at(1).unwrap().unwrap()).flags();
    assert!(flags.contains(PageFlags::DIRTY | PageFlags::RETURNED));
    [&mm, &other, &child].iter().for_each(|mm| mm.validate());
    rig.idle(0);
    drop((mm, other, child, file));
    rig.assert_balanced();
}

#[test]
fn locked_pinned_held_and_used_pages_stay() {
    let rig = rig();
    let file = file(&rig);
    let mm = rig.space();
    map(&mm, &file, AT, Map::SHARED);
    mm.lock(AT, PAGE, false).unwrap();
    assert_eq!(take_away(&rig, &file, 0), Err(Stays::Locked));
    assert!(mm.entry(UserAddr::new(AT)).is_present());
    let held = mm.pin(AT + PAGE, false).unwrap();
    assert_eq!(take_away(&rig, &file, 1), Err(Stays::Held));
    drop(held);
    let pfn = |page| file.look_at(page).unwrap().unwrap();
    assert!(rig.sim.pages().pin_long_term(pfn(2)));
    assert_eq!(take_away(&rig, &file, 2), Err(Stays::Held));
    assert!(!frame::page(rig.sim, pfn(2)).unpin());
    rig.read(&mm, AT + 3 * PAGE).unwrap();
    frame::page(rig.sim, pfn(3)).clear_flags(PageFlags::REFERENCED);
    let unused = Out { if_unused: true, ..OUT };
    assert_eq!(page_out(rig.sim, pfn(3), unused), Err(Stays::Used));
    assert_eq!(page_out(rig.sim, pfn(3), unused), Ok(()), "it was not used since");
    // A call uses a page as well.
    word(&file, 4).unwrap();
    assert_eq!(page_out(rig.sim, pfn(4), unused), Err(Stays::Used));
    // What does not become smaller stays, with its entries to be made again.
    let noise: Vec<u64> =
        (1..=PAGE as u64 / 8).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(n as u32)).collect();
    for (n, value) in noise.iter().enumerate() {
        rig.write(&mm, AT + 5 * PAGE + 8 * n, *value).unwrap();
    }
    assert_eq!(page_out(rig.sim, pfn(5), Out { even_raw: false, ..OUT }), Err(Stays::Incompressible));
    assert_eq!((rig.read(&mm, AT + 5 * PAGE), word(&file, 5)), (Ok(noise[0]), Ok(noise[0])));
    assert_eq!(take_away(&rig, &file, 5), Ok(()));
    assert_eq!(rig.read(&mm, AT + 6 * PAGE - 8), Ok(noise[noise.len() - 1]));
    mm.validate();
    rig.idle(0);
    drop((mm, file));
    assert_eq!(used(&rig), 0);
    rig.assert_balanced();
}

#[test]
fn what_goes_from_an_object_goes_from_swap() {
    let rig = rig();
    let file = file(&rig);
    let mm = rig.space();
    map(&mm, &file, AT, Map::SHARED);
    (0..PAGES).for_each(|page| take_away(&rig, &file, page).unwrap());
    assert_eq!(used(&rig), PAGES);
    let promised = rig.sim.spaces().commit().sum();
    mm.advise(AT, PAGE, madv::REMOVE).unwrap();
    Object::turn(&file).unwrap().punch(PAGE as u64, 2 * PAGE as u64).unwrap();
    assert_eq!((used(&rig), file.owned_pages(), file.swapped_pages()), (PAGES - 2, PAGES - 2, PAGES - 2));
    assert_eq!(promised - rig.sim.spaces().commit().sum(), 2);
    // Pages that are cut in part come back, and keep the rest.
    Object::turn(&file).unwrap().punch(2 * PAGE as u64 + 8, 3 * PAGE as u64 - 8).unwrap();
    Object::turn(&file).unwrap().set_len(4 * PAGE as u64 + 8).unwrap();
    assert_eq!((used(&rig), file.owned_pages(), file.swapped_pages()), (1, 3, 1));
    Object::turn(&file).unwrap().set_len((PAGES * PAGE) as u64).unwrap();
    let words = [AT, AT + PAGE, AT + 2 * PAGE, AT + 2 * PAGE + 8, AT + 3 * PAGE - 8, AT + 3 * PAGE, AT + 4 * PAGE];
    let seen = words.map(|at| rig.read(&mm, at).unwrap());
    assert_eq!(seen, [0, 0, 3, 0, 0x1111_1111_1111_1111, 4, 5]);
    assert_eq!([rig.read(&mm, AT + 4 * PAGE + 8), rig.read(&mm, AT + 5 * PAGE)], [Ok(0); 2]);
    // fallocate makes no second page of one in swap.
    take_away(&rig, &file, 3).unwrap();
    Object::turn(&file).unwrap().allocate(3, &Supply::new(rig.sim)).unwrap();
    assert_eq!((file.is_swapped(3), word(&file, 3)), (true, Ok(4)));
    take_away(&rig, &file, 3).unwrap();
    rig.idle(0);
    drop((mm, file));
    assert_eq!(used(&rig), 0);
    rig.assert_balanced();
}

#[test]
fn madvise_takes_what_nobody_else_maps() {
    let rig = rig();
    let file = file(&rig);
    let (mm, other) = (rig.space(), rig.space());
    map(&mm, &file, AT, Map::SHARED);
    map(&other, &file, AT, Map::SHARED);
    (0..PAGES).for_each(|page| rig.write(&mm, AT + page * PAGE, 40 + page as u64).unwrap());
    rig.write(&other, AT, 39).unwrap();
    mm.advise(AT, PAGES * PAGE, madv::PAGEOUT).unwrap();
    assert_eq!((used(&rig), file.is_swapped(0)), (PAGES - 1, false));
    mm.advise(AT, PAGES * PAGE, madv::DONTNEED).unwrap();
    mm.advise(AT, PAGES * PAGE, madv::WILLNEED).unwrap();
    mm.advise(AT, PAGES * PAGE, madv::POPULATE_WRITE).unwrap();
    assert_eq!(used(&rig), 0);
    assert!((1..PAGES).all(|page| rig.read(&other, AT + page * PAGE) == Ok(40 + page as u64)));
    rig.idle(0);
    drop((mm, other, file));
    rig.assert_balanced();
}

/// A page that cannot be read back: SIGBUS for a fault on it, an error for a call that reads it, and nobody else notices.
#[test]
fn a_damaged_page_is_missed_by_those_who_need_it() {
    miss_a_page();
    seeded::switch(Some(Bug::FailedBringInKeepsSlot));
    let noticed = catch_unwind(miss_a_page).is_err();
    seeded::switch(None);
    assert!(noticed);
}

fn miss_a_page() {
    let rig = core::mem::ManuallyDrop::new(rig());
    let file = file(&rig);
    let (mm, other) = (rig.space(), rig.space());
    map(&mm, &file, AT, Map::SHARED);
    map(&other, &file, AT, Map::PRIVATE);
    [1, 2].into_iter().for_each(|page| take_away(&rig, &file, page).unwrap());
    rig.sim.spaces().swap().damage(file.look_at(1).unwrap().unwrap_err());
    for mm in [&mm, &other] {
        assert_eq!(rig.read(mm, AT + PAGE), Err(FaultError::BeyondObject));
        assert_eq!(rig.write(mm, AT + PAGE, 1), Err(FaultError::BeyondObject));
        assert_eq!(rig.read(mm, AT + 2 * PAGE), Ok(3));
    }
    assert_eq!(word(&file, 1), Err(ObjectError::Damaged));
    let mut turn = Object::turn(&file).unwrap();
    let written = turn.write(PAGE as u64, 1, &Supply::new(rig.sim), |_, _| panic!("nothing is there"));
    assert_eq!(written, Err(ObjectError::Damaged));
    assert_eq!(turn.set_len(PAGE as u64 + 8), Err(Errno::EIO));
    assert_eq!((file.len(), used(&rig)), ((PAGES * PAGE) as u64, 1));
    assert_eq!(rig.sim.spaces().swap().users(file.look_at(1).unwrap().unwrap_err()), 1);
    // It can be thrown away.
    turn.punch(PAGE as u64, 2 * PAGE as u64).unwrap();
    drop(turn);
    assert_eq!((rig.read(&mm, AT + PAGE), used(&rig)), (Ok(0), 0));
    rig.idle(0);
    drop((mm, other, file));
    rig.assert_balanced();
}

/// Shared memory, and a file that is written and read by calls, take more than there are frames.
#[test]
fn memory_objects_get_more_pages_than_there_are() {
    let rig = Rig::new(16);
    let all = rig.sim.pages().total_managed();
    rig.sim.spaces().init_swap(all * 4, all, 1).unwrap();
    let reclaim: &Reclaim<_> = Box::leak(Box::new(Reclaim::new(rig.sim)));
    reclaim.init().unwrap();
    rig.sim.pages().set_reclaimer(reclaim);
    let (mm, child) = (rig.space(), rig.space());
    let file = Object::file(rig.sim, 0).unwrap();
    let pages = all * 3 / 4;
    let at = map_at(&mm, 0, pages * PAGE, RW, Map::SHARED).unwrap();
    let child = mm.fork().unwrap_or(child);
    for round in 0..2 {
        for page in 0..pages {
            let value = (page + 1) as u64;
            assert_eq!(rig.read(&mm, at + page * PAGE), Ok(if round == 0 { 0 } else { value }));
            rig.write(if page % 2 == 0 { &mm } else { &child }, at + page * PAGE, value).unwrap();
            let supply = Supply::new(rig.sim);
            loop {
                let done = Object::turn(&file).unwrap().write((page * PAGE) as u64, 8, &supply, |to, n| {
                    // SAFETY: the page's bytes.
                    unsafe { to.cast::<u64>().write(value) };
                    n
                });
                match done {
                    Err(ObjectError::OutOfMemory) if supply.is_short() => supply.refill().unwrap(),
                    done => break assert_eq!(done, Ok(8)),
                }
            }
        }
        let is_there = |page| word(&file, page) == Ok(page as u64 + 1);
        assert_eq!((0..pages).find(|page| !is_there(*page)), None);
    }
    assert!(used(&rig) > all / 4);
    rig.idle(0);
    drop((mm, child, file));
    assert_eq!(used(&rig), 0);
    rig.assert_balanced_but(reclaim.frames());
}

/// A page of a file goes to swap while it is cut off, written by a mapping, and read by a call on other CPUs. Returns whether all saw
/// the same file afterwards, and nothing was lost or left.
fn is_whole_after(seed: u64) -> bool {
    let rig = core::mem::ManuallyDrop::new(rig());
    rig.mmu.set_chance(seed, Drain::Late);
    let file = file(&rig);
    let mm = rig.space();
    map(&mm, &file, AT, Map::SHARED);
    rig.read(&mm, AT + PAGE).unwrap();
    if seed.is_multiple_of(3) {
        take_away(&rig, &file, 1).unwrap();
    }
    let bug = seeded::current();
    let on = |cpu, work: Box<dyn Fn() + Send>| -> turns::Body { body(cpu, bug, work) };
    let cuts = seed.is_multiple_of(2);
    let (rig_, file_, mm_) = (&*rig, &file, &mm);
    let out = move |page| {
        if let Some(Ok(pfn)) = file_.look_at(page) {
            _ = page_out(rig_.sim, pfn, OUT);
        }
    };
    let bodies = [
        on(0, Box::new(move || (0..3).for_each(|_| out(1)))),
        on(
            1,
            Box::new(move || match cuts {
                true => Object::turn(file_).unwrap().punch(PAGE as u64, 2 * PAGE as u64).unwrap(),
                false => {
                    let at = rig_.touch(1, mm_, AT + PAGE, Access::Write).unwrap().cast::<u64>();
                    // SAFETY: the MMU allows it, and the turn does not pass in between.
                    unsafe { at.write(77) };
                }
            }),
        ),
        on(
            2,
            Box::new(move || {
                let read = word(file_, 1);
                assert!(matches!(read, Ok(0 | 2 | 77)), "{read:?}");
                Object::turn(file_).unwrap().allocate(1, &Supply::new(rig_.sim)).unwrap();
            }),
        ),
    ];
    turns::run(seed, 1 + seed as usize % 20, bodies.into());
    Sim::set_cpu(0);
    let value = if cuts { 0 } else { 77 };
    let is_right = word(&file, 1) == Ok(value) && rig.read(&mm, AT + PAGE) == Ok(value);
    take_away(&rig, &file, 1).unwrap();
    let is_balanced = used(&rig) == 1 && file.swapped_pages() == 1 && file.owned_pages() == PAGES;
    let slot = file.look_at(1).unwrap().unwrap_err();
    let is_balanced = is_balanced && rig.sim.spaces().swap().users(slot) == 1;
    let is_right = is_right && rig.read(&mm, AT + PAGE) == Ok(value);
    (0..3).for_each(|cpu| rig.idle(cpu));
    let sim = rig.sim;
    drop((mm, file));
    is_right && is_balanced && sim.spaces().swap().stats().used == 0 && sim.pages().bad_pages() == 0
}

#[test]
fn a_page_may_leave_at_any_moment() {
    const SEEDS: core::ops::Range<u64> = 1..400;
    let wrong: Vec<u64> = SEEDS.filter(|seed| !is_whole_after(*seed)).collect();
    assert_eq!(wrong, vec![0; 0]);
    let bugs = [
        Bug::ObjectOutIgnoresHolders,
        Bug::ObjectOutKeepsSlot,
        Bug::ObjectOutTrustsItsFirstLook,
        Bug::BringInTrustsItsFirstLook,
        Bug::BringInLeaksSlot,
        Bug::RemoveLeaksSlot,
    ];
    for bug in bugs {
        seeded::switch(Some(bug));
        let noticed =
            SEEDS.into_iter().any(|seed| !catch_unwind(AssertUnwindSafe(|| is_whole_after(seed))).unwrap_or(false));
        seeded::switch(None);
        assert!(noticed, "nobody noticed {bug:?}");
    }
}

/// The frame that a page has left is nobody's any more: it can be taken at once.
#[test]
fn a_range_is_cleared_of_shared_memory_when_there_is_no_other_frame() {
    let rig = rig();
    let mm = rig.space();
    let at = map_at(&mm, 0, PAGE, RW, Map::SHARED).unwrap();
    rig.write(&mm, at, 5).unwrap();
    let pfn: Pfn = mm.entry(UserAddr::new(at)).addr().pfn();
    let taken: Vec<Pfn> = core::iter::from_fn(|| frame::alloc_to_move(rig.sim).ok()).collect();
    let mover = crate::mm::Mover(rig.sim);
    let moved = crate::page_alloc::MigrateRange::migrate(&mover, pfn, Pfn(pfn.0 + 1));
    assert_eq!((moved, used(&rig)), (Ok(()), 1));
    taken.into_iter().for_each(|pfn| frame::free(rig.sim, pfn));
    assert_eq!(rig.read(&mm, at), Ok(5));
    rig.idle(0);
    drop(mm);
    rig.assert_balanced();
}
