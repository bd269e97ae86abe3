//! What a cache keeps for a NUMA node: lists of slabs and their counts; and slabs coming and going.

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::addr::{PAGE_SHIFT, PAGE_SIZE};
use crate::machine::Machine;
use crate::page::PageState;
use crate::page_alloc::Gfp;
use crate::slab::cache::{KmemCache, Setup, end_of_list, set_link};
use crate::slab::debug::Fault;
use crate::slab::frames::{pfn_of, record_of};
use crate::slab::record::{SlabList, SlabRecord, State, TAIL};
use crate::sync::{Rank, SpinLock};
use crate::zone::MAX_NODES;

/// The lists of a node. Rank [`Rank::SlabNode`]; one node of one cache at a time, and no pages are allocated or
/// freed under it.
pub(super) struct Lists {
    /// Slabs with free objects of their own that are nobody's active slab.
    pub(super) partial: SlabList,
}

/// A cache's part on one NUMA node; a line of its own.
#[repr(align(64))]
pub(super) struct Node<M: Machine> {
    pub(super) lists: SpinLock<Lists, M>,
    /// The length of `partial`, to be looked at before the lock is taken.
    pub(super) partials: AtomicUsize,
    pub(super) slabs: AtomicUsize,
    pub(super) objects: AtomicUsize,
    pub(super) pages: AtomicUsize,
}

impl<M: Machine> Node<M> {
    const fn new(machine: M) -> Self {
        Self {
            lists: SpinLock::new(machine, Rank::SlabNode, Lists { partial: SlabList::new() }),
            partials: AtomicUsize::new(0),
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

    /// To be called under the lock after `partial` changed.
    pub(super) fn publish_length(&self, lists: &Lists) {
        self.partials.store(lists.partial.len(), Ordering::Relaxed);
    }
}

impl<M: Machine> KmemCache<M> {
    /// The node that a slab's frames are on.
    pub(super) fn node_of(&self, slab: &SlabRecord) -> &Node<M> {
        &self.nodes[self.machine.pages().node_of(pfn_of(self.machine, slab))]
    }

    /// The address of a slab's first byte.
    pub(super) fn base_of(&self, slab: &SlabRecord) -> usize {
        self.machine.direct_map(pfn_of(self.machine, slab).addr()).expose_provenance()
    }

    /// A slab fresh from the page allocator, all of its objects free and on its own list; on no list of slabs.
    /// May sleep if `gfp` allows it.
    pub(super) fn new_slab(&self, setup: &Setup, gfp: Gfp) -> Option<&'static SlabRecord> {
        let geometry = &setup.geometry;
        let gfp = gfp - Gfp::ZERO;
        // A big slab is a wish, one that holds an object a need.
        let pages = self.machine.pages();
        let wish = if geometry.min_order < geometry.order { gfp | Gfp::NOWARN | Gfp::NORETRY } else { gfp };
        let (order, pfn) = match pages.alloc_raw(geometry.order, wish) {
            Ok(pfn) => (geometry.order, pfn),
            Err(_) if geometry.min_order < geometry.order => {
                (geometry.min_order, pages.alloc_raw(geometry.min_order, gfp).ok()?)
            }
            Err(_) => return None,
        };
        let start = pfn.addr();
        let objects = geometry.objects(order);
        let base = self.machine.direct_map(start).expose_provenance();
        let mut next = end_of_list(base);
        for index in (0..objects as usize).rev() {
            let object = base + index * geometry.stride;
            if let Some(construct) = self.spec.constructor {
                construct(core::ptr::with_exposed_provenance_mut(object));
            }
            // SAFETY: the slab is ours alone, and the object and its link lie in it.
            unsafe { set_link(object, geometry.link, setup.secret, next) };
            next = object;
        }

        let head = record_of(self.machine, core::ptr::with_exposed_provenance(base));
        let owner = (&raw const *self).expose_provenance();
        for back in 1..1u64 << order {
            let page = core::ptr::with_exposed_provenance(base + ((back as usize) << PAGE_SHIFT));
            let tail = record_of(self.machine, page);
            tail.state.store(TAIL | back, Ordering::Relaxed);
            tail.owner.store(owner, Ordering::Relaxed);
        }
        head.page().set_state(PageState::Slab);
        head.state.store(State::new(order, objects).with_free(Some(0)).0, Ordering::Release);
        head.owner.store(owner, Ordering::Release);
        let node = self.node_of(head);
        node.slabs.fetch_add(1, Ordering::Relaxed);
        node.objects.fetch_add(objects as usize, Ordering::Relaxed);
        node.pages.fetch_add(1 << order, Ordering::Relaxed);
        Some(head)
    }

    /// Gives a slab's frames back. It is on no list, nobody's active slab, and has no object in use. How many
    /// pages that were.
    pub(super) fn discard_slab(&self, slab: &'static SlabRecord) -> usize {
        let state = slab.state();
        debug_assert!(state.inuse() == 0 && !state.is_frozen());
        let (pages, base) = (1usize << state.order(), self.base_of(slab));
        let node = self.node_of(slab);
        node.slabs.fetch_sub(1, Ordering::Relaxed);
        node.objects.fetch_sub(state.objects() as usize, Ordering::Relaxed);
        node.pages.fetch_sub(pages, Ordering::Relaxed);
        for page in 0..pages {
            let record = record_of(self.machine, core::ptr::with_exposed_provenance(base + page * PAGE_SIZE));
            record.clear();
        }
        // SAFETY: `new_slab` got the frames with this order, and by the contract above nobody uses them.
        unsafe { self.machine.pages().free_pages(pfn_of(self.machine, slab), state.order()) };
        pages
    }

    /// The slab that an object is in, if it is an object of this cache; reports it otherwise.
    pub(super) fn slab_of(&self, setup: &Setup, object: usize) -> Option<&'static SlabRecord> {
        let record = record_of(self.machine, core::ptr::with_exposed_provenance(object));
        let ours = record.owner.load(Ordering::Acquire) == &raw const *self as usize;
        if !ours {
            self.report(Fault::WrongCache, object);
            return None;
        }
        let slab = record.head();
        if !(object - self.base_of(slab)).is_multiple_of(setup.geometry.stride) {
            self.report(Fault::NotAnObject, object);
            return None;
        }
        Some(slab)
    }
}
