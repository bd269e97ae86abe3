//! Moving a page of a process to another frame, by the protocol of non_present.rs.
//!
//! The mover isolates the page ([`Page::isolate`]), so that nobody else takes it away meanwhile. It holds no lock between its
//! steps. The visits of a walk have the areas of one space locked for reading, and take the lock of an entry's table.
//!
//! Anonymous pages only; pages of objects stay where they are.
//!
//! [`Page::isolate`]: crate::page::Page::isolate

use core::mem::ManuallyDrop;

use super::Mm;
use super::reverse::walk;
use crate::addr::{Pfn, UserAddr};
use crate::event::Event;
use crate::fallible::{AllocError, KArc};
use crate::frame;
use crate::mm::Machine;
use crate::page::{Page, PageState};
use crate::page_alloc::MigrateRange;
use crate::pte::{NonPresent, index};
use crate::rmap::{self, AnonVma, Release};
use crate::table::entry::Kind;
use crate::table::flush::flush_page;
use crate::table::gather::Counts;
use crate::vma::Vma;

/// Why a page stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stays {
    /// It is no anonymous page, or another thread takes it away.
    NotMovable,
    /// It is pinned, or somebody holds it at the moment.
    Held,
    /// There is no frame for it.
    NoMemory,
}

/// Moves the anonymous page at `old` to a frame that `alloc` returns, and frees the old one. No lock is held, and the call may
/// sleep. Programs that access the page meanwhile wait. Returns the new frame, which may have been freed by then.
pub fn migrate<M: Machine>(
    machine: M,
    old: Pfn,
    alloc: impl FnOnce() -> Result<Pfn, AllocError>,
) -> Result<Pfn, Stays> {
    let page = frame::page(machine, old);
    if !page.isolate(PageState::Anon) {
        machine.count(Event::PageStays, 1);
        return Err(Stays::NotMovable);
    }
    let moved = if page.is_pinned() {
        Err(Stays::Held)
    } else {
        alloc().map_err(|_| Stays::NoMemory).and_then(|new| {
            let moved = machine.spaces().moves().during(old, || move_to(machine, page, old, new));
            if moved.is_err() {
                frame::free(machine, new);
            }
            moved.map(|()| new)
        })
    };
    page.end_isolation();
    let mut release = Release::new(machine);
    match moved {
        Ok(new) => {
            release.frozen_anon(old);
            if !seeded!(MoveKeepsReference) {
                release.page(new);
            }
            machine.count(Event::PageMoved, 1);
        }
        Err(_) => {
            release.page(old);
            machine.count(Event::PageStays, 1);
        }
    }
    moved
}

/// Makes the frame `new`, which nobody knows, the page at `old`, of which the caller has one reference. Afterwards `old` is
/// frozen and mapped nowhere, and the caller has one reference to `new`. On an error all is as before.
fn move_to<M: Machine>(machine: M, page: &Page, old: Pfn, new: Pfn) -> Result<(), Stays> {
    // (A mapping that this misses has a reference, by which the freeze fails.)
    walk(machine, old, Some(1), |mm, _, addr| {
        mm.set_aside(addr, old);
        true
    });
    let is_ours = page.freeze(1);
    if !is_ours && !seeded!(MoveIgnoresHolders) {
        bring_all_back(machine, old, old);
        return Err(Stays::Held);
    }
    machine.copy_page(new.addr(), old.addr());
    frame::page(machine, new).set_control_group(page.control_group());
    // SAFETY: the page is frozen, so its owner does not change, and it is one of its owners.
    let anon_vma = unsafe { ManuallyDrop::new(KArc::from_raw(core::ptr::with_exposed_provenance(page.owner()))) };
    KArc::<AnonVma<M>>::add_owners(&anon_vma, 1);
    rmap::make_anon(machine, new, &anon_vma, page.index() as usize);
    bring_all_back(machine, old, new);
    Ok(())
}

/// Makes all migration entries for `old` present entries for `frame`. No mapping is missed: see non_present.rs.
fn bring_all_back<M: Machine>(machine: M, old: Pfn, frame: Pfn) {
    walk(machine, old, None, |mm, vma, addr| {
        mm.come_back(vma, addr, old, frame);
        true
    });
    // Programs that waited would fault again otherwise.
    machine.publish_tables();
}

impl<M: Machine> Mm<M> {
    /// Makes the entry for `addr` a migration entry, if it maps the page `pfn`, of which the caller has a reference. The areas
    /// are locked for reading.
    fn set_aside(&self, addr: UserAddr, pfn: Pfn) {
        let Some(leaf) = self.tables.walk(addr) else { return };
        let i = index(addr.get(), 3);
        let mut guard = leaf.lock();
        let pte = guard.get(i);
        if !pte.is_present() || pte.addr().pfn() != pfn {
            return;
        }
        let was = guard.take(i);
        guard.fill(i, was.set_aside(Kind::Anon));
        // Before the unlock: whoever removes the entry may map another page there at once (break-before-make).
        if !seeded!(MoveForgetsFlush) {
            flush_page(self.machine, &self.asid, addr);
        }
        drop(guard);
        // Nobody looks at the pages that were brought in ahead of it any more.
        self.uncharge(Counts { ahead: was.ahead(), ..Counts::default() });
        Release::new(self.machine).page(pfn);
    }

    /// Makes the entry for `addr`, in `vma`, a present one for `frame`, if it is a migration entry for `old`. The areas are
    /// locked for reading.
    fn come_back(&self, vma: &Vma<M>, addr: UserAddr, old: Pfn, frame: Pfn) {
        let Some(leaf) = self.tables.walk(addr) else { return };
        let i = index(addr.get(), 3);
        if old != frame && !seeded!(MoveForgetsInstructions) {
            self.before_exec(vma, frame.addr());
        }
        let mut guard = leaf.lock();
        let pte = guard.get(i);
        if pte.kind() != Some(NonPresent::Migration(old.addr())) {
            return;
        }
        let got = seeded!(MoveTakesNoReference) || frame::page(self.machine, frame).get();
        debug_assert!(got, "as many references as before the move");
        guard.clear(i);
        guard.fill(i, pte.come_back(frame.addr(), vma.flags));
    }
}

/// Moves the pages of a range elsewhere, for [`PageAllocator::alloc_range`](crate::page_alloc::PageAllocator::alloc_range).
pub struct Mover<M: Machine>(pub M);

/// How often a page is tried that somebody holds: holders without a pin are quick.
const TRIES: usize = 10;

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
                PageState::Slab | PageState::Table | PageState::Object => return false,
                // A new page on its way to its table is `Kernel` for a moment.
                PageState::Kernel => {}
                PageState::Anon => match migrate(self.0, pfn, || frame::alloc_to_move(self.0)) {
                    Ok(_) => return true,
                    Err(Stays::NoMemory) => return false,
                    Err(Stays::NotMovable | Stays::Held) if page.is_pinned() => return false,
                    Err(Stays::NotMovable | Stays::Held) => {}
                },
            }
            self.0.relax();
        }
        false
    }
}

impl<M: Machine> MigrateRange for Mover<M> {
    fn migrate(&self, start: Pfn, end: Pfn) -> Result<(), Pfn> {
        // From the end, so that the last one that stays is found first.
        (start.0..end.0).rev().map(Pfn).find(|pfn| !self.clears(*pfn)).map_or(Ok(()), Err)
    }
}
