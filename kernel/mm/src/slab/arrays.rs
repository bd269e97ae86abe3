//! The arrays of a cache's CPUs: one page, 256 bytes per CPU, made with the cache. If there is no page for them, the
//! cache works without arrays.

use crate::page_alloc::{Gfp, Machine};
use crate::slab::array::Array;
use crate::slab::cache::{CpuSlab, KmemCache};
use crate::slab::lookup::record_of;
use crate::slab::node::{Lists, Node};
use crate::slab::record::{SlabList, SlabRecord};

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
