//! Bitmaps, word by word: runs of clear bits, and the words that contain a run.
//!
//! The caller owns the words and accesses them; this module only computes which words and which bits.

use core::ops::Range;

/// The first position at or after bit `from` where `count` consecutive bits, all below `len`, are clear. `align`
/// returns the first position at or after a bit where the run may begin.
///
/// A candidate is checked from its end, and the next one begins after its last set bit: each word is read at most
/// twice, or once for each aligned position in it.
pub(crate) fn find_clear_run(
    word: impl Fn(usize) -> u64,
    len: usize,
    from: usize,
    count: usize,
    align: impl Fn(usize) -> Option<usize>,
) -> Option<usize> {
    let mut first = align(from)?;
    while first.checked_add(count)? <= len {
        match last_set(&word, first..first + count) {
            None => return Some(first),
            Some(last) => first = align(last + 1)?,
        }
    }
    None
}

/// The last bit of a range that is set.
fn last_set(word: impl Fn(usize) -> u64, bits: Range<usize>) -> Option<usize> {
    words(bits).rev().find_map(|(index, mask)| {
        let set = word(index) & mask;
        (set != 0).then(|| index * 64 + set.ilog2() as usize)
    })
}

/// The words that contain a range of bits, each with a mask of the range's bits in it.
pub(crate) fn words(bits: Range<usize>) -> impl DoubleEndedIterator<Item = (usize, u64)> {
    (bits.start / 64..bits.end.div_ceil(64)).map(move |index| {
        let from = bits.start.saturating_sub(index * 64);
        let past = (bits.end - index * 64).min(64);
        (index, !0 << from & !0 >> (64 - past))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(map: &mut [u64], bits: Range<usize>) {
        words(bits).for_each(|(index, mask)| map[index] |= mask);
    }

    #[test]
    fn words_of_a_range() {
        let of = |bits: Range<usize>| words(bits).collect::<Vec<_>>();
        assert_eq!(of(0..64), [(0, !0)]);
        assert_eq!(of(63..65), [(0, 1 << 63), (1, 1)]);
        assert_eq!(of(70..75), [(1, 0b11111 << 6)]);
        assert_eq!(of(0..1), [(0, 1)]);
        assert!(of(5..5).iter().all(|(_, mask)| *mask == 0));
    }

    proptest! {
        #[test]
        fn a_run_is_the_first_that_fits(
            taken in prop::collection::vec((0usize..400, 1usize..70), 0..12),
            (len, from, count, align) in (1usize..400, 0usize..400, 1usize..130, 0u32..7),
        ) {
            let mut map = [0; 8];
            for (start, count) in taken {
                set(&mut map, start..(start + count).min(512));
            }
            let is_clear = |bit: usize| map[bit / 64] >> (bit % 64) & 1 == 0;
            let align = 1 << align;
            let expected = (from..=len.saturating_sub(count))
                .find(|&first| first % align == 0 && first + count <= len && (first..first + count).all(is_clear));
            let found = find_clear_run(|i| map[i], len, from, count, |bit| bit.checked_next_multiple_of(align));
            prop_assert_eq!(found, expected);
        }
    }
}
