//! Creation and disposal of a cache's slabs.

use core::sync::atomic::Ordering;

use crate::addr::{PAGE_SHIFT, PAGE_SIZE, Pfn};
use crate::page::PageState;
use crate::page_alloc::{Gfp, Machine};
use crate::slab::cache::{KmemCache, Setup, end_of_list, set_link};
use crate::slab::lookup::{pfn_of, record_of};
use crate::slab::node::Node;
use crate::slab::record::{SlabList, SlabRecord};
use crate::slab::report::Fault;
use crate::slab::spec::Backend;
use crate::slab::state::State;
use crate::slab::{debug, demand};

/// How many empty slabs are taken off a list at once.
const BATCH: usize = 8;

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
    pub(super) fn new_slab(&self, setup: &Setup<M>, gfp: Gfp) -> Option<&'static SlabRecord> {
        let geometry = &setup.geometry;
        let gfp = (demand::for_pages(gfp) - demand::ZONES) | self.spec.flags.gfp();
        // A large slab is optional; one that holds an object is required.
        let pages = self.machine.pages();
        let wish = if geometry.min_order < geometry.order { demand::wish(gfp) } else { gfp };
        let (order, pfn) = match pages.alloc_raw(geometry.order, wish) {
            Ok(pfn) => (geometry.order, pfn),
            Err(_) if geometry.min_order < geometry.order => {
                (geometry.min_order, pages.alloc_raw(geometry.min_order, gfp).ok()?)
            }
            Err(_) => return None,
        };
        let start = pfn.addr();
        let objects = geometry.objects(order);
        let colour = self.next_colour(setup, pfn, order);
        let first = geometry.first(colour);
        let base = self.machine.direct_map(start).expose_provenance();
        let mut next = end_of_list(base);
        for index in (0..objects as usize).rev() {
            let object = base + first + index * geometry.stride;
            if let Some(construct) = self.spec.constructor {
                construct(core::ptr::with_exposed_provenance_mut(object));
            }
            debug::prepare(self, setup, object);
            // SAFETY: the slab is unshared, and the object and its link lie in it.
            unsafe { set_link(object, geometry.link, setup.secret, next) };
            next = object;
        }

        let head = record_of(self.machine, core::ptr::with_exposed_provenance(base));
        let owner = (&raw const *self).expose_provenance();
        for back in 1..1usize << order {
            let page = core::ptr::with_exposed_provenance(base + (back << PAGE_SHIFT));
            let tail = record_of(self.machine, page);
            tail.state.set_tail(back);
            tail.owner.store(owner, Ordering::Relaxed);
        }
        head.page().set_state(PageState::Slab);
        head.state.store(State::new(order, objects).with_free(Some(first)).with_colour(colour));
        head.owner.store(owner, Ordering::Release);
        let node = self.node_of(head);
        node.slabs.fetch_add(1, Ordering::Relaxed);
        node.objects.fetch_add(objects as usize, Ordering::Relaxed);
        node.pages.fetch_add(1 << order, Ordering::Relaxed);
        Some(head)
    }

    /// Slabs of a SLAB cache start their objects at different offsets in turn, so that objects at the same index in
    /// different slabs do not all map to the same cache sets (Bonwick 1994).
    fn next_colour(&self, setup: &Setup<M>, pfn: Pfn, order: u32) -> u32 {
        if setup.backend != Backend::Slab {
            return 0;
        }
        let node = &self.nodes[self.machine.pages().node_of(pfn)];
        node.next_colour.fetch_add(1, Ordering::Relaxed) % setup.geometry.colours(order)
    }

    /// Frees a slab's frames. It is on no list, no CPU's active slab, and has no object in use. Returns the number of
    /// pages.
    pub(super) fn discard_slab(&self, slab: &'static SlabRecord) -> usize {
        let state = slab.state.load();
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

    /// Frees slabs that are on this list only; returns the number of pages.
    pub(super) fn discard_slabs(&self, mut slabs: SlabList) -> usize {
        let mut pages = 0;
        while let Some(slab) = slabs.first(self.machine) {
            slabs.remove(self.machine, slab);
            pages += self.discard_slab(slab);
        }
        pages
    }

    /// Frees the slabs that have no object in use now; returns the number of pages. A few at a time, so that neither a
    /// node's lock is held nor interrupts are masked for long.
    pub(super) fn discard_empty(&self, setup: &Setup<M>) -> usize {
        let discard = |node: &Node<M>| {
            let (mut left, mut pages) = (node.lists.lock().empty.len(), 0);
            while left != 0 {
                let mut batch = SlabList::new();
                let mut lists = node.lists.lock();
                while batch.len() < left.min(BATCH)
                    && let Some(slab) = lists.empty.first(self.machine)
                {
                    lists.empty.remove(self.machine, slab);
                    batch.push_back(self.machine, slab);
                }
                if setup.backend == Backend::Slub {
                    node.publish_length(&lists);
                }
                drop(lists);
                // Other CPUs may have taken the rest meanwhile.
                left = if batch.len() == 0 { 0 } else { left - batch.len() };
                pages += self.discard_slabs(batch);
            }
            pages
        };
        self.nodes.iter().map(discard).sum()
    }

    /// The slab that an object is in, if it is an object of this cache; reports it otherwise.
    pub(super) fn slab_of(&self, setup: &Setup<M>, object: usize) -> Option<&'static SlabRecord> {
        let record = record_of(self.machine, core::ptr::with_exposed_provenance(object));
        let ours = record.owner.load(Ordering::Acquire) == &raw const *self as usize;
        if !ours {
            self.report(Fault::WrongCache, object);
            return None;
        }
        let slab = record.head();
        let state = slab.state.load();
        let first = self.base_of(slab) + setup.geometry.first(state.colour());
        let index = object.checked_sub(first).and_then(|offset| setup.geometry.index(offset));
        if index.is_none_or(|index| index >= state.objects() as usize) {
            self.report(Fault::NotAnObject, object);
            return None;
        }
        Some(slab)
    }
}
