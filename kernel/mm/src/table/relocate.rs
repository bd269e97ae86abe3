//! mremap: moving entries.

use super::{LEAF_SPAN, Leaf, Tables};
use crate::addr::{PAGE_SHIFT, UserAddr};
use crate::fallible::AllocError;
use crate::machine::Machine;
use crate::pte::{Pte, index};
use crate::sync::Rank;

impl<M: Machine> Tables<M> {
    /// Makes all tables that [`Tables::relocate`] of the same ranges needs. Answers whether there is anything to move.
    /// Nobody sweeps the tables until then.
    pub fn prepare_relocate(&self, from: UserAddr, to: UserAddr, len: usize) -> Result<bool, AllocError> {
        let mut any = false;
        let mut error = None;
        self.for_each_piece(from, to, len, |_, _, target, _| {
            any = true;
            match self.walk_or_create(target) {
                Ok(_) => true,
                Err(e) => {
                    error = Some(e);
                    false
                }
            }
        });
        error.map_or(Ok(any), Err)
    }

    /// Moves all entries of `from..from + len` to `to..`, where there are none. The ranges do not overlap, and
    /// nobody faults in this space meanwhile. Entries of all kinds move as they are: what they refer to does not
    /// know the address. Answers whether present ones were among them, so that the old range must be flushed.
    pub fn relocate(&self, from: UserAddr, to: UserAddr, len: usize) -> bool {
        let mut present = false;
        self.for_each_piece(from, to, len, |leaf, start, target, pages| {
            let Some(target_leaf) = self.walk(target) else { return true };
            let (i, j) = (index(start.get(), 3), index(target.get(), 3));
            let mut source = leaf.lock();
            if leaf.table.addr == target_leaf.table.addr {
                for k in 0..pages {
                    let pte = source.get(i + k);
                    if pte != Pte::NONE {
                        present |= pte.is_present();
                        source.clear(i + k);
                        source.fill(j + k, pte);
                    }
                }
            } else {
                let mut target = target_leaf.lock_as(Rank::PageTableChild);
                present |= source.move_run(i, &mut target, j, pages);
            }
            true
        });
        present
    }

    /// Visits the pieces of `from..from + len` that lie within one occupied last-level table and whose counterparts at
    /// `to` do too: table, address, counterpart, pages. Stops when `visit` answers `false`.
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
