//! Control groups: what programs have is charged to their group, and limits hold. The oracle charges all its steps as well.

use std::boxed::Box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::vec;
use std::vec::Vec;

use super::*;
use crate::addr::Pfn;
use crate::cgroup::{Event, Group, Kernel, Key, Limit, Numbers};
use crate::frame;
use crate::mm::migrate;
use crate::object::Object;
use crate::page_alloc::PressureHandler;
use crate::reclaim::Reclaim;
use crate::seeded::{self, Bug};
use crate::sim::{SimConfig, turns};
use crate::zone::ZoneKind;

type Cgroup = KArc<Group<&'static Sim>>;

/// A machine's groups for processes: the root, one, and one within that.
pub(super) fn nested(sim: &'static Sim) -> [u16; 3] {
    let outer = sim.groups().make(Key::ROOT, b"outer").unwrap().key();
    let inner = sim.groups().make(outer, b"inner").unwrap().key();
    [Some(0), sim.groups().enter(outer), sim.groups().enter(inner)].map(Option::unwrap)
}

/// Groups that ran out of memory.
static OUT_OF_MEMORY: AtomicUsize = AtomicUsize::new(0);

struct Told;
impl PressureHandler for Told {
    fn group_out_of_memory(&self, _: u16) {
        OUT_OF_MEMORY.fetch_add(1, Ordering::Relaxed);
    }
}

fn machine(mib: usize) -> (Rig, &'static Reclaim<&'static Sim>) {
    with_reclaim(Rig::new(mib))
}

/// One of two nodes, each with so much memory and with a CPU of its number.
fn machine_of_two(mib: usize) -> (Rig, &'static Reclaim<&'static Sim>) {
    let (start, len) = (1 << 30, mib << 20);
    let mut config = SimConfig::new().bank(start, len, 0).bank(start + len, len, 1);
    config.node_of_cpu[1] = 1;
    with_reclaim(Rig::on(Sim::boot(&config), None))
}

fn with_reclaim(rig: Rig) -> (Rig, &'static Reclaim<&'static Sim>) {
    let pages = rig.sim.pages().total_managed();
    rig.sim.spaces().init_swap(pages * 4, pages, 1).unwrap();
    let reclaim: &Reclaim<_> = Box::leak(Box::new(Reclaim::new(rig.sim)));
    reclaim.init().unwrap();
    rig.sim.pages().set_reclaimer(reclaim);
    (rig, reclaim)
}

/// A group in which the calling thread is from now on.
fn enter(rig: &Rig, parent: Key, name: &[u8]) -> Cgroup {
    let group = rig.sim.groups().make(parent, name).unwrap();
    Sim::set_group(rig.sim.groups().enter(group.key()).unwrap());
    group
}

/// The calling thread leaves a group, which goes.
fn leave(rig: &Rig, group: &Cgroup) {
    Sim::set_group(0);
    rig.sim.groups().leave(group.key().id());
    rig.sim.groups().remove(group.key()).unwrap();
}

/// The numbers without what is in stocks, and without tables.
fn numbers(rig: &Rig, group: &Cgroup) -> Numbers {
    let groups = rig.sim.groups();
    groups.drain_stocks(group);
    groups.assert_books();
    let numbers = group.numbers();
    let within = groups.all().filter(|below| below.is_within(group.key().id()));
    let tables: usize = within.map(|below| below.numbers().kernel[Kernel::Tables as usize]).sum();
    let own = numbers.own - numbers.kernel[Kernel::Tables as usize];
    Numbers { usage: numbers.usage - tables, own, kernel: [0; 2], ..numbers }
}

/// Maps the first pages of an object shared.
fn map_shared(mm: &Space, object: &KArc<Object<&'static Sim>>, pages: usize) -> usize {
    let request = MapRequest {
        addr: 0,
        len: pages * PAGE,
        prot: RW,
        flags: Map::SHARED,
        object: Some((object.clone(), 0)),
        max_prot: Prot::all(),
    };
    mm.map(&request).unwrap().get()
}

fn sweep(rig: &Rig, mm: &Space, at: usize, pages: usize) {
    (0..pages).for_each(|page| rig.write(mm, at + page * PAGE, page as u64 + 1).unwrap());
}

fn check(rig: &Rig, mm: &Space, at: usize, pages: usize) {
    (0..pages).for_each(|page| assert_eq!(rig.read(mm, at + page * PAGE), Ok(page as u64 + 1)));
}

#[test]
fn a_page_is_charged_from_its_allocation_to_its_end() {
    let (rig, _) = machine(16);
    let group = enter(&rig, Key::ROOT, b"g");
    let mm = rig.space();
    let at = anon(&rig, &mm, 64 * PAGE);
    sweep(&rig, &mm, at, 64);
    assert_eq!((numbers(&rig, &group).own, numbers(&rig, &group).files), (64, 0));
    let child = mm.fork().unwrap();
    assert_eq!(numbers(&rig, &group).own, 64, "fork shares");
    sweep(&rig, &child, at, 10);
    assert_eq!(numbers(&rig, &group).own, 74, "copies");
    rig.idle(0);
    drop(child);
    assert_eq!(numbers(&rig, &group).own, 64);
    let file = Object::shared_anon(rig.sim, 8, false).unwrap();
    let shared = map_shared(&mm, &file, 8);
    sweep(&rig, &mm, shared, 8);
    assert_eq!((numbers(&rig, &group).own, numbers(&rig, &group).files), (72, 8));
    let frame_of = |va: usize| mm.entry(UserAddr::new(va)).addr().pfn();
    for va in [at, shared] {
        let old = frame_of(va);
        let new = migrate(rig.sim, old, || frame::alloc_to_move(rig.sim)).unwrap();
        assert_eq!(frame::page(rig.sim, new).control_group(), group.key().id());
        assert_eq!((numbers(&rig, &group).own, numbers(&rig, &group).files), (72, 8), "moved");
    }
    for va in [at, at + PAGE, shared] {
        let out = crate::mm::page_out::Out { even_raw: true, ..Default::default() };
        crate::mm::page_out(rig.sim, frame_of(va), out).unwrap();
    }
    let away = numbers(&rig, &group);
    assert_eq!((away.own, away.files, away.own_swap, away.swap), (69, 7, 3, 3));
    check(&rig, &mm, at, 64);
    check(&rig, &mm, shared, 8);
    let back = numbers(&rig, &group);
    assert_eq!((back.own, back.files, back.own_swap), (72, 8, 0));
    mm.unmap(at, 64 * PAGE).unwrap();
    assert_eq!(numbers(&rig, &group).own, 8);
    rig.idle(0);
    drop((mm, file));
    assert_eq!(numbers(&rig, &group), Numbers { peak: numbers(&rig, &group).peak, ..Numbers::default() });
    leave(&rig, &group);
}

/// Each page lies in a table of its own: half of what the group may have is tables, which do not leave memory.
#[test]
fn tables_are_charged_to_whoever_needs_them() {
    const SPAN: usize = 2 << 20;
    let (rig, _) = machine(64);
    let group = enter(&rig, Key::ROOT, b"g");
    let groups = rig.sim.groups();
    let mm = rig.space();
    let at = 1 << 30;
    (0..300).for_each(|n| assert!(map_at(&mm, at + n * SPAN, PAGE, RW, Map::FIXED).is_ok()));
    let tables = || group.numbers().kernel[Kernel::Tables as usize];
    let write = |n: usize| rig.write(&mm, at + n * SPAN, n as u64 + 1);
    (0..50).for_each(|n| write(n).unwrap());
    assert_eq!(numbers(&rig, &group).own, 50);
    assert!((50..56).contains(&tables()), "{}", tables());
    group.set_limit(Limit::Max, 200);
    (50..150).for_each(|n| write(n).unwrap());
    assert!(tables() >= 150 && group.usage() <= 200, "pages have left");
    let refused = (150..300).find(|n| write(*n).is_err()).unwrap();
    assert!((180..200).contains(&refused), "{refused}");
    assert_ne!(group.events(Event::Oom).0, 0, "nothing else can");
    group.set_limit(Limit::Max, usize::MAX);
    (0..150).for_each(|n| assert_eq!(rig.read(&mm, at + n * SPAN), Ok(n as u64 + 1)));
    // Nobody finds a removed group's tables: they keep its number.
    leave(&rig, &group);
    rig.sim.pages().adopt_pages();
    groups.assert_books();
    assert_ne!(groups.make(Key::ROOT, b"other").unwrap().key().id(), group.key().id());
    rig.idle(0);
    drop(mm);
    groups.assert_books();
    let other = groups.child(Key::ROOT, b"other").unwrap().key();
    groups.remove(other).unwrap();
    assert_eq!(groups.make(Key::ROOT, b"again").unwrap().key().id(), group.key().id(), "its number is free");
}

/// Groups that keep their numbers do not make each new one look at all frames.
#[test]
fn ghosts_that_stay_are_not_looked_for_each_time() {
    let (rig, _) = machine(64);
    let groups = rig.sim.groups();
    let mut spaces = Vec::new();
    let before = crate::reclaim::looks_for_strangers();
    for n in 0..100 {
        let group = enter(&rig, Key::ROOT, std::format!("{n}").as_bytes());
        let mm = rig.space();
        let at = anon(&rig, &mm, PAGE);
        sweep(&rig, &mm, at, 1);
        rig.idle(0);
        spaces.push(mm);
        leave(&rig, &group);
    }
    assert_eq!(crate::reclaim::looks_for_strangers() - before, 1);
    drop(spaces);
    groups.assert_books();
}

#[test]
fn a_group_at_its_limit_uses_swap_and_leaves_others_alone() {
    let (rig, reclaim) = machine(64);
    let other = rig.space();
    let others = anon(&rig, &other, 256 * PAGE);
    sweep(&rig, &other, others, 256);
    for max in [8, 50, 300] {
        let group = enter(&rig, Key::ROOT, b"g");
        group.set_limit(Limit::Max, max);
        let mm = rig.space();
        let at = anon(&rig, &mm, 4 * max * PAGE);
        for _ in 0..3 {
            for page in 0..4 * max {
                rig.write(&mm, at + page * PAGE, page as u64 + 1).unwrap();
                assert!(group.usage() <= max, "{} pages of {max}", group.usage());
            }
        }
        check(&rig, &mm, at, 4 * max);
        assert!(group.events(Event::Max).0 != 0 && group.events(Event::Oom).0 == 0);
        assert!(numbers(&rig, &group).own_swap >= 3 * max);
        assert!(rig.sim.counted(crate::event::Event::StealDirect) >= 3 * max);
        rig.idle(0);
        drop(mm);
        leave(&rig, &group);
    }
    assert!((0..256).all(|page| other.entry(UserAddr::new(others + page * PAGE)).is_present()));
    drop(other);
    rig.assert_balanced_but(reclaim.frames());
}

/// A set that fits a group's limit keeps its pages while others pass once: the policy is that of a node.
#[test]
fn a_scan_does_not_drive_out_what_a_group_uses() {
    let (rig, _) = machine(64);
    let group = enter(&rig, Key::ROOT, b"g");
    group.set_limit(Limit::Max, 1000);
    let mm = rig.space();
    let (set, scan) = (anon(&rig, &mm, 500 * PAGE), anon(&rig, &mm, 3000 * PAGE));
    let lost = |mm: &Space| {
        let is_away = |page: &usize| !mm.entry(UserAddr::new(set + page * PAGE)).is_present();
        (0..500).filter(is_away).count()
    };
    sweep(&rig, &mm, set, 500);
    for part in 0..8 {
        sweep(&rig, &mm, scan + part * 200 * PAGE, 200);
        sweep(&rig, &mm, set, 500);
    }
    sweep(&rig, &mm, scan + 1600 * PAGE, 1200);
    assert!(lost(&mm) < 120, "{} of 500", lost(&mm));
    rig.idle(0);
    drop(mm);
    leave(&rig, &group);
}

#[test]
fn without_a_place_to_go_the_group_is_out_of_memory() {
    let (rig, _) = machine(16);
    rig.sim.pages().set_pressure_handler(&Told);
    let group = enter(&rig, Key::ROOT, b"g");
    group.set_limit(Limit::Max, 20);
    group.set_limit(Limit::Swap, 10);
    let mm = rig.space();
    let at = anon(&rig, &mm, 64 * PAGE);
    let had = (0..64).take_while(|page| rig.write(&mm, at + page * PAGE, 1).is_ok()).count();
    // (Its address space has tables, which are charged too.)
    let tables = group.numbers().kernel[Kernel::Tables as usize];
    assert_eq!((had + tables, numbers(&rig, &group).own + tables, numbers(&rig, &group).own_swap), (30, 20, 10));
    assert!(OUT_OF_MEMORY.load(Ordering::Relaxed) != 0 && group.events(Event::Oom).0 != 0);
    // There is room again, and pages that could not go can.
    group.set_limit(Limit::Swap, 30);
    (had..50 - tables).for_each(|page| rig.write(&mm, at + page * PAGE, 1).unwrap());
    rig.idle(0);
    drop(mm);
    leave(&rig, &group);
}

/// Also when several threads find nothing at the same time.
#[test]
fn a_crowd_without_a_place_to_go_is_out_of_memory() {
    let (rig, _) = machine(16);
    rig.sim.pages().set_pressure_handler(&Told);
    let group = rig.sim.groups().make(Key::ROOT, b"g").unwrap();
    group.set_limit(Limit::Max, 24);
    group.set_limit(Limit::Swap, 0);
    let work = |cpu: usize| {
        let (rig, group) = (&rig, &group);
        body(cpu, seeded::current(), move || {
            Sim::set_group(rig.sim.groups().enter(group.key()).unwrap());
            let mm = rig.space();
            let at = anon(rig, &mm, 64 * PAGE);
            let had = (0..64).take_while(|page| rig.touch(cpu, &mm, at + page * PAGE, Access::Write).is_ok()).count();
            assert!(had <= 24, "{had}");
            rig.idle(cpu);
            drop(mm);
            Sim::set_group(0);
            rig.sim.groups().leave(group.key().id());
        })
    };
    turns::run(7, 3, vec![work(0), work(1), work(2)]);
    assert_eq!(numbers(&rig, &group).own, 0);
}

#[test]
fn a_limit_holds_for_all_groups_below() {
    let (rig, _) = machine(64);
    let groups = rig.sim.groups();
    let top = groups.make(Key::ROOT, b"top").unwrap();
    top.set_limit(Limit::Max, 200);
    let below: Vec<Cgroup> = (0..3).map(|n| enter(&rig, top.key(), &[b'a' + n])).collect();
    let spaces: Vec<(Space, usize)> = below
        .iter()
        .map(|group| {
            Sim::set_group(group.key().id());
            let mm = rig.space();
            let at = anon(&rig, &mm, 150 * PAGE);
            sweep(&rig, &mm, at, 150);
            assert!(top.usage() <= 200);
            (mm, at)
        })
        .collect();
    assert!(numbers(&rig, &top).swap >= 250);
    assert!(below[..2].iter().all(|group| numbers(&rig, group).own < 150), "the others give");
    for (group, (mm, at)) in below.iter().zip(&spaces) {
        Sim::set_group(group.key().id());
        check(&rig, mm, *at, 150);
    }
    rig.idle(0);
    drop(spaces);
    below.iter().for_each(|group| leave(&rig, group));
    groups.remove(top.key()).unwrap();
}

/// Reclaim for the machine takes from those that have more than they may keep.
#[test]
fn protected_groups_give_last() {
    let (rig, reclaim) = machine(64);
    let mut rooms = Vec::new();
    for (name, low) in [(b"kept", 400), (b"open", 0)] {
        let group = enter(&rig, Key::ROOT, name);
        group.set_limit(Limit::Low, low);
        let mm = rig.space();
        let at = anon(&rig, &mm, 300 * PAGE);
        sweep(&rig, &mm, at, 300);
        rooms.push((group, mm));
    }
    Sim::set_group(0);
    let highest = crate::zone::ZoneKind::COUNT - 1;
    let own = |n: usize| numbers(&rig, &rooms[n].0).own;
    let mut freed = 0;
    while freed < 250 {
        freed += rig.sim.pages().reclaim(0, highest, 32);
        assert_eq!((own(0), own(1)), (300, 300 - freed));
    }
    for _ in 0..16 {
        rig.sim.pages().reclaim(0, highest, 32);
    }
    assert!(own(0) < 300 && own(1) == 0 && rooms[0].0.events(Event::Low).0 != 0);
    rooms[0].0.set_limit(Limit::Min, 400);
    let before = own(0);
    assert_eq!((rig.sim.pages().reclaim(0, highest, 32), own(0)), (0, before));
    rig.idle(0);
    for (group, mm) in rooms {
        drop(mm);
        leave(&rig, &group);
    }
    rig.assert_balanced_but(reclaim.frames());
}

/// Groups that go while pages have their numbers: the pages count for the group above, and can leave memory.
#[test]
fn what_a_removed_group_leaves_is_its_parents() {
    let (rig, _) = machine(64);
    let groups = rig.sim.groups();
    let top = groups.make(Key::ROOT, b"top").unwrap();
    let file = Object::shared_anon(rig.sim, 400, false).unwrap();
    let mm = rig.space();
    let at = map_shared(&mm, &file, 400);
    let mut ids = Vec::new();
    for round in 0..400 {
        let group = enter(&rig, top.key(), b"below");
        ids.push(group.key().id());
        rig.write(&mm, at + round * PAGE, round as u64 + 1).unwrap();
        leave(&rig, &group);
    }
    assert!(ids.iter().max() < Some(&200), "{:?} numbers for 400 groups", ids.iter().max());
    // The first one left tables as well, and these stay its own.
    let tables = mm.tables.pages() - 1;
    assert_eq!((numbers(&rig, &top).usage, groups.effective(ids[0])), (400 + tables, top.key().id()));
    // All of them can go: the hand of the group above finds them.
    let out: usize = (0..20).map(|_| rig.sim.pages().reclaim_group(top.key().id(), 32)).sum();
    assert_eq!((out, numbers(&rig, &top).usage), (400, tables));
    check(&rig, &mm, at, 400);
    rig.idle(0);
    drop((mm, file));
    groups.remove(top.key()).unwrap();
    let again = groups.make(Key::ROOT, b"again").unwrap();
    assert_eq!(again.key().id(), 1, "all numbers are free");
}

#[test]
fn a_group_without_pages_is_forgotten_when_it_is_removed() {
    let (rig, _) = machine(16);
    let groups = rig.sim.groups();
    let group = enter(&rig, Key::ROOT, b"g");
    let mm = rig.space();
    let at = anon(&rig, &mm, PAGE);
    sweep(&rig, &mm, at, 1);
    rig.idle(0);
    drop(mm);
    assert_ne!(groups.in_stocks(), 0, "charged in advance");
    leave(&rig, &group);
    assert_eq!(groups.in_stocks(), 0);
    assert_eq!(groups.make(Key::ROOT, b"again").unwrap().key().id(), group.key().id(), "the number is free");
}

#[test]
fn what_was_queued_in_a_removed_group_can_leave() {
    let (rig, _) = machine(16);
    let group = enter(&rig, Key::ROOT, b"g");
    let mm = rig.space();
    let at = anon(&rig, &mm, 256 * PAGE);
    sweep(&rig, &mm, at, 256);
    // Some pages leave, so that the others are queued.
    assert_ne!(rig.sim.pages().reclaim_group(group.key().id(), 32), 0);
    leave(&rig, &group);
    rig.sim.pages().adopt_pages();
    let mut fruitless = 0;
    while fruitless < 8 {
        let freed = rig.sim.pages().reclaim(0, ZoneKind::COUNT - 1, 64);
        fruitless = if freed == 0 { fruitless + 1 } else { 0 };
    }
    let there = (0..256).filter(|n| mm.entry(UserAddr::new(at + n * PAGE)).is_present()).count();
    assert_eq!(there, 0, "pages are still in memory");
    check(&rig, &mm, at, 256);
}

/// Programs in groups beside each other on several CPUs, whose groups come and go; in the end the books are right.
fn beside(seed: u64) {
    let (rig, _) = machine(64);
    let groups = rig.sim.groups();
    let top = groups.make(Key::ROOT, b"top").unwrap();
    top.set_limit(Limit::Max, 120);
    let work = |cpu: usize| {
        let (rig, top) = (&rig, &top);
        body(cpu, seeded::current(), move || {
            let mm = rig.space();
            let at = anon(rig, &mm, 80 * PAGE);
            for round in 0..4 {
                let group = groups.make(top.key(), &[b'a' + cpu as u8]).unwrap();
                Sim::set_group(groups.enter(group.key()).unwrap());
                for page in 0..80 {
                    let va = at + (page * 7 + round) % 80 * PAGE;
                    let addr = rig.touch(cpu, &mm, va, Access::Write).unwrap().cast::<u64>();
                    // SAFETY: the MMU allows it, to memory of this thread's own program.
                    unsafe { addr.write(va as u64) };
                }
                assert!(top.usage() <= 120 + 3, "{}", top.usage());
                Sim::set_group(0);
                groups.leave(group.key().id());
                groups.remove(group.key()).unwrap();
            }
            rig.idle(cpu);
        })
    };
    turns::run(seed, 40, vec![work(0), work(1), work(2)]);
    groups.drain_stocks(&top);
    groups.assert_books();
    assert_eq!(top.usage(), 0);
    groups.remove(top.key()).unwrap();
}

#[test]
fn groups_come_and_go_beside_their_programs() {
    (0..4).for_each(beside);
}

#[test]
fn deliberate_bugs_are_noticed() {
    let all: [(Bug, fn()); 5] = [
        (Bug::ChargeIgnoresLimit, a_group_at_its_limit_uses_swap_and_leaves_others_alone),
        (Bug::FreeStaysCharged, a_page_is_charged_from_its_allocation_to_its_end),
        (Bug::MoveChargesTwice, a_page_is_charged_from_its_allocation_to_its_end),
        (Bug::SlotStaysCharged, a_page_is_charged_from_its_allocation_to_its_end),
        (Bug::MovedPageKeepsQueue, what_moves_stays_within_reach),
    ];
    for (bug, test) in all {
        seeded::switch(Some(bug));
        let outcome = std::panic::catch_unwind(test);
        seeded::switch(None);
        Sim::set_group(0);
        assert!(outcome.is_err(), "{bug:?} is not noticed");
    }
}

/// Pages that are cold when they move can leave afterwards.
#[test]
fn what_moves_stays_within_reach() {
    const PAGES: usize = 2000;
    let (rig, reclaim) = machine(64);
    let mm = rig.space();
    let at = anon(&rig, &mm, PAGES * PAGE);
    sweep(&rig, &mm, at, PAGES);
    let highest = crate::zone::ZoneKind::COUNT - 1;
    let mut freed = rig.sim.pages().reclaim(0, highest, 32);
    assert!(reclaim.counts(0).0 > 32, "{:?}", reclaim.counts(0));
    let there: Vec<Pfn> = (0..PAGES)
        .map(|page| mm.entry(UserAddr::new(at + page * PAGE)))
        .filter(|pte| pte.is_present())
        .map(|pte| pte.addr().pfn())
        .collect();
    for pfn in there {
        let _ = migrate(rig.sim, pfn, || frame::alloc_to_move(rig.sim));
    }
    for _ in 0..200 {
        freed += rig.sim.pages().reclaim(0, highest, 32);
    }
    assert_eq!(freed, PAGES);
    rig.idle(0);
}

/// Of a group's pages as many leave as are asked for, on whichever nodes they are, until there are none.
#[test]
fn a_group_gives_from_all_nodes() {
    const PAGES: usize = 1000;
    let (rig, reclaim) = machine_of_two(64);
    let group = enter(&rig, Key::ROOT, b"group");
    let mm = rig.space();
    let at = anon(&rig, &mm, 2 * PAGES * PAGE);
    for page in 0..2 * PAGES {
        rig.touch(page / PAGES, &mm, at + page * PAGE, Access::Write).unwrap();
    }
    for round in 0..8 {
        let freed = rig.sim.groups().reclaim_of(&group, PAGES / 4);
        assert!(freed >= PAGES / 4 || round == 7, "{freed} in round {round}");
    }
    assert_eq!((0..2).map(|node| group.lists().counts(node).0).sum::<usize>(), 0);
    rig.idle(0);
    rig.idle(1);
    drop(mm);
    leave(&rig, &group);
    rig.assert_balanced_but(reclaim.frames());
}

/// A page that is hot on one node and moves to another one can leave from there.
#[test]
fn what_moves_to_another_node_stays_within_reach() {
    const PAGES: usize = 500;
    let (rig, reclaim) = machine_of_two(64);
    let mm = rig.space();
    let at = anon(&rig, &mm, PAGES * PAGE);
    sweep(&rig, &mm, at, PAGES);
    let highest = ZoneKind::COUNT - 1;
    let mut freed = rig.sim.pages().reclaim(0, highest, 64);
    assert!(reclaim.counts(0).1 > 64, "{:?}", reclaim.counts(0));
    // (What has become hot or cold since the round is counted with the whole, not with the generations.)
    let view = reclaim.view(0).unwrap();
    let by_age: usize = view.hot_by_age.iter().sum();
    assert!(
        view.rounds > 0 && (1..=PAGES).contains(&by_age) && view.hot_by_age[view.generations..].iter().all(|n| *n == 0)
    );
    Sim::set_cpu(1);
    for page in 0..PAGES {
        let pte = mm.entry(UserAddr::new(at + page * PAGE));
        if pte.is_present() {
            assert_eq!(migrate(rig.sim, pte.addr().pfn(), || frame::alloc_to_move(rig.sim)).map(drop), Ok(()));
        }
    }
    for _ in 0..100 {
        freed += rig.sim.pages().reclaim(1, highest, 32);
    }
    assert_eq!(freed, PAGES);
    rig.idle(0);
    rig.idle(1);
}
