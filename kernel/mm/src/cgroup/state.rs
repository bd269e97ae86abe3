//! The state of a group: whether there are processes in it or below (*populated*), whether all of them are to be frozen
//! and are, and whether they are being killed.
//!
//! A group is *freezing* if it or one above it is to be frozen. It is *frozen* if it is freezing, and as many of the
//! processes in it and below are frozen as there are: a group without processes is at once. Counting a process goes up
//! the tree; whoever counts, or begins or ends to freeze, [notes](Group::note_state) what has become of each group
//! concerned. A change of the two bits is counted for those who watch them.
//!
//! Changes of processes come one after the other: the kernel makes them under the lock of the table of processes, and
//! notes there too.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::*};

use super::group::Group;
use super::{Groups, Key, Machine};
use crate::fallible::KArc;

const POPULATED: u32 = 1;
const FROZEN: u32 = 2;

pub(super) struct State {
    /// Processes in it and below, and those of them that are frozen.
    processes: AtomicUsize,
    frozen: AtomicUsize,
    /// It is to be frozen, with all below.
    freezes: AtomicBool,
    /// Kills of all that is in it that have not reached everybody.
    kills: AtomicU32,
    /// [`POPULATED`] and [`FROZEN`], as they were noted.
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

    /// It is to be frozen, or not. The caller then tells its processes, and notes its state and that of the groups
    /// below.
    pub fn set_freezes(&self, freezes: bool) {
        self.state.freezes.store(freezes, Release);
    }

    /// Whether its processes are to be frozen.
    pub fn is_freezing(&self) -> bool {
        self.upwards().any(Self::freezes)
    }

    /// Whether there is a process in it or below.
    pub fn is_populated(&self) -> bool {
        self.state.processes.load(Relaxed) != 0
    }

    /// Whether all there are frozen, and are to be.
    pub fn is_frozen(&self) -> bool {
        self.state.frozen.load(Relaxed) == self.state.processes.load(Relaxed) && self.is_freezing()
    }

    /// How often it has become populated or not, or frozen or not.
    pub fn changes(&self) -> u64 {
        self.state.changes.load(SeqCst)
    }

    fn state_now(&self) -> u32 {
        let is = |bit: u32, is_set: bool| if is_set { bit } else { 0 };
        is(POPULATED, self.is_populated()) | is(FROZEN, self.is_frozen())
    }

    /// What it is as it is made, which is no change.
    pub(super) fn begin_state(&self) {
        self.state.noted.store(self.state_now(), Relaxed);
    }

    /// Compares the state with what was noted.
    pub fn note_state(&self) {
        let now = self.state_now();
        if self.state.noted.swap(now, Relaxed) != now {
            // (Of whoever counts here and whoever begins to watch, one sees the other.)
            self.state.changes.fetch_add(1, SeqCst);
            if self.state.is_watched.load(SeqCst) {
                self.machine().group_changed();
            }
        }
    }

    /// Processes have come, or gone, that are not frozen.
    pub(super) fn count_processes(&self, by: isize) {
        for group in self.upwards() {
            group.state.processes.fetch_add(by as usize, Relaxed);
            group.note_state();
        }
    }
}

impl<M: Machine> Groups<M> {
    /// Whether what is in a group is to be frozen; the caller holds a member of it.
    pub fn is_freezing(&self, id: u16) -> bool {
        self.at(id).is_some_and(Group::is_freezing)
    }

    /// Whether a group is another one, or below it; the caller holds a member of it.
    pub fn is_member_within(&self, id: u16, of: u16) -> bool {
        self.at(id).is_some_and(|group| group.is_within(of))
    }

    /// A member of a group is frozen from now on (1), or is not any more (-1).
    pub fn count_frozen(&self, id: u16, by: isize) {
        for group in self.at(id).into_iter().flat_map(Group::upwards) {
            group.state.frozen.fetch_add(by as usize, Relaxed);
            group.note_state();
        }
    }

    /// Whether all that is in a group is being killed; the caller holds a member of it.
    pub fn is_killed(&self, id: u16) -> bool {
        self.at(id).is_some_and(|group| group.upwards().any(|group| group.state.kills.load(Acquire) != 0))
    }

    /// Somebody watches a group's state: how often it has changed. `None` if there is no such group.
    pub fn watch(&self, key: Key) -> Option<u64> {
        let group = self.find(key)?;
        group.state.is_watched.store(true, SeqCst);
        Some(group.changes())
    }
}

/// All processes of a group and below are being killed, until this is dropped: whoever enters one by a fork meanwhile
/// is to be killed too.
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
