//! Policies that learn of accesses by access flags, as kernels do.
//!
//! - *Clock*: see [`crate::replace::bits`].
//! - *Two lists*: as Linux without generations has it. New pages go to the inactive list. A page at its end whose flag is
//!   set gets another turn, and the second time goes to the active list. If the active list is the longer one, its
//!   last page goes to the inactive one, whatever its flag. A page that comes back goes to the active list if fewer pages
//!   have left since it did than the active list has (the *refault distance*).
//! - *Generations*: as Linux's multi-generational LRU has it. New pages go to the youngest generation. Pages leave from the
//!   oldest one; a page whose flag is set goes to the youngest instead. When only two generations are left, a
//!   walk over all tables makes a new one of all pages whose flag is set.

use alloc::vec;
use alloc::vec::Vec;

use super::Policy;
use super::lists::Lists;

/// The access flags of all pages, and how many were looked at.
pub(super) struct Flags {
    young: Vec<bool>,
    looks: u64,
}

impl Flags {
    pub(super) fn new(pages: usize) -> Flags {
        Flags { young: vec![false; pages], looks: 0 }
    }

    /// What hardware does at an access.
    pub(super) fn set(&mut self, page: usize) {
        self.young[page] = true;
    }

    /// Clears a flag; returns whether it was set.
    pub(super) fn take(&mut self, page: usize) -> bool {
        self.looks += 1;
        core::mem::replace(&mut self.young[page], false)
    }

    /// Clears a flag that nobody looks at.
    pub(super) fn clear(&mut self, page: usize) {
        self.young[page] = false;
    }

    /// How many flags were looked at.
    pub(super) fn looks(&self) -> u64 {
        self.looks
    }
}

/// The clock, whose hand is the start of a queue.
pub struct Clock {
    frames: usize,
    list: Lists,
    flags: Flags,
}

impl Clock {
    /// An empty memory.
    pub fn new(frames: usize, pages: usize) -> Clock {
        Clock { frames, list: Lists::new(1, pages), flags: Flags::new(pages) }
    }
}

impl Policy for Clock {
    fn name(&self) -> &'static str {
        "clock"
    }

    fn looks(&self) -> Option<u64> {
        Some(self.flags.looks())
    }

    fn holds(&self, page: usize) -> bool {
        self.list.list_of(page).is_some()
    }

    fn refer(&mut self, page: usize) -> bool {
        self.flags.set(page);
        if self.holds(page) {
            return false;
        }
        while self.list.len(0) == self.frames
            && let Some(first) = self.list.take_first(0)
        {
            if self.flags.take(first) {
                self.list.append(0, first);
            }
        }
        self.list.append(0, page);
        true
    }
}

const INACTIVE: u8 = 0;
const ACTIVE: u8 = 1;

/// Active and inactive pages.
pub struct TwoLists {
    frames: usize,
    lists: Lists,
    flags: Flags,
    /// Whether the flag of an inactive page was set once already.
    referenced: Vec<bool>,
    /// Pages that have left, and pages that became active.
    age: u64,
    /// The age at which each page left.
    shadows: Vec<Option<u64>>,
}

impl TwoLists {
    /// An empty memory.
    pub fn new(frames: usize, pages: usize) -> TwoLists {
        TwoLists {
            frames,
            lists: Lists::new(2, pages),
            flags: Flags::new(pages),
            referenced: vec![false; pages],
            age: 0,
            shadows: vec![None; pages],
        }
    }

    fn evict(&mut self) {
        loop {
            while self.lists.len(INACTIVE) < self.lists.len(ACTIVE)
                && let Some(page) = self.lists.take_first(ACTIVE)
            {
                self.flags.take(page);
                self.referenced[page] = false;
                self.lists.append(INACTIVE, page);
            }
            let Some(page) = self.lists.take_first(INACTIVE) else { return };
            if !self.flags.take(page) {
                self.shadows[page] = Some(self.age);
                self.age += 1;
                return;
            }
            let is_second = core::mem::replace(&mut self.referenced[page], true);
            self.age += u64::from(is_second);
            self.lists.append(if is_second { ACTIVE } else { INACTIVE }, page);
        }
    }
}

impl Policy for TwoLists {
    fn name(&self) -> &'static str {
        "two lists"
    }

    fn looks(&self) -> Option<u64> {
        Some(self.flags.looks())
    }

    fn holds(&self, page: usize) -> bool {
        self.lists.list_of(page).is_some()
    }

    fn refer(&mut self, page: usize) -> bool {
        self.flags.set(page);
        if self.holds(page) {
            return false;
        }
        if self.lists.len(INACTIVE) + self.lists.len(ACTIVE) == self.frames {
            self.evict();
        }
        let active = self.lists.len(ACTIVE) as u64;
        let returns = self.shadows[page].take().is_some_and(|left| self.age - left <= active);
        self.age += u64::from(returns);
        self.referenced[page] = false;
        self.lists.append(if returns { ACTIVE } else { INACTIVE }, page);
        true
    }
}

/// The most generations at a time.
const GENERATIONS: u64 = 4;

/// Generations.
pub struct Generations {
    frames: usize,
    lists: Lists,
    flags: Flags,
    resident: usize,
    oldest: u64,
    youngest: u64,
}

impl Generations {
    /// An empty memory.
    pub fn new(frames: usize, pages: usize) -> Generations {
        let (lists, flags) = (Lists::new(GENERATIONS as u8, pages), Flags::new(pages));
        Generations { frames, lists, flags, resident: 0, oldest: 0, youngest: 2 }
    }

    fn list(generation: u64) -> u8 {
        (generation % GENERATIONS) as u8
    }

    /// Walks all tables.
    fn age(&mut self) {
        self.youngest += 1;
        for page in 0..self.flags.young.len() {
            if self.lists.list_of(page).is_some() && self.flags.take(page) {
                self.lists.append(Self::list(self.youngest), page);
            }
        }
    }

    fn evict(&mut self) {
        loop {
            while self.lists.len(Self::list(self.oldest)) == 0 && self.oldest + 1 < self.youngest {
                self.oldest += 1;
            }
            if self.oldest + 1 >= self.youngest {
                self.age();
                continue;
            }
            let Some(page) = self.lists.take_first(Self::list(self.oldest)) else { continue };
            if !self.flags.take(page) {
                self.resident -= 1;
                return;
            }
            self.lists.append(Self::list(self.youngest), page);
        }
    }
}

impl Policy for Generations {
    fn name(&self) -> &'static str {
        "generations"
    }

    fn looks(&self) -> Option<u64> {
        Some(self.flags.looks())
    }

    fn holds(&self, page: usize) -> bool {
        self.lists.list_of(page).is_some()
    }

    fn refer(&mut self, page: usize) -> bool {
        self.flags.set(page);
        if self.holds(page) {
            return false;
        }
        if self.resident == self.frames {
            self.evict();
        }
        self.resident += 1;
        self.lists.append(Self::list(self.youngest), page);
        true
    }
}
