//! A set of group numbers that finds the next number that is in it, or is not, in a few steps.

const WORDS: usize = 1 << 10;

/// The number of words for 2^16 numbers.
pub(super) struct Ids {
    words: [u64; WORDS],
    /// A bit for each word with at least one number, and one for each word with all numbers.
    any: [u64; WORDS / 64],
    all: [u64; WORDS / 64],
}

impl Ids {
    pub const fn new() -> Self {
        Self { words: [0; WORDS], any: [0; WORDS / 64], all: [0; WORDS / 64] }
    }

    pub fn insert(&mut self, id: usize) {
        self.words[id / 64] |= 1 << (id % 64);
        self.note(id / 64);
    }

    pub fn remove(&mut self, id: usize) {
        self.words[id / 64] &= !(1 << (id % 64));
        self.note(id / 64);
    }

    fn note(&mut self, word: usize) {
        let set = |bits: &mut [u64], is_set: bool| {
            let bit = 1 << (word % 64);
            bits[word / 64] = bits[word / 64] & !bit | if is_set { bit } else { 0 };
        };
        set(&mut self.any, self.words[word] != 0);
        set(&mut self.all, self.words[word] == u64::MAX);
    }

    /// The first number at `from` or above that is in the set.
    pub fn next(&self, from: usize) -> Option<usize> {
        Self::find(from, |word| self.words[word], |word| self.any[word])
    }

    /// The first number at `from` or above that is not in the set.
    pub fn next_free(&self, from: usize) -> Option<usize> {
        Self::find(from, |word| !self.words[word], |word| !self.all[word])
    }

    /// The first bit at `from` or above in `words`; `summary` has a bit for each word that is not 0.
    fn find(from: usize, words: impl Fn(usize) -> u64, summary: impl Fn(usize) -> u64) -> Option<usize> {
        let first = |bits: u64, from: usize| bits & (u64::MAX << (from % 64));
        if from >= WORDS * 64 {
            return None;
        }
        let here = first(words(from / 64), from);
        if here != 0 {
            return Some(from / 64 * 64 + here.trailing_zeros() as usize);
        }
        let next = from / 64 + 1;
        (next / 64..WORDS / 64).find_map(|at| {
            let bits = if at == next / 64 { first(summary(at), next) } else { summary(at) };
            let word = (bits != 0).then(|| at * 64 + bits.trailing_zeros() as usize)?;
            Some(word * 64 + words(word).trailing_zeros() as usize)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(changes in prop::collection::vec((0_usize..400, 0_usize..160, any::<bool>()), 1..60)) {
            let (mut ids, mut model) = (Ids::new(), BTreeSet::new());
            for (at, run, is_in) in changes {
                for id in (at * 163..).take(run).filter(|id| *id < 1 << 16) {
                    if is_in {
                        ids.insert(id);
                        model.insert(id);
                    } else {
                        ids.remove(id);
                        model.remove(&id);
                    }
                }
                let looks: Vec<usize> = [0, at * 163, at * 163 + run, 65_535, 65_536].into();
                for from in looks {
                    prop_assert_eq!(ids.next(from), model.range(from..).next().copied());
                    prop_assert_eq!(ids.next_free(from), (from..1 << 16).find(|id| !model.contains(id)));
                }
            }
        }
    }
}
