//! Endpoints: calls, events and news of saved calls wait here for threads that receive them, or the other way round.

use core::cell::{Cell, UnsafeCell};
use core::mem::ManuallyDrop;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicU32, Ordering};

use intrusive_collections::{LinkedList, LinkedListLink, UnsafeRef, intrusive_adapter};
use quire_abi::Errno;
use quire_abi::ipc::received;
use quire_mm::Machine;
use quire_mm::fallible::{AllocError, KArc};
use quire_mm::sync::{Rank, SpinLock};

use super::call::{BADGE, Call, EXTRA, InQueue, MESSAGE, Registers, copy_message};
use super::reply::{News, Reply, Saved, WithNews};
use super::word::{Generation, Outcome};

/// The number of calls that are broken under one hold of the lock.
const BATCH: usize = 16;

/// The result of sending a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// A receiver has it, and was roused.
    Received(Generation),
    /// It waits for one.
    Queued(Generation),
}

/// The result of a receive.
pub enum Received<M: Machine> {
    /// A call: its message is in the registers, and this reply answers it.
    Call(Reply<M>),
    /// Something else, which is described in the registers.
    Other,
    /// Nothing yet: the receiver waits.
    Nothing,
}

/// A call that was handed over to a receiver's thread.
pub struct HandedOver<M: Machine> {
    /// The generation of the call in its record.
    pub generation: Generation,
    /// The right to answer, for a receiver that is parked: its receive is complete, and it does not
    /// [leave](Endpoint::leave). A receiver that is not parked gets it when it leaves.
    pub reply: Option<Reply<M>>,
}

/// The result of [`Endpoint::hand_back`].
pub enum HandedBack<M: Machine> {
    /// The caller was claimed, and the server waits as a receiver. The server must drop the rest of the reply.
    Claimed(Reply<M>),
    /// The caller was roused in the ordinary way, or is gone. The server does not wait yet, and must drop the rest of
    /// the reply.
    Answered(Reply<M>),
    /// There is something to receive, or the endpoint is dead: nothing has happened.
    Busy(Reply<M>),
}

/// A thread that waits at an endpoint.
pub struct Receiver<M: Machine> {
    thread: usize,
    registers: Cell<*mut Registers>,
    /// Whether its thread is parked while it waits, so that whoever claims the thread completes its receive. Written by
    /// the thread itself while it runs; read by whoever has claimed it.
    is_parked: Cell<bool>,
    link: LinkedListLink,
    /// Under the endpoint's lock while the receiver is linked; otherwise the thread's own.
    reply: UnsafeCell<Option<Reply<M>>>,
    /// [`WAITS`], [`SERVED`] or [`DEAD`]. Changed under the endpoint's lock.
    state: AtomicU32,
}

/// Nothing has come yet.
const WAITS: u32 = 0;
/// Something is in the registers.
const SERVED: u32 = 1;
/// The endpoint died.
const DEAD: u32 = 2;

intrusive_adapter!(Waiting<M> = UnsafeRef<Receiver<M>>: Receiver<M> { link => LinkedListLink } where M: Machine);

impl<M: Machine> Receiver<M> {
    /// A receiver for one receive of the thread `thread` with these registers.
    pub fn new(thread: usize, registers: *mut Registers) -> Self {
        Self {
            thread,
            registers: Cell::new(registers),
            is_parked: Cell::new(false),
            link: LinkedListLink::new(),
            reply: UnsafeCell::new(None),
            state: AtomicU32::new(WAITS),
        }
    }

    /// A receiver for all receives in which the thread with this name is parked. It does not wait yet.
    pub const fn reusable(thread: usize) -> Self {
        Self {
            thread,
            registers: Cell::new(null_mut()),
            is_parked: Cell::new(false),
            link: LinkedListLink::new(),
            reply: UnsafeCell::new(None),
            state: AtomicU32::new(WAITS),
        }
    }

    /// Prepares a [reusable](Receiver::reusable) receiver for a wait of its thread with these registers.
    #[inline]
    pub fn prepare(&self, registers: *mut Registers) {
        debug_assert!(!self.link.is_linked(), "a wait within a wait");
        self.registers.set(registers);
        self.is_parked.set(true);
    }

    /// Notes that its thread has resumed. If the thread sleeps again, it is not parked, and [leaves](Endpoint::leave)
    /// by itself.
    #[inline]
    pub fn resume(&self) {
        self.is_parked.set(false);
    }

    /// Whether it need not wait any more. It must [leave](Endpoint::leave) nevertheless: whoever served it may still be
    /// about to wake it.
    #[inline]
    pub fn is_served(&self) -> bool {
        self.state.load(Ordering::Acquire) != WAITS
    }

    /// Gives the receiver a call's message and the events.
    ///
    /// # Safety
    /// The receiver is in `Endpoint::receive`, or waits, and the endpoint's lock is held; the call's registers belong
    /// to its caller, which waits.
    #[inline]
    unsafe fn take_call(&self, call: &Call<M>, events: u64) {
        // SAFETY: the registers are the receiver's for as long as it waits (a promise of `Endpoint::receive`); the lock
        // makes this thread the only one that writes to them; and the other registers belong to another thread.
        let (to, from) = unsafe { (&mut *self.registers.get(), &*call.registers.load(Ordering::Relaxed)) };
        copy_message(to, from);
        (to[0], to[BADGE], to[EXTRA]) = (received::CALL, call.badge.load(Ordering::Relaxed), events);
    }

    /// Gives the receiver a kind, a label and the events.
    ///
    /// # Safety
    /// As [`Receiver::take_call`].
    unsafe fn take_word(&self, kind: u64, label: u64, events: u64) {
        // SAFETY: as in `take_call`.
        let to = unsafe { &mut *self.registers.get() };
        to[MESSAGE].fill(0);
        (to[0], to[MESSAGE.start], to[BADGE], to[EXTRA]) = (kind, label, 0, events);
    }
}

struct State<M: Machine> {
    calls: LinkedList<InQueue<M>>,
    receivers: LinkedList<Waiting<M>>,
    news: LinkedList<WithNews<M>>,
    events: u64,
    is_dead: bool,
    purpose: Purpose,
}

/// The kinds of messages to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// It is not known yet.
    Undecided,
    /// Calls too: a sender exists or existed.
    Calls,
    /// Only events: a thread may receive here while it has a call to answer, and no sender will be made.
    Events,
}

// SAFETY: links, nodes and their contents are only touched under the lock that protects this state. A node is removed
// before its owner ends: a receiver by `Endpoint::leave`, a call by `Endpoint::withdraw`, a saved reply by its drop.
unsafe impl<M: Machine> Send for State<M> {}

impl<M: Machine> State<M> {
    /// Gives the receiver what there is to receive, if anything: one piece of news or one call, and all events.
    ///
    /// # Safety
    /// As [`Receiver::take_call`].
    unsafe fn give(&mut self, machine: M, receiver: &Receiver<M>) -> Received<M> {
        if let Some(saved) = self.news.pop_front() {
            let (kind, rest) = saved.news.get().first();
            saved.news.set(rest);
            // SAFETY: the caller's promise.
            unsafe { receiver.take_word(kind, saved.token, core::mem::take(&mut self.events)) };
            if rest != News::NONE {
                self.news.push_back(saved);
            }
            return Received::Other;
        }
        if let Some(call) = self.calls.pop_front() {
            // SAFETY: a queued record is kept by its caller, which takes the lock before it lets go of it.
            // `ManuallyDrop`, since the queue owns nothing.
            let call = unsafe { ManuallyDrop::new(KArc::from_raw(UnsafeRef::into_raw(call))) };
            // SAFETY: the caller's promise; the caller of this call waits, or will take the lock.
            unsafe { receiver.take_call(&call, core::mem::take(&mut self.events)) };
            let generation = call.word.hold();
            return Received::Call(Reply::new(machine, KArc::clone(&call), generation));
        }
        match core::mem::take(&mut self.events) {
            0 => Received::Nothing,
            events => {
                // SAFETY: the caller's promise.
                unsafe { receiver.take_word(received::EVENTS, 0, events) };
                Received::Other
            }
        }
    }

    /// Whether a receive would not wait.
    #[inline]
    fn has_something(&self) -> bool {
        self.events != 0 || self.is_dead || !self.calls.is_empty() || !self.news.is_empty()
    }

    /// Removes the receiver that has waited longest, to serve it.
    #[inline]
    fn next_receiver(&mut self) -> Option<UnsafeRef<Receiver<M>>> {
        self.receivers.pop_front()
    }
}

/// See the module.
pub struct Endpoint<M: Machine> {
    state: SpinLock<State<M>, M>,
    machine: M,
    owner: u32,
}

impl<M: Machine> Endpoint<M> {
    /// An endpoint without calls or events. `owner` is the process that receives there.
    pub fn try_new(machine: M, owner: u32) -> Result<KArc<Self>, AllocError> {
        let state = State {
            calls: LinkedList::new(InQueue::NEW),
            receivers: LinkedList::new(Waiting::NEW),
            news: LinkedList::new(WithNews::NEW),
            events: 0,
            is_dead: false,
            purpose: Purpose::Undecided,
        };
        KArc::try_new(Self { state: SpinLock::new(machine, Rank::Object, state), machine, owner })
    }

    /// The process that receives here.
    pub fn owner(&self) -> u32 {
        self.owner
    }

    /// Whether the endpoint is alive at this moment.
    pub fn is_open(&self) -> bool {
        !self.state.lock().is_dead
    }

    /// Notes that there will be a sender. EBUSY if a thread receives here that can take no call.
    pub fn admit_sender(&self) -> Result<(), Errno> {
        self.decide(Purpose::Calls)
    }

    /// Notes that there will be no sender, only events. EBUSY if there was a sender.
    pub fn admit_events_alone(&self) -> Result<(), Errno> {
        self.decide(Purpose::Events)
    }

    fn decide(&self, wanted: Purpose) -> Result<(), Errno> {
        let mut state = self.state.lock();
        if state.purpose == Purpose::Undecided {
            state.purpose = wanted;
        }
        if state.purpose == wanted { Ok(()) } else { Err(Errno::EBUSY) }
    }

    /// Sends the message in `registers`. A waiting receiver gets it at once; then `rouse` is called under the lock with
    /// the receiver's thread, which does not end before `rouse` returns. EPIPE if the endpoint is dead.
    ///
    /// # Safety
    /// The caller keeps the endpoint alive until the call has ended. `registers` belong to the calling thread, which
    /// touches neither them nor the record, and does not end, before the call has ended: the call has an
    /// [outcome](Call::outcome), or was [withdrawn](Endpoint::withdraw) or [given up](Endpoint::give_up).
    #[inline]
    pub unsafe fn call(
        &self,
        call: &KArc<Call<M>>,
        registers: *mut Registers,
        badge: u64,
        rouse: impl FnOnce(usize),
    ) -> Result<Sent, Errno> {
        call.describe(registers, core::ptr::from_ref(self).addr(), badge, false);
        let mut state = self.state.lock();
        if state.is_dead {
            return Err(Errno::EPIPE);
        }
        let Some(receiver) = state.next_receiver() else {
            let generation = call.word.begin_queued();
            // SAFETY: the caller's promise: it removes the record, unless a receiver has done so.
            state.calls.push_back(unsafe { UnsafeRef::from_raw(KArc::as_ptr(call)) });
            return Ok(Sent::Queued(generation));
        };
        let generation = call.word.begin_held();
        // SAFETY: the receiver was linked, so it waits and takes the lock before it leaves; the registers of the caller
        // are its own.
        unsafe {
            receiver.take_call(call, core::mem::take(&mut state.events));
            *receiver.reply.get() = Some(Reply::new(self.machine, call.clone(), generation));
        }
        receiver.state.store(SERVED, Ordering::Release);
        rouse(receiver.thread);
        Ok(Sent::Received(generation))
    }

    /// As [`Endpoint::call`], but only if a receiver waits and `claim`, called under the lock with its thread, returns
    /// that this thread runs nowhere and is now the caller's to run. `None`: nothing has happened.
    ///
    /// # Safety
    /// As [`Endpoint::call`]. And if the result is `Some`, whoever [answers](Endpoint::hand_back) may do with the
    /// calling thread what `claim` allows the caller to do with the receiver.
    #[inline]
    pub unsafe fn hand_over(
        &self,
        call: &KArc<Call<M>>,
        registers: *mut Registers,
        badge: u64,
        claim: impl FnOnce(usize) -> bool,
    ) -> Option<HandedOver<M>> {
        let mut state = self.state.lock();
        if state.is_dead {
            // (A dead endpoint may have receivers left: see `close`.)
            return None;
        }
        let receiver = state.receivers.front().get()?;
        if !claim(receiver.thread) {
            return None;
        }
        let receiver = state.next_receiver()?;
        call.describe(registers, core::ptr::from_ref(self).addr(), badge, true);
        let generation = call.word.begin_held();
        // SAFETY: the receiver was linked and waits; the registers of the caller are its own.
        unsafe { receiver.take_call(call, core::mem::take(&mut state.events)) };
        let reply = Reply::new(self.machine, call.clone(), generation);
        if receiver.is_parked.get() {
            return Some(HandedOver { generation, reply: Some(reply) });
        }
        // SAFETY: as above, under the lock.
        unsafe { *receiver.reply.get() = Some(reply) };
        receiver.state.store(SERVED, Ordering::Release);
        Some(HandedOver { generation, reply: None })
    }

    /// Answers a call and waits for the next one, in one step, provided that there is nothing to receive, and that
    /// `claim`, called under the lock with the caller's thread, returns that this thread is the server's to run, as in
    /// [`Endpoint::hand_over`]. Then the call is complete, also for a caller that is parked, and `receiver` is linked.
    /// If the caller cannot be claimed, `rouse` is called with its thread, as in [`Reply::answer`].
    ///
    /// # Safety
    /// As [`Endpoint::receive`], if the caller is claimed. The receiver's registers hold the answer.
    #[inline(always)]
    pub unsafe fn hand_back(
        &self,
        reply: Reply<M>,
        receiver: &Receiver<M>,
        claim: impl FnOnce(usize) -> bool,
        rouse: impl FnOnce(usize),
    ) -> HandedBack<M> {
        let mut state = self.state.lock();
        if state.has_something() {
            return HandedBack::Busy(reply);
        }
        // SAFETY: the registers are the server's own.
        let from = unsafe { &*receiver.registers.get() };
        match reply.hand_back(from, claim, rouse) {
            (used, true) => {
                // SAFETY: the caller's promise.
                state.receivers.push_back(unsafe { UnsafeRef::from_raw(receiver) });
                HandedBack::Claimed(used)
            }
            (used, false) => HandedBack::Answered(used),
        }
    }

    /// Takes the caller's call out of the queue; `false` if it is no longer there.
    pub fn withdraw(&self, call: &Call<M>, generation: Generation) -> bool {
        let mut state = self.state.lock();
        let is_queued = call.word.is_queued();
        if is_queued {
            // SAFETY: a queued record is in this queue, whose lock is held.
            unsafe { state.calls.cursor_mut_from_ptr(call).remove() };
            call.word.finish(generation);
        }
        is_queued
    }

    /// The caller gives up a call that was received; the server is told if it has saved the call. `false` if the call
    /// was answered.
    pub fn give_up(&self, call: &Call<M>, generation: Generation) -> bool {
        let is_given_up = call.word.give_up(generation, || self.machine.relax());
        if is_given_up {
            self.tell(call, News::GONE);
        }
        is_given_up
    }

    /// Notes that the caller, whose call was received, has a signal to handle: the server is told if it has saved the
    /// call, or as soon as it saves it.
    pub fn interrupt(&self, call: &Call<M>) {
        self.tell(call, News::INTERRUPTED);
    }

    /// Notes that the caller has brought in the wanted page, or failed to. The server is told as by
    /// [`Endpoint::interrupt`].
    pub fn note_ready(&self, call: &Call<M>) {
        self.tell(call, News::READY);
    }

    fn tell(&self, call: &Call<M>, news: News) {
        let mut state = self.state.lock();
        let saved = match news {
            News::GONE => call.saved.swap(null_mut(), Ordering::Relaxed),
            _ => call.saved.load(Ordering::Relaxed),
        };
        // SAFETY: a saved reply takes this lock to be forgotten before it ends.
        match unsafe { saved.as_ref() } {
            Some(saved) => self.announce(&mut state, saved, news),
            // (The record's next call begins without news.)
            None => call.news.store(call.news.load(Ordering::Relaxed) | news.0, Ordering::Relaxed),
        }
    }

    /// Adds a saved reply to the list of those with news, and serves a receiver.
    fn announce(&self, state: &mut State<M>, saved: &Saved<M>, news: News) {
        saved.news.set(News(saved.news.get().0 | news.0));
        if !saved.link.is_linked() {
            // SAFETY: the saved reply removes itself before it ends.
            state.news.push_back(unsafe { UnsafeRef::from_raw(saved) });
        }
        self.serve(state);
    }

    /// Gives what there is to receive to the receiver that has waited longest.
    fn serve(&self, state: &mut State<M>) {
        let Some(receiver) = state.next_receiver() else { return };
        // SAFETY: the receiver was linked, so it waits, and takes the lock, which is held here, before it leaves.
        unsafe {
            if let Received::Call(reply) = state.give(self.machine, &receiver) {
                *receiver.reply.get() = Some(reply);
            }
            receiver.state.store(SERVED, Ordering::Release);
            self.machine.unpark(receiver.thread);
        }
    }

    /// Makes a saved reply known to its call; `false` if the caller is gone.
    pub(crate) fn register(&self, saved: &Saved<M>) -> bool {
        let mut state = self.state.lock();
        let call = saved.reply().call();
        // A caller that gives up first says so in the word, then takes the lock of its endpoint: it must be this
        // endpoint.
        if !saved.reply().is_of(self) || !saved.reply().is_awaited() {
            return false;
        }
        call.saved.store(core::ptr::from_ref(saved).cast_mut(), Ordering::Relaxed);
        // (Including the saved reply's own news, if it was known before and has news that nobody has received.)
        let news = News(call.news.swap(0, Ordering::Relaxed) | saved.news.get().0);
        if news != News::NONE {
            self.announce(&mut state, saved, news);
        }
        true
    }

    /// Makes a saved reply unknown to its call.
    pub(crate) fn unregister(&self, saved: &Saved<M>) {
        let mut state = self.state.lock();
        saved.reply().call().forget_saved(saved);
        if saved.link.is_linked() {
            // SAFETY: a linked reply is in the list of those with news of this endpoint, whose lock is held.
            unsafe { state.news.cursor_mut_from_ptr(saved).remove() };
        }
    }

    /// Receives what there is. If there is nothing, the receiver waits, or gets EAGAIN if it may not wait. EPIPE if the
    /// endpoint is dead.
    ///
    /// # Safety
    /// The receiver's registers belong to the calling thread. If it waits, it touches neither them nor the receiver,
    /// and does not end, before it has left ([`Endpoint::leave`]).
    #[inline]
    pub unsafe fn receive(&self, receiver: &Receiver<M>, may_wait: bool) -> Result<Received<M>, Errno> {
        let mut state = self.state.lock();
        if state.is_dead {
            return Err(Errno::EPIPE);
        }
        // SAFETY: the receiver is in `receive`, and the lock is held.
        let received = unsafe { state.give(self.machine, receiver) };
        if let Received::Nothing = received {
            if !may_wait {
                return Err(Errno::EAGAIN);
            }
            // SAFETY: the caller's promise.
            state.receivers.push_back(unsafe { UnsafeRef::from_raw(receiver) });
        }
        Ok(received)
    }

    /// Ends the wait of a receiver, whether or not it was given something. EPIPE if the endpoint has died.
    pub fn leave(&self, receiver: &Receiver<M>) -> Result<Received<M>, Errno> {
        let mut state = self.state.lock();
        if receiver.link.is_linked() {
            // SAFETY: a linked receiver waits here, and the lock is held.
            unsafe { state.receivers.cursor_mut_from_ptr(receiver).remove() };
            return Ok(Received::Nothing);
        }
        // (This also resets a reusable receiver.)
        if receiver.state.swap(WAITS, Ordering::Relaxed) == DEAD {
            return Err(Errno::EPIPE);
        }
        // SAFETY: the receiver is not linked, so nobody else accesses it.
        Ok(unsafe { (*receiver.reply.get()).take() }.map_or(Received::Other, Received::Call))
    }

    /// Sets event bits. EPIPE if the endpoint is dead.
    pub fn signal(&self, bits: u64) -> Result<(), Errno> {
        let mut state = self.state.lock();
        if state.is_dead {
            return Err(Errno::EPIPE);
        }
        state.events |= bits;
        if state.events != 0 {
            self.serve(&mut state);
        }
        Ok(())
    }

    /// Kills the endpoint: nobody receives there any more. Queued calls are broken; calls that were received can still
    /// be answered. `point` is called with no lock held.
    pub fn close(&self, mut point: impl FnMut()) {
        while self.close_some() {
            point();
        }
    }

    /// Returns whether there is more to do.
    fn close_some(&self) -> bool {
        let mut state = self.state.lock();
        state.is_dead = true;
        for _ in 0..BATCH {
            if let Some(receiver) = state.receivers.pop_front() {
                receiver.state.store(DEAD, Ordering::Release);
                // SAFETY: the receiver was linked, so its thread takes the lock before it leaves.
                unsafe { self.machine.unpark(receiver.thread) };
            } else if let Some(call) = state.calls.pop_front() {
                let generation = call.word.break_queued();
                // SAFETY: the caller waits until the answer has ended.
                unsafe { self.machine.unpark(call.thread) };
                call.word.end_answer(generation, Outcome::Broken);
            } else {
                return false;
            }
        }
        true
    }
}
