//! Real-time threads in a queue: ordered by priority, and in turns within a priority; and the time that is left for
//! other threads.

use core::sync::atomic::Ordering::Relaxed;

use super::{Enters, Queue};
use crate::class::{PRIORITIES, Policy};
use crate::share::{Share, Tree};

/// A turn of [`Policy::RoundRobin`], in nanoseconds, as on Linux.
pub const ROUND: u64 = 100_000_000;

/// In each period (nanoseconds), real-time threads get at most `REAL_TIME` while others wait: Linux's defaults of
/// `sched_rt_period_us` and `sched_rt_runtime_us`. So the user can still end a runaway real-time thread from a shell.
const PERIOD: u64 = 1_000_000_000;
const REAL_TIME: u64 = 950_000_000;

/// Which thread runs first if there are real-time threads.
pub(super) enum Choice {
    /// The one that runs.
    Stays,
    /// The first of the waiting ones.
    Urgent,
    /// None waits, or they have used their part of the period.
    ByWeight,
}

impl Queue {
    #[cold]
    pub(super) fn advance_real_time(&mut self, passed: u64) {
        if self.advanced_to.saturating_sub(self.period) >= PERIOD {
            (self.period, self.real_time) = (self.advanced_to, 0);
        }
        self.real_time += passed;
    }

    /// Places a real-time thread: in front of its equals if it was preempted during its turn.
    #[cold]
    pub(super) fn line_up(&mut self, share: &Share, rank: u32, how: Enters) {
        let among = if how == Enters::Preempted && !is_over(share) {
            self.first -= 1;
            self.first
        } else {
            share.run.store(0, Relaxed);
            self.last += 1;
            self.last
        };
        share.key.set(((*PRIORITIES.end() as u64).saturating_sub(u64::from(rank)), among));
        share.tree.set(Tree::Urgent);
    }

    /// Chooses where there are real-time threads.
    #[cold]
    pub(super) fn choose_urgent(&mut self, stays: Option<&Share>, is_urgent: bool) -> Choice {
        let others = self.weight != 0 || stays.is_some() && !is_urgent;
        if self.advanced_to.saturating_sub(self.period) < PERIOD && self.real_time >= REAL_TIME && others {
            return Choice::ByWeight;
        }
        let first = self.urgent.front().get().map_or(0, Share::rank);
        match stays.filter(|_| is_urgent) {
            Some(share) if first < share.rank() => {
                if is_over(share) {
                    // No other thread could have its turn: it begins another one.
                    share.run.store(0, Relaxed);
                }
                Choice::Stays
            }
            Some(share) if first == share.rank() && !is_over(share) => Choice::Stays,
            _ if first == 0 => Choice::ByWeight,
            _ => Choice::Urgent,
        }
    }
}

/// Whether a real-time thread has yielded or finished its turn.
fn is_over(share: &Share) -> bool {
    let run = share.run.load(Relaxed);
    run >= u64::MAX / 2 || run >= ROUND && share.class().policy == Policy::RoundRobin
}
