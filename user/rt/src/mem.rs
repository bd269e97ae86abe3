//! The address space. Mapping and unmapping can remove memory that is still referenced, so those functions are unsafe.

use quire_abi::flags::{Map, Mremap, Prot};
use quire_abi::{Errno, nr};

use crate::sys;

/// Maps memory and returns its address.
///
/// # Safety
/// With `FIXED`, existing mappings in the range are replaced: nothing may still use them.
pub unsafe fn mmap(addr: usize, len: usize, prot: Prot, map: Map, fd: i32, offset: usize) -> Result<usize, Errno> {
    // SAFETY: the caller's promise about the range.
    unsafe { sys::call(nr::MMAP, [addr, len, prot.bits() as usize, map.bits() as usize, fd as isize as usize, offset]) }
}

/// Maps private anonymous memory at an address that the kernel chooses: it is always fresh, so this is always safe.
pub fn mmap_anonymous(len: usize, prot: Prot) -> Result<usize, Errno> {
    // SAFETY: without `FIXED`, no existing mapping changes.
    unsafe { mmap(0, len, prot, Map::PRIVATE | Map::ANONYMOUS, -1, 0) }
}

/// Unmaps a range.
///
/// # Safety
/// Nothing may still use the range.
pub unsafe fn munmap(addr: usize, len: usize) -> Result<(), Errno> {
    // SAFETY: the caller's promise.
    unsafe { sys::call(nr::MUNMAP, [addr, len]) }.map(drop)
}

/// Changes the protection of a range.
///
/// # Safety
/// Nothing may still use the range in a way that the new protection forbids.
pub unsafe fn mprotect(addr: usize, len: usize, prot: Prot) -> Result<(), Errno> {
    // SAFETY: the caller's promise.
    unsafe { sys::call(nr::MPROTECT, [addr, len, prot.bits() as usize]) }.map(drop)
}

/// Resizes or moves a mapping and returns its address.
///
/// # Safety
/// Nothing may still use memory that this removes: the old range if it moves, the end if it shrinks, the target with
/// `FIXED`.
pub unsafe fn mremap(old: usize, old_len: usize, new_len: usize, flags: Mremap, new: usize) -> Result<usize, Errno> {
    // SAFETY: the caller's promise.
    unsafe { sys::call(nr::MREMAP, [old, old_len, new_len, flags.bits() as usize, new]) }
}

/// Gives advice about a range ([`quire_abi::flags::madv`]).
///
/// # Safety
/// Some advice drops contents: then nothing may rely on them.
pub unsafe fn madvise(addr: usize, len: usize, advice: i32) -> Result<(), Errno> {
    // SAFETY: the caller's promise.
    unsafe { sys::call(nr::MADVISE, [addr, len, advice as usize]) }.map(drop)
}

/// Moves the end of the data segment; 0 only queries it. Like Linux's call it returns the resulting end, which is the
/// old one if the move failed.
///
/// # Safety
/// Nothing may still use memory above the new end.
pub unsafe fn brk(end: usize) -> usize {
    // SAFETY: the caller's promise.
    unsafe { sys::call(nr::BRK, [end]) }.unwrap_or(0)
}

/// Writes, for each page of a range, whether it is resident (bit 0).
pub fn mincore(addr: usize, len: usize, out: &mut [u8]) -> Result<(), Errno> {
    if out.len() < len.div_ceil(quire_abi::PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    // SAFETY: one byte a page is written, for which there is room.
    unsafe { sys::call(nr::MINCORE, [addr, len, out.as_mut_ptr() as usize]) }.map(drop)
}

/// Keeps a range in memory.
pub fn mlock(addr: usize, len: usize) -> Result<(), Errno> {
    sys::plain!(nr::MLOCK, addr, len).map(drop)
}

/// Ends [`mlock`].
pub fn munlock(addr: usize, len: usize) -> Result<(), Errno> {
    sys::plain!(nr::MUNLOCK, addr, len).map(drop)
}

/// Writes a shared mapping back (`MS_*`).
pub fn msync(addr: usize, len: usize, flags: u32) -> Result<(), Errno> {
    sys::plain!(nr::MSYNC, addr, len, flags).map(drop)
}
