//! Counted steps, for tests of the amount of work.

#[cfg(test)]
use std::cell::Cell;

#[cfg(test)]
std::thread_local! {
    static STEPS: Cell<usize> = const { Cell::new(0) };
}

/// Counts a step, in tests.
#[inline(always)]
pub fn count_step() {
    #[cfg(test)]
    STEPS.set(STEPS.get() + 1);
}

/// The number of steps of `work`, on this thread.
#[cfg(test)]
pub fn of(work: impl FnOnce()) -> usize {
    let before = STEPS.get();
    work();
    STEPS.get() - before
}
