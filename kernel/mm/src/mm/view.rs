//! Views of a space, and its validation.

use core::sync::atomic::Ordering;

use super::Mm;
use crate::addr::{PAGE_SHIFT, UserAddr};
use crate::fallible::KArc;
use crate::mm::Machine;
use crate::object::Object;
use crate::pte::{NonPresent, bits};
use crate::vma::{VmFlags, Vma};

/// Counts of a space, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Stats {
    pub total: usize,
    pub peak: usize,
    pub data: usize,
    pub stack: usize,
    pub locked: usize,
    pub rss_anon: usize,
    pub rss_file: usize,
    pub rss_shared: usize,
    pub rss_peak: usize,
    pub table_pages: usize,
    pub areas: usize,
}

/// One area, for views.
pub struct AreaView<'a, M: Machine> {
    /// First address.
    pub start: UserAddr,
    /// One past the last.
    pub end: UserAddr,
    /// What it is.
    pub flags: VmFlags,
    /// The object that it maps, and from which page.
    pub object: Option<(&'a KArc<Object<M>>, usize)>,
}

impl<M: Machine> Mm<M> {
    /// The counts.
    pub fn stats(&self) -> Stats {
        let areas = self.areas.read();
        Stats {
            total: areas.total,
            peak: areas.peak,
            data: areas.data,
            stack: areas.stack,
            locked: areas.locked,
            rss_anon: self.rss_anon.load(Ordering::Relaxed),
            rss_file: self.rss_file.load(Ordering::Relaxed),
            rss_shared: self.rss_shared.load(Ordering::Relaxed),
            rss_peak: self.rss_peak.load(Ordering::Relaxed),
            table_pages: self.tables.pages(),
            areas: areas.tree.len(),
        }
    }

    /// Where the heap begins and ends.
    pub fn heap(&self) -> (UserAddr, UserAddr) {
        (self.heap.start(), self.heap.end())
    }

    /// The first area that ends above `from`: views that may sleep between areas continue from its end.
    pub fn area_from<R>(&self, from: UserAddr, see: impl FnOnce(AreaView<'_, M>) -> R) -> Option<R> {
        let areas = self.areas.read();
        areas.tree.find_from(from).map(|vma| see(view(vma)))
    }

    /// All areas, by address. `see` takes no lock of the rank of an address space or below.
    pub fn for_each_vma(&self, mut see: impl FnMut(AreaView<'_, M>)) {
        self.areas.read().tree.iter().for_each(|vma| see(view(vma)));
    }

    /// Compares every counter with a recount. Nothing else may use the space meanwhile.
    pub fn validate(&self) {
        let areas = self.areas.read();
        areas.tree.validate();
        let sum = |wanted: &dyn Fn(VmFlags) -> bool| -> usize {
            areas.tree.iter().filter(|vma| wanted(vma.flags)).map(|vma| vma.len() >> PAGE_SHIFT).sum()
        };
        assert_eq!(areas.total, sum(&|_| true), "total");
        assert_eq!(areas.data, sum(&|flags| flags.is_data()), "data");
        assert_eq!(areas.stack, sum(&|flags| flags.contains(VmFlags::GROWSDOWN)), "stack");
        assert_eq!(areas.locked, sum(&|flags| flags.contains(VmFlags::LOCKED)), "locked");
        assert_eq!(areas.accounted, sum(&|flags| flags.contains(VmFlags::ACCOUNT)), "accounted");
        assert_eq!(self.promised.load(Ordering::Relaxed), areas.accounted, "promised");
        for vma in areas.tree.iter() {
            let next = areas.tree.next(vma);
            let merges = next.is_some_and(|next| next.start == vma.end && vma.continues_with(&next.kind()));
            // A stack that grows up to its neighbour stays a separate area, as on Linux.
            assert!(!merges || vma.flags.contains(VmFlags::GROWSDOWN), "two areas at {} should be one", vma.end);
        }
        self.tables.validate();
        let mut counts = crate::table::gather::Counts::default();
        self.tables.for_each_entry(|va, pte| {
            let vma = areas.tree.find(va);
            assert!(vma.is_some(), "an entry at {va} outside of all areas");
            if let Some(NonPresent::Migration(_)) = pte.kind() {
                counts.add(pte.moved_kind());
            }
            if pte.is_present() {
                counts.add(pte.owner_kind(self.machine));
                counts.ahead += if pte.is_anon() { pte.ahead() } else { 0 };
                let is_told = !pte.is_writable() || pte.0 & (bits::DIRTY | bits::DBM) != 0;
                assert!(is_told, "a writable entry at {va} that is not dirty");
                let may_be_written = pte.is_writable() || pte.is_writable_clean();
                let is_kept = !pte.is_given_up() || vma.is_some_and(|vma| vma.backing.is_none());
                assert!(is_kept, "an anonymous page at {va} that is clean, in a mapping of an object");
                let allowed = vma.is_some_and(|vma| !may_be_written || vma.flags.contains(VmFlags::WRITE));
                assert!(allowed, "a writable entry at {va} in an area that is not");
            }
        });
        let charged = (
            self.rss_anon.load(Ordering::Relaxed),
            self.rss_file.load(Ordering::Relaxed),
            self.rss_shared.load(Ordering::Relaxed),
        );
        assert_eq!(charged, (counts.anon, counts.file, counts.shared), "resident pages");
        assert_eq!(self.unproven.load(Ordering::Relaxed), counts.ahead, "unproven pages");
    }
}

pub(super) fn view<M: Machine>(vma: &Vma<M>) -> AreaView<'_, M> {
    let object = vma.backing.as_ref().map(|b| (&b.object, b.index));
    AreaView { start: vma.start, end: vma.end, flags: vma.flags, object }
}
