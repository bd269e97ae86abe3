//! Which pages are in use: the access flag as whoever wants memory back reads it.

use super::Tables;
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, UserAddr};
use crate::machine::Machine;
use crate::pte::{LEVEL_SHIFT, index};

impl<M: Machine> Tables<M> {
    /// Makes the present entries of `start..end` old. Answers the range whose entries were young, which the caller
    /// invalidates: what a TLB knows as young is touched without a trace.
    pub fn make_old(&self, start: UserAddr, end: UserAddr) -> Option<(UserAddr, UserAddr)> {
        let mut changed: Option<(UserAddr, UserAddr)> = None;
        let mut va = start;
        while let Some((from, to, leaf)) = self.next_part(va, end) {
            va = to;
            if leaf.is_vacant() {
                continue;
            }
            let first = index(from.get(), 3);
            let base = from.get() - (first << LEVEL_SHIFT[3]);
            let mut guard = leaf.lock();
            for i in first..first + ((to - from) >> PAGE_SHIFT) {
                if guard.test_and_clear_young(i) {
                    let at = UserAddr::new(base + (i << LEVEL_SHIFT[3]));
                    changed = Some((changed.map_or(at, |c| c.0), at + PAGE_SIZE));
                }
            }
        }
        changed
    }
}
