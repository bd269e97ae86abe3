//! Paged objects: files whose content a pager has; their pages are brought in when they are needed, and reclaimed when
//! memory runs short (docs/page-cache.md).
//!
//! # In
//! Whoever needs a page that is not in memory gets [`ObjectError::Away`], and calls [`Object::bring_in`] with no lock
//! held. That puts a special word at each index of a run ([`Held::Leaving`], with the run's first frame), so that
//! others wait, has the [`Pager`] fill frames that nobody else knows, and replaces the words by the frames. If a word
//! is gone by then, a truncation has removed it: its frame is freed. So content that was read never replaces newer
//! content.
//!
//! Lock order: no lock is held while the pager is called, except possibly the file's turn.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use quire_abi::Errno;

use super::held::Held;
use super::{Content, Object, ObjectError};
use crate::addr::{PAGE_SHIFT, PAGE_SIZE, Pfn, PhysAddr};
use crate::event::Event;
use crate::fallible::{AllocError, KArc};
use crate::frame::{self, Ahead};
use crate::rmap::Release;
use crate::supply::Supply;
use crate::table::Machine;

/// The maximum number of pages that are requested at a time.
pub const RUN: usize = 16;

/// In the word of errors: the number of the last error. The upper half counts them.
const ERROR: u64 = 0xffff;
/// The last error was reported.
const TOLD: u64 = 1 << 16;

/// How often a page is requested again if the pager returned nothing for it.
const TRIES: usize = 2;

/// The number of pages of the first run, and of a run that does not follow another one.
const FIRST_RUN: usize = 4;

/// The pager, which has the bytes of a paged object. All functions may sleep, until the calling thread is killed
/// (EINTR), and are called with no lock held except the turn of the file, unless stated otherwise.
pub trait Pager: Send + Sync {
    /// Fills frames, which are all zeros, with the pages from `first` on. Returns how many bytes there are before the
    /// file's end; the bytes after these in the frames do not matter.
    fn read(&self, first: usize, frames: &[Pfn]) -> Result<usize, Errno>;

    /// Stores `len` bytes at `at`, which are in consecutive frames, the first one at the offset of `at` in its page.
    /// Returns how many it has accepted. It extends the file only if `grows`; otherwise bytes after the end are
    /// ignored.
    fn write(&self, at: u64, frames: &[Pfn], len: usize, grows: bool) -> Result<usize, Errno>;

    /// The length of the file.
    fn length(&self) -> Result<u64, Errno>;

    /// Sets the length; new bytes are zeros.
    fn set_len(&self, len: u64) -> Result<(), Errno>;

    /// Makes everything that it has accepted permanent, whatever happens to the machine.
    fn sync(&self) -> Result<(), Errno>;

    /// Called when a page has to be written back, and there was none before. Must not sleep; the areas of a space may
    /// be locked.
    fn note_marked(&self);
}

/// The state of a paged object in addition to a file's.
pub(super) struct Paging {
    pub(super) pager: Box<dyn Pager>,
    /// Where the previous run ended, and its number of pages in the low bits.
    ahead: AtomicU64,
    /// The number of marked pages. Changed under the object's lock.
    pub(super) marked: AtomicUsize,
    /// Whether the pager was told that there are marked pages, and no write-back has begun since.
    pub(super) is_noted: AtomicBool,
    /// The number of write-back errors so far in the upper half, and the last of them.
    errors: AtomicU64,
    /// The number of pages in memory. Changed under the object's lock.
    pub(super) pages: AtomicUsize,
    /// Whether the next holder of the turn must ask for the file's length: nobody has asked yet, or a call that would
    /// change it ended early.
    pub(super) is_len_unknown: AtomicBool,
}

impl Paging {
    /// The number of pages to bring in from `index` on.
    fn run(&self, index: usize) -> usize {
        const PAGES: u64 = 0xff;
        let before = self.ahead.load(Ordering::Relaxed);
        let run = match before & PAGES {
            pages if pages != 0 && before >> 8 == index as u64 => (2 * pages as usize).min(RUN),
            0 if index == 0 => FIRST_RUN,
            // To the next multiple, so that neighbours are asked for together.
            _ => FIRST_RUN - index % FIRST_RUN,
        };
        self.ahead.store(((index + run) as u64) << 8 | run as u64, Ordering::Relaxed);
        run
    }

    /// Counts one more write-back error.
    pub(super) fn note_error(&self, error: Errno) {
        let next = |old: u64| Some(((old >> 32) + 1) << 32 | error.get() as u64 & ERROR);
        let _ = self.errors.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }
}

/// The frames of a run, which nobody else knows; those that are left at the end are freed.
struct Run<M: Machine> {
    machine: M,
    frames: [Pfn; RUN],
    len: usize,
    /// The word that stands for the run in the tree: the first frame, as one that is moving.
    word: u64,
}

impl<M: Machine> Run<M> {
    /// Allocates up to `most` frames: the first one may reclaim, the others are only allocated if memory is free.
    fn alloc(machine: M, most: usize) -> Result<Self, AllocError> {
        let mut run = Self { machine, frames: [Pfn(0); RUN], len: 0, word: 0 };
        run.frames[0] = frame::alloc_user(machine, true)?;
        run.len = 1;
        let mut ahead = Ahead::new(machine, most.saturating_sub(1));
        while run.len < most
            && let Ok(pfn) = ahead.alloc()
        {
            run.frames[run.len] = pfn;
            run.len += 1;
        }
        run.word = Held::Leaving(run.frames[0]).word();
        Ok(run)
    }
}

impl<M: Machine> Drop for Run<M> {
    fn drop(&mut self) {
        self.frames[..self.len].iter().filter(|pfn| pfn.0 != 0).for_each(|pfn| frame::free(self.machine, *pfn));
    }
}

impl<M: Machine> Object<M> {
    /// A file of this pager. It is empty until the first [`Turn::agree`](super::file::Turn::agree).
    pub fn paged(machine: M, pager: Box<dyn Pager>) -> Result<KArc<Self>, AllocError> {
        let mut state = super::file::State::new(machine, 0);
        state.paging = Some(Paging {
            pager,
            ahead: AtomicU64::new(0),
            marked: AtomicUsize::new(0),
            is_noted: AtomicBool::new(false),
            errors: AtomicU64::new(0),
            pages: AtomicUsize::new(0),
            is_len_unknown: AtomicBool::new(true),
        });
        Self::make(machine, Content::File(state))
    }

    #[inline]
    pub(super) fn paging(&self) -> Option<&Paging> {
        match &self.content {
            Content::File(state) => state.paging.as_ref(),
            _ => None,
        }
    }

    /// Whether a pager has its pages.
    #[inline]
    pub fn is_paged(&self) -> bool {
        self.paging().is_some()
    }

    /// The object's pager.
    pub fn pager(&self) -> Option<&dyn Pager> {
        self.paging().map(|paging| &*paging.pager)
    }

    /// The count of write-back errors so far, without those that were reported to nobody: whoever opens the file stores
    /// this.
    pub fn errors(&self) -> u64 {
        let errors = self.paging().map_or(0, |paging| paging.errors.load(Ordering::Relaxed));
        if errors & TOLD != 0 { errors } else { 0 }
    }

    /// The last error, if there was one since `seen`, which is set to the present count.
    pub fn error_since(&self, seen: &AtomicU64) -> Result<(), Errno> {
        let Some(paging) = self.paging() else { return Ok(()) };
        let now = paging.errors.load(Ordering::Relaxed);
        if now == 0 {
            return Ok(());
        }
        let now = paging.errors.fetch_or(TOLD, Ordering::Relaxed) | TOLD;
        if seen.swap(now, Ordering::Relaxed) == now {
            return Ok(());
        }
        Err(Errno::from_ret(-((now & ERROR) as isize)).err().unwrap_or(Errno::EIO))
    }

    /// The number of pages of a paged object that are in memory.
    pub fn cached_pages(&self) -> usize {
        self.paging().map_or(0, |paging| paging.pages.load(Ordering::Relaxed))
    }

    /// Counts a change of the number of pages in memory. Under the lock.
    pub(super) fn count_cached(&self, paging: &Paging, change: isize) {
        paging.pages.store(paging.pages.load(Ordering::Relaxed).wrapping_add_signed(change), Ordering::Relaxed);
        self.machine.spaces().count_cached(change);
    }

    /// Brings in the page at `index`, which is not in memory, and some after it, unless other threads are doing so.
    pub(super) fn page_in(&self, paging: &Paging, index: usize) -> Result<(), ObjectError> {
        let left = self.pages().saturating_sub(index);
        if left == 0 {
            return Ok(());
        }
        let mut run = Run::alloc(self.machine, paging.run(index).min(left))?;
        let moves = self.machine.spaces().moves();
        moves.during(run.frames[0], |_| {
            let mut placed = self.place(index, &run)?;
            if placed == 0 {
                return Ok(());
            }
            let mut tries = 0;
            loop {
                let mut read = paging.pager.read(index, &run.frames[..placed]);
                if placed > 1 && read.is_err() && read != Err(Errno::EINTR) {
                    // The additional pages may be the reason.
                    self.take_back(index + 1, placed - 1, &run);
                    placed = 1;
                    read = paging.pager.read(index, &run.frames[..1]);
                }
                return match read {
                    Ok(bytes) if bytes <= placed * PAGE_SIZE => {
                        // A page for which the pager returned nothing is not taken for zeros, unless the pager's file
                        // has become shorter: then it will be truncated here too.
                        let is_there = bytes != 0 || self.is_shorter(paging, index);
                        if !is_there && tries < TRIES {
                            // (It may only have been shorter for a moment.)
                            tries += 1;
                            continue;
                        }
                        let some = if is_there { bytes.div_ceil(PAGE_SIZE).max(1) } else { 0 };
                        self.clear_behind_bytes(&run.frames[..some], bytes);
                        self.enter_run(paging, index, some, &mut run);
                        self.take_back(index + some, placed - some, &run);
                        if is_there { Ok(()) } else { Err(ObjectError::Damaged) }
                    }
                    failed => {
                        self.take_back(index, placed, &run);
                        Err(failed.err().map_or(ObjectError::Damaged, ObjectError::from))
                    }
                };
            }
        })
    }

    /// Reads page `index` into a frame that does not become the page; calls `see` with it.
    pub(super) fn read_apart(
        &self,
        paging: &Paging,
        index: usize,
        see: impl FnOnce(PhysAddr),
    ) -> Result<(), ObjectError> {
        let run = Run::alloc(self.machine, 1)?;
        let frames = &run.frames[..1];
        let bytes = paging.pager.read(index, frames)?;
        if bytes > PAGE_SIZE {
            return Err(ObjectError::Damaged);
        }
        self.clear_behind_bytes(frames, bytes);
        see(frames[0].addr());
        Ok(())
    }

    /// Whether the pager's file ends before page `index`.
    #[cold]
    fn is_shorter(&self, paging: &Paging, index: usize) -> bool {
        paging.pager.length().is_ok_and(|len| len <= (index as u64) << PAGE_SHIFT)
    }

    /// Puts the run's word at the indices from `index` on that are empty, up to the first one that is not; returns how
    /// many.
    fn place(&self, index: usize, run: &Run<M>) -> Result<usize, ObjectError> {
        let supply = Supply::new(self.machine);
        loop {
            let placed = {
                let mut owned = self.owned.lock();
                let most = run.len.min(self.pages().saturating_sub(index));
                let mut placed = 0;
                loop {
                    if placed == most {
                        break Ok(placed);
                    }
                    match owned.place(index + placed, &supply) {
                        Ok(place) if *place == 0 => *place = run.word,
                        Err(error) if placed == 0 => break Err(error),
                        _ => break Ok(placed),
                    }
                    placed += 1;
                }
            };
            match placed {
                Err(_) if supply.is_short() => supply.refill()?,
                placed => return Ok(placed?),
            }
        }
    }

    /// Removes the run's words.
    fn take_back(&self, index: usize, count: usize, run: &Run<M>) {
        let mut owned = self.owned.lock();
        for index in index..index + count {
            if let Some(place) = owned.get_mut(index).filter(|place| **place == run.word) {
                *place = 0;
            }
        }
    }

    /// Fills the rest after the bytes with zeros.
    fn clear_behind_bytes(&self, frames: &[Pfn], bytes: usize) {
        for (n, pfn) in frames.iter().enumerate().skip(bytes >> PAGE_SHIFT) {
            let from = bytes.saturating_sub(n << PAGE_SHIFT);
            // SAFETY: the frame is this thread's, and the bytes are within it.
            unsafe { self.machine.direct_map(pfn.addr() + from).write_bytes(0, PAGE_SIZE - from) };
        }
    }

    /// Replaces the run's words by frames where they are still present. The other frames stay in the run.
    fn enter_run(&self, paging: &Paging, index: usize, count: usize, run: &mut Run<M>) {
        let word = run.word;
        let owner = core::ptr::from_ref(self).expose_provenance();
        let mut entered = [Pfn(0); RUN];
        {
            let mut owned = self.owned.lock();
            for (n, pfn) in run.frames[..count].iter_mut().enumerate() {
                let is_ours = |place: &&mut u64| **place == word || seeded!(PageInTrustsItsFirstLook);
                let Some(place) = owned.get_mut(index + n).filter(is_ours) else { continue };
                frame::make_object(self.machine, *pfn, owner, index + n, self.backing());
                *place = Held::Page(*pfn).word();
                self.count_cached(paging, 1);
                entered[n] = core::mem::replace(pfn, Pfn(0));
            }
        }
        let mut release = Release::new(self.machine);
        for pfn in entered.into_iter().filter(|pfn| pfn.0 != 0) {
            self.machine.count(Event::PagedIn, 1);
            // The object has its reference.
            release.page(pfn);
        }
    }
}
