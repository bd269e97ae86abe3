//! Call records: each thread that calls has one, and uses it for all its calls in turn.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use intrusive_collections::{LinkedListLink, UnsafeRef, intrusive_adapter};
use quire_abi::ipc::{Attachments, options};
use quire_mm::Machine;
use quire_mm::fallible::{AllocError, KArc};

use super::reply::Saved;
use super::word::{Generation, Outcome, Word};

/// The registers x0 to x10 of a thread that sleeps in a call or a receive, or a substitute for them: x0 is the result,
/// x1 to x7 the message, x9 the badge. In x10 the sender passes its options and how many of its six words are used; the
/// receiver finds the events that have arrived there.
pub type Registers = [u64; 11];

/// The label and the words in [`Registers`].
pub(crate) const MESSAGE: core::ops::Range<usize> = 1..8;
/// The badge in [`Registers`].
pub(crate) const BADGE: usize = 9;
/// The sender's options, or the receiver's events, in [`Registers`].
pub(crate) const EXTRA: usize = 10;

/// Copies a message: the label, and as many words as the sender uses. The receiver's remaining message registers become
/// zero, whatever the sender's contain.
#[inline]
pub(crate) fn copy_message(to: &mut Registers, from: &Registers) {
    if from[EXTRA] & options::WORDS >= 6 {
        // (An array pattern, so that the values go through registers instead of a call of memcpy.)
        let [_, label, a, b, c, d, e, f, ..] = *from;
        [to[1], to[2], to[3], to[4], to[5], to[6], to[7]] = [label, a, b, c, d, e, f];
        return;
    }
    let end = MESSAGE.start + (from[EXTRA] & options::WORDS).min(6) as usize;
    for i in MESSAGE {
        to[i] = if i <= end { from[i] } else { 0 };
    }
}

/// A thread's calls. Shared with replies, which may outlive the caller's wait.
pub struct Call<M: Machine> {
    pub(crate) word: Word,
    /// The caller's thread, for whoever wakes it.
    pub(crate) thread: usize,
    /// The caller's registers. Written by the caller between calls; read while the call is under way.
    pub(crate) registers: AtomicPtr<Registers>,
    /// The address of the endpoint, of which the caller holds a reference. Accessed as `registers`.
    pub(crate) endpoint: AtomicUsize,
    /// The badge of the sender. Accessed as `registers`.
    pub(crate) badge: AtomicU64,
    /// Whether the caller is parked while it waits: see [`Endpoint::hand_over`](super::Endpoint::hand_over). Accessed
    /// as `registers`.
    pub(crate) is_parked: AtomicBool,
    /// The link in an endpoint's queue, under its lock.
    pub(crate) link: LinkedListLink,
    /// The saved reply to this call, if there is one, for as long as the call is held. Under the lock of the call's
    /// endpoint.
    pub(crate) saved: AtomicPtr<Saved<M>>,
    /// The news that the server receives as soon as it saves the call, except [`News::GONE`](super::News::GONE).
    /// Accessed as `saved`.
    pub(crate) news: AtomicU32,
    /// The attachments of the call that [`Call::attached_to`] names. Written by the caller between calls, and by a
    /// thread that [works](super::Reply::with_caller) on the caller.
    pub(crate) attachments: UnsafeCell<Attachments>,
    /// The number of the last generation whose call has attachments. A plain call accesses neither this field nor the
    /// following ones.
    pub(crate) attached_to: AtomicU64,
    /// The address of a page of a window that the caller must bring in, with [`WRITE`] if it will be written;
    /// [`NOTHING`] for none.
    pub(crate) wanted: AtomicUsize,
    /// The caller failed to bring a page in, and is not asked again.
    pub(crate) is_broken: AtomicBool,
}

/// Neither the number of a generation nor the address of a page.
const NOTHING: usize = usize::MAX;
/// In [`Call::wanted`]: for writing.
const WRITE: usize = 1;

intrusive_adapter!(pub(crate) InQueue<M> = UnsafeRef<Call<M>>: Call<M> { link => LinkedListLink } where M: Machine);

// SAFETY: the link is only touched under the lock of the endpoint in whose queue it is; the attachments by the caller
// between calls, and by the one thread at a time that is between `Word::begin_answer` and its end; the rest is atomic.
unsafe impl<M: Machine> Sync for Call<M> {}
// SAFETY: as above; nothing in it is bound to a CPU.
unsafe impl<M: Machine> Send for Call<M> {}

impl<M: Machine> Call<M> {
    /// The record of the thread with this name, which has not called yet and will use it for all its calls.
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

    /// Records who calls, and with which message. Called between calls.
    pub(crate) fn describe(&self, registers: *mut Registers, endpoint: usize, badge: u64, is_parked: bool) {
        self.registers.store(registers, Ordering::Relaxed);
        self.endpoint.store(endpoint, Ordering::Relaxed);
        self.badge.store(badge, Ordering::Relaxed);
        self.is_parked.store(is_parked, Ordering::Relaxed);
        self.news.store(0, Ordering::Relaxed);
    }

    /// Sets the attachments of the caller's next call. Called between calls.
    pub fn load(&self, attachments: Attachments) {
        // SAFETY: no call is under way, so no other thread works on the caller.
        unsafe { *self.attachments.get() = attachments };
        self.wanted.store(NOTHING, Ordering::Relaxed);
        self.is_broken.store(false, Ordering::Relaxed);
        // (The endpoint's lock publishes all of this.)
        self.attached_to.store(self.word.next().number(), Ordering::Relaxed);
    }

    /// Removes the attachments of the caller's next call, since the call that they were loaded for was not made. Called
    /// between calls.
    pub fn unload(&self) {
        self.attached_to.store(NOTHING as u64, Ordering::Relaxed);
    }

    /// Whether the caller's call has attachments.
    #[inline]
    pub fn has_attachments(&self, call: Generation) -> bool {
        self.attached_to.load(Ordering::Relaxed) == call.number()
    }

    /// Takes the page that the caller must bring in, and whether it will be written. Called by the caller, during a
    /// call with attachments.
    pub fn take_wanted(&self) -> Option<(usize, bool)> {
        let wanted = self.wanted.swap(NOTHING, Ordering::Acquire);
        (wanted != NOTHING).then_some((wanted & !WRITE, wanted & WRITE != 0))
    }

    /// Notes that the caller could not bring the page in.
    pub fn note_broken(&self) {
        self.is_broken.store(true, Ordering::Release);
    }

    /// Notes that the caller, which was parked, has resumed: if it sleeps again, it completes its call itself.
    #[inline]
    pub fn resume(&self) {
        // Whoever reads this has claimed the caller, after it has gone to sleep again.
        self.is_parked.store(false, Ordering::Relaxed);
    }

    /// How the call has ended; `None` while it has not.
    #[inline]
    pub fn outcome(&self, machine: M) -> Option<Outcome> {
        self.word.outcome(|| machine.relax())
    }

    /// Notes that the caller has seen how its call ended.
    #[inline]
    pub fn finish(&self, call: Generation) {
        self.word.finish(call);
    }
}

/// A caller that waits for its answer, and keeps waiting for as long as this value exists.
pub struct Caller<'a, M: Machine> {
    pub(crate) call: &'a Call<M>,
    pub(crate) generation: Generation,
}

impl<M: Machine> Caller<'_, M> {
    /// The name of its thread.
    pub fn thread(&self) -> usize {
        self.call.thread
    }

    /// The maximum number of handles in the answer.
    pub fn room(&self) -> usize {
        // SAFETY: the caller waits, and leaves its registers to the owner of this value.
        let registers = unsafe { &*self.call.registers.load(Ordering::Relaxed) };
        ((registers[EXTRA] & options::ROOM) >> options::ROOM.trailing_zeros()) as usize
    }

    /// The attachments of the call, if it has any.
    pub fn attachments(&mut self) -> Option<&mut Attachments> {
        // SAFETY: the record belongs to this thread while this value exists, and `&mut self` makes the reference the
        // only one.
        self.call.has_attachments(self.generation).then(|| unsafe { &mut *self.call.attachments.get() })
    }

    /// Asks the caller to bring in a page of a window; this function's caller must wake it. `false` if the caller has
    /// tried before and failed.
    pub fn want(&self, page: usize, write: bool) -> bool {
        let may_come = !self.call.is_broken.load(Ordering::Acquire);
        if may_come {
            let wanted = page & !WRITE | if write { WRITE } else { 0 };
            self.call.wanted.store(wanted, Ordering::Release);
        }
        may_come
    }
}
