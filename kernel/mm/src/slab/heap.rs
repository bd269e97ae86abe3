//! [`KernelHeap`]: all caches of a kernel, from their creation to their end.

use core::alloc::Layout;
use core::ops::{ControlFlow, Deref};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};

use spin::Once;

use crate::page_alloc::Machine;
use crate::page_alloc::{FaultInjection, Gfp, Injection, Shrinker};
use crate::slab::arrays;
use crate::slab::cache::{KmemCache, Setup};
use crate::slab::debug_flags::DebugFlags;
use crate::slab::geometry::Geometry;
use crate::slab::kmalloc::{CLASSES, ClassOffsets, class_spec};
use crate::slab::report::{Fault, Report};
use crate::slab::slob::Slob;
use crate::slab::spec::{Backend, CacheSpec};
use crate::sync::{Rank, SpinLock};

/// The configuration from the command line and the boot code.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// `slab=`.
    pub backend: Backend,
    /// `slub_debug=`; INJECT to be able to [inject failures](KernelHeap::inject_failures) later.
    pub debug: DebugFlags,
    /// `failslab=`.
    pub failures: FaultInjection,
    /// Unpredictable bits for the hardening of free lists.
    pub seed: u64,
    /// Called for faults, with interrupts in any state and possibly under locks: it may log, or halt.
    pub report: fn(&Report),
}

impl Default for Config {
    /// SLUB without debugging; a fault is a panic.
    fn default() -> Self {
        Self {
            backend: Backend::Slub,
            debug: DebugFlags::empty(),
            failures: FaultInjection::OFF,
            seed: 0,
            report: |report| panic!("{report}"),
        }
    }
}

impl Config {
    /// The default with the command line's settings; `find` returns the value of a key. An invalid value is ignored.
    pub fn from_args<'a>(find: impl Fn(&str) -> Option<&'a str>) -> Self {
        let mut config = Self::default();
        config.backend = find("slab").and_then(Backend::from_name).unwrap_or(config.backend);
        config.debug = find("slub_debug").map_or(config.debug, DebugFlags::from_letters);
        if let Some(failures) = find("failslab").and_then(FaultInjection::parse) {
            config.debug |= DebugFlags::INJECT;
            config.failures = failures;
        }
        config
    }
}

/// All caches, in order of creation.
pub(super) struct Caches<M: Machine> {
    pub(super) first: *mut KmemCache<M>,
    pub(super) last: *mut KmemCache<M>,
    /// The state of the generator of secrets.
    seed: u64,
}

// SAFETY: the pointers are to caches, which are `Sync`.
unsafe impl<M: Machine> Send for Caches<M> {}

/// The kernel's heap: the `kmalloc` classes, and the list of all caches.
///
/// Declared in a `static`; every allocation fails until [`KernelHeap::init`].
#[repr(C)]
pub struct KernelHeap<M: Machine> {
    /// First, so that the heap's address is also that of the table, and the base of the classes.
    pub(super) offsets: ClassOffsets,
    pub(super) classes: [KmemCache<M>; CLASSES],
    pub(super) machine: M,
    config: Once<Config>,
    pub(super) caches: SpinLock<Caches<M>, M>,
    pub(super) slob: Slob<M>,
    pub(super) injection: Injection,
    /// Allocations of whole pages, and their pages.
    pub(super) large: AtomicUsize,
    pub(super) large_pages: AtomicUsize,
}

/// Why a cache could not be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateError {
    /// No memory for the cache itself.
    NoMemory,
    /// No slab can hold such objects.
    Invalid,
    /// The heap is not up.
    NotReady,
}

/// A line of slabinfo. Exact while nothing allocates or frees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlabInfo {
    /// The cache's name.
    pub name: &'static str,
    /// Bytes of an object that its owner may use.
    pub object_size: usize,
    /// Bytes from one object to the next.
    pub stride: usize,
    /// Objects handed out.
    pub active: usize,
    /// Objects that the slabs have room for.
    pub total: usize,
    /// Slabs.
    pub slabs: usize,
    /// Pages of all slabs.
    pub pages: usize,
}

impl<M: Machine> KernelHeap<M> {
    /// A heap that is not up yet.
    pub const fn new(machine: M) -> Self {
        macro_rules! classes {
            ($($index:literal)*) => { [$(KmemCache::new(machine, class_spec($index))),*] };
        }
        Self {
            offsets: Self::CLASS_OFFSETS,
            classes: classes!(0 1 2 3 4 5 6 7 8 9 10 11 12),
            machine,
            config: Once::new(),
            caches: SpinLock::new(
                machine,
                Rank::SlabCaches,
                Caches { first: core::ptr::null_mut(), last: core::ptr::null_mut(), seed: 0 },
            ),
            slob: Slob::new(machine),
            injection: Injection::new(),
            large: AtomicUsize::new(0),
            large_pages: AtomicUsize::new(0),
        }
    }

    /// Initialises the heap, after the page allocator. Later calls do nothing.
    pub fn init(&'static self, config: Config) {
        let mut first = false;
        self.config.call_once(|| {
            first = true;
            config
        });
        if !first {
            return;
        }
        self.caches.lock().seed = config.seed;
        self.injection.start(config.failures);
        for class in &self.classes {
            // The classes' sizes are constants that every back end accepts, as a test checks.
            let adopted = self.adopt(class);
            debug_assert!(adopted.is_ok());
        }
    }

    /// Makes allocations fail, if the heap was configured with [`DebugFlags::INJECT`].
    pub fn inject_failures(&self, what: FaultInjection) {
        self.injection.start(what);
    }

    /// Failures injected since injection was last started.
    pub fn injected_failures(&self) -> u32 {
        self.injection.failures()
    }

    /// Whether all objects come from SLOB's pages.
    pub(super) fn is_slob(&self) -> bool {
        self.config.get().is_some_and(|config| config.backend == Backend::Slob)
    }

    /// Whether [`KernelHeap::init`] has run.
    pub fn is_ready(&self) -> bool {
        self.config.get().is_some()
    }

    /// Initialises a static cache.
    pub fn adopt(&'static self, cache: &'static KmemCache<M>) -> Result<(), CreateError> {
        self.bring_up(cache)
    }

    /// The cache stays where it is until [`CacheHandle::destroy`].
    fn bring_up(&'static self, cache: &KmemCache<M>) -> Result<(), CreateError> {
        let config = self.config.get().ok_or(CreateError::NotReady)?;
        let mut debug = config.debug;
        if config.backend == Backend::Slob {
            debug &= DebugFlags::INJECT;
        }
        let backend = match config.backend {
            Backend::Slub if !debug.is_empty() => Backend::Slab,
            Backend::Slob if !cache.spec.flags.gfp().is_empty() => Backend::Slab,
            backend => backend,
        };
        let geometry = Geometry::new(&cache.spec, debug).ok_or(CreateError::Invalid)?;
        let mut caches = self.caches.lock();
        if cache.setup.get().is_some() {
            return Ok(());
        }
        let secret = next_random(&mut caches.seed) as usize;
        let (report, injection, slob) = (config.report, &self.injection, &self.slob);
        cache.set_up(Setup { backend, geometry, secret, debug, injection, report, slob });
        let this = (&raw const *cache).cast_mut();
        if caches.last.is_null() {
            caches.first = this;
        } else {
            // SAFETY: caches on the list live, and their `next` belongs to the lock's holder.
            unsafe { &*caches.last }.next.store(this, Ordering::Relaxed);
        }
        caches.last = this;
        drop(caches);
        if backend != Backend::Slob && debug.is_empty() {
            arrays::set_up(cache, geometry.stride);
        }
        Ok(())
    }

    /// A new cache (`kmem_cache_create`).
    pub fn create(&'static self, spec: CacheSpec) -> Result<CacheHandle<M>, CreateError> {
        let place = self.alloc_layout(Layout::new::<KmemCache<M>>(), Gfp::KERNEL).ok_or(CreateError::NoMemory)?;
        let cache = place.cast::<KmemCache<M>>();
        // SAFETY: the place has a cache's size and alignment and is unshared.
        let result = unsafe {
            cache.write(KmemCache::new(self.machine, spec));
            self.bring_up(cache.as_ref())
        };
        match result {
            Ok(()) => Ok(CacheHandle { cache, heap: self }),
            Err(error) => {
                // SAFETY: allocated above with this layout, and not shared yet.
                unsafe { self.free_layout(place, Layout::new::<KmemCache<M>>()) };
                Err(error)
            }
        }
    }

    /// Calls `visit` for each cache in order of creation until it returns a value. The list's lock is held: `visit` is
    /// short and allocates nothing.
    pub(super) fn find_cache<R>(&self, mut visit: impl FnMut(&KmemCache<M>) -> Option<R>) -> Option<R> {
        let caches = self.caches.lock();
        let mut at = caches.first;
        // SAFETY: caches on the list live as long as the lock is held.
        while let Some(cache) = unsafe { at.as_ref() } {
            if let Some(found) = visit(cache) {
                return Some(found);
            }
            at = cache.next.load(Ordering::Relaxed);
        }
        None
    }

    /// The line of slabinfo with this number; `None` past the last. With SLOB, caches have no pages of their own:
    /// [`KernelHeap::pages`] is their sum.
    pub fn slab_info(&self, index: usize) -> Option<SlabInfo> {
        let mut skip = index;
        self.find_cache(|cache| {
            if skip == 0 {
                return Some(cache.info());
            }
            skip -= 1;
            None
        })
    }

    /// Live objects of all caches and large allocations: exact while nobody allocates or frees.
    pub fn live_objects(&self) -> usize {
        let mut live = self.large.load(Ordering::Relaxed);
        self.find_cache(|cache| {
            live += cache.live_objects();
            None::<()>
        });
        live
    }

    /// Reports a pointer that belongs to no cache to the kernel.
    #[cold]
    pub(super) fn report_foreign(&self, object: usize) {
        if let Some(config) = self.config.get() {
            (config.report)(&Report::new(self.machine, Fault::Foreign, "", object));
        }
    }

    /// Shrinks every cache from this CPU; returns how many pages went back to the page allocator. Other CPUs' cached
    /// objects stay: see [`KmemCache::shrink`].
    pub fn shrink(&self) -> usize {
        self.shrink_until(usize::MAX)
    }

    /// Shrinks caches until `target` pages went back.
    fn shrink_until(&self, target: usize) -> usize {
        let mut pages = 0;
        self.visit_caches(|cache| {
            pages += cache.shrink();
            if pages < target { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        pages
    }

    /// Pages of large allocations, and those that SLOB's objects share, which are in no cache's line of slabinfo.
    pub fn pages_outside_caches(&self) -> usize {
        self.large_pages.load(Ordering::Relaxed) + self.slob.pages.load(Ordering::Relaxed)
    }

    /// Pages that the heap holds: all slabs, the arrays in front of them, and large allocations.
    pub fn pages(&self) -> usize {
        let mut pages = self.pages_outside_caches();
        self.find_cache(|cache| {
            pages += cache.info().pages;
            None::<()>
        });
        pages + self.array_pages()
    }

    /// Pages of the per-CPU arrays of free objects.
    pub fn array_pages(&self) -> usize {
        let mut pages = 0;
        self.find_cache(|cache| {
            pages += usize::from(!cache.all_cpus()[0].array.get().is_null());
            None::<()>
        });
        pages
    }
}

/// Frees slabs without objects in use when memory runs short.
impl<M: Machine> Shrinker for KernelHeap<M> {
    /// The pages that the caches' free objects would fill: only a scan can tell how many of them are in empty slabs.
    fn count(&self) -> usize {
        let mut pages = 0;
        self.find_cache(|cache| {
            let info = cache.info();
            let free = info.total.saturating_sub(info.active);
            pages += (free * info.pages).checked_div(info.total).unwrap_or(0);
            None::<()>
        });
        pages
    }

    fn scan(&self, target: usize, _gfp: Gfp) -> usize {
        self.shrink_until(target)
    }
}

impl<M: Machine> KmemCache<M> {
    /// This cache's line of slabinfo.
    pub fn info(&self) -> SlabInfo {
        let sum = |count: fn(&super::node::Node<M>) -> &AtomicUsize| {
            self.nodes.iter().map(|node| count(node).load(Ordering::Relaxed)).sum()
        };
        let active = self.live_objects();
        let is_slob = self.setup.get().is_some_and(|setup| setup.backend == Backend::Slob);
        SlabInfo {
            name: self.name(),
            object_size: self.object_size(),
            stride: self.setup.get().map_or(0, |setup| setup.geometry.stride),
            active,
            total: if is_slob { active } else { sum(|node| &node.objects) },
            slabs: sum(|node| &node.slabs),
            pages: sum(|node| &node.pages),
        }
    }
}

/// The owner of a cache made at run time. If it is dropped without [`CacheHandle::destroy`], the cache stays for ever.
pub struct CacheHandle<M: Machine> {
    cache: NonNull<KmemCache<M>>,
    heap: &'static KernelHeap<M>,
}

// SAFETY: the handle owns a cache, which is `Send` and `Sync`.
unsafe impl<M: Machine> Send for CacheHandle<M> {}
// SAFETY: as above.
unsafe impl<M: Machine> Sync for CacheHandle<M> {}

impl<M: Machine> core::fmt::Debug for CacheHandle<M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.info().fmt(f)
    }
}

impl<M: Machine> Deref for CacheHandle<M> {
    type Target = KmemCache<M>;
    fn deref(&self) -> &KmemCache<M> {
        // SAFETY: the cache lives until its handle is destroyed.
        unsafe { self.cache.as_ref() }
    }
}

impl<M: Machine> CacheHandle<M> {
    /// Destroys the cache and frees all its pages (`kmem_cache_destroy`). If objects are still live, it fails and
    /// returns the handle.
    pub fn destroy(self) -> Result<(), Self> {
        if self.live_objects() != 0 {
            return Err(self);
        }
        if self.heap.disown(self.cache) {
            // SAFETY: the handle is the only reference to the cache, which is off the list; `self` is passed by value,
            // so it is not borrowed, and no object is live whose free could access the cache.
            unsafe { self.heap.end(self.cache) };
        }
        Ok(())
    }

    /// Keeps the cache for ever.
    pub fn leak(self) -> &'static KmemCache<M> {
        // SAFETY: without its handle the cache cannot be destroyed.
        unsafe { self.cache.as_ref() }
    }
}

/// The next number of a splitmix64 sequence (Steele, Lea, Flood 2014): secrets need to differ, not to be
/// unpredictable beyond the seed.
fn next_random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
