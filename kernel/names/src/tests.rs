//! The table alone, and with a server and threads that take turns.

use std::boxed::Box;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::vec::Vec;

use quire_mm::fallible::KArc;
use quire_mm::sim::{Sim, turns};
use quire_mm::sync::{Rank, SpinLock};

use crate::cache::SETS;
use crate::{Cache, Changes, Entry, Set};

type M = &'static Sim;

fn machine() -> M {
    static MACHINE: OnceLock<M> = OnceLock::new();
    MACHINE.get_or_init(|| Sim::with_mib(16))
}

fn cache(machine: M) -> Box<Cache<u64, M>> {
    let sets = std::array::from_fn::<_, SETS, _>(|_| SpinLock::new(machine, Rank::Names, Set::EMPTY));
    Box::new(Cache::new(sets))
}

fn entry(directory: u64, name: &[u8], generation: u64, value: u64) -> KArc<Entry<u64>> {
    Entry::new(directory, name, generation, value, 0).unwrap()
}

fn name(n: u64) -> Vec<u8> {
    std::format!("{}{n}", "n".repeat(n as usize % 20)).into_bytes()
}

#[test]
fn what_is_found_was_put_there() {
    let cache = cache(machine());
    let mut model = BTreeMap::new();
    for n in 0..10_000 {
        let directory = n % 7;
        cache.put(entry(directory, &name(n / 7), 1, n), || n % 5 != 0);
        if n % 5 != 0 {
            model.insert((directory, n / 7), n);
        }
        if n % 3 == 0 {
            cache.remove(n % 11 % 7, &name(n / 20));
            model.remove(&(n % 11 % 7, n / 20));
        }
    }
    let mut found = 0;
    for n in 0..10_000 {
        let got = cache.get(n % 7, &name(n / 7), 1).map(|entry| entry.value);
        found += got.iter().len();
        assert!(got.is_none() || got.as_ref() == model.get(&(n % 7, n / 7)));
        assert!(cache.get(n % 7, &name(n / 7), 2).is_none(), "another generation");
    }
    assert_eq!(found, cache.count());
    assert_eq!(cache.allocations(), 2 * found);
    // Most sets are in use: names are spread evenly.
    assert!(found > 1900, "{found}");
    cache.purge(|entry| entry.directory() == 3, || ());
    assert!((0..10_000).all(|n| cache.get(3, &name(n / 7), 1).is_none()));
    let left = cache.count();
    assert_eq!(cache.shrink(100) + cache.count(), left);
    assert!(cache.shrink(usize::MAX) > 0 && cache.count() == 0 && cache.allocations() == 0);
}

#[test]
fn what_is_used_stays() {
    let cache = cache(machine());
    cache.put(entry(0, b"used", 1, 0), || true);
    for n in 1..20_000 {
        assert!(cache.get(0, b"used", 1).is_some());
        cache.put(entry(n, b"once", 1, n), || true);
    }
}

#[test]
fn an_answer_from_before_a_change_is_not_kept() {
    let changes = Changes::new();
    assert!(!changes.may_keep(&changes.sample()), "no server");
    changes.open();
    let before = changes.sample();
    assert!(changes.may_keep(&before) && before.quiet().is_some_and(|word| changes.is_as_of(word)));
    let change = changes.begin();
    let during = changes.sample();
    assert!(!changes.may_keep(&before) && !changes.may_keep(&during) && during.quiet().is_none());
    drop(change);
    assert!(!changes.may_keep(&before) && !changes.may_keep(&during), "it is over, but it was");
    let after = changes.sample();
    assert!(changes.may_keep(&after));
    changes.revoke();
    assert!(!changes.may_keep(&after) && changes.generation() != after.generation);
    let last = changes.sample();
    changes.close();
    assert!(!changes.may_keep(&last) && changes.generation() == 0);
}

/// Steps that can be omitted, to test the test.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// The name is not removed before it is changed.
    KeepsOld,
    /// Answers are cached whatever has changed.
    KeepsAny,
    /// The name is removed after the server was asked.
    RemovesLate,
}

const NAMES: u64 = 3;

/// A server: a version for each name, which each change increments; and the pending effect of a change whose caller did
/// not wait for it.
#[derive(Default)]
struct Server {
    versions: [u64; NAMES as usize],
    late: Option<usize>,
}

impl Server {
    /// One request after the other: a pending change is made before the next request.
    fn receive(&mut self) {
        if let Some(late) = self.late.take() {
            self.versions[late] += 1;
        }
    }
}

struct World {
    cache: Box<Cache<u64, M>>,
    changes: Changes,
    server: Mutex<Server>,
    /// Versions that somebody has seen.
    seen: [AtomicU64; NAMES as usize],
    fault: Fault,
    stale: AtomicU64,
    hits: AtomicU64,
}

impl World {
    fn ask<R>(&self, request: impl FnOnce(&mut Server) -> R) -> R {
        turns::point();
        let answer = {
            let mut server = self.server.lock().unwrap();
            server.receive();
            request(&mut server)
        };
        turns::point();
        answer
    }

    fn look(&self, n: usize) {
        let least = self.seen[n].load(SeqCst);
        let generation = self.changes.generation();
        let version = match self.cache.get(0, &name(n as u64), generation) {
            Some(entry) => {
                self.hits.fetch_add(1, SeqCst);
                entry.value
            }
            None => {
                let before = self.changes.sample();
                let version = self.ask(|server| server.versions[n]);
                let entry = entry(0, &name(n as u64), before.generation, version);
                turns::point();
                self.cache.put(entry, || self.fault == Fault::KeepsAny || self.changes.may_keep(&before));
                version
            }
        };
        if version < least {
            self.stale.fetch_add(1, SeqCst);
        }
        self.seen[n].fetch_max(version, SeqCst);
    }

    fn change(&self, n: usize, is_killed: bool) {
        let _change = self.changes.begin();
        if self.fault != Fault::KeepsOld && self.fault != Fault::RemovesLate {
            self.cache.remove(0, &name(n as u64));
        }
        if is_killed {
            return self.ask(|server| server.late = Some(n));
        }
        let version = self.ask(|server| {
            server.versions[n] += 1;
            server.versions[n]
        });
        self.seen[n].fetch_max(version, SeqCst);
        if self.fault == Fault::RemovesLate {
            turns::point();
            self.cache.remove(0, &name(n as u64));
        }
    }
}

/// How often a thread found a lower version than one seen before, and how often a name was found in the cache.
fn play(seed: u64, fault: Fault) -> (u64, u64) {
    static MACHINE: Mutex<Option<M>> = Mutex::new(None);
    // (Its CPUs can be used by one play at a time.)
    let mut held = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let machine = *held.get_or_insert_with(|| Sim::with_mib(16));
    let world = World {
        cache: cache(machine),
        changes: Changes::new(),
        server: Mutex::default(),
        seen: Default::default(),
        fault,
        stale: AtomicU64::new(0),
        hits: AtomicU64::new(0),
    };
    world.changes.open();
    let body = |cpu: u64| {
        let world = &world;
        Box::new(move || {
            Sim::set_cpu(cpu as usize);
            let state = Cell::new(seed.wrapping_mul(4) + cpu);
            let random = |below: u64| {
                state.set(state.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
                (state.get() >> 33) % below
            };
            for _ in 0..30 {
                let n = random(NAMES) as usize;
                match random(10) {
                    0 => world.change(n, true),
                    1 => world.change(n, false),
                    2 if random(4) == 0 => world.changes.revoke(),
                    _ => world.look(n),
                }
            }
        }) as turns::Body<'_>
    };
    turns::run(seed, 1 + seed as usize % 20, (0..4).map(body).collect());
    (world.stale.into_inner(), world.hits.into_inner())
}

const SEEDS: u64 = if cfg!(miri) { 3 } else { 400 };

#[test]
fn nobody_sees_what_was_before() {
    let (mut stale, mut hits) = (0, 0);
    for seed in 0..SEEDS {
        let (old, found) = play(seed, Fault::None);
        assert_eq!(old, 0, "seed {seed}");
        (stale, hits) = (stale + old, hits + found);
    }
    assert!(hits > SEEDS, "{hits} were found in the cache");
}

#[test]
#[cfg_attr(miri, ignore)]
fn each_part_of_the_protocol_is_needed() {
    for fault in [Fault::KeepsOld, Fault::KeepsAny, Fault::RemovesLate] {
        let is_noticed = (0..SEEDS).any(|seed| play(seed, fault).0 != 0);
        assert!(is_noticed, "{}", fault as u32);
    }
}
