//! [`KmemCache`]: the common interface of the three back ends, and the per-CPU fast path.
//!
//! A CPU takes objects from, and gives them to, its own [`CpuSlab`] line with interrupts masked and nothing
//! else: no lock, no atomic read-modify-write, no loop. Masking is cheaper here than Linux's per-CPU
//! compare-and-exchange with a transaction number: two instructions on AArch64, and the section is some twenty
//! instructions long.
//!
//! The line is filled by SLUB alone. With another back end, or a debug option that has to check every object, the line
//! stays [empty](CpuSlab::reset): the free list is empty and the slab's range matches no object, so that both
//! directions take the slow path, which dispatches on the back end. So the choice costs the default nothing.
//!
//! Hardening: a link in a free object is mangled with the cache's secret and the object's address, so that an overflow
//! cannot forge one; a link that unmangles to an invalid value is reported when it becomes the head; and an object
//! freed twice in a row is reported at once.

use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use spin::Once;

use crate::addr::PAGE_SHIFT;
use crate::machine::MAX_CPUS;
use crate::page_alloc::Machine;
use crate::page_alloc::{Gfp, Injection};
use crate::slab::array::Array;
use crate::slab::debug::{self, DebugFlags};
use crate::slab::geometry::{Geometry, MAX_ORDER};
use crate::slab::node::Node;
use crate::slab::record::SlabRecord;
use crate::slab::report::{Fault, Report};
use crate::slab::slob::Slob;
use crate::slab::{Backend, CacheSpec, demand, slab, slob, slub};
use crate::zone::MAX_NODES;

/// One CPU's part of a cache: a cache line of its own, so that CPUs do not share lines.
///
/// Only that CPU accesses it, with interrupts masked, except `live`, which any CPU may read, and code with exclusive
/// use of the whole cache.
#[repr(C, align(64))]
pub(super) struct CpuSlab {
    /// The first free object of the active slab; odd if there is none.
    pub(super) freelist: Cell<usize>,
    /// Objects allocated less objects freed on this CPU, modulo 2^64.
    live: AtomicUsize,
    /// The offset of the link in a free object.
    pub(super) offset: Cell<usize>,
    /// Mangles links.
    pub(super) secret: Cell<usize>,
    /// Where the active slab starts; odd if there is none.
    pub(super) base: Cell<usize>,
    /// The bits of an address that distinguish the active slab from others.
    pub(super) mask: Cell<usize>,
    /// The active slab's record (SLUB).
    pub(super) active: Cell<Option<&'static SlabRecord>>,
    /// The array of free objects; null if there is none.
    pub(super) array: Cell<*mut Array>,
}

// SAFETY: the cells, and what they point to, are used by one CPU at a time, as the type's description demands.
unsafe impl Sync for CpuSlab {}
// SAFETY: as above; nothing here is tied to a thread.
unsafe impl Send for CpuSlab {}

/// An address that no object has.
const EMPTY: usize = 1;

impl CpuSlab {
    const fn new() -> Self {
        Self {
            freelist: Cell::new(EMPTY),
            live: AtomicUsize::new(0),
            offset: Cell::new(0),
            secret: Cell::new(0),
            base: Cell::new(EMPTY),
            mask: Cell::new(0),
            active: Cell::new(None),
            array: Cell::new(core::ptr::null_mut()),
        }
    }

    /// Forgets the active slab: both fast paths will miss.
    pub(super) fn reset(&self) {
        self.freelist.set(EMPTY);
        self.base.set(EMPTY);
        self.mask.set(0);
        self.active.set(None);
    }

    /// Counts an allocation. There is one writer, so no atomic read-modify-write is needed.
    #[inline(always)]
    pub(super) fn count_alloc(&self) {
        self.live.store(self.live.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Counts a free.
    #[inline(always)]
    pub(super) fn count_free(&self) {
        self.live.store(self.live.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
    }
}

/// The end of the list of free objects of a slab: inside the slab, as every link is, but odd.
#[inline(always)]
pub(super) const fn end_of_list(base: usize) -> usize {
    base | 1
}

/// Mangles the link of a free object, or unmangles it.
#[inline(always)]
const fn mangle(link: usize, object: usize, secret: usize) -> usize {
    link ^ secret ^ object.swap_bytes()
}

/// Reads the link of a free object.
///
/// # Safety
/// `object` is a free object, owned by the caller, whose link is `offset` bytes in.
#[inline(always)]
pub(super) unsafe fn link(object: usize, offset: usize, secret: usize) -> usize {
    // SAFETY: the caller's promise; the link is a word of the object's own, aligned to 8.
    let stored = unsafe { core::ptr::with_exposed_provenance::<usize>(object + offset).read() };
    mangle(stored, object, secret)
}

/// Writes the link of a free object.
///
/// # Safety
/// As for [`link`].
#[inline(always)]
pub(super) unsafe fn set_link(object: usize, offset: usize, secret: usize, to: usize) {
    let slot = core::ptr::with_exposed_provenance_mut::<usize>(object + offset);
    // SAFETY: the caller's promise; the link is a word of the object's own, aligned to 8.
    unsafe { slot.write(mangle(to, object, secret)) }
}

/// Whether a link may be one of `object`'s: no slab crosses a boundary of the largest buddy block. A link that was
/// written over unmangles to 64 bits of noise.
#[inline(always)]
pub(super) const fn is_plausible(link: usize, object: usize) -> bool {
    (link ^ object) >> (PAGE_SHIFT + MAX_ORDER) == 0
}

/// In `visitors`: the cache's owner has destroyed it, and the last visitor frees it.
pub(super) const ORPHAN: u32 = 1 << 31;

/// A cache's configuration once the allocator is up.
pub(super) struct Setup<M: Machine> {
    /// The back end. SLAB if the command line says SLUB but a debug option has to check every object.
    pub(super) backend: Backend,
    pub(super) geometry: Geometry,
    pub(super) secret: usize,
    pub(super) debug: DebugFlags,
    pub(super) injection: &'static Injection,
    pub(super) report: fn(&Report),
    /// Where objects come from if the back end is SLOB.
    pub(super) slob: &'static Slob<M>,
}

/// A cache of objects of one size (`kmem_cache`).
///
/// Declared in place, for example in a `static`, and initialised by [`KernelHeap::adopt`]; or made at run time by
/// [`KernelHeap::create`]. Before that every allocation fails.
///
/// [`KernelHeap::adopt`]: super::KernelHeap::adopt
/// [`KernelHeap::create`]: super::KernelHeap::create
#[repr(C)]
pub struct KmemCache<M: Machine> {
    /// First, so that the fast path's offsets are small.
    cpus: [CpuSlab; MAX_CPUS],
    pub(super) nodes: [Node<M>; MAX_NODES],
    pub(super) setup: Once<Setup<M>>,
    pub(super) spec: CacheSpec,
    pub(super) machine: M,
    /// The next cache in the heap's list, guarded by that list's lock.
    pub(super) next: AtomicPtr<KmemCache<M>>,
    /// The number of threads that shrink the cache now, and [`ORPHAN`]; changed under that lock.
    pub(super) visitors: AtomicU32,
}

impl<M: Machine> KmemCache<M> {
    /// A cache that is not initialised yet.
    pub const fn new(machine: M, spec: CacheSpec) -> Self {
        Self {
            cpus: [const { CpuSlab::new() }; MAX_CPUS],
            nodes: Node::all(machine),
            setup: Once::new(),
            spec,
            machine,
            next: AtomicPtr::new(core::ptr::null_mut()),
            visitors: AtomicU32::new(0),
        }
    }

    /// Sets the layout of slabs; from now on allocation works. Called once.
    pub(super) fn set_up(&self, setup: Setup<M>) {
        self.setup.call_once(|| {
            for cpu in &self.cpus {
                cpu.offset.set(setup.geometry.link);
                cpu.secret.set(setup.secret);
            }
            setup
        });
    }

    /// The cache's name.
    pub fn name(&self) -> &'static str {
        self.spec.name
    }

    /// Bytes of an object that its owner may use.
    pub fn object_size(&self) -> usize {
        self.setup.get().map_or(self.spec.size, |setup| setup.geometry.size)
    }

    /// This CPU's line. Interrupts are masked, or the answer may be another CPU's by the time it is used.
    #[inline(always)]
    pub(super) fn this_cpu(&self) -> &CpuSlab {
        // SAFETY: `Machine::cpu` is below `MAX_CPUS`, by that trait's contract.
        unsafe { self.cpus.get_unchecked(self.machine.cpu()) }
    }

    /// The lines of all CPUs.
    pub(super) fn all_cpus(&self) -> &[CpuSlab] {
        &self.cpus
    }

    /// Allocates an object. If the cache has a constructor, its contents are as the constructor or the last owner left
    /// them; else they are zero if `gfp` says so, and undefined otherwise. `None` if there is no memory, or if the
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

    /// As [`KmemCache::alloc_raw`], for a caller that may be bound to this CPU's node: only `slow` knows of that.
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

    /// Live objects: exact while nothing allocates or frees.
    pub fn live_objects(&self) -> usize {
        self.cpus.iter().fold(0usize, |sum, cpu| sum.wrapping_add(cpu.live.load(Ordering::Relaxed)))
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
            Backend::Slob => slob::alloc(self, setup, gfp, irq),
        }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn free_slow(&self, object: NonNull<u8>, irq: usize) {
        if let Some(setup) = self.setup.get().filter(|setup| debug::may_free(self, setup, object)) {
            match setup.backend {
                Backend::Slub => slub::free(self, setup, object),
                Backend::Slab => slab::free(self, setup, object),
                Backend::Slob => slob::free(self, setup, object),
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

    /// Reports a fault with an object to the kernel.
    #[cold]
    pub(super) fn report(&self, fault: Fault, object: usize) {
        if let Some(setup) = self.setup.get() {
            (setup.report)(&Report::new(self.machine, fault, self.spec.name, object));
        }
    }
}
