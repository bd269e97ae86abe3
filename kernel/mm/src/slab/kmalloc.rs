//! `kmalloc` and its family: memory by size, and the `#[global_allocator]`.
//!
//! Sizes up to [`MAX_CLASS`] come from a cache of their size class. A class of a power of two aligns its objects
//! to their size; 96 aligns to 32 and 192 to 64. Larger sizes are whole pages up to the buddy allocator's limit.
//!
//! [`KernelHeap::kfree`] finds an object's cache by its frame's record. Callers that know the layout, such as Rust's
//! own `dealloc`, avoid that look-up. For both to be correct, an object never changes its class: a `realloc` to another
//! class moves it.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use crate::addr::PAGE_SIZE;
use crate::page_alloc::Gfp;
use crate::page_alloc::Machine;
use crate::slab::cache::{CpuSlab, KmemCache};
use crate::slab::demand;
use crate::slab::geometry::{MAX_ORDER, order_for};
use crate::slab::heap::KernelHeap;
use crate::slab::lookup::record_of;
use crate::slab::record::{LARGE, large_order, large_owner, large_zone};
use crate::slab::report::Fault;
use crate::slab::slob::{self, Need, SLOB};
use crate::slab::spec::CacheSpec;

/// How many size classes there are.
pub(super) const CLASSES: usize = 13;

/// Their sizes and names.
const SIZES: [(usize, &str); CLASSES] = [
    (8, "kmalloc-8"),
    (16, "kmalloc-16"),
    (32, "kmalloc-32"),
    (64, "kmalloc-64"),
    (96, "kmalloc-96"),
    (128, "kmalloc-128"),
    (192, "kmalloc-192"),
    (256, "kmalloc-256"),
    (512, "kmalloc-512"),
    (1024, "kmalloc-1k"),
    (2048, "kmalloc-2k"),
    (4096, "kmalloc-4k"),
    (8192, "kmalloc-8k"),
];

/// The largest class; larger requests get whole pages.
pub const MAX_CLASS: usize = SIZES[CLASSES - 1].0;

/// For each size in words of 8 bytes, the offset of its class in the heap, so that neither a multiplication nor a
/// second look-up is needed.
pub(super) type ClassOffsets = [u16; MAX_CLASS / 8 + 1];

/// The class of a size, at most [`MAX_CLASS`].
const fn class_of(size: usize) -> usize {
    let mut class = 0;
    while SIZES[class].0 < size {
        class += 1;
    }
    class
}

/// The specification of the class with this index.
pub(super) const fn class_spec(index: usize) -> CacheSpec {
    let (size, name) = SIZES[index];
    CacheSpec::new(name, size, class_align(size))
}

/// The alignment that a class's size gives.
const fn class_align(size: usize) -> usize {
    1 << size.trailing_zeros()
}

/// The size to ask for so that its class has this layout's alignment: a multiple of the alignment. The classes
/// that are no powers of two serve multiples of 32 up to 96, and of 64 up to 192, at those alignments. No bytes are
/// aligned as one would be.
#[inline(always)]
fn size_of_layout(layout: Layout) -> usize {
    let mask = layout.align() - 1;
    (layout.size().max(1) + mask) & !mask
}

impl<M: Machine> KernelHeap<M> {
    /// [`KernelHeap::offsets`].
    pub(super) const CLASS_OFFSETS: ClassOffsets = {
        let first = core::mem::offset_of!(Self, classes);
        assert!(first + CLASSES * size_of::<KmemCache<M>>() <= u16::MAX as usize);
        let mut table = [0; MAX_CLASS / 8 + 1];
        let mut words = 0;
        while words < table.len() {
            table[words] = (first + class_of(words * 8) * size_of::<KmemCache<M>>()) as u16;
            words += 1;
        }
        table
    };

    /// The class of a size, at most [`MAX_CLASS`].
    #[inline(always)]
    fn class(&self, size: usize) -> &KmemCache<M> {
        let offset = self.offsets[size.div_ceil(8)];
        // SAFETY: the table holds offsets of elements of `classes`.
        unsafe { &*core::ptr::from_ref(self).byte_add(usize::from(offset)).cast() }
    }

    /// At least `size` bytes. A size of 0 counts as 1. With DMA or DMA32, whole pages of that zone, whatever the size.
    #[inline(always)]
    pub fn kmalloc(&self, size: usize, gfp: Gfp) -> Option<NonNull<u8>> {
        // One test for all rare cases, and for the largest class.
        if (size / MAX_CLASS) | (gfp.bits() & demand::SPECIAL.bits()) as usize != 0 {
            return self.kmalloc_special(size, gfp);
        }
        // SAFETY: the first half of the condition above implies it.
        unsafe { core::hint::assert_unchecked(size < MAX_CLASS) };
        let cache = self.class(size);
        NonNull::new(cache.alloc_raw(gfp, |irq| self.kmalloc_slow(cache, size, gfp, irq)))
    }

    /// The slow path if this CPU has no object of the class. Interrupts are masked.
    #[cold]
    #[inline(never)]
    fn kmalloc_slow(&self, cache: &KmemCache<M>, size: usize, gfp: Gfp, irq: usize) -> *mut u8 {
        if !self.is_slob() {
            return cache.alloc_slow(gfp, irq);
        }
        self.machine.irq_restore(irq);
        if self.injection.hits(0, size, gfp) {
            return core::ptr::null_mut();
        }
        self.alloc_with_header(cache, size, gfp).map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    /// Apart, so that the fast path needs no stack.
    #[inline(never)]
    fn kmalloc_special(&self, size: usize, gfp: Gfp) -> Option<NonNull<u8>> {
        if size > MAX_CLASS || gfp.intersects(demand::ZONES) {
            return self.alloc_large(size, gfp);
        }
        let cache = self.class(size);
        let object = NonNull::new(cache.alloc_where(gfp, |irq| self.kmalloc_slow(cache, size, gfp, irq)))?;
        if gfp.contains(Gfp::ZERO) {
            // All of it, for a later `krealloc` in place. SAFETY: the object is unshared and has this many bytes.
            unsafe { object.write_bytes(0, self.capacity(size, gfp)) };
        }
        Some(object)
    }

    /// At least `size` bytes, the first `size` zero.
    pub fn kzalloc(&self, size: usize, gfp: Gfp) -> Option<NonNull<u8>> {
        self.kmalloc(size, gfp | Gfp::ZERO)
    }

    /// An array of `n` elements of `size` bytes, all zero.
    pub fn kcalloc(&self, n: usize, size: usize, gfp: Gfp) -> Option<NonNull<u8>> {
        self.kzalloc(n.checked_mul(size)?, gfp)
    }

    /// Frees memory from `kmalloc` or one of its family. Null is ignored.
    ///
    /// # Safety
    /// `ptr` is null or from this heap, is freed once, and is no longer used.
    #[inline(always)]
    pub unsafe fn kfree(&self, ptr: *mut u8) {
        let Some(object) = NonNull::new(ptr) else { return };
        let record = record_of(self.machine, ptr);
        let owner = record.owner.load(Ordering::Relaxed);
        if !record.may_be_slab() || owner == 0 {
            return self.free_large(object);
        }
        // SAFETY: the owner of a slab's frame is the cache of all objects in it, which lives while one of them
        // does.
        let cache = unsafe { &*core::ptr::with_exposed_provenance::<KmemCache<M>>(owner) };
        // SAFETY: the caller's promise.
        unsafe { cache.free(object) }
    }

    /// How many bytes the owner of `object` may use: at least the size requested.
    ///
    /// # Safety
    /// `object` is from this heap and has not been freed.
    pub unsafe fn ksize(&self, object: NonNull<u8>) -> usize {
        let record = record_of(self.machine, object.as_ptr());
        let owner = record.owner.load(Ordering::Relaxed);
        if owner == SLOB {
            // SAFETY: the caller's promise; every `kmalloc` of SLOB's has a header.
            return slob::units(unsafe { header(object).read() }) * slob::UNIT;
        }
        if !record.may_be_slab() || owner == 0 {
            return PAGE_SIZE << large_order(owner);
        }
        // SAFETY: as in `kfree`.
        unsafe { &*core::ptr::with_exposed_provenance::<KmemCache<M>>(owner) }.object_size()
    }

    /// Resizes an object to at least `size` bytes, possibly moving it; on failure the old memory stays. Null counts as
    /// an empty object. The result is in the zone that `gfp` requires, even if the old object was not.
    ///
    /// With ZERO, added bytes are zero, provided that the object was allocated with ZERO and always resized with it, as
    /// on Linux: the last requested size is not recorded, so everything after it is kept zero instead.
    ///
    /// # Safety
    /// As for [`KernelHeap::kfree`], unless the result is `None`.
    pub unsafe fn krealloc(&self, ptr: *mut u8, size: usize, gfp: Gfp) -> Option<NonNull<u8>> {
        let Some(old) = NonNull::new(ptr) else { return self.kmalloc(size, gfp) };
        // SAFETY: the caller's promise, here and below.
        let room = unsafe { self.ksize(old) };
        let is_aligned = old.as_ptr().addr().is_multiple_of(natural_align(size));
        if self.capacity(size, gfp) == room && is_aligned && self.is_low_enough(old, gfp) {
            if gfp.contains(Gfp::ZERO) {
                // SAFETY: the object has `room` bytes, and `size` is at most its capacity.
                unsafe { old.add(size).write_bytes(0, room - size) };
            }
            return Some(old);
        }
        let new = self.kmalloc(size, gfp)?;
        // SAFETY: both objects have this many bytes and are distinct.
        unsafe {
            new.copy_from_nonoverlapping(old, room.min(size));
            self.kfree(ptr);
        }
        Some(new)
    }

    /// Memory for a layout. With DMA or DMA32 only if it is larger than the classes: otherwise the free by layout would
    /// compute a class that the object is not from.
    #[inline(always)]
    pub fn alloc_layout(&self, layout: Layout, gfp: Gfp) -> Option<NonNull<u8>> {
        let size = size_of_layout(layout);
        if size > MAX_CLASS || gfp.intersects(demand::SPECIAL) {
            return self.layout_special(layout, gfp);
        }
        let cache = self.class(size);
        NonNull::new(cache.alloc_raw(gfp, |irq| self.layout_slow(cache, layout, gfp, irq)))
    }

    /// Apart, so that the fast path needs no stack.
    #[inline(never)]
    fn layout_special(&self, layout: Layout, gfp: Gfp) -> Option<NonNull<u8>> {
        let size = size_of_layout(layout);
        if size > MAX_CLASS {
            return self.alloc_large(size, gfp);
        }
        if gfp.intersects(demand::ZONES) {
            return None;
        }
        let cache = self.class(size);
        let object = NonNull::new(cache.alloc_where(gfp, |irq| self.layout_slow(cache, layout, gfp, irq)))?;
        if gfp.contains(Gfp::ZERO) {
            // SAFETY: the object is the caller's alone and has this many bytes.
            unsafe { object.write_bytes(0, layout.size()) };
        }
        Some(object)
    }

    /// As [`KernelHeap::kmalloc_slow`], for memory that is freed with its layout.
    #[cold]
    #[inline(never)]
    fn layout_slow(&self, cache: &KmemCache<M>, layout: Layout, gfp: Gfp, irq: usize) -> *mut u8 {
        if !self.is_slob() {
            return cache.alloc_slow(gfp, irq);
        }
        self.machine.irq_restore(irq);
        if self.injection.hits(0, layout.size(), gfp) {
            return core::ptr::null_mut();
        }
        let need = Need::object(size_of_layout(layout), layout.align());
        let Some(object) = self.slob.alloc(need, gfp) else { return core::ptr::null_mut() };
        self.count(cache, CpuSlab::count_alloc);
        core::ptr::with_exposed_provenance_mut(object)
    }

    /// Frees memory from [`KernelHeap::alloc_layout`].
    ///
    /// # Safety
    /// `object` is from `alloc_layout` with this layout, is freed once, and is no longer used.
    #[inline(always)]
    pub unsafe fn free_layout(&self, object: NonNull<u8>, layout: Layout) {
        let size = size_of_layout(layout);
        if size > MAX_CLASS {
            return self.free_large(object);
        }
        let cache = self.class(size);
        cache.free_raw(object, |irq| self.free_layout_slow(cache, object, layout, irq));
    }

    #[cold]
    #[inline(never)]
    fn free_layout_slow(&self, cache: &KmemCache<M>, object: NonNull<u8>, layout: Layout, irq: usize) {
        if !self.is_slob() {
            return cache.free_slow(object, irq);
        }
        self.machine.irq_restore(irq);
        let need = Need::object(size_of_layout(layout), layout.align());
        self.free_to_slob(cache, object.as_ptr().addr(), need);
    }

    /// SLOB's `kmalloc`: the size is stored before the object.
    fn alloc_with_header(&self, cache: &KmemCache<M>, size: usize, gfp: Gfp) -> Option<NonNull<u8>> {
        let need = Need::with_header(size, natural_align(size));
        if !need.fits_page() {
            return self.alloc_large(size, gfp - Gfp::ZERO);
        }
        let start = core::ptr::with_exposed_provenance_mut::<usize>(self.slob.alloc(need, gfp)?);
        // SAFETY: the memory is unshared; its first word is the header, and the object follows.
        let object = unsafe {
            start.write(size);
            NonNull::new(start.add(1).cast())
        };
        self.count(cache, CpuSlab::count_alloc);
        object
    }

    /// Frees memory from [`KernelHeap::alloc_with_header`].
    fn free_with_header(&self, object: NonNull<u8>) {
        // SAFETY: the owner gave the object up, and every `kmalloc` of SLOB's has a header.
        let size = unsafe { header(object).read() };
        let need = Need::with_header(size, natural_align(size));
        if size > MAX_CLASS || !need.fits_page() {
            return self.report_foreign(object.as_ptr().addr());
        }
        self.free_to_slob(self.class(size), object.as_ptr().addr() - slob::UNIT, need);
    }

    fn free_to_slob(&self, cache: &KmemCache<M>, address: usize, need: Need) {
        // SAFETY: the owner gave the memory up.
        if unsafe { self.slob.free(address, need) } {
            self.count(cache, CpuSlab::count_free);
        } else {
            cache.report(Fault::DoubleFree, address);
        }
    }

    /// Counts an object of SLOB's for the class of its size.
    fn count(&self, cache: &KmemCache<M>, change: fn(&CpuSlab)) {
        let irq = self.machine.irq_save();
        change(cache.this_cpu());
        self.machine.irq_restore(irq);
    }

    /// How many bytes `kmalloc` really returns for a size.
    fn capacity(&self, size: usize, gfp: Gfp) -> usize {
        if gfp.intersects(demand::ZONES) {
            PAGE_SIZE << order_for(size)
        } else if self.is_slob() && Need::with_header(size, natural_align(size)).fits_page() {
            slob::units(size) * slob::UNIT
        } else if size <= MAX_CLASS && !self.is_slob() {
            SIZES[class_of(size)].0
        } else {
            PAGE_SIZE << order_for(size)
        }
    }

    /// Whether an object lies in a zone that `gfp` allows.
    fn is_low_enough(&self, object: NonNull<u8>, gfp: Gfp) -> bool {
        let owner = record_of(self.machine, object.as_ptr()).owner.load(Ordering::Relaxed);
        let is_large = owner & LARGE != 0 && owner != SLOB;
        !gfp.intersects(demand::ZONES) || is_large && large_zone(owner) <= demand::zone(gfp)
    }

    /// The same of a layout.
    fn layout_capacity(&self, layout: Layout) -> usize {
        let size = size_of_layout(layout);
        if size > MAX_CLASS {
            PAGE_SIZE << order_for(size)
        } else if self.is_slob() {
            slob::units(size) * slob::UNIT
        } else {
            SIZES[class_of(size)].0
        }
    }

    /// Whole pages.
    #[cold]
    #[inline(never)]
    fn alloc_large(&self, size: usize, gfp: Gfp) -> Option<NonNull<u8>> {
        if size > PAGE_SIZE << MAX_ORDER || !self.is_ready() {
            return None;
        }
        let order = order_for(size);
        let asked = demand::for_pages(gfp) | (gfp & Gfp::ZERO);
        let pfn = self.machine.pages().alloc_raw(order, asked).ok()?;
        let object = self.machine.direct_map(pfn.addr());
        object.expose_provenance();
        record_of(self.machine, object).owner.store(large_owner(order, demand::zone(gfp)), Ordering::Relaxed);
        self.large.fetch_add(1, Ordering::Relaxed);
        self.large_pages.fetch_add(1 << order, Ordering::Relaxed);
        NonNull::new(object)
    }

    /// Frees whole pages, unless the record's owner word says that this is no such allocation.
    #[cold]
    #[inline(never)]
    fn free_large(&self, object: NonNull<u8>) {
        let record = record_of(self.machine, object.as_ptr());
        let owner = record.owner.load(Ordering::Relaxed);
        if owner == SLOB {
            return self.free_with_header(object);
        }
        let sound = owner & LARGE != 0 && object.as_ptr().addr().is_multiple_of(PAGE_SIZE);
        if !sound || record.owner.compare_exchange(owner, 0, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return self.report_foreign(object.as_ptr().addr());
        }
        let order = large_order(owner);
        self.large.fetch_sub(1, Ordering::Relaxed);
        self.large_pages.fetch_sub(1 << order, Ordering::Relaxed);
        let pfn = self.machine.direct_map_to_phys(object.as_ptr()).pfn();
        // SAFETY: the record says that these frames are one large allocation; its owner gave it up.
        unsafe { self.machine.pages().free_pages(pfn, order) };
    }
}

/// The alignment that `kmalloc` of a power of two has with every back end.
fn natural_align(size: usize) -> usize {
    if size.is_power_of_two() { size.clamp(8, PAGE_SIZE) } else { 8 }
}

/// Where SLOB keeps the size of a `kmalloc`.
fn header(object: NonNull<u8>) -> *const usize {
    object.as_ptr().cast::<usize>().wrapping_sub(1)
}

// SAFETY: `alloc` returns unshared memory of at least the layout's size and alignment until `dealloc`; nothing here
// unwinds.
unsafe impl<M: Machine> GlobalAlloc for KernelHeap<M> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { core::hint::assert_unchecked(layout.size() != 0) };
        self.alloc_layout(layout, HEAP_GFP).map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.alloc_layout(layout, HEAP_GFP | Gfp::ZERO).map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise: it was allocated with this layout.
        unsafe { core::hint::assert_unchecked(layout.size() != 0) };
        if let Some(object) = NonNull::new(ptr) {
            // SAFETY: the caller's promise.
            unsafe { self.free_layout(object, layout) }
        }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the new size is valid with the old alignment.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        if self.layout_capacity(layout) == self.layout_capacity(new_layout) {
            return ptr;
        }
        // SAFETY: the caller's promise; the two objects are distinct and have that many bytes.
        unsafe {
            let new = self.alloc(new_layout);
            if !new.is_null() {
                core::ptr::copy_nonoverlapping(ptr, new, layout.size().min(new_size));
                self.dealloc(ptr, layout);
            }
            new
        }
    }
}

/// Rust's own containers allocate under locks too, so they never wait for memory.
const HEAP_GFP: Gfp = Gfp::NOWAIT;
