//! Lists of the store's frames that have room, linked through their records.
//!
//! The first frame of each block, and each frame of slots' records, has the 24 bytes of [`Page::body`] as a [`Body`].
//! All accesses are under the store's lock, except reads of `next_frame`, which does not change while the block has
//! objects.
//!
//! [`Page::body`]: crate::page::Page::body

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::addr::Pfn;
use crate::cgroup::Machine;
use crate::frame;

/// The body of a frame's record; overlays `Page::body`. All fields except the links are 0 again when the frame is
/// freed.
#[repr(C)]
pub(super) struct Body {
    /// The number of objects in use.
    pub live: AtomicU32,
    /// The next frame of the same block, or 0.
    pub next_frame: AtomicU32,
    /// `Page::next` and `Page::prev`: the neighbours in the list of those with room, or 0.
    next: AtomicU32,
    prev: AtomicU32,
    /// Which objects are free: bits of a block, or the first free record plus 1.
    pub free: AtomicU64,
}

const _: () = assert!(size_of::<Body>() == 24);

/// The body of a frame of the store.
#[inline]
pub(super) fn body<M: Machine>(machine: M, pfn: Pfn) -> &'static Body {
    // SAFETY: the 24 bytes belong to the holder while the frame is allocated; they are 8-aligned, and atomics.
    unsafe { &*frame::page(machine, pfn).body().cast::<Body>() }
}

/// The first frame of a list, or 0.
pub(super) struct List(u32);

impl List {
    pub const EMPTY: List = List(0);

    /// The first one.
    pub fn first(&self) -> Option<Pfn> {
        (self.0 != 0).then_some(Pfn(self.0 as usize))
    }

    pub fn push<M: Machine>(&mut self, machine: M, pfn: Pfn) {
        let this = body(machine, pfn);
        this.next.store(self.0, Relaxed);
        this.prev.store(0, Relaxed);
        if let Some(first) = self.first() {
            body(machine, first).prev.store(pfn.0 as u32, Relaxed);
        }
        self.0 = pfn.0 as u32;
    }

    /// Removes a frame that is on this list.
    pub fn remove<M: Machine>(&mut self, machine: M, pfn: Pfn) {
        let this = body(machine, pfn);
        let (next, prev) = (this.next.load(Relaxed), this.prev.load(Relaxed));
        if next != 0 {
            body(machine, Pfn(next as usize)).prev.store(prev, Relaxed);
        }
        match prev {
            0 => self.0 = next,
            _ => body(machine, Pfn(prev as usize)).next.store(next, Relaxed),
        }
    }
}
