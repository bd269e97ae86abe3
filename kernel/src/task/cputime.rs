//! What threads use: CPU time, user and system time separately, and faults.
//!
//! The kernel does not read the clock on entry and exit: that would be too expensive for every call. Time is charged at
//! the end of a slice and when a thread leaves its CPU, as user or system time according to where the last end of a
//! slice found the thread. The sum is exact; the parts are sampled, every 4 ms that the thread runs, as Linux does with
//! `CONFIG_TICK_CPU_ACCOUNTING`.
//!
//! Faults are counted for each CPU anyway ([`events`]). What a CPU has counted since the last charge, the thread is charged
//! with too: a fault itself pays nothing for it.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use quire_abi::layout::{Rusage, Timeval};
use quire_mm::event::Event;

use crate::vm::events;

/// CPU time used, and faults. Each part only grows.
#[derive(Default)]
pub struct CpuTime {
    user: AtomicU64,
    system: AtomicU64,
    faults: AtomicU64,
    major: AtomicU64,
    /// Whether the last sample found the thread in the kernel.
    in_kernel: AtomicBool,
}

/// Adds to a count that one CPU alone changes at a time, with interrupts masked. Others may read it.
#[inline]
pub fn add(count: &AtomicU64, n: u64) {
    count.store(count.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

/// What was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Nanoseconds in the program.
    pub user: u64,
    /// Nanoseconds in the kernel for it.
    pub system: u64,
    /// Faults that were handled.
    pub faults: u64,
    /// Those that brought a page back from swap.
    pub major: u64,
}

/// Numbers of faults that a CPU has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// All of them.
    pub all: u64,
    failed: u64,
}

impl Faults {
    /// None.
    pub const NONE: Self = Self { all: 0, failed: 0 };

    /// Those of this CPU.
    pub fn here() -> Self {
        Self { all: events::here(Event::Fault), failed: events::here(Event::FaultFailed) }
    }

    /// Those that did not end in an error.
    pub fn handled_since(self, before: Self) -> u64 {
        self.all.wrapping_sub(before.all).saturating_sub(self.failed.wrapping_sub(before.failed))
    }
}

impl CpuTime {
    /// None.
    pub const fn new() -> Self {
        let [user, system, faults, major] = [const { AtomicU64::new(0) }; 4];
        Self { user, system, faults, major, in_kernel: AtomicBool::new(false) }
    }

    /// Records whether the thread is in its program or in the kernel.
    pub fn sample(&self, in_kernel: bool) {
        self.in_kernel.store(in_kernel, Ordering::Relaxed);
    }

    /// Adds time of this thread, on its CPU and with interrupts masked; returns whether it counted as system time.
    pub fn charge(&self, ns: u64) -> bool {
        let in_kernel = self.in_kernel.load(Ordering::Relaxed);
        let part = if in_kernel { &self.system } else { &self.user };
        add(part, ns);
        in_kernel
    }

    /// Adds system time, or time in the program, beside other CPUs.
    pub fn add_to(&self, system: bool, ns: u64) {
        let part = if system { &self.system } else { &self.user };
        part.fetch_add(ns, Ordering::Relaxed);
    }

    /// Adds faults, beside other CPUs.
    pub fn add_faults(&self, faults: u64) {
        self.faults.fetch_add(faults, Ordering::Relaxed);
    }

    /// Makes one of the faults a major one.
    pub fn add_major(&self) {
        self.major.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds what another has used.
    pub fn add(&self, spent: Spent) {
        self.user.fetch_add(spent.user, Ordering::Relaxed);
        self.system.fetch_add(spent.system, Ordering::Relaxed);
        self.faults.fetch_add(spent.faults, Ordering::Relaxed);
        self.major.fetch_add(spent.major, Ordering::Relaxed);
    }

    /// What was used so far.
    pub fn spent(&self) -> Spent {
        let [user, system, faults, major] =
            [&self.user, &self.system, &self.faults, &self.major].map(|part| part.load(Ordering::Relaxed));
        Spent { user, system, faults, major }
    }
}

impl Spent {
    /// Both parts of the time.
    pub fn total(self) -> u64 {
        self.user + self.system
    }

    /// As a usage record without other values.
    pub fn usage(self) -> Rusage {
        Rusage {
            utime: timeval(self.user),
            stime: timeval(self.system),
            minflt: self.faults.saturating_sub(self.major) as i64,
            majflt: self.major as i64,
            ..Rusage::default()
        }
    }
}

impl core::ops::Add for Spent {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            user: self.user + other.user,
            system: self.system + other.system,
            faults: self.faults + other.faults,
            major: self.major + other.major,
        }
    }
}

impl core::iter::Sum for Spent {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), core::ops::Add::add)
    }
}

fn timeval(ns: u64) -> Timeval {
    Timeval { sec: (ns / 1_000_000_000) as i64, usec: (ns % 1_000_000_000 / 1000) as i64 }
}
