//! Memory statistics from `QUIRE_INFO`: the records behind pagetypeinfo, slabinfo, vmallocinfo, vmstat, cmainfo and
//! pmap. The kinds are in [`info::kind`](crate::info::kind).

use crate::info::ORDERS;
use crate::layout::Pod;

/// The page blocks, and the free blocks, of one migrate type in one zone.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct PageTypeInfo {
    /// Node number.
    pub node: u32,
    /// The migrate type's number.
    pub migrate_type: u32,
    /// The zone's name, NUL-padded.
    pub zone: [u8; 8],
    /// The migrate type's name, NUL-padded.
    pub name: [u8; 16],
    /// Page blocks (2 MiB each) of this type.
    pub page_blocks: u64,
    /// Free blocks of each order.
    pub free: [u64; ORDERS],
}

/// Pages in a page block: 2 MiB.
pub const BLOCK_PAGES: u64 = 512;

/// Page blocks of one zone, starting with a given one. Page block `n` begins at the byte `n << 21`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PageBlocks {
    /// The number of the first page block.
    pub first: u64,
    /// How many words of `blocks` are used: at least 1.
    pub count: u32,
    /// 0.
    pub pad: u32,
    /// For each page block, the number of its free pages ([`PageBlocks::FREE`]), without those on per-CPU lists, and
    /// its migrate type, from [`PageBlocks::TYPE_SHIFT`] on; [`PageBlocks::NONE`] for one that does not belong to the
    /// zone.
    pub blocks: [u16; PageBlocks::ROOM],
}

impl PageBlocks {
    /// The maximum number of page blocks in a record.
    pub const ROOM: usize = 256;
    /// The bits with the number of free pages.
    pub const FREE: u16 = 0xfff;
    /// The shift of the migrate type.
    pub const TYPE_SHIFT: u32 = 12;
    /// The page block does not belong to the zone.
    pub const NONE: u16 = u16::MAX;
}

impl Default for PageBlocks {
    fn default() -> Self {
        Self { first: 0, count: 0, pad: 0, blocks: [Self::NONE; Self::ROOM] }
    }
}

/// What a frame is used for: an index into [`BlockUse::counts`], and the low bits of a word of [`BlockFrames`].
#[allow(missing_docs)]
pub mod frame_use {
    /// In no block: a hole, or reserved at boot.
    pub const RESERVED: usize = 0;
    pub const FREE: usize = 1;
    /// On a per-CPU list.
    pub const PER_CPU: usize = 2;
    pub const SLAB: usize = 3;
    /// The kernel's in another way.
    pub const KERNEL: usize = 4;
    /// A translation table.
    pub const TABLE: usize = 5;
    /// Anonymous memory of programs.
    pub const ANON: usize = 6;
    /// A page of a memory object: of a file, or of shared memory.
    pub const OBJECT: usize = 7;

    /// How many there are.
    pub const COUNT: usize = 8;
}

/// What the frames of page blocks are used for. Blocks change while they are read: the counts of each block are from
/// about the same moment.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BlockUse {
    /// The number of the first page block.
    pub first: u64,
    /// How many of `counts` are used: at least 1.
    pub count: u32,
    /// 0.
    pub pad: u32,
    /// The frames of each page block, by [`frame_use`]; all 0 for one that does not belong to the zone.
    pub counts: [[u16; frame_use::COUNT]; BlockUse::ROOM],
}

impl BlockUse {
    /// The maximum number of page blocks in a record.
    pub const ROOM: usize = 26;
}

impl Default for BlockUse {
    fn default() -> Self {
        Self { first: 0, count: 0, pad: 0, counts: [[0; frame_use::COUNT]; Self::ROOM] }
    }
}

/// Every frame of a page block.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BlockFrames {
    /// The number of the page block.
    pub number: u64,
    /// The state of each frame: see the constants.
    pub frames: [u32; BLOCK_PAGES as usize],
}

impl BlockFrames {
    /// The bits with the use ([`frame_use`]).
    pub const USE: u32 = 0xf;
    /// The shift of the order (4 bits) of the block of frames that contains the frame.
    pub const ORDER_SHIFT: u32 = 4;
    /// The frame is the first one of that block.
    pub const FIRST: u32 = 1 << 8;
    /// The shift of the flags (8 bits): [`frame_flag`](crate::translation::frame_flag).
    pub const FLAGS_SHIFT: u32 = 9;
    /// The shift of the number of references; 255 means 255 or more.
    pub const REFERENCES_SHIFT: u32 = 24;
}

impl Default for BlockFrames {
    fn default() -> Self {
        Self { number: 0, frames: [0; BLOCK_PAGES as usize] }
    }
}

/// One slab cache. The last record is not a cache: it counts allocations of whole pages and the per-CPU arrays of free
/// objects.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct SlabCacheInfo {
    /// Name, NUL-padded.
    pub name: [u8; 32],
    /// Bytes of an object that its owner may use; 0 for whole pages.
    pub object_size: u32,
    /// The distance from one object to the next, in bytes.
    pub stride: u32,
    /// Objects handed out.
    pub active: u64,
    /// Objects that the slabs have room for.
    pub total: u64,
    /// Slabs.
    pub slabs: u64,
    /// Pages of the slabs.
    pub pages: u64,
}

/// The uses of areas of kernel addresses.
#[allow(missing_docs)]
pub mod area {
    pub const VMALLOC: u32 = 0;
    pub const VMAP: u32 = 1;
    pub const IOREMAP: u32 = 2;
}

/// One area of vmalloc's range. The `index` of `QUIRE_INFO` is an address, and the answer is the first area that ends
/// above it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct VmallocInfo {
    /// The first byte.
    pub start: u64,
    /// One past the guard page.
    pub end: u64,
    /// The physical address if the area is physically contiguous, otherwise `u64::MAX`.
    pub phys: u64,
    /// Mapped pages.
    pub pages: u64,
    /// [`area`].
    pub kind: u32,
    /// 1 for an area that was freed and still has to be invalidated in the TLBs.
    pub lazy: u32,
    /// The caller that allocated it: file and line, NUL-padded.
    pub caller: [u8; 64],
}

impl Default for VmallocInfo {
    fn default() -> Self {
        Self { start: 0, end: 0, phys: 0, pages: 0, kind: 0, lazy: 0, caller: [0; 64] }
    }
}

/// One line of vmstat. Names with `nr_` give current amounts, in pages; the others count events since boot.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Counter {
    /// Name, NUL-padded.
    pub name: [u8; 32],
    /// Its value.
    pub value: u64,
}

/// One contiguous memory area; counts are in pages.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct CmaInfo {
    /// The first byte.
    pub start: u64,
    /// Its size.
    pub pages: u64,
    /// Pages allocated to its owners.
    pub used: u64,
    /// Allocations that succeeded.
    pub allocated: u64,
    /// Allocations that failed.
    pub failed: u64,
}

/// The maximum number of generations of hot pages.
pub const GENERATIONS: usize = 8;

/// Reclaim's lists of a node, for the pages of one control group or of none. (The counts of hot pages and of all pages
/// are from the last time that reclaim looked at each page.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ListsInfo {
    /// Cold pages whose access flag has not been cleared yet, and so says nothing.
    pub fresh: u64,
    /// Cold pages whose access flag was cleared.
    pub watched: u64,
    /// Hot pages.
    pub hot: u64,
    /// Pages of programs, including those that are on no list yet or cannot be reclaimed.
    pub pages: u64,
    /// Of these, pages that were found to be mapped by a locked area.
    pub locked: u64,
    /// How often reclaim has looked at each page; 0 if it was never needed.
    pub rounds: u64,
    /// Generations of hot pages.
    pub generations: u64,
    /// Hot pages of each generation, the oldest one first.
    pub hot_by_age: [u64; GENERATIONS],
    /// For each generation, how many eighths of the pages have left memory since it began.
    pub begun: [u64; GENERATIONS],
}

/// The swap store. All numbers except the bytes are pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SwapInfo {
    /// The most slots.
    pub slots: u64,
    /// Slots in use.
    pub used: u64,
    /// Of these, pages filled with one repeated word.
    pub same: u64,
    /// Of these, pages that are stored uncompressed.
    pub raw: u64,
    /// The compressed size of all other pages, in bytes.
    pub bytes: u64,
    /// Frames that the store uses.
    pub frames: u64,
}

/// Flags of a process's area.
#[allow(missing_docs)]
pub mod vma {
    pub const READ: u32 = 1;
    pub const WRITE: u32 = 1 << 1;
    pub const EXEC: u32 = 1 << 2;
    pub const SHARED: u32 = 1 << 3;
    pub const STACK: u32 = 1 << 4;
    pub const HEAP: u32 = 1 << 5;
    pub const LOCKED: u32 = 1 << 6;
    /// The area maps an object: a file if it has a name, otherwise shared memory.
    pub const OBJECT: u32 = 1 << 7;
}

/// A part of a process's area, with the counts of Linux's `/proc/PID/smaps`, in pages. As with [`VmallocInfo`], the
/// `index` is an address, and the answer describes the first area that ends above it. The counts cover the part from
/// that address to `to`. A large area may extend beyond `to`: a caller that wants the whole area asks again from there.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct AreaInfo {
    /// The area's first byte.
    pub start: u64,
    /// One past its last.
    pub end: u64,
    /// The end of the counted part (exclusive).
    pub to: u64,
    /// The index of the object's page at the start of the area.
    pub index: u64,
    /// Mapped and in memory (Rss).
    pub resident: u64,
    /// Of these, pages accessed since their access flag was last cleared (Referenced).
    pub referenced: u64,
    /// Of these, anonymous (Anonymous).
    pub anon: u64,
    /// Mapped only here, and clean (Private_Clean).
    pub private_clean: u64,
    /// Mapped only here, and dirty (Private_Dirty).
    pub private_dirty: u64,
    /// Mapped or held by others too, and clean (Shared_Clean).
    pub shared_clean: u64,
    /// Mapped or held by others too, and dirty (Shared_Dirty).
    pub shared_dirty: u64,
    /// In swap (Swap).
    pub swapped: u64,
    /// Marked by MADV_FREE, and not written since (LazyFree).
    pub lazy_free: u64,
    /// Mapped in blocks of 2 MiB (AnonHugePages).
    pub huge: u64,
    /// [`vma`].
    pub flags: u32,
    /// 0.
    pub pad: u32,
    /// The path of the file that it maps, NUL-padded.
    pub name: [u8; 64],
}

impl AreaInfo {
    /// Adds the counts of another part of the same area.
    pub fn add(&mut self, part: &Self) {
        self.to = part.to;
        self.resident += part.resident;
        self.referenced += part.referenced;
        self.anon += part.anon;
        self.private_clean += part.private_clean;
        self.private_dirty += part.private_dirty;
        self.shared_clean += part.shared_clean;
        self.shared_dirty += part.shared_dirty;
        self.swapped += part.swapped;
        self.lazy_free += part.lazy_free;
        self.huge += part.huge;
    }

    /// Dirty pages, private and shared.
    pub fn dirty(&self) -> u64 {
        self.private_dirty + self.shared_dirty
    }
}

impl Default for AreaInfo {
    fn default() -> Self {
        Self {
            start: 0,
            end: 0,
            to: 0,
            index: 0,
            resident: 0,
            referenced: 0,
            anon: 0,
            private_clean: 0,
            private_dirty: 0,
            shared_clean: 0,
            shared_dirty: 0,
            swapped: 0,
            lazy_free: 0,
            huge: 0,
            flags: 0,
            pad: 0,
            name: [0; 64],
        }
    }
}

macro_rules! pod {
    ($($t:ty = $size:expr;)*) => {
        $(
            // SAFETY: a `repr(C)` record of integers and arrays of integers; its size is that of its fields, so
            // there is no padding.
            unsafe impl Pod for $t {}
            const _: () = assert!(size_of::<$t>() == $size);
        )*
    };
}

pod! {
    PageTypeInfo = 4 + 4 + 8 + 16 + 8 + 8 * ORDERS;
    PageBlocks = 8 + 4 + 4 + 2 * PageBlocks::ROOM;
    BlockUse = 8 + 4 + 4 + 2 * frame_use::COUNT * BlockUse::ROOM;
    BlockFrames = 8 + 4 * BLOCK_PAGES as usize;
    SlabCacheInfo = 32 + 4 + 4 + 4 * 8;
    VmallocInfo = 4 * 8 + 4 + 4 + 64;
    Counter = 32 + 8;
    CmaInfo = 5 * 8;
    ListsInfo = (7 + 2 * GENERATIONS) * 8;
    SwapInfo = 6 * 8;
    AreaInfo = 13 * 8 + 4 + 4 + 64 + 8;
}
