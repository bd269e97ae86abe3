//! Changing the present entries of a range in place.

use super::Machine;
use super::{LeafGuard, Tables};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, UserAddr};
use crate::pte::{LEVEL_SHIFT, index};

impl<M: Machine> Tables<M> {
    /// Calls `change` with the locked table and the index of each entry of `start..end`, in all tables that are not
    /// empty. Returns the range that covers the entries for which it returned true.
    #[inline(always)]
    pub(super) fn change_each(
        &self,
        start: UserAddr,
        end: UserAddr,
        mut change: impl FnMut(&mut LeafGuard<'_, M>, usize) -> bool,
    ) -> Option<(UserAddr, UserAddr)> {
        let mut changed: Option<(UserAddr, UserAddr)> = None;
        let mut va = start;
        while let Some((from, to, leaf)) = self.next_part(va, end) {
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
