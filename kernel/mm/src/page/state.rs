//! The states of a frame, and the flags of an allocated one.

use bitflags::bitflags;

use super::head::STATE_MASK;

/// See the table at the top of [`crate::page`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum PageState {
    Absent = 0,
    Free = 1,
    Cached = 2,
    Slab = 4,
    Kernel = 5,
    Table = 6,
    Whole = 7,
    Anon = 12,
    Object = 13,
}

impl PageState {
    /// All are below this.
    pub const NUMBERS: usize = 16;

    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Absent,
        Self::Free,
        Self::Cached,
        Self::Slab,
        Self::Kernel,
        Self::Table,
        Self::Whole,
        Self::Anon,
        Self::Object,
    ];

    #[inline(always)]
    pub(super) const fn of(head: u64) -> Self {
        match head & STATE_MASK {
            1 => Self::Free,
            2 => Self::Cached,
            4 => Self::Slab,
            5 => Self::Kernel,
            6 => Self::Table,
            7 => Self::Whole,
            12 => Self::Anon,
            13 => Self::Object,
            _ => Self::Absent,
        }
    }

    /// The bit that all states of an allocated frame have, and no other.
    pub(super) const ALLOCATED: u64 = 1 << 2;
    /// The bit that only user pages have.
    pub(super) const USER: u64 = 1 << 3;

    /// Whether the frame is allocated.
    pub const fn is_allocated(self) -> bool {
        self as u64 & Self::ALLOCATED != 0
    }

    /// Whether it is a page of user memory, which other threads than its holders may find by its record.
    pub const fn is_user(self) -> bool {
        self as u64 & Self::USER != 0
    }
}

bitflags! {
    /// Flags of an allocated frame.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PageFlags: u32 {
        /// The page lock: see [`Page::try_lock`](super::Page::try_lock).
        const LOCKED = 1 << 8;
        /// Differs from what backs it.
        const DIRTY = 1 << 9;
        /// Being written to its backing store.
        const WRITEBACK = 1 << 10;
        /// Used since reclaim last checked.
        const REFERENCED = 1 << 11;
        /// Backed by swap rather than by a file.
        const SWAP_BACKED = 1 << 16;
        /// Has a slot in swap.
        const SWAP_CACHE = 1 << 17;
        /// Its contents are valid.
        const UPTODATE = 1 << 18;
        /// Whoever has the file can supply it again.
        const PAGED = 1 << 20;
        /// Came back from swap; `next` is its shadow, until reclaim has seen it.
        const RETURNED = 1 << 19;
        /// The block is one page of `1 << order` frames ([`compound_head`](super::compound_head)).
        const COMPOUND = 1 << 21;
        /// Reading it failed.
        const ERROR = 1 << 22;
        /// One thread is taking it elsewhere: see [`Page::isolate`](super::Page::isolate).
        const ISOLATED = 1 << 23;

        /// Freeing a frame with one of these set is a bug of the caller.
        const NOT_WHEN_FREED = Self::LOCKED.bits() | Self::WRITEBACK.bits()
            | Self::SWAP_CACHE.bits() | Self::ISOLATED.bits();
    }
}
