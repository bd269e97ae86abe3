//! Changing access rights.

use super::Machine;
use super::block::BlockGuard;
use super::entry::{self, PROTECTION};
use super::{LeafGuard, Tables};
use crate::addr::{PAGE_SIZE, UserAddr};
use crate::page::Page;
use crate::pte::{ENTRIES, Pte, bits};
use crate::rmap::whole;
use crate::vm_flags::VmFlags;

/// Pages that are made fit for fetches between two points at which others may run: 64 lines each, two operations a line.
const SYNCHRONISED_AT_ONCE: usize = 64;

impl<M: Machine> Tables<M> {
    /// Gives the present entries of `start..end` the rights of an area with `flags`. Returns the range whose entries
    /// changed, which the caller flushes.
    ///
    /// An entry becomes writable here only if the fault path would make it so without a copy and without further
    /// checks: an anonymous page without other holders, or a page of shared memory. All others stay read-only until a
    /// fault decides. Non-present entries have no rights.
    pub fn protect(&self, start: UserAddr, end: UserAddr, flags: VmFlags) -> Option<(UserAddr, UserAddr)> {
        // A loop each, so that the one that takes rights away asks nothing about pages.
        if flags.contains(VmFlags::WRITE) {
            self.protect_each::<true>(start, end, flags)
        } else {
            self.protect_each::<false>(start, end, flags)
        }
    }

    /// [`Tables::protect`] for an area that may be written, or not.
    #[inline(never)]
    fn protect_each<const MAY_WRITE: bool>(
        &self,
        start: UserAddr,
        end: UserAddr,
        flags: VmFlags,
    ) -> Option<(UserAddr, UserAddr)> {
        let shared = flags.contains(VmFlags::SHARED);
        let machine = self.machine;
        let with_rights = move |old: Pte| with_rights(old, flags, MAY_WRITE && may_be_writable(machine, old, shared));
        let end = if seeded!(ProtectForgetsLastPage) { UserAddr::new(end.get() - PAGE_SIZE) } else { end };
        let executable = flags.contains(VmFlags::EXEC) && !seeded!(ProtectForgetsInstructions);
        // One question an entry instead of two.
        let is_plain = !executable && !machine.spaces().hardware_updates();
        let at_once = if executable { SYNCHRONISED_AT_ONCE } else { ENTRIES };
        self.change_each(start, end, Some(flags), at_once, |guard, i| {
            let old = guard.get(i);
            if !old.is_present() {
                return false;
            }
            if !is_plain {
                // (A copy, so that the loop keeps the other in registers.)
                return protect_carefully(machine, guard, i, executable, &{ with_rights });
            }
            let new = with_rights(old);
            if new != old {
                guard.change_alone(i, old, new);
            }
            new != old
        })
    }

    /// [`Tables::protect`] for a block; whether it had other rights. `None`, with nothing changed, for an area that may be executed: pages are
    /// made fit for fetches one by one.
    pub(super) fn protect_block(&self, guard: &mut BlockGuard<'_, '_, M>, flags: VmFlags) -> Option<bool> {
        if flags.contains(VmFlags::EXEC) {
            return None;
        }
        let old = guard.get();
        let may_already = |pte: Pte| pte.0 & (bits::READ_ONLY | bits::DBM) != bits::READ_ONLY;
        let may_write = flags.contains(VmFlags::WRITE);
        let is_sole = may_write && !may_already(old) && whole::is_sole(self.machine, old.addr().pfn());
        let (old, new) = guard.update(old, |old| with_rights(old, flags, may_write && (is_sole || may_already(old))));
        Some(old != new)
    }
}

/// An entry with the rights of an area with `flags`, in which it may be written or not.
#[inline(always)]
fn with_rights(old: Pte, flags: VmFlags, may_be_written: bool) -> Pte {
    let read_only = entry::read_only(flags) & PROTECTION;
    let right = if seeded!(ProtectLeavesDbm) { old.0 & bits::DBM } else { 0 };
    let plain = old.without_dbm().0;
    let rights = match may_be_written {
        true if plain & bits::DIRTY != 0 => read_only & !bits::READ_ONLY,
        true if flags.contains(VmFlags::NOTES_STORES) && !seeded!(ProtectForgetsNotice) => read_only,
        true => read_only | bits::DBM,
        false => read_only,
    };
    Pte(plain & !PROTECTION | rights | right)
}

/// Changes a present entry that may become executable, or that hardware may update. Returns whether it was another one
/// before.
#[cold]
#[inline(never)]
fn protect_carefully<M: Machine>(
    machine: M,
    guard: &mut LeafGuard<'_, M>,
    i: usize,
    executable: bool,
    with_rights: &dyn Fn(Pte) -> Pte,
) -> bool {
    let old = guard.get(i);
    if executable && !old.is_executable() {
        // Instructions written to the page so far must be visible to fetches.
        machine.sync_instructions(old.addr());
    }
    let (old, new) = guard.update(i, old, with_rights);
    new != old
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
