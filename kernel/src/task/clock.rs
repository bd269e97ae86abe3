//! CLOCK_REALTIME: the time since power-on, and what somebody has set it ahead by. There is no battery-backed clock, so it
//! begins at 0 (1970) with the machine.
//!
//! A sleep until a point of this clock ends there also if the clock is set meanwhile: whoever sets it wakes those that
//! sleep by it, and they look how long it still is. Timers that depend on it are [told](Watcher).

use core::cell::Cell;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use intrusive_collections::{LinkedList, LinkedListLink, UnsafeRef, intrusive_adapter};
use quire_abi::Errno;
use quire_mm::sync::Rank;

use super::point::resched_point;
use super::wait::{Sleep, WaitQueue};
use crate::arch::timer;
use crate::vm::{Cpu, SpinLock};

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
    let change = CHANGES.fetch_add(1, Ordering::SeqCst) + 1;
    SLEEPERS.wake_all();
    tell(change);
    Ok(())
}

/// The time since power-on at which this clock shows `time`, as it is set now.
pub fn power_on_ns(time: u64) -> u64 {
    time.saturating_sub(AHEAD.load(Ordering::Relaxed))
}

/// The clock that a point of time is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Since power-on.
    Monotonic,
    /// `CLOCK_REALTIME`.
    Real,
}

impl Base {
    /// Now, by this clock.
    pub fn now(self) -> u64 {
        match self {
            Base::Monotonic => timer::now_ns(),
            Base::Real => real_ns(),
        }
    }

    /// The time since power-on at which this clock shows `time`, as it is set now.
    pub fn power_on_ns(self, time: u64) -> u64 {
        match self {
            Base::Monotonic => time,
            Base::Real => power_on_ns(time),
        }
    }
}

/// Somebody who is told when the clock is set.
pub trait Watch: Sync + 'static {
    /// It was set. The list of watchers is locked ([`Rank::Process`]).
    fn clock_was_set(&self);
}

/// Its place among the watchers. All of it belongs to their list.
pub struct Watcher {
    link: LinkedListLink,
    owner: Cell<Option<*const dyn Watch>>,
    /// The last change that it was told of.
    told: Cell<u32>,
}

// SAFETY: it is touched under the lock of the list only.
unsafe impl Sync for Watcher {}
// SAFETY: as above.
unsafe impl Send for Watcher {}

intrusive_adapter!(InWatchers = UnsafeRef<Watcher>: Watcher { link => LinkedListLink });

/// Those that were told of the last change last are at the end.
struct Watchers(LinkedList<InWatchers>);

// SAFETY: links are touched under the lock only, and a watcher leaves before its owner goes.
unsafe impl Send for Watchers {}

static WATCHERS: SpinLock<Watchers> = SpinLock::new(Cpu, Rank::Process, Watchers(LinkedList::new(InWatchers::NEW)));

impl Watcher {
    /// Not in the list.
    pub const fn new() -> Self {
        Self { link: LinkedListLink::new(), owner: Cell::new(None), told: Cell::new(0) }
    }

    /// From here on `owner` is told, unless it is so already.
    ///
    /// # Safety
    /// The watcher and its owner neither move nor go before [`Watcher::leave`].
    pub unsafe fn enter<T: Watch>(&self, owner: &T) {
        let mut watchers = WATCHERS.lock();
        if !self.link.is_linked() {
            self.owner.set(Some(core::ptr::from_ref(owner)));
            self.told.set(CHANGES.load(Ordering::SeqCst));
            // SAFETY: the caller's promise.
            watchers.0.push_back(unsafe { UnsafeRef::from_raw(self) });
        }
    }

    /// From here on its owner is told no more, and is not being told.
    pub fn leave(&self) {
        let mut watchers = WATCHERS.lock();
        if self.link.is_linked() {
            // SAFETY: a linked watcher is in this list.
            unsafe { watchers.0.cursor_mut_from_ptr(self).remove() };
        }
    }
}

/// Tells all watchers of a change that have not heard of it, one under each hold of the lock.
fn tell(change: u32) {
    loop {
        {
            let mut watchers = WATCHERS.lock();
            let Some(watcher) = watchers.0.pop_front() else { return };
            if change.wrapping_sub(watcher.told.get()) as i32 <= 0 {
                watchers.0.push_front(watcher);
                return;
            }
            watcher.told.set(change);
            let owner = watcher.owner.get();
            watchers.0.push_back(watcher);
            if let Some(owner) = owner {
                // SAFETY: a watcher in the list has its owner.
                unsafe { (*owner).clock_was_set() };
            }
        }
        // A killed thread goes on: others wait for this.
        let _ = resched_point(Sleep::Killable);
    }
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
