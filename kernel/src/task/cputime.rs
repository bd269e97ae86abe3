//! CPU time, user and system time separately.
//!
//! The kernel does not read the clock on entry and exit: that would be too expensive for every call. Time is charged at
//! the end of a slice and when a thread leaves its CPU, as user or system time according to where the last end of a
//! slice found the thread. The sum is exact; the parts are sampled, every 4 ms that the thread runs, as Linux does with
//! `CONFIG_TICK_CPU_ACCOUNTING`.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use quire_abi::layout::{Rusage, Timeval};

/// CPU time used. Each part only grows.
#[derive(Default)]
pub struct CpuTime {
    user: AtomicU64,
    system: AtomicU64,
    /// Whether the last sample found the thread in the kernel.
    in_kernel: AtomicBool,
}

/// Adds to a count that one CPU alone changes at a time, with interrupts masked. Others may read it.
#[inline]
pub fn add(count: &AtomicU64, n: u64) {
    count.store(count.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

/// Nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// In the program.
    pub user: u64,
    /// In the kernel for it.
    pub system: u64,
}

impl CpuTime {
    /// None.
    pub const fn new() -> Self {
        Self { user: AtomicU64::new(0), system: AtomicU64::new(0), in_kernel: AtomicBool::new(false) }
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

    /// Adds the time of another.
    pub fn add(&self, spent: Spent) {
        self.user.fetch_add(spent.user, Ordering::Relaxed);
        self.system.fetch_add(spent.system, Ordering::Relaxed);
    }

    /// The time used so far.
    pub fn spent(&self) -> Spent {
        Spent { user: self.user.load(Ordering::Relaxed), system: self.system.load(Ordering::Relaxed) }
    }
}

impl Spent {
    /// Both parts.
    pub fn total(self) -> u64 {
        self.user + self.system
    }

    /// As a usage record without other values.
    pub fn usage(self) -> Rusage {
        Rusage { utime: timeval(self.user), stime: timeval(self.system), ..Rusage::default() }
    }
}

impl core::ops::Add for Spent {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { user: self.user + other.user, system: self.system + other.system }
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
