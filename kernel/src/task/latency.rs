//! Latency: the longest stretch with interrupts masked, and the longest time from a request to reschedule to the
//! scheduler's run. `vmstat` shows both.
//!
//! Locks and calls are not instrumented: the end of a time slice is the probe. Its timer interrupt is late by the time
//! that interrupts were masked, and the reschedule that it requests is late by the time that the kernel was not
//! preemptible. So each stretch is measured short by at most one slice: the default of 4 ms shows only extreme cases,
//! while a machine started with `slice=10` (microseconds) measures every stretch except its first 10 µs. Under
//! `--icount` and with one CPU a nanosecond is an instruction. With several CPUs, the emulator runs one at a time, and
//! a host that runs other programs stops all of them: both count as the kernel's time.
//!
//! An idle CPU measures nothing.

use core::sync::atomic::{AtomicU64, Ordering};

/// One CPU's measurements. Only that CPU writes them, with interrupts masked.
pub struct Latency {
    longest_masked: AtomicU64,
    longest_unpreempted: AtomicU64,
    /// When a reschedule was requested; 0 if none is pending.
    wanted_at: AtomicU64,
}

impl Latency {
    /// No measurements.
    pub const fn new() -> Self {
        Self { longest_masked: AtomicU64::new(0), longest_unpreempted: AtomicU64::new(0), wanted_at: AtomicU64::new(0) }
    }

    /// Records that the interrupt due at `due` is handled at `now`.
    pub fn interrupted(&self, due: u64, now: u64) {
        raise(&self.longest_masked, now.saturating_sub(due));
    }

    /// Records that a reschedule is requested at `now`.
    pub fn want_reschedule(&self, now: u64) {
        if self.wanted_at.load(Ordering::Relaxed) == 0 {
            self.wanted_at.store(now, Ordering::Relaxed);
        }
    }

    /// Records that the scheduler runs. `now` is called only if a request is pending.
    #[inline]
    pub fn rescheduled(&self, now: impl FnOnce() -> u64) {
        let wanted_at = self.wanted_at.load(Ordering::Relaxed);
        if wanted_at != 0 {
            raise(&self.longest_unpreempted, now().saturating_sub(wanted_at));
            self.wanted_at.store(0, Ordering::Relaxed);
        }
    }

    /// The longest stretch with interrupts masked, in nanoseconds.
    pub fn longest_masked(&self) -> u64 {
        self.longest_masked.load(Ordering::Relaxed)
    }

    /// The longest time from a request to reschedule to the scheduler's run, in nanoseconds.
    pub fn longest_unpreempted(&self) -> u64 {
        self.longest_unpreempted.load(Ordering::Relaxed)
    }
}

fn raise(longest: &AtomicU64, length: u64) {
    if length > longest.load(Ordering::Relaxed) {
        longest.store(length, Ordering::Relaxed);
    }
}
