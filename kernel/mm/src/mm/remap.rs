//! mremap.

use alloc::boxed::Box;

use quire_abi::Errno;
use quire_abi::flags::Mremap;

use super::map::{find_place, join, neighbours};
use super::residence::Populate;
use super::{Areas, Intent, MAX_MAP_COUNT, Mm};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, UserAddr};
use crate::mm::Machine;
use crate::supply::{Supply, supplied};
use crate::table::flush::{flush_range, flush_space};
use crate::table::relocate::Moved;
use crate::vma::{AreaTree, VmFlags, Vma};

/// The area that a move makes, and what the old one becomes above the part that leaves it, if it continues on both sides.
type AreasOfMove<M> = (Box<Vma<M>>, Option<Box<Vma<M>>>);

/// Room for the splits of a move, as on Linux.
const SPARE_AREAS: usize = 3;

impl<M: Machine> Mm<M> {
    /// Grows, shrinks or moves a mapping: mremap's semantics and errors. Returns its address.
    pub fn remap(
        &self,
        addr: usize,
        old_len: usize,
        new_len: usize,
        flags: Mremap,
        new_addr: usize,
    ) -> Result<UserAddr, Errno> {
        let addr = UserAddr::new(addr);
        let known = Mremap::MAYMOVE | Mremap::FIXED | Mremap::DONTUNMAP;
        let may_move = flags.contains(Mremap::MAYMOVE);
        let keep = flags.contains(Mremap::DONTUNMAP);
        if !known.contains(flags)
            || flags.contains(Mremap::FIXED) && !may_move
            || keep && (!may_move || old_len != new_len)
            || !addr.is_aligned(PAGE_SIZE)
            || new_len == 0
        {
            return Err(Errno::EINVAL);
        }
        let round = |len: usize| len.checked_next_multiple_of(PAGE_SIZE);
        let (Some(old_len), Some(new_len)) = (round(old_len), round(new_len)) else {
            return Err(Errno::EINVAL);
        };
        let (moved, wanted) = supplied(self.machine, |supply| {
            let mut areas = self.areas.intend_killable()?;
            let done = self.remap_under(&mut areas, addr, (old_len, new_len), flags, new_addr, supply);
            self.uncharge_rest(&areas);
            done
        })?;
        if wanted {
            let _ = self.populate(moved + old_len, moved + new_len, Populate::AsMapped);
        }
        Ok(moved)
    }

    /// Returns the mapping's address, and whether the added part must be populated.
    fn remap_under(
        &self,
        areas: &mut Intent<'_, M>,
        addr: UserAddr,
        (mut old_len, new_len): (usize, usize),
        flags: Mremap,
        new_addr: usize,
        supply: &Supply<M>,
    ) -> Result<(UserAddr, bool), Errno> {
        let may_move = flags.contains(Mremap::MAYMOVE);
        let keep = flags.contains(Mremap::DONTUNMAP);
        areas.tree.find(addr).ok_or(Errno::EFAULT)?;
        let task_size = areas.layout.task_size;
        // With DONTUNMAP alone the new address is a hint, but one that is checked.
        let target = flags.intersects(Mremap::FIXED | Mremap::DONTUNMAP).then_some(new_addr);
        let target = target.map(|to| self.target(areas, addr, old_len, new_len, to)).transpose()?;
        let to = target.filter(|_| flags.contains(Mremap::FIXED));
        if let Some(to) = to {
            if to < areas.layout.mmap_min {
                return Err(Errno::EPERM);
            }
            self.unmap_range(areas, to, to + new_len, supply)?;
        }
        if old_len > new_len {
            if old_len > task_size - addr {
                return Err(Errno::EINVAL);
            }
            self.unmap_range(areas, addr + new_len, addr + old_len, supply)?;
            old_len = new_len;
        }
        if to.is_none() && !keep && old_len == new_len {
            return Ok((addr, false));
        }
        let vma = areas.tree.find(addr).ok_or(Errno::EFAULT)?;
        self.may_resize(areas, vma, addr, old_len, new_len, keep)?;
        let (locked, end) = (vma.flags.contains(VmFlags::LOCKED), vma.end);
        let moved = match to {
            Some(to) => self.move_area(areas, addr, (old_len, new_len), to, keep, supply)?,
            None if !keep && addr + old_len == end && self.extends(areas, end, new_len - old_len) => {
                self.extend(areas, addr, end, new_len - old_len, supply)?;
                addr
            }
            None if may_move => {
                let to = find_place(areas, target.unwrap_or(UserAddr::new(0)), new_len)?;
                self.move_area(areas, addr, (old_len, new_len), to, keep, supply)?
            }
            None => return Err(Errno::ENOMEM),
        };
        Ok((moved, locked && new_len > old_len))
    }

    /// The new address given with FIXED or DONTUNMAP.
    fn target(
        &self,
        areas: &Areas<M>,
        addr: UserAddr,
        old_len: usize,
        new_len: usize,
        new_addr: usize,
    ) -> Result<UserAddr, Errno> {
        let to = UserAddr::new(new_addr);
        let task_size = areas.layout.task_size.get();
        if !to.is_aligned(PAGE_SIZE) || new_len > task_size || to.get() > task_size - new_len {
            return Err(Errno::EINVAL);
        }
        let old_end = addr.checked_add(old_len).ok_or(Errno::EINVAL)?;
        if to < old_end && addr < to + new_len {
            return Err(Errno::EINVAL);
        }
        if areas.tree.len() + SPARE_AREAS + 2 > MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        Ok(to)
    }

    /// Checks whether `old_len` bytes of `vma` from `addr` on may become `new_len`; promises the added pages.
    fn may_resize(
        &self,
        areas: &Areas<M>,
        vma: &Vma<M>,
        addr: UserAddr,
        old_len: usize,
        new_len: usize,
        keep: bool,
    ) -> Result<(), Errno> {
        if old_len == 0 && !vma.flags.contains(VmFlags::SHARED) {
            return Err(Errno::EINVAL);
        }
        if old_len > vma.end - addr {
            return Err(Errno::EFAULT);
        }
        let more = (new_len - old_len) >> PAGE_SHIFT;
        if vma.index_of(addr).is_some_and(|index| index.checked_add(new_len >> PAGE_SHIFT).is_none()) {
            return Err(Errno::EINVAL);
        }
        self.may_lock(areas, vma.flags, more)?;
        let charged = if keep { new_len >> PAGE_SHIFT } else { more };
        if !self.may_expand(areas, vma.flags, charged) {
            return Err(Errno::ENOMEM);
        }
        self.promise(areas, vma.flags & VmFlags::ACCOUNT, charged)?;
        Ok(())
    }

    /// Whether there is room behind `end`.
    fn extends(&self, areas: &Areas<M>, end: UserAddr, more: usize) -> bool {
        more <= areas.layout.task_size.get().saturating_sub(end.get())
            && areas.tree.find_from(end).is_none_or(|next| (end + more).get() <= next.guarded_start())
    }

    /// Extends the area at `addr`, which ends at `end`.
    fn extend(
        &self,
        areas: &mut Intent<'_, M>,
        addr: UserAddr,
        end: UserAddr,
        more: usize,
        supply: &Supply<M>,
    ) -> Result<(), Errno> {
        if !areas.tree.away().is_empty() {
            let pgoff = areas.tree.find(addr).ok_or(Errno::EFAULT)?.pgoff_of(end);
            self.make_room_for_pgoffs(areas, addr, pgoff, more >> PAGE_SHIFT, supply)?;
        }
        let vma = areas.tree.find(addr).ok_or(Errno::EFAULT)?;
        let flags = vma.flags;
        let between = neighbours(areas, end, end + more, &vma.kind_at(end));
        let mut areas = areas.write();
        areas.count_in(flags, more >> PAGE_SHIFT);
        // SAFETY: only the holder of the intent changes the tree.
        unsafe { join(&mut areas, end, end + more, between, None) };
        Ok(())
    }

    /// Moves `old_len` bytes at `addr` to the free range of `new_len` bytes at `to`. With `keep` the old area stays,
    /// empty. It can only fail before anything has changed.
    fn move_area(
        &self,
        areas: &mut Intent<'_, M>,
        addr: UserAddr,
        (old_len, new_len): (usize, usize),
        to: UserAddr,
        keep: bool,
        supply: &Supply<M>,
    ) -> Result<UserAddr, Errno> {
        if areas.tree.len() + SPARE_AREAS > MAX_MAP_COUNT {
            return Err(Errno::ENOMEM);
        }
        let old_end = addr + old_len;
        let crowds = Self::move_crowds(areas, addr, (old_len, new_len), keep);
        if crowds {
            self.unshare(areas, addr, old_end, supply)?;
        }
        let prepare = || self.tables.prepare_relocate(addr, to, old_len, supply);
        let early = if seeded!(MoveTrustsItsFirstLook) { Some(prepare()?) } else { None };
        // Faults wait from here on: they might add tables that the move is not prepared for.
        let mut areas = areas.write();
        let areas = &mut *areas;
        let any = early.map_or_else(prepare, Ok)?;
        let (mut new, upper) = self.areas_of_move(areas, addr, (old_len, new_len), to, keep, supply)?;
        let flags = new.flags;
        let keeps_pgoff = any && !flags.contains(VmFlags::SHARED);
        if !keeps_pgoff || seeded!(MoveForgetsPgoff) {
            // No page has this pgoff yet.
            new.pgoff = areas.tree.pgoff_for(to, to + new_len, &new.kind());
        } else if crowds && let Some(own) = self.take_own_pgoff(&areas.tree, addr, old_end, new.pgoff) {
            new.pgoff = own;
        }

        if old_len > 0 && !keep {
            areas.count_out(self.machine, flags, old_len >> PAGE_SHIFT);
            cut_out(&mut areas.tree, addr, old_end, upper);
        } else if keep && flags.contains(VmFlags::LOCKED) {
            unlock_whole(self.machine, areas, addr, old_end);
        }
        areas.count_in(flags, new_len >> PAGE_SHIFT);
        let between = neighbours(areas, to, to + new_len, &new.kind());
        // SAFETY: the tree is the same.
        unsafe { join(areas, to, to + new_len, between, Some(new)) };
        // (As on Linux, an area that loses its lock is not merged with neighbours that it is like then.)
        if keep && (keeps_pgoff || flags.contains(VmFlags::LOCKED)) {
            self.leave_pgoff(areas, addr, old_end);
        }
        match if any { self.tables.relocate(addr, to, old_len) } else { Moved::Nothing } {
            Moved::Nothing => {}
            Moved::Pages => flush_range(self.machine, self.tables.asid(), addr, old_end),
            Moved::Tables => flush_space(self.machine, self.tables.asid()),
        }
        Ok(to)
    }

    /// Allocates the areas that a move makes. The new one has the pgoff of the old one.
    #[inline]
    fn areas_of_move(
        &self,
        areas: &Areas<M>,
        addr: UserAddr,
        (old_len, new_len): (usize, usize),
        to: UserAddr,
        keep: bool,
        supply: &Supply<M>,
    ) -> Result<AreasOfMove<M>, Errno> {
        let vma = areas.tree.find(addr).ok_or(Errno::EFAULT)?;
        let mut new = match supply.boxed(|| vma.part(addr, addr + new_len)) {
            Err(error) if seeded!(FailedMoveForgetsArea) => {
                self.tables.relocate(addr, to, old_len);
                return Err(error.into());
            }
            made => made?,
        };
        (new.start, new.end) = (to, to + new_len);
        let old_end = addr + old_len;
        let is_inside = old_len > 0 && !keep && vma.start < addr && old_end < vma.end;
        let upper = if is_inside { Some(supply.boxed(|| vma.part(old_end, vma.end))?) } else { None };
        Ok((new, upper))
    }
}

/// Takes `start..end` out of the area that has it. `upper` is what the area becomes above that, if it goes on on both
/// sides.
#[inline]
fn cut_out<M: Machine>(tree: &mut AreaTree<M>, start: UserAddr, end: UserAddr, upper: Option<Box<Vma<M>>>) {
    let mut cursor = tree.cursor(start);
    let (first, last) = cursor.current().map_or((start, end), |vma| (vma.start, vma.end));
    if first < start {
        cursor.set_end(start);
        cursor.advance();
        if let Some(upper) = upper {
            cursor.insert_before(upper);
        }
    } else if end < last {
        cursor.set_start(end);
    } else {
        cursor.remove();
    }
}

/// Only the new range of a locked area that is moved and kept stays locked; a part of an area keeps its lock, as on Linux.
fn unlock_whole<M: Machine>(machine: M, areas: &mut Areas<M>, start: UserAddr, end: UserAddr) {
    let mut cursor = areas.tree.cursor(start);
    if let Some(vma) = cursor.current().filter(|vma| vma.start == start && vma.end == end) {
        let flags = vma.flags - VmFlags::ANY_LOCK;
        areas.locked -= (end - start) >> PAGE_SHIFT;
        machine.spaces().note_unlock();
        cursor.set_flags(flags);
    }
}
