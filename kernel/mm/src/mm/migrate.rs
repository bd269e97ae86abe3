//! Moving a page of user memory to another frame, by the protocol of non_present.rs.
//!
//! The mover isolates the page ([`Page::isolate`]), so that nobody else takes it away meanwhile. It holds no lock between its
//! steps. The visits of a walk have the areas of one space locked for reading, and take the lock of an entry's table.
//!
//! A walk to the mappings of an object's page misses an area that is being changed. If the first walk does, its entry has a
//! reference, and the page stays. If the second one does, a migration entry remains when the move is over: a fault
//! drops it, and gets the page from the object ([`Mm::drop_left_over`]).
//!
//! [`Page::isolate`]: crate::page::Page::isolate

use core::mem::ManuallyDrop;

use super::Mm;
use super::page_out::{Out, page_out};
use super::reverse::{for_each_object_mapping, walk};
use crate::addr::{Pfn, UserAddr};
use crate::event::Event;
use crate::fallible::{AllocError, KArc};
use crate::frame;
use crate::mm::Machine;
use crate::object::Object;
use crate::page::{Page, PageFlags, PageState};
use crate::page_alloc::{MigrateRange, MovePages};
use crate::pte::{ENTRIES, NonPresent, Pte, bits, index};
use crate::rmap::{self, AnonVma, Release, whole};
use crate::spaces::Move;
use crate::table::entry::{self, Kind};
use crate::table::flush::flush_page;
use crate::table::gather::Counts;
use crate::vma::{VmFlags, Vma};

/// Why a page stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stays {
    /// It is no page of user memory, or another thread takes it away.
    NotMovable,
    /// It is pinned, or somebody holds it at the moment.
    Held,
    /// There is no frame for it.
    NoMemory,
    /// It is locked into memory.
    Locked,
    /// It was used since the last look.
    Used,
    /// Its contents do not become smaller.
    Incompressible,
    /// Swap has no room for it.
    NoSwap,
    /// It has to be written back first.
    Marked,
}

/// Moves the page of user memory at `old` to a frame that `alloc` returns, and frees the old one. No lock is held, and the call
/// may sleep. Programs that access the page meanwhile wait. Returns the new frame, which may have been freed by then.
pub fn migrate<M: Machine>(
    machine: M,
    old: Pfn,
    alloc: impl FnOnce() -> Result<Pfn, AllocError>,
) -> Result<Pfn, Stays> {
    let mut frame = None;
    let moved = try_migrate(machine, old, || {
        let new = alloc()?;
        frame = Some(new);
        Ok(new)
    });
    if moved.is_err()
        && let Some(new) = frame
    {
        frame::free(machine, new);
    }
    moved
}

/// As [`migrate`], to a frame that the caller has allocated, and keeps on an error.
pub fn migrate_to<M: Machine>(machine: M, old: Pfn, new: Pfn) -> Result<(), Stays> {
    try_migrate(machine, old, || Ok(new)).map(drop)
}

fn try_migrate<M: Machine>(
    machine: M,
    old: Pfn,
    alloc: impl FnOnce() -> Result<Pfn, AllocError>,
) -> Result<Pfn, Stays> {
    let moved = move_isolated(machine, old, alloc);
    machine.count(if moved.is_ok() { Event::PageMoved } else { Event::PageStays }, 1);
    moved
}

fn move_isolated<M: Machine>(
    machine: M,
    old: Pfn,
    alloc: impl FnOnce() -> Result<Pfn, AllocError>,
) -> Result<Pfn, Stays> {
    let page = frame::page(machine, old);
    let state = page.state();
    if !state.is_user() || !page.isolate(state) {
        return Err(Stays::NotMovable);
    }
    let moved = if page.is_pinned() {
        Err(Stays::Held)
    } else {
        alloc().map_err(|_| Stays::NoMemory).and_then(|new| {
            let moved = machine.spaces().moves().during(old, |this| match state {
                PageState::Anon => move_anon(machine, page, this, new),
                _ => move_object(machine, page, this, new),
            });
            moved.map(|()| new)
        })
    };
    page.end_isolation();
    let mut release = Release::new(machine);
    match moved {
        Ok(_) if state == PageState::Anon => release.frozen_anon(old),
        Ok(_) => release.frozen_object(old),
        Err(_) => release.page(old),
    }
    if let Ok(new) = moved
        && !seeded!(MoveKeepsReference)
    {
        release.page(new);
    }
    moved
}

/// Makes the frame `new`, which nobody knows, the anonymous page that `this` moves, of which the caller has one reference.
/// Afterwards the old frame is frozen and mapped nowhere, and the caller has one reference to `new`. On an error all is as
/// before.
fn move_anon<M: Machine>(machine: M, page: &Page, this: &Move, new: Pfn) -> Result<(), Stays> {
    let old = this.old();
    // (A mapping that this misses has a reference, by which the freeze fails.)
    walk(machine, old, Some(1), |mm, _, addr| {
        mm.set_aside(addr, this, false);
        true
    });
    let is_ours = page.freeze(1);
    if !is_ours && !seeded!(MoveIgnoresHolders) {
        bring_anon_back(machine, this, old);
        return Err(Stays::Held);
    }
    machine.copy_page(new.addr(), old.addr());
    frame::take_place(machine, old, new);
    // SAFETY: the page is frozen, so its owner does not change, and it is one of its owners.
    let anon_vma = unsafe { ManuallyDrop::new(KArc::from_raw(core::ptr::with_exposed_provenance(page.owner()))) };
    KArc::<AnonVma<M>>::add_owners(&anon_vma, 1);
    rmap::make_anon(machine, new, &anon_vma, page.index() as usize);
    bring_anon_back(machine, this, new);
    Ok(())
}

/// Makes all migration entries of an anonymous page that is being moved present entries for `frame`.
pub(super) fn bring_anon_back<M: Machine>(machine: M, this: &Move, frame: Pfn) {
    for_each_entry_of(machine, this, |mm, vma, addr| mm.come_back(vma, addr, this, frame));
    // Programs that waited would fault again otherwise.
    machine.publish_tables();
}

/// Visits the migration entries of an anonymous page that is being moved; `replace` replaces each. No entry is missed: see
/// non_present.rs.
pub(super) fn for_each_entry_of<M: Machine>(
    machine: M,
    this: &Move,
    mut replace: impl FnMut(&Mm<M>, &Vma<M>, UserAddr),
) {
    if this.has_entries() {
        walk(machine, this.old(), None, |mm, vma, addr| {
            replace(mm, vma, addr);
            this.has_entries()
        });
    }
}

/// As [`move_anon`], for the page of an object.
fn move_object<M: Machine>(machine: M, page: &Page, this: &Move, new: Pfn) -> Result<(), Stays> {
    let old = this.old();
    // The object does not end before the last walk has. If it has given the page up, others remove the entries.
    let (object, index) = Object::of_page(machine, page).ok_or(Stays::NotMovable)?;
    for_each_object_mapping(&object, index, old, |mm, _, addr| {
        mm.set_aside(addr, this, false);
        // The caller's reference and the object's are no mappings.
        page.mappings_at_most(2) != Some(0)
    });
    let moved = object.exchange(index, old, new);
    let frame = if moved { new } else { old };
    if this.has_entries() {
        for_each_object_mapping(&object, index, old, |mm, vma, addr| {
            mm.come_back(vma, addr, this, frame);
            this.has_entries()
        });
    }
    machine.publish_tables();
    if moved { Ok(()) } else { Err(Stays::Held) }
}

impl<M: Machine> Mm<M> {
    /// Makes the entry for `addr` a migration entry, if it maps the page that `this` moves, of which the caller has a
    /// reference; returns what it was. The areas are locked for reading. With `look` the entry becomes old.
    pub(super) fn set_aside(&self, addr: UserAddr, this: &Move, look: bool) -> Option<Pte> {
        let pfn = this.old();
        let leaf = self.tables.walk(addr)?;
        let i = index(addr.get(), 3);
        let mut guard = leaf.lock();
        let pte = guard.get(i);
        if !pte.is_present() || pte.addr().pfn() != pfn {
            return None;
        }
        let was = guard.take(i);
        let kind = was.owner_kind(self.machine);
        let kept = if look { Pte(was.0 & !bits::ACCESSED) } else { was };
        guard.fill(i, kept.set_aside(kind));
        this.entry_made();
        // Before the unlock: whoever removes the entry may map another page there at once (break-before-make).
        if !seeded!(MoveForgetsFlush) {
            flush_page(self.machine, self.tables.asid(), addr);
        }
        drop(guard);
        entry::note_dirty(self.machine, was, kind);
        // Nobody looks at the pages that were brought in ahead of it any more.
        self.uncharge(Counts { ahead: was.ahead(), ..Counts::default() });
        Release::new(self.machine).page(pfn);
        Some(was)
    }

    /// Makes the entry for `addr`, in `vma`, a present one for `frame`, if it is a migration entry of the page that `this`
    /// moves. The areas are locked for reading.
    fn come_back(&self, vma: &Vma<M>, addr: UserAddr, this: &Move, frame: Pfn) {
        let old = this.old();
        let Some(leaf) = self.tables.walk(addr) else { return };
        let i = index(addr.get(), 3);
        if old != frame && !seeded!(MoveForgetsInstructions) {
            self.before_exec(vma, frame.addr());
        }
        let mut guard = leaf.lock();
        let pte = guard.get(i);
        // (An entry that is left over from another page's move has another kind, if the page there is anonymous.)
        let is_anon = frame::page(self.machine, old).state() == PageState::Anon;
        if pte.kind() != Some(NonPresent::Migration(old.addr())) || is_anon != (pte.moved_kind() == Kind::Anon) {
            return;
        }
        let got = seeded!(MoveTakesNoReference) || frame::page(self.machine, frame).get();
        debug_assert!(got, "as many references as before the move");
        guard.clear(i);
        let back = pte.come_back(frame.addr(), vma.flags);
        // Where stores are noticed, the next one is: somebody may have written the page back meanwhile.
        let notes = vma.flags.contains(VmFlags::NOTES_STORES) && !seeded!(MoveForgetsNotice);
        guard.fill(i, if notes { back.cleaned() } else { back });
        this.entry_replaced();
    }
}

impl<M: Machine> Mm<M> {
    /// Drops the entry for `addr` if it is still `pte`, the migration entry of an object's page, and nobody moves that page any
    /// more. Its dirty state was noted when it was set aside.
    pub(super) fn drop_left_over(&self, addr: UserAddr, pte: Pte) {
        let Some(NonPresent::Migration(old)) = pte.kind() else { return };
        if pte.moved_kind() == Kind::Anon {
            return;
        }
        let _areas = self.areas.read();
        let Some(leaf) = self.tables.walk(addr) else { return };
        let i = index(addr.get(), 3);
        let mut guard = leaf.lock();
        // (If another page moves from the same frame by now, its mover does not need the entry.)
        if guard.get(i) == pte && !self.machine.spaces().moves().is_under_way(old.pfn()) {
            guard.clear(i);
            drop(guard);
            let mut gone = Counts::default();
            gone.add(pte.moved_kind());
            self.uncharge(gone);
        }
    }
}

/// Moves the pages of a range elsewhere, for [`PageAllocator::alloc_range`](crate::page_alloc::PageAllocator::alloc_range).
pub struct Mover<M: Machine>(pub M);

/// How often a page is tried that somebody holds: holders without a pin are quick.
pub(super) const TRIES: usize = 10;

impl<M: Machine> Mover<M> {
    /// Whether the frame holds no page that would have to move, now or after this has moved it.
    fn clears(&self, pfn: Pfn) -> bool {
        let page = frame::page(self.0, pfn);
        for _ in 0..TRIES {
            if self.0.resched_point().is_err() {
                return false;
            }
            match page.state() {
                PageState::Absent | PageState::Free | PageState::Cached => return true,
                PageState::Slab | PageState::Table => return false,
                PageState::Whole => {
                    whole::take_apart(self.0, pfn);
                    continue;
                }
                // A new page on its way to its table is `Kernel` for a moment.
                PageState::Kernel => {}
                PageState::Anon | PageState::Object => match self.send_away(pfn) {
                    Ok(()) => return true,
                    Err(_) if page.is_pinned() => return false,
                    Err(Stays::NotMovable | Stays::Held) => {}
                    Err(_) => return false,
                },
            }
            self.0.relax();
        }
        false
    }

    /// Moves the page to another frame, or to swap if there is none: what is reclaimed may all be in the range itself.
    fn send_away(&self, pfn: Pfn) -> Result<(), Stays> {
        let moved = migrate(self.0, pfn, || frame::alloc_to_move(self.0));
        let page = frame::page(self.0, pfn);
        let flags = page.flags();
        let in_swap = page.state() == PageState::Anon || flags.contains(PageFlags::SWAP_BACKED);
        match moved {
            Err(Stays::NoMemory) if in_swap && self.0.spaces().swap().is_on() || flags.contains(PageFlags::PAGED) => {
                page_out(self.0, pfn, Out::default())
            }
            moved => moved.map(drop),
        }
    }
}

impl<M: Machine> MigrateRange for Mover<M> {
    fn migrate(&self, start: Pfn, end: Pfn) -> Result<(), Pfn> {
        // Whole pages first, whose frames but one look as if they were in no use.
        let blocks = (start.0 & !(ENTRIES - 1)..end.0).step_by(ENTRIES).map(Pfn);
        blocks.for_each(|pfn| whole::take_apart(self.0, pfn));
        // From the end, so that the last one that stays is found first.
        (start.0..end.0).rev().map(Pfn).find(|pfn| !self.clears(*pfn)).map_or(Ok(()), Err)
    }
}

impl<M: Machine> MovePages for Mover<M> {
    fn move_page(&self, from: Pfn, to: Pfn) -> bool {
        migrate_to(self.0, from, to).is_ok()
    }
}
