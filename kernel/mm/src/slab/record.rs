//! A slab's metadata, kept in the records of its frames, and lists of slabs.
//!
//! [`SlabRecord`] is the layout of a [`Page`] while its frame belongs to the slab allocator:
//!
//! | field   | first frame of a slab         | its other frames                | frames of a large kmalloc |
//! | ------- | ----------------------------- | ------------------------------- | ------------------------- |
//! | `owner` | the [`KmemCache`]'s address   | the same                        | zone, order and [`LARGE`] |
//! | `state` | [`State`]                     | frames to go back               | the caller's address      |
//! | `links` | previous and next slab        | unused                          | unused                    |
//!
//! `owner` is written before the slab's first object is handed out and cleared when its pages are freed, so it is
//! constant as long as an object is live. The back end defines when `state` may change. `links` belong to the list that
//! the slab is on and are protected by the lock of its node.
//!
//! [`KmemCache`]: super::KmemCache
//! [`State`]: super::state::State

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::addr::Pfn;
use crate::page::{Page, PageState};
use crate::page_alloc::Machine;
use crate::slab::lookup::{pfn_of, record};
use crate::slab::state::StateWord;

/// A [`Page`] record while its frame is in a slab.
#[repr(C, align(32))]
pub(super) struct SlabRecord {
    /// State, flags and references belong to the page allocator; the fields after them overlay the record's body.
    word: AtomicU32,
    refs: AtomicU32,
    pub(super) state: StateWord,
    links: AtomicU64,
    pub(super) owner: AtomicUsize,
}

const _: () = assert!(size_of::<SlabRecord>() == size_of::<Page>());

/// The bits that are clear in the page allocator's states `Absent` (the inside of a block) and [`PageState::Slab`], but
/// not in the others.
const NOT_SLAB: u32 = 0xb;
const _: () = {
    assert!(PageState::Slab as u32 & NOT_SLAB == 0 && PageState::Absent as u32 & NOT_SLAB == 0);
    assert!(PageState::Kernel as u32 & NOT_SLAB != 0 && PageState::Table as u32 & NOT_SLAB != 0);
    assert!(PageState::Anon as u32 & NOT_SLAB != 0 && PageState::Object as u32 & NOT_SLAB != 0);
    assert!(PageState::Free as u32 & NOT_SLAB != 0 && PageState::Cached as u32 & NOT_SLAB != 0);
};

/// In `owner`: the frames are one large allocation; above the bit stand the order, in four bits, and the highest zone
/// that was allowed, in two.
pub(super) const LARGE: usize = 1;

/// `owner` of a large allocation's first frame.
pub(super) const fn large_owner(order: u32, zone: usize) -> usize {
    zone << 5 | (order as usize) << 1 | LARGE
}

/// The order in such a word.
pub(super) const fn large_order(owner: usize) -> u32 {
    (owner >> 1 & 0xf) as u32
}

/// The zone in such a word.
pub(super) const fn large_zone(owner: usize) -> usize {
    owner >> 5 & 3
}

impl SlabRecord {
    /// The record as the page allocator sees it.
    pub(super) fn page(&self) -> &Page {
        // SAFETY: the two types have the same size and alignment, and both are atomics that any bytes are valid for.
        unsafe { &*core::ptr::from_ref(self).cast::<Page>() }
    }

    /// Whether the frame can be in a slab: it is a slab's first frame, or inside some block.
    #[inline(always)]
    pub(super) fn may_be_slab(&self) -> bool {
        self.word.load(Ordering::Relaxed) & NOT_SLAB == 0
    }

    /// The first frame's record, from that of any frame of the slab.
    #[inline]
    pub(super) fn head(&'static self) -> &'static SlabRecord {
        match self.state.tail() {
            None => self,
            // SAFETY: a tail's word counts the records between it and the first one of its slab, in the same array.
            Some(back) => unsafe { &*(&raw const *self).sub(back) },
        }
    }

    /// Clears the record, before its frame goes back to the page allocator.
    pub(super) fn clear(&self) {
        self.owner.store(0, Ordering::Relaxed);
        self.state.set_raw(0);
        self.links.store(0, Ordering::Relaxed);
    }

    fn set_links(&self, previous: u32, next: u32) {
        self.links.store(u64::from(previous) << 32 | u64::from(next), Ordering::Relaxed);
    }

    fn previous(&self) -> u32 {
        (self.links.load(Ordering::Relaxed) >> 32) as u32
    }

    fn next(&self) -> u32 {
        self.links.load(Ordering::Relaxed) as u32
    }
}

/// No slab.
const NIL: u32 = u32::MAX;

/// A list of slabs through their records, protected by the lock that contains it.
pub(super) struct SlabList {
    head: u32,
    tail: u32,
    len: usize,
}

impl SlabList {
    pub(super) const fn new() -> Self {
        Self { head: NIL, tail: NIL, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The first slab.
    pub(super) fn first<M: Machine>(&self, machine: M) -> Option<&'static SlabRecord> {
        (self.head != NIL).then(|| record(machine, Pfn(self.head as usize)))
    }

    /// The slab after one that is on this list.
    pub(super) fn after<M: Machine>(&self, machine: M, slab: &SlabRecord) -> Option<&'static SlabRecord> {
        let next = slab.next();
        (next != NIL).then(|| record(machine, Pfn(next as usize)))
    }

    pub(super) fn push_front<M: Machine>(&mut self, machine: M, slab: &SlabRecord) {
        let this = pfn_of(machine, slab).0 as u32;
        slab.set_links(NIL, self.head);
        match self.first(machine) {
            Some(first) => first.set_links(this, first.next()),
            None => self.tail = this,
        }
        self.head = this;
        self.len += 1;
    }

    pub(super) fn push_back<M: Machine>(&mut self, machine: M, slab: &SlabRecord) {
        let this = pfn_of(machine, slab).0 as u32;
        slab.set_links(self.tail, NIL);
        if self.tail == NIL {
            self.head = this;
        } else {
            let last = record(machine, Pfn(self.tail as usize));
            last.set_links(last.previous(), this);
        }
        self.tail = this;
        self.len += 1;
    }

    /// Removes a slab that is on this list.
    pub(super) fn remove<M: Machine>(&mut self, machine: M, slab: &SlabRecord) {
        let (previous, next) = (slab.previous(), slab.next());
        if previous == NIL {
            self.head = next;
        } else {
            let record = record(machine, Pfn(previous as usize));
            record.set_links(record.previous(), next);
        }
        if next == NIL {
            self.tail = previous;
        } else {
            let record = record(machine, Pfn(next as usize));
            record.set_links(previous, record.next());
        }
        self.len -= 1;
    }
}
