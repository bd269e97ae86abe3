//! Which page goes: *LIRS by access flags*, as the laboratory has it (`user/lab/src/pressure/lirs_flags.rs`, with sources), for
//! the pages of one control group on one node.
//!
//! A page's record says which list it is on; what it says counts. New pages are on none: faults do nothing for reclaim. A
//! *hand* passes over the records and finds them, and the hot pages of the oldest generation. Only the cold pages have an
//! order, that of two queues; what is queued are frame numbers, and a frame that was freed or taken meanwhile is skipped.
//!
//! All of this is under the node's lock (`Rank::Reclaim`), for at most [`STRIDE`] records at a time, and the queues
//! get their frames under it. Looking at a page may sleep, and is done without it.

use super::Whose;
use super::passed::Passed;
use super::ring::Ring;
use crate::addr::Pfn;
use crate::buddy::PAGEBLOCK_PAGES;
use crate::fallible::AllocError;
use crate::frame;
use crate::page::PageState;
use crate::rmap::Machine;
use crate::rmap::whole;

/// Not seen by the hand yet.
pub(super) const NEW: u8 = 0;
/// Cold, and its access flag says nothing yet.
pub(super) const FRESH: u8 = 1;
/// Cold, and its access flag was cleared.
pub(super) const WATCHED: u8 = 2;
/// Cannot leave: it is incompressible. Looked at again after [`KEPT_FOR`] rounds of the hand.
pub(super) const KEPT: u8 = 3;
/// Given up by its program.
pub(super) use crate::page::GIVEN_UP;
/// Cannot leave: a locked area maps it. It counts as no page, and is looked at again when an area was unlocked, or after
/// [`LOCKED_FOR`] rounds of the hand: a page may stay with another program than that which has locked it.
pub(super) const LOCKED: u8 = 7;
/// The first of the lists of hot pages, one for each generation.
const HOT: u8 = 8;

/// The most generations at a time.
pub const GENERATIONS: usize = 8;

const KEPT_FOR: usize = 16;
const LOCKED_FOR: usize = 256;

/// Records that the hand passes under one hold of the lock.
pub(super) const STRIDE: usize = 64;

/// Hot pages, or pages that have come back, that the hand remembers.
const REMEMBERED: usize = 256;

/// By how much a page that passes the test makes the queue longer.
const LONGER: usize = 8;

/// See [`Policy::step`]: no page of a node of 2^32 is lost.
const CLOCK_SHIFT: u32 = 32;

/// What a node's lists of the root, or of a control group, have. Counts of hot pages and of all are those of the last round of the hand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Cold pages whose access flag says nothing yet.
    pub fresh: usize,
    /// Cold pages whose access flag was cleared.
    pub watched: usize,
    /// Hot pages.
    pub hot: usize,
    /// Pages of programs.
    pub pages: usize,
    /// Those of them that cannot leave, because they are locked.
    pub locked: usize,
    /// Times that the hand came around.
    pub rounds: usize,
    /// How many generations of hot pages there are.
    pub generations: usize,
    /// Hot pages of each, the oldest one first.
    pub hot_by_age: [usize; GENERATIONS],
    /// When they began: how many eighths of the pages have left since.
    pub begun: [u64; GENERATIONS],
}

/// What one round of the hand counts.
struct Round {
    number: usize,
    pages: usize,
    locked: usize,
    /// How often areas had been unlocked as it began.
    unlocks: usize,
    /// It looks at locked pages again.
    takes_locked: bool,
    hot: usize,
    /// The age of the oldest hot page: how many generations are older. At most that of the generation which was the youngest one as the
    /// round began: pages that become hot behind the hand are not older than that.
    oldest: usize,
    /// Hot pages on each of their lists.
    on_list: [usize; GENERATIONS],
}

impl Round {
    const FIRST: Round = Round {
        number: 0,
        pages: 0,
        locked: 0,
        unlocks: 0,
        takes_locked: false,
        hot: 0,
        oldest: 0,
        on_list: [0; GENERATIONS],
    };
}

/// See the module.
pub(super) struct Policy {
    hand: usize,
    /// The hand has met a page in this block that is known to be there by the bit of the group.
    has_met: bool,
    round: Round,
    /// Pages of programs that are not locked, hot ones among them, and locked ones, as the last round has found; hot ones are
    /// counted on since.
    pages: usize,
    hot: usize,
    locked: usize,
    fresh: Ring,
    watched: Ring,
    /// Hot pages of the oldest generation.
    oldest: Ring,
    /// Pages that have come back, and are to be tested.
    returned: Ring,
    /// Pages of groups that were removed, which are this one's now.
    strangers: Ring,
    /// Pages that were given up.
    given_up: Passed,
    /// The wanted number of cold pages.
    cold: usize,
    /// What was allocated to programs, and how often areas had been unlocked, before a round that has met no page of theirs
    /// that could leave.
    pub barren: Option<(u64, usize)>,
    /// The time, in steps of 2^-[`CLOCK_SHIFT`]; 0 before a page has left.
    clock: u64,
    /// When each generation began, in the order of their age.
    begun: [u64; GENERATIONS],
    /// The list of the oldest one, and how many there are.
    first: usize,
    generations: usize,
    /// Hot pages on each list, as the last round has found.
    on_list: [usize; GENERATIONS],
}

impl Policy {
    /// Without places for pages.
    const NONE: Policy = Policy {
        hand: 0,
        has_met: false,
        round: Round::FIRST,
        pages: 0,
        hot: 0,
        locked: 0,
        fresh: Ring::NONE,
        watched: Ring::NONE,
        oldest: Ring::NONE,
        returned: Ring::NONE,
        strangers: Ring::NONE,
        given_up: Passed::NONE,
        cold: 0,
        barren: None,
        clock: 0,
        begun: [0; GENERATIONS],
        first: 0,
        generations: 1,
        on_list: [0; GENERATIONS],
    };

    /// For a node of so many pages.
    pub fn new(pages: usize) -> Result<Self, AllocError> {
        Ok(Policy {
            fresh: Ring::new(pages / 4 + STRIDE)?,
            watched: Ring::new(pages / 4 + STRIDE)?,
            oldest: Ring::new(REMEMBERED)?,
            returned: Ring::new(REMEMBERED)?,
            strangers: Ring::new(REMEMBERED)?,
            given_up: Passed::new(pages + STRIDE)?,
            ..Self::NONE
        })
    }

    /// Whether a round has counted the pages.
    pub fn is_ready(&self) -> bool {
        self.round.number != 0
    }

    /// Times that the hand has come around.
    pub fn round(&self) -> usize {
        self.round.number
    }

    /// Whether there are pages to be tested that have come back.
    pub fn has_returned(&self) -> bool {
        self.returned.len() != 0
    }

    /// Whether there is a page to try, or one to look at that may become cold. (It may have been freed.)
    pub fn knows_any(&self) -> bool {
        self.cold_pages() != 0 || self.oldest.len() != 0
    }

    /// Whether there are fewer cold pages than wanted because more than all others are hot. (That a batch has left and nothing came yet is no
    /// reason: hot pages would change places with whatever comes.)
    pub fn wants_cold(&self) -> bool {
        let has_too_many_hot = self.hot + self.cold > self.pages;
        self.cold_pages() < self.cold && has_too_many_hot || self.cold_pages() == 0
    }

    /// Frames in the queue, some of which may have been freed.
    pub fn cold_pages(&self) -> usize {
        self.fresh.len() + self.watched.len()
    }

    /// Cold pages, hot ones, all that are not locked.
    pub fn counts(&self) -> (usize, usize, usize) {
        (self.cold_pages(), self.hot, self.pages)
    }

    /// All that is known, for the statistics.
    pub fn view(&self) -> View {
        let place = |age: usize| (self.first + age) % GENERATIONS;
        View {
            fresh: self.fresh.len(),
            watched: self.watched.len(),
            hot: self.hot,
            pages: self.pages + self.locked,
            locked: self.locked,
            rounds: self.round.number,
            generations: self.generations,
            hot_by_age: core::array::from_fn(|age| if age < self.generations { self.on_list[place(age)] } else { 0 }),
            begun: core::array::from_fn(|age| {
                if age < self.generations { self.now().saturating_sub(self.begun[place(age)]) } else { 0 }
            }),
        }
    }

    /// Frames that the queues have.
    pub fn frames(&self) -> usize {
        let rings = [&self.fresh, &self.watched, &self.oldest, &self.returned, &self.strangers];
        rings.map(Ring::frames).iter().sum::<usize>() + self.given_up.frames()
    }

    fn rings(&mut self) -> [&mut Ring; 5] {
        [&mut self.fresh, &mut self.watched, &mut self.oldest, &mut self.returned, &mut self.strangers]
    }

    /// Frames for the queues are tried for again.
    pub fn try_again(&mut self) {
        self.rings().into_iter().for_each(Ring::try_again);
        self.given_up.try_again();
    }

    /// Empties the queues, some of them at a time; `false` when all are empty.
    pub fn forget_some<M: Machine>(&mut self, machine: M) -> bool {
        if self.given_up.forget_some(machine) {
            return true;
        }
        let Some(ring) = self.rings().into_iter().find(|ring| ring.len() != 0) else { return false };
        ring.pop_if(machine, |_| false);
        true
    }

    /// What the clock advances by when a page leaves: an eighth of all pages are a unit. (A control group has many pages now and
    /// few then; the clock only goes on.)
    fn step(&self) -> u64 {
        (1 << CLOCK_SHIFT) / (self.pages as u64 / 8).max(1)
    }

    fn now(&self) -> u64 {
        self.clock >> CLOCK_SHIFT
    }

    /// What the entries of a page that leaves now remember: when it had come.
    pub fn shadow(&self) -> u16 {
        let come = self.clock.saturating_sub(self.cold_pages() as u64 * self.step());
        (come >> CLOCK_SHIFT).max(1) as u16
    }

    /// The time that a shadow stands for.
    pub fn time_of(&self, shadow: u16) -> u64 {
        let now = self.now();
        now.saturating_sub((now as u16).wrapping_sub(shadow).into())
    }

    /// A page has left.
    pub fn note_left(&mut self) {
        self.clock = self.clock.max(1 << CLOCK_SHIFT) + self.step();
    }

    /// The list of the oldest generation.
    fn oldest_list(&self) -> u8 {
        HOT + self.first as u8
    }

    /// The list of a page that was just seen used.
    fn youngest_list(&mut self) -> u8 {
        let now = self.now();
        let last = (self.first + self.generations - 1) % GENERATIONS;
        if self.generations < GENERATIONS && self.begun[last] < now {
            self.generations += 1;
            let next = (last + 1) % GENERATIONS;
            self.begun[next] = now;
            return HOT + next as u8;
        }
        HOT + last as u8
    }

    /// Makes a page on list `from` hot, that was just seen used.
    pub fn heat<M: Machine>(&mut self, machine: M, pfn: Pfn, from: u8) {
        let list = self.youngest_list();
        if frame::page(machine, pfn).change_list(from, list) {
            self.hot += 1;
            // With one generation, that is the oldest too.
            if list == self.oldest_list() {
                self.oldest.push(machine, pfn);
            }
        }
    }

    /// Makes a page on list `from` cold. Without a place it is found again later.
    pub fn cool<M: Machine>(&mut self, machine: M, pfn: Pfn, from: u8, to: u8) {
        let ring = if to == FRESH { &mut self.fresh } else { &mut self.watched };
        let page = frame::page(machine, pfn);
        if page.change_list(from, to) && !ring.push(machine, pfn) {
            page.change_list(to, NEW);
        }
    }

    /// A hot page whose generation began before `used`, and that is in the oldest one. Its list comes with it.
    pub fn take_oldest<M: Machine>(&mut self, machine: M, used: u64) -> Oldest {
        if self.begun[self.first] >= used {
            return Oldest::NotOlder;
        }
        let list = self.oldest_list();
        while let Some(pfn) = self.oldest.pop(machine) {
            if frame::page(machine, pfn).list() == list {
                self.hot = self.hot.saturating_sub(1);
                return Oldest::Page(pfn, list);
            }
        }
        Oldest::Unknown
    }

    /// A fresh page to be watched, if the queue's second half is the shorter one.
    pub fn take_fresh<M: Machine>(&mut self, machine: M) -> Option<Pfn> {
        let is_fresh = |pfn| frame::page(machine, pfn).list() == FRESH;
        if self.watched.len() < self.fresh.len() { self.fresh.pop_if(machine, is_fresh) } else { None }
    }

    /// The page that was watched for longest.
    pub fn take_watched<M: Machine>(&mut self, machine: M) -> Option<Pfn> {
        self.watched.pop_if(machine, |pfn| frame::page(machine, pfn).list() == WATCHED)
    }

    /// A page that has come back.
    pub fn take_returned<M: Machine>(&mut self, machine: M) -> Option<Pfn> {
        self.returned.pop(machine)
    }

    /// A page whose group was removed.
    pub fn take_stranger<M: Machine>(&mut self, machine: M) -> Option<Pfn> {
        self.strangers.pop(machine)
    }

    /// Queues a page that was given up, if it still is.
    #[inline]
    pub fn queue_given_up<M: Machine>(&mut self, machine: M, pfn: Pfn) {
        self.given_up.add(machine, pfn);
    }

    /// A page that was given up; from now on it is queued no more.
    pub fn take_given_up<M: Machine>(&mut self, machine: M) -> Option<Pfn> {
        self.given_up.take(machine)
    }

    /// Makes the queue longer or shorter after the test of a page that has come back.
    pub fn adapt(&mut self, has_passed: bool) {
        self.want_cold(if has_passed { self.cold + LONGER } else { self.cold.saturating_sub(1) });
    }

    /// Wants so many cold pages, a sixteenth of all at least and a quarter at most.
    fn want_cold(&mut self, cold: usize) {
        self.cold = cold.clamp((self.pages / 16).max(1), (self.pages / 4).max(1));
    }

    /// The hand passes some records, at most [`STRIDE`], of those of the node; those of other groups are skipped.
    /// Until now, areas have been unlocked so many times.
    pub fn sweep<M: Machine>(&mut self, machine: M, node: usize, whose: Whose, unlocks: usize) {
        self.try_again();
        if self.hand >= machine.pages().pageblocks().len() * PAGEBLOCK_PAGES {
            self.end_round(unlocks);
        }
        let blocks = machine.pages().pageblocks();
        for _ in 0..STRIDE {
            let block = blocks.get(Pfn(self.hand)).filter(|_| machine.pages().has(node, Pfn(self.hand)));
            let Some(block) = block else {
                self.hand = (self.hand / PAGEBLOCK_PAGES + 1) * PAGEBLOCK_PAGES;
                return;
            };
            let is_first = self.hand.is_multiple_of(PAGEBLOCK_PAGES);
            if is_first && !whose.everywhere && !block.may_have_group(whose.id) {
                self.hand += PAGEBLOCK_PAGES;
                continue;
            }
            self.has_met &= !is_first;
            for pfn in self.hand..self.hand + STRIDE {
                self.pass(machine, Pfn(pfn), whose.id);
            }
            self.hand += STRIDE;
            if self.hand.is_multiple_of(PAGEBLOCK_PAGES) && !self.has_met && whose.id != 0 {
                block.forget_group(whose.id);
            }
            return;
        }
    }

    fn pass<M: Machine>(&mut self, machine: M, pfn: Pfn, group: u16) {
        let page = frame::page(machine, pfn);
        // From now on its pages are found one by one.
        if pfn.0.is_multiple_of(PAGEBLOCK_PAGES) && page.state() == PageState::Whole {
            if machine.groups().effective(page.control_group()) == group {
                whole::take_apart(machine, pfn);
            } else {
                let id = page.control_group();
                self.has_met |= id != 0 && id % 64 == group % 64;
            }
        }
        let Some((list, has_returned)) = page.seen_by_reclaim() else { return };
        let id = page.control_group();
        self.has_met |= id != 0 && id % 64 == group % 64;
        if id != group {
            if machine.groups().effective(id) == group {
                self.strangers.push(machine, pfn);
            }
            return;
        }
        if list == LOCKED && !(self.round.takes_locked && page.change_list(LOCKED, NEW)) {
            self.round.locked += 1;
            return;
        }
        self.round.pages += 1;
        match list {
            _ if !self.is_ready() => {}
            NEW if has_returned => _ = self.returned.push(machine, pfn),
            NEW if self.hot + self.cold < self.pages => {
                self.heat(machine, pfn, NEW);
                self.round.hot += 1;
                self.round.on_list[(self.first + self.generations - 1) % GENERATIONS] += 1;
            }
            NEW => self.cool(machine, pfn, NEW, FRESH),
            KEPT if self.round.number.is_multiple_of(KEPT_FOR) => _ = page.change_list(KEPT, NEW),
            HOT.. => {
                self.round.hot += 1;
                self.round.on_list[usize::from(list - HOT) % GENERATIONS] += 1;
                let age = (usize::from(list - HOT) + GENERATIONS - self.first) % GENERATIONS;
                debug_assert!(age < self.generations, "a page of no generation is never the oldest");
                self.round.oldest = self.round.oldest.min(age);
                if age == 0 {
                    self.oldest.push(machine, pfn);
                }
            }
            _ => {}
        }
    }

    fn end_round(&mut self, unlocks: usize) {
        let Round { number, pages, locked, unlocks: before, hot, oldest, on_list, .. } = self.round;
        self.hand = 0;
        self.pages = pages;
        self.locked = locked;
        self.hot = hot;
        self.on_list = on_list;
        self.want_cold(self.cold);
        if self.oldest.len() == 0 {
            self.first = (self.first + oldest) % GENERATIONS;
            self.generations -= oldest;
        }
        let takes_locked = unlocks != before || number.is_multiple_of(LOCKED_FOR);
        self.round = Round { number: number + 1, unlocks, takes_locked, oldest: self.generations - 1, ..Round::FIRST };
    }
}

/// What is known of the oldest hot page.
pub(super) enum Oldest {
    /// It is not older than asked.
    NotOlder,
    /// The hand has to find it.
    Unknown,
    /// It, and its list.
    Page(Pfn, u8),
}
