//! The tree of groups, and its counts.

use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::life::MAX_DEPTH;
use super::*;
use crate::addr::Pfn;
use crate::frame;
use crate::page::{PageFlags, PageState};
use crate::sim::Sim;

impl Groups<&'static Sim> {
    /// Pages that all stocks have.
    pub(crate) fn in_stocks(&self) -> usize {
        self.stocks.iter().map(|stock| stock.look().1).sum()
    }

    /// Checks that charges match the records; nobody charges meanwhile.
    ///
    /// # Panics
    /// If it is not.
    pub(crate) fn assert_books(&self) {
        let end = {
            let tree = self.tree.lock();
            core::iter::successors(tree.taken.next(1), |id| tree.taken.next(id + 1)).last().unwrap_or(0) + 1
        };
        let (mut own, mut files, mut shared, mut tables) = (vec![0; end], vec![0; end], vec![0; end], vec![0; end]);
        for n in 0..self.machine.pages().pageblocks().len() * crate::buddy::PAGEBLOCK_PAGES {
            if !self.machine.pages().has(0, Pfn(n / 512 * 512)) {
                continue;
            }
            let page = frame::page(self.machine, Pfn(n));
            if page.state() == PageState::Table {
                tables[usize::from(crate::table::charged_to(self.machine, Pfn(n).addr()))] += 1;
            }
            let id = usize::from(page.control_group());
            let is_whole = page.state() == PageState::Whole;
            if (page.state().is_user() || is_whole) && id != 0 && id < end {
                assert!(
                    self.machine.pages().pageblocks().of(Pfn(n)).may_have_group(id as u16),
                    "frame {n}, group {id}"
                );
                own[id] += if is_whole { 512 } else { 1 };
                let is_object = page.state() == PageState::Object;
                files[id] += usize::from(is_object);
                shared[id] += usize::from(is_object && page.flags().contains(PageFlags::SWAP_BACKED));
            }
        }
        own.iter_mut().zip(&tables).for_each(|(own, tables)| *own += tables);
        for stock in &self.stocks {
            let (id, pages) = stock.look();
            own[usize::from(id)] += pages;
        }
        let groups: Vec<_> = (1..end).filter_map(|id| self.hold(id as u16)).collect();
        for group in &groups {
            let (id, numbers) = (usize::from(group.key().id()), group.numbers());
            let counted = (numbers.own, numbers.files, numbers.shared);
            assert_eq!(counted, (own[id], files[id], shared[id]), "pages of group {id}");
            assert_eq!(numbers.kernel, [tables[id], 0], "the kernel's pages of group {id}");
            let below = || groups.iter().filter(|below| below.upwards().any(|up| up.key() == group.key()));
            let (usage, swap) = below()
                .fold((0, 0), |(usage, swap), below| (usage + below.numbers().own, swap + below.numbers().own_swap));
            assert_eq!((numbers.usage, numbers.swap), (usage, swap), "of group {id} and below");
        }
        let stalled = groups.iter().map(|group| group.pressure().lock().stalled()).sum::<u32>();
        assert_eq!((self.stalled(), stalled), ((0, 0), 0), "threads that wait for memory");
        let slots: usize = groups.iter().map(|group| group.numbers().own_swap).sum();
        assert!(slots <= self.machine.spaces().swap().stats().used, "slots charged");
    }
}

fn name(n: usize) -> Vec<u8> {
    std::format!("group {n}").into_bytes()
}

#[test]
fn groups_have_names_and_numbers() {
    let groups = Sim::with_mib(16).groups();
    let a = groups.make(Key::ROOT, b"a").unwrap();
    let b = groups.make(a.key(), b"b").unwrap();
    assert_eq!(groups.make(Key::ROOT, b"a").map(drop), Err(Refused::Exists));
    assert!(groups.make(a.key(), b"a").is_ok(), "elsewhere");
    assert_eq!(groups.make(Key(77), b"x").map(drop), Err(Refused::Gone));
    assert_eq!(groups.make(Key::ROOT, &[b'x'; 256]).map(drop), Err(Refused::TooMany));
    assert!(groups.make(Key::ROOT, &[b'x'; 255]).is_ok());
    assert_eq!(groups.child(a.key(), b"b").map(|found| found.key()), Some(b.key()));
    assert!(groups.child(Key::ROOT, b"b").is_none() && b.is_within(a.key().id()) && !a.is_within(b.key().id()));
    assert_eq!(groups.remove(a.key()), Err(Refused::Busy));
    assert_eq!(groups.remove(b.key()), Ok(()));
    assert_eq!(groups.remove(b.key()), Err(Refused::Gone));
    assert!(groups.child(a.key(), b"b").is_none());
    let again = groups.make(a.key(), b"b").unwrap();
    assert_ne!(again.key(), b.key());
    assert_eq!(groups.enter(again.key()), Some(again.key().id()));
    assert_eq!(groups.remove(again.key()), Err(Refused::Busy));
    groups.leave(again.key().id());
    assert_eq!((groups.remove(again.key()), groups.enter(again.key())), (Ok(()), None));
}

/// Totals of some and full pressure, in nanoseconds.
fn totals(groups: &Groups<&'static Sim>, key: Key, now: u64) -> (u64, u64) {
    groups.pressure(key, now).map(|(some, full)| (some.total, full.total)).unwrap()
}

#[test]
fn pressure_is_full_while_nobody_in_the_group_gets_on() {
    let groups = Sim::with_mib(16).groups();
    let a = groups.make(Key::ROOT, b"a").unwrap();
    let b = groups.make(a.key(), b"b").unwrap();
    let (in_a, in_b) = (Runs::from(a.key().id()), Runs::from(b.key().id()));
    let all = |now| [Key::ROOT, a.key(), b.key()].map(|key| totals(groups, key, now));
    (0..3).for_each(|cpu| groups.add_cpu(cpu));
    // CPU 0 runs a thread of b, CPU 1 one of a, CPU 2 one of the root.
    for (cpu, runs) in [in_b, in_a, 0].into_iter().enumerate() {
        groups.runs(cpu, runs, || 0);
    }
    groups.begin_stall(0, b.key().id(), 100);
    assert_eq!(all(200), [(100, 0), (100, 0), (100, 100)]);
    groups.runs(1, NOTHING, || 200);
    assert_eq!(all(300), [(200, 0), (200, 100), (200, 200)]);
    groups.runs(2, NOTHING, || 300);
    assert_eq!(all(400), [(300, 100), (300, 200), (300, 300)]);
    // The thread that stalls sleeps, and another one of its group runs instead.
    groups.runs(0, in_b, || 400);
    assert_eq!(all(500), [(400, 100), (400, 200), (400, 300)]);
    groups.runs(0, STALLED | in_b, || 500);
    // A thread of the root stalls, too.
    groups.begin_stall(2, 0, 600);
    assert_eq!(all(700), [(600, 300), (600, 400), (600, 500)]);
    groups.end_stall(0, b.key().id(), in_b, 700);
    assert_eq!(all(800), [(700, 300), (600, 400), (600, 500)]);
    groups.end_stall(2, 0, 0, 800);
    assert_eq!((all(2000), groups.stalled()), ([(700, 300), (600, 400), (600, 500)], (0, 0)));
}

#[test]
fn a_group_whose_thread_stalls_keeps_its_number() {
    let groups = Sim::with_mib(16).groups();
    groups.add_cpu(0);
    let a = groups.make(Key::ROOT, b"a").unwrap();
    let b = groups.make(a.key(), b"b").unwrap();
    let key = b.key();
    groups.begin_stall(0, key.id(), 100);
    // Its process has moved to another group meanwhile.
    groups.remove(key).unwrap();
    drop(b);
    assert_ne!(groups.make(Key::ROOT, b"other").unwrap().key().id(), key.id());
    groups.end_stall(0, key.id(), 0, 200);
    assert_eq!((totals(groups, a.key(), 300), groups.pressure(key, 300).is_none()), ((100, 100), true));
    let other = groups.child(Key::ROOT, b"other").unwrap().key();
    groups.remove(other).unwrap();
    assert_eq!(groups.make(Key::ROOT, b"again").unwrap().key().id(), key.id(), "the number is free again");
}

#[test]
fn groups_lie_in_each_other_up_to_a_depth() {
    let groups = Sim::with_mib(16).groups();
    let mut at = Key::ROOT;
    for _ in 0..MAX_DEPTH {
        at = groups.make(at, b"x").unwrap().key();
    }
    assert_eq!(groups.make(at, b"x").map(drop), Err(Refused::TooMany));
}

/// Numbers are reused; there are fewer than 2^16.
#[test]
fn numbers_do_not_run_out() {
    let groups = Sim::with_mib(64).groups();
    for n in 0..3000 {
        groups.make(Key::ROOT, &name(n)).unwrap();
    }
    let odd = || (0..3000).filter(|n| n % 2 == 1);
    odd().for_each(|n| groups.remove(groups.child(Key::ROOT, &name(n)).unwrap().key()).unwrap());
    odd().for_each(|n| assert!(groups.make(Key::ROOT, &name(n)).unwrap().key().id() <= 3000));
    assert_eq!((0..3000).filter(|n| groups.child(Key::ROOT, &name(*n)).is_some()).count(), 3000);
}

#[test]
fn who_rests_is_told_of_the_next_stall_in_its_group() {
    let groups = Sim::with_mib(16).groups();
    groups.add_cpu(0);
    let a = groups.make(Key::ROOT, b"a").unwrap();
    let b = groups.make(a.key(), b"b").unwrap();
    let other = groups.make(Key::ROOT, b"other").unwrap();
    let stall = |id: u16, at: u64| {
        let is_awaited = groups.begin_stall(0, id, at);
        groups.end_stall(0, id, id.into(), at + 10);
        is_awaited
    };
    assert!(!stall(b.key().id(), 100), "nobody waits");
    assert_eq!(groups.look(a.key(), 200, true), Some(([10, 10], false)));
    assert!(!stall(other.key().id(), 200) && !stall(0, 300));
    assert!(stall(b.key().id(), 400), "a stall below counts");
    assert!(!stall(b.key().id(), 500), "once");
    assert_eq!(groups.look(Key::ROOT, 600, true).map(|look| look.1), Some(false));
    assert!(stall(other.key().id(), 600), "each stall is the root's");
    // A caller that does not rest, or finds a stall, is not notified.
    groups.look(a.key(), 700, false);
    assert!(!groups.begin_stall(0, a.key().id(), 700));
    assert_eq!(groups.look(a.key(), 720, true), Some(([50, 50], true)));
    groups.end_stall(0, a.key().id(), 0, 730);
    assert!(!stall(a.key().id(), 800));
    groups.remove(other.key()).unwrap();
    assert_eq!(groups.look(other.key(), 900, true), None);
}

#[test]
fn a_task_more_than_a_group_above_may_have_is_refused() {
    let groups = Sim::with_mib(16).groups();
    let a = groups.make(Key::ROOT, b"a").unwrap();
    let b = groups.make(a.key(), b"b").unwrap();
    let (in_a, in_b) = (a.key().id(), b.key().id());
    a.set_limit(Limit::Tasks, 2);
    assert!(groups.charge_task(in_b) && groups.charge_task(in_a) && !groups.charge_task(in_b) && groups.charge_task(0));
    // (The event counts for the group at its limit, and for those above it.)
    assert_eq!(
        (a.tasks(), b.tasks(), a.events(Event::TasksMax), b.events(Event::TasksMax)),
        ((2, 2), (1, 1), (1, 1), (0, 0))
    );
    b.set_limit(Limit::Tasks, 0);
    groups.uncharge_tasks(in_a, 1);
    assert!(!groups.charge_task(in_b));
    assert_eq!((a.events(Event::TasksMax), b.events(Event::TasksMax)), ((2, 1), (1, 1)));
    // Who moves is not refused.
    groups.move_tasks(0, in_b, 5);
    assert_eq!((a.tasks().0, b.tasks().0), (6, 6));
    groups.move_tasks(in_b, in_a, 6);
    assert_eq!((a.tasks().0, a.own_tasks(), b.tasks().0, b.own_tasks()), (6, 6, 0, 0));
    groups.uncharge_tasks(in_a, 6);
}

#[test]
fn a_group_whose_task_was_not_waited_for_keeps_its_number() {
    let groups = Sim::with_mib(16).groups();
    let a = groups.make(Key::ROOT, b"a").unwrap();
    let key = groups.make(a.key(), b"b").unwrap().key();
    assert!(groups.charge_task(key.id()));
    groups.remove(key).unwrap();
    assert_eq!((a.tasks().0, a.descendants()), (1, 0));
    assert_ne!(groups.make(Key::ROOT, b"other").unwrap().key().id(), key.id());
    groups.uncharge_tasks(key.id(), 1);
    groups.remove(groups.child(Key::ROOT, b"other").unwrap().key()).unwrap();
    assert_eq!((a.tasks().0, groups.make(Key::ROOT, b"again").unwrap().key().id()), (0, key.id()));
}

#[test]
fn groups_below_are_limited_in_number_and_depth() {
    let groups = Sim::with_mib(16).groups();
    let a = groups.make(Key::ROOT, b"a").unwrap();
    let [most, depth] = a.shape();
    depth.store(1, Relaxed);
    let b = groups.make(a.key(), b"b").unwrap();
    assert_eq!(groups.make(b.key(), b"c").map(drop), Err(Refused::TooMany));
    depth.store(2, Relaxed);
    let c = groups.make(b.key(), b"c").unwrap();
    assert_eq!((a.descendants(), b.descendants(), c.descendants()), (2, 1, 0));
    most.store(2, Relaxed);
    assert_eq!(groups.make(b.key(), b"d").map(drop), Err(Refused::TooMany));
    groups.remove(c.key()).unwrap();
    assert!(groups.make(b.key(), b"d").is_ok());
}

/// The state of a process in the model.
struct Process {
    /// Where its tasks are charged.
    charged: usize,
    /// Whether it has not ended.
    lives: bool,
    tasks: usize,
    is_frozen: bool,
}

/// A step of the model: the process and the group that it is about, and what happens.
type Step = (usize, usize, u8);

/// Groups by index: 0 is the root, and the others have the parents given here.
const PARENTS: [usize; 7] = [0, 0, 1, 2, 1, 0, 5];

fn is_within(mut group: usize, of: usize) -> bool {
    while group != of && group != 0 {
        group = PARENTS[group];
    }
    group == of
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    /// Tasks, and the states of groups and their changes, match a model that recomputes everything after each step.
    #[test]
    fn tasks_and_states_are_those_of_a_model(steps in prop::collection::vec((0_usize..12, 1_usize..7, 0_u8..16), 1..80)) {
        let groups = Sim::with_mib(16).groups();
        let mut made: Vec<Option<KArc<Group<&'static Sim>>>> = vec![None];
        for (place, parent) in PARENTS.iter().enumerate().skip(1) {
            let parent = made[*parent].as_ref().map_or(Key::ROOT, |parent| parent.key());
            made.push(Some(groups.make(parent, &name(place)).unwrap()));
        }
        let at = |place: usize| made[place].as_ref().unwrap();
        let id = |place: usize| made[place].as_ref().map_or(0, |group| group.key().id());
        let mut processes: Vec<Process> = Vec::new();
        let (mut freezes, mut limits) = ([false; 7], [usize::MAX; 7]);
        let mut peaks = [0; 7];
        let mut refused: BTreeMap<usize, u64> = BTreeMap::new();
        let mut before = [(false, false); 7];
        let mut changes = [0; 7];
        for step in steps {
            let (process, group, what): Step = step;
            let count = |processes: &[Process], of: usize| {
                processes.iter().filter(|process| is_within(process.charged, of)).map(|process| process.tasks).sum::<usize>()
            };
            let above = |of: usize| core::iter::successors(Some(of), |at| (*at != 0).then(|| PARENTS[*at])).filter(|at| *at != 0);
            let full = |processes: &[Process], of: usize| above(of).find(|at| count(processes, *at) >= limits[*at]);
            match what {
                // A process is forked in a group; a process that already exists makes a thread.
                0..=5 => {
                    let of = processes.get(process).filter(|process| process.lives).map_or(group, |process| process.charged);
                    let full = full(&processes, of);
                    prop_assert_eq!(groups.charge_task(id(of)), full.is_none());
                    match (full, processes.get_mut(process)) {
                        (Some(full), _) => above(full).for_each(|at| *refused.entry(at).or_default() += 1),
                        (None, Some(process)) if process.lives => {
                            process.tasks += 1;
                            if core::mem::take(&mut process.is_frozen) {
                                groups.count_frozen(id(of), -1);
                            }
                        }
                        (None, _) => {
                            prop_assert_eq!(groups.enter(at(of).key()), Some(id(of)));
                            processes.push(Process { charged: of, lives: true, tasks: 1, is_frozen: false });
                        }
                    }
                }
                // A process ends, and stays until it is waited for.
                6 => if let Some(process) = processes.get_mut(process).filter(|process| process.lives) {
                    if core::mem::take(&mut process.is_frozen) {
                        groups.count_frozen(id(process.charged), -1);
                    }
                    groups.uncharge_tasks(id(process.charged), process.tasks - 1);
                    groups.leave(id(process.charged));
                    (process.lives, process.tasks) = (false, 1);
                },
                7 => if processes.get(process).is_some_and(|process| !process.lives) {
                    let gone = processes.remove(process);
                    groups.uncharge_tasks(id(gone.charged), 1);
                },
                8 | 9 => if let Some(process) = processes.get_mut(process).filter(|process| process.lives) {
                    if core::mem::take(&mut process.is_frozen) {
                        groups.count_frozen(id(process.charged), -1);
                    }
                    let from = core::mem::replace(&mut process.charged, group);
                    groups.enter(at(group).key());
                    groups.move_tasks(id(from), id(group), process.tasks);
                    groups.leave(id(from));
                },
                10 => {
                    limits[group] = process;
                    at(group).set_limit(Limit::Tasks, process);
                }
                11 | 12 => {
                    freezes[group] = process % 2 == 0;
                    at(group).set_freezes(freezes[group]);
                    (1..7).for_each(|place| at(place).note_state());
                }
                // A process halts to be frozen, or continues.
                _ => if let Some(process) = processes.get_mut(process).filter(|process| process.lives) {
                    let is_to_be = above(process.charged).any(|at| freezes[at]);
                    prop_assert_eq!(groups.is_freezing(id(process.charged)), is_to_be);
                    if process.is_frozen != is_to_be {
                        process.is_frozen = is_to_be;
                        groups.count_frozen(id(process.charged), if is_to_be { 1 } else { -1 });
                    }
                },
            }
            for place in 1..7 {
                let group = at(place);
                peaks[place] = peaks[place].max(count(&processes, place));
                prop_assert_eq!(group.tasks(), (count(&processes, place), peaks[place]));
                prop_assert_eq!(group.own_tasks(), processes.iter().filter(|process| process.charged == place).map(|process| process.tasks).sum::<usize>());
                prop_assert_eq!(group.events(Event::TasksMax).0, refused.get(&place).copied().unwrap_or(0));
                let mut within = processes.iter().filter(|process| process.lives && is_within(process.charged, place)).peekable();
                let is_populated = within.peek().is_some();
                let is_frozen = above(place).any(|at| freezes[at]) && within.all(|process| process.is_frozen);
                prop_assert_eq!((group.is_populated(), group.is_frozen()), (is_populated, is_frozen));
                let now = (is_populated, is_frozen);
                // (A step may change a state twice, for instance when a process moves to another group below.)
                if core::mem::replace(&mut before[place], now) != now {
                    prop_assert!(group.changes() > changes[place]);
                }
                changes[place] = group.changes();
            }
        }
    }
}

#[test]
fn a_group_below_one_that_freezes_is_frozen_from_the_first() {
    let groups = Sim::with_mib(16).groups();
    let a = groups.make(Key::ROOT, b"a").unwrap();
    a.set_freezes(true);
    a.note_state();
    let b = groups.make(a.key(), b"b").unwrap();
    assert_eq!((a.is_frozen(), a.changes(), b.is_frozen(), b.changes()), (true, 1, true, 0));
    let killing = Killing::new(a.clone());
    groups.enter(b.key()).unwrap();
    assert_eq!(
        (b.is_frozen(), b.changes(), groups.is_killed(b.key().id()), groups.is_killed(0)),
        (false, 1, true, false)
    );
    drop(killing);
    assert!(!groups.is_killed(b.key().id()));
    groups.leave(b.key().id());
}
