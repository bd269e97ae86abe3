//! Pipes: a ring of 64 KiB, as Linux's by default, made page by page as it fills.
//!
//! A pipe's lock is held for one page's copy at most and never while user memory is touched: bytes go through a
//! small buffer on the stack.

use alloc::vec::Vec;
use quire_abi::Errno;
use quire_abi::layout::poll;
use quire_mm::fallible::{KArc, try_zeroed};
use quire_mm::sync::Rank;

use crate::task::wait::{Sleep, WaitQueue};
use crate::vm::{Cpu, SpinLock};

/// Bytes that a pipe holds.
pub const CAPACITY: usize = 65536;

/// Writes of up to this many bytes are not torn (`PIPE_BUF`).
pub const ATOMIC: usize = 4096;

/// Which end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Reads.
    Reader,
    /// Writes.
    Writer,
}

struct Ring {
    /// Grows by doubling up to [`CAPACITY`]; its length is a power of two or 0.
    bytes: Vec<u8>,
    start: usize,
    len: usize,
    /// Bytes that were ever taken out.
    taken: u64,
    readers: u32,
    writers: u32,
}

/// A pipe.
pub struct Pipe {
    ring: SpinLock<Ring>,
    not_empty: WaitQueue,
    not_full: WaitQueue,
}

impl Pipe {
    /// A pipe with one reader and one writer.
    pub fn new() -> Result<KArc<Self>, Errno> {
        let ring = Ring { bytes: Vec::new(), start: 0, len: 0, taken: 0, readers: 1, writers: 1 };
        Ok(KArc::try_new(Self {
            ring: SpinLock::new(Cpu, Rank::Object, ring),
            not_empty: WaitQueue::new(),
            not_full: WaitQueue::new(),
        })?)
    }

    /// One open file of a side is gone.
    pub fn close(&self, side: Side) {
        let mut ring = self.ring.lock();
        match side {
            Side::Reader => ring.readers -= 1,
            Side::Writer => ring.writers -= 1,
        }
        drop(ring);
        self.not_empty.wake_all();
        self.not_full.wake_all();
        super::poll::notify();
    }

    /// Copies up to `to.len()` bytes without removing them; returns how many, 0 at the end, and their position for
    /// [`Pipe::consume`]. Sleeps while there are none, unless `nonblocking`: EAGAIN.
    pub fn peek(&self, to: &mut [u8], nonblocking: bool) -> Result<(usize, u64), Errno> {
        if nonblocking {
            self.try_peek(to).ok_or(Errno::EAGAIN)
        } else {
            self.not_empty.wait_until(Sleep::Interruptible, None, || self.try_peek(to))
        }
    }

    fn try_peek(&self, to: &mut [u8]) -> Option<(usize, u64)> {
        let ring = self.ring.lock();
        if ring.len == 0 {
            return (ring.writers == 0).then_some((0, ring.taken));
        }
        let n = to.len().min(ring.len);
        let first = n.min(ring.bytes.len() - ring.start);
        to[..first].copy_from_slice(&ring.bytes[ring.start..ring.start + first]);
        to[first..n].copy_from_slice(&ring.bytes[..n - first]);
        Some((n, ring.taken))
    }

    /// Removes `n` bytes that [`Pipe::peek`] returned at `position`. If another reader has removed some meanwhile,
    /// removes nothing and returns false. So a reader with a bad buffer loses no bytes.
    pub fn consume(&self, n: usize, position: u64) -> bool {
        {
            let mut ring = self.ring.lock();
            if ring.taken != position {
                return false;
            }
            ring.taken += n as u64;
            ring.start = (ring.start + n) & (ring.bytes.len() - 1);
            ring.len -= n;
        }
        self.not_full.wake_all();
        super::poll::notify();
        true
    }

    /// Writes bytes; returns how many. All or none if `from` is at most [`ATOMIC`] long. Sleeps while there is no room,
    /// unless `nonblocking`: EAGAIN. EPIPE with no reader left.
    pub fn write(&self, from: &[u8], nonblocking: bool) -> Result<usize, Errno> {
        if from.is_empty() {
            return Ok(0);
        }
        let put = loop {
            let attempt = if nonblocking {
                self.try_write(from)?.ok_or(Errno::EAGAIN)?
            } else {
                self.not_full.wait_until(Sleep::Interruptible, None, || self.try_write(from).transpose())??
            };
            match attempt {
                Put::Bytes(n) => break n,
                Put::Grow(size) => self.grow(size)?,
            }
        };
        self.not_empty.wake_all();
        super::poll::notify();
        Ok(put)
    }

    fn try_write(&self, from: &[u8]) -> Result<Option<Put>, Errno> {
        let mut ring = self.ring.lock();
        if ring.readers == 0 {
            return Err(Errno::EPIPE);
        }
        let room = CAPACITY - ring.len;
        let wanted = if from.len() <= ATOMIC { from.len() } else { from.len().min(room.max(1)) };
        if room < wanted {
            return Ok(None);
        }
        let size = ring.bytes.len();
        if ring.len + wanted > size {
            return Ok(Some(Put::Grow((ring.len + wanted).next_power_of_two().max(ATOMIC))));
        }
        let end = (ring.start + ring.len) & (size - 1);
        let first = wanted.min(size - end);
        ring.bytes[end..end + first].copy_from_slice(&from[..first]);
        ring.bytes[..wanted - first].copy_from_slice(&from[first..wanted]);
        ring.len += wanted;
        Ok(Some(Put::Bytes(wanted)))
    }

    /// Makes the ring `size` bytes long; the lock is released during the allocation.
    fn grow(&self, size: usize) -> Result<(), Errno> {
        let mut larger = try_zeroed(size)?;
        let mut ring = self.ring.lock();
        let old_size = ring.bytes.len();
        if old_size < size {
            let first = ring.len.min(old_size - ring.start);
            larger[..first].copy_from_slice(&ring.bytes[ring.start..ring.start + first]);
            let rest = ring.len - first;
            larger[first..first + rest].copy_from_slice(&ring.bytes[..rest]);
            ring.start = 0;
            core::mem::swap(&mut ring.bytes, &mut larger);
        }
        drop(ring);
        drop(larger);
        Ok(())
    }

    /// The events of a side for `poll`.
    pub fn ready(&self, side: Side) -> u16 {
        let ring = self.ring.lock();
        match side {
            Side::Reader => {
                let data = if ring.len > 0 { poll::IN } else { 0 };
                data | if ring.writers == 0 { poll::HUP } else { 0 }
            }
            Side::Writer if ring.readers == 0 => poll::OUT | poll::ERR,
            Side::Writer if CAPACITY - ring.len >= ATOMIC => poll::OUT,
            Side::Writer => 0,
        }
    }
}

enum Put {
    Bytes(usize),
    Grow(usize),
}
