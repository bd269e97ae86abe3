//! Block entries: 2 MiB of anonymous memory under one entry of a level-2 table (docs/huge-pages.md).
//!
//! They change under their table's lock (`Rank::PageTable`), except that an empty entry may become a table or a block at any time, by
//! compare-exchange. For each block entry a last-level table is laid by, chained by [`crate::page::Page::next`] from the level-2 table's record under
//! the same lock: so a block can be split whenever somebody needs one of its pages, without memory. While that takes place, the entry is
//! [`Pte::SPLITTING`], which no walker follows; all that walk here take the lock and look again.

use core::sync::atomic::Ordering;

use super::flush::{flush_page, flush_space};
use super::gather::Gather;
use super::{GROUP, LEAF_SPAN, Leaf, Machine, Table, Tables, free_table, make_table};
use crate::addr::{Pfn, PhysAddr, UserAddr};
use crate::fallible::AllocError;
use crate::page::{link, linked};
use crate::pte::{ENTRIES, Pte, index};
use crate::rmap::whole;
use crate::supply::Supply;
use crate::sync::Rank;

/// A table for a block entry to be split into.
pub struct LaidBy<M: Machine> {
    machine: M,
    table: PhysAddr,
}

impl<M: Machine> LaidBy<M> {
    /// One, charged.
    pub fn new(machine: M, supply: &Supply<M>) -> Result<Self, AllocError> {
        Ok(Self { machine, table: make_table(machine, supply.table()?) })
    }

    fn into_table(self) -> PhysAddr {
        let table = self.table;
        core::mem::forget(self);
        table
    }
}

impl<M: Machine> Drop for LaidBy<M> {
    fn drop(&mut self) {
        free_table(self.machine, self.table);
    }
}

/// A level-2 entry that was a block when it was found.
pub struct Block<'a, M: Machine> {
    pub(super) tables: &'a Tables<M>,
    pub(super) table: Table<M>,
    pub(super) start: UserAddr,
}

impl<'a, M: Machine> Block<'a, M> {
    /// The first address.
    pub fn start(&self) -> UserAddr {
        self.start
    }

    /// The entry, of a space that is no more.
    pub(super) fn entry_at_end(&self) -> Pte {
        self.table.load(index(self.start.get(), 2))
    }

    /// The right to change the entry; `None` if it is no block any more.
    pub fn lock(&self) -> Option<BlockGuard<'_, 'a, M>> {
        let guard = self.lock_entry();
        guard.get().is_block().then_some(guard)
    }

    /// As [`Block::lock`], whatever the entry is.
    fn lock_entry(&self) -> BlockGuard<'_, 'a, M> {
        self.table.lock(Rank::PageTable);
        BlockGuard { block: self }
    }

    /// Makes it a last-level table, if it is still a block; `None` if there is nothing any more.
    #[cold]
    pub fn split(&self) -> Option<Leaf<'a, M>> {
        if let Some(guard) = self.lock() {
            guard.split();
        }
        let entry = self.table.load(index(self.start.get(), 2));
        // (It may be a block again by now: the caller looks again.)
        let is_table = entry.is_table();
        is_table.then(|| Leaf { tables: self.tables, table: Table { addr: entry.addr(), ..self.table } })
    }
}

/// A block entry whose table is locked.
pub struct BlockGuard<'b, 'a, M: Machine> {
    block: &'b Block<'a, M>,
}

impl<M: Machine> BlockGuard<'_, '_, M> {
    fn machine(&self) -> M {
        self.block.table.machine
    }

    fn at(&self) -> usize {
        index(self.block.start.get(), 2)
    }

    /// The entry. Hardware may update it at once.
    pub fn get(&self) -> Pte {
        self.block.table.word(self.at()).load_locked(self.machine())
    }

    /// Changes attributes of the entry, which was `old` when last read, with `f`. Returns it before and after.
    pub fn update(&mut self, mut old: Pte, f: impl Fn(Pte) -> Pte) -> (Pte, Pte) {
        let word = self.block.table.word(self.at());
        loop {
            let new = f(old);
            debug_assert!(old.is_block() && new.is_block() && old.addr() == new.addr());
            if new == old {
                return (old, new);
            }
            match word.compare_exchange(self.machine(), old, new) {
                Ok(()) => return (old, new),
                Err(now) => old = now,
            }
        }
    }

    /// Makes it a last-level table with the same pages, of 4 KiB each: break, invalidate, make.
    fn split(self) {
        let machine = self.machine();
        let Block { tables, table, start } = *self.block;
        let word = table.word(self.at());
        whole::take_apart(machine, self.get().addr().pfn());
        let leaf = table.take_laid_by();
        debug_assert!(leaf.is_some(), "a block without a table that was laid by");
        let Some(leaf) = leaf else { return };
        // What this returns is final.
        let was = word.swap(machine, Pte::SPLITTING);
        if !seeded!(SplitForgetsFlush) {
            flush_page(machine, tables.asid(), start);
        }
        for k in 0..ENTRIES {
            leaf.word(k).store(machine, was.page_of_block(k));
        }
        leaf.record().live.store(ENTRIES as u32, Ordering::Relaxed);
        word.store_release(machine, Pte::table(leaf.addr));
        // (Whoever has split it changes an entry, and publishes that.)
        machine.count(crate::event::Event::HugeSplit, 1);
    }

    /// Clears the entry; its pages belong to `gather` until it has flushed.
    pub(super) fn zap(self, gather: &mut Gather<'_, M>) {
        let machine = self.machine();
        let Block { tables, table, start } = *self.block;
        let word = table.word(self.at());
        let early = gather.flushes_early();
        // A fault that finds the entry empty may put a table there without the lock: not before the block is invalidated.
        let was = word.swap(machine, if early { Pte::SPLITTING } else { Pte::NONE });
        gather.take_block(was, start);
        gather.before_unlock();
        if early {
            word.store(machine, Pte::NONE);
        }
        table.record().live.fetch_sub(1, Ordering::Relaxed);
        let laid_by = table.take_laid_by();
        drop(self);
        if let Some(laid_by) = laid_by {
            tables.free_one(laid_by);
        }
    }
}

impl<M: Machine> Drop for BlockGuard<'_, '_, M> {
    fn drop(&mut self) {
        self.block.table.unlock(Rank::PageTable);
    }
}

/// What maps a part of the address space: a last-level table, or a block entry.
pub struct Spot<'a, M: Machine> {
    tables: &'a Tables<M>,
    /// The last-level table; or that of level 2, plus 1.
    table: PhysAddr,
}

impl<'a, M: Machine> Spot<'a, M> {
    #[inline(always)]
    pub(super) fn of_leaf(tables: &'a Tables<M>, table: Table<M>) -> Self {
        Self { tables, table: table.addr }
    }

    #[inline(always)]
    pub(super) fn of_block(tables: &'a Tables<M>, table: Table<M>) -> Self {
        Self { tables, table: table.addr + 1 }
    }

    /// The last-level table, or else the block, for an address in this part.
    #[inline(always)]
    pub fn leaf(self, va: UserAddr) -> Result<Leaf<'a, M>, Block<'a, M>> {
        if self.table.get() & 1 == 0 {
            Ok(Leaf { tables: self.tables, table: self.tables.table(self.table) })
        } else {
            let table = self.tables.table(PhysAddr::new(self.table.get() - 1));
            Err(self.tables.block(table, va))
        }
    }
}

/// The tables that are laid by for the block entries of a level-2 table: under its lock, or in a space that is no more.
impl<M: Machine> Table<M> {
    pub(super) fn lay_by(&self, leaf: Table<M>) {
        let first = self.page().next();
        leaf.page().next().store(first.load(Ordering::Relaxed), Ordering::Relaxed);
        first.store(link(leaf.addr.pfn()), Ordering::Relaxed);
    }

    pub(super) fn take_laid_by(&self) -> Option<Table<M>> {
        let first = self.page().next();
        let leaf = linked(first.load(Ordering::Relaxed))?;
        let leaf = Table { addr: Pfn(leaf.get() as usize).addr(), ..*self };
        first.store(leaf.page().next().load(Ordering::Relaxed), Ordering::Relaxed);
        Some(leaf)
    }
}

impl<M: Machine> Tables<M> {
    /// The level-2 entry for `va`, if it is a block.
    #[cold]
    pub fn block_at(&self, va: UserAddr) -> Option<Block<'_, M>> {
        let table = self.find_table(va, 2)?;
        let entry = table.load(index(va.get(), 2));
        (entry != Pte::NONE && !entry.is_table()).then(|| self.block(table, va))
    }

    pub(super) fn block(&self, table: Table<M>, va: UserAddr) -> Block<'_, M> {
        Block { tables: self, table, start: UserAddr::new(va.get() & !(LEAF_SPAN - 1)) }
    }

    /// The last-level table for `va`, made of a block if there is one.
    #[cold]
    #[inline(never)]
    pub(super) fn split_at(&self, va: UserAddr) -> Option<Leaf<'_, M>> {
        loop {
            match self.block_at(va) {
                Some(block) => {
                    if let Some(leaf) = block.split() {
                        return Some(leaf);
                    }
                }
                None => return self.find_leaf(va),
            }
        }
    }

    /// The entry for `va` as it is now; that of a block is shown as the one of the page.
    #[inline]
    pub fn entry(&self, va: UserAddr) -> Pte {
        match self.find_leaf(va) {
            Some(leaf) => leaf.peek(index(va.get(), 3)),
            None => self.entry_of_block(va),
        }
    }

    #[cold]
    fn entry_of_block(&self, va: UserAddr) -> Pte {
        while let Some(block) = self.block_at(va) {
            if let Some(guard) = block.lock() {
                return guard.get().page_of_block(index(va.get(), 3));
            }
        }
        self.find_leaf(va).map_or(Pte::NONE, |leaf| leaf.peek(index(va.get(), 3)))
    }

    /// Maps the block of 2 MiB at `frame` at `va`, if there is nothing, and takes over the caller's reference. Whoever faults next may see it only
    /// when it was published.
    pub fn put_block(
        &self,
        va: UserAddr,
        frame: PhysAddr,
        attrs: u64,
        laid_by: LaidBy<M>,
        supply: &Supply<M>,
    ) -> Result<bool, AllocError> {
        let table = self.descend(va, 2, supply)?;
        let i = index(va.get(), 2);
        let block = self.block(table, va);
        let machine = self.machine;
        // Whatever the entry is: the tables laid by are chained under it.
        let guard = block.lock_entry();
        // First, so that a search for occupied entries does not miss this one.
        table.record().groups.fetch_or(1 << (i / GROUP), Ordering::Relaxed);
        if table.word(i).compare_exchange(machine, Pte::NONE, Pte::block(frame, attrs)).is_err() {
            drop(guard);
            return Ok(false);
        }
        table.lay_by(self.table(laid_by.into_table()));
        table.record().live.fetch_add(1, Ordering::Relaxed);
        drop(guard);
        self.pages.fetch_add(1, Ordering::Relaxed);
        machine.spaces().count_tables(1);
        Ok(true)
    }

    /// Unlinks the last-level table for `va`, if it is empty, so that a block may come there. No other walk of this space takes place meanwhile.
    pub fn unlink_vacant(&self, va: UserAddr) {
        let (Some(leaf), Some(table)) = (self.find_leaf(va), self.find_table(va, 2)) else { return };
        if !leaf.is_vacant() {
            return;
        }
        table.word(index(va.get(), 2)).store(self.machine, Pte::NONE);
        table.record().live.fetch_sub(1, Ordering::Relaxed);
        self.spare.fetch_sub(1, Ordering::Relaxed);
        // As in `sweep`.
        flush_space(self.machine, &self.asid);
        self.free_one(leaf.table);
    }

    /// Frees a table that no walker can reach any more.
    fn free_one(&self, table: Table<M>) {
        self.pages.fetch_sub(1, Ordering::Relaxed);
        self.machine.spaces().count_tables(-1);
        free_table(self.machine, table.addr);
    }

    /// Copies a parent's block entry to this space, as [`Tables::copy_from`] does with others; `None` if it is no block any more. Else whether the
    /// parent's entry has changed.
    pub(super) fn copy_block(&self, block: &Block<'_, M>, supply: &Supply<M>) -> Result<Option<bool>, AllocError> {
        let laid_by = LaidBy::new(self.machine, supply)?;
        // (The tables above are made before the parent's is locked.)
        self.descend(block.start, 2, supply)?;
        let Some(mut theirs) = block.lock() else { return Ok(None) };
        let pte = theirs.get();
        if !whole::get(self.machine, pte.addr().pfn()) {
            return Err(AllocError);
        }
        let (old, new) =
            theirs.update(pte, |pte| if seeded!(BlockForkStaysWritable) { pte } else { pte.write_protected() });
        drop(theirs);
        // Nobody else has this space yet.
        let put = self.put_block(block.start, new.addr(), new.block_attrs(), laid_by, supply)?;
        debug_assert!(put, "a child with something where it has no area yet");
        Ok(Some(old != new))
    }
}
