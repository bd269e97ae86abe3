//! Hashes of short names.

/// FNV-1a of 64 bits (Fowler, Noll and Vo): its high bits are the better ones. O(bytes).
pub fn fnv1a<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// A hash of a name in a directory, or below a group, with a secret: no program knows which names share their low bits,
/// or bits from 32 on. O(bytes / 8).
#[inline]
pub fn keyed(seed: u64, parent: u64, name: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(FACTOR).rotate_left(29);
    let mut hash = mix(seed, parent);
    let (words, rest) = name.as_chunks::<8>();
    for word in words {
        hash = mix(hash, u64::from_le_bytes(*word));
    }
    let last = rest.iter().rev().fold(name.len() as u64, |word, byte| word << 8 | u64::from(*byte));
    mix(mix(hash, last), FACTOR)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    /// Names that one seed puts into one of 512 buckets.
    fn colliding(seed: u64, count: usize) -> Vec<[u8; 4]> {
        let bucket = |name: &[u8; 4]| keyed(seed, 0, name) >> 32 & 511;
        (0..u32::MAX).map(u32::to_le_bytes).filter(|name| bucket(name) == 7).take(count).collect()
    }

    #[test]
    fn names_that_collide_under_one_seed_do_not_under_another() {
        let names = colliding(0x1234_5678_9abc_def1, 2000);
        for seed in [0x9e37_79b9_7f4a_7c15_u64, 0xd1b5_4a32_d192_ed03, 0x0123_4567_89ab_cdef] {
            let mut buckets = [0; 512];
            names.iter().for_each(|name| buckets[(keyed(seed, 0, name) >> 32 & 511) as usize] += 1);
            assert!(buckets.iter().max() < Some(&30), "{:?} of 2000", buckets.iter().max());
        }
    }
}
