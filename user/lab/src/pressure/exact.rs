//! Policies that learn of every access. No kernel can have them for memory that programs access directly; they show
//! what would be possible.
//!
//! - *OPT* and *LRU*: see [`crate::replace::order`].
//! - *ARC* (Megiddo and Modha, 2003): a list for pages that were used once and one for those used again, each with the
//!   numbers of pages that it has lost. A page that comes back shows which of the two lists should have been longer.
//! - *LIRS* (Jiang and Zhang, 2002): see [`super::lirs`].

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;

use super::Policy;
use super::lists::Lists;

/// The optimal policy.
pub struct Opt {
    frames: usize,
    /// The next use of the reference at each time.
    next: Vec<usize>,
    time: usize,
    /// The next use of each page in memory.
    due: Vec<Option<usize>>,
    by_due: BTreeSet<(usize, usize)>,
}

impl Opt {
    /// The policy for these references.
    pub fn new(frames: usize, pages: usize, references: &[u32]) -> Opt {
        let mut coming = BTreeMap::new();
        let mut next = vec![usize::MAX; references.len()];
        for (time, page) in references.iter().enumerate().rev() {
            next[time] = coming.insert(*page, time).unwrap_or(usize::MAX);
        }
        Opt { frames, next, time: 0, due: vec![None; pages], by_due: BTreeSet::new() }
    }
}

impl Policy for Opt {
    fn name(&self) -> &'static str {
        "OPT"
    }

    fn holds(&self, page: usize) -> bool {
        self.due[page].is_some()
    }

    fn refer(&mut self, page: usize) -> bool {
        let next = self.next[self.time];
        self.time += 1;
        let known = self.due[page].replace(next);
        if let Some(due) = known {
            self.by_due.remove(&(due, page));
        } else if self.by_due.len() == self.frames
            && let Some((_, victim)) = self.by_due.pop_last()
        {
            self.due[victim] = None;
        }
        self.by_due.insert((next, page));
        known.is_none()
    }
}

/// Least recently used.
pub struct Lru {
    frames: usize,
    list: Lists,
}

impl Lru {
    /// An empty memory.
    pub fn new(frames: usize, pages: usize) -> Lru {
        Lru { frames, list: Lists::new(1, pages) }
    }
}

impl Policy for Lru {
    fn name(&self) -> &'static str {
        "LRU"
    }

    fn holds(&self, page: usize) -> bool {
        self.list.list_of(page).is_some()
    }

    fn refer(&mut self, page: usize) -> bool {
        let is_fault = self.list.list_of(page).is_none();
        if is_fault && self.list.len(0) == self.frames {
            self.list.take_first(0);
        }
        self.list.append(0, page);
        is_fault
    }
}

/// Pages that were used once, and the numbers of those that have left.
const ONCE: u8 = 0;
const ONCE_GONE: u8 = 1;
/// Pages that were used again, and the numbers of those that have left.
const AGAIN: u8 = 2;
const AGAIN_GONE: u8 = 3;

/// The adaptive replacement cache.
pub struct Arc {
    frames: usize,
    lists: Lists,
    /// The wanted length of the first list (the paper's p).
    wanted: usize,
}

impl Arc {
    /// An empty memory.
    pub fn new(frames: usize, pages: usize) -> Arc {
        Arc { frames, lists: Lists::new(4, pages), wanted: 0 }
    }

    /// Makes room for a page (the paper's REPLACE).
    fn replace(&mut self, returns_to_again: bool) {
        let once = self.lists.len(ONCE);
        let from_once = once > 0 && (once > self.wanted || returns_to_again && once == self.wanted);
        let (from, to) = if from_once { (ONCE, ONCE_GONE) } else { (AGAIN, AGAIN_GONE) };
        if let Some(victim) = self.lists.take_first(from) {
            self.lists.append(to, victim);
        }
    }

    /// A page that no list knows.
    fn admit(&mut self) {
        let len = |list| self.lists.len(list);
        let (once, all) = (len(ONCE) + len(ONCE_GONE), (0..4).map(len).sum::<usize>());
        if once == self.frames {
            if len(ONCE) < self.frames {
                self.lists.take_first(ONCE_GONE);
                self.replace(false);
            } else {
                self.lists.take_first(ONCE);
            }
        } else if all >= self.frames {
            if all == 2 * self.frames {
                self.lists.take_first(AGAIN_GONE);
            }
            self.replace(false);
        }
    }
}

impl Policy for Arc {
    fn name(&self) -> &'static str {
        "ARC"
    }

    fn holds(&self, page: usize) -> bool {
        matches!(self.lists.list_of(page), Some(ONCE | AGAIN))
    }

    fn refer(&mut self, page: usize) -> bool {
        let (once, again) = (self.lists.len(ONCE_GONE).max(1), self.lists.len(AGAIN_GONE).max(1));
        let to = match self.lists.list_of(page) {
            Some(ONCE | AGAIN) => {
                self.lists.append(AGAIN, page);
                return false;
            }
            Some(ONCE_GONE) => {
                self.wanted = self.frames.min(self.wanted + (again / once).max(1));
                self.replace(false);
                AGAIN
            }
            Some(_) => {
                self.wanted = self.wanted.saturating_sub((once / again).max(1));
                self.replace(true);
                AGAIN
            }
            None => {
                self.admit();
                ONCE
            }
        };
        self.lists.append(to, page);
        true
    }
}
