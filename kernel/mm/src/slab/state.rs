//! A slab's state word, and SLUB's transitions of it.
//!
//! | frozen | own free list | in use        | where the slab is                                          |
//! | ------ | ------------- | ------------- | ---------------------------------------------------------- |
//! | yes    | any           | any           | one CPU's active slab; on no list                          |
//! | no     | not empty     | < all, not 0  | on its node's partial list                                 |
//! | no     | not empty     | 0             | on its node's empty list                                   |
//! | no     | empty         | all           | full: on no list; the next free finds it by its object     |
//!
//! An active slab has two free lists: the CPU's, which only that CPU accesses, and the slab's own, for objects that
//! other CPUs free. In the state word, objects on the CPU's list count as in use. The CPU takes the whole own list when
//! its list is empty ([`StateWord::take_or_thaw`]).
//!
//! Freeing an object of a slab that is not this CPU's active one pushes it onto the slab's own list with one
//! compare-and-exchange of the state word ([`StateWord::push`]). There is no ABA problem, since a push only needs the
//! head, and all other operations take the whole list at once. If the exchange moves the slab to another row of the
//! table (a full slab gets a free object, or the last object in use is freed), the node's lock is taken *before* the
//! exchange, so that list and word change together for holders of the lock. A free that changes no row takes no lock
//! and does not access the slab after its exchange. So a slab whose last object was freed under the lock has no other
//! user, and can be discarded once it is off the list.
//!
//! A CPU that needs many objects at once takes all free objects of a partial slab, and leaves it full
//! ([`StateWord::empty_out`]).
//!
//! Only holders of the node's lock freeze a slab, and only the CPU whose active slab it is thaws it.
//!
//! `tests/loom_slub.rs` compiles this file a second time, with loom's atomics.

use super::atomic::{AtomicU64, Ordering};

/// The counters of one slab in one word, so that one compare-and-exchange moves them all.
///
/// ```text
///  62    53   52     51   48 47     34 33   20 19    0
/// | colour | frozen | order | objects | inuse | free |
/// ```
///
/// `free` is the first free object as its distance from the slab's start in units of 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct State(pub(super) u64);

/// `free` of a slab that has no free object on its own list.
const NO_FREE: u64 = 0xf_ffff;
const INUSE_SHIFT: u32 = 20;
const OBJECTS_SHIFT: u32 = 34;
const COUNT: u64 = 0x3fff;
const ORDER_SHIFT: u32 = 48;
const FROZEN: u64 = 1 << 52;
const COLOUR_SHIFT: u32 = 53;
/// How many colours there can be.
pub(super) const MAX_COLOURS: u32 = 1 << 10;

impl State {
    pub(super) const fn new(order: u32, objects: u32) -> State {
        State((order as u64) << ORDER_SHIFT | (objects as u64) << OBJECTS_SHIFT | NO_FREE)
    }

    /// The byte offset of the first free object.
    pub(super) const fn free(self) -> Option<usize> {
        let free = self.0 & NO_FREE;
        if free == NO_FREE { None } else { Some(free as usize * 8) }
    }

    pub(super) const fn inuse(self) -> u32 {
        (self.0 >> INUSE_SHIFT & COUNT) as u32
    }

    pub(super) const fn objects(self) -> u32 {
        (self.0 >> OBJECTS_SHIFT & COUNT) as u32
    }

    pub(super) const fn order(self) -> u32 {
        (self.0 >> ORDER_SHIFT & 0xf) as u32
    }

    /// Whether the slab is some CPU's active one.
    pub(super) const fn is_frozen(self) -> bool {
        self.0 & FROZEN != 0
    }

    /// By how many steps the first object is shifted (SLAB).
    pub(super) const fn colour(self) -> u32 {
        (self.0 >> COLOUR_SHIFT) as u32 & (MAX_COLOURS - 1)
    }

    #[must_use]
    pub(super) const fn with_colour(self, colour: u32) -> State {
        State(self.0 | (colour as u64) << COLOUR_SHIFT)
    }

    #[must_use]
    pub(super) const fn with_free(self, offset: Option<usize>) -> State {
        let free = match offset {
            Some(offset) => offset as u64 / 8,
            None => NO_FREE,
        };
        State(self.0 & !NO_FREE | free)
    }

    #[must_use]
    pub(super) const fn with_inuse(self, inuse: u32) -> State {
        State(self.0 & !(COUNT << INUSE_SHIFT) | (inuse as u64) << INUSE_SHIFT)
    }

    #[must_use]
    pub(super) const fn with_frozen(self, frozen: bool) -> State {
        State(if frozen { self.0 | FROZEN } else { self.0 & !FROZEN })
    }
}

/// In the word of a frame that is not a slab's first, with the number of frames to go back.
const TAIL: u64 = 1 << 63;

/// The shared state of a slab.
#[repr(transparent)]
pub(super) struct StateWord(pub(super) AtomicU64);

/// The result of a push.
pub(super) struct Pushed<G> {
    old: State,
    new: State,
    /// The node's lock, if it was needed.
    pub(super) guard: Option<G>,
}

/// The work left after a push, under the lock that it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Nothing; the slab may have been freed.
    Stay,
    /// It was full: it joins the partial list.
    Join,
    /// It is empty, and on the partial list or not: it may be discarded.
    Empty {
        /// Whether it is on the partial list.
        is_listed: bool,
    },
}

impl<G> Pushed<G> {
    /// The list that the slab belongs on now.
    pub(super) fn destination(&self) -> Move {
        let was_full = self.old.free().is_none();
        match self.guard {
            None => Move::Stay,
            Some(_) if self.new.is_frozen() => Move::Stay,
            Some(_) if self.new.inuse() == 0 => Move::Empty { is_listed: !was_full },
            Some(_) if was_full => Move::Join,
            Some(_) => Move::Stay,
        }
    }
}

impl StateWord {
    /// Loads the state. Acquire: the list that the word points to was written before it.
    #[inline]
    pub(super) fn load(&self) -> State {
        State(self.0.load(Ordering::Acquire))
    }

    /// Stores the state of a slab that no other CPU can change now.
    #[inline]
    pub(super) fn store(&self, state: State) {
        self.0.store(state.0, Ordering::Release);
    }

    /// The raw word, for another back end's use.
    #[inline]
    pub(super) fn raw(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets the raw word.
    #[inline]
    pub(super) fn set_raw(&self, word: u64) {
        self.0.store(word, Ordering::Relaxed);
    }

    /// Makes this the word of a frame `back` frames behind its slab's first.
    pub(super) fn set_tail(&self, back: usize) {
        self.set_raw(TAIL | back as u64);
    }

    /// How many frames to go back to the slab's first; `None` for that one.
    #[inline]
    pub(super) fn tail(&self) -> Option<usize> {
        let word = self.raw();
        (word & TAIL != 0).then_some((word & !TAIL) as usize)
    }

    fn exchange(&self, old: State, new: State) -> Result<(), State> {
        self.0.compare_exchange_weak(old.0, new.0, Ordering::AcqRel, Ordering::Acquire).map(drop).map_err(State)
    }

    /// Pushes a chain of `count` objects that starts at offset `first`, and takes the node's lock if that moves the
    /// slab. `link` makes the chain's last object point to the offset that it is given. `None` if fewer objects than
    /// that are in use.
    pub(super) fn push<G>(
        &self,
        first: usize,
        count: u32,
        mut link: impl FnMut(Option<usize>),
        lock: impl Fn() -> G,
    ) -> Option<Pushed<G>> {
        let mut guard = None;
        let mut old = self.load();
        loop {
            let inuse = old.inuse().checked_sub(count)?;
            if guard.is_none() && !old.is_frozen() && (old.free().is_none() || inuse == 0) {
                guard = Some(lock());
                old = self.load();
                continue;
            }
            link(old.free());
            let new = old.with_free(Some(first)).with_inuse(inuse);
            match self.exchange(old, new) {
                Ok(()) => return Some(Pushed { old, new, guard }),
                Err(now) => old = now,
            }
        }
    }

    /// Takes all objects that other CPUs freed into this CPU's active slab; if there are none, the slab is full and is
    /// thawed.
    pub(super) fn take_or_thaw(&self) -> Option<usize> {
        let mut old = self.load();
        loop {
            let free = old.free();
            let new = match free {
                Some(_) => old.with_free(None).with_inuse(old.objects()),
                None => old.with_frozen(false),
            };
            match self.exchange(old, new) {
                Ok(()) => return free,
                Err(now) => old = now,
            }
        }
    }

    /// Freezes a slab that was on a partial list, and takes its own list. The node's lock is held.
    pub(super) fn freeze(&self) -> Option<usize> {
        let mut old = self.load();
        while let Err(now) = self.exchange(old, old.with_free(None).with_inuse(old.objects()).with_frozen(true)) {
            old = now;
        }
        old.free()
    }

    /// Takes the own list of a slab that was on a partial list, which makes it full; `None` if that has more than
    /// `limit` objects. The node's lock is held.
    pub(super) fn empty_out(&self, limit: usize) -> Option<usize> {
        let mut old = self.load();
        while (old.objects() - old.inuse()) as usize <= limit {
            match self.exchange(old, old.with_free(None).with_inuse(old.objects())) {
                Ok(()) => return old.free(),
                Err(now) => old = now,
            }
        }
        None
    }

    /// Thaws this CPU's active slab, with all its objects in use or on its own list. The node's lock is held. Returns
    /// whether the slab joins the partial list.
    pub(super) fn thaw(&self) -> bool {
        let mut old = self.load();
        while let Err(now) = self.exchange(old, old.with_frozen(false)) {
            old = now;
        }
        old.free().is_some()
    }
}
