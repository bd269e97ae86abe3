//! Counted steps, for tests of the amount of work.

use std::cell::Cell;

std::thread_local! {
    static STEPS: Cell<usize> = const { Cell::new(0) };
}

/// Counts a step.
pub fn count() {
    STEPS.set(STEPS.get() + 1);
}

/// The number of steps of `work`, on this thread.
pub fn of(work: impl FnOnce()) -> usize {
    let before = STEPS.get();
    work();
    STEPS.get() - before
}
