//! The access flag, for reclaim.

use super::Machine;
use super::Tables;
use crate::addr::UserAddr;
use crate::pte::ENTRIES;

impl<M: Machine> Tables<M> {
    /// Makes the present entries of `start..end` old. Returns the range whose entries were young, which the caller
    /// invalidates: accesses through a TLB entry that is young leave no trace.
    pub fn make_old(&self, start: UserAddr, end: UserAddr) -> Option<(UserAddr, UserAddr)> {
        self.change_each(start, end, None, ENTRIES, |guard, i| guard.test_and_clear_young(i))
    }
}
