//! A CPU's array of free objects of a cache, last in, first out: what was freed last is still in the CPU's cache
//! (the magazines of Bonwick and Adams 2001).
//!
//! To its slab an object in an array is in use. An array exchanges objects with the slabs in batches, so that many
//! frees share the cost of a batch.

use crate::addr::PAGE_SIZE;
use crate::machine::MAX_CPUS;

/// A CPU's free objects.
#[repr(C, align(64))]
pub(super) struct Array {
    len: usize,
    /// How many there may be.
    pub(super) limit: usize,
    objects: [usize; Array::ROOM],
}

const _: () = assert!(size_of::<Array>() * MAX_CPUS == PAGE_SIZE);

impl Array {
    const ROOM: usize = PAGE_SIZE / MAX_CPUS / size_of::<usize>() - 2;

    /// How many objects of a size a CPU may keep in its array.
    pub(super) const fn limit(stride: usize) -> usize {
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

    /// Its objects.
    pub(super) fn objects(&self) -> &[usize] {
        &self.objects[..self.len]
    }

    /// Takes out everything.
    pub(super) fn take(&mut self) -> &[usize] {
        let len = core::mem::take(&mut self.len);
        &self.objects[..len]
    }
}
