//! Looking whether a page was used: a walk over its mappings that takes their access flags.
//!
//! The table of an entry is locked anyway, so the entries around it are looked at too: what they say is noted in their pages
//! ([`PageFlags::REFERENCED`]), whose own look needs no walk then (as in Linux's multi-generational LRU).
//!
//! A walk that comes to a locked area says so: the page cannot leave, whoever else uses it.

use super::Mm;
use super::reverse::walk;
use crate::addr::{PAGE_SIZE, Pfn, UserAddr};
use crate::frame;
use crate::mm::Machine;
use crate::page::{Page, PageFlags};
use crate::pte::index;
use crate::table::flush::flush_range;
use crate::vma::VmFlags;

/// Entries that are looked at together: an aligned run.
const RUN: usize = 16;

/// What a look at a page has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It was used since the last look.
    Used,
    /// It was not.
    Unused,
    /// A locked area maps it.
    Locked,
}

/// Looks whether the page was used since the last look at it. The caller has a reference; no lock is held.
pub(crate) fn look<M: Machine>(machine: M, page: &Page, pfn: Pfn) -> Seen {
    if page.clear_flags(PageFlags::REFERENCED).contains(PageFlags::REFERENCED) {
        return Seen::Used;
    }
    let mut seen = Seen::Unused;
    // (A mapping that this misses is looked at the next time.)
    walk(machine, pfn, Some(1), |mm, vma, addr| {
        if vma.flags.contains(VmFlags::LOCKED) {
            seen = Seen::Locked;
            return false;
        }
        if mm.look_around(addr, pfn) {
            seen = Seen::Used;
        }
        true
    });
    seen
}

impl<M: Machine> Mm<M> {
    /// Takes the access flags around the entry for `addr`; whether it was young, and maps the page `pfn`. The areas are locked
    /// for reading.
    fn look_around(&self, addr: UserAddr, pfn: Pfn) -> bool {
        let Some(leaf) = self.tables.find_leaf(addr) else {
            let is_used = self.look_at_block(addr, pfn);
            // (What all pages of the block are told is this one's answer.)
            frame::page(self.machine, pfn).clear_flags(PageFlags::REFERENCED);
            return is_used;
        };
        let own = index(addr.get(), 3);
        let first = own & !(RUN - 1);
        let (mut from, mut to) = (RUN, 0);
        let mut is_used = false;
        let mut guard = leaf.lock();
        for k in 0..RUN {
            let pte = guard.get(first + k);
            if !pte.is_present() || pte.is_special() || !pte.is_young() || !guard.test_and_clear_young(first + k) {
                continue;
            }
            (from, to) = (from.min(k), k + 1);
            if pte.addr().pfn() == pfn {
                // (Nobody needs what was given up, though it was in use until then.)
                is_used |= first + k == own && !pte.is_given_up();
            } else {
                // The entry has a reference.
                frame::page(self.machine, pte.addr().pfn()).set_flags(PageFlags::REFERENCED);
            }
        }
        drop(guard);
        if from < to && !seeded!(LookForgetsFlush) {
            let start = UserAddr::new((addr.get() & !(RUN * PAGE_SIZE - 1)) + from * PAGE_SIZE);
            flush_range(self.machine, self.tables.asid(), start, start + (to - from) * PAGE_SIZE);
        }
        is_used
    }
}
