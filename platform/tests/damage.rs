//! Damaged trees: no panic, no endless walk, and every board that is read passes its validation.

mod common;

use common::{CORPUS, rpi4};
use proptest::prelude::*;
use quire_platform::tree::{Board, Region, salvage};

/// One change to a tree.
#[derive(Clone, Debug)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Word(prop::sample::Index, u32),
    Copy(prop::sample::Index, prop::sample::Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    // Words with a meaning in a tree: tokens, cell counts, phandles, extremes.
    let word = prop_oneof![Just(0), 1..=9u32, Just(0x8000), Just(u32::MAX), Just(0xffff_f000), any::<u32>()];
    prop_oneof![
        (at(), 1..=255u8).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        (at(), word).prop_map(|(at, word)| Damage::Word(at, word)),
        (at(), at()).prop_map(|(from, to)| Damage::Copy(from, to)),
    ]
}

fn apply(bytes: &mut [u8], damage: &Damage) {
    let words = bytes.len() / 4;
    match damage {
        Damage::Flip(at, bits) => bytes[at.index(bytes.len())] ^= bits,
        Damage::Word(at, word) => {
            let at = at.index(words) * 4;
            bytes[at..at + 4].copy_from_slice(&word.to_be_bytes());
        }
        Damage::Copy(from, to) => {
            let (from, to) = (from.index(words) * 4, to.index(words) * 4);
            bytes.copy_within(from..from + 4, to);
        }
    }
}

fn check(bytes: &[u8]) -> Result<bool, TestCaseError> {
    // The ports salvaged from a tree that cannot be read.
    let ports = salvage(bytes).ports;
    prop_assert!(ports.iter().all(|port| Region::new(port.base, port.size) == Some(*port)));
    let Ok(board) = Board::from_tree(bytes) else { return Ok(false) };
    prop_assert_eq!(board.validate(), Ok(()));
    Ok(true)
}

fn trees() -> Vec<Vec<u8>> {
    CORPUS.iter().map(|(_, bytes)| bytes.to_vec()).chain(rpi4()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn changed_bytes(tree in prop::sample::select(trees()), changes in prop::collection::vec(damage(), 1..12)) {
        let mut bytes = tree;
        changes.iter().for_each(|change| apply(&mut bytes, change));
        check(&bytes)?;
    }

    #[test]
    fn noise(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        prop_assert!(!check(&bytes)?);
    }
}

/// Replaces every property value of every tree, one cell at a time, by an absurd one. These trees are well formed, so
/// that the damage reaches the code that interprets cells.
#[test]
fn absurd_cells() {
    for (name, bytes) in CORPUS {
        let start = be32(bytes, 8);
        let mut usable = 0;
        for at in (start..start + be32(bytes, 36)).step_by(12) {
            // Only every third cell, with one of four words, to limit this to a few seconds.
            let word = [0, u32::MAX, 3, 0x8000_0000][at / 12 % 4];
            let mut damaged = bytes.to_vec();
            damaged[at..at + 4].copy_from_slice(&u32::to_be_bytes(word));
            let read = check(&damaged).unwrap_or_else(|broken| panic!("{name}, {word:#x} at {at:#x}: {broken}"));
            usable += usize::from(read);
        }
        assert!(usable > 20, "{name}: damage to values must not be damage to the structure");
    }
}

#[test]
fn cut_short() {
    for (name, bytes) in CORPUS {
        for len in (0..bytes.len()).step_by(53) {
            let mut cut = bytes[..len].to_vec();
            assert!(Board::from_tree(&cut).is_err(), "{name} cut to {len}");
            // The same with a header that gives the reduced size.
            if len >= 40 {
                cut[4..8].copy_from_slice(&(len as u32).to_be_bytes());
                check(&cut).unwrap_or_else(|broken| panic!("{name} shortened to {len}: {broken}"));
            }
        }
    }
}

fn be32(bytes: &[u8], at: usize) -> usize {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
}
