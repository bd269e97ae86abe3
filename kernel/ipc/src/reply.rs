//! Replies: the right to answer one call, once.

use core::cell::Cell;
use core::ptr::null_mut;
use core::sync::atomic::Ordering;

use intrusive_collections::{LinkedListLink, UnsafeRef, intrusive_adapter};
use quire_abi::ipc::received;
use quire_mm::Machine;
use quire_mm::fallible::KArc;

use super::call::{BADGE, Call, Caller, EXTRA, Registers, copy_message};
use super::endpoint::Endpoint;
use super::word::{Generation, Outcome};

/// The right to answer one call. Dropping it unused breaks the call.
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

    /// Whether the caller is parked, so that whoever answers by [`Endpoint::hand_back`] completes its call. Only to be
    /// called before the answer has ended.
    #[inline]
    fn is_of_parked(&self) -> bool {
        self.call.is_parked.load(Ordering::Relaxed)
    }

    /// Consumes a used reply, and returns its record.
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

    /// Whether the call was made to this endpoint. Only for a call that [is awaited](Reply::is_awaited) afterwards:
    /// otherwise the record may already be in use for a call to any endpoint.
    pub fn is_of(&self, endpoint: &Endpoint<M>) -> bool {
        self.call.endpoint.load(Ordering::Acquire) == core::ptr::from_ref(endpoint).addr()
    }

    /// Answers with the message in `from`. `rouse` is called with the caller's thread, and makes it runnable or ensures
    /// that it will be; the caller does not continue before this returns. `false` if the caller is gone.
    #[inline]
    pub fn answer(self, from: &Registers, rouse: impl FnOnce(usize)) -> bool {
        self.end_with(from, rouse)
    }

    /// Runs `work` while the caller waits for its answer: meanwhile the caller does not continue, give up or end, and
    /// other threads that hold the reply have to wait. `None` if the caller is gone. Interrupts are masked, so `work`
    /// must be short; it takes no endpoint's lock.
    pub fn with_caller<R>(&self, work: impl FnOnce(Caller<'_, M>) -> R) -> Option<R> {
        let call = &*self.call;
        let irq = self.machine.irq_save();
        let result = call.word.begin_answer(self.generation, || self.machine.relax()).then(|| {
            let result = work(Caller { call, generation: self.generation });
            call.word.retreat(self.generation);
            result
        });
        self.machine.irq_restore(irq);
        result
    }

    /// Answers as [`Reply::answer`], after `bring` has transferred up to four handles to the caller; the answer
    /// contains their numbers. If `bring` fails, there is no answer yet. The rules of [`Reply::with_caller`] apply.
    /// `None` if the caller is gone.
    pub fn answer_with<E>(
        &self,
        from: &Registers,
        bring: impl FnOnce(Caller<'_, M>) -> Result<[u32; 4], E>,
        rouse: impl FnOnce(usize),
    ) -> Option<Result<(), E>> {
        let call = &*self.call;
        let irq = self.machine.irq_save();
        let result = call.word.begin_answer(self.generation, || self.machine.relax()).then(|| {
            let brought = bring(Caller { call, generation: self.generation });
            match brought {
                Ok([a, b, c, d]) => {
                    // SAFETY: as in `end`.
                    let to = unsafe { &mut *call.registers.load(Ordering::Relaxed) };
                    give_answer(to, from);
                    (to[BADGE], to[EXTRA]) = (pair(a, b), pair(c, d));
                    rouse(call.thread);
                    call.word.end_answer(self.generation, Outcome::Answered);
                    Ok(())
                }
                Err(e) => {
                    call.word.retreat(self.generation);
                    Err(e)
                }
            }
        });
        self.machine.irq_restore(irq);
        result
    }

    /// The caller's part of [`Endpoint::hand_back`]: returns the rest of the reply, and whether the caller was claimed.
    #[inline(always)]
    pub(crate) fn hand_back(
        self,
        from: &Registers,
        claim: impl FnOnce(usize) -> bool,
        rouse: impl FnOnce(usize),
    ) -> (Self, bool) {
        let call = &*self.call;
        if !call.word.begin_answer(self.generation, || self.machine.relax()) {
            return (self, false);
        }
        // SAFETY: as in `end`.
        give_answer(unsafe { &mut *call.registers.load(Ordering::Relaxed) }, from);
        let thread = call.thread;
        let is_claimed = claim(thread);
        if is_claimed && self.is_of_parked() {
            // On behalf of the caller, which does not run.
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
        let is_awaited = call.word.begin_answer(self.generation, || self.machine.relax());
        if is_awaited {
            // SAFETY: between `begin_answer` and `end_answer` the caller waits and leaves its registers to this thread
            // (a promise of `Endpoint::call`).
            write(unsafe { &mut *call.registers.load(Ordering::Relaxed) });
            rouse(call.thread);
            call.word.end_answer(self.generation, outcome);
        }
        self.machine.irq_restore(irq);
        is_awaited
    }
}

/// Two numbers in a register.
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
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
            // SAFETY: the caller waits until the answer has ended, so its thread still exists.
            self.end(Outcome::Broken, |thread| unsafe { machine.unpark(thread) }, |_| {});
        }
    }
}

/// The news of the caller of a saved call, for the server: a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News(pub(crate) u32);

impl News {
    /// None.
    pub(crate) const NONE: Self = Self(0);
    /// The caller is gone, or has given up: then there is no other news of it.
    pub const GONE: Self = Self(1);
    /// The caller has a signal to handle, and waits for a short answer.
    pub const INTERRUPTED: Self = Self(2);
    /// The caller has brought in the wanted page, or failed to.
    pub const READY: Self = Self(4);

    /// The kind of the news that is received first, with its code; and the remaining news.
    pub(crate) fn first(self) -> (u64, Self) {
        if self.0 & Self::GONE.0 != 0 {
            (received::CANCELLED, Self::NONE)
        } else if self.0 & Self::INTERRUPTED.0 != 0 {
            (received::INTERRUPTED, Self(self.0 & !Self::INTERRUPTED.0))
        } else {
            (received::READY, Self::NONE)
        }
    }
}

/// A reply that was saved for later. The server identifies it by its token.
pub struct Saved<M: Machine> {
    reply: Reply<M>,
    pub(crate) token: u64,
    endpoint: KArc<Endpoint<M>>,
    /// The link in the endpoint's list of saved calls with news. Under its lock, as `news`.
    pub(crate) link: LinkedListLink,
    pub(crate) news: Cell<News>,
}

intrusive_adapter!(pub(crate) WithNews<M> = UnsafeRef<Saved<M>>: Saved<M> { link => LinkedListLink } where M: Machine);

// SAFETY: link and news are only touched under the endpoint's lock.
unsafe impl<M: Machine> Sync for Saved<M> {}
// SAFETY: as above; nothing in it is bound to a CPU.
unsafe impl<M: Machine> Send for Saved<M> {}

impl<M: Machine> Saved<M> {
    /// Saves the reply to a call of `endpoint`. `None` if the caller is gone. If the call was made to another endpoint,
    /// it is broken; if memory is lacking, the reply is returned.
    pub fn try_new(endpoint: &KArc<Endpoint<M>>, reply: Reply<M>, token: u64) -> Result<Option<KArc<Self>>, Reply<M>> {
        let saved = KArc::try_new_from(reply, |reply| Self {
            reply,
            token,
            endpoint: endpoint.clone(),
            link: LinkedListLink::new(),
            news: Cell::new(News::NONE),
        })?;
        Ok(endpoint.register(&saved).then_some(saved))
    }

    /// The reply itself.
    pub fn reply(&self) -> &Reply<M> {
        &self.reply
    }

    /// Answers the call, as [`Reply::answer`]. The call's record is first told that nothing is saved any more, so that
    /// it is in order for the caller's next call.
    pub fn answer(&self, from: &Registers, rouse: impl FnOnce(usize)) -> bool {
        self.endpoint.unregister(self);
        self.reply.end_with(from, rouse)
    }

    /// As [`Reply::answer_with`].
    pub fn answer_with<E>(
        &self,
        from: &Registers,
        bring: impl FnOnce(Caller<'_, M>) -> Result<[u32; 4], E>,
        rouse: impl FnOnce(usize),
    ) -> Option<Result<(), E>> {
        self.endpoint.unregister(self);
        let result = self.reply.answer_with(from, bring, rouse);
        if let Some(Err(_)) = result {
            self.endpoint.register(self);
        }
        result
    }
}

impl<M: Machine> Drop for Saved<M> {
    fn drop(&mut self) {
        // Then the reply is dropped, which breaks the call if it is still awaited.
        self.endpoint.unregister(self);
    }
}

impl<M: Machine> Call<M> {
    /// Forgets the saved reply; returns whether the record referred to this one. Under the endpoint's lock.
    pub(crate) fn forget_saved(&self, saved: &Saved<M>) {
        if core::ptr::eq(self.saved.load(Ordering::Relaxed), saved) {
            self.saved.store(null_mut(), Ordering::Relaxed);
        }
    }
}
