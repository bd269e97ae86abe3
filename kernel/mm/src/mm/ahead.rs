//! How many anonymous pages a fault brings in.
//!
//! A program that touches page after page gets windows of 2, 4, 8 and 16 pages. Pages that it has not touched are
//! *unproven* until a fault occurs right after them: then it has passed them all. A space may have at most one unproven
//! page per ten pages that its program did touch, so a program that stops or jumps around is never more than 10 %
//! larger than without windows.
//!
//! The end of a window is recorded in its last entry ([`Pte::ahead`](crate::pte::Pte::ahead)). So there may be any
//! number of streams by different threads or loops; they share only the space's sum. Removing an entry removes its
//! record too: at any time the sum is that of the records in the anonymous entries.

use core::sync::atomic::Ordering::Relaxed;

use super::Mm;
use crate::addr::{PAGE_SHIFT, UserAddr};
use crate::mm::Machine;
use crate::pte::index;
use crate::table::{Leaf, LeafGuard};
use crate::vma::{VmFlags, Vma};

/// The largest window.
pub(super) const MAX_WINDOW: usize = 16;

impl<M: Machine> Mm<M> {
    /// How many pages a fault at `addr`, in `leaf`, may bring in. `free` means that they take no memory (the zero
    /// page).
    #[inline]
    pub(super) fn window(&self, vma: &Vma<M>, leaf: &Leaf<'_, M>, addr: UserAddr, free: bool) -> usize {
        let behind = (addr - vma.start) >> PAGE_SHIFT;
        if behind == 0 || vma.flags.contains(VmFlags::RANDOM) {
            return 1;
        }
        // Two present pages before this one, in the same area and table, make a stream; a recorded window makes it
        // longer.
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
        // At most one in eleven of all pages may be unproven.
        let credit = (self.rss_anon.load(Relaxed) / 11).saturating_sub(self.unproven.load(Relaxed));
        window.min(1 + credit)
    }

    /// Records that a fault at `addr` has filled `filled` entries of the table that `guard` locks, of which one was
    /// accessed. The window before it is proven. `free` as for [`Mm::window`].
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
