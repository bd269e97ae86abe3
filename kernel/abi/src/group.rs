//! Control groups: what `QUIRE_GROUP` does, and what `QUIRE_INFO` says of them. Numbers are pages.

use crate::layout::Pod;

/// What `QUIRE_GROUP` does; the handle of machine control is its first argument, the operation its second one.
pub mod op {
    /// Makes a group below the group x2 (0 is the root), with the name at x3, of x4 bytes; its key.
    pub const MAKE: usize = 0;
    /// Removes the group x2.
    pub const REMOVE: usize = 1;
    /// The key of the group below x2 with the name at x3, of x4 bytes.
    pub const FIND: usize = 2;
    /// Sets x3, one of [`set`](super::set), of the group x2 to x4.
    pub const SET: usize = 3;
    /// Moves the process x3 to the group x2.
    pub const MOVE: usize = 4;
    /// Takes x3 pages of the group x2 out of memory; how many it could.
    pub const RECLAIM: usize = 5;
    /// Kills all processes of the group x2 and below.
    pub const KILL: usize = 6;
}

/// What can be set. The limits have the places of [`GroupInfo::limits`].
pub mod set {
    /// Limits in pages; `u64::MAX` is none.
    pub const MIN: usize = 0;
    /// See [`MIN`].
    pub const LOW: usize = 1;
    /// See [`MIN`].
    pub const HIGH: usize = 2;
    /// See [`MIN`].
    pub const MAX: usize = 3;
    /// Slots of swap.
    pub const SWAP: usize = 4;
    /// Tasks.
    pub const TASKS: usize = 5;
    /// Whether all its processes are killed when one is.
    pub const KILLS_ALL: usize = 6;
    /// What of the groups below it can be limited: bits of [`controller`](super::controller).
    pub const DISTRIBUTES: usize = 7;
    /// The most memory that it had counts anew.
    pub const PEAK: usize = 8;
    /// Whether it is frozen, with all below.
    pub const FREEZES: usize = 9;
    /// How many groups there may be below it.
    pub const MAX_DESCENDANTS: usize = 10;
    /// How deep they may lie in each other.
    pub const MAX_DEPTH: usize = 11;
}

/// What can be limited; the kernel's part of it is to keep these bits.
pub mod controller {
    /// Memory.
    pub const MEMORY: u32 = 1;
    /// Tasks.
    pub const TASKS: u32 = 2;
    /// All.
    pub const ALL: u32 = MEMORY | TASKS;
}

/// The places of [`GroupInfo::events`].
pub mod event {
    /// Reclaim for the machine has taken pages below `low`.
    pub const LOW: usize = 0;
    /// It was above `high`.
    pub const HIGH: usize = 1;
    /// It was about to go above `max`.
    pub const MAX: usize = 2;
    /// It was out of memory.
    pub const OOM: usize = 3;
    /// A process was killed for that.
    pub const OOM_KILL: usize = 4;
    /// All were.
    pub const OOM_GROUP_KILL: usize = 5;
    /// A page could not go to swap.
    pub const SWAP_MAX: usize = 6;
    /// A task was refused.
    pub const TASKS_MAX: usize = 7;
}

/// The places of [`GroupInfo::stats`]: pages that something has happened to.
pub mod stat {
    /// They came back from swap.
    pub const SWAP_IN: usize = 0;
    /// They went to swap.
    pub const SWAP_OUT: usize = 1;
    /// A program has given them up.
    pub const LAZY_FREE: usize = 2;
    /// They were freed as they were given up.
    pub const LAZY_FREED: usize = 3;
    /// They left memory, one way or the other.
    pub const LEFT: usize = 4;
}

/// The longest name of a group, in bytes.
pub const NAME_MAX: usize = 255;

/// A control group.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct GroupInfo {
    /// Names it for good; the low 16 bits are its number.
    pub key: u64,
    /// The group above it, 0 for the root.
    pub parent: u64,
    /// Pages charged to it and the groups below.
    pub usage: u64,
    /// The most that was.
    pub peak: u64,
    /// Slots of swap, of it and the groups below.
    pub swap: u64,
    /// Pages charged to it alone.
    pub own: u64,
    /// Of these, pages of memory objects.
    pub files: u64,
    /// Of those, pages that go to swap: shared memory, and files in memory.
    pub shared: u64,
    /// Of `own`, pages of translation tables.
    pub tables: u64,
    /// Of `own`, pages of threads' kernel stacks.
    pub stacks: u64,
    /// Tasks, of it and the groups below: processes that were not waited for, and further threads.
    pub tasks: u64,
    /// The most that there were.
    pub tasks_peak: u64,
    /// [`set::MIN`] to [`set::TASKS`].
    pub limits: [u64; 6],
    /// By [`event`], here and below.
    pub events: [u64; 8],
    /// Here.
    pub own_events: [u64; 8],
    /// By [`stat`], here and below.
    pub stats: [u64; 5],
    /// How often it has become populated or not, frozen or not.
    pub changes: u64,
    /// Groups below it, and how many there may be, and how deep.
    pub descendants: u64,
    /// `u64::MAX` for no limit.
    pub max_descendants: u64,
    /// `u64::MAX` for no limit.
    pub max_depth: u64,
    /// Processes in it.
    pub members: u32,
    /// Whether all its processes are killed when one is.
    pub kills_all: u32,
    /// What of the groups below it can be limited, as [`set::DISTRIBUTES`].
    pub distributes: u32,
    /// Whether there are processes in it or below.
    pub is_populated: u32,
    /// Whether it is to be frozen itself.
    pub freezes: u32,
    /// Whether all its processes are frozen, and those below.
    pub is_frozen: u32,
    /// Its name, NUL-padded.
    pub name: [u8; NAME_MAX + 1],
}

impl Default for GroupInfo {
    fn default() -> Self {
        Self {
            key: 0,
            parent: 0,
            usage: 0,
            peak: 0,
            swap: 0,
            own: 0,
            files: 0,
            shared: 0,
            tables: 0,
            stacks: 0,
            tasks: 0,
            tasks_peak: 0,
            limits: [0; 6],
            events: [0; 8],
            own_events: [0; 8],
            stats: [0; 5],
            changes: 0,
            descendants: 0,
            max_descendants: 0,
            max_depth: 0,
            members: 0,
            kills_all: 0,
            distributes: 0,
            is_populated: 0,
            freezes: 0,
            is_frozen: 0,
            name: [0; NAME_MAX + 1],
        }
    }
}

// SAFETY: a `repr(C)` record of integers and arrays of integers; its size is that of its fields, so there is no
// padding.
unsafe impl Pod for GroupInfo {}
const _: () = assert!(size_of::<GroupInfo>() == 43 * 8 + 6 * 4 + 256);
