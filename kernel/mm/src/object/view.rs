//! Where a page of an object is, for display.

use super::held::Held;
use super::{Content, Object};
use crate::addr::{Pfn, PhysAddr};
use crate::swap::SlotView;
use crate::table::Machine;

/// Where a page of an object is at one moment: what a fault on it would find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// In the boot archive's memory.
    InPlace(PhysAddr),
    /// In a frame.
    InMemory(Pfn),
    /// In swap.
    InSwap(SlotView),
    /// Being moved to swap, or to a frame.
    Moving,
    /// With the pager: the first access asks for it.
    WithPager,
    /// In the boot archive, but not page-aligned: the first access copies it.
    InArchive,
    /// Nowhere: the first access makes a page of zeros.
    Nowhere,
    /// The object ends before it.
    BeyondEnd,
}

impl<M: Machine> Object<M> {
    /// Where page `index` is.
    pub fn whereabouts(&self, index: usize) -> Whereabouts {
        if index >= self.pages() {
            return Whereabouts::BeyondEnd;
        }
        if let Some(addr) = self.in_place(index) {
            return Whereabouts::InPlace(addr);
        }
        let owned = self.owned.lock();
        match owned.get(index).map(Held::of) {
            Some(Held::Page(pfn)) => Whereabouts::InMemory(pfn),
            // The object's use keeps the slot while the lock is held.
            Some(Held::Swapped(swapped)) => Whereabouts::InSwap(self.machine.spaces().swap().view(swapped.slot)),
            Some(Held::Leaving(_)) => Whereabouts::Moving,
            None if self.is_paged() => Whereabouts::WithPager,
            None if matches!(self.content, Content::BootFile { .. }) => Whereabouts::InArchive,
            None => Whereabouts::Nowhere,
        }
    }
}
