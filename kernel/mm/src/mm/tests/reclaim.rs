//! Reclaim on the simulated machine: programs that need more memory than there is.

use std::boxed::Box;

use super::*;
use crate::reclaim::Reclaim;

/// A machine with little memory, swap and reclaim.
fn machine(mib: usize) -> Rig {
    let rig = Rig::new(mib);
    let pages = rig.sim.pages().total_managed();
    rig.sim.spaces().init_swap(pages * 4, pages, 1).unwrap();
    let reclaim: &'static Reclaim<_> = Box::leak(Box::new(Reclaim::new(rig.sim)));
    reclaim.init().unwrap();
    rig.sim.pages().set_reclaimer(reclaim);
    rig
}

#[test]
fn a_program_gets_more_pages_than_there_are() {
    let rig = machine(16);
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
    rig.assert_balanced();
}
