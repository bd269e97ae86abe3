//! Handles: a block of frames that frees itself, and a list of blocks that are freed together.

use core::mem::ManuallyDrop;
use core::num::NonZero;
use core::sync::atomic::Ordering::Relaxed;

use crate::addr::{PAGE_SIZE, Pfn, PhysAddr};
use crate::page::{Page, link, linked};
use crate::page_alloc::Machine;

/// The owner of a block of `1 << order` frames, which frees them when it is dropped.
#[must_use]
pub struct PageBlock<M: Machine> {
    machine: M,
    pfn: NonZero<u32>,
    order: u8,
}

impl<M: Machine> PageBlock<M> {
    /// Takes ownership of a block.
    ///
    /// # Safety
    /// The block was allocated at this order from this machine's allocator and has no other owner.
    #[inline]
    pub unsafe fn from_raw(machine: M, pfn: Pfn, order: u32) -> Self {
        debug_assert!(pfn.0 != 0);
        // SAFETY: frame 0 is never allocated.
        Self { machine, pfn: unsafe { NonZero::new_unchecked(link(pfn)) }, order: order as u8 }
    }

    /// Gives up ownership: the caller must then free the block.
    #[inline]
    pub fn into_raw(self) -> Pfn {
        ManuallyDrop::new(self).pfn()
    }

    /// The first frame.
    #[inline]
    pub fn pfn(&self) -> Pfn {
        Pfn(self.pfn.get() as usize)
    }

    /// The first byte.
    #[inline]
    pub fn addr(&self) -> PhysAddr {
        self.pfn().addr()
    }

    /// log2 of the number of frames.
    #[inline]
    pub fn order(&self) -> u32 {
        self.order.into()
    }

    /// Bytes in the block.
    #[inline]
    pub fn size(&self) -> usize {
        PAGE_SIZE << self.order
    }

    /// The record of the first frame.
    #[inline]
    pub fn page(&self) -> &'static Page {
        // SAFETY: an allocated frame has a record.
        unsafe { Page::of(self.machine, self.pfn()) }
    }

    /// The kernel's address of the first byte.
    #[inline]
    pub fn as_ptr(&self) -> *mut u8 {
        self.machine.direct_map(self.addr())
    }
}

impl<M: Machine> Drop for PageBlock<M> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the block was allocated at this order, and this was its only owner.
        unsafe { self.machine.pages().free_pages(self.pfn(), self.order()) }
    }
}

impl<M: Machine> core::fmt::Debug for PageBlock<M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?} order {}", self.pfn(), self.order)
    }
}

/// Allocated blocks, chained through their records, which needs no memory: for example pages that wait for a TLB flush
/// before [`free_batch`](crate::page_alloc::PageAllocator::free_batch) frees them. Dropping a list that is not empty
/// would leak, so it is a bug.
#[must_use]
#[derive(Debug, Default)]
pub struct PageList {
    first: u32,
    len: u32,
}

impl PageList {
    /// An empty list.
    pub const fn new() -> Self {
        Self { first: 0, len: 0 }
    }

    /// Adds a block by its head.
    ///
    /// # Safety
    /// The caller owns the block and gives it to the list; its `next` link is free for use.
    #[inline]
    pub unsafe fn push<M: Machine>(&mut self, machine: M, pfn: Pfn) {
        // SAFETY: an allocated frame has a record.
        unsafe { Page::of(machine, pfn) }.next().store(self.first, Relaxed);
        self.first = link(pfn);
        self.len += 1;
    }

    /// Takes the block that was added last; the caller becomes its owner.
    #[inline]
    pub fn pop<M: Machine>(&mut self, machine: M) -> Option<Pfn> {
        let pfn = Pfn(linked(self.first)?.get() as usize);
        // SAFETY: it was owned when it was pushed, so it has a record.
        self.first = unsafe { Page::of(machine, pfn) }.next().load(Relaxed);
        self.len -= 1;
        Some(pfn)
    }

    /// Blocks on the list.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for PageList {
    fn drop(&mut self) {
        debug_assert!(self.first == 0, "a list of pages is dropped with pages on it");
    }
}
