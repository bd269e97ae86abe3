//! Unmapped pages that may still be in a TLB.
//!
//! A [`Gather`] owns the references of the entries that were cleared, until it has invalidated them. Pages cannot be
//! taken out of it earlier, and cannot be forgotten: dropping it flushes and frees. A page whose last reference it has
//! is frozen at once, so that it cannot be found until it is freed.

use core::mem::MaybeUninit;
use core::sync::atomic::Ordering;

use super::Machine;
use super::entry::{Kind, note_dirty};
use super::flush::flush_range;
use crate::addr::{PAGE_SIZE, Pfn, UserAddr};
use crate::asid::AsidSlot;
use crate::page::Page;
use crate::pte::{ENTRIES, NonPresent, Pte};
use crate::rmap::Release;

/// The most pages with other holders that are kept at a time.
const HELD: usize = 64;

/// The most blocks that are kept at a time.
const BLOCKS: usize = 4;

/// Pages that are freed between two points at which others may run: where lists are full and pages merge, one may take 1,200 instructions.
const POINT_EVERY: usize = 128;

/// How many resident pages of each kind: changes to be charged or uncharged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Anonymous.
    pub anon: usize,
    /// Of these, pages brought in ahead ([`Pte::ahead`]).
    pub ahead: usize,
    /// Of files.
    pub file: usize,
    /// Shared anonymous.
    pub shared: usize,
}

impl Counts {
    /// Counts one page.
    #[inline]
    pub fn add(&mut self, kind: Kind) {
        match kind {
            Kind::Zero => {}
            Kind::Anon => self.anon += 1,
            Kind::File | Kind::FileCopy => self.file += 1,
            Kind::Shared => self.shared += 1,
        }
    }
}

/// See the module.
pub struct Gather<'a, M: Machine> {
    machine: M,
    asid: &'a AsidSlot,
    /// The range to invalidate; empty if `start >= end`.
    start: UserAddr,
    end: UserAddr,
    /// Faults fill entries again as soon as their table is unlocked.
    beside_faults: bool,
    /// Frozen anonymous pages, chained by their `next`.
    sole: u32,
    /// Pages with other holders, whose links must not be used.
    held: [MaybeUninit<u32>; HELD],
    /// How many of them are written.
    held_len: usize,
    /// Frames of blocks, and how many there are.
    blocks: [MaybeUninit<u32>; BLOCKS],
    blocks_len: usize,
    counts: Counts,
}

impl<'a, M: Machine> Gather<'a, M> {
    /// Nothing yet, for the space with this ASID.
    #[inline]
    pub fn new(machine: M, asid: &'a AsidSlot) -> Self {
        Self {
            machine,
            asid,
            start: UserAddr::new(usize::MAX),
            end: UserAddr::new(0),
            beside_faults: false,
            sole: 0,
            held: [const { MaybeUninit::uninit() }; HELD],
            held_len: 0,
            blocks: [const { MaybeUninit::uninit() }; BLOCKS],
            blocks_len: 0,
            counts: Counts::default(),
        }
    }

    /// As [`Gather::new`], when faults continue in the range: cleared entries are invalidated before their table is
    /// unlocked, since another page may be mapped then (break-before-make, Arm ARM D8.16.1).
    pub fn beside_faults(machine: M, asid: &'a AsidSlot) -> Self {
        Self { beside_faults: true, ..Self::new(machine, asid) }
    }

    pub(super) fn machine(&self) -> M {
        self.machine
    }

    /// Called before the table whose entries were taken is unlocked.
    #[inline]
    pub fn before_unlock(&mut self) {
        if self.beside_faults && !seeded!(DropForgetsBreak) {
            self.invalidate();
        }
    }

    #[inline]
    #[cfg_attr(test, track_caller)]
    fn invalidate(&mut self) {
        if self.start < self.end {
            flush_range(self.machine, self.asid, self.start, self.end);
            (self.start, self.end) = (UserAddr::new(usize::MAX), UserAddr::new(0));
        }
    }

    /// Whether [`Gather::take`] may be called without [`Gather::flush`] first.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.held_len < HELD
    }

    /// Whether what is taken is invalidated before its table is unlocked.
    pub(super) fn flushes_early(&self) -> bool {
        self.beside_faults
    }

    /// As [`Gather::take`], for a block entry at `start`.
    #[cold]
    pub(super) fn take_block(&mut self, pte: Pte, start: UserAddr) {
        self.counts.anon += ENTRIES;
        // (An invalidation of any page of a block removes all of it.)
        if !seeded!(BlockZapForgetsFlush) {
            self.cover(start, start + PAGE_SIZE);
        }
        self.blocks[self.blocks_len].write(pte.addr().pfn().0 as u32);
        self.blocks_len += 1;
    }

    /// Whether [`Gather::take_block`] may be called without [`Gather::flush`] first.
    pub(super) fn has_room_for_block(&self) -> bool {
        self.blocks_len < BLOCKS
    }

    /// Takes over the reference of the present entry `pte` at `va`, which was just cleared under its table's lock.
    #[inline]
    pub fn take(&mut self, pte: Pte, va: UserAddr) {
        self.take_of_range(pte);
        self.cover(va, va + PAGE_SIZE);
    }

    /// The entries that were taken of this range are to be invalidated.
    #[inline]
    pub fn cover(&mut self, start: UserAddr, end: UserAddr) {
        self.start = self.start.min(start);
        self.end = self.end.max(end);
    }

    /// As [`Gather::take`], for an entry of a range that the caller covers ([`Gather::cover`]) before the table is unlocked.
    #[inline]
    pub fn take_of_range(&mut self, pte: Pte) {
        if pte.is_anon() {
            self.counts.anon += 1;
            self.counts.ahead += pte.ahead();
            // SAFETY: the entry held a reference to the frame, so its record exists.
            let page = unsafe { Page::of(self.machine, pte.addr().pfn()) };
            if page.freeze(1) {
                page.next().store(self.sole, Ordering::Relaxed);
                self.sole = pte.addr().pfn().0 as u32;
                return;
            }
        } else {
            let kind = pte.owner_kind(self.machine);
            self.counts.add(kind);
            note_dirty(self.machine, pte, kind);
            let freed_as_own = kind == Kind::Zero && seeded!(ZeroPageIsFreed);
            if !kind.is_counted() && !freed_as_own {
                return;
            }
        }
        self.held[self.held_len].write(pte.addr().pfn().0 as u32);
        self.held_len += 1;
    }

    /// Takes over what the non-present entry `pte`, just cleared under its table's lock, held. It was in no TLB.
    #[cold]
    pub fn take_non_present(&mut self, pte: Pte) {
        match pte.kind() {
            None | Some(NonPresent::None | NonPresent::Marker(_)) => {}
            Some(NonPresent::Swap(_)) if seeded!(UnmapLeaksSlot) => {}
            Some(NonPresent::Swap(swapped)) => self.machine.spaces().swap().release(swapped.slot),
            Some(NonPresent::Migration(_)) if seeded!(UnmapForgetsMigration) => {}
            // Its reference was dropped when it became a migration entry; the mover holds the page.
            Some(NonPresent::Migration(_)) => self.counts.add(pte.moved_kind()),
        }
    }

    /// Invalidates the cleared entries, then drops the references, with a point now and then at which others may run. No
    /// page-table lock is held.
    ///
    /// All entries taken are in `start..end`, or were invalidated earlier ([`Gather::beside_faults`]).
    #[inline]
    pub fn flush(&mut self) {
        let holds_any = self.sole != 0 || self.held_len + self.blocks_len != 0;
        if self.start < self.end || holds_any {
            self.flush_some();
        }
    }

    fn flush_some(&mut self) {
        self.invalidate();
        let mut release = Release::new(self.machine);
        let mut until_point = POINT_EVERY;
        while self.sole != 0 {
            let pfn = Pfn(self.sole as usize);
            // SAFETY: this owns the frame.
            self.sole = unsafe { Page::of(self.machine, pfn) }.next().load(Ordering::Relaxed);
            release.frozen_anon(pfn);
            until_point -= 1;
            if until_point == 0 {
                until_point = POINT_EVERY;
                let _ = self.machine.resched_point();
            }
        }
        for pfn in &self.held[..self.held_len] {
            // SAFETY: `take` wrote the first `held_len`.
            release.page(Pfn(unsafe { pfn.assume_init() } as usize));
        }
        self.held_len = 0;
        if self.blocks_len != 0 {
            self.drop_blocks();
        }
    }

    /// Drops what block entries held, which have been invalidated.
    #[cold]
    #[inline(never)]
    fn drop_blocks(&mut self) {
        let mut release = Release::new(self.machine);
        for pfn in &self.blocks[..self.blocks_len] {
            // SAFETY: `take_block` wrote the first `blocks_len`.
            release.block(Pfn(unsafe { pfn.assume_init() } as usize));
        }
        self.blocks_len = 0;
    }

    /// Flushes, and returns the counts to uncharge. Nothing is left that a drop would flush.
    #[inline]
    pub fn finish(&mut self) -> Counts {
        self.flush();
        self.counts
    }
}

impl<M: Machine> Drop for Gather<'_, M> {
    fn drop(&mut self) {
        self.flush();
    }
}
