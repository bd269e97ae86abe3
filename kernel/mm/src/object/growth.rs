//! Writes that make a paged file longer: the pager has to agree before the file is longer, so there is room for what
//! was accepted.
//!
//! The bytes are copied into pages first, some of which lie behind the end, where nobody finds them yet; the turn keeps
//! a reference to each. Then the pager takes up to [`RUN`] of them at a time, and the end moves as far as it did. What
//! it does not take is given up.

use core::sync::atomic::Ordering;

use quire_abi::Errno;

use super::file::{Piece, Turn};
use super::paged::{Paging, RUN};
use super::{Object, ObjectError, ObjectPage};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, Pfn};
use crate::frame;
use crate::page::PageFlags;
use crate::rmap::Release;
use crate::supply::Supply;
use crate::table::Machine;

/// The most bytes that the pager gets at a time.
const MOST: usize = RUN * PAGE_SIZE;

/// Pages that they may touch, since they need not begin with a page.
const PAGES: usize = RUN + 1;

/// What was written behind the end, and is not accepted yet.
pub(super) struct Growth {
    start: u64,
    end: u64,
    frames: [Pfn; PAGES],
    len: usize,
}

impl Growth {
    /// Begins at the end of the file, or behind it.
    pub fn new(start: u64) -> Self {
        Self { start, end: start, frames: [Pfn(0); PAGES], len: 0 }
    }

    /// Whether a piece of `len` bytes at `at` may follow.
    fn has_room_for(&self, at: u64, len: usize) -> bool {
        self.end == at && (at - self.start) as usize + len <= MOST
    }

    /// It goes on to `end`, within the page of its former end, or the next one. Gets the caller's reference to that
    /// page; returns it if it has one already.
    pub fn extend(&mut self, end: u64, pfn: Pfn) -> Option<Pfn> {
        let is_same = self.len != 0 && !(self.end as usize).is_multiple_of(PAGE_SIZE);
        self.end = end;
        if is_same {
            return Some(pfn);
        }
        self.frames[self.len] = pfn;
        self.len += 1;
        None
    }
}

impl<M: Machine> Turn<'_, M> {
    /// As [`Turn::write`], for a paged file: what lies within its end is marked, and what lies behind it waits for
    /// [`Turn::commit`].
    pub(super) fn write_paged(
        &mut self,
        paging: &Paging,
        at: u64,
        piece: &Piece,
        supply: &Supply<M>,
        copy: &mut impl FnMut(*mut u8, usize) -> usize,
    ) -> Result<usize, ObjectError> {
        if self.growth.as_ref().is_some_and(|growth| !growth.has_room_for(at, piece.len)) {
            self.commit()?;
        }
        let object = self.object();
        let len = object.len();
        // (Allocated before anything is copied.)
        let grows = self.growth.is_none() && at + piece.len as u64 > len;
        let made = if grows { Some(supply.boxed(|| Growth::new(at.max(len)))?) } else { None };
        let Some((copied, pfn)) = self.copy_in(piece, len, supply, copy)? else { return Ok(0) };
        object.note_use(pfn, PageFlags::REFERENCED);
        if at < len {
            object.mark(paging, piece.index);
        }
        let end = at + copied as u64;
        if end > len && made.is_some() {
            self.growth = made;
        }
        let kept = match &mut self.growth {
            Some(growth) if end > len => growth.extend(end, pfn),
            _ => Some(pfn),
        };
        if let Some(pfn) = kept {
            object.release(pfn);
        }
        Ok(copied)
    }

    /// Copies a piece into its page, which is brought in unless all of its bytes are new. Returns how many bytes, and
    /// the page with a reference; `None` if none could be copied.
    fn copy_in(
        &self,
        piece: &Piece,
        len: u64,
        supply: &Supply<M>,
        copy: &mut impl FnMut(*mut u8, usize) -> usize,
    ) -> Result<Option<(usize, Pfn)>, ObjectError> {
        let object = self.object();
        let machine = object.machine;
        let is_behind = (piece.index as u64) << PAGE_SHIFT >= len;
        let mut may_replace = piece.len == PAGE_SIZE;
        loop {
            match object.resident(piece.index) {
                Ok(Some(pfn)) => {
                    let copied = copy(machine.direct_map(pfn.addr() + piece.offset), piece.len);
                    if copied == 0 {
                        object.release(pfn);
                    }
                    return Ok((copied != 0).then_some((copied, pfn)));
                }
                Ok(None) if is_behind || may_replace => {}
                Ok(None) | Err(ObjectError::Away) => {
                    object.bring_in(piece.index)?;
                    continue;
                }
                Err(error) => return Err(error),
            }
            let pfn = supply.user(true)?;
            let copied = copy(machine.direct_map(pfn.addr() + piece.offset), piece.len);
            let is_enough = copied == piece.len || is_behind || seeded!(ShortCopyLosesRest);
            if copied == 0 || !is_enough {
                frame::free(machine, pfn);
                // The rest of the page is the pager's: bytes are copied again when it is here.
                may_replace = false;
                if copied == 0 {
                    return Ok(None);
                }
                continue;
            }
            match object.enter(piece.index, pfn, supply, false) {
                Ok(ObjectPage::Counted(entered)) if entered == pfn => return Ok(Some((copied, pfn))),
                // Somebody was faster: then bytes are copied once more.
                Ok(ObjectPage::Counted(other)) => object.release(other),
                Ok(ObjectPage::InPlace(_)) | Err(ObjectError::Away) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Has the pager accept what was written behind the end. The file ends where that has gone; an error is for what
    /// was not accepted.
    #[inline]
    pub fn commit(&mut self) -> Result<(), Errno> {
        match self.growth.take() {
            Some(growth) => self.commit_growth(&growth),
            None => Ok(()),
        }
    }

    #[cold]
    fn commit_growth(&mut self, growth: &Growth) -> Result<(), Errno> {
        let object = self.object();
        let len = (growth.end - growth.start) as usize;
        let frames = &growth.frames;
        let taken = match object.pager() {
            Some(pager) => pager.write(growth.start, &frames[..growth.len], len, true),
            None => Err(Errno::EIO),
        };
        self.forget_len_if(taken.err());
        let taken = taken.and_then(|taken| if taken <= len { Ok(taken) } else { Err(Errno::EIO) });
        let end = growth.start + taken.unwrap_or(0) as u64;
        if taken.is_ok_and(|taken| taken != 0) {
            self.store_len(end);
        }
        // Only now: reclaim may take a clean page whose reference is gone.
        let mut release = Release::new(object.machine);
        frames[..growth.len].iter().for_each(|pfn| release.page(*pfn));
        if end != growth.end {
            give_up_behind(object, object.len())?;
        }
        match taken {
            Err(error) => Err(error),
            Ok(taken) if taken < len => Err(Errno::ENOSPC),
            Ok(_) => Ok(()),
        }
    }
}

impl<M: Machine> Turn<'_, M> {
    /// A change of the length that ended with an error may have been made, or in part.
    pub(crate) fn forget_len_if(&self, ended: Option<Errno>) {
        if let (Some(_), Some(paging)) = (ended, self.object().paging()) {
            paging.is_len_unknown.store(true, Ordering::Relaxed);
        }
    }

    /// The length that the pager says, if it is not known: the holder of the turn asks.
    #[inline]
    pub(crate) fn length_to_learn(&self) -> Result<Option<u64>, Errno> {
        match self.object().paging() {
            Some(paging) if paging.is_len_unknown.load(Ordering::Relaxed) => paging.pager.length().map(Some),
            _ => Ok(None),
        }
    }

    /// The pager says that the file goes on behind `old`, which was its end: what a page that is here has there is what
    /// the pager has.
    pub(crate) fn fetch_tail(&self, old: u64) -> Result<(), Errno> {
        let object = self.object();
        let (offset, index) = (old as usize % PAGE_SIZE, (old >> PAGE_SHIFT) as usize);
        let Some(paging) = object.paging().filter(|_| offset != 0) else { return Ok(()) };
        let Some(pfn) = object.brought_in(index)? else { return Ok(()) };
        let fetched = object.read_apart(paging, index, |from| {
            let (from, to) = (from + offset, pfn.addr() + offset);
            // SAFETY: the same part of two frames: one that only this thread knows, and one to which it has a
            // reference.
            unsafe {
                let to = object.machine.direct_map(to);
                to.copy_from_nonoverlapping(object.machine.direct_map(from), PAGE_SIZE - offset);
            }
        });
        object.release(pfn);
        Ok(fetched?)
    }

    /// The length is known.
    pub(crate) fn note_len(&self) {
        if let Some(paging) = self.object().paging() {
            paging.is_len_unknown.store(false, Ordering::Relaxed);
        }
    }
}

impl<M: Machine> Drop for Turn<'_, M> {
    fn drop(&mut self) {
        // (Whoever could tell of an error has committed.)
        let _ = self.commit();
    }
}

/// Gives up what was written behind the end of a file, where nobody has found it.
fn give_up_behind<M: Machine>(object: &Object<M>, end: u64) -> Result<(), ObjectError> {
    let first = (end as usize).div_ceil(PAGE_SIZE);
    debug_assert!(end >> PAGE_SHIFT <= first as u64);
    while let Some((_, pfn)) = object.give_up(first, usize::MAX) {
        Release::new(object.machine).page(pfn);
        let _ = object.machine.resched_point();
    }
    let offset = end as usize % PAGE_SIZE;
    if offset != 0 { object.clear_part(end, PAGE_SIZE - offset) } else { Ok(()) }
}
