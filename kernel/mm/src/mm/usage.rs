//! Memory use of the areas of a space, from the entries of their tables: resident, referenced, dirty.

use core::ops::Range;

use super::Mm;
use super::view::{AreaView, view};
use crate::addr::{PAGE_SHIFT, UserAddr};
use crate::frame;
use crate::mm::Machine;
use crate::page::{PageFlags, PageState};
use crate::pte::{NonPresent, Pte, index};
use crate::table::block::Block;
use crate::table::entry::Kind;
use crate::table::part_end;

/// Last-level tables read in one query, during which changes of the map wait.
const TABLES: usize = 8;

/// Counts of a part of an area, in pages. The zero page counts for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Present in memory.
    pub resident: usize,
    /// Of these, accessed since they were made old.
    pub referenced: usize,
    /// Of these, anonymous.
    pub anon: usize,
    /// Of these, with no other holder, and not written since they were clean.
    pub private_clean: usize,
    /// With no other holder, and written.
    pub private_dirty: usize,
    /// With other holders, or perhaps uncounted ones (files in place), and not written.
    pub shared_clean: usize,
    /// With other holders, and written.
    pub shared_dirty: usize,
    /// Given up by MADV_FREE, and not written since.
    pub lazy_free: usize,
    /// Mapped by blocks of 2 MiB.
    pub huge: usize,
    /// Not in memory but in swap. A page of shared memory counts for each area that maps it.
    pub swapped: usize,
}

impl Usage {
    fn add<M: Machine>(&mut self, machine: M, pte: Pte) {
        match pte.kind() {
            None => self.add_present(machine, pte),
            Some(NonPresent::Swap(_)) => self.swapped += 1,
            // It is in memory; its entry's flags come back with it.
            Some(NonPresent::Migration(_)) => {
                self.resident += 1;
                self.private_dirty += 1;
            }
            Some(NonPresent::None | NonPresent::Marker(_)) => {}
        }
    }

    fn add_present<M: Machine>(&mut self, machine: M, pte: Pte) {
        let kind = pte.owner_kind(machine);
        if kind == Kind::Zero {
            return;
        }
        self.resident += 1;
        self.referenced += pte.is_young() as usize;
        self.anon += (kind == Kind::Anon) as usize;
        self.lazy_free += pte.is_given_up() as usize;
        let page = frame::page(machine, pte.addr().pfn());
        let (own, in_record) = match kind {
            Kind::Anon => (1, false),
            // The object's reference, and this mapping's.
            Kind::Shared | Kind::FileCopy => (2, page.flags().contains(PageFlags::DIRTY)),
            Kind::Zero | Kind::File => (0, false),
        };
        let is_shared = own == 0 || page.refs() > own;
        *match (is_shared, pte.is_dirty() || in_record) {
            (false, false) => &mut self.private_clean,
            (false, true) => &mut self.private_dirty,
            (true, false) => &mut self.shared_clean,
            (true, true) => &mut self.shared_dirty,
        } += 1;
    }
}

impl<M: Machine> Mm<M> {
    /// Counts some of the pages of a block.
    fn add_block(&self, block: &Block<'_, M>, pages: Range<usize>, usage: &mut Usage) {
        let Some(guard) = block.lock() else { return };
        let pte = guard.get();
        let pfn = pte.addr().pfn();
        let count = pages.len();
        if frame::page(self.machine, pfn).state() == PageState::Whole {
            usage.resident += count;
            usage.anon += count;
            usage.referenced += if pte.is_young() { count } else { 0 };
            let is_sole = frame::page(self.machine, pfn).refs() == 1;
            *(if is_sole { &mut usage.private_dirty } else { &mut usage.shared_dirty }) += count;
        } else {
            pages.for_each(|k| usage.add(self.machine, pte.page_of_block(k)));
        }
        usage.huge += count;
    }

    /// The first area that ends above `from`, and its counts from `from` on, up to the address returned, which is the
    /// limit of one query. Entries are read without their tables' locks: concurrent changes may be counted or not.
    pub fn usage_from<R>(&self, from: UserAddr, see: impl FnOnce(AreaView<'_, M>, Usage, UserAddr) -> R) -> Option<R> {
        let areas = self.areas.read();
        let vma = areas.tree.find_from(from)?;
        let mut at = vma.start.max(from.page_floor());
        let mut usage = Usage::default();
        for part in 0..TABLES {
            // (What a killed thread has counted so far is true.)
            if part != 0 && self.machine.resched_point().is_err() {
                break;
            }
            let Some((start, spot)) = self.tables.next_any(at, vma.end) else {
                at = vma.end;
                break;
            };
            at = part_end(start, vma.end);
            let leaf = match spot.leaf(start) {
                Ok(leaf) => leaf,
                Err(block) => {
                    let first = index(start.get(), 3);
                    self.add_block(&block, first..first + ((at - start) >> PAGE_SHIFT), &mut usage);
                    continue;
                }
            };
            if !leaf.is_vacant() {
                let first = index(start.get(), 3);
                (first..first + ((at - start) >> PAGE_SHIFT)).for_each(|i| usage.add(self.machine, leaf.peek(i)));
            }
            // The entries of an object's pages do not say it.
            if let Some(backing) = vma.backing.as_ref().filter(|backing| backing.object.has_swapped()) {
                let pages = (at - start) >> PAGE_SHIFT;
                let is_swapped = |page: &usize| {
                    let va = start + (page << PAGE_SHIFT);
                    self.entry(va) == Pte::NONE && vma.index_of(va).is_some_and(|i| backing.object.is_swapped(i))
                };
                usage.swapped += (0..pages).filter(is_swapped).count();
            }
        }
        Some(see(view(vma), usage, at))
    }
}
