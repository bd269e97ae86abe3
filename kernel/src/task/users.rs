//! What each user has of things that are limited for all of a user's processes together: records of pending signals
//! (`RLIMIT_SIGPENDING`).
//!
//! A record is charged to the user who its process belongs to when it is sent, whoever sends it, and stays charged to that user.
//! Users without records are not listed, so that the list is never longer than there are records. Its lock is taken under that of
//! a queue of signals.

use alloc::vec::Vec;

use quire_mm::fallible::TryVec;
use quire_mm::sync::Rank;

use crate::vm::{Cpu, SpinLock};

struct Count {
    user: u32,
    records: u64,
}

/// In order of users.
static COUNTS: SpinLock<Vec<Count>> = SpinLock::new(Cpu, Rank::Object, Vec::new());

/// Charges a record to `user`. False if the user would have more than `limit`, or there is no memory.
pub fn charge(user: u32, limit: u64) -> bool {
    let mut counts = COUNTS.lock();
    match counts.binary_search_by_key(&user, |count| count.user) {
        Ok(at) if counts[at].records < limit => counts[at].records += 1,
        Err(at) if limit > 0 && counts.try_push(Count { user, records: 1 }).is_ok() => counts[at..].rotate_right(1),
        _ => return false,
    }
    true
}

/// Records that are gone, to be uncharged together where they follow each other.
#[derive(Default)]
pub struct Gone {
    user: u32,
    records: u64,
}

impl Gone {
    /// One more, charged to `user`.
    pub fn add(&mut self, user: u32) {
        if user != self.user {
            self.uncharge();
            self.user = user;
        }
        self.records += 1;
    }

    fn uncharge(&mut self) {
        if self.records == 0 {
            return;
        }
        let mut counts = COUNTS.lock();
        if let Ok(at) = counts.binary_search_by_key(&self.user, |count| count.user) {
            counts[at].records -= self.records;
            if counts[at].records == 0 {
                counts.remove(at);
            }
            if counts.is_empty() {
                // No memory stays behind when nobody has any.
                *counts = Vec::new();
            }
        }
        self.records = 0;
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        self.uncharge();
    }
}
