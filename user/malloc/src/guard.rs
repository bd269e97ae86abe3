//! The optional mode for hunting bugs: each block ends at an inaccessible page, and freed blocks stay inaccessible in a
//! quarantine, so that an overrun or a use after free faults where it happens.
//!
//! Every block is a mapping: a front page with the block's [`Record`], the block's pages with the block at their end,
//! and the forbidden page. A block of `size` bytes ends less than its alignment before that page.

use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::lock::Lock;
use crate::{Malloc, PAGE, System};

/// How many freed blocks the quarantine holds.
const QUARANTINE: usize = 256;
/// How many bytes of address space it holds at most.
const QUARANTINE_BYTES: usize = 256 << 20;

/// Freed mappings, oldest first, in a ring.
struct Quarantine {
    ring: [(usize, usize); QUARANTINE],
    first: usize,
    len: usize,
    bytes: usize,
}

pub struct Guard {
    on: AtomicBool,
    quarantine: Lock<Quarantine>,
}

/// At the start of a guarded mapping.
struct Record {
    mark: usize,
    len: usize,
    size: usize,
}

impl Guard {
    pub const fn new() -> Guard {
        let quarantine = Quarantine { ring: [(0, 0); QUARANTINE], first: 0, len: 0, bytes: 0 };
        Guard { on: AtomicBool::new(false), quarantine: Lock::new(AtomicU32::new(0), quarantine) }
    }

    #[inline(always)]
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    pub fn lock(&self, system: &impl System) {
        self.quarantine.acquire(system);
    }

    pub fn unlock(&self, system: &impl System) {
        self.quarantine.release(system);
    }

    pub fn reset(&self) {
        self.quarantine.reset();
    }
}

impl Quarantine {
    fn holds(&self, at: usize) -> bool {
        (0..self.len).any(|i| {
            let (start, len) = self.ring[(self.first + i) % QUARANTINE];
            (start..start + len).contains(&at)
        })
    }

    /// The oldest mapping, if another of `len` bytes needs its place.
    fn crowded(&mut self, len: usize) -> Option<(usize, usize)> {
        if self.len == 0 || self.len < QUARANTINE && self.bytes + len <= QUARANTINE_BYTES {
            return None;
        }
        let oldest = self.ring[self.first];
        self.first = (self.first + 1) % QUARANTINE;
        self.len -= 1;
        self.bytes -= oldest.1;
        Some(oldest)
    }

    fn push(&mut self, at: usize, len: usize) {
        self.ring[(self.first + self.len) % QUARANTINE] = (at, len);
        self.len += 1;
        self.bytes += len;
    }
}

impl<S: System> Malloc<S> {
    /// Turns the guarded mode on. Only before the first block is handed out; returns whether it is on.
    pub fn guard(&self) -> bool {
        if self.secret() == 0 {
            self.guard.on.store(true, Ordering::Relaxed);
        }
        self.guard.is_on()
    }

    pub(crate) fn guarded(&self, align: usize, size: usize) -> *mut u8 {
        self.start();
        let slack = if align > PAGE { align } else { 0 };
        let room = (size.max(1).next_multiple_of(align.min(PAGE)) + slack).next_multiple_of(PAGE);
        let len = room + 2 * PAGE;
        let Some(start) = self.system.map(len) else { return null_mut() };
        let end = start.as_ptr().addr() + PAGE + room;
        let at = (end - size.max(1)) & !(align - 1);
        // SAFETY: the mapping is new; its last page is nobody's, its first holds the record.
        unsafe {
            if !self.system.forbid(start.add(PAGE + room), PAGE) {
                self.system.unmap(start, len);
                return null_mut();
            }
            start.cast::<Record>().write(Record { mark: self.mark(at), len, size });
            // Finds the mapping from the block: the page in front of the block's pages holds the record, or a pointer
            // to it.
            let front = start.as_ptr().with_addr((at & !(PAGE - 1)) - PAGE);
            if front != start.as_ptr() {
                let skip = front.addr() - start.as_ptr().addr();
                front.cast::<Record>().write(Record { mark: self.mark(at), len: len - skip, size });
                self.system.unmap(start, skip);
            }
        }
        start.as_ptr().with_addr(at)
    }

    fn mark(&self, at: usize) -> usize {
        self.secret() as usize ^ at
    }

    /// The record of a living guarded block, or the end of the process.
    #[allow(clippy::mut_from_ref)] // The record lies in the block's mapping, not in the allocator.
    fn record_of(&self, at: *mut u8) -> &mut Record {
        if self.quarantine(|q| q.holds(at.addr())) == Some(true) {
            self.system.abort("free(): double free detected (block is in quarantine)");
        }
        let front = at.map_addr(|a| (a & !(PAGE - 1)).wrapping_sub(PAGE)).cast::<Record>();
        // SAFETY: the page in front of a guarded block's first holds its record; an address that is no block's may
        // fault here, which is what this mode is for.
        let record = unsafe { &mut *front };
        if record.mark != self.mark(at.addr()) {
            self.system.abort("free(): invalid pointer");
        }
        record
    }

    pub(crate) fn guarded_size(&self, at: *mut u8) -> usize {
        self.record_of(at).size
    }

    pub(crate) fn free_guarded(&self, at: *mut u8) {
        let record = self.record_of(at);
        record.mark = 0;
        let len = record.len;
        let Some(start) = NonNull::new(core::ptr::from_mut(record).cast::<u8>()) else { return };
        // SAFETY: the block was given up; nobody uses the mapping.
        unsafe {
            self.system.advise(start, len, crate::Advice::DontNeed);
            self.system.forbid(start, len);
        }
        let kept = self.quarantine(|q| {
            while let Some((old, bytes)) = q.crowded(len) {
                // SAFETY: it was freed long ago.
                unsafe { self.system.unmap(NonNull::new_unchecked(at.with_addr(old)), bytes) };
            }
            q.push(start.as_ptr().addr(), len);
        });
        if kept.is_none() {
            // SAFETY: the block was given up; nobody uses the mapping.
            unsafe { self.system.unmap(start, len) };
        }
    }

    /// Runs `f` on the quarantine; not at all for a handler that came in the middle of a call which may hold it.
    fn quarantine<R>(&self, f: impl FnOnce(&mut Quarantine) -> R) -> Option<R> {
        match self.enter() {
            Some(_inside) => Some(self.guard.quarantine.with(&self.system, f)),
            None => self.guard.quarantine.try_with(&self.system, f).ok(),
        }
    }
}
