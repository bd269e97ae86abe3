//! How many anonymous pages a fault brings in.
//!
//! A program that touches page after page gets windows of 2, 4, 8 and 16 pages. Pages that it has not asked for
//! are *unproven* until a fault lies right behind them: then it went past them all. A space may have at
//! most one unproven page for ten that its program did ask for, so a program that stops, or jumps about, is never
//! more than 10 % larger than without.
//!
//! Where a window ends is noted in its last entry ([`Pte::ahead`](crate::pte::Pte::ahead)). So there are as many streams as threads or loops
//! make, they share nothing but the space's sum, and what goes with an entry goes with its debt: at any time the sum is that
//! of the anonymous entries' notes.

use core::sync::atomic::Ordering::Relaxed;

use super::Mm;
use crate::addr::{PAGE_SHIFT, UserAddr};
use crate::machine::Machine;
use crate::pte::index;
use crate::table::{Leaf, LeafGuard};
use crate::vma::{VmFlags, Vma};

/// The largest window.
pub(super) const MAX_WINDOW: usize = 16;

impl<M: Machine> Mm<M> {
    /// How many pages a fault at `addr`, in `leaf`, may bring in. `free` says that they cost no memory (the zero page).
    #[inline]
    pub(super) fn window(&self, vma: &Vma<M>, leaf: &Leaf<'_, M>, addr: UserAddr, free: bool) -> usize {
        let behind = (addr - vma.start) >> PAGE_SHIFT;
        if behind == 0 || vma.flags.contains(VmFlags::RANDOM) {
            return 1;
        }
        // A stream is two pages before this one, as far as this area and this table know; one that has a window is more.
        let i = index(addr.get(), 3);
        let seen = behind.min(i);
        let mut ahead = 0;
        if seen >= 1 {
            let before = leaf.peek(i - 1);
            ahead = before.ahead();
            if !before.is_present() || ahead == 0 && seen >= 2 && !leaf.peek(i - 2).is_present() {
                return 1;
            }
        }
        let window = (2 * (ahead + 1)).min(MAX_WINDOW);
        if free {
            return window;
        }
        // Of so many pages in all, the unproven are at most one in eleven.
        let credit = (self.rss_anon.load(Relaxed) / 11).saturating_sub(self.unproven.load(Relaxed));
        window.min(1 + credit)
    }

    /// Notes that a fault at `addr` has filled so many entries of the table that `guard` locks, one of which was asked for. What
    /// came before is proven. `free` as for [`Mm::window`].
    #[inline]
    pub(super) fn note_window(
        &self,
        guard: &mut LeafGuard<'_, M>,
        vma: &Vma<M>,
        addr: UserAddr,
        filled: usize,
        free: bool,
    ) {
        let first = index(addr.get(), 3);
        let mut proven = 0;
        if first > 0 && addr > vma.start {
            let before = guard.get(first - 1);
            if before.is_present() && before.ahead() != 0 {
                proven = if before.is_anon() { before.ahead() } else { 0 };
                guard.update(first - 1, before, |pte| pte.with_ahead(0));
            }
        }
        if filled > 1 {
            let last = guard.get(first + filled - 1);
            guard.update(first + filled - 1, last, |pte| pte.with_ahead(filled - 1));
        }
        let extra = if free { 0 } else { filled.saturating_sub(1) };
        if extra != proven {
            self.unproven.fetch_add(extra.wrapping_sub(proven), Relaxed);
        }
    }
}
