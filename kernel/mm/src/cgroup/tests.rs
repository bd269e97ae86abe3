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
        let end = self.tree.lock().end;
        let (mut own, mut files) = (vec![0; end], vec![0; end]);
        for n in 0..self.machine.pages().pageblocks().len() * crate::buddy::PAGEBLOCK_PAGES {
            if !self.machine.pages().has(0, Pfn(n / 512 * 512)) {
                continue;
            }
            let page = frame::page(self.machine, Pfn(n));
            let id = usize::from(page.control_group());
            if page.state().is_user() && id != 0 && id < end {
                assert!(
                    self.machine.pages().pageblocks().of(Pfn(n)).may_have_group(id as u16),
                    "frame {n}, group {id}"
                );
                own[id] += 1;
                files[id] += usize::from(page.state() == PageState::Object);
            }
        }
        for stock in &self.stocks {
            let (id, pages) = stock.look();
            own[usize::from(id)] += pages;
        }
        let groups: Vec<_> = (1..end).filter_map(|id| self.hold(id as u16)).collect();
        for group in &groups {
            let (id, numbers) = (usize::from(group.key().id()), group.numbers());
            assert_eq!((numbers.own, numbers.files), (own[id], files[id]), "pages of group {id}");
            let below = || groups.iter().filter(|below| below.upwards().any(|up| up.key() == group.key()));
            let (usage, swap) = below()
                .fold((0, 0), |(usage, swap), below| (usage + below.numbers().own, swap + below.numbers().own_swap));
            assert_eq!((numbers.usage, numbers.swap), (usage, swap), "of group {id} and below");
        }
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
