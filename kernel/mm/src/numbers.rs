//! Small numbers that are assigned in turn: a number that has been returned is reused as late as possible.
//!
//! A bit says which numbers are in use, others which words of bits are full and which are empty, so that finding a free
//! one, or one in use, reads [`WORDS`]/64 words at most, however many are in use.

/// One more than the highest number.
pub const LIMIT: u32 = (WORDS * 64) as u32;

const WORDS: usize = 512;

/// Which numbers are in use. 0 is never assigned.
pub struct Numbers {
    used: [u64; WORDS],
    /// Bit `i` is set while all bits of `used[i]` are.
    full: [u64; WORDS / 64],
    /// Bit `i` is set while any bit of `used[i]` is.
    some: [u64; WORDS / 64],
    last: u32,
}

impl Default for Numbers {
    fn default() -> Self {
        Self::new()
    }
}

impl Numbers {
    /// All free.
    pub const fn new() -> Self {
        let mut used = [0; WORDS];
        used[0] = 1;
        let mut some = [0; WORDS / 64];
        some[0] = 1;
        Self { used, full: [0; WORDS / 64], some, last: 0 }
    }

    /// The next number to be assigned, which [`Numbers::take`] takes; `None` if all are in use.
    pub fn next_free(&self) -> Option<u32> {
        self.free_from(self.last + 1).or_else(|| self.free_from(1))
    }

    /// The lowest free number from `from` on.
    fn free_from(&self, from: u32) -> Option<u32> {
        let index = from as usize / 64;
        let here = !self.used.get(index)? & (u64::MAX << (from % 64));
        if here != 0 {
            return Some((index * 64) as u32 + here.trailing_zeros());
        }
        let index = self.not_full_from(index + 1)?;
        Some((index * 64) as u32 + self.used[index].trailing_ones())
    }

    /// The first word from `from` on that is not full.
    fn not_full_from(&self, from: usize) -> Option<usize> {
        first_set(self.full.iter().map(|full| !full), from)
    }

    /// The number that was taken last; 0 for none.
    pub fn last(&self) -> u32 {
        self.last
    }

    /// Takes a number that [`Numbers::next_free`] returned.
    pub fn take(&mut self, number: u32) {
        let index = number as usize / 64;
        self.used[index] |= 1 << (number % 64);
        self.some[index / 64] |= 1 << (index % 64);
        if self.used[index] == u64::MAX {
            self.full[index / 64] |= 1 << (index % 64);
        }
        self.last = number;
    }

    /// Gives a number back.
    pub fn give_back(&mut self, number: u32) {
        let index = number as usize / 64;
        self.used[index] &= !(1 << (number % 64));
        self.full[index / 64] &= !(1 << (index % 64));
        if self.used[index] == 0 {
            self.some[index / 64] &= !(1 << (index % 64));
        }
    }

    /// The lowest number in use from `from` on.
    pub fn next_used(&self, from: u32) -> Option<u32> {
        let index = from as usize / 64;
        let here = self.used.get(index)? & (u64::MAX << (from % 64));
        if here != 0 {
            return Some((index * 64) as u32 + here.trailing_zeros());
        }
        let index = self.not_empty_from(index + 1)?;
        Some((index * 64) as u32 + self.used[index].trailing_zeros())
    }

    /// The first word from `from` on that is not empty.
    fn not_empty_from(&self, from: usize) -> Option<usize> {
        first_set(self.some.iter().copied(), from)
    }
}

/// The first set bit from `from` on.
fn first_set(words: impl Iterator<Item = u64>, from: usize) -> Option<usize> {
    let mut mask = u64::MAX << (from % 64);
    for (i, word) in words.enumerate().skip(from / 64) {
        let bits = word & mask;
        if bits != 0 {
            return Some(i * 64 + bits.trailing_zeros() as usize);
        }
        mask = u64::MAX;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn all_numbers_are_given_out_and_no_more() {
        let mut numbers = Numbers::new();
        for expected in 1..LIMIT {
            assert_eq!(numbers.next_free(), Some(expected));
            numbers.take(expected);
        }
        assert_eq!(numbers.next_free(), None);
        for number in [1, 63, 64, 12_345, LIMIT - 1] {
            numbers.give_back(number);
            assert_eq!(numbers.next_free(), Some(number));
            numbers.take(number);
            assert_eq!(numbers.next_free(), None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_number_comes_again_as_late_as_it_can(
            full in 1..LIMIT,
            steps in proptest::collection::vec((any::<bool>(), 0..LIMIT), 1..300),
        ) {
            let mut numbers = Numbers::new();
            let mut model = BTreeSet::from([0]);
            for number in 1..full {
                numbers.take(number);
                model.insert(number);
            }
            let mut last = full - 1;
            for (gives_back, at) in steps {
                if gives_back {
                    if let Some(&number) = model.range(at.max(1)..).next() {
                        numbers.give_back(number);
                        model.remove(&number);
                    }
                } else {
                    let round = (last + 1..LIMIT).chain(1..=last);
                    let expected = round.clone().find(|number| !model.contains(number));
                    prop_assert_eq!(numbers.next_free(), expected);
                    if let Some(number) = expected {
                        numbers.take(number);
                        model.insert(number);
                        last = number;
                    }
                }
                prop_assert_eq!(numbers.next_used(at.max(1)), model.range(at.max(1)..).next().copied());
            }
        }
    }
}
