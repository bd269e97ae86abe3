//! The lists of an arena: fast, small and unsorted. (Large chunks: see `large`.)
//!
//! Fast bins hold small chunks that a thread's cache had no room for, still marked used so that neighbours leave them
//! alone: single lists, one a size. Small bins hold merged chunks below 1 KiB, one size each, with a bit map over them.
//! The unsorted list holds what was merged lately and gives it one chance to be taken by size before it is sorted; it
//! is bounded, so looking through it is too.
//!
//! Links in chunks are mangled: code that reads a freed block finds no address there, and code that writes over one
//! cannot forge a link that leads anywhere. Before a double list is changed, its neighbours' links are checked as well.

use crate::chunk::{Chunk, MIN, UNSORTED};
use crate::large::{Damaged, LARGE, Large};

/// The largest chunk that a thread's cache and the fast bins hold.
pub const MAX_SMALL: usize = 1040;
/// Cache and fast-bin classes: one for each multiple of 16.
pub const CLASSES: usize = MAX_SMALL / 16 + 1;

const SMALL_BINS: usize = LARGE / 16;
const UNSORTED_MAX: usize = 16;
/// The links of a double list.
pub const NEXT: usize = 0;
const PREVIOUS: usize = 1;

/// The fast bins: single lists of small chunks, by size.
pub struct Fast {
    heads: [Chunk; CLASSES],
    bytes: usize,
}

impl Fast {
    pub const fn new() -> Fast {
        Fast { heads: [Chunk::NONE; CLASSES], bytes: 0 }
    }

    /// Bytes in all lists.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn push(&mut self, chunk: Chunk, size: usize, secret: u64) {
        chunk.set_link(0, chunk.mangled(self.heads[size / 16], secret));
        self.heads[size / 16] = chunk;
        self.bytes += size;
    }

    pub fn pop(&mut self, class: usize, secret: u64) -> Result<Option<Chunk>, Damaged> {
        let chunk = self.heads[class];
        if chunk.is_none() {
            return Ok(None);
        }
        self.heads[class] = follow(chunk, secret)?;
        if !chunk.is_used_small(class * 16) {
            return Err(Damaged);
        }
        self.bytes -= class * 16;
        Ok(Some(chunk))
    }

    /// Calls `f` with every chunk.
    pub fn each(&self, secret: u64, f: &mut impl FnMut(Chunk)) -> Result<(), Damaged> {
        for head in self.heads {
            let mut at = head;
            while !at.is_none() {
                f(at);
                at = follow(at, secret)?;
            }
        }
        Ok(())
    }
}

/// The chunk after `chunk` on a mangled list.
fn follow(chunk: Chunk, secret: u64) -> Result<Chunk, Damaged> {
    let next = chunk.mangled(chunk.link(0), secret);
    if !next.0.addr().is_multiple_of(16) { Err(Damaged) } else { Ok(next) }
}

/// Everything merged: small bins, the unsorted list and the large bins.
pub struct Bins {
    /// The secret that links are mangled with.
    secret: u64,
    map: u64,
    small: [Chunk; SMALL_BINS],
    unsorted: Chunk,
    unsorted_len: usize,
    large: Large,
    bytes: usize,
    chunks: usize,
}

impl Bins {
    pub const fn new() -> Bins {
        Bins {
            secret: 0,
            map: 0,
            small: [Chunk::NONE; SMALL_BINS],
            unsorted: Chunk::NONE,
            unsorted_len: 0,
            large: Large::new(),
            bytes: 0,
            chunks: 0,
        }
    }

    /// Sets the secret that links are mangled with; called before the first chunk is inserted.
    pub fn hide_with(&mut self, secret: u64) {
        debug_assert!(self.chunks == 0 || self.secret == secret);
        self.secret = secret;
    }

    /// Bytes of free chunks here.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of free chunks here.
    pub fn chunks(&self) -> usize {
        self.chunks
    }

    /// Files a merged chunk, whose header and footer are correct.
    #[inline]
    pub fn insert(&mut self, chunk: Chunk, size: usize) {
        self.bytes += size;
        self.chunks += 1;
        if size < LARGE {
            self.insert_small(chunk, size);
        } else if self.unsorted_len < UNSORTED_MAX {
            chunk.set_flag(UNSORTED);
            self.unsorted_len += 1;
            push(&mut self.unsorted, chunk, self.secret);
        } else {
            self.large.insert(chunk, size, self.secret);
        }
    }

    fn insert_small(&mut self, chunk: Chunk, size: usize) {
        self.map |= 1 << (size / 16);
        push(&mut self.small[size / 16], chunk, self.secret);
    }

    /// Takes a chunk out, wherever it is.
    #[inline]
    pub fn remove(&mut self, chunk: Chunk, size: usize) -> Result<(), Damaged> {
        if size < MIN || chunk.after(size).footer_before() != size {
            return Err(Damaged);
        }
        self.bytes -= size;
        self.chunks -= 1;
        if chunk.has(UNSORTED) {
            chunk.clear_flag(UNSORTED);
            self.unsorted_len -= 1;
            cut(&mut self.unsorted, chunk, self.secret)
        } else if size < LARGE {
            let head = &mut self.small[size / 16];
            cut(head, chunk, self.secret)?;
            if head.is_none() {
                self.map &= !(1 << (size / 16));
            }
            Ok(())
        } else {
            self.large.remove(chunk, size, self.secret)
        }
    }

    /// Takes a chunk of just this size out of the small bins.
    #[inline]
    pub fn take_small(&mut self, size: usize) -> Result<Option<Chunk>, Damaged> {
        if size >= LARGE || self.map & 1 << (size / 16) == 0 {
            return Ok(None);
        }
        let chunk = self.small[size / 16];
        if chunk.size() != size {
            return Err(Damaged);
        }
        self.remove(chunk, size)?;
        Ok(Some(chunk))
    }

    /// Takes the chunk that [`best`](Bins::best) finds.
    pub fn take_best(&mut self, size: usize) -> Result<Option<Chunk>, Damaged> {
        let found = self.best(size)?;
        if let Some(chunk) = found {
            self.remove(chunk, chunk.size())?;
        }
        Ok(found)
    }

    /// The chunk that fits `size` best: one of that size from the unsorted list if there is one, else, with the list
    /// sorted, the smallest that is large enough.
    pub fn best(&mut self, size: usize) -> Result<Option<Chunk>, Damaged> {
        if size < LARGE {
            let above = self.map & (u64::MAX << (size / 16));
            if above != 0 {
                let best = above.trailing_zeros() as usize;
                let chunk = self.small[best];
                return if chunk.size() == best * 16 { Ok(Some(chunk)) } else { Err(Damaged) };
            }
        }
        while let Some(chunk) = self.unsorted.some() {
            let have = chunk.size();
            if have == size {
                return Ok(Some(chunk));
            }
            chunk.clear_flag(UNSORTED);
            self.unsorted_len -= 1;
            let next = chunk.link(NEXT).hidden(self.secret);
            if !next.may_be_followed() {
                return Err(Damaged);
            }
            self.unsorted = next;
            if !next.is_none() {
                next.set_link(PREVIOUS, Chunk::NONE.hidden(self.secret));
            }
            self.large.insert(chunk, have, self.secret);
        }
        Ok(self.large.best(size, self.secret))
    }

    /// Calls `f` with every chunk that the lists lead to.
    pub fn each(&self, f: &mut impl FnMut(Chunk)) {
        for head in self.small.iter().chain([&self.unsorted]) {
            each(*head, self.secret, f);
        }
        self.large.each(self.secret, f);
    }
}

/// Calls `f` with every chunk of a list, as far as it can be followed.
pub fn each(head: Chunk, secret: u64, f: &mut impl FnMut(Chunk)) {
    let mut at = head;
    while !at.is_none() && at.may_be_followed() {
        f(at);
        at = at.link(NEXT).hidden(secret);
    }
}

#[inline(always)]
pub fn push(head: &mut Chunk, chunk: Chunk, secret: u64) {
    let first = *head;
    chunk.set_link(NEXT, first.hidden(secret));
    chunk.set_link(PREVIOUS, Chunk::NONE.hidden(secret));
    if !first.is_none() {
        first.set_link(PREVIOUS, chunk.hidden(secret));
    }
    *head = chunk;
}

/// Takes a chunk out of its list, if its neighbours agree that it is in it.
#[inline(always)]
pub fn cut(head: &mut Chunk, chunk: Chunk, secret: u64) -> Result<(), Damaged> {
    let hidden = (chunk.hidden(secret), chunk.link(NEXT), chunk.link(PREVIOUS));
    let (next, previous) = (hidden.1.hidden(secret), hidden.2.hidden(secret));
    if !next.may_be_followed() || !previous.may_be_followed() {
        return Err(Damaged);
    }
    if previous.is_none() {
        if *head != chunk {
            return Err(Damaged);
        }
        *head = next;
    } else {
        if previous.link(NEXT) != hidden.0 {
            return Err(Damaged);
        }
        previous.set_link(NEXT, hidden.1);
    }
    if !next.is_none() {
        if next.link(PREVIOUS) != hidden.0 {
            return Err(Damaged);
        }
        next.set_link(PREVIOUS, hidden.2);
    }
    Ok(())
}
