//! The length of walks from a page to its mappings, in steps: brackets, class members and areas examined.

use std::boxed::Box;
use std::vec::Vec;

use super::*;
use crate::addr::Pfn;
use crate::frame;
use crate::mm::page_out::{Out, page_out};
use crate::mm::{for_each_mapping_of_held, migrate};
use crate::sim::mmu::Drain;
use crate::sim::turns;
use crate::steps;
use quire_abi::flags::{Mremap, madv};

/// The steps of a walk from the page at `at`, which must have one mapper.
fn steps_to_one(rig: &Rig, mm: &Space, at: usize) -> usize {
    let held = mm.pin(at, false).unwrap();
    let mut found = Vec::new();
    let steps = steps::of(|| {
        for_each_mapping_of_held(rig.sim, held.pfn(), 1, |mm, addr| {
            found.push((KArc::as_ptr(mm), addr.get()));
            true
        });
    });
    assert_eq!(found, [(KArc::as_ptr(mm), at)]);
    steps
}

fn move_to(mm: &Space, at: usize, to: usize, more: Mremap) {
    mm.remap(at, PAGE, PAGE, Mremap::MAYMOVE | Mremap::FIXED | more, to).unwrap();
}

/// The steps of taking the page at `at`, which must have one mapper, to another frame, and those to swap. It is back
/// afterwards.
fn steps_away(rig: &Rig, mm: &Space, at: usize) -> [usize; 2] {
    let mut moved = None;
    let to_frame =
        steps::of(|| moved = migrate(rig.sim, mapped(mm, at).unwrap(), || frame::alloc_to_move(rig.sim)).ok());
    assert_eq!(moved, mapped(mm, at));
    let to_swap =
        steps::of(|| page_out(rig.sim, mapped(mm, at).unwrap(), Out { even_raw: true, ..Out::default() }).unwrap());
    assert_eq!(mapped(mm, at), None);
    rig.read(mm, at).unwrap();
    [to_frame, to_swap]
}

/// [`steps_away`] from a space with so many children, which do not map the page.
fn steps_away_beside(children: usize) -> [usize; 2] {
    let rig = Rig::new(256);
    rig.sim.spaces().init_swap(100, 100, 1).unwrap();
    let parent = rig.space();
    let at = anon(&rig, &parent, PAGE);
    let children: Vec<_> = (0..children).map(|_| parent.fork().unwrap()).collect();
    rig.write(&parent, at, 1).unwrap();
    let steps = steps_away(&rig, &parent, at);
    rig.idle(0);
    drop((parent, children));
    rig.assert_balanced();
    steps
}

/// The walk that replaces a move's entries ends with the last one.
#[test]
fn younger_children_cost_a_move_nothing() {
    let [alone, beside] = [0, 4000].map(steps_away_beside);
    assert!(beside.iter().zip(alone).all(|(beside, alone)| *beside <= 2 * alone), "{beside:?}, alone {alone:?}");
}

/// What the same walk takes with one space and one area.
fn alone() -> usize {
    let rig = Rig::new(64);
    let mm = rig.space();
    let at = anon(&rig, &mm, PAGE);
    rig.write(&mm, at, 1).unwrap();
    steps_to_one(&rig, &mm, at)
}

#[test]
fn generations_that_have_ended_cost_a_walk_nothing() {
    const DEPTH: usize = 4000;
    let rig = Rig::new(256);
    let mut mm = rig.space();
    let at = anon(&rig, &mm, DEPTH * PAGE);
    // Each generation writes a page, forks, and ends.
    for n in 0..DEPTH {
        rig.write(&mm, at + n * PAGE, 1).unwrap();
        let child = mm.fork().unwrap();
        rig.idle(0);
        mm = child;
    }
    for n in [0, 1, DEPTH / 2, DEPTH - 2, DEPTH - 1] {
        let steps = steps_to_one(&rig, &mm, at + n * PAGE);
        assert!(steps <= 2 * alone(), "{steps} steps from a page of generation {n}");
    }
    drop(mm);
    rig.assert_balanced();
}

#[test]
fn younger_children_cost_a_walk_nothing() {
    const WIDTH: usize = 4000;
    let rig = Rig::new(256);
    let parent = rig.space();
    let at = anon(&rig, &parent, 2 * PAGE);
    rig.write(&parent, at, 1).unwrap();
    let children: Vec<_> = (0..WIDTH).map(|_| parent.fork().unwrap()).collect();
    // After the forks: nobody else can map it.
    rig.write(&parent, at + PAGE, 1).unwrap();
    let steps = steps_to_one(&rig, &parent, at + PAGE);
    assert!(steps <= 2 * alone(), "{steps} steps");
    // What all map is found in all, and the audit, which trusts no count, looks at all.
    let pfn = parent.pin(at, false).unwrap().pfn();
    let mut found = 0;
    for_each_mapping_of_held(rig.sim, pfn, 0, |_, _| {
        found += 1;
        true
    });
    assert_eq!(found, WIDTH + 1);
    assert!(crate::mm::audit_page(rig.sim, pfn));
    rig.idle(0);
    drop((parent, children));
    rig.assert_balanced();
}

#[test]
fn areas_that_moved_from_one_place_are_told_apart() {
    const AREAS: usize = 10_000;
    let rig = Rig::new(256);
    let mm = rig.space();
    let (at, to) = (0x4000_0000, 0x1_0000_0000);
    let one_away = {
        let mm = rig.space();
        map_at(&mm, at, PAGE, RW, Map::FIXED).unwrap();
        rig.write(&mm, at, 1).unwrap();
        move_to(&mm, at, to, Mremap::empty());
        let steps = steps_to_one(&rig, &mm, to);
        rig.idle(0);
        steps
    };
    // By turns the place is left and mapped anew, and only emptied.
    for n in 0..AREAS {
        map_at(&mm, at, PAGE, RW, Map::FIXED).unwrap();
        rig.write(&mm, at, 1).unwrap();
        let keep = n % 2 == 1;
        move_to(&mm, at, to + 4 * n * PAGE, if keep { Mremap::DONTUNMAP } else { Mremap::empty() });
        if keep {
            rig.write(&mm, at, 1).unwrap();
            move_to(&mm, at, to + (4 * n + 2) * PAGE, Mremap::empty());
        }
    }
    // O(log n) of a tree, and not a search: twice the steps of one among a few, and the depth of the tree of those
    // away.
    let depth = 4 * AREAS.ilog2() as usize;
    let mut sum = 0;
    let places: Vec<_> =
        (0..AREAS).step_by(97).flat_map(|n| [4 * n].into_iter().chain((n % 2 == 1).then_some(4 * n + 2))).collect();
    for place in &places {
        let steps = steps_to_one(&rig, &mm, to + place * PAGE);
        assert!(steps <= 2 * one_away + depth, "{steps} steps");
        sum += steps;
    }
    assert!(sum / places.len() <= one_away + depth / 2, "{} steps in the mean", sum / places.len());
    mm.validate();
    rig.idle(0);
    drop(mm);
    rig.assert_balanced();
}

/// What programs see of areas is the same: what fills the hole that a moved area left is one area.
#[test]
fn a_hole_that_a_move_left_is_filled_by_one_area() {
    let rig = Rig::new(64);
    let mm = rig.space();
    let (at, to) = (0x4000_0000, 0x1_0000_0000);
    map_at(&mm, at, 16 * PAGE, RW, Map::FIXED).unwrap();
    rig.write(&mm, at + 3 * PAGE, 3).unwrap();
    mm.remap(at, 16 * PAGE, 16 * PAGE, Mremap::MAYMOVE | Mremap::FIXED, to).unwrap();
    let areas = |mm: &Space| mm.areas.read().tree.len();
    assert_eq!(areas(&mm), 1);
    for n in [8, 9, 7, 10, 6, 5, 11, 12, 4, 3, 2, 13, 1, 14, 0, 15] {
        map_at(&mm, at + n * PAGE, PAGE, RW, Map::FIXED).unwrap();
        rig.write(&mm, at + n * PAGE, 100 + n as u64).unwrap();
    }
    assert_eq!(areas(&mm), 2);
    let child = mm.fork().unwrap();
    for n in 0..16 {
        assert_eq!(rig.read(&child, at + n * PAGE), Ok(100 + n as u64));
        let pfn = mm.pin(at + n * PAGE, false).unwrap().pfn();
        let mut found = 0;
        crate::mm::for_each_mapping(rig.sim, pfn, |_, addr| {
            assert_eq!(addr.get(), at + n * PAGE);
            found += 1;
            true
        });
        assert_eq!(found, 2);
    }
    assert_eq!(rig.read(&child, to + 3 * PAGE), Ok(3));
    [&mm, &child].into_iter().for_each(|mm| mm.validate());
    rig.idle(0);
    drop((mm, child));
    rig.assert_balanced();
}

/// An anon_vma ends in a bounded number of steps under its family's lock, however many children and ancestors it has.
#[test]
fn the_end_of_a_space_is_as_long_with_many_relatives_as_with_few() {
    let end_among = |relatives: usize| {
        let rig = Rig::new(256);
        let root = rig.space();
        let middle = root.fork().unwrap();
        let children: Vec<_> = (0..relatives).map(|_| middle.fork().unwrap()).collect();
        let mut line = std::vec![children.last().unwrap().clone()];
        for _ in 0..relatives {
            let child = line.last().unwrap().fork().unwrap();
            line.push(child);
        }
        let steps = steps::of(|| drop(middle));
        let last = line.pop().unwrap();
        let last_steps = steps::of(|| drop(last));
        drop((root, children, line));
        rig.assert_balanced();
        steps.max(last_steps)
    };
    assert_eq!(end_among(1000), end_among(3));
}

/// Families of random shape, whose members write, drop pages, fork and end, and are walked through meanwhile: each page
/// is found where it is mapped, and nowhere else.
#[test]
fn families_of_any_shape_are_walked_whole() {
    const PAGES: usize = 8;
    for seed in 1..40_u64 {
        let rig = Rig::new(64);
        let mut seed = seed;
        let mut random = move |n: usize| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize % n
        };
        let first = rig.space();
        let at = anon(&rig, &first, PAGES * PAGE);
        let mut family = std::vec![first];
        for _ in 0..120 {
            let one = random(family.len());
            match random(8) {
                0..3 => rig.write(&family[one], at + random(PAGES) * PAGE, 1).unwrap(),
                3 => family[one].advise(at + random(PAGES) * PAGE, PAGE, madv::DONTNEED).unwrap(),
                4 | 5 if family.len() < 12 => {
                    let child = family[one].fork().unwrap();
                    family.push(child);
                }
                _ if family.len() > 1 => {
                    rig.idle(0);
                    // Now and then while somebody walks past it.
                    let pfn = mapped(&family[one], at + random(PAGES) * PAGE);
                    let mut going = Some(family.swap_remove(one));
                    if let Some(pfn) = pfn {
                        let held = crate::frame::page(rig.sim, pfn);
                        assert!(held.get());
                        crate::mm::for_each_mapping(rig.sim, pfn, |_, _| {
                            // (The visited space is held by the walk.)
                            going = None;
                            true
                        });
                        crate::rmap::Release::new(rig.sim).page(pfn);
                    }
                }
                _ => {}
            }
            check(&rig, &family, at, PAGES);
        }
        rig.idle(0);
        drop(family);
        rig.assert_balanced();
    }
}

/// The frame of an anonymous page at `addr`.
fn mapped(mm: &Space, addr: usize) -> Option<Pfn> {
    let pte = mm.entry(UserAddr::new(addr));
    (pte.is_present() && pte.is_anon()).then(|| pte.addr().pfn())
}

fn check(rig: &Rig, family: &[Space], at: usize, pages: usize) {
    for addr in (0..pages).map(|page| at + page * PAGE) {
        for pfn in family.iter().filter_map(|mm| mapped(mm, addr)) {
            let maps = family.iter().filter(|mm| mapped(mm, addr) == Some(pfn));
            let mut expected: Vec<_> = maps.map(KArc::as_ptr).collect();
            for bounded in [false, true] {
                let mut found = Vec::new();
                let see = |mm: &Space, va: UserAddr| {
                    assert_eq!(va.get(), addr);
                    found.push(KArc::as_ptr(mm));
                    true
                };
                if bounded {
                    for_each_mapping_of_held(rig.sim, pfn, 0, see);
                } else {
                    crate::mm::for_each_mapping(rig.sim, pfn, see);
                }
                found.sort();
                expected.sort();
                assert_eq!(found, expected);
            }
        }
    }
}

const PLACE: usize = 0x4000_0000;
const AWAY: usize = 0x1_0000_0000;
const AREAS: usize = 3000;

/// What a walk to a page in one area that has moved takes.
fn one_away() -> usize {
    let rig = Rig::new(64);
    let mm = rig.space();
    map_at(&mm, PLACE, PAGE, RW, Map::FIXED).unwrap();
    rig.write(&mm, PLACE, 1).unwrap();
    move_to(&mm, PLACE, AWAY, Mremap::empty());
    steps_to_one(&rig, &mm, AWAY)
}

/// A walk from a page at each of these places, in areas of one space that have moved, takes at most twice as long as with
/// one such area, apart from the depth of a tree of all of them.
fn assert_told_apart(rig: &Rig, mm: &Space, places: &[usize]) {
    let one = one_away();
    let depth = 4 * places.len().ilog2() as usize;
    let steps: Vec<_> = places.iter().step_by(places.len() / 50).map(|at| steps_to_one(rig, mm, *at)).collect();
    let (most, sum) = (steps.iter().max().unwrap(), steps.iter().sum::<usize>());
    assert!(*most <= 2 * one + depth, "{most} steps");
    assert!(sum / steps.len() <= one + depth / 2, "{} steps in the mean", sum / steps.len());
    mm.validate();
}

/// The page at each place has the place's number, and is found. Then the space ends.
fn finish(rig: &Rig, mm: Space, places: &[usize]) {
    assert!(places.iter().enumerate().all(|(n, at)| rig.read(&mm, *at) == Ok(n as u64)));
    assert_eq!(Mm::audit(&mm, || true).unlisted, 0);
    rig.idle(0);
    drop(mm);
    rig.assert_balanced();
}

/// An area at its pgoff grows over pgoffs that moved areas claim, and what it has grown by moves away too.
#[test]
fn areas_that_grew_over_claimed_pgoffs_are_told_apart() {
    let rig = Rig::new(256);
    let mm = rig.space();
    let places: Vec<_> = (0..AREAS).map(|n| AWAY + 2 * n * PAGE).collect();
    for (n, to) in places.iter().enumerate() {
        map_at(&mm, PLACE, PAGE, RW, Map::FIXED).unwrap();
        mm.remap(PLACE, PAGE, 2 * PAGE, Mremap::empty(), 0).unwrap();
        rig.write(&mm, PLACE + PAGE, n as u64).unwrap();
        move_to(&mm, PLACE + PAGE, *to, Mremap::empty());
        mm.unmap(PLACE, PAGE).unwrap();
    }
    assert_told_apart(&rig, &mm, &places);
    finish(&rig, mm, &places);
}

/// A part of an area is emptied by moves again and again. Children that share its page at the time find it where it was.
#[test]
fn parts_that_moved_from_one_place_are_told_apart() {
    let rig = Rig::new(256);
    let mm = rig.space();
    map_at(&mm, PLACE, 3 * PAGE, RW, Map::FIXED).unwrap();
    let places: Vec<_> = (0..AREAS).map(|n| AWAY + 2 * n * PAGE).collect();
    let mut child = None;
    for (n, to) in places.iter().enumerate() {
        rig.write(&mm, PLACE + PAGE, n as u64).unwrap();
        if n % 100 == 99 {
            child = Some((n, mm.fork().unwrap()));
        }
        move_to(&mm, PLACE + PAGE, *to, Mremap::DONTUNMAP);
    }
    let (n, child) = child.unwrap();
    assert_eq!(rig.read(&child, PLACE + PAGE), Ok(n as u64));
    steps_to_one(&rig, &child, PLACE + PAGE);
    assert_eq!(Mm::audit(&child, || true).unlisted, 0);
    rig.idle(0);
    child.validate();
    drop(child);
    assert_told_apart(&rig, &mm, &places);
    assert_eq!(rig.read(&mm, PLACE + PAGE), Ok(0));
    finish(&rig, mm, &places);
}

/// The same in an area that has moved itself.
#[test]
fn parts_that_moved_twice_are_told_apart() {
    let rig = Rig::new(256);
    let mm = rig.space();
    map_at(&mm, PLACE, 3 * PAGE, RW, Map::FIXED).unwrap();
    rig.write(&mm, PLACE, 1).unwrap();
    let from = PLACE + 0x1000_0000;
    mm.remap(PLACE, 3 * PAGE, 3 * PAGE, Mremap::MAYMOVE | Mremap::FIXED, from).unwrap();
    let places: Vec<_> = (0..AREAS).map(|n| AWAY + 2 * n * PAGE).collect();
    for (n, to) in places.iter().enumerate() {
        rig.write(&mm, from + PAGE, n as u64).unwrap();
        move_to(&mm, from + PAGE, *to, Mremap::DONTUNMAP);
    }
    assert_told_apart(&rig, &mm, &places);
    finish(&rig, mm, &places);
}

/// Areas from neighbouring places come to cover one pgoff: they grow after they have moved, or as they move, or downwards
/// as stacks.
#[test]
fn areas_that_grew_over_each_other_are_told_apart() {
    const GROWN: usize = 200;
    let (moved, grow) = (Mremap::MAYMOVE | Mremap::FIXED, Mremap::empty());
    for how in 0..3 {
        let rig = Rig::new(256);
        let mm = rig.space();
        let mut places = Vec::new();
        for n in 0..GROWN {
            let to = AWAY + 4 * GROWN * n * PAGE;
            let at = if how == 2 { PLACE + n * PAGE } else { PLACE + (GROWN - n) * PAGE };
            let flags = if how == 2 { Map::FIXED | Map::GROWSDOWN } else { Map::FIXED };
            map_at(&mm, at, PAGE, RW, flags).unwrap();
            rig.write(&mm, at, 1).unwrap();
            let place = match how {
                0 => {
                    mm.remap(at, PAGE, PAGE, moved, to).unwrap();
                    mm.remap(to, PAGE, (n + 2) * PAGE, grow, 0).unwrap();
                    to + (n + 1) * PAGE
                }
                1 => {
                    mm.remap(at, PAGE, (n + 2) * PAGE, moved, to).unwrap();
                    to + (n + 1) * PAGE
                }
                _ => {
                    mm.remap(at, PAGE, PAGE, moved, to).unwrap();
                    to - (n + 1) * PAGE
                }
            };
            rig.write(&mm, place, n as u64).unwrap();
            assert_eq!(rig.read(&mm, to), Ok(1));
            places.push(place);
        }
        assert_told_apart(&rig, &mm, &places);
        finish(&rig, mm, &places);
    }
}

/// Somebody holds a page, which therefore keeps its pgoff: it is found nevertheless.
#[test]
fn a_held_page_that_moves_is_found() {
    let rig = Rig::new(64);
    let mm = rig.space();
    map_at(&mm, PLACE, 3 * PAGE, RW, Map::FIXED).unwrap();
    let places: Vec<_> = (0..50).map(|n| AWAY + 2 * n * PAGE).collect();
    let mut held = Vec::new();
    for (n, to) in places.iter().enumerate() {
        rig.write(&mm, PLACE + PAGE, n as u64).unwrap();
        held.push(mm.pin(PLACE + PAGE, true).unwrap());
        move_to(&mm, PLACE + PAGE, *to, Mremap::DONTUNMAP);
    }
    drop(held);
    finish(&rig, mm, &places);
}

/// A page that many children inherited, and that all but one have replaced by a copy: the last one makes it its own when it
/// writes to it, and otherwise the first walk that finds it there does.
#[test]
fn a_page_that_is_left_to_one_child_becomes_its_own() {
    const WIDTH: usize = 1000;
    let rig = Rig::new(256);
    let parent = rig.space();
    let at = anon(&rig, &parent, 2 * PAGE);
    [at, at + PAGE].into_iter().for_each(|at| rig.write(&parent, at, 1).unwrap());
    let children: Vec<_> = (0..WIDTH).map(|_| parent.fork().unwrap()).collect();
    let last = &children[WIDTH / 2];
    for mm in children.iter().chain([&parent]).filter(|mm| !KArc::ptr_eq(mm, last)) {
        [at, at + PAGE].into_iter().for_each(|at| rig.write(mm, at, 2).unwrap());
    }
    rig.write(last, at, 3).unwrap();
    let steps = steps_to_one(&rig, last, at);
    assert!(steps <= 2 * alone(), "{steps} steps to a page that was written");
    assert!(steps_to_one(&rig, last, at + PAGE) > WIDTH / 4, "all children are looked at once");
    let steps = steps_to_one(&rig, last, at + PAGE);
    assert!(steps <= 2 * alone(), "{steps} steps to a page that was found");
    // Those forked from it are below it.
    let grandchild = last.fork().unwrap();
    rig.idle(0);
    drop((parent, children));
    assert_eq!([rig.read(&grandchild, at), rig.read(&grandchild, at + PAGE)], [Ok(3), Ok(1)]);
    assert!(steps_to_one(&rig, &grandchild, at + PAGE) <= 2 * alone());
    rig.idle(0);
    drop(grandchild);
    rig.assert_balanced();
}

fn mappings(rig: &Rig, pfn: Pfn) -> usize {
    let mut found = 0;
    crate::mm::for_each_mapping(rig.sim, pfn, |_, _| {
        found += 1;
        true
    });
    found
}

/// A part of an area moves, and its page gets another pgoff, while one thread writes to it, another one looks at it and
/// walks from all pages, and a child, if there is one, replaces it by a copy. Nothing gets lost.
#[test]
fn pages_get_other_pgoffs_beside_others() {
    let (page, to) = (PLACE + PAGE, AWAY + 2 * PAGE);
    for seed in 1..300 {
        let rig = Rig::new(16);
        rig.mmu.set_chance(seed, Drain::Late);
        let mm = rig.space();
        map_at(&mm, PLACE, 3 * PAGE, RW, Map::FIXED).unwrap();
        rig.write(&mm, page, 6).unwrap();
        move_to(&mm, page, AWAY, Mremap::DONTUNMAP);
        rig.write(&mm, page, 7).unwrap();
        let pfn = mapped(&mm, page).unwrap();
        let child = seed.is_multiple_of(2).then(|| mm.fork().unwrap());
        let write = |cpu, mm: &Space, value| {
            let at = rig.touch(cpu, mm, page, Access::Write).unwrap();
            // SAFETY: the MMU allows the write, and no other thread has its turn.
            unsafe { at.cast::<u64>().write(value) };
        };
        let on = |cpu, work: Box<dyn FnOnce() + Send>| -> turns::Body {
            Box::new(move || {
                Sim::set_cpu(cpu);
                work();
            })
        };
        let spaces = || [Some(&mm), child.as_ref()].into_iter().flatten();
        let mut bodies = std::vec![
            on(0, Box::new(|| move_to(&mm, page, to, Mremap::DONTUNMAP))),
            on(1, Box::new(|| write(1, &mm, 9))),
            on(
                2,
                Box::new(|| {
                    let held = mm.pin(page, false).unwrap();
                    if child.is_none() && held.pfn() == pfn {
                        assert_eq!(mappings(&rig, pfn), 1, "seed {seed}");
                    }
                    drop(held);
                    spaces().for_each(|mm| _ = Mm::audit(mm, || true));
                })
            ),
        ];
        bodies.extend(child.as_ref().map(|child| on(3, Box::new(|| write(3, child, 8)))));
        turns::run(seed, 1 + seed as usize % 20, bodies);
        Sim::set_cpu(0);
        let now = [AWAY, to, page].map(|at| rig.read(&mm, at).unwrap());
        assert!(now == [6, 9, 0] || now == [6, 7, 9], "{now:?}, seed {seed}");
        assert!(child.as_ref().is_none_or(|child| rig.read(child, page) == Ok(8)), "seed {seed}");
        for mm in spaces() {
            assert_eq!(Mm::audit(mm, || true).unlisted, 0, "seed {seed}");
            mm.validate();
            let pages = [AWAY, to, page].into_iter().filter_map(|at| mapped(mm, at));
            pages.for_each(|pfn| assert!(crate::mm::audit_page(rig.sim, pfn), "seed {seed}"));
        }
        (0..4).for_each(|cpu| rig.idle(cpu));
        drop((mm, child));
        rig.assert_balanced();
        assert_eq!(rig.sim.pages().bad_pages(), 0);
    }
}
