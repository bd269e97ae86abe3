//! What a process's limits allow its calls of the memory manager, in a form that they read under any lock.
//!
//! [`Process::limits`](super::process::Process::limits) and its credentials are what setrlimit and setuid change; whoever changes
//! either, under its lock, leaves here what follows from it.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use quire_abi::layout::{Rlimit, rlimit};
use quire_mm::machine::Limit;

use super::credentials::Credentials;

/// The memory limits of a process. Calls that run while they change use the old or the new ones.
pub struct MemoryLimits {
    /// Each [`Limit`], in bytes.
    bytes: [AtomicU64; Limit::COUNT],
    /// Root may lock whatever it likes.
    is_privileged: AtomicBool,
}

impl MemoryLimits {
    /// None yet, and no privileges.
    pub const fn new() -> Self {
        Self {
            bytes: [const { AtomicU64::new(rlimit::INFINITY) }; Limit::COUNT],
            is_privileged: AtomicBool::new(false),
        }
    }

    /// The process's limits have changed; the caller has them locked.
    pub fn apply(&self, limits: &[Rlimit; rlimit::COUNT]) {
        const OF: [usize; Limit::COUNT] = [rlimit::AS, rlimit::DATA, rlimit::STACK, rlimit::MEMLOCK];
        for (bytes, which) in self.bytes.iter().zip(OF) {
            bytes.store(limits[which].cur, Ordering::Relaxed);
        }
    }

    /// The process's credentials have changed; the caller has them locked.
    pub fn apply_privilege(&self, credentials: &Credentials) {
        self.is_privileged.store(credentials.is_privileged(), Ordering::Relaxed);
    }

    /// A limit, in bytes.
    #[inline(always)]
    pub fn get(&self, which: Limit) -> u64 {
        if which == Limit::MemLock && self.is_privileged.load(Ordering::Relaxed) {
            return rlimit::INFINITY;
        }
        self.bytes[which as usize].load(Ordering::Relaxed)
    }
}
