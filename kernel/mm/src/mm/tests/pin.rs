//! A page that is pinned from outside of its space while it would otherwise be freed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;
use crate::pte::{NonPresent, Pte, index};
use crate::seeded::{self, Bug};
use crate::supply::Supply;
use quire_abi::flags::madv;

#[test]
fn who_is_killed_no_longer_tries_what_cannot_be() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let at = anon(&rig, &mm, PAGE);
    let marker = Pte::non_present(NonPresent::Marker(7));
    mm.tables.walk_or_create(UserAddr::new(at), &Supply::new(rig.sim)).unwrap().lock().fill(index(at, 3), marker);
    for lives in [0, 1, 20] {
        // The fault says that all is well, and leaves no page.
        seeded::switch(Some(Bug::MarkerBlocksFault));
        Sim::kill_after(lives);
        let held = mm.pin(at, true).map(drop);
        seeded::switch(None);
        assert_eq!(held, Err(FaultError::OutOfMemory));
    }
    // A caller that can be served is not asked.
    assert!(mm.pin(at, true).is_ok());
    drop(mm);
    rig.assert_balanced();
}

/// One thread takes the page away, or the right to it, all the time: the other has it in the end, and is never told that
/// it could not.
#[test]
fn a_page_that_others_take_away_is_had_in_the_end() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let at = anon(&rig, &mm, 2 * PAGE);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (mm, done) = (&mm, &done);
        scope.spawn(move || {
            Sim::set_cpu(1);
            while !done.load(Ordering::Relaxed) {
                mm.advise(at, 2 * PAGE, madv::DONTNEED).unwrap();
                mm.advise(at, 2 * PAGE, madv::COLD).unwrap();
                drop(mm.fork().unwrap());
                thread::yield_now();
            }
        });
        for n in 0..2000 {
            let held = mm.pin(at + n % 2 * PAGE, n % 3 != 0).unwrap();
            // SAFETY: this holds the page, which nobody writes.
            assert_eq!(unsafe { held.as_ptr().read() }, 0);
        }
        done.store(true, Ordering::Relaxed);
    });
    mm.validate();
    drop(mm);
    rig.assert_balanced();
}
