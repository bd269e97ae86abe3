//! A process's translation tables (TTBR0): four levels of 4 KiB tables.
//!
//! # Rules of access
//! - Entries of a last-level table are read and written under that table's lock ([`Leaf::lock`]); a single read may do
//!   without ([`Leaf::peek`]) if its result is checked again under the lock. CPUs that set access flags and dirty state
//!   write to them too: [`entry`] has the rules.
//! - A table entry (levels 0 to 2) changes from empty to a table by compare-exchange, at any time, by a holder of the
//!   space's areas for reading. It becomes empty again only in [`Tables::sweep`] and [`Tables::free_all`], during which
//!   no other walk takes place: they need the areas exclusively. So a walk needs no lock of its own.
//! - A table page is freed only after the table entries were invalidated for the whole ASID.
//!
//! Empty tables stay linked for reuse and are swept when there are many: a program that maps, touches and unmaps
//! one page does not pay for three table pages each time. A level-2 entry may be a block instead ([`block`]).
//!
//! Lock order: a table (`Rank::PageTable`), then a second one (`Rank::PageTableChild`: fork's child, mremap's
//! destination). Only the zone's lock and those below it are taken inside. No interrupt handler takes these locks.
//!
//! # The record of a table page
//! [`crate::page::Page::body`] of a `Table` frame holds the lock, the number of entries that are not empty, the control group that it is charged to, and, for
//! levels 0 to 2, a bit for each eight entries of which one may be occupied: the time to walk a sparse space depends on
//! its tables, not on their empty entries.

pub mod block;
mod change;
pub mod copy;
pub mod entry;
pub mod flush;
pub mod gather;
mod join;
mod leaf;
pub mod pgoff;
pub mod protect;
pub mod relocate;
mod word;
mod young;
pub mod zap;

use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::addr::{PhysAddr, USER_END, UserAddr};
use crate::asid::AsidSlot;
use crate::fallible::AllocError;
use crate::frame;
use crate::page::Page;
use crate::pte::{ENTRIES, LEVEL_SHIFT, Path, Pte, index};
use crate::supply::Supply;
use crate::sync::{Rank, note_released, note_taken};
use block::Spot;
use flush::flush_space;
use word::Word;

pub use leaf::{Leaf, LeafGuard};

/// The machine with the tables of its address spaces.
pub trait Machine: crate::spaces::Machine + crate::rmap::Machine {
    /// Tells the simulated MMU that the kernel has filled a frame otherwise than by `clear_page` and `copy_page`.
    #[cfg(test)]
    fn note_filled(self, frame: crate::addr::Pfn) {
        let _ = frame;
    }

    /// Tells it that this CPU has found a frame in memory that a lock protects, so that all that was stored under the lock before has
    /// been seen.
    #[cfg(test)]
    fn note_found(self, frame: crate::addr::Pfn) {
        let _ = frame;
    }
}

/// Bytes that a last-level table covers.
pub const LEAF_SPAN: usize = 1 << LEVEL_SHIFT[2];

/// Empty last-level tables that a space may keep, or an eighth of all if that is more. (Tests want sweeps often.)
const SPARE_TABLES: usize = if cfg!(test) { 2 } else { 8 };

/// The contents of a table page's record; overlays `Page::body`.
#[repr(C)]
struct Record {
    lock: AtomicU32,
    live: AtomicU32,
    /// `Page::next`.
    next: u32,
    /// The control group that it is charged to. Written when it is made.
    charged_to: AtomicU16,
    unused: u16,
    groups: AtomicU64,
}

/// Entries that share a bit of [`Record::groups`].
const GROUP: usize = ENTRIES / 64;

const _: () = assert!(size_of::<Record>() == 24);

/// The tables of one space.
pub struct Tables<M: Machine> {
    machine: M,
    asid: AsidSlot,
    root: PhysAddr,
    /// Table pages, the root included.
    pages: AtomicUsize,
    /// Last-level tables in which every entry is empty.
    spare: AtomicUsize,
}

impl<M: Machine> Tables<M> {
    /// An empty root.
    pub fn new(machine: M) -> Result<Self, AllocError> {
        let root = frame::alloc_table(machine)?;
        machine.clear_page(root);
        let root = make_table(machine, root);
        // A CPU may load the root, and walk from it, as soon as the space is shared.
        if !seeded!(RootForgetsPublication) {
            machine.publish_tables();
        }
        machine.spaces().count_tables(1);
        Ok(Self { machine, asid: AsidSlot::new(), root, pages: AtomicUsize::new(1), spare: AtomicUsize::new(0) })
    }

    /// The root table, for TTBR0.
    pub fn root(&self) -> PhysAddr {
        self.root
    }

    /// What TLBs have their entries under.
    #[inline(always)]
    pub fn asid(&self) -> &AsidSlot {
        &self.asid
    }

    /// Table pages, the root included.
    pub fn pages(&self) -> usize {
        self.pages.load(Ordering::Relaxed)
    }

    fn table(&self, addr: PhysAddr) -> Table<M> {
        Table { machine: self.machine, addr }
    }

    /// The last-level table for `va`, if there is one. A block is split.
    #[inline]
    pub fn walk(&self, va: UserAddr) -> Option<Leaf<'_, M>> {
        self.find_leaf(va).or_else(|| self.split_at(va))
    }

    /// As [`Tables::walk`], for a caller that handles blocks itself: there is no table for them.
    #[inline]
    pub fn find_leaf(&self, va: UserAddr) -> Option<Leaf<'_, M>> {
        Some(Leaf { tables: self, table: self.find_table(va, 3)? })
    }

    /// The table of `depth` (3 for a last-level one) for `va`, if there is one.
    #[inline(always)]
    fn find_table(&self, va: UserAddr, depth: usize) -> Option<Table<M>> {
        let mut table = self.table(self.root);
        for level in 0..depth {
            let entry = table.load(index(va.get(), level));
            if !entry.is_table() {
                return None;
            }
            table.addr = entry.addr();
        }
        Some(table)
    }

    /// As [`Tables::find_leaf`], with the entries above the last-level table.
    pub fn walk_with_path(&self, va: UserAddr) -> (Path, Option<Leaf<'_, M>>) {
        let mut path = Path::default();
        let mut table = self.table(self.root);
        for level in 0..3 {
            let entry = table.load(index(va.get(), level));
            path.push(table.addr, entry);
            if !entry.is_table() {
                return (path, None);
            }
            table.addr = entry.addr();
        }
        (path, Some(Leaf { tables: self, table }))
    }

    /// The last-level table for `va`, created if necessary.
    #[inline]
    pub fn walk_or_create(&self, va: UserAddr, supply: &Supply<M>) -> Result<Leaf<'_, M>, AllocError> {
        match self.find_leaf(va) {
            Some(leaf) => Ok(leaf),
            None => self.create(va, supply),
        }
    }

    #[cold]
    fn create(&self, va: UserAddr, supply: &Supply<M>) -> Result<Leaf<'_, M>, AllocError> {
        Ok(Leaf { tables: self, table: self.descend(va, 3, supply)? })
    }

    /// The table of `depth` (3 for a last-level one) for `va`, created if necessary, with all tables above it.
    fn descend(&self, va: UserAddr, depth: usize, supply: &Supply<M>) -> Result<Table<M>, AllocError> {
        let mut table = self.table(self.root);
        for level in 0..depth {
            let i = index(va.get(), level);
            let mut entry = table.load(i);
            while !entry.is_table() {
                if entry != Pte::NONE {
                    self.split_at(va);
                    entry = table.load(i);
                    continue;
                }
                let new = make_table(self.machine, supply.table()?);
                // First, so that a search for occupied entries does not miss this one.
                table.record().groups.fetch_or(1 << (i / GROUP), Ordering::Relaxed);
                // Walkers see the zeros of the new table before the entry that points to it.
                match table.word(i).compare_exchange(self.machine, Pte::NONE, Pte::table(new)) {
                    Ok(()) => {
                        entry = Pte::table(new);
                        table.record().live.fetch_add(1, Ordering::Relaxed);
                        self.pages.fetch_add(1, Ordering::Relaxed);
                        self.machine.spaces().count_tables(1);
                        if level == 2 {
                            self.spare.fetch_add(1, Ordering::Relaxed);
                        }
                        // (Published together with the first entry filled below it.)
                    }
                    Err(other) => {
                        free_table(self.machine, new);
                        entry = other;
                    }
                }
            }
            table.addr = entry.addr();
        }
        Ok(table)
    }

    /// The first last-level table that covers a part of `va..end`, and the first address of that part. Blocks are split.
    #[inline]
    pub fn next_leaf(&self, va: UserAddr, end: UserAddr) -> Option<(UserAddr, Leaf<'_, M>)> {
        let mut va = va;
        loop {
            let (from, spot) = self.next_any(va, end)?;
            match spot.leaf(from) {
                Ok(leaf) => return Some((from, leaf)),
                Err(block) => _ = block.split(),
            }
            va = from;
        }
    }

    /// The first last-level table, or block, that covers a part of `va..end`, and the first address of that part.
    pub fn next_any(&self, va: UserAddr, end: UserAddr) -> Option<(UserAddr, Spot<'_, M>)> {
        let (mut va, end) = (va.get(), end.get());
        'again: while va < end {
            let mut table = self.table(self.root);
            for (level, shift) in LEVEL_SHIFT[..3].iter().enumerate() {
                let i = index(va, level);
                let entry = table.load(i);
                if entry.is_table() {
                    table.addr = entry.addr();
                    continue;
                }
                if entry != Pte::NONE {
                    return Some((UserAddr::new(va), Spot::of_block(self, table)));
                }
                if ((va >> shift) + 1) << shift >= end {
                    return None;
                }
                let Some((j, below)) = table.next_used(i + 1) else {
                    // Continue at the first address beyond this table.
                    let span = shift + 9;
                    va = ((va >> span) + 1) << span;
                    continue 'again;
                };
                va = ((va >> shift) + (j - i)) << shift;
                if va >= end {
                    return None;
                }
                if !below.is_table() {
                    return Some((UserAddr::new(va), Spot::of_block(self, table)));
                }
                table.addr = below.addr();
            }
            return Some((UserAddr::new(va), Spot::of_leaf(self, table)));
        }
        None
    }

    /// The first part of `va..end` that one last-level table covers: where it begins and ends, and the table.
    #[inline]
    pub fn next_part(&self, va: UserAddr, end: UserAddr) -> Option<(UserAddr, UserAddr, Leaf<'_, M>)> {
        // Most ranges are within one table: the second look costs no call.
        if va >= end {
            return None;
        }
        let (from, leaf) = self.next_leaf(va, end)?;
        Some((from, part_end(from, end), leaf))
    }

    /// Whether there are enough empty tables to make [`Tables::sweep`] worth its walk.
    #[inline]
    pub fn wants_sweep(&self) -> bool {
        let spare = self.spare.load(Ordering::Relaxed);
        spare > SPARE_TABLES && spare > self.pages() / 8
    }

    /// Unlinks and frees all empty tables but the root. No other walk of this space takes place meanwhile.
    pub fn sweep(&self) {
        let mut freed = Chain::new(self.machine);
        self.sweep_below(self.table(self.root), 0, &mut freed);
        self.pages.fetch_sub(freed.count, Ordering::Relaxed);
        self.spare.store(0, Ordering::Relaxed);
        // Walkers may have cached the table entries (Arm ARM D8.14: intermediate entries are cached in their own
        // right), so the whole ASID is invalidated before the memory is freed.
        flush_space(self.machine, &self.asid);
        freed.free();
    }

    fn sweep_below(&self, table: Table<M>, level: usize, freed: &mut Chain<M>) {
        let mut next = 0;
        while let Some((i, entry)) = table.next_used(next) {
            next = i + 1;
            if !entry.is_table() {
                continue;
            }
            let addr = entry.addr();
            let below = self.table(addr);
            if level < 2 {
                self.sweep_below(below, level + 1, freed);
            }
            let _ = self.machine.resched_point();
            if below.record().live.load(Ordering::Relaxed) == 0 {
                table.word(i).store(self.machine, Pte::NONE);
                table.record().live.fetch_sub(1, Ordering::Relaxed);
                freed.push(addr);
            }
        }
    }

    /// Frees every table but the root. The space is active nowhere, its ASID has been flushed and its entries
    /// have been zapped.
    fn free_all(&mut self) {
        let mut freed = Chain::new(self.machine);
        self.free_below(self.table(self.root), 0, &mut freed);
        freed.free();
    }

    fn free_below(&self, table: Table<M>, level: usize, freed: &mut Chain<M>) {
        let mut next = 0;
        while let Some(laid_by) = table.take_laid_by() {
            freed.push(laid_by.addr);
            let _ = self.machine.resched_point();
        }
        while let Some((i, entry)) = table.next_used(next) {
            next = i + 1;
            if !entry.is_table() {
                continue;
            }
            let addr = entry.addr();
            if level < 2 {
                self.free_below(self.table(addr), level + 1, freed);
            }
            freed.push(addr);
            let _ = self.machine.resched_point();
        }
    }

    /// Compares the counters with the tables. No other walk of this space takes place meanwhile.
    pub fn validate(&self) {
        let mut pages = 1;
        let mut spare = 0;
        self.validate_below(self.table(self.root), 0, &mut pages, &mut spare);
        assert_eq!(pages, self.pages(), "table pages");
        assert_eq!(spare, self.spare.load(Ordering::Relaxed), "empty tables");
    }

    fn validate_below(&self, table: Table<M>, level: usize, pages: &mut usize, spare: &mut usize) {
        let (mut live, mut blocks) = (0, 0);
        for i in 0..ENTRIES {
            let entry = table.load(i);
            if entry == Pte::NONE {
                continue;
            }
            live += 1;
            if level == 2 && entry.is_block() {
                blocks += 1;
                continue;
            }
            if level < 3 {
                assert!(entry.is_table());
                assert!(table.next_used(i).is_some_and(|(found, _)| found == i), "an entry that walks pass over");
                *pages += 1;
                self.validate_below(self.table(entry.addr()), level + 1, pages, spare);
            }
        }
        assert_eq!(live, table.record().live.load(Ordering::Relaxed), "live entries at level {level}");
        *spare += (level == 3 && live == 0) as usize;
        if level < 3 {
            let mut laid_by = table.page().next().load(Ordering::Relaxed);
            while laid_by != 0 {
                blocks -= 1;
                *pages += 1;
                laid_by = self.table(crate::addr::Pfn(laid_by as usize).addr()).page().next().load(Ordering::Relaxed);
            }
            assert_eq!(blocks, 0, "blocks, less the tables that were laid by for them");
        }
    }

    /// The first entry of `va..end` that satisfies `wanted`: its address and its table. Another CPU may change it at
    /// once.
    pub fn next_entry(
        &self,
        mut va: UserAddr,
        end: UserAddr,
        wanted: impl Fn(Pte) -> bool,
    ) -> Option<(UserAddr, Leaf<'_, M>)> {
        while let Some((start, leaf)) = self.next_leaf(va, end) {
            let base = start.get() & !(LEAF_SPAN - 1);
            let first = index(start.get(), 3);
            let found = if leaf.is_vacant() { None } else { (first..ENTRIES).find(|i| wanted(leaf.peek(*i))) };
            if let Some(i) = found {
                let at = UserAddr::new(base + (i << LEVEL_SHIFT[3]));
                return (at < end).then_some((at, leaf));
            }
            va = UserAddr::new(base + LEAF_SPAN);
        }
        None
    }

    /// All entries that are not empty, with their addresses, for tests and reverse-mapping checks; those of blocks are shown as the ones of their pages.
    pub fn for_each_entry(&self, mut see: impl FnMut(UserAddr, Pte)) {
        let mut va = UserAddr::new(0);
        while let Some((start, spot)) = self.next_any(va, UserAddr::new(USER_END)) {
            let found = spot.leaf(start);
            let base = start.get() & !(LEAF_SPAN - 1);
            for i in 0..ENTRIES {
                let entry = match &found {
                    Ok(leaf) => leaf.peek(i),
                    Err(_) => self.entry(UserAddr::new(base + (i << LEVEL_SHIFT[3]))),
                };
                if entry != Pte::NONE {
                    see(UserAddr::new(base + (i << LEVEL_SHIFT[3])), entry);
                }
            }
            va = UserAddr::new(base + LEAF_SPAN);
        }
    }
}

impl<M: Machine> Drop for Tables<M> {
    fn drop(&mut self) {
        self.free_all();
        self.machine.spaces().count_tables(-1);
        free_table(self.machine, self.root);
    }
}

/// The control group that a table is charged to.
#[cfg(test)]
pub(crate) fn charged_to<M: Machine>(machine: M, table: PhysAddr) -> u16 {
    Table { machine, addr: table }.record().charged_to.load(Ordering::Relaxed)
}

/// Makes a frame of zeros an empty table.
fn make_table<M: Machine>(machine: M, addr: PhysAddr) -> PhysAddr {
    let table = Table { machine, addr };
    table.record().charged_to.store(frame::make_table(machine, addr), Ordering::Relaxed);
    table.record().lock.store(0, Ordering::Relaxed);
    table.record().live.store(0, Ordering::Relaxed);
    table.record().groups.store(0, Ordering::Relaxed);
    table.page().next().store(0, Ordering::Relaxed);
    addr
}

/// Where the part of a range ends that begins at `from` and that one last-level table or block covers.
#[inline(always)]
pub(crate) fn part_end(from: UserAddr, end: UserAddr) -> UserAddr {
    let next = (from.get() & !(LEAF_SPAN - 1)) + LEAF_SPAN;
    UserAddr::new(next.min(end.get()))
}

fn free_table<M: Machine>(machine: M, addr: PhysAddr) {
    let table = Table { machine, addr };
    table.record().live.store(0, Ordering::Relaxed);
    table.record().groups.store(0, Ordering::Relaxed);
    frame::free_table(machine, addr, table.record().charged_to.load(Ordering::Relaxed));
}

/// Unlinked tables to be freed, chained through their records.
struct Chain<M: Machine> {
    machine: M,
    head: u64,
    count: usize,
}

impl<M: Machine> Chain<M> {
    fn new(machine: M) -> Self {
        Self { machine, head: 0, count: 0 }
    }

    /// The link is in the record, not in the table: a walker may still be reading the table.
    fn push(&mut self, addr: PhysAddr) {
        let table = Table { machine: self.machine, addr };
        table.page().next().store(self.head as u32, Ordering::Relaxed);
        self.head = addr.pfn().0 as u64;
        self.count += 1;
    }

    fn free(mut self) {
        self.machine.spaces().count_tables(-(self.count as isize));
        while self.head != 0 {
            let addr = crate::addr::Pfn(self.head as usize).addr();
            let table = Table { machine: self.machine, addr };
            self.head = table.page().next().load(Ordering::Relaxed) as u64;
            free_table(self.machine, addr);
            let _ = self.machine.resched_point();
        }
    }
}

/// A table page of any level.
#[derive(Clone, Copy)]
struct Table<M: Machine> {
    machine: M,
    addr: PhysAddr,
}

impl<M: Machine> Table<M> {
    #[inline(always)]
    fn word(&self, i: usize) -> &Word {
        debug_assert!(i < ENTRIES);
        // SAFETY: `addr` is a table page of a space that lives: the direct map reaches its 512 words, which are
        // accessed as atomics only (by hardware too).
        unsafe { &*self.machine.direct_map(self.addr).cast::<Word>().add(i) }
    }

    #[inline(always)]
    fn load(&self, i: usize) -> Pte {
        self.word(i).load(self.machine)
    }

    /// The first entry at or after `from` in this table of level 0 to 2 that is not empty.
    #[inline]
    fn next_used(&self, from: usize) -> Option<(usize, Pte)> {
        let mut i = from;
        while i < ENTRIES {
            let groups = self.record().groups.load(Ordering::Relaxed) >> (i / GROUP);
            if groups & 1 == 0 {
                if groups == 0 {
                    return None;
                }
                i = (i / GROUP + groups.trailing_zeros() as usize) * GROUP;
            }
            let entry = self.load(i);
            if entry != Pte::NONE {
                return Some((i, entry));
            }
            i += 1;
        }
        None
    }

    /// Locks the entries.
    #[inline(always)]
    fn lock(&self, rank: Rank) {
        note_taken(self.machine, rank);
        let lock = &self.record().lock;
        while lock.swap(1, Ordering::Acquire) != 0 {
            while lock.load(Ordering::Relaxed) != 0 {
                self.machine.relax();
            }
        }
    }

    /// Ends [`Table::lock`].
    #[inline(always)]
    fn unlock(&self, rank: Rank) {
        self.record().lock.store(0, Ordering::Release);
        note_released(self.machine, rank);
    }

    #[inline(always)]
    fn page(&self) -> &'static Page {
        // SAFETY: a table page came from the page allocator, so its record exists.
        unsafe { Page::of(self.machine, self.addr.pfn()) }
    }

    #[inline(always)]
    fn record(&self) -> &'static Record {
        // SAFETY: the 24 bytes of the body are the holder's while the frame is allocated, 8-aligned, and this
        // file accesses them as `Record` only; all its fields are atomics or untouched.
        unsafe { &*self.page().body().cast::<Record>() }
    }
}
