//! Pressure stall information: how much of the time threads wait for memory instead of making progress.
//!
//! A thread *stalls* while it reclaims or compacts memory for itself, waits for a thread that does so, or brings a page
//! back from swap ([`Stall`]). A set of threads, the machine's or a control group's, has *some* pressure while at least
//! one of them stalls, and *full* pressure while, in addition, no CPU runs one that does not stall. [`Pressure`] has
//! the total time of both states, and averages, as in Linux's `/proc/pressure/memory`. (On Linux a thread that is ready
//! and waits for a CPU also keeps pressure from being full. Here it does not: while another thread reclaims on the only
//! CPU, none makes progress.)
//!
//! The averages are exponential ones over periods of two seconds, as in Linux's kernel/sched/psi.c. The state is
//! constant between two changes, so the work of a timer every two seconds is done at the next change, or when the
//! pressure is read: O(log periods).

use crate::machine::Threads;

pub mod window;

/// A period of the averages, in nanoseconds.
pub const PERIOD: u64 = 2_000_000_000;

/// The whole of an average.
pub const ONE: u64 = 1 << BITS;
const BITS: u32 = 30;

/// The part of an average that remains after a period: `ONE * exp(-2 / n)`, with `n` 10, 60 and 300 seconds.
const DECAY: [u64; 3] = [879_105_452, 1_038_540_380, 1_066_607_353];

/// The time during which a condition held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// All of it, in nanoseconds.
    pub total: u64,
    /// The averages over the last 10, 60 and 300 seconds, as parts of [`ONE`].
    pub averages: [u64; 3],
    /// The value of `total` when the period began.
    before: u64,
}

impl Share {
    const NONE: Self = Self { total: 0, averages: [0; 3], before: 0 };

    /// Accounts for periods that have ended since `total` was last updated: one after `within` nanoseconds, and then
    /// `whole` complete ones. The condition held all that time, or not (`is_so`).
    fn end_periods(&mut self, is_so: bool, within: u64, whole: u64) {
        let spent = |nanoseconds| if is_so { nanoseconds } else { 0 };
        self.fold((self.total + spent(within) - self.before) * ONE / PERIOD, 1);
        self.fold(spent(ONE), whole);
        self.before = self.total + spent(within + whole * PERIOD);
    }

    /// Accounts for `periods` periods in each of which the condition held for the part `sample` of [`ONE`].
    fn fold(&mut self, sample: u64, periods: u64) {
        for (average, decay) in self.averages.iter_mut().zip(DECAY) {
            let kept = power(decay, periods);
            *average = (*average * kept + sample * (ONE - kept) + ONE / 2) >> BITS;
        }
    }
}

/// A part of [`ONE`] to the power `n`.
fn power(mut base: u64, mut n: u64) -> u64 {
    let mut product = ONE;
    while n != 0 {
        if n & 1 != 0 {
            product = (product * base) >> BITS;
        }
        base = (base * base) >> BITS;
        n >>= 1;
    }
    product
}

/// The pressure of a set of threads. Times are nanoseconds of one clock; they may lag by the difference between the
/// clocks of two CPUs.
#[derive(Clone, Copy, Debug)]
pub struct Pressure {
    at: u64,
    /// When the period ends.
    end: u64,
    stalled: u32,
    is_full: bool,
    /// Whether a thread wants to be woken by the next stall.
    is_awaited: bool,
    some: Share,
    full: Share,
}

impl Pressure {
    /// None so far.
    pub const fn new() -> Self {
        Self { at: 0, end: PERIOD, stalled: 0, is_full: false, is_awaited: false, some: Share::NONE, full: Share::NONE }
    }

    /// Threads that stall.
    pub fn stalled(&self) -> u32 {
        self.stalled
    }

    /// Accounts for a change at `now`: `by` more threads stall, or fewer; `is_full` if no CPU runs one that does not.
    #[inline]
    pub fn change(&mut self, now: u64, by: i32, is_full: bool) {
        self.advance(now);
        self.stalled = self.stalled.saturating_add_signed(by);
        self.is_full = is_full && self.stalled != 0;
    }

    /// The shares of some and of full pressure, up to now.
    pub fn at(&self, now: u64) -> (Share, Share) {
        let mut then = *self;
        then.advance(now);
        (then.some, then.full)
    }

    /// Asks to be woken by the next stall, unless there is one now; returns whether there is.
    pub fn await_stall(&mut self) -> bool {
        self.is_awaited = self.stalled == 0;
        !self.is_awaited
    }

    /// Whether a thread has waited for the present stall; clears that.
    #[inline]
    pub fn take_awaited(&mut self) -> bool {
        core::mem::take(&mut self.is_awaited)
    }

    #[inline]
    fn advance(&mut self, now: u64) {
        let to = now.max(self.at);
        if to >= self.end {
            self.end_periods(to);
        }
        let spent = to - self.at;
        self.some.total += if self.stalled != 0 { spent } else { 0 };
        self.full.total += if self.is_full { spent } else { 0 };
        self.at = to;
    }

    #[cold]
    fn end_periods(&mut self, to: u64) {
        let (within, whole) = (self.end - self.at, (to - self.end) / PERIOD);
        self.some.end_periods(self.stalled != 0, within, whole);
        self.full.end_periods(self.is_full, within, whole);
        self.end += (whole + 1) * PERIOD;
    }
}

impl Default for Pressure {
    fn default() -> Self {
        Self::new()
    }
}

/// The calling thread stalls while this value exists. A nested one has no effect.
pub struct Stall<T: Threads> {
    threads: T,
    group: Option<u16>,
}

impl<T: Threads> Stall<T> {
    /// Begins.
    pub fn begin(threads: T) -> Self {
        Self { threads, group: threads.begin_stall() }
    }
}

impl<T: Threads> Drop for Stall<T> {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            self.threads.end_stall(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    /// The same, computed every millisecond, in floating point.
    #[derive(Default)]
    struct Model {
        total: u64,
        inside: u64,
        averages: [f64; 3],
    }

    impl Model {
        const STEP: u64 = 1_000_000;

        fn step(&mut self, at: u64, is_so: bool) {
            let spent = if is_so { Self::STEP } else { 0 };
            self.total += spent;
            self.inside += spent;
            if (at + Self::STEP).is_multiple_of(PERIOD) {
                let sample = self.inside as f64 / PERIOD as f64;
                for (average, seconds) in self.averages.iter_mut().zip([10.0, 60.0, 300.0]) {
                    let kept = f64::exp(-2.0 / seconds);
                    *average = *average * kept + sample * (1.0 - kept);
                }
                self.inside = 0;
            }
        }
    }

    fn is_near(share: Share, model: &Model) -> bool {
        let near = |(average, model): (&u64, &f64)| (*average as f64 / ONE as f64 - model).abs() < 1e-6;
        share.total == model.total && share.averages.iter().zip(&model.averages).all(near)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn averages_are_those_of_a_look_every_millisecond(
            changes in prop::collection::vec((1_u64..9000, any::<bool>(), any::<bool>()), 1..12)
        ) {
            let (mut pressure, mut some, mut full) = (Pressure::new(), Model::default(), Model::default());
            let mut at = 0;
            for (milliseconds, is_stalled, is_full) in changes {
                let by = i32::from(is_stalled) - pressure.stalled() as i32;
                pressure.change(at, by, is_full);
                for _ in 0..milliseconds {
                    some.step(at, is_stalled);
                    full.step(at, is_stalled && is_full);
                    at += Model::STEP;
                }
                let (are_some, are_full) = pressure.at(at);
                prop_assert!(is_near(are_some, &some) && is_near(are_full, &full), "{are_some:?} {are_full:?}");
            }
        }
    }

    #[test]
    fn all_of_a_long_time_is_all() {
        let mut pressure = Pressure::new();
        pressure.change(0, 1, true);
        let (some, full) = pressure.at(3_600 * 1_000_000_000);
        let hundredths: Vec<u64> = some.averages.iter().map(|average| (average * 10_000 + ONE / 2) / ONE).collect();
        assert_eq!((hundredths, some), (std::vec![10_000; 3], full));
        pressure.change(3_600 * 1_000_000_000, -1, true);
        let (some, _) = pressure.at(u64::MAX / 2);
        assert_eq!((some.averages, some.total), ([0; 3], 3_600 * 1_000_000_000));
    }

    #[test]
    fn a_clock_that_is_late_changes_nothing() {
        let mut pressure = Pressure::new();
        pressure.change(1000, 1, false);
        pressure.change(900, 1, false);
        pressure.change(1100, -2, false);
        assert_eq!((pressure.at(2000).0.total, pressure.at(50).0.total), (100, 100));
    }
}
