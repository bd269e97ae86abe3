//! Blocks that are mappings of their own, and the one spare mapping.
//!
//! A mapping that was freed is kept back for the next request of its size, so that a program that takes and frees one
//! large buffer again and again does not fault its pages in each time. It goes as soon as anything else is asked of
//! the system, so it never adds to what the process holds at most.

use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use crate::bins::MAX_SMALL;
use crate::chunk::{ALIGN, Chunk, MAPPED, PREV, USED};
use crate::lock::Lock;
use crate::{Malloc, PAGE, System};

/// The block's usual distance from the mapping's start.
const OFFSET: usize = 16;

struct Spare {
    at: *mut u8,
    bytes: usize,
}

// SAFETY: the spare mapping is nobody's but the lock holder's.
unsafe impl Send for Spare {}

pub struct Mappings {
    spare: Lock<Spare>,
    /// The spare mapping's length, for a look without the lock.
    spare_bytes: AtomicUsize,
    pub count: AtomicUsize,
    pub bytes: AtomicUsize,
    pub max_count: AtomicUsize,
    pub max_bytes: AtomicUsize,
}

impl Mappings {
    pub const fn new() -> Mappings {
        Mappings {
            spare: Lock::new(AtomicU32::new(0), Spare { at: null_mut(), bytes: 0 }),
            spare_bytes: AtomicUsize::new(0),
            count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            max_count: AtomicUsize::new(0),
            max_bytes: AtomicUsize::new(0),
        }
    }

    fn add(&self, bytes: usize) {
        let count = self.count.fetch_add(1, Relaxed) + 1;
        self.max_count.fetch_max(count, Relaxed);
        self.resize(0, bytes);
    }

    fn resize(&self, old: usize, new: usize) {
        let bytes = self.bytes.fetch_add(new.wrapping_sub(old), Relaxed).wrapping_add(new.wrapping_sub(old));
        self.max_bytes.fetch_max(bytes, Relaxed);
    }

    pub fn lock(&self, system: &impl System) {
        self.spare.acquire(system);
    }

    pub fn unlock(&self, system: &impl System) {
        self.spare.release(system);
    }

    pub fn reset(&self) {
        self.spare.reset();
    }
}

/// A fresh block, and whether its bytes are known to be zero.
pub struct Fresh {
    pub chunk: Chunk,
    pub zeroed: bool,
}

/// The length of a mapping for a block of `size` bytes.
fn mapping_len(size: usize, align: usize) -> usize {
    let slack = if align > ALIGN { align } else { 0 };
    (size.max(MAX_SMALL) + OFFSET + slack).next_multiple_of(PAGE)
}

impl<S: System> Malloc<S> {
    /// The spare mapping, if it fits a block of `size` bytes without much waste.
    pub(crate) fn take_spare(&self, size: usize) -> Option<Fresh> {
        let len = mapping_len(size, ALIGN);
        if self.mappings.spare_bytes.load(Relaxed) < len {
            return None;
        }
        self.mappings.spare.with(&self.system, |spare| {
            if spare.bytes < len || spare.bytes - len > len / 8 {
                return None;
            }
            let at = core::mem::replace(&mut spare.at, null_mut());
            let bytes = core::mem::take(&mut spare.bytes);
            self.mappings.spare_bytes.store(0, Relaxed);
            self.mappings.add(bytes);
            Some(Fresh { chunk: head(at, OFFSET, bytes), zeroed: false })
        })
    }

    /// Unmaps the spare mapping.
    pub(crate) fn drop_spare(&self) -> bool {
        self.mappings.spare_bytes.load(Relaxed) != 0 && self.keep_spare(null_mut(), 0)
    }

    fn keep_spare(&self, at: *mut u8, bytes: usize) -> bool {
        let old = self.mappings.spare.with(&self.system, |spare| {
            self.mappings.spare_bytes.store(bytes, Relaxed);
            core::mem::replace(spare, Spare { at, bytes })
        });
        // SAFETY: the mapping was freed, and nobody else can take it from here.
        NonNull::new(old.at).is_some_and(|at| unsafe { self.system.unmap(at, old.bytes) })
    }

    /// Maps a block of at least `size` bytes at a multiple of `align`.
    pub(crate) fn map_block(&self, size: usize, align: usize) -> Option<Fresh> {
        self.drop_spare();
        self.map_alone(size, align)
    }

    /// The same, with no look at the spare mapping and so with no lock.
    pub(crate) fn map_alone(&self, size: usize, align: usize) -> Option<Fresh> {
        let len = mapping_len(size, align);
        let at = self.system.map(len)?.as_ptr();
        let offset = (at.addr() + OFFSET).next_multiple_of(align.max(ALIGN)) - at.addr();
        // Whole pages in front of an aligned block and behind it go back at once.
        let front = (offset - OFFSET) & !(PAGE - 1);
        let keep = (offset + size.max(MAX_SMALL)).next_multiple_of(PAGE);
        // SAFETY: both ranges are ends of the mapping just made.
        unsafe {
            if front > 0 {
                self.system.unmap(NonNull::new_unchecked(at), front);
            }
            if keep < len {
                self.system.unmap(NonNull::new_unchecked(at.wrapping_add(keep)), len - keep);
            }
        }
        self.mappings.add(keep - front);
        Some(Fresh { chunk: head(at.wrapping_add(front), offset - front, keep - front), zeroed: true })
    }

    /// Frees a mapped block whose seal is off.
    pub(crate) fn free_mapped(&self, chunk: Chunk) {
        let (at, len) = self.account_freed(chunk);
        if len <= self.options.spare_max() {
            self.keep_spare(at.as_ptr(), len);
        } else {
            // SAFETY: the owner gave the block up.
            unsafe { self.system.unmap(at, len) };
        }
    }

    /// The same, with no thought of keeping the mapping and so with no lock.
    pub(crate) fn unmap_block(&self, chunk: Chunk) {
        let (at, len) = self.account_freed(chunk);
        // SAFETY: the owner gave the block up.
        unsafe { self.system.unmap(at, len) };
    }

    fn account_freed(&self, chunk: Chunk) -> (NonNull<u8>, usize) {
        let (at, len) = self.mapping_of(chunk, chunk.size());
        self.mappings.count.fetch_sub(1, Relaxed);
        self.mappings.resize(len, 0);
        self.options.learn(len);
        (at, len)
    }

    /// The mapping around a block whose chunk has `size` bytes.
    pub(crate) fn mapping_of(&self, chunk: Chunk, size: usize) -> (NonNull<u8>, usize) {
        let offset = chunk.footer_before();
        let start = chunk.0.wrapping_sub(offset);
        let len = size.wrapping_add(offset);
        match NonNull::new(start) {
            Some(at) if start.addr().is_multiple_of(PAGE) && len.is_multiple_of(PAGE) && len != 0 => (at, len),
            _ => self.system.abort("munmap_chunk(): invalid pointer"),
        }
    }

    /// Gives a mapped block, whose seal is on, at least `size` bytes, in place or elsewhere.
    pub(crate) fn resize_mapped(&self, chunk: Chunk, old: usize, size: usize) -> Option<Chunk> {
        let (at, len) = self.mapping_of(chunk, old);
        let offset = len - old;
        let new = (size.max(MAX_SMALL) + offset).next_multiple_of(PAGE);
        if new == len {
            return Some(chunk);
        }
        self.drop_spare();
        // SAFETY: the mapping is the caller's block, which nobody uses during a realloc.
        let at = unsafe { self.system.remap(at, len, new, true) }?;
        self.mappings.resize(len, new);
        let chunk = Chunk(at.as_ptr().wrapping_add(offset));
        chunk.set_sealed(new - offset, PREV | USED | MAPPED, self.secret());
        Some(chunk)
    }
}

/// Writes the header of a mapped block.
fn head(at: *mut u8, offset: usize, len: usize) -> Chunk {
    let chunk = Chunk(at.wrapping_add(offset));
    chunk.set_footer_before(offset);
    chunk.set(len - offset, PREV | USED | MAPPED);
    chunk
}
