//! Page frames of address spaces, and of those that take pages from them: the only place that calls the page allocator for
//! them. A holder drops its reference to a frame of user memory by [`rmap::Release`](crate::rmap::Release).

use crate::addr::{Pfn, PhysAddr};
use crate::event::Event;
use crate::fallible::AllocError;
use crate::page::{Page, PageFlags, PageState};
use crate::page_alloc::{Gfp, Machine};

/// A frame for a process's memory, with one reference. Zeroed if asked.
#[inline]
pub fn alloc_user<M: Machine>(machine: M, zeroed: bool) -> Result<Pfn, AllocError> {
    let gfp = if zeroed { Gfp::HIGHUSER_MOVABLE | Gfp::ZERO } else { Gfp::HIGHUSER_MOVABLE };
    let pfn = machine.pages().alloc_raw(0, gfp)?;
    machine.count(Event::UserAlloc, 1);
    Ok(pfn)
}

/// A zeroed frame for programs' memory that stays where it is: never in memory that has to be given back.
pub fn alloc_unmovable<M: Machine>(machine: M) -> Result<Pfn, AllocError> {
    let pfn = machine.pages().alloc_raw(0, Gfp::KERNEL | Gfp::ZERO)?;
    machine.count(Event::UserAlloc, 1);
    Ok(pfn)
}

/// As [`alloc_user`], for a page that the program has not accessed yet: gives up early.
#[inline]
pub fn alloc_ahead<M: Machine>(machine: M) -> Result<Pfn, AllocError> {
    let gfp = Gfp::HIGHMEM | Gfp::MOVABLE | Gfp::NOWAIT | Gfp::NORETRY | Gfp::NOMEMALLOC | Gfp::ZERO;
    let pfn = machine.pages().alloc_raw(0, gfp)?;
    machine.count(Event::UserAlloc, 1);
    Ok(pfn)
}

/// A frame for a page that moves there; nobody is killed for it.
pub fn alloc_to_move<M: Machine>(machine: M) -> Result<Pfn, AllocError> {
    let pfn = machine.pages().alloc_raw(0, Gfp::HIGHUSER_MOVABLE | Gfp::NORETRY | Gfp::NOWARN)?;
    machine.count(Event::UserAlloc, 1);
    Ok(pfn)
}

/// A frame for what makes others free soon: at once, and from the reserves. Under locks.
pub fn alloc_from_reserves<M: Machine>(machine: M) -> Result<Pfn, AllocError> {
    machine.pages().alloc_raw(0, Gfp::MEMALLOC | Gfp::NOWARN | Gfp::NORETRY)
}

/// A frame for a translation table; its contents are undefined.
pub fn alloc_table<M: Machine>(machine: M) -> Result<PhysAddr, AllocError> {
    Ok(machine.pages().alloc_raw(0, Gfp::KERNEL_ACCOUNT)?.addr())
}

/// The record of a frame of the page allocator.
#[inline(always)]
pub fn page<M: Machine>(machine: M, pfn: Pfn) -> &'static Page {
    // SAFETY: callers pass frames of the page allocator, whose records exist as long as the kernel.
    unsafe { Page::of(machine, pfn) }
}

/// Frees a table that no walker can reach any more.
pub fn free_table<M: Machine>(machine: M, table: PhysAddr) {
    free_kernel(machine, table.pfn());
}

/// Frees a frame of the kernel's own.
pub fn free_kernel<M: Machine>(machine: M, pfn: Pfn) {
    // SAFETY: the caller is the only holder and gives it up.
    unsafe { machine.pages().free_pages(pfn, 0) }
}

/// Frees a frame that was allocated for user memory and has not become a page of it, so nothing else can have found it.
#[inline]
pub fn free<M: Machine>(machine: M, pfn: Pfn) {
    machine.count(Event::UserFree, 1);
    // SAFETY: the caller is the only holder and gives it up.
    unsafe { machine.pages().free_pages(pfn, 0) }
}

/// Makes a new frame page `index` of the object at `owner`, with a reference for the object and one for the caller. From
/// now on it can be found, and leads to the object. Under the object's lock, which protects its membership in the
/// object's tree from then on. The flags say what backs it.
#[inline(always)]
pub fn make_object<M: Machine>(machine: M, pfn: Pfn, owner: usize, index: usize, flags: PageFlags) {
    page(machine, pfn).init_shared(PageState::Object, flags, owner, index as u64);
}
