//! Which requests are not worth compaction, since it has failed recently: as in Linux's `defer_compaction`.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// After failures in a row, at most two to this power requests are refused before one is tried again.
const MOST: u32 = 6;

/// The history of a zone: hints.
pub(super) struct Deferral {
    /// Requests for orders below this are worth it.
    order: AtomicU32,
    /// The number of failures in a row; after `n` of them, 2 to the power of `n - 1` requests are refused.
    failures: AtomicU32,
    refused: AtomicU32,
}

impl Deferral {
    pub const fn new() -> Self {
        Self { order: AtomicU32::new(u32::MAX), failures: AtomicU32::new(0), refused: AtomicU32::new(0) }
    }

    /// Whether a request is not worth it; if so, it counts as refused.
    pub fn refuses(&self, order: u32) -> bool {
        let failures = self.failures.load(Relaxed);
        if failures == 0 || order < self.order.load(Relaxed) {
            return false;
        }
        self.refused.fetch_add(1, Relaxed) < 1 << (failures - 1)
    }

    /// Notes that compaction has failed for this order.
    pub fn failed(&self, order: u32) {
        self.refused.store(0, Relaxed);
        self.order.fetch_min(order, Relaxed);
        self.failures.store((self.failures.load(Relaxed) + 1).min(MOST + 1), Relaxed);
    }

    /// It had.
    pub fn succeeded(&self, order: u32) {
        if order >= self.order.load(Relaxed) {
            self.order.store(u32::MAX, Relaxed);
            self.failures.store(0, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(deferral: &Deferral, order: u32) -> usize {
        (0..).take_while(|_| deferral.refuses(order)).count()
    }

    #[test]
    fn failures_in_a_row_refuse_more_and_more() {
        let deferral = Deferral::new();
        assert_eq!(refused(&deferral, 9), 0);
        for expected in [1, 2, 4, 8, 16, 32, 64, 64] {
            deferral.failed(4);
            assert_eq!((refused(&deferral, 3), refused(&deferral, 4)), (0, expected));
            assert!(!deferral.refuses(9), "the next one is tried, and it failed");
        }
        deferral.succeeded(3);
        deferral.failed(2);
        assert_eq!((refused(&deferral, 1), refused(&deferral, 2)), (0, 64));
        deferral.succeeded(2);
        assert_eq!(refused(&deferral, 9), 0);
    }
}
