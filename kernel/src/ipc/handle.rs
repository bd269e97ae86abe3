//! Descriptors: a table of (open object, rights) a process.
//!
//! What is open is an [`OpenFile`], shared by all descriptors that `dup`, `fork` and descriptor passing make of it.
//! The rights are the descriptor's own. Lock order: a table's lock is never held while an object's is taken, and
//! objects are dropped with no lock held.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use alloc::vec::Vec;
use bitflags::bitflags;
use quire_abi::Errno;
use quire_abi::flags::Open;
use quire_mm::fallible::{KArc, TryVec};
use quire_mm::sync::Rank;

use super::pipe::{Pipe, Side};
use crate::arch::speculation;
use crate::boot::archive::Node;
use crate::task::point::{ENTRIES, resched_point};
use crate::task::wait::Sleep;
use crate::vm::{Cpu, SpinLock};

bitflags! {
    /// What a descriptor allows.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Rights: u8 {
        /// Reading, and mapping readable.
        const READ = 1;
        /// Writing.
        const WRITE = 2;
    }
}

/// What can be open.
pub enum Object {
    /// The console.
    Console,
    /// One end of a pipe.
    Pipe(KArc<Pipe>, Side),
    /// A file or directory of the boot archive.
    Archive(&'static Node),
    /// `/dev/null`.
    Null,
    /// `/dev/zero`.
    Zero,
}

/// An open object with its position and status flags.
pub struct OpenFile {
    /// What is open.
    pub object: Object,
    /// `O_APPEND`, `O_NONBLOCK` and the access mode, as `fcntl` shows them.
    pub status: AtomicU32,
    /// Where the next read begins; for a directory, the index of its next entry.
    pub offset: AtomicU64,
}

/// How many open objects there are, for the books.
static OPEN: AtomicU64 = AtomicU64::new(0);

impl OpenFile {
    /// Opens an object.
    pub fn new(object: Object, status: Open) -> Result<KArc<Self>, Errno> {
        let file = Self { object, status: AtomicU32::new(status.bits()), offset: AtomicU64::new(0) };
        OPEN.fetch_add(1, Ordering::Relaxed);
        Ok(KArc::try_new(file)?)
    }

    /// Whether calls on it do not sleep.
    pub fn is_nonblocking(&self) -> bool {
        Open::from_bits_retain(self.status.load(Ordering::Relaxed)).contains(Open::NONBLOCK)
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if let Object::Pipe(pipe, side) = &self.object {
            pipe.close(*side);
        }
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Open objects, system-wide.
pub fn open_objects() -> u64 {
    OPEN.load(Ordering::Relaxed)
}

/// An entry of the table.
#[derive(Clone)]
pub struct Descriptor {
    /// What it refers to.
    pub file: KArc<OpenFile>,
    /// What it allows.
    pub rights: Rights,
    /// Whether exec closes it.
    pub close_on_exec: bool,
}

impl Descriptor {
    /// The file, if the descriptor has these rights; EBADF else, as read(2) and write(2) have it.
    pub fn file_for(self, rights: Rights) -> Result<KArc<OpenFile>, Errno> {
        if self.rights.contains(rights) { Ok(self.file) } else { Err(Errno::EBADF) }
    }
}

/// A process's table.
pub struct Descriptors {
    slots: SpinLock<Vec<Option<Descriptor>>>,
    /// Changes of entries. Written under the lock.
    changes: AtomicU64,
}

/// A table may be large: it is closed entry by entry with points in between, in process context as every last owner is.
impl Drop for Descriptors {
    fn drop(&mut self) {
        for slot in core::mem::take(self.slots.get_mut()) {
            drop(slot);
            // Whoever ends is killed, and closes all the same.
            let _ = resched_point(Sleep::Killable);
        }
    }
}

impl Descriptors {
    /// Empty.
    pub fn new() -> Result<KArc<Self>, Errno> {
        Self::from_slots(Vec::new())
    }

    fn from_slots(slots: Vec<Option<Descriptor>>) -> Result<KArc<Self>, Errno> {
        Ok(KArc::try_new(Self { slots: SpinLock::new(Cpu, Rank::Descriptors, slots), changes: AtomicU64::new(0) })?)
    }

    /// A table with the same entries, as they are at one moment.
    pub fn copy(&self) -> Result<KArc<Self>, Errno> {
        /// Another thread may change entries meanwhile; then it is begun anew, so often.
        const TRIES: usize = 4;
        for _ in 0..TRIES {
            let changes = self.changes.load(Ordering::Acquire);
            let copy = self.copy_by(ENTRIES)?;
            if self.changes.load(Ordering::Acquire) == changes {
                return Self::from_slots(copy);
            }
            // Here the entries go that were closed since, with no lock held.
            drop(copy);
        }
        Self::from_slots(self.copy_by(usize::MAX)?)
    }

    /// Copies the entries, so many under each hold of the lock.
    fn copy_by(&self, step: usize) -> Result<Vec<Option<Descriptor>>, Errno> {
        let mut copy = Vec::new();
        loop {
            // The room is made with the lock open: allocation may reclaim.
            let needed = self.slots.lock().len();
            copy.try_reserve_exact(needed - copy.len().min(needed)).map_err(|_| Errno::ENOMEM)?;
            resched_point(Sleep::Killable)?;
            let slots = self.slots.lock();
            let room = copy.capacity() - copy.len();
            for slot in slots.iter().skip(copy.len()).take(step.min(room)) {
                copy.try_push(slot.clone()).map_err(Errno::from)?;
            }
            if copy.len() >= slots.len() {
                return Ok(copy);
            }
        }
    }

    fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// What `fd` refers to; EBADF.
    pub fn get(&self, fd: i32) -> Result<Descriptor, Errno> {
        let slots = self.slots.lock();
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        speculation::get(&slots, index).and_then(Option::clone).ok_or(Errno::EBADF)
    }

    /// Enters a descriptor at the lowest free number from `from` on; EMFILE at `limit`. O(descriptors).
    pub fn insert(&self, descriptor: Descriptor, from: usize, limit: u64) -> Result<i32, Errno> {
        loop {
            let mut slots = self.slots.lock();
            let free = (from..slots.len()).find(|&i| slots[i].is_none()).unwrap_or(slots.len().max(from));
            if free as u64 >= limit {
                return Err(Errno::EMFILE);
            }
            if free < slots.len() {
                slots[free] = Some(descriptor);
                self.note_change();
                return Ok(free as i32);
            }
            let len = slots.len();
            drop(slots);
            self.grow(len, free + 1)?;
        }
    }

    /// Makes room for numbers below `len`, if there is still room for `was` only.
    fn grow(&self, was: usize, len: usize) -> Result<(), Errno> {
        let mut larger: Vec<Option<Descriptor>> =
            TryVec::try_with_capacity(len.next_power_of_two().max(8)).map_err(Errno::from)?;
        let mut slots = self.slots.lock();
        if slots.len() != was {
            return Ok(());
        }
        let old = core::mem::take(&mut *slots);
        for slot in old {
            larger.try_push(slot).map_err(Errno::from)?;
        }
        while larger.len() < larger.capacity() {
            larger.try_push(None).map_err(Errno::from)?;
        }
        *slots = larger;
        Ok(())
    }

    /// Puts a descriptor at exactly `fd`; what was there comes back, to be dropped. EBADF at or above `limit`.
    pub fn replace(&self, fd: i32, descriptor: Descriptor, limit: u64) -> Result<Option<Descriptor>, Errno> {
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        if index as u64 >= limit {
            return Err(Errno::EBADF);
        }
        loop {
            let mut slots = self.slots.lock();
            if let Some(slot) = speculation::get_mut(&mut slots, index) {
                self.note_change();
                return Ok(slot.replace(descriptor));
            }
            let len = slots.len();
            drop(slots);
            self.grow(len, index + 1)?;
        }
    }

    /// Takes a descriptor out; EBADF.
    pub fn remove(&self, fd: i32) -> Result<Descriptor, Errno> {
        let mut slots = self.slots.lock();
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        self.note_change();
        speculation::get_mut(&mut slots, index).and_then(Option::take).ok_or(Errno::EBADF)
    }

    /// Sets or clears close-on-exec; EBADF.
    pub fn set_close_on_exec(&self, fd: i32, on: bool) -> Result<(), Errno> {
        let mut slots = self.slots.lock();
        let index = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        let slot = speculation::get_mut(&mut slots, index).and_then(Option::as_mut).ok_or(Errno::EBADF)?;
        slot.close_on_exec = on;
        self.note_change();
        Ok(())
    }

    /// exec: closes what is to be closed.
    pub fn close_for_exec(&self) {
        let len = self.slots.lock().len();
        for i in 0..len {
            let mut slots = self.slots.lock();
            let closed = slots.get_mut(i).and_then(|s| s.take_if(|d| d.close_on_exec));
            drop(slots);
            drop(closed);
            let _ = resched_point(Sleep::Killable);
        }
    }
}
