//! Pages that a CPU has charged to a group in advance: one word, so that others can empty it.

use core::sync::atomic::{AtomicU64, Ordering::*};

/// The number of pages that are charged at a time.
pub(super) const BATCH: usize = 64;

/// The maximum number of pages of a stock.
const MOST: u64 = 2 * BATCH as u64;

const GROUP_SHIFT: u32 = 48;
const PAGES: u64 = (1 << GROUP_SHIFT) - 1;

/// Bits 63 to 48 are the group's number, the others the number of pages; 0 for none.
#[repr(align(64))]
pub(super) struct Stock(AtomicU64);

impl Stock {
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Takes a page of the group, if there is one.
    #[inline(always)]
    pub fn take(&self, group: u16) -> bool {
        let word = self.0.load(Relaxed);
        let is_there = word >> GROUP_SHIFT == group.into() && word & PAGES != 0;
        is_there && self.0.compare_exchange(word, word - 1, Relaxed, Relaxed).is_ok()
    }

    /// Takes up to this many pages of the group; returns how many there were.
    pub fn take_some(&self, group: u16, pages: usize) -> usize {
        let word = self.0.load(Relaxed);
        let taken = if word >> GROUP_SHIFT == group.into() { (word & PAGES).min(pages as u64) } else { 0 };
        let is_done = taken != 0 && self.0.compare_exchange(word, word - taken, Relaxed, Relaxed).is_ok();
        if is_done { taken as usize } else { 0 }
    }

    /// Adds pages of the group, if the stock is of the same group, and there is room; returns whether it did.
    #[inline]
    pub fn give(&self, group: u16, pages: usize) -> bool {
        let word = self.0.load(Relaxed);
        let fits = word >> GROUP_SHIFT == group.into() && (word & PAGES) + pages as u64 <= MOST;
        fits && self.0.compare_exchange(word, word + pages as u64, Relaxed, Relaxed).is_ok()
    }

    /// Fills an empty stock.
    pub fn fill(&self, group: u16, pages: usize) -> bool {
        self.0.compare_exchange(0, u64::from(group) << GROUP_SHIFT | pages as u64, Relaxed, Relaxed).is_ok()
    }

    /// The group whose pages they are.
    pub fn group(&self) -> u16 {
        (self.0.load(Relaxed) >> GROUP_SHIFT) as u16
    }

    #[cfg(test)]
    pub fn look(&self) -> (u16, usize) {
        let word = self.0.load(Relaxed);
        ((word >> GROUP_SHIFT) as u16, (word & PAGES) as usize)
    }

    /// Takes everything: the group, and the pages.
    pub fn empty(&self) -> (u16, usize) {
        let word = self.0.swap(0, Relaxed);
        ((word >> GROUP_SHIFT) as u16, (word & PAGES) as usize)
    }
}
