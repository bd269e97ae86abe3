//! How many tasks a group has: processes that were not waited for, and further threads. Each is charged to its group
//! and to those above, by whoever makes it and before it is made.
//!
//! A task that is charged keeps the group's number, as a page does. The caller names a group by a number that cannot
//! end meanwhile: that of a process that cannot leave it at the moment, or one to which a task is charged that the
//! caller knows of.

use core::sync::atomic::{AtomicUsize, Ordering::*};

use super::group::{Event, Group, Limit};
use super::{Groups, Machine};

/// The numbers of a group.
pub(super) struct Tasks {
    /// Of it and the groups below.
    all: AtomicUsize,
    /// The most that there were.
    peak: AtomicUsize,
    own: AtomicUsize,
}

impl Tasks {
    pub const fn new() -> Self {
        Self { all: AtomicUsize::new(0), peak: AtomicUsize::new(0), own: AtomicUsize::new(0) }
    }

    pub fn own(&self) -> usize {
        self.own.load(Acquire)
    }

    /// Adds some, and answers how many there are now.
    fn add(&self, tasks: usize) -> usize {
        self.all.fetch_add(tasks, Relaxed) + tasks
    }

    /// What was added stays.
    fn note_peak(&self) {
        let now = self.all.load(Relaxed);
        if now > self.peak.load(Relaxed) {
            self.peak.fetch_max(now, Relaxed);
        }
    }
}

impl<M: Machine> Groups<M> {
    /// Charges a task that is about to be made to a group, 0 for the root, and to those above. False, and an event, if
    /// one of them has as many as it may.
    pub fn charge_task(&self, id: u16) -> bool {
        let Some(group) = self.at(id) else { return true };
        for (n, above) in group.upwards().enumerate() {
            if above.tasks.add(1) > above.limit(Limit::Tasks) {
                group.upwards().take(n + 1).for_each(|group| _ = group.tasks.all.fetch_sub(1, Relaxed));
                above.note(Event::TasksMax);
                return false;
            }
        }
        group.upwards().for_each(|group| group.tasks.note_peak());
        group.tasks.own.fetch_add(1, Relaxed);
        true
    }

    /// Tasks of a group are gone, which may end with them.
    pub fn uncharge_tasks(&self, id: u16, tasks: usize) {
        if let Some(group) = self.at(id) {
            // (From the group on: those above are there as long as it is.)
            group.upwards().for_each(|group| _ = group.tasks.all.fetch_sub(tasks, Relaxed));
            group.tasks.own.fetch_sub(tasks, Release);
        }
    }

    /// Tasks have moved from one group to another, whatever that may have.
    pub fn move_tasks(&self, from: u16, to: u16, tasks: usize) {
        if from == to {
            return;
        }
        // (First: in a group above both there are no more at any moment.)
        self.uncharge_tasks(from, tasks);
        if let Some(group) = self.at(to) {
            for group in group.upwards() {
                group.tasks.add(tasks);
                group.tasks.note_peak();
            }
            group.tasks.own.fetch_add(tasks, Relaxed);
        }
    }
}

impl<M: Machine> Group<M> {
    /// Tasks of it and the groups below, and the most that there were.
    pub fn tasks(&self) -> (usize, usize) {
        let all = self.tasks.all.load(Relaxed);
        (all, self.tasks.peak.load(Relaxed).max(all))
    }

    /// Those that are charged to it alone.
    pub fn own_tasks(&self) -> usize {
        self.tasks.own()
    }
}
