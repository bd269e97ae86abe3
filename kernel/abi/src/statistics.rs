//! What `QUIRE_INFO` tells of memory: the records behind pagetypeinfo, slabinfo, vmallocinfo, vmstat, cmainfo and
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

/// One slab cache. The last record is no cache: it sums up what is no slab, allocations of whole
/// pages and the arrays in which CPUs keep free objects at hand.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct SlabCacheInfo {
    /// Name, NUL-padded.
    pub name: [u8; 32],
    /// Bytes of an object that its owner may use; 0 for whole pages.
    pub object_size: u32,
    /// Bytes from one object to the next.
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

/// What an area of kernel addresses is for.
#[allow(missing_docs)]
pub mod area {
    pub const VMALLOC: u32 = 0;
    pub const VMAP: u32 = 1;
    pub const IOREMAP: u32 = 2;
}

/// One area of vmalloc's range. Asked for by address: the `index` of `QUIRE_INFO` is where to look from, and the
/// answer is the first area that ends behind it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct VmallocInfo {
    /// The first byte.
    pub start: u64,
    /// One past the guard page.
    pub end: u64,
    /// The physical address of areas that are contiguous there; `u64::MAX` else.
    pub phys: u64,
    /// Mapped pages.
    pub pages: u64,
    /// [`area`].
    pub kind: u32,
    /// 1 for an area that was freed and waits for its invalidation.
    pub lazy: u32,
    /// Who asked for it: file and line, NUL-padded.
    pub caller: [u8; 64],
}

impl Default for VmallocInfo {
    fn default() -> Self {
        Self { start: 0, end: 0, phys: 0, pages: 0, kind: 0, lazy: 0, caller: [0; 64] }
    }
}

/// One line of vmstat. `nr_` counts what there is now, in pages; the others count what has happened since boot.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Counter {
    /// Name, NUL-padded.
    pub name: [u8; 24],
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
    /// What its owners have.
    pub used: u64,
    /// Allocations that succeeded.
    pub allocated: u64,
    /// Allocations that failed.
    pub failed: u64,
}

/// What an area of a process is.
#[allow(missing_docs)]
pub mod vma {
    pub const READ: u32 = 1;
    pub const WRITE: u32 = 1 << 1;
    pub const EXEC: u32 = 1 << 2;
    pub const SHARED: u32 = 1 << 3;
    pub const STACK: u32 = 1 << 4;
    pub const HEAP: u32 = 1 << 5;
    pub const LOCKED: u32 = 1 << 6;
    /// It maps an object: a file if there is a name, else memory.
    pub const OBJECT: u32 = 1 << 7;
}

/// A part of an area of a process, and what of it is in memory, as `/proc/PID/smaps` of Linux tells: counts are in pages.
/// Asked for by address, as [`VmallocInfo`] is: the answer is for the first area that ends behind it. The counts begin
/// there and go to `to`, for a large area not to its end: who wants all of it asks again from there.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct AreaInfo {
    /// The area's first byte.
    pub start: u64,
    /// One past its last.
    pub end: u64,
    /// One past the part that is counted.
    pub to: u64,
    /// The page of the object at the area's start.
    pub index: u64,
    /// Mapped and in memory (Rss).
    pub resident: u64,
    /// Of these, touched since they were made old (Referenced).
    pub referenced: u64,
    /// Of these, anonymous (Anonymous).
    pub anon: u64,
    /// Mapped here alone, and not written (Private_Clean).
    pub private_clean: u64,
    /// Mapped here alone, and written (Private_Dirty).
    pub private_dirty: u64,
    /// Held by others too, and not written (Shared_Clean).
    pub shared_clean: u64,
    /// Held by others too, and written (Shared_Dirty).
    pub shared_dirty: u64,
    /// In swap (Swap).
    pub swapped: u64,
    /// [`vma`].
    pub flags: u32,
    /// 0.
    pub pad: u32,
    /// The path of the file that it maps, NUL-padded.
    pub name: [u8; 64],
}

impl AreaInfo {
    /// Adds what another part of the same area has.
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
    }

    /// Pages that were written, whoever holds them.
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
    SlabCacheInfo = 32 + 4 + 4 + 4 * 8;
    VmallocInfo = 4 * 8 + 4 + 4 + 64;
    Counter = 24 + 8;
    CmaInfo = 5 * 8;
    AreaInfo = 12 * 8 + 4 + 4 + 64;
}
