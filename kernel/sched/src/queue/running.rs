//! The queue's view of the running thread.

use core::sync::atomic::Ordering::Relaxed;

use crate::class::Traits;
use crate::share::{Share, virtually};

/// No thread that shares by weight is farther from the virtual time than this: 100 times the maximum for SCHED_IDLE
/// with the longest slice.
const FAR: u64 = 1 << 43;

/// The state of the running thread, whose share others must not read.
#[derive(Clone, Copy)]
pub(super) struct Running {
    /// [`Traits::NONE`] if none runs.
    pub traits: Traits,
    deadline: u64,
    /// Its run time, in virtual time, and when that was measured.
    run: u64,
    since: u64,
}

impl Running {
    pub const NOTHING: Self = Self { traits: Traits::NONE, deadline: 0, run: 0, since: 0 };

    #[inline]
    /// A thread that starts to run at `since`.
    pub fn new(share: &Share, since: u64, virtual_now: u64) -> Self {
        let (run, deadline) = (share.run.load(Relaxed), share.deadline.load(Relaxed));
        let traits = share.traits();
        if traits.rank() == 0 && run.abs_diff(virtual_now) > FAR {
            // It had a real-time policy a moment ago: its run time is not comparable.
            return Self { traits, deadline: virtual_now, run: virtual_now, since };
        }
        Self { traits, deadline, run, since }
    }

    /// Its run time at `now`.
    #[inline]
    pub fn run_at(&self, now: u64) -> u64 {
        if self.traits == Traits::NONE {
            return 0;
        }
        self.run + virtually(now.saturating_sub(self.since), self.traits.weight())
    }

    /// Its deadline at `now`: that of the next request, if the request that it was picked for has been served since.
    #[inline]
    pub fn deadline_at(&self, now: u64, slice: u64) -> u64 {
        let (weight, run) = (self.traits.weight(), self.run_at(now));
        if run >= self.deadline { run + virtually(slice, weight) } else { self.deadline }
    }
}
