//! mremap: moving entries.

use core::sync::atomic::Ordering;

use super::Machine;
use super::{GROUP, LEAF_SPAN, Leaf, Tables};
use crate::addr::{PAGE_SHIFT, UserAddr};
use crate::fallible::AllocError;
use crate::pte::{ENTRIES, Pte, index};
use crate::supply::Supply;
use crate::sync::Rank;

/// What [`Tables::relocate`] removed from the old range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// Nothing that a TLB could hold.
    Nothing,
    /// Present entries.
    Pages,
    /// Whole tables: entries that point to them may be cached too, and only an invalidation of the ASID covers these.
    Tables,
}

impl<M: Machine> Tables<M> {
    /// Makes all tables that [`Tables::relocate`] of the same ranges needs. Returns whether there is anything to move.
    /// The tables are not swept until then.
    pub fn prepare_relocate(
        &self,
        from: UserAddr,
        to: UserAddr,
        len: usize,
        supply: &Supply<M>,
    ) -> Result<bool, AllocError> {
        let mut any = false;
        let mut error = None;
        self.for_each_piece(from, to, len, |_, _, target, pages| {
            any = true;
            // A whole table is moved as such, and only needs a place for its entry.
            match self.descend(target, if pages == ENTRIES { 2 } else { 3 }, supply) {
                Ok(_) => true,
                Err(e) => {
                    error = Some(e);
                    false
                }
            }
        });
        error.map_or(Ok(any), Err)
    }

    /// Moves all entries of `from..from + len` to `to..`, where there are none; [`Tables::prepare_relocate`] has made the
    /// tables. The ranges do not overlap, and there are no faults in this space meanwhile. Entries of all kinds are
    /// moved unchanged, since they do not depend on the address. Returns which parts of the old range may be cached,
    /// for the caller to flush.
    pub fn relocate(&self, from: UserAddr, to: UserAddr, len: usize) -> Moved {
        let mut present = false;
        let mut tables = false;
        self.for_each_piece(from, to, len, |leaf, start, target, pages| {
            if pages == ENTRIES && self.move_table(start, target) {
                tables = true;
                return true;
            }
            let Some(target_leaf) = self.find_leaf(target) else { return true };
            let (i, j) = (index(start.get(), 3), index(target.get(), 3));
            let mut source = leaf.lock();
            if leaf.table.addr == target_leaf.table.addr {
                for k in 0..pages {
                    let pte = source.get(i + k);
                    if pte != Pte::NONE {
                        present |= pte.is_present();
                        let last = source.take(i + k);
                        source.fill(j + k, last);
                    }
                }
            } else {
                let mut target = target_leaf.lock_as(Rank::PageTableChild);
                present |= source.move_run(i, &mut target, j, pages);
            }
            true
        });
        if tables {
            Moved::Tables
        } else if present {
            Moved::Pages
        } else {
            Moved::Nothing
        }
    }

    /// Moves the last-level table of `from` to `to`, if there is none yet; both are where a table begins.
    fn move_table(&self, from: UserAddr, to: UserAddr) -> bool {
        // The tables above exist, so nothing is created.
        let supply = Supply::new(self.machine);
        let (Ok(source), Ok(target)) = (self.descend(from, 2, &supply), self.descend(to, 2, &supply)) else {
            return false;
        };
        let (i, j) = (index(from.get(), 2), index(to.get(), 2));
        if target.load(j) != Pte::NONE {
            return false;
        }
        let entry = source.load(i);
        source.word(i).store(self.machine, Pte::NONE);
        source.record().live.fetch_sub(1, Ordering::Relaxed);
        target.record().groups.fetch_or(1 << (j / GROUP), Ordering::Relaxed);
        target.record().live.fetch_add(1, Ordering::Relaxed);
        target.word(j).store_release(self.machine, entry);
        true
    }

    /// Visits the pieces of `from..from + len` that lie within one occupied last-level table and whose counterparts at
    /// `to` do too: table, address, counterpart, pages. Stops when `visit` returns `false`.
    fn for_each_piece(
        &self,
        from: UserAddr,
        to: UserAddr,
        len: usize,
        mut visit: impl FnMut(&Leaf<'_, M>, UserAddr, UserAddr, usize) -> bool,
    ) {
        let end = from + len;
        let mut va = from;
        while let Some((start, leaf)) = self.next_leaf(va, end) {
            // A move that has begun is completed.
            let _ = self.machine.resched_point();
            let target = to + (start - from);
            let room = |addr: UserAddr| LEAF_SPAN - (addr.get() & (LEAF_SPAN - 1));
            let bytes = room(start).min(room(target)).min(end - start);
            va = start + bytes;
            if !leaf.is_vacant() && !visit(&leaf, start, target, bytes >> PAGE_SHIFT) {
                return;
            }
        }
    }
}
