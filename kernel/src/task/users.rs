//! What each user has of things that are limited for all of a user's processes together: records of pending signals
//! (`RLIMIT_SIGPENDING`), and tasks (`RLIMIT_NPROC`).
//!
//! A record is charged to the user who its process belongs to when it is sent, whoever sends it, and stays charged to that user. A task is charged to the
//! real user of its process, and moves with it; root has as many as it likes, and they are not counted.
//! Only users with records or tasks are in the tree; there may be many, since root can take any id. Its lock is taken under that of a
//! queue of signals, or of the table of processes.

use alloc::boxed::Box;
use core::cell::Cell;

use intrusive_collections::{KeyAdapter, RBTree, RBTreeLink, intrusive_adapter};
use quire_mm::sync::Rank;

use crate::vm::{Cpu, SpinLock, heap};

struct Count {
    user: u32,
    records: Cell<u64>,
    tasks: Cell<u64>,
    link: RBTreeLink,
}

/// What is counted.
type Which = fn(&Count) -> &Cell<u64>;

const RECORDS: Which = |count| &count.records;
const TASKS: Which = |count| &count.tasks;

/// The user whose tasks are not counted.
pub const ROOT: u32 = 0;

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
    add(user, RECORDS, 1, limit)
}

/// Charges a task to `user`, of which it may have `limit`.
pub fn charge_task(user: u32, limit: u64) -> Result<(), Uncharged> {
    if user == ROOT { Ok(()) } else { add(user, TASKS, 1, limit) }
}

/// Tasks of a user are gone.
pub fn uncharge_tasks(user: u32, tasks: u64) {
    if user != ROOT {
        take(user, TASKS, tasks);
    }
}

/// Tasks belong to another user from now on, whatever that one has; an error changes nothing.
pub fn move_tasks(from: u32, to: u32, tasks: u64) -> Result<(), Uncharged> {
    if from == to {
        return Ok(());
    }
    if to != ROOT {
        add(to, TASKS, tasks, u64::MAX)?;
    }
    uncharge_tasks(from, tasks);
    Ok(())
}

fn add(user: u32, which: Which, by: u64, limit: u64) -> Result<(), Uncharged> {
    let mut counts = COUNTS.lock();
    if let Some(count) = counts.find(&user).get() {
        let has = which(count).get();
        let fits = has.saturating_add(by) <= limit;
        which(count).set(has + if fits { by } else { 0 });
        return if fits { Ok(()) } else { Err(Uncharged::TooMany) };
    }
    if limit < by {
        return Err(Uncharged::TooMany);
    }
    let none = Count { user, records: Cell::new(0), tasks: Cell::new(0), link: RBTreeLink::new() };
    which(&none).set(by);
    let first = heap::box_urgent(none);
    counts.insert(first.map_err(|_| Uncharged::NoMemory)?);
    Ok(())
}

fn take(user: u32, which: Which, by: u64) {
    let mut counts = COUNTS.lock();
    let mut cursor = counts.find_mut(&user);
    if let Some(count) = cursor.get() {
        which(count).set(which(count).get() - by);
        if count.records.get() == 0 && count.tasks.get() == 0 {
            cursor.remove();
        }
    }
}

/// How many records a user has.
pub fn records(user: u32) -> u64 {
    COUNTS.lock().find(&user).get().map_or(0, |count| count.records.get())
}

/// How many tasks a user has, if they are counted.
pub fn tasks(user: u32) -> u64 {
    COUNTS.lock().find(&user).get().map_or(0, |count| count.tasks.get())
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
        take(self.user, RECORDS, self.records);
        self.records = 0;
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        self.uncharge();
    }
}
