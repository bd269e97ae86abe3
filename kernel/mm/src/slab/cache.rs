//! [`KmemCache`]: a cache's data, its CPUs' lines, and the links of free objects. [`front`](super::front) allocates
//! from it.
//!
//! Hardening: a link in a free object is mangled with the cache's secret and the object's address, so that an overflow
//! cannot forge one.

use core::cell::Cell;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use spin::Once;

use crate::addr::PAGE_SHIFT;
use crate::machine::MAX_CPUS;
use crate::page_alloc::{Injection, Machine};
use crate::slab::array::Array;
use crate::slab::debug_flags::DebugFlags;
use crate::slab::geometry::{Geometry, MAX_ORDER};
use crate::slab::node::Node;
use crate::slab::record::SlabRecord;
use crate::slab::report::{Fault, Report};
use crate::slab::slob::Slob;
use crate::slab::spec::{Backend, CacheSpec};
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

    /// Live objects: exact while nothing allocates or frees.
    pub fn live_objects(&self) -> usize {
        self.cpus.iter().fold(0usize, |sum, cpu| sum.wrapping_add(cpu.live.load(Ordering::Relaxed)))
    }

    /// Reports a fault with an object to the kernel.
    #[cold]
    pub(super) fn report(&self, fault: Fault, object: usize) {
        if let Some(setup) = self.setup.get() {
            (setup.report)(&Report::new(self.machine, fault, self.spec.name, object));
        }
    }
}
