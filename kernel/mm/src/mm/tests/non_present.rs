//! What makes the oracle's entries non-present, and what makes pages clean: pages that go to swap, markers, and moves to other
//! frames that go on until somebody needs the page; write-back as later floors will do it, in so far as the tables can tell.

use std::boxed::Box;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::vec::Vec;

use super::pair::take_apart;
use super::{PAGE, Space};
use crate::addr::{Pfn, UserAddr};
use crate::fallible::{KArc, inject};
use crate::frame;
use crate::machine::Machine;
use crate::mm::look::look;
use crate::mm::page_out::{Out, page_out};
use crate::mm::reverse::walk;
use crate::mm::{Stays, for_each_mapping};
use crate::page::{PageFlags, PageState};
use crate::pte::{NonPresent, Pte, bits, index};
use crate::rmap;
use crate::rmap::AnonVma;
use crate::sim::{Sim, SlowMoves, turns};
use crate::supply::Supply;
use crate::swap::Slot;
use crate::table::LEAF_SPAN;
use crate::table::Leaf;
use crate::table::entry::{self, Kind};
use crate::table::flush::flush_range;
use crate::table::gather::Counts;
use crate::vma::{VmFlags, Vma};

/// A page on its way elsewhere. Whoever moves it has a reference to it, or has it frozen; nobody else moves it.
#[derive(Clone, Copy)]
struct Move {
    /// Somebody is at it.
    is_busy: bool,
    /// Nobody else has it: it can leave its frame.
    is_frozen: bool,
}

#[derive(Default)]
struct State {
    /// By frame.
    moving: BTreeMap<usize, Move>,
}

/// More slots than any test needs.
const SLOTS: usize = 1 << 20;

/// The simulated floors of one machine.
pub(super) struct Elsewhere {
    sim: &'static Sim,
    state: Mutex<State>,
}

impl Elsewhere {
    pub fn attach(sim: &'static Sim) -> &'static Self {
        let this: &'static Self = Box::leak(Box::new(Self { sim, state: Mutex::default() }));
        sim.provide_slow_moves(this);
        sim.spaces().swap().init(SLOTS, SLOTS, 1).expect("nothing fails here");
        this
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The word at the start of a slot's page.
    pub fn word(&self, slot: Slot) -> u64 {
        let mut page = [0; PAGE / 8];
        self.sim.spaces().swap().read_words(slot, &mut page).expect("what was stored can be read");
        page[0]
    }

    pub fn is_moving(&self, pfn: Pfn) -> bool {
        self.state().moving.contains_key(&pfn.0)
    }

    /// Slots with users.
    pub fn used_slots(&self) -> usize {
        self.sim.spaces().swap().stats().used
    }

    /// Makes the page at `addr` of `mm`, and all other mappings of it, entries of `how`. Nothing if it cannot be.
    pub fn take_away(&self, mm: &Space, addr: UserAddr, how: How) {
        match how {
            How::Mark => return self.mark(mm, addr),
            How::Swap => return self.swap_out(mm, addr),
            How::Look => return self.look_at(mm, addr),
            How::Collapse => {
                // (Whether it can be is no matter of what programs see.)
                let _ = mm.collapse_block(UserAddr::new(addr.get() & !(LEAF_SPAN - 1)));
                return;
            }
            How::Move => {}
        }
        let Some(pfn) = self.isolate(mm, addr) else { return };
        let page = frame::page(self.sim, pfn);
        let kind = entry::kind_of_frame(self.sim, pfn);
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
            flush_range(self.sim, mm.tables.asid(), at, at + PAGE);
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
        self.state().moving.insert(pfn.0, Move { is_busy: false, is_frozen });
        if turns::are_taken() {
            self.finish_move(pfn);
        }
    }

    /// The frame of the page that is at `addr`, or that a touch would find in the object there.
    fn frame_at(&self, mm: &Space, addr: UserAddr) -> Option<Pfn> {
        let pte = mm.entry(addr);
        if pte.is_present() {
            let is_held = !pte.is_special();
            is_held.then(|| take_apart(self.sim, pte.addr().pfn()));
            return is_held.then_some(pte.addr().pfn());
        }
        let backing = mm.areas.read().tree.find(addr).and_then(|vma| vma.backing_at(addr));
        let backing = backing.filter(|_| pte == Pte::NONE)?;
        backing.object.look_at(backing.index)?.ok()
    }

    fn look_at(&self, mm: &Space, addr: UserAddr) {
        let Some(pfn) = self.frame_at(mm, addr) else { return };
        let page = frame::page(self.sim, pfn);
        if page.get_if(PageState::Anon) || page.get_if(PageState::Object) {
            look(self.sim, page, pfn);
            rmap::Release::new(self.sim).page(pfn);
        }
    }

    fn swap_out(&self, mm: &Space, addr: UserAddr) {
        let Some(pfn) = self.frame_at(mm, addr) else { return };
        let is_backed = entry::kind_of_frame(self.sim, pfn) != Kind::FileCopy;
        let is_locked = || {
            let mut is_locked = false;
            walk(self.sim, pfn, None, |_, vma, _| {
                is_locked |= vma.flags.contains(VmFlags::LOCKED);
                true
            });
            is_locked
        };
        let must_stay = !turns::are_taken() && frame::page(self.sim, pfn).get() && {
            let must_stay = is_locked();
            rmap::Release::new(self.sim).page(pfn);
            must_stay
        };
        // Some pages only if they were not used.
        let if_unused = (addr.get() / PAGE).is_multiple_of(3);
        let done = page_out(self.sim, pfn, Out { shadow: 3, even_raw: true, if_unused, if_given_up: false });
        let is_moving = matches!(done, Err(Stays::NotMovable)) && (self.is_moving(pfn) || !is_backed);
        assert!(!must_stay || done.is_err(), "a locked page went to swap");
        let may_stay = if_unused && done == Err(Stays::Used) || turns::are_taken() || inject::is_armed();
        assert!(done.is_ok() || is_moving || must_stay || may_stay, "{done:?}");
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
    fn isolate(&self, mm: &Space, addr: UserAddr) -> Option<Pfn> {
        let areas = mm.areas.read();
        areas.tree.find(addr)?;
        let leaf = mm.tables.walk(addr)?;
        let guard = leaf.lock();
        let pte = guard.get(index(addr.get(), 3));
        if !pte.is_present() || pte.is_special() {
            return None;
        }
        let pfn = pte.addr().pfn();
        let page = frame::page(self.sim, pfn);
        let is_alone = page.isolate(page.state());
        if is_alone {
            self.state().moving.insert(pfn.0, Move { is_busy: true, is_frozen: false });
        }
        is_alone.then_some(pfn)
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

    /// Makes the page of an object at `addr` of `mm` clean, in all its mappings. Answers its frame, if there is one to be cleaned.
    pub fn clean(&self, mm: &Space, addr: UserAddr) -> Option<Pfn> {
        let pte = mm.entry(addr);
        mm.areas.read().tree.find(addr)?;
        if !pte.is_present() || pte.is_special() || self.is_moving(pte.addr().pfn()) {
            return None;
        }
        if pte.is_anon() {
            // (Clean, it would be given up.)
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
            flush_range(self.sim, mm.tables.asid(), at, at + PAGE);
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
        let new = if moved.is_frozen { self.copy_of(old) } else { None };
        let page = frame::page(self.sim, old);
        if moved.is_frozen && new.is_none() {
            page.unfreeze(1);
        }
        self.replace_each(old, false, |_, vma, at, leaf| self.fill_moved(vma, at, leaf, old, new.unwrap_or(old)));
        self.state().moving.remove(&old.0);
        page.end_isolation();
        let mut release = rmap::Release::new(self.sim);
        match new {
            Some(new) => {
                release.frozen_anon(old);
                release.page(new);
            }
            None => release.page(old),
        }
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
    /// Reclaim looks whether its page was used.
    Look,
    /// Its page is being moved, until somebody needs it.
    Move,
    /// It was empty, and becomes a marker.
    Mark,
    /// It is brought together with those around it, and they become a block.
    Collapse,
}

impl SlowMoves for Elsewhere {
    fn wait(&self, old: Pfn) -> bool {
        assert!(self.sim.held_ranks().load(core::sync::atomic::Ordering::Relaxed) == 0, "a sleep with a lock held");
        let was_moving = self.is_moving(old);
        while self.finish_move(old) {
            turns::wait();
        }
        was_moving
    }
}
