//! The common interface of the three back ends, and the per-CPU fast path.
//!
//! A CPU takes objects from, and gives them to, its own [`CpuSlab`](super::cache::CpuSlab) line with interrupts masked
//! and nothing else: no lock, no atomic read-modify-write, no loop. Masking is cheaper here than Linux's per-CPU
//! compare-and-exchange with a transaction number: two instructions on AArch64, and the section is some twenty
//! instructions long.
//!
//! The line is filled by SLUB alone. With another back end, or a debug option that has to check every object, the line
//! stays [empty](super::cache::CpuSlab::reset): the free list is empty and the slab's range matches no object, so that
//! both directions take the slow path, which dispatches on the back end. So the choice costs the default nothing.
//!
//! A link that unmangles to an invalid value is reported when it becomes the head, and an object freed twice in a row
//! is reported at once.

use core::ptr::NonNull;

use crate::page_alloc::{Gfp, Machine};
use crate::slab::cache::{KmemCache, Setup, end_of_list, is_plausible, link, set_link};
use crate::slab::report::Fault;
use crate::slab::slob::Need;
use crate::slab::spec::Backend;
use crate::slab::{debug, demand, slab, slub};

impl<M: Machine> KmemCache<M> {
    /// Allocates an object. If the cache has a constructor, its contents are as the constructor or the last owner left
    /// them; otherwise they are zero if `gfp` says so, and undefined if not. `None` if there is no memory, or if the
    /// cache is not in the zone that `gfp` requires.
    #[inline]
    pub fn alloc(&self, gfp: Gfp) -> Option<NonNull<u8>> {
        if gfp.intersects(demand::SPECIAL) {
            return self.alloc_special(gfp);
        }
        NonNull::new(self.alloc_raw(gfp, |irq| self.alloc_slow(gfp, irq)))
    }

    /// Out of line, so that the fast path needs no stack frame.
    #[inline(never)]
    fn alloc_special(&self, gfp: Gfp) -> Option<NonNull<u8>> {
        if !self.spec.flags.reaches(gfp) {
            return None;
        }
        let object = NonNull::new(self.alloc_where(gfp, |irq| self.alloc_slow(gfp, irq)))?;
        if gfp.contains(Gfp::ZERO) && self.spec.constructor.is_none() {
            // SAFETY: the object is the caller's alone and has this many bytes.
            unsafe { object.write_bytes(0, self.object_size()) };
        }
        Some(object)
    }

    /// Allocates an object with undefined contents; null on failure. If this CPU has none, `slow` continues with
    /// interrupts masked, and restores them with its argument.
    #[inline(always)]
    pub(super) fn alloc_raw(&self, gfp: Gfp, slow: impl FnOnce(usize) -> *mut u8) -> *mut u8 {
        let irq = self.machine.irq_save();
        let cpu = self.this_cpu();
        let object = cpu.freelist.get();
        if object & 1 != 0 {
            return slow(irq);
        }
        // SAFETY: what the CPU's list holds is free and this CPU's; interrupts are masked.
        let next = unsafe { link(object, cpu.offset.get(), cpu.secret.get()) };
        if !is_plausible(next, object) {
            return self.alloc_corrupted(object, gfp, irq);
        }
        cpu.freelist.set(next);
        cpu.count_alloc();
        self.machine.irq_restore(irq);
        core::ptr::with_exposed_provenance_mut(object)
    }

    /// As [`KmemCache::alloc_raw`], for a caller that may be bound to this CPU's node: only `slow` handles that.
    pub(super) fn alloc_where(&self, gfp: Gfp, slow: impl FnOnce(usize) -> *mut u8) -> *mut u8 {
        if gfp.contains(Gfp::THISNODE) { slow(self.machine.irq_save()) } else { self.alloc_raw(gfp, slow) }
    }

    /// Frees an object.
    ///
    /// # Safety
    /// `object` came from this cache's `alloc`, is freed once, and is no longer used.
    #[inline(always)]
    pub unsafe fn free(&self, object: NonNull<u8>) {
        self.free_raw(object, |irq| self.free_slow(object, irq));
    }

    /// Frees an object. If it is not in this CPU's active slab, `slow` continues, as in [`KmemCache::alloc_raw`].
    #[inline(always)]
    pub(super) fn free_raw(&self, object: NonNull<u8>, slow: impl FnOnce(usize)) {
        let irq = self.machine.irq_save();
        let cpu = self.this_cpu();
        let address = object.as_ptr().expose_provenance();
        if address & cpu.mask.get() != cpu.base.get() {
            return slow(irq);
        }
        let head = cpu.freelist.get();
        if head == address {
            return self.free_twice(address, irq);
        }
        // SAFETY: the object lies in this CPU's active slab, and the caller gave it up.
        unsafe { set_link(address, cpu.offset.get(), cpu.secret.get(), head) };
        cpu.freelist.set(address);
        cpu.count_free();
        self.machine.irq_restore(irq);
    }

    /// Fills `into` with objects; returns how many, fewer than requested only if memory is exhausted.
    pub fn alloc_bulk(&self, gfp: Gfp, into: &mut [Option<NonNull<u8>>]) -> usize {
        for (done, slot) in into.iter_mut().enumerate() {
            *slot = self.alloc(gfp);
            if slot.is_none() {
                return done;
            }
        }
        into.len()
    }

    /// Frees many objects.
    ///
    /// # Safety
    /// As for [`KmemCache::free`], for each.
    pub unsafe fn free_bulk(&self, objects: &mut [Option<NonNull<u8>>]) {
        for object in objects.iter_mut().filter_map(Option::take) {
            // SAFETY: the caller's promise.
            unsafe { self.free(object) };
        }
    }

    /// Returns unused slabs to the page allocator: all that are on no CPU, and this CPU's own. Returns the number of
    /// pages.
    ///
    /// Other CPUs' cached objects stay, since those CPUs use them without a lock: an active slab each, and an array of
    /// up to 30 objects (4 of the largest size) each of which may keep a slab. (Linux flushes them with work on each
    /// CPU.)
    pub fn shrink(&self) -> usize {
        let Some(setup) = self.setup.get() else { return 0 };
        match setup.backend {
            Backend::Slub => slub::shrink(self, setup),
            Backend::Slab => slab::shrink(self, setup),
            Backend::Slob => 0,
        }
    }

    /// Frees all slabs of a cache that is empty and no longer in use.
    pub(super) fn release_all(&mut self) {
        let this = &*self;
        let Some(setup) = this.setup.get() else { return };
        match setup.backend {
            Backend::Slub => slub::release_all(this, setup),
            Backend::Slab => slab::release_all(this, setup),
            Backend::Slob => {}
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn alloc_slow(&self, gfp: Gfp, irq: usize) -> *mut u8 {
        let mut irq = irq;
        let object = match self.setup.get() {
            None => core::ptr::null_mut(),
            Some(setup) if setup.debug.is_empty() => self.alloc_from_backend(setup, gfp, &mut irq),
            Some(setup) => debug::alloc(self, setup, gfp, || self.alloc_from_backend(setup, gfp, &mut irq)),
        };
        self.machine.irq_restore(irq);
        object
    }

    fn alloc_from_backend(&self, setup: &Setup<M>, gfp: Gfp, irq: &mut usize) -> *mut u8 {
        match setup.backend {
            Backend::Slub => slub::alloc(self, setup, gfp, irq),
            Backend::Slab => slab::alloc(self, setup, gfp, irq),
            Backend::Slob => alloc_from_slob(self, setup, gfp, irq),
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn free_slow(&self, object: NonNull<u8>, irq: usize) {
        if let Some(setup) = self.setup.get().filter(|setup| debug::may_free(self, setup, object)) {
            match setup.backend {
                Backend::Slub => slub::free(self, setup, object),
                Backend::Slab => slab::free(self, setup, object),
                Backend::Slob => free_to_slob(self, setup, object),
            }
        }
        self.machine.irq_restore(irq);
    }

    /// Handles an invalid link of a free object: the rest of the list is lost, and the object with it.
    #[cold]
    #[inline(never)]
    fn alloc_corrupted(&self, object: usize, gfp: Gfp, irq: usize) -> *mut u8 {
        let cpu = self.this_cpu();
        cpu.freelist.set(end_of_list(cpu.base.get()));
        self.report(Fault::FreeListCorrupted, object);
        self.alloc_slow(gfp, irq)
    }

    #[cold]
    #[inline(never)]
    fn free_twice(&self, object: usize, irq: usize) {
        self.machine.irq_restore(irq);
        self.report(Fault::DoubleFree, object);
    }
}

/// An object of a cache from SLOB.
fn alloc_from_slob<M: Machine>(cache: &KmemCache<M>, setup: &Setup<M>, gfp: Gfp, irq: &mut usize) -> *mut u8 {
    cache.machine.irq_restore(*irq);
    let found = setup.slob.alloc(Need::object(setup.geometry.size, setup.geometry.align), gfp);
    let object: *mut u8 = found.map_or(core::ptr::null_mut(), core::ptr::with_exposed_provenance_mut);
    if let Some(construct) = cache.spec.constructor.filter(|_| !object.is_null()) {
        construct(object);
    }
    *irq = cache.machine.irq_save();
    if !object.is_null() {
        cache.this_cpu().count_alloc();
    }
    object
}

/// Gives an object of a cache back to SLOB. Interrupts are masked.
fn free_to_slob<M: Machine>(cache: &KmemCache<M>, setup: &Setup<M>, object: NonNull<u8>) {
    let need = Need::object(setup.geometry.size, setup.geometry.align);
    // SAFETY: the owner gave the object up.
    if unsafe { setup.slob.free(object.as_ptr().addr(), need) } {
        cache.this_cpu().count_free();
    } else {
        cache.report(Fault::DoubleFree, object.as_ptr().addr());
    }
}
