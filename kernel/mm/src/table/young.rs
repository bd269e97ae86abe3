//! Which pages are in use: the access flag as whoever wants memory back reads it.

use super::Tables;
use crate::addr::UserAddr;
use crate::machine::Machine;

impl<M: Machine> Tables<M> {
    /// Makes the present entries of `start..end` old. Answers the range whose entries were young, which the caller
    /// invalidates: what a TLB knows as young is touched without a trace.
    pub fn make_old(&self, start: UserAddr, end: UserAddr) -> Option<(UserAddr, UserAddr)> {
        self.change_each(start, end, |guard, i| guard.test_and_clear_young(i))
    }
}
