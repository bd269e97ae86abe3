//! Whole pages of 2 MiB, and block entries: step by step. The oracle has them beside everything else.

use std::vec::Vec;

use quire_abi::flags::{Map, Prot, madv};

use super::{PAGE, RW, Rig, Space, map_at};
use crate::addr::{Pfn, UserAddr};
use crate::fallible::AllocError;
use crate::frame;
use crate::mm::{Access, FaultError, Out, migrate, page_out};
use crate::page::{PageFlags, PageState};
use crate::pte::Pte;
use crate::rmap;
use crate::spaces::HugePages;

pub(super) const TABLE: usize = 512;
pub(super) const HUGE: usize = TABLE * PAGE;
pub(super) const AT: usize = 64 * HUGE;

fn rig() -> Rig {
    let rig = Rig::new(64);
    rig.sim.spaces().huge_pages().set(HugePages::Always);
    rig
}

/// A space with an area of whole blocks, of which the first was touched.
fn space(rig: &Rig, blocks: usize) -> Space {
    let mm = rig.space();
    map_at(&mm, AT, blocks * HUGE, RW, Map::FIXED).unwrap();
    rig.write(&mm, AT + 5 * PAGE, 5).unwrap();
    mm
}

pub(super) fn is_block(mm: &Space, at: usize) -> bool {
    mm.tables.find_leaf(UserAddr::new(at)).is_none() && mm.tables.block_at(UserAddr::new(at)).is_some()
}

pub(super) fn entry(mm: &Space, at: usize) -> Pte {
    mm.entry(UserAddr::new(at))
}

pub(super) fn state(rig: &Rig, mm: &Space, at: usize) -> PageState {
    frame::page(rig.sim, Pfn(entry(mm, at).addr().pfn().0 & !(TABLE - 1))).state()
}

/// Writes its number to each page of a block that has none yet.
pub(super) fn fill(rig: &Rig, mm: &Space) {
    (0..TABLE).for_each(|page| rig.write(mm, AT + page * PAGE, page as u64).unwrap());
}

pub(super) fn has_numbers(rig: &Rig, mm: &Space) -> bool {
    (0..TABLE).all(|page| rig.read(mm, AT + page * PAGE) == Ok(page as u64))
}

#[test]
fn one_fault_brings_in_all_of_a_block() {
    let rig = rig();
    let mm = space(&rig, 2);
    assert!(is_block(&mm, AT) && !is_block(&mm, AT + HUGE));
    assert_eq!((mm.stats().rss_anon, state(&rig, &mm, AT)), (TABLE, PageState::Whole));
    assert_eq!((rig.read(&mm, AT + 5 * PAGE), rig.read(&mm, AT + 6 * PAGE)), (Ok(5), Ok(0)));
    fill(&rig, &mm);
    assert!(is_block(&mm, AT) && has_numbers(&rig, &mm));
    // A read of memory that was never written brings in no block.
    assert_eq!(rig.read(&mm, AT + HUGE), Ok(0));
    assert_eq!(mm.stats().rss_anon, TABLE);
    mm.validate();
    mm.unmap(AT, 2 * HUGE).unwrap();
    mm.validate();
    rig.idle(0);
    drop(mm);
    rig.assert_balanced();
}

#[test]
fn blocks_come_only_where_they_may() {
    let rig = rig();
    let mm = rig.space();
    let touch = |at, len, prot, more| {
        map_at(&mm, at, len, prot, more | Map::FIXED).unwrap();
        rig.write(&mm, at + len / 2, 1).unwrap();
        let is_huge = is_block(&mm, at + len / 2);
        mm.unmap(at, len).unwrap();
        mm.areas.intend().write();
        is_huge
    };
    let prot_exec = RW | Prot::EXEC;
    assert!(touch(AT, HUGE, RW, Map::empty()));
    assert!(!touch(AT + PAGE, 2 * HUGE - 2 * PAGE, RW, Map::empty()), "no aligned 2 MiB");
    assert!(!touch(AT + 8 * HUGE, HUGE, prot_exec, Map::empty()));
    assert!(!touch(AT + 9 * HUGE, HUGE, RW, Map::SHARED));
    assert!(!touch(AT + 10 * HUGE, HUGE, RW, Map::GROWSDOWN));
    for (mode, advice, is_huge) in [
        (HugePages::Always, None, true),
        (HugePages::Always, Some(madv::NOHUGEPAGE), false),
        (HugePages::Madvise, None, false),
        (HugePages::Madvise, Some(madv::HUGEPAGE), true),
        (HugePages::Never, Some(madv::HUGEPAGE), false),
    ] {
        rig.sim.spaces().huge_pages().set(mode);
        let at = AT + 20 * HUGE;
        map_at(&mm, at, HUGE, RW, Map::FIXED).unwrap();
        advice.into_iter().for_each(|advice| mm.advise(at, HUGE, advice).unwrap());
        rig.write(&mm, at, 1).unwrap();
        assert_eq!(is_block(&mm, at), is_huge, "{mode:?}, {advice:?}");
        mm.unmap(at, HUGE).unwrap();
    }
    rig.idle(0);
    drop(mm);
    rig.assert_balanced();
}

#[test]
fn an_empty_table_gives_way_to_a_block() {
    let rig = rig();
    let mm = rig.space();
    rig.sim.spaces().huge_pages().set(HugePages::Never);
    map_at(&mm, AT, HUGE, RW, Map::FIXED).unwrap();
    rig.write(&mm, AT, 1).unwrap();
    mm.unmap(AT, HUGE).unwrap();
    assert!(mm.tables.find_leaf(UserAddr::new(AT)).is_some(), "empty tables are kept");
    rig.sim.spaces().huge_pages().set(HugePages::Always);
    map_at(&mm, AT, HUGE, RW, Map::FIXED).unwrap();
    rig.write(&mm, AT, 1).unwrap();
    assert!(is_block(&mm, AT));
    mm.validate();
    rig.idle(0);
    drop(mm);
    rig.assert_balanced();
}

#[test]
fn without_a_block_there_are_pages() {
    let rig = rig();
    let mm = rig.space();
    // Blocks of 2 MiB are used up, and pages are left.
    let mut blocks = Vec::new();
    while let Ok(block) = rig.sim.pages().alloc_pages(
        9,
        crate::page_alloc::Gfp::HIGHUSER_MOVABLE | crate::page_alloc::Gfp::NORETRY | crate::page_alloc::Gfp::NOWARN,
    ) {
        blocks.push(block);
    }
    map_at(&mm, AT, HUGE, RW, Map::FIXED).unwrap();
    if rig.write(&mm, AT, 1).is_ok() {
        assert!(!is_block(&mm, AT));
        assert_eq!(mm.stats().rss_anon, 1);
    }
    drop(blocks);
    rig.idle(0);
    drop(mm);
    rig.assert_balanced();
}

/// What is done to a part.
type Change<'a> = &'a dyn Fn(&Space);

#[test]
fn parts_of_a_block_can_be_changed() {
    let rig = rig();
    let changes: [(&str, Change<'_>); 6] = [
        ("munmap", &|mm| mm.unmap(AT + 10 * PAGE, PAGE).unwrap()),
        ("mprotect", &|mm| mm.protect(AT + 10 * PAGE, PAGE, Prot::READ).unwrap()),
        ("DONTNEED", &|mm| mm.advise(AT + 10 * PAGE, PAGE, madv::DONTNEED).unwrap()),
        ("FREE", &|mm| mm.advise(AT + 10 * PAGE, PAGE, madv::FREE).unwrap()),
        ("COLD", &|mm| mm.advise(AT + 10 * PAGE, PAGE, madv::COLD).unwrap()),
        ("mremap", &|mm| {
            mm.remap(
                AT + 10 * PAGE,
                PAGE,
                PAGE,
                quire_abi::flags::Mremap::MAYMOVE | quire_abi::flags::Mremap::FIXED,
                AT + 9 * HUGE,
            )
            .map(drop)
            .unwrap()
        }),
    ];
    for (what, change) in changes {
        let mm = space(&rig, 1);
        fill(&rig, &mm);
        change(&mm);
        assert!(!is_block(&mm, AT), "{what}");
        mm.validate();
        for page in (0..TABLE).filter(|page| *page != 10) {
            assert_eq!(rig.read(&mm, AT + page * PAGE), Ok(page as u64), "{what}");
        }
        match what {
            "munmap" | "mremap" => assert_eq!(rig.read(&mm, AT + 10 * PAGE), Err(FaultError::Unmapped)),
            "DONTNEED" => assert_eq!(rig.read(&mm, AT + 10 * PAGE), Ok(0)),
            _ => assert_eq!(rig.read(&mm, AT + 10 * PAGE), Ok(10)),
        }
        rig.idle(0);
        drop(mm);
        rig.assert_balanced();
    }
}

#[test]
fn all_of_a_block_is_changed_as_one() {
    let rig = rig();
    let mm = space(&rig, 1);
    fill(&rig, &mm);
    mm.protect(AT, HUGE, Prot::READ).unwrap();
    assert!(is_block(&mm, AT) && has_numbers(&rig, &mm));
    assert_eq!(rig.write(&mm, AT, 1), Err(FaultError::Protection));
    mm.protect(AT, HUGE, RW).unwrap();
    rig.write(&mm, AT, 0).unwrap();
    assert!(is_block(&mm, AT) && has_numbers(&rig, &mm));
    mm.validate();
    mm.advise(AT, HUGE, madv::DONTNEED).unwrap();
    assert_eq!((mm.stats().rss_anon, rig.read(&mm, AT + PAGE)), (0, Ok(0)));
    mm.protect(AT, HUGE, RW | Prot::EXEC).unwrap();
    rig.idle(0);
    drop(mm);
    rig.assert_balanced();
}

#[test]
fn fork_shares_blocks_and_writes_copy_pages() {
    let rig = rig();
    let mm = space(&rig, 1);
    fill(&rig, &mm);
    let free = rig.sim.pages().total_free();
    let child = mm.fork().unwrap();
    assert!(free - rig.sim.pages().total_free() < 12, "tables only");
    assert!(is_block(&mm, AT) && is_block(&child, AT));
    assert_eq!(child.stats().rss_anon, TABLE);
    assert!(has_numbers(&rig, &child) && has_numbers(&rig, &mm));
    rig.write(&child, AT + 3 * PAGE, 77).unwrap();
    assert!(is_block(&mm, AT) && !is_block(&child, AT));
    assert_eq!((rig.read(&mm, AT + 3 * PAGE), rig.read(&child, AT + 3 * PAGE)), (Ok(3), Ok(77)));
    assert_eq!((rig.read(&mm, AT + 4 * PAGE), rig.read(&child, AT + 4 * PAGE)), (Ok(4), Ok(4)));
    // mprotect there and back does not make pages writable that others have.
    mm.protect(AT, HUGE, Prot::READ).unwrap();
    mm.protect(AT, HUGE, RW).unwrap();
    rig.write(&mm, AT + 4 * PAGE, 44).unwrap();
    assert_eq!(rig.read(&child, AT + 4 * PAGE), Ok(4));
    let grandchild = child.fork().unwrap();
    assert_eq!((rig.read(&grandchild, AT + 3 * PAGE), rig.read(&grandchild, AT + 511 * PAGE)), (Ok(77), Ok(511)));
    [&mm, &child, &grandchild].into_iter().for_each(|mm| mm.validate());
    drop(mm);
    assert_eq!(rig.read(&grandchild, AT + 4 * PAGE), Ok(4));
    rig.idle(0);
    drop((child, grandchild));
    rig.assert_balanced();
}

#[test]
fn a_block_that_nobody_else_has_any_more_is_written_in_place() {
    let rig = rig();
    let mm = space(&rig, 1);
    let child = mm.fork().unwrap();
    let frame = entry(&mm, AT).addr();
    drop(mm);
    rig.write(&child, AT, 1).unwrap();
    assert!(is_block(&child, AT));
    assert_eq!((entry(&child, AT).addr(), rig.read(&child, AT + 5 * PAGE)), (frame, Ok(5)));
    child.validate();
    rig.idle(0);
    drop(child);
    rig.assert_balanced();
}

#[test]
fn a_block_that_is_apart_is_written_in_place_when_all_of_it_is_one_s_own() {
    let rig = rig();
    let mm = space(&rig, 1);
    fill(&rig, &mm);
    let child = mm.fork().unwrap();
    rig.write(&child, AT + 3 * PAGE, 77).unwrap();
    let other = child.fork().unwrap();
    rig.idle(0);
    drop(child);
    rig.write(&other, AT + 4 * PAGE, 44).unwrap();
    // A page of it is still another's.
    assert!(is_block(&mm, AT));
    let fourth = mm.fork().unwrap();
    rig.idle(0);
    drop((other, fourth));
    assert_eq!(state(&rig, &mm, AT), PageState::Anon);
    rig.write(&mm, AT + 9 * PAGE, 9).unwrap();
    assert!(is_block(&mm, AT) && has_numbers(&rig, &mm));
    mm.validate();
    let child = mm.fork().unwrap();
    rig.write(&child, AT, 1).unwrap();
    rig.write(&mm, AT + PAGE, 1).unwrap();
    assert!(!is_block(&mm, AT), "the child has its pages too");
    assert_eq!((rig.read(&mm, AT), rig.read(&child, AT)), (Ok(0), Ok(1)));
    rig.idle(0);
    drop((mm, child));
    rig.assert_balanced();
}

#[test]
fn a_failed_fork_gives_blocks_back() {
    let rig = rig();
    let mm = space(&rig, 3);
    rig.write(&mm, AT + HUGE, 1).unwrap();
    for failing in 1..40 {
        crate::fallible::inject::fail(Some(failing));
        let child = mm.fork();
        crate::fallible::inject::fail(None);
        drop(child);
        mm.validate();
        assert_eq!(state(&rig, &mm, AT), PageState::Whole);
    }
    rig.write(&mm, AT, 1).unwrap();
    assert!(is_block(&mm, AT), "nobody else has it");
    rig.idle(0);
    drop(mm);
    rig.assert_balanced();
}

#[test]
fn a_pinned_page_of_a_block_stays_where_it_is() {
    let rig = rig();
    let mm = space(&rig, 1);
    let pin = mm.pin(AT + 5 * PAGE + 8, true).unwrap();
    assert!(is_block(&mm, AT) && state(&rig, &mm, AT) == PageState::Anon);
    assert_eq!(pin.pfn(), entry(&mm, AT + 5 * PAGE).addr().pfn());
    assert!(migrate(rig.sim, pin.pfn(), || Err(AllocError)).is_err());
    let pfn = pin.pfn();
    mm.unmap(AT, HUGE).unwrap();
    assert_eq!(frame::page(rig.sim, pfn).refs(), 1);
    drop(pin);
    rig.idle(0);
    drop(mm);
    rig.assert_balanced();
}

#[test]
fn pages_of_a_block_move_one_by_one() {
    let rig = rig();
    let mm = space(&rig, 1);
    fill(&rig, &mm);
    let child = mm.fork().unwrap();
    let pfn = entry(&mm, AT + 9 * PAGE).addr().pfn();
    assert!(migrate(rig.sim, pfn, || frame::alloc_to_move(rig.sim)).is_err(), "a whole page cannot be found");
    crate::rmap::whole::take_apart(rig.sim, Pfn(pfn.0 & !(TABLE - 1)));
    assert!(is_block(&mm, AT) && is_block(&child, AT));
    migrate(rig.sim, pfn, || frame::alloc_to_move(rig.sim)).unwrap();
    assert!(!is_block(&mm, AT) && !is_block(&child, AT));
    assert_ne!(entry(&mm, AT + 9 * PAGE).addr().pfn(), pfn);
    assert_eq!(entry(&mm, AT + 9 * PAGE).addr(), entry(&child, AT + 9 * PAGE).addr());
    assert!(has_numbers(&rig, &mm) && has_numbers(&rig, &child));
    mm.validate();
    child.validate();
    rig.idle(0);
    drop((mm, child));
    rig.assert_balanced();
}

#[test]
fn a_range_is_collected_from_programs_that_have_it_in_blocks() {
    let rig = rig();
    let mm = space(&rig, 1);
    fill(&rig, &mm);
    let first = Pfn(entry(&mm, AT).addr().pfn().0);
    // Frames behind the head, whose records are zeros while the page is whole.
    let range = Pfn(first.0 + 100)..Pfn(first.0 + 200);
    rig.sim.pages().alloc_range(range.clone(), Some(&crate::mm::Mover(rig.sim))).unwrap();
    assert!(has_numbers(&rig, &mm));
    // SAFETY: they were just allocated.
    unsafe { rig.sim.pages().free_range(range) };
    rig.idle(0);
    drop(mm);
    rig.assert_balanced();
}

#[test]
fn looks_keep_blocks_and_page_out_splits_them() {
    let rig = rig();
    rig.sim.spaces().init_swap(2048, 2048, 4).unwrap();
    let mm = space(&rig, 1);
    fill(&rig, &mm);
    let pfn = entry(&mm, AT + 7 * PAGE).addr().pfn();
    assert!(page_out(rig.sim, pfn, Out::default()).is_err(), "a whole page cannot be found");
    crate::rmap::whole::take_apart(rig.sim, Pfn(pfn.0 & !(TABLE - 1)));
    let unused = Out { if_unused: true, even_raw: true, ..Out::default() };
    assert!(page_out(rig.sim, pfn, unused).is_err(), "it was used");
    assert!(is_block(&mm, AT));
    // Now the access flag is clear; and each of its pages was told.
    assert!(!entry(&mm, AT).is_young());
    assert!(page_out(rig.sim, pfn, unused).is_err());
    page_out(rig.sim, pfn, unused).unwrap();
    assert!(!is_block(&mm, AT));
    assert!(has_numbers(&rig, &mm));
    mm.validate();
    rig.idle(0);
    drop(mm);
}

/// A look that comes when the page it is about has made way for another block leaves that one, and the records inside of it, as they are.
#[test]
fn a_look_at_another_block_touches_nothing() {
    let rig = rig();
    let mm = space(&rig, 1);
    let was = entry(&mm, AT + 7 * PAGE).addr().pfn();
    crate::rmap::whole::take_apart(rig.sim, entry(&mm, AT).addr().pfn());
    assert!(frame::page(rig.sim, was).get());
    mm.advise(AT, HUGE, madv::DONTNEED).unwrap();
    rig.write(&mm, AT, 1).unwrap();
    assert!(is_block(&mm, AT) && entry(&mm, AT + 7 * PAGE).addr().pfn() != was);
    assert!(!mm.look_at_block(UserAddr::new(AT + 7 * PAGE), was));
    assert!(entry(&mm, AT).is_young() && state(&rig, &mm, AT) == PageState::Whole);
    let inside = frame::page(rig.sim, entry(&mm, AT + 9 * PAGE).addr().pfn());
    assert_eq!((inside.state(), inside.flags()), (PageState::Absent, PageFlags::empty()));
    rmap::Release::new(rig.sim).page(was);
    rig.idle(0);
    drop(mm);
    rig.assert_balanced();
}

#[test]
fn an_access_flag_of_a_block_comes_back() {
    let rig = rig();
    let mm = space(&rig, 1);
    let look = |page: usize| {
        let at = AT + page * PAGE;
        mm.look_at_block(UserAddr::new(at), entry(&mm, at).addr().pfn())
    };
    crate::rmap::whole::take_apart(rig.sim, entry(&mm, AT).addr().pfn());
    assert!(look(1) && !look(0));
    rig.touch(1, &mm, AT + 8 * PAGE, Access::Read).unwrap();
    assert!(entry(&mm, AT).is_young() && is_block(&mm, AT));
    rig.idle(0);
    rig.idle(1);
    drop(mm);
    rig.assert_balanced();
}
