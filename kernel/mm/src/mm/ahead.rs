//! How many anonymous pages a fault brings in.
//!
//! A program that touches page after page gets windows of 2, 4, 8 and 16 pages. Pages that it has not asked for
//! are *unproven* until its next fault lies right behind them: then it went past them all. A space may have at
//! most one unproven page for ten that its program did ask for, so a program that stops, or jumps about, is never
//! more than 10 % larger than without.

use core::sync::atomic::Ordering::Relaxed;

use super::Mm;
use crate::addr::{PAGE_SIZE, UserAddr};
use crate::machine::Machine;
use crate::vma::{FaultAhead, VmFlags, Vma};

/// The largest window.
pub(super) const MAX_WINDOW: usize = 16;

impl FaultAhead {
    /// Takes over the debts of a Vma that becomes part of this one's.
    #[inline]
    pub fn absorb(&self, other: &Self) {
        self.unproven.fetch_add(other.unproven.load(Relaxed), Relaxed);
    }
}

impl<M: Machine> Mm<M> {
    /// How many pages a fault at `addr` may bring in. `free` says that they cost no memory (the zero page).
    #[inline]
    pub(super) fn window(&self, vma: &Vma<M>, addr: UserAddr, free: bool) -> usize {
        let ahead = &vma.ahead;
        if ahead.next.load(Relaxed) != addr.get() || vma.flags.contains(VmFlags::RANDOM) {
            return 1;
        }
        // What the last fault brought in is proven now. Whoever takes the number settles it.
        if ahead.extra.load(Relaxed) != 0 {
            let proven = ahead.extra.swap(0, Relaxed) as usize;
            ahead.unproven.fetch_sub(proven, Relaxed);
            self.unproven.fetch_sub(proven, Relaxed);
        }
        let window = (2 * ahead.window.load(Relaxed) as usize).clamp(2, MAX_WINDOW);
        if free {
            return window;
        }
        // Of so many pages in all, the unproven are at most one in eleven.
        let credit = (self.rss_anon.load(Relaxed) / 11).saturating_sub(self.unproven.load(Relaxed));
        window.min(1 + credit)
    }

    /// Remembers that a fault at `addr` brought in `pages`, of which `extra` take memory that nobody asked for.
    #[inline]
    pub(super) fn note_window(&self, vma: &Vma<M>, addr: UserAddr, pages: usize, extra: usize) {
        let ahead = &vma.ahead;
        ahead.next.store(addr.get() + pages * PAGE_SIZE, Relaxed);
        ahead.window.store(pages as u32, Relaxed);
        if extra != 0 {
            // An abandoned stream's extra pages stay unproven: only this fault's can be proven by the next.
            ahead.extra.store(extra as u32, Relaxed);
            ahead.unproven.fetch_add(extra, Relaxed);
            self.unproven.fetch_add(extra, Relaxed);
        } else if ahead.extra.load(Relaxed) != 0 {
            ahead.extra.store(0, Relaxed);
        }
    }

    /// `start..end` is being emptied: what was unproven there is gone.
    pub(super) fn forget_ahead(&self, vma: &Vma<M>, start: UserAddr, end: UserAddr) {
        let ahead = &vma.ahead;
        if ahead.unproven.load(Relaxed) == 0 {
            return;
        }
        let gone = if start <= vma.start && vma.end <= end {
            ahead.extra.store(0, Relaxed);
            ahead.unproven.swap(0, Relaxed)
        } else {
            // Of a part, only the last window's place is known.
            let next = ahead.next.load(Relaxed);
            let first = next.saturating_sub(ahead.window.load(Relaxed) as usize * PAGE_SIZE);
            if first < start.get() || end.get() < next {
                return;
            }
            let gone = ahead.extra.swap(0, Relaxed) as usize;
            ahead.unproven.fetch_sub(gone, Relaxed);
            gone
        };
        self.unproven.fetch_sub(gone, Relaxed);
    }
}
