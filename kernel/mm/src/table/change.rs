//! Changing the present entries of a range in place.

use super::Machine;
use super::block::{BlockGuard, Found};
use super::{LEAF_SPAN, LeafGuard, Tables, part_end};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, UserAddr};
use crate::pte::{LEVEL_SHIFT, index};

impl<M: Machine> Tables<M> {
    /// Calls `change` with the locked table and the index of each entry of `start..end`, in all tables that are not
    /// empty. A block that is in the range as a whole is changed by `change_block`, if there is one; others become tables. Returns the range that covers the entries for which it returned true.
    #[inline(always)]
    pub(super) fn change_each(
        &self,
        start: UserAddr,
        end: UserAddr,
        mut change: impl FnMut(&mut LeafGuard<'_, M>, usize) -> bool,
        change_block: Option<&dyn Fn(&mut BlockGuard<'_, '_, M>) -> bool>,
    ) -> Option<(UserAddr, UserAddr)> {
        let mut changed: Option<(UserAddr, UserAddr)> = None;
        let mut va = start;
        while let Some((from, found)) = self.next_any(va, end) {
            let to = part_end(from, end);
            let leaf = match found {
                Found::Leaf(leaf) => leaf,
                Found::Block(block) => {
                    let change = change_block.filter(|_| to - from == LEAF_SPAN);
                    let done = change.and_then(|change| block.lock().map(|mut guard| change(&mut guard)));
                    match done {
                        Some(true) => changed = Some((changed.map_or(from, |c| c.0), from + PAGE_SIZE)),
                        Some(false) => {}
                        None => _ = block.split(),
                    }
                    va = if done.is_some() { to } else { from };
                    let _ = self.machine.resched_point();
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
}
