//! Where an arena's chunks live: regions got from the system, extended at the end and trimmed there.
//!
//! The first arena's regions are runs of the break; a new one starts where somebody else moved the break in between,
//! or in a mapping when the break is refused. Other arenas' regions are mappings of [`REGION`] bytes at multiples of
//! it, so that a chunk's address leads to its arena. A region starts with its [`Region`] record; its first block
//! follows.

use core::ptr::NonNull;

use crate::arena::{Arena, RELEASED, State};
use crate::chunk::{Chunk, HEAD, MIN, OTHER, PREV, USED};
use crate::large::{Damaged, LARGE};
use crate::options::Options;
use crate::{Advice, Malloc, PAGE, System};

/// Size and alignment of the other arenas' regions.
pub const REGION: usize = 16 << 20;
/// The largest chunk that such an arena tries to hold.
pub const MAX_OTHER: usize = REGION / 4;
/// A heap asks for a 32nd of its size more than it needs, but for no more than this: the room must stay smaller than a
/// huge page, which would make all of it resident at the first touch.
const MOST_PAD: usize = 1 << 20;
/// The least to map when the break is refused.
const MIN_MAP: usize = 1 << 20;

/// At a region's start.
pub struct Region {
    /// The arena's region before this one.
    pub previous: *mut Region,
    /// Where the region ends; its chunks end at the multiple of 16 below.
    pub end: usize,
    /// Its first block.
    pub first: Chunk,
    /// Whose it is; null for the first arena.
    pub arena: *const Arena,
}

/// From a region's start to its first block.
const BEFORE_FIRST: usize = size_of::<Region>() + 16;

impl State {
    /// Makes the top chunk at least `size` bytes large; returns whether that could be done.
    pub fn extend<S: System>(&mut self, m: &Malloc<S>, size: usize) -> Result<bool, Damaged> {
        m.drop_spare();
        if self.other == 0 { self.extend_break(m, size) } else { self.extend_region(m, size) }
    }

    fn extend_break<S: System>(&mut self, m: &Malloc<S>, size: usize) -> Result<bool, Damaged> {
        let mut missing = size - self.top_size();
        let share = if m.options.is_dynamic() { (self.bytes / 32).min(MOST_PAD) } else { 0 };
        let pad = m.options.top_pad().max(share);
        // If somebody else has moved the break, the missing bytes alone are not enough: the second attempt asks for the
        // whole size.
        for _ in 0..2 {
            let Some(bytes) = missing.checked_add(pad + BEFORE_FIRST) else { return Ok(false) };
            let bytes = bytes.next_multiple_of(PAGE);
            let Some(start) = m.system.grow_break(bytes) else { return self.extend_by_mapping(m, size) };
            // SAFETY: the newest region's record stays where it is.
            match unsafe { self.region.as_mut() } {
                Some(region) if region.end == start.as_ptr().addr() => {
                    let have = self.top_size() + ((region.end + bytes) & !15) - (region.end & !15);
                    region.end += bytes;
                    self.count(bytes, &m.options);
                    self.set_top(self.top, have);
                }
                _ => self.open(start, bytes, m)?,
            }
            if self.top_size() >= size {
                return Ok(true);
            }
            missing = size;
        }
        Ok(false)
    }

    fn extend_by_mapping<S: System>(&mut self, m: &Malloc<S>, size: usize) -> Result<bool, Damaged> {
        let bytes = (size + BEFORE_FIRST).next_multiple_of(PAGE).max(MIN_MAP);
        let Some(start) = m.system.map(bytes) else { return Ok(false) };
        self.open(start, bytes, m)?;
        Ok(true)
    }

    fn extend_region<S: System>(&mut self, m: &Malloc<S>, size: usize) -> Result<bool, Damaged> {
        if size > MAX_OTHER {
            return Ok(false);
        }
        let Some(start) = map_aligned(&m.system) else { return Ok(false) };
        // SAFETY: the newest region's record stays where it is.
        let arena = unsafe { (*self.region).arena };
        self.open(start, REGION, m)?;
        // SAFETY: `open` has made this the newest region.
        unsafe { (*self.region).arena = arena };
        Ok(true)
    }

    fn count(&mut self, bytes: usize, options: &Options) {
        self.bytes += bytes;
        if self.bytes >= self.trimmed.0 && self.trimmed.0 != 0 {
            // Memory that had been given back is needed again.
            options.learn_trim(self.trimmed.1);
            self.trimmed = (0, 0);
        }
        self.max_bytes = self.max_bytes.max(self.bytes);
    }

    /// Starts a region in new memory; the old top chunk becomes an ordinary free one.
    fn open<S: System>(&mut self, start: NonNull<u8>, bytes: usize, m: &Malloc<S>) -> Result<(), Damaged> {
        self.close_top()?;
        self.open_at(start, bytes, 0, m);
        Ok(())
    }

    fn open_at<S: System>(&mut self, start: NonNull<u8>, bytes: usize, skip: usize, m: &Malloc<S>) {
        self.bins.hide_with(m.secret());
        let base = start.as_ptr().wrapping_add(start.as_ptr().align_offset(16));
        let end = start.as_ptr().addr() + bytes;
        let first = Chunk(base.wrapping_add(BEFORE_FIRST + skip));
        let region = base.cast::<Region>();
        // SAFETY: the memory is new, aligned and larger than the record.
        unsafe { region.write(Region { previous: self.region, end, first, arena: core::ptr::null() }) };
        self.region = region;
        self.count(bytes, &m.options);
        (self.high, self.cleared) = (0, 0);
        self.set_top(first, (end & !15) - first.0.addr());
    }

    /// Ends the current top chunk's life: a used header of 16 bytes fences the region, what was top is freed.
    fn close_top(&mut self) -> Result<(), Damaged> {
        let Some(old) = self.top.some() else { return Ok(()) };
        let size = old.size();
        self.top = Chunk::NONE;
        old.after(size).set(16, USED | PREV | self.other);
        if size == 0 {
            return Ok(());
        }
        old.set(size, PREV | USED | self.other);
        if size < MIN { Ok(()) } else { self.merge(old).map(|_| ()) }
    }

    /// Gives memory back when much of it is free: the top chunk, when it has passed the threshold and a quarter of
    /// the arena; and pages inside free chunks, when those are more than three eighths of the arena.
    pub fn trim_if_large<S: System>(&mut self, m: &Malloc<S>) {
        let dirty = if self.other == 0 { self.top_size() } else { self.high.saturating_sub(self.top.0.addr()) };
        let share = if m.options.is_dynamic() { self.bytes / 4 } else { 0 };
        if dirty >= m.options.trim_threshold().max(share) {
            self.trim(m, m.options.top_pad());
        }
        // Only at a new maximum, so that a heap that grows and shrinks in turns does not fault its pages in each time.
        let free = self.bins.bytes();
        if free > self.bytes / 8 * 3 && free > self.released + self.bytes / 8 && free > m.options.trim_threshold() {
            self.released = free;
            self.release_free(m);
        }
    }

    /// Gives the top chunk's pages back except for `pad` bytes; returns whether any were.
    pub fn trim<S: System>(&mut self, m: &Malloc<S>, pad: usize) -> bool {
        if self.top.is_none() {
            return false;
        }
        // SAFETY: the newest region's record stays where it is.
        let region = unsafe { &mut *self.region };
        if self.other != 0 {
            return self.trim_region(m, pad);
        }
        let have = self.top.size();
        let extra = have.saturating_sub(pad) & !(PAGE - 1);
        let Some(end) = NonNull::new(self.top.0.with_addr(region.end)) else { return false };
        if extra == 0 || !m.system.shrink_break(end, extra) {
            return false;
        }
        self.trimmed = (self.bytes.max(self.trimmed.0), extra + self.trimmed.1);
        region.end -= extra;
        self.bytes -= extra;
        self.set_top(self.top, have - extra);
        true
    }

    fn trim_region<S: System>(&mut self, m: &Malloc<S>, pad: usize) -> bool {
        let region = self.region;
        // SAFETY: the newest region's record stays where it is.
        let (previous, first, end) = unsafe { ((*region).previous, (*region).first, (*region).end) };
        if self.top == first && !previous.is_null() {
            self.top = Chunk::NONE;
            self.region = previous;
            self.bytes -= REGION;
            // SAFETY: the region is one mapping and holds nothing but the top chunk.
            return unsafe { m.system.unmap(NonNull::new_unchecked(region.cast()), REGION) };
        }
        let top = self.top.0.addr();
        let from = (top + pad).next_multiple_of(PAGE);
        // Memory behind `high` was never written, but a system may bring in more pages than the one touched.
        let to = end & !(PAGE - 1);
        if from >= to || self.cleared == top && self.high == top {
            return false;
        }
        // SAFETY: these pages lie inside the top chunk, behind its header.
        let gone = unsafe { release(&m.system, self.top.0.with_addr(from), to - from) };
        self.high = top;
        self.cleared = if gone && pad == 0 { top } else { 0 };
        gone
    }

    /// Gives whole pages inside free chunks back; returns whether any went.
    pub fn release_free<S: System>(&mut self, m: &Malloc<S>) -> bool {
        let mut any = false;
        self.bins.each(&mut |chunk| {
            let size = chunk.size();
            if size < LARGE || !chunk.link(RELEASED).is_none() {
                return;
            }
            // The links and the footer stay.
            let from = (chunk.0.addr() + 64).next_multiple_of(PAGE);
            let to = (chunk.0.addr() + size - 2 * HEAD) & !(PAGE - 1);
            if from < to {
                // SAFETY: the pages lie inside a free chunk, between its links and its footer.
                let gone = unsafe { release(&m.system, chunk.0.with_addr(from), to - from) };
                chunk.set_link(RELEASED, if gone { chunk } else { Chunk::NONE });
                any |= gone;
            }
        });
        any
    }
}

/// # Safety
///
/// Nobody needs the contents of the pages.
unsafe fn release(system: &impl System, at: *mut u8, bytes: usize) -> bool {
    // SAFETY: the caller's promise.
    NonNull::new(at).is_some_and(|at| unsafe { system.advise(at, bytes, Advice::DontNeed) })
}

/// A mapping of [`REGION`] bytes at a multiple of that.
fn map_aligned(system: &impl System) -> Option<NonNull<u8>> {
    let start = system.map(2 * REGION)?;
    let skip = start.as_ptr().align_offset(REGION);
    let (region, behind) = (start.as_ptr().wrapping_add(skip), start.as_ptr().wrapping_add(skip + REGION));
    // SAFETY: the parts in front and behind belong to the mapping just made; nobody knows them. The middle is kept.
    unsafe {
        let region = NonNull::new(region)?;
        if skip > 0 {
            system.unmap(start, skip);
        }
        if skip < REGION {
            system.unmap(NonNull::new(behind)?, REGION - skip);
        }
        // A huge page under a small heap would be all of its resident memory.
        system.advise(region, REGION, Advice::NoHugePage);
        Some(region)
    }
}

/// A new arena in a region of its own.
pub fn new_arena<S: System>(m: &Malloc<S>) -> Option<&Arena> {
    const SKIP: usize = size_of::<Arena>().next_multiple_of(16);
    let start = map_aligned(&m.system)?;
    let at = start.as_ptr().wrapping_add(size_of::<Region>()).cast::<Arena>();
    // SAFETY: the memory is new and aligned; the arena fits between the region's record and its first block.
    let arena = unsafe {
        at.write(Arena::new(OTHER));
        &*at
    };
    arena.state.with(&m.system, |state| {
        state.open_at(start, REGION, SKIP, m);
        // SAFETY: `open_at` has just written the record.
        unsafe { (*state.region).arena = at };
    });
    Some(arena)
}

/// The arena that a chunk marked [`OTHER`] belongs to.
pub fn arena_of<'a>(chunk: Chunk) -> &'a Arena {
    let region = chunk.0.map_addr(|a| a & !(REGION - 1)).cast::<Region>();
    // SAFETY: such chunks lie in a region at a multiple of its size, whose record names an arena that stays.
    unsafe { &*(*region).arena }
}
