//! A stack of pages that one CPU uses and any CPU may take as a whole.
//!
//! # The protocol
//!
//! The stack is one word: the top page's number above how many pages there are. Its CPU pushes, pops and fills it,
//! with interrupts masked; any CPU may take all of it at once ([`Stack::take`]): that is how a list is drained
//! from afar, without an interrupt to its CPU. All changes are by compare-and-exchange or swap.
//!
//! There is no ABA problem: only the stack's own CPU pushes pages, and between a pop's load of the top and its exchange
//! that CPU does nothing else. So the stack can only become empty meanwhile, which makes the exchange fail.
//!
//! `tests/loom_pcp.rs` compiles this file a second time, with loom's atomics.

use super::atomic::{AtomicU64, Ordering::*};

/// The links between pages, by page number.
pub(crate) trait Links: Copy {
    /// The page below.
    fn next(self, page: u32) -> u32;
    /// Changes the page below.
    fn set_next(self, page: u32, next: u32);
}

/// A chain of pages through their links, as a word: the first one's number above how many there are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chain(u64);

impl Chain {
    pub(crate) const EMPTY: Self = Self(0);

    #[inline(always)]
    const fn new(first: u32, count: u32) -> Self {
        Self((first as u64) << 32 | count as u64)
    }

    #[inline(always)]
    pub(crate) const fn count(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    const fn first(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Takes the first page off a private chain.
    #[inline]
    pub(crate) fn pop(&mut self, links: impl Links) -> Option<u32> {
        if self.count() == 0 {
            return None;
        }
        let first = self.first();
        *self = Self::new(links.next(first), self.count() - 1);
        Some(first)
    }

    /// The first page.
    #[inline]
    pub(crate) fn peek(self) -> Option<u32> {
        (self.count() != 0).then(|| self.first())
    }

    /// Puts a page in front of a private chain.
    #[inline]
    pub(crate) fn push(&mut self, links: impl Links, page: u32) {
        links.set_next(page, self.first());
        *self = Self::new(page, self.count() + 1);
    }
}

/// A chain that its CPU uses, and that others may take as a whole.
#[repr(transparent)]
pub(crate) struct Stack(pub(super) AtomicU64);

impl Stack {
    /// Pages on it.
    #[inline]
    pub(crate) fn count(&self) -> u32 {
        Chain(self.0.load(Relaxed)).count()
    }

    /// Takes the top page. By its CPU, with interrupts masked.
    #[inline(always)]
    pub(crate) fn pop(&self, links: impl Links) -> Option<u32> {
        let mut old = Chain(self.0.load(Relaxed));
        while old.count() != 0 {
            let top = old.first();
            // If another CPU has just taken the stack, this may read anything; then the exchange fails.
            let new = Chain::new(links.next(top), old.count() - 1);
            // Relaxed: this CPU itself put the page there.
            match self.0.compare_exchange_weak(old.0, new.0, Relaxed, Relaxed) {
                Ok(_) => return Some(top),
                Err(now) => old = Chain(now),
            }
        }
        None
    }

    /// Puts a page on top; returns how many there are now. By its CPU, with interrupts masked.
    #[inline(always)]
    pub(crate) fn push(&self, links: impl Links, page: u32) -> u32 {
        let mut old = Chain(self.0.load(Relaxed));
        loop {
            links.set_next(page, old.first());
            let new = Chain::new(page, old.count() + 1);
            // Release: a CPU that takes the stack sees the links, and all earlier accesses to the pages are complete.
            match self.0.compare_exchange_weak(old.0, new.0, Release, Relaxed) {
                Ok(_) => return new.count(),
                Err(now) => old = Chain(now),
            }
        }
    }

    /// Takes everything. By any CPU.
    pub(crate) fn take(&self) -> Chain {
        Chain(self.0.swap(0, AcqRel))
    }

    /// Fills an empty stack. By its CPU, with interrupts masked: no other CPU fills it, so it is still empty.
    pub(crate) fn fill(&self, chain: Chain) {
        let old = self.0.swap(chain.0, Release);
        debug_assert!(Chain(old).count() == 0);
    }
}
