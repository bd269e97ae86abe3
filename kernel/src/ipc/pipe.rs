//! Pipes: a ring of 64 KiB, Linux's default, in pages that are allocated as it fills. The capacity of a pipe can be
//! reduced.
//!
//! Bytes are copied once, between the pages and a program's memory. The copy may fault and sleep, so the pipe's lock is
//! not held meanwhile. Instead, the copying thread has a *claim* on one side, which covers a part of the ring, and
//! nobody else can claim that side. A [`Reading`] covers bytes that were written; a [`Writing`] covers free bytes,
//! which nobody reads before it ends. So the parts are disjoint, a reader with a bad buffer loses no bytes, and a write
//! of up to [`ATOMIC`] bytes is seen whole or not at all. The lock is held for a few words, or for a short write's
//! bytes.
//!
//! Pages stay while there are bytes. The reader that empties the pipe frees all but the first one, and the ring
//! restarts there.

use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use quire_abi::Errno;
use quire_abi::layout::poll;
use quire_mm::addr::PAGE_SIZE;
use quire_mm::fallible::KArc;
use quire_mm::machine::Machine;
use quire_mm::page_alloc::{Gfp, PageBlock};
use quire_mm::sync::Rank;

use super::source::Source;
use crate::task::point::COPY;
use crate::task::wait::Sleep;
use crate::vm::{self, Cpu, SpinLock};

/// The capacity of a pipe in bytes: the default, and the maximum.
pub const CAPACITY: usize = 65536;

/// Writes of up to this many bytes are not torn (`PIPE_BUF`).
pub const ATOMIC: usize = 4096;

/// Writes of up to this many bytes are made under the lock, without a claim.
pub const SHORT: usize = 256;

const PAGES: usize = CAPACITY / PAGE_SIZE;

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Reads.
    Reader,
    /// Writes.
    Writer,
}

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

struct Ring {
    /// The offset of the first byte, below [`CAPACITY`], and the number of bytes.
    start: usize,
    len: usize,
    /// The capacity, [`ATOMIC`] to [`CAPACITY`]; a power of two.
    capacity: usize,
    readers: u32,
    writers: u32,
    /// There is a [`Reading`].
    is_read: bool,
    /// There is a [`Writing`].
    is_written: bool,
}

impl Ring {
    /// The first free byte.
    fn end(&self) -> usize {
        (self.start + self.len) % CAPACITY
    }

    fn room(&self) -> usize {
        // (Bytes that a writer has claimed stay when the capacity is reduced.)
        self.capacity.saturating_sub(self.len)
    }

    /// The events of each side for `poll`: the reader's in the lower half.
    fn events(&self) -> u32 {
        let data = if self.len > 0 { poll::IN | poll::RDNORM } else { 0 };
        let end = if self.writers == 0 { poll::HUP } else { 0 };
        let room = if self.room() >= ATOMIC { poll::OUT | poll::WRNORM } else { 0 };
        let gone = if self.readers == 0 { poll::OUT | poll::WRNORM | poll::ERR } else { 0 };
        u32::from(data | end) | u32::from(room | gone) << 16
    }
}

/// A pipe.
pub struct Pipe {
    number: u64,
    ring: SpinLock<Ring>,
    /// The ring's pages; null for none. The holder of a [`Writing`] sets those that it needs. They are removed under
    /// the lock while nobody has a claim.
    pages: [AtomicPtr<u8>; PAGES],
    /// [`Ring::events`], for reading without the lock. Written under it.
    events: AtomicU32,
    readers: Source,
    writers: Source,
}

impl Pipe {
    /// A pipe with one reader and one writer.
    pub fn new() -> Result<KArc<Self>, Errno> {
        let ring =
            Ring { start: 0, len: 0, capacity: CAPACITY, readers: 1, writers: 1, is_read: false, is_written: false };
        Ok(KArc::try_new(Self {
            number: NEXT_NUMBER.fetch_add(1, Ordering::Relaxed),
            events: AtomicU32::new(ring.events()),
            ring: SpinLock::new(Cpu, Rank::Object, ring),
            pages: [const { AtomicPtr::new(core::ptr::null_mut()) }; PAGES],
            readers: Source::new(),
            writers: Source::new(),
        })?)
    }

    /// Its inode number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Counts one more open file of a side.
    pub fn open(&self, side: Side) {
        let mut ring = self.ring.lock();
        match side {
            Side::Reader => ring.readers += 1,
            Side::Writer => ring.writers += 1,
        }
        self.publish(&ring);
        drop(ring);
        self.readers.wake(u16::MAX);
        self.writers.wake(u16::MAX);
    }

    /// Counts one open file of a side less.
    pub fn close(&self, side: Side) {
        let mut ring = self.ring.lock();
        match side {
            Side::Reader => ring.readers -= 1,
            Side::Writer => ring.writers -= 1,
        }
        self.publish(&ring);
        drop(ring);
        self.readers.wake(u16::MAX);
        self.writers.wake(u16::MAX);
    }

    /// How many bytes it may hold.
    pub fn capacity(&self) -> usize {
        self.ring.lock().capacity
    }

    /// How many bytes it holds.
    pub fn unread(&self) -> usize {
        self.ring.lock().len
    }

    /// Sets the capacity to `bytes`, rounded up to a power of two of at least a page; returns it. EPERM for more than
    /// [`CAPACITY`], EBUSY if the pipe already contains more bytes.
    pub fn set_capacity(&self, bytes: usize) -> Result<usize, Errno> {
        if bytes > 1 << 31 {
            return Err(Errno::EINVAL);
        }
        let capacity = bytes.next_power_of_two().max(ATOMIC);
        if capacity > CAPACITY {
            return Err(Errno::EPERM);
        }
        let mut ring = self.ring.lock();
        if ring.len > capacity {
            return Err(Errno::EBUSY);
        }
        ring.capacity = capacity;
        self.publish(&ring);
        drop(ring);
        self.writers.wake(poll::OUT | poll::WRNORM);
        Ok(capacity)
    }

    /// The source of a side, where threads wait.
    pub fn source(&self, side: Side) -> &Source {
        match side {
            Side::Reader => &self.readers,
            Side::Writer => &self.writers,
        }
    }

    fn publish(&self, ring: &Ring) {
        self.events.store(ring.events(), Ordering::Relaxed);
    }

    /// The events of a side for `poll`.
    pub fn ready(&self, side: Side) -> u16 {
        let events = self.events.load(Ordering::Relaxed);
        match side {
            Side::Reader => events as u16,
            Side::Writer => (events >> 16) as u16,
        }
    }

    /// A claim on up to `most` bytes, at most [`COPY`]; `None` at the end. Sleeps while there are no bytes, unless
    /// `nonblocking`: EAGAIN.
    pub fn read(&self, most: usize, nonblocking: bool) -> Result<Option<Reading<'_>>, Errno> {
        let claim = || {
            let mut ring = self.ring.lock();
            if ring.is_read {
                return None;
            }
            if ring.len == 0 {
                let result = if ring.writers == 0 { Ok(None) } else { Err(Errno::EAGAIN) };
                return (ring.writers == 0 || nonblocking).then_some(result);
            }
            ring.is_read = true;
            let part = Part { at: ring.start, left: ring.len.min(most).min(COPY) };
            Some(Ok(Some(Reading { pipe: self, part, done: 0, rest: ring.len - part.left })))
        };
        // (A claim is short, so even a caller that does not want to sleep for bytes sleeps for the end of a claim.)
        let cut = if nonblocking { Sleep::Killable } else { Sleep::Interruptible };
        self.readers.sleepers.wait_until(cut, None, claim)?
    }

    /// A claim on `wanted` free bytes or more, up to `most` and [`COPY`]. Sleeps while there are fewer, unless
    /// `nonblocking`: EAGAIN. EPIPE if no reader is left.
    pub fn write(&self, wanted: usize, most: usize, nonblocking: bool) -> Result<Writing<'_>, Errno> {
        let claim = || {
            let mut ring = self.ring.lock();
            if ring.readers == 0 {
                return Some(Err(Errno::EPIPE));
            }
            if ring.is_written {
                return None;
            }
            if ring.room() < wanted {
                return nonblocking.then_some(Err(Errno::EAGAIN));
            }
            ring.is_written = true;
            let part = Part { at: ring.end(), left: ring.room().min(most).min(COPY) };
            Some(Ok(Writing { pipe: self, part, done: 0 }))
        };
        let cut = if nonblocking { Sleep::Killable } else { Sleep::Interruptible };
        self.writers.sleepers.wait_until(cut, None, claim)?
    }

    /// Adds up to [`SHORT`] bytes, if there is room, a page for them and no claim; returns whether it did. EPIPE if no
    /// reader is left.
    pub fn put(&self, bytes: &[u8]) -> Result<bool, Errno> {
        debug_assert!(bytes.len() <= SHORT);
        let mut ring = self.ring.lock();
        if ring.readers == 0 {
            return Err(Errno::EPIPE);
        }
        let mut part = Part { at: ring.end(), left: bytes.len() };
        let last = (part.at + bytes.len().saturating_sub(1)) % CAPACITY;
        if ring.is_written || ring.room() < bytes.len() || !self.has_page(part.at) || !self.has_page(last) {
            return Ok(false);
        }
        let (first, second) = bytes.split_at(part.here());
        for bytes in [first, second] {
            // SAFETY: the range is free, and nobody has claimed it; the lock is held, so nobody does.
            unsafe { self.bytes(part.at, bytes.len()) }.copy_from_slice(bytes);
            part.pass(bytes.len());
        }
        ring.len += bytes.len();
        self.publish(&ring);
        drop(ring);
        self.readers.wake(poll::IN | poll::RDNORM);
        Ok(true)
    }

    fn has_page(&self, at: usize) -> bool {
        !self.pages[at / PAGE_SIZE].load(Ordering::Relaxed).is_null()
    }

    /// `len` bytes of the ring from `at` on, within a page; an empty slice if that page does not exist.
    ///
    /// # Safety
    /// The bytes belong to the caller: either they are covered by its claim, or it holds the lock and they are free and
    /// not claimed.
    #[allow(clippy::mut_from_ref)]
    unsafe fn bytes(&self, at: usize, len: usize) -> &mut [u8] {
        let page = self.pages[at / PAGE_SIZE].load(Ordering::Relaxed);
        if page.is_null() || len == 0 {
            return &mut [];
        }
        debug_assert!(at % PAGE_SIZE + len <= PAGE_SIZE);
        // SAFETY: the page exists until nobody has a claim and the ring is empty. The range is within it, and no other
        // reference to it exists: the caller's promise. Its memory is initialised with some value even before the first
        // write.
        unsafe { core::slice::from_raw_parts_mut(page.add(at % PAGE_SIZE), len) }
    }

    /// The pages that an empty ring does not need. The caller holds the lock, and nobody has a claim.
    fn spare_pages(&self) -> [*mut u8; PAGES - 1] {
        core::array::from_fn(|i| {
            let page = &self.pages[i + 1];
            let spare = page.load(Ordering::Relaxed);
            if !spare.is_null() {
                page.store(core::ptr::null_mut(), Ordering::Relaxed);
            }
            spare
        })
    }
}

/// A page for a ring.
fn allocate() -> Result<*mut u8, Errno> {
    let page = vm::PAGES.alloc_page(Gfp::KERNEL)?;
    let at = Cpu.direct_map(page.addr());
    at.expose_provenance();
    page.into_raw();
    Ok(at)
}

fn free(page: *mut u8) {
    if !page.is_null() {
        // SAFETY: it is from `allocate`, and was removed from the pipe, so that this is its only owner.
        drop(unsafe { PageBlock::from_raw(Cpu, Cpu.direct_map_to_phys(page).pfn(), 0) });
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.pages.iter_mut().for_each(|page| free(*page.get_mut()));
    }
}

/// A part of the ring.
#[derive(Clone, Copy)]
struct Part {
    at: usize,
    left: usize,
}

impl Part {
    /// How many of its bytes are in its first page.
    fn here(&self) -> usize {
        self.left.min(PAGE_SIZE - self.at % PAGE_SIZE)
    }

    fn pass(&mut self, n: usize) {
        self.at = (self.at + n) % CAPACITY;
        self.left -= n;
    }
}

/// The right to read a part of a pipe's bytes. When it ends, the bytes that were [passed](Reading::pass) are removed
/// from the pipe.
pub struct Reading<'a> {
    pipe: &'a Pipe,
    part: Part,
    done: usize,
    /// The number of bytes in the pipe beyond this part.
    rest: usize,
}

impl Reading<'_> {
    /// The next bytes, up to the end of a page; none at the end.
    pub fn next(&mut self) -> &[u8] {
        // SAFETY: they are covered by this claim, which is borrowed.
        unsafe { self.pipe.bytes(self.part.at, self.part.here()) }
    }

    /// `n` of the next bytes have been read.
    pub fn pass(&mut self, n: usize) {
        self.part.pass(n);
        self.done += n;
    }

    /// Bytes that it still covers.
    pub fn left(&self) -> usize {
        self.part.left
    }

    /// Keeps all bytes in the pipe, including those that were passed.
    pub fn keep_all(&mut self) {
        self.done = 0;
    }

    /// Whether it covers all bytes that were in the pipe.
    pub fn is_all(&self) -> bool {
        self.rest == 0
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut ring = self.pipe.ring.lock();
        let had_room = ring.room() >= ATOMIC;
        ring.is_read = false;
        ring.start = (ring.start + self.done) % CAPACITY;
        ring.len -= self.done;
        let mut spare = None;
        if ring.len == 0 && !ring.is_written {
            ring.start = 0;
            // (Pages are allocated in order, so there are further ones only if there is a second one.)
            spare = self.pipe.has_page(PAGE_SIZE).then(|| self.pipe.spare_pages());
        }
        self.pipe.publish(&ring);
        drop(ring);
        spare.into_iter().flatten().for_each(free);
        // (For a reader that waits for the end of the claim.)
        self.pipe.readers.sleepers.wake_all();
        if self.done > 0 && had_room {
            // (No event of poll: the earlier room was already reported.)
            self.pipe.writers.sleepers.wake_all();
        } else if self.done > 0 {
            self.pipe.writers.wake(poll::OUT | poll::WRNORM);
        }
    }
}

/// The right to write to a part of a pipe's free bytes. When it ends, the bytes that were [passed](Writing::pass) are
/// in the pipe.
pub struct Writing<'a> {
    pipe: &'a Pipe,
    part: Part,
    done: usize,
}

impl Writing<'_> {
    /// The next free bytes, up to the end of a page; none at the end. ENOMEM if there is no page for them.
    pub fn next(&mut self) -> Result<&mut [u8], Errno> {
        if self.part.left > 0 && !self.pipe.has_page(self.part.at) {
            self.pipe.pages[self.part.at / PAGE_SIZE].store(allocate()?, Ordering::Relaxed);
        }
        // SAFETY: they are covered by this claim, which is borrowed.
        Ok(unsafe { self.pipe.bytes(self.part.at, self.part.here()) })
    }

    /// `n` of the next bytes have been written.
    pub fn pass(&mut self, n: usize) {
        self.part.pass(n);
        self.done += n;
    }

    /// Bytes that it still covers.
    pub fn left(&self) -> usize {
        self.part.left
    }

    /// Keeps only `n` of the written bytes.
    pub fn keep(&mut self, n: usize) {
        self.done = self.done.min(n);
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut ring = self.pipe.ring.lock();
        ring.is_written = false;
        ring.len += self.done;
        self.pipe.publish(&ring);
        drop(ring);
        // (For a writer that waits for the end of the claim.)
        self.pipe.writers.sleepers.wake_all();
        if self.done > 0 {
            self.pipe.readers.wake(poll::IN | poll::RDNORM);
        }
    }
}
