//! The working directory and the umask of a process, which processes made with `CLONE_FS` share.
//!
//! A process that shares it with no other keeps it in itself: to look at it is two loads. Once it is shared it stays in an
//! allocation of its own. The lock ([`Rank::Process`]) covers changes.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use quire_abi::Errno;
use quire_mm::fallible::KArc;
use quire_mm::sync::Rank;

use crate::vm::{Cpu, SpinLock};

/// Permissions that new files do not get, of the first process (POSIX leaves it open; this is what shells expect).
const UMASK: u32 = 0o022;

struct Context {
    /// A [`Place`](crate::names::Place), as a word.
    place: AtomicU64,
    umask: AtomicU32,
}

impl Context {
    const fn new(place: u64, umask: u32) -> Self {
        Self { place: AtomicU64::new(place), umask: AtomicU32::new(umask) }
    }

    fn set(&self, to: &Self) {
        self.place.store(to.place.load(Ordering::Relaxed), Ordering::Relaxed);
        self.umask.store(to.umask.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// See the module.
pub struct Directory {
    own: Context,
    is_shared: AtomicBool,
    shared: SpinLock<Option<KArc<Context>>>,
}

impl Directory {
    /// Of the first process.
    pub fn first() -> Self {
        Self::with(Context::new(0, UMASK), None)
    }

    fn with(own: Context, shared: Option<KArc<Context>>) -> Self {
        Self { own, is_shared: AtomicBool::new(shared.is_some()), shared: SpinLock::new(Cpu, Rank::Process, shared) }
    }

    /// For a child without `CLONE_FS`: one of its own.
    pub fn copy(&self) -> Self {
        Self::with(Context::new(self.get(), self.umask()), None)
    }

    /// For a child with `CLONE_FS`: the same one.
    pub fn share(&self) -> Result<Self, Errno> {
        // (The allocation may sleep, so it is made before the lock is taken.)
        let fresh = KArc::try_new(Context::new(0, 0))?;
        let mut shared = self.shared.lock();
        let common = match &*shared {
            Some(common) => common.clone(),
            None => {
                fresh.set(&self.own);
                *shared = Some(fresh.clone());
                self.is_shared.store(true, Ordering::Release);
                fresh
            }
        };
        drop(shared);
        Ok(Self::with(Context::new(0, 0), Some(common)))
    }

    #[inline]
    fn see<R>(&self, look: impl FnOnce(&Context) -> R) -> R {
        if !self.is_shared.load(Ordering::Acquire) {
            return look(&self.own);
        }
        let shared = self.shared.lock();
        look(shared.as_deref().unwrap_or(&self.own))
    }

    /// The working directory.
    #[inline]
    pub fn get(&self) -> u64 {
        self.see(|context| context.place.load(Ordering::Relaxed))
    }

    /// Permissions that new files do not get.
    pub fn umask(&self) -> u32 {
        self.see(|context| context.umask.load(Ordering::Relaxed))
    }

    fn change(&self, change: impl FnOnce(&Context)) {
        // (Under the lock, so that what a child begins to share meanwhile is not the old one.)
        let shared = self.shared.lock();
        change(shared.as_deref().unwrap_or(&self.own));
    }

    /// Makes it another directory.
    pub fn set(&self, place: u64) {
        self.change(|context| context.place.store(place, Ordering::Relaxed));
    }

    /// Sets the umask; returns the former one.
    pub fn set_umask(&self, umask: u32) -> u32 {
        let mut former = 0;
        self.change(|context| former = context.umask.swap(umask & 0o777, Ordering::Relaxed));
        former
    }
}
