//! A table of descriptors.
//!
//! Lock order: the table's lock ([`Rank::Descriptors`]) is held for a few words, or for a copy of [`ENTRIES`] entries.
//! It is never held while memory is allocated, an object's lock is taken, or an object is dropped. Code that goes
//! through all numbers passes a [point](crate::task::point) regularly. If other threads keep changing a table while a
//! thread copies it, the copying thread makes them wait until it has finished.

use core::ops::Deref;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use quire_abi::Errno;
use quire_locks::Owner;
use quire_mm::fallible::slots::{Room, Slots};
use quire_mm::fallible::{KArc, Unshared};
use quire_mm::sync::{Rank, SpinGuard};

use super::descriptor::Descriptor;
use super::file_locks;
use super::socket::flight;
use crate::arch::speculation;
use crate::task::point::{ENTRIES, resched_point};
use crate::task::wait::{Sleep, WaitQueue};
use crate::vm::{Cpu, SpinLock};

/// The maximum number of descriptors of a process, whatever its limits (Linux's `fs.nr_open`): setrlimit refuses a
/// higher limit.
pub const NR_OPEN: u64 = 1 << 20;

type Entries<'a> = SpinGuard<'a, Slots<Descriptor>, Cpu>;

/// A table of descriptors, shared after CLONE_FILES.
pub struct Descriptors {
    slots: SpinLock<Slots<Descriptor>>,
    /// The number of changes of entries. Written under the lock.
    changes: AtomicU64,
    /// The number of threads that copy the entries while nobody may change them. Written under the lock.
    copiers: AtomicUsize,
    /// Threads that wait to change an entry.
    waiting: WaitQueue,
    /// The owner of the record locks that its processes set.
    lock_owner: AtomicU64,
    /// Whether there are such locks, or have been.
    has_records: AtomicBool,
    /// Whether exec has given the owner a new table in the meantime.
    is_replaced: AtomicBool,
    /// Processes that have it.
    users: AtomicUsize,
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
            lock_owner: AtomicU64::new(file_locks::new_owner().0),
            has_records: AtomicBool::new(false),
            is_replaced: AtomicBool::new(false),
            users: AtomicUsize::new(0),
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

    /// A copy of the entries that `keep` accepts: a consistent snapshot. EINTR if the thread is killed meanwhile.
    fn copy(&self, keep: impl Fn(&Descriptor) -> bool) -> Result<KArc<Self>, Errno> {
        let changes = self.changes.load(Ordering::Acquire);
        let mut copy = Self::unshared()?;
        self.copy_descriptors(copy.slots.get_mut(), &keep)?;
        if self.changes.load(Ordering::Acquire) != changes {
            // Another thread has changed entries meanwhile, and might do so again. Copied entries that were closed
            // since are dropped here, with no lock held.
            copy = Self::unshared()?;
            let _still = Still::begin(self);
            self.copy_descriptors(copy.slots.get_mut(), &keep)?;
        }
        Ok(copy.share())
    }

    /// The entries, for a change, once nobody copies them. EINTR if the thread is killed meanwhile.
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

    /// The descriptor with this number, or else with the next higher one. O(1), plus one step for each thousand unused
    /// numbers.
    pub fn next(&self, from: usize) -> Option<(usize, Descriptor)> {
        let slots = self.slots.lock();
        let number = next_used(&slots, from)?;
        Some((number, slots.get(number)?.clone()))
    }

    /// One more than the highest number that can be in use now.
    pub fn capacity(&self) -> usize {
        self.slots.lock().capacity()
    }

    /// The descriptors, under the lock, for a check of up to [`ENTRIES`] of them.
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

    /// Puts a descriptor at exactly `fd`; returns the old one, to be dropped. EBADF at or above `limit`.
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
                    let old = slots.set(number, descriptor).map_err(|_| Errno::ENOMEM)?;
                    drop(slots);
                    old.iter().for_each(|old| self.unlock(old));
                    return Ok(old);
                }
                Err(lack) => lack,
            };
            drop(slots);
            room = lack.supply()?;
        }
    }

    /// Takes a descriptor out; EBADF.
    pub fn remove(&self, fd: i32) -> Result<Descriptor, Errno> {
        let removed = {
            let mut slots = self.change()?;
            let number = number_in(&slots, fd)?;
            slots.take(number).ok_or(Errno::EBADF)?
        };
        self.unlock(&removed);
        Ok(removed)
    }

    /// The owner of the record locks of its processes.
    pub fn lock_owner(&self) -> Owner {
        Owner(self.lock_owner.load(Ordering::Relaxed))
    }

    /// Notes that record locks are about to be set.
    pub fn note_records(&self) {
        self.has_records.store(true, Ordering::Relaxed);
    }

    /// Unlocks the file of a closed descriptor: as on Linux, the process loses all its record locks of that file.
    #[inline]
    fn unlock(&self, closed: &Descriptor) {
        if self.has_records.load(Ordering::Relaxed) {
            file_locks::release_all(&closed.file.object, self.lock_owner());
        }
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
            removed.iter().for_each(|removed| self.unlock(removed));
            removed.into_iter().for_each(flight::closes);
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
        if *self.has_records.get_mut() {
            self.unlock_all();
        }
        while self.slots.get_mut().drop_some() {
            // A killed thread continues nevertheless.
            let _ = resched_point(Sleep::Killable);
        }
        flight::table_ends();
    }
}

impl Descriptors {
    /// Releases all locks of the process, which has ended; for the process of a new program, only those in files that
    /// exec closes.
    #[cold]
    fn unlock_all(&mut self) {
        let (owner, is_replaced) = (self.lock_owner(), *self.is_replaced.get_mut());
        let mut next = 0;
        while let Some(number) = self.slots.get_mut().next_used(next) {
            next = number + 1;
            if let Some(descriptor) = self.slots.get_mut().get(number).filter(|one| !is_replaced || one.close_on_exec) {
                file_locks::release_all(&descriptor.file.object, owner);
            }
            // A killed thread continues nevertheless.
            let _ = resched_point(Sleep::Killable);
        }
    }
}

/// A table as part of a process.
pub struct Used(KArc<Descriptors>);

impl Used {
    /// One more process has it.
    pub fn new(table: KArc<Descriptors>) -> Self {
        table.users.fetch_add(1, Ordering::Relaxed);
        Self(table)
    }

    /// The table, for a while.
    pub fn share(&self) -> KArc<Descriptors> {
        self.0.clone()
    }

    /// Replaces `old` for a process by this table, at exec. Unless other processes use `old` too, this table becomes
    /// the owner of its locks.
    pub fn replaces(&self, old: &Self) {
        if old.users.load(Ordering::Relaxed) == 1 {
            self.lock_owner.store(old.lock_owner().0, Ordering::Relaxed);
            self.has_records.store(old.has_records.load(Ordering::Relaxed), Ordering::Relaxed);
            old.is_replaced.store(true, Ordering::Relaxed);
        }
    }
}

impl Deref for Used {
    type Target = KArc<Descriptors>;
    fn deref(&self) -> &KArc<Descriptors> {
        &self.0
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        self.users.fetch_sub(1, Ordering::Relaxed);
    }
}

/// While this value exists, nobody changes entries.
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
