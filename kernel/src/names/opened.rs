//! Which stored files may be open: servers ask before they remove one, since nobody tells them of a close.
//!
//! There is one counter for all files with the same hash. So a file may seem to be open because another one is; never the other way round.

use core::sync::atomic::{AtomicU32, Ordering};

use super::Place;

/// Counters: a power of two.
const COUNTERS: usize = 1024;

static OPEN: [AtomicU32; COUNTERS] = [const { AtomicU32::new(0) }; COUNTERS];

/// That of a file. (Fibonacci hashing.)
fn counter(place: Place) -> &'static AtomicU32 {
    let hash = place.to_word().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    &OPEN[(hash >> 32) as usize % COUNTERS]
}

/// It was opened once more.
pub fn note(place: Place) {
    counter(place).fetch_add(1, Ordering::AcqRel);
}

/// It was closed.
pub fn forget(place: Place) {
    counter(place).fetch_sub(1, Ordering::AcqRel);
}

/// Whether it may be open.
pub fn may_be(place: Place) -> bool {
    counter(place).load(Ordering::Acquire) != 0
}
