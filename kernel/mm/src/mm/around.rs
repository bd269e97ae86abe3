//! Neighbours of a page of a file that a read brings in: those that are in memory too are mapped with it, since a program
//! that reads one mostly reads the others. Pages in place cost no memory, and all of a run are there.

use super::Mm;
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, Pfn, UserAddr};
use crate::event::Event;
use crate::mm::Machine;
use crate::mm::fault::{FaultError, make_empty};
use crate::object::Object;
use crate::pte::{Pte, bits, index};
use crate::rmap::Release;
use crate::table::Leaf;
use crate::table::entry;
use crate::table::gather::Counts;
use crate::vma::{VmFlags, Vma};

/// Pages of a file that one fault maps: the aligned run around it.
pub(super) const AROUND: usize = 16;

/// The part of an area in the aligned run of pages around an address: where it begins, and how many pages it has.
#[inline]
fn run_around<M: Machine>(vma: &Vma<M>, addr: UserAddr) -> (UserAddr, usize) {
    let run = AROUND * PAGE_SIZE;
    let aligned = UserAddr::new(addr.get() & !(run - 1));
    let (start, end) = (aligned.max(vma.start), (aligned + run).min(vma.end));
    (start, (end - start) >> PAGE_SHIFT)
}

impl<M: Machine> Mm<M> {
    /// The attributes of a page that has not been accessed. Without hardware updates, an unset access flag would cost a fault at the
    /// first access, which is what mapping it in advance is meant to avoid.
    #[inline]
    fn untouched(&self, attrs: u64) -> u64 {
        if self.machine.spaces().hardware_updates() { attrs & !bits::ACCESSED } else { attrs }
    }

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
        let (start, count) = run_around(vma, addr);
        let mut pages = [Pfn(0); AROUND];
        let skipped = (addr - start) >> PAGE_SHIFT;
        let Some(first) = vma.index_of(start) else { return };
        if object.resident_run(first, skipped, &mut pages[..count]) == 0 {
            return;
        }
        let attrs = self.untouched(attrs);
        let first = index(start.get(), 3);
        let (mut counts, kind) = (Counts::default(), object.kind());
        {
            let mut guard = leaf.lock();
            for (k, pfn) in pages.iter_mut().enumerate().filter(|(_, pfn)| pfn.0 != 0) {
                if guard.get(first + k) == Pte::NONE {
                    guard.fill(first + k, Pte::page(pfn.addr(), attrs));
                    counts.add(kind);
                    *pfn = Pfn(0);
                }
            }
        }
        self.charge(counts);
        let mut release = Release::new(self.machine);
        pages.into_iter().filter(|pfn| pfn.0 != 0).for_each(|pfn| release.page(pfn));
    }

    /// Maps pages in place of a file, read-only. They cost no memory, so the neighbours are mapped too.
    pub(super) fn map_around(
        &self,
        vma: &Vma<M>,
        leaf: &Leaf<'_, M>,
        addr: UserAddr,
        object: &Object<M>,
    ) -> Result<(), FaultError> {
        let (start, count) = run_around(vma, addr);
        let first_index = vma.index_of(start).unwrap_or(0);
        let first = index(start.get(), 3);
        let exec = vma.flags.contains(VmFlags::EXEC);
        if exec {
            for k in 0..count {
                if let Some(frame) = object.in_place(first_index + k) {
                    object.prepare_exec(first_index + k, frame);
                }
            }
        }
        let attrs = entry::read_only(vma.flags) | bits::SPECIAL;
        let untouched = self.untouched(attrs);
        let mut filled = 0;
        {
            let mut guard = leaf.lock();
            for k in 0..count {
                let Some(frame) = object.in_place(first_index + k) else { break };
                // Only the page that faulted replaces a marker.
                let asked = start + k * PAGE_SIZE == addr;
                if guard.get(first + k) == Pte::NONE || asked && make_empty(&mut guard, first + k) {
                    guard.fill(first + k, Pte::page(frame, if asked { attrs } else { untouched }));
                    filled += 1;
                }
            }
        }
        self.machine.publish_tables();
        self.machine.count(Event::FaultObject, 1);
        self.charge(Counts { file: filled, ..Counts::default() });
        Ok(())
    }
}
