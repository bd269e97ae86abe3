//! timerfd: a timer whose expirations a program reads.
//!
//! As on Linux, a timer with an interval is armed once for each read: the expirations in between are computed when they
//! are asked for.
//!
//! Lock order: the list of the clock's watchers, the state ([`Rank::Object`]), a tree of alarms.

use core::sync::atomic::{AtomicU64, Ordering};

use quire_abi::Errno;
use quire_abi::layout::poll;
use quire_mm::fallible::KArc;
use quire_mm::sync::Rank;

use super::deferred::DeferredSource;
use crate::arch::timer;
use crate::task::alarm::{Alarm, Ring};
use crate::task::clock::{Base, Watch, Watcher};
use crate::task::wait::Sleep;
use crate::vm::{Cpu, SpinLock};

/// The setting of a timer, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// When it first expires; 0 for never.
    pub first: u64,
    /// Whether that is a point in time, and not a duration from now.
    pub is_absolute: bool,
    /// The time between expirations; 0 for a single expiration.
    pub interval: u64,
    /// Reads fail once the clock has been set. For absolute times of the real-time clock.
    pub is_cancelled_by_set: bool,
}

struct State {
    base: Base,
    /// When it expires next, or has expired last, in the time of its base; 0 if it does not run.
    at: u64,
    interval: u64,
    /// Whether it has expired and is not armed again yet.
    has_expired: bool,
    /// The number of expirations that were computed and not yet read.
    count: u64,
    is_cancelled_by_set: bool,
    is_cancelled: bool,
}

/// A timer.
pub struct TimerFd {
    base: Base,
    state: SpinLock<State>,
    /// Whether [`State::count`] is not 0.
    count: AtomicU64,
    /// When it expires next, in nanoseconds since power-on; `u64::MAX` for never.
    due: AtomicU64,
    alarm: Alarm,
    watcher: Watcher,
    /// Its readers and watchers.
    pub deferred: KArc<DeferredSource>,
}

impl State {
    /// Records an expiration, if it is due; returns whether it was.
    fn expire(&mut self) -> bool {
        let is_due = self.at != 0 && !self.has_expired && self.base.now() >= self.at;
        if is_due {
            self.has_expired = true;
            self.count += 1;
        }
        is_due
    }

    /// Advances an expired timer with an interval to its next expiration; returns the number of expirations in between.
    fn advance(&mut self) -> u64 {
        if !self.has_expired || self.interval == 0 {
            return 0;
        }
        let missed = self.base.now().saturating_sub(self.at) / self.interval;
        self.at = self.at.saturating_add((missed + 1).saturating_mul(self.interval));
        self.has_expired = false;
        missed
    }

    fn left(&self) -> u64 {
        const LEAST: u64 = 1;
        match self.at {
            0 => 0,
            _ if self.has_expired => 0,
            at => at.saturating_sub(self.base.now()).max(LEAST),
        }
    }

    /// When the alarm must ring, in nanoseconds since power-on.
    fn due(&self) -> Option<u64> {
        let is_running = self.at != 0 && !self.has_expired;
        is_running.then(|| self.base.power_on_ns(self.at))
    }
}

impl TimerFd {
    /// A timer that does not run.
    pub fn new(base: Base) -> Result<KArc<Self>, Errno> {
        let state = State {
            base,
            at: 0,
            interval: 0,
            has_expired: false,
            count: 0,
            is_cancelled_by_set: false,
            is_cancelled: false,
        };
        Ok(KArc::try_new(Self {
            base,
            state: SpinLock::new(Cpu, Rank::Object, state),
            count: AtomicU64::new(0),
            due: AtomicU64::new(u64::MAX),
            alarm: Alarm::new(),
            watcher: Watcher::new(),
            deferred: DeferredSource::new()?,
        })?)
    }

    /// Publishes a changed state, and arms the alarm for it. The state is locked.
    fn publish(&self, state: &State) {
        self.alarm.disarm();
        let due = state.due();
        self.due.store(due.unwrap_or(u64::MAX), Ordering::Release);
        self.count.store(state.count, Ordering::Release);
        if let Some(due) = due {
            // SAFETY: `close` cancels the alarm; the state's lock is held.
            unsafe { self.alarm.arm(self, due) };
        }
    }

    /// Sets the timer; returns the time that was left before, and the interval. ECANCELED if it was cancelled and
    /// nobody has read that: it is set nevertheless.
    pub fn set(&self, new: Setting) -> Result<(u64, u64), Errno> {
        let watches = self.base == Base::Real && new.is_absolute;
        if watches {
            // SAFETY: `close` leaves the list, and an open file's object neither moves nor ends before that.
            unsafe { self.watcher.enter(self) };
        }
        let mut state = self.state.lock();
        state.expire();
        state.advance();
        let old = (state.left(), state.interval);
        // Durations are not affected by a change of the clock.
        state.base = if new.is_absolute { self.base } else { Base::Monotonic };
        let begin = if new.is_absolute { 0 } else { timer::now_ns() };
        state.at = if new.first == 0 { 0 } else { begin.saturating_add(new.first) };
        (state.interval, state.has_expired, state.count) = (new.interval, false, 0);
        state.is_cancelled_by_set = watches && new.is_cancelled_by_set;
        state.expire();
        let was_cancelled = state.is_cancelled_by_set && core::mem::take(&mut state.is_cancelled);
        let is_ready = state.count > 0;
        self.publish(&state);
        drop(state);
        if is_ready {
            DeferredSource::notify(&self.deferred);
        }
        if was_cancelled { Err(Errno::ECANCELED) } else { Ok(old) }
    }

    /// The time left, and the interval.
    pub fn get(&self) -> (u64, u64) {
        let mut state = self.state.lock();
        let is_news = state.expire();
        if state.has_expired {
            state.count += state.advance();
            self.publish(&state);
        }
        let answer = (state.left(), state.interval);
        drop(state);
        if is_news {
            // The alarm will not do it.
            DeferredSource::notify(&self.deferred);
        }
        answer
    }

    /// Reads and resets the number of expirations. Sleeps until there is one, unless `nonblocking`: EAGAIN. ECANCELED
    /// if the clock was set.
    pub fn read(&self, nonblocking: bool) -> Result<u64, Errno> {
        let attempt = || {
            let mut state = self.state.lock();
            state.expire();
            if state.is_cancelled_by_set && core::mem::take(&mut state.is_cancelled) {
                state.count = 0;
                if core::mem::take(&mut state.has_expired) {
                    // As on Linux, it is not armed again.
                    state.at = 0;
                }
                self.publish(&state);
                return Some(Err(Errno::ECANCELED));
            }
            if state.count == 0 {
                return None;
            }
            let count = core::mem::take(&mut state.count) + state.advance();
            self.publish(&state);
            Some(Ok(count))
        };
        if nonblocking {
            attempt().unwrap_or(Err(Errno::EAGAIN))
        } else {
            self.deferred.source.sleepers.wait_until(Sleep::Interruptible, None, attempt)?
        }
    }

    /// Its events.
    pub fn ready(&self) -> u16 {
        let has_some = || self.count.load(Ordering::Acquire) != 0;
        let due = self.due.load(Ordering::Acquire);
        if has_some() || due != u64::MAX && due <= timer::now_ns() { poll::IN } else { 0 }
    }

    /// Ends the timer, since its last descriptor is gone. The caller holds no lock.
    pub fn close(&self) {
        self.watcher.leave();
        {
            let mut state = self.state.lock();
            state.at = 0;
            self.publish(&state);
        }
        self.alarm.cancel();
    }
}

impl Ring for TimerFd {
    fn ring(&self, _now: u64) {
        let is_due = {
            let mut state = self.state.lock();
            let is_due = state.expire();
            self.publish(&state);
            is_due
        };
        if is_due {
            DeferredSource::notify(&self.deferred);
        }
    }
}

impl Watch for TimerFd {
    fn clock_was_set(&self) {
        let is_ready = {
            let mut state = self.state.lock();
            if state.is_cancelled_by_set {
                state.is_cancelled = true;
                state.count += 1;
            }
            state.expire();
            self.publish(&state);
            state.count > 0
        };
        if is_ready {
            DeferredSource::notify(&self.deferred);
        }
    }
}
