//! Page frames of address spaces, and of those that take pages from them: the only place that calls the page allocator
//! for them. A holder drops its reference to a frame of user memory by [`rmap::Release`](crate::rmap::Release).

use crate::addr::{Pfn, PhysAddr};
use crate::cgroup::{Kernel, Machine};
use crate::event::Event;
use crate::fallible::AllocError;
use crate::page::{Page, PageFlags, PageState};
use crate::page_alloc::Gfp;

/// A frame for a process's memory, charged, with one reference. Zeroed if requested. Waits as long as necessary: the
/// caller holds no lock.
pub fn alloc_user<M: Machine>(machine: M, zeroed: bool) -> Result<Pfn, AllocError> {
    let gfp = if zeroed { Gfp::HIGHUSER_MOVABLE | Gfp::ZERO } else { Gfp::HIGHUSER_MOVABLE };
    let group = machine.groups().charge()?;
    alloc_charged(machine, gfp, group)
}

/// As [`alloc_user`], without waiting; `gfp` must not allow waiting either.
#[inline(always)]
pub(crate) fn alloc_user_now<M: Machine>(machine: M, gfp: Gfp) -> Result<Pfn, AllocError> {
    let group = machine.groups().charge_now()?;
    alloc_charged(machine, gfp, group)
}

/// A frame for user memory that is already charged to a group, which is entered into its record. On an error the charge
/// ends.
#[inline(always)]
pub(crate) fn alloc_charged<M: Machine>(machine: M, gfp: Gfp, group: u16) -> Result<Pfn, AllocError> {
    match machine.pages().alloc_raw(0, gfp) {
        Ok(pfn) => {
            machine.count(Event::UserAlloc, 1);
            if group != 0 {
                note_group(machine, pfn, group);
            }
            Ok(pfn)
        }
        Err(error) => {
            end_charge(machine, group, 1);
            Err(error)
        }
    }
}

/// Enters the group that a new frame is charged to into its record.
#[inline(always)]
pub(crate) fn note_group<M: Machine>(machine: M, pfn: Pfn, group: u16) {
    page(machine, pfn).begin_charge(group);
    machine.pages().note_group(pfn, group);
}

/// Charges the new frame `to`, which nobody knows, in place of the page at `from`, which is frozen, and gives it the
/// same state for reclaim; but on another node, which has other lists, the page counts as new.
pub(crate) fn take_place<M: Machine>(machine: M, from: Pfn, to: Pfn) {
    let is_near = machine.pages().node_of(from) == machine.pages().node_of(to);
    page(machine, to).take_place_of(page(machine, from), is_near);
    let group = page(machine, from).control_group();
    if group != 0 {
        note_group(machine, to, group);
        if !seeded!(MoveChargesTwice) {
            page(machine, from).set_control_group(0);
        }
    }
}

#[cold]
fn end_charge<M: Machine>(machine: M, group: u16, pages: usize) {
    if group != 0 {
        machine.groups().uncharge(group, pages);
    }
}

/// Ends the charge of a frame that will stay for good, and belongs to the machine.
pub(crate) fn forget_charge<M: Machine>(machine: M, pfn: Pfn) {
    let page = page(machine, pfn);
    end_charge(machine, page.control_group(), 1);
    page.set_control_group(0);
}

/// A zeroed frame for programs' memory that cannot move: never in memory that must be evacuable.
pub fn alloc_unmovable<M: Machine>(machine: M) -> Result<Pfn, AllocError> {
    let pfn = machine.pages().alloc_raw(0, Gfp::KERNEL | Gfp::ZERO)?;
    machine.count(Event::UserAlloc, 1);
    Ok(pfn)
}

/// Frames for pages that the program has not accessed yet. Frames that are charged and not allocated are uncharged at
/// the end.
pub(crate) struct Ahead<M: Machine> {
    machine: M,
    group: u16,
    left: usize,
}

impl<M: Machine> Ahead<M> {
    /// For at most so many.
    #[inline(always)]
    pub fn new(machine: M, most: usize) -> Self {
        let (group, left) = machine.groups().charge_ahead(most);
        Self { machine, group, left }
    }

    /// A zeroed frame; gives up early.
    #[inline(always)]
    pub fn alloc(&mut self) -> Result<Pfn, AllocError> {
        let gfp = Gfp::HIGHMEM | Gfp::MOVABLE | Gfp::NOWAIT | Gfp::NORETRY | Gfp::NOMEMALLOC | Gfp::ZERO;
        if self.left == 0 {
            return Err(AllocError);
        }
        let pfn = self.machine.pages().alloc_raw(0, gfp)?;
        self.machine.count(Event::UserAlloc, 1);
        self.left -= 1;
        if self.group != 0 {
            note_group(self.machine, pfn, self.group);
        }
        Ok(pfn)
    }
}

impl<M: Machine> Drop for Ahead<M> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.group != 0 && self.left != 0 {
            self.machine.groups().uncharge(self.group, self.left);
        }
    }
}

/// A zeroed block of 2 MiB for a process's memory, charged, with one reference; does not wait. `point` is called
/// regularly while the block is cleared; if it fails, this does too.
pub(crate) fn alloc_block<M: Machine>(machine: M, order: u32, point: impl Fn() -> bool) -> Result<Pfn, AllocError> {
    const GFP: Gfp = Gfp::HIGHMEM.union(Gfp::MOVABLE).union(Gfp::NOWARN).union(Gfp::NORETRY).union(Gfp::NOMEMALLOC);
    /// The number of pages that are cleared between two points.
    const AT_ONCE: usize = 32;
    let pages = 1 << order;
    let group = machine.groups().charge_block(pages)?;
    let allocated = machine.pages().alloc_raw(order, GFP);
    let Ok(pfn) = allocated else {
        end_charge(machine, group, pages);
        return allocated;
    };
    machine.count(Event::UserAlloc, pages);
    if group != 0 {
        note_group(machine, pfn, group);
    }
    for k in 0..pages {
        machine.clear_page(Pfn(pfn.0 + k).addr());
        if k % AT_ONCE == AT_ONCE - 1 && !point() {
            free_block(machine, pfn, order);
            return Err(AllocError);
        }
    }
    Ok(pfn)
}

/// Frees a block that was allocated for user memory and has not become a page of it.
pub(crate) fn free_block<M: Machine>(machine: M, pfn: Pfn, order: u32) {
    machine.count(Event::UserFree, 1 << order);
    end_charge(machine, page(machine, pfn).control_group(), 1 << order);
    // SAFETY: the caller is the only holder and gives it up.
    unsafe { machine.pages().free_pages(pfn, order) }
}

/// A frame for a page that moves there, and whose charge it takes; no process is killed for it.
pub fn alloc_to_move<M: Machine>(machine: M) -> Result<Pfn, AllocError> {
    let pfn = machine.pages().alloc_raw(0, Gfp::HIGHUSER_MOVABLE | Gfp::NORETRY | Gfp::NOWARN)?;
    machine.count(Event::UserAlloc, 1);
    Ok(pfn)
}

/// A frame that soon allows others to be freed: without waiting, and from the reserves. May be called under locks.
pub fn alloc_from_reserves<M: Machine>(machine: M) -> Result<Pfn, AllocError> {
    machine.pages().alloc_raw(0, Gfp::MEMALLOC | Gfp::NOWARN | Gfp::NORETRY)
}

/// A block of single frames for pages that move there; their charges move with them. No process is killed for it.
pub(crate) fn alloc_places<M: Machine>(machine: M, order: u32) -> Result<Pfn, AllocError> {
    let first = machine.pages().alloc_raw(order, Gfp::HIGHUSER_MOVABLE | Gfp::NORETRY | Gfp::NOWARN)?;
    let frames = 1 << order;
    (0..frames).for_each(|k| page(machine, Pfn(first.0 + k)).make_allocated(0));
    machine.count(Event::UserAlloc, frames);
    Ok(first)
}

/// A frame for a translation table, charged; its contents are undefined. Waits as long as necessary: the caller holds
/// no lock.
pub fn alloc_table<M: Machine>(machine: M) -> Result<PhysAddr, AllocError> {
    let group = machine.groups().charge()?;
    alloc_charged_table(machine, Gfp::KERNEL_ACCOUNT, group).map(Pfn::addr)
}

/// As [`alloc_table`], without waiting; `gfp` must not allow waiting either.
pub(crate) fn alloc_table_now<M: Machine>(machine: M, gfp: Gfp) -> Result<Pfn, AllocError> {
    let group = machine.groups().charge_now()?;
    alloc_charged_table(machine, gfp, group)
}

/// A frame for a table that is already charged to a group, which is entered into its record. On an error the charge
/// ends.
pub(crate) fn alloc_charged_table<M: Machine>(machine: M, gfp: Gfp, group: u16) -> Result<Pfn, AllocError> {
    let allocated = machine.pages().alloc_raw(0, gfp);
    match &allocated {
        // (No scan searches page blocks for tables, so their page blocks need not record the group.)
        Ok(pfn) => page(machine, *pfn).begin_charge(group),
        Err(_) => end_charge(machine, group, 1),
    }
    allocated
}

/// Turns a new, charged frame into a table, whose record has another form; returns the number of its group.
pub(crate) fn make_table<M: Machine>(machine: M, table: PhysAddr) -> u16 {
    let page = page(machine, table.pfn());
    let group = page.control_group();
    page.set_state(PageState::Table);
    machine.groups().count_kernel(group, Kernel::Tables, 1);
    group
}

/// The record of a frame of the page allocator.
#[inline(always)]
pub fn page<M: Machine>(machine: M, pfn: Pfn) -> &'static Page {
    // SAFETY: callers pass frames of the page allocator, whose records exist as long as the kernel.
    unsafe { Page::of(machine, pfn) }
}

/// Frees a table that no walker can reach any more, and that is charged to a group.
pub(crate) fn free_table<M: Machine>(machine: M, table: PhysAddr, group: u16) {
    machine.groups().uncharge_kernel(group, Kernel::Tables, 1);
    free_kernel(machine, table.pfn());
}

/// Frees a frame that was allocated for a table and has not become one.
pub(crate) fn free_unused_table<M: Machine>(machine: M, pfn: Pfn) {
    end_charge(machine, page(machine, pfn).control_group(), 1);
    free_kernel(machine, pfn);
}

/// Frees a frame of the kernel's own.
pub fn free_kernel<M: Machine>(machine: M, pfn: Pfn) {
    // SAFETY: the caller is the only holder and gives it up.
    unsafe { machine.pages().free_pages(pfn, 0) }
}

/// Frees a frame that was allocated for user memory and has not become a page of it, so nothing else can have found it.
#[inline]
pub fn free<M: Machine>(machine: M, pfn: Pfn) {
    free_block(machine, pfn, 0);
}

/// Makes a new frame page `index` of the object at `owner`, with a reference for the object and one for the caller.
/// From now on it can be found, and refers to the object. Under the object's lock, which protects its membership in the
/// object's tree from then on. The flags tell its backing.
#[inline(always)]
pub fn make_object<M: Machine>(machine: M, pfn: Pfn, owner: usize, index: usize, flags: PageFlags) {
    let page = page(machine, pfn);
    machine.groups().count_files(page.control_group(), flags, 1);
    page.init_shared(PageState::Object, flags, owner, index as u64);
}
