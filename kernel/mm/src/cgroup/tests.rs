//! The tree of groups, and its books.

use std::vec;
use std::vec::Vec;

use super::life::MAX_DEPTH;
use super::*;
use crate::addr::Pfn;
use crate::frame;
use crate::page::PageState;
use crate::sim::Sim;

impl Groups<&'static Sim> {
    /// Pages that all stocks have.
    pub(crate) fn in_stocks(&self) -> usize {
        self.stocks.iter().map(|stock| stock.look().1).sum()
    }

    /// What is charged is what the records say; nobody charges meanwhile.
    ///
    /// # Panics
    /// If it is not.
    pub(crate) fn assert_books(&self) {
        let end = {
            let tree = self.tree.lock();
            core::iter::successors(tree.taken.next(1), |id| tree.taken.next(id + 1)).last().unwrap_or(0) + 1
        };
        let (mut own, mut files, mut tables) = (vec![0; end], vec![0; end], vec![0; end]);
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
                files[id] += usize::from(page.state() == PageState::Object);
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
            assert_eq!((numbers.own, numbers.files), (own[id], files[id]), "pages of group {id}");
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
    // One in the root stalls, too.
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
    // Its process has moved on meanwhile.
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

/// Numbers are used again; there are fewer than 2^16.
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
    // Who looks and does not rest, or finds a stall, is not told of it.
    groups.look(a.key(), 700, false);
    assert!(!groups.begin_stall(0, a.key().id(), 700));
    assert_eq!(groups.look(a.key(), 720, true), Some(([50, 50], true)));
    groups.end_stall(0, a.key().id(), 0, 730);
    assert!(!stall(a.key().id(), 800));
    groups.remove(other.key()).unwrap();
    assert_eq!(groups.look(other.key(), 900, true), None);
}
