//! One group: its numbers and limits.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::*};

use super::state::State;
use super::tasks::Tasks;
use super::{Key, Machine};
use crate::fallible::KArc;
use crate::page::PageFlags;
use crate::psi::Pressure;
use crate::sync::{Rank, SpinLock};

/// A limit, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Reclaim for the machine takes nothing from a group below it.
    Min,
    /// Or takes it last.
    Low,
    /// A charge that leads above it must make room.
    High,
    /// No charge goes above it.
    Max,
    /// Slots of swap.
    Swap,
    /// Tasks, not pages: no fork may exceed it.
    Tasks,
}

impl Limit {
    const COUNT: usize = 6;
}

/// Events of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Reclaim for the machine took pages although the group was below `low`.
    Low,
    /// A charge was above `high`.
    High,
    /// A charge was about to go above `max`.
    Max,
    /// Nothing could be reclaimed for such a charge.
    Oom,
    /// A process was killed because of that.
    OomKill,
    /// All processes were.
    OomGroupKill,
    /// A slot was refused.
    SwapMax,
    /// A fork was.
    TasksMax,
}

impl Event {
    const COUNT: usize = 8;
}

/// What has happened to pages of a group since it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stat {
    /// They came back from swap.
    SwapIn,
    /// They went to swap.
    SwapOut,
    /// A program has marked them as freeable (MADV_FREE).
    LazyFree,
    /// They were freed, unchanged since they were marked.
    LazyFreed,
    /// They left memory in any way.
    Left,
}

impl Stat {
    const COUNT: usize = 5;
}

/// The kernel's own memory that is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Translation tables.
    Tables,
    /// Kernel stacks of threads.
    Stacks,
}

impl Kernel {
    const COUNT: usize = 2;
}

/// The maximum length of a group's name, in bytes.
pub const MAX_NAME: usize = 255;

/// A name.
#[derive(Clone, Copy, Debug)]
struct Name {
    bytes: [u8; MAX_NAME],
    len: u8,
}

/// The counts of a group, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Charged to it and to the groups below it.
    pub usage: usize,
    /// The most that was.
    pub peak: usize,
    /// Swap slots of it and of the groups below it.
    pub swap: usize,
    /// Pages with its own number, including those in stocks.
    pub own: usize,
    /// Of these, pages of memory objects.
    pub files: usize,
    /// Of those, pages that can be swapped out: shared memory, and files in memory.
    pub shared: usize,
    /// Of `own`, the kernel's pages, by [`Kernel`].
    pub kernel: [usize; Kernel::COUNT],
    /// Slots with its own number.
    pub own_swap: usize,
}

/// A control group. All fields are atomic or protected by a lock.
pub struct Group<M: Machine> {
    machine: M,
    key: Key,
    parent: Option<KArc<Group<M>>>,
    name: Name,
    depth: usize,
    usage: AtomicUsize,
    peak: AtomicUsize,
    own: AtomicUsize,
    files: AtomicUsize,
    shared: AtomicUsize,
    kernel: [AtomicUsize; Kernel::COUNT],
    swap: AtomicUsize,
    own_swap: AtomicUsize,
    limits: [AtomicUsize; Limit::COUNT],
    events: [AtomicU64; Event::COUNT],
    own_events: [AtomicU64; Event::COUNT],
    stats: [AtomicU64; Stat::COUNT],
    /// Processes. Only raised from 0 under the tree's lock.
    members: AtomicUsize,
    /// See [`super::tasks`].
    pub(super) tasks: Tasks,
    /// See [`super::state`].
    pub(super) state: State,
    /// Threads that reclaim from it because it is at a limit.
    reclaimers: AtomicUsize,
    /// The number of child groups, and the number without ghosts. Under the tree's lock.
    children: AtomicUsize,
    named_children: AtomicUsize,
    /// The number of groups below it, at any depth, without ghosts; its maximum, and the maximum depth. Counted under
    /// the tree's lock.
    descendants: AtomicUsize,
    max_descendants: AtomicUsize,
    max_depth: AtomicUsize,
    is_ghost: AtomicBool,
    /// Whether all its processes are killed when one is.
    pub kills_all: AtomicBool,
    /// The controllers for its children, as set by the server of groups: a bit for each controller.
    pub distributes: AtomicU32,
    /// Its threads' waiting for memory.
    pressure: SpinLock<Pressure, M>,
    lists: M::Lists,
}

impl<M: Machine> Group<M> {
    /// A group without a number and without limits. `None` if the name is too long.
    pub(super) fn new(machine: M, parent: Option<KArc<Self>>, name: &[u8], lists: M::Lists) -> Option<Self> {
        let mut bytes = [0; MAX_NAME];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        let limits = [0, 0, usize::MAX, usize::MAX, usize::MAX, usize::MAX].map(AtomicUsize::new);
        Some(Self {
            machine,
            key: Key::ROOT,
            depth: parent.as_ref().map_or(1, |parent| parent.depth + 1),
            parent,
            name: Name { bytes, len: name.len() as u8 },
            usage: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            own: AtomicUsize::new(0),
            files: AtomicUsize::new(0),
            shared: AtomicUsize::new(0),
            kernel: [const { AtomicUsize::new(0) }; Kernel::COUNT],
            swap: AtomicUsize::new(0),
            own_swap: AtomicUsize::new(0),
            limits,
            events: [const { AtomicU64::new(0) }; Event::COUNT],
            own_events: [const { AtomicU64::new(0) }; Event::COUNT],
            stats: [const { AtomicU64::new(0) }; Stat::COUNT],
            members: AtomicUsize::new(0),
            tasks: Tasks::new(),
            state: State::new(),
            reclaimers: AtomicUsize::new(0),
            children: AtomicUsize::new(0),
            named_children: AtomicUsize::new(0),
            descendants: AtomicUsize::new(0),
            max_descendants: AtomicUsize::new(usize::MAX),
            max_depth: AtomicUsize::new(usize::MAX),
            is_ghost: AtomicBool::new(false),
            kills_all: AtomicBool::new(false),
            distributes: AtomicU32::new(0),
            pressure: SpinLock::new(machine, Rank::GroupPressure, Pressure::new()),
            lists,
        })
    }

    /// Its number, and for good.
    #[inline]
    pub fn key(&self) -> Key {
        self.key
    }

    pub(super) fn set_key(&mut self, key: Key) {
        self.key = key;
    }

    /// The group above it; `None` for the root.
    #[inline]
    pub fn parent(&self) -> Option<&KArc<Self>> {
        self.parent.as_ref()
    }

    /// The key of the group above it.
    pub fn parent_key(&self) -> Key {
        self.parent.as_ref().map_or(Key::ROOT, |parent| parent.key)
    }

    /// The group itself, and the groups above it.
    pub fn upwards(&self) -> impl Iterator<Item = &Self> {
        core::iter::successors(Some(self), |group| group.parent.as_deref())
    }

    /// Whether it is the group with this number, or below that group.
    pub fn is_within(&self, id: u16) -> bool {
        self.upwards().any(|group| group.key.id() == id)
    }

    /// Its name.
    pub fn name(&self) -> &[u8] {
        &self.name.bytes[..self.name.len.into()]
    }

    pub(super) fn machine(&self) -> M {
        self.machine
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// Pages charged to it and to the groups below it.
    #[inline]
    pub fn usage(&self) -> usize {
        self.usage.load(Relaxed)
    }

    /// A limit, in pages; `usize::MAX` for none.
    #[inline]
    pub fn limit(&self, which: Limit) -> usize {
        self.limits[which as usize].load(Relaxed)
    }

    /// Sets one.
    pub fn set_limit(&self, which: Limit, pages: usize) {
        self.limits[which as usize].store(pages, Relaxed);
    }

    /// The counts. Each is read at a slightly different time.
    pub fn numbers(&self) -> Numbers {
        Numbers {
            usage: self.usage(),
            peak: self.peak.load(Relaxed).max(self.usage()),
            swap: self.swap.load(Relaxed),
            own: self.own.load(Relaxed),
            files: self.files.load(Relaxed),
            shared: self.shared.load(Relaxed),
            kernel: self.kernel.each_ref().map(|pages| pages.load(Relaxed)),
            own_swap: self.own_swap.load(Relaxed),
        }
    }

    /// The peak counts anew.
    pub fn reset_peak(&self) {
        self.peak.store(self.usage(), Relaxed);
    }

    /// Counts an event, also for the groups above.
    pub fn note(&self, event: Event) {
        self.own_events[event as usize].fetch_add(1, Relaxed);
        self.upwards().for_each(|group| _ = group.events[event as usize].fetch_add(1, Relaxed));
    }

    /// How often the event has happened in this group and below, and in this group alone.
    pub fn events(&self, event: Event) -> (u64, u64) {
        (self.events[event as usize].load(Relaxed), self.own_events[event as usize].load(Relaxed))
    }

    /// To how many pages, in this group and below, this has happened.
    pub fn stat(&self, stat: Stat) -> u64 {
        self.stats[stat as usize].load(Relaxed)
    }

    /// Processes in it.
    pub fn members(&self) -> usize {
        self.members.load(Relaxed)
    }

    pub(super) fn add_member(&self, by: isize) {
        self.members.fetch_add(by as usize, AcqRel);
    }

    /// How many there were.
    pub(super) fn add_reclaimer(&self, by: isize) -> usize {
        self.reclaimers.fetch_add(by as usize, AcqRel)
    }

    /// Notes that a child group was made (1), or has ended (-1).
    pub(super) fn add_child(&self, by: isize) {
        self.children.fetch_add(by as usize, Relaxed);
    }

    /// Notes that a child group has got a name (1), or has lost it (-1).
    pub(super) fn add_named_child(&self, by: isize) {
        self.named_children.fetch_add(by as usize, Relaxed);
        self.upwards().for_each(|group| _ = group.descendants.fetch_add(by as usize, Relaxed));
    }

    /// Whether one more group below it is allowed by its own limits and those above. Under the tree's lock.
    pub(super) fn may_have_child(&self) -> bool {
        self.upwards().enumerate().all(|(depth, group)| {
            group.descendants.load(Relaxed) < group.max_descendants.load(Relaxed)
                && depth < group.max_depth.load(Relaxed)
        })
    }

    /// Groups below it, at any depth.
    pub fn descendants(&self) -> usize {
        self.descendants.load(Relaxed)
    }

    /// The maximum number of groups below it, and their maximum depth; `usize::MAX` for no limit.
    pub fn shape(&self) -> [&AtomicUsize; 2] {
        [&self.max_descendants, &self.max_depth]
    }

    pub(super) fn is_busy(&self) -> bool {
        self.members.load(Acquire) != 0 || self.named_children.load(Relaxed) != 0
    }

    /// Whether a child group was removed that still has charges.
    pub fn has_ghosts(&self) -> bool {
        self.children.load(Relaxed) > self.named_children.load(Relaxed)
    }

    /// Whether it was removed.
    pub fn is_ghost(&self) -> bool {
        self.is_ghost.load(Relaxed)
    }

    pub(super) fn make_ghost(&self) {
        self.is_ghost.store(true, Relaxed);
    }

    /// Whether it was removed, nothing is charged to it, and none of its threads stalls.
    pub(super) fn is_done(&self) -> bool {
        self.is_ghost()
            && self.own.load(Acquire) == 0
            && self.own_swap.load(Acquire) == 0
            && self.tasks.own() == 0
            && self.children.load(Relaxed) == 0
            && self.pressure.lock().stalled() == 0
    }

    /// The pressure of its threads. Changed under the tree's lock.
    pub(super) fn pressure(&self) -> &SpinLock<Pressure, M> {
        &self.pressure
    }

    /// Its lists for reclaim.
    pub fn lists(&self) -> &M::Lists {
        &self.lists
    }
}

/// Charges: see [`super::charge`].
impl<M: Machine> Group<M> {
    /// Adds pages to `usage` of this group and those above, each up to its limit. If a group is at its limit, returns
    /// that group, with nothing changed.
    pub(super) fn try_charge(&self, pages: usize, may: impl Fn(&Self) -> usize) -> Result<(), &Self> {
        for (n, group) in self.upwards().enumerate() {
            let new = group.usage.fetch_add(pages, Relaxed) + pages;
            if new > may(group) && !seeded!(ChargeIgnoresLimit) {
                // (All of these groups are alive: they are this group's ancestors.)
                self.upwards().take(n + 1).for_each(|group| _ = group.usage.fetch_sub(pages, Relaxed));
                return Err(group);
            }
            if new > group.peak.load(Relaxed) {
                group.peak.fetch_max(new, Relaxed);
            }
        }
        self.own.fetch_add(pages, Relaxed);
        Ok(())
    }

    /// Subtracts pages. The group may be gone when this returns.
    pub(super) fn uncharge(&self, pages: usize) {
        // (Starting at this group: those above exist for as long as it does.)
        self.upwards().for_each(|group| _ = group.usage.fetch_sub(pages, Relaxed));
        let old = self.own.fetch_sub(pages, Release);
        // (Tests find this when they check the books, where a panic is safe.)
        debug_assert!(old >= pages || cfg!(test), "a group has fewer pages than 0");
    }

    /// Counts a page of a memory object that was charged, or whose charge is about to end.
    pub(super) fn count_files(&self, flags: PageFlags, by: isize) {
        self.files.fetch_add(by as usize, Relaxed);
        if flags.contains(PageFlags::SWAP_BACKED) {
            self.shared.fetch_add(by as usize, Relaxed);
        }
    }

    /// Counts what has happened to pages of the group.
    pub(super) fn count_stat(&self, stat: Stat, pages: usize) {
        self.upwards().for_each(|group| _ = group.stats[stat as usize].fetch_add(pages as u64, Relaxed));
    }

    /// Counts pages of the kernel's own that were charged, or whose charge is about to end.
    pub(super) fn count_kernel(&self, which: Kernel, by: isize) {
        self.kernel[which as usize].fetch_add(by as usize, Relaxed);
    }

    /// Adds a swap slot to this group and those above; the error is a group that is at its limit.
    pub(super) fn try_charge_slot(&self) -> Result<(), &Self> {
        for (n, group) in self.upwards().enumerate() {
            if group.swap.fetch_add(1, Relaxed) + 1 > group.limit(Limit::Swap) {
                self.upwards().take(n + 1).for_each(|group| _ = group.swap.fetch_sub(1, Relaxed));
                return Err(group);
            }
        }
        self.own_swap.fetch_add(1, Relaxed);
        Ok(())
    }

    pub(super) fn uncharge_slot(&self) {
        self.upwards().for_each(|group| _ = group.swap.fetch_sub(1, Relaxed));
        self.own_swap.fetch_sub(1, Release);
    }

    /// Moves the charge of a page to a group above, in whose sums it is included already; `None` is the root.
    pub(super) fn hand_over(&self, to: Option<&Self>, file: Option<PageFlags>) {
        if let Some(to) = to {
            to.own.fetch_add(1, Relaxed);
            file.inspect(|flags| to.count_files(*flags, 1));
        }
        // In the groups between the two it is no longer counted.
        let stop = to.map(core::ptr::from_ref);
        let below = self.upwards().take_while(|group| Some(core::ptr::from_ref(*group)) != stop);
        below.for_each(|group| _ = group.usage.fetch_sub(1, Relaxed));
        file.inspect(|flags| self.count_files(*flags, -1));
        self.own.fetch_sub(1, Release);
    }
}
