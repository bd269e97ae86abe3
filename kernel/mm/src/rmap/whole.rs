//! Whole pages: 512 frames of anonymous memory with one record, for block entries of 2 MiB (docs/huge-pages.md).
//!
//! A block entry holds a reference of a whole page, or one of each of its 512 pages if it was taken apart. Whoever holds some drops
//! them by [`Release::block`], which looks which it is. Nobody else has references of a whole page, since it cannot be found, so
//! its count is that of its holders; each of the 512 records that [`take_apart`] writes gets the same count.
//!
//! The page lock (`Rank::Whole`) protects the count of a whole page, its owner, and that it is whole. It is held for a bounded time, the
//! longest is 512 records; nothing but the counts of anon_vmas and the page allocator's is touched under it.

use core::mem::ManuallyDrop;
use core::ptr;

use super::{AnonVma, Machine, Release};
use crate::addr::Pfn;
use crate::event::Event;
use crate::fallible::KArc;
use crate::frame::page;
use crate::page::{Page, PageFlags, PageState};
use crate::pte::ENTRIES;
use crate::sync::{Rank, note_released, note_taken};

/// log2 of the frames of a whole page.
pub const ORDER: u32 = 9;

const _: () = assert!(1 << ORDER == ENTRIES);

/// The lock of a whole page.
struct Locked<M: Machine> {
    machine: M,
    head: &'static Page,
}

impl<M: Machine> Locked<M> {
    /// Locks the page, if it is whole. A caller without a reference may come when the frame is another page's: that is not touched.
    fn lock(machine: M, pfn: Pfn) -> Option<Self> {
        debug_assert!(pfn.0.is_multiple_of(ENTRIES));
        let head = page(machine, pfn);
        note_taken(machine, Rank::Whole);
        if head.lock_whole(|| machine.relax()) {
            return Some(Self { machine, head });
        }
        note_released(machine, Rank::Whole);
        None
    }

    /// It is whole no more; unlocks it.
    fn end_whole(self) {
        self.head.end_whole();
        note_released(self.machine, Rank::Whole);
        core::mem::forget(self);
    }
}

impl<M: Machine> Drop for Locked<M> {
    fn drop(&mut self) {
        self.head.unlock();
        note_released(self.machine, Rank::Whole);
    }
}

/// The pages of a block.
fn pages(first: Pfn) -> impl Iterator<Item = Pfn> {
    (first.0..first.0 + ENTRIES).map(Pfn)
}

/// Makes a new block of [`ORDER`] a whole page of `anon_vma`, which counts it as one owner, with this pgoff. The caller has its reference.
pub fn make<M: Machine>(machine: M, pfn: Pfn, anon_vma: &KArc<AnonVma<M>>, pgoff: usize) {
    page(machine, pfn).init_whole(KArc::as_ptr(anon_vma).expose_provenance(), pgoff as u64);
    KArc::add_owners(anon_vma, 1);
    machine.count(Event::HugeFault, 1);
}

/// Whether the block has one holder, be it whole or apart; a page that somebody looks at may count as one of two. The caller has the lock of the
/// table whose entry is that holder, as [`crate::mm`]'s copy-on-write has it for a page. O(pages) if it is apart.
pub fn is_sole<M: Machine>(machine: M, pfn: Pfn) -> bool {
    let head = page(machine, pfn);
    match head.state() {
        PageState::Whole => head.refs() == 1,
        // (Taken apart at this moment, its last pages have their records first.)
        _ => {
            // SAFETY: the caller's entry holds the block, whose records lie one behind the other.
            let records = unsafe { core::slice::from_raw_parts(core::ptr::from_ref(head), ENTRIES) };
            Page::have_one_reference(records)
        }
    }
}

/// Makes a whole page with one holder, the caller, one of `anon_vma`, if it is not. Returns the former one, which the caller drops without locks.
pub fn adopt<M: Machine>(machine: M, pfn: Pfn, anon_vma: &KArc<AnonVma<M>>) -> Option<KArc<AnonVma<M>>> {
    if page(machine, pfn).owner() == KArc::as_ptr(anon_vma).addr() {
        return None;
    }
    let locked = Locked::lock(machine, pfn).filter(|locked| locked.head.refs() == 1)?;
    let former = ptr::with_exposed_provenance::<AnonVma<M>>(locked.head.owner());
    KArc::add_owners(anon_vma, 1);
    locked.head.set_owner(KArc::as_ptr(anon_vma).expose_provenance(), locked.head.index());
    drop(locked);
    // SAFETY: the page was an owner of its former anon_vma, and now is one of this one.
    Some(unsafe { KArc::from_raw(former) })
}

/// Adds a holder of the block, for a caller that has the lock of the table whose entry is another. `false` if a page has too many
/// references.
#[must_use]
pub fn get<M: Machine>(machine: M, pfn: Pfn) -> bool {
    if let Some(locked) = Locked::lock(machine, pfn) {
        return seeded!(BlockForkTakesNoReference) || locked.head.get();
    }
    for (done, part) in pages(pfn).enumerate() {
        if !page(machine, part).get() {
            for part in pages(pfn).take(done) {
                let is_last = page(machine, part).put();
                debug_assert!(!is_last, "the other entry's reference");
            }
            return false;
        }
    }
    true
}

/// Takes the page apart, if it is whole: afterwards its 512 pages are as any others. For any caller; cannot fail.
pub fn take_apart<M: Machine>(machine: M, pfn: Pfn) {
    let Some(locked) = Locked::lock(machine, pfn) else { return };
    let head = locked.head;
    let (owner, index, group) = (head.owner(), head.index(), head.control_group());
    let refs = if seeded!(ApartForgetsHolders) { 1 } else { head.refs() };
    // SAFETY: the page is held, and one of the anon_vma's owners.
    let anon_vma = unsafe { ManuallyDrop::new(KArc::from_raw(ptr::with_exposed_provenance::<AnonVma<M>>(owner))) };
    KArc::add_owners(&anon_vma, ENTRIES - 1);
    // From the last one: until its record is written, a frame's head is the one below it.
    for k in (1..ENTRIES).rev() {
        page(machine, Pfn(pfn.0 + k)).init_part(owner, index + k as u64, group, refs);
    }
    locked.end_whole();
    machine.count(Event::HugeApart, 1);
}

/// Makes the 512 pages of a block, of which the caller has the only reference to each, a whole page, if nobody else has found one of them, and
/// they are one behind the other in one anon_vma and one control group; whether that is so. No walker reaches them meanwhile, and the caller has
/// no lock of rank `AnonVma` or above.
pub fn make_whole<M: Machine>(machine: M, pfn: Pfn) -> bool {
    let head = page(machine, pfn);
    // (What is read before the freeze may change; all that belongs to a frozen page is its own.)
    let is_like = |k: usize, part: &Page| {
        part.state() == PageState::Anon
            && part.owner() == head.owner()
            && part.index() == head.index() + k as u64
            && part.control_group() == head.control_group()
    };
    for (k, frame) in pages(pfn).enumerate() {
        let part = page(machine, frame);
        let is_frozen = part.state() == PageState::Anon && part.freeze(1);
        if is_frozen && is_like(k, part) {
            continue;
        }
        pages(pfn).take(k + usize::from(is_frozen)).for_each(|frozen| page(machine, frozen).unfreeze(1));
        return false;
    }
    let owner = ptr::with_exposed_provenance::<AnonVma<M>>(head.owner());
    pages(pfn).skip(1).for_each(|part| page(machine, part).join_whole());
    head.begin_whole(ORDER);
    // SAFETY: each of the 512 pages was an owner, and one of them is left.
    unsafe { KArc::drop_owners(owner, ENTRIES - 1) };
    machine.count(Event::HugeWhole, 1);
    true
}

/// The 512 pages of a block that was taken apart were used. The caller has the lock of a table whose entry maps them.
pub fn note_used<M: Machine>(machine: M, pfn: Pfn) {
    for part in pages(pfn) {
        page(machine, part).set_flags(PageFlags::REFERENCED);
    }
}

impl<M: Machine> Release<M> {
    /// Drops what a block entry held. No spin lock is held, since there are points at which others may run.
    pub fn block(&mut self, pfn: Pfn) {
        if let Some(locked) = Locked::lock(self.machine, pfn) {
            let is_last = locked.head.put();
            drop(locked);
            if is_last {
                self.end_whole(pfn);
            }
            return;
        }
        for (k, part) in pages(pfn).enumerate() {
            self.page(part);
            if k % POINT_EVERY == POINT_EVERY - 1 {
                let _ = self.machine.resched_point();
            }
        }
    }
}

/// Pages that are freed between two points at which others may run.
const POINT_EVERY: usize = 128;
