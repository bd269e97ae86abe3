//! The heap walker: every chunk of an arena in address order, and the check that they agree with its lists and
//! counters.

use crate::arena::State;
use crate::bins::MAX_SMALL;
use crate::chunk::{Chunk, MIN, PREV, USED};
use crate::{Malloc, System};

/// What a chunk is at the moment of the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A program holds it.
    Used,
    /// A thread's cache, a fast bin or the allocator itself holds it: neighbours do not merge with it.
    Cached,
    /// It waits in a bin.
    Free,
    /// It is the top chunk.
    Top,
    /// Too small for a block: the fence at the end of a region that is no longer the newest.
    Fence,
}

/// A chunk as the walk saw it.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Its block's address.
    pub at: usize,
    /// Its size, header included.
    pub size: usize,
    /// What it is.
    pub kind: Kind,
}

/// Sums over an arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Chunks and bytes held by the program.
    pub used: (usize, usize),
    /// Chunks and bytes in caches and fast bins.
    pub cached: (usize, usize),
    /// Chunks and bytes in bins.
    pub free: (usize, usize),
    /// Bytes of the top chunk.
    pub top: usize,
    /// Bytes got from the system, now and at most.
    pub system: (usize, usize),
    /// Bytes in the fast bins.
    pub fast: usize,
}

impl Totals {
    fn add(&mut self, seen: Seen) {
        let sum = match seen.kind {
            Kind::Used => &mut self.used,
            Kind::Cached => &mut self.cached,
            Kind::Free => &mut self.free,
            Kind::Fence => return,
            Kind::Top => {
                self.top += seen.size;
                return;
            }
        };
        sum.0 += 1;
        sum.1 += seen.size;
    }
}

impl State {
    /// Calls `f` with every chunk, newest region first, and checks the tags on the way.
    pub(crate) fn walk(&self, secret: u64, f: &mut impl FnMut(Seen)) -> Result<(), &'static str> {
        // SAFETY: regions stay mapped while the arena's lock is held.
        let mut next = unsafe { self.region.as_ref() };
        while let Some(region) = next {
            let end = region.end & !15;
            let mut at = region.first;
            let mut previous_free = false;
            while at.0.addr() < end {
                let kind = self.kind(at, secret);
                let size = if kind == Kind::Used { at.sealed_size(secret) } else { at.size() };
                if size < 16 && kind != Kind::Top || size > end - at.0.addr() {
                    return Err("a chunk's size does not fit its region");
                }
                if at.has(PREV) == previous_free {
                    return Err("a chunk's PREV does not agree with the chunk before it");
                }
                if previous_free && matches!(kind, Kind::Free | Kind::Top) {
                    return Err("two free chunks lie side by side");
                }
                previous_free = kind == Kind::Free;
                if previous_free && at.after(size).footer_before() != size {
                    return Err("a free chunk's footer does not agree with its header");
                }
                f(Seen { at: at.0.addr(), size, kind });
                at = at.after(size);
                if kind == Kind::Top && at.0.addr() != end {
                    return Err("the top chunk does not reach the end of its region");
                }
            }
            // SAFETY: as above.
            next = unsafe { region.previous.as_ref() };
        }
        Ok(())
    }

    fn kind(&self, chunk: Chunk, secret: u64) -> Kind {
        if chunk == self.top {
            Kind::Top
        } else if !chunk.has(USED) {
            Kind::Free
        } else if chunk.high() == chunk.seal(secret) {
            Kind::Used
        } else if chunk.size() < MIN {
            Kind::Fence
        } else {
            Kind::Cached
        }
    }

    /// The sums, as far as the tags are whole.
    pub(crate) fn totals(&self, secret: u64) -> Totals {
        let mut totals = Totals { system: (self.bytes, self.max_bytes), fast: self.fast.bytes(), ..Totals::default() };
        let _ = self.walk(secret, &mut |seen| totals.add(seen));
        totals
    }

    /// From the newest region's first block to its end.
    pub(crate) fn newest_region(&self) -> Option<(usize, usize)> {
        // SAFETY: regions stay mapped while the arena's lock is held.
        let region = unsafe { self.region.as_ref() }?;
        Some((region.first.0.addr(), region.end & !15))
    }

    /// Walks the arena and checks its chunks against its lists and counters.
    fn audit(&self, secret: u64) -> Result<Totals, &'static str> {
        let mut totals = Totals { system: (self.bytes, self.max_bytes), fast: self.fast.bytes(), ..Totals::default() };
        self.walk(secret, &mut |seen| totals.add(seen))?;
        let mut listed = (0, 0);
        self.bins.each(&mut |chunk| listed = (listed.0 + 1, listed.1 + chunk.size()));
        if listed != totals.free || listed != (self.bins.chunks(), self.bins.bytes()) {
            return Err("the bins do not hold just the free chunks");
        }
        let mut fast = 0;
        let mut sizes_fit = true;
        let followed = self.fast.each(secret, &mut |chunk| {
            fast += chunk.size();
            sizes_fit &= chunk.has(USED) && chunk.size() <= MAX_SMALL;
        });
        if followed.is_err() || !sizes_fit || fast != self.fast.bytes() {
            return Err("the fast bins are damaged");
        }
        Ok(totals)
    }
}

impl<S: System> Malloc<S> {
    /// Calls `f` for each arena with its number and its state, under its lock.
    pub(crate) fn visit(&self, mut f: impl FnMut(usize, &State)) {
        for (i, arena) in self.arena_list().enumerate() {
            self.at_rest(arena, |state| f(i, state));
        }
    }

    /// Calls `f` with the arena's number and each of its chunks. The arena is locked meanwhile: `f` must not allocate.
    /// Returns the first disagreement found between a chunk's tags and its neighbours'.
    pub fn walk(&self, mut f: impl FnMut(usize, Seen)) -> Result<(), &'static str> {
        let mut found = Ok(());
        self.visit(|i, state| {
            let done = state.walk(self.secret(), &mut |seen| f(i, seen));
            if found.is_ok() {
                found = done;
            }
        });
        found
    }

    /// Checks every arena against its lists and counters; the sums over all of them, or what is wrong.
    pub fn validate(&self) -> Result<Totals, &'static str> {
        let mut sum = Ok(Totals::default());
        self.visit(|_, state| {
            if let Ok(before) = sum {
                sum = state.audit(self.secret()).map(|t| before.plus(t));
            }
        });
        sum
    }
}

impl Totals {
    pub(crate) fn plus(self, t: Totals) -> Totals {
        let add = |a: (usize, usize), b: (usize, usize)| (a.0 + b.0, a.1 + b.1);
        Totals {
            used: add(self.used, t.used),
            cached: add(self.cached, t.cached),
            free: add(self.free, t.free),
            top: self.top + t.top,
            system: add(self.system, t.system),
            fast: self.fast + t.fast,
        }
    }
}
