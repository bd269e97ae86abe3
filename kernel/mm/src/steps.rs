//! Steps that code counts for tests of how much work it does.

use std::cell::Cell;

std::thread_local! {
    static STEPS: Cell<usize> = const { Cell::new(0) };
}

/// One more.
pub fn count() {
    STEPS.set(STEPS.get() + 1);
}

/// How many `work` takes, on this thread.
pub fn of(work: impl FnOnce()) -> usize {
    let before = STEPS.get();
    work();
    STEPS.get() - before
}
