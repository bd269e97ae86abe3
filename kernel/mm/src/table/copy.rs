//! fork: copying a parent's tables to its child.

use super::Machine;
use super::block::Block;
use super::entry::Kind;
use super::gather::Counts;
use super::{LEAF_SPAN, Tables, part_end};
use crate::addr::{PAGE_SHIFT, UserAddr};
use crate::fallible::AllocError;
use crate::page::Page;
use crate::pte::{ENTRIES, NonPresent, Pte, bits, index};
use crate::supply::Supply;
use crate::sync::Rank;

impl<M: Machine> Tables<M> {
    /// Copies the entries of `start..end`, an area of private memory, from `parent` to this, a space that is not shared
    /// yet. Writable pages become read-only in both: the first write copies. There are no faults in the parent
    /// meanwhile. Counts the pages that the child now shares, and sets `protected` if the parent's TLB entries must be
    /// invalidated.
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
        while let Some((from, spot)) = parent.next_any(va, end) {
            let to = part_end(from, end);
            // (A killed thread's error does not matter.)
            self.machine.resched_point().map_err(|_| AllocError)?;
            let leaf = match spot.leaf(from) {
                Ok(leaf) => leaf,
                Err(block) => {
                    va = if self.copy_part(&block, from, to, counts, protected, supply)? { to } else { from };
                    continue;
                }
            };
            va = to;
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
                    // If a process forks repeatedly, most are protected already.
                    if pte.0 & (bits::READ_ONLY | bits::DBM) != bits::READ_ONLY {
                        copy = protect(&mut theirs, i, pte);
                        *protected |= copy != pte;
                    }
                    mine.fill(i, copy.with_ahead(0));
                    counts.anon += 1;
                    continue;
                }
                self.copy_other(pte, i, &mut theirs, &mut mine, counts)?;
            }
        }
        Ok(())
    }

    /// Copies the entry of a block, if the part is all of it; else the block becomes a table. `false` if the caller must look again.
    #[cold]
    fn copy_part(
        &self,
        block: &Block<'_, M>,
        from: UserAddr,
        to: UserAddr,
        counts: &mut Counts,
        protected: &mut bool,
        supply: &Supply<M>,
    ) -> Result<bool, AllocError> {
        if to - from != LEAF_SPAN {
            block.split();
            return Ok(false);
        }
        let Some(changed) = self.copy_block(block, supply)? else { return Ok(false) };
        *protected |= changed;
        counts.anon += ENTRIES;
        Ok(true)
    }

    /// Entries of a private area that are not anonymous pages are never writable.
    #[inline(never)]
    fn copy_other(
        &self,
        pte: Pte,
        i: usize,
        theirs: &mut super::LeafGuard<'_, M>,
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
            // A marker applies to the child's faults too.
            Some(NonPresent::Marker(_)) => mine.fill(i, pte),
            Some(NonPresent::Swap(_)) if seeded!(ForkForgetsSwap) => {}
            Some(NonPresent::Swap(swapped)) => {
                self.machine.spaces().swap().share(swapped.slot);
                mine.fill(i, pte);
            }
            // The copy holds the same as the entry: no reference, but a charge. The mover finds it in the child, which
            // was in the family before any entry was copied.
            Some(NonPresent::Migration(old)) => {
                if seeded!(ForkOfMigrationTakesReference) {
                    // SAFETY: the frame belongs to the page allocator.
                    let _ = unsafe { Page::of(self.machine, old.pfn()) }.get();
                }
                counts.add(pte.moved_kind());
                if !seeded!(ForkHidesCopyFromMover) {
                    self.machine.spaces().moves().entry_copied(old.pfn());
                }
                let copy = pte.moved_read_only();
                if copy != pte {
                    theirs.clear(i);
                    theirs.fill(i, copy);
                }
                mine.fill(i, copy);
            }
        }
        Ok(())
    }
}

/// Write-protects the entry, which was `old` when last read, and clears DBM. Returns the new entry.
#[inline(never)]
fn protect<M: Machine>(guard: &mut super::LeafGuard<'_, M>, i: usize, old: Pte) -> Pte {
    if seeded!(ForkForgetsWriteProtection) {
        return old;
    }
    let leaves_dbm = seeded!(ForkLeavesDbm);
    let protected = |pte: Pte| if leaves_dbm { Pte(pte.0 | bits::READ_ONLY) } else { pte.write_protected() };
    guard.update(i, old, protected).1
}
