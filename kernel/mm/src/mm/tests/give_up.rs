//! MADV_FREE and MADV_WILLNEED, step by step, and under pressure.

use quire_abi::flags::madv;

use super::reclaim::machine;
use super::*;
use crate::fallible::inject;
use crate::mm::Stays;
use crate::mm::page_out::{Out, page_out};
use crate::pte::NonPresent;
use crate::zone::ZoneKind;

/// As many pages of a program as given, each with its number.
fn filled(rig: &Rig, mm: &Space, pages: usize) -> usize {
    let at = anon(rig, mm, pages * PAGE);
    (0..pages).for_each(|page| rig.write(mm, at + page * PAGE, page as u64 + 1).unwrap());
    at
}

fn free(mm: &Space, at: usize, pages: usize) {
    assert_eq!(mm.advise(at, pages * PAGE, madv::FREE), Ok(()));
}

fn entry(mm: &Space, va: usize) -> crate::pte::Pte {
    mm.entry(UserAddr::new(va))
}

fn out(rig: &Rig, mm: &Space, va: usize) -> Result<(), Stays> {
    page_out(rig.sim, entry(mm, va).addr().pfn(), Out { even_raw: true, ..Out::default() })
}

fn used(rig: &Rig) -> usize {
    rig.sim.spaces().swap().stats().used
}

fn on_both(test: impl Fn(Rig)) {
    for by_hardware in [false, true] {
        let (rig, _) = machine(16);
        if by_hardware {
            rig.sim.spaces().set_hardware_updates();
        }
        test(rig);
    }
}

#[test]
fn contents_stay_until_there_is_pressure_and_a_write_keeps_them() {
    on_both(|rig| {
        let mm = rig.space();
        let at = filled(&rig, &mm, 4);
        free(&mm, at, 4);
        assert!((0..4).all(|page| entry(&mm, at + page * PAGE).is_given_up()));
        assert!((0..4).all(|page| rig.read(&mm, at + page * PAGE) == Ok(page as u64 + 1)));
        rig.write(&mm, at + PAGE, 9).unwrap();
        assert!(
            (0..4).all(|page| entry(&mm, at + page * PAGE).is_given_up() == (page != 1)),
            "its neighbours stay given up"
        );
        assert!((0..4).all(|page| out(&rig, &mm, at + page * PAGE).is_ok()));
        assert_eq!(used(&rig), 1, "what was written is in swap, and nothing else");
        assert_eq!([0, 1, 2, 3].map(|page| rig.read(&mm, at + page * PAGE)), [Ok(0), Ok(9), Ok(0), Ok(0)]);
        drop(mm);
    });
}

#[test]
fn pages_that_somebody_else_has_stay_as_they_are() {
    on_both(|rig| {
        let mm = rig.space();
        let at = filled(&rig, &mm, 2);
        let pin = mm.pin(at, true).unwrap();
        free(&mm, at, 1);
        assert!(!entry(&mm, at).is_given_up(), "whoever has it pinned may still write to it");
        drop(pin);
        let child = mm.fork().unwrap();
        free(&mm, at, 2);
        assert!([at, at + PAGE].iter().all(|va| !entry(&mm, *va).is_given_up()));
        drop(child);
        free(&mm, at, 2);
        assert!([at, at + PAGE].iter().all(|va| entry(&mm, *va).is_given_up()));
        // What was given up before a fork is so in both; who writes has a copy.
        let child = mm.fork().unwrap();
        rig.write(&child, at, 7).unwrap();
        assert_eq!(out(&rig, &mm, at), Ok(()));
        assert_eq!(out(&rig, &mm, at + PAGE), Ok(()));
        let words = |mm| [at, at + PAGE].map(|va| rig.read(mm, va).unwrap());
        assert_eq!((words(&mm), words(&child), used(&rig)), ([0, 0], [7, 0], 0));
        rig.idle(0);
        drop(child);
        drop(mm);
    });
}

#[test]
fn what_is_in_swap_is_gone_at_once() {
    let (rig, _) = machine(16);
    let mm = rig.space();
    let at = filled(&rig, &mm, 200);
    (0..200).for_each(|page| out(&rig, &mm, at + page * PAGE).unwrap());
    assert_eq!(used(&rig), 200);
    free(&mm, at, 199);
    assert_eq!(used(&rig), 1);
    assert_eq!((rig.read(&mm, at), rig.read(&mm, at + 199 * PAGE)), (Ok(0), Ok(200)));
    rig.idle(0);
    drop(mm);
}

/// What was given up goes before everything else, also without a place in swap; and no frame of the queue is left over.
#[test]
fn reclaim_begins_with_what_was_given_up() {
    let (rig, reclaim) = machine(16);
    let mm = rig.space();
    let all = rig.sim.pages().total_managed();
    let kept = filled(&rig, &mm, all / 4);
    let at = filled(&rig, &mm, all / 4);
    (0..3).for_each(|_| free(&mm, at, all / 4));
    let mut left = all / 4;
    while left != 0 {
        let freed = rig.sim.pages().reclaim(0, ZoneKind::COUNT - 1, left.min(32));
        assert_eq!(freed, left.min(32));
        left -= freed;
    }
    assert_eq!(used(&rig), 0);
    assert!((0..all / 4).all(|page| entry(&mm, at + page * PAGE) == crate::pte::Pte::NONE));
    assert!((0..all / 4).all(|page| entry(&mm, kept + page * PAGE).is_present()));
    assert_eq!(mm.stats().rss_anon, all / 4);
    rig.idle(0);
    drop(mm);
    rig.assert_balanced_but(reclaim.frames());
}

/// A program that gives its pages up and uses them again, over and over, does not fill the queue with numbers of no use.
#[test]
fn the_queue_is_no_longer_than_what_was_given_up() {
    let (rig, reclaim) = machine(16);
    let mm = rig.space();
    for _ in 0..40 {
        let at = filled(&rig, &mm, 500);
        free(&mm, at, 500);
        mm.unmap(at, 500 * PAGE).unwrap();
    }
    assert!(reclaim.frames() <= 6, "{} frames", reclaim.frames());
    assert_eq!(rig.sim.pages().reclaim(0, ZoneKind::COUNT - 1, 32), 0);
    rig.idle(0);
    drop(mm);
    rig.assert_balanced_but(reclaim.frames());
}

/// A page that was written again is not lost when reclaim takes it from the queue, and is not taken from there twice.
#[test]
fn what_was_written_again_is_as_any_other_page() {
    on_both(|rig| {
        let mm = rig.space();
        let at = filled(&rig, &mm, 64);
        free(&mm, at, 64);
        (0..64).for_each(|page| rig.write(&mm, at + page * PAGE, 100 + page as u64).unwrap());
        for _ in 0..8 {
            rig.sim.pages().reclaim(0, ZoneKind::COUNT - 1, 32);
        }
        assert!((0..64).all(|page| rig.read(&mm, at + page * PAGE) == Ok(100 + page as u64)));
        drop(mm);
    });
}

#[test]
fn without_swap_only_what_was_given_up_goes() {
    let rig = Rig::new(16);
    let mm = rig.space();
    let at = filled(&rig, &mm, 2);
    free(&mm, at, 1);
    assert_eq!(mm.advise(at, 2 * PAGE, madv::PAGEOUT), Ok(()));
    assert_eq!(out(&rig, &mm, at + PAGE), Err(Stays::NoSwap));
    assert_eq!((rig.read(&mm, at), rig.read(&mm, at + PAGE)), (Ok(0), Ok(2)));
    rig.idle(0);
    drop(mm);
    rig.assert_balanced();
}

#[test]
fn what_is_needed_is_brought_in_without_a_fault() {
    let (rig, _) = machine(16);
    let mm = rig.space();
    let at = filled(&rig, &mm, 600);
    let shared = map_at(&mm, 0, 8 * PAGE, RW, Map::SHARED).unwrap();
    (0..8).for_each(|page| rig.write(&mm, shared + page * PAGE, 50 + page as u64).unwrap());
    (0..600).for_each(|page| out(&rig, &mm, at + page * PAGE).unwrap());
    (0..8).for_each(|page| out(&rig, &mm, shared + page * PAGE).unwrap());
    assert_eq!(used(&rig), 608);
    assert_eq!(mm.advise(at, 599 * PAGE, madv::WILLNEED), Ok(()));
    assert_eq!(mm.advise(shared, 8 * PAGE, madv::WILLNEED), Ok(()));
    assert_eq!(used(&rig), 1);
    assert!((0..599).all(|page| entry(&mm, at + page * PAGE).is_present()));
    assert!(matches!(entry(&mm, at + 599 * PAGE).kind(), Some(NonPresent::Swap(_))));
    assert!((0..600).all(|page| rig.read(&mm, at + page * PAGE) == Ok(page as u64 + 1)));
    assert!((0..8).all(|page| rig.read(&mm, shared + page * PAGE) == Ok(50 + page as u64)));
    // Without a frame, nothing happens.
    (0..600).for_each(|page| out(&rig, &mm, at + page * PAGE).unwrap());
    inject::fail(Some(1));
    assert_eq!(mm.advise(at, 600 * PAGE, madv::WILLNEED), Ok(()));
    inject::fail(None);
    assert_eq!(used(&rig), 600);
    rig.idle(0);
    drop(mm);
}
