//! The number of tasks of a group: processes that were not waited for, and further threads. Each is charged to its
//! group and to those above it, by its creator and before it is made.
//!
//! A charged task stores the group's number, as a page does. The caller identifies a group by a number that cannot end
//! meanwhile: the group of a process that cannot leave it at the moment, or one to which a task is charged that the
//! caller knows.

use core::sync::atomic::{AtomicUsize, Ordering::*};

use super::group::{Event, Group, Limit};
use super::{Groups, Machine};

/// The numbers of a group.
pub(super) struct Tasks {
    /// The tasks of it and of the groups below it.
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

    /// Adds tasks, and returns how many there are now.
    fn add(&self, tasks: usize) -> usize {
        self.all.fetch_add(tasks, Relaxed) + tasks
    }

    /// Records the present number as the peak, if it is higher.
    fn note_peak(&self) {
        let now = self.all.load(Relaxed);
        if now > self.peak.load(Relaxed) {
            self.peak.fetch_max(now, Relaxed);
        }
    }
}

impl<M: Machine> Groups<M> {
    /// Charges a task that is about to be made to a group, 0 for the root, and to those above it. Returns `false`, and
    /// counts an event, if one of them is at its limit.
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

    /// Removes the charge of tasks from a group, which may end with it.
    pub fn uncharge_tasks(&self, id: u16, tasks: usize) {
        if let Some(group) = self.at(id) {
            // (Starting at this group: those above exist for as long as it does.)
            group.upwards().for_each(|group| _ = group.tasks.all.fetch_sub(tasks, Relaxed));
            group.tasks.own.fetch_sub(tasks, Release);
        }
    }

    /// Moves the charge of tasks from one group to another, whatever limit that has.
    pub fn move_tasks(&self, from: u16, to: u16, tasks: usize) {
        if from == to {
            return;
        }
        // (First, so that a group above both never counts them twice.)
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
    /// The number of tasks of it and of the groups below it, and the highest number so far.
    pub fn tasks(&self) -> (usize, usize) {
        let all = self.tasks.all.load(Relaxed);
        (all, self.tasks.peak.load(Relaxed).max(all))
    }

    /// The number of tasks that are charged to the group itself.
    pub fn own_tasks(&self) -> usize {
        self.tasks.own()
    }
}
