//! CLOCK_REALTIME: the time since power-on, and what somebody has set it ahead by. There is no battery-backed clock, so it
//! begins at 0 (1970) with the machine.
//!
//! A sleep until a point of this clock ends there also if the clock is set meanwhile: whoever sets it wakes those that
//! sleep by it, and they look how long it still is.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use quire_abi::Errno;

use super::wait::{Sleep, WaitQueue};
use crate::arch::timer;

/// Nanoseconds that it is ahead of the time since power-on.
static AHEAD: AtomicU64 = AtomicU64::new(0);
/// How often it was set.
static CHANGES: AtomicU32 = AtomicU32::new(0);
static SLEEPERS: WaitQueue = WaitQueue::new();

/// Now, in nanoseconds since 1970.
pub fn real_ns() -> u64 {
    timer::now_ns().saturating_add(AHEAD.load(Ordering::Relaxed))
}

/// Sets it. EINVAL for a time that would lie before power-on's: no clock runs below 0.
pub fn set(to: u64) -> Result<(), Errno> {
    let ahead = to.checked_sub(timer::now_ns()).ok_or(Errno::EINVAL)?;
    AHEAD.store(ahead, Ordering::Relaxed);
    CHANGES.fetch_add(1, Ordering::SeqCst);
    SLEEPERS.wake_all();
    Ok(())
}

/// A point of time to sleep until, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Since power-on.
    Monotonic(u64),
    /// By this clock.
    Real(u64),
}

/// As [`wait::sleep`](super::wait::sleep), interruptibly and until a point of this clock.
pub fn sleep_until<T>(time: u64, mut ready: impl FnMut() -> Option<T>) -> Result<T, Errno> {
    loop {
        let changes = CHANGES.load(Ordering::SeqCst);
        let deadline = time.saturating_sub(AHEAD.load(Ordering::Relaxed));
        let was_set = || (CHANGES.load(Ordering::SeqCst) != changes).then_some(None);
        let woken = SLEEPERS.wait_until(Sleep::Interruptible, Some(deadline), || ready().map(Some).or_else(was_set))?;
        if let Some(value) = woken {
            return Ok(value);
        }
    }
}
