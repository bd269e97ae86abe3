//! Files in memory: objects whose length changes, and whose bytes are accessed by calls as well as by mappings.
//!
//! docs/files.md describes the design: who may change what, and which operations may run concurrently.
//!
//! # The turn
//! Whoever changes a file, other than through a mapping, has its [`Turn`]: one thread at a time, which may wait for
//! memory and for anything else meanwhile, as long as it can be killed. Reads take no turn.
//!
//! # Pages
//! Bytes are copied by a function of the caller, which gets an address in the direct map and a number of bytes, and
//! returns how many it has copied. It does not sleep, since it holds a reference to the page, for which others wait.
//! The bytes are shared with programs that may change them at any time, so no Rust reference to them exists.
//!
//! Invariants, while nobody has the turn: bytes of the last page after the end are zeros, unless a mapping has stored
//! there; no page after the end is mapped.
//!
//! Lock order: `Rank::FileTurn`, which comes before all others.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use quire_abi::Errno;

use super::growth::Growth;
use super::held::Held;
use super::paged::Paging;
use super::radix::Next;
use super::{Content, Object, ObjectError, ObjectPage};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, Pfn};
use crate::fallible::{AllocError, KArc};
use crate::frame;
use crate::machine::Killed;
use crate::page::{INDEX_BITS, PageFlags};
use crate::rmap::Release;
use crate::supply::Supply;
use crate::sync::{IntentGuard, Rank, SharedLock};
use crate::table::Machine;
use crate::vma::VmFlags;

/// The maximum length of a file in bytes: a page's record has no room for a larger index.
pub const MAX_LEN: u64 = 1 << (INDEX_BITS + PAGE_SHIFT);

/// The number of pages that are examined between two points at which others may run.
const POINT_EVERY: usize = 64;

/// The state of a file in addition to its pages.
pub(super) struct State<M: Machine> {
    /// The length in bytes. Changed by the holder of the turn; reduced under the object's lock too.
    len: AtomicU64,
    /// What is forbidden from now on. Changed by the holder of the turn.
    seals: AtomicU32,
    /// The number of pages in the tree. Changed under the object's lock.
    pages: AtomicUsize,
    /// The number of areas that are shared and may become writable.
    writers: AtomicUsize,
    turn: SharedLock<(), M>,
    /// The pager, if it keeps the content instead of memory.
    pub(super) paging: Option<Paging>,
}

impl<M: Machine> State<M> {
    pub(super) fn new(machine: M, seals: u32) -> Self {
        Self {
            len: AtomicU64::new(0),
            seals: AtomicU32::new(seals),
            pages: AtomicUsize::new(0),
            writers: AtomicUsize::new(0),
            turn: SharedLock::new(machine, Rank::FileTurn, ()),
            paging: None,
        }
    }

    #[inline]
    pub(super) fn len(&self) -> u64 {
        self.len.load(Ordering::Acquire)
    }

    #[inline]
    pub(super) fn count_page(&self, change: isize) {
        self.pages.store(self.pages.load(Ordering::Relaxed).wrapping_add_signed(change), Ordering::Relaxed);
    }
}

/// The bytes of one page that are the next piece of a transfer.
pub(super) struct Piece {
    pub index: usize,
    pub offset: usize,
    pub len: usize,
}

impl Piece {
    /// Up to `most` bytes from `at` on.
    #[inline(always)]
    fn new(at: u64, most: usize) -> Self {
        let offset = at as usize % PAGE_SIZE;
        Self { index: (at >> PAGE_SHIFT) as usize, offset, len: most.min(PAGE_SIZE - offset) }
    }
}

impl<M: Machine> Object<M> {
    /// An empty file.
    pub fn file(machine: M, seals: u32) -> Result<KArc<Self>, AllocError> {
        Self::make(machine, Content::File(State::new(machine, seals)))
    }

    fn state(&self) -> Option<&State<M>> {
        match &self.content {
            Content::File(state) => Some(state),
            _ => None,
        }
    }

    /// The length of a file in memory, in bytes; 0 for other objects.
    #[inline]
    pub fn len(&self) -> u64 {
        self.state().map_or(0, State::len)
    }

    /// Whether that is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of pages of a file in memory, including those in swap.
    pub fn owned_pages(&self) -> usize {
        self.state().map_or(0, |state| state.pages.load(Ordering::Relaxed))
    }

    /// The seals of a file in memory.
    #[inline]
    pub fn seals(&self) -> u32 {
        self.state().map_or(0, |state| state.seals.load(Ordering::Relaxed))
    }

    /// Waits for the turn to change a file. For other objects, which have no turn, it excludes nobody.
    pub fn turn(this: &KArc<Self>) -> Result<Turn<'_, M>, Killed> {
        let guard = this.state().map(|state| state.turn.intend_killable()).transpose()?;
        Ok(Turn { object: this, growth: None, _guard: guard })
    }

    /// Notes that an area with these flags begins to map the object, or ceases to.
    pub(crate) fn note_mapping(&self, flags: VmFlags, begins: bool) {
        if let Content::File(state) = &self.content
            && flags.contains(VmFlags::SHARED | VmFlags::MAY_WRITE)
        {
            let change = if begins { 1 } else { -1 };
            state.writers.fetch_add(change as usize, Ordering::Relaxed);
        }
    }

    /// Reads up to `most` bytes of one page from `at` on with `copy`; returns its result, or `None` at the end. It also
    /// returns 0 if the page is not in memory: after 0 the caller must call [`Object::bring_in_at`] before it tries
    /// again.
    #[inline]
    pub fn read(&self, at: u64, most: usize, copy: impl FnOnce(*const u8, usize) -> usize) -> Option<usize> {
        let left = self.len().checked_sub(at).filter(|left| *left != 0)?;
        let piece = Piece::new(at, most.min(usize::try_from(left).unwrap_or(usize::MAX)));
        let pfn = match self.resident(piece.index) {
            Ok(Some(pfn)) => pfn,
            Ok(None) if self.is_paged() => return Some(0),
            Ok(None) => {
                let zeros = self.machine.spaces().zero_page() + piece.offset;
                return Some(copy(self.machine.direct_map(zeros), piece.len));
            }
            // (If the page has too many references, the caller tries again.)
            Err(_) => return Some(0),
        };
        let copied = copy(self.machine.direct_map(pfn.addr() + piece.offset), piece.len);
        self.note_use(pfn, PageFlags::REFERENCED);
        self.release(pfn);
        Some(copied)
    }

    /// Notes for reclaim that a call has used a page; for mappings, reclaim finds this in their entries.
    #[inline(always)]
    pub(super) fn note_use(&self, pfn: Pfn, how: PageFlags) {
        let page = frame::page(self.machine, pfn);
        if !page.flags().contains(how) {
            page.set_flags(how);
        }
    }

    /// Drops a reference to a page of the object, which usually has another one.
    #[inline(always)]
    pub(super) fn release(&self, pfn: Pfn) {
        if frame::page(self.machine, pfn).put() {
            Release::new(self.machine).frozen_object(pfn);
        }
    }

    /// Whether reads also bring in neighbouring pages.
    #[inline]
    pub(crate) fn has_neighbours(&self) -> bool {
        matches!(self.content, Content::File(_))
    }

    /// The pages from `first` on that exist, before the end, with a reference to each: their frames are stored at their
    /// positions in `run`, except the one at `except`. Returns how many there are.
    pub(crate) fn resident_run(&self, first: usize, except: usize, run: &mut [Pfn]) -> usize {
        let owned = self.owned.lock();
        let end = self.pages();
        let mut found = 0;
        for (n, place) in run.iter_mut().enumerate().take(end.saturating_sub(first)).filter(|(n, _)| *n != except) {
            if let Some(pfn) = owned.get(first + n).and_then(Held::page)
                && frame::page(self.machine, pfn).get()
            {
                #[cfg(test)]
                self.machine.note_found(pfn);
                *place = pfn;
                found += 1;
            }
        }
        found
    }

    /// The offset of the first byte at `at` or above that is in a page, in memory or in swap; `None` if there is none
    /// before the end.
    pub fn next_data(&self, at: u64) -> Result<Option<u64>, Killed> {
        if self.is_paged() {
            return Ok(Some(at).filter(|at| *at < self.len()));
        }
        let mut from = (at >> PAGE_SHIFT) as usize;
        loop {
            let next = self.owned.lock().next(from);
            match next {
                Next::Word(index, _) => {
                    return Ok(Some(at.max((index as u64) << PAGE_SHIFT)).filter(|at| *at < self.len()));
                }
                Next::Nothing => return Ok(None),
                Next::Later(index) => from = index,
            }
            self.machine.resched_point()?;
        }
    }

    /// The offset of the first byte at `at` or above that is in no page, or the end; `None` after the end.
    pub fn next_hole(&self, at: u64) -> Result<Option<u64>, Killed> {
        let mut at = at;
        while at < self.len() && !self.is_paged() {
            let index = (at >> PAGE_SHIFT) as usize;
            if !self.has(index) {
                return Ok(Some(at));
            }
            at = (index as u64 + 1) << PAGE_SHIFT;
            if index % POINT_EVERY == POINT_EVERY - 1 {
                self.machine.resched_point()?;
            }
        }
        Ok(Some(self.len()).filter(|len| *len != 0))
    }

    /// Fills a part of a page with zeros, if the page exists.
    pub(super) fn clear_part(&self, at: u64, len: usize) -> Result<(), ObjectError> {
        let piece = Piece::new(at, len);
        if let Some(pfn) = self.brought_in(piece.index)? {
            // SAFETY: the page has a reference, and the bytes are within it.
            unsafe { self.machine.direct_map(pfn.addr() + piece.offset).write_bytes(0, piece.len) };
            self.release(pfn);
        }
        Ok(())
    }

    /// The frame of the page at `index`, with a new reference, if the page exists: it is brought in. No lock is held
    /// except the turn.
    pub(super) fn brought_in(&self, index: usize) -> Result<Option<Pfn>, ObjectError> {
        loop {
            match self.resident(index) {
                Err(ObjectError::Away) => _ = self.bring_in(index)?,
                found => return found,
            }
        }
    }

    /// As [`Object::bring_in`], for the page of the byte at `at`.
    pub fn bring_in_at(&self, at: u64) -> Result<bool, ObjectError> {
        self.bring_in((at >> PAGE_SHIFT) as usize)
    }

    /// Keeps the page that `end` cuts in memory, if it exists, until the result is dropped. A page of a paged file is
    /// brought in, so that no other thread reads its former content, from before the cut.
    pub(crate) fn keep_cut(&self, end: u64) -> Result<KeptIn<'_, M>, ObjectError> {
        let (offset, index) = (end as usize % PAGE_SIZE, (end >> PAGE_SHIFT) as usize);
        let pfn = match offset {
            0 => None,
            _ => loop {
                match self.brought_in(index)? {
                    None if self.is_paged() && index < self.pages() => _ = self.bring_in(index)?,
                    found => break found,
                }
            },
        };
        Ok(KeptIn { object: self, pfn, offset })
    }
}

/// A page that stays in memory until this value is dropped.
pub(crate) struct KeptIn<'a, M: Machine> {
    object: &'a Object<M>,
    pfn: Option<Pfn>,
    offset: usize,
}

impl<M: Machine> KeptIn<'_, M> {
    /// Fills the part that is cut off with zeros.
    pub fn clear(&self) {
        if let Some(pfn) = self.pfn {
            // SAFETY: the page has a reference, and the bytes are within it.
            unsafe { self.object.machine.direct_map(pfn.addr() + self.offset).write_bytes(0, PAGE_SIZE - self.offset) };
        }
    }
}

impl<M: Machine> Drop for KeptIn<'_, M> {
    fn drop(&mut self) {
        if let Some(pfn) = self.pfn {
            self.object.release(pfn);
        }
    }
}

/// The right to change a file.
pub struct Turn<'a, M: Machine> {
    object: &'a KArc<Object<M>>,
    /// Bytes that were written after the end of a paged file.
    pub(super) growth: Option<Box<Growth>>,
    _guard: Option<IntentGuard<'a, (), M>>,
}

impl<'a, M: Machine> Turn<'a, M> {
    /// The file.
    #[inline]
    pub fn object(&self) -> &'a KArc<Object<M>> {
        self.object
    }

    /// Adds seals.
    pub fn seal(&mut self, seals: u32) {
        if let Some(state) = self.object.state() {
            state.seals.fetch_or(seals, Ordering::Relaxed);
        }
    }

    /// Whether an area maps the file that is writable, or may become so.
    pub fn has_writers(&self) -> bool {
        self.object.state().is_some_and(|state| state.writers.load(Ordering::Relaxed) != 0)
    }

    /// Whether a page of it is pinned for a device.
    pub fn has_pins(&self) -> Result<bool, Killed> {
        let object = self.object;
        let mut from = 0;
        loop {
            for _ in 0..POINT_EVERY {
                let owned = object.owned.lock();
                match owned.next(from) {
                    Next::Word(index, word) => {
                        if Held::page(word).is_some_and(|pfn| frame::page(object.machine, pfn).is_pinned()) {
                            return Ok(true);
                        }
                        from = index + 1;
                    }
                    Next::Nothing => return Ok(false),
                    Next::Later(index) => {
                        from = index;
                        break;
                    }
                }
            }
            object.machine.resched_point()?;
        }
    }

    /// Sets the length, and nothing else.
    pub(crate) fn store_len(&mut self, len: u64) {
        let Some(state) = self.object.state() else { return };
        if len >= state.len() {
            state.len.store(len, Ordering::Release);
        } else {
            let _entering = self.object.owned.lock();
            state.len.store(len, Ordering::Release);
        }
    }

    /// Extends the file to `len`, if it is shorter.
    pub fn grow(&mut self, len: u64) -> Result<(), Errno> {
        let old = self.object.len();
        if len > old {
            self.clear_behind(old)?;
            self.store_len(len);
        }
        Ok(())
    }

    /// Fills the rest of the page that contains `end` with zeros, if a mapping may have stored there.
    fn clear_behind(&self, end: u64) -> Result<(), ObjectError> {
        let offset = end as usize % PAGE_SIZE;
        let has_stores = || self.object.is_paged() || self.object.mappings.lock().changes() != 0;
        if offset != 0 && has_stores() && !seeded!(GrowthShowsStores) {
            self.object.clear_part(end, PAGE_SIZE - offset)?;
        }
        Ok(())
    }

    /// Fills a part of one page with zeros, if the page exists.
    pub(crate) fn clear(&mut self, start: u64, end: u64) -> Result<(), ObjectError> {
        if start < end { self.object.clear_part(start, (end - start) as usize) } else { Ok(()) }
    }

    /// Writes up to `most` bytes of one page from `at` on with `copy`; returns its result. Extends the file if they end
    /// after its end.
    #[inline]
    pub fn write(
        &mut self,
        at: u64,
        most: usize,
        supply: &Supply<M>,
        mut copy: impl FnMut(*mut u8, usize) -> usize,
    ) -> Result<usize, ObjectError> {
        let object = self.object;
        let piece = Piece::new(at, most);
        if at + piece.len as u64 > object.len() && self.growth.is_none() {
            self.clear_behind(object.len())?;
        }
        if let Some(paging) = object.paging() {
            return self.write_paged(paging, at, &piece, supply, &mut copy);
        }
        let copied = loop {
            match object.resident(piece.index) {
                Ok(Some(pfn)) => {
                    let copied = copy(object.machine.direct_map(pfn.addr() + piece.offset), piece.len);
                    object.note_use(pfn, PageFlags::DIRTY | PageFlags::REFERENCED);
                    object.release(pfn);
                    break copied;
                }
                Ok(None) => {
                    if let Some(copied) = self.write_new(&piece, supply, &mut copy)? {
                        break copied;
                    }
                }
                Err(ObjectError::Away) => _ = object.bring_in(piece.index)?,
                Err(error) => return Err(error),
            }
        };
        let end = at + copied as u64;
        if copied != 0 && end > object.len() {
            self.store_len(end);
        }
        Ok(copied)
    }

    /// Writes to a page that does not exist; `None` if it exists by now.
    fn write_new(
        &self,
        piece: &Piece,
        supply: &Supply<M>,
        copy: &mut impl FnMut(*mut u8, usize) -> usize,
    ) -> Result<Option<usize>, ObjectError> {
        let object = self.object;
        let is_whole = piece.len == PAGE_SIZE;
        let pfn = supply.user(!is_whole)?;
        let start = object.machine.direct_map(pfn.addr());
        // SAFETY: the piece is within the page.
        let copied = copy(unsafe { start.add(piece.offset) }, piece.len);
        if copied == 0 {
            frame::free(object.machine, pfn);
            return Ok(Some(0));
        }
        if is_whole && !seeded!(ShortCopyShowsFrame) {
            // SAFETY: as above; only this thread knows the frame.
            unsafe { start.add(copied).write_bytes(0, PAGE_SIZE - copied) };
        }
        let is_ours = self.enter(piece.index, pfn, supply)?;
        Ok(is_ours.then_some(copied))
    }

    /// Makes `pfn` the page at `index`; `false` if there is a page already, in which case `pfn` is freed.
    fn enter(&self, index: usize, pfn: Pfn, supply: &Supply<M>) -> Result<bool, ObjectError> {
        let object = self.object;
        // Nobody else knows the frame, so this needs no atomic operation on its page.
        let page = match object.enter(index, pfn, supply, false) {
            // Another page was there, and is on its way out.
            Err(ObjectError::Away) => return Ok(false),
            page => page?,
        };
        let ObjectPage::Counted(entered) = page else { return Ok(false) };
        if entered == pfn {
            frame::page(object.machine, pfn).set_flags(PageFlags::DIRTY);
        }
        object.release(entered);
        Ok(entered == pfn)
    }

    /// Allocates the page at `index`, filled with zeros. Not for a paged file, whose pager may have other content.
    pub fn allocate(&mut self, index: usize, supply: &Supply<M>) -> Result<(), ObjectError> {
        if self.object.is_paged() {
            return Err(ObjectError::Refused(Errno::EOPNOTSUPP));
        }
        if !self.object.has(index) {
            let pfn = supply.user(true)?;
            self.enter(index, pfn, supply)?;
        }
        Ok(())
    }
}
