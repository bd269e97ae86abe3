//! Replies: the right to answer one call, once.

use core::cell::Cell;
use core::ptr::null_mut;
use core::sync::atomic::Ordering;

use intrusive_collections::{LinkedListLink, UnsafeRef, intrusive_adapter};
use quire_mm::Machine;
use quire_mm::fallible::{AllocError, KArc};

use super::call::{BADGE, Call, EXTRA, Registers, copy_message};
use super::endpoint::Endpoint;
use super::word::{Generation, Outcome};

/// The right to answer one call. Whoever drops it unused breaks the call.
pub struct Reply<M: Machine> {
    call: KArc<Call<M>>,
    generation: Generation,
    machine: M,
}

impl<M: Machine> Reply<M> {
    /// The reply to a call that has just become held.
    #[inline]
    pub(crate) fn new(machine: M, call: KArc<Call<M>>, generation: Generation) -> Self {
        Self { call, generation, machine }
    }

    /// Whether the caller is parked, so that whoever answers by [`Endpoint::hand_back`] ends its call. Before the answer has ended.
    #[inline]
    fn is_of_parked(&self) -> bool {
        self.call.is_parked.load(Ordering::Relaxed)
    }

    /// Gives up what is left of a reply that was used.
    #[inline]
    pub fn into_record(self) -> KArc<Call<M>> {
        debug_assert!(!self.is_awaited(), "a reply that was not used");
        // SAFETY: the reply is forgotten, so its call is read out of it once.
        let record = unsafe { core::ptr::read(&self.call) };
        core::mem::forget(self);
        record
    }

    pub(crate) fn call(&self) -> &Call<M> {
        &self.call
    }

    /// Whether the caller still waits.
    #[inline]
    pub fn is_awaited(&self) -> bool {
        self.call.word.is_held(self.generation)
    }

    /// Whether the call came by this endpoint. Only for a call that [is awaited](Reply::is_awaited) afterwards: the record of
    /// another may be in a call to anybody.
    pub fn is_of(&self, endpoint: &Endpoint<M>) -> bool {
        self.call.endpoint.load(Ordering::Acquire) == core::ptr::from_ref(endpoint).addr()
    }

    /// Answers with the message in `from`. `rouse` is told the caller, and makes it runnable or sees to it that it will be;
    /// the caller does not go on before this returns. `false` if it is gone.
    #[inline]
    pub fn answer(self, from: &Registers, rouse: impl FnOnce(usize)) -> bool {
        self.end_with(from, rouse)
    }

    /// [`Endpoint::hand_back`] for the caller: what is left of the reply, and whether the caller was claimed.
    #[inline(always)]
    pub(crate) fn hand_back(
        self,
        from: &Registers,
        claim: impl FnOnce(usize) -> bool,
        rouse: impl FnOnce(usize),
    ) -> (Self, bool) {
        let call = &*self.call;
        if !call.word.begin_answer(self.generation) {
            return (self, false);
        }
        // SAFETY: as in `end`.
        give_answer(unsafe { &mut *call.registers.load(Ordering::Relaxed) }, from);
        let thread = call.thread.load(Ordering::Relaxed);
        let is_claimed = claim(thread);
        if is_claimed && self.is_of_parked() {
            // In the place of the caller, which does not run.
            call.word.finish(self.generation);
            return (self, true);
        }
        if !is_claimed {
            rouse(thread);
        }
        call.word.end_answer(self.generation, Outcome::Answered);
        (self, is_claimed)
    }

    #[inline]
    fn end_with(&self, from: &Registers, rouse: impl FnOnce(usize)) -> bool {
        self.end(Outcome::Answered, rouse, |to| give_answer(to, from))
    }

    #[inline]
    fn end(&self, outcome: Outcome, rouse: impl FnOnce(usize), write: impl FnOnce(&mut Registers)) -> bool {
        let call = &*self.call;
        let irq = self.machine.irq_save();
        let is_awaited = call.word.begin_answer(self.generation);
        if is_awaited {
            // SAFETY: between `begin_answer` and `end_answer` the caller waits and leaves its registers to us
            // (`Endpoint::call` has that promise).
            write(unsafe { &mut *call.registers.load(Ordering::Relaxed) });
            rouse(call.thread.load(Ordering::Relaxed));
            call.word.end_answer(self.generation, outcome);
        }
        self.machine.irq_restore(irq);
        is_awaited
    }
}

/// Copies an answer.
#[inline]
fn give_answer(to: &mut Registers, from: &Registers) {
    copy_message(to, from);
    (to[BADGE], to[EXTRA]) = (0, 0);
}

impl<M: Machine> Drop for Reply<M> {
    #[inline]
    fn drop(&mut self) {
        if self.is_awaited() {
            let machine = self.machine;
            // SAFETY: the caller waits until the answer has ended, so its thread is there.
            self.end(Outcome::Broken, |thread| unsafe { machine.unpark(thread) }, |_| {});
        }
    }
}

/// What became of the caller of a saved call, as its server is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It is gone, or has given up.
    Gone,
    /// It has a signal to handle, and waits for a short answer.
    Interrupted,
}

/// A reply that was put aside. The server knows it by its token.
pub struct Saved<M: Machine> {
    reply: Reply<M>,
    pub(crate) token: u64,
    endpoint: KArc<Endpoint<M>>,
    /// Among the endpoint's saved calls with news. Under its lock, as `news`.
    pub(crate) link: LinkedListLink,
    pub(crate) news: Cell<News>,
}

intrusive_adapter!(pub(crate) WithNews<M> = UnsafeRef<Saved<M>>: Saved<M> { link => LinkedListLink } where M: Machine);

// SAFETY: link and news are only touched under the endpoint's lock.
unsafe impl<M: Machine> Sync for Saved<M> {}
// SAFETY: as above; nothing in it is bound to a CPU.
unsafe impl<M: Machine> Send for Saved<M> {}

impl<M: Machine> Saved<M> {
    /// Puts the reply to a call of `endpoint` aside. `None` if the caller is gone. Without memory, or if the call came by
    /// another endpoint, it is broken.
    pub fn try_new(
        endpoint: &KArc<Endpoint<M>>,
        reply: Reply<M>,
        token: u64,
    ) -> Result<Option<KArc<Self>>, AllocError> {
        let saved = KArc::try_new(Self {
            reply,
            token,
            endpoint: endpoint.clone(),
            link: LinkedListLink::new(),
            news: Cell::new(News::Gone),
        })?;
        Ok(endpoint.register(&saved).then_some(saved))
    }

    pub(crate) fn reply(&self) -> &Reply<M> {
        &self.reply
    }

    /// Answers the call, as [`Reply::answer`]. The caller is told first that nothing is saved any more, so that its next call
    /// finds its record as it should be.
    pub fn answer(&self, from: &Registers, rouse: impl FnOnce(usize)) -> bool {
        self.endpoint.unregister(self);
        self.reply.end_with(from, rouse)
    }
}

impl<M: Machine> Drop for Saved<M> {
    fn drop(&mut self) {
        // Then the reply ends, and breaks the call if it is still awaited.
        self.endpoint.unregister(self);
    }
}

impl<M: Machine> Call<M> {
    /// Forgets the saved reply; answers whether it was this one. Under the endpoint's lock.
    pub(crate) fn forget_saved(&self, saved: &Saved<M>) {
        if core::ptr::eq(self.saved.load(Ordering::Relaxed), saved) {
            self.saved.store(null_mut(), Ordering::Relaxed);
        }
    }
}
