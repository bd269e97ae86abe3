//! The counts behind vmstat: a set for each CPU, in per-CPU memory.
//!
//! A CPU finds its set by a pointer in its [`Head`]. Kernel code is not preemptible, and interrupt handlers
//! count nothing, so counting is a load, an addition and a store.

use core::sync::atomic::{AtomicU64, Ordering};

use quire_mm::event::Event;
use quire_mm::fallible::AllocError;
use quire_mm::percpu::PerCpu;
use spin::Once;

use super::machine::Cpu;
use super::percpu::AREAS;
use crate::arch::cpu::{self, Head};

/// One CPU's counts.
#[repr(align(64))]
pub struct Counters([AtomicU64; Event::COUNT]);

impl Counters {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; Event::COUNT])
    }
}

/// The boot CPU's counts before there is per-CPU memory.
pub static EARLY: Counters = Counters::new();

static COUNTERS: Once<PerCpu<Counters, Cpu>> = Once::new();

/// Gives each CPU its set. Before the others start.
pub fn init(heads: impl Iterator<Item = &'static Head>) -> Result<(), AllocError> {
    let counters = PerCpu::try_new(&AREAS, |_| Counters::new())?;
    let counters = COUNTERS.call_once(|| counters);
    for (here, own) in heads.zip(counters.iter()) {
        here.counters.store(core::ptr::from_ref(own).cast_mut().cast(), Ordering::Relaxed);
    }
    Ok(())
}

/// This CPU's count.
#[inline(always)]
fn own(event: Event) -> &'static AtomicU64 {
    // SAFETY: it is never null; `EARLY` and the sets that `init` stored live for ever.
    let counters = unsafe { &*cpu::this().counters.load(Ordering::Relaxed).cast::<Counters>() };
    &counters.0[event as usize]
}

/// What this CPU has counted.
#[inline(always)]
pub fn here(event: Event) -> u64 {
    own(event).load(Ordering::Relaxed)
}

/// Counts on this CPU.
#[inline(always)]
pub fn count(event: Event, n: usize) {
    let counter = own(event);
    counter.store(counter.load(Ordering::Relaxed) + n as u64, Ordering::Relaxed);
}

/// The sum over all CPUs; exact while no CPU counts.
pub fn sum(event: Event) -> u64 {
    let of = |counters: &Counters| counters.0[event as usize].load(Ordering::Relaxed);
    of(&EARLY) + COUNTERS.get().map_or(0, |all| all.iter().map(of).sum())
}
