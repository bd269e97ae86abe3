//! Clearing entries.

use super::Machine;
use super::block::Block;
use super::entry::note_dirty;
use super::gather::{Counts, Gather};
use super::{LEAF_SPAN, Leaf, Tables, part_end};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, USER_END, UserAddr};
use crate::pte::{ENTRIES, LEVEL_SHIFT, NonPresent, Pte, index};
use crate::rmap::Release;

/// Entries between two preemption points, of a dead space or without a page: giving up a slot in swap, or a page where the CPU's list
/// is full, may take 700 instructions.
const ENTRIES_TO_POINT: u32 = 64;

impl<M: Machine> Tables<M> {
    /// Clears all entries of `start..end`. The pages belong to `gather` until it has flushed.
    #[inline(always)]
    pub fn zap(&self, start: UserAddr, end: UserAddr, gather: &mut Gather<'_, M>) {
        let mut va = start;
        while let Some((from, spot)) = self.next_any(va, end) {
            let to = part_end(from, end);
            match spot.leaf(from) {
                Ok(leaf) => leaf.zap(from, to, gather),
                Err(block) => {
                    if !self.zap_part(&block, from, to, gather) {
                        va = from;
                        continue;
                    }
                }
            }
            va = to;
            // The operation is completed even if the thread is killed.
            let _ = self.machine.resched_point();
        }
    }

    /// Clears the entry of a block, if the part is all of it; else the block becomes a table. `false` if the caller must look again.
    #[cold]
    fn zap_part(&self, block: &Block<'_, M>, from: UserAddr, to: UserAddr, gather: &mut Gather<'_, M>) -> bool {
        if to - from != LEAF_SPAN {
            block.split();
            return false;
        }
        if !gather.has_room_for_block() {
            gather.flush();
        }
        block.lock().map(|guard| guard.zap(gather)).is_some()
    }

    /// Drops every entry of a space that is active nowhere and whose ASID has been flushed: its pages are freed at
    /// once.
    pub fn zap_dead(&mut self) -> Counts {
        let machine = self.machine;
        let mut counts = Counts::default();
        let mut release = Release::new(machine);
        let mut va = UserAddr::new(0);
        while let Some((from, spot)) = self.next_any(va, UserAddr::new(USER_END)) {
            va = part_end(from, UserAddr::new(USER_END));
            // (A space that a CPU drops without a thread has no tables left.)
            let _ = machine.resched_point();
            let leaf = match spot.leaf(from) {
                Ok(leaf) => leaf,
                Err(block) => {
                    counts.anon += ENTRIES;
                    release.block(block.entry_at_end().addr().pfn());
                    continue;
                }
            };
            // No lock: no other walk of this space takes place any more. The entries are not cleared, since the table
            // is freed too.
            let (mut left, mut i) = (leaf.live(), 0);
            while left != 0 && i < ENTRIES {
                let pte = leaf.peek(i);
                i += 1;
                if pte == Pte::NONE {
                    continue;
                }
                left -= 1;
                if pte.is_present() && pte.is_anon() {
                    counts.anon += 1;
                    release.page(pte.addr().pfn());
                } else {
                    end_other(machine, pte, &mut counts, &mut release);
                }
                if left.is_multiple_of(ENTRIES_TO_POINT) {
                    let _ = machine.resched_point();
                }
            }
        }
        counts
    }
}

/// Drops what an entry of a dead space held, other than an anonymous page.
#[inline(never)]
fn end_other<M: Machine>(machine: M, pte: Pte, counts: &mut Counts, release: &mut Release<M>) {
    match pte.kind() {
        None => {
            let kind = pte.owner_kind(machine);
            counts.add(kind);
            note_dirty(machine, pte, kind);
            if kind.is_counted() {
                release.page(pte.addr().pfn());
            }
        }
        // The frame may have been reused by now: the mover skips a space that is being torn down.
        Some(NonPresent::Migration(_)) => counts.add(pte.moved_kind()),
        Some(NonPresent::Swap(swapped)) => machine.spaces().swap().release(swapped.slot),
        Some(NonPresent::None | NonPresent::Marker(_)) => {}
    }
}

impl<M: Machine> Leaf<'_, M> {
    #[inline(always)]
    fn live(&self) -> u32 {
        self.table.record().live.load(core::sync::atomic::Ordering::Relaxed)
    }

    /// Clears the entries of `start..end`, which lies within this table.
    fn zap(&self, start: UserAddr, end: UserAddr, gather: &mut Gather<'_, M>) {
        let mut i = index(start.get(), 3);
        let stop = i + ((end - start) >> PAGE_SHIFT);
        let base = start.get() - (i << LEVEL_SHIFT[3]);
        while i < stop {
            if self.is_vacant() {
                return;
            }
            let mut guard = self.lock();
            // Of the present ones: the first, and that after the last.
            let (mut first, mut last) = (ENTRIES, 0);
            let mut slots = 0;
            while gather.has_room() && slots < ENTRIES_TO_POINT {
                while i < stop && guard.get(i) == Pte::NONE {
                    i += 1;
                }
                if i == stop {
                    break;
                }
                let pte = guard.take(i);
                i += 1;
                match pte.kind() {
                    None => {
                        (first, last) = (first.min(i - 1), i);
                        gather.take_of_range(pte);
                    }
                    Some(_) => {
                        gather.take_non_present(pte);
                        slots += 1;
                    }
                }
            }
            if first < last {
                gather.cover(UserAddr::new(base + first * PAGE_SIZE), UserAddr::new(base + last * PAGE_SIZE));
            }
            gather.before_unlock();
            drop(guard);
            if !gather.has_room() {
                gather.flush();
            }
            if slots == ENTRIES_TO_POINT {
                let _ = gather.machine().resched_point();
            }
        }
    }
}
