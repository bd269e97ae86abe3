//! The store against a model: slots, their contents, and the frames that it uses.

use proptest::prelude::*;
use std::vec::Vec;

use super::*;
use crate::addr::PhysAddr;
use crate::frame;
use crate::sim::Sim;

/// The words of a page of some kind: compressible ones of several sizes, noise, and one repeated word.
fn contents(kind: u8, seed: u64) -> [u64; WORDS] {
    let mut state = seed | 1;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut page = [seed; WORDS];
    match kind {
        0 => {}
        // The kind says how many words differ.
        1..=250 => page.iter_mut().take(2 * usize::from(kind)).for_each(|word| *word = random()),
        _ => page.fill_with(random),
    }
    page
}

fn put(sim: &'static Sim, frame: PhysAddr, page: &[u64; WORDS]) {
    // SAFETY: the test's own frame.
    unsafe { *crate::machine::Machine::direct_map(sim, frame).cast::<[u64; WORDS]>() = *page };
}

fn get(sim: &'static Sim, slot: Slot) -> [u64; WORDS] {
    let mut page = [0; WORDS];
    sim.spaces().swap().read_words(slot, &mut page).expect("what was stored can be read");
    page
}

fn machine(slots: usize, limit: usize) -> (&'static Sim, PhysAddr) {
    let sim = Sim::with_mib(16);
    sim.spaces().swap().init(slots, limit, 1).unwrap();
    (sim, frame::alloc_user(sim, true).unwrap().addr())
}

#[derive(Clone, Debug)]
enum Step {
    Write { kind: u8, seed: u64, even_raw: bool },
    Share(usize),
    Release(usize),
    Read(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any::<u8>(), any::<u64>(), any::<bool>()).prop_map(|(kind, seed, even_raw)| Step::Write { kind, seed, even_raw }),
        1 => any::<usize>().prop_map(Step::Share),
        3 => any::<usize>().prop_map(Step::Release),
        1 => any::<usize>().prop_map(Step::Read),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn slots_keep_their_contents(steps in proptest::collection::vec(step(), 1..400)) {
        let (sim, frame) = machine(150, 100);
        let swap = sim.spaces().swap();
        let free = sim.pages().total_free();
        let mut slots: Vec<(Slot, u32, [u64; WORDS])> = Vec::new();
        for step in steps {
            match step {
                Step::Write { kind, seed, even_raw } => {
                    let page = contents(kind, seed);
                    put(sim, frame, &page);
                    match swap.write(frame, even_raw, 0) {
                        Ok(slot) => {
                            prop_assert!(slots.iter().all(|(other, ..)| *other != slot), "a slot is used twice");
                            slots.push((slot, 1, page));
                        }
                        Err(Refused::Full) => prop_assert!(swap.is_full() || slots.len() >= 90),
                        Err(Refused::Incompressible) => prop_assert!(!even_raw && kind > 150),
                    }
                }
                _ if slots.is_empty() => {}
                Step::Share(i) => {
                    let i = i % slots.len();
                    swap.share(slots[i].0);
                    slots[i].1 += 1;
                }
                Step::Release(i) => {
                    let i = i % slots.len();
                    swap.release(slots[i].0);
                    slots[i].1 -= 1;
                    if slots[i].1 == 0 {
                        slots.swap_remove(i);
                    }
                }
                Step::Read(i) => {
                    let (slot, users, page) = &slots[i % slots.len()];
                    prop_assert_eq!(swap.users(*slot), *users);
                    prop_assert!(get(sim, *slot) == *page);
                }
            }
            let stats = swap.stats();
            prop_assert_eq!(stats.used, slots.len());
            prop_assert!(stats.used <= 150 && stats.frames <= 104);
        }
        for (slot, users, page) in slots {
            prop_assert!(get(sim, slot) == page);
            (0..users).for_each(|_| swap.release(slot));
        }
        prop_assert_eq!(swap.stats(), Stats { slots: 150, ..Stats::default() });
        prop_assert_eq!(sim.pages().total_free(), free, "the store keeps frames that it does not use");
    }
}

/// Compressible contents take little more room than they need, whatever their size.
#[test]
fn packing_wastes_little() {
    for kind in [10, 40, 70, 100, 130, 160] {
        let (sim, frame) = machine(1 << 20, 1 << 20);
        let swap = sim.spaces().swap();
        for seed in 1..=1000 {
            put(sim, frame, &contents(kind, seed * 0x9e37_79b9));
            swap.write(frame, false, 0).unwrap();
        }
        let stats = swap.stats();
        // And the records of 1,000 slots.
        let least = stats.bytes.div_ceil(PAGE_SIZE) + 4;
        assert!(stats.frames * 100 <= least * 112, "{kind}: {} frames for {least}", stats.frames);
    }
}

/// Without memory the store refuses, and keeps nothing.
#[test]
fn a_store_without_memory_refuses() {
    let (sim, frame) = machine(1 << 20, 1 << 20);
    let swap = sim.spaces().swap();
    let mut slots = Vec::new();
    let refused = loop {
        put(sim, frame, &contents(255, slots.len() as u64 + 1));
        match swap.write(frame, true, 0) {
            Ok(slot) => slots.push(slot),
            Err(why) => break why,
        }
    };
    assert_eq!(refused, Refused::Full);
    let stats = swap.stats();
    assert_eq!((stats.used, stats.raw), (slots.len(), slots.len()));
    slots.into_iter().for_each(|slot| swap.release(slot));
    assert_eq!(swap.stats().frames, 0);
}
