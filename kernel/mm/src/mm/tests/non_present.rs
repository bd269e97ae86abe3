//! Swap, migration and write-back as later floors will do them, in so far as the tables can tell: what makes the
//! oracle's entries non-present, and brings the pages back; what makes them clean.

use std::boxed::Box;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use super::{PAGE, Space};
use crate::addr::{Pfn, PhysAddr, UserAddr};
use crate::fallible::{AllocError, KArc, inject};
use crate::frame;
use crate::machine::Machine;
use crate::mm::{FaultError, NonPresentOps, for_each_mapping};
use crate::page::PageFlags;
use crate::pte::{NonPresent, Pte, bits, index};
use crate::rmap;
use crate::rmap::AnonVma;
use crate::sim::{Sim, turns};
use crate::supply::Supply;
use crate::table::entry::{self, Kind};
use crate::table::flush::flush_range;
use crate::table::gather::Counts;
use crate::table::{Leaf, SwapSlots};
use crate::vma::{VmFlags, Vma};

/// A slot: how many entries name it, and what is in it.
struct Slot {
    users: usize,
    page: Box<[u8; PAGE]>,
}

/// A page on its way elsewhere. Whoever moves it has a reference to it, or has it frozen; nobody else moves it.
#[derive(Clone, Copy)]
struct Move {
    /// Somebody is at it.
    is_busy: bool,
    /// Nobody else has it: it can leave its frame.
    is_frozen: bool,
    /// The slot that it goes to, and not to another frame.
    slot: Option<u64>,
}

#[derive(Default)]
struct State {
    slots: BTreeMap<u64, Slot>,
    next: u64,
    /// By frame.
    moving: BTreeMap<usize, Move>,
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
        self.state().moving.contains_key(&pfn.0)
    }

    pub fn slots(&self) -> usize {
        self.state().slots.len()
    }

    /// Makes the page at `addr` of `mm`, and all other mappings of it, entries of `how`. Nothing if it cannot be.
    pub fn take_away(&self, mm: &Space, addr: UserAddr, how: How) {
        if how == How::Mark {
            return self.mark(mm, addr);
        }
        let Some(pfn) = self.isolate(mm, addr, how) else { return };
        let page = frame::page(self.sim, pfn);
        let kind = entry::kind_of_frame(self.sim, pfn);
        let slot = (how == How::Swap).then(|| self.new_slot());
        self.replace_each(pfn, true, |mm, _, at, leaf| {
            let i = index(at.get(), 3);
            let mut guard = leaf.lock();
            let was = guard.get(i);
            if !was.is_present() || was.addr().pfn() != pfn {
                return;
            }
            let was = guard.take(i);
            guard.fill(i, was.set_aside(kind));
            // Whoever takes the new entry away makes room for another page at once.
            flush_range(self.sim, &mm.asid, at, at + PAGE);
            drop(guard);
            entry::note_dirty(self.sim, was, kind);
            mm.uncharge(Counts { ahead: was.ahead(), ..Counts::default() });
            rmap::Release::new(self.sim).page(pfn);
        });
        // What the table in page.rs says that a freeze expects; an object's page stays, since its object may be asked
        // for it meanwhile.
        let is_frozen = kind == Kind::Anon && page.freeze(1);
        if !turns::are_taken() {
            assert!(is_frozen || page.refs() == 2 && kind != Kind::Anon, "somebody else holds it");
        }
        self.state().moving.insert(pfn.0, Move { is_busy: false, is_frozen, slot });
        if slot.is_some() || turns::are_taken() {
            self.finish_move(pfn);
        }
    }

    fn mark(&self, mm: &Space, addr: UserAddr) {
        let areas = mm.areas.read();
        if areas.tree.find(addr).is_some() && mm.entry(addr) == Pte::NONE {
            let leaf = mm.tables.walk_or_create(addr, &Supply::new(mm.machine));
            if let Ok(leaf) = leaf {
                leaf.lock().fill(index(addr.get(), 3), Pte::non_present(NonPresent::Marker(7)));
            }
        }
    }

    /// Takes a reference to the page at `addr`, if it can be moved so, and keeps others from moving it.
    fn isolate(&self, mm: &Space, addr: UserAddr, how: How) -> Option<Pfn> {
        let areas = mm.areas.read();
        areas.tree.find(addr)?;
        let leaf = mm.tables.walk(addr)?;
        let guard = leaf.lock();
        let pte = guard.get(index(addr.get(), 3));
        if !pte.is_present() || pte.is_special() || how == How::Swap && !pte.is_anon() {
            return None;
        }
        let pfn = pte.addr().pfn();
        let page = frame::page(self.sim, pfn);
        let is_alone = page.isolate(page.state());
        if is_alone {
            self.state().moving.insert(pfn.0, Move { is_busy: true, is_frozen: false, slot: None });
        }
        is_alone.then_some(pfn)
    }

    fn new_slot(&self) -> u64 {
        let mut state = self.state();
        state.next += 1;
        let slot = state.next;
        state.slots.insert(slot, Slot { users: 1, page: Box::new([0; PAGE]) });
        slot
    }

    /// Has `replace` look at each entry that stands for the page, and is present or not as asked, until there is none.
    /// mremap takes entries along while this goes from a place that it has found to the entry there.
    fn replace_each(
        &self,
        pfn: Pfn,
        present: bool,
        replace: impl Fn(&Space, &Vma<&'static Sim>, UserAddr, &Leaf<'_, &'static Sim>),
    ) {
        loop {
            let mut mappings: Vec<(Space, UserAddr)> = Vec::new();
            for_each_mapping(self.sim, pfn, |mm, at| {
                if mm.entry(at).is_present() == present {
                    mappings.push((mm.clone(), at));
                }
                true
            });
            if mappings.is_empty() {
                return;
            }
            for (mm, at) in &mappings {
                let areas = mm.areas.read();
                if let (Some(vma), Some(leaf)) = (areas.tree.find(*at), mm.tables.walk(*at)) {
                    replace(mm, vma, *at, &leaf);
                }
            }
        }
    }

    /// Makes the page at `addr` of `mm` clean, in all its mappings. Answers its frame, if there is one to be cleaned.
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

    /// Ends the move of a frame that nobody is at; whether there was any.
    pub fn finish_move(&self, old: Pfn) -> bool {
        let moved = match self.state().moving.get_mut(&old.0) {
            None => return false,
            Some(moved) if moved.is_busy => return true,
            Some(moved) => {
                moved.is_busy = true;
                *moved
            }
        };
        // Pages that cannot leave their frame stay, and so do those for which there is no other.
        let new = if moved.is_frozen && moved.slot.is_none() { self.copy_of(old) } else { None };
        let page = frame::page(self.sim, old);
        let leaves = new.is_some() || moved.is_frozen && moved.slot.is_some();
        if let Some(slot) = moved.slot.filter(|_| leaves) {
            // SAFETY: no entry maps the frame any more, and this has it frozen.
            let bytes = unsafe { self.bytes(old).read() };
            *self.state().slots.get_mut(&slot).expect("this is a user of it").page = bytes;
        }
        if moved.is_frozen && !leaves {
            page.unfreeze(1);
        }
        self.replace_each(old, false, |mm, vma, at, leaf| match moved.slot.filter(|_| leaves) {
            Some(slot) => self.fill_swapped(mm, at, leaf, old, slot),
            None => self.fill_moved(vma, at, leaf, old, new.unwrap_or(old)),
        });
        self.state().moving.remove(&old.0);
        page.end_isolation();
        let mut release = rmap::Release::new(self.sim);
        if leaves {
            release.frozen_anon(old);
            new.into_iter().for_each(|new| release.page(new));
        } else {
            release.page(old);
        }
        moved.slot.into_iter().for_each(|slot| self.release_slot(slot));
        true
    }

    /// A page like the frozen one, if there is a frame for it.
    fn copy_of(&self, old: Pfn) -> Option<Pfn> {
        let page = frame::page(self.sim, old);
        let new = frame::alloc_user(self.sim, false).ok()?;
        self.sim.copy_page(new.addr(), old.addr());
        // SAFETY: this has the page frozen, which is an owner of its anon_vma.
        let anon_vma = unsafe {
            KArc::upgrade(core::ptr::with_exposed_provenance::<AnonVma<&'static Sim>>(page.owner())).unwrap()
        };
        rmap::make_anon(self.sim, new, &anon_vma, page.index() as usize);
        KArc::add_owners(&anon_vma, 1);
        Some(new)
    }

    fn fill_swapped(&self, mm: &Space, at: UserAddr, leaf: &Leaf<'_, &'static Sim>, old: Pfn, slot: u64) {
        let i = index(at.get(), 3);
        let mut guard = leaf.lock();
        if guard.get(i).kind() != Some(NonPresent::Migration(old.addr())) {
            return;
        }
        self.state().slots.get_mut(&slot).expect("this is a user of it").users += 1;
        guard.clear(i);
        guard.fill(i, Pte::non_present(NonPresent::Swap(slot)));
        drop(guard);
        mm.uncharge(Counts { anon: 1, ..Counts::default() });
    }

    fn fill_moved(&self, vma: &Vma<&'static Sim>, at: UserAddr, leaf: &Leaf<'_, &'static Sim>, old: Pfn, there: Pfn) {
        let i = index(at.get(), 3);
        let mut guard = leaf.lock();
        if guard.get(i).kind() != Some(NonPresent::Migration(old.addr())) {
            return;
        }
        assert!(frame::page(self.sim, there).get());
        if vma.flags.contains(VmFlags::EXEC) {
            self.sim.sync_instructions(there.addr());
        }
        let back = guard.get(i).come_back(there.addr(), vma.flags);
        guard.clear(i);
        guard.fill(i, back);
    }

    pub fn finish_moves(&self) {
        loop {
            let next = self.state().moving.keys().next().copied();
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
        let is_over = turns::are_taken() && !self.is_moving(old);
        assert!(is_over || self.is_moving(old), "an entry waits for ever: nobody moves its frame");
        assert!(self.sim.held_ranks().load(core::sync::atomic::Ordering::Relaxed) == 0, "a sleep with a lock held");
        while self.finish_move(old) {
            turns::wait();
        }
        Ok(())
    }
}
