//! Pressure stall information: how much of the time threads wait for memory instead of going on with their work.
//!
//! A thread *stalls* while it reclaims or compacts memory for itself, waits for somebody who does, or brings back a
//! page that went to swap ([`Stall`]). Of a set of threads, the machine's or a control group's, there is *some*
//! pressure while at least one of them stalls, and it is *full* while besides no CPU runs one that does not.
//! [`Pressure`] has the time that was so, and its averages, as Linux's `/proc/pressure/memory` has them. (On Linux a
//! thread that is ready and waits for a CPU makes pressure less than full, too. Here it does not: while another one
//! reclaims on the only CPU, nobody gets on.)
//!
//! The averages are exponential ones of periods of two seconds, as those of Linux's kernel/sched/psi.c. Between two
//! changes the state is constant, so what a timer would do every two seconds is done at the next change, or when
//! somebody looks: O(log periods).

use crate::machine::Threads;

pub mod window;

/// A period of the averages, in nanoseconds.
pub const PERIOD: u64 = 2_000_000_000;

/// The whole of an average.
pub const ONE: u64 = 1 << BITS;
const BITS: u32 = 30;

/// What remains of an average after a period: `ONE * exp(-2 / n)`, with `n` 10, 60 and 300 seconds.
const DECAY: [u64; 3] = [879_105_452, 1_038_540_380, 1_066_607_353];

/// The time in which something was so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// All of it, in nanoseconds.
    pub total: u64,
    /// Its part of the last 10, 60 and 300 seconds, of [`ONE`].
    pub averages: [u64; 3],
    /// What `total` was when the period began.
    before: u64,
}

impl Share {
    const NONE: Self = Self { total: 0, averages: [0; 3], before: 0 };

    /// Since `total` was added to last, a period has ended after `within` nanoseconds, and then `whole` ones. It was so
    /// all the time, or not.
    fn end_periods(&mut self, is_so: bool, within: u64, whole: u64) {
        let spent = |nanoseconds| if is_so { nanoseconds } else { 0 };
        self.fold((self.total + spent(within) - self.before) * ONE / PERIOD, 1);
        self.fold(spent(ONE), whole);
        self.before = self.total + spent(within + whole * PERIOD);
    }

    /// Periods in which so much of [`ONE`] was so have passed.
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

/// The pressure of a set of threads. Times are nanoseconds of one clock, which may be late by what one CPU's differs
/// from another's.
#[derive(Clone, Copy, Debug)]
pub struct Pressure {
    at: u64,
    /// When the period ends.
    end: u64,
    stalled: u32,
    is_full: bool,
    /// Somebody wants to be woken by the next stall.
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

    /// From now on `by` threads more or fewer stall, and no CPU runs one that does not (`is_full`).
    #[inline]
    pub fn change(&mut self, now: u64, by: i32, is_full: bool) {
        self.advance(now);
        self.stalled = self.stalled.saturating_add_signed(by);
        self.is_full = is_full && self.stalled != 0;
    }

    /// What was some, and what was full pressure, up to now.
    pub fn at(&self, now: u64) -> (Share, Share) {
        let mut then = *self;
        then.advance(now);
        (then.some, then.full)
    }

    /// Somebody wants to be woken by the next stall, unless there is one now; whether there is.
    pub fn await_stall(&mut self) -> bool {
        self.is_awaited = self.stalled == 0;
        !self.is_awaited
    }

    /// Whether somebody has waited for the stall that there is now.
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

/// The calling thread stalls as long as this lives. One within another does nothing.
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

    /// The same by a look every millisecond, in floating point.
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
