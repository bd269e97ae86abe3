//! A page record's first word: state, order, flags, and how many references there are.
//!
//! # The protocol
//!
//! - A reference is added by a thread that has one ([`Head::get`]), or by one that found the record: it loads the word,
//!   checks for the expected state and a count above 0, and exchanges exactly that word ([`Head::get_if`]). One that
//!   wants to take the page elsewhere marks it in the same exchange ([`Head::get_and_mark`]).
//! - The last reference is dropped by [`Head::put`] or, if the holder must know beforehand that it is the last one, by
//!   [`Head::freeze`]. Either way one thread takes the count to 0 and then owns the frame alone: a count is never
//!   raised from 0, so plain stores to the record are correct until [`Head::unfreeze`] or the next allocation of the
//!   frame.
//! - A holder's accesses to the page come before those of the thread that took the count to 0 (release in `put`,
//!   acquire there), and that thread's accesses come before those of threads that find the page after `unfreeze`.
//!
//! Flags may change at any time and never disturb the count.
//!
//! `tests/loom_page.rs` compiles this file a second time, with loom's atomics.

use super::atomic::{AtomicU64, Ordering::*, fence};

/// The bits that hold the state.
pub(super) const STATE_MASK: u64 = 0xf;
const REFS_SHIFT: u32 = 32;
/// A reference.
pub(super) const ONE_REF: u64 = 1 << REFS_SHIFT;
/// All references.
pub(super) const ALL_REFS: u64 = !(ONE_REF - 1);
/// Above this the count refuses to grow: half of the range is left for races on the way there.
pub(super) const REFS_MAX: u32 = 1 << 31;

/// The references in a word.
#[inline(always)]
pub(super) const fn refs_of(head: u64) -> u32 {
    (head >> REFS_SHIFT) as u32
}

/// See the module.
#[repr(transparent)]
pub(super) struct Head(pub(super) AtomicU64);

impl Head {
    /// Loads the word without ordering.
    #[inline(always)]
    pub(super) fn load(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Loads the word, ordered before the caller's later accesses.
    #[inline(always)]
    pub(super) fn load_acquire(&self) -> u64 {
        self.0.load(Acquire)
    }

    /// Writes the word of a frame that only the caller accesses: its count is 0, or its state cannot be found.
    #[inline(always)]
    pub(super) fn store(&self, head: u64) {
        self.0.store(head, Relaxed);
    }

    /// As [`Head::store`], ordered after all of the caller's accesses to the frame: it can be found from now on.
    #[inline(always)]
    pub(super) fn publish(&self, head: u64) {
        self.0.store(head, Release);
    }

    /// Sets bits below the count; returns the word before.
    #[inline(always)]
    pub(super) fn set(&self, bits: u64) -> u64 {
        self.0.fetch_or(bits, AcqRel)
    }

    /// Clears bits below the count; returns the word before.
    #[inline(always)]
    pub(super) fn clear(&self, bits: u64) -> u64 {
        self.0.fetch_and(!bits, AcqRel)
    }

    /// Flips bits below the count.
    #[inline(always)]
    pub(super) fn flip(&self, bits: u64) {
        self.0.fetch_xor(bits, Relaxed);
    }

    /// As [`Head::flip`], ordered after all of the caller's accesses to the frame: it can be found from now on.
    #[inline(always)]
    pub(super) fn flip_and_publish(&self, bits: u64) {
        self.0.fetch_xor(bits, Release);
    }

    /// Adds a reference to one that the caller has. `false` if there are too many.
    #[inline(always)]
    pub(super) fn get(&self) -> bool {
        let old = refs_of(self.0.fetch_add(ONE_REF, Relaxed));
        debug_assert!(old != 0, "a reference to a page that nobody holds");
        if old < REFS_MAX {
            return true;
        }
        self.0.fetch_sub(ONE_REF, Relaxed);
        false
    }

    /// Adds a reference if the page is held and in this state.
    #[inline]
    pub(super) fn get_if(&self, state: u64) -> bool {
        let mut head = self.load();
        while (1..REFS_MAX).contains(&refs_of(head)) && head & STATE_MASK == state {
            match self.0.compare_exchange_weak(head, head + ONE_REF, Acquire, Relaxed) {
                Ok(_) => return true,
                Err(now) => head = now,
            }
        }
        false
    }

    /// As [`Head::get_if`], and sets `mark`, if it is not set yet: so one thread has it at a time.
    #[inline]
    pub(super) fn get_and_mark(&self, state: u64, mark: u64) -> bool {
        let mut head = self.load();
        while (1..REFS_MAX).contains(&refs_of(head)) && head & (STATE_MASK | mark) == state {
            match self.0.compare_exchange_weak(head, (head | mark) + ONE_REF, Acquire, Relaxed) {
                Ok(_) => return true,
                Err(now) => head = now,
            }
        }
        false
    }

    /// Sets `mark`, if the page is held, in this state, and not marked; waits with `relax` while it is marked. `false`
    /// if it is not held in this state.
    #[inline]
    pub(super) fn mark_if(&self, state: u64, mark: u64, relax: impl Fn()) -> bool {
        let mut head = self.load();
        while refs_of(head) != 0 && head & STATE_MASK == state {
            if head & mark != 0 {
                relax();
                head = self.load();
                continue;
            }
            match self.0.compare_exchange_weak(head, head | mark, Acquire, Relaxed) {
                Ok(_) => return true,
                Err(now) => head = now,
            }
        }
        false
    }

    /// Exchanges the bits under `mask`, which are not the count's, if the page is held and they are `old`. A record
    /// that nobody holds belongs to whoever has frozen the page, and is not written to.
    #[inline]
    pub(super) fn exchange(&self, mask: u64, old: u64, new: u64) -> bool {
        let mut head = self.load();
        while refs_of(head) != 0 && head & mask == old {
            match self.0.compare_exchange_weak(head, head & !mask | new, Relaxed, Relaxed) {
                Ok(_) => return true,
                Err(now) => head = now,
            }
        }
        false
    }

    /// Sets the bits under `mask`, which are not the count's, of a page that the caller holds to `new`, unless they are
    /// between `first` and `last`: then `false`.
    #[inline]
    pub(super) fn set_unless(&self, mask: u64, first: u64, last: u64, new: u64) -> bool {
        let mut head = self.load();
        while !(first..=last).contains(&(head & mask)) {
            match self.0.compare_exchange_weak(head, head & !mask | new, Relaxed, Relaxed) {
                Ok(_) => return true,
                Err(now) => head = now,
            }
        }
        false
    }

    /// Drops a reference; `true` if it was the last one: then the caller owns the page.
    #[inline(always)]
    pub(super) fn put(&self) -> bool {
        let old = refs_of(self.0.fetch_sub(ONE_REF, Release));
        debug_assert!(old != 0, "reference count below 0");
        if old != 1 {
            return false;
        }
        fence(Acquire);
        true
    }

    /// Takes the count from exactly `expected` to 0: all references were the caller's, and now it owns the page.
    /// `false`, with nothing changed, for any other count.
    #[inline(always)]
    pub(super) fn freeze(&self, expected: u32) -> bool {
        loop {
            let head = self.load();
            if refs_of(head) != expected {
                return false;
            }
            if self.0.compare_exchange_weak(head, head & !ALL_REFS, AcqRel, Relaxed).is_ok() {
                return true;
            }
        }
    }

    /// Ends a freeze with `refs` references.
    #[inline]
    pub(super) fn unfreeze(&self, refs: u32) {
        // No other thread changes the count, but flags may change.
        let old = refs_of(self.0.fetch_add(u64::from(refs) << REFS_SHIFT, Release));
        debug_assert!(old == 0 && refs != 0, "the page was not frozen");
    }
}
