//! Page replacement under pressure: the policies against definitions that are independent of them, and what they must
//! achieve.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;
use quire_lab::pressure::exact::{Arc, Lru, Opt};
use quire_lab::pressure::flags::Clock;
use quire_lab::pressure::lirs::Lirs;
use quire_lab::pressure::{self, Policy, frames_beside_store, policies};
use quire_lab::replace::engine::{self, Rules};
use quire_lab::replace::{bits, order};
use quire_lab::trace::Reference;
use quire_lab::trace::pattern::{Pattern, Play};

const PAGES: usize = 12;

fn references() -> impl Strategy<Value = Vec<u32>> {
    // Runs as well as single references, so that policies which tell them apart do so.
    let part = (0..PAGES as u32, 1u32..6).prop_map(|(first, len)| (first..first + len).map(|p| p % PAGES as u32));
    prop::collection::vec(part, 1..40).prop_map(|parts| parts.into_iter().flatten().collect())
}

fn faults(policy: &mut dyn Policy, references: &[u32]) -> u64 {
    references.iter().filter(|page| policy.refer(**page as usize)).count() as u64
}

/// ARC as the paper's figure 4 has it; the last page of a list is the one used last.
#[derive(Default)]
struct ArcByTheBook {
    c: usize,
    p: usize,
    t1: VecDeque<u32>,
    t2: VecDeque<u32>,
    b1: VecDeque<u32>,
    b2: VecDeque<u32>,
}

impl ArcByTheBook {
    fn replace(&mut self, in_b2: bool) {
        if !self.t1.is_empty() && (self.t1.len() > self.p || in_b2 && self.t1.len() == self.p) {
            self.b1.extend(self.t1.pop_front());
        } else {
            self.b2.extend(self.t2.pop_front());
        }
    }

    fn refer(&mut self, x: u32) -> bool {
        let find = |list: &VecDeque<u32>| list.iter().position(|page| *page == x);
        if let Some(at) = find(&self.t1) {
            self.t1.remove(at);
            self.t2.push_back(x);
            return false;
        }
        if let Some(at) = find(&self.t2) {
            self.t2.remove(at);
            self.t2.push_back(x);
            return false;
        }
        let (b1, b2) = (self.b1.len(), self.b2.len());
        if let Some(at) = find(&self.b1) {
            self.p = self.c.min(self.p + if b1 >= b2 { 1 } else { b2 / b1 });
            self.replace(false);
            self.b1.remove(at);
            self.t2.push_back(x);
        } else if let Some(at) = find(&self.b2) {
            self.p = self.p.saturating_sub(if b2 >= b1 { 1 } else { b1 / b2 });
            self.replace(true);
            self.b2.remove(at);
            self.t2.push_back(x);
        } else {
            let l1 = self.t1.len() + b1;
            let all = l1 + self.t2.len() + b2;
            if l1 == self.c {
                if self.t1.len() < self.c {
                    self.b1.pop_front();
                    self.replace(false);
                } else {
                    self.t1.pop_front();
                }
            } else if l1 < self.c && all >= self.c {
                if all == 2 * self.c {
                    self.b2.pop_front();
                }
                self.replace(false);
            }
            self.t1.push_back(x);
        }
        true
    }
}

/// LIRS by its definition: recencies are computed from the times of the last uses.
struct LirsByDefinition {
    low: BTreeSet<u32>,
    most_low: usize,
    frames: usize,
    queue: VecDeque<u32>,
    used: BTreeMap<u32, usize>,
    now: usize,
}

impl LirsByDefinition {
    /// The page of low IRR with the largest recency.
    fn oldest_low(&self) -> Option<u32> {
        self.low.iter().copied().min_by_key(|page| self.used[page])
    }

    fn refer(&mut self, page: u32) -> bool {
        self.now += 1;
        let is_fault = !self.low.contains(&page) && !self.queue.contains(&page);
        if is_fault && self.low.len() + self.queue.len() == self.frames {
            self.queue.pop_front();
        }
        let oldest = self.oldest_low();
        let (irr, largest) = (self.used.insert(page, self.now), oldest.map(|low| self.used[&low]));
        if self.low.contains(&page) {
            return false;
        }
        self.queue.retain(|other| *other != page);
        let is_low = self.low.len() < self.most_low || irr.zip(largest).is_some_and(|(irr, largest)| irr > largest);
        if !is_low {
            self.queue.push_back(page);
            return is_fault;
        }
        if self.low.len() == self.most_low
            && let Some(oldest) = oldest
        {
            self.low.remove(&oldest);
            self.queue.push_back(oldest);
        }
        self.low.insert(page);
        is_fault
    }
}

proptest! {
    /// Those that the textbook's engine has too, fault as often there.
    #[test]
    fn opt_lru_and_clock_are_the_textbook_s(references in references(), frames in 1usize..8) {
        let slow: Vec<_> = references.iter().map(|page| Reference { page: u64::from(*page), write: false }).collect();
        let play = |mut policy: Box<dyn quire_lab::replace::Policy>| {
            engine::play(policy.as_mut(), Rules { frames, tick: 4 }, &slow).faults
        };
        prop_assert_eq!(faults(&mut Opt::new(frames, PAGES, &references), &references), play(Box::new(order::Opt)));
        prop_assert_eq!(faults(&mut Lru::new(frames, PAGES), &references), play(Box::new(order::Lru)));
        prop_assert_eq!(faults(&mut Clock::new(frames, PAGES), &references), play(Box::<bits::Clock>::default()));
    }

    #[test]
    fn arc_is_the_paper_s(references in references(), frames in 1usize..8) {
        let (mut arc, mut book) = (Arc::new(frames, PAGES), ArcByTheBook { c: frames, ..Default::default() });
        for page in references {
            prop_assert_eq!(arc.refer(page as usize), book.refer(page));
            for page in 0..PAGES {
                let holds = book.t1.contains(&(page as u32)) || book.t2.contains(&(page as u32));
                prop_assert_eq!(arc.holds(page), holds);
            }
        }
    }

    #[test]
    fn lirs_is_its_definition(references in references(), frames in 2usize..8, high in 1usize..4) {
        let high = high.min(frames - 1);
        let mut lirs = Lirs::new(frames, high, PAGES);
        let mut by_definition = LirsByDefinition {
            low: BTreeSet::new(),
            most_low: frames - high,
            frames,
            queue: VecDeque::new(),
            used: BTreeMap::new(),
            now: 0,
        };
        for page in references {
            prop_assert_eq!(lirs.refer(page as usize), by_definition.refer(page));
            for page in 0..PAGES as u32 {
                prop_assert_eq!(lirs.is_low(page as usize), by_definition.low.contains(&page));
                let holds = by_definition.low.contains(&page) || by_definition.queue.contains(&page);
                prop_assert_eq!(lirs.holds(page as usize), holds);
            }
        }
    }

    /// A page that was referenced is in memory; no more pages are than there are frames; only a fault takes one away.
    #[test]
    fn memory_is_what_it_should_be(references in references(), frames in 1usize..8) {
        let play = Play { references, from: 0, below: PAGES, pages: PAGES };
        let opt = faults(&mut Opt::new(frames, PAGES, &play.references), &play.references);
        for mut policy in policies(frames, &play) {
            let (mut count, mut before) = (0, BTreeSet::new());
            for page in &play.references {
                let is_fault = policy.refer(*page as usize);
                let now: BTreeSet<usize> = (0..PAGES).filter(|page| policy.holds(*page)).collect();
                prop_assert!(now.contains(&(*page as usize)) && now.len() <= frames, "{}", policy.name());
                prop_assert_eq!(is_fault, !before.contains(&(*page as usize)), "{}", policy.name());
                prop_assert!(is_fault || now == before, "{}", policy.name());
                prop_assert!(before.len() < frames || now.len() == frames, "{}: a frame is lost", policy.name());
                before = now;
                count += u64::from(is_fault);
            }
            prop_assert!(opt <= count, "{}", policy.name());
        }
    }
}

/// A worked example of LIRS with two pages of low IRR and one frame for the others.
#[test]
fn a_page_replaces_one_of_low_irr_only_if_it_was_used_after_it() {
    let low_after = |references: &[u32]| {
        let mut lirs = Lirs::new(3, 1, PAGES);
        faults(&mut lirs, references);
        (0..PAGES).filter(|page| lirs.is_low(*page)).collect::<Vec<_>>()
    };
    // 0 and 1 come first. 2 was used after both when it comes back, so it takes the place of 0, the older one.
    assert_eq!(low_after(&[0, 1, 2, 3]), [0, 1]);
    assert_eq!(low_after(&[0, 1, 2, 3, 2]), [1, 2]);
    // Here both were used after it.
    assert_eq!(low_after(&[0, 1, 2, 3, 1, 0, 2]), [0, 1]);
}

fn rate(name: &str, pattern: Pattern, memory: usize, tenths: usize, store: u64) -> u64 {
    let n = memory * tenths / 10;
    let frames = frames_beside_store(memory as u64, n as u64, store) as usize;
    let play = pattern.play(frames, n);
    let mut all = policies(frames, &play);
    let policy = all.iter_mut().find(|policy| policy.name() == name).unwrap();
    pressure::play(policy.as_mut(), &play).faults
}

/// On a disk, and with a store in memory that pages of 37 % go to.
#[test]
fn lirs_by_flags_is_as_good_as_lru_where_that_is_good_and_much_better_where_it_fails() {
    for (memory, store) in [(512, 0), (1792, 0), (1792, 37), (4000, 37)] {
        let both =
            |pattern, tenths| ["LIRS by flags", "LRU"].map(|name| rate(name, pattern, memory, tenths, store) as f64);
        let is_at_most = |part: f64, pattern: Pattern, tenths| {
            let [ours, lru] = both(pattern, tenths);
            assert!(ours <= lru * part + 8.0, "{pattern:?} {tenths} of {memory}, {store}: {ours}, LRU {lru}");
        };
        is_at_most(0.25, Pattern::Sweep, 11);
        is_at_most(0.6, Pattern::Sweep, 15);
        is_at_most(0.85, Pattern::Sweep, 20);
        is_at_most(0.0, Pattern::Scan, 4);
        is_at_most(0.0, Pattern::Beside, 15);
        for tenths in [11, 15, 20] {
            is_at_most(1.15, Pattern::Zipf, tenths);
            is_at_most(1.15, Pattern::Hot, tenths);
            is_at_most(1.15, Pattern::Phase, tenths);
        }
    }
}

/// No policy can do better than another there.
#[test]
fn lirs_by_flags_is_as_good_as_any_on_uniform_accesses() {
    let all = |name| [11, 15, 20].map(|tenths| rate(name, Pattern::Uniform, 17_920, tenths, 37)).iter().sum::<u64>();
    let (ours, lru) = (all("LIRS by flags"), all("LRU"));
    assert!(ours * 100 <= lru * 102, "{ours}, LRU {lru}");
}

/// A fault does not pay for many looks, however many hot pages were used since.
#[test]
fn looks_at_flags_are_few() {
    for pattern in Pattern::ALL {
        for tenths in [10, 11, 12, 15, 20, 30] {
            let play = pattern.play(1792, 1792 * tenths / 10);
            let mut all = policies(1792, &play);
            let policy = all.iter_mut().find(|policy| policy.name() == "LIRS by flags").unwrap();
            let played = pressure::play(policy.as_mut(), &play);
            let looks = played.looks.unwrap();
            assert!(looks <= 20 * played.all_faults, "{pattern:?} {tenths}: {looks} for {} faults", played.all_faults);
        }
    }
}

#[test]
fn a_store_in_memory_leaves_fewer_frames() {
    assert_eq!(frames_beside_store(100, 100, 50), 100);
    // 60 pages in frames, 80 in half a frame each.
    assert_eq!(frames_beside_store(100, 140, 50), 60);
    assert_eq!(frames_beside_store(100, 140, 0), 100);
    assert_eq!(frames_beside_store(100, 1000, 50), 1);
}
