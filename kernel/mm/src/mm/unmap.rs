//! munmap.

use alloc::boxed::Box;
use core::mem::ManuallyDrop;

use quire_abi::Errno;

use super::{Intent, MAX_MAP_COUNT, Mm};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, UserAddr};
use crate::mm::Machine;
use crate::supply::{Supply, supplied};
use crate::table::gather::Gather;
use crate::vma::cursor::{Cursor, Detached};
use crate::vma::{VmFlags, Vma};

/// Areas removed between two preemption points: one that maps an object also leaves the tree of all areas that do, which
/// may take 1,500 instructions.
const AREAS_TO_POINT: usize = 16;

impl<M: Machine> Mm<M> {
    /// Unmaps a range: munmap's semantics and errors.
    pub fn unmap(&self, addr: usize, len: usize) -> Result<(), Errno> {
        supplied(self.machine, |supply| {
            let mut areas = self.areas.intend_killable()?;
            let (start, end) = checked_range(addr, len, areas.layout.task_size)?;
            let done = self.unmap_range(&mut areas, start, end, supply);
            self.uncharge_rest(&areas);
            done
        })
    }

    /// Removes everything from a range; the caller calls `uncharge_rest`. It can only fail to split one area into two, before
    /// anything has changed.
    pub(super) fn unmap_range(
        &self,
        areas: &mut Intent<'_, M>,
        start: UserAddr,
        end: UserAddr,
        supply: &Supply<M>,
    ) -> Result<(), Errno> {
        let spot = areas.tree.spot(start);
        // SAFETY: only the holder of the intent changes the tree.
        let first = unsafe { areas.tree.at_spot(spot) };
        let Some(first) = first.filter(|vma| vma.start < end) else { return Ok(()) };
        let mut upper = None;
        if first.start < start && end < first.end {
            if areas.tree.len() >= MAX_MAP_COUNT {
                return Err(Errno::ENOMEM);
            }
            upper = match supply.boxed(|| first.part(end, first.end)) {
                Err(_) if seeded!(FailedUnmapCuts) => None,
                made => Some(made?),
            };
        }
        let mut gone = Detached::new();
        {
            let mut areas = areas.write();
            let areas = &mut *areas;
            // SAFETY: as above.
            let cursor = unsafe { areas.tree.cursor_at(spot) };
            let cut = take_out(self.machine, cursor, start, end, upper, &mut gone);
            for (flags, pages) in cut.into_iter().flatten() {
                areas.count_out(self.machine, flags, pages);
            }
            for (n, vma) in (1..).zip(gone.iter()) {
                areas.count_out(self.machine, vma.flags, vma.pages());
                if n % AREAS_TO_POINT == 0 {
                    let _ = self.machine.resched_point();
                }
            }
        }
        let mut dropped = 0;
        while gone.pop().is_some() {
            dropped += 1;
            if dropped % AREAS_TO_POINT == 0 {
                let _ = self.machine.resched_point();
            }
        }
        self.zap(start, end);
        if self.tables.wants_sweep() {
            let _alone = areas.write();
            self.tables.sweep();
        }
        Ok(())
    }

    /// Clears the entries of a range without areas and frees their pages once no TLB holds them.
    fn zap(&self, start: UserAddr, end: UserAddr) {
        self.zap_into(ManuallyDrop::new(Gather::new(self.machine, self.tables.asid())), start, end);
    }

    /// Clears the entries of a range whose areas stay: faults may fill them again at any moment.
    pub(super) fn zap_beside_faults(&self, start: UserAddr, end: UserAddr) {
        self.zap_into(ManuallyDrop::new(Gather::beside_faults(self.machine, self.tables.asid())), start, end);
    }

    fn zap_into(&self, mut gather: ManuallyDrop<Gather<'_, M>>, start: UserAddr, end: UserAddr) {
        self.tables.zap(start, end, &mut gather);
        // (After which there is nothing to drop.)
        let counts = gather.finish();
        self.uncharge(counts);
    }
}

/// Takes the areas of `start..end` out of the tree, from the cursor on, into `gone`, and cuts those that go on below or above
/// it: `upper` is the part above, if one does both. Returns what was cut off, as flags and pages.
#[inline]
fn take_out<M: Machine>(
    machine: M,
    mut cursor: Cursor<'_, M>,
    start: UserAddr,
    end: UserAddr,
    mut upper: Option<Box<Vma<M>>>,
    gone: &mut Detached<M>,
) -> [Option<(VmFlags, usize)>; 2] {
    let (mut cut, mut removed) = ([None; 2], 0);
    while let Some(vma) = cursor.current().filter(|vma| vma.start < end) {
        let (from, to, flags) = (vma.start, vma.end, vma.flags);
        if from < start {
            cursor.set_end(start);
            cursor.advance();
            if let Some(upper) = upper.take() {
                cursor.insert_before(upper);
            }
            cut[0] = Some((flags, (to.min(end) - start) >> PAGE_SHIFT));
        } else if end < to {
            cursor.set_start(end);
            cut[1] = Some((flags, (end - from) >> PAGE_SHIFT));
            break;
        } else if let Some(vma) = cursor.remove() {
            gone.push(vma);
            removed += 1;
            if removed % AREAS_TO_POINT == 0 {
                // The operation is completed even if the thread is killed.
                let _ = machine.resched_point();
            }
        }
    }
    cut
}

/// The pages of `addr..addr + len`, for calls that refuse anything else with EINVAL.
#[inline]
pub(super) fn checked_range(addr: usize, len: usize, task_size: UserAddr) -> Result<(UserAddr, UserAddr), Errno> {
    let start = UserAddr::new(addr);
    if !start.is_aligned(PAGE_SIZE) || start > task_size || len > task_size - start {
        return Err(Errno::EINVAL);
    }
    let len = len.checked_next_multiple_of(PAGE_SIZE).filter(|len| *len != 0).ok_or(Errno::EINVAL)?;
    if len > task_size - start {
        return Err(Errno::EINVAL);
    }
    Ok((start, start + len))
}
