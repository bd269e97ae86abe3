//! `Page`: the record of one page frame, 32 bytes, in the sparse array `mem_map`.
//!
//! # The life of a frame
//!
//! A record is the *head* of a block of `1 << order` frames, or its first word is zero: then the frame lies inside a
//! block whose head describes it, or it never belonged to the page allocator. So a `mem_map` filled with zeros is
//! correct before boot has freed a single frame, and splits, merges and allocations only write heads.
//!
//! | state | the frame is | `next`, `prev` | next states |
//! | --- | --- | --- | --- |
//! | `Absent` | a hole, reserved at boot, or inside a block | – | boot, splits: to `Free` |
//! | `Free` | head of a free block in its zone's buddy; the order, and the list's migrate type in place of flags | neighbours in the free list | buddy: to `Kernel`, `Cached`, or `Absent` when it merges |
//! | `Cached` | head of a free block on a per-CPU list; the order | the list below it | pcp: to `Kernel`, or `Free` when drained |
//! | `Kernel` | allocated, use unspecified | the holder's | holder: to the ones below; [`PageAllocator::free_pages`]: to `Cached` or `Free` |
//! | `Slab` | memory of a slab cache | the slab's | as above |
//! | `Table` | a translation table | the table's | as above |
//! | `Whole` | 512 frames of anonymous user memory that are one page ([`crate::rmap::whole`]); `owner` and `index` as for `Anon`, of the first one | – | taken apart: to `Anon`; the end of its count: as for `Anon` |
//! | `Anon` | anonymous user memory; `owner` is its `AnonVma`, `index` its pgoff; both change only while it is frozen | `next`: see [`PageFlags::RETURNED`] | the end of its count; [`PageAllocator::free_frozen_pages`]: to `Cached` or `Free` |
//! | `Object` | a page of a memory object (`owner`) at `index` | `next`: as for `Anon` | as above |
//!
//! While a frame is allocated (the last six states), the page allocator owns only state and order, and the holder owns
//! everything else. The holder that frees it must leave `pins` 0, none of the flags in [`PageFlags::NOT_WHEN_FREED`],
//! and the count that the next section says.
//!
//! # The count
//!
//! The page allocator hands a frame out with one reference. A kernel frame (`Kernel`, `Slab`, `Table`) cannot be found
//! by its record: its holder frees it with that one reference ([`PageAllocator::free_pages`]). A page of user memory
//! (`Anon`, `Object`) can be found by others, so the count decides when it is freed: the thread that takes it from 1 to
//! 0, by [`Page::put`] or [`Page::freeze`], owns the frame from then on and frees it
//! ([`PageAllocator::free_frozen_pages`]). A count is never raised from 0. Comparing [`Page::refs`] with a number never
//! justifies a free; each such comparison says what it is used for.
//!
//! The references that count, and so the number that a freeze expects:
//!
//! | the page is | count |
//! | --- | --- |
//! | new, on its way to an entry or an object | 1 |
//! | `Anon` | a reference for each present entry that maps it, be it its own or that of a block of 2 MiB around it |
//! | `Whole` | a reference for each block entry that maps it, and no others: it cannot be found |
//! | `Object`, in its object's tree | a reference for each such entry, and 1 for the object |
//! | `Object`, which its object has given up | a reference for each such entry that is left |
//! | either, pinned | 1 more for each pin, which `pins` counts besides |
//! | either, held briefly after a lookup | 1 more for each of them |
//! | either, isolated for migration or reclaim | 1 more |
//! | … with all entries removed, or replaced by migration entries, which hold none ([`crate::mm::migrate()`]) | 1, or 2 of an object; a freeze takes that to 0 |
//! | in a [`Gather`](crate::table::gather::Gather) as its last holder, waiting for the invalidation | 0, frozen |
//! | freed | 0 |
//!
//! Ways to take a reference:
//! - from a table's entry, under that table's lock: a present entry has a reference, so the count is not 0;
//! - from an object's tree, under the object's lock: the object has a reference. A page that is in a tree is also
//!   frozen under that lock, and removed from the tree or unfrozen before the lock is released (on its way to swap, the
//!   tree has a word for it meanwhile that gives no reference);
//! - by the record alone: [`Page::get_if`], followed by a check that it is still the intended page; or
//!   [`Page::isolate`], for a thread that takes it elsewhere;
//! - in addition to a reference that the caller has.
//!
//! Order: entries, owner and index are written before the state says `Anon` or `Object` (a release store,
//! [`Page::init_owner`]); `get_if` acquires.
//!
//! Mappings are not counted: [`Page::mappings_at_most`] derives an upper bound from the other references.
//!
//! # Pins
//!
//! A pin keeps a page in place, with its identity, for as long as a device needs it: it is a reference, and also counts
//! in `pins`. It is taken under the lock of a table whose entry maps the page. So a fork, which holds that lock while
//! it copies the entry, sees every earlier pin completely.
//!
//! Node, zone and migrate type are not here: they are the same for all 512 frames of a page block, and its table
//! ([`crate::buddy::pageblock`]) has them.
//!
//! [`PageAllocator::free_pages`]: crate::page_alloc::PageAllocator::free_pages
//! [`PageAllocator::free_frozen_pages`]: crate::page_alloc::PageAllocator::free_frozen_pages

mod head;
mod state;
#[cfg(test)]
mod tests;

/// The atomics of [`head`]; a test replaces them by loom's.
mod atomic {
    pub(super) use core::sync::atomic::{AtomicU64, Ordering, fence};
}

use core::num::NonZero;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};

use crate::addr::Pfn;
use head::{ALL_REFS, Head, ONE_REF, STATE_MASK, refs_of};

pub use state::{PageFlags, PageState};

/// The machine with the records of its page frames.
///
/// # Safety
/// `mem_map` returns the same array at each call. Where boot maps it, it holds zeros at first, and then what this
/// module writes.
pub unsafe trait Machine: crate::machine::Machine {
    /// The record of page frame 0: `mem_map` as one sparse array. Only records of existing frames may be touched.
    fn mem_map(self) -> *mut Page;
}

/// The record of one page frame. All fields are atomic, so shared references suffice; the state table says who may
/// write which field when.
#[repr(C, align(32))]
pub struct Page {
    /// Bits 3 to 0 the state, 7 to 4 the order, 23 to 8 the flags, of which 15 to 12 are reclaim's list, 31 to 24 the
    /// index's bits 39 to 32; above them the references. One word, so that a thread that finds a page without holding
    /// it can check with one load that it has the expected state and is held.
    head: Head,
    /// How many of the references are pins.
    pins: AtomicU32,
    /// Bits 31 to 0 of the index.
    index: AtomicU32,
    next: AtomicU32,
    prev: AtomicU32,
    /// Bits 47 to 0 of the owner's address (its top half is the kernel's), above 16 bits of control group.
    owner: AtomicU64,
}

const _: () = assert!(size_of::<Page>() == 32);

/// The contents of a record at one moment: see [`Page::look`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look(u64);

impl Look {
    /// The number of the state, below [`PageState::NUMBERS`].
    #[inline(always)]
    pub fn number(self) -> usize {
        (self.0 & STATE_MASK) as usize
    }

    /// See [`Page::state`].
    #[inline(always)]
    pub fn state(self) -> PageState {
        PageState::of(self.0)
    }

    /// See [`Page::order`]; at most [`MAX_ORDER`].
    #[inline(always)]
    pub fn order(self) -> u32 {
        (((self.0 & ORDER_MASK) >> ORDER_SHIFT) as u32).min(MAX_ORDER)
    }

    /// The flags; none unless it is allocated.
    pub fn flags(self) -> PageFlags {
        if self.state().is_allocated() { PageFlags::from_bits_truncate(self.0 as u32) } else { PageFlags::empty() }
    }

    /// The references; none unless it is allocated.
    pub fn refs(self) -> u32 {
        if self.state().is_allocated() { refs_of(self.0) } else { 0 }
    }
}

/// The order of the largest block of frames: 4 MiB.
pub const MAX_ORDER: u32 = 10;

/// log2 of the size of a record.
pub const PAGE_RECORD_SHIFT: u32 = 5;

/// Bits 63 to 48 of every kernel pointer: TTBR1's half in the kernel, zeros on a host.
const POINTER_TOP: u64 = if cfg!(target_os = "none") { 0xffff << 48 } else { 0 };

const ORDER_SHIFT: u32 = 4;
const ORDER_MASK: u64 = 0xf << ORDER_SHIFT;
/// The bits of an index.
pub const INDEX_BITS: u32 = 40;

const INDEX_HIGH_SHIFT: u32 = 24;
const LIST_SHIFT: u32 = 12;
const LIST_MASK: u64 = 0xf << LIST_SHIFT;
/// The list of reclaim with pages that their program has given up (MADV_FREE), and that are still to be queued. The
/// next two lists have those that are queued.
pub(crate) const GIVEN_UP: u8 = 4;
/// The bit of lists that are not queues.
const UNQUEUED: u8 = 8;
/// In a `Free` head the list's migrate type takes the place of the flags.
const FREE_LIST_SHIFT: u32 = 8;

impl Page {
    /// The record of `pfn`.
    ///
    /// # Safety
    /// The frame's record exists: `pfn` lies in one of [`crate::page_alloc::mem_map_ranges`], mapped by now.
    #[inline(always)]
    pub unsafe fn of<M: Machine>(machine: M, pfn: Pfn) -> &'static Page {
        // SAFETY: the record exists by the caller's word; all its bytes are valid atomics whatever they hold.
        unsafe { &*machine.mem_map().add(pfn.0) }
    }

    /// The frame of this record.
    #[inline(always)]
    pub fn pfn<M: Machine>(&self, machine: M) -> Pfn {
        Pfn((core::ptr::from_ref(self).addr() - machine.mem_map().addr()) >> PAGE_RECORD_SHIFT)
    }

    #[inline(always)]
    fn head(&self) -> u64 {
        self.head.load()
    }

    /// The contents of the record at one moment.
    #[inline(always)]
    pub fn look(&self) -> Look {
        Look(self.head())
    }

    /// What the frame is.
    #[inline]
    pub fn state(&self) -> PageState {
        PageState::of(self.head())
    }

    /// Sets the use of an allocated frame: `Kernel`, `Slab` or `Table`. (User pages start with [`Page::init_owner`].)
    #[inline]
    pub fn set_state(&self, state: PageState) {
        debug_assert!(state.is_allocated() && !state.is_user() && self.state().is_allocated());
        // Only the holder changes the state, but flags and references may change concurrently: only the differing bits
        // are flipped.
        let old = self.head() & STATE_MASK;
        self.head.flip(old ^ state as u64);
    }

    /// log2 of the frames of the block that this is the head of.
    #[inline]
    pub fn order(&self) -> u32 {
        ((self.head() & ORDER_MASK) >> ORDER_SHIFT) as u32
    }

    /// The flags of an allocated frame.
    #[inline]
    pub fn flags(&self) -> PageFlags {
        PageFlags::from_bits_truncate(self.head() as u32)
    }

    /// Sets flags; returns those that were set before.
    #[inline]
    pub fn set_flags(&self, flags: PageFlags) -> PageFlags {
        PageFlags::from_bits_truncate(self.head.set(flags.bits().into()) as u32)
    }

    /// Clears flags; returns those that were set before.
    #[inline]
    pub fn clear_flags(&self, flags: PageFlags) -> PageFlags {
        PageFlags::from_bits_truncate(self.head.clear(flags.bits().into()) as u32)
    }

    /// The list of reclaim that a page of user memory is on that can go to swap, if it is held and nobody takes it
    /// elsewhere; and whether it is one that has come back from swap and that reclaim has not seen since.
    #[inline]
    pub(crate) fn seen_by_reclaim(&self) -> Option<(u8, bool)> {
        const MASK: u64 = STATE_MASK | PageFlags::ISOLATED.bits() as u64;
        const BACKED: u64 = PageFlags::SWAP_BACKED.union(PageFlags::PAGED).bits() as u64;
        let head = self.head();
        let is_anon = head & MASK == PageState::Anon as u64;
        let is_memory = head & MASK == PageState::Object as u64 && head & BACKED != 0;
        let is_there = (is_anon || is_memory) && refs_of(head) != 0;
        is_there.then_some(((head >> LIST_SHIFT & 0xf) as u8, head & PageFlags::RETURNED.bits() as u64 != 0))
    }

    /// The list of reclaim that the page is on: a hint for a page that the caller does not hold.
    #[inline]
    pub(crate) fn list(&self) -> u8 {
        (self.head() >> LIST_SHIFT & 0xf) as u8
    }

    /// Moves the page from one list of reclaim to another, if it is on the first and held.
    #[inline]
    pub(crate) fn change_list(&self, from: u8, to: u8) -> bool {
        self.head.exchange(LIST_MASK, u64::from(from) << LIST_SHIFT, u64::from(to) << LIST_SHIFT)
    }

    /// Moves the page, of which the caller has a reference, to the list of those that were given up; `false` if it is
    /// there, or queued.
    #[inline]
    pub(crate) fn give_up(&self) -> bool {
        const FIRST: u64 = (GIVEN_UP as u64) << LIST_SHIFT;
        const LAST: u64 = FIRST + (2 << LIST_SHIFT);
        self.head.set_unless(LIST_MASK, FIRST, LAST, FIRST)
    }

    /// Gives a new page of user memory, which takes the place of `old`, the state that `old` has for reclaim; `old`
    /// cannot be changed by others. But without `keeps_list`, or if `old` is in a queue of frames, in which this one is
    /// not, it is put on the list of new pages.
    pub(crate) fn take_place_of(&self, old: &Page, keeps_list: bool) {
        const KEPT: u64 = PageFlags::RETURNED.bits() as u64 | PageFlags::REFERENCED.bits() as u64;
        let is_queued = old.list() & UNQUEUED == 0;
        let list = if keeps_list && !is_queued || seeded!(MovedPageKeepsQueue) { LIST_MASK } else { 0 };
        self.head.set(old.head() & (KEPT | list));
        self.next.store(old.next.load(Relaxed), Relaxed);
    }

    /// Takes the page lock if it is free. The lock protects owner and index of a page that others can find.
    #[inline]
    pub fn try_lock(&self) -> bool {
        !self.set_flags(PageFlags::LOCKED).contains(PageFlags::LOCKED)
    }

    /// Releases the page lock.
    #[inline]
    pub fn unlock(&self) {
        let old = self.clear_flags(PageFlags::LOCKED);
        debug_assert!(old.contains(PageFlags::LOCKED));
    }

    /// The number of references: see "The count" at the top. Accesses under dropped references come before later
    /// accesses of the caller.
    #[inline]
    pub fn refs(&self) -> u32 {
        refs_of(self.head.load_acquire())
    }

    /// Whether each of these pages, a multiple of 16, has exactly one reference. As [`Page::refs`], for many.
    pub(crate) fn have_one_reference(pages: &[Page]) -> bool {
        let mut rest = pages;
        // (A number known in advance, so that the loop over them is unrolled.)
        while let Some((run, more)) = rest.split_first_chunk::<16>() {
            let differ = run.iter().fold(0, |all, page| all | page.head() ^ ONE_REF);
            if differ & ALL_REFS != 0 {
                return false;
            }
            rest = more;
        }
        core::sync::atomic::fence(Acquire);
        true
    }

    /// Adds a reference to a page that another one keeps: the caller's own, or one protected by a lock that the caller
    /// holds. `false` when there are too many.
    #[inline]
    #[must_use]
    pub fn get(&self) -> bool {
        self.head.get()
    }

    /// Adds a reference if the frame is held and is a page of user memory of this kind, for a caller that found it by
    /// its record. It may no longer be the intended page, so the caller must check again.
    #[must_use]
    pub fn get_if(&self, expected: PageState) -> bool {
        debug_assert!(expected.is_user(), "only user pages are found by their records");
        self.head.get_if(expected as u64)
    }

    /// As [`Page::get_if`], for a caller that takes the page elsewhere: it has the sole right to do so, until
    /// [`Page::end_isolation`]. `false` also if another thread has it.
    #[must_use]
    pub fn isolate(&self, expected: PageState) -> bool {
        debug_assert!(expected.is_user(), "only user pages are found by their records");
        self.head.get_and_mark(expected as u64, PageFlags::ISOLATED.bits().into())
    }

    /// Gives the right of [`Page::isolate`] back; the caller keeps the reference.
    pub fn end_isolation(&self) {
        let old = self.clear_flags(PageFlags::ISOLATED);
        debug_assert!(old.contains(PageFlags::ISOLATED));
    }

    /// Drops a reference; `true` if it was the last one: then the caller owns the page and must free it.
    #[inline]
    #[must_use]
    pub fn put(&self) -> bool {
        self.head.put()
    }

    /// Takes the count from exactly `expected` references, all of which the caller controls, to 0, whatever the flags
    /// are. Then the caller owns the page, and no one can get a reference until [`Page::unfreeze`]. `false`, with
    /// nothing changed, if there are other holders.
    #[inline(always)]
    #[must_use]
    pub fn freeze(&self, expected: u32) -> bool {
        self.head.freeze(expected)
    }

    /// Ends a freeze: the page has `refs` references again, and the caller's changes are visible to threads that find
    /// it.
    #[inline]
    pub fn unfreeze(&self, refs: u32) {
        self.head.unfreeze(refs);
    }

    /// Adds a pin, for a caller that holds the page and the lock that "Pins" at the top requires. `false` if there are
    /// too many references. [`PageAllocator::pin_long_term`](crate::page_alloc::PageAllocator::pin_long_term) checks
    /// whether the page may stay where it is.
    #[must_use]
    pub(crate) fn pin(&self) -> bool {
        // In this order, and the opposite one in `unpin`, so that there are never fewer references than pins.
        let got = self.get();
        if got {
            self.pins.fetch_add(1, Release);
        }
        got
    }

    /// Drops a pin; `true` if it was the last reference.
    #[must_use]
    pub fn unpin(&self) -> bool {
        let old = self.pins.fetch_sub(1, Release);
        debug_assert!(old != 0, "pin count below 0");
        self.put()
    }

    /// The number of its pins, for display.
    pub fn pins(&self) -> u32 {
        self.pins.load(Relaxed)
    }

    /// Whether it is pinned.
    pub fn is_pinned(&self) -> bool {
        self.pins.load(Acquire) != 0
    }

    /// An upper bound of the entries that map this page of user memory; `others` of its holders are neither entries nor
    /// pins: the object, the caller. `None` if it is frozen, since migration entries hold no references.
    pub fn mappings_at_most(&self, others: u32) -> Option<u32> {
        loop {
            let pins = self.pins.load(Acquire);
            let refs = self.refs();
            if refs == 0 {
                return None;
            }
            // A pin that was added or dropped meanwhile would be in one of the numbers only.
            if self.pins.load(Relaxed) == pins {
                return Some(refs.saturating_sub(pins).saturating_sub(others));
            }
        }
    }

    /// The owner's address with its low 3 bits as a tag, and 0 if there is none.
    #[inline]
    pub fn owner(&self) -> usize {
        match self.owner.load(Acquire) >> 16 {
            0 => 0,
            low => (low | POINTER_TOP) as usize,
        }
    }

    /// As [`Page::owner`], for the last holder of a page that has an owner.
    #[inline(always)]
    pub(crate) fn owner_at_end(&self) -> usize {
        debug_assert!(self.refs() == 0 && self.owner() != 0);
        (self.owner.load(Relaxed) >> 16 | POINTER_TOP) as usize
    }

    /// The page index in the owner, below 2^40.
    #[inline]
    pub fn index(&self) -> u64 {
        (self.head() >> INDEX_HIGH_SHIFT & 0xff) << 32 | u64::from(self.index.load(Relaxed))
    }

    /// Sets the owner of the page, and its index there. `owner` is a kernel address (its low 3 bits may be a tag) or 0.
    /// Only for the sole holder of a page that cannot be found or is frozen, or under the page lock.
    #[inline]
    pub fn set_owner(&self, owner: usize, index: u64) {
        debug_assert!(index < 1 << INDEX_BITS);
        debug_assert!(owner == 0 || owner as u64 >> 48 == POINTER_TOP >> 48);
        self.index.store(index as u32, Relaxed);
        let flip = self.head() >> INDEX_HIGH_SHIFT & 0xff ^ index >> 32;
        if flip != 0 {
            self.head.flip(flip << INDEX_HIGH_SHIFT);
        }
        let group = self.owner.load(Relaxed) & 0xffff;
        self.owner.store((owner as u64) << 16 | group, Release);
    }

    /// Makes a frame that only the caller can access a page of user memory, which can be found from now on.
    #[inline]
    pub fn init_owner(&self, state: PageState, owner: usize, index: u64) {
        self.init(state, owner, index, |head| head);
    }

    /// As [`Page::init_owner`], with flags, and with a second reference: for the caller, beside the owner's.
    #[inline]
    pub fn init_shared(&self, state: PageState, flags: PageFlags, owner: usize, index: u64) {
        self.init(state, owner, index, |head| (head | u64::from(flags.bits())) + ONE_REF);
    }

    #[inline(always)]
    fn init(&self, state: PageState, owner: usize, index: u64, change: impl FnOnce(u64) -> u64) {
        debug_assert!(state.is_user() || state == PageState::Whole);
        debug_assert!(self.state() == PageState::Kernel && index < 1 << INDEX_BITS);
        debug_assert!(owner == 0 || owner as u64 >> 48 == POINTER_TOP >> 48);
        self.index.store(index as u32, Relaxed);
        let group = self.owner.load(Relaxed) & 0xffff;
        self.owner.store((owner as u64) << 16 | group, Relaxed);
        // Last, so that a thread that finds the frame by its new state sees its owner too.
        let kept = self.head() & !(STATE_MASK | 0xff << INDEX_HIGH_SHIFT);
        self.head.publish(change(kept | state as u64 | (index >> 32) << INDEX_HIGH_SHIFT));
    }

    /// Makes an allocated block of [`crate::rmap::whole::ORDER`] that only the caller can access a whole page of user
    /// memory.
    pub(crate) fn init_whole(&self, owner: usize, index: u64) {
        self.init(PageState::Whole, owner, index, |head| head);
    }

    /// Makes the record of a frame inside a whole page that of an anonymous page with `refs` references. It can be
    /// found from now on.
    pub(crate) fn init_part(&self, owner: usize, index: u64, group: u16, refs: u32) {
        debug_assert!(self.state() == PageState::Absent && index < 1 << INDEX_BITS);
        self.pins.store(0, Relaxed);
        self.next.store(0, Relaxed);
        self.index.store(index as u32, Relaxed);
        self.owner.store((owner as u64) << 16 | u64::from(group), Relaxed);
        let index_high = (index >> 32) << INDEX_HIGH_SHIFT;
        self.head.publish(PageState::Anon as u64 | index_high | (u64::from(refs) * ONE_REF));
    }

    /// Takes the page lock of a whole page; `false` if it is none, or not held. For any caller.
    pub(crate) fn lock_whole(&self, relax: impl Fn()) -> bool {
        self.head.mark_if(PageState::Whole as u64, PageFlags::LOCKED.bits().into(), relax)
    }

    /// Makes the record of an anonymous page that the caller has frozen that of a frame inside a whole page.
    pub(crate) fn join_whole(&self) {
        debug_assert!(self.state() == PageState::Anon && self.refs() == 0);
        self.next.store(0, Relaxed);
        self.index.store(0, Relaxed);
        self.owner.store(0, Relaxed);
        self.make_absent();
    }

    /// Makes the record of the first of 512 anonymous pages that the caller has frozen the one of a whole page with one reference.
    pub(crate) fn begin_whole(&self, order: u32) {
        debug_assert!(self.state() == PageState::Anon && self.refs() == 0);
        self.pins.store(0, Relaxed);
        self.next.store(0, Relaxed);
        let index_high = (self.index() >> 32) << INDEX_HIGH_SHIFT;
        self.head.publish(PageState::Whole as u64 | index_high | u64::from(order) << ORDER_SHIFT | ONE_REF);
    }

    /// Makes the record of a whole page, which the caller has locked, that of its first page, and unlocks it.
    pub(crate) fn end_whole(&self) {
        debug_assert!(self.state() == PageState::Whole);
        self.next.store(0, Relaxed);
        let order = u64::from(self.order()) << ORDER_SHIFT;
        let lock = u64::from(PageFlags::LOCKED.bits());
        self.head.flip_and_publish(order | lock | PageState::Whole as u64 ^ PageState::Anon as u64);
    }

    /// The control group that the page is charged to, or that a frame will be which nobody else knows.
    #[inline(always)]
    pub fn control_group(&self) -> u16 {
        self.owner.load(Relaxed) as u16
    }

    /// A frame without an owner, which only the caller can access, will be charged to a control group.
    #[inline(always)]
    pub(crate) fn begin_charge(&self, group: u16) {
        debug_assert_eq!(self.owner(), 0);
        self.owner.store(group.into(), Relaxed);
    }

    /// Charges the page to a control group; same conditions as [`Page::set_owner`].
    pub fn set_control_group(&self, group: u16) {
        let owner = self.owner.load(Relaxed) & !0xffff;
        self.owner.store(owner | u64::from(group), Relaxed);
    }

    /// A link, whose meaning depends on the state: a pfn, or 0 for none in the page allocator's own lists.
    #[inline(always)]
    pub fn next(&self) -> &AtomicU32 {
        &self.next
    }

    /// The other link.
    #[inline(always)]
    pub fn prev(&self) -> &AtomicU32 {
        &self.prev
    }

    /// The 24 bytes that the holder of a `Kernel`, `Slab` or `Table` frame may use for its own words: pins and index,
    /// next and prev, owner. All except the links must be 0 again before the frame is freed.
    #[inline(always)]
    pub fn body(&self) -> *mut [u64; 3] {
        self.pins.as_ptr().cast()
    }
}

/// Operations for the page allocator only.
impl Page {
    /// Makes this the head of a free block on the list of migrate type `list`.
    #[inline]
    pub(crate) fn make_free(&self, order: u32, list: u8) {
        self.head.store(free_head(order) | u64::from(list) << FREE_LIST_SHIFT);
    }

    /// Makes this the record of a frame inside a block.
    #[inline]
    pub(crate) fn make_absent(&self) {
        self.head.store(0);
    }

    /// Makes this the head of a free block on a per-CPU list.
    #[inline(always)]
    pub(crate) fn make_cached(&self, order: u32) {
        self.head.store(PageState::Cached as u64 | u64::from(order) << ORDER_SHIFT);
    }

    /// Makes this the head of an allocated block with one reference, which cannot be found.
    #[inline(always)]
    pub(crate) fn make_allocated(&self, order: u32) {
        self.head.store(PageState::Kernel as u64 | u64::from(order) << ORDER_SHIFT | ONE_REF);
    }

    /// Whether this is the head of a free block of exactly this order.
    #[inline]
    pub(crate) fn is_free_block(&self, order: u32) -> bool {
        self.head() & (STATE_MASK | ORDER_MASK) == free_head(order)
    }

    /// The free list that a `Free` head is on.
    #[inline]
    pub(crate) fn free_list(&self) -> u8 {
        (self.head() >> FREE_LIST_SHIFT & 7) as u8
    }

    /// Whether the sole holder has left this kernel frame, which heads a block of this order, as the table requires;
    /// ends the ownership.
    #[inline(always)]
    pub(crate) fn fit_to_free(&self, order: u32) -> bool {
        self.fit(PageState::USER, ONE_REF | PageState::ALLOCATED, order)
    }

    /// As [`Page::fit_to_free`], for a block of any kind without references, which can no longer be found.
    #[inline(always)]
    pub(crate) fn fit_to_free_frozen(&self, order: u32) -> bool {
        self.fit(0, PageState::ALLOCATED, order)
    }

    /// Whether, of the count, the flags forbidden at a free, and `more`, exactly `wanted` is set.
    #[inline(always)]
    fn fit(&self, more: u64, wanted: u64, order: u32) -> bool {
        const LOOK: u64 = ALL_REFS | PageFlags::NOT_WHEN_FREED.bits() as u64 | ORDER_MASK | PageState::ALLOCATED;
        let is_fit = self.head() & (LOOK | more) == u64::from(order) << ORDER_SHIFT | wanted;
        let fit = is_fit && self.pins.load(Relaxed) == 0;
        if fit {
            self.owner.store(0, Relaxed);
        }
        fit
    }
}

#[inline(always)]
const fn free_head(order: u32) -> u64 {
    PageState::Free as u64 | (order as u64) << ORDER_SHIFT
}

/// The head of the block that contains `pfn`, free or allocated; `None` for a frame outside of all blocks. Stable only
/// if the caller holds the block, or the zone's lock. Takes at most as many steps as there are orders: inner frames
/// carry no pointer; their head is the nearest aligned frame whose block reaches this far.
///
/// # Safety
/// The record of `pfn` exists.
pub unsafe fn compound_head<M: Machine>(machine: M, pfn: Pfn) -> Option<Pfn> {
    for order in 0..=MAX_ORDER {
        let head = Pfn(pfn.0 & !((1 << order) - 1));
        // SAFETY: records exist for whole blocks of the largest order.
        let page = unsafe { Page::of(machine, head) };
        if page.state() != PageState::Absent {
            return (pfn.0 - head.0 < 1 << page.order()).then_some(head);
        }
    }
    None
}

/// A pfn in the format of the links.
#[inline(always)]
pub(crate) fn link(pfn: Pfn) -> u32 {
    debug_assert!(pfn.0 <= u32::MAX as usize);
    pfn.0 as u32
}

/// A link's pfn, if it is not null. Frame 0 never belongs to the page allocator.
#[inline(always)]
pub(crate) fn linked(link: u32) -> Option<NonZero<u32>> {
    NonZero::new(link)
}
