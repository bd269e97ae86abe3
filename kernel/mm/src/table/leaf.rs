//! Last-level tables: entries, and the lock under which they change.

use core::sync::atomic::{AtomicU64, Ordering};

use super::{Table, Tables};
use crate::addr::UserAddr;
use crate::machine::{Asid, Machine};
use crate::pte::{ENTRIES, Pte, bits};
use crate::sync::{Rank, note_released, note_taken};

/// A last-level table.
pub struct Leaf<'a, M: Machine> {
    pub(super) tables: &'a Tables<M>,
    pub(super) table: Table<M>,
}

impl<'a, M: Machine> Leaf<'a, M> {
    /// An entry as it is now; another CPU may change it at once.
    #[inline]
    pub fn peek(&self, i: usize) -> Pte {
        self.table.load(i)
    }

    /// Whether all entries are empty; another CPU may change that at once.
    #[inline]
    pub fn is_vacant(&self) -> bool {
        self.table.record().live.load(Ordering::Relaxed) == 0
    }

    /// The right to change entries.
    #[inline]
    pub fn lock(&self) -> LeafGuard<'_, M> {
        self.lock_as(Rank::PageTable)
    }

    #[inline]
    pub(super) fn lock_as(&self, rank: Rank) -> LeafGuard<'_, M> {
        let machine = self.table.machine;
        note_taken(machine, rank);
        let lock = &self.table.record().lock;
        while lock.swap(1, Ordering::Acquire) != 0 {
            while lock.load(Ordering::Relaxed) != 0 {
                machine.relax();
            }
        }
        LeafGuard { leaf: self, rank, entries: self.table.entry(0), live: 0 }
    }
}

/// A locked last-level table.
pub struct LeafGuard<'a, M: Machine> {
    leaf: &'a Leaf<'a, M>,
    rank: Rank,
    entries: *const AtomicU64,
    /// Entries that this guard has filled, less those it has emptied.
    live: i32,
}

impl<M: Machine> LeafGuard<'_, M> {
    #[inline(always)]
    fn entry(&self, i: usize) -> &AtomicU64 {
        debug_assert!(i < ENTRIES);
        // SAFETY: as in `Table::entry`, from which the pointer came; a leaf has 512 entries.
        unsafe { &*self.entries.add(i) }
    }

    /// Entry `i`.
    #[inline(always)]
    pub fn get(&self, i: usize) -> Pte {
        Pte(self.entry(i).load(Ordering::Relaxed))
    }

    /// Fills an empty entry. What was written to the page before is seen by who sees the entry.
    #[inline(always)]
    pub fn fill(&mut self, i: usize, pte: Pte) {
        debug_assert!(self.get(i) == Pte::NONE && pte != Pte::NONE);
        self.entry(i).store(pte.0, Ordering::Release);
        self.live += 1;
    }

    /// Empties an entry.
    #[inline(always)]
    pub fn clear(&mut self, i: usize) {
        debug_assert!(self.get(i) != Pte::NONE);
        self.entry(i).store(0, Ordering::Relaxed);
        self.live -= 1;
    }

    /// Moves `count` entries from `i` on to empty ones of another table, from `j` on. Whether any was present.
    pub(super) fn move_run(&mut self, i: usize, other: &mut Self, j: usize, count: usize) -> bool {
        let mut moved = 0;
        let mut all = 0;
        for k in 0..count {
            let pte = self.get(i + k);
            if pte != Pte::NONE {
                if !seeded!(MoveLeavesOldEntry) {
                    self.entry(i + k).store(0, Ordering::Relaxed);
                }
                // Their pages were published when they were first mapped.
                other.entry(j + k).store(pte.0, Ordering::Relaxed);
                moved += 1;
                all |= pte.0;
            }
        }
        self.live -= moved;
        other.live += if seeded!(LiveCountForgetsMove) { 0 } else { moved };
        all & bits::VALID != 0
    }

    /// Changes attributes of a full entry: access rights, dirty state, the accessed flag. Those need no
    /// break-before-make (Arm ARM D8.16.1 lists what does: another output address, memory type, block size, …).
    #[inline(always)]
    pub fn set_attrs(&mut self, i: usize, pte: Pte) {
        debug_assert!(!self.get(i).is_present() || self.get(i).addr() == pte.addr());
        self.entry(i).store(pte.0, Ordering::Release);
    }

    /// Puts another page into a full entry: break, invalidate, make.
    pub fn replace(&mut self, i: usize, pte: Pte, va: UserAddr, asid: Option<Asid>) {
        let machine = self.leaf.table.machine;
        self.entry(i).store(0, Ordering::Relaxed);
        if let Some(asid) = asid
            && !seeded!(NoBreakBeforeMake)
        {
            machine.publish_tables();
            machine.tlb_flush_pages(asid, va.get(), 1);
        }
        self.entry(i).store(pte.0, Ordering::Release);
    }

    /// Whether all entries are empty.
    #[inline]
    pub fn is_vacant(&self) -> bool {
        self.leaf.table.record().live.load(Ordering::Relaxed) as i32 + self.live == 0
    }
}

impl<M: Machine> Drop for LeafGuard<'_, M> {
    #[inline]
    fn drop(&mut self) {
        let record = self.leaf.table.record();
        if self.live != 0 {
            let before = record.live.load(Ordering::Relaxed);
            let after = before.wrapping_add_signed(self.live);
            record.live.store(after, Ordering::Relaxed);
            let spare = &self.leaf.tables.spare;
            if before == 0 {
                spare.fetch_sub(1, Ordering::Relaxed);
            } else if after == 0 {
                spare.fetch_add(1, Ordering::Relaxed);
            }
        }
        record.lock.store(0, Ordering::Release);
        note_released(self.leaf.table.machine, self.rank);
    }
}
