//! Changing access rights.

use super::Machine;
use super::Tables;
use super::entry::{self, PROTECTION};
use crate::addr::{PAGE_SIZE, UserAddr};
use crate::page::Page;
use crate::pte::{Pte, bits};
use crate::vm_flags::VmFlags;

impl<M: Machine> Tables<M> {
    /// Gives the present entries of `start..end` the rights of an area with `flags`. Returns the range whose entries
    /// changed, which the caller flushes.
    ///
    /// An entry becomes writable here only if the fault path would make it so without a copy and without further
    /// checks: an anonymous page without other holders, or a page of shared memory. All others stay read-only until a
    /// fault decides. Non-present entries have no rights.
    pub fn protect(&self, start: UserAddr, end: UserAddr, flags: VmFlags) -> Option<(UserAddr, UserAddr)> {
        let may_write = flags.contains(VmFlags::WRITE);
        let shared = flags.contains(VmFlags::SHARED);
        let read_only = entry::read_only(flags) & PROTECTION;
        let machine = self.machine;
        let with_rights = |old: Pte| {
            let right = if seeded!(ProtectLeavesDbm) { old.0 & bits::DBM } else { 0 };
            let new = old.without_dbm().0 & !PROTECTION | read_only | right;
            Pte(match may_write && may_be_writable(machine, old, shared) {
                true if new & bits::DIRTY != 0 => new & !bits::READ_ONLY,
                true => new | bits::DBM,
                false => new,
            })
        };
        let end = if seeded!(ProtectForgetsLastPage) { UserAddr::new(end.get() - PAGE_SIZE) } else { end };
        self.change_each(start, end, |guard, i| {
            let old = guard.get(i);
            if !old.is_present() {
                return false;
            }
            if flags.contains(VmFlags::EXEC) && !old.is_executable() && !seeded!(ProtectForgetsInstructions) {
                // Instructions written to the page so far must be visible to fetches.
                machine.sync_instructions(old.addr());
            }
            let (old, new) = guard.update(i, old, with_rights);
            new != old
        })
    }
}

/// Whether the fault path would make this entry of a writable area writable without a copy, or has done so.
#[inline(always)]
fn may_be_writable<M: Machine>(machine: M, pte: Pte, shared: bool) -> bool {
    if pte.is_anon() {
        let may_already = pte.0 & bits::READ_ONLY == 0 || pte.0 & bits::DBM != 0;
        // (`Mm::is_sole` explains the comparison with 1.) SAFETY: an anonymous entry holds a reference to its frame, so
        // the record exists.
        return may_already || unsafe { Page::of(machine, pte.addr().pfn()) }.refs() == 1;
    }
    shared && !pte.is_special()
}
