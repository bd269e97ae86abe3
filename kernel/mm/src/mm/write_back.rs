//! Writing back what a paged file's pages have and its pager has not (docs/page-cache.md, "What has to be written").
//!
//! The holder of the turn takes marked pages, which are not marked any more then, makes each entry of them read-only and clean, and has the pager take the
//! bytes from their frames. A store after its entry has changed faults, and marks the page again; one before is in the frame.
//!
//! The walk may miss an entry: of an area that is just being changed, or one that a fault makes meanwhile. Then the page has more references than were
//! seen, or the mappings have changed, and it is marked again: it is written once more. So is a page of which somebody has a pin, or just now a reference to write by the
//! direct map.

use quire_abi::Errno;

use super::Mm;
use super::reverse::for_each_object_mapping;
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, Pfn, UserAddr};
use crate::event::Event;
use crate::fallible::KArc;
use crate::frame;
use crate::mm::Machine;
use crate::object::Object;
use crate::object::dirty::MarkedRun;
use crate::object::file::Turn;
use crate::object::paged::Pager;
use crate::pte::{NonPresent, Pte, index};
use crate::rmap::Release;
use crate::table::flush::flush_page;

impl<M: Machine> Object<M> {
    /// Waits for the turn, and writes back what has to be of a paged object: [`Turn::write_back`]. Nothing for others. No lock is held.
    pub fn write_back(this: &KArc<Self>) -> Result<(), Errno> {
        if this.marked_pages() == 0 {
            return Ok(());
        }
        let mut turn = Self::turn(this)?;
        turn.agree()?;
        turn.write_back()
    }
}

impl<M: Machine> Turn<'_, M> {
    /// Writes back all pages that were marked when this begins. The first error; those that the pager may take later stay marked.
    pub fn write_back(&mut self) -> Result<(), Errno> {
        let object = self.object();
        let Some(pager) = object.pager() else { return Ok(()) };
        self.commit()?;
        object.begin_write_back();
        let mut done = Ok(());
        let mut from = 0;
        while let Some(run) = object.take_marked(from) {
            from = run.first + run.len;
            let written = write_run(object, pager, &run);
            if written.is_err() && done.is_ok() {
                done = written;
            }
            if written == Err(Errno::EINTR) {
                break;
            }
            // (A killed thread learns of it from the pager, or is done.)
            let _ = object.machine().resched_point();
        }
        done
    }
}

/// Whether a page that was not written because of this is tried again: nothing is wrong with it.
fn is_for_now(error: Errno) -> bool {
    matches!(error, Errno::EINTR | Errno::ENOMEM | Errno::EAGAIN | Errno::ENOSPC)
}

fn write_run<M: Machine>(object: &KArc<Object<M>>, pager: &dyn Pager, run: &MarkedRun) -> Result<(), Errno> {
    let machine = object.machine();
    let frames = &run.frames[..run.len];
    for (n, pfn) in frames.iter().enumerate() {
        if !clean(object, run.first + n, *pfn) && !seeded!(WriteBackTrustsWalk) {
            object.mark_again(run.first + n, *pfn);
        }
    }
    let start = (run.first as u64) << PAGE_SHIFT;
    let len = object.len().saturating_sub(start).min((run.len * PAGE_SIZE) as u64) as usize;
    let written = if len == 0 { Ok(0) } else { pager.write(start, frames, len, false) };
    let done = written.and_then(|taken| if taken == len { Ok(()) } else { Err(Errno::EIO) });
    if let Err(error) = done {
        if is_for_now(error) && !seeded!(FailedWriteBackForgets) {
            frames.iter().enumerate().for_each(|(n, pfn)| object.mark_again(run.first + n, *pfn));
        }
        if error != Errno::EINTR {
            object.note_error(error);
        }
    } else {
        machine.count(Event::WrittenBack, run.len);
    }
    let mut release = Release::new(machine);
    frames.iter().for_each(|pfn| release.page(*pfn));
    done
}

/// Makes all entries of a page read-only and clean; returns whether none was missed. The caller has a reference.
fn clean<M: Machine>(object: &KArc<Object<M>>, index: usize, pfn: Pfn) -> bool {
    let page = frame::page(object.machine(), pfn);
    // The caller's reference and the object's are no mappings.
    let is_mapped = || page.mappings_at_most(2) != Some(0);
    let mut found = 0;
    let is_consistent = !is_mapped()
        || for_each_object_mapping(object, index, pfn, |mm, _, addr| {
            found += mm.clean(addr, pfn);
            true
        });
    is_consistent && page.mappings_at_most(2).is_some_and(|mappings| mappings <= found) && !page.is_pinned()
}

impl<M: Machine> Mm<M> {
    /// Makes the entry for `addr` read-only and clean, if it is one of the page `pfn`. The areas are locked for reading. Returns how many references it holds.
    fn clean(&self, addr: UserAddr, pfn: Pfn) -> u32 {
        let Some(leaf) = self.tables.walk(addr) else { return 0 };
        let i = index(addr.get(), 3);
        let mut guard = leaf.lock();
        let pte = guard.get(i);
        match pte.kind() {
            None if pte.addr().pfn() == pfn => {
                if pte.cleaned() != pte && !seeded!(WriteBackLeavesEntries) {
                    guard.update(i, pte, Pte::cleaned);
                    drop(guard);
                    if !seeded!(WriteBackForgetsFlush) {
                        flush_page(self.machine, self.tables.asid(), addr);
                    }
                }
                1
            }
            // The page moves: the entry comes back as it is then. It holds no reference.
            Some(NonPresent::Migration(old)) if old.pfn() == pfn => {
                let clean = pte.moved_clean();
                if clean != pte {
                    guard.clear(i);
                    guard.fill(i, clean);
                }
                0
            }
            _ => 0,
        }
    }
}
