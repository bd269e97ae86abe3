//! A queue of waiting threads whose records lie on their stacks, the first one first.
//!
//! The lock that owns it protects the links. A waiter leaves the queue, under that lock, before its record ends.

use core::cell::UnsafeCell;
use core::ptr::NonNull;

use super::atomic::AtomicBool;

/// A thread in the queue; lives on its stack.
pub struct Waiter {
    /// The thread, for whoever wakes it.
    pub thread: usize,
    /// Its request was granted, and it is out of the queue.
    pub granted: AtomicBool,
    next: UnsafeCell<Option<NonNull<Waiter>>>,
}

/// Threads that wait for the same, the first one first.
pub struct List {
    first: Option<NonNull<Waiter>>,
    last: Option<NonNull<Waiter>>,
}

// SAFETY: the waiters live until they have left, and their links are only accessed by whoever has the list.
unsafe impl Send for List {}

impl Waiter {
    /// A thread that is in no queue.
    pub fn new(thread: usize) -> Self {
        Self { thread, granted: AtomicBool::new(false), next: UnsafeCell::new(None) }
    }
}

impl List {
    /// No thread.
    pub const EMPTY: Self = Self { first: None, last: None };

    /// Appends a waiter.
    ///
    /// # Safety
    /// It is in no list, and stays where it is until it has left this one.
    pub unsafe fn push(&mut self, waiter: &Waiter) {
        let waiter = NonNull::from(waiter);
        match self.last {
            // SAFETY: queued waiters live, and their links belong to `self`, which is borrowed mutably.
            Some(last) => unsafe { *last.as_ref().next.get() = Some(waiter) },
            None => self.first = Some(waiter),
        }
        self.last = Some(waiter);
    }

    /// The first one.
    pub fn front(&self) -> Option<&Waiter> {
        // SAFETY: as in `push`; it leaves the list by `&mut self` only.
        self.first.map(|waiter| unsafe { waiter.as_ref() })
    }

    /// Takes the first one out. It may be freed as soon as it learns that it has left.
    pub fn pop(&mut self) {
        if let Some(first) = self.first {
            // SAFETY: as in `push`.
            self.first = unsafe { (*first.as_ref().next.get()).take() };
            if self.first.is_none() {
                self.last = None;
            }
        }
    }

    /// Takes a waiter out, wherever it is. O(waiters before it).
    pub fn remove(&mut self, waiter: &Waiter) {
        let mut before: Option<NonNull<Waiter>> = None;
        let mut at = self.first;
        while let Some(here) = at.filter(|here| !core::ptr::eq(here.as_ptr(), waiter)) {
            before = at;
            // SAFETY: as in `push`.
            at = unsafe { *here.as_ref().next.get() };
        }
        match (before, at) {
            (None, Some(_)) => self.pop(),
            (Some(before), Some(here)) => {
                // SAFETY: as in `push`.
                let next = unsafe { (*here.as_ref().next.get()).take() };
                // SAFETY: as in `push`.
                unsafe { *before.as_ref().next.get() = next };
                if next.is_none() {
                    self.last = Some(before);
                }
            }
            (_, None) => {}
        }
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// How many wait, for tests.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        // SAFETY: as in `push`.
        core::iter::successors(self.first, |waiter| unsafe { *waiter.as_ref().next.get() }).count()
    }
}
