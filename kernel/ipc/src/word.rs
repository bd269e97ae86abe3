//! The word of a call record: it determines who may touch the caller at the moment.
//!
//! The word holds a generation, which distinguishes the calls of a record, and a phase. While a call is held, the
//! holder of its reply and a caller that gives up compete for it by a compare-exchange on both; the loser does nothing
//! to the other. So a late reply, when the record may already be in use for another call, does no harm.
//!
//! `tests/loom_word.rs` compiles this file a second time, with loom's atomics.

use super::atomic::{AtomicU64, Ordering};

/// The number of phases; the generation is in the bits above the phase.
const PHASES: u64 = 8;

/// No call is under way.
const IDLE: u64 = 0;
/// In an endpoint's queue.
const QUEUED: u64 = 1;
/// Somebody holds the reply.
const HELD: u64 = 2;
/// The holder of the reply works on the caller: it answers, or moves a handle or bytes of a window.
const ANSWERING: u64 = 3;
/// There is an answer.
const ANSWERED: u64 = 4;
/// There will be no answer.
const BROKEN: u64 = 5;

/// Which call of its record a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(u64);

impl Generation {
    /// The generation as a number, which is never [`u64::MAX`].
    pub fn number(self) -> u64 {
        self.0
    }
}

/// How a call that was not given up has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer is in the caller's registers.
    Answered,
    /// Nobody will answer.
    Broken,
}

/// See the module.
pub struct Word(AtomicU64);

impl Word {
    /// No call is under way.
    pub fn new() -> Self {
        Self(AtomicU64::new(IDLE))
    }

    /// Begins a queued call. Called by the caller, with no call under way. The endpoint's lock publishes it.
    #[inline]
    pub fn begin_queued(&self) -> Generation {
        self.begin(QUEUED)
    }

    /// Begins a call that is received at once. Otherwise as [`Word::begin_queued`].
    #[inline]
    pub fn begin_held(&self) -> Generation {
        self.begin(HELD)
    }

    #[inline]
    fn begin(&self, phase: u64) -> Generation {
        let generation = self.0.load(Ordering::Relaxed);
        debug_assert!(generation % PHASES == IDLE, "a call within a call");
        self.0.store(generation | phase, Ordering::Relaxed);
        Generation(generation)
    }

    /// Whether the call is in a queue. Under the endpoint's lock.
    #[inline]
    pub fn is_queued(&self) -> bool {
        self.0.load(Ordering::Relaxed) % PHASES == QUEUED
    }

    /// Marks the queued call as received; its message was copied. Under the endpoint's lock.
    #[inline]
    pub fn hold(&self) -> Generation {
        let word = self.0.load(Ordering::Relaxed);
        debug_assert!(word % PHASES == QUEUED, "received without having been queued");
        let generation = word - QUEUED;
        // Release: a caller that gives up (Acquire) may reuse the registers that were read.
        self.0.store(generation | HELD, Ordering::Release);
        Generation(generation)
    }

    /// Marks the queued call as one that will not be received. Under the endpoint's lock; [`Word::end_answer`] must
    /// follow.
    pub fn break_queued(&self) -> Generation {
        let word = self.0.load(Ordering::Relaxed);
        debug_assert!(word % PHASES == QUEUED, "broken without having been queued");
        let generation = word - QUEUED;
        self.0.store(generation | ANSWERING, Ordering::Relaxed);
        Generation(generation)
    }

    /// Whether this call is held: its caller has not given up, and it was not answered. (Either may be about to
    /// happen.)
    #[inline]
    pub fn is_held(&self, call: Generation) -> bool {
        let word = self.0.load(Ordering::Acquire);
        word == call.0 | HELD || word == call.0 | ANSWERING
    }

    /// Takes the right to work on the caller: to write to it, and to wake it; `false` if the caller is gone. Until
    /// [`Word::end_answer`] or [`Word::retreat`] the caller waits, even if it is awake: that time is short, with
    /// interrupts masked. If two threads hold the reply, the second one waits for the first.
    #[inline]
    #[must_use]
    pub fn begin_answer(&self, call: Generation, relax: impl FnMut()) -> bool {
        self.leave_held(call, call.0 | ANSWERING, relax)
    }

    /// Gives back the [right](Word::begin_answer) to work on the caller, which continues to wait for an answer.
    #[inline]
    pub fn retreat(&self, call: Generation) {
        // Release: as in `end_answer`.
        self.0.store(call.0 | HELD, Ordering::Release);
    }

    /// Lets the caller continue, and gives back the [right](Word::begin_answer) to work on it: the caller may be gone
    /// immediately afterwards.
    #[inline]
    pub fn end_answer(&self, call: Generation, outcome: Outcome) {
        let phase = match outcome {
            Outcome::Answered => ANSWERED,
            Outcome::Broken => BROKEN,
        };
        // Release: what was written to the caller's registers comes before.
        self.0.store(call.0 | phase, Ordering::Release);
    }

    /// Gives up the held call on behalf of its caller; `false` if it was answered: then it [has](Word::outcome) an
    /// outcome.
    #[inline]
    #[must_use]
    pub fn give_up(&self, call: Generation, relax: impl FnMut()) -> bool {
        self.leave_held(call, call.0 + PHASES, relax)
    }

    #[inline]
    fn leave_held(&self, call: Generation, to: u64, relax: impl FnMut()) -> bool {
        // Acquire: after everything that the other side did before the call was held.
        match self.0.compare_exchange(call.0 | HELD, to, Ordering::Acquire, Ordering::Acquire) {
            Ok(_) => true,
            Err(word) => word == call.0 | ANSWERING && self.leave_held_later(call, to, relax),
        }
    }

    #[cold]
    fn leave_held_later(&self, call: Generation, to: u64, mut relax: impl FnMut()) -> bool {
        loop {
            match self.0.compare_exchange(call.0 | HELD, to, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => return true,
                Err(word) if word == call.0 | ANSWERING => relax(),
                Err(_) => return false,
            }
        }
    }

    /// The generation of the next call. Called by the caller, with no call under way.
    #[inline]
    pub fn next(&self) -> Generation {
        Generation(self.0.load(Ordering::Relaxed))
    }

    /// How the caller's call has ended; `None` while it has not. Waits for the end of an answer that has begun.
    #[inline]
    pub fn outcome(&self, mut relax: impl FnMut()) -> Option<Outcome> {
        loop {
            // Acquire: the answer in the registers comes before.
            match self.0.load(Ordering::Acquire) % PHASES {
                ANSWERING => relax(),
                ANSWERED => return Some(Outcome::Answered),
                BROKEN => return Some(Outcome::Broken),
                _ => return None,
            }
        }
    }

    /// Notes that the caller is done with a call that has an outcome, or that it took out of its queue.
    #[inline]
    pub fn finish(&self, call: Generation) {
        // The next use is published by an endpoint's lock.
        self.0.store(call.0 + PHASES, Ordering::Relaxed);
    }
}
