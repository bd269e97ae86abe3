//! Visits to caches, and their destruction.
//!
//! Shrinking a cache takes long, and no lock may be held meanwhile. So the thread is counted as the cache's visitor,
//! which keeps the cache on the list and alive. A cache that its owner destroys during a visit becomes an orphan, which
//! gets no further visits, and its last visitor frees it.
//!
//! Both change under the lock of the list of caches, which is only held to step from one cache to the next.

use core::alloc::Layout;
use core::ops::ControlFlow;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use crate::page_alloc::Machine;
use crate::slab::cache::{KmemCache, ORPHAN};
use crate::slab::heap::{Caches, KernelHeap};

impl<M: Machine> KernelHeap<M> {
    /// Called when a cache's owner destroys it. Returns whether the caller must free it now: if it is being visited,
    /// the last visitor will.
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

    /// Frees all memory of a cache, and the cache itself.
    ///
    /// # Safety
    /// The cache is from [`KernelHeap::create`], has no live object, is off the list, and only the caller refers to it.
    pub(super) unsafe fn end(&self, mut cache: NonNull<KmemCache<M>>) {
        // SAFETY: the caller's promise.
        let cache_ref = unsafe { cache.as_mut() };
        cache_ref.release_all();
        // Slabs with a faulty object stay, and their records refer to the cache.
        if cache_ref.info().slabs == 0 {
            // SAFETY: the caller's promise, and no record leads to the cache any more. `create` got its memory.
            unsafe {
                cache.drop_in_place();
                self.free_layout(cache.cast(), Layout::new::<KmemCache<M>>());
            }
        }
    }

    /// Calls `visit` for each cache in order of creation until it breaks. The list's lock is not held during `visit`,
    /// which may take long. A cache that is destroyed meanwhile is freed here.
    pub(super) fn visit_caches(&self, mut visit: impl FnMut(&KmemCache<M>) -> ControlFlow<()>) {
        let mut at = self.step(None, true);
        while let Some(cache) = at {
            // SAFETY: a visited cache is not freed.
            let flow = visit(unsafe { cache.as_ref() });
            at = self.step(Some(cache), flow.is_continue());
        }
    }

    /// Ends the visit of a cache and, if `on`, begins that of the next one, or of the first.
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
