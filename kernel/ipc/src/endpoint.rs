//! Endpoints: where calls, events and news of saved calls meet the threads that receive them.

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

/// Calls that are broken under one hold of the lock.
const BATCH: usize = 16;

/// What became of a call that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// A receiver has it, and was roused.
    Received(Generation),
    /// It waits for one.
    Queued(Generation),
}

/// What a receive found.
pub enum Received<M: Machine> {
    /// A call: its message is in the registers, and this answers it.
    Call(Reply<M>),
    /// Something else, which is in the registers.
    Other,
    /// Nothing yet: the receiver waits.
    Nothing,
}

/// A call that was handed over to a receiver's thread.
pub struct HandedOver<M: Machine> {
    /// Which call of its record it is.
    pub generation: Generation,
    /// The right to answer, for a receiver that is parked: its receive is over, and it does not
    /// [leave](Endpoint::leave). Another one comes for it when it leaves.
    pub reply: Option<Reply<M>>,
}

/// What became of an answer that was to be handed back ([`Endpoint::hand_back`]).
pub enum HandedBack<M: Machine> {
    /// The caller was claimed, and the server waits as a receiver. What is left of the reply is to be dropped.
    Claimed(Reply<M>),
    /// The caller was roused in the ordinary way, or is gone. The server does not wait yet, and drops what is left of
    /// the reply.
    Answered(Reply<M>),
    /// There is something to receive, or the endpoint is dead: nothing has happened.
    Busy(Reply<M>),
}

/// A thread that waits at an endpoint.
pub struct Receiver<M: Machine> {
    thread: usize,
    registers: Cell<*mut Registers>,
    /// Whether its thread is parked while it waits, so that whoever claims it ends its receive. The thread's own while
    /// it runs; read by whoever has claimed it.
    is_parked: Cell<bool>,
    link: LinkedListLink,
    /// Under the endpoint's lock while it is linked; afterwards the thread's own.
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
    /// A receiver for one receive of the thread `thread`, whose registers are these.
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

    /// One for all receives in which the thread with this name is parked. It is not waiting.
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

    /// Prepares a [reusable](Receiver::reusable) one for a wait of its thread, whose registers are these.
    #[inline]
    pub fn prepare(&self, registers: *mut Registers) {
        debug_assert!(!self.link.is_linked(), "a wait within a wait");
        self.registers.set(registers);
        self.is_parked.set(true);
    }

    /// Its thread has resumed, and is not parked if it sleeps again: it [leaves](Endpoint::leave) by itself.
    #[inline]
    pub fn resume(&self) {
        self.is_parked.set(false);
    }

    /// Whether it need not wait any more. It [leaves](Endpoint::leave) nevertheless: whoever served it may still be
    /// about to wake it.
    #[inline]
    pub fn is_served(&self) -> bool {
        self.state.load(Ordering::Acquire) != WAITS
    }

    /// Gives it a call's message and events.
    ///
    /// # Safety
    /// The receiver is in `Endpoint::receive`, or waits, and the endpoint's lock is held; the call's registers belong
    /// to its caller, which waits.
    #[inline]
    unsafe fn take_call(&self, call: &Call<M>, events: u64) {
        // SAFETY: the registers are the receiver's for as long as it waits (`Endpoint::receive` has that promise), the
        // lock makes the caller the only one who writes to them, and the other registers are those of another thread.
        let (to, from) = unsafe { (&mut *self.registers.get(), &*call.registers.load(Ordering::Relaxed)) };
        copy_message(to, from);
        (to[0], to[BADGE], to[EXTRA]) = (received::CALL, call.badge.load(Ordering::Relaxed), events);
    }

    /// Gives it a kind, a label and events.
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

/// What comes to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// It is not known yet.
    Undecided,
    /// Calls too: there was a sender.
    Calls,
    /// Events alone: a thread may receive here while it has a call to answer, and there will be no sender.
    Events,
}

// SAFETY: links, nodes and what they hold are only touched under the lock that this lives in. A node is taken out
// before its owner goes: a receiver by `Endpoint::leave`, a call by `Endpoint::withdraw`, a saved reply by its drop.
unsafe impl<M: Machine> Send for State<M> {}

impl<M: Machine> State<M> {
    /// Whether there is something to receive; if so, it is given to the receiver: one piece of news or one call, and
    /// all events.
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
            // SAFETY: a queued record is its caller's, which takes the lock before it lets go of it. `ManuallyDrop`,
            // since the queue owns nothing.
            let call = unsafe { ManuallyDrop::new(KArc::from_raw(UnsafeRef::into_raw(call))) };
            // SAFETY: the caller's promise; this call's caller waits, or comes for the lock.
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

    /// Takes the receiver out that has waited longest, to be given something.
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
    /// An endpoint where nothing has happened. `owner` is the process that receives there.
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

    /// Whether somebody may receive here, as it is now.
    pub fn is_open(&self) -> bool {
        !self.state.lock().is_dead
    }

    /// There will be a sender. EBUSY if somebody receives here who can take no call.
    pub fn admit_sender(&self) -> Result<(), Errno> {
        self.decide(Purpose::Calls)
    }

    /// There will be no sender: only events come here. EBUSY if there was one.
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

    /// Sends the message in `registers`. A waiting receiver gets it at once, and `rouse` is told its thread, under the
    /// lock: it does not end before `rouse` returns. EPIPE if the endpoint is dead.
    ///
    /// # Safety
    /// The caller owns the endpoint until the call has ended. `registers` are the calling thread's, which touches
    /// neither them nor the record, and does not end, before the call has ended: it has an [outcome](Call::outcome), or
    /// was [withdrawn](Endpoint::withdraw) or [given up](Endpoint::give_up).
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
            // SAFETY: the caller's promise: it comes to take the record out, unless a receiver has done so.
            state.calls.push_back(unsafe { UnsafeRef::from_raw(KArc::as_ptr(call)) });
            return Ok(Sent::Queued(generation));
        };
        let generation = call.word.begin_held();
        // SAFETY: the receiver was linked, so it waits and comes for the lock before it leaves; the registers of the
        // caller are its own.
        unsafe {
            receiver.take_call(call, core::mem::take(&mut state.events));
            *receiver.reply.get() = Some(Reply::new(self.machine, call.clone(), generation));
        }
        receiver.state.store(SERVED, Ordering::Release);
        rouse(receiver.thread);
        Ok(Sent::Received(generation))
    }

    /// As [`Endpoint::call`], if a receiver waits and `claim`, which is told its thread under the lock, says that this
    /// thread is now the caller's to run, and runs nowhere. `None`: nothing has happened.
    ///
    /// # Safety
    /// As [`Endpoint::call`]. And if the result is `Some`, whoever [answers](Endpoint::hand_back) may do with the
    /// calling thread what `claim` allows with the receiver.
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
            // (It may have receivers left: see `close`.)
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

    /// Answers a call and waits for the next, in one step: if there is nothing to receive, and `claim`, which is told
    /// the caller's thread under the lock, says that this thread is the server's to run, as in [`Endpoint::hand_over`].
    /// The call is over then for a caller that is parked, too, and `receiver` is linked. If the caller cannot be
    /// claimed `rouse` is told its thread, as in [`Reply::answer`].
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

    /// Takes the caller's call out of the queue; `false` if it is not in it any more.
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

    /// The caller gives up a call that was received, and its server is told if it has saved it. `false` if it is
    /// answered.
    pub fn give_up(&self, call: &Call<M>, generation: Generation) -> bool {
        let is_given_up = call.word.give_up(generation, || self.machine.relax());
        if is_given_up {
            self.tell(call, News::GONE);
        }
        is_given_up
    }

    /// The caller, whose call was received, has a signal to handle: its server is told if it has saved the call, or
    /// will be when it does so.
    pub fn interrupt(&self, call: &Call<M>) {
        self.tell(call, News::INTERRUPTED);
    }

    /// The caller has brought in the page that was wanted, or could not: as [`Endpoint::interrupt`].
    pub fn note_ready(&self, call: &Call<M>) {
        self.tell(call, News::READY);
    }

    fn tell(&self, call: &Call<M>, news: News) {
        let mut state = self.state.lock();
        let saved = match news {
            News::GONE => call.saved.swap(null_mut(), Ordering::Relaxed),
            _ => call.saved.load(Ordering::Relaxed),
        };
        // SAFETY: a saved reply that ends takes this lock to be forgotten first.
        match unsafe { saved.as_ref() } {
            Some(saved) => self.announce(&mut state, saved, news),
            // (The next call begins without news.)
            None => call.news.store(call.news.load(Ordering::Relaxed) | news.0, Ordering::Relaxed),
        }
    }

    /// Puts a saved reply among those with news, and rouses a receiver.
    fn announce(&self, state: &mut State<M>, saved: &Saved<M>, news: News) {
        saved.news.set(News(saved.news.get().0 | news.0));
        if !saved.link.is_linked() {
            // SAFETY: it takes itself out before it ends.
            state.news.push_back(unsafe { UnsafeRef::from_raw(saved) });
        }
        self.serve(state);
    }

    /// Gives what there is to the receiver that has waited longest.
    fn serve(&self, state: &mut State<M>) {
        let Some(receiver) = state.next_receiver() else { return };
        // SAFETY: the receiver was linked, so it waits, and comes for the lock, which is held, before it leaves.
        unsafe {
            if let Received::Call(reply) = state.give(self.machine, &receiver) {
                *receiver.reply.get() = Some(reply);
            }
            receiver.state.store(SERVED, Ordering::Release);
            self.machine.unpark(receiver.thread);
        }
    }

    /// A saved reply is known to its call from here on; `false` if the caller is gone.
    pub(crate) fn register(&self, saved: &Saved<M>) -> bool {
        let mut state = self.state.lock();
        let call = saved.reply().call();
        // A caller that gives up says so in the word first, then comes for the lock of its endpoint: it must be this
        // one.
        if !saved.reply().is_of(self) || !saved.reply().is_awaited() {
            return false;
        }
        call.saved.store(core::ptr::from_ref(saved).cast_mut(), Ordering::Relaxed);
        // (Its own, if it was known before and has news that nobody has received.)
        let news = News(call.news.swap(0, Ordering::Relaxed) | saved.news.get().0);
        if news != News::NONE {
            self.announce(&mut state, saved, news);
        }
        true
    }

    /// A saved reply is not known any more.
    pub(crate) fn unregister(&self, saved: &Saved<M>) {
        let mut state = self.state.lock();
        saved.reply().call().forget_saved(saved);
        if saved.link.is_linked() {
            // SAFETY: a linked one is among those with news of this endpoint, whose lock is held.
            unsafe { state.news.cursor_mut_from_ptr(saved).remove() };
        }
    }

    /// Receives what there is. Otherwise the receiver waits, unless it has no time: EAGAIN. EPIPE if the endpoint is
    /// dead.
    ///
    /// # Safety
    /// The receiver's registers are the calling thread's, which touches neither them nor the receiver, and does not
    /// end, before it has left ([`Endpoint::leave`]) if it waits.
    #[inline]
    pub unsafe fn receive(&self, receiver: &Receiver<M>, may_wait: bool) -> Result<Received<M>, Errno> {
        let mut state = self.state.lock();
        if state.is_dead {
            return Err(Errno::EPIPE);
        }
        // SAFETY: it receives, and the lock is held.
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
            // SAFETY: a linked one waits here, and the lock is held.
            unsafe { state.receivers.cursor_mut_from_ptr(receiver).remove() };
            return Ok(Received::Nothing);
        }
        // (What is reusable is as new then.)
        if receiver.state.swap(WAITS, Ordering::Relaxed) == DEAD {
            return Err(Errno::EPIPE);
        }
        // SAFETY: not linked: nobody else looks at it.
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

    /// The endpoint dies: nobody receives there any more. Queued calls break; calls that were received can be answered.
    /// `point` is passed with no lock held.
    pub fn close(&self, mut point: impl FnMut()) {
        while self.close_some() {
            point();
        }
    }

    /// Answers whether there is more to do.
    fn close_some(&self) -> bool {
        let mut state = self.state.lock();
        state.is_dead = true;
        for _ in 0..BATCH {
            if let Some(receiver) = state.receivers.pop_front() {
                receiver.state.store(DEAD, Ordering::Release);
                // SAFETY: it was linked, so its thread comes for the lock before it leaves.
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
