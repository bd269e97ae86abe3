//! msync.
//!
//! The boot archive's files cannot be written, and memory has no store behind it. Paged objects are written back by whoever has their turn
//! (write_back.rs), with no lock of the space held: here are the checks of the range, and the search for them.

use quire_abi::Errno;
use quire_abi::flags::Msync;

use super::Mm;
use crate::addr::{PAGE_SIZE, UserAddr};
use crate::fallible::KArc;
use crate::mm::Machine;
use crate::object::Object;
use crate::vma::VmFlags;

/// Areas between two points at which others may run.
const AREAS: usize = 64;

impl<M: Machine> Mm<M> {
    /// The next paged object at `at` or above and below `end` that is mapped shared, and the end of its area. `None` also if the thread is killed.
    pub fn next_paged(&self, at: usize, end: usize) -> Option<(KArc<Object<M>>, usize)> {
        let mut at = UserAddr::new(at);
        loop {
            {
                let areas = self.areas.read();
                for _ in 0..AREAS {
                    let vma = areas.tree.find_from(at).filter(|vma| vma.start.get() < end)?;
                    at = vma.end;
                    if let Some(backing) = vma.backing.as_ref().filter(|_| vma.flags.contains(VmFlags::NOTES_STORES)) {
                        return Some((backing.object.clone(), at.get()));
                    }
                }
            }
            self.machine.resched_point().ok()?;
        }
    }

    /// Writes a range back: msync's semantics and errors. A hole is reported after the rest has been processed, except
    /// with ASYNC alone, which stops at it.
    pub fn sync(&self, addr: usize, len: usize, flags: Msync) -> Result<(), Errno> {
        let start = UserAddr::new(addr);
        if !start.is_aligned(PAGE_SIZE) || flags.contains(Msync::ASYNC | Msync::SYNC) {
            return Err(Errno::EINVAL);
        }
        // As on Linux a length in the last page of all numbers is rounded up to 0.
        let len = len.checked_next_multiple_of(PAGE_SIZE).unwrap_or(0);
        let end = start.checked_add(len).ok_or(Errno::ENOMEM)?;
        // The intent excludes changes, whose intermediate state might show a hole.
        let areas = self.areas.intend_killable()?;
        let mut passed = 0;
        let mut hole = false;
        let mut at = start;
        while at < end {
            let vma = areas.tree.find_from(at).filter(|vma| vma.start < end).ok_or(Errno::ENOMEM)?;
            if vma.start > at {
                hole = true;
                if flags == Msync::ASYNC {
                    break;
                }
            }
            if flags.contains(Msync::INVALIDATE) && vma.flags.contains(VmFlags::LOCKED) {
                return Err(Errno::EBUSY);
            }
            at = vma.end;
            passed += 1;
            if passed % AREAS == 0 {
                self.machine.resched_point()?;
            }
        }
        if hole { Err(Errno::ENOMEM) } else { Ok(()) }
    }
}
