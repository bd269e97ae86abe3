//! *LIRS by flags*: the test of [`super::lirs`] for a kernel, which learns of accesses by access flags only. CLOCK-Pro
//! (Jiang, Chen and Zhang, 2005) is the model; instead of hands on one clock there are times, so that what is
//! remembered of a page that left fits into a few bits.
//!
//! - *Hot* pages are in the order in which they were last seen used. They keep all frames but the cold ones.
//! - *Cold* pages pass through a queue. In its first half a page's flag says nothing, since the access that brought it
//!   in has set it. Then the flag is cleared, and a page that is used again in the second half takes the test.
//! - A page that leaves is remembered by the time at which it had come. If it comes back, it takes the test.
//! - *The test*: a page becomes hot if it was last used after the hot page that has not been seen used for the longest
//!   time. Hot pages that were last seen before are looked at first: one that was used since moves to the end of the
//!   order, and the first one that was not becomes cold in exchange.
//!
//! The time is the number of pages that have left, in steps of an eighth of the frames. Hot pages that were seen used
//! in the same step are a *generation*. There are at most eight: while all are in use, the youngest one stays open for
//! longer.
//!
//! A page that comes back and passes shows that a longer queue would have kept it, so the queue may grow, up to a
//! quarter of the frames; each one that fails makes it shorter, down to a sixteenth.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use super::flags::{ByFlags, Memory};

/// Cold pages whose flag says nothing yet.
const FRESH: u8 = 0;
/// Cold pages whose flag was cleared.
const WATCHED: u8 = 1;
const HOT: u8 = 2;

/// The most generations at a time.
const GENERATIONS: usize = 8;
/// The most hot pages that a test looks at.
const LOOKS: usize = 32;
/// By how much a page that passes makes the queue longer.
const LONGER: usize = 8;

/// See the module.
pub struct LirsByFlags {
    memory: Memory,
    /// The wanted number of cold pages.
    cold: usize,
    /// Pages that have left.
    left: u64,
    /// The generation of each hot page.
    seen: Vec<u64>,
    /// The times at which the generations began, and how many pages each has; the oldest one first.
    generations: VecDeque<(u64, usize)>,
    /// When the pages that left had come.
    shadows: Vec<Option<u64>>,
}

impl LirsByFlags {
    /// An empty memory.
    pub fn new(frames: usize, pages: usize) -> LirsByFlags {
        LirsByFlags {
            memory: Memory::new(frames, 3, pages),
            cold: (frames / 16).max(1),
            left: 0,
            seen: vec![0; pages],
            generations: VecDeque::from([(0, 0)]),
            shadows: vec![None; pages],
        }
    }

    /// A time, given by the number of pages that had left.
    fn time(&self, left: u64) -> u64 {
        1 + left / (self.memory.frames as u64 / 8).max(1)
    }

    fn cold_pages(&self) -> usize {
        self.memory.lists.len(FRESH) + self.memory.lists.len(WATCHED)
    }

    fn has_room_for_hot(&self) -> bool {
        self.memory.lists.len(HOT) + self.cold < self.memory.frames
    }

    /// Makes a page hot that was just seen used.
    fn heat(&mut self, page: usize) {
        // Before the first page leaves there is no time, and all pages are older than any that leaves.
        let now = if self.left == 0 { 0 } else { self.time(self.left) };
        if self.generations.len() < GENERATIONS && self.generations.back().is_none_or(|(begun, _)| *begun < now) {
            self.generations.push_back((now, 0));
        }
        if let Some((begun, pages)) = self.generations.back_mut() {
            self.seen[page] = *begun;
            *pages += 1;
        }
        self.memory.lists.append(HOT, page);
    }

    /// Takes the hot page that was seen used the longest time ago.
    fn take_oldest(&mut self) -> Option<usize> {
        let page = self.memory.lists.take_first(HOT)?;
        while let Some((begun, pages)) = self.generations.front_mut() {
            if *begun == self.seen[page] {
                *pages -= 1;
                break;
            }
            // It has no pages.
            self.generations.pop_front();
        }
        Some(page)
    }

    /// Looks at the hot page that was seen used the longest time ago: it becomes cold, or is seen. Returns whether it
    /// is cold.
    fn look(&mut self) -> bool {
        let Some(page) = self.take_oldest() else { return false };
        let is_used = self.memory.flags.take(page);
        if is_used {
            self.heat(page);
        } else {
            self.memory.lists.append(WATCHED, page);
        }
        !is_used
    }

    /// Whether a page that was last used at this time takes the place of a hot one.
    fn passes(&mut self, used: u64) -> bool {
        for _ in 0..LOOKS {
            match self.memory.lists.first(HOT) {
                Some(first) if self.seen[first] < used => {}
                _ => return false,
            }
            if self.look() {
                return true;
            }
        }
        false
    }

    /// Makes the queue longer or shorter after a page has come back.
    fn adapt(&mut self, has_passed: bool) {
        let (least, most) = ((self.memory.frames / 16).max(1), (self.memory.frames / 4).max(1));
        self.cold = if has_passed { (self.cold + LONGER).min(most) } else { (self.cold - 1).max(least) };
    }

    fn evict(&mut self) {
        for _ in 0..LOOKS {
            if self.cold_pages() >= self.cold {
                break;
            }
            self.look();
        }
        loop {
            while self.memory.lists.len(WATCHED) < self.memory.lists.len(FRESH)
                && let Some(page) = self.memory.lists.take_first(FRESH)
            {
                self.memory.flags.clear(page);
                self.memory.lists.append(WATCHED, page);
            }
            let Some(page) = self.memory.lists.take_first(WATCHED).or_else(|| self.take_oldest()) else { return };
            if !self.memory.flags.take(page) {
                let came = self.left.saturating_sub(self.cold_pages() as u64);
                self.shadows[page] = Some(self.time(came));
                self.left += 1;
                return;
            }
            if self.passes(u64::MAX) {
                self.heat(page);
            } else {
                self.memory.lists.append(FRESH, page);
            }
        }
    }
}

impl ByFlags for LirsByFlags {
    const NAME: &'static str = "LIRS by flags";

    fn memory(&self) -> &Memory {
        &self.memory
    }

    fn memory_mut(&mut self) -> &mut Memory {
        &mut self.memory
    }

    fn bring_in(&mut self, page: usize) {
        if self.cold_pages() + self.memory.lists.len(HOT) == self.memory.frames {
            self.evict();
        }
        let shadow = self.shadows[page].take();
        let is_hot = self.has_room_for_hot()
            || shadow.is_some_and(|used| {
                let passes = self.passes(used);
                self.adapt(passes);
                passes
            });
        if is_hot {
            self.heat(page);
        } else {
            self.memory.lists.append(FRESH, page);
        }
    }
}
