//! Compares the slab allocator's counters with its contents. For tests, after each step: nothing else uses the heap
//! meanwhile. Panics if the two differ. Visits every free object.

use core::sync::atomic::Ordering;

use crate::page_alloc::Machine;
use crate::slab::arrays;
use crate::slab::cache::{CpuSlab, KmemCache, Setup, link};
use crate::slab::heap::KernelHeap;
use crate::slab::lookup::pfn_of;
use crate::slab::record::{SlabList, SlabRecord};
use crate::slab::spec::Backend;

impl<M: Machine> KernelHeap<M> {
    /// Validates all caches, and allocations outside of caches.
    pub fn validate(&self) {
        self.find_cache(|cache| {
            cache.validate();
            None::<()>
        });
        self.slob.validate();
    }
}

impl<M: Machine> KmemCache<M> {
    /// Validates the cache's lists and counts. SLOB counts its objects for all caches together.
    pub fn validate(&self) {
        let Some(setup) = self.setup.get().filter(|setup| setup.backend != Backend::Slob) else { return };
        let in_slabs: usize = self
            .nodes
            .iter()
            .enumerate()
            .map(|(number, node)| {
                let lists = node.lists.lock();
                assert_eq!(node.partials.load(Ordering::Relaxed), self.expected_partials(setup, lists.available()));
                if setup.backend == Backend::Slab {
                    let listed = lists.partial.len() + lists.full.len() + lists.empty.len();
                    assert_eq!(node.slabs.load(Ordering::Relaxed), listed, "slabs of {}", self.name());
                }
                self.free_on(setup, number, &lists.partial, |free, objects| free != 0 && free < objects)
                    + self.free_on(setup, number, &lists.full, |free, _| free == 0)
                    + self.free_on(setup, number, &lists.empty, |free, objects| free == objects)
            })
            .sum();
        let on_cpus: usize = self.all_cpus().iter().map(|cpu| self.free_on_cpu(setup, cpu)).sum();
        let objects: usize = self.nodes.iter().map(|node| node.objects.load(Ordering::Relaxed)).sum();
        assert_eq!(objects - self.live_objects(), in_slabs + on_cpus, "free objects of {}", self.name());
    }

    /// Only SLUB looks at the length without the lock.
    fn expected_partials(&self, setup: &Setup<M>, len: usize) -> usize {
        if setup.backend == Backend::Slub { len } else { 0 }
    }

    /// Free objects of the slabs on a list of a node, each of which is as `fits` says of its free objects and all of
    /// them.
    fn free_on(&self, setup: &Setup<M>, node: usize, list: &SlabList, fits: impl Fn(u32, u32) -> bool) -> usize {
        let (mut sum, mut len) = (0, 0);
        let mut next = list.first(self.machine);
        while let Some(slab) = next {
            let (state, free) = (slab.state.load(), self.own_free(setup, slab));
            assert!(!state.is_frozen(), "an active slab on a list of {}", self.name());
            assert_eq!(self.machine.pages().node_of(pfn_of(self.machine, slab)), node, "a slab on another node's list");
            assert!(fits(free as u32, state.objects()), "a slab of {} on the wrong list", self.name());
            sum += free;
            len += 1;
            next = list.after(self.machine, slab);
        }
        assert_eq!(len, list.len());
        sum
    }

    /// The length of a slab's own list, which its state word must know.
    fn own_free(&self, setup: &Setup<M>, slab: &'static SlabRecord) -> usize {
        let state = slab.state.load();
        let first = state.free().map(|offset| self.base_of(slab) + offset);
        let free = self.chain(setup, first, |object| {
            let owner = self.slab_of(setup, object);
            assert!(owner.is_some_and(|owner| core::ptr::eq(owner, slab)), "{object:#x} is not of this slab");
        });
        assert_eq!(free, (state.objects() - state.inuse()) as usize, "free objects of a slab of {}", self.name());
        free
    }

    fn free_on_cpu(&self, setup: &Setup<M>, cpu: &CpuSlab) -> usize {
        let mut free = 0;
        if let Some(slab) = cpu.active.get() {
            assert!(slab.state.load().is_frozen(), "an active slab of {} that is not frozen", self.name());
            free += self.own_free(setup, slab);
        }
        let list = cpu.freelist.get();
        free += self.chain(setup, (list & 1 == 0).then_some(list), |object| {
            assert_eq!(object & cpu.mask.get(), cpu.base.get(), "{object:#x} is not of the active slab");
        });
        let kept = arrays::of(cpu).map_or(&[][..], |array| array.objects());
        for (i, object) in kept.iter().enumerate() {
            assert!(self.slab_of(setup, *object).is_some() && !kept[..i].contains(object), "{object:#x} in an array");
        }
        free + kept.len()
    }

    /// Walks a list of free objects; how many.
    fn chain(&self, setup: &Setup<M>, first: Option<usize>, see: impl Fn(usize)) -> usize {
        let (mut len, mut at) = (0, first);
        while let Some(object) = at {
            see(object);
            len += 1;
            // SAFETY: the object is free, and nobody takes it meanwhile.
            let next = unsafe { link(object, setup.geometry.link, setup.secret) };
            at = (next & 1 == 0).then_some(next);
        }
        len
    }
}
