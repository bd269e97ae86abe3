//! Paged objects: files that somebody else has, whose pages are brought in when they are needed and go when memory runs
//! short (docs/page-cache.md).
//!
//! # In
//! Whoever needs a page that is not here gets [`ObjectError::Away`], and calls [`Object::bring_in`] with no lock held.
//! That puts a word of its own at each index of a run ([`Held::Leaving`], with the run's first frame), so that others
//! wait, has the [`Pager`] fill frames that nobody else knows, and replaces the words by the frames. A word that is
//! gone by then was taken by a truncate: its frame is freed. So what was read never takes the place of anything newer.
//!
//! Lock order: none is held when the pager is asked, but perhaps the file's turn.

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

/// The most pages that are asked for at a time.
pub const RUN: usize = 16;

/// In the word of errors: the number of the last one. The upper half is how many there were.
const ERROR: u64 = 0xffff;
/// Somebody was told of the last one.
const TOLD: u64 = 1 << 16;

/// How often a page is asked for again of which there was nothing.
const TRIES: usize = 2;

/// Pages of the first run, and of one that follows no other.
const FIRST_RUN: usize = 4;

/// The pager, which has the bytes of a paged object. All of it may sleep, until the calling thread is killed (EINTR),
/// and is called with no lock held but the turn of the file, unless it says otherwise.
pub trait Pager: Send + Sync {
    /// Fills frames, which are all zeros, with the pages from `first` on. Returns how many bytes there are before the
    /// file's end; what is behind them in the frames does not matter.
    fn read(&self, first: usize, frames: &[Pfn]) -> Result<usize, Errno>;

    /// Keeps `len` bytes at `at`, which lie in frames that follow each other, the first one at the same place of its
    /// page. Returns how many it has taken. It makes the file longer only if it `grows`; else what is behind the end is
    /// left out.
    fn write(&self, at: u64, frames: &[Pfn], len: usize, grows: bool) -> Result<usize, Errno>;

    /// How long the file is.
    fn length(&self) -> Result<u64, Errno>;

    /// Sets the length; new bytes are zeros.
    fn set_len(&self, len: u64) -> Result<(), Errno>;

    /// What it has taken is kept from now on, whatever happens to the machine.
    fn sync(&self) -> Result<(), Errno>;

    /// A page has to be written back, and none had before. It does not sleep; the areas of a space may be locked.
    fn note_marked(&self);
}

/// What a paged object has beside a file.
pub(super) struct Paging {
    pub(super) pager: Box<dyn Pager>,
    /// Where the run before ended, and how many pages it had, in the low bits.
    ahead: AtomicU64,
    /// Pages that are marked. Changed under the object's lock.
    pub(super) marked: AtomicUsize,
    /// The pager was told that there are some, and nobody has begun to write them back since.
    pub(super) is_noted: AtomicBool,
    /// Errors of writing back so far in the upper half, and the last of them.
    errors: AtomicU64,
    /// Pages that are here. Changed under the object's lock.
    pub(super) pages: AtomicUsize,
    /// Whoever gets the turn next has to ask how long the file is: nobody has yet, or a call that would change it ended
    /// early.
    pub(super) is_len_unknown: AtomicBool,
}

impl Paging {
    /// How many pages to bring in from `index` on.
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

    /// One error more of writing back.
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
    /// What stands for the run in the tree: the first frame, which is moving.
    word: u64,
}

impl<M: Machine> Run<M> {
    /// Up to `most` frames: the first one by all means, the others if memory is free.
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
    /// A file that the pager has. It is empty until the first [`Turn::agree`](super::file::Turn::agree).
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

    /// Whether somebody else has its pages.
    #[inline]
    pub fn is_paged(&self) -> bool {
        self.paging().is_some()
    }

    /// Who that is.
    pub fn pager(&self) -> Option<&dyn Pager> {
        self.paging().map(|paging| &*paging.pager)
    }

    /// Errors of writing back so far, without those that nobody has been told of: whoever opens the file keeps this.
    pub fn errors(&self) -> u64 {
        let errors = self.paging().map_or(0, |paging| paging.errors.load(Ordering::Relaxed));
        if errors & TOLD != 0 { errors } else { 0 }
    }

    /// The last error, if there were any since `seen`, which becomes what was seen by then.
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

    /// Pages that are in memory, of a paged object.
    pub fn cached_pages(&self) -> usize {
        self.paging().map_or(0, |paging| paging.pages.load(Ordering::Relaxed))
    }

    /// A page more or less is here. Under the lock.
    pub(super) fn count_cached(&self, paging: &Paging, change: isize) {
        paging.pages.store(paging.pages.load(Ordering::Relaxed).wrapping_add_signed(change), Ordering::Relaxed);
        self.machine.spaces().count_cached(change);
    }

    /// Brings in the page at `index`, which is not here, and some behind it, unless others do by now.
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
                    // What was not asked for may be why.
                    self.take_back(index + 1, placed - 1, &run);
                    placed = 1;
                    read = paging.pager.read(index, &run.frames[..1]);
                }
                return match read {
                    Ok(bytes) if bytes <= placed * PAGE_SIZE => {
                        // A page of which there is nothing is not taken for zeros, unless the pager's file is shorter
                        // by now: then it will be cut here too.
                        let is_there = bytes != 0 || self.is_shorter(paging, index);
                        if !is_there && tries < TRIES {
                            // (It may have been shorter for a moment.)
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

    /// Reads page `index` into a frame that does not become the page, which `see` gets.
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

    /// Puts the run's word at the indices from `index` on that have nothing, up to the first that has; returns how
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

    /// The run's words are gone again.
    fn take_back(&self, index: usize, count: usize, run: &Run<M>) {
        let mut owned = self.owned.lock();
        for index in index..index + count {
            if let Some(place) = owned.get_mut(index).filter(|place| **place == run.word) {
                *place = 0;
            }
        }
    }

    /// Zeros from the end of the bytes on.
    fn clear_behind_bytes(&self, frames: &[Pfn], bytes: usize) {
        for (n, pfn) in frames.iter().enumerate().skip(bytes >> PAGE_SHIFT) {
            let from = bytes.saturating_sub(n << PAGE_SHIFT);
            // SAFETY: the frame is this thread's, and the bytes are within it.
            unsafe { self.machine.direct_map(pfn.addr() + from).write_bytes(0, PAGE_SIZE - from) };
        }
    }

    /// Makes frames pages where the run's word still is. The others stay the run's.
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
