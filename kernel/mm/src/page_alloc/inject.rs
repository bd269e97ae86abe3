//! Failure injection: allocations that fail although there is memory, machine-wide (`fail_page_alloc=`) or as
//! [`FailsOnDemand`](crate::page_alloc::FailsOnDemand) decides.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use crate::page_alloc::Machine;

use super::{Gfp, PageAllocator, trap};

/// Which allocations fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultInjection {
    /// Every n-th allocation is a candidate; 0 for none.
    pub interval: u32,
    /// The percentage of candidates that fail.
    pub probability: u32,
    /// Stop after this many failures.
    pub times: u32,
    /// Only this order and higher ones.
    pub min_order: u32,
    /// Bytes that are allocated normally before failures start.
    pub space: u32,
    /// Whether pages of user memory are spared: a program that does not get one is killed, and if init dies the kernel
    /// panics.
    pub spares_user: bool,
}

impl FaultInjection {
    /// Nothing fails.
    pub const OFF: Self = Self { interval: 0, probability: 0, times: 0, min_order: 0, space: 0, spares_user: false };

    /// From the command line, as on Linux: interval, probability, space, times, separated by commas; -1 times means
    /// without limit. Missing or empty values default to 1, 100, 0, -1. As on Linux, user memory is spared. `None` for
    /// invalid values: more than 100 percent, numbers of more than 32 bits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = [1, 100, 0, u32::MAX];
        for (i, word) in text.split(',').map(str::trim).enumerate() {
            let number = numbers.get_mut(i)?;
            *number = match word {
                "" => *number,
                "-1" if i == 3 => u32::MAX,
                word => word.parse().ok()?,
            };
        }
        let [interval, probability, space, times] = numbers;
        let sensible = probability <= 100;
        sensible.then_some(Self { interval, probability, times, space, spares_user: true, min_order: 0 })
    }

    /// The `n`th allocation from now, counted from 1, fails, and no other.
    pub const fn nth(n: u32) -> Self {
        Self { interval: n, probability: 100, times: 1, ..Self::OFF }
    }
}

pub(crate) struct Injection {
    interval: AtomicU32,
    probability: AtomicU32,
    times: AtomicU32,
    min_order: AtomicU32,
    space: AtomicU32,
    spares_user: AtomicBool,
    seen: AtomicU32,
    random: AtomicU32,
    failed: AtomicU32,
}

impl Injection {
    pub(crate) const fn new() -> Self {
        Self {
            interval: AtomicU32::new(0),
            probability: AtomicU32::new(0),
            times: AtomicU32::new(0),
            min_order: AtomicU32::new(0),
            space: AtomicU32::new(0),
            spares_user: AtomicBool::new(false),
            seen: AtomicU32::new(0),
            random: AtomicU32::new(0),
            failed: AtomicU32::new(0),
        }
    }

    /// Whether this allocation of `size` bytes must fail. NOFAIL ones never fail.
    pub(crate) fn hits(&self, order: u32, size: usize, gfp: Gfp) -> bool {
        let interval = self.interval.load(Relaxed);
        if interval == 0 || gfp.contains(Gfp::NOFAIL) || order < self.min_order.load(Relaxed) {
            return false;
        }
        if self.spares_user.load(Relaxed) && gfp.contains(Gfp::HIGHMEM) {
            return false;
        }
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        if self.space.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(size).filter(|&left| left > 0)).is_ok() {
            return false;
        }
        let seen = self.seen.fetch_add(1, Relaxed).wrapping_add(1);
        if !seen.is_multiple_of(interval) || self.next_random() % 100 >= self.probability.load(Relaxed) {
            return false;
        }
        let spent = self.times.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_err();
        if !spent {
            self.failed.fetch_add(1, Relaxed);
        }
        !spent
    }

    /// Starts or stops injection; resets the counts.
    pub(crate) fn start(&self, what: FaultInjection) {
        self.interval.store(0, Relaxed);
        self.probability.store(what.probability, Relaxed);
        self.times.store(what.times, Relaxed);
        self.min_order.store(what.min_order, Relaxed);
        self.space.store(what.space, Relaxed);
        self.spares_user.store(what.spares_user, Relaxed);
        self.seen.store(0, Relaxed);
        self.random.store(1, Relaxed);
        self.failed.store(0, Relaxed);
        self.interval.store(what.interval, Relaxed);
    }

    /// Failures since the last start.
    pub(crate) fn failures(&self) -> u32 {
        self.failed.load(Relaxed)
    }

    /// A linear congruential generator's high bits: the same sequence in each run.
    fn next_random(&self) -> u32 {
        let step = |x: u32| x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let old = self.random.load(Relaxed);
        self.random.store(step(old), Relaxed);
        step(old) >> 16
    }
}

impl<M: Machine> PageAllocator<M> {
    /// Starts or stops injection; resets the counts.
    pub fn inject_failures(&self, what: FaultInjection) {
        self.trap.fetch_and(!trap::INJECT, Relaxed);
        self.injection.start(what);
        if what.interval != 0 {
            self.trap.fetch_or(trap::INJECT, Relaxed);
        }
    }

    /// From now on the machine decides for each allocation, except NOFAIL ones, whether it fails, until a matching call
    /// of [`PageAllocator::ask_no_more`]. May be called with any lock held.
    pub fn ask_about_failures(&self) {
        self.trap.fetch_add(trap::ASK, Relaxed);
    }

    /// See [`PageAllocator::ask_about_failures`].
    pub fn ask_no_more(&self) {
        self.trap.fetch_sub(trap::ASK, Relaxed);
    }

    /// Failures injected since the last start.
    pub fn injected_failures(&self) -> u32 {
        self.injection.failures()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_says_what_fails() {
        let all =
            FaultInjection { interval: 1, probability: 100, times: u32::MAX, spares_user: true, ..FaultInjection::OFF };
        assert_eq!(FaultInjection::parse(""), Some(all));
        assert_eq!(
            FaultInjection::parse("5,20,4096,3"),
            Some(FaultInjection { interval: 5, probability: 20, space: 4096, times: 3, ..all })
        );
        assert_eq!(FaultInjection::parse("5,20,0,-1"), Some(FaultInjection { interval: 5, probability: 20, ..all }));
        // An empty word keeps its position.
        assert_eq!(FaultInjection::parse("5,,0,3"), Some(FaultInjection { interval: 5, times: 3, ..all }));
        assert_eq!(FaultInjection::parse(",20,"), Some(FaultInjection { probability: 20, ..all }));
        for text in ["five", "1,2,3,4,5", "1,2,3,4,", "-1", "1,101", "1,-1", "1,1,-1", "1,1,1,-2", "4294967296"] {
            assert_eq!(FaultInjection::parse(text), None, "{text}");
        }
    }

    #[test]
    fn space_goes_by_first_and_users_are_spared() {
        let injection = Injection::new();
        let after = FaultInjection { interval: 1, probability: 100, times: 1, space: 10_000, ..FaultInjection::OFF };
        injection.start(FaultInjection { spares_user: true, ..after });
        let hits: Vec<_> = (0..5).map(|_| injection.hits(0, 4096, Gfp::KERNEL)).collect();
        assert_eq!(hits, [false, false, true, false, false]);
        injection.start(FaultInjection { space: 0, spares_user: true, ..after });
        assert!(!injection.hits(0, 4096, Gfp::HIGHUSER_MOVABLE) && injection.hits(0, 4096, Gfp::KERNEL));
        injection.start(FaultInjection { space: 0, ..after });
        assert!(injection.hits(0, 4096, Gfp::HIGHUSER_MOVABLE));
    }
}
