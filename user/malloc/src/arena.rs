//! An arena: chunks merged and split under one lock.
//!
//! Invariants, between calls: no two free chunks lie side by side, nor does one lie below the top chunk; a chunk's
//! [`PREV`] is clear exactly if the chunk before it is in a bin; a free chunk's footer repeats its size. The top chunk
//! runs to the end of its region and may have size 0: the word in front of a region's end is always there for its
//! header.
//!
//! Lock order: an arena, then the spare mapping. Never two arenas, except for a fork, in the order of the list.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use crate::bins::{Bins, Fast, MAX_SMALL};
use crate::chunk::{Chunk, MIN, OTHER, PREV, USED};
use crate::heap::{Region, arena_of};
use crate::large::{Damaged, LARGE};
use crate::lock::Lock;
use crate::remote::Remote;
use crate::{Malloc, System};

/// The link's place in a large free chunk that is null unless its pages have been given back.
pub const RELEASED: usize = 2;
/// Freeing a merged chunk of this size also merges what the fast bins hold.
const MERGE_FAST: usize = 64 << 10;
/// Fast bins that hold this much are merged before a large request is served from the top chunk.
const FAST_IDLE: usize = 32 << 10;
/// Fast bins may always hold this much.
const FAST_MIN: usize = 512 << 10;

pub struct Arena {
    pub state: Lock<State>,
    /// Chunks freed by threads that found the arena locked.
    pub remote: Remote,
    /// The next arena; the list only grows.
    pub next: AtomicPtr<Arena>,
}

/// What the arena's lock guards.
pub struct State {
    pub fast: Fast,
    pub bins: Bins,
    pub top: Chunk,
    /// The newest region; the top chunk is at its end.
    pub region: *mut Region,
    /// [`OTHER`] or 0: set in each chunk's header.
    pub other: u32,
    /// The highest address that the top chunk has started at since its pages were last given back.
    pub high: usize,
    /// Where the top chunk started when all pages behind it were given back; 0 since it is in another region.
    pub cleared: usize,
    /// Bytes got from the system, now and at most.
    pub bytes: usize,
    pub max_bytes: usize,
    /// How large the arena was when the break was last lowered, and by how much it was; 0 once it has grown again.
    pub trimmed: (usize, usize),
    /// The most that was free when free chunks' pages were last given back.
    pub released: usize,
}

// SAFETY: the pointers lead to memory that only the holder of the arena's lock uses.
unsafe impl Send for State {}

impl Arena {
    pub const fn new(other: u32) -> Arena {
        Arena {
            state: Lock::new(AtomicU32::new(0), State::new(other)),
            remote: Remote::new(AtomicPtr::new(null_mut())),
            next: AtomicPtr::new(null_mut()),
        }
    }

    /// Takes over what other threads left for this arena; `state` is its own.
    #[inline(always)]
    pub fn drain<S: System>(&self, state: &mut State, m: &Malloc<S>) -> Result<(), Damaged> {
        if self.remote.is_empty() { Ok(()) } else { self.drain_slow(state, m) }
    }

    #[cold]
    fn drain_slow<S: System>(&self, state: &mut State, m: &Malloc<S>) -> Result<(), Damaged> {
        let secret = m.secret();
        let mut at = Chunk(self.remote.take_all());
        while let Some(chunk) = at.some() {
            at = chunk.mangled(chunk.link(0), secret);
            state.put(m, chunk)?;
        }
        Ok(())
    }

    /// Leaves a chunk for the holder of the lock.
    pub fn leave(&self, chunk: Chunk, secret: u64) {
        self.remote.push(chunk.0, |next| chunk.set_link(0, chunk.mangled(Chunk(next), secret)));
    }

    pub fn next(&self) -> Option<&Arena> {
        // SAFETY: an arena in the list stays there, and stays mapped, for ever.
        unsafe { self.next.load(Ordering::Acquire).as_ref() }
    }
}

impl State {
    const fn new(other: u32) -> State {
        State {
            fast: Fast::new(),
            bins: Bins::new(),
            top: Chunk::NONE,
            region: null_mut(),
            other,
            high: 0,
            cleared: 0,
            bytes: 0,
            max_bytes: 0,
            released: 0,
            trimmed: (0, 0),
        }
    }

    pub fn top_size(&self) -> usize {
        if self.top.is_none() { 0 } else { self.top.size() }
    }

    /// A chunk of `size` bytes or a little more, used but not sealed, from what the arena has.
    pub fn take<S: System>(&mut self, m: &Malloc<S>, size: usize) -> Result<Option<Chunk>, Damaged> {
        if size <= MAX_SMALL
            && let Some(chunk) = self.fast.pop(size / 16, m.secret())?
        {
            return Ok(Some(chunk));
        }
        if size >= LARGE {
            self.merge_for(m, size)?;
        }
        if let Some(chunk) = self.take_free(size)? {
            return Ok(Some(chunk));
        }
        if self.fast.bytes() != 0 {
            self.merge_fast(m)?;
            return self.take_free(size);
        }
        Ok(None)
    }

    /// [`take`](State::take), but asks the system for more if need be.
    pub fn take_or_extend<S: System>(&mut self, m: &Malloc<S>, size: usize) -> Result<Option<Chunk>, Damaged> {
        if let Some(chunk) = self.take(m, size)? {
            return Ok(Some(chunk));
        }
        if !self.extend(m, size)? {
            return Ok(None);
        }
        Ok(self.take_top(size))
    }

    /// For requests that small chunks can only serve merged: merges before the top chunk is touched.
    fn merge_for<S: System>(&mut self, m: &Malloc<S>, size: usize) -> Result<(), Damaged> {
        if self.fast.bytes() >= FAST_IDLE && self.bins.best(size)?.is_none() { self.merge_fast(m) } else { Ok(()) }
    }

    fn take_free(&mut self, size: usize) -> Result<Option<Chunk>, Damaged> {
        if let Some(free) = self.bins.take_best(size)? {
            let have = free.size();
            self.split(free, have, size);
            return Ok(Some(free));
        }
        Ok(self.take_top(size))
    }

    /// Marks `size` bytes of a free chunk, which is in no bin, as used, and files the rest.
    pub fn split(&mut self, free: Chunk, have: usize, size: usize) {
        let rest = have - size;
        if rest < MIN {
            free.set(have, PREV | USED | self.other);
            free.after(have).set_flag(PREV);
        } else {
            free.set(size, PREV | USED | self.other);
            self.file(free.after(size), rest);
        }
    }

    /// Writes header and footer of a free chunk behind a used one, and files it.
    fn file(&mut self, chunk: Chunk, size: usize) {
        chunk.set(size, PREV | self.other);
        chunk.after(size).set_footer_before(size);
        if size >= LARGE {
            chunk.set_link(RELEASED, Chunk::NONE);
        }
        self.bins.insert(chunk, size);
    }

    pub fn take_top(&mut self, size: usize) -> Option<Chunk> {
        let have = self.top_size();
        if have < size || self.top.is_none() {
            return None;
        }
        let chunk = self.top;
        chunk.set(size, PREV | USED | self.other);
        self.set_top(chunk.after(size), have - size);
        Some(chunk)
    }

    pub fn set_top(&mut self, top: Chunk, size: usize) {
        self.top = top;
        top.set(size, PREV | self.other);
        self.high = self.high.max(top.0.addr());
    }

    /// Fills `out` with chunks of `size` bytes for a thread's cache: at least one, unless memory is exhausted, and as
    /// many more as are cheap to get. One that could not be split cleanly is 16 bytes larger.
    pub fn refill<S: System>(&mut self, m: &Malloc<S>, size: usize, out: &mut [Chunk]) -> Result<usize, Damaged> {
        let secret = m.secret();
        let mut n = 0;
        while n < out.len() {
            let Some(chunk) = self.fast.pop(size / 16, secret)? else { break };
            out[n] = chunk;
            n += 1;
        }
        while n < out.len() {
            let Some(chunk) = self.bins.take_small(size)? else { break };
            chunk.set(size, PREV | USED | self.other);
            chunk.after(size).set_flag(PREV);
            out[n] = chunk;
            n += 1;
        }
        if n > 0 {
            return Ok(n);
        }
        let mut have = self.bins.take_best(size)?;
        if have.is_none() && self.top_size() < size && self.fast.bytes() != 0 {
            self.merge_fast(m)?;
            have = self.bins.take_best(size)?;
        }
        let Some(free) = have else { return self.carve_top(m, size, out) };
        let bytes = free.size();
        let count = (bytes / size).min(out.len());
        self.split(free, bytes, count * size);
        self.carve(free, size, &mut out[..count]);
        Ok(count)
    }

    fn carve_top<S: System>(&mut self, m: &Malloc<S>, size: usize, out: &mut [Chunk]) -> Result<usize, Damaged> {
        if self.top_size() < size && !self.extend(m, size)? {
            return Ok(0);
        }
        let count = (self.top_size() / size).min(out.len());
        let Some(chunk) = self.take_top(count * size) else { return Ok(0) };
        self.carve(chunk, size, &mut out[..count]);
        Ok(count)
    }

    /// Cuts a used chunk of `size * out.len()` bytes, or 16 more, into equal ones.
    fn carve(&self, chunk: Chunk, size: usize, out: &mut [Chunk]) {
        let mut left = chunk.size();
        let mut at = chunk;
        let Some((last, others)) = out.split_last_mut() else { return };
        for place in others {
            at.set(size, PREV | USED | self.other);
            *place = at;
            at = at.after(size);
            left -= size;
        }
        at.set(left, PREV | USED | self.other);
        *last = at;
    }

    /// Takes a used chunk without a seal back: small ones into a fast bin, others merged.
    #[inline]
    pub fn put<S: System>(&mut self, m: &Malloc<S>, chunk: Chunk) -> Result<(), Damaged> {
        let size = chunk.size();
        if size > MAX_SMALL {
            return self.give(m, chunk);
        }
        if size < MIN || !chunk.has(USED) {
            return Err(Damaged);
        }
        self.fast.push(chunk, size, m.secret());
        Ok(())
    }

    /// [`put`](State::put)s those of the small chunks that are this arena's, up to the first that is not; returns how
    /// many.
    pub fn put_run<S: System>(&mut self, m: &Malloc<S>, chunks: &[Chunk]) -> Result<usize, Damaged> {
        let secret = m.secret();
        for (n, chunk) in chunks.iter().enumerate() {
            if chunk.flags() & OTHER != self.other || self.other != 0 && !self.owns(*chunk) {
                return Ok(n);
            }
            let size = chunk.size_of_small();
            if !chunk.has(USED) || size < MIN {
                return Err(Damaged);
            }
            // A cache's largest may have come 16 bytes larger than they were asked for.
            match size <= MAX_SMALL {
                true => self.fast.push(*chunk, size, secret),
                false => self.give(m, *chunk)?,
            }
        }
        Ok(chunks.len())
    }

    /// Whether a chunk marked [`OTHER`] belongs to this arena.
    fn owns(&self, chunk: Chunk) -> bool {
        // SAFETY: the newest region's record stays where it is.
        core::ptr::eq(arena_of(chunk), unsafe { (*self.region).arena })
    }

    /// To be called after one or more [`put`](State::put)s: keeps the fast bins from holding more than programs and
    /// caches do.
    pub fn settle<S: System>(&mut self, m: &Malloc<S>) -> Result<(), Damaged> {
        let unmerged = self.bytes - self.bins.bytes() - self.top_size();
        if self.fast.bytes() > FAST_MIN && self.fast.bytes() > unmerged / 2 {
            self.merge_fast(m)?;
            self.trim_if_large(m);
        }
        Ok(())
    }

    /// Merges a used chunk without a seal with its free neighbours and files it.
    pub fn give<S: System>(&mut self, m: &Malloc<S>, chunk: Chunk) -> Result<(), Damaged> {
        if self.merge(chunk)? >= MERGE_FAST {
            self.merge_fast(m)?;
            self.trim_if_large(m);
        }
        Ok(())
    }

    /// Takes every chunk out of the fast bins and merges it.
    pub fn merge_fast<S: System>(&mut self, m: &Malloc<S>) -> Result<(), Damaged> {
        if self.fast.bytes() == 0 {
            return Ok(());
        }
        for class in MIN / 16..=MAX_SMALL / 16 {
            while let Some(chunk) = self.fast.pop(class, m.secret())? {
                self.merge(chunk)?;
            }
        }
        Ok(())
    }

    /// Merges a chunk with its neighbours; returns the size of the result.
    pub fn merge(&mut self, chunk: Chunk) -> Result<usize, Damaged> {
        let mut size = chunk.size();
        let mut at = chunk;
        let next = chunk.after(size);
        if !chunk.has(USED) || size == 0 {
            return Err(Damaged);
        }
        if !chunk.has(PREV) {
            let before = chunk.footer_before();
            at = chunk.before(before);
            if at.has(USED) || at.size() != before {
                return Err(Damaged);
            }
            self.bins.remove(at, before)?;
            size += before;
        }
        if next == self.top {
            size += next.size();
            self.set_top(at, size);
            return Ok(size);
        }
        if next.has(USED) {
            if !next.has(PREV) {
                return Err(Damaged);
            }
            next.clear_flag(PREV);
        } else {
            let behind = next.size();
            self.bins.remove(next, behind)?;
            size += behind;
        }
        self.file(at, size);
        Ok(size)
    }

    /// Makes a used chunk larger in place, to at least `size`, if what follows is free.
    pub fn grow_in_place(&mut self, chunk: Chunk, old: usize, size: usize) -> Result<Option<usize>, Damaged> {
        let next = chunk.after(old);
        let flags = chunk.flags();
        if next == self.top {
            let have = old + next.size();
            if have < size {
                return Ok(None);
            }
            chunk.set(size, flags);
            self.set_top(chunk.after(size), have - size);
            return Ok(Some(size));
        }
        if next.has(USED) {
            return Ok(None);
        }
        let have = old + next.size();
        if have < size {
            return Ok(None);
        }
        self.bins.remove(next, have - old)?;
        self.split(chunk, have, size);
        let got = chunk.size();
        chunk.set(got, flags);
        Ok(Some(got))
    }

    /// Cuts a used chunk down to `size`, at least [`MIN`] smaller than it is, and frees the rest.
    pub fn shrink_in_place(&mut self, chunk: Chunk, old: usize, size: usize) -> Result<(), Damaged> {
        chunk.set(size, chunk.flags());
        let rest = chunk.after(size);
        rest.set(old - size, PREV | USED | self.other);
        self.merge(rest).map(|_| ())
    }

    /// A chunk whose block is a multiple of `align`, a power of two above 16; asks the system only if `extend`.
    pub fn take_aligned<S: System>(
        &mut self,
        m: &Malloc<S>,
        align: usize,
        size: usize,
        extend: bool,
    ) -> Result<Option<Chunk>, Damaged> {
        // A chunk that was aligned before it was freed fits without slack for the worst case.
        let fits = self.bins.best(size)?.filter(|free| skip_to(*free, align) + size <= free.size());
        let chunk = match fits {
            Some(free) => {
                let have = free.size();
                self.bins.remove(free, have)?;
                self.split(free, have, have);
                free
            }
            None => {
                let slack = size + align + 16;
                self.merge_for(m, slack)?;
                let found = if extend { self.take_or_extend(m, slack)? } else { self.take(m, slack)? };
                match found {
                    Some(chunk) => chunk,
                    None => return Ok(None),
                }
            }
        };
        let mut have = chunk.size();
        let skip = skip_to(chunk, align);
        let mut aligned = chunk;
        if skip != 0 {
            aligned = chunk.after(skip);
            have -= skip;
            aligned.set(have, PREV | USED | self.other);
            chunk.set(skip, chunk.flags());
            self.merge(chunk)?;
        }
        if have - size >= MIN {
            self.shrink_in_place(aligned, have, size)?;
        }
        Ok(Some(aligned))
    }
}

/// How far into a chunk an aligned one can start, with room for a chunk in front if there is a gap at all.
fn skip_to(chunk: Chunk, align: usize) -> usize {
    match chunk.0.addr().wrapping_neg() & (align - 1) {
        16 => 16 + align,
        skip => skip,
    }
}
