//! The working directory of a process, which processes made with `CLONE_FS` share.
//!
//! A process that shares it with no other keeps it in itself: to look at it is two loads. Once it is shared it stays in an
//! allocation of its own. The lock ([`Rank::Process`]) covers changes.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use quire_abi::Errno;
use quire_mm::fallible::KArc;
use quire_mm::sync::Rank;

use crate::vm::{Cpu, SpinLock};

/// See the module. A directory is an index into the boot archive.
pub struct Directory {
    own: AtomicU32,
    is_shared: AtomicBool,
    shared: SpinLock<Option<KArc<AtomicU32>>>,
}

impl Directory {
    /// Of a process that shares it with no other.
    pub fn new(directory: u32) -> Self {
        Self::with(directory, None)
    }

    fn with(directory: u32, shared: Option<KArc<AtomicU32>>) -> Self {
        Self {
            own: AtomicU32::new(directory),
            is_shared: AtomicBool::new(shared.is_some()),
            shared: SpinLock::new(Cpu, Rank::Process, shared),
        }
    }

    /// For a child with `CLONE_FS`: the same one.
    pub fn share(&self) -> Result<Self, Errno> {
        // (The allocation may sleep, so it is made before the lock is taken.)
        let fresh = KArc::try_new(AtomicU32::new(0))?;
        let mut shared = self.shared.lock();
        let common = match &*shared {
            Some(common) => common.clone(),
            None => {
                fresh.store(self.own.load(Ordering::Relaxed), Ordering::Relaxed);
                *shared = Some(fresh.clone());
                self.is_shared.store(true, Ordering::Release);
                fresh
            }
        };
        drop(shared);
        Ok(Self::with(0, Some(common)))
    }

    /// Which it is.
    #[inline]
    pub fn get(&self) -> u32 {
        if !self.is_shared.load(Ordering::Acquire) {
            return self.own.load(Ordering::Relaxed);
        }
        let shared = self.shared.lock();
        shared.as_deref().unwrap_or(&self.own).load(Ordering::Relaxed)
    }

    /// Makes it another.
    pub fn set(&self, directory: u32) {
        let shared = self.shared.lock();
        shared.as_deref().unwrap_or(&self.own).store(directory, Ordering::Relaxed);
    }
}
