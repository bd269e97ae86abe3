//! Visits to caches, and their end.
//!
//! Who shrinks caches takes his time with each, and holds no lock that others wait for meanwhile. So he is counted as the
//! cache's visitor, which keeps it on the list and alive. A cache that its owner destroys while it is visited becomes an
//! orphan, which nobody visits any more, and its last visitor ends it.
//!
//! Both change under the lock of the list of caches, which is held from one cache to the next only.

use core::alloc::Layout;
use core::ops::ControlFlow;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use crate::machine::Machine;
use crate::slab::cache::{KmemCache, ORPHAN};
use crate::slab::heap::{Caches, KernelHeap};

impl<M: Machine> KernelHeap<M> {
    /// A cache's owner destroys it. Whether that is the end of it: if somebody visits it, the last one to do so ends it.
    pub(super) fn disown(&self, cache: NonNull<KmemCache<M>>) -> bool {
        let mut caches = self.caches.lock();
        // SAFETY: the cache is on the list, so it lives.
        let visitors = unsafe { &cache.as_ref().visitors };
        let is_visited = visitors.load(Ordering::Relaxed) != 0;
        if is_visited {
            visitors.fetch_or(ORPHAN, Ordering::Relaxed);
        } else {
            Self::unlink(&mut caches, cache.as_ptr());
        }
        !is_visited
    }

    /// Gives back all that a cache has, and the cache.
    ///
    /// # Safety
    /// The cache is from [`KernelHeap::create`], no object of it lives, it is off the list, and nobody has it but the caller.
    pub(super) unsafe fn end(&self, mut cache: NonNull<KmemCache<M>>) {
        // SAFETY: by the caller.
        let cache_ref = unsafe { cache.as_mut() };
        cache_ref.release_all();
        // Slabs with an object at fault stay, and their records lead to the cache.
        if cache_ref.info().slabs == 0 {
            // SAFETY: by the caller, and no record leads to the cache any more. `create` got its memory.
            unsafe {
                cache.drop_in_place();
                self.free_layout(cache.cast(), Layout::new::<KmemCache<M>>());
            }
        }
    }

    /// Calls `visit` for each cache in order of creation until it breaks off. The list's lock is held from one cache to the
    /// next only: `visit` may take its time. A cache that is destroyed meanwhile is ended here.
    pub(super) fn visit_caches(&self, mut visit: impl FnMut(&KmemCache<M>) -> ControlFlow<()>) {
        let mut at = self.step(None, true);
        while let Some(cache) = at {
            // SAFETY: who visits a cache keeps it.
            let flow = visit(unsafe { cache.as_ref() });
            at = self.step(Some(cache), flow.is_continue());
        }
    }

    /// Ends the visit of a cache, and begins that of the one after it, or of the first, if it is to go `on`.
    fn step(&self, from: Option<NonNull<KmemCache<M>>>, on: bool) -> Option<NonNull<KmemCache<M>>> {
        let mut caches = self.caches.lock();
        // SAFETY: caches on the list live as long as the lock is held, and so does one that is visited.
        let after = |cache: NonNull<KmemCache<M>>| unsafe { cache.as_ref() }.next.load(Ordering::Relaxed);
        // SAFETY: as above.
        let visitors = |cache: NonNull<KmemCache<M>>| unsafe { &(*cache.as_ptr()).visitors };
        let mut next = NonNull::new(from.map_or(caches.first, after)).filter(|_| on);
        while let Some(orphan) = next.filter(|&cache| visitors(cache).load(Ordering::Relaxed) & ORPHAN != 0) {
            next = NonNull::new(after(orphan));
        }
        if let Some(next) = next {
            visitors(next).fetch_add(1, Ordering::Relaxed);
        }
        let ended = from.filter(|&cache| visitors(cache).fetch_sub(1, Ordering::Relaxed) == ORPHAN + 1);
        if let Some(cache) = ended {
            Self::unlink(&mut caches, cache.as_ptr());
        }
        drop(caches);
        if let Some(cache) = ended {
            // SAFETY: its owner has destroyed it, and this was the last visit.
            unsafe { self.end(cache) };
        }
        next
    }

    /// Takes a cache off the list.
    fn unlink(caches: &mut Caches<M>, cache: *const KmemCache<M>) {
        let (mut previous, mut at) = (core::ptr::null_mut::<KmemCache<M>>(), caches.first);
        while !at.is_null() {
            // SAFETY: caches on the list live, and their `next` belongs to the lock's holder.
            let next = unsafe { &*at }.next.load(Ordering::Relaxed);
            if core::ptr::eq(at, cache) {
                if previous.is_null() {
                    caches.first = next;
                } else {
                    // SAFETY: as above.
                    unsafe { &*previous }.next.store(next, Ordering::Relaxed);
                }
                if caches.last == at {
                    caches.last = previous;
                }
                return;
            }
            (previous, at) = (at, next);
        }
    }
}
