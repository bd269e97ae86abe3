//! Control groups: the operations of `QUIRE_GROUP`, and the records that `QUIRE_INFO` returns for them. Memory is
//! counted in pages.

use crate::layout::Pod;

/// Operations of `QUIRE_GROUP`. The first argument of the call is a handle of machine control, the second one is the
/// operation.
pub mod op {
    /// Makes a group below the group x2 (0 is the root), with the name of x4 bytes at x3; returns its key.
    pub const MAKE: usize = 0;
    /// Removes the group x2.
    pub const REMOVE: usize = 1;
    /// Returns the key of the group below x2 that has the name of x4 bytes at x3.
    pub const FIND: usize = 2;
    /// Sets the attribute x3, one of [`set`](super::set), of the group x2 to x4.
    pub const SET: usize = 3;
    /// Moves the process x3 to the group x2.
    pub const MOVE: usize = 4;
    /// Reclaims x3 pages of the group x2; returns how many could be reclaimed.
    pub const RECLAIM: usize = 5;
    /// Kills all processes of the group x2 and of the groups below it.
    pub const KILL: usize = 6;
}

/// Attributes that can be set. Limits have the same positions in [`GroupInfo::limits`].
pub mod set {
    /// Limits in pages; `u64::MAX` means no limit.
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
    /// Whether all processes of the group are killed when one is.
    pub const KILLS_ALL: usize = 6;
    /// The controllers for the groups below it: bits of [`controller`](super::controller).
    pub const DISTRIBUTES: usize = 7;
    /// Resets the peak of its memory usage.
    pub const PEAK: usize = 8;
    /// Whether it is frozen, together with the groups below it.
    pub const FREEZES: usize = 9;
    /// The maximum number of groups below it.
    pub const MAX_DESCENDANTS: usize = 10;
    /// The maximum depth of the groups below it.
    pub const MAX_DEPTH: usize = 11;
}

/// Resources that can be limited; the kernel only stores these bits.
pub mod controller {
    /// Memory.
    pub const MEMORY: u32 = 1;
    /// Tasks.
    pub const TASKS: u32 = 2;
    /// All.
    pub const ALL: u32 = MEMORY | TASKS;
}

/// The indices of [`GroupInfo::events`].
pub mod event {
    /// Reclaim for the machine took pages although the group was below `low`.
    pub const LOW: usize = 0;
    /// The usage was above `high`.
    pub const HIGH: usize = 1;
    /// The usage was about to go above `max`.
    pub const MAX: usize = 2;
    /// The group was out of memory.
    pub const OOM: usize = 3;
    /// A process was killed because of that.
    pub const OOM_KILL: usize = 4;
    /// All processes were killed.
    pub const OOM_GROUP_KILL: usize = 5;
    /// A page could not be swapped out because of the limit.
    pub const SWAP_MAX: usize = 6;
    /// A task was refused.
    pub const TASKS_MAX: usize = 7;
}

/// The indices of [`GroupInfo::stats`]: numbers of pages by what happened to them.
pub mod stat {
    /// Swapped in.
    pub const SWAP_IN: usize = 0;
    /// Swapped out.
    pub const SWAP_OUT: usize = 1;
    /// Marked by a program as freeable.
    pub const LAZY_FREE: usize = 2;
    /// Freed after having been marked so.
    pub const LAZY_FREED: usize = 3;
    /// Left memory in any way.
    pub const LEFT: usize = 4;
}

/// The longest name of a group, in bytes.
pub const NAME_MAX: usize = 255;

/// A control group.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct GroupInfo {
    /// Identifies the group for good; the low 16 bits are its number.
    pub key: u64,
    /// The key of the group above it, 0 for the root.
    pub parent: u64,
    /// Pages charged to it and to the groups below it.
    pub usage: u64,
    /// The highest usage so far.
    pub peak: u64,
    /// Swap slots of it and of the groups below it.
    pub swap: u64,
    /// Pages charged to the group itself.
    pub own: u64,
    /// Of these, pages of memory objects.
    pub files: u64,
    /// Of those, pages that can be swapped out: shared memory, and files in memory.
    pub shared: u64,
    /// Of `own`, pages of translation tables.
    pub tables: u64,
    /// Of `own`, pages of threads' kernel stacks.
    pub stacks: u64,
    /// Tasks of it and of the groups below it: processes that have not been waited for, and further threads.
    pub tasks: u64,
    /// The highest number of tasks so far.
    pub tasks_peak: u64,
    /// [`set::MIN`] to [`set::TASKS`].
    pub limits: [u64; 6],
    /// By [`event`], of it and of the groups below it.
    pub events: [u64; 8],
    /// By [`event`], of the group itself.
    pub own_events: [u64; 8],
    /// By [`stat`], of it and of the groups below it.
    pub stats: [u64; 5],
    /// How often it has become populated or unpopulated, frozen or thawed.
    pub changes: u64,
    /// The number of groups below it.
    pub descendants: u64,
    /// The maximum of that number; `u64::MAX` for no limit.
    pub max_descendants: u64,
    /// Their maximum depth; `u64::MAX` for no limit.
    pub max_depth: u64,
    /// Processes in it.
    pub members: u32,
    /// Whether all its processes are killed when one is.
    pub kills_all: u32,
    /// The controllers for the groups below it, as [`set::DISTRIBUTES`].
    pub distributes: u32,
    /// Whether there are processes in it or in the groups below it.
    pub is_populated: u32,
    /// Whether the group itself was told to freeze.
    pub freezes: u32,
    /// Whether all processes in it and in the groups below it are frozen.
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
