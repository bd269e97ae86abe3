//! A code for pages of words: pointers, counters, zeros, and the same words again and again.
//!
//! It is WKdm's kind (Wilson, Kaplan and Smaragdakis 1999), for words of 64 bits: a dictionary of the last words seen, 16 of
//! them, by a hash of their upper 48 bits. Each word becomes a tag of two bits, and what the tag needs:
//!
//! | tag | the word is | needs |
//! | --- | --- | --- |
//! | 0 | zero | – |
//! | 1 | in the dictionary | 4 bits: where |
//! | 2 | in the dictionary but for its lower 16 bits | 4 bits, and 16: those |
//! | 3 | new | 64 bits |
//!
//! The four kinds of information are stored one after the other: two counts of 16 bits, the tags, the places, the lower
//! halves, the words.

use super::{Damaged, WORDS};

const ENTRIES: usize = 16;
const LOW_BITS: u32 = 16;

const ZERO: u8 = 0;
const SAME: u8 = 1;
const NEAR: u8 = 2;
const NEW: u8 = 3;

const TAGS: usize = WORDS / 4;
const HEADER: usize = 4 + TAGS;

/// Where a word's place in the dictionary is.
#[inline(always)]
fn place(word: u64) -> usize {
    // (2^64 by the golden ratio.)
    ((word >> LOW_BITS).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60) as usize
}

/// Room for what is being coded.
pub(super) struct Room {
    /// Two more than there can be: they are packed in pairs.
    places: [u8; WORDS + 2],
    lows: [u16; WORDS],
    words: [u64; WORDS],
}

/// Codes a page; returns how many bytes it takes. `None` if that were more than `into` has room for.
pub(super) fn pack(page: &[u64; WORDS], room: &mut Room, into: &mut [u8]) -> Option<usize> {
    let most_new = into.len().saturating_sub(HEADER) / size_of::<u64>();
    let mut dictionary = [0_u64; ENTRIES];
    let (mut places, mut lows, mut words) = (0, 0, 0);
    let (head, rest) = into.split_at_mut_checked(HEADER)?;
    let (counts, tags) = head.split_at_mut(4);
    for (tags, four) in tags.iter_mut().zip(page.as_chunks::<4>().0) {
        let mut bits = 0;
        for (i, &word) in four.iter().enumerate() {
            if word == 0 {
                continue;
            }
            let place = place(word);
            let seen = core::mem::replace(&mut dictionary[place], word);
            let tag = if seen == word {
                SAME
            } else if (seen ^ word) >> LOW_BITS == 0 {
                room.lows[lows] = word as u16;
                lows += 1;
                NEAR
            } else {
                room.words[words] = word;
                words += 1;
                NEW
            };
            bits |= tag << (2 * i);
            if tag != NEW {
                room.places[places] = place as u8;
                places += 1;
            }
        }
        *tags = bits;
        if words > most_new {
            return None;
        }
    }
    counts[..2].copy_from_slice(&(places as u16).to_le_bytes());
    counts[2..].copy_from_slice(&(lows as u16).to_le_bytes());
    let sizes = [places.div_ceil(2), 2 * lows, 8 * words];
    let len = sizes.iter().sum::<usize>();
    if len > rest.len() {
        return None;
    }
    let (nibbles, rest) = rest.split_at_mut(sizes[0]);
    room.places[places] = 0;
    for (nibbles, two) in nibbles.iter_mut().zip(room.places.as_chunks::<2>().0) {
        *nibbles = two[0] | two[1] << 4;
    }
    let (halves, rest) = rest.split_at_mut(sizes[1]);
    for (bytes, low) in halves.as_chunks_mut::<2>().0.iter_mut().zip(room.lows) {
        *bytes = low.to_le_bytes();
    }
    for (bytes, word) in rest[..sizes[2]].as_chunks_mut::<8>().0.iter_mut().zip(room.words) {
        *bytes = word.to_le_bytes();
    }
    Some(HEADER + len)
}

/// The page, from its code.
pub(super) fn unpack(bytes: &[u8], page: &mut [u64; WORDS]) -> Result<(), Damaged> {
    let (head, rest) = bytes.split_at_checked(HEADER).ok_or(Damaged)?;
    let (counts, tags) = head.split_at(4);
    let count = |i: usize| usize::from(u16::from_le_bytes([counts[i], counts[i + 1]]));
    let (nibbles, rest) = rest.split_at_checked(count(0).div_ceil(2)).ok_or(Damaged)?;
    let (halves, words) = rest.split_at_checked(2 * count(2)).ok_or(Damaged)?;
    let mut dictionary = [0_u64; ENTRIES];
    let mut places = nibbles.iter().flat_map(|two| [two & 15, two >> 4]);
    let mut lows = halves.as_chunks::<2>().0.iter();
    let mut words = words.as_chunks::<8>().0.iter();
    for (four, tags) in page.as_chunks_mut::<4>().0.iter_mut().zip(tags) {
        for (i, word) in four.iter_mut().enumerate() {
            *word = match tags >> (2 * i) & 3 {
                ZERO => 0,
                NEW => {
                    let new = u64::from_le_bytes(*words.next().ok_or(Damaged)?);
                    dictionary[place(new)] = new;
                    new
                }
                tag => {
                    let entry = &mut dictionary[usize::from(places.next().ok_or(Damaged)?)];
                    if tag == NEAR {
                        let low = u16::from_le_bytes(*lows.next().ok_or(Damaged)?);
                        *entry = *entry >> LOW_BITS << LOW_BITS | u64::from(low);
                    }
                    *entry
                }
            };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::PAGE_SIZE;
    use proptest::prelude::*;
    use std::boxed::Box;
    use std::vec::Vec;

    fn code(page: &[u64; WORDS], room: usize) -> Option<Vec<u8>> {
        let mut into = std::vec![0xaa; room];
        let mut scratch = Room { places: [0; WORDS + 2], lows: [0; WORDS], words: [0; WORDS] };
        let len = pack(page, &mut scratch, &mut into)?;
        into.truncate(len);
        Some(into)
    }

    fn decode(bytes: &[u8]) -> Result<Box<[u64; WORDS]>, Damaged> {
        let mut page = Box::new([7; WORDS]);
        unpack(bytes, &mut page).map(|()| page)
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
        fn pages_come_back(words in proptest::collection::vec(word(), WORDS)) {
            let page: [u64; WORDS] = words.try_into().unwrap();
            let bytes = code(&page, 2 * PAGE_SIZE).unwrap();
            prop_assert!(*decode(&bytes).unwrap() == page);
            prop_assert_eq!(code(&page, bytes.len()), Some(bytes.clone()), "exactly that room is enough");
            prop_assert_eq!(code(&page, bytes.len() - 1), None);
        }

        #[test]
        fn damaged_codes_do_no_harm(mut bytes in proptest::collection::vec(any::<u8>(), 0..PAGE_SIZE), short in any::<bool>()) {
            if short && bytes.len() > 4 {
                (bytes[1], bytes[3]) = (0, 0);
            }
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn a_page_costs_what_its_words_need() {
        let of = |make: fn(u64) -> u64| {
            let mut page = [0; WORDS];
            (0..).zip(&mut page).for_each(|(i, word)| *word = make(i));
            code(&page, 2 * PAGE_SIZE).unwrap().len() - HEADER
        };
        assert_eq!(of(|_| 0), 0);
        assert_eq!(of(|_| 9 << 32), 8 + WORDS / 2, "one new word, and 511 places");
        assert_eq!(of(|i| i), 511 * 2 + 256, "small numbers are near zero");
        assert_eq!(of(|i| i + 1), 512 * 2 + 256, "also if none of them is zero");
        assert_eq!(of(|i| (i + 1) << 32), 8 * WORDS, "nothing is alike");
    }
}
