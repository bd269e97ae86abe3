//! Pages that go, and objects that end.

use core::mem::ManuallyDrop;

use super::Asked::Read;
use super::*;
use crate::frame;
use crate::reclaim::Reclaim;
use crate::sim::mmu::Drain;

#[test]
fn a_clean_page_goes_and_is_read_again() {
    let scene = Scene::new(pages(8, 0));
    let (mm, other) = (scene.space(), scene.space());
    scene.map(&mm, AT, 8, Map::SHARED);
    scene.map(&other, AT, 8, Map::PRIVATE);
    scene.rig.read(&mm, AT + PAGE).unwrap();
    scene.rig.read(&other, AT + PAGE).unwrap();
    scene.rig.write(&other, AT + 2 * PAGE, 5).unwrap();
    let (rss, free) = (mm.rss(), scene.rig.sim.pages().total_free());
    let pfn = scene.pfn(1);
    scene.disk.asked();
    assert_eq!(scene.take_away(1), Ok(()));
    assert!(!frame::page(scene.rig.sim, pfn).state().is_user());
    assert_eq!((rss - mm.rss(), scene.rig.sim.pages().total_free() - free), (1, 1));
    assert!(!entry(&mm, AT + PAGE).is_present() && !entry(&other, AT + PAGE).is_present());
    assert_eq!((scene.file.has(1), scene.file.cached_pages()), (false, 2));
    // The pager has something else by now.
    scene.disk.lock().bytes[PAGE..2 * PAGE].fill(9);
    assert_eq!(scene.rig.read(&other, AT + PAGE), Ok(0x0909_0909_0909_0909));
    assert_eq!(scene.disk.asked(), [Read(1, 1)]);
    assert_eq!(scene.rig.read(&mm, AT + PAGE), Ok(0x0909_0909_0909_0909));
    // A private copy is no page of it.
    assert_eq!((scene.take_away(2), scene.rig.read(&other, AT + 2 * PAGE)), (Ok(()), Ok(5)));
    // A marked one stays, by a store or by a write, mapped or not.
    scene.rig.write(&mm, AT + PAGE, 10).unwrap();
    scene.write(3 * PAGE, &[11]).unwrap();
    assert_eq!([1, 3].map(|page| scene.take_away(page)), [Err(Stays::Marked); 2]);
    assert!(entry(&mm, AT + PAGE).is_writable(), "it keeps its entries");
    mm.unmap(AT, 8 * PAGE).unwrap();
    other.unmap(AT, 8 * PAGE).unwrap();
    assert_eq!([1, 3].map(|page| scene.take_away(page)), [Err(Stays::Marked); 2]);
    scene.write_back().unwrap();
    assert_eq!([1, 3].map(|page| scene.take_away(page)), [Ok(()); 2]);
    assert_eq!((scene.word(1), scene.word(3).map(|word| word & 0xff)), (Ok(10), Ok(11)));
    scene.rig.idle(0);
    drop((mm, other));
    scene.end();
}

/// A page goes while it is stored to, written by a call, written back, and brought in again on other CPUs, or cut off.
fn go_beside_everything(seed: u64) {
    let scene = ManuallyDrop::new(Scene::new(pages(4, 0)));
    scene.rig.mmu.set_chance(seed, Drain::Late);
    let mm = scene.space();
    scene.map(&mm, AT, 4, Map::SHARED);
    scene.rig.read(&mm, AT + PAGE).unwrap();
    let bug = seeded::current();
    let on = |cpu, work: Box<dyn Fn() + Send>| -> turns::Body { body(cpu, bug, work) };
    let program = Rig { sim: scene.rig.sim, mmu: scene.rig.mmu.clone(), free: 0 };
    let (sim, file, program, mm_) = (scene.rig.sim, &scene.file, &program, &mm);
    let cuts = seed.is_multiple_of(4);
    let bodies = [
        on(
            0,
            Box::new(move || {
                for n in 0..4 {
                    if let Some(Ok(pfn)) = file.look_at(1 + n % 2) {
                        _ = page_out(sim, pfn, OUT);
                    }
                }
            }),
        ),
        on(
            1,
            Box::new(move || {
                let at = program.touch(1, mm_, AT + PAGE, Access::Write);
                // (It may be cut off.)
                if let Ok(at) = at {
                    // SAFETY: the MMU allows it, and the turn does not pass in between.
                    unsafe { at.cast::<u64>().write(77) };
                }
            }),
        ),
        on(
            2,
            Box::new(move || match cuts {
                true => {
                    let mut turn = Object::turn(file).unwrap();
                    turn.set_len(PAGE as u64 + 100).unwrap();
                    turn.set_len(4 * PAGE as u64).unwrap();
                }
                false => assert_eq!(write(sim, file, PAGE as u64 + 8, &[78; PAGE], usize::MAX), Ok(PAGE)),
            }),
        ),
        on(
            3,
            Box::new(move || {
                Object::turn(file).unwrap().write_back().unwrap();
                let bytes = read(file, 2 * PAGE as u64, 1).unwrap();
                assert!(matches!(bytes[..], [] | [0 | 3 | 78]), "{bytes:?}");
            }),
        ),
    ];
    turns::run(seed, 1 + seed as usize % 20, bodies.into());
    Sim::set_cpu(0);
    let mut want = pages(4, 0);
    want[PAGE..PAGE + 8].copy_from_slice(&77_u64.to_ne_bytes());
    match cuts {
        true => want[PAGE + 100..].fill(0),
        false => want[PAGE + 8..2 * PAGE + 8].fill(78),
    }
    assert!(scene.read(0, 4 * PAGE).unwrap() == want, "seed {seed}");
    scene.write_back().unwrap();
    assert!(scene.disk.bytes() == want, "seed {seed}");
    assert_eq!((scene.marked(), scene.drop_cache()), (vec![], 0));
    mm.validate();
    (0..4).for_each(|cpu| scene.rig.idle(cpu));
    drop(mm);
    ManuallyDrop::into_inner(scene).end();
}

#[test]
fn a_page_may_go_at_any_moment() {
    notices(&[Bug::MarkedPageGoes, Bug::StoreIsNotMarked], || {
        (1..500).for_each(go_beside_everything);
    });
}

#[test]
fn locked_pinned_held_and_used_pages_stay() {
    let scene = Scene::new(pages(8, 0));
    let mm = scene.space();
    scene.map(&mm, AT, 8, Map::SHARED);
    mm.lock(AT, PAGE, false).unwrap();
    assert_eq!(scene.take_away(0), Err(Stays::Locked));
    assert!(entry(&mm, AT).is_present());
    assert_eq!(scene.marked(), [], "to lock a page is not to store to it");
    let held = mm.pin(AT + PAGE, false).unwrap();
    assert_eq!(scene.take_away(1), Err(Stays::Held));
    drop(held);
    let pfn = scene.pfn(2);
    assert!(scene.rig.sim.pages().pin_long_term(pfn));
    assert_eq!(scene.take_away(2), Err(Stays::Held));
    assert!(Object::turn(&scene.file).unwrap().has_pins().unwrap());
    assert!(!frame::page(scene.rig.sim, pfn).unpin());
    let unused = Out { if_unused: true, ..OUT };
    scene.word(3).unwrap();
    let pfn = scene.pfn(3);
    assert_eq!(page_out(scene.rig.sim, pfn, unused), Err(Stays::Used), "by a call");
    scene.rig.read(&mm, AT + 3 * PAGE).unwrap();
    assert_eq!(page_out(scene.rig.sim, pfn, unused), Err(Stays::Used), "by a mapping");
    assert_eq!(page_out(scene.rig.sim, pfn, unused), Ok(()));
    mm.unlock(AT, PAGE).unwrap();
    let left = [0, 1, 2].map(|page| scene.take_away(page));
    assert_eq!(left, [Ok(()); 3]);
    assert_eq!(scene.drop_cache(), 0);
    scene.rig.idle(0);
    drop(mm);
    scene.end();
}

#[test]
fn the_end_gives_all_back() {
    let scene = Scene::new(pages(100, 0));
    let another = Disk::new(scene.rig.sim, pages(10, 0));
    let second = Object::paged(scene.rig.sim, Box::new(TestPager(another))).unwrap();
    Object::turn(&second).unwrap().agree().unwrap();
    assert_eq!(read(&second, 0, 10 * PAGE).unwrap(), pages(10, 0));
    let spaces = scene.rig.sim.spaces();
    assert_eq!(scene.read(0, 100 * PAGE).unwrap(), pages(100, 0));
    scene.write(10 * PAGE, &[1; 30 * PAGE]).unwrap();
    assert_eq!((spaces.cached(), spaces.marked()), (110, 30));
    scene.set_len(20 * PAGE).unwrap();
    assert_eq!((spaces.cached(), spaces.marked(), scene.file.cached_pages()), (30, 10, 20));
    // With marks, and a page that a mapping keeps for a while.
    let mm = scene.space();
    scene.map(&mm, AT, 20, Map::SHARED);
    scene.rig.write(&mm, AT, 1).unwrap();
    drop(second);
    assert_eq!((spaces.cached(), spaces.marked()), (20, 11));
    let held = mm.pin(AT, false).unwrap();
    scene.rig.idle(0);
    drop(mm);
    let Scene { rig, file, .. } = scene;
    drop(file);
    assert_eq!((spaces.cached(), spaces.marked()), (0, 0));
    rig.assert_balanced_but(1);
    drop(held);
    rig.assert_balanced();
}

/// Where no other frame is to be had, a clean page of a range that is needed goes; a marked one has to stay.
#[test]
fn a_range_is_cleared_of_clean_pages_when_there_is_no_other_frame() {
    let scene = Scene::new(pages(4, 0));
    let mm = scene.space();
    scene.map(&mm, AT, 4, Map::SHARED);
    scene.rig.read(&mm, AT).unwrap();
    scene.rig.write(&mm, AT + PAGE, 5).unwrap();
    let (clean, marked) = (scene.pfn(0), scene.pfn(1));
    let taken: Vec<Pfn> = core::iter::from_fn(|| frame::alloc_to_move(scene.rig.sim).ok()).collect();
    let mover = crate::mm::Mover(scene.rig.sim);
    let clear = |pfn: Pfn| crate::page_alloc::MigrateRange::migrate(&mover, pfn, Pfn(pfn.0 + 1));
    assert_eq!((clear(marked), clear(clean)), (Err(marked), Ok(())));
    taken.into_iter().for_each(|pfn| frame::free(scene.rig.sim, pfn));
    assert_eq!(clear(marked), Ok(()));
    assert_eq!((scene.file.has(0), scene.marked()), (false, vec![1]));
    assert_eq!((scene.rig.read(&mm, AT), scene.rig.read(&mm, AT + PAGE)), (Ok(word_of(0)), Ok(5)));
    scene.rig.idle(0);
    drop(mm);
    scene.end();
}

/// Without swap, a file that is larger than memory is read and written through two mappings and by calls.
#[test]
fn a_file_may_be_larger_than_memory() {
    let rig = Rig::new(16);
    let all = rig.sim.pages().total_managed();
    let reclaim: &Reclaim<_> = Box::leak(Box::new(Reclaim::new(rig.sim)));
    reclaim.init().unwrap();
    rig.sim.pages().set_reclaimer(reclaim);
    let count = all * 5 / 4;
    let scene = Scene::on(rig, pages(count, 0));
    let (mm, other) = (scene.space(), scene.space());
    scene.map(&mm, AT, count, Map::SHARED);
    scene.map_with(&other, AT, count, Map::SHARED, Prot::READ);
    for round in 0..2 {
        for page in 0..count {
            let want = if round == 0 || page % 16 != 3 { word_of(page) } else { page as u64 };
            let got = match page % 3 {
                0 => scene.rig.read(&mm, AT + page * PAGE).unwrap(),
                1 => scene.rig.read(&other, AT + page * PAGE).unwrap(),
                _ => scene.word(page).unwrap(),
            };
            assert_eq!(got, want, "page {page}, round {round}");
            if page % 16 == 3 && round == 0 {
                scene.rig.write(&mm, AT + page * PAGE, page as u64).unwrap();
            }
            if scene.file.marked_pages() > 40 {
                scene.write_back().unwrap();
            }
        }
    }
    scene.write_back().unwrap();
    let disk = scene.disk.bytes();
    for page in (3..count).step_by(16) {
        assert_eq!(disk[page * PAGE..page * PAGE + 8], (page as u64).to_ne_bytes());
    }
    assert!(scene.file.cached_pages() < all);
    scene.rig.idle(0);
    drop((mm, other));
    assert_eq!(scene.drop_cache(), 0);
    let Scene { rig, file, .. } = scene;
    drop(file);
    rig.assert_balanced_but(reclaim.frames());
}
