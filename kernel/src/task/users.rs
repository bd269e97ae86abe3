//! What each user has of things that are limited for all of a user's processes together: records of pending signals
//! (`RLIMIT_SIGPENDING`).
//!
//! A record is charged to the user who its process belongs to when it is sent, whoever sends it, and stays charged to that user.
//! Only users with records are in the tree; there may be many, since root can take any id. Its lock is taken under that of a
//! queue of signals.

use alloc::boxed::Box;
use core::cell::Cell;

use intrusive_collections::{KeyAdapter, RBTree, RBTreeLink, intrusive_adapter};
use quire_mm::sync::Rank;

use crate::vm::{Cpu, SpinLock, heap};

struct Count {
    user: u32,
    records: Cell<u64>,
    link: RBTreeLink,
}

intrusive_adapter!(ByUser = Box<Count>: Count { link => RBTreeLink });

impl<'a> KeyAdapter<'a> for ByUser {
    type Key = u32;
    fn get_key(&self, count: &'a Count) -> u32 {
        count.user
    }
}

static COUNTS: SpinLock<RBTree<ByUser>> = SpinLock::new(Cpu, Rank::Object, RBTree::new(ByUser::NEW));

/// Why nothing was charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uncharged {
    /// The user would have more than its limit.
    TooMany,
    /// There is no memory for the user's count.
    NoMemory,
}

/// Charges a record to `user`, of which it may have `limit`.
pub fn charge(user: u32, limit: u64) -> Result<(), Uncharged> {
    let mut counts = COUNTS.lock();
    if let Some(count) = counts.find(&user).get() {
        let records = count.records.get();
        let fits = records < limit;
        count.records.set(records + u64::from(fits));
        return if fits { Ok(()) } else { Err(Uncharged::TooMany) };
    }
    if limit == 0 {
        return Err(Uncharged::TooMany);
    }
    let first = heap::box_urgent(Count { user, records: Cell::new(1), link: RBTreeLink::new() });
    counts.insert(first.map_err(|_| Uncharged::NoMemory)?);
    Ok(())
}

/// How many records a user has.
pub fn records(user: u32) -> u64 {
    COUNTS.lock().find(&user).get().map_or(0, |count| count.records.get())
}

/// Records that are gone, to be uncharged together where they follow each other.
#[derive(Default)]
pub struct Gone {
    user: u32,
    records: u64,
}

impl Gone {
    /// One more, charged to `user`, if it was.
    pub fn add(&mut self, user: Option<u32>) {
        let Some(user) = user else { return };
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
        let mut cursor = counts.find_mut(&self.user);
        if let Some(count) = cursor.get() {
            count.records.set(count.records.get() - self.records);
            if count.records.get() == 0 {
                cursor.remove();
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
