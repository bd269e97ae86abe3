//! Store buffers: stores of CPUs that table walkers, including their own, may not see yet.
//!
//! Software is coherent: memory always holds what was stored last. A walker sees a word as it was before the first
//! store that has not *drained*. The rules are those of the Arm architecture (Arm ARM B2.3, D8.2.6, D8.17):
//! - Stores drain in any order, but those to one word in theirs, and never later than what the rules below want.
//! - A store-release drains after everything that its CPU stored before it. What fills or copies a frame counts as a
//!   store to all of it, so that nobody finds a new frame with what it held before.
//! - DSB ISHST drains what its CPU has stored ([`Stores::publish`]). Nothing else on that CPU drains them: neither an
//!   exception return, which only synchronises the context, nor an invalidation.
//! - What the software of another CPU has loaded has drained: no CPU sees a store earlier than all others do.
//!
//! A store of one entry that is not valid over another drains at once: no walker can tell them apart.

use std::collections::HashMap;
use std::vec::Vec;

use super::Chance;
use crate::addr::{PAGE_SIZE, Pfn};
use crate::machine::MAX_CPUS;
use crate::pte::Pte;

/// When stores drain that need not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// As late as can be.
    Late,
    /// Now and then, when a walker looks.
    AtChance,
}

/// A store to a word of a table.
struct Store {
    cpu: usize,
    /// Its place among the stores of its CPU.
    seq: u64,
    old: Pte,
    release: bool,
}

/// Where a CPU has stored.
#[derive(Clone, Copy)]
enum Place {
    Word(usize),
    Frame(Pfn),
}

/// The buffers of all CPUs.
pub(super) struct Stores {
    drain: Drain,
    seq: u64,
    /// By the word's address on the host, in the order of the stores.
    words: HashMap<usize, Vec<Store>>,
    /// Frames that were filled: by whom, and when.
    frames: HashMap<Pfn, (usize, u64)>,
    /// What each CPU has stored, in its order; some of it has drained.
    logs: [Vec<(u64, Place)>; MAX_CPUS],
}

impl Stores {
    pub fn new() -> Self {
        let logs = [const { Vec::new() }; MAX_CPUS];
        Self { drain: Drain::Late, seq: 0, words: HashMap::new(), frames: HashMap::new(), logs }
    }

    pub fn set_drain(&mut self, drain: Drain) {
        self.drain = drain;
    }

    /// CPUs that have something in their buffers, a bit each.
    pub fn busy(&self) -> u32 {
        (0..MAX_CPUS).filter(|cpu| !self.logs[*cpu].is_empty()).fold(0, |busy, cpu| busy | 1 << cpu)
    }

    fn note(&mut self, cpu: usize, place: Place) -> u64 {
        self.seq += 1;
        self.logs[cpu].push((self.seq, place));
        self.seq
    }

    /// `cpu` stores to a word.
    pub fn store(&mut self, cpu: usize, word: usize, old: Pte, new: Pte, release: bool) {
        if old == new || !old.is_present() && !new.is_present() {
            return;
        }
        let seq = self.note(cpu, Place::Word(word));
        self.words.entry(word).or_default().push(Store { cpu, seq, old, release });
    }

    /// `cpu` fills a frame, which begins at `host`.
    pub fn fill(&mut self, cpu: usize, frame: Pfn, host: usize) {
        // What was stored to it when it was a table comes before.
        self.words.retain(|word, _| !(host..host + PAGE_SIZE).contains(word));
        let seq = self.note(cpu, Place::Frame(frame));
        self.frames.insert(frame, (cpu, seq));
    }

    /// A word as walkers see it, if that is not what memory holds.
    pub fn seen(&mut self, word: usize, chance: &mut Chance) -> Option<Pte> {
        let stores = self.words.get(&word)?;
        if self.drain == Drain::AtChance && chance.one_in(3) {
            let count = 1 + chance.below(stores.len());
            self.drain_word(word, count);
        }
        self.words.get(&word)?.first().map(|store| store.old)
    }

    /// Whether `cpu` may still find in a frame what it held before it was filled.
    pub fn hides(&self, frame: Pfn, cpu: usize) -> bool {
        self.frames.get(&frame).is_some_and(|(filler, _)| *filler != cpu)
    }

    /// Whether walkers may.
    pub fn hides_from_walkers(&self, frame: Pfn) -> bool {
        self.frames.contains_key(&frame)
    }

    /// The software of `cpu` loads a word.
    pub fn load(&mut self, cpu: usize, word: usize) {
        let foreign = |stores: &Vec<Store>| stores.iter().rposition(|store| store.cpu != cpu);
        if let Some(last) = self.words.get(&word).and_then(foreign) {
            self.drain_word(word, last + 1);
        }
    }

    /// The software of `cpu` has found a frame under a lock: whoever has filled it has released that lock since.
    pub fn found(&mut self, cpu: usize, frame: Pfn) {
        if let Some((filler, seq)) = self.frames.get(&frame).copied()
            && filler != cpu
        {
            self.drain_cpu(filler, seq + 1);
        }
    }

    /// Somebody updates a word in memory.
    pub fn drain_all(&mut self, word: usize) {
        if let Some(stores) = self.words.get(&word) {
            self.drain_word(word, stores.len());
        }
    }

    /// DSB ISHST of `cpu`.
    pub fn publish(&mut self, cpu: usize) {
        self.drain_cpu(cpu, u64::MAX);
    }

    /// The first `count` stores to a word drain.
    fn drain_word(&mut self, word: usize, count: usize) {
        let Some(stores) = self.words.get_mut(&word) else { return };
        let drained: Vec<Store> = stores.drain(..count).collect();
        if stores.is_empty() {
            self.words.remove(&word);
        }
        for store in drained.iter().filter(|store| store.release) {
            self.drain_cpu(store.cpu, store.seq);
        }
    }

    /// What `cpu` has stored before `seq` drains.
    fn drain_cpu(&mut self, cpu: usize, seq: u64) {
        let count = self.logs[cpu].partition_point(|(at, _)| *at < seq);
        let before: Vec<_> = self.logs[cpu].drain(..count).collect();
        for (at, place) in before {
            match place {
                Place::Frame(frame) => {
                    if self.frames.get(&frame) == Some(&(cpu, at)) {
                        self.frames.remove(&frame);
                    }
                }
                Place::Word(word) => {
                    let stores = self.words.get(&word);
                    let place = stores.and_then(|stores| stores.iter().position(|store| store.seq == at));
                    if let Some(place) = place {
                        self.drain_word(word, place + 1);
                    }
                }
            }
        }
    }
}
