//! fork: a child's tables from its parent's.

use super::Tables;
use super::entry::Kind;
use super::gather::Counts;
use crate::addr::{PAGE_SHIFT, UserAddr};
use crate::fallible::AllocError;
use crate::machine::Machine;
use crate::page::Page;
use crate::pte::{NonPresent, Pte, bits, index};
use crate::supply::Supply;
use crate::sync::Rank;

impl<M: Machine> Tables<M> {
    /// Copies the entries of `start..end`, an area of private memory, from `parent` to this, a space that nobody else
    /// knows yet. Pages that may be written become read-only in both: the first write copies. Nobody faults in
    /// the parent meanwhile. Counts the pages that the child has come to share, and sets `protected` if the parent's
    /// TLB entries must go.
    pub fn copy_from(
        &self,
        parent: &Tables<M>,
        start: UserAddr,
        end: UserAddr,
        counts: &mut Counts,
        protected: &mut bool,
        supply: &Supply<M>,
    ) -> Result<(), AllocError> {
        let mut va = start;
        while let Some((from, to, leaf)) = parent.next_part(va, end) {
            va = to;
            // (For a killed thread any error will do.)
            self.machine.resched_point().map_err(|_| AllocError)?;
            if leaf.is_vacant() {
                continue;
            }
            let mine = self.walk_or_create(from, supply)?;
            let first = index(from.get(), 3);
            let mut theirs = leaf.lock();
            let mut mine = mine.lock_as(Rank::PageTableChild);
            for i in first..first + ((to - from) >> PAGE_SHIFT) {
                let pte = theirs.get(i);
                if pte == Pte::NONE {
                    continue;
                }
                if pte.is_anon() && pte.is_present() {
                    // SAFETY: the entry holds a reference to the frame, so its record exists.
                    let page = unsafe { Page::of(self.machine, pte.addr().pfn()) };
                    if !seeded!(ForkTakesNoReference) && !page.get() {
                        return Err(AllocError);
                    }
                    let mut copy = pte;
                    // Most are protected already where a process forks again and again.
                    if pte.0 & (bits::READ_ONLY | bits::DBM) != bits::READ_ONLY {
                        copy = protect(&mut theirs, i, pte);
                        *protected |= copy != pte;
                    }
                    mine.fill(i, copy.with_ahead(0));
                    counts.anon += 1;
                    continue;
                }
                self.copy_other(pte, i, &mut mine, counts)?;
            }
        }
        Ok(())
    }

    /// Entries of a private area that are not anonymous pages are never writable.
    #[inline(never)]
    fn copy_other(
        &self,
        pte: Pte,
        i: usize,
        mine: &mut super::LeafGuard<'_, M>,
        counts: &mut Counts,
    ) -> Result<(), AllocError> {
        match pte.kind() {
            None => {
                let kind = pte.owner_kind(self.machine);
                if kind == Kind::FileCopy || kind == Kind::Shared {
                    // SAFETY: the entry holds a reference to the frame, so its record exists.
                    let page = unsafe { Page::of(self.machine, pte.addr().pfn()) };
                    if !page.get() {
                        return Err(AllocError);
                    }
                }
                counts.add(kind);
                mine.fill(i, pte);
            }
            Some(NonPresent::None) => {}
            // A note for the parent's faults is one for the child's too.
            Some(NonPresent::Marker(_)) => mine.fill(i, pte),
            Some(NonPresent::Swap(_)) if seeded!(ForkForgetsSwap) => {}
            Some(NonPresent::Swap(slot)) => {
                self.machine.absent().ok_or(AllocError)?.share_slot(slot)?;
                mine.fill(i, pte);
            }
            // The copy holds what the entry does: no reference, a charge. Whoever moves the page finds it in the child,
            // which the family knew before any entry was copied.
            Some(NonPresent::Migration(old)) => {
                if seeded!(ForkOfMigrationTakesReference) {
                    // SAFETY: the frame is one of the page allocator's.
                    let _ = unsafe { Page::of(self.machine, old.pfn()) }.get();
                }
                counts.add(pte.moved_kind());
                mine.fill(i, pte);
            }
        }
        Ok(())
    }
}

/// Takes the right to write, and hardware's to give it, from the entry that was `old` when last looked at. Answers what it
/// is now.
#[inline(never)]
fn protect<M: Machine>(guard: &mut super::LeafGuard<'_, M>, i: usize, old: Pte) -> Pte {
    if seeded!(ForkForgetsWriteProtection) {
        return old;
    }
    let leaves_dbm = seeded!(ForkLeavesDbm);
    let protected = |pte: Pte| if leaves_dbm { Pte(pte.0 | bits::READ_ONLY) } else { pte.write_protected() };
    guard.update(i, old, protected).1
}
