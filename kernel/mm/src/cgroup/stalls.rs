//! Which threads stall, and whether CPUs run any others: the [pressure](crate::psi) of the machine and of each group.
//!
//! Each CPU records what it runs at every switch ([`Groups::runs`], a store and a load). Switches are only accounted
//! for while some thread stalls. If another CPU switches at the moment when the first thread begins to stall, that
//! switch may be missed, until the CPU's next one.
//!
//! Lock order: a group's pressure (`Rank::GroupPressure`) is locked while the tree's lock is held; the root's also
//! without it.

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::*};

use super::{Groups, Key, Machine};
use crate::machine::MAX_CPUS;
use crate::psi::{Pressure, Share};
use crate::sync::{Rank, SpinLock};

/// What a CPU runs: the number of a control group whose thread makes progress, or [`NOTHING`], or a group's number with
/// [`STALLED`].
pub type Runs = u32;

/// Its idle thread.
pub const NOTHING: Runs = u32::MAX;

/// Bit: the thread stalls.
pub const STALLED: Runs = 1 << 16;

fn progress(runs: Runs) -> Option<u16> {
    u16::try_from(runs).ok()
}

pub(super) struct Stalls<M: Machine> {
    /// Threads that stall.
    count: AtomicU32,
    /// What each CPU runs, and the number of CPUs.
    running: [AtomicU32; MAX_CPUS],
    cpus: AtomicUsize,
    root: SpinLock<Pressure, M>,
}

impl<M: Machine> Stalls<M> {
    pub const fn new(machine: M) -> Self {
        Self {
            count: AtomicU32::new(0),
            running: [const { AtomicU32::new(NOTHING) }; MAX_CPUS],
            cpus: AtomicUsize::new(0),
            root: SpinLock::new(machine, Rank::GroupPressure, Pressure::new()),
        }
    }

    /// Whether no CPU runs a thread that makes progress and whose group `counts` accepts.
    fn is_full(&self, counts: impl Fn(u16) -> bool) -> bool {
        let running = self.running.iter().take(self.cpus.load(Relaxed));
        !running.filter_map(|runs| progress(runs.load(Relaxed))).any(counts)
    }
}

impl<M: Machine> Groups<M> {
    /// A CPU begins to schedule.
    pub fn add_cpu(&self, cpu: usize) {
        self.stalls.cpus.fetch_max(cpu + 1, Relaxed);
    }

    /// Records that this CPU runs something else from now on. Interrupts are masked.
    #[inline(always)]
    pub fn runs(&self, cpu: usize, what: Runs, now: impl FnOnce() -> u64) {
        let running = &self.stalls.running[cpu];
        let before = running.load(Relaxed);
        running.store(what, Relaxed);
        if self.stalls.count.load(Relaxed) != 0 && before != what {
            self.switched([before, what], now());
        }
    }

    #[cold]
    #[inline(never)]
    fn switched(&self, runs: [Runs; 2], now: u64) {
        for group in runs.into_iter().filter_map(progress) {
            self.account(group, 0, now);
        }
    }

    /// Begins a stall of the thread that this CPU runs, which belongs to the group `id`. Interrupts are masked. The
    /// caller must [end](Groups::end_stall) it. Returns whether somebody waits for a stall ([`Groups::look`]): then the
    /// caller must wake the waiter.
    pub fn begin_stall(&self, cpu: usize, id: u16, now: u64) -> bool {
        self.stalls.count.fetch_add(1, Relaxed);
        self.stalls.running[cpu].store(STALLED | Runs::from(id), Relaxed);
        self.account(id, 1, now)
    }

    /// Ends a stall of the group `id`: the CPU runs `what`. Interrupts are masked.
    pub fn end_stall(&self, cpu: usize, id: u16, what: Runs, now: u64) {
        self.stalls.running[cpu].store(what, Relaxed);
        self.account(id, -1, now);
        self.stalls.count.fetch_sub(1, Relaxed);
    }

    /// Accounts for `by` more stalled threads in a group and those above it, or for a change of what runs. Returns
    /// whether somebody has waited for that. O(depth * CPUs).
    #[inline]
    fn account(&self, id: u16, by: i32, now: u64) -> bool {
        let is_awaited = id != 0 && self.account_in(id, by, now);
        let mut root = self.stalls.root.lock();
        root.change(now, by, self.stalls.is_full(|_| true));
        by > 0 && root.take_awaited() || is_awaited
    }

    #[inline(never)]
    fn account_in(&self, id: u16, by: i32, now: u64) -> bool {
        let mut is_awaited = false;
        let _tree = self.tree.lock();
        // (A group with a stalled thread does not end.)
        for group in self.at(id).into_iter().flat_map(|group| group.upwards()) {
            let mut pressure = group.pressure().lock();
            if by != 0 || pressure.stalled() != 0 {
                let is_within = |runs| self.at(runs).is_some_and(|of| of.is_within(group.key().id()));
                pressure.change(now, by, self.stalls.is_full(is_within));
                is_awaited |= by > 0 && pressure.take_awaited();
            }
        }
        is_awaited
    }

    /// The pressure in a group up to now: some, and full. `None` if there is no such group.
    pub fn pressure(&self, key: Key, now: u64) -> Option<(Share, Share)> {
        if key == Key::ROOT {
            return Some(self.stalls.root.lock().at(now));
        }
        self.find(key).map(|group| group.pressure().lock().at(now))
    }

    /// The total of some and of full pressure in a group up to now, and whether a thread stalls. If none does and the
    /// caller `rests`, the next stall there [is reported](Groups::begin_stall). `None` if there is no such group.
    pub fn look(&self, key: Key, now: u64, rests: bool) -> Option<([u64; 2], bool)> {
        let look = |pressure: &mut Pressure| {
            let is_stalled = if rests { pressure.await_stall() } else { pressure.stalled() != 0 };
            let (some, full) = pressure.at(now);
            ([some.total, full.total], is_stalled)
        };
        if key == Key::ROOT {
            return Some(look(&mut self.stalls.root.lock()));
        }
        self.find(key).map(|group| look(&mut group.pressure().lock()))
    }

    #[cfg(test)]
    pub(crate) fn stalled(&self) -> (u32, u32) {
        (self.stalls.count.load(Relaxed), self.stalls.root.lock().stalled())
    }
}
