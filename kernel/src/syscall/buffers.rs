//! A program's buffer or vector of buffers, as one run of bytes, for read, write and similar calls.
//!
//! A vector is copied in and checked as a whole before the first byte moves, so that no thread can change it meanwhile.
//! The bytes continue across its parts, so that an atomic piece of the other side stays in one piece.

use core::ops::Range;

use alloc::vec::Vec;
use quire_abi::Errno;
use quire_abi::layout::{Iovec, Pod};
use quire_mm::UserAddr;
use quire_mm::addr::PAGE_SIZE;
use quire_mm::fallible::TryVec;

use crate::arch::uaccess;
use crate::task::point::{ENTRIES, resched_point};
use crate::task::wait::Sleep;

/// The maximum number of bytes that one call moves: a whole number of pages below 2 GiB, as on Linux.
pub const MAX_RW: usize = 0x7fff_f000;

/// Most parts of a vector.
const IOV_MAX: usize = 1024;

/// The rest of the buffers. The ranges are in the lower half; the copy finds out whether they are mapped.
#[derive(Clone)]
pub struct Buffers<'a> {
    addr: UserAddr,
    /// Bytes left of the current part.
    here: usize,
    rest: &'a [(UserAddr, usize)],
    /// Bytes left in total.
    left: usize,
    /// The next copy without faults is within a page.
    within_page: bool,
}

impl Buffers<'_> {
    /// One buffer.
    #[inline]
    pub fn one(addr: UserAddr, len: usize) -> Result<Self, Errno> {
        uaccess::check(addr, len)?;
        let left = len.min(MAX_RW);
        Ok(Self { addr, here: left, rest: &[], left, within_page: false })
    }

    /// Bytes left.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Bytes left of the next part; 0 at the end.
    pub fn part(&mut self) -> usize {
        self.piece(usize::MAX).1
    }

    /// Copies the next bytes from the buffers and advances; returns how many, fewer than requested only at the end or
    /// at a bad address. EFAULT if none could be copied.
    #[inline]
    pub fn take(&mut self, to: &mut [u8]) -> Result<usize, Errno> {
        if to.len() <= self.here {
            let copied = uaccess::copy_from_user(to, self.addr)?;
            self.pass(copied);
            return Ok(copied);
        }
        self.take_across(to)
    }

    #[inline(never)]
    fn take_across(&mut self, to: &mut [u8]) -> Result<usize, Errno> {
        self.across(to.len(), |part, addr| uaccess::copy_from_user(&mut to[part], addr))
    }

    /// Copies bytes to the buffers and advances; returns how many. EFAULT if there was room and none could be copied.
    #[inline]
    pub fn put(&mut self, from: &[u8]) -> Result<usize, Errno> {
        if from.len() <= self.here {
            let copied = uaccess::copy_to_user(self.addr, from)?;
            self.pass(copied);
            return Ok(copied);
        }
        self.put_across(from)
    }

    /// [`Buffers::put`] for a record.
    pub fn put_record<T: Pod>(&mut self, record: &T) -> Result<usize, Errno> {
        // SAFETY: a `Pod` has no padding, so all its bytes are initialised.
        self.put(unsafe { core::slice::from_raw_parts(core::ptr::from_ref(record).cast(), size_of::<T>()) })
    }

    #[inline(never)]
    fn put_across(&mut self, from: &[u8]) -> Result<usize, Errno> {
        self.across(from.len(), |part, addr| uaccess::copy_to_user(addr, &from[part]))
    }

    /// Copies up to `len` bytes in pieces, each within one buffer, and advances.
    #[inline(always)]
    fn across(
        &mut self,
        len: usize,
        mut copy: impl FnMut(Range<usize>, UserAddr) -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        let wanted = len.min(self.left);
        let mut done = 0;
        while done < wanted {
            let (addr, n) = self.piece(wanted - done);
            match copy(done..done + n, addr) {
                Ok(copied) => {
                    done += copied;
                    self.pass(copied);
                    if copied < n {
                        break;
                    }
                }
                Err(e) if done == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    /// Skips the next part, and returns its address and length.
    pub fn next_part(&mut self) -> (UserAddr, usize) {
        let part = self.piece(usize::MAX);
        self.pass(part.1);
        part
    }

    /// The next contiguous bytes, up to `most`; at least one must be left.
    fn piece(&mut self, most: usize) -> (UserAddr, usize) {
        while self.here == 0
            && let Some((&(addr, len), rest)) = self.rest.split_first()
        {
            (self.addr, self.here, self.rest) = (addr, len, rest);
        }
        (self.addr, self.here.min(most))
    }

    /// The next bytes for a copy without faults, up to `most`.
    #[inline]
    fn piece_now(&mut self, most: usize) -> (UserAddr, usize) {
        let (addr, n) = self.piece(most);
        if self.within_page {
            return (addr, n.min(PAGE_SIZE - addr.page_offset()));
        }
        (addr, n)
    }

    /// Copies up to `n` of the next bytes to `to`, but stops at a missing page: returns how many, and does not advance
    /// ([`Buffers::pass`]). If this returns 0, the caller must call [`Buffers::bring_in`].
    ///
    /// # Safety
    /// `to` is valid for writes of `n` bytes; other threads may access them.
    #[inline]
    pub unsafe fn take_now(&mut self, to: *mut u8, n: usize) -> usize {
        let (addr, n) = self.piece_now(n);
        // SAFETY: the caller's promise; the buffers' ranges were checked.
        unsafe { uaccess::copy_from_user_now(to, addr, n) }
    }

    /// As [`Buffers::take_now`], in the other direction.
    ///
    /// # Safety
    /// `from` is valid for reads of `n` bytes; other threads may change them.
    #[inline]
    pub unsafe fn put_now(&mut self, from: *const u8, n: usize) -> usize {
        let (addr, n) = self.piece_now(n);
        // SAFETY: as in `take_now`.
        unsafe { uaccess::copy_to_user_now(addr, from, n) }
    }

    /// Brings in the page of the next byte, for a write or a read. EFAULT.
    #[cold]
    pub fn bring_in(&mut self, write: bool) -> Result<(), Errno> {
        let (addr, _) = self.piece(1);
        // (The missing page may be the next one instead.)
        self.within_page = true;
        uaccess::touch(addr, write)
    }

    /// Advances by `n` bytes of the current part.
    #[inline]
    pub fn pass(&mut self, n: usize) {
        self.within_page = false;
        self.addr = self.addr + n;
        self.here -= n;
        self.left -= n;
    }
}

/// Calls `f` with the buffers of a vector. EINVAL for a vector or a part that is too long, EFAULT if the vector cannot
/// be read or a part is not in the lower half.
pub fn with_vector<T>(
    vector: UserAddr,
    count: usize,
    f: impl FnOnce(&mut Buffers<'_>) -> Result<T, Errno>,
) -> Result<T, Errno> {
    /// The maximum number of parts of a vector that needs no allocation.
    const FEW: usize = 8;
    if count > IOV_MAX {
        return Err(Errno::EINVAL);
    }
    let mut few = [(UserAddr::new(0), 0); FEW];
    let mut many: Vec<(UserAddr, usize)>;
    let parts = if count <= FEW {
        &mut few[..count]
    } else {
        many = TryVec::try_with_capacity(count).map_err(Errno::from)?;
        while many.len() < count {
            many.try_push((UserAddr::new(0), 0)).map_err(Errno::from)?;
        }
        &mut many[..]
    };
    let left = import(vector, parts)?;
    f(&mut Buffers { addr: UserAddr::new(0), here: 0, rest: parts, left, within_page: false })
}

/// Copies a vector in; returns its total length, at most [`MAX_RW`].
fn import(vector: UserAddr, parts: &mut [(UserAddr, usize)]) -> Result<usize, Errno> {
    let mut left = 0;
    for (i, part) in parts.iter_mut().enumerate() {
        if i.is_multiple_of(ENTRIES) {
            resched_point(Sleep::Killable)?;
        }
        let at = vector.checked_add(i * size_of::<Iovec>()).ok_or(Errno::EFAULT)?;
        let [base, len]: [u64; 2] = uaccess::get(at)?;
        let len = usize::try_from(len as i64).map_err(|_| Errno::EINVAL)?;
        let base = UserAddr::new(base as usize);
        uaccess::check(base, len)?;
        let len = len.min(MAX_RW - left);
        *part = (base, len);
        left += len;
    }
    Ok(left)
}
