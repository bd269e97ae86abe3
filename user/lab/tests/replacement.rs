//! Properties of page replacement for random references, checked against independent oracles.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use quire_lab::replace::engine::{self, Rules};
use quire_lab::replace::{Policy, order, policies};
use quire_lab::report::Measure;
use quire_lab::trace::{Reference, Settings};
use quire_lab::{Scheme, Trace};

fn references() -> impl Strategy<Value = Vec<Reference>> {
    let reference = (0u64..8, prop::bool::weighted(0.3)).prop_map(|(page, write)| Reference { page, write });
    prop::collection::vec(reference, 1..60)
}

fn play(policy: &mut dyn Policy, frames: usize, references: &[Reference]) -> engine::Played {
    engine::play(policy, Rules { frames, tick: 4 }, references)
}

/// The pages in memory after each reference.
fn sets(policy: &mut dyn Policy, frames: usize, references: &[Reference]) -> Vec<BTreeSet<u64>> {
    let mut sets = Vec::new();
    let rules = Rules { frames, tick: 4 };
    engine::play_watched(policy, rules, references, |frames| sets.push(frames.iter().map(|f| f.page).collect()));
    sets
}

/// The minimum number of faults, by exhaustive search over all sets of pages in memory.
fn fewest_faults(frames: usize, references: &[Reference]) -> u64 {
    let mut costs: BTreeMap<BTreeSet<u64>, u64> = BTreeMap::from([(BTreeSet::new(), 0)]);
    for Reference { page, .. } in references {
        let mut next: BTreeMap<BTreeSet<u64>, u64> = BTreeMap::new();
        let mut reach = |set: BTreeSet<u64>, cost: u64| {
            let known = next.entry(set).or_insert(cost);
            *known = cost.min(*known);
        };
        for (set, cost) in costs {
            if set.contains(page) {
                reach(set, cost);
                continue;
            }
            let mut with = set.clone();
            with.insert(*page);
            if with.len() <= frames {
                reach(with, cost + 1);
                continue;
            }
            for gone in &set {
                let mut without = with.clone();
                without.remove(gone);
                reach(without, cost + 1);
            }
        }
        costs = next;
    }
    costs.into_values().min().unwrap_or(0)
}

proptest! {
    #[test]
    fn no_policy_causes_fewer_faults_than_opt(references in references(), frames in 1usize..6) {
        let opt = play(&mut order::Opt, frames, &references).faults;
        prop_assert_eq!(opt, fewest_faults(frames, &references));
        for mut policy in policies(&Settings::default()) {
            let played = play(policy.as_mut(), frames, &references);
            prop_assert!(opt <= played.faults, "{} {} faults, OPT {}", played.name, played.faults, opt);
        }
    }

    /// After a reference its page is in memory, no page is in memory twice, and the pages fit in the frames.
    #[test]
    fn frames_hold_what_was_referenced(references in references(), frames in 1usize..6) {
        let pages: BTreeSet<u64> = references.iter().map(|r| r.page).collect();
        for mut policy in policies(&Settings::default()) {
            let mut time = 0;
            let mut bad = None;
            let played = engine::play_watched(policy.as_mut(), Rules { frames, tick: 4 }, &references, |now| {
                let set: BTreeSet<u64> = now.iter().map(|f| f.page).collect();
                if set.len() != now.len() || now.len() > frames || !set.contains(&references[time].page) {
                    bad = Some(time);
                }
                time += 1;
            });
            prop_assert_eq!(bad, None, "{}", played.name);
            prop_assert!(played.faults >= pages.len() as u64);
            if frames >= pages.len() {
                prop_assert_eq!(played.faults, pages.len() as u64, "{}", played.name);
            }
            let stores = references.iter().filter(|r| r.write).count() as u64;
            prop_assert!(played.write_backs <= stores, "{}", played.name);
        }
    }

    /// The stack property: the pages in n frames are a subset of those in n + 1 frames.
    #[test]
    fn lru_and_opt_are_stack_algorithms(references in references(), frames in 1usize..6) {
        let few = sets(&mut order::Lru, frames, &references);
        let more = sets(&mut order::Lru, frames + 1, &references);
        prop_assert!(few.iter().zip(&more).all(|(few, more)| few.is_subset(more)));
        let opt = [frames, frames + 1].map(|frames| play(&mut order::Opt, frames, &references).faults);
        prop_assert!(opt[1] <= opt[0]);
    }

    /// An independent definition of LRU: the most recently referenced distinct pages.
    #[test]
    fn lru_has_the_pages_that_were_used_last(references in references(), frames in 1usize..6) {
        for (time, set) in sets(&mut order::Lru, frames, &references).into_iter().enumerate() {
            let mut last = Vec::new();
            for reference in references[..=time].iter().rev() {
                if !last.contains(&reference.page) && last.len() < frames {
                    last.push(reference.page);
                }
            }
            prop_assert_eq!(set, last.into_iter().collect::<BTreeSet<_>>());
        }
    }

    #[test]
    fn the_clock_is_second_chance(references in references(), frames in 1usize..6) {
        use quire_lab::replace::bits::{Clock, SecondChance};
        let clock = sets(&mut Clock::default(), frames, &references);
        prop_assert_eq!(clock, sets(&mut SecondChance::default(), frames, &references));
    }

    /// The TLB with n entries misses where LRU with n frames faults.
    #[test]
    fn the_tlb_is_lru(references in references(), entries in 1u64..6) {
        use quire_lab::translate::tlb::{self, Costs};
        let costs = Costs { lookup: 1, cycle: 100, levels: 4 };
        let report = tlb::play(entries, costs, &references);
        let faults = play(&mut order::Lru, entries as usize, &references).faults;
        prop_assert_eq!(report.get(Measure::Misses), faults);
        prop_assert_eq!(report.get(Measure::Hits) + faults, references.len() as u64);
    }

    /// The definition of the working set: the pages of the last `window` references.
    #[test]
    fn the_working_set_is_what_was_used_within_the_window(references in references(), window in 1usize..12) {
        let list: Vec<String> = references.iter().map(|r| r.page.to_string()).collect();
        let text = format!("window {window}\nref {}\n", list.join(" "));
        let reports = (Scheme::named("workingset").unwrap().run)(&Trace::parse(&text).unwrap()).unwrap();
        let report = reports.iter().find(|report| report.scheme == format!("window {window}")).unwrap();
        let set = |end: usize| references[end.saturating_sub(window)..end].iter().map(|r| r.page).collect::<BTreeSet<_>>();
        let largest = (1..=references.len()).map(|end| set(end).len()).max().unwrap_or(0);
        let faults = references.iter().enumerate().filter(|(at, r)| !set(*at).contains(&r.page)).count();
        prop_assert_eq!(report.get(Measure::LargestSet), largest as u64);
        prop_assert_eq!(report.get(Measure::Faults), faults as u64);
    }
}
