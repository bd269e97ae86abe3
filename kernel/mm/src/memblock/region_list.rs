//! A sorted list of disjoint regions of fixed capacity.

use core::ops::Range;

use crate::addr::PhysAddr;

use super::MemBlockError;

/// Capacity of a list: a tree's 64 banks, each reservation cutting one into three, and boot's own reservations.
pub const CAPACITY: usize = 256;

/// A range of addresses and its attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<T> {
    pub start: PhysAddr,
    pub end: PhysAddr,
    pub info: T,
}

/// Regions in ascending order, disjoint, none empty; adjacent neighbours have different attributes.
#[derive(Clone)]
pub(super) struct RegionList<T> {
    entries: [Entry<T>; CAPACITY],
    len: usize,
}

impl<T: Copy + PartialEq> RegionList<T> {
    /// An empty list; `filler` fills the unused places.
    pub(super) const fn new(filler: T) -> Self {
        let nowhere = Entry { start: PhysAddr::new(0), end: PhysAddr::new(0), info: filler };
        Self { entries: [nowhere; CAPACITY], len: 0 }
    }

    pub(super) fn entries(&self) -> &[Entry<T>] {
        &self.entries[..self.len]
    }

    /// Adds a range. Where one is already, it stays as it is.
    pub(super) fn add(&mut self, range: Range<PhysAddr>, info: T) -> Result<(), MemBlockError> {
        let mut gaps = 0;
        self.for_each_gap(&range, |_, _| gaps += 1);
        if self.len + gaps > CAPACITY {
            return Err(MemBlockError::Full);
        }
        for _ in 0..gaps {
            let mut first = None;
            self.for_each_gap(&range, |at, gap| first = first.or(Some((at, gap.start, gap.end))));
            let Some((at, start, end)) = first else { break };
            self.insert(at, Entry { start, end, info });
        }
        self.merge();
        Ok(())
    }

    /// Calls `found` with each part of `range` that no entry covers, and the place where its entry would go.
    fn for_each_gap(&self, range: &Range<PhysAddr>, mut found: impl FnMut(usize, Range<PhysAddr>)) {
        let mut at = range.start;
        for (i, entry) in self.entries().iter().enumerate() {
            if at < entry.start.min(range.end) {
                found(i, at..entry.start.min(range.end));
            }
            at = at.max(entry.end);
        }
        if at < range.end {
            found(self.len, at..range.end);
        }
    }

    /// Takes a range away, wherever it is covered.
    pub(super) fn remove(&mut self, range: Range<PhysAddr>) -> Result<(), MemBlockError> {
        self.cut(&range)?;
        self.retain(|entry| entry.end <= range.start || entry.start >= range.end);
        Ok(())
    }

    /// Changes the attributes of a range, wherever it is covered.
    pub(super) fn update(&mut self, range: Range<PhysAddr>, change: impl Fn(&mut T)) -> Result<(), MemBlockError> {
        self.cut(&range)?;
        for entry in &mut self.entries[..self.len] {
            if entry.start >= range.start && entry.end <= range.end {
                change(&mut entry.info);
            }
        }
        self.merge();
        Ok(())
    }

    /// Splits entries so that none crosses an end of the range.
    fn cut(&mut self, range: &Range<PhysAddr>) -> Result<(), MemBlockError> {
        if range.is_empty() {
            return Ok(());
        }
        let crossed = |at: PhysAddr, list: &Self| list.entries().iter().position(|e| e.start < at && at < e.end);
        let needed = [range.start, range.end].iter().filter(|&&at| crossed(at, self).is_some()).count();
        if self.len + needed > CAPACITY {
            return Err(MemBlockError::Full);
        }
        for at in [range.start, range.end] {
            if let Some(i) = crossed(at, self) {
                let upper = Entry { start: at, ..self.entries[i] };
                self.entries[i].end = at;
                self.insert(i + 1, upper);
            }
        }
        Ok(())
    }

    fn insert(&mut self, at: usize, entry: Entry<T>) {
        self.entries.copy_within(at..self.len, at + 1);
        self.entries[at] = entry;
        self.len += 1;
    }

    fn retain(&mut self, keep: impl Fn(&Entry<T>) -> bool) {
        let mut kept = 0;
        for i in 0..self.len {
            if keep(&self.entries[i]) {
                self.entries[kept] = self.entries[i];
                kept += 1;
            }
        }
        self.len = kept;
    }

    /// Joins adjacent neighbours with equal attributes.
    fn merge(&mut self) {
        let mut kept = 0;
        for i in 0..self.len {
            let entry = self.entries[i];
            if kept > 0 && self.entries[kept - 1].end == entry.start && self.entries[kept - 1].info == entry.info {
                self.entries[kept - 1].end = entry.end;
            } else {
                self.entries[kept] = entry;
                kept += 1;
            }
        }
        self.len = kept;
    }
}
