//! A slab's metadata, kept in the records of its frames, and lists of slabs.
//!
//! [`SlabRecord`] is what a [`Page`] means while its frame belongs to the slab allocator:
//!
//! | field   | first frame of a slab         | its other frames                | frames of a large kmalloc |
//! | ------- | ----------------------------- | ------------------------------- | ------------------------- |
//! | `owner` | the [`KmemCache`]'s address   | the same                        | order and [`LARGE`]       |
//! | `state` | [`State`]                     | [`TAIL`] and frames to go back  | the caller's address      |
//! | `links` | previous and next slab        | unused                          | unused                    |
//!
//! `owner` is written before the slab's first object is handed out and cleared when its pages go back, so it is
//! constant for as long as anybody may rightly ask. `state` is one word, changed by compare-and-exchange only
//! once the slab is published: see [`super::slub`] for who may change it when. `links` belong to the list that
//! the slab is on and are guarded by the lock of its node.
//!
//! [`KmemCache`]: super::KmemCache

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::addr::Pfn;
use crate::machine::Machine;
use crate::page::{Page, PageState};
use crate::slab::frames::{pfn_of, record};

/// What a [`Page`] record holds while its frame is in a slab.
#[repr(C, align(32))]
pub(super) struct SlabRecord {
    /// State, flags and references are the page allocator's; what follows is laid over the record's body.
    word: AtomicU32,
    refs: AtomicU32,
    pub(super) state: AtomicU64,
    links: AtomicU64,
    pub(super) owner: AtomicUsize,
}

const _: () = assert!(size_of::<SlabRecord>() == size_of::<Page>());

/// What the page allocator's states `Absent` (the inside of a block) and [`PageState::Slab`] do not have in common
/// with the others.
const NOT_SLAB: u32 = 0xb;
const _: () = {
    assert!(PageState::Slab as u32 & NOT_SLAB == 0 && PageState::Absent as u32 & NOT_SLAB == 0);
    assert!(PageState::Kernel as u32 & NOT_SLAB != 0 && PageState::Table as u32 & NOT_SLAB != 0);
    assert!(PageState::Anon as u32 & NOT_SLAB != 0 && PageState::Object as u32 & NOT_SLAB != 0);
    assert!(PageState::Free as u32 & NOT_SLAB != 0 && PageState::Cached as u32 & NOT_SLAB != 0);
};

/// In `owner`: the frames are one large allocation; the order stands above the bit.
pub(super) const LARGE: usize = 1;

/// In `state` of a frame that is not a slab's first.
pub(super) const TAIL: u64 = 1 << 63;

/// The counters of one slab in one word, so that one compare-and-exchange moves them all.
///
/// ```text
///  62    53   52     51   48 47     34 33   20 19    0
/// | colour | frozen | order | objects | inuse | free |
/// ```
///
/// `free` is the first free object as its distance from the slab's start in units of 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct State(pub(super) u64);

/// `free` of a slab that has no free object on its own list.
const NO_FREE: u64 = 0xf_ffff;
const INUSE_SHIFT: u32 = 20;
const OBJECTS_SHIFT: u32 = 34;
const COUNT: u64 = 0x3fff;
const ORDER_SHIFT: u32 = 48;
const FROZEN: u64 = 1 << 52;
const COLOUR_SHIFT: u32 = 53;
/// How many colours there can be.
pub(super) const MAX_COLOURS: u32 = 1 << 10;

impl State {
    pub(super) const fn new(order: u32, objects: u32) -> State {
        State((order as u64) << ORDER_SHIFT | (objects as u64) << OBJECTS_SHIFT | NO_FREE)
    }

    /// Byte offset of the first free object.
    pub(super) const fn free(self) -> Option<usize> {
        let free = self.0 & NO_FREE;
        if free == NO_FREE { None } else { Some(free as usize * 8) }
    }

    pub(super) const fn inuse(self) -> u32 {
        (self.0 >> INUSE_SHIFT & COUNT) as u32
    }

    pub(super) const fn objects(self) -> u32 {
        (self.0 >> OBJECTS_SHIFT & COUNT) as u32
    }

    pub(super) const fn order(self) -> u32 {
        (self.0 >> ORDER_SHIFT & 0xf) as u32
    }

    /// Whether the slab is some CPU's active one.
    pub(super) const fn is_frozen(self) -> bool {
        self.0 & FROZEN != 0
    }

    /// By how many steps the first object is shifted (SLAB).
    pub(super) const fn colour(self) -> u32 {
        (self.0 >> COLOUR_SHIFT) as u32 & (MAX_COLOURS - 1)
    }

    #[must_use]
    pub(super) const fn with_colour(self, colour: u32) -> State {
        State(self.0 | (colour as u64) << COLOUR_SHIFT)
    }

    #[must_use]
    pub(super) const fn with_free(self, offset: Option<usize>) -> State {
        let free = match offset {
            Some(offset) => offset as u64 / 8,
            None => NO_FREE,
        };
        State(self.0 & !NO_FREE | free)
    }

    #[must_use]
    pub(super) const fn with_inuse(self, inuse: u32) -> State {
        State(self.0 & !(COUNT << INUSE_SHIFT) | (inuse as u64) << INUSE_SHIFT)
    }

    #[must_use]
    pub(super) const fn with_frozen(self, frozen: bool) -> State {
        State(if frozen { self.0 | FROZEN } else { self.0 & !FROZEN })
    }
}

impl SlabRecord {
    /// The record as the page allocator sees it.
    pub(super) fn page(&self) -> &Page {
        // SAFETY: the two types have the same size and alignment, and both are atomics that any bytes are valid for.
        unsafe { &*core::ptr::from_ref(self).cast::<Page>() }
    }

    /// Whether the frame can be in a slab: it is a slab's first, or inside of somebody's block.
    #[inline(always)]
    pub(super) fn may_be_slab(&self) -> bool {
        self.word.load(Ordering::Relaxed) & NOT_SLAB == 0
    }

    /// The slab's state now. Acquire: a list that the word leads to was written before it.
    #[inline]
    pub(super) fn state(&self) -> State {
        State(self.state.load(Ordering::Acquire))
    }

    /// Replaces `old`; the word's present value if it is not `old` any more.
    #[inline]
    pub(super) fn exchange(&self, old: State, new: State) -> Result<(), State> {
        self.state.compare_exchange_weak(old.0, new.0, Ordering::AcqRel, Ordering::Acquire).map(drop).map_err(State)
    }

    /// The first frame's record, from that of any frame of the slab.
    #[inline]
    pub(super) fn head(&'static self) -> &'static SlabRecord {
        let word = self.state.load(Ordering::Relaxed);
        if word & TAIL == 0 {
            return self;
        }
        let back = (word & !TAIL) as usize;
        // SAFETY: a tail's word counts the records between it and the first one of its slab, in the same array.
        unsafe { &*(&raw const *self).sub(back) }
    }

    /// Makes the record say nothing, before its frame goes back to the page allocator.
    pub(super) fn clear(&self) {
        self.owner.store(0, Ordering::Relaxed);
        self.state.store(0, Ordering::Relaxed);
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

/// A list of slabs through their records, guarded by the lock that it stands in.
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

    /// Takes out a slab that is on this list.
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
