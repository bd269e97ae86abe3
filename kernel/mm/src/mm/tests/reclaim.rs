//! Reclaim on the simulated machine: programs that need more memory than there is.

use std::boxed::Box;

use super::*;
use crate::pte::NonPresent;
use crate::reclaim::Reclaim;
use crate::zone::ZoneKind;

/// A machine with little memory, swap and reclaim.
pub(super) fn machine(mib: usize) -> (Rig, &'static Reclaim<&'static Sim>) {
    let rig = Rig::new(mib);
    let pages = rig.sim.pages().total_managed();
    rig.sim.spaces().init_swap(pages * 4, pages, 1).unwrap();
    let reclaim: &Reclaim<_> = Box::leak(Box::new(Reclaim::new(rig.sim)));
    reclaim.init().unwrap();
    rig.sim.pages().set_reclaimer(reclaim);
    (rig, reclaim)
}

#[test]
fn a_program_gets_more_pages_than_there_are() {
    let (rig, reclaim) = machine(16);
    let mm = rig.space();
    let pages = rig.sim.pages().total_managed() * 2;
    let at = anon(&rig, &mm, pages * PAGE);
    for round in 0..2 {
        for page in 0..pages {
            let va = at + page * PAGE;
            assert_eq!(rig.read(&mm, va), Ok(if round == 0 { 0 } else { page as u64 + 1 }));
            rig.write(&mm, va, page as u64 + 1).unwrap();
        }
    }
    assert!(rig.sim.spaces().swap().stats().used > pages / 3);
    rig.idle(0);
    drop(mm);
    assert_eq!(rig.sim.spaces().swap().stats().used, 0);
    rig.assert_balanced_but(reclaim.frames());
}

/// Writes to each page of a range that is in memory or not, in order; returns how many were in swap.
fn sweep(rig: &Rig, mm: &Space, at: usize, pages: usize) -> usize {
    let mut away = 0;
    for page in 0..pages {
        let va = at + page * PAGE;
        away += matches!(mm.entry(UserAddr::new(va)).kind(), Some(NonPresent::Swap(_))) as usize;
        rig.write(mm, va, page as u64 + 1).unwrap();
    }
    away
}

/// Most of a set that is in use keeps its frames while fresh pages pass by once, more than there is memory for. (LRU would lose
/// all of it.)
#[test]
fn a_scan_does_not_drive_out_what_is_used() {
    let (rig, reclaim) = machine(16);
    let mm = rig.space();
    let all = rig.sim.pages().total_managed();
    let set = all / 2;
    let used = anon(&rig, &mm, set * PAGE);
    let passing = anon(&rig, &mm, 2 * all * PAGE);
    sweep(&rig, &mm, used, set);
    for part in 0..8 {
        sweep(&rig, &mm, passing + part * all / 4 * PAGE, all / 4);
        sweep(&rig, &mm, used, set);
    }
    sweep(&rig, &mm, passing, all * 12 / 10);
    let lost = sweep(&rig, &mm, used, set);
    assert!(lost < set * 3 / 10, "{lost} faults of a set of {set} pages");
    rig.idle(0);
    drop(mm);
    rig.assert_balanced_but(reclaim.frames());
}

/// Of a set that is swept again and again, and is a little too large, most pages stay. (LRU would lose all of them.)
#[test]
fn a_sweep_that_is_too_large_keeps_most_pages() {
    let (rig, reclaim) = machine(16);
    let mm = rig.space();
    let set = rig.sim.pages().total_managed() * 11 / 10;
    let at = anon(&rig, &mm, set * PAGE);
    (0..4).for_each(|_| _ = sweep(&rig, &mm, at, set));
    let lost: usize = (0..4).map(|_| sweep(&rig, &mm, at, set)).sum();
    assert!(lost < 4 * set * 4 / 10, "{lost} faults in four sweeps of {set} pages");
    rig.idle(0);
    drop(mm);
    rig.assert_balanced_but(reclaim.frames());
}

/// Locked pages, and pages that a device may be writing to, stay where they are whatever memory is needed for.
#[test]
fn what_must_stay_stays() {
    let (rig, reclaim) = machine(16);
    let mm = rig.space();
    let all = rig.sim.pages().total_managed();
    let (locked, pinned) = (anon(&rig, &mm, 64 * PAGE), anon(&rig, &mm, PAGE));
    mm.lock(locked, 64 * PAGE, false).unwrap();
    rig.write(&mm, pinned, 5).unwrap();
    let pin = mm.pin(pinned, true).unwrap();
    let frames = || [locked, locked + 63 * PAGE, pinned].map(|va| mm.entry(UserAddr::new(va)).addr());
    let before = frames();
    let at = anon(&rig, &mm, 2 * all * PAGE);
    (0..2).for_each(|_| _ = sweep(&rig, &mm, at, 2 * all));
    assert_eq!(frames(), before);
    assert!([0, 63].iter().all(|page| mm.entry(UserAddr::new(locked + page * PAGE)).is_present()));
    assert!(mm.entry(UserAddr::new(pinned)).is_present());
    drop(pin);
    rig.idle(0);
    drop(mm);
    rig.assert_balanced_but(reclaim.frames());
}

/// That all pages are locked is found after one look at each, and that one is no more is found again.
#[test]
fn locked_pages_are_looked_at_once() {
    let (rig, reclaim) = machine(16);
    let mm = rig.space();
    let set = rig.sim.pages().total_managed() * 3 / 4;
    let at = anon(&rig, &mm, set * PAGE);
    mm.lock(at, set * PAGE, false).unwrap();
    let take = |wanted| rig.sim.pages().reclaim(0, ZoneKind::COUNT - 1, wanted);
    for _ in 0..8 {
        assert_eq!(take(32), 0);
    }
    let view = reclaim.view(0).unwrap();
    assert_eq!((view.locked, view.pages), (set, set));
    assert!(view.rounds <= 32, "{} rounds of the hand", view.rounds);

    mm.unlock(at + 64 * PAGE, 256 * PAGE).unwrap();
    let taken: usize = (0..8).map(|_| take(32)).sum();
    assert!(taken >= 224, "{taken} of 256 unlocked pages");
    let away = |page: &usize| !mm.entry(UserAddr::new(at + page * PAGE)).is_present();
    assert_eq!((0..set).filter(away).count(), taken);
    assert!((64..320).filter(away).count() == taken);
    rig.idle(0);
    drop(mm);
    rig.assert_balanced_but(reclaim.frames());
}

/// A page stays locked for as long as one of those who share it has it locked, and no longer.
#[test]
fn a_page_is_locked_by_any_of_its_areas() {
    let (rig, reclaim) = machine(16);
    let mm = rig.space();
    let at = anon(&rig, &mm, 64 * PAGE);
    mm.lock(at, 64 * PAGE, false).unwrap();
    let child = mm.fork().unwrap();
    let take = || (0..8).map(|_| rig.sim.pages().reclaim(0, ZoneKind::COUNT - 1, 32)).sum::<usize>();
    assert_eq!(take(), 0);
    rig.idle(0);
    drop(mm);
    assert_eq!(take(), 64, "the child has not locked them");
    drop(child);
    rig.assert_balanced_but(reclaim.frames());
}

/// Pages that are not used any more leave, as many as are asked for, wherever they are.
#[test]
fn a_round_of_reclaim_frees_what_is_asked_for() {
    let (rig, reclaim) = machine(64);
    let mm = rig.space();
    let set = rig.sim.pages().total_managed() * 3 / 4;
    let at = anon(&rig, &mm, set * PAGE);
    sweep(&rig, &mm, at, set);
    for round in 0..40 {
        assert_eq!(rig.sim.pages().reclaim(0, ZoneKind::COUNT - 1, 32), 32, "round {round}");
    }
    rig.idle(0);
    drop(mm);
    rig.assert_balanced_but(reclaim.frames());
}

/// kswapd has something to do when an allocation has found less than the low watermark, and makes free what is between that and the
/// high one, once.
#[test]
fn background_reclaim_goes_from_the_low_to_the_high_watermark() {
    let (rig, reclaim) = machine(16);
    let pages = rig.sim.pages();
    let mm = rig.space();
    let at = anon(&rig, &mm, pages.total_managed() * PAGE);
    let zone = || pages.zones().next().unwrap();
    let marks = zone().watermarks();
    let mut touched = 0;
    while !pages.wants_balance(0) {
        rig.write(&mm, at + touched * PAGE, 1).unwrap();
        touched += 1;
    }
    assert!(zone().free() <= marks.low && zone().free() > marks.min, "{} pages are free", zone().free());
    let (before, freed) = (zone().free(), pages.balance(0));
    assert!(zone().free() > marks.high && zone().free() <= marks.high + 64, "{} pages are free", zone().free());
    assert!(freed >= marks.high - before);
    assert!(!pages.wants_balance(0));
    assert_eq!(pages.balance(0), 0, "nobody has asked since");
    rig.idle(0);
    drop(mm);
    rig.assert_balanced_but(reclaim.frames());
}

/// A thread that is killed while it reclaims leaves all pages where others find them, also those that it had chosen.
#[test]
fn who_is_killed_in_reclaim_loses_no_page() {
    let (rig, reclaim) = machine(16);
    let mm = rig.space();
    let set = rig.sim.pages().total_managed() / 2;
    let at = anon(&rig, &mm, set * PAGE);
    sweep(&rig, &mm, at, set);
    let mut freed = 0;
    for lives in 0..set {
        Sim::kill_after(lives % 400);
        freed += rig.sim.pages().reclaim(0, ZoneKind::COUNT - 1, 32);
        Sim::kill_after(usize::MAX);
    }
    for _ in 0..set {
        freed += rig.sim.pages().reclaim(0, ZoneKind::COUNT - 1, 32);
    }
    assert_eq!(freed, set, "all pages are in swap");
    rig.idle(0);
    drop(mm);
    rig.assert_balanced_but(reclaim.frames());
}

/// Where memory is short, each page of a range takes long to bring in, and whoever brings in many can be ended between two.
#[test]
fn who_populates_can_be_ended_at_each_page() {
    const POINTS: usize = 8;
    let (rig, reclaim) = machine(16);
    let mm = rig.space();
    let at = anon(&rig, &mm, 1000 * PAGE);
    Sim::kill_after(POINTS);
    assert!(mm.advise(at, 1000 * PAGE, quire_abi::flags::madv::POPULATE_WRITE).is_err());
    Sim::kill_after(usize::MAX);
    // (A fault brings in up to 16.)
    assert!(mm.rss() <= 16 * (POINTS + 1), "{} pages", mm.rss());
    rig.idle(0);
    drop(mm);
    rig.assert_balanced_but(reclaim.frames());
}
