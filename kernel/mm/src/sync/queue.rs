//! A queue of waiting threads, in order of arrival; their records are on their stacks.
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
    /// Nothing while it is in no list.
    links: UnsafeCell<Option<Links>>,
}

/// Its neighbours.
#[derive(Clone, Copy)]
struct Links {
    before: Option<NonNull<Waiter>>,
    next: Option<NonNull<Waiter>>,
}

/// Threads that wait for the same event, in order of arrival.
pub struct List {
    first: Option<NonNull<Waiter>>,
    last: Option<NonNull<Waiter>>,
}

// SAFETY: the waiters live until they have left, and their links are only accessed by whoever has the list.
unsafe impl Send for List {}

impl Waiter {
    /// A thread that is in no queue.
    pub fn new(thread: usize) -> Self {
        Self { thread, granted: AtomicBool::new(false), links: UnsafeCell::new(None) }
    }
}

impl List {
    /// No thread.
    pub const EMPTY: Self = Self { first: None, last: None };

    /// The links of a waiter in the list.
    fn links(&mut self, waiter: NonNull<Waiter>) -> &mut Option<Links> {
        // SAFETY: queued waiters live, and their links belong to `self`, which is borrowed mutably.
        unsafe { &mut *waiter.as_ref().links.get() }
    }

    /// Appends a waiter.
    ///
    /// # Safety
    /// It is in no list, and does not move before it has left this one.
    pub unsafe fn push(&mut self, waiter: &Waiter) {
        let waiter = NonNull::from(waiter);
        let last = self.last.replace(waiter);
        *self.links(waiter) = Some(Links { before: last, next: None });
        match last.and_then(|last| self.links(last).as_mut()) {
            Some(links) => links.next = Some(waiter),
            None => self.first = Some(waiter),
        }
    }

    /// The first one.
    pub fn front(&self) -> Option<&Waiter> {
        // SAFETY: as in `links`; it leaves the list by `&mut self` only.
        self.first.map(|waiter| unsafe { waiter.as_ref() })
    }

    /// Removes the first waiter. Its record may be freed as soon as its thread learns that it has left.
    pub fn pop(&mut self) {
        if let Some(first) = self.first {
            self.unlink(first);
        }
    }

    /// Removes a waiter at any position; one that is in no list stays so.
    ///
    /// # Safety
    /// It is in no other list.
    pub unsafe fn remove(&mut self, waiter: &Waiter) {
        self.unlink(NonNull::from(waiter));
    }

    fn unlink(&mut self, waiter: NonNull<Waiter>) {
        let Some(Links { before, next }) = self.links(waiter).take() else { return };
        match before.and_then(|before| self.links(before).as_mut()) {
            Some(links) => links.next = next,
            None => self.first = next,
        }
        match next.and_then(|next| self.links(next).as_mut()) {
            Some(links) => links.before = before,
            None => self.last = before,
        }
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// How many wait, for tests.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        // SAFETY: as in `links`.
        core::iter::successors(self.first, |waiter| unsafe { (*waiter.as_ref().links.get()).as_ref()?.next }).count()
    }
}
