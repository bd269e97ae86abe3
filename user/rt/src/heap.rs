//! The program's heap: free lists by size over `brk`, whole mappings for large blocks.
//!
//! A block of up to [`LARGEST`] bytes comes from the list of the next power of two; lists are refilled from the
//! end of the data segment. Blocks keep no header: the layout that Rust hands back says which list they are of.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::null_mut;

use quire_abi::PAGE_SIZE;
use quire_abi::flags::Prot;

use crate::mem;
use crate::sync::Mutex;

const SMALLEST: usize = 16;
const LARGEST: usize = 32 * 1024;
const CLASSES: usize = (LARGEST.ilog2() - SMALLEST.ilog2() + 1) as usize;
/// Bytes by which the data segment grows.
const CHUNK: usize = 64 * 1024;

struct Lists {
    /// First free block of each class; a free block starts with the address of the next.
    free: [usize; CLASSES],
    /// The unused rest of the last chunk.
    next: usize,
    end: usize,
}

struct Heap(Mutex<Lists>);

#[global_allocator]
static HEAP: Heap = Heap(Mutex::new(Lists { free: [0; CLASSES], next: 0, end: 0 }));

/// Called as the last thing that a thread does before it exits.
pub(crate) fn thread_exit() {}

fn class(layout: Layout) -> Option<usize> {
    let size = layout.size().max(layout.align()).max(SMALLEST).next_power_of_two();
    (size <= LARGEST).then(|| (size.ilog2() - SMALLEST.ilog2()) as usize)
}

impl Lists {
    fn take(&mut self, class: usize) -> Option<usize> {
        let block = self.free[class];
        if block != 0 {
            // SAFETY: a free block holds the address of the next one.
            self.free[class] = unsafe { *(block as *const usize) };
            return Some(block);
        }
        let size = SMALLEST << class;
        let mut start = self.next.next_multiple_of(size);
        if self.next == 0 || start + size > self.end {
            start = self.grow(size)?;
        }
        self.next = start + size;
        Some(start)
    }

    /// Makes room for an aligned block of `size` bytes at the end of the data segment.
    fn grow(&mut self, size: usize) -> Option<usize> {
        // SAFETY: asks only.
        let old = unsafe { mem::brk(0) };
        if old == 0 {
            return None;
        }
        let start = old.next_multiple_of(size);
        let end = (start + size).next_multiple_of(CHUNK);
        // SAFETY: the segment only grows.
        if unsafe { mem::brk(end) } != end {
            return None;
        }
        self.end = end;
        Some(start)
    }

    fn give(&mut self, class: usize, block: usize) {
        // SAFETY: the block is free and at least 16 bytes long and aligned.
        unsafe { *(block as *mut usize) = self.free[class] };
        self.free[class] = block;
    }
}

// SAFETY: a block is on a list or handed out, never both; it is aligned to its size, or to a page; the lock keeps
// the lists to one thread.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match class(layout) {
            Some(class) => self.0.lock().take(class).map_or(null_mut(), |block| block as *mut u8),
            None if layout.align() > PAGE_SIZE => null_mut(),
            None => mem::mmap_anonymous(layout.size(), Prot::READ | Prot::WRITE).map_or(null_mut(), |at| at as *mut u8),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match class(layout) {
            Some(class) => self.0.lock().give(class, block as usize),
            None => {
                // SAFETY: the caller gives the whole mapping back. An error leaves it mapped, which harms no one.
                let _ = unsafe { mem::munmap(block as usize, layout.size()) };
            }
        }
    }
}
