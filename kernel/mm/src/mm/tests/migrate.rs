//! Pages that move to other frames.

use super::*;
use crate::addr::Pfn;
use crate::fallible::AllocError;
use crate::frame;
use crate::memblock::RegionKind;
use crate::mm::{Mover, PinnedPage, Stays, audit_page, migrate};
use crate::page::PageState;
use crate::page_alloc::cma::CmaError;
use crate::pte::Pte;
use crate::sim::SimConfig;
use quire_abi::flags::madv;

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
