//! A code for pages of words: pointers, counters, zeros, and repeated words.
//!
//! It is similar to WKdm (Wilson, Kaplan and Smaragdakis 1999), for words of 64 bits: a dictionary of the last 16 words
//! seen, by a hash of their upper 48 bits. Each word is encoded as a tag of two bits, and the data for the tag:
//!
//! | tag | the word is | needs |
//! | --- | --- | --- |
//! | 0 | zero | – |
//! | 1 | in the dictionary | 4 bits: where |
//! | 2 | in the dictionary but for its lower 16 bits | 4 bits, and 16: those |
//! | 3 | new | 64 bits |
//!
//! Four tags are a byte. The byte of four tags 1 has a special meaning: the four words equal the last preceding word
//! that is not zero, and need no data. (Four other words that are in the dictionary have tag 2 for the first one.) Such
//! runs, and runs of zeros, are most of the content of compressible pages, and are coded and decoded at once.
//!
//! The code consists of words, since the kernel may be built without unaligned accesses. The first one has the numbers
//! of places and of lower halves. Tags, new words, places and lower halves follow, each kind in words of its own.

use super::{Damaged, WORDS};

const ENTRIES: usize = 16;
const LOW_BITS: u32 = 16;

const SAME: u8 = 1;
const NEAR: u8 = 2;
const NEW: u8 = 3;

/// Four words are zero.
const ZEROS: u8 = 0;
/// Four words equal the last one.
const LASTS: u8 = 0b01_01_01_01;
/// Four words are in the dictionary.
const IN_DICTIONARY: u8 = 0b01_01_01_10;

/// Words before the new ones.
const HEADER: usize = 1 + WORDS / 4 / 8;

/// The number of bits of the first word that the caller may use.
pub(super) const FREE_BITS: u32 = 16;

/// The index of a word in the dictionary.
#[inline(always)]
fn place(word: u64) -> usize {
    // (2^64 by the golden ratio.)
    ((word >> LOW_BITS).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60) as usize
}

/// Buffers for the page that is being coded.
#[repr(C, align(8))]
pub(super) struct Room {
    /// Followed by zeros, as many as are packed with the last one.
    places: [u8; WORDS + 16],
    lows: [u16; WORDS + 4],
    tags: [u8; WORDS / 4],
}

/// The state for coding a page. (The dictionary is elsewhere, so that the rest can be in registers.)
struct Coder<'a> {
    dictionary: &'a mut [u64; ENTRIES],
    /// The last word that is not zero.
    last: u64,
    room: &'a mut Room,
    new: &'a mut [u64],
    places: usize,
    lows: usize,
    words: usize,
}

impl Coder<'_> {
    /// The word's tag. `None` if it is new, and there is no room for it.
    #[inline(always)]
    fn word(&mut self, word: u64) -> Option<u8> {
        if word == 0 {
            return Some(0);
        }
        self.last = word;
        let place = place(word);
        let differs = core::mem::replace(&mut self.dictionary[place], word) ^ word;
        if differs >> LOW_BITS != 0 {
            *self.new.get_mut(self.words)? = word;
            self.words += 1;
            return Some(NEW);
        }
        self.room.places[self.places] = place as u8;
        self.places += 1;
        if differs == 0 {
            return Some(SAME);
        }
        self.low(word);
        Some(NEAR)
    }

    #[inline(always)]
    fn low(&mut self, word: u64) {
        self.room.lows[self.lows] = word as u16;
        self.lows += 1;
    }

    /// The tags of four words.
    #[inline(always)]
    fn four(&mut self, four: &[u64; 4]) -> Option<u8> {
        if four[0] | four[1] | four[2] | four[3] == 0 {
            return Some(ZEROS);
        }
        if four.iter().all(|word| *word == self.last) {
            return Some(LASTS);
        }
        let tags = self.word(four[0])? | self.word(four[1])? << 2 | self.word(four[2])? << 4 | self.word(four[3])? << 6;
        if tags != LASTS {
            return Some(tags);
        }
        self.low(four[0]);
        Some(IN_DICTIONARY)
    }
}

/// Codes a page; returns how many words the code takes. `None` if it does not fit into `into`.
pub(super) fn pack(page: &[u64; WORDS], room: &mut Room, into: &mut [u64]) -> Option<usize> {
    let (head, new) = into.split_at_mut_checked(HEADER)?;
    let mut dictionary = [0; ENTRIES];
    let mut coder = Coder { dictionary: &mut dictionary, last: 0, room, new, places: 0, lows: 0, words: 0 };
    for (i, four) in page.as_chunks::<4>().0.iter().enumerate() {
        coder.room.tags[i] = coder.four(four)?;
    }
    let Coder { room, new, places, lows, words, .. } = coder;
    head[0] = (places as u64) << FREE_BITS | (lows as u64) << 32;
    for (word, tags) in head[1..].iter_mut().zip(room.tags.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*tags);
    }
    let (nibbles, rest) = new[words..].split_at_mut_checked(places.div_ceil(16))?;
    let halves = rest.get_mut(..lows.div_ceil(4))?;
    room.places[places..places + 16].fill(0);
    for (word, sixteen) in nibbles.iter_mut().zip(room.places.as_chunks::<16>().0) {
        let (two, _) = sixteen.as_chunks::<8>();
        *word = pack_eight(u64::from_le_bytes(two[0])) | pack_eight(u64::from_le_bytes(two[1])) << 32;
    }
    room.lows[lows..lows + 4].fill(0);
    for (word, four) in halves.iter_mut().zip(room.lows.as_chunks::<4>().0) {
        *word = four.iter().rev().fold(0, |word, low| word << LOW_BITS | u64::from(*low));
    }
    Some(HEADER + words + nibbles.len() + halves.len())
}

/// The lower halves of eight bytes, the lowest one first. The upper halves are zero.
#[inline(always)]
fn pack_eight(bytes: u64) -> u64 {
    let two = (bytes | bytes >> 4) & 0x00ff_00ff_00ff_00ff;
    let four = (two | two >> 8) & 0x0000_ffff_0000_ffff;
    (four | four >> 16) & 0xffff_ffff
}

/// Items of `BITS` bits, packed in words.
struct Packed<'a, const BITS: u32> {
    words: core::slice::Iter<'a, u64>,
    word: u64,
    left: u32,
}

impl<'a, const BITS: u32> Packed<'a, BITS> {
    fn new(words: &'a [u64]) -> Self {
        Self { words: words.iter(), word: 0, left: 0 }
    }

    #[inline(always)]
    fn next(&mut self) -> Result<u64, Damaged> {
        if self.left == 0 {
            self.word = *self.words.next().ok_or(Damaged)?;
            self.left = u64::BITS / BITS;
        }
        let item = self.word & ((1 << BITS) - 1);
        self.word >>= BITS;
        self.left -= 1;
        Ok(item)
    }
}

/// The state for decoding a page.
struct Decoder<'a> {
    dictionary: &'a mut [u64; ENTRIES],
    /// The last word that is not zero.
    last: u64,
    new: core::slice::Iter<'a, u64>,
    places: Packed<'a, 4>,
    lows: Packed<'a, LOW_BITS>,
}

impl Decoder<'_> {
    /// The next word, which has this tag.
    #[inline(always)]
    fn word(&mut self, tag: u8) -> Result<u64, Damaged> {
        if tag == 0 {
            return Ok(0);
        }
        if tag == NEW {
            self.last = *self.new.next().ok_or(Damaged)?;
            self.dictionary[place(self.last)] = self.last;
            return Ok(self.last);
        }
        let entry = &mut self.dictionary[self.places.next()? as usize % ENTRIES];
        if tag == NEAR {
            *entry = *entry >> LOW_BITS << LOW_BITS | self.lows.next()?;
        }
        self.last = *entry;
        Ok(self.last)
    }

    /// The next four words.
    #[inline(always)]
    fn four(&mut self, tags: u8) -> Result<[u64; 4], Damaged> {
        Ok(match tags {
            ZEROS => [0; 4],
            LASTS => [self.last; 4],
            _ => [self.word(tags & 3)?, self.word(tags >> 2 & 3)?, self.word(tags >> 4 & 3)?, self.word(tags >> 6)?],
        })
    }

    #[inline(always)]
    fn is_done(&self) -> bool {
        [self.new.len(), self.places.words.len(), self.lows.words.len()] == [0; 3]
    }
}

/// The page, from its code.
pub(super) fn unpack(code: &[u64], page: &mut [u64; WORDS]) -> Result<(), Damaged> {
    let (head, rest) = code.split_at_checked(HEADER).ok_or(Damaged)?;
    let (places, lows) = (head[0] >> FREE_BITS & 0xffff, head[0] >> 32 & 0xffff);
    let (places, lows) = (places.div_ceil(16) as usize, lows.div_ceil(4) as usize);
    let words = rest.len().checked_sub(places + lows).ok_or(Damaged)?;
    let (words, rest) = rest.split_at(words);
    let (places, lows) = rest.split_at(places);
    let mut dictionary = [0; ENTRIES];
    let mut decoder = Decoder {
        dictionary: &mut dictionary,
        last: 0,
        new: words.iter(),
        places: Packed::new(places),
        lows: Packed::new(lows),
    };
    for (eight, tags) in page.as_chunks_mut::<32>().0.iter_mut().zip(&head[1..]) {
        let mut tags = *tags;
        for four in eight.as_chunks_mut::<4>().0 {
            *four = decoder.four(tags as u8)?;
            tags >>= 8;
        }
    }
    if decoder.is_done() { Ok(()) } else { Err(Damaged) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::boxed::Box;
    use std::vec::Vec;

    fn code(page: &[u64; WORDS], room: usize) -> Option<Vec<u64>> {
        let mut into = std::vec![0xaaaa; room];
        let mut scratch = Room { places: [0; WORDS + 16], lows: [0; WORDS + 4], tags: [0; WORDS / 4] };
        let len = pack(page, &mut scratch, &mut into)?;
        into.truncate(len);
        Some(into)
    }

    fn decode(code: &[u64]) -> Result<Box<[u64; WORDS]>, Damaged> {
        let mut page = Box::new([7; WORDS]);
        unpack(code, &mut page).map(|()| page)
    }

    /// Words of the kinds that the code knows.
    fn word() -> impl Strategy<Value = u64> {
        prop_oneof![
            2 => Just(0),
            2 => (0..20_u64).prop_map(|n| n << 40 | 0x1234),
            2 => any::<u16>().prop_map(|low| 0xffff_0000_1234_0000 | u64::from(low)),
            1 => any::<u64>(),
        ]
    }

    proptest! {
        #[test]
        fn pages_come_back(runs in proptest::collection::vec((word(), 1..12_usize), WORDS)) {
            let words: Vec<u64> = runs.iter().flat_map(|(word, n)| std::iter::repeat_n(*word, *n)).take(WORDS).collect();
            let page: [u64; WORDS] = words.try_into().unwrap();
            let packed = code(&page, 2 * WORDS).unwrap();
            prop_assert!(*decode(&packed).unwrap() == page);
            prop_assert_eq!(code(&page, packed.len()), Some(packed.clone()), "exactly that room is enough");
            prop_assert_eq!(code(&page, packed.len() - 1), None);
        }

        #[test]
        fn damaged_codes_do_no_harm(mut code in proptest::collection::vec(any::<u64>(), 0..WORDS), short in any::<bool>()) {
            if short && let Some(head) = code.first_mut() {
                *head &= 0xff_00ff_0000;
            }
            let _ = decode(&code);
        }
    }

    #[test]
    fn a_page_costs_what_its_words_need() {
        let of = |make: fn(u64) -> u64| {
            let mut page = [0; WORDS];
            (0..).zip(&mut page).for_each(|(i, word)| *word = make(i));
            code(&page, 2 * WORDS).unwrap().len() - HEADER
        };
        assert_eq!(of(|_| 0), 0);
        assert_eq!(of(|_| 9 << 32), 1 + 1, "one new word, and three places");
        assert_eq!(of(|i| i % 4), (WORDS / 4 * 3).div_ceil(16) + (WORDS / 4 * 3).div_ceil(4), "zero, and near it");
        assert_eq!(of(|i| (i % 2 + 1) << 32), 2 + 510_usize.div_ceil(16) + 127_usize.div_ceil(4), "two words by turns");
        assert_eq!(of(|i| i), 511_usize.div_ceil(16) + 511_usize.div_ceil(4), "small numbers are near zero");
        assert_eq!(of(|i| i + 1), 512 / 16 + 512 / 4, "also if none of them is zero");
        assert_eq!(of(|i| (i + 1) << 32), WORDS, "nothing is alike");
    }
}
