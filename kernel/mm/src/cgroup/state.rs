//! The state of a group: whether there are processes in it or below it (*populated*), whether all of them are to be
//! frozen and have been, and whether they are being killed.
//!
//! A group is *freezing* if it or a group above it is to be frozen. It is *frozen* if it is freezing, and all processes
//! in it and below it are frozen: a group without processes is frozen at once. Counts of processes are propagated up
//! the tree; whoever counts, or begins or ends freezing, [notes](Group::note_state) the new state of each group
//! concerned. Changes of the two bits are counted for watchers.
//!
//! Changes of processes are made one at a time: the kernel makes them under the lock of the table of processes, and
//! notes the state there too.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::*};

use super::group::Group;
use super::{Groups, Key, Machine};
use crate::fallible::KArc;

const POPULATED: u32 = 1;
const FROZEN: u32 = 2;

pub(super) struct State {
    /// The number of processes in it and below it, and the number of them that are frozen.
    processes: AtomicUsize,
    frozen: AtomicUsize,
    /// Whether it is to be frozen, with all groups below it.
    freezes: AtomicBool,
    /// The number of kills of everything in it that have not reached all processes yet.
    kills: AtomicU32,
    /// [`POPULATED`] and [`FROZEN`], as last noted.
    noted: AtomicU32,
    changes: AtomicU64,
    is_watched: AtomicBool,
}

impl State {
    pub const fn new() -> Self {
        Self {
            processes: AtomicUsize::new(0),
            frozen: AtomicUsize::new(0),
            freezes: AtomicBool::new(false),
            kills: AtomicU32::new(0),
            noted: AtomicU32::new(0),
            changes: AtomicU64::new(0),
            is_watched: AtomicBool::new(false),
        }
    }
}

impl<M: Machine> Group<M> {
    /// Whether it is to be frozen itself.
    pub fn freezes(&self) -> bool {
        self.state.freezes.load(Acquire)
    }

    /// Sets whether it is to be frozen. The caller then notifies its processes, and notes its state and that of the
    /// groups below it.
    pub fn set_freezes(&self, freezes: bool) {
        self.state.freezes.store(freezes, Release);
    }

    /// Whether its processes are to be frozen.
    pub fn is_freezing(&self) -> bool {
        self.upwards().any(Self::freezes)
    }

    /// Whether there is a process in it or below it.
    pub fn is_populated(&self) -> bool {
        self.state.processes.load(Relaxed) != 0
    }

    /// Whether all processes there are to be frozen, and are.
    pub fn is_frozen(&self) -> bool {
        self.state.frozen.load(Relaxed) == self.state.processes.load(Relaxed) && self.is_freezing()
    }

    /// How often it has become populated or unpopulated, frozen or thawed.
    pub fn changes(&self) -> u64 {
        self.state.changes.load(SeqCst)
    }

    fn state_now(&self) -> u32 {
        let is = |bit: u32, is_set: bool| if is_set { bit } else { 0 };
        is(POPULATED, self.is_populated()) | is(FROZEN, self.is_frozen())
    }

    /// Sets the initial state, which is not counted as a change.
    pub(super) fn begin_state(&self) {
        self.state.noted.store(self.state_now(), Relaxed);
    }

    /// Compares the state with the one that was last noted.
    pub fn note_state(&self) {
        let now = self.state_now();
        if self.state.noted.swap(now, Relaxed) != now {
            // (If one thread counts here while another one begins to watch, at least one of them sees the other.)
            self.state.changes.fetch_add(1, SeqCst);
            if self.state.is_watched.load(SeqCst) {
                self.machine().group_changed();
            }
        }
    }

    /// Counts processes, none of them frozen, that have entered or left.
    pub(super) fn count_processes(&self, by: isize) {
        for group in self.upwards() {
            group.state.processes.fetch_add(by as usize, Relaxed);
            group.note_state();
        }
    }
}

impl<M: Machine> Groups<M> {
    /// Whether a group's processes are to be frozen; the caller holds a member of it.
    pub fn is_freezing(&self, id: u16) -> bool {
        self.at(id).is_some_and(Group::is_freezing)
    }

    /// Whether the group `id` is the group `of`, or below it; the caller holds a member of it.
    pub fn is_member_within(&self, id: u16, of: u16) -> bool {
        self.at(id).is_some_and(|group| group.is_within(of))
    }

    /// Counts a member of a group that is frozen from now on (1), or is not any more (-1).
    pub fn count_frozen(&self, id: u16, by: isize) {
        for group in self.at(id).into_iter().flat_map(Group::upwards) {
            group.state.frozen.fetch_add(by as usize, Relaxed);
            group.note_state();
        }
    }

    /// Whether everything in a group is being killed; the caller holds a member of it.
    pub fn is_killed(&self, id: u16) -> bool {
        self.at(id).is_some_and(|group| group.upwards().any(|group| group.state.kills.load(Acquire) != 0))
    }

    /// Begins to watch a group's state; returns how often it has changed. `None` if there is no such group.
    pub fn watch(&self, key: Key) -> Option<u64> {
        let group = self.find(key)?;
        group.state.is_watched.store(true, SeqCst);
        Some(group.changes())
    }
}

/// While this value exists, all processes of a group and below it are being killed: a process that enters by a fork
/// meanwhile must be killed too.
pub struct Killing<M: Machine>(KArc<Group<M>>);

impl<M: Machine> Killing<M> {
    /// Begins.
    pub fn new(group: KArc<Group<M>>) -> Self {
        group.state.kills.fetch_add(1, AcqRel);
        Self(group)
    }

    /// The number of the group.
    pub fn id(&self) -> u16 {
        self.0.key().id()
    }
}

impl<M: Machine> Drop for Killing<M> {
    fn drop(&mut self) {
        self.0.state.kills.fetch_sub(1, AcqRel);
    }
}
