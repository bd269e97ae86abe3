//! Pages on their way out: unmapped, but perhaps still in a TLB.
//!
//! A [`Gather`] owns the references of the entries that were cleared, until it has invalidated them. There is
//! no way to get a page out of it earlier, and none to forget it: dropping it flushes and frees. A page whose last
//! reference it has is frozen at once: until it is freed nobody can find it.

use core::mem::MaybeUninit;
use core::sync::atomic::Ordering;

use super::entry::{Kind, note_dirty};
use super::flush::flush_range;
use crate::addr::{PAGE_SIZE, Pfn, UserAddr};
use crate::asid::AsidSlot;
use crate::machine::Machine;
use crate::mm::frame::Release;
use crate::page::Page;
use crate::pte::{NonPresent, Pte};

/// Pages with other holders that are kept at a time.
const HELD: usize = 64;

/// How many resident pages of each kind: changes to be charged or uncharged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Anonymous.
    pub anon: usize,
    /// Of these, those that nobody has asked for yet ([`Pte::ahead`]).
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
    /// What is to be invalidated; empty if `start >= end`.
    start: UserAddr,
    end: UserAddr,
    /// Faults fill entries again as soon as their table is unlocked.
    beside_faults: bool,
    /// Anonymous pages that are frozen, strung together by their `next`.
    sole: u32,
    /// Pages that have other holders: their links are not ours.
    held: [MaybeUninit<u32>; HELD],
    /// How many of them are written.
    held_len: usize,
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
            counts: Counts::default(),
        }
    }

    /// As [`Gather::new`], where faults go on in the range: what is cleared is invalidated before its table is unlocked, since
    /// another page may take its place then (break-before-make, Arm ARM D8.16.1).
    pub fn beside_faults(machine: M, asid: &'a AsidSlot) -> Self {
        Self { beside_faults: true, ..Self::new(machine, asid) }
    }

    /// The table whose entries were taken is about to be unlocked.
    #[inline]
    pub fn before_unlock(&mut self) {
        if self.beside_faults && !seeded!(DropForgetsBreak) {
            self.invalidate();
        }
    }

    #[inline]
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

    /// Takes over what the present entry `pte` at `va`, just cleared under its table's lock, referred to.
    #[inline]
    pub fn take(&mut self, pte: Pte, va: UserAddr) {
        self.start = self.start.min(va);
        self.end = self.end.max(va + PAGE_SIZE);
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

    /// Takes over what the non-present entry `pte`, just cleared under its table's lock, stood for. No TLB knows of it.
    #[cold]
    pub fn take_absent(&mut self, pte: Pte) {
        match pte.kind() {
            None | Some(NonPresent::None | NonPresent::Marker(_)) => {}
            Some(NonPresent::Swap(slot)) => {
                if let Some(absent) = self.machine.absent()
                    && !seeded!(UnmapLeaksSlot)
                {
                    absent.release_slot(slot);
                }
            }
            Some(NonPresent::Migration(_)) if seeded!(UnmapForgetsMigration) => {}
            // Its reference went when it became one; the page is with whoever moves it.
            Some(NonPresent::Migration(_)) => self.counts.add(pte.moved_kind()),
        }
    }

    /// Invalidates what was cleared, then gives the references back. No page-table lock is held.
    ///
    /// Whatever was taken is in `start..end`, or was invalidated earlier ([`Gather::beside_faults`]).
    #[inline]
    pub fn flush(&mut self) {
        if self.start < self.end || self.beside_faults {
            self.flush_some();
        }
    }

    fn flush_some(&mut self) {
        self.invalidate();
        let mut release = Release::new(self.machine);
        while self.sole != 0 {
            let pfn = Pfn(self.sole as usize);
            // SAFETY: this owns the frame.
            self.sole = unsafe { Page::of(self.machine, pfn) }.next().load(Ordering::Relaxed);
            release.frozen_anon(pfn);
        }
        for pfn in &self.held[..self.held_len] {
            // SAFETY: `take` wrote the first `held_len`.
            release.page(Pfn(unsafe { pfn.assume_init() } as usize));
        }
        self.held_len = 0;
    }

    /// Flushes, and answers what is to be uncharged.
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
