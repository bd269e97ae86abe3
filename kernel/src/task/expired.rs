//! Signals of expired timers (`timer_create`) that nobody has taken yet.
//!
//! A timer brings its own place in the queue, so that an expiration needs no memory, and its signal is pending once however often it
//! expires. Programs decide how many there are: a signal is found in O(log n), and a set of signals is dropped without a look at the
//! timers. Those that were dropped stay in the tree, [behind](State::dropped) what counts, until their timer expires again or goes.
//!
//! It changes under the lock of the [queue](super::pending::Queue) that it belongs to, until that one's thread has ended; its own lock
//! ([`Rank::Object`]) is for the time afterwards.

use core::cell::Cell;

use intrusive_collections::{Bound, KeyAdapter, RBTree, RBTreeLink, UnsafeRef, intrusive_adapter};
use quire_abi::Errno;
use quire_abi::flags::sig;
use quire_mm::fallible::KArc;
use quire_mm::sync::Rank;

use crate::vm::{Cpu, SpinLock};

/// A timer's place.
pub struct Place {
    link: RBTreeLink,
    /// The signal.
    pub signal: u32,
    /// The timer's number.
    pub id: u32,
    /// The value that its creator chose.
    pub value: u64,
    /// When the signal was sent, in the queue's count. Belongs to the lock of the tree.
    sent: Cell<u64>,
}

// SAFETY: the link and the cell are touched under the lock of the tree only.
unsafe impl Sync for Place {}
// SAFETY: as above.
unsafe impl Send for Place {}

impl Place {
    /// Of a timer with no signal pending.
    pub fn new(signal: u32, id: u32, value: u64) -> Self {
        Self { link: RBTreeLink::new(), signal, id, value, sent: Cell::new(0) }
    }
}

intrusive_adapter!(BySignal = UnsafeRef<Place>: Place { link => RBTreeLink });

impl<'a> KeyAdapter<'a> for BySignal {
    type Key = (u32, u64);
    fn get_key(&self, place: &'a Place) -> (u32, u64) {
        (place.signal, place.sent.get())
    }
}

struct State {
    tree: RBTree<BySignal>,
    /// For each signal: what was sent up to then does not count any more.
    dropped: [u64; sig::COUNT as usize],
}

// SAFETY: links are touched under the lock only, and a place is taken out before its timer goes.
unsafe impl Send for State {}

impl State {
    fn oldest(&self, signal: u32) -> Option<&Place> {
        let dropped = *self.dropped.get(signal as usize)?;
        self.tree.lower_bound(Bound::Excluded(&(signal, dropped))).get().filter(|place| place.signal == signal)
    }

    fn counts(&self, place: &Place) -> bool {
        place.link.is_linked() && self.dropped.get(place.signal as usize).is_some_and(|d| place.sent.get() > *d)
    }

    fn unlink(&mut self, place: &Place) {
        if place.link.is_linked() {
            // SAFETY: a linked place is in this tree: its timer has one target.
            unsafe { self.tree.cursor_mut_from_ptr(place).remove() };
        }
    }
}

/// See the module.
pub struct Expired {
    state: SpinLock<State>,
}

impl Expired {
    /// None.
    pub fn new() -> Result<KArc<Self>, Errno> {
        let make = || {
            let state = State { tree: RBTree::new(BySignal::NEW), dropped: [0; sig::COUNT as usize] };
            Self { state: SpinLock::new(Cpu, Rank::Object, state) }
        };
        Ok(KArc::try_unshared(make)?.share())
    }

    /// Adds a timer's signal. False if it is pending already.
    ///
    /// # Safety
    /// The place neither moves nor goes before [`Expired::remove`], and it is in no other tree.
    pub unsafe fn add(&self, place: &Place, sent: u64) -> bool {
        let mut state = self.state.lock();
        if state.counts(place) {
            return false;
        }
        state.unlink(place);
        place.sent.set(sent);
        // SAFETY: the caller's promise.
        state.tree.insert(unsafe { UnsafeRef::from_raw(place) });
        true
    }

    /// Takes a timer's signal out. Whether it was pending.
    pub fn remove(&self, place: &Place) -> bool {
        let mut state = self.state.lock();
        let was_pending = state.counts(place);
        state.unlink(place);
        was_pending
    }

    /// Whether a timer's signal is pending.
    pub fn holds(&self, place: &Place) -> bool {
        self.state.lock().counts(place)
    }

    /// When the oldest one of `signal` was sent; `None` if there is none.
    pub fn oldest(&self, signal: u32) -> Option<u64> {
        self.state.lock().oldest(signal).map(|place| place.sent.get())
    }

    /// Takes the oldest one of `signal`: its timer's number and value.
    pub fn take(&self, signal: u32) -> Option<(u32, u64)> {
        let mut state = self.state.lock();
        let place = core::ptr::from_ref(state.oldest(signal)?);
        // SAFETY: it is in the tree, whose lock is held.
        let place = unsafe { state.tree.cursor_mut_from_ptr(place).remove() }?;
        Some((place.id, place.value))
    }

    /// Drops a set of signals: all that were sent so far, by the queue's count.
    pub fn drop_all(&self, set: u64, sent: u64) {
        let mut state = self.state.lock();
        let mut left = set;
        while left != 0 {
            let signal = left.trailing_zeros() as usize + 1;
            left &= left - 1;
            if let Some(dropped) = state.dropped.get_mut(signal) {
                *dropped = sent;
            }
        }
    }
}
