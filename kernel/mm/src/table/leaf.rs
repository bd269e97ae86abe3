//! Last-level tables: entries, and the lock under which they change.

use core::sync::atomic::Ordering;

use super::Machine;
use super::flush::flush_page;
use super::word::Word;
use super::{Table, Tables};
use crate::addr::{PhysAddr, UserAddr};
use crate::asid::AsidSlot;
use crate::pte::{ENTRIES, Pte, bits};
use crate::sync::Rank;

/// A last-level table.
pub struct Leaf<'a, M: Machine> {
    pub(super) tables: &'a Tables<M>,
    pub(super) table: Table<M>,
}

impl<'a, M: Machine> Leaf<'a, M> {
    /// Reads an entry without the lock; another CPU may change it at once.
    #[inline]
    pub fn peek(&self, i: usize) -> Pte {
        self.table.load(i)
    }

    /// Where the table is.
    pub fn addr(&self) -> PhysAddr {
        self.table.addr
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
        self.table.lock(rank);
        let hardware = machine.spaces().hardware_updates();
        LeafGuard { leaf: self, rank, words: self.table.word(0), live: 0, hardware }
    }
}

/// A locked last-level table.
pub struct LeafGuard<'a, M: Machine> {
    leaf: &'a Leaf<'a, M>,
    rank: Rank,
    words: *const Word,
    /// Entries that this guard has filled, less those it has emptied.
    live: i32,
    /// Whether CPUs update present entries meanwhile ([`super::entry`]).
    hardware: bool,
}

impl<M: Machine> LeafGuard<'_, M> {
    #[inline(always)]
    fn word(&self, i: usize) -> &Word {
        debug_assert!(i < ENTRIES);
        // SAFETY: as in `Table::word`, from which the pointer came; a leaf has 512 entries.
        unsafe { &*self.words.add(i) }
    }

    #[inline(always)]
    fn machine(&self) -> M {
        self.leaf.table.machine
    }

    /// Entry `i`. Hardware may update a present one at once: see [`super::entry`].
    #[inline(always)]
    pub fn get(&self, i: usize) -> Pte {
        self.word(i).load_locked(self.machine())
    }

    /// Fills an empty entry. Observers of the entry see all earlier writes to the page.
    #[inline(always)]
    pub fn fill(&mut self, i: usize, pte: Pte) {
        debug_assert!(self.get(i) == Pte::NONE && pte != Pte::NONE);
        self.word(i).store_release(self.machine(), pte);
        self.live += 1;
    }

    /// Clears an entry without a page, which nothing else writes to.
    #[inline(always)]
    pub fn clear(&mut self, i: usize) {
        debug_assert!(self.get(i) != Pte::NONE && !self.get(i).is_present());
        self.word(i).store(self.machine(), Pte::NONE);
        self.live -= 1;
    }

    /// Clears an entry and returns its final value.
    #[inline(always)]
    pub fn take(&mut self, i: usize) -> Pte {
        debug_assert!(self.get(i) != Pte::NONE);
        self.live -= 1;
        if self.hardware && !seeded!(TakeIsNotAtomic) {
            return swap(self.machine(), self.word(i), Pte::NONE);
        }
        let pte = self.get(i);
        self.word(i).store(self.machine(), Pte::NONE);
        pte
    }

    /// Changes attributes of a present entry that was `old`: access rights, dirty state, the access flag. Those need no
    /// break-before-make (Arm ARM D8.16.1 lists what does: another output address, memory type, block size, …).
    /// `false`, with nothing changed, if hardware has changed the entry.
    #[inline(always)]
    #[must_use]
    pub fn change(&mut self, i: usize, old: Pte, new: Pte) -> bool {
        debug_assert!(old.is_present() && new.is_present() && old.addr() == new.addr());
        if self.hardware && !seeded!(ChangeIsNotAtomic) {
            return exchange(self.machine(), self.word(i), old, new);
        }
        self.word(i).store_release(self.machine(), new);
        true
    }

    /// As [`LeafGuard::change`], where hardware updates no entries: the caller has asked.
    #[inline(always)]
    pub fn change_alone(&mut self, i: usize, old: Pte, new: Pte) {
        debug_assert!(!self.hardware && self.get(i) == old);
        debug_assert!(old.is_present() && new.is_present() && old.addr() == new.addr());
        self.word(i).store_release(self.machine(), new);
    }

    /// Changes attributes of a present entry, which was `old` when last read, with `f`. Returns the entry before and
    /// after.
    #[inline(always)]
    pub fn update(&mut self, i: usize, mut old: Pte, f: impl Fn(Pte) -> Pte) -> (Pte, Pte) {
        loop {
            let new = f(old);
            if new == old || self.change(i, old, new) {
                return (old, new);
            }
            old = self.get(i);
        }
    }

    /// Makes an entry old; returns whether it was young. A later access is only certain to set the flag again once the
    /// entry has been invalidated: a caller that handles many entries invalidates them together, and one that only
    /// samples need not.
    #[inline]
    pub fn test_and_clear_young(&mut self, i: usize) -> bool {
        let pte = self.get(i);
        pte.is_present() && self.update(i, pte, |pte| Pte(pte.0 & !bits::ACCESSED)).0.is_young()
    }

    /// Moves `count` entries from `i` on to empty ones of another table, from `j` on. Returns whether any was present.
    pub(super) fn move_run(&mut self, i: usize, other: &mut Self, j: usize, count: usize) -> bool {
        let mut moved = 0;
        let mut all = 0;
        for k in 0..count {
            let mut pte = self.get(i + k);
            if pte != Pte::NONE {
                if !seeded!(MoveLeavesOldEntry) {
                    pte = self.take(i + k);
                }
                // Their pages were published when they were first mapped.
                other.word(j + k).store(self.machine(), pte);
                moved += 1;
                all |= pte.0;
            }
        }
        other.live += if seeded!(LiveCountForgetsMove) { 0 } else { moved };
        all & bits::VALID != 0
    }

    /// Replaces a page that is not writable by another one: break, invalidate, make.
    pub fn replace(&mut self, i: usize, pte: Pte, va: UserAddr, asid: &AsidSlot) {
        let machine = self.machine();
        let old = self.take(i);
        self.live += 1;
        debug_assert!(!old.is_writable() && !old.is_writable_clean(), "what is written meanwhile would be lost");
        if !seeded!(NoBreakBeforeMake) {
            flush_page(machine, asid, va);
        }
        self.word(i).store_release(machine, pte);
    }

    /// Whether all entries are empty.
    #[inline]
    pub fn is_vacant(&self) -> bool {
        self.leaf.table.record().live.load(Ordering::Relaxed) as i32 + self.live == 0
    }
}

// Out of line, so that loops with plain stores keep their registers.

#[cold]
#[inline(never)]
fn swap<M: Machine>(machine: M, word: &Word, new: Pte) -> Pte {
    word.swap(machine, new)
}

#[cold]
#[inline(never)]
fn exchange<M: Machine>(machine: M, word: &Word, old: Pte, new: Pte) -> bool {
    word.compare_exchange(machine, old, new).is_ok()
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
        self.leaf.table.unlock(self.rank);
    }
}
