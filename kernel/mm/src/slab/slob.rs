//! SLOB: the back end with the smallest footprint, for machines with little memory.
//!
//! Objects of all caches and sizes share pages. A page is an array of 8-byte units; its free blocks are chained by
//! address, so that neighbours merge, and an object is taken from the first block that it fits into (Knuth 1968, 2.5;
//! McIlroy's allocator for Linux gave the name). A block's first unit holds its length and the position of the next
//! block.
//!
//! Pages with free blocks are on lists by the size class of their largest block: powers of two of units. An allocation
//! searches a few pages of its size's class, and then the classes above, of which any page has room unless the
//! alignment prevents it. So no list is walked to its end, and large objects do not scan pages full of small fragments,
//! as with a single list.
//!
//! A free must know the object's size: a cache knows it, Rust's `dealloc` gets it, and `kmalloc` stores it in a word
//! before the object. Nothing else is stored, and an object's size is only rounded up to 8 bytes.
//!
//! Larger objects get whole pages.
//!
//! Lock: a single one, [`Rank::SlabNode`]. Pages are allocated and freed without it.

use core::sync::atomic::{AtomicUsize, Ordering};

use crate::addr::PAGE_SIZE;
use crate::page_alloc::Gfp;
use crate::page_alloc::Machine;
use crate::slab::demand;
use crate::slab::geometry::order_for;
use crate::slab::lookup::{pfn_of, record_of};
use crate::slab::record::{LARGE, SlabList, SlabRecord};
use crate::sync::{Rank, SpinLock};

/// Bytes of a unit.
pub(super) const UNIT: usize = 8;
/// Units of a page.
const UNITS: usize = PAGE_SIZE / UNIT;
/// In `owner`: a SLOB page. Set together with [`LARGE`], since it belongs to no cache either.
pub(super) const SLOB: usize = 1 << 8 | LARGE;
/// How many pages of one class are searched.
const TRIES: usize = 8;
/// Classes of pages: by the log2 of the units of their largest block.
const CLASSES: usize = UNITS.ilog2() as usize + 1;
/// No block.
const NIL: usize = 0xffff;

/// A page's free blocks, in the record's word where other back ends have their state: the first free block, the number
/// of free units, and the size of the largest block.
#[derive(Clone, Copy)]
struct Blocks {
    first: usize,
    free: usize,
    largest: usize,
}

impl Blocks {
    fn of(page: &SlabRecord) -> Self {
        let word = page.state.raw() as usize;
        Self { first: word & 0xffff, free: word >> 16 & 0xffff, largest: word >> 32 & 0xffff }
    }

    fn store(self, page: &SlabRecord) {
        page.state.set_raw((self.first | self.free << 16 | self.largest << 32) as u64);
    }

    /// The list that such a page is on.
    fn class(self) -> Option<usize> {
        self.largest.checked_ilog2().map(|class| class as usize)
    }
}

/// A page's memory, under the lock.
struct Units(*mut u64);

impl Units {
    /// A free block's length and where the next one is.
    fn block(&self, at: usize) -> (usize, usize) {
        debug_assert!(at < UNITS);
        // SAFETY: `at` is the start of a free block of this page, whose memory belongs to SLOB.
        let word = unsafe { self.0.add(at).read() } as usize;
        (word & 0xffff, word >> 16 & 0xffff)
    }

    fn set_block(&self, at: usize, len: usize, next: usize) {
        debug_assert!(len != 0 && at + len <= UNITS);
        // SAFETY: as above.
        unsafe { self.0.add(at).write((len | next << 16) as u64) }
    }

    /// Makes `next` the block after `at`, or the first one.
    fn link(&self, at: Option<usize>, next: usize, blocks: &mut Blocks) {
        match at {
            Some(at) => self.set_block(at, self.block(at).0, next),
            None => blocks.first = next,
        }
    }

    fn largest(&self, mut at: usize) -> usize {
        let mut largest = 0;
        while at != NIL {
            let (len, next) = self.block(at);
            largest = largest.max(len);
            at = next;
        }
        largest
    }
}

/// A request: `units`, starting `lead` units before a multiple of `align` bytes.
#[derive(Clone, Copy)]
pub(super) struct Need {
    pub(super) units: usize,
    pub(super) align: usize,
    pub(super) lead: usize,
}

impl Need {
    /// An object that is freed with its size.
    pub(super) fn object(size: usize, align: usize) -> Self {
        Self { units: units(size), align: align.max(UNIT), lead: 0 }
    }

    /// An object with a word for its size before it.
    pub(super) fn with_header(size: usize, align: usize) -> Self {
        Self { units: units(size) + 1, align: align.max(UNIT), lead: 1 }
    }

    /// The order of the whole pages that hold it if one page does not.
    fn order(self) -> u32 {
        order_for(self.units * UNIT).max(order_for(self.align))
    }

    /// Whether a page can hold it, wherever in the page it has to start.
    pub(super) fn fits_page(self) -> bool {
        let first = (self.lead * UNIT).next_multiple_of(self.align) / UNIT - self.lead;
        self.align <= PAGE_SIZE && first + self.units <= UNITS
    }
}

/// The units of an object.
pub(super) fn units(size: usize) -> usize {
    size.max(1).div_ceil(UNIT)
}

struct Lists {
    classes: [SlabList; CLASSES],
}

/// The memory of all objects.
pub(super) struct Slob<M: Machine> {
    machine: M,
    lists: SpinLock<Lists, M>,
    pub(super) pages: AtomicUsize,
}

impl<M: Machine> Slob<M> {
    pub(super) const fn new(machine: M) -> Self {
        Self {
            machine,
            lists: SpinLock::new(machine, Rank::SlabNode, Lists { classes: [const { SlabList::new() }; CLASSES] }),
            pages: AtomicUsize::new(0),
        }
    }

    /// Memory, from its `lead` on. Interrupts are as the caller has them.
    pub(super) fn alloc(&self, need: Need, gfp: Gfp) -> Option<usize> {
        if !need.fits_page() {
            return self.alloc_whole(need, gfp);
        }
        if let Some(found) = self.alloc_from_lists(need, gfp) {
            return Some(found);
        }
        let pfn = self.machine.pages().alloc_raw(0, demand::for_pages(gfp)).ok()?;
        self.pages.fetch_add(1, Ordering::Relaxed);
        let start = self.machine.direct_map(pfn.addr());
        start.expose_provenance();
        let page = record_of(self.machine, start);
        page.owner.store(SLOB, Ordering::Relaxed);
        Units(start.cast()).set_block(0, UNITS, NIL);
        Blocks { first: 0, free: UNITS, largest: UNITS }.store(page);
        let mut lists = self.lists.lock();
        let found = self.take(page, need);
        if let Some(class) = Blocks::of(page).class() {
            lists.classes[class].push_front(self.machine, page);
        }
        found
    }

    /// Frees memory that `alloc` returned for such a request. Returns whether it was in use.
    ///
    /// # Safety
    /// It is no longer used.
    pub(super) unsafe fn free(&self, address: usize, need: Need) -> bool {
        let page = record_of(self.machine, core::ptr::with_exposed_provenance(address));
        if page.owner.load(Ordering::Relaxed) != SLOB {
            return false;
        }
        if !need.fits_page() {
            self.give_back(page, need.order());
            return true;
        }
        let mut lists = self.lists.lock();
        let before = Blocks::of(page);
        let Some(after) = self.merge(page, before, address % PAGE_SIZE / UNIT, need.units) else { return false };
        after.store(page);
        if let Some(class) = before.class() {
            lists.classes[class].remove(self.machine, page);
        }
        if after.free == UNITS {
            drop(lists);
            self.give_back(page, 0);
        } else if let Some(class) = after.class() {
            lists.classes[class].push_front(self.machine, page);
        }
        true
    }

    /// Compares the pages' records with their free blocks. Nothing else uses the allocator meanwhile.
    pub(super) fn validate(&self) {
        let lists = self.lists.lock();
        for (class, list) in lists.classes.iter().enumerate() {
            let mut next = list.first(self.machine);
            while let Some(page) = next {
                let (blocks, units) = (Blocks::of(page), self.units_of(page));
                assert_eq!(blocks.class(), Some(class), "a page on the wrong list");
                let (mut free, mut end, mut at) = (0, None, blocks.first);
                while at != NIL {
                    let (len, behind) = units.block(at);
                    assert!(end.is_none_or(|end| end < at), "free blocks out of order, or not merged");
                    free += len;
                    end = Some(at + len);
                    at = behind;
                }
                assert_eq!((free, units.largest(blocks.first)), (blocks.free, blocks.largest), "free units of a page");
                next = list.after(self.machine, page);
            }
        }
    }

    fn alloc_from_lists(&self, need: Need, gfp: Gfp) -> Option<usize> {
        let pages = self.machine.pages();
        let bound = gfp.contains(Gfp::THISNODE).then(|| pages.local_node());
        let fits = |page| bound.is_none_or(|node| pages.node_of(pfn_of(self.machine, page)) == node);
        let mut lists = self.lists.lock();
        for class in need.units.ilog2() as usize..CLASSES {
            let mut next = lists.classes[class].first(self.machine);
            for _ in 0..TRIES {
                let Some(page) = next else { break };
                next = lists.classes[class].after(self.machine, page);
                let Some(found) = fits(page).then(|| self.take(page, need)).flatten() else { continue };
                let now = Blocks::of(page).class();
                if now != Some(class) {
                    lists.classes[class].remove(self.machine, page);
                    if let Some(now) = now {
                        lists.classes[now].push_front(self.machine, page);
                    }
                }
                return Some(found);
            }
        }
        None
    }

    /// First fit within a page.
    fn take(&self, page: &SlabRecord, need: Need) -> Option<usize> {
        let mut blocks = Blocks::of(page);
        if blocks.largest < need.units {
            return None;
        }
        let units = self.units_of(page);
        let (mut before, mut at) = (None, blocks.first);
        while at != NIL {
            let (len, next) = units.block(at);
            let start = ((at + need.lead) * UNIT).next_multiple_of(need.align) / UNIT - need.lead;
            if start + need.units > at + len {
                (before, at) = (Some(at), next);
                continue;
            }
            // The rest before and after it stays free.
            let (end, block_end) = (start + need.units, at + len);
            let behind = if end < block_end {
                units.set_block(end, block_end - end, next);
                end
            } else {
                next
            };
            if start > at {
                units.set_block(at, start - at, behind);
            } else {
                units.link(before, behind, &mut blocks);
            }
            blocks.free -= need.units;
            blocks.largest = if len == blocks.largest { units.largest(blocks.first) } else { blocks.largest };
            blocks.store(page);
            return Some(units.0.addr() + start * UNIT);
        }
        None
    }

    /// Inserts a block into a page's free blocks; `None` if it overlaps one of them.
    fn merge(&self, page: &SlabRecord, mut blocks: Blocks, mut at: usize, mut len: usize) -> Option<Blocks> {
        let units = self.units_of(page);
        let (mut before, mut next) = (None, blocks.first);
        while next != NIL && next < at {
            (before, next) = (Some(next), units.block(next).1);
        }
        let end_before = before.map_or(0, |start| start + units.block(start).0);
        if end_before > at || (next != NIL && at + len > next) || at + len > UNITS {
            return None;
        }
        blocks.free += len;
        if next != NIL && at + len == next {
            let (next_len, behind) = units.block(next);
            len += next_len;
            next = behind;
        }
        match before {
            Some(start) if end_before == at => {
                len += at - start;
                at = start;
            }
            before => units.link(before, at, &mut blocks),
        }
        units.set_block(at, len, next);
        blocks.largest = blocks.largest.max(len);
        Some(blocks)
    }

    fn units_of(&self, page: &SlabRecord) -> Units {
        Units(self.machine.direct_map(pfn_of(self.machine, page).addr()).cast())
    }

    /// Allocates memory that is larger than a page, or aligned to more.
    fn alloc_whole(&self, need: Need, gfp: Gfp) -> Option<usize> {
        let order = need.order();
        let pfn = self.machine.pages().alloc_raw(order, demand::for_pages(gfp)).ok()?;
        self.pages.fetch_add(1 << order, Ordering::Relaxed);
        let start = self.machine.direct_map(pfn.addr());
        record_of(self.machine, start).owner.store(SLOB, Ordering::Relaxed);
        Some(start.expose_provenance())
    }

    fn give_back(&self, page: &SlabRecord, order: u32) {
        self.pages.fetch_sub(1 << order, Ordering::Relaxed);
        page.clear();
        // SAFETY: the frames belong to SLOB, have this order, and hold no object.
        unsafe { self.machine.pages().free_pages(pfn_of(self.machine, page), order) };
    }
}
