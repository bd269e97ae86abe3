//! brk: the end of the heap.

use core::sync::atomic::{AtomicUsize, Ordering};

use quire_abi::Errno;

use super::residence::Populate;
use super::{Areas, MAX_MAP_COUNT, Mm};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, UserAddr};
use crate::machine::Limit;
use crate::mm::Machine;
use crate::supply::{Supply, supplied};
use crate::vma::{VmFlags, Vma};

const HEAP: VmFlags =
    VmFlags::READ.union(VmFlags::WRITE).union(VmFlags::MAY_READ).union(VmFlags::MAY_WRITE).union(VmFlags::MAY_EXEC);

/// Where the heap begins and ends. The start is set once, before the space runs. The end moves under the intent, after the
/// map has changed, and is read without a lock.
pub(super) struct Heap {
    start: AtomicUsize,
    end: AtomicUsize,
}

impl Heap {
    pub const fn new() -> Self {
        Self { start: AtomicUsize::new(0), end: AtomicUsize::new(0) }
    }

    #[inline]
    pub fn start(&self) -> UserAddr {
        UserAddr::new(self.start.load(Ordering::Relaxed))
    }

    #[inline]
    pub fn end(&self) -> UserAddr {
        UserAddr::new(self.end.load(Ordering::Acquire))
    }

    #[inline]
    fn set_end(&self, end: UserAddr) {
        self.end.store(end.get(), Ordering::Release);
    }

    pub fn copy_from(&self, other: &Self) {
        self.start.store(other.start().get(), Ordering::Relaxed);
        self.set_end(other.end());
    }
}

impl<M: Machine> Mm<M> {
    /// Sets the start of the heap, which is also its first end. Once, by exec.
    pub fn set_brk_start(&self, start: UserAddr) {
        self.heap.start.store(start.get(), Ordering::Relaxed);
        self.heap.set_end(start);
    }

    /// Moves the end of the heap to `new` if possible, and returns the end. An address below the heap moves nothing.
    #[inline]
    pub fn brk(&self, new: usize) -> UserAddr {
        let new = UserAddr::new(new);
        if new < self.heap.start() { self.heap.end() } else { self.move_brk(new) }
    }

    fn move_brk(&self, new: UserAddr) -> UserAddr {
        let moved = supplied(self.machine, |supply| self.try_brk(new, supply));
        // (A killed thread's result does not matter.)
        moved.unwrap_or_else(|_| self.heap.end())
    }

    /// Returns the new end of the heap.
    // Out of line: its caller's loop would take its registers.
    #[inline(never)]
    fn try_brk(&self, new: UserAddr, supply: &Supply<M>) -> Result<UserAddr, Errno> {
        let mut areas = self.areas.intend_killable()?;
        let old = self.heap.end();
        let (Some(from), Some(to)) = (old.page_ceil(), new.page_ceil()) else { return Ok(old) };
        let done = if to == from {
            Ok(())
        } else if to < from {
            let kept = if seeded!(BrkKeepsAPage) { PAGE_SIZE } else { 0 };
            self.unmap_range(&mut areas, to + kept, from, supply)
        } else {
            self.may_grow_heap(&areas, from, to, new).and_then(|()| {
                let flags = self.promise(&areas, HEAP | areas.default_flags, (to - from) >> PAGE_SHIFT)?;
                self.insert_area(&mut areas, from, to, flags, None, supply)
            })
        };
        self.uncharge_rest(&areas);
        if done.is_ok() || seeded!(FailedBrkMoves) {
            self.heap.set_end(new);
        }
        done?;
        let locked = areas.default_flags.contains(VmFlags::LOCKED);
        drop(areas);
        if locked && to > from {
            let _ = self.populate(from, to, Populate::AsMapped);
        }
        Ok(new)
    }

    fn may_grow_heap(&self, areas: &Areas<M>, from: UserAddr, to: UserAddr, new: UserAddr) -> Result<(), Errno> {
        let pages = (to - from) >> PAGE_SHIFT;
        let heap = (new - self.heap.start()) as u64;
        // A page stays free before the next area, as on Linux, so that running past the heap's end is a fault.
        let free = |next: &Vma<M>| to.get() + PAGE_SIZE <= next.guarded_start();
        let [total, data] = self.machine.limits([Limit::AddressSpace, Limit::Data]);
        let allowed = to <= areas.layout.task_size
            && areas.tree.find_from(from).is_none_or(free)
            && heap <= data
            && areas.may_map(pages, total)
            && areas.may_hold_data(pages, data)
            && areas.tree.len() < MAX_MAP_COUNT;
        self.may_lock(areas, areas.default_flags, pages)?;
        if allowed { Ok(()) } else { Err(Errno::ENOMEM) }
    }
}
