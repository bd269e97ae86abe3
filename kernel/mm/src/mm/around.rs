//! Neighbours of a page of a file in memory that a read brings in: those that are in memory too are mapped with it, since a
//! program that reads one mostly reads the others.

use super::Mm;
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, Pfn, UserAddr};
use crate::mm::Machine;
use crate::object::Object;
use crate::pte::{Pte, bits, index};
use crate::rmap::Release;
use crate::table::Leaf;
use crate::table::entry::Kind;
use crate::table::gather::Counts;
use crate::vma::Vma;

/// Pages of a file that one fault maps: the aligned run around it.
pub(super) const AROUND: usize = 16;

impl<M: Machine> Mm<M> {
    /// Maps the neighbours of the page at `addr`, with the attributes that it gets; the caller publishes them together with it. Each
    /// has a reference until it is mapped, for which a truncate waits.
    pub(super) fn map_neighbours(
        &self,
        vma: &Vma<M>,
        leaf: &Leaf<'_, M>,
        addr: UserAddr,
        object: &Object<M>,
        attrs: u64,
    ) {
        let run = AROUND * PAGE_SIZE;
        let aligned = UserAddr::new(addr.get() & !(run - 1));
        let (start, end) = (aligned.max(vma.start), (aligned + run).min(vma.end));
        let count = (end - start) >> PAGE_SHIFT;
        let mut pages = [Pfn(0); AROUND];
        let skipped = (addr - start) >> PAGE_SHIFT;
        let Some(first) = vma.index_of(start) else { return };
        if object.resident_run(first, skipped, &mut pages[..count]) == 0 {
            return;
        }
        // They have not been accessed; see `map_around`.
        let attrs = if self.machine.spaces().hardware_updates() { attrs & !bits::ACCESSED } else { attrs };
        let first = index(start.get(), 3);
        let mut counts = Counts::default();
        {
            let mut guard = leaf.lock();
            for (k, pfn) in pages.iter_mut().enumerate().filter(|(_, pfn)| pfn.0 != 0) {
                if guard.get(first + k) == Pte::NONE {
                    guard.fill(first + k, Pte::page(pfn.addr(), attrs));
                    counts.add(Kind::Shared);
                    *pfn = Pfn(0);
                }
            }
        }
        self.charge(counts);
        let mut release = Release::new(self.machine);
        pages.into_iter().filter(|pfn| pfn.0 != 0).for_each(|pfn| release.page(pfn));
    }
}
