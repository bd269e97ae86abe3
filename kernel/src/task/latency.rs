//! How long the kernel keeps a CPU to itself: the longest stretch with interrupts masked, and the longest from the
//! moment that another thread should run to the moment that the scheduler looks. `vmstat` shows both.
//!
//! Nothing is measured where locks are taken or calls begin: the end of a time slice is the probe. Its timer
//! interrupt comes late by as long as interrupts were masked, and asks for a reschedule that comes late by as long as
//! the kernel did without one. So the longest stretch is seen short by at most one slice: the 4 ms of a machine at
//! work show only what is far too long, and a machine that is started with `slice=10` (microseconds) shows every
//! stretch but for its first 10 µs. Under `--icount` and with one CPU a nanosecond is an instruction; of several CPUs the
//! emulator runs one at a time, and a host that runs other programs stops all of them: both count as the kernel's time.
//!
//! An idle CPU measures nothing.

use core::sync::atomic::{AtomicU64, Ordering};

use super::percpu;

/// What one CPU has seen. Only that CPU writes it, with interrupts masked.
pub struct Latency {
    longest_masked: AtomicU64,
    longest_unpreempted: AtomicU64,
    /// Since when another thread should run; 0 while none need.
    wanted_at: AtomicU64,
}

impl Latency {
    /// Nothing seen.
    pub const fn new() -> Self {
        Self { longest_masked: AtomicU64::new(0), longest_unpreempted: AtomicU64::new(0), wanted_at: AtomicU64::new(0) }
    }

    /// An interrupt that was due at `due` is served at `now`.
    pub fn interrupted(&self, due: u64, now: u64) {
        raise(&self.longest_masked, now.saturating_sub(due));
    }

    /// From `now` on the scheduler should look.
    pub fn want_reschedule(&self, now: u64) {
        if self.wanted_at.load(Ordering::Relaxed) == 0 {
            self.wanted_at.store(now, Ordering::Relaxed);
        }
    }

    /// The scheduler looks. `now` is asked for only where somebody waits for that.
    #[inline]
    pub fn rescheduled(&self, now: impl FnOnce() -> u64) {
        let wanted_at = self.wanted_at.load(Ordering::Relaxed);
        if wanted_at != 0 {
            raise(&self.longest_unpreempted, now().saturating_sub(wanted_at));
            self.wanted_at.store(0, Ordering::Relaxed);
        }
    }
}

fn raise(longest: &AtomicU64, length: u64) {
    if length > longest.load(Ordering::Relaxed) {
        longest.store(length, Ordering::Relaxed);
    }
}

fn longest_of_all(of: impl Fn(&Latency) -> &AtomicU64) -> u64 {
    percpu::online().map(|cpu| of(&cpu.latency).load(Ordering::Relaxed)).max().unwrap_or(0)
}

/// The longest stretch with interrupts masked that any CPU has seen, in nanoseconds.
pub fn longest_masked() -> u64 {
    longest_of_all(|latency| &latency.longest_masked)
}

/// The longest time that any CPU went on after another thread should have run, in nanoseconds.
pub fn longest_unpreempted() -> u64 {
    longest_of_all(|latency| &latency.longest_unpreempted)
}
