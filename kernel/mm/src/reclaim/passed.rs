//! The queue of pages that their programs have given up.
//!
//! Programs may give up the same pages again and again, and nobody tells the queue when one is freed. So numbers that are of no use are
//! found in passing: when the queue has become eight times as long as it was after the last round, a round begins, in which for each one that comes two that wait are looked at, and go to the end if their pages are still given up. A frame may stand in the queue twice, if it was freed and given up again. The list of its page tells: there are two for pages that are queued, one for
//! those that were passed or came in this round, one for those that are still to be passed; what is met a second time is on the first one.

use super::policy::{GIVEN_UP, NEW};
use super::ring::Ring;
use crate::addr::Pfn;
use crate::cgroup::Machine;
use crate::fallible::AllocError;
use crate::frame;

/// Numbers that are skipped at a time.
const STALE: usize = 256;

/// Numbers for which there is no round.
const ROUND: usize = 4096;

/// By how much the queue grows until the next one.
const GROWS: usize = 8;

/// See the module.
pub(super) struct Passed {
    ring: Ring,
    /// How many are still to be passed in this round.
    old: usize,
    /// Which of the two lists these are on.
    list: u8,
    /// The next round begins when there are more.
    most: usize,
}

impl Passed {
    pub const NONE: Passed = Passed { ring: Ring::NONE, old: 0, list: 0, most: ROUND };

    pub fn new(places: usize) -> Result<Self, AllocError> {
        Ok(Passed { ring: Ring::new(places)?, ..Self::NONE })
    }

    /// Frames that it has.
    pub fn frames(&self) -> usize {
        self.ring.frames()
    }

    /// See [`Ring::try_again`].
    pub fn try_again(&mut self) {
        self.ring.try_again();
    }

    /// The list of those that come now.
    #[inline(always)]
    fn list_of_new(&self) -> u8 {
        GIVEN_UP + 2 - self.list
    }

    /// The next number, if its page is queued no more from now on; `Err` if there is none.
    fn pop<M: Machine>(&mut self, machine: M) -> Result<Option<Pfn>, ()> {
        if self.old == 0 {
            // All that are left are on the other list.
            self.list = 1 - self.list;
            self.old = self.ring.len();
        }
        let pfn = self.ring.pop(machine).ok_or(())?;
        self.old -= 1;
        let is_queued = frame::page(machine, pfn).change_list(GIVEN_UP + 1 + self.list, GIVEN_UP);
        Ok(is_queued.then_some(pfn))
    }

    #[inline]
    fn push<M: Machine>(&mut self, machine: M, pfn: Pfn) {
        let page = frame::page(machine, pfn);
        let list = self.list_of_new();
        if page.change_list(GIVEN_UP, list) && !self.ring.push(machine, pfn) {
            // The hand finds it.
            page.change_list(list, NEW);
        }
    }

    /// Queues a page that was given up, if it still is.
    #[inline]
    pub fn add<M: Machine>(&mut self, machine: M, pfn: Pfn) {
        if self.ring.len() > self.most {
            self.go_round(machine);
        }
        self.push(machine, pfn);
    }

    #[cold]
    #[inline(never)]
    fn go_round<M: Machine>(&mut self, machine: M) {
        for _ in 0..2 {
            if let Ok(Some(first)) = self.pop(machine) {
                self.push(machine, first);
            }
            if self.old == 0 {
                self.most = (self.ring.len() * GROWS).max(ROUND);
                break;
            }
        }
    }

    /// A page that was given up; from now on it is queued no more.
    pub fn take<M: Machine>(&mut self, machine: M) -> Option<Pfn> {
        (0..STALE).map_while(|_| self.pop(machine).ok()).find_map(|found| found)
    }

    /// Drops some numbers; `false` when there are none.
    pub fn forget_some<M: Machine>(&mut self, machine: M) -> bool {
        (0..STALE).for_each(|_| _ = self.ring.pop(machine));
        self.old = self.old.min(self.ring.len());
        self.ring.len() != 0
    }
}
