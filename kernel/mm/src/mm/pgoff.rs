//! Page offsets that few areas share, for reverse mapping.
//!
//! A lookup by pgoff examines every moved area that claims it ([`crate::vma`]), so few may. Where an area would claim a
//! pgoff that another moved area claims, as it moves away or after that grows, its pages get other pgoffs. A page that
//! other spaces map too is replaced by a copy first: they find it by the old pgoff. If another thread holds one of the
//! pages all the time, the area keeps its pgoff: lookups are still right, only longer.

use quire_abi::Errno;

use super::{Areas, Intent, Mm};
use crate::addr::{PAGE_SHIFT, UserAddr};
use crate::mm::Machine;
use crate::supply::Supply;
use crate::vma::{AreaTree, VmFlags};

/// How often new pgoffs are tried: a thread that has found a page drops it soon, a device may not.
const TRIES: usize = 8;

impl<M: Machine> Mm<M> {
    /// Whether several moved areas would claim the same pgoffs after a move of `old_len` bytes at `addr`, which become
    /// `new_len`. With `keep` the old area stays.
    #[inline]
    pub(super) fn move_crowds(
        areas: &Areas<M>,
        addr: UserAddr,
        (old_len, new_len): (usize, usize),
        keep: bool,
    ) -> bool {
        // (In most spaces no area has been moved.)
        if areas.tree.away().is_empty() {
            return false;
        }
        let Some(vma) = areas.tree.find(addr) else { return false };
        if old_len == 0 || vma.flags.contains(VmFlags::SHARED) {
            return false;
        }
        if vma.is_at_pgoff() {
            return areas.tree.is_claimed(vma.pgoff_of(addr), new_len >> PAGE_SHIFT);
        }
        // It claims its own pgoffs already, and a part that is kept still does.
        let is_part = old_len != vma.len();
        keep && is_part || areas.tree.is_claimed(vma.pgoff_of(addr + old_len), (new_len - old_len) >> PAGE_SHIFT)
    }

    /// Replaces the pages of a part of an area that other spaces map too by copies.
    #[cold]
    pub(super) fn unshare(
        &self,
        areas: &Intent<'_, M>,
        start: UserAddr,
        end: UserAddr,
        supply: &Supply<M>,
    ) -> Result<(), Errno> {
        let Some(vma) = areas.tree.find(start) else { return Ok(()) };
        let mut from = start;
        while let Some(addr) = self.tables.next_shared(from, end) {
            self.machine.resched_point()?;
            from = addr + crate::addr::PAGE_SIZE;
            self.copy_shared(vma, addr, supply)?;
        }
        Ok(())
    }

    /// Gives the pages of `start..end`, whose first pgoff is `pgoff`, other pgoffs, and returns the first one; `None` if
    /// others hold some of the pages. The areas are locked for writing.
    #[cold]
    pub(super) fn take_own_pgoff(
        &self,
        tree: &AreaTree<M>,
        start: UserAddr,
        end: UserAddr,
        pgoff: usize,
    ) -> Option<usize> {
        let own = tree.own_pgoff(start);
        for _ in 0..TRIES {
            if self.tables.shift_pgoffs(start, end, own.wrapping_sub(pgoff)) {
                return Some(own);
            }
            // What has begun is completed, killed or not.
            let _ = self.machine.resched_point();
            self.machine.relax();
        }
        None
    }

    /// Before the area that contains `addr` grows, and so claims the `pages` pgoffs from `first` on: if it has been moved,
    /// and another moved area claims one of these, it gets other pgoffs.
    #[cold]
    pub(super) fn make_room_for_pgoffs(
        &self,
        areas: &mut Intent<'_, M>,
        addr: UserAddr,
        first: usize,
        pages: usize,
        supply: &Supply<M>,
    ) -> Result<(), Errno> {
        let Some(vma) = areas.tree.find(addr) else { return Ok(()) };
        if vma.is_at_pgoff() || vma.flags.contains(VmFlags::SHARED) || !areas.tree.is_claimed(first, pages) {
            return Ok(());
        }
        let (start, end, pgoff) = (vma.start, vma.end, vma.pgoff);
        self.unshare(areas, start, end, supply)?;
        let mut areas = areas.write();
        if let Some(own) = self.take_own_pgoff(&areas.tree, start, end, pgoff) {
            areas.tree.cursor(start).set_pgoff(own);
        }
        Ok(())
    }

    /// The pages of this range have moved away with their pgoff. If the area has no other pages, it gets a new pgoff,
    /// so that later pages that are moved away too can be distinguished from these, and the area from its neighbours. (As
    /// on Linux, a part of an area keeps its pgoff.)
    #[cold]
    #[inline(never)]
    pub(super) fn leave_pgoff(&self, areas: &mut Areas<M>, start: UserAddr, end: UserAddr) {
        let pgoff = areas.tree.own_pgoff(start);
        let mut cursor = areas.tree.cursor(start);
        if cursor.current().is_some_and(|vma| vma.start == start && vma.end == end) {
            cursor.set_pgoff(pgoff);
        }
    }
}
