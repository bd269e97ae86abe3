//! msync.
//!
//! Files are those of the boot archive, which cannot be written, and shared anonymous memory has no store behind it:
//! nothing ever needs to be written back. Only the checks of the range remain.

use quire_abi::Errno;
use quire_abi::flags::Msync;

use super::Mm;
use crate::addr::{PAGE_SIZE, UserAddr};
use crate::mm::Machine;
use crate::vma::VmFlags;

impl<M: Machine> Mm<M> {
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
        let areas = self.areas.intend();
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
        }
        if hole { Err(Errno::ENOMEM) } else { Ok(()) }
    }
}
