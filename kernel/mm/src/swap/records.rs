//! The records of slots: 16 bytes each, in frames of their own.

use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::*};

use super::blocks::Place;
use super::lists::{Body, List, body};
use crate::addr::{PAGE_SIZE, Pfn};
use crate::cgroup::Machine;
use crate::frame;

/// One slot.
#[repr(C, align(16))]
pub(super) struct Record {
    users: AtomicU32,
    /// The size of the contents in bytes; 0 if they repeat one word.
    len: AtomicU16,
    /// For a free record: the next free one in its frame plus 1, or 0. Otherwise the object's number in its block; for
    /// a word, the control group.
    index: AtomicU16,
    /// The word; or the block's first frame, and in bits 63 to 48 the control group.
    place: AtomicU64,
}

const _: () = assert!(size_of::<Record>() == 16 && PAGE_SIZE >> 4 == PER_FRAME);

/// Records in a frame.
const PER_FRAME: usize = 256;

const GROUP_SHIFT: u32 = 48;

/// Where contents are.
pub(super) enum Contents {
    /// They repeat this word.
    Word(u64),
    /// In a block, with their length.
    At(Place, usize),
}

impl Record {
    pub fn set_word(&self, word: u64, group: u16) {
        self.place.store(word, Relaxed);
        self.index.store(group, Relaxed);
        self.len.store(0, Relaxed);
    }

    pub fn set_place(&self, place: Place, len: usize, group: u16) {
        self.place.store(place.block.0 as u64 | u64::from(group) << GROUP_SHIFT, Relaxed);
        self.index.store(place.index as u16, Relaxed);
        self.len.store(len as u16, Relaxed);
    }

    /// The control group that the slot is charged to.
    pub fn group(&self) -> u16 {
        match self.len.load(Relaxed) {
            0 => self.index.load(Relaxed),
            _ => (self.place.load(Relaxed) >> GROUP_SHIFT) as u16,
        }
    }

    /// The contents of a slot with users. They were set before the slot's number was published in an entry.
    pub fn contents(&self) -> Contents {
        let place = self.place.load(Relaxed);
        match self.len.load(Relaxed) as usize {
            0 => Contents::Word(place),
            len => {
                let block = Pfn((place & ((1 << GROUP_SHIFT) - 1)) as usize);
                Contents::At(Place { block, index: self.index.load(Relaxed) as usize }, len)
            }
        }
    }

    pub fn share(&self) {
        let old = self.users.fetch_add(1, Relaxed);
        debug_assert!(old != 0, "a slot without users is shared");
    }

    /// Removes a user; returns whether it was the last one: then the caller owns the record.
    pub fn release(&self) -> bool {
        // Release and Acquire: all users have read before the last one frees.
        let old = self.users.fetch_sub(1, AcqRel);
        debug_assert!(old != 0, "a slot has fewer users than 0");
        old == 1
    }

    pub fn users(&self) -> u32 {
        self.users.load(Relaxed)
    }
}

/// All records, under the store's lock.
pub(super) struct Records<M: Machine> {
    machine: M,
    /// Frames with free records.
    with_room: List,
    frames: usize,
}

impl<M: Machine> Records<M> {
    pub const fn new(machine: M) -> Self {
        Self { machine, with_room: List::EMPTY, frames: 0 }
    }

    pub fn frames(&self) -> usize {
        self.frames
    }

    /// A record with one user.
    pub fn alloc(&mut self) -> Option<&'static Record> {
        let pfn = match self.with_room.first() {
            Some(pfn) => pfn,
            None => self.grow()?,
        };
        let body = body(self.machine, pfn);
        let record = self.at(pfn, body.free.load(Relaxed) as usize - 1);
        let next = record.index.load(Relaxed);
        body.free.store(next.into(), Relaxed);
        body.live.fetch_add(1, Relaxed);
        if next == 0 {
            self.with_room.remove(self.machine, pfn);
        }
        record.users.store(1, Relaxed);
        Some(record)
    }

    fn grow(&mut self) -> Option<Pfn> {
        let pfn = frame::alloc_from_reserves(self.machine).ok()?;
        for i in 0..PER_FRAME {
            let next = if i + 1 < PER_FRAME { i as u16 + 2 } else { 0 };
            let new = Record {
                users: AtomicU32::new(0),
                len: AtomicU16::new(0),
                index: AtomicU16::new(next),
                place: AtomicU64::new(0),
            };
            // SAFETY: a new frame has room for this many, and nobody else accesses it.
            unsafe { self.machine.direct_map(pfn.addr()).cast::<Record>().add(i).write(new) };
        }
        body(self.machine, pfn).live.store(0, Relaxed);
        body(self.machine, pfn).next_frame.store(0, Relaxed);
        body(self.machine, pfn).free.store(1, Relaxed);
        self.frames += 1;
        self.with_room.push(self.machine, pfn);
        Some(pfn)
    }

    fn at(&self, pfn: Pfn, i: usize) -> &'static Record {
        // SAFETY: the frame holds `PER_FRAME` records, and stays while one of them is in use or on the list of free
        // ones.
        unsafe { &*self.machine.direct_map(pfn.addr()).cast::<Record>().add(i) }
    }

    /// Frees a record without users.
    pub fn free(&mut self, record: &'static Record) {
        let addr = self.machine.direct_map_to_phys(core::ptr::from_ref(record).cast());
        let (pfn, i) = (addr.pfn(), (addr.get() & (PAGE_SIZE - 1)) / size_of::<Record>());
        let Body { live, free, .. } = body(self.machine, pfn);
        record.users.store(0, Relaxed);
        record.index.store(free.load(Relaxed) as u16, Relaxed);
        if free.load(Relaxed) == 0 {
            self.with_room.push(self.machine, pfn);
        }
        free.store(i as u64 + 1, Relaxed);
        if live.fetch_sub(1, Relaxed) == 1 {
            self.with_room.remove(self.machine, pfn);
            free.store(0, Relaxed);
            self.frames -= 1;
            frame::free_kernel(self.machine, pfn);
        }
    }
}
