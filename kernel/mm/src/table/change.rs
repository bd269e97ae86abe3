//! Changing the present entries of a range in place.

use super::Machine;
use super::block::Block;
use super::{LEAF_SPAN, LeafGuard, Tables, part_end};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, UserAddr};
use crate::pte::{LEVEL_SHIFT, index};
use crate::vm_flags::VmFlags;

impl<M: Machine> Tables<M> {
    /// Calls `change` with the locked table and the index of each entry of `start..end`, in all tables that are not
    /// empty, and lets others run after `at_once` entries of a table. A block that is in the range as a whole gets the rights of an area with
    /// `rights`; without, and others, become tables first. Returns the range that covers the entries for which it returned true.
    #[inline(always)]
    pub(super) fn change_each(
        &self,
        start: UserAddr,
        end: UserAddr,
        rights: Option<VmFlags>,
        at_once: usize,
        mut change: impl FnMut(&mut LeafGuard<'_, M>, usize) -> bool,
    ) -> Option<(UserAddr, UserAddr)> {
        let mut changed: Option<(UserAddr, UserAddr)> = None;
        let mut va = start;
        while let Some((from, spot)) = self.next_any(va, end) {
            let to = part_end(from, end).min(from + at_once * PAGE_SIZE);
            let leaf = match spot.leaf(from) {
                Ok(leaf) => leaf,
                Err(block) => {
                    let done = self.change_block(&block, rights.filter(|_| to - from == LEAF_SPAN));
                    if done == Some(true) {
                        changed = Some((changed.map_or(from, |c| c.0), from + PAGE_SIZE));
                    }
                    va = if done.is_some() { to } else { from };
                    continue;
                }
            };
            va = to;
            if leaf.is_vacant() {
                continue;
            }
            let first = index(from.get(), 3);
            let base = from.get() - (first << LEVEL_SHIFT[3]);
            let stop = first + ((to - from) >> PAGE_SHIFT);
            let mut guard = leaf.lock();
            // The loop over the others, mostly the longer one, need not ask which is the lowest.
            let lowest = (first..stop).find(|i| change(&mut guard, *i));
            let mut highest = lowest.unwrap_or(stop);
            for i in highest + 1..stop {
                if change(&mut guard, i) {
                    highest = i;
                }
            }
            drop(guard);
            // What has begun is finished, killed or not: the entries agree with their area in the end.
            let _ = self.machine.resched_point();
            if let Some(lowest) = lowest {
                let at = |i: usize| UserAddr::new(base + (i << LEVEL_SHIFT[3]));
                changed = Some((changed.map_or(at(lowest), |c| c.0), at(highest) + PAGE_SIZE));
            }
        }
        changed
    }

    /// Gives a block the rights of an area with `rights`, and returns whether it had others; or makes it a table, or finds that it is none any
    /// more: `None`.
    #[cold]
    fn change_block(&self, block: &Block<'_, M>, rights: Option<VmFlags>) -> Option<bool> {
        let changed = match rights {
            Some(flags) => block.lock().and_then(|mut guard| self.protect_block(&mut guard, flags)),
            None => None,
        };
        if changed.is_none() {
            block.split();
        }
        let _ = self.machine.resched_point();
        changed
    }
}
