//! Pages that are looked up by their records while they are allocated and freed.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::*;
use crate::addr::Pfn;
use crate::frame;
use crate::mm::audit_page;
use crate::page::{Page, PageState};
use crate::table::gather::Gather;

#[test]
fn a_page_whose_last_mapping_waits_for_its_invalidation_is_not_found() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let at = anon(&rig, &mm, 2 * PAGE);
    let [sole, held] = [0, 1].map(|page| {
        rig.write(&mm, at + page * PAGE, 1).unwrap();
        mm.pin(at + page * PAGE, false).unwrap()
    });
    let [sole, other] = [drop_to_page(&rig, sole), held.pfn()].map(|pfn| frame::page(rig.sim, pfn));
    let mut gather = Gather::new(rig.sim, mm.tables.asid());
    mm.tables.zap(UserAddr::new(at), UserAddr::new(at + 2 * PAGE), &mut gather);
    assert!(!sole.get_if(PageState::Anon));
    assert_eq!((sole.refs(), other.refs()), (0, 2));
    // What somebody else holds is theirs once the gather has given it back.
    assert!(other.get_if(PageState::Anon) && !other.put());
    let counts = gather.finish();
    drop(gather);
    mm.uncharge(counts);
    assert_eq!(other.refs(), 1);
    drop(held);
    rig.idle(0);
    drop(mm);
    rig.assert_balanced();
    assert_eq!(rig.sim.pages().bad_pages(), 0);
}

/// Lets go of a page that a space still maps.
fn drop_to_page(rig: &Rig, held: crate::mm::PinnedPage<&'static Sim>) -> Pfn {
    let pfn = held.pfn();
    drop(held);
    assert_eq!(frame::page(rig.sim, pfn).refs(), 1);
    pfn
}

/// Two threads race for the same new pages, of anonymous and of shared memory, and unmap them; a third looks at every page
/// there is, without holding any of them beforehand.
#[test]
fn pages_that_are_found_at_any_moment_are_freed_once() {
    const ROUNDS: usize = 400;
    const PAGES: usize = 16;
    let rig = Rig::new(64);
    let mm = rig.space();
    let (turn, done, found) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicUsize::new(0));
    let at = 0x4000_0000;
    thread::scope(|scope| {
        let (rig, mm, turn, done, found) = (&rig, &mm, &turn, &done, &found);
        scope.spawn(move || {
            Sim::set_cpu(2);
            let is_user = |page: &Page| page.state().is_user();
            while !done.load(Ordering::Relaxed) {
                let mut from = Pfn(0);
                while let Some(pfn) = rig.sim.pages().next_frame(from, is_user) {
                    from = Pfn(pfn.0 + 1);
                    audit_page(rig.sim, pfn);
                    found.fetch_add(1, Ordering::Relaxed);
                }
                thread::yield_now();
            }
        });
        let touch_all = || {
            for page in 0..2 * PAGES {
                // (Gone already, where the other thread is ahead.)
                let _ = mm.fault(at + page * PAGE, Access::Write);
            }
        };
        let second = scope.spawn(move || {
            Sim::set_cpu(1);
            for round in 1..=ROUNDS {
                while turn.load(Ordering::Acquire) < round {
                    std::hint::spin_loop();
                }
                touch_all();
            }
        });
        Sim::set_cpu(0);
        for round in 1..=ROUNDS {
            map_at(mm, at, PAGES * PAGE, RW, Map::FIXED).unwrap();
            map_at(mm, at + PAGES * PAGE, PAGES * PAGE, RW, Map::FIXED | Map::SHARED).unwrap();
            turn.store(round, Ordering::Release);
            touch_all();
            mm.unmap(at, 2 * PAGES * PAGE).unwrap();
        }
        second.join().unwrap();
        done.store(true, Ordering::Relaxed);
    });
    assert!(found.load(Ordering::Relaxed) > 0);
    mm.validate();
    drop(mm);
    rig.assert_balanced();
    assert_eq!(rig.sim.pages().bad_pages(), 0, "freed while somebody held it");
}
