//! eventfd: a counter that threads wait for.

use core::sync::atomic::{AtomicU64, Ordering};

use quire_abi::Errno;
use quire_abi::layout::poll;
use quire_mm::fallible::KArc;

use super::source::Source;
use crate::task::wait::Sleep;

/// The limit of the counter: a write that would reach it waits.
const END: u64 = u64::MAX;

/// A counter.
pub struct EventFd {
    value: AtomicU64,
    /// Whether a read takes 1 instead of the whole value.
    is_semaphore: bool,
    /// Its readers, writers and watchers.
    pub source: Source,
}

impl EventFd {
    /// A counter with a value.
    pub fn new(value: u32, is_semaphore: bool) -> Result<KArc<Self>, Errno> {
        Ok(KArc::try_new(Self { value: AtomicU64::new(value.into()), is_semaphore, source: Source::new() })?)
    }

    /// Takes the value that a read returns from the counter. Sleeps while it is 0, unless `nonblocking`: EAGAIN.
    pub fn read(&self, nonblocking: bool) -> Result<u64, Errno> {
        let taken = self.wait(nonblocking, |value| {
            let taken = if self.is_semaphore { 1 } else { value };
            (value > 0).then(|| (value - taken, taken))
        })?;
        self.source.wake(poll::OUT | poll::WRNORM);
        Ok(taken)
    }

    /// Adds to the counter. Sleeps while the sum is too large, unless `nonblocking`: EAGAIN. EINVAL for a number that
    /// can never be added.
    pub fn write(&self, more: u64, nonblocking: bool) -> Result<(), Errno> {
        if more == END {
            return Err(Errno::EINVAL);
        }
        self.wait(nonblocking, |value| (more < END - value).then(|| (value + more, 0)))?;
        self.source.wake(poll::IN | poll::RDNORM);
        Ok(())
    }

    /// Waits until `change` returns a new value and a result, and sets the value.
    fn wait(&self, nonblocking: bool, change: impl Fn(u64) -> Option<(u64, u64)>) -> Result<u64, Errno> {
        let attempt = || {
            let next = |value| change(value).map(|(value, _)| value);
            let old = self.value.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).ok()?;
            change(old).map(|(_, result)| result)
        };
        if nonblocking {
            attempt().ok_or(Errno::EAGAIN)
        } else {
            self.source.sleepers.wait_until(Sleep::Interruptible, None, attempt)
        }
    }

    /// Its events.
    pub fn ready(&self) -> u16 {
        let value = self.value.load(Ordering::Acquire);
        let readable = if value > 0 { poll::IN | poll::RDNORM } else { 0 };
        let writable = if value < END - 1 { poll::OUT | poll::WRNORM } else { 0 };
        readable | writable
    }
}
