//! The words of translation tables: all accesses by software go through here.
//!
//! For software on other CPUs a store behaves like any other. Table walkers, including those of the storing CPU, may
//! see it late, until [`Machine::publish_tables`] has returned. So in this crate's tests the simulated MMU is notified
//! of each access.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::machine::Machine;
use crate::pte::Pte;

/// A word that walkers read, and that hardware may write.
#[repr(transparent)]
pub(super) struct Word(AtomicU64);

impl Word {
    /// The entry. Acquire: an observer of the entry sees the zeros of the new table that it points to.
    #[inline(always)]
    pub fn load<M: Machine>(&self, machine: M) -> Pte {
        before_load(machine, &self.0);
        Pte(self.0.load(Ordering::Acquire))
    }

    /// The entry, under the lock that its changes need. Hardware may update a present one at once.
    #[inline(always)]
    pub fn load_locked<M: Machine>(&self, machine: M) -> Pte {
        before_load(machine, &self.0);
        let pte = Pte(self.0.load(Ordering::Relaxed));
        #[cfg(test)]
        crate::sim::mmu::meanwhile(&self.0);
        pte
    }

    /// Stores an entry that does not refer to new memory.
    #[inline(always)]
    pub fn store<M: Machine>(&self, machine: M, new: Pte) {
        before_store(machine, &self.0, new, false);
        self.0.store(new.0, Ordering::Relaxed);
    }

    /// Stores an entry. Observers of the entry, including walkers, see all earlier writes.
    #[inline(always)]
    pub fn store_release<M: Machine>(&self, machine: M, new: Pte) {
        before_store(machine, &self.0, new, true);
        self.0.store(new.0, Ordering::Release);
    }

    /// Exchanges the entry, and returns its final old value.
    #[inline(always)]
    pub fn swap<M: Machine>(&self, machine: M, new: Pte) -> Pte {
        before_store(machine, &self.0, new, false);
        Pte(self.0.swap(new.0, Ordering::Relaxed))
    }

    /// Stores `new`, as [`Word::store_release`], if the entry is `old`; else returns the present value.
    #[inline(always)]
    pub fn compare_exchange<M: Machine>(&self, machine: M, old: Pte, new: Pte) -> Result<(), Pte> {
        before_load(machine, &self.0);
        before_exchange(machine, &self.0, old, new);
        match self.0.compare_exchange(old.0, new.0, Ordering::Release, Ordering::Acquire) {
            Ok(_) => Ok(()),
            Err(other) => Err(Pte(other)),
        }
    }
}

#[inline(always)]
fn before_load<M: Machine>(machine: M, word: &AtomicU64) {
    #[cfg(test)]
    crate::sim::tables(machine, |tables, cpu| tables.load(cpu, word));
    #[cfg(not(test))]
    let _ = (machine, word);
}

#[inline(always)]
fn before_store<M: Machine>(machine: M, word: &AtomicU64, new: Pte, release: bool) {
    #[cfg(test)]
    crate::sim::tables(machine, |tables, cpu| tables.store(cpu, word, new, release));
    #[cfg(not(test))]
    let _ = (machine, word, new, release);
}

#[inline(always)]
fn before_exchange<M: Machine>(machine: M, word: &AtomicU64, old: Pte, new: Pte) {
    #[cfg(test)]
    crate::sim::tables(machine, |tables, cpu| {
        if word.load(Ordering::Relaxed) == old.0 {
            tables.store(cpu, word, new, true);
        }
    });
    #[cfg(not(test))]
    let _ = (machine, word, old, new);
}
