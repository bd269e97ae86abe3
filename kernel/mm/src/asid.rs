//! Address-space identifiers with generations.
//!
//! A space gets an ASID when it is first activated and keeps it for as long as the generation lasts. When the numbers
//! run out, a new generation begins: every CPU has to do a full local flush before it next loads a translation table,
//! and the ASIDs that CPUs run with at that moment stay with their spaces ("reserved"). Each number is assigned only
//! once per generation, so nothing is flushed when a CPU switches spaces.
//!
//! The scheme, with its proof, is that of Linux's `arch/arm64/mm/context.c` and its TLA+ model (Catalin
//! Marinas, kernel-tla): `active[cpu]` is 0 from the moment of a roll-over until the CPU has passed the lock;
//! a fast-path switch is a compare-exchange on it that fails on 0.
//!
//! Lock order: `Rank::Asid`; nothing is taken inside.

mod allocator;

/// The atomics, which loom replaces.
mod atomic {
    pub(super) use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
}

use crate::machine::{MAX_CPUS, Machine};
use crate::sync::{Rank, SpinLock};
use allocator::{MAX_BITS, Numbers, WORDS};
use atomic::{AtomicU32, AtomicU64, AtomicUsize};

pub use allocator::{AsidAllocator, AsidSlot, AsidView};

impl AsidSlot {
    /// A slot that was never activated.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }
}

impl Default for AsidSlot {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: Machine> AsidAllocator<M> {
    /// For 8-bit ASIDs, which every CPU supports.
    pub const fn new(machine: M) -> Self {
        let mut taken = [0; WORDS];
        taken[0] = 1;
        Self {
            machine,
            bits: AtomicU32::new(8),
            generation: AtomicU64::new(1 << MAX_BITS),
            active: [const { AtomicU64::new(0) }; MAX_CPUS],
            numbers: SpinLock::new(
                machine,
                Rank::Asid,
                Numbers { taken, next: 1, reserved: [0; MAX_CPUS], owes_flush: 0 },
            ),
            spaces: AtomicUsize::new(0),
            rollovers: AtomicUsize::new(0),
        }
    }
}
