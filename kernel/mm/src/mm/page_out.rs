//! A page goes to swap, by the protocol of non_present.rs: it moves to a slot as it would move to another frame.
//!
//! The mover replaces all entries by migration entries, and freezes the page. Nobody can reach its contents any more, so it
//! compresses them in place; then each migration entry becomes a swap entry, which is a user of the slot, and the frame
//! is freed. Threads that need the page meanwhile wait for the end of the move, and bring it back.
//!
//! A page that its program has given up, and that nobody has written since, needs no slot: its entries become empty.
//!
//! That is a private page; object_out.rs has those of memory objects.

use super::Mm;
use super::migrate::{Stays, bring_anon_back, for_each_entry_of};
use super::object_out::{move_object_to_slot, object_to_leave};
use super::reverse::walk;
use crate::addr::{PAGE_SIZE, Pfn, UserAddr};
use crate::cgroup::Stat;
use crate::event::Event;
use crate::frame;
use crate::mm::Machine;
use crate::page::{GIVEN_UP, Page, PageFlags, PageState};
use crate::pte::{NonPresent, Pte, Swapped, index};
use crate::rmap::Release;
use crate::spaces::Move;
use crate::swap::{Refused, Slot};
use crate::table::entry::Kind;
use crate::table::gather::Counts;
use crate::vma::VmFlags;

/// How a page goes out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Out {
    /// What its entries remember: see [`Swapped::shadow`].
    pub shadow: u16,
    /// It goes even if its contents take a whole frame.
    pub even_raw: bool,
    /// It stays if it was used since the last look at it.
    pub if_unused: bool,
    /// It stays if its contents are needed.
    pub if_given_up: bool,
}

/// Moves the page of user memory at `pfn` to swap, and frees its frame. No lock is held, and the call may sleep.
pub fn page_out<M: Machine>(machine: M, pfn: Pfn, out: Out) -> Result<(), Stays> {
    let page = frame::page(machine, pfn);
    let state = page.state();
    if !state.is_user() || !page.isolate(state) {
        return Err(Stays::NotMovable);
    }
    let done = isolated_out(machine, page, pfn, out);
    if done.is_err() {
        Release::new(machine).isolated(pfn);
    }
    done
}

/// As [`page_out`], for a page that the caller has isolated: it has a reference, and keeps it with the isolation if the page
/// stays.
pub(crate) fn isolated_out<M: Machine>(machine: M, page: &Page, pfn: Pfn, out: Out) -> Result<(), Stays> {
    if page.is_pinned() {
        return Err(Stays::Held);
    }
    if out.if_unused && page.clear_flags(PageFlags::REFERENCED).contains(PageFlags::REFERENCED) {
        return Err(Stays::Used);
    }
    let moves = machine.spaces().moves();
    let group = page.control_group();
    let left = |stat: Stat| [stat, Stat::Left].map(|stat| machine.groups().count_stat(group, stat, 1));
    if page.state() == PageState::Anon {
        let slot = moves.during(pfn, |this| move_to_slot(machine, page, this, out))?;
        page.end_isolation();
        // (Before it goes, and with it the charge that keeps the group.)
        left(if slot.is_some() { Stat::SwapOut } else { Stat::LazyFreed });
        Release::new(machine).frozen_anon(pfn);
        let Some(slot) = slot else {
            machine.count(Event::LazyFreed, 1);
            return Ok(());
        };
        // (If all entries were removed meanwhile, that frees the slot.)
        if !seeded!(SwapOutKeepsSlot) {
            machine.spaces().swap().release(slot);
        }
    } else {
        let (object, index) = object_to_leave(machine, page)?;
        moves.during(pfn, |_| move_object_to_slot(machine, (&object, index), page, pfn, out))?;
        page.end_isolation();
        if object.is_paged() {
            machine.groups().count_stat(group, Stat::Left, 1);
        } else {
            left(Stat::SwapOut);
        }
        Release::new(machine).frozen_object(pfn);
        if object.is_paged() {
            machine.count(Event::PagedOut, 1);
            return Ok(());
        }
    }
    machine.count(Event::SwapOut, 1);
    Ok(())
}

/// Makes all entries of the page entries of a slot, of which the caller is a user; or empties them, if the page was given up: there is no
/// slot then. Afterwards the page is frozen. On an error all is as before.
fn move_to_slot<M: Machine>(machine: M, page: &Page, this: &Move, out: Out) -> Result<Option<Slot>, Stays> {
    let pfn = this.old();
    let (mut is_locked, mut is_used, mut is_needed) = (false, false, false);
    // (A mapping that this misses has a reference, by which the freeze fails.)
    walk(machine, pfn, Some(1), |mm, vma, addr| {
        is_locked |= vma.flags.contains(VmFlags::LOCKED);
        // A block that is in use stays one.
        is_used |= out.if_unused && mm.look_at_block_of(addr, pfn);
        if !is_locked
            && !is_used
            && let Some(was) = mm.set_aside(addr, this, out.if_unused)
        {
            // (What `was` says is final: nobody writes to the page through this entry any more.)
            let drops_written = seeded!(OutDropsWrittenPage) && page.list() == GIVEN_UP;
            let needs = !was.is_given_up() && !drops_written || vma.backing.is_some();
            is_needed |= needs;
            is_used = needs && (out.if_given_up || out.if_unused && was.is_young());
        }
        !is_locked && !is_used
    });
    let is_ours = !is_locked && !is_used && page.freeze(1);
    if !is_ours {
        bring_anon_back(machine, this, pfn);
        return Err(match (is_locked, is_used) {
            (true, _) => Stays::Locked,
            (_, true) => Stays::Used,
            _ => Stays::Held,
        });
    }
    // All entries that there were are set aside, and copies of them say the same. None of their spaces has written the page since it was
    // given up.
    if !is_needed {
        for_each_entry_of(machine, this, |mm, _, addr| mm.replace_aside(addr, this, None));
        return Ok(None);
    }
    match machine.spaces().swap().write(pfn.addr(), out.even_raw, page.control_group()) {
        Ok(slot) => {
            let pte = Pte::non_present(NonPresent::Swap(Swapped { slot, shadow: out.shadow }));
            for_each_entry_of(machine, this, |mm, _, addr| mm.replace_aside(addr, this, Some((slot, pte))));
            Ok(Some(slot))
        }
        Err(why) => {
            page.unfreeze(1);
            bring_anon_back(machine, this, pfn);
            Err(match why {
                Refused::Incompressible => Stays::Incompressible,
                Refused::Full => Stays::NoSwap,
            })
        }
    }
}

impl<M: Machine> Mm<M> {
    /// Makes the entry for `addr` the swap entry of a slot, or empty, if it is a migration entry of the anonymous page that
    /// `this` moves. The areas are locked for reading.
    fn replace_aside(&self, addr: UserAddr, this: &Move, by: Option<(Slot, Pte)>) {
        let Some(leaf) = self.tables.walk(addr) else { return };
        let i = index(addr.get(), 3);
        let mut guard = leaf.lock();
        let was = guard.get(i);
        if was.kind() != Some(NonPresent::Migration(this.old().addr())) || was.moved_kind() != Kind::Anon {
            return;
        }
        guard.clear(i);
        if let Some((slot, pte)) = by {
            if !seeded!(SwapOutForgetsUser) {
                self.machine.spaces().swap().share(slot);
            }
            guard.fill(i, pte);
        }
        this.entry_replaced();
        drop(guard);
        if !seeded!(SwapOutStaysCharged) {
            self.uncharge(Counts { anon: 1, ..Counts::default() });
        }
    }
}

/// Pages that are isolated at a time.
const AT_ONCE: usize = 32;

/// Pages that the caller has isolated; those that are left are given back at the end.
struct Isolated<M: Machine> {
    machine: M,
    pages: [Pfn; AT_ONCE],
    len: usize,
}

impl<M: Machine> Isolated<M> {
    fn last(&self) -> Option<Pfn> {
        self.pages[..self.len].last().copied()
    }

    /// Lets the last one go.
    fn give_back(&mut self) {
        self.len -= 1;
        Release::new(self.machine).isolated(self.pages[self.len]);
    }
}

impl<M: Machine> Drop for Isolated<M> {
    fn drop(&mut self) {
        while self.len > 0 {
            self.give_back();
        }
    }
}

impl<M: Machine> Mm<M> {
    /// Moves the pages of a range to swap that this process alone maps, up to the first locked area.
    pub(super) fn page_out_range(&self, start: UserAddr, end: UserAddr) {
        let mut at = start;
        while at < end {
            let mut pages = Isolated { machine: self.machine, pages: [Pfn(0); AT_ONCE], len: 0 };
            at = self.isolate_some(at, end, &mut pages);
            // (A range may have nothing to take out, and be of any length.)
            if self.machine.resched_point().is_err() {
                return;
            }
            while let Some(pfn) = pages.last() {
                if self.machine.resched_point().is_err() {
                    return;
                }
                let page = frame::page(self.machine, pfn);
                if isolated_out(self.machine, page, pfn, Out { even_raw: true, ..Out::default() }).is_ok() {
                    pages.len -= 1;
                } else {
                    pages.give_back();
                }
            }
        }
    }

    /// Isolates pages from `at` on, and returns where to go on. At most the entries of one table are looked at.
    fn isolate_some(&self, at: UserAddr, end: UserAddr, pages: &mut Isolated<M>) -> UserAddr {
        let areas = self.areas.read();
        let Some(vma) = areas.tree.find_from(at).filter(|vma| vma.start < end) else { return end };
        let (from, to) = (vma.start.max(at), vma.end.min(end));
        if vma.flags.contains(VmFlags::LOCKED) {
            return end;
        }
        let Some((from, to, leaf)) = self.tables.next_part(from, to) else { return to };
        if leaf.is_vacant() {
            return to;
        }
        let guard = leaf.lock();
        let mut va = from;
        while va < to && pages.len < AT_ONCE {
            let pte = guard.get(index(va.get(), 3));
            va = va + PAGE_SIZE;
            if !pte.is_present() || pte.is_special() {
                continue;
            }
            let page = frame::page(self.machine, pte.addr().pfn());
            // (The entry's own reference, and the object's; a wrong answer only means that a page goes or stays.)
            let (state, alone) = if pte.is_anon() { (PageState::Anon, 1) } else { (PageState::Object, 2) };
            if page.refs() == alone && page.isolate(state) {
                pages.pages[pages.len] = pte.addr().pfn();
                pages.len += 1;
            }
        }
        va
    }
}
