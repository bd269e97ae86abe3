//! Writes that extend a paged file: the pager must agree before the file becomes longer, so there is room for
//! everything that was accepted.
//!
//! The bytes are first copied into pages, some of which are after the end, where nobody finds them yet; the turn keeps
//! a reference to each. Then the pager accepts up to [`RUN`] of them at a time, and the end moves accordingly. What it
//! does not accept is dropped.

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

/// The maximum number of bytes that the pager gets at a time.
const MOST: usize = RUN * PAGE_SIZE;

/// The maximum number of pages that these bytes touch, since they need not be page-aligned.
const PAGES: usize = RUN + 1;

/// Bytes that were written after the end, and are not accepted yet.
pub(super) struct Growth {
    start: u64,
    end: u64,
    frames: [Pfn; PAGES],
    len: usize,
}

impl Growth {
    /// Starts at the end of the file, or after it.
    pub fn new(start: u64) -> Self {
        Self { start, end: start, frames: [Pfn(0); PAGES], len: 0 }
    }

    /// Whether a piece of `len` bytes at `at` may follow.
    fn has_room_for(&self, at: u64, len: usize) -> bool {
        self.end == at && (at - self.start) as usize + len <= MOST
    }

    /// Extends it to `end`, within the page of its former end, or the next one. Takes the caller's reference to that
    /// page; returns the reference if it already has one.
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
    /// As [`Turn::write`], for a paged file: pages within its end are marked, and bytes after it wait for
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

    /// Copies a piece into its page, which is brought in unless all of its bytes are overwritten. Returns how many
    /// bytes, and the page with a reference; `None` if no bytes could be copied.
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
                // The pager has the rest of the page: the bytes are copied again once it has been brought in.
                may_replace = false;
                if copied == 0 {
                    return Ok(None);
                }
                continue;
            }
            match object.enter(piece.index, pfn, supply, false) {
                Ok(ObjectPage::Counted(entered)) if entered == pfn => return Ok(Some((copied, pfn))),
                // Another thread has entered a page meanwhile: then the bytes are copied again.
                Ok(ObjectPage::Counted(other)) => object.release(other),
                Ok(ObjectPage::InPlace(_)) | Err(ObjectError::Away) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Has the pager accept the bytes that were written after the end. The new end is after the accepted bytes; an
    /// error is about the others.
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
        // Only now: reclaim may take a clean page whose reference was dropped.
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
    /// Notes that a change of the length which ended with an error may have been made, or in part.
    pub(crate) fn forget_len_if(&self, ended: Option<Errno>) {
        if let (Some(_), Some(paging)) = (ended, self.object().paging()) {
            paging.is_len_unknown.store(true, Ordering::Relaxed);
        }
    }

    /// The length according to the pager, if it is not known: the holder of the turn asks.
    #[inline]
    pub(crate) fn length_to_learn(&self) -> Result<Option<u64>, Errno> {
        match self.object().paging() {
            Some(paging) if paging.is_len_unknown.load(Ordering::Relaxed) => paging.pager.length().map(Some),
            _ => Ok(None),
        }
    }

    /// Called when the file turns out to extend beyond `old`, which was its end: reads the pager's bytes after `old`
    /// into a page that is in memory.
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
        // (A caller that could report an error has already committed.)
        let _ = self.commit();
    }
}

/// Drops the pages after the end of a file, which nobody else has found.
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
