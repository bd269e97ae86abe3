//! A last-level table becomes a block entry again, if what it maps lies as in a block (docs/huge-pages.md).
//!
//! Nothing is allocated or freed: the table is laid by for the block, and the references of the 512 entries are those of the block entry.

use core::sync::atomic::Ordering;

use super::flush::flush_space;
use super::{LEAF_SPAN, Machine, Tables};
use crate::addr::{PAGE_SIZE, Pfn, UserAddr};
use crate::pte::{ENTRIES, Pte, bits, index};

impl<M: Machine> Tables<M> {
    /// The first of 512 aligned frames, if the last-level table for `va` maps all of them in their order, each by an entry that is `as_wanted`.
    /// Unless no other walk of this space takes place meanwhile, it may not any more.
    pub fn lies_as_block(&self, va: UserAddr, as_wanted: impl Fn(Pte) -> bool) -> Option<Pfn> {
        let leaf = self.find_leaf(va)?;
        let first = leaf.peek(0).addr();
        let is_part = |k: usize| {
            let pte = leaf.peek(k);
            pte.is_present() && pte.addr() == first + k * PAGE_SIZE && as_wanted(pte)
        };
        (first.get().is_multiple_of(LEAF_SPAN) && (0..ENTRIES).all(is_part)).then(|| first.pfn())
    }

    /// Makes the last-level table for `va`, which lies as a block, a block entry with these attributes, and lays it by. While no
    /// walker, hardware or not, can reach any of its pages, `alone` is called. Returns how many entries were of pages that were brought
    /// in ahead. No other walk of this space takes place meanwhile.
    pub fn join(&self, va: UserAddr, attrs: u64, alone: impl FnOnce()) -> usize {
        let machine = self.machine;
        let (Some(leaf), Some(table)) = (self.find_leaf(va), self.find_table(va, 2)) else { return 0 };
        let word = table.word(index(va.get(), 2));
        word.store(machine, Pte::SPLITTING);
        // Break-before-make. TLBs may hold any of the 512 entries, and the way to their table.
        if !seeded!(JoinForgetsFlush) {
            flush_space(machine, &self.asid);
        }
        alone();
        let frame = leaf.peek(0).addr();
        let is_young = (0..ENTRIES).any(|k| leaf.peek(k).is_young());
        let ahead = (0..ENTRIES).map(|k| leaf.peek(k).ahead()).sum();
        let attrs = if is_young { attrs } else { attrs & !bits::ACCESSED };
        leaf.table.record().live.store(0, Ordering::Relaxed);
        table.lay_by(leaf.table);
        word.store_release(machine, Pte::block(frame, attrs));
        if !seeded!(JoinForgetsPublication) {
            machine.publish_tables();
        }
        ahead
    }
}
