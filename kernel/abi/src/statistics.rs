//! What `QUIRE_INFO` tells of the kernel's memory: the records behind pagetypeinfo, slabinfo, vmallocinfo, vmstat and
//! cmainfo. The kinds are in [`info`](crate::layout::info).

use crate::layout::{ORDERS, Pod};

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

/// One slab cache. The last record is no cache: it sums up what is no slab, allocations of whole pages.
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
    /// Pages.
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
}
