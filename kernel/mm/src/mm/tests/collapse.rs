//! MADV_COLLAPSE, step by step. The oracle has it beside everything else.

use quire_abi::Errno;
use quire_abi::flags::{Map, Prot, madv};

use super::huge::{AT, HUGE, TABLE, entry, fill, has_numbers, is_block, state};
use super::{PAGE, RW, Rig, Space, map_at};
use crate::addr::UserAddr;
use crate::event::Event;
use crate::fallible::KArc;
use crate::frame;
use crate::mm::{Out, page_out};
use crate::page::PageState;
use crate::rmap;
use crate::spaces::HugePages;

/// A machine where memory is in pages of 4 KiB until somebody collapses it.
fn rig() -> Rig {
    let rig = Rig::new(64);
    rig.sim.spaces().huge_pages().set(HugePages::Never);
    rig
}

/// A space with an area of one aligned 2 MiB, whose pages have their numbers.
fn space(rig: &Rig) -> Space {
    let mm = rig.space();
    map_at(&mm, AT, HUGE, RW, Map::FIXED).unwrap();
    fill(rig, &mm);
    mm
}

fn collapse(mm: &Space) -> Result<(), Errno> {
    mm.advise(AT, HUGE, madv::COLLAPSE)
}

/// The block becomes a table again, and its pages stay where they are.
fn split(mm: &Space) {
    mm.protect(AT + 9 * PAGE, PAGE, Prot::READ).unwrap();
    mm.protect(AT + 9 * PAGE, PAGE, RW).unwrap();
    assert!(!is_block(mm, AT));
}

fn end(rig: &Rig, mm: Space) {
    mm.validate();
    rig.idle(0);
    rig.idle(1);
    drop(mm);
    rig.assert_balanced();
}

#[test]
fn pages_are_brought_together_and_become_one() {
    let rig = rig();
    let mm = space(&rig);
    assert!(!is_block(&mm, AT));
    let owners = KArc::count(&mm.anon_vma);
    assert_eq!(collapse(&mm), Ok(()));
    assert_eq!(KArc::count(&mm.anon_vma), owners - (TABLE - 1), "one page is one owner");
    assert!(is_block(&mm, AT) && has_numbers(&rig, &mm));
    assert_eq!((mm.stats().rss_anon, state(&rig, &mm, AT)), (TABLE, PageState::Whole));
    assert_eq!(collapse(&mm), Ok(()), "it is one already");
    rig.write(&mm, AT + 7 * PAGE, 70).unwrap();
    mm.advise(AT + 8 * PAGE, PAGE, madv::DONTNEED).unwrap();
    assert_eq!((rig.read(&mm, AT + 7 * PAGE), rig.read(&mm, AT + 8 * PAGE)), (Ok(70), Ok(0)));
    assert!(!is_block(&mm, AT));
    assert_eq!(collapse(&mm), Ok(()));
    assert!(is_block(&mm, AT));
    assert_eq!(rig.read(&mm, AT + 8 * PAGE), Ok(0));
    assert_eq!((rig.sim.counted(Event::HugeCollapse), rig.sim.counted(Event::HugeCollapseFailed)), (2, 0));
    end(&rig, mm);
}

#[test]
fn what_is_missing_away_or_shared_is_brought_in() {
    let rig = rig();
    rig.sim.spaces().swap().init(64, 64, 1).unwrap();
    let mm = rig.space();
    map_at(&mm, AT, HUGE, RW, Map::FIXED).unwrap();
    for page in [3, 4, 5] {
        rig.write(&mm, AT + page * PAGE, page as u64).unwrap();
    }
    let pfn = entry(&mm, AT + 4 * PAGE).addr().pfn();
    page_out(rig.sim, pfn, Out::default()).unwrap();
    assert_eq!(rig.read(&mm, AT + 100 * PAGE), Ok(0), "the zero page");
    let child = mm.fork().unwrap();
    assert_eq!(collapse(&mm), Ok(()));
    assert!(is_block(&mm, AT) && !is_block(&child, AT));
    rig.write(&mm, AT + 5 * PAGE, 50).unwrap();
    for (space, five) in [(&mm, 50), (&child, 5)] {
        let words = [2, 3, 4, 5, 100].map(|page| rig.read(space, AT + page * PAGE));
        assert_eq!(words, [Ok(0), Ok(3), Ok(4), Ok(five), Ok(0)]);
    }
    child.validate();
    rig.idle(0);
    drop(child);
    end(&rig, mm);
}

#[test]
fn what_lies_in_a_block_is_not_moved() {
    let rig = rig();
    let mm = space(&rig);
    collapse(&mm).unwrap();
    split(&mm);
    assert!(!is_block(&mm, AT));
    let moved = rig.sim.counted(Event::PageMoved);
    assert_eq!(collapse(&mm), Ok(()));
    assert!(is_block(&mm, AT) && has_numbers(&rig, &mm));
    assert_eq!(rig.sim.counted(Event::PageMoved), moved);
    end(&rig, mm);
}

/// A page that a device has stays where it is; in a block of frames it may be mapped by a block entry, but is a page of its own.
#[test]
fn a_pinned_page_is_not_moved() {
    let rig = rig();
    let mm = space(&rig);
    let pin = mm.pin(AT + 40 * PAGE, true).unwrap();
    let at = entry(&mm, AT + 40 * PAGE).addr();
    assert_eq!(collapse(&mm), Err(Errno::EAGAIN));
    assert!(!is_block(&mm, AT) && has_numbers(&rig, &mm));
    assert_eq!(entry(&mm, AT + 40 * PAGE).addr(), at);
    drop(pin);
    assert_eq!(collapse(&mm), Ok(()));
    let pin = mm.pin(AT + 40 * PAGE, true).unwrap();
    split(&mm);
    assert_eq!(collapse(&mm), Ok(()), "nothing has to move");
    assert!(is_block(&mm, AT) && state(&rig, &mm, AT) == PageState::Anon);
    drop(pin);
    end(&rig, mm);
}

#[test]
fn a_page_that_somebody_has_found_stays_one_of_its_own() {
    let rig = rig();
    let mm = space(&rig);
    collapse(&mm).unwrap();
    split(&mm);
    let found = entry(&mm, AT + PAGE).addr().pfn();
    assert!(frame::page(rig.sim, found).get());
    assert_eq!(collapse(&mm), Ok(()));
    assert!(is_block(&mm, AT));
    assert_eq!(state(&rig, &mm, AT), PageState::Anon);
    rmap::Release::new(rig.sim).page(found);
    assert!(has_numbers(&rig, &mm));
    end(&rig, mm);
}

#[test]
fn not_all_memory_can_be_collapsed() {
    let rig = rig();
    let mm = rig.space();
    let refused = |prot, more, advice: Option<i32>| {
        map_at(&mm, AT, HUGE, prot, more | Map::FIXED).unwrap();
        advice.inspect(|advice| mm.advise(AT, HUGE, *advice).unwrap());
        let done = collapse(&mm);
        mm.unmap(AT, HUGE).unwrap();
        done
    };
    for (prot, more) in [(RW, Map::SHARED), (Prot::READ, Map::empty()), (RW | Prot::EXEC, Map::empty())] {
        assert_eq!(refused(prot, more, None), Err(Errno::EINVAL));
    }
    assert_eq!(refused(RW, Map::empty(), Some(madv::NOHUGEPAGE)), Err(Errno::EINVAL));
    assert_eq!(refused(RW, Map::empty(), Some(madv::HUGEPAGE)), Ok(()), "whatever the machine's mode is");
    assert_eq!(collapse(&mm), Err(Errno::EINVAL), "nothing is there");
    map_at(&mm, AT, HUGE, RW, Map::FIXED).unwrap();
    mm.refuse_huge_pages(true);
    assert_eq!(collapse(&mm), Err(Errno::EINVAL), "a process that refuses them");
    mm.refuse_huge_pages(false);
    assert_eq!(mm.advise(AT + PAGE, HUGE - 2 * PAGE, madv::COLLAPSE), Err(Errno::EINVAL), "a part");
    assert_eq!(mm.advise(AT - PAGE, HUGE, madv::COLLAPSE), Ok(()), "two parts");
    assert_eq!(mm.entry(UserAddr::new(AT + 5 * PAGE)), crate::pte::Pte::NONE);
    end(&rig, mm);
}

#[test]
fn without_a_block_of_frames_all_stays_as_it_is() {
    let rig = rig();
    let mm = space(&rig);
    // One frame of each 2 MiB is taken for good.
    let mut taken = std::vec::Vec::new();
    while let Ok(pfn) = frame::alloc_unmovable(rig.sim) {
        taken.push(pfn);
    }
    let (kept, given): (std::vec::Vec<_>, std::vec::Vec<_>) = taken.into_iter().partition(|pfn| pfn.0 % TABLE == 77);
    given.into_iter().for_each(|pfn| frame::free(rig.sim, pfn));
    assert_eq!(collapse(&mm), Err(Errno::ENOMEM));
    assert!(!is_block(&mm, AT) && has_numbers(&rig, &mm));
    kept.into_iter().for_each(|pfn| frame::free(rig.sim, pfn));
    end(&rig, mm);
}
