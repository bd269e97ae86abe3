//! A cache's part on a NUMA node: lists of slabs, and their counts.

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::page_alloc::Machine;
use crate::slab::record::SlabList;
use crate::sync::{Rank, SpinLock};
use crate::zone::MAX_NODES;

/// The lists of a node. Rank [`Rank::SlabNode`]; one node of one cache at a time, and no pages are allocated or
/// freed under it.
pub(super) struct Lists {
    /// Slabs with some objects in use and some free; for SLUB, only those that are no CPU's active slab.
    pub(super) partial: SlabList,
    /// SLAB: slabs with all objects in use.
    pub(super) full: SlabList,
    /// Slabs with no object in use. Separate, so that they can be freed without a search.
    pub(super) empty: SlabList,
}

impl Lists {
    const fn new() -> Self {
        Self { partial: SlabList::new(), full: SlabList::new(), empty: SlabList::new() }
    }

    /// Slabs with free objects.
    pub(super) fn available(&self) -> usize {
        self.partial.len() + self.empty.len()
    }

    /// The list to take the next slab with free objects from: empty ones last, so that they can be freed.
    pub(super) fn supply(&mut self) -> &mut SlabList {
        if self.partial.len() != 0 { &mut self.partial } else { &mut self.empty }
    }
}

/// A cache's part on one NUMA node; a line of its own.
#[repr(align(64))]
pub(super) struct Node<M: Machine> {
    pub(super) lists: SpinLock<Lists, M>,
    /// SLUB: the number of slabs with free objects on the lists, for reading before the lock is taken.
    pub(super) partials: AtomicUsize,
    /// The colour of the next slab (SLAB).
    pub(super) next_colour: AtomicU32,
    pub(super) slabs: AtomicUsize,
    pub(super) objects: AtomicUsize,
    pub(super) pages: AtomicUsize,
}

impl<M: Machine> Node<M> {
    const fn new(machine: M) -> Self {
        Self {
            lists: SpinLock::new(machine, Rank::SlabNode, Lists::new()),
            partials: AtomicUsize::new(0),
            next_colour: AtomicU32::new(0),
            slabs: AtomicUsize::new(0),
            objects: AtomicUsize::new(0),
            pages: AtomicUsize::new(0),
        }
    }

    /// One for each node. (`[const { … }; N]` cannot hold a value that comes from a parameter.)
    pub(super) const fn all(machine: M) -> [Self; MAX_NODES] {
        let mut nodes = [const { MaybeUninit::<Self>::uninit() }; MAX_NODES];
        let mut i = 0;
        while i < MAX_NODES {
            nodes[i] = MaybeUninit::new(Self::new(machine));
            i += 1;
        }
        // SAFETY: every element was written above, and `MaybeUninit<T>` is laid out as `T`.
        unsafe { (&raw const nodes).cast::<[Self; MAX_NODES]>().read() }
    }

    /// SLUB: to be called under the lock after the lists changed.
    pub(super) fn publish_length(&self, lists: &Lists) {
        self.partials.store(lists.available(), Ordering::Relaxed);
    }
}
