//! Mapping the segments of an ELF file into an address space.

use elf::abi::{PF_R, PF_W, PF_X};
use elf::segment::ProgramHeader;
use quire_abi::Errno;
use quire_abi::flags::{Map, Prot};
use quire_mm::addr::{PAGE_SIZE, USER_END};
use quire_mm::fallible::KArc;
use quire_mm::mm::{FaultError, MapRequest};

use crate::vm::{Mm, Object};

/// The page that an address is in.
pub fn page_floor(at: usize) -> usize {
    at & !(PAGE_SIZE - 1)
}

fn prot_of(flags: u32) -> Prot {
    let mut prot = Prot::empty();
    prot.set(Prot::READ, flags & PF_R != 0);
    prot.set(Prot::WRITE, flags & PF_W != 0);
    prot.set(Prot::EXEC, flags & PF_X != 0);
    prot
}

/// Maps the segments of one file.
pub struct Loader<'a> {
    /// Where to.
    pub mm: &'a Mm,
    /// The file.
    pub object: KArc<Object>,
    /// What is added to its addresses.
    pub bias: usize,
}

impl Loader<'_> {
    /// Maps a segment, as one of mmap's FIXED flags says; returns its end, without the bias.
    pub fn map(&self, segment: &ProgramHeader, place: Map) -> Result<usize, Errno> {
        let (at, file, memory) = (segment.p_vaddr as usize, segment.p_filesz as usize, segment.p_memsz as usize);
        let end = at.checked_add(memory).filter(|end| at < USER_END && *end <= USER_END).ok_or(Errno::EINVAL)?;
        if file > memory {
            return Err(Errno::EINVAL);
        }
        let start = self.bias.wrapping_add(at);
        if start.checked_add(memory).is_none_or(|end| end > USER_END) {
            return Err(Errno::ENOMEM);
        }
        let prot = prot_of(segment.p_flags);
        let zeros = if file > 0 {
            self.map_file(segment, start, prot, place)?;
            start + file
        } else {
            page_floor(start)
        };
        if memory > file {
            if file > 0 && prot.contains(Prot::WRITE) {
                self.clear_rest_of_page(zeros)?;
            }
            let from = zeros.next_multiple_of(PAGE_SIZE);
            let to = (start + memory).next_multiple_of(PAGE_SIZE);
            if to > from {
                let flags = Map::PRIVATE | Map::ANONYMOUS | place;
                self.mm.map(&MapRequest { addr: from, flags, ..MapRequest::anonymous(to - from, prot) })?;
            }
        }
        Ok(end)
    }

    /// Maps the part of a segment that is in the file, whole pages of it.
    fn map_file(&self, segment: &ProgramHeader, start: usize, prot: Prot, place: Map) -> Result<(), Errno> {
        let offset = segment.p_offset as usize;
        if start % PAGE_SIZE != offset % PAGE_SIZE {
            return Err(Errno::EINVAL);
        }
        let len = (start % PAGE_SIZE + segment.p_filesz as usize).next_multiple_of(PAGE_SIZE);
        // Any file ends below 2^63.
        if page_floor(offset).checked_add(len).is_none_or(|end| end > i64::MAX as usize) {
            return Err(Errno::EOVERFLOW);
        }
        self.mm.map(&MapRequest {
            addr: page_floor(start),
            len,
            prot,
            flags: Map::PRIVATE | place,
            object: Some((self.object.clone(), offset / PAGE_SIZE)),
            max_prot: Prot::all(),
        })?;
        Ok(())
    }

    /// If a segment's memory extends beyond its file part, the program expects zeros up to the end of the page,
    /// whatever the file contains there.
    fn clear_rest_of_page(&self, from: usize) -> Result<(), Errno> {
        let len = from.next_multiple_of(PAGE_SIZE) - from;
        if len == 0 {
            return Ok(());
        }
        let page = self.mm.pin(from, true).map_err(|error| match error {
            FaultError::OutOfMemory => Errno::ENOMEM,
            _ => Errno::EFAULT,
        })?;
        // SAFETY: the page is pinned and this process's own copy; `len` bytes from there end within it.
        unsafe { core::ptr::write_bytes(page.as_ptr(), 0, len) };
        Ok(())
    }
}
