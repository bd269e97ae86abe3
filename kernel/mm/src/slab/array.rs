//! Each CPU's array of free objects of a cache, last in, first out: what was freed last is still in the CPU's cache
//! (the magazines of Bonwick and Adams 2001).
//!
//! To its slab an object in an array is in use. An array exchanges objects with the slabs in batches, so that many
//! frees share the cost of a batch.
//!
//! The arrays of a cache are one page, 256 bytes a CPU, made with the cache. If there is no page for them, the cache
//! works without arrays.

use crate::addr::PAGE_SIZE;
use crate::machine::MAX_CPUS;
use crate::page_alloc::Gfp;
use crate::page_alloc::Machine;
use crate::slab::cache::{CpuSlab, KmemCache};
use crate::slab::lookup::record_of;
use crate::slab::node::{Lists, Node};
use crate::slab::record::{SlabList, SlabRecord};

/// A CPU's free objects.
#[repr(C, align(64))]
pub(super) struct Array {
    len: usize,
    /// How many there may be.
    limit: usize,
    objects: [usize; Array::ROOM],
}

const _: () = assert!(size_of::<Array>() * MAX_CPUS == PAGE_SIZE);

impl Array {
    const ROOM: usize = PAGE_SIZE / MAX_CPUS / size_of::<usize>() - 2;

    /// How many objects of a size a CPU may keep in its array.
    const fn limit(stride: usize) -> usize {
        match stride {
            0..=256 => Self::ROOM,
            257..=1024 => 16,
            1025..=4096 => 8,
            _ => 4,
        }
    }

    /// How many objects go to or come from the slabs at once.
    fn batch(&self) -> usize {
        self.limit / 2
    }

    /// The object that was put in last.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<usize> {
        self.len = self.len.checked_sub(1)?;
        Some(self.objects[self.len])
    }

    /// Puts in an object. If there is no room, `give_back` takes the older half first: they are the coldest.
    #[inline]
    pub(super) fn push(&mut self, object: usize, give_back: impl FnOnce(&[usize])) {
        if self.len == self.limit {
            let batch = self.batch();
            give_back(&self.objects[..batch]);
            self.objects.copy_within(batch..self.len, 0);
            self.len -= batch;
        }
        self.objects[self.len] = object;
        self.len += 1;
    }

    /// Whether this is the object that was put in last.
    #[inline]
    pub(super) fn is_top(&self, object: usize) -> bool {
        self.len != 0 && self.objects[self.len - 1] == object
    }

    /// Puts a batch into an empty array: `fetch` fills the slice and returns how many.
    pub(super) fn refill(&mut self, fetch: impl FnOnce(&mut [usize]) -> usize) {
        let batch = self.batch();
        self.len = fetch(&mut self.objects[..batch]);
    }

    /// Whether there is nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is in it.
    pub(super) fn objects(&self) -> &[usize] {
        &self.objects[..self.len]
    }

    /// Takes out everything.
    pub(super) fn take(&mut self) -> &[usize] {
        let len = core::mem::take(&mut self.len);
        &self.objects[..len]
    }
}

/// Gives each CPU its array, if there is a page for them. The cache is not in use yet.
pub(super) fn set_up<M: Machine>(cache: &KmemCache<M>, stride: usize) {
    let Ok(pfn) = cache.machine.pages().alloc_raw(0, Gfp::KERNEL | Gfp::ZERO) else { return };
    let arrays = cache.machine.direct_map(pfn.addr()).cast::<Array>();
    for (i, cpu) in cache.all_cpus().iter().enumerate() {
        // SAFETY: the page is unshared and has room for one array per CPU; zeros are an empty array.
        unsafe {
            let array = arrays.add(i);
            (*array).limit = Array::limit(stride);
            cpu.array.set(array);
        }
    }
}

/// Frees the arrays' page. They are empty, and the cache is no longer in use.
pub(super) fn tear_down<M: Machine>(cache: &KmemCache<M>) {
    let arrays = cache.all_cpus()[0].array.get();
    cache.all_cpus().iter().for_each(|cpu| cpu.array.set(core::ptr::null_mut()));
    if !arrays.is_null() {
        let pfn = cache.machine.direct_map_to_phys(arrays.cast()).pfn();
        // SAFETY: `set_up` got the page, and the first array is at its start.
        unsafe { cache.machine.pages().free_pages(pfn, 0) };
    }
}

/// Returns objects, which count as in use, to their slabs. `give` is called for each under the lock of its slab's node,
/// which is held until the first object of another node; slabs that it leaves on the list go back to the page
/// allocator. Returns how many pages these were.
pub(super) fn give_back<M: Machine>(
    cache: &KmemCache<M>,
    objects: &[usize],
    mut give: impl FnMut(&Node<M>, &mut Lists, &'static SlabRecord, usize, &mut SlabList),
) -> usize {
    // They were checked to be objects of this cache when they were freed.
    let slab_of = |object| record_of(cache.machine, core::ptr::with_exposed_provenance(object)).head();
    let mut surplus = SlabList::new();
    let mut rest = objects;
    while let Some(&first) = rest.first() {
        let node = cache.node_of(slab_of(first));
        let mut lists = node.lists.lock();
        while let Some((&object, behind)) = rest.split_first() {
            let slab = slab_of(object);
            if !core::ptr::eq(cache.node_of(slab), node) {
                break;
            }
            give(node, &mut lists, slab, object, &mut surplus);
            rest = behind;
        }
    }
    cache.discard_slabs(surplus)
}

/// A CPU's array. The CPU is this one with interrupts masked, or one that does not use the cache. While the caller
/// holds the reference it must not call code that gets it too.
#[allow(clippy::mut_from_ref)]
pub(super) fn of(cpu: &CpuSlab) -> Option<&mut Array> {
    // SAFETY: null or made by `set_up`, and only used by its CPU, with one reference at a time as the contract says.
    unsafe { cpu.array.get().as_mut() }
}
