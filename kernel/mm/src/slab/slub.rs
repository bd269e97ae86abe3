//! SLUB: the default back end, behind the per-CPU fast path.
//!
//! A CPU takes objects from its active slab, which is *frozen*: no other CPU hands out its objects. Objects that other
//! CPUs free into it go to the slab's own list. [`super::state`] explains the state word, and which of its changes need
//! the node's lock.
//!
//! Objects that a CPU frees into other slabs go into its [`array`] first: otherwise programs that free in a different
//! order than they allocate would update a slab's word, and often take the node's lock, for every object.
//!
//! Lock order: [`Rank::SlabNode`] before the page allocator's; but no pages are allocated or freed while a node is
//! locked.
//!
//! [`Rank::SlabNode`]: crate::sync::Rank::SlabNode
//! [`array`]: super::array

use core::ops::RangeInclusive;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use crate::addr::PAGE_SIZE;
use crate::page_alloc::Gfp;
use crate::page_alloc::Machine;
use crate::slab::array::Array;
use crate::slab::arrays;
use crate::slab::cache::{CpuSlab, KmemCache, Setup, end_of_list, is_plausible, link, set_link};
use crate::slab::lookup::pfn_of;
use crate::slab::node::Lists;
use crate::slab::record::SlabRecord;
use crate::slab::report::Fault;
use crate::slab::state::{Move, Pushed};

/// Empty slabs are freed while a node has more partial slabs than this.
pub(super) const MIN_PARTIAL: usize = 5;

/// The slow path, after the fast path found this CPU's list empty. Interrupts are masked, and `irq` is the state to
/// restore; they are unmasked while pages are allocated.
pub(super) fn alloc<M: Machine>(cache: &KmemCache<M>, setup: &Setup<M>, gfp: Gfp, irq: &mut usize) -> *mut u8 {
    let machine = cache.machine;
    let is_bound = gfp.contains(Gfp::THISNODE);
    loop {
        let cpu = cache.this_cpu();
        if is_bound && !is_active_local(cache, cpu) {
            retire(cache, setup, cpu);
        }
        if let Some(object) = pop(cache, cpu) {
            return object;
        }
        // An array may hold objects of any node.
        if !is_bound && let Some(object) = arrays::of(cpu).and_then(Array::pop) {
            cpu.count_alloc();
            return core::ptr::with_exposed_provenance_mut(object);
        }
        if let Some(active) = cpu.active.get() {
            match active.state.take_or_thaw() {
                Some(offset) => activate(cache, cpu, active, offset),
                None => cpu.reset(),
            }
            continue;
        }
        match take_partial(cache, setup, cpu, gfp) {
            Some(Taken::Slab(slab, offset)) => activate(cache, cpu, slab, offset),
            Some(Taken::Object(object)) => {
                cpu.count_alloc();
                return core::ptr::with_exposed_provenance_mut(object);
            }
            None => {}
        }
        if cpu.active.get().is_some() {
            continue;
        }
        machine.irq_restore(*irq);
        let fresh = cache.new_slab(setup, gfp);
        *irq = machine.irq_save();
        let Some(slab) = fresh else { return core::ptr::null_mut() };
        // This may be another CPU now, or an interrupt may have found a slab.
        let cpu = cache.this_cpu();
        if cpu.active.get().is_none() {
            // The slab is unshared, and all its objects are on its own list.
            if let Some(offset) = slab.state.freeze() {
                activate(cache, cpu, slab, offset);
            }
        } else {
            let node = cache.node_of(slab);
            let mut lists = node.lists.lock();
            lists.empty.push_front(machine, slab);
            node.publish_length(&lists);
        }
    }
}

/// Frees an object that is not in this CPU's active slab. Interrupts are masked.
pub(super) fn free<M: Machine>(cache: &KmemCache<M>, setup: &Setup<M>, object: NonNull<u8>) {
    let address = object.as_ptr().expose_provenance();
    let Some(slab) = cache.slab_of(setup, address) else { return };
    if slab.state.load().free().is_some_and(|first| cache.base_of(slab) + first == address) {
        return cache.report(Fault::DoubleFree, address);
    }
    let cpu = cache.this_cpu();
    match arrays::of(cpu) {
        Some(array) if array.is_top(address) => return cache.report(Fault::DoubleFree, address),
        Some(array) => array.push(address, |coldest| {
            give_back(cache, setup, coldest);
        }),
        None => put(cache, setup, slab, address..=address, 1),
    }
    cpu.count_free();
}

/// Returns objects of an array to their slabs; returns how many pages that freed.
fn give_back<M: Machine>(cache: &KmemCache<M>, setup: &Setup<M>, objects: &[usize]) -> usize {
    arrays::give_back(cache, objects, |node, lists, slab, object, surplus| {
        let Some(pushed) = push(cache, setup, slab, object..=object, 1, || ()) else { return };
        if relist(cache.machine, lists, slab, pushed.destination()) {
            surplus.push_front(cache.machine, slab);
        }
        node.publish_length(lists);
    })
}

/// Pushes a chain of `count` free objects of one slab, which the caller owns, onto the slab's own list, and moves
/// the slab to where it then belongs.
fn put<M: Machine>(
    cache: &KmemCache<M>,
    setup: &Setup<M>,
    slab: &'static SlabRecord,
    chain: RangeInclusive<usize>,
    count: u32,
) {
    let node = cache.node_of(slab);
    let Some(mut pushed) = push(cache, setup, slab, chain, count, || node.lists.lock()) else { return };
    let destination = pushed.destination();
    // Without the lock nothing is left to do, and the slab may have been freed.
    let Some(lists) = &mut pushed.guard else { return };
    let is_surplus = relist(cache.machine, lists, slab, destination);
    node.publish_length(lists);
    drop(pushed);
    if is_surplus {
        cache.discard_slab(slab);
    }
}

/// Pushes a chain, from its first object to its last, onto its slab's own list. `lock` takes the node's lock.
fn push<M: Machine, G>(
    cache: &KmemCache<M>,
    setup: &Setup<M>,
    slab: &'static SlabRecord,
    chain: RangeInclusive<usize>,
    count: u32,
    lock: impl Fn() -> G,
) -> Option<Pushed<G>> {
    let base = cache.base_of(slab);
    let link_last = |free: Option<usize>| {
        let next = free.map_or(end_of_list(base), |offset| base + offset);
        // SAFETY: the chain is the caller's until the push has published it.
        unsafe { set_link(*chain.end(), setup.geometry.link, setup.secret, next) }
    };
    let pushed = slab.state.push(chain.start() - base, count, link_last, lock);
    if pushed.is_none() {
        cache.report(Fault::DoubleFree, *chain.start());
    }
    pushed
}

/// Moves a slab to the right list after a push, under its node's lock. Returns whether it is empty and surplus: then it
/// is on no list now.
fn relist<M: Machine>(machine: M, lists: &mut Lists, slab: &'static SlabRecord, destination: Move) -> bool {
    match destination {
        Move::Empty { is_listed } => {
            let is_surplus = lists.available() >= MIN_PARTIAL;
            if is_listed {
                lists.partial.remove(machine, slab);
            }
            if !is_surplus {
                lists.empty.push_front(machine, slab);
            }
            is_surplus
        }
        // In front, so that the next allocation gets objects that are still in a CPU's cache, and the other slabs have
        // time to become empty.
        Move::Join => {
            lists.partial.push_front(machine, slab);
            false
        }
        Move::Stay => false,
    }
}

/// Makes a slab that was frozen for this CPU its active one, with the list that starts `offset` bytes in.
fn activate<M: Machine>(cache: &KmemCache<M>, cpu: &CpuSlab, slab: &'static SlabRecord, offset: usize) {
    let base = cache.base_of(slab);
    cpu.active.set(Some(slab));
    cpu.base.set(base);
    cpu.mask.set(!((PAGE_SIZE << slab.state.load().order()) - 1));
    cpu.freelist.set(base + offset);
}

/// Allocates an object from this CPU's list.
fn pop<M: Machine>(cache: &KmemCache<M>, cpu: &CpuSlab) -> Option<*mut u8> {
    let object = cpu.freelist.get();
    if object & 1 != 0 {
        return None;
    }
    // SAFETY: what the CPU's list holds is free and this CPU's; interrupts are masked.
    let next = unsafe { link(object, cpu.offset.get(), cpu.secret.get()) };
    if !is_plausible(next, object) {
        cpu.freelist.set(end_of_list(cpu.base.get()));
        cache.report(Fault::FreeListCorrupted, object);
        return None;
    }
    cpu.freelist.set(next);
    cpu.count_alloc();
    Some(core::ptr::with_exposed_provenance_mut(object))
}

/// What a CPU has got from the partial slabs.
enum Taken {
    /// A slab, now frozen, and its list: many objects.
    Slab(&'static SlabRecord, usize),
    /// An object of one that had few; more are in the CPU's array, which was empty.
    Object(usize),
}

/// Takes free objects of partial slabs of this node, or of another if `gfp` allows.
fn take_partial<M: Machine>(cache: &KmemCache<M>, setup: &Setup<M>, cpu: &CpuSlab, gfp: Gfp) -> Option<Taken> {
    let local = cache.machine.pages().local_node();
    let is_bound = gfp.contains(Gfp::THISNODE);
    // A request bound to a node does not use the array.
    let mut array = if is_bound { None } else { arrays::of(cpu) };
    if let Some(found) = take_partial_of(cache, setup, local, array.as_deref_mut()) {
        return Some(found);
    }
    if is_bound {
        return None;
    }
    let mut others = (0..cache.nodes.len()).filter(|&node| node != local);
    others.find_map(|node| take_partial_of(cache, setup, node, array.as_deref_mut()))
}

fn take_partial_of<M: Machine>(
    cache: &KmemCache<M>,
    setup: &Setup<M>,
    node: usize,
    array: Option<&mut Array>,
) -> Option<Taken> {
    let node = &cache.nodes[node];
    if node.partials.load(Ordering::Relaxed) == 0 {
        return None;
    }
    let mut lists = node.lists.lock();
    // Slabs with only a few free objects each, as random frees leave them, are not worth activating one by one.
    if let Some(array) = array {
        array.refill(|into| empty_out(cache, setup, &mut lists, into));
        if let Some(object) = array.pop() {
            node.publish_length(&lists);
            return Some(Taken::Object(object));
        }
    }
    let slab = lists.supply().first(cache.machine)?;
    lists.supply().remove(cache.machine, slab);
    node.publish_length(&lists);
    // A slab on these lists has a free object, as long as the lock is held.
    Some(Taken::Slab(slab, slab.state.freeze()?))
}

/// Fills `into` with all free objects of the first partial slabs, as long as there is room for all of a slab; returns
/// how many. A slab with more free objects is worth activating.
fn empty_out<M: Machine>(cache: &KmemCache<M>, setup: &Setup<M>, lists: &mut Lists, into: &mut [usize]) -> usize {
    let mut taken = 0;
    while let Some(slab) = lists.supply().first(cache.machine)
        && let Some(first) = slab.state.empty_out(into.len() - taken)
    {
        lists.supply().remove(cache.machine, slab);
        let mut object = cache.base_of(slab) + first;
        while object & 1 == 0 && taken < into.len() {
            // SAFETY: the list was the slab's, and now belongs to this function.
            let next = unsafe { link(object, setup.geometry.link, setup.secret) };
            if !is_plausible(next, object) {
                // The rest of the list is lost.
                cache.report(Fault::FreeListCorrupted, object);
                break;
            }
            into[taken] = object;
            taken += 1;
            object = next;
        }
    }
    taken
}

/// Flushes a CPU's array, and its active slab with the CPU's list; returns how many pages that freed. The CPU is this
/// one with interrupts masked, or one that does not use the cache.
fn deactivate<M: Machine>(cache: &KmemCache<M>, setup: &Setup<M>, cpu: &CpuSlab) -> usize {
    let pages = arrays::of(cpu).map_or(0, |array| give_back(cache, setup, array.take()));
    pages + retire(cache, setup, cpu)
}

/// Takes its active slab from a CPU, with the CPU's list; returns how many pages that freed. The CPU is as for
/// [`deactivate`].
fn retire<M: Machine>(cache: &KmemCache<M>, setup: &Setup<M>, cpu: &CpuSlab) -> usize {
    let Some(slab) = cpu.active.get() else { return 0 };
    let first = cpu.freelist.get();
    cpu.reset();
    // While the slab is frozen, a push to its own list moves it to no list.
    if let Some((chain, count)) = sound_chain(cache, setup, slab, first) {
        put(cache, setup, slab, chain, count);
    }
    let node = cache.node_of(slab);
    let mut lists = node.lists.lock();
    let mut is_surplus = false;
    if slab.state.thaw() {
        // The last object in use is only freed under the lock.
        if slab.state.load().inuse() != 0 {
            lists.partial.push_back(cache.machine, slab);
        } else {
            is_surplus = relist(cache.machine, &mut lists, slab, Move::Empty { is_listed: false });
        }
        node.publish_length(&lists);
    }
    drop(lists);
    if is_surplus { cache.discard_slab(slab) } else { 0 }
}

/// The chain of free objects that starts with `first`, and their number, if there are any and the list is intact, with
/// only objects of this slab. After a double free the list may be a ring, and after a write to a free object a link may
/// be invalid: then its objects are lost.
fn sound_chain<M: Machine>(
    cache: &KmemCache<M>,
    setup: &Setup<M>,
    slab: &'static SlabRecord,
    first: usize,
) -> Option<(RangeInclusive<usize>, u32)> {
    let (base, state) = (cache.base_of(slab), slab.state.load());
    let is_object = |address: usize| {
        let offset = address.wrapping_sub(base);
        let index = if offset < PAGE_SIZE << state.order() { setup.geometry.index(offset) } else { None };
        index.is_some_and(|index| index < state.objects() as usize)
    };
    let (mut object, mut last, mut count) = (first, first, 0);
    while object != end_of_list(base) {
        if count == state.objects() || !is_object(object) {
            cache.report(Fault::FreeListCorrupted, last);
            return None;
        }
        last = object;
        count += 1;
        // SAFETY: objects on the CPU's list are free and belong to the caller, and this is an object of the slab.
        object = unsafe { link(object, setup.geometry.link, setup.secret) };
    }
    (count != 0).then_some((first..=last, count))
}

/// Whether a CPU's active slab, if it has one, is on this CPU's node.
fn is_active_local<M: Machine>(cache: &KmemCache<M>, cpu: &CpuSlab) -> bool {
    let pages = cache.machine.pages();
    cpu.active.get().is_none_or(|slab| pages.node_of(pfn_of(cache.machine, slab)) == pages.local_node())
}

/// Frees this CPU's slab and all empty ones; returns the number of pages.
pub(super) fn shrink<M: Machine>(cache: &KmemCache<M>, setup: &Setup<M>) -> usize {
    let irq = cache.machine.irq_save();
    let pages = deactivate(cache, setup, cache.this_cpu());
    cache.machine.irq_restore(irq);
    pages + cache.discard_empty(setup)
}

/// Frees the empty slabs of a cache that is not in use: all of them if no object is live.
pub(super) fn release_all<M: Machine>(cache: &KmemCache<M>, setup: &Setup<M>) {
    for cpu in cache.all_cpus() {
        deactivate(cache, setup, cpu);
    }
    cache.discard_empty(setup);
    arrays::tear_down(cache);
}
