//! Call records: one for each thread that calls, for all its calls one after the other.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use intrusive_collections::{LinkedListLink, UnsafeRef, intrusive_adapter};
use quire_abi::ipc::{Attachments, options};
use quire_mm::Machine;
use quire_mm::fallible::{AllocError, KArc};

use super::reply::Saved;
use super::word::{Generation, Outcome, Word};

/// The registers x0 to x10 of a thread that sleeps in a call or a receive, or what stands for them: x0 is the answer,
/// x1 to x7 the message, x9 the badge. x10 is for the sender how many of its six words carry something, beside options,
/// and for the receiver the events that came.
pub type Registers = [u64; 11];

/// Of [`Registers`], the label and the words.
pub(crate) const MESSAGE: core::ops::Range<usize> = 1..8;
/// Of [`Registers`], the badge.
pub(crate) const BADGE: usize = 9;
/// Of [`Registers`], the sender's options and the receiver's events.
pub(crate) const EXTRA: usize = 10;

/// Copies a message: the label, and as many words as the sender says. The receiver's other registers of a message
/// become zero, whatever the sender's hold.
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
    /// The caller, for whoever wakes it.
    pub(crate) thread: usize,
    /// The caller's registers. Written by the caller between calls; read while the call is under way.
    pub(crate) registers: AtomicPtr<Registers>,
    /// The address of the endpoint, which the caller holds. As `registers`.
    pub(crate) endpoint: AtomicUsize,
    /// The badge of the sender. As `registers`.
    pub(crate) badge: AtomicU64,
    /// The caller is parked while it waits: see [`Endpoint::hand_over`](super::Endpoint::hand_over). As `registers`.
    pub(crate) is_parked: AtomicBool,
    /// In an endpoint's queue, under its lock.
    pub(crate) link: LinkedListLink,
    /// The reply's entry if it was saved, for as long as the call is held. Under the lock of the call's endpoint.
    pub(crate) saved: AtomicPtr<Saved<M>>,
    /// What its server is to be told as soon as it saves the call, but for [`News::GONE`](super::News::GONE). As
    /// `saved`.
    pub(crate) news: AtomicU32,
    /// What the call carries that [`Call::attached_to`] names. Written by the caller between calls, and by whoever
    /// [is at work](super::Reply::with_caller) on the caller.
    pub(crate) attachments: UnsafeCell<Attachments>,
    /// The number of the last generation whose call carries something: a plain call touches neither this nor what
    /// follows.
    pub(crate) attached_to: AtomicU64,
    /// The address of a page of a window that the caller is to bring in, with [`WRITE`] if for writing; [`NOTHING`] for
    /// none.
    pub(crate) wanted: AtomicUsize,
    /// The caller could not bring a page in: it is not asked again.
    pub(crate) is_broken: AtomicBool,
}

/// No generation's number, and no page's address.
const NOTHING: usize = usize::MAX;
/// Of [`Call::wanted`]: for writing.
const WRITE: usize = 1;

intrusive_adapter!(pub(crate) InQueue<M> = UnsafeRef<Call<M>>: Call<M> { link => LinkedListLink } where M: Machine);

// SAFETY: the link is only touched under the lock of the endpoint in whose queue it is; the attachments by the caller
// between calls, and between `Word::begin_answer` and its end, which one thread at a time is; the rest is atomic.
unsafe impl<M: Machine> Sync for Call<M> {}
// SAFETY: as above; nothing in it is bound to a CPU.
unsafe impl<M: Machine> Send for Call<M> {}

impl<M: Machine> Call<M> {
    /// The record of the thread with this name, which has not called yet and makes all its calls.
    pub fn try_new(thread: usize) -> Result<KArc<Self>, AllocError> {
        KArc::try_new(Self {
            word: Word::new(),
            thread,
            registers: AtomicPtr::new(core::ptr::null_mut()),
            endpoint: AtomicUsize::new(0),
            badge: AtomicU64::new(0),
            is_parked: AtomicBool::new(false),
            link: LinkedListLink::new(),
            saved: AtomicPtr::new(core::ptr::null_mut()),
            news: AtomicU32::new(0),
            attachments: UnsafeCell::new(Attachments::default()),
            attached_to: AtomicU64::new(NOTHING as u64),
            wanted: AtomicUsize::new(NOTHING),
            is_broken: AtomicBool::new(false),
        })
    }

    /// Writes down who calls, with which message. Between calls.
    pub(crate) fn describe(&self, registers: *mut Registers, endpoint: usize, badge: u64, is_parked: bool) {
        self.registers.store(registers, Ordering::Relaxed);
        self.endpoint.store(endpoint, Ordering::Relaxed);
        self.badge.store(badge, Ordering::Relaxed);
        self.is_parked.store(is_parked, Ordering::Relaxed);
        self.news.store(0, Ordering::Relaxed);
    }

    /// The caller's next call carries this. Between calls.
    pub fn load(&self, attachments: Attachments) {
        // SAFETY: no call is under way, so nobody is at work on the caller.
        unsafe { *self.attachments.get() = attachments };
        self.wanted.store(NOTHING, Ordering::Relaxed);
        self.is_broken.store(false, Ordering::Relaxed);
        // (All published by the endpoint's lock.)
        self.attached_to.store(self.word.next().number(), Ordering::Relaxed);
    }

    /// The caller's next call carries nothing: what it was loaded for was not made. Between calls.
    pub fn unload(&self) {
        self.attached_to.store(NOTHING as u64, Ordering::Relaxed);
    }

    /// Whether the caller's call carries something.
    #[inline]
    pub fn has_attachments(&self, call: Generation) -> bool {
        self.attached_to.load(Ordering::Relaxed) == call.number()
    }

    /// The page that the caller is to bring in, and whether for writing. The caller's, during a call that has
    /// attachments.
    pub fn take_wanted(&self) -> Option<(usize, bool)> {
        let wanted = self.wanted.swap(NOTHING, Ordering::Acquire);
        (wanted != NOTHING).then_some((wanted & !WRITE, wanted & WRITE != 0))
    }

    /// The page that was wanted cannot be had.
    pub fn note_broken(&self) {
        self.is_broken.store(true, Ordering::Release);
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

/// A caller that waits for its answer, and goes on waiting for as long as somebody has this.
pub struct Caller<'a, M: Machine> {
    pub(crate) call: &'a Call<M>,
    pub(crate) generation: Generation,
}

impl<M: Machine> Caller<'_, M> {
    /// The name of its thread.
    pub fn thread(&self) -> usize {
        self.call.thread
    }

    /// How many handles the answer may bring.
    pub fn room(&self) -> usize {
        // SAFETY: the caller waits, and leaves its registers to whoever has this.
        let registers = unsafe { &*self.call.registers.load(Ordering::Relaxed) };
        ((registers[EXTRA] & options::ROOM) >> options::ROOM.trailing_zeros()) as usize
    }

    /// What the call carries, if anything.
    pub fn attachments(&mut self) -> Option<&mut Attachments> {
        // SAFETY: the record is this thread's for as long as it has this, and `&mut self` makes the reference the only
        // one.
        self.call.has_attachments(self.generation).then(|| unsafe { &mut *self.call.attachments.get() })
    }

    /// Asks the caller to bring in a page of a window, for which it is to be woken; `false` if it has tried before, and
    /// could not.
    pub fn want(&self, page: usize, write: bool) -> bool {
        let may_come = !self.call.is_broken.load(Ordering::Acquire);
        if may_come {
            let wanted = page & !WRITE | if write { WRITE } else { 0 };
            self.call.wanted.store(wanted, Ordering::Release);
        }
        may_come
    }
}
