//! MADV_FREE: pages whose contents may be lost, until their program writes to them again (docs/pressure.md, "Pages that are given
//! up").
//!
//! Such a page is anonymous, and its entry is clean. Any write makes it dirty, by hardware or by a fault, and settles that the page
//! stays; nobody else has to know. Reclaim frees the page if all its entries are clean when they are taken away
//! ([`page_out()`](super::page_out())).

use super::Mm;
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, Pfn, UserAddr};
use crate::cgroup::Stat;
use crate::event::Event;
use crate::frame;
use crate::mm::Machine;
use crate::pte::{NonPresent, Pte, index};
use crate::table::Leaf;
use crate::table::flush::flush_range;

/// Entries that are looked at under one hold of a table's lock: a slot that is freed takes 600 instructions.
const RUN: usize = 64;

impl<M: Machine> Mm<M> {
    /// Gives up the pages of a range of anonymous memory that nobody else has; what is in swap is gone at once. The caller has the
    /// intent, so nothing is shared by a fork meanwhile.
    pub(super) fn give_up(&self, start: UserAddr, end: UserAddr) {
        let mut changed: Option<(UserAddr, UserAddr)> = None;
        let mut at = start;
        while let Some((from, to, leaf)) = self.tables.next_part(at, end) {
            at = to;
            let mut va = from;
            while va < to && !leaf.is_vacant() {
                let until = to.min(va + RUN * PAGE_SIZE);
                if let Some((first, last)) = self.give_up_some(&leaf, va, until) {
                    changed = Some((changed.map_or(first, |(first, _)| first), last));
                }
                va = until;
                // (What has begun is finished, killed or not.)
                let _ = self.machine.resched_point();
            }
        }
        // What is written when the call has returned is not lost: then no TLB has an entry that is dirty.
        if let Some((from, to)) = changed
            && !seeded!(GiveUpForgetsFlush)
        {
            flush_range(self.machine, self.tables.asid(), from, to);
        }
    }

    /// Gives up the pages of a part of a table; returns the range of entries that TLBs may have as they were.
    fn give_up_some(&self, leaf: &Leaf<'_, M>, start: UserAddr, end: UserAddr) -> Option<(UserAddr, UserAddr)> {
        let base = index(start.get(), 3);
        let mut pages = [Pfn(0); RUN];
        let mut len = 0;
        let mut changed: Option<(usize, usize)> = None;
        let mut guard = leaf.lock();
        for n in 0..(end - start) >> PAGE_SHIFT {
            let pte = guard.get(base + n);
            if pte.is_present() {
                // A page that others have, or somebody holds, stays as it is: they rely on its contents (`Mm::is_sole`).
                let page = frame::page(self.machine, pte.addr().pfn());
                if !pte.is_anon() || page.refs() != 1 {
                    continue;
                }
                let (old, new) = guard.update(base + n, pte, Pte::given_up);
                if old != new {
                    changed = Some((changed.map_or(n, |(first, _)| first), n + 1));
                }
                if page.give_up() {
                    self.machine.groups().count_stat(page.control_group(), Stat::LazyFree, 1);
                    pages[len] = pte.addr().pfn();
                    len += 1;
                }
            } else if let Some(NonPresent::Swap(swapped)) = pte.kind() {
                guard.clear(base + n);
                if !seeded!(GiveUpLeaksSlot) {
                    self.machine.spaces().swap().release(swapped.slot);
                }
            }
        }
        drop(guard);
        if len != 0 {
            self.machine.count(Event::LazyFree, len);
            self.machine.pages().note_given_up(&pages[..len]);
        }
        changed.map(|(first, last)| (start + first * PAGE_SIZE, start + last * PAGE_SIZE))
    }
}
