//! Policies that learn of accesses by access flags, as kernels do.
//!
//! - *Clock*: see [`crate::replace::bits`].
//! - *Two lists*: as Linux without generations has it. New pages go to the inactive list. A page at its end whose flag
//!   is set gets another turn, and the second time goes to the active list. If the active list is the longer one, its
//!   last page goes to the inactive one, whatever its flag. A page that comes back goes to the active list if fewer
//!   pages have left since it did than the active list has (the *refault distance*).
//! - *Generations*: as Linux's multi-generational LRU has it. New pages go to the youngest generation. Pages leave from
//!   the oldest one; a page whose flag is set goes to the youngest instead. When only two generations are left, a walk
//!   over all tables makes a new one of all pages whose flag is set.

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

/// The pages in memory, on lists, and the flags of all pages.
pub(super) struct Memory {
    pub(super) frames: usize,
    pub(super) lists: Lists,
    pub(super) flags: Flags,
}

impl Memory {
    /// Empty, with `frames` frames and `lists` lists.
    pub(super) fn new(frames: usize, lists: u8, pages: usize) -> Memory {
        Memory { frames, lists: Lists::new(lists, pages), flags: Flags::new(pages) }
    }
}

/// A policy by access flags: it does nothing at an access to a page that is in memory.
pub(super) trait ByFlags {
    /// The display name.
    const NAME: &'static str;

    /// Its memory.
    fn memory(&self) -> &Memory;

    /// The same, to change.
    fn memory_mut(&mut self) -> &mut Memory;

    /// Brings in a page that is not in memory, and was accessed.
    fn bring_in(&mut self, page: usize);
}

impl<T: ByFlags> Policy for T {
    fn name(&self) -> &'static str {
        T::NAME
    }

    fn looks(&self) -> Option<u64> {
        Some(self.memory().flags.looks())
    }

    fn holds(&self, page: usize) -> bool {
        self.memory().lists.list_of(page).is_some()
    }

    fn refer(&mut self, page: usize) -> bool {
        self.memory_mut().flags.set(page);
        let is_fault = !self.holds(page);
        if is_fault {
            self.bring_in(page);
        }
        is_fault
    }
}

/// The clock, whose hand is the start of a queue.
pub struct Clock(Memory);

impl Clock {
    /// An empty memory.
    pub fn new(frames: usize, pages: usize) -> Clock {
        Clock(Memory::new(frames, 1, pages))
    }
}

impl ByFlags for Clock {
    const NAME: &'static str = "clock";

    fn memory(&self) -> &Memory {
        &self.0
    }

    fn memory_mut(&mut self) -> &mut Memory {
        &mut self.0
    }

    fn bring_in(&mut self, page: usize) {
        let Memory { frames, lists, flags } = &mut self.0;
        while lists.len(0) == *frames
            && let Some(first) = lists.take_first(0)
        {
            if flags.take(first) {
                lists.append(0, first);
            }
        }
        lists.append(0, page);
    }
}

const INACTIVE: u8 = 0;
const ACTIVE: u8 = 1;

/// Active and inactive pages.
pub struct TwoLists {
    memory: Memory,
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
            memory: Memory::new(frames, 2, pages),
            referenced: vec![false; pages],
            age: 0,
            shadows: vec![None; pages],
        }
    }

    fn evict(&mut self) {
        loop {
            while self.memory.lists.len(INACTIVE) < self.memory.lists.len(ACTIVE)
                && let Some(page) = self.memory.lists.take_first(ACTIVE)
            {
                self.memory.flags.take(page);
                self.referenced[page] = false;
                self.memory.lists.append(INACTIVE, page);
            }
            let Some(page) = self.memory.lists.take_first(INACTIVE) else { return };
            if !self.memory.flags.take(page) {
                self.shadows[page] = Some(self.age);
                self.age += 1;
                return;
            }
            let is_second = core::mem::replace(&mut self.referenced[page], true);
            self.age += u64::from(is_second);
            self.memory.lists.append(if is_second { ACTIVE } else { INACTIVE }, page);
        }
    }
}

impl ByFlags for TwoLists {
    const NAME: &'static str = "two lists";

    fn memory(&self) -> &Memory {
        &self.memory
    }

    fn memory_mut(&mut self) -> &mut Memory {
        &mut self.memory
    }

    fn bring_in(&mut self, page: usize) {
        if self.memory.lists.len(INACTIVE) + self.memory.lists.len(ACTIVE) == self.memory.frames {
            self.evict();
        }
        let active = self.memory.lists.len(ACTIVE) as u64;
        let returns = self.shadows[page].take().is_some_and(|left| self.age - left <= active);
        self.age += u64::from(returns);
        self.referenced[page] = false;
        self.memory.lists.append(if returns { ACTIVE } else { INACTIVE }, page);
    }
}

/// The most generations at a time.
const GENERATIONS: u64 = 4;

/// Generations.
pub struct Generations {
    memory: Memory,
    resident: usize,
    oldest: u64,
    youngest: u64,
}

impl Generations {
    /// An empty memory.
    pub fn new(frames: usize, pages: usize) -> Generations {
        let memory = Memory::new(frames, GENERATIONS as u8, pages);
        Generations { memory, resident: 0, oldest: 0, youngest: 2 }
    }

    fn list(generation: u64) -> u8 {
        (generation % GENERATIONS) as u8
    }

    /// Walks all tables.
    fn age(&mut self) {
        self.youngest += 1;
        for page in 0..self.memory.flags.young.len() {
            if self.memory.lists.list_of(page).is_some() && self.memory.flags.take(page) {
                self.memory.lists.append(Self::list(self.youngest), page);
            }
        }
    }

    fn evict(&mut self) {
        loop {
            while self.memory.lists.len(Self::list(self.oldest)) == 0 && self.oldest + 1 < self.youngest {
                self.oldest += 1;
            }
            if self.oldest + 1 >= self.youngest {
                self.age();
                continue;
            }
            let Some(page) = self.memory.lists.take_first(Self::list(self.oldest)) else { continue };
            if !self.memory.flags.take(page) {
                self.resident -= 1;
                return;
            }
            self.memory.lists.append(Self::list(self.youngest), page);
        }
    }
}

impl ByFlags for Generations {
    const NAME: &'static str = "generations";

    fn memory(&self) -> &Memory {
        &self.memory
    }

    fn memory_mut(&mut self) -> &mut Memory {
        &mut self.memory
    }

    fn bring_in(&mut self, page: usize) {
        if self.resident == self.memory.frames {
            self.evict();
        }
        self.resident += 1;
        self.memory.lists.append(Self::list(self.youngest), page);
    }
}
