//! The concurrent steps of several CPUs, and whether each outcome can be explained.
//!
//! A page of a space is two registers: its rights and its word. A step has an effect on them at some moment between its
//! beginning and its end, which may be another one for each page, and for each CPU that reads during the step: a TLB
//! may still hold an entry that another one has dropped, until the call has returned. So a read of a register may
//! return the result of any effect that began before the read ended, unless another effect followed that one and ended
//! before the read began.

use std::collections::HashMap;
use std::format;
use std::string::String;
use std::vec::Vec;

use quire_abi::Errno;
use quire_abi::flags::{Prot, madv};

use super::{Op, Outcome, PAGES};
use crate::mm::{Access, FaultError};

/// A page of a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub space: usize,
    pub page: usize,
}

/// A step that is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub cpu: usize,
    pub start: u64,
    pub end: u64,
    pub space: usize,
    pub op: Op,
    pub outcome: Outcome,
}

/// What is put into a register.
#[derive(Clone, Copy, Debug)]
enum Put<T> {
    This(T),
    /// What another register has at that moment.
    From(Key),
}

#[derive(Clone, Copy, Debug)]
struct Effect<T> {
    start: u64,
    end: u64,
    put: Put<T>,
    /// It has happened. Otherwise it may have.
    certain: bool,
}

type Register<T> = HashMap<Key, Vec<Effect<T>>>;

/// The most moves from register to register that are followed; beyond that anything is explained.
const DEPTH: usize = 6;

/// What a look may find in `register` between two moments; `None` if anything.
fn candidates<T: Copy + PartialEq>(
    of: &Register<T>,
    key: Key,
    (start, end): (u64, u64),
    depth: usize,
) -> Option<Vec<T>> {
    if depth == 0 {
        return None;
    }
    let effects = of.get(&key).map_or(&[][..], |effects| effects);
    let mut found = Vec::new();
    for effect in effects.iter().filter(|effect| effect.start < end) {
        let over = |other: &Effect<T>| other.certain && effect.end < other.start && other.end < start;
        if effects.iter().any(over) {
            continue;
        }
        match effect.put {
            Put::This(value) => found.push(value),
            Put::From(other) => found.extend(candidates(of, other, (effect.start, effect.end), depth - 1)?),
        }
    }
    Some(found)
}

/// See the module.
#[derive(Default)]
pub(super) struct History {
    done: Vec<Done>,
    rights: Register<Option<Prot>>,
    words: Register<u64>,
    /// What is unmapped is not lost.
    is_shared: bool,
}

impl History {
    /// Nothing yet, of shared memory or not.
    pub fn new(is_shared: bool) -> Self {
        Self { is_shared, ..Self::default() }
    }

    /// What is there before anybody does anything.
    pub fn begin(&mut self, key: Key, prot: Option<Prot>, word: u64) {
        self.put(key, (0, 0), Some(Put::This(prot)), Some(Put::This(word)), true);
    }

    /// A page is given up: at any time from now on it may be zeros, until it is written.
    pub fn may_be_zero(&mut self, key: Key, when: (u64, u64)) {
        self.put(key, when, None, Some(Put::This(0)), false);
    }

    fn put(
        &mut self,
        key: Key,
        (start, end): (u64, u64),
        rights: Option<Put<Option<Prot>>>,
        word: Option<Put<u64>>,
        certain: bool,
    ) {
        if let Some(put) = rights {
            self.rights.entry(key).or_default().push(Effect { start, end, put, certain });
        }
        if let Some(put) = word {
            self.words.entry(key).or_default().push(Effect { start, end, put, certain });
        }
    }

    /// Takes in what was done.
    pub fn add(&mut self, log: Vec<Done>) {
        for done in &log {
            self.take_effect(done);
        }
        self.done.extend(log);
    }

    fn take_effect(&mut self, done: &Done) {
        let key = |page| Key { space: done.space, page };
        let when = (done.start, done.end);
        let zero = Some(Put::This(0));
        let succeeded = matches!(done.outcome, Outcome::Call(Ok(())));
        match done.op {
            Op::Touch { page, access: Access::Write, .. } if matches!(done.outcome, Outcome::Access(Ok(_))) => {
                self.put(key(page), when, None, Some(Put::This(done.start)), true);
            }
            // The page may be gone by the time that it is written.
            Op::Pin { page, write: true, .. } => self.put(key(page), when, None, Some(Put::This(done.start)), false),
            Op::Map { page, len, prot, .. } => {
                (page..page + len).for_each(|page| self.put(key(page), when, Some(Put::This(Some(prot))), zero, true));
            }
            Op::Unmap { page, len, .. } => {
                (page..page + len).for_each(|page| self.put(key(page), when, Some(Put::This(None)), zero, true));
            }
            Op::Protect { page, len, prot, .. } => (page..page + len)
                .for_each(|page| self.put(key(page), when, Some(Put::This(Some(prot))), None, succeeded)),
            Op::Advise { page, len, advice: madv::DONTNEED, .. } if !self.is_shared => {
                (page..page + len).for_each(|page| self.put(key(page), when, None, zero, true));
            }
            Op::Advise { page, len, advice: madv::FREE, .. } if !self.is_shared => {
                (page..page + len).for_each(|page| self.may_be_zero(key(page), when));
            }
            Op::Move { from, to, .. } if succeeded => {
                self.put(key(to), when, Some(Put::From(key(from))), Some(Put::From(key(from))), true);
                self.put(key(from), when, Some(Put::This(None)), zero, true);
            }
            Op::Fork { .. } => {
                if let Outcome::Child(Some(space)) = done.outcome {
                    for page in 0..PAGES {
                        let parent = key(page);
                        self.put(Key { space, page }, when, Some(Put::From(parent)), Some(Put::From(parent)), true);
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether a page may have had rights like these at some moment.
    fn may_have(&self, key: Key, when: (u64, u64), which: impl Fn(Option<Prot>) -> bool) -> bool {
        candidates(&self.rights, key, when, DEPTH).is_none_or(|found| found.into_iter().any(which))
    }

    fn may_hold(&self, key: Key, when: (u64, u64), word: u64) -> bool {
        candidates(&self.words, key, when, DEPTH).is_none_or(|found| found.contains(&word))
    }

    /// # Panics
    /// If what a step answered cannot be.
    pub fn explain_all(&self) {
        for done in &self.done {
            assert!(self.is_explained(done), "nothing explains {done:?}");
        }
    }

    fn is_explained(&self, done: &Done) -> bool {
        let key = |page| Key { space: done.space, page };
        let when = (done.start, done.end);
        let is_unmapped = |page| self.may_have(key(page), when, |prot| prot.is_none());
        let is_mapped = |page| self.may_have(key(page), when, |prot| prot.is_some());
        let range = |page: usize, len: usize| page..page + len;
        match (done.op, done.outcome) {
            (Op::Touch { page, access, .. }, Outcome::Access(seen)) => self.is_seen(key(page), when, access, seen),
            (Op::Pin { page, write, .. }, Outcome::Access(seen)) => {
                let access = if write { Access::Write } else { Access::Read };
                self.is_seen(key(page), when, access, seen)
            }
            (Op::Map { .. } | Op::Unmap { .. }, Outcome::Call(done)) => done.is_ok(),
            (Op::Protect { page, len, .. }, Outcome::Call(Ok(()))) => range(page, len).all(is_mapped),
            (Op::Protect { page, len, .. }, Outcome::Call(Err(error))) => {
                error == Errno::ENOMEM && range(page, len).any(is_unmapped)
            }
            (Op::Advise { page, len, advice, .. }, Outcome::Call(Err(error))) => {
                let unreadable =
                    |page| self.may_have(key(page), when, |prot| prot.is_some_and(|p| !allows(p, Access::Read)));
                error == Errno::ENOMEM && range(page, len).any(is_unmapped)
                    || advice == madv::POPULATE_READ && range(page, len).any(unreadable)
            }
            (Op::Advise { page, len, .. }, Outcome::Call(Ok(()))) => range(page, len).all(is_mapped),
            (Op::Move { from, .. }, Outcome::Call(Ok(()))) => is_mapped(from),
            (Op::Move { from, .. }, Outcome::Call(Err(error))) => error == Errno::EFAULT && is_unmapped(from),
            (Op::Fork { .. }, Outcome::Child(_)) | (Op::Away { .. } | Op::Migrate { .. }, Outcome::Unseen) => true,
            _ => false,
        }
    }

    fn is_seen(&self, key: Key, when: (u64, u64), access: Access, seen: Result<u64, FaultError>) -> bool {
        match seen {
            Ok(word) => {
                self.may_have(key, when, |prot| prot.is_some_and(|prot| allows(prot, access)))
                    && self.may_hold(key, when, word)
            }
            Err(FaultError::Unmapped) => self.may_have(key, when, |prot| prot.is_none()),
            Err(FaultError::Protection) => {
                self.may_have(key, when, |prot| prot.is_some_and(|prot| !allows(prot, access)))
            }
            Err(_) => false,
        }
    }

    /// # Panics
    /// If a quiet space cannot have this.
    pub fn explain_state(&self, key: Key, now: u64, prot: Option<Prot>, word: Option<u64>) {
        let when = (now, now);
        assert!(self.may_have(key, when, |may| may == prot), "nothing explains the rights {prot:?} of {key:?}");
        assert!(prot.is_some() || word.is_none(), "{key:?} is not mapped and there");
        let word = word.unwrap_or(0);
        assert!(prot.is_none() || self.may_hold(key, when, word), "nothing explains the word {word} of {key:?}");
    }

    /// What was done, in the order of the beginnings.
    pub fn listing(&self, rest: &[Done]) -> String {
        let mut done: Vec<Done> = self.done.iter().chain(rest).copied().collect();
        done.sort_by_key(|done| done.start);
        let line = |d: &Done| {
            format!(
                "\n    {:>4} to {:<4} CPU {}, space {}: {:?} = {:?}",
                d.start, d.end, d.cpu, d.space, d.op, d.outcome
            )
        };
        done.iter().map(line).collect()
    }
}

fn allows(prot: Prot, access: Access) -> bool {
    match access {
        Access::Read => prot.intersects(Prot::READ | Prot::WRITE | Prot::EXEC),
        Access::Write => prot.contains(Prot::WRITE),
        Access::Exec => prot.contains(Prot::EXEC),
    }
}
