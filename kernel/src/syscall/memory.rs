//! brk, mmap and the calls that change mappings.
//!
//! As on Linux, calls about existing mappings ignore the tag of an address, and those that make new mappings do not.

use quire_abi::Errno;
use quire_abi::flags::{Map, Mremap, Msync, Prot};
use quire_mm::addr::PAGE_SIZE;
use quire_mm::fallible::KArc;
use quire_mm::mm::MapRequest;

use super::{Answer, Args, memory_file};
use crate::arch::uaccess::{self, untagged};
use crate::ipc::descriptor::{Object as Open, Rights};
use crate::names::target::Name;
use crate::task::oom;
use crate::task::thread::current;
use crate::vm::{Mm, Object};

pub(super) fn mm() -> Result<&'static KArc<Mm>, Errno> {
    current().mm().ok_or(Errno::ENOMEM)
}

pub fn brk(a: Args) -> Answer {
    let wanted = a.word(0);
    let end = mm()?.brk(wanted).get();
    if end >= wanted { Ok(end) } else { brk_again(wanted) }
}

/// brk reports no error, but returns the end of the heap.
#[cold]
fn brk_again(wanted: usize) -> Answer {
    let grow = || match mm()?.brk(wanted).get() {
        end if end < wanted => Err(Errno::ENOMEM),
        end => Ok(end),
    };
    oom::again(Errno::ENOMEM, grow).or_else(|_| Ok(mm()?.brk(0).get()))
}

/// For calls that report a lack of memory as EAGAIN.
fn or_again(call: impl Fn() -> Result<(), Errno>) -> Answer {
    let done = match call() {
        Err(Errno::EAGAIN) => oom::again(Errno::EAGAIN, call),
        done => done,
    };
    done.map(|()| 0)
}

/// PROT bits that mmap and mprotect accept; others give EINVAL.
fn prot(bits: usize) -> Result<Prot, Errno> {
    let prot = u32::try_from(bits).ok().and_then(Prot::from_bits);
    prot.map(|prot| prot - Prot::SEM).ok_or(Errno::EINVAL)
}

pub fn mmap(a: Args) -> Answer {
    let flags = Map::from_bits_retain(a.uint(3));
    let prot = Prot::from_bits_truncate(a.uint(2)) - Prot::SEM - Prot::GROWSDOWN - Prot::GROWSUP;
    let offset = a.word(5);
    if !offset.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let mut request = MapRequest { addr: a.word(0), flags, ..MapRequest::anonymous(a.word(1), prot) };
    if !flags.contains(Map::ANONYMOUS) {
        let descriptor = super::file::table()?.get(a.int(4))?;
        // Any file ends below 2^63.
        let end = a.word(1).checked_next_multiple_of(PAGE_SIZE).and_then(|len| offset.checked_add(len));
        if end.is_none_or(|end| end > i64::MAX as usize) && a.word(1) != 0 {
            return Err(Errno::EOVERFLOW);
        }
        let is_shared = flags.intersection(Map::SHARED_VALIDATE) != Map::PRIVATE;
        if !descriptor.rights.contains(Rights::READ)
            || is_shared && prot.contains(Prot::WRITE) && !descriptor.rights.contains(Rights::WRITE)
        {
            return Err(Errno::EACCES);
        }
        let object = match &descriptor.file.object {
            Open::Archive(node) => node.object()?,
            Open::Memory(file) | Open::Name(Name { file: Some(file), .. })
                if is_shared && descriptor.rights.contains(Rights::WRITE) =>
            {
                // Nobody seals the file meanwhile.
                let (_turn, may_write) = memory_file::turn_to_map(file, prot.contains(Prot::WRITE))?;
                request.object = Some((file.content.clone(), offset / PAGE_SIZE));
                request.max_prot.set(Prot::WRITE, may_write);
                return mm()?.map(&request).map(|addr| addr.get());
            }
            Open::Memory(file) | Open::Name(Name { file: Some(file), .. }) => file.content.clone(),
            _ => return Err(Errno::ENODEV),
        };
        if is_shared {
            request.max_prot = Prot::READ | Prot::EXEC;
        }
        request.object = Some((object, offset / PAGE_SIZE));
    }
    mm()?.map(&request).map(|addr| addr.get())
}

pub fn munmap(a: Args) -> Answer {
    mm()?.unmap(untagged(a.word(0)), a.word(1)).map(|()| 0)
}

pub fn mprotect(a: Args) -> Answer {
    let prot = prot(a.word(2))?;
    mm()?.protect(untagged(a.word(0)), a.word(1), prot).map(|()| 0)
}

pub fn mremap(a: Args) -> Answer {
    let flags = Mremap::from_bits(a.uint(3)).ok_or(Errno::EINVAL)?;
    mm()?.remap(untagged(a.word(0)), a.word(1), a.word(2), flags, a.word(4)).map(|addr| addr.get())
}

pub fn madvise(a: Args) -> Answer {
    advise(a.word(0), a.word(1), a.int(2))
}

/// madvise in the address space that the calling thread uses at the moment.
pub fn advise(start: usize, len: usize, advice: i32) -> Answer {
    or_again(|| mm()?.advise(untagged(start), len, advice))
}

pub fn msync(a: Args) -> Answer {
    let flags = Msync::from_bits(a.uint(2)).ok_or(Errno::EINVAL)?;
    let (start, len) = (untagged(a.word(0)), a.word(1));
    let mapped = mm()?.sync(start, len, flags);
    if flags.contains(Msync::SYNC) && matches!(mapped, Ok(()) | Err(Errno::ENOMEM)) {
        // (Pages after a hole are written back nevertheless.)
        let end = start.saturating_add(len);
        let mut at = start;
        while let Some((object, next)) = mm()?.next_paged(at, end) {
            keep(&object)?;
            at = next;
        }
    }
    mapped.map(|()| 0)
}

/// Writes back a paged object's dirty pages, and has its pager make them permanent.
fn keep(object: &KArc<Object>) -> Result<(), Errno> {
    Object::write_back(object)?;
    object.pager().map_or(Ok(()), |pager| pager.sync())
}

pub fn mincore(a: Args) -> Answer {
    /// How many pages are examined before the result is stored: no lock of the space is held while user memory is
    /// accessed.
    const PIECE: usize = 256;
    let (start, len) = (untagged(a.word(0)), a.word(1));
    check_mincore(start, len, a.word(2))?;
    let mut done = 0;
    loop {
        let mut resident = [0u8; PIECE];
        let piece = (len - done).min(PIECE * PAGE_SIZE);
        mm()?.in_core(start.wrapping_add(done), piece, |page, is_in| resident[page] = u8::from(is_in))?;
        let to = a.addr(2).checked_add(done / PAGE_SIZE).ok_or(Errno::EFAULT)?;
        let pages = piece.div_ceil(PAGE_SIZE);
        if uaccess::copy_to_user(to, &resident[..pages])? != pages {
            return Err(Errno::EFAULT);
        }
        done += piece;
        if done >= len {
            return Ok(0);
        }
    }
}

/// Linux's checks before it examines a page, in its order: the address, the range, and the destination of the result.
fn check_mincore(start: usize, len: usize, answer: usize) -> Result<(), Errno> {
    /// The end of the architecture's largest address space.
    const LARGEST: usize = 1 << 52;
    let ends_by = |start: usize, len: usize, limit: usize| start.checked_add(len).is_some_and(|end| end <= limit);
    if !start.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    if !ends_by(start, len, LARGEST) {
        return Err(Errno::ENOMEM);
    }
    if !ends_by(answer, len.div_ceil(PAGE_SIZE), LARGEST) {
        return Err(Errno::EFAULT);
    }
    Ok(())
}

pub fn mlock(a: Args, flags: u32) -> Answer {
    const ONFAULT: u32 = 1;
    if flags & !ONFAULT != 0 {
        return Err(Errno::EINVAL);
    }
    or_again(|| mm()?.lock(untagged(a.word(0)), a.word(1), flags & ONFAULT != 0))
}

pub fn munlock(a: Args) -> Answer {
    mm()?.unlock(untagged(a.word(0)), a.word(1)).map(|()| 0)
}

pub fn mlockall(a: Args) -> Answer {
    const CURRENT: u32 = 1;
    const FUTURE: u32 = 2;
    const ONFAULT: u32 = 4;
    let flags = a.uint(0);
    if flags & !(CURRENT | FUTURE | ONFAULT) != 0 || flags & (CURRENT | FUTURE) == 0 {
        return Err(Errno::EINVAL);
    }
    or_again(|| mm()?.lock_all(flags & CURRENT != 0, flags & FUTURE != 0, flags & ONFAULT != 0))
}

pub fn munlockall() -> Answer {
    mm()?.unlock_all();
    Ok(0)
}
