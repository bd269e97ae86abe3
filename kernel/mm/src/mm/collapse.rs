//! Memory that is in pages of 4 KiB comes to be mapped by blocks of 2 MiB: MADV_COLLAPSE (docs/huge-pages.md).
//!
//! Three steps, each of which leaves the memory as it was for the program: all 512 pages are brought in; each moves to its place in a new block of
//! frames, as in any migration; and with the areas locked exclusively the table becomes a block entry, and the pages one whole page. Between the
//! steps no lock is held, and anything may change: the last step looks at everything again.

use core::ops::Range;

use quire_abi::Errno;

use super::Mm;
use super::fault::FaultError;
use super::migrate::{Stays, TRIES, migrate_to};
use super::residence::Populate;
use crate::addr::{PAGE_SIZE, Pfn, UserAddr};
use crate::event::Event;
use crate::frame;
use crate::mm::Machine;
use crate::pte::{ENTRIES, Pte};
use crate::rmap::whole;
use crate::table::LEAF_SPAN;
use crate::table::entry::{self, ANON};
use crate::table::gather::Counts;
use crate::vma::Vma;

/// Frames for a block, filled with pages in their order: those that are left over are freed.
struct Places<M: Machine> {
    machine: M,
    first: Pfn,
    filled: usize,
}

impl<M: Machine> Places<M> {
    fn new(machine: M) -> Result<Self, Errno> {
        let first = frame::alloc_places(machine, whole::ORDER)?;
        Ok(Self { machine, first, filled: 0 })
    }

    /// Moves the page at `from` to the next place.
    fn fill(&mut self, from: Pfn) -> Result<(), Errno> {
        for _ in 0..TRIES {
            match migrate_to(self.machine, from, Pfn(self.first.0 + self.filled)) {
                Ok(()) => {
                    self.filled += 1;
                    return Ok(());
                }
                Err(Stays::Held | Stays::NotMovable) => self.machine.relax(),
                Err(_) => break,
            }
        }
        Err(Errno::EAGAIN)
    }
}

impl<M: Machine> Drop for Places<M> {
    fn drop(&mut self) {
        (self.filled..ENTRIES).for_each(|k| frame::free(self.machine, Pfn(self.first.0 + k)));
    }
}

/// Whether a page with this entry can be one of a block that may be written.
fn fits_block(pte: Pte) -> bool {
    pte.is_anon() && !pte.is_special() && !pte.is_given_up() && (pte.is_writable() || pte.is_writable_clean())
}

impl<M: Machine> Mm<M> {
    /// Has all aligned 2 MiB inside a range mapped by blocks, now: MADV_COLLAPSE. All are tried; the error is the last one's: EINVAL
    /// for memory that cannot have blocks (and, as on Linux, for a part of 2 MiB), ENOMEM without a block of frames or where the
    /// pages do not come in, EAGAIN if a page is held by somebody.
    pub(super) fn collapse_range(&self, range: Range<UserAddr>) -> Result<(), Errno> {
        let first = range.start.get().next_multiple_of(LEAF_SPAN);
        let end = range.end.get() & !(LEAF_SPAN - 1);
        if first > end {
            return Err(Errno::EINVAL);
        }
        let mut result = Ok(());
        for at in (first..end).step_by(LEAF_SPAN) {
            self.machine.resched_point()?;
            match self.collapse_block(UserAddr::new(at)) {
                Ok(()) => {}
                Err(Errno::EINVAL) => return Err(Errno::EINVAL),
                Err(error) => result = Err(error),
            }
        }
        result
    }

    /// Has the 2 MiB at `start` mapped by one block entry: see [`Mm::collapse_range`].
    pub(crate) fn collapse_block(&self, start: UserAddr) -> Result<(), Errno> {
        {
            let areas = self.areas.read();
            self.area_for_block(&areas.tree, start)?;
            if self.tables.block_at(start).is_some() {
                return Ok(());
            }
        }
        let end = start + LEAF_SPAN;
        self.populate(start, end, Populate::Write).map_err(|error| match error {
            FaultError::OutOfMemory => Errno::ENOMEM,
            _ => Errno::EINVAL,
        })?;
        let joined = self.bring_together(start).and_then(|()| self.join_block(start));
        self.machine.count(if joined.is_ok() { Event::HugeCollapse } else { Event::HugeCollapseFailed }, 1);
        joined
    }

    fn area_for_block<'a>(&self, tree: &'a super::AreaTree<M>, start: UserAddr) -> Result<&'a Vma<M>, Errno> {
        let fits = |vma: &&Vma<M>| vma.end - start >= LEAF_SPAN && vma.backing.is_none() && vma.flags.can_be_huge();
        tree.find(start).filter(fits).filter(|_| !self.refuses_huge_pages()).ok_or(Errno::EINVAL)
    }

    /// Moves the pages of 2 MiB to one block of frames, unless they lie in one.
    fn bring_together(&self, start: UserAddr) -> Result<(), Errno> {
        {
            let _areas = self.areas.read();
            if self.tables.block_at(start).is_some() || self.tables.lies_as_block(start, fits_block).is_some() {
                return Ok(());
            }
        }
        let mut places = Places::new(self.machine)?;
        for k in 0..ENTRIES {
            self.machine.resched_point()?;
            // (Whatever becomes of the page then: the last step looks again.)
            let pte = {
                let _areas = self.areas.read();
                self.entry(start + k * PAGE_SIZE)
            };
            if !pte.is_present() || !fits_block(pte) {
                return Err(Errno::EAGAIN);
            }
            places.fill(pte.addr().pfn())?;
        }
        Ok(())
    }

    /// Makes the table for `start` a block entry, if its pages lie as in a block.
    fn join_block(&self, start: UserAddr) -> Result<(), Errno> {
        let mut areas = self.areas.intend_killable()?;
        let areas = areas.write();
        let flags = self.area_for_block(&areas.tree, start)?.flags;
        if self.tables.block_at(start).is_some() {
            return Ok(());
        }
        let first = self.tables.lies_as_block(start, fits_block).ok_or(Errno::EAGAIN)?;
        let attrs = entry::writable(flags) | ANON;
        let ahead = self.tables.join(start, attrs, || _ = whole::make_whole(self.machine, first));
        self.uncharge(Counts { ahead, ..Counts::default() });
        Ok(())
    }
}
