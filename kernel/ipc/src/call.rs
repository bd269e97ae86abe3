//! Call records: one for each thread that calls, for all its calls one after the other.

use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use intrusive_collections::{LinkedListLink, UnsafeRef, intrusive_adapter};
use quire_abi::ipc::options;
use quire_mm::Machine;
use quire_mm::fallible::{AllocError, KArc};

use super::reply::Saved;
use super::word::{Generation, Outcome, Word};

/// The registers x0 to x10 of a thread that sleeps in a call or a receive, or what stands for them: x0 is the answer, x1 to
/// x7 the message, x9 the badge. x10 is for the sender how many of its six words carry something, beside options, and for the
/// receiver the events that came.
pub type Registers = [u64; 11];

/// Of [`Registers`], the label and the words.
pub(crate) const MESSAGE: core::ops::Range<usize> = 1..8;
/// Of [`Registers`], the badge.
pub(crate) const BADGE: usize = 9;
/// Of [`Registers`], the sender's options and the receiver's events.
pub(crate) const EXTRA: usize = 10;

/// Copies a message: the label, and as many words as the sender says. The receiver's other registers of a message become
/// zero, whatever the sender's hold.
#[inline]
pub(crate) fn copy_message(to: &mut Registers, from: &Registers) {
    if from[EXTRA] & options::WORDS >= 6 {
        // (By name, so that they go through registers and not through a call of memcpy.)
        let [_, label, a, b, c, d, e, f, ..] = *from;
        [to[1], to[2], to[3], to[4], to[5], to[6], to[7]] = [label, a, b, c, d, e, f];
        return;
    }
    let end = MESSAGE.start + (from[EXTRA] & options::WORDS).min(6) as usize;
    for i in MESSAGE {
        to[i] = if i <= end { from[i] } else { 0 };
    }
}

/// A thread's calls. Shared with replies that may be later than the caller's patience.
pub struct Call<M: Machine> {
    pub(crate) word: Word,
    /// The caller, for whoever wakes it. Written by the caller between calls; read while the call is under way.
    pub(crate) thread: AtomicUsize,
    /// The caller's registers. As `thread`.
    pub(crate) registers: AtomicPtr<Registers>,
    /// The address of the endpoint, which the caller holds. As `thread`.
    pub(crate) endpoint: AtomicUsize,
    /// The badge of the sender. As `thread`.
    pub(crate) badge: AtomicU64,
    /// The caller is parked while it waits: see [`Endpoint::hand_over`](super::Endpoint::hand_over). As `thread`.
    pub(crate) is_parked: AtomicBool,
    /// In an endpoint's queue, under its lock.
    pub(crate) link: LinkedListLink,
    /// The reply's entry if it was saved, for as long as the call is held. Under the lock of the call's endpoint.
    pub(crate) saved: AtomicPtr<Saved<M>>,
    /// The caller has a signal to handle. As `saved`.
    pub(crate) is_interrupted: AtomicBool,
}

intrusive_adapter!(pub(crate) InQueue<M> = UnsafeRef<Call<M>>: Call<M> { link => LinkedListLink } where M: Machine);

// SAFETY: the link is only touched under the lock of the endpoint in whose queue it is; the rest is atomic.
unsafe impl<M: Machine> Sync for Call<M> {}
// SAFETY: as above; nothing in it is bound to a CPU.
unsafe impl<M: Machine> Send for Call<M> {}

impl<M: Machine> Call<M> {
    /// A record of a thread that has not called yet.
    pub fn try_new() -> Result<KArc<Self>, AllocError> {
        KArc::try_new(Self {
            word: Word::new(),
            thread: AtomicUsize::new(0),
            registers: AtomicPtr::new(core::ptr::null_mut()),
            endpoint: AtomicUsize::new(0),
            badge: AtomicU64::new(0),
            is_parked: AtomicBool::new(false),
            link: LinkedListLink::new(),
            saved: AtomicPtr::new(core::ptr::null_mut()),
            is_interrupted: AtomicBool::new(false),
        })
    }

    /// Writes down who calls, with which message. Between calls.
    pub(crate) fn describe(
        &self,
        thread: usize,
        registers: *mut Registers,
        endpoint: usize,
        badge: u64,
        is_parked: bool,
    ) {
        self.thread.store(thread, Ordering::Relaxed);
        self.registers.store(registers, Ordering::Relaxed);
        self.endpoint.store(endpoint, Ordering::Relaxed);
        self.badge.store(badge, Ordering::Relaxed);
        self.is_parked.store(is_parked, Ordering::Relaxed);
        self.is_interrupted.store(false, Ordering::Relaxed);
    }

    /// The caller, which was parked, has resumed: if it sleeps again, it sees by itself how its call ends.
    #[inline]
    pub fn resume(&self) {
        // Whoever reads it has claimed the caller, after it has gone to sleep again.
        self.is_parked.store(false, Ordering::Relaxed);
    }

    /// How the call has ended; `None` while it has not.
    #[inline]
    pub fn outcome(&self, machine: M) -> Option<Outcome> {
        self.word.outcome(|| machine.relax())
    }

    /// The caller has seen how its call ended.
    #[inline]
    pub fn finish(&self, call: Generation) {
        self.word.finish(call);
    }
}
