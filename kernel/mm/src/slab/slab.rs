//! SLAB: the back end with three lists and colouring (Bonwick 1994; per-CPU arrays after Bonwick and Adams 2001).
//!
//! Each node keeps its slabs on three lists: full, partial and empty. Objects are taken from partial slabs first, so
//! that the others have a chance to become empty. In front of the lists each CPU has an array of free objects, last in,
//! first out: the object freed last is still in the CPU's cache. An array exchanges objects with the lists in batches,
//! so that the node's lock is taken once per batch.
//!
//! A slab's [`State`] word changes under its node's lock only; objects in arrays are in use to it. A slab is
//! never frozen.
//!
//! The arrays of a cache are one page, 256 bytes per CPU, made with the cache. If there is no page for them, the cache
//! works without arrays.
//!
//! Lock order: [`Rank::SlabNode`]; pages are allocated and freed without it.
//!
//! [`Rank::SlabNode`]: crate::sync::Rank::SlabNode
//! [`State`]: super::state::State
//! [`array`]: super::array

use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use crate::addr::PAGE_SIZE;
use crate::page_alloc::Gfp;
use crate::page_alloc::Machine;
use crate::slab::array::Array;
use crate::slab::arrays;
use crate::slab::cache::{CpuSlab, KmemCache, Setup, end_of_list, link, set_link};
use crate::slab::node::Lists;
use crate::slab::record::{SlabList, SlabRecord};
use crate::slab::report::Fault;
use crate::slab::slub::MIN_PARTIAL;
use crate::slab::state::State;

/// Allocates an object. Interrupts are masked, and `irq` is the state to restore; they are unmasked while pages are
/// allocated.
pub(super) fn alloc<M: Machine>(cache: &KmemCache<M>, setup: &Setup<M>, gfp: Gfp, irq: &mut usize) -> *mut u8 {
    let machine = cache.machine;
    loop {
        let cpu = cache.this_cpu();
        let object = match arrays::of(cpu) {
            // An array may hold objects of any node.
            Some(array) if !gfp.contains(Gfp::THISNODE) => pop(cache, setup, array, gfp),
            _ => {
                let mut one = [0];
                (take_from_lists(cache, setup, gfp, &mut one) == 1).then_some(one[0])
            }
        };
        if let Some(object) = object {
            cpu.count_alloc();
            return core::ptr::with_exposed_provenance_mut(object);
        }
        machine.irq_restore(*irq);
        let fresh = cache.new_slab(setup, gfp);
        *irq = machine.irq_save();
        let Some(slab) = fresh else { return core::ptr::null_mut() };
        cache.node_of(slab).lists.lock().empty.push_front(machine, slab);
    }
}

/// The object that was freed last, after a batch from the lists if there is none.
fn pop<M: Machine>(cache: &KmemCache<M>, setup: &Setup<M>, array: &mut Array, gfp: Gfp) -> Option<usize> {
    if array.is_empty() {
        array.refill(|into| take_from_lists(cache, setup, gfp, into));
    }
    array.pop()
}

/// Frees an object. Interrupts are masked.
pub(super) fn free<M: Machine>(cache: &KmemCache<M>, setup: &Setup<M>, object: NonNull<u8>) {
    let address = object.as_ptr().expose_provenance();
    if cache.slab_of(setup, address).is_none() {
        return;
    }
    let cpu = cache.this_cpu();
    let Some(array) = arrays::of(cpu) else {
        if give_to_lists(cache, setup, &[address]) == 1 {
            cpu.count_free();
        }
        return;
    };
    if array.is_top(address) {
        return cache.report(Fault::DoubleFree, address);
    }
    array.push(address, |coldest| {
        give_to_lists(cache, setup, coldest);
    });
    cpu.count_free();
}

/// Fills `into` with objects of this node, or of others if it has none and `gfp` allows; returns how many.
fn take_from_lists<M: Machine>(cache: &KmemCache<M>, setup: &Setup<M>, gfp: Gfp, into: &mut [usize]) -> usize {
    let local = cache.machine.pages().local_node();
    let taken = take_from_node(cache, setup, local, into);
    if taken != 0 || gfp.contains(Gfp::THISNODE) {
        return taken;
    }
    let others = (0..cache.nodes.len()).filter(|&node| node != local);
    others.map(|node| take_from_node(cache, setup, node, into)).find(|&taken| taken != 0).unwrap_or(0)
}

fn take_from_node<M: Machine>(cache: &KmemCache<M>, setup: &Setup<M>, node: usize, into: &mut [usize]) -> usize {
    let node = &cache.nodes[node];
    if node.slabs.load(Ordering::Relaxed) == 0 {
        return 0;
    }
    let machine = cache.machine;
    let mut lists = node.lists.lock();
    let mut taken = 0;
    while taken < into.len() {
        let Some(slab) = lists.supply().first(machine) else { break };
        let (base, mut state) = (cache.base_of(slab), slab.state.load());
        list_of(&mut lists, state).remove(machine, slab);
        while let Some(offset) = state.free().filter(|_| taken < into.len()) {
            let object = base + offset;
            // SAFETY: a slab's own list holds free objects, which are only accessed under the node's lock.
            let next = unsafe { link(object, setup.geometry.link, setup.secret) };
            let size = PAGE_SIZE << state.order();
            let is_ring = state.inuse() == state.objects();
            if is_ring || next != end_of_list(base) && (next % 8 != 0 || next < base || next - base >= size) {
                // The rest of the list is lost, and the slab stays full.
                cache.report(Fault::FreeListCorrupted, object);
                state = state.with_free(None).with_inuse(state.objects());
                break;
            }
            state = state.with_free((next & 1 == 0).then(|| next - base)).with_inuse(state.inuse() + 1);
            into[taken] = object;
            taken += 1;
        }
        slab.state.store(state);
        list_of(&mut lists, state).push_front(machine, slab);
    }
    taken
}

/// The list that a slab in this state is on.
fn list_of(lists: &mut Lists, state: State) -> &mut SlabList {
    if state.inuse() == 0 {
        &mut lists.empty
    } else if state.inuse() == state.objects() {
        &mut lists.full
    } else {
        &mut lists.partial
    }
}

/// Returns objects to their slabs, and frees empty slabs beyond a reserve. Returns how many objects were intact.
fn give_to_lists<M: Machine>(cache: &KmemCache<M>, setup: &Setup<M>, objects: &[usize]) -> usize {
    let mut sound = 0;
    arrays::give_back(cache, objects, |_, lists, slab, object, surplus| {
        sound += usize::from(give_one(cache, setup, lists, slab, object, surplus));
    });
    sound
}

fn give_one<M: Machine>(
    cache: &KmemCache<M>,
    setup: &Setup<M>,
    lists: &mut Lists,
    slab: &'static SlabRecord,
    object: usize,
    surplus: &mut SlabList,
) -> bool {
    let (machine, base, old) = (cache.machine, cache.base_of(slab), slab.state.load());
    let head = old.free().map(|offset| base + offset);
    if old.inuse() == 0 || head == Some(object) {
        cache.report(Fault::DoubleFree, object);
        return false;
    }
    // SAFETY: the object was given up by its owner and lies in this slab, whose node is locked.
    unsafe { set_link(object, setup.geometry.link, setup.secret, head.unwrap_or(end_of_list(base))) };
    let new = old.with_free(Some(object - base)).with_inuse(old.inuse() - 1);
    slab.state.store(new);
    list_of(lists, old).remove(machine, slab);
    if new.inuse() == 0 && lists.empty.len() >= MIN_PARTIAL {
        surplus.push_front(machine, slab);
    } else {
        list_of(lists, new).push_front(machine, slab);
    }
    true
}

/// Returns a CPU's array to the slabs; returns how many pages that freed. The CPU is this one with interrupts masked,
/// or one that does not use the cache.
fn flush<M: Machine>(cache: &KmemCache<M>, setup: &Setup<M>, cpu: &CpuSlab) -> usize {
    let Some(array) = arrays::of(cpu) else { return 0 };
    arrays::give_back(cache, array.take(), |_, lists, slab, object, surplus| {
        give_one(cache, setup, lists, slab, object, surplus);
    })
}

/// Flushes this CPU's array and frees all empty slabs; returns the number of pages.
pub(super) fn shrink<M: Machine>(cache: &KmemCache<M>, setup: &Setup<M>) -> usize {
    let irq = cache.machine.irq_save();
    let pages = flush(cache, setup, cache.this_cpu());
    cache.machine.irq_restore(irq);
    pages + cache.discard_empty(setup)
}

/// Frees everything of a cache that is not in use and has no live object.
pub(super) fn release_all<M: Machine>(cache: &KmemCache<M>, setup: &Setup<M>) {
    for cpu in cache.all_cpus() {
        flush(cache, setup, cpu);
    }
    cache.discard_empty(setup);
    arrays::tear_down(cache);
}
