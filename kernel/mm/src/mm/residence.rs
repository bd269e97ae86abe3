//! Populating memory before it is accessed, keeping it resident, and querying residence: MAP_POPULATE, mlock, mincore.

use quire_abi::Errno;

use super::fault::{FaultError, Stop, Touch};
use super::unmap::checked_range;
use super::{Areas, Intent, Mm};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, USER_END, UserAddr};
use crate::event::Event;
use crate::machine::Limit;
use crate::mm::Machine;
use crate::pte::{NonPresent, Pte};
use crate::supply::{Supply, supplied};
use crate::vma::{VmFlags, Vma};

/// Pages or areas handled between two preemption points.
pub(super) const POINT_EVERY: usize = 256;

/// How pages are brought in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Populate {
    /// As the area's rights say: for writing where a private page is writable.
    AsMapped,
    /// For reading.
    Read,
    /// For writing.
    Write,
}

impl Populate {
    /// The area at `addr`, if its rights allow this.
    fn area<M: Machine>(self, areas: &Areas<M>, addr: UserAddr) -> Result<&Vma<M>, FaultError> {
        let vma = areas.tree.find(addr).ok_or(FaultError::Unmapped)?;
        let allowed = match self {
            Populate::AsMapped => self.skips(vma) || vma.flags.accessible(),
            Populate::Read => vma.flags.contains(VmFlags::READ),
            Populate::Write => vma.flags.contains(VmFlags::WRITE),
        };
        if allowed { Ok(vma) } else { Err(FaultError::Protection) }
    }

    /// Whether an area is left to later faults, whatever its rights are.
    fn skips<M: Machine>(self, vma: &Vma<M>) -> bool {
        self == Populate::AsMapped && vma.flags.contains(VmFlags::LOCKONFAULT)
    }
}

impl<M: Machine> Mm<M> {
    /// Faults in every page of a range.
    pub(super) fn populate(&self, start: UserAddr, end: UserAddr, how: Populate) -> Result<(), FaultError> {
        let supply = Supply::new(self.machine);
        let mut addr = start;
        while addr < end {
            // (A killed thread's error does not matter.)
            self.machine.resched_point().map_err(|_| FaultError::OutOfMemory)?;
            let areas = self.areas.read();
            let Ok(vma) = how.area(&areas, addr) else {
                if seeded!(PopulateSeesHole) {
                    return how.area(&areas, addr).map(|_| ());
                }
                drop(areas);
                // A missing area may be the intermediate state of a change: wait for the intent and look again.
                how.area(&self.areas.intend(), addr)?;
                continue;
            };
            if how.skips(vma) {
                addr = vma.end;
                continue;
            }
            let private_writable = vma.flags & (VmFlags::WRITE | VmFlags::SHARED) == VmFlags::WRITE;
            let write = how == Populate::Write || how == Populate::AsMapped && private_writable;
            let to = vma.end.min(end);
            // A few pages at a time, so that a change of the map need not wait for all of them.
            let stop = to.min(addr + 64 * PAGE_SIZE);
            let mut stopped = None;
            while addr < stop {
                let done = |pte: Pte| pte.is_present() && (!write || pte.is_writable());
                if !done(self.entry(addr)) {
                    let pages = ((to - addr) >> PAGE_SHIFT).min(super::ahead::MAX_WINDOW);
                    let touch = Touch { write, exec: false, forced: Some(pages), supply: &supply };
                    stopped = self.fault_in(vma, addr, &touch).err();
                    if stopped.is_some() {
                        break;
                    }
                }
                addr = addr + PAGE_SIZE;
                // (Where frames are short, each fault looks for them everywhere first.)
                if self.machine.resched_point().is_err() {
                    break;
                }
            }
            drop(areas);
            if let Some(stop) = stopped {
                if stop == Stop::Elsewhere {
                    // As on Linux, the fault that the program would have had.
                    self.machine.count(Event::Fault, 1);
                }
                self.clear_the_way(stop, addr, &supply)?;
            }
        }
        Ok(())
    }

    /// Locks a range into memory (mlock, and mlock2 with `on_fault`).
    pub fn lock(&self, addr: usize, len: usize, on_fault: bool) -> Result<(), Errno> {
        if self.limit(Limit::MemLock) == 0 {
            return Err(Errno::EPERM);
        }
        let (start, end) = lock_range(addr, len)?;
        if start == end {
            return Ok(());
        }
        supplied(self.machine, |supply| {
            let mut areas = self.areas.intend_killable()?;
            let pages = (end - start) >> PAGE_SHIFT;
            let already = self.pages_with(&areas, start, end, VmFlags::LOCKED);
            if areas.locked + pages - already.min(pages) > self.limit_pages(Limit::MemLock) {
                return Err(Errno::ENOMEM);
            }
            self.set_lock(&mut areas, start, end, lock_flags(on_fault), supply)
        })?;
        self.populate(start, end, Populate::AsMapped).map_err(|error| match error {
            FaultError::OutOfMemory => Errno::EAGAIN,
            _ => Errno::ENOMEM,
        })
    }

    /// Unlocks a range (munlock).
    pub fn unlock(&self, addr: usize, len: usize) -> Result<(), Errno> {
        let (start, end) = lock_range(addr, len)?;
        supplied(self.machine, |supply| {
            let mut areas = self.areas.intend_killable()?;
            self.set_lock(&mut areas, start, end, VmFlags::empty(), supply)
        })
    }

    /// Locks all present mappings (`current`), all future ones (`future`), or both.
    pub fn lock_all(&self, current: bool, future: bool, on_fault: bool) -> Result<(), Errno> {
        let mut areas = self.areas.intend_killable()?;
        if self.limit(Limit::MemLock) == 0 {
            return Err(Errno::EPERM);
        }
        if current && areas.total > self.limit_pages(Limit::MemLock) {
            return Err(Errno::ENOMEM);
        }
        let lock = lock_flags(on_fault);
        areas.write().default_flags = if future { lock } else { VmFlags::empty() };
        if current {
            self.set_lock_of_all(&mut areas, lock);
        }
        drop(areas);
        if current {
            self.populate_locked(UserAddr::new(0), UserAddr::new(USER_END));
        }
        Ok(())
    }

    /// Brings in the locked areas of a range, as far as possible.
    pub(super) fn populate_locked(&self, start: UserAddr, end: UserAddr) {
        let mut at = start;
        loop {
            let _ = self.machine.resched_point();
            let next = self.areas.read().tree.find_from(at).map(|vma| (vma.start.max(at), vma.end, vma.flags));
            let Some((from, to, flags)) = next.filter(|(from, ..)| *from < end) else { break };
            if flags.contains(VmFlags::LOCKED) {
                let _ = self.populate(from, to.min(end), Populate::AsMapped);
            }
            at = to;
        }
    }

    /// Unlocks everything, now and in future.
    pub fn unlock_all(&self) {
        let mut areas = self.areas.intend();
        areas.write().default_flags = VmFlags::empty();
        self.set_lock_of_all(&mut areas, VmFlags::empty());
    }

    fn set_lock_of_all(&self, areas: &mut Intent<'_, M>, lock: VmFlags) {
        let mut at = UserAddr::new(0);
        // Whole areas are never split, so nothing is allocated.
        let supply = Supply::new(self.machine);
        while let Some((start, end)) = areas.tree.find_from(at).map(|vma| (vma.start, vma.end)) {
            let done = self.set_lock(areas, start, end, lock, &supply);
            debug_assert!(done.is_ok() || self.machine.is_killed());
            at = end;
        }
    }

    /// Sets this kind of lock, or none, on a range without holes.
    fn set_lock(
        &self,
        areas: &mut Intent<'_, M>,
        start: UserAddr,
        end: UserAddr,
        lock: VmFlags,
        supply: &Supply<M>,
    ) -> Result<(), Errno> {
        let mut at = start;
        while at < end {
            self.machine.resched_point()?;
            let vma = areas.tree.find(at).ok_or(Errno::ENOMEM)?;
            let to = vma.end.min(end);
            self.change_flags(areas, at, to, (vma.flags - VmFlags::ANY_LOCK) | lock, supply)?;
            at = to;
        }
        Ok(())
    }

    /// Which pages of a range are in memory (mincore): calls `see` with each page's number and state.
    pub fn in_core(&self, addr: usize, len: usize, mut see: impl FnMut(usize, bool)) -> Result<(), Errno> {
        let start = UserAddr::new(addr);
        if !start.is_aligned(PAGE_SIZE) {
            return Err(Errno::EINVAL);
        }
        if len == 0 {
            return Ok(());
        }
        // The intent excludes changes, whose intermediate state might show a hole; faults continue.
        let areas = self.areas.intend();
        let (start, end) = checked_range(addr, len, areas.layout.task_size).map_err(|_| Errno::ENOMEM)?;
        let mut at = start;
        while at < end {
            let vma = areas.tree.find(at).ok_or(Errno::ENOMEM)?;
            while at < vma.end.min(end) {
                if (at - start).is_multiple_of(POINT_EVERY * PAGE_SIZE) {
                    self.machine.resched_point()?;
                }
                // A page that is being moved is in memory; one in swap is not, even if it hides an object's page.
                let mapped = match self.entry(at).kind() {
                    None | Some(NonPresent::Migration(_)) => Some(true),
                    Some(NonPresent::Swap(_)) => Some(false),
                    Some(NonPresent::None | NonPresent::Marker(_)) => None,
                };
                let cached = || {
                    let backing = vma.backing.as_ref();
                    backing.is_some_and(|b| vma.index_of(at).is_some_and(|index| b.object.is_resident(index)))
                };
                see((at - start) >> PAGE_SHIFT, mapped.unwrap_or_else(cached));
                at = at + PAGE_SIZE;
            }
        }
        Ok(())
    }
}

/// mlock accepts any address and rounds it down. As on Linux, a length that exceeds 2^64 when rounded up wraps to 0.
fn lock_range(addr: usize, len: usize) -> Result<(UserAddr, UserAddr), Errno> {
    let start = UserAddr::new(addr).page_floor();
    let len = len.wrapping_add(addr - start.get()).checked_next_multiple_of(PAGE_SIZE).unwrap_or(0);
    let end = start.checked_add(len).ok_or(Errno::EINVAL)?;
    Ok((start, end))
}

/// How an area is locked.
fn lock_flags(on_fault: bool) -> VmFlags {
    if on_fault { VmFlags::ANY_LOCK } else { VmFlags::LOCKED }
}
