//! Swap, migration and write-back as later floors will do them, in so far as the tables can tell: what makes the oracle's
//! entries non-present, and brings the pages back; what makes them clean.

use std::boxed::Box;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use super::{PAGE, Space};
use crate::addr::{Pfn, PhysAddr, UserAddr};
use crate::fallible::{AllocError, KArc, inject};
use crate::frame;
use crate::machine::Machine;
use crate::mm::{FaultError, NonPresentOps, for_each_mapping};
use crate::page::{PageFlags, PageState};
use crate::pte::{NonPresent, Pte, bits, index};
use crate::rmap;
use crate::rmap::AnonGroup;
use crate::sim::Sim;
use crate::supply::Supply;
use crate::table::SwapSlots;
use crate::table::entry::{self, ANON, Kind};
use crate::table::flush::flush_range;
use crate::table::gather::Counts;
use crate::vma::VmFlags;

/// A slot: how many entries name it, and what is in it.
struct Slot {
    users: usize,
    page: Box<[u8; PAGE]>,
}

#[derive(Default)]
struct State {
    slots: BTreeMap<u64, Slot>,
    next: u64,
    /// Frames that are being moved: frozen, or an object's and held.
    moving: BTreeSet<usize>,
}

/// The simulated floors of one machine.
pub(super) struct Elsewhere {
    sim: &'static Sim,
    state: Mutex<State>,
}

impl Elsewhere {
    pub fn attach(sim: &'static Sim) -> &'static Self {
        let this: &'static Self = Box::leak(Box::new(Self { sim, state: Mutex::default() }));
        sim.provide_non_present(this);
        this
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bytes(&self, pfn: Pfn) -> *mut [u8; PAGE] {
        self.sim.direct_map(pfn.addr()).cast()
    }

    /// The word at the start of a slot's page.
    pub fn word(&self, slot: u64) -> u64 {
        let state = self.state();
        let bytes = state.slots[&slot].page[..8].try_into();
        u64::from_le_bytes(bytes.unwrap_or_default())
    }

    pub fn is_moving(&self, pfn: Pfn) -> bool {
        self.state().moving.contains(&pfn.0)
    }

    pub fn slots(&self) -> usize {
        self.state().slots.len()
    }

    /// Makes the page at `addr` of `mm`, and all other mappings of it, entries of `how`. Nothing if it cannot be.
    pub fn take_away(&self, mm: &Space, addr: UserAddr, how: How) {
        let areas = mm.areas.read();
        if areas.tree.find(addr).is_none() {
            return;
        }
        let pte = mm.entry(addr);
        if how == How::Mark {
            let leaf =
                if pte == Pte::NONE { mm.tables.walk_or_create(addr, &Supply::new(mm.machine)).ok() } else { None };
            if let Some(leaf) = leaf {
                leaf.lock().fill(index(addr.get(), 3), Pte::non_present(NonPresent::Marker(7)));
            }
            return;
        }
        if !pte.is_present() || pte.is_special() || how == How::Swap && !pte.is_anon() {
            return;
        }
        drop(areas);
        let pfn = pte.addr().pfn();
        if self.is_moving(pfn) {
            return;
        }
        let page = frame::page(self.sim, pfn);
        assert!(page.get());
        let mut mappings: Vec<(Space, UserAddr)> = Vec::new();
        for_each_mapping(self.sim, pfn, |mm, at| {
            mappings.push((mm.clone(), at));
            true
        });
        let slot = {
            let mut state = self.state();
            state.next += 1;
            state.next
        };
        let kind = entry::kind_of_frame(self.sim, pfn);
        let absent = match how {
            How::Swap => Pte::non_present(NonPresent::Swap(slot)),
            _ => Pte::migration(pfn.addr(), kind),
        };
        for (mm, at) in &mappings {
            let Some(leaf) = mm.tables.walk(*at) else { continue };
            let ahead = {
                let mut guard = leaf.lock();
                let was = guard.take(index(at.get(), 3));
                guard.fill(index(at.get(), 3), absent);
                entry::note_dirty(self.sim, was, kind);
                was.ahead()
            };
            flush_range(self.sim, &mm.asid, *at, *at + PAGE);
            mm.uncharge(Counts { anon: (how == How::Swap) as usize, ahead, ..Counts::default() });
            rmap::Release::new(self.sim).page(pfn);
        }
        if how == How::Swap {
            // SAFETY: no entry maps the frame any more, and this holds it.
            let page = Box::new(unsafe { self.bytes(pfn).read() });
            self.state().slots.insert(slot, Slot { users: mappings.len(), page });
            rmap::Release::new(self.sim).page(pfn);
        } else {
            // What the table in page.rs says that a freeze expects; an object's page stays, since its object may be asked
            // for it meanwhile.
            match kind {
                Kind::Anon => assert!(page.freeze(1), "somebody else holds it"),
                _ => assert_eq!(page.refs(), 2, "this and the object"),
            }
            self.state().moving.insert(pfn.0);
        }
    }

    /// Makes the page at `addr` of `mm` clean, in all its mappings. Returns its frame, if there is one to be cleaned.
    pub fn clean(&self, mm: &Space, addr: UserAddr) -> Option<Pfn> {
        let pte = mm.entry(addr);
        mm.areas.read().tree.find(addr)?;
        if !pte.is_present() || pte.is_special() || self.is_moving(pte.addr().pfn()) {
            return None;
        }
        let pfn = pte.addr().pfn();
        let page = frame::page(self.sim, pfn);
        assert!(page.get());
        let cleaned = |pte: Pte| {
            let right = if pte.is_writable() { bits::DBM } else { 0 };
            Pte((pte.0 | bits::READ_ONLY | right) & !bits::DIRTY)
        };
        for_each_mapping(self.sim, pfn, |mm, at| {
            if let Some(leaf) = mm.tables.walk(at) {
                let mut guard = leaf.lock();
                let i = index(at.get(), 3);
                guard.update(i, guard.get(i), cleaned);
            }
            flush_range(self.sim, &mm.asid, at, at + PAGE);
            true
        });
        page.clear_flags(PageFlags::DIRTY);
        rmap::Release::new(self.sim).page(pfn);
        Some(pfn)
    }

    /// Ends the move of a frame: anonymous pages get a new frame where there is one, others stay.
    pub fn finish_move(&self, old: Pfn) {
        if !self.state().moving.remove(&old.0) {
            return;
        }
        let page = frame::page(self.sim, old);
        let anon = page.state() == PageState::Anon;
        let home = page.index() as usize;
        let new = if anon { frame::alloc_user(self.sim, false).ok() } else { None };
        if anon && new.is_none() {
            page.unfreeze(1);
        }
        if let Some(new) = new {
            self.sim.copy_page(new.addr(), old.addr());
            // SAFETY: this has the page frozen, which is an owner of its group.
            let group = unsafe {
                KArc::upgrade(core::ptr::with_exposed_provenance::<AnonGroup<&'static Sim>>(page.owner())).unwrap()
            };
            rmap::make_anon(self.sim, new, &group, home);
            KArc::add_owners(&group, 1);
        }
        let mut mappings: Vec<(Space, UserAddr)> = Vec::new();
        for_each_mapping(self.sim, old, |mm, at| {
            mappings.push((mm.clone(), at));
            true
        });
        for (mm, at) in &mappings {
            let areas = mm.areas.read();
            let (Some(vma), Some(leaf)) = (areas.tree.find(*at), mm.tables.walk(*at)) else { continue };
            let i = index(at.get(), 3);
            let mut guard = leaf.lock();
            if guard.get(i).is_present() {
                // The object answered another fault with it: such a page stays where it is.
                assert!(!anon, "mapped while it was moved");
                continue;
            }
            let mark = if anon { ANON } else { 0 };
            let there = new.unwrap_or(old);
            assert!(frame::page(self.sim, there).get());
            if vma.flags.contains(VmFlags::EXEC) {
                self.sim.sync_instructions(there.addr());
            }
            guard.clear(i);
            guard.fill(i, Pte::page(there.addr(), entry::read_only(vma.flags) | mark | bits::DIRTY));
        }
        let mut release = rmap::Release::new(self.sim);
        if new.is_some() {
            release.frozen_anon(old);
        }
        release.page(new.unwrap_or(old));
    }

    pub fn finish_moves(&self) {
        loop {
            let next = self.state().moving.first().copied();
            let Some(pfn) = next else { return };
            self.finish_move(Pfn(pfn));
        }
    }
}

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Its page goes to swap.
    Swap,
    /// Its page is being moved, until somebody needs it.
    Move,
    /// It was empty, and becomes a marker.
    Mark,
}

impl SwapSlots for Elsewhere {
    fn share_slot(&self, slot: u64) -> Result<(), AllocError> {
        inject::pass()?;
        let mut state = self.state();
        state.slots.get_mut(&slot).expect("an entry names the slot").users += 1;
        Ok(())
    }

    fn release_slot(&self, slot: u64) {
        let mut state = self.state();
        let users = &mut state.slots.get_mut(&slot).expect("an entry names the slot").users;
        *users -= 1;
        if *users == 0 {
            state.slots.remove(&slot);
        }
    }
}

impl NonPresentOps for Elsewhere {
    fn read_slot(&self, slot: u64, into: PhysAddr) -> Result<(), FaultError> {
        assert!(self.sim.held_ranks().load(core::sync::atomic::Ordering::Relaxed) == 0, "a sleep with a lock held");
        let page = self.state().slots[&slot].page.clone();
        // SAFETY: the frame is the caller's.
        unsafe { self.bytes(into.pfn()).write(*page) };
        self.sim.note_content(into);
        Ok(())
    }

    fn wait_for_move(&self, old: Pfn) -> Result<(), FaultError> {
        assert!(self.is_moving(old), "an entry waits for ever: nobody moves its frame");
        assert!(self.sim.held_ranks().load(core::sync::atomic::Ordering::Relaxed) == 0, "a sleep with a lock held");
        self.finish_move(old);
        Ok(())
    }
}
