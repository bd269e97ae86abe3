//! `Page`: the record of one page frame, 32 bytes, in the sparse array `mem_map`.
//!
//! # The life of a frame
//!
//! A record is the *head* of a block of `1 << order` frames, or it is all zeros in its first word: then the frame
//! lies inside a block whose head speaks for it, or nobody ever gave it to the page allocator. So a `mem_map`
//! filled with zeros is right before boot has freed a single frame, and neither a split nor a merge nor an
//! allocation ever writes more than heads.
//!
//! | state | the frame is | `next`, `prev` | who moves it on |
//! | --- | --- | --- | --- |
//! | `Absent` | a hole, reserved at boot, or inside a block | – | boot, splits: to `Free` |
//! | `Free` | head of a free block in its zone's buddy; the order, and the list's migrate type in place of flags | neighbours in the free list | buddy: to `Kernel`, `Cached`, or `Absent` when it merges |
//! | `Cached` | head of a free block on a per-CPU list; the order | the list below it | pcp: to `Kernel`, or `Free` when drained |
//! | `Kernel` | allocated; nobody has said what for | the holder's | holder: to the ones below; [`PageAllocator::free_pages`]: to `Cached` or `Free` |
//! | `Slab` | memory of a slab cache | the slab's | as above |
//! | `Table` | a translation table | the table's | as above |
//! | `Anon` | anonymous user memory; `owner` is its group, `index` its page address | LRU | as above |
//! | `Object` | a page of a memory object (`owner`) at `index` | LRU | as above |
//!
//! While a frame is allocated (the last five), the page allocator keeps for itself only state and order, and
//! everything else is the holder's. Who frees it leaves `maps` 0, none of the flags in
//! [`PageFlags::NOT_WHEN_FREED`], and `refs` 0 or 1.
//!
//! Node, zone and migrate type are not here: they are the same for all 512 frames of a page block, and its table
//! ([`crate::buddy::pageblock`]) has them.
//!
//! [`PageAllocator::free_pages`]: crate::page_alloc::PageAllocator::free_pages

mod state;
#[cfg(test)]
mod tests;

use core::num::NonZero;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};

use crate::addr::Pfn;
use crate::machine::Machine;

pub use state::{PageFlags, PageState};

/// The record of one page frame. All fields are atomic words, so that a shared reference is all anybody needs; who
/// may write which field when is the state table's business.
#[repr(C, align(32))]
pub struct Page {
    /// Bits 3 to 0 the state, 7 to 4 the order, 23 to 8 the flags, 31 to 24 the index's bits 39 to 32; above them the
    /// references: mappings, holders and pins ([`PIN`] each). One word, so that whoever finds a page without holding
    /// it can see in one look that it is what they expect and that it is held.
    head: AtomicU64,
    /// Page-table entries that map the frame.
    maps: AtomicU32,
    /// Bits 31 to 0 of the index.
    index: AtomicU32,
    next: AtomicU32,
    prev: AtomicU32,
    /// Bits 47 to 0 of the owner's address (its top half is the kernel's), above 16 bits of control group.
    owner: AtomicU64,
}

const _: () = assert!(size_of::<Page>() == 32);

/// log2 of the size of a record.
pub const PAGE_RECORD_SHIFT: u32 = 5;

/// What a reference that pins (DMA, long-term access) counts for. More than this many plain references look like a
/// pin too, which errs to the safe side.
pub const PIN: u32 = 1024;

/// Above this the count refuses to grow: half of the range is left for races on the way there.
const REFS_MAX: u32 = 1 << 31;

/// What every kernel pointer has in bits 63 to 48: TTBR1's half in the kernel, zeros on a host.
const POINTER_TOP: u64 = if cfg!(target_os = "none") { 0xffff << 48 } else { 0 };

const STATE_MASK: u64 = PageState::MASK;
const ORDER_SHIFT: u32 = 4;
const ORDER_MASK: u64 = 0xf << ORDER_SHIFT;
const INDEX_HIGH_SHIFT: u32 = 24;
const REFS_SHIFT: u32 = 32;
const ONE_REF: u64 = 1 << REFS_SHIFT;
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

    /// The frame that this is the record of.
    #[inline(always)]
    pub fn pfn<M: Machine>(&self, machine: M) -> Pfn {
        Pfn((core::ptr::from_ref(self).addr() - machine.mem_map().addr()) >> PAGE_RECORD_SHIFT)
    }

    #[inline(always)]
    fn head(&self) -> u64 {
        self.head.load(Relaxed)
    }

    /// What the frame is.
    #[inline]
    pub fn state(&self) -> PageState {
        PageState::of(self.head())
    }

    /// The holder says what an allocated frame is for: `Kernel`, `Slab`, `Table`, `Anon` or `Object`.
    #[inline]
    pub fn set_state(&self, state: PageState) {
        debug_assert!(state.is_allocated() && self.state().is_allocated());
        // The holder is alone with the state, but flags and references may change meanwhile: only what differs flips.
        let old = self.head() & STATE_MASK;
        self.head.fetch_xor(old ^ state as u64, Relaxed);
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

    /// Sets flags; answers those that were set before.
    #[inline]
    pub fn set_flags(&self, flags: PageFlags) -> PageFlags {
        PageFlags::from_bits_truncate(self.head.fetch_or(flags.bits().into(), AcqRel) as u32)
    }

    /// Clears flags; answers those that were set before.
    #[inline]
    pub fn clear_flags(&self, flags: PageFlags) -> PageFlags {
        PageFlags::from_bits_truncate(self.head.fetch_and(!u64::from(flags.bits()), AcqRel) as u32)
    }

    /// Takes the page lock if nobody has it. It protects owner and index of a page that others can find.
    #[inline]
    pub fn try_lock(&self) -> bool {
        !self.set_flags(PageFlags::LOCKED).contains(PageFlags::LOCKED)
    }

    /// Gives the page lock back.
    #[inline]
    pub fn unlock(&self) {
        let old = self.clear_flags(PageFlags::LOCKED);
        debug_assert!(old.contains(PageFlags::LOCKED));
    }

    /// References, pins included ([`PIN`] each).
    #[inline]
    pub fn refs(&self) -> u32 {
        refs_of(self.head.load(Acquire))
    }

    /// Adds a reference, for who has one already. `false` when there are too many.
    #[inline]
    #[must_use]
    pub fn get(&self) -> bool {
        self.add_refs(1)
    }

    /// Adds a reference if the frame is held and is what the finder expects: for who found it without holding it.
    #[must_use]
    pub fn get_if(&self, expected: PageState) -> bool {
        let grow = |head: u64| {
            let held = (1..REFS_MAX).contains(&refs_of(head)) && PageState::of(head) == expected;
            held.then(|| head + ONE_REF)
        };
        self.head.fetch_update(Acquire, Relaxed, grow).is_ok()
    }

    /// Gives a reference back; `true` if it was the last one: the caller then frees the frame.
    #[inline]
    #[must_use]
    pub fn put(&self) -> bool {
        self.sub_refs(1)
    }

    /// Adds a pin, for who has a reference already. `false` when there are too many. Whether the page is where it may
    /// stay, [`PageAllocator::pin_long_term`](crate::page_alloc::PageAllocator::pin_long_term) knows.
    #[must_use]
    pub(crate) fn pin(&self) -> bool {
        self.add_refs(PIN)
    }

    /// Gives a pin back; `true` if it was the last reference.
    #[must_use]
    pub fn unpin(&self) -> bool {
        self.sub_refs(PIN)
    }

    /// Whether somebody may have it pinned (or there are very many references).
    pub fn maybe_pinned(&self) -> bool {
        self.refs() >= PIN
    }

    #[inline]
    fn add_refs(&self, n: u32) -> bool {
        let n = u64::from(n) << REFS_SHIFT;
        if refs_of(self.head.fetch_add(n, Relaxed)) < REFS_MAX {
            return true;
        }
        self.head.fetch_sub(n, Relaxed);
        false
    }

    #[inline]
    fn sub_refs(&self, n: u32) -> bool {
        let old = refs_of(self.head.fetch_sub(u64::from(n) << REFS_SHIFT, Release));
        debug_assert!(old >= n, "reference count below 0");
        if old != n {
            return false;
        }
        core::sync::atomic::fence(Acquire);
        true
    }

    /// Page-table entries that map the frame.
    #[inline]
    pub fn maps(&self) -> u32 {
        self.maps.load(Acquire)
    }

    /// Counts a mapping; answers how many there were.
    #[inline]
    pub fn add_map(&self) -> u32 {
        self.maps.fetch_add(1, Relaxed)
    }

    /// Takes a mapping off the count; answers how many are left.
    #[inline]
    pub fn remove_map(&self) -> u32 {
        let old = self.maps.fetch_sub(1, AcqRel);
        debug_assert!(old != 0, "mapping count below 0");
        old.wrapping_sub(1)
    }

    /// The owner's address with its low 3 bits as a tag, and 0 if there is none.
    #[inline]
    pub fn owner(&self) -> usize {
        match self.owner.load(Acquire) >> 16 {
            0 => 0,
            low => (low | POINTER_TOP) as usize,
        }
    }

    /// The page index in the owner, below 2^40.
    #[inline]
    pub fn index(&self) -> u64 {
        (self.head() >> INDEX_HIGH_SHIFT & 0xff) << 32 | u64::from(self.index.load(Relaxed))
    }

    /// Says whose the page is, and where in it. `owner` is a kernel address (its low 3 bits may be a tag) or 0. By
    /// the sole holder of a page that nobody else can find, or under the page lock.
    #[inline]
    pub fn set_owner(&self, owner: usize, index: u64) {
        debug_assert!(index < 1 << 40);
        debug_assert!(owner == 0 || owner as u64 >> 48 == POINTER_TOP >> 48);
        self.index.store(index as u32, Relaxed);
        let flip = self.head() >> INDEX_HIGH_SHIFT & 0xff ^ index >> 32;
        if flip != 0 {
            self.head.fetch_xor(flip << INDEX_HIGH_SHIFT, Relaxed);
        }
        let group = self.owner.load(Relaxed) & 0xffff;
        self.owner.store((owner as u64) << 16 | group, Release);
    }

    /// As [`Page::set_state`] and [`Page::set_owner`] of a frame that only the caller knows: plain stores.
    #[inline]
    pub fn init_owner(&self, state: PageState, owner: usize, index: u64) {
        debug_assert!(state.is_allocated() && self.state().is_allocated() && index < 1 << 40);
        debug_assert!(owner == 0 || owner as u64 >> 48 == POINTER_TOP >> 48);
        self.index.store(index as u32, Relaxed);
        let group = self.owner.load(Relaxed) & 0xffff;
        self.owner.store((owner as u64) << 16 | group, Relaxed);
        // Last: who finds the frame by its new state finds its owner too.
        let kept = self.head() & !(STATE_MASK | 0xff << INDEX_HIGH_SHIFT);
        self.head.store(kept | state as u64 | (index >> 32) << INDEX_HIGH_SHIFT, Release);
    }

    /// The control group that the page is charged to.
    pub fn control_group(&self) -> u16 {
        self.owner.load(Relaxed) as u16
    }

    /// Charges the page to a control group; same conditions as [`Page::set_owner`].
    pub fn set_control_group(&self, group: u16) {
        let owner = self.owner.load(Relaxed) & !0xffff;
        self.owner.store(owner | u64::from(group), Relaxed);
    }

    /// The link that the state gives a meaning: a pfn, or 0 for none in the page allocator's own lists.
    #[inline(always)]
    pub fn next(&self) -> &AtomicU32 {
        &self.next
    }

    /// The other link.
    #[inline(always)]
    pub fn prev(&self) -> &AtomicU32 {
        &self.prev
    }

    /// The 24 bytes that belong to the holder of a `Kernel`, `Slab` or `Table` frame to overlay with words of its
    /// own: maps and index, next and prev, owner. All 0 again, but for the links, before the frame is freed.
    #[inline(always)]
    pub fn body(&self) -> *mut [u64; 3] {
        self.maps.as_ptr().cast()
    }
}

/// What only the page allocator does with a record.
impl Page {
    /// Becomes head of a free block that is on the list of migrate type `list`.
    #[inline]
    pub(crate) fn make_free(&self, order: u32, list: u8) {
        self.head.store(free_head(order) | u64::from(list) << FREE_LIST_SHIFT, Relaxed);
    }

    /// Becomes the inside of a block.
    #[inline]
    pub(crate) fn make_absent(&self) {
        self.head.store(0, Relaxed);
    }

    /// Becomes head of a free block on a per-CPU list.
    #[inline(always)]
    pub(crate) fn make_cached(&self, order: u32) {
        self.head.store(PageState::Cached as u64 | u64::from(order) << ORDER_SHIFT, Relaxed);
    }

    /// Becomes head of an allocated block with one reference.
    #[inline(always)]
    pub(crate) fn make_allocated(&self, order: u32) {
        self.head.store(PageState::Kernel as u64 | u64::from(order) << ORDER_SHIFT | ONE_REF, Relaxed);
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

    /// Whether who frees the block of this order leaves the record as the table demands; ends its ownership.
    #[inline(always)]
    pub(crate) fn fit_to_free(&self, order: u32) -> bool {
        const TWO_REFS_OR_MORE: u64 = !(2 * ONE_REF - 1);
        const BAD: u64 = TWO_REFS_OR_MORE | PageFlags::NOT_WHEN_FREED.bits() as u64;
        let wanted = u64::from(order) << ORDER_SHIFT | PageState::ALLOCATED;
        let is_fit = self.head() & (BAD | ORDER_MASK | PageState::ALLOCATED) == wanted;
        let fit = is_fit && self.maps.load(Relaxed) == 0;
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

#[inline(always)]
const fn refs_of(head: u64) -> u32 {
    (head >> REFS_SHIFT) as u32
}

/// The head of the block that `pfn` lies in, free or allocated; `None` for a frame that is nobody's. Stable only
/// for who holds the block, or the zone's lock. At most as many steps as there are orders: inner frames carry no
/// pointer, their head is the nearest aligned frame whose block reaches this far.
///
/// # Safety
/// The record of `pfn` exists.
pub unsafe fn compound_head<M: Machine>(machine: M, pfn: Pfn) -> Option<Pfn> {
    for order in 0..=crate::buddy::MAX_ORDER {
        let head = Pfn(pfn.0 & !((1 << order) - 1));
        // SAFETY: records exist for whole blocks of the largest order.
        let page = unsafe { Page::of(machine, head) };
        if page.state() != PageState::Absent {
            return (pfn.0 - head.0 < 1 << page.order()).then_some(head);
        }
    }
    None
}

/// A pfn as the links hold it.
#[inline(always)]
pub(crate) fn link(pfn: Pfn) -> u32 {
    debug_assert!(pfn.0 <= u32::MAX as usize);
    pfn.0 as u32
}

/// A link's pfn, if it leads anywhere. Frame 0 is never the page allocator's.
#[inline(always)]
pub(crate) fn linked(link: u32) -> Option<NonZero<u32>> {
    NonZero::new(link)
}
