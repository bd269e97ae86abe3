//! The ready threads of a CPU: real-time threads by priority, the others by earliest eligible virtual deadline first.
//!
//! Each thread requests one slice at a time. It is *eligible* once it has received no more than its due, that is, once
//! its run time is not beyond the queue's virtual time. Its *deadline* is the time at which its weight alone would have
//! completed the request. The eligible thread with the earliest deadline runs: EEVDF (Stoica and Abdel-Wahab, "Earliest
//! Eligible Virtual Deadline First", 1995). The virtual time is the average run time of the ready threads, by weight,
//! and jumps to the first request if no thread is eligible, as in WF2Q+ (Bennett and Zhang, 1997). Two trees are
//! enough, and no thread is visited twice: one has the eligible threads, by deadline, the other one the rest, by the
//! time at which they become eligible. The average goes back a little if a thread that is behind arrives; threads that
//! were eligible stay so until they run.
//!
//! (If the virtual time advanced only with the weights, the time that a thread had received beyond its due when it left
//! for good would be owed to the others for ever. They would all be behind, and a thread that wakes would have no
//! earlier deadline than they have.)
//!
//! Two bounds are Quire's own. A thread that slept is at most one slice behind, so it runs before threads that did not
//! sleep, for as long as it needs less than its due; any further time that it did not use is lost. And a running thread
//! is preempted by an earlier deadline only after a part of its slice ([`Preempts::Soon`]).

mod real_time;
mod running;

use core::ptr::NonNull;
use core::sync::atomic::Ordering::Relaxed;

use intrusive_collections::{KeyAdapter, RBTree, RBTreeLink, UnsafeRef, intrusive_adapter};

use super::class::{Policy, Traits};
use super::place::NOWHERE;
use super::share::{Share, Tree, virtually};
use real_time::Choice;
pub use real_time::ROUND;
use running::Running;

/// The initial virtual time: large enough that no thread can be further behind.
const BEGIN: u64 = 1 << 50;

/// How many threads become eligible in one operation; any others do so in the next one.
const MOVED: usize = 8;

intrusive_adapter!(InTree = UnsafeRef<Share>: Share { link => RBTreeLink });

impl<'a> KeyAdapter<'a> for InTree {
    type Key = (u64, i64);
    fn get_key(&self, share: &'a Share) -> (u64, i64) {
        share.key.get()
    }
}

/// Why a thread enters a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enters {
    /// It was asleep, or is new.
    Woken,
    /// It ran here, and could have continued.
    Preempted,
    /// It was ready in another queue.
    Moved,
}

/// Whether a thread that has entered should run instead of the running one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preempts {
    /// It waits.
    No,
    /// When the running thread has run for a part of its slice.
    Soon,
    /// At once.
    Now,
}

/// What becomes of the thread that ran until now.
pub enum Former<'a> {
    /// There was none: the CPU was idle.
    Nothing,
    /// It could go on.
    Ready(&'a Share),
    /// It stays ready, but lets others run first.
    Yields(&'a Share),
    /// It sleeps, ends, or may not run here.
    Leaves(&'a Share),
}

impl Default for Queue {
    fn default() -> Self {
        Self::new()
    }
}

/// See the module.
pub struct Queue {
    number: u32,
    urgent: RBTree<InTree>,
    eligible: RBTree<InTree>,
    later: RBTree<InTree>,
    /// The only waiting thread that shares by weight, while there is only one: two threads that wake each other need no
    /// tree.
    only: Option<UnsafeRef<Share>>,
    /// The virtual time.
    virtual_now: u64,
    /// The sum over `eligible` and `later` of how far each thread is behind, times its weight.
    behind: i64,
    /// The time up to which it was advanced.
    advanced_to: u64,
    /// The weights of the threads in `eligible` and `later`, and of all threads.
    weight: u64,
    load: u64,
    running: Running,
    /// The thread whose request the last pick has renewed: it is not renewed again when it enters. Never dereferenced.
    renewed: *const Share,
    /// For the order among equals: the last and the first number in use.
    last: i64,
    first: i64,
    /// When the period began, and the time that real-time threads have run in it.
    period: u64,
    real_time: u64,
}

// SAFETY: the links are only touched by whoever has exclusive access to the queue.
unsafe impl Send for Queue {}

impl Queue {
    /// An empty queue without a number.
    pub const fn new() -> Self {
        Self {
            number: NOWHERE - 1,
            urgent: RBTree::new(InTree::NEW),
            eligible: RBTree::new(InTree::NEW),
            later: RBTree::new(InTree::NEW),
            only: None,
            virtual_now: BEGIN,
            behind: 0,
            advanced_to: 0,
            weight: 0,
            load: 0,
            running: Running::NOTHING,
            renewed: core::ptr::null(),
            last: 0,
            first: 0,
            period: 0,
            real_time: 0,
        }
    }

    /// Sets the queue's number, before threads enter. Each queue has a different one.
    pub fn set_number(&mut self, number: u32) {
        self.number = number;
    }

    /// The total weight of the ready threads and of the running one.
    #[inline]
    pub fn load(&self) -> u64 {
        self.load + u64::from(self.running.traits.weight())
    }

    /// The rank of the running thread: 0 if there is none, then threads that share by weight, then real-time
    /// priorities.
    #[inline]
    pub fn rank(&self) -> u32 {
        if self.running.traits == Traits::NONE { 0 } else { 1 + self.running.traits.rank() }
    }

    /// Advances the virtual time to `now` (nanoseconds); the present thread ran meanwhile.
    #[inline]
    pub fn advance(&mut self, now: u64) {
        let passed = now.saturating_sub(self.advanced_to);
        self.advanced_to += passed;
        let running = self.running;
        if running.traits.rank() != 0 {
            self.advance_real_time(passed);
        } else {
            self.center(running.traits.weight(), running.run_at(self.advanced_to));
        }
    }

    /// Sets the virtual time to the average run time of the ready threads, by weight: then some are as far behind as
    /// others are ahead. These are the waiting threads, and one that has run for `run`.
    #[inline]
    fn center(&mut self, weight: u32, run: u64) {
        if self.weight == 0 {
            if weight != 0 {
                self.virtual_now = run;
            }
            return;
        }
        // (Each thread is behind or ahead by a few of its requests at most, and the product for one request is a slice:
        // far from overflowing.)
        let ahead = i64::from(weight).wrapping_mul(run.wrapping_sub(self.virtual_now) as i64);
        let all = self.weight + u64::from(weight);
        let by = ahead.wrapping_sub(self.behind) / all as i64;
        self.move_by(by);
    }

    #[inline]
    fn move_by(&mut self, by: i64) {
        self.virtual_now = self.virtual_now.wrapping_add_signed(by);
        self.behind = self.behind.wrapping_add(by.wrapping_mul(self.weight as i64));
    }

    /// If no thread is eligible, advances the virtual time to the first one that will be.
    #[inline]
    fn jump_to(&mut self, run: u64) {
        if run > self.virtual_now {
            self.move_by((run - self.virtual_now) as i64);
        }
    }

    /// By how much a waiting thread is behind, times its weight: added to the sum when it enters, and subtracted when
    /// it leaves.
    #[inline]
    fn weigh(&self, share: &Share, weight: u32) -> i64 {
        let behind = self.virtual_now.wrapping_sub(share.run.load(Relaxed)) as i64;
        behind.wrapping_mul(i64::from(weight))
    }

    /// Enters a ready thread at `now`. `slice` is in nanoseconds.
    ///
    /// # Safety
    /// The share is in no queue; it neither moves nor ends before it is taken out of this queue.
    #[inline]
    pub unsafe fn enter(&mut self, share: NonNull<Share>, how: Enters, slice: u64, now: u64) -> Preempts {
        if how != Enters::Preempted {
            // (The thread that ran here has just been replaced.)
            self.advance(now);
        }
        // SAFETY: as the caller says.
        let (entry, share) = unsafe { (UnsafeRef::from_raw(share.as_ptr()), share.as_ref()) };
        let traits = Traits::from_word(share.place.enter(self.number));
        let weight = traits.weight();
        let is_first = self.load == 0;
        share.entered.set(weight);
        self.load += u64::from(weight);
        if traits.rank() != 0 {
            self.plant_only();
            self.line_up(share, traits.rank(), how);
            self.urgent.insert(entry);
        } else {
            self.set_due(share, weight, how, slice);
            self.weight += u64::from(weight);
            self.behind = self.behind.wrapping_add(self.weigh(share, weight));
            if is_first {
                self.only = Some(entry);
            } else {
                self.plant_only();
                self.plant(entry);
            }
        }
        share.home.store(self.number, Relaxed);
        if how == Enters::Moved {
            share.note_move(now);
        }
        if how == Enters::Woken { self.preempts(share, slice) } else { Preempts::No }
    }

    #[inline]
    fn tree(&mut self, tree: Tree) -> &mut RBTree<InTree> {
        match tree {
            Tree::Urgent => &mut self.urgent,
            Tree::Eligible => &mut self.eligible,
            Tree::Later => &mut self.later,
        }
    }

    /// Places a thread that shares by weight.
    #[inline]
    fn set_due(&mut self, share: &Share, weight: u32, how: Enters, slice: u64) {
        let request = virtually(share.slice(slice), weight);
        if how == Enters::Preempted {
            if core::mem::replace(&mut self.renewed, core::ptr::null()) != core::ptr::from_ref(share) {
                self.renew_near(share, request);
            }
            return;
        }
        let (least, most) = (self.virtual_now.saturating_sub(request), self.virtual_now + 2 * request);
        let run = if share.home.load(Relaxed) == self.number {
            share.run.load(Relaxed)
        } else {
            self.virtual_now.saturating_add_signed(share.lag.load(Relaxed).saturating_neg())
        };
        let run = run.clamp(least, most);
        share.run.store(run, Relaxed);
        share.deadline.store(run + request, Relaxed);
    }

    /// Renews the request of a running thread, which is normally near its due. It may be far from it if it started
    /// without this queue (it was handed the turn of a caller after a long sleep), or had a real-time policy meanwhile:
    /// then its earlier run time is meaningless.
    #[inline]
    fn renew_near(&self, share: &Share, request: u64) {
        let run = share.run.load(Relaxed);
        let (least, most) = (self.virtual_now.saturating_sub(4 * request), self.virtual_now + 2 * request);
        if run < least || run > most {
            let run = run.clamp(least, most);
            share.run.store(run, Relaxed);
            share.deadline.store(run + request, Relaxed);
        } else {
            renew(share, request);
        }
    }

    /// Puts a thread that shares by weight into its tree.
    #[inline]
    fn plant(&mut self, entry: UnsafeRef<Share>) {
        self.last += 1;
        let run = entry.run.load(Relaxed);
        if run <= self.virtual_now {
            entry.tree.set(Tree::Eligible);
            entry.key.set((entry.deadline.load(Relaxed), self.last));
            self.eligible.insert(entry);
        } else {
            entry.tree.set(Tree::Later);
            entry.key.set((run, self.last));
            self.later.insert(entry);
        }
    }

    /// Moves the only thread into a tree: there are others, or it is searched for.
    #[cold]
    fn plant_only(&mut self) {
        if let Some(only) = self.only.take() {
            self.plant(only);
        }
    }

    #[inline]
    fn preempts(&self, share: &Share, slice: u64) -> Preempts {
        let (own, running) = (share.traits(), self.running);
        if own.rank() != running.traits.rank() || running.traits == Traits::NONE {
            let goes = own.rank() > running.traits.rank() || running.traits == Traits::NONE;
            return if goes { Preempts::Now } else { Preempts::No };
        }
        let is_earlier = share.run.load(Relaxed) <= self.virtual_now
            && share.deadline.load(Relaxed) < running.deadline_at(self.advanced_to, slice);
        if own.are_usual(running.traits) {
            return if is_earlier { Preempts::Soon } else { Preempts::No };
        }
        match (own.policy(), running.traits.policy()) {
            (Policy::Other | Policy::Batch, Policy::Idle) => Preempts::Now,
            (Policy::Other, Policy::Batch) if is_earlier => Preempts::Soon,
            _ => Preempts::No,
        }
    }

    /// Takes out the thread to run next; `None` if the present one continues, or there is none. The former one has been
    /// [charged](Share::charge) until `now`. This function does not enter it again.
    #[inline]
    pub fn pick(&mut self, former: &Former<'_>, slice: u64, now: u64) -> Option<NonNull<Share>> {
        self.advance(now);
        // (By its current rank: whoever changes the rank meanwhile has the thread looked at again.)
        let mut is_urgent = false;
        let mut renewed: *const Share = core::ptr::null();
        let (stays, yields) = match former {
            Former::Ready(share) | Former::Yields(share) => {
                let traits = share.traits();
                is_urgent = traits.rank() != 0;
                if !is_urgent {
                    self.renew_near(share, virtually(share.slice(slice), traits.weight()));
                    renewed = *share;
                }
                // A real-time thread that yields lets threads of equal priority run first, but none of lower priority.
                let gives_way = matches!(former, Former::Yields(_)) && !is_urgent;
                if gives_way { (None, Some(share.run.load(Relaxed))) } else { (Some(*share), None) }
            }
            Former::Leaves(share) => {
                self.note_lag(share);
                (None, None)
            }
            Former::Nothing => (None, None),
        };
        let has_real_time = is_urgent || !self.urgent.is_empty();
        let choice = if has_real_time { self.choose_urgent(stays, is_urgent) } else { Choice::ByWeight };
        let next = match choice {
            Choice::ByWeight => {
                let stays = if is_urgent { None } else { stays };
                if self.only.is_some() { self.choose_only(stays, yields) } else { self.choose(stays, yields) }
            }
            Choice::Stays => None,
            Choice::Urgent => self.take_first(Tree::Urgent),
        };
        self.renewed = if next.is_some() { renewed } else { core::ptr::null() };
        self.running = match (next, former) {
            // SAFETY: it was in a tree, whose entries are alive.
            (Some(next), _) => Running::new(unsafe { next.as_ref() }, now, self.virtual_now),
            (None, Former::Ready(share) | Former::Yields(share)) => Running::new(share, now, self.virtual_now),
            _ => Running::NOTHING,
        };
        next
    }

    /// Chooses the next thread of those that share by weight, unless the present one stays. A thread that yields has
    /// run for `yields`.
    #[inline]
    fn choose(&mut self, stays: Option<&Share>, yields: Option<u64>) -> Option<NonNull<Share>> {
        self.ripen();
        let run = stays.map(|share| share.run.load(Relaxed));
        let is_eligible = run.is_some_and(|run| run <= self.virtual_now);
        if let Some(first) = self.eligible.front().get() {
            let is_later = stays.is_none_or(|share| first.key.get().0 < share.deadline.load(Relaxed));
            return if is_eligible && !is_later { None } else { self.take_first(Tree::Eligible) };
        }
        if is_eligible {
            return None;
        }
        // None is eligible: the virtual time jumps to the first one that will be.
        let first = self.later.front().get().map(|first| first.key.get().0);
        let nearest = [first, run, yields].into_iter().flatten().min();
        self.jump_to(nearest.unwrap_or(0));
        if first.is_some_and(|first| run.is_none_or(|run| first < run)) { self.take_first(Tree::Later) } else { None }
    }

    /// The same, if only one thread waits.
    #[inline]
    fn choose_only(&mut self, stays: Option<&Share>, yields: Option<u64>) -> Option<NonNull<Share>> {
        let only = self.only.as_deref()?;
        let (run, deadline) = (only.run.load(Relaxed), only.deadline.load(Relaxed));
        let is_next = match stays {
            None => {
                if run > self.virtual_now {
                    self.jump_to(run.min(yields.unwrap_or(run)));
                }
                true
            }
            Some(share) => {
                let other = share.run.load(Relaxed);
                // If none is eligible, the virtual time jumps to the first one that will be.
                self.jump_to(run.min(other));
                match (run <= self.virtual_now, other <= self.virtual_now) {
                    (true, true) => deadline < share.deadline.load(Relaxed),
                    (is_eligible, _) => is_eligible,
                }
            }
        };
        if !is_next {
            return None;
        }
        let entry = self.only.take()?;
        entry.tree.set(Tree::Later);
        Some(self.taken(entry))
    }

    /// Moves threads that have become eligible: a few at a time, since there may be any number of them.
    #[inline]
    fn ripen(&mut self) {
        for _ in 0..MOVED {
            let mut first = self.later.front_mut();
            if first.get().is_none_or(|share| share.key.get().0 > self.virtual_now) {
                return;
            }
            let Some(entry) = first.remove() else { return };
            entry.tree.set(Tree::Eligible);
            entry.key.set((entry.deadline.load(Relaxed), entry.key.get().1));
            self.eligible.insert(entry);
        }
    }

    #[inline]
    fn take_first(&mut self, tree: Tree) -> Option<NonNull<Share>> {
        let entry = self.tree(tree).front_mut().remove()?;
        Some(self.taken(entry))
    }

    #[inline]
    fn taken(&mut self, entry: UnsafeRef<Share>) -> NonNull<Share> {
        entry.place.leave();
        let weight = u64::from(entry.entered.get());
        self.load -= weight;
        if entry.tree.get() != Tree::Urgent {
            self.weight -= weight;
            self.behind = self.behind.wrapping_sub(self.weigh(&entry, weight as u32));
        }
        pointer(entry)
    }

    #[inline]
    fn note_lag(&self, share: &Share) {
        let lag = self.virtual_now.wrapping_sub(share.run.load(Relaxed)) as i64;
        share.lag.store(lag, Relaxed);
    }

    /// Whether a share is in this queue. (The word that says so is only written under the lock of the queue concerned:
    /// so the answer is valid for as long as this queue's lock is held.)
    pub fn has(&self, share: &Share) -> bool {
        share.place.is_in(self.number)
    }

    /// Places a thread of this queue anew after a change of its class.
    pub fn reenter(&mut self, share: &Share, slice: u64, now: u64) -> Preempts {
        debug_assert!(self.has(share));
        self.plant_only();
        let tree = share.tree.get();
        // SAFETY: it is in this tree.
        let Some(entry) = (unsafe { self.tree(tree).cursor_mut_from_ptr(share).remove() }) else { return Preempts::No };
        let entry = self.taken(entry);
        // SAFETY: it was just taken out, and stays alive.
        unsafe { self.enter(entry, Enters::Woken, slice, now) }
    }

    /// Takes out the first thread for which `may` allows a move to another queue, of at most `most` that are examined.
    pub fn take_for_another(&mut self, most: usize, may: impl Fn(NonNull<Share>) -> bool) -> Option<NonNull<Share>> {
        self.plant_only();
        let mut left = most;
        for tree in [Tree::Eligible, Tree::Later, Tree::Urgent] {
            let mut at = self.tree(tree).front_mut();
            while let Some(share) = at.as_cursor().clone_pointer().map(pointer) {
                if left == 0 {
                    return None;
                }
                left -= 1;
                if may(share) {
                    let entry = at.remove()?;
                    self.note_lag(&entry);
                    return Some(self.taken(entry));
                }
                at.move_next();
            }
        }
        None
    }

    #[cfg(test)]
    pub(crate) fn is_due(&self, share: &Share) -> bool {
        share.run.load(Relaxed) <= self.virtual_now
    }

    /// One of the threads that would run soon.
    pub fn front(&self) -> Option<NonNull<Share>> {
        if let Some(only) = &self.only {
            return Some(pointer(only.clone()));
        }
        [&self.urgent, &self.eligible, &self.later]
            .into_iter()
            .find_map(|tree| tree.front().clone_pointer())
            .map(pointer)
    }
}

/// The pointer with which a share was entered.
#[inline]
fn pointer(entry: UnsafeRef<Share>) -> NonNull<Share> {
    // SAFETY: an `UnsafeRef` is made from a pointer that is not null.
    unsafe { NonNull::new_unchecked(UnsafeRef::into_raw(entry)) }
}

/// Replaces a request that was served, or nearly, by the next one: ticks come at intervals of a slice, and a tick
/// shortly before the end of a request must not let the thread run until the next tick.
#[inline]
fn renew(share: &Share, request: u64) {
    let (run, deadline) = (share.run.load(Relaxed), share.deadline.load(Relaxed));
    if run + request / 8 >= deadline {
        share.deadline.store(run.max(deadline) + request, Relaxed);
    }
}
