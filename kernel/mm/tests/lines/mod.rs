//! The cache lines that a piece of work writes, found by comparing memory before and after.

use std::collections::BTreeSet;

pub const LINE: usize = 64;

/// A copy of some memory, and where it is.
pub struct Snapshot(Vec<(usize, Vec<u64>)>);

impl Snapshot {
    /// Copies parts of memory, each an exposed address and a number of bytes.
    pub fn take(parts: impl IntoIterator<Item = (usize, usize)>) -> Self {
        Self(parts.into_iter().map(|(at, len)| (at, words(at, len).collect())).collect())
    }

    /// Lines that differ now.
    pub fn written(&self) -> impl Iterator<Item = usize> {
        self.0.iter().flat_map(|(at, before)| {
            let changed = words(*at, before.len() * 8).zip(before).enumerate().filter(|(_, (now, old))| now != *old);
            changed.map(move |(i, _)| (at + i * 8) / LINE)
        })
    }
}

fn words(at: usize, len: usize) -> impl Iterator<Item = u64> {
    let start = std::ptr::with_exposed_provenance::<u64>(at);
    // SAFETY: the range is memory of the memory manager's, and nobody writes to it meanwhile.
    (0..len / 8).map(move |i| unsafe { start.add(i).read_volatile() })
}

/// No two CPUs' lines have one in common, and each has `at_least` lines.
pub fn assert_apart(lines: &[BTreeSet<usize>], at_least: usize) {
    for (cpu, own) in lines.iter().enumerate() {
        assert!(own.len() >= at_least, "CPU {cpu} wrote {own:x?}");
        for (other, theirs) in lines[..cpu].iter().enumerate() {
            let common: Vec<_> = own.intersection(theirs).map(|line| line * LINE).collect();
            assert!(common.is_empty(), "CPUs {other} and {cpu} both write {common:x?}");
        }
    }
}
