//! The simplest allocator that is right: free lists by power of two behind one lock, fed by the break.

use core::cell::UnsafeCell;
use core::ptr::{null_mut, with_exposed_provenance_mut};
use core::sync::atomic::{AtomicU32, Ordering};

use crate::{PAGE, System};

/// The part of the allocator that each thread keeps in its thread-local storage, zero-filled at its start.
#[repr(C, align(16))]
pub struct ThreadBlock {
    words: [usize; 256],
}

impl ThreadBlock {
    /// A block as a thread starts with it.
    pub const fn new() -> ThreadBlock {
        ThreadBlock { words: [0; 256] }
    }
}

impl Default for ThreadBlock {
    fn default() -> Self {
        Self::new()
    }
}

struct Heap {
    free: [*mut u8; 64],
    at: usize,
    end: usize,
}

/// The allocator over a system.
pub struct Malloc<S: System> {
    system: S,
    lock: AtomicU32,
    heap: UnsafeCell<Heap>,
}

// SAFETY: `heap` is only used under `lock`.
unsafe impl<S: System> Sync for Malloc<S> {}

/// In front of each block: the start and class of the memory it was cut from.
#[repr(C)]
struct Header {
    start: *mut u8,
    class: usize,
}

impl<S: System> Malloc<S> {
    /// An allocator that holds nothing yet.
    pub const fn new(system: S) -> Malloc<S> {
        Malloc {
            system,
            lock: AtomicU32::new(0),
            heap: UnsafeCell::new(Heap { free: [null_mut(); 64], at: 0, end: 0 }),
        }
    }

    /// The system beneath.
    pub fn system(&self) -> &S {
        &self.system
    }

    fn locked<R>(&self, f: impl FnOnce(&mut Heap) -> R) -> R {
        while self.lock.swap(1, Ordering::Acquire) != 0 {
            self.system.wait(&self.lock, 1);
        }
        // SAFETY: the lock is held, so this is the only reference.
        let answer = f(unsafe { &mut *self.heap.get() });
        self.lock.store(0, Ordering::Release);
        self.system.wake(&self.lock);
        answer
    }

    /// A block of `size` bytes, or null.
    pub fn malloc(&self, size: usize) -> *mut u8 {
        self.memalign(16, size)
    }

    /// A block of `size` bytes at a multiple of `align`, a power of two; or null.
    pub fn memalign(&self, align: usize, size: usize) -> *mut u8 {
        let head = size_of::<Header>();
        let Some(need) = size.max(1).checked_add(align.max(head) + head) else { return null_mut() };
        if need > isize::MAX as usize {
            return null_mut();
        }
        let class = need.next_power_of_two().trailing_zeros() as usize;
        let start = self.locked(|heap| self.take(heap, class));
        if start.is_null() {
            return start;
        }
        let block = start.map_addr(|a| (a + head).next_multiple_of(align.max(head)));
        // SAFETY: block - head and block + size lie inside the 1 << class bytes at `start`.
        unsafe { block.cast::<Header>().sub(1).write(Header { start, class }) };
        block
    }

    fn take(&self, heap: &mut Heap, class: usize) -> *mut u8 {
        let first = heap.free[class];
        if !first.is_null() {
            // SAFETY: a free area holds the next one's address in its first word.
            heap.free[class] = unsafe { first.cast::<*mut u8>().read() };
            return first;
        }
        let size = 1usize << class;
        if heap.end - heap.at < size {
            let bytes = size.next_multiple_of(PAGE).max(64 * PAGE);
            let Some(new) = self.system.grow_break(bytes) else { return null_mut() };
            if new.as_ptr().addr() != heap.end {
                heap.at = new.as_ptr().addr();
            }
            heap.end = new.as_ptr().addr() + bytes;
        }
        let at = heap.at;
        heap.at += size;
        with_exposed_provenance_mut(at)
    }

    /// Gives a block back; null does nothing.
    ///
    /// # Safety
    ///
    /// `at` is null or a living block of this allocator.
    pub unsafe fn free(&self, at: *mut u8) {
        if at.is_null() {
            return;
        }
        // SAFETY: every block has its header in front of it.
        let Header { start, class } = unsafe { at.cast::<Header>().sub(1).read() };
        self.locked(|heap| {
            // SAFETY: the area is at least a word long and free now.
            unsafe { start.cast::<*mut u8>().write(heap.free[class]) };
            heap.free[class] = start;
        });
    }

    /// This thread ends: its cache goes back.
    pub fn thread_exit(&self) {}

    /// Before a fork, in the parent.
    pub fn before_fork(&self) {
        while self.lock.swap(1, Ordering::Acquire) != 0 {
            self.system.wait(&self.lock, 1);
        }
    }

    /// After a fork, in the parent.
    pub fn after_fork_parent(&self) {
        self.lock.store(0, Ordering::Release);
        self.system.wake(&self.lock);
    }

    /// After a fork, in the child.
    pub fn after_fork_child(&self) {
        self.lock.store(0, Ordering::Release);
    }
}
