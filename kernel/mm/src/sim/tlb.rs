//! TLB maintenance as events: counted, and handed to whoever simulates a TLB.

use std::boxed::Box;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::CallSite;
use crate::addr::{Pfn, PhysAddr, VirtAddr};
use crate::machine::Asid;
use crate::pte::Pte;

/// What the memory manager told the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum TlbEvent {
    PublishTables,
    SyncInstructions(PhysAddr),
    Pages {
        asid: Asid,
        start: usize,
        pages: usize,
    },
    Asid(Asid),
    All,
    Local,
    Kernel {
        start: VirtAddr,
        pages: usize,
    },
    /// No TLB maintenance: the kernel has filled a frame with zeros or with a copy.
    NewContent(PhysAddr),
}

/// Somebody who acts on TLB maintenance: a software MMU.
pub trait TlbObserver {
    /// `cpu` did this, there. The invalidation is complete on all CPUs when this returns.
    fn event(&self, cpu: usize, event: TlbEvent, at: CallSite);

    /// The software of `cpu` is about to load a word of a process's table.
    fn load(&self, cpu: usize, word: &AtomicU64) {
        let _ = (cpu, word);
    }

    /// It is about to store to one; as a store-release, if so.
    fn store(&self, cpu: usize, word: &AtomicU64, new: Pte, release: bool) {
        let _ = (cpu, word, new, release);
    }

    /// It has found a frame in memory that is protected by a lock.
    fn found(&self, cpu: usize, frame: Pfn) {
        let _ = (cpu, frame);
    }
}

/// How often what was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct TlbCounts {
    pub publish_tables: usize,
    pub sync_instructions: usize,
    pub pages: usize,
    pub asid: usize,
    pub all: usize,
    pub local: usize,
    pub kernel: usize,
}

#[derive(Default)]
pub(super) struct Tlb {
    counts: [AtomicUsize; 8],
    observer: OnceLock<Box<dyn TlbObserver + Send + Sync>>,
}

impl Tlb {
    pub(super) fn observe(&self, observer: Box<dyn TlbObserver + Send + Sync>) {
        assert!(self.observer.set(observer).is_ok(), "one observer a machine");
    }

    #[cfg(test)]
    pub(super) fn observer(&self) -> Option<&(dyn TlbObserver + Send + Sync)> {
        self.observer.get().map(|observer| &**observer)
    }

    pub(super) fn event(&self, cpu: usize, event: TlbEvent, at: CallSite) {
        let kind = match event {
            TlbEvent::PublishTables => 0,
            TlbEvent::SyncInstructions(_) => 1,
            TlbEvent::Pages { .. } => 2,
            TlbEvent::Asid(_) => 3,
            TlbEvent::All => 4,
            TlbEvent::Local => 5,
            TlbEvent::Kernel { .. } => 6,
            TlbEvent::NewContent(_) => 7,
        };
        super::turns::point();
        self.counts[kind].fetch_add(1, Relaxed);
        if let Some(observer) = self.observer.get() {
            observer.event(cpu, event, at);
        }
    }

    pub(super) fn counts(&self) -> TlbCounts {
        let [publish_tables, sync_instructions, pages, asid, all, local, kernel, _] =
            core::array::from_fn(|kind| self.counts[kind].load(Relaxed));
        TlbCounts { publish_tables, sync_instructions, pages, asid, all, local, kernel }
    }
}
