//! The self-test of reverse mapping: it must agree with the page tables.
//!
//! Two complementary checks: the walk from each entry's page lists the entry exactly once ([`Mm::audit`]), and each
//! page's references are exactly those that its walk lists ([`audit_page`]). Spaces that run meanwhile may show
//! transient differences, so a caller that finds one checks again. Frozen pages, and the entries that stand for them,
//! belong to a mover and are left out.

use super::Mm;
use super::reverse::for_each_mapping;
use crate::addr::{Pfn, USER_END, UserAddr};
use crate::fallible::KArc;
use crate::frame;
use crate::mm::Machine;
use crate::page::{Page, PageFlags, PageState};
use crate::pte::{NonPresent, Pte, index};
use crate::rmap::Release;
use crate::table::entry::Kind;

/// The result of checking a space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Entries that stand for a page.
    pub entries: usize,
    /// Of these, those that the walk from their page does not list exactly once.
    pub unlisted: usize,
}

impl<M: Machine> Mm<M> {
    /// Looks up the page of each entry of this space. The areas are locked for one entry at a time, and not during the
    /// walks. Stops when `go_on`, called before each entry, returns `false`.
    pub fn audit(this: &KArc<Self>, mut go_on: impl FnMut() -> bool) -> Audit {
        let mut audit = Audit::default();
        let mut from = UserAddr::new(0);
        while go_on()
            && let Some((addr, pte, held)) = this.hold_next(from)
        {
            from = addr + crate::addr::PAGE_SIZE;
            audit.entries += 1;
            let pfn = match pte.kind() {
                Some(NonPresent::Migration(old)) => old.pfn(),
                _ => pte.addr().pfn(),
            };
            let mut listed = 0;
            let steady = for_each_mapping(this.machine, pfn, |mm, at| {
                listed += (KArc::ptr_eq(mm, this) && at == addr) as usize;
                true
            });
            let still_there = || this.areas.read().tree.find(addr).is_some() && this.entry(addr) == pte;
            audit.unlisted += (listed != 1 && steady && still_there()) as usize;
            if held {
                Release::new(this.machine).page(pfn);
            }
        }
        audit
    }

    /// The first entry at or above `from` for a page that can be held, other than the zero page, and whether a
    /// reference was taken.
    fn hold_next(&self, from: UserAddr) -> Option<(UserAddr, Pte, bool)> {
        let _areas = self.areas.read();
        let zero = self.machine.spaces().zero_page();
        let mut from = from;
        loop {
            let stands = |pte: Pte| match pte.kind() {
                None => pte.addr() != zero,
                // (The entry of an object's page may be left over from a move.)
                Some(NonPresent::Migration(old)) => {
                    let page = frame::page(self.machine, old.pfn());
                    pte.moved_kind() == Kind::Anon || page.flags().contains(PageFlags::ISOLATED)
                }
                Some(NonPresent::None | NonPresent::Swap(_) | NonPresent::Marker(_)) => false,
            };
            let (addr, leaf) = self.tables.next_entry(from, UserAddr::new(USER_END), stands)?;
            from = addr + crate::addr::PAGE_SIZE;
            let guard = leaf.lock();
            let pte = guard.get(index(addr.get(), 3));
            if !stands(pte) {
                continue;
            }
            let held = match pte.kind() {
                // Under the table's lock the move is not over, so the record still belongs to the page.
                Some(NonPresent::Migration(old)) => find(frame::page(self.machine, old.pfn())),
                _ if pte.is_special() => return Some((addr, pte, false)),
                _ => frame::page(self.machine, pte.addr().pfn()).get(),
            };
            if held {
                return Some((addr, pte, true));
            }
        }
    }
}

/// Takes a reference to a page of user memory of any kind, unless it is frozen.
fn find(page: &Page) -> bool {
    [PageState::Anon, PageState::Object].into_iter().any(|state| page.get_if(state))
}

/// Whether the user page `pfn`, if it is one, has a reference for each of its mappings, one for the object that owns it,
/// one for each pin, one for the thread that takes it elsewhere, and no more.
pub fn audit_page<M: Machine>(machine: M, pfn: Pfn) -> bool {
    let page = frame::page(machine, pfn);
    if !find(page) {
        return true;
    }
    let mut holders = 1 + page.flags().contains(PageFlags::ISOLATED) as u32 + page.pins();
    // A migration entry has no reference; it may be left over from an earlier page of this frame.
    let steady = for_each_mapping(machine, pfn, |mm, addr| {
        holders += mm.entry(addr).is_present() as u32;
        true
    });
    if let Some((object, index)) = crate::object::Object::of_page(machine, page) {
        holders += object.owns(index, pfn) as u32;
    }
    let counted = page.refs();
    Release::new(machine).page(pfn);
    !steady || holders == counted
}
