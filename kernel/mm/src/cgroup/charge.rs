//! Charging and uncharging.

use super::group::{Event, Group, Kernel, Limit, Stat};
use super::stock::BATCH;
use super::{Groups, Machine};
use crate::event;
use crate::fallible::AllocError;
use crate::page::PageFlags;
use crate::psi::Stall;

/// The number of rounds of reclaim without a freed page after which a group is out of memory.
const FRUITLESS_ROUNDS: u32 = 3;

/// This many rounds count as one if other threads reclaimed from the group at the same time: those have the pages that
/// this thread has not found, unless they find none either.
const SHARED_ROUNDS: u32 = 4;

/// The number of pages that a round of reclaim should free, and the maximum for which a charge above `high` makes room.
const TARGET: usize = 32;

impl<M: Machine> Groups<M> {
    /// Charges a page to the calling thread's group without waiting; returns the group's number, 0 for the root.
    #[inline(always)]
    pub(crate) fn charge_now(&self) -> Result<u16, AllocError> {
        let id = self.machine.group();
        if id == 0 || self.stocks[self.machine.cpu()].take(id) {
            return Ok(id);
        }
        self.charge_slowly(id)
    }

    #[cold]
    fn charge_slowly(&self, id: u16) -> Result<u16, AllocError> {
        // (The process may be moved at this moment, and the group removed.)
        let Some(group) = self.get(id) else { return Ok(0) };
        let may = |group: &Group<M>| group.limit(Limit::Max);
        let stock = &self.stocks[self.machine.cpu()];
        self.end_stock(stock.empty());
        if group.upwards().any(|group| group.usage() + BATCH > group.limit(Limit::High)) {
            self.machine.is_above_high();
        }
        // (A charge that does not fit is not tried: it would take room from others for a moment.)
        let fits = group.upwards().all(|group| group.usage() + BATCH <= may(group));
        if fits && group.try_charge(BATCH, may).is_ok() {
            if !stock.fill(id, BATCH - 1) {
                group.uncharge(BATCH - 1);
            }
            return Ok(id);
        }
        group.try_charge(1, may).map(|()| id).map_err(|_| AllocError)
    }

    /// Charges up to this many pages that are not needed at once, from the pages that were charged in advance; returns
    /// the group's number, and how many. For the root there is no limit.
    #[inline(always)]
    pub(crate) fn charge_ahead(&self, pages: usize) -> (u16, usize) {
        match self.machine.group() {
            0 => (0, pages),
            id => (id, self.stocks[self.machine.cpu()].take_some(id, pages)),
        }
    }

    /// Charges a block of pages to the calling thread's group without waiting; returns the group's number, 0 for the
    /// root. A failure is not reported as an event, since a smaller block will do.
    pub(crate) fn charge_block(&self, pages: usize) -> Result<u16, AllocError> {
        let id = self.machine.group();
        if id == 0 {
            return Ok(0);
        }
        let Some(group) = self.get(id) else { return Ok(0) };
        let may = |group: &Group<M>| group.limit(Limit::Max).min(group.limit(Limit::High));
        let fits = group.upwards().all(|group| group.usage() + pages <= may(group));
        if fits && group.try_charge(pages, may).is_ok() { Ok(id) } else { Err(AllocError) }
    }

    /// As [`Groups::charge_now`], but reclaims pages of a group that is at its limit. On an error the group is out of
    /// memory, which was reported to the thread, or the thread is killed. The caller holds no lock, and may sleep.
    pub(crate) fn charge(&self) -> Result<u16, AllocError> {
        match self.charge_now() {
            Ok(id) => Ok(id),
            Err(_) => self.charge_waiting(1),
        }
    }

    /// Charges the kernel's own pages to the calling thread's group, reclaiming if necessary, as [`Groups::charge`];
    /// returns the group's number.
    pub fn charge_kernel(&self, which: Kernel, pages: usize) -> Result<u16, AllocError> {
        if self.machine.group() == 0 {
            return Ok(0);
        }
        let id = self.charge_waiting(pages)?;
        self.count_kernel(id, which, pages as isize);
        Ok(id)
    }

    /// They are freed.
    pub fn uncharge_kernel(&self, id: u16, which: Kernel, pages: usize) {
        if id != 0 {
            self.count_kernel(id, which, -(pages as isize));
            self.uncharge(id, pages);
        }
    }

    /// Counts charged pages as the kernel's own.
    pub(crate) fn count_kernel(&self, id: u16, which: Kernel, by: isize) {
        if let Some(group) = self.at(id) {
            group.count_kernel(which, by);
        }
    }

    #[cold]
    fn charge_waiting(&self, pages: usize) -> Result<u16, AllocError> {
        let machine = self.machine;
        let id = machine.group();
        let Some(group) = self.get(id) else { return Ok(0) };
        let (mut fruitless, mut stall) = (0, None);
        loop {
            let Err(full) = group.try_charge(pages, |group| group.limit(Limit::Max)) else { return Ok(id) };
            if machine.is_killed() || machine.pages().may_use_reserves() {
                // It gives memory back soon.
                let _ = group.try_charge(pages, |_| usize::MAX);
                return Ok(id);
            }
            stall.get_or_insert_with(|| Stall::begin(machine));
            machine.resched_point().map_err(|_| AllocError)?;
            if self.drain_stocks(full) {
                continue;
            }
            full.note(Event::Max);
            let (freed, alone) = self.reclaim(full, full.limit(Limit::Max) / 8);
            fruitless = match (freed, alone) {
                (0, true) => fruitless + SHARED_ROUNDS,
                (0, false) => fruitless + 1,
                _ => 0,
            };
            if fruitless >= FRUITLESS_ROUNDS * SHARED_ROUNDS {
                full.note(Event::Oom);
                machine.pages().group_out_of_memory(full.key().id());
                return Err(AllocError);
            }
        }
    }

    /// Reclaims pages of a group, at most [`TARGET`] and at least one; returns how many, and whether no other thread
    /// did so meanwhile.
    fn reclaim(&self, group: &Group<M>, target: usize) -> (usize, bool) {
        let was_alone = group.add_reclaimer(1) == 0;
        let freed = self.machine.pages().reclaim_group(group.key().id(), target.clamp(1, TARGET));
        let is_alone = group.add_reclaimer(-1) == 1;
        self.machine.count(event::Event::StealDirect, freed);
        (freed, was_alone && is_alone)
    }

    /// Reclaims pages of those groups of the calling thread that are above their `high`, as many as are charged at a
    /// time. The thread is about to return to its program, and holds no lock.
    pub fn make_room_above_high(&self) {
        let Some(group) = self.get(self.machine.group()) else { return };
        let _stall = Stall::begin(self.machine);
        for above in group.upwards() {
            self.drain_stocks(above);
            let over = above.usage().saturating_sub(above.limit(Limit::High));
            if over != 0 {
                above.note(Event::High);
                for _ in 0..BATCH.div_ceil(TARGET) {
                    self.reclaim(above, over);
                }
            }
        }
    }

    /// Reclaims up to `pages` pages of a group, until none can be reclaimed; returns how many. The caller holds no
    /// lock.
    pub fn reclaim_of(&self, group: &Group<M>, pages: usize) -> usize {
        let (mut freed, mut fruitless) = (0, 0);
        while freed < pages && fruitless < FRUITLESS_ROUNDS && self.machine.resched_point().is_ok() {
            let (round, _) = self.reclaim(group, pages - freed);
            fruitless = if round == 0 { fruitless + 1 } else { 0 };
            freed += round;
        }
        self.drain_stocks(group);
        freed
    }

    /// Removes the charge of freed pages from their group.
    #[inline]
    pub(crate) fn uncharge(&self, id: u16, pages: usize) {
        if !self.stocks[self.machine.cpu()].give(id, pages) {
            self.end_stock((id, pages));
        }
    }

    /// Takes pages off the counters.
    fn end_stock(&self, (id, pages): (u16, usize)) {
        if pages != 0
            && let Some(group) = self.at(id)
        {
            group.uncharge(pages);
        }
    }

    /// Removes the charges that CPUs have made in advance to a group and those below it; returns whether there were
    /// any. Its numbers then match the records, unless another thread charges at the moment.
    pub fn drain_stocks(&self, group: &Group<M>) -> bool {
        let _tree = self.tree.lock();
        let mut any = false;
        for stock in &self.stocks {
            // (No group ends under the lock.)
            if self.at(stock.group()).is_some_and(|of| of.is_within(group.key().id())) {
                let (id, pages) = stock.empty();
                self.end_stock((id, pages));
                any |= pages != 0;
            }
        }
        any
    }

    /// Counts a page that has become one of a memory object (1), or is none any more (-1); its charge, if it has one,
    /// begins or is about to end. The page's flags tell its backing.
    #[inline]
    pub(crate) fn count_files(&self, id: u16, flags: PageFlags, by: isize) {
        self.machine.count(if by < 0 { event::Event::ObjectFree } else { event::Event::ObjectAlloc }, 1);
        if let Some(group) = self.at(id) {
            group.count_files(flags, by);
        }
    }

    /// Counts what has happened to pages of a group, one of which the caller holds.
    #[inline]
    pub(crate) fn count_stat(&self, id: u16, stat: Stat, pages: usize) {
        if let Some(group) = self.at(id) {
            group.count_stat(stat, pages);
        }
    }

    /// Charges a page of a removed group to the group that it counts for from now on, 0 for the root. The page's record
    /// already names that group, and the caller has isolated the page.
    /// The flags are those of a page of a memory object.
    pub(crate) fn hand_over(&self, from: u16, to: u16, file: Option<PageFlags>) {
        if let Some(group) = self.at(from) {
            group.hand_over(self.at(to), file);
        }
    }

    /// Charges a slot of swap to the group of the page that is swapped out, which the caller holds; an error if the
    /// group is at its limit.
    pub(crate) fn charge_slot(&self, id: u16) -> Result<(), AllocError> {
        let Some(group) = self.at(id) else { return Ok(()) };
        group.try_charge_slot().map_err(|full| {
            full.note(Event::SwapMax);
            AllocError
        })
    }

    /// A slot is freed.
    pub(crate) fn uncharge_slot(&self, id: u16) {
        if let Some(group) = self.at(id) {
            group.uncharge_slot();
        }
    }

    /// Whether no page of a group can be swapped out because of its limit; counts an event if so.
    pub(crate) fn is_swap_full(&self, id: u16) -> bool {
        let Some(group) = self.get(id) else { return false };
        let full = group.upwards().find(|group| group.numbers().swap >= group.limit(Limit::Swap));
        full.inspect(|full| full.note(Event::SwapMax)).is_some()
    }
}
