//! mremap: pages that get other page offsets.

use super::{Machine, Tables};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, UserAddr};
use crate::page::Page;
use crate::pte::{ENTRIES, NonPresent, Pte, bits, index};

impl<M: Machine> Tables<M> {
    /// The first entry of `start..end` that maps an anonymous page which others hold too, write-protected as fork leaves
    /// it. Not a pinned page, which stays in place.
    pub fn next_shared(&self, start: UserAddr, end: UserAddr) -> Option<UserAddr> {
        let mut va = start;
        while let Some((from, to, leaf)) = self.next_part(va, end) {
            va = to;
            // (A caller that may stop looks again.)
            let _ = self.machine.resched_point();
            let first = index(from.get(), 3);
            let pages = (to - from) >> PAGE_SHIFT;
            if !leaf.is_vacant()
                && let Some(i) = (0..pages).find(|i| self.is_shared(leaf.peek(first + i)))
            {
                return Some(from + i * PAGE_SIZE);
            }
        }
        None
    }

    /// Whether [`Tables::next_shared`] finds such an entry.
    pub fn is_shared(&self, pte: Pte) -> bool {
        pte.0 & (bits::READ_ONLY | bits::DBM) == bits::READ_ONLY
            && anon_page(self.machine, pte).is_some_and(|page| page.refs() > 1 && !page.is_pinned())
    }

    /// Adds `by` to the pgoffs of all anonymous pages of `start..end` (modulo 2^64). `false`, with nothing changed, if
    /// there is another holder of one of them, or one is being moved. The caller has the space's areas locked for writing:
    /// meanwhile there are no faults, and no walk of reverse mapping visits the space.
    ///
    /// A thread that has found a page by its record, and holds it, relies on its pgoff. So all pages are frozen first, and
    /// changed only then.
    pub fn shift_pgoffs(&self, start: UserAddr, end: UserAddr, by: usize) -> bool {
        let machine = self.machine;
        let mut frozen = 0;
        let mut alone = true;
        self.change_each(start, end, None, ENTRIES, |guard, i| {
            let pte = guard.get(i);
            if alone && let Some(page) = anon_page(machine, pte) {
                alone = page.freeze(1);
                frozen += alone as usize;
            }
            alone &= !matches!(pte.kind(), Some(NonPresent::Migration(_)));
            false
        });
        // The frozen pages are the first ones.
        self.change_each(start, end, None, ENTRIES, |guard, i| {
            if frozen > 0
                && let Some(page) = anon_page(machine, guard.get(i))
            {
                frozen -= 1;
                if alone {
                    page.set_owner(page.owner(), page.index().wrapping_add(by as u64));
                }
                page.unfreeze(1);
            }
            false
        });
        alone
    }
}

/// The record of the anonymous page that an entry maps.
#[inline]
fn anon_page<M: Machine>(machine: M, pte: Pte) -> Option<&'static Page> {
    // SAFETY: an entry refers to frames of the page allocator, whose records exist as long as the kernel.
    (pte.is_present() && pte.is_anon()).then(|| unsafe { Page::of(machine, pte.addr().pfn()) })
}
