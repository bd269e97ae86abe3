//! Changing access rights.

use super::Machine;
use super::block::BlockGuard;
use super::entry::{self, PROTECTION};
use super::{LeafGuard, Tables};
use crate::addr::{PAGE_SIZE, UserAddr};
use crate::page::Page;
use crate::pte::{Pte, bits};
use crate::rmap::whole;
use crate::vm_flags::VmFlags;

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
        let read_only = entry::read_only(flags) & PROTECTION;
        let writable = read_only & !bits::READ_ONLY;
        let machine = self.machine;
        let with_rights_if = move |old: Pte, may_be_writable: bool| {
            let right = if seeded!(ProtectLeavesDbm) { old.0 & bits::DBM } else { 0 };
            let plain = old.without_dbm().0;
            let rights = match may_be_writable {
                true if plain & bits::DIRTY != 0 => writable,
                true if flags.contains(VmFlags::NOTES_STORES) && !seeded!(ProtectForgetsNotice) => read_only,
                true => read_only | bits::DBM,
                false => read_only,
            };
            Pte(plain & !PROTECTION | rights | right)
        };
        let with_rights = move |old: Pte| with_rights_if(old, MAY_WRITE && may_be_writable(machine, old, shared));
        let end = if seeded!(ProtectForgetsLastPage) { UserAddr::new(end.get() - PAGE_SIZE) } else { end };
        let executable = flags.contains(VmFlags::EXEC) && !seeded!(ProtectForgetsInstructions);
        // One question an entry instead of two.
        let is_plain = !executable && !machine.spaces().hardware_updates();
        let change_block = |guard: &mut BlockGuard<'_, '_, M>| {
            let old = guard.get();
            let is_sole = whole::is_sole(machine, old.addr().pfn());
            let (old, new) = guard.update(old, |old| {
                let may_already = old.0 & bits::READ_ONLY == 0 || old.0 & bits::DBM != 0;
                with_rights_if(old, MAY_WRITE && (may_already || is_sole))
            });
            old != new
        };
        // (Pages are made fit for fetches one by one.)
        let change_block: Option<&dyn Fn(&mut BlockGuard<'_, '_, M>) -> bool> =
            if executable { None } else { Some(&change_block) };
        let change = |guard: &mut LeafGuard<'_, M>, i: usize| {
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
        };
        self.change_each(start, end, change, change_block)
    }
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
