//! A table of descriptors.
//!
//! Lock order: the table's lock ([`Rank::Descriptors`]) is held for a few words, or for a copy of [`ENTRIES`] entries.
//! It is never held while memory is allocated, an object's lock is taken, or an object is dropped. Code that goes
//! through all numbers passes a [point](crate::task::point) regularly. A thread that copies a table that others keep
//! changing makes them wait until it has finished.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use quire_abi::Errno;
use quire_mm::fallible::slots::{Room, Slots};
use quire_mm::fallible::{KArc, Unshared};
use quire_mm::sync::{Rank, SpinGuard};

use super::descriptor::Descriptor;
use crate::arch::speculation;
use crate::task::point::{ENTRIES, resched_point};
use crate::task::wait::{Sleep, WaitQueue};
use crate::vm::{Cpu, SpinLock};

/// No process has more descriptors, whatever its limits (Linux's `fs.nr_open`): setrlimit refuses a higher limit.
pub const NR_OPEN: u64 = 1 << 20;

type Entries<'a> = SpinGuard<'a, Slots<Descriptor>, Cpu>;

/// A table of descriptors, shared after CLONE_FILES.
pub struct Descriptors {
    slots: SpinLock<Slots<Descriptor>>,
    /// Changes of entries. Written under the lock.
    changes: AtomicU64,
    /// Threads that copy the entries while nobody may change them. Written under the lock.
    copiers: AtomicUsize,
    /// Threads that wait to change an entry.
    waiting: WaitQueue,
}

impl Descriptors {
    /// Empty.
    pub fn new() -> Result<KArc<Self>, Errno> {
        Ok(Self::unshared()?.share())
    }

    fn unshared() -> Result<Unshared<Self>, Errno> {
        Ok(KArc::try_unshared(|| Self {
            slots: SpinLock::new(Cpu, Rank::Descriptors, Slots::new()),
            changes: AtomicU64::new(0),
            copiers: AtomicUsize::new(0),
            waiting: WaitQueue::new(),
        })?)
    }

    /// A child's table: all descriptors.
    pub fn copy_for_child(&self) -> Result<KArc<Self>, Errno> {
        self.copy(|_| true)
    }

    /// A new program's table: the descriptors that exec does not close.
    pub fn copy_for_program(&self) -> Result<KArc<Self>, Errno> {
        self.copy(|descriptor| !descriptor.close_on_exec)
    }

    /// A copy with the entries to keep: a consistent snapshot. EINTR if the thread is killed meanwhile.
    fn copy(&self, keep: impl Fn(&Descriptor) -> bool) -> Result<KArc<Self>, Errno> {
        let changes = self.changes.load(Ordering::Acquire);
        let mut copy = Self::unshared()?;
        self.copy_descriptors(copy.slots.get_mut(), &keep)?;
        if self.changes.load(Ordering::Acquire) != changes {
            // Another thread has changed entries meanwhile, and might do so again. Entries that were closed since are
            // dropped here, with no lock held.
            copy = Self::unshared()?;
            let _still = Still::begin(self);
            self.copy_descriptors(copy.slots.get_mut(), &keep)?;
        }
        Ok(copy.share())
    }

    /// The entries, to be changed, once nobody copies them. EINTR if the thread is killed meanwhile.
    #[inline]
    fn change(&self) -> Result<Entries<'_>, Errno> {
        let slots = self.slots.lock();
        if self.copiers.load(Ordering::Relaxed) == 0 {
            self.note_change();
            return Ok(slots);
        }
        drop(slots);
        self.change_later()
    }

    #[cold]
    fn change_later(&self) -> Result<Entries<'_>, Errno> {
        self.waiting.wait_until(Sleep::Killable, None, || {
            let slots = self.slots.lock();
            let may_change = self.copiers.load(Ordering::Relaxed) == 0;
            may_change.then(|| {
                self.note_change();
                slots
            })
        })
    }

    /// Copies the entries, a few at a time under the lock.
    fn copy_descriptors(&self, copy: &mut Slots<Descriptor>, keep: &impl Fn(&Descriptor) -> bool) -> Result<(), Errno> {
        let mut next = 0;
        let mut room = Room::none();
        'batches: loop {
            let slots = self.slots.lock();
            for _ in 0..ENTRIES {
                let Some(number) = slots.next_used(next) else { return Ok(()) };
                if let Some(descriptor) = slots.get(number).filter(|descriptor| keep(descriptor)) {
                    if let Err(lack) = copy.make_room(number, &mut room) {
                        // The lock is released during the allocation, which may reclaim.
                        drop(slots);
                        room = lack.supply()?;
                        resched_point(Sleep::Killable)?;
                        continue 'batches;
                    }
                    // There is room, and no old entry is returned: each number is copied once.
                    let _ = copy.set(number, descriptor.clone());
                }
                next = number + 1;
            }
            drop(slots);
            resched_point(Sleep::Killable)?;
        }
    }

    fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// The descriptor `fd`; EBADF.
    pub fn get(&self, fd: i32) -> Result<Descriptor, Errno> {
        let slots = self.slots.lock();
        slots.get(number_in(&slots, fd)?).cloned().ok_or(Errno::EBADF)
    }

    /// The descriptor with this number, or else with the lowest one above it. O(1), but for one step a thousand numbers that are not used.
    pub fn next(&self, from: usize) -> Option<(usize, Descriptor)> {
        let slots = self.slots.lock();
        let number = next_used(&slots, from)?;
        Some((number, slots.get(number)?.clone()))
    }

    /// One more than the highest number that there may be now.
    pub fn capacity(&self) -> usize {
        self.slots.lock().capacity()
    }

    /// The descriptors, held under the lock for a look at up to [`ENTRIES`] of them.
    #[inline]
    pub fn hold(&self) -> Held<'_> {
        Held(self.slots.lock())
    }

    /// Inserts a descriptor at the lowest free number from `from` on; EMFILE at `limit`.
    pub fn insert(&self, descriptor: Descriptor, from: usize, limit: u64) -> Result<i32, Errno> {
        let limit = limit.min(NR_OPEN);
        if from as u64 >= limit {
            return Err(Errno::EMFILE);
        }
        let mut room = Room::none();
        loop {
            let mut slots = self.change()?;
            let free = lowest_free(&slots, from);
            if free as u64 >= limit {
                return Err(Errno::EMFILE);
            }
            let lack = match slots.make_room(free, &mut room) {
                Ok(()) => {
                    // The number is free, so no old entry is returned.
                    return slots.set(free, descriptor).map(|_| free as i32).map_err(|_| Errno::ENOMEM);
                }
                Err(lack) => lack,
            };
            drop(slots);
            room = lack.supply()?;
        }
    }

    /// Puts a descriptor at exactly `fd`; the old one is returned, to be dropped. EBADF at or above `limit`.
    pub fn replace(&self, fd: i32, descriptor: Descriptor, limit: u64) -> Result<Option<Descriptor>, Errno> {
        let number = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        if number as u64 >= limit.min(NR_OPEN) {
            return Err(Errno::EBADF);
        }
        let mut room = Room::none();
        loop {
            let mut slots = self.change()?;
            let lack = match slots.make_room(number, &mut room) {
                Ok(()) => {
                    let number = number_in(&slots, fd)?;
                    return slots.set(number, descriptor).map_err(|_| Errno::ENOMEM);
                }
                Err(lack) => lack,
            };
            drop(slots);
            room = lack.supply()?;
        }
    }

    /// Takes a descriptor out; EBADF.
    pub fn remove(&self, fd: i32) -> Result<Descriptor, Errno> {
        let mut slots = self.change()?;
        let number = number_in(&slots, fd)?;
        slots.take(number).ok_or(Errno::EBADF)
    }

    /// Closes all descriptors from `first` to `last`. EINTR if the thread is killed meanwhile.
    pub fn remove_range(&self, first: usize, last: usize) -> Result<(), Errno> {
        let mut number = first;
        loop {
            let removed = {
                let mut slots = self.change()?;
                let Some(used) = next_used(&slots, number).filter(|used| *used <= last) else { return Ok(()) };
                number = used;
                slots.take(used)
            };
            drop(removed);
            resched_point(Sleep::Killable)?;
        }
    }

    /// Sets or clears close-on-exec; EBADF.
    pub fn set_close_on_exec(&self, fd: i32, on: bool) -> Result<(), Errno> {
        let mut slots = self.change()?;
        let number = number_in(&slots, fd)?;
        slots.get_mut(number).ok_or(Errno::EBADF)?.close_on_exec = on;
        Ok(())
    }

    /// Sets close-on-exec for all descriptors from `first` to `last`. EINTR if the thread is killed meanwhile.
    pub fn close_range_on_exec(&self, first: usize, last: usize) -> Result<(), Errno> {
        let mut number = first;
        loop {
            {
                let mut slots = self.change()?;
                let Some(used) = next_used(&slots, number).filter(|used| *used <= last) else { return Ok(()) };
                if let Some(descriptor) = slots.get_mut(used) {
                    descriptor.close_on_exec = true;
                }
                number = used + 1;
            }
            resched_point(Sleep::Killable)?;
        }
    }
}

/// A table under its lock: nothing is dropped and no other lock taken meanwhile.
pub struct Held<'a>(Entries<'a>);

impl Held<'_> {
    /// The descriptor `fd`.
    #[inline]
    pub fn get(&self, fd: i32) -> Option<&Descriptor> {
        self.0.get(number_in(&self.0, fd).ok()?)
    }
}

impl Drop for Descriptors {
    /// Closes a few descriptors at a time: a process may have a million. The last owner is in process context.
    fn drop(&mut self) {
        while self.slots.get_mut().drop_some() {
            // A killed thread continues nevertheless.
            let _ = resched_point(Sleep::Killable);
        }
    }
}

/// While this lives nobody changes entries.
struct Still<'a>(&'a Descriptors);

impl<'a> Still<'a> {
    fn begin(table: &'a Descriptors) -> Self {
        let _slots = table.slots.lock();
        table.copiers.fetch_add(1, Ordering::Relaxed);
        Self(table)
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        let slots = self.0.slots.lock();
        let is_last = self.0.copiers.fetch_sub(1, Ordering::Relaxed) == 1;
        drop(slots);
        if is_last {
            self.0.waiting.wake_all();
        }
    }
}

/// The lowest free number from `from` on, which a program gave.
fn lowest_free(slots: &Slots<Descriptor>, from: usize) -> usize {
    speculation::bounded(from, slots.capacity()).map_or(from, |from| slots.lowest_free(from))
}

/// The lowest number in use from `from` on, which a program gave.
fn next_used(slots: &Slots<Descriptor>, from: usize) -> Option<usize> {
    slots.next_used(speculation::bounded(from, slots.capacity())?)
}

/// An index from a program, bounded by the table on speculative paths too. EBADF.
fn number_in(slots: &Slots<Descriptor>, fd: i32) -> Result<usize, Errno> {
    usize::try_from(fd).ok().and_then(|number| speculation::bounded(number, slots.capacity())).ok_or(Errno::EBADF)
}
