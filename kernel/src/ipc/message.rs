//! Messages between threads: the crate `quire-ipc` decides which caller meets which receiver; here threads sleep, and
//! switch to each other directly. `docs/messages.md` describes the protocol.
//!
//! A thread that is roused while the caller is about to sleep is claimed ([`sched::claim`]): it enters no queue, and
//! the caller switches to it, on this CPU and in the rest of this slice. The order is always: announce the sleep, send
//! or receive (which may claim a thread), switch. Whoever claims a thread has a [`Next`], which queues that thread if
//! it is dropped without a switch.

use quire_abi::Errno;
use quire_abi::ipc::options;
use quire_ipc::{Generation, Outcome, Received, Registers, Sent};
use quire_mm::fallible::KArc;
use quire_mm::machine::Threads;

use super::attachments::{self, Answering};
use crate::arch::trap::TrapFrame;
use crate::task::entity::work;
use crate::task::process::TABLE;
use crate::task::sched;
use crate::task::thread::{Thread, current};
use crate::task::timer;
use crate::task::wait::{self, Sleep};
use crate::vm::Cpu;

/// Where a server receives.
pub type Endpoint = quire_ipc::Endpoint<Cpu>;
/// A thread's calls.
pub type Call = quire_ipc::Call<Cpu>;
/// The right to answer a call.
pub type Reply = quire_ipc::Reply<Cpu>;
/// A thread that waits at an endpoint.
pub type Receiver = quire_ipc::Receiver<Cpu>;
/// A saved reply.
pub type Saved = quire_ipc::Saved<Cpu>;

/// A thread that the current one is to switch to.
struct Next(Option<&'static Thread>);

impl Next {
    /// Nobody.
    const NOBODY: Self = Self(None);

    /// Claims the thread with this name for a switch, if this thread has nothing else to do and that one is asleep and
    /// runs on no CPU; otherwise wakes it.
    fn rouse(&mut self, thread: usize) {
        // SAFETY: `this_thread` returned the name, and the thread does not end before this returns (`Endpoint::call`,
        // `Reply::answer`). Once claimed it is this thread's to run, and cannot end.
        let thread = unsafe { &*core::ptr::with_exposed_provenance::<Thread>(thread) };
        if self.0.is_none() && !has_work() && sched::claim(thread) {
            self.0 = Some(thread);
        } else {
            sched::wake(thread);
        }
    }

    /// Switches to the claimed thread, if there is one; returns when this thread runs again. The sleep must have been
    /// announced, and ends at the deadline. If there is something else to do, the claimed thread is queued, and this
    /// returns at once: work that was set before the sleep was announced has woken nobody.
    fn switch(&mut self, deadline: Option<u64>) {
        if has_work() {
            return;
        }
        let Some(next) = self.0.take() else { return };
        if let Some(at) = deadline {
            timer::arm(current(), at);
        }
        sched::switch_directly(next);
        if deadline.is_some() {
            timer::disarm(current());
        }
    }
}

impl Drop for Next {
    fn drop(&mut self) {
        if let Some(next) = self.0.take() {
            sched::unclaim(next);
        }
    }
}

/// Whether something must be done before this thread sleeps: a signal, a kill, another thread's turn. The caller has
/// announced the sleep, so that whoever sets such work later ends it.
pub fn has_work() -> bool {
    current().work.load(core::sync::atomic::Ordering::SeqCst) & (work::SIGNAL | work::RESCHEDULE) != 0
}

/// The thread that has this name.
///
/// # Safety
/// `this_thread` returned the name, and the thread does not end while the reference is used.
pub unsafe fn thread_of<'a>(name: usize) -> &'a Thread {
    // SAFETY: the caller's promise.
    unsafe { &*core::ptr::with_exposed_provenance::<Thread>(name) }
}

/// The registers of a frame that hold a message.
pub fn registers(frame: &mut TrapFrame) -> *mut Registers {
    let registers: &mut Registers = frame.x.first_chunk_mut().unwrap_or_else(|| unreachable!("31 are more than 11"));
    registers
}

/// x9 as a deadline: nanoseconds since power-on, 0 for none.
fn deadline(frame: &TrapFrame) -> Option<u64> {
    (frame.x[9] != 0).then_some(frame.x[9])
}

/// Sleeps until `ready` returns something: first by the switch to `next`, if it has claimed a thread. The sleep has
/// been announced.
fn sleep<T>(
    kind: Sleep,
    deadline: Option<u64>,
    mut next: Next,
    mut ready: impl FnMut() -> Option<T>,
) -> Result<T, Errno> {
    if next.0.is_some() {
        next.switch(deadline);
        drop(next);
        if let Some(value) = ready() {
            sched::cancel();
            return Ok(value);
        }
    }
    wait::sleep(kind, deadline, ready)
}

/// Calls an endpoint with the message in the frame, and sleeps until the answer has replaced it.
pub fn call(endpoint: &KArc<Endpoint>, badge: u64, frame: &mut TrapFrame) -> Result<(), Errno> {
    let is_interruptible = frame.x[10] & options::INTERRUPTIBLE != 0;
    let kind = if is_interruptible { Sleep::Interruptible } else { Sleep::Killable };
    let deadline = deadline(frame);
    // SAFETY: the frame is this thread's, which does not touch it before this returns.
    unsafe { call_by(endpoint, badge, registers(frame), kind, deadline) }
}

/// The same with any registers.
///
/// # Safety
/// The registers are valid, and nothing else touches them before this returns.
pub unsafe fn call_by(
    endpoint: &KArc<Endpoint>,
    badge: u64,
    registers: *mut Registers,
    kind: Sleep,
    deadline: Option<u64>,
) -> Result<(), Errno> {
    let thread = current();
    let record = &thread.messaging()?.record;
    let mut next = Next::NOBODY;
    sched::prepare(kind.state());
    // SAFETY: the caller's promise; and this thread does not leave before the call has ended: with an outcome, or in
    // `end`.
    let sent = unsafe { endpoint.call(record, registers, badge, |thread| next.rouse(thread)) };
    let sent = match sent {
        Ok(sent) => sent,
        Err(e) => {
            sched::cancel();
            return Err(e);
        }
    };
    let generation = match sent {
        Sent::Received(generation) => generation,
        Sent::Queued(generation) => {
            // (A thread of the kernel's own receives nothing.)
            let is_own = thread.process.as_ref().is_some_and(|process| endpoint.owner() == process.pid);
            if is_own && would_wait_for_itself(thread) {
                sched::cancel();
                if endpoint.withdraw(record, generation) {
                    return Err(Errno::EDEADLK);
                }
            }
            generation
        }
    };
    let result = sleep(kind, deadline, next, || progress(record, generation));
    let result = bring_in(endpoint, record, generation, kind, result, deadline);
    complete(endpoint, record, generation, result, deadline)
}

/// Why a waiting caller is woken.
enum Progress {
    /// The call has ended.
    Over(Outcome),
    /// A page of a window is wanted; `true` if it will be written.
    Wanted(usize, bool),
}

/// Why the caller of a call is woken, if there is a reason.
fn progress(record: &Call, generation: Generation) -> Option<Progress> {
    if let Some(outcome) = record.outcome(Cpu) {
        return Some(Progress::Over(outcome));
    }
    let wanted = record.has_attachments(generation).then(|| record.take_wanted()).flatten();
    wanted.map(|(page, write)| Progress::Wanted(page, write))
}

/// Brings in wanted pages of the caller's windows until its sleep ends for another reason.
fn bring_in(
    endpoint: &Endpoint,
    record: &Call,
    generation: Generation,
    kind: Sleep,
    mut slept: Result<Progress, Errno>,
    deadline: Option<u64>,
) -> Result<Outcome, Errno> {
    loop {
        match slept? {
            Progress::Over(outcome) => return Ok(outcome),
            Progress::Wanted(page, write) => {
                // A page that was brought in may be gone when the server looks: then it is wanted again.
                if current().mm().is_none_or(|mm| mm.pin(page, write).is_err()) {
                    record.note_broken();
                }
                endpoint.note_ready(record);
            }
        }
        slept = wait::sleep(kind, deadline, || progress(record, generation));
    }
}

/// Sleeps until a call has ended.
fn wait_for_answer(
    endpoint: &Endpoint,
    record: &Call,
    generation: Generation,
    kind: Sleep,
    deadline: Option<u64>,
) -> Result<Outcome, Errno> {
    let slept = wait::sleep(kind, deadline, || progress(record, generation));
    bring_in(endpoint, record, generation, kind, slept, deadline)
}

/// Completes a call whose caller's sleep is over: with an outcome, or interrupted.
fn complete(
    endpoint: &Endpoint,
    record: &Call,
    generation: Generation,
    mut result: Result<Outcome, Errno>,
    deadline: Option<u64>,
) -> Result<(), Errno> {
    if result.is_err() {
        result = end(endpoint, record, generation, result, deadline);
    }
    let outcome = result?;
    record.finish(generation);
    match outcome {
        Outcome::Answered => Ok(()),
        Outcome::Broken => Err(Errno::EPIPE),
    }
}

/// Completes a call that was handed over, whose caller was woken in the ordinary way.
pub fn complete_call(endpoint: &Endpoint, generation: Generation) -> Result<(), Errno> {
    let record = &current().messaging()?.record;
    record.resume();
    let result = wait_for_answer(endpoint, record, generation, Sleep::Killable, None);
    complete(endpoint, record, generation, result, None)
}

/// Whether only the calling thread itself could receive what it sends to its own process.
fn would_wait_for_itself(thread: &Thread) -> bool {
    let table = TABLE.lock();
    table.family(thread.process()).thread_count == 1
}

/// Ends a call whose caller's sleep was interrupted.
#[cold]
fn end(
    endpoint: &Endpoint,
    record: &Call,
    generation: Generation,
    mut why: Result<Outcome, Errno>,
    deadline: Option<u64>,
) -> Result<Outcome, Errno> {
    if endpoint.withdraw(record, generation) {
        return why;
    }
    if why == Err(Errno::EINTR) && !Cpu.is_killed() {
        // The server has the call, and only the server knows what was done.
        endpoint.interrupt(record);
        why = wait_for_answer(endpoint, record, generation, Sleep::Killable, deadline);
    }
    if why.is_ok() || endpoint.give_up(record, generation) {
        return why;
    }
    // It was answered, or is being answered: `outcome` waits for the end of that.
    record.outcome(Cpu).ok_or(Errno::EINTR)
}

/// Receives at an endpoint: the frame then has the result. EBUSY with a call in the slot, unless the endpoint only has
/// events.
pub fn receive(endpoint: &Endpoint, frame: &mut TrapFrame) -> Result<(), Errno> {
    if current().has_reply() {
        endpoint.admit_events_alone()?;
    }
    // Allocates what its hand-overs will need, while it has received nothing.
    current().messaging()?;
    receive_after(endpoint, frame, Next::NOBODY)
}

/// Answers the call in the slot with the message in the frame, then receives. ENOENT without a call. An answer to a
/// caller that is gone is no error. If the attachments of the answer are in error, the call stays in the slot, and
/// nothing is received.
pub fn reply_receive(endpoint: &Endpoint, frame: &mut TrapFrame) -> Result<(), Errno> {
    let mut next = Next::NOBODY;
    match answer_slot(frame, |thread| next.rouse(thread)) {
        Ok(()) | Err(Errno::ECANCELED) => {}
        Err(e) => return Err(e),
    }
    // What remains to be done is a receive, also if the call is restarted.
    frame.x[8] = quire_abi::nr::QUIRE_RECEIVE as u64;
    frame.syscall = quire_abi::nr::QUIRE_RECEIVE as u64;
    receive_after(endpoint, frame, next)
}

fn receive_after(endpoint: &Endpoint, frame: &mut TrapFrame, next: Next) -> Result<(), Errno> {
    let may_wait = frame.x[10] & options::NOW == 0;
    let deadline = deadline(frame);
    let receiver = Receiver::new(Cpu.this_thread(), registers(frame));
    sched::prepare(Sleep::Interruptible.state());
    // SAFETY: frame and receiver are this thread's, which does not touch them and does not return before it has left.
    let received = match unsafe { endpoint.receive(&receiver, may_wait) } {
        Ok(Received::Nothing) => {
            let result = sleep(Sleep::Interruptible, deadline, next, || receiver.is_served().then_some(()));
            return complete_receive(endpoint, &receiver, result);
        }
        other => {
            sched::cancel();
            // (Dropping `next` queues its thread.)
            other?
        }
    };
    keep(received);
    Ok(())
}

/// Completes a receive that has waited: its sleep is over, or was interrupted.
pub fn complete_receive(endpoint: &Endpoint, receiver: &Receiver, slept: Result<(), Errno>) -> Result<(), Errno> {
    match endpoint.leave(receiver)? {
        Received::Nothing => slept.and(Err(Errno::EINTR)),
        received => {
            keep(received);
            Ok(())
        }
    }
}

/// Moves the reply to a received call to this thread's slot.
fn keep(received: Received<Cpu>) {
    if let Received::Call(reply) = received {
        current().put_reply(reply);
    }
}

/// Answers the call in the slot with the message in the frame. ENOENT without a call, ECANCELED if the caller is gone.
pub fn answer(frame: &mut TrapFrame) -> Result<(), Errno> {
    // SAFETY: `unpark` is called with a thread that does not end during the call.
    answer_slot(frame, |thread| unsafe { Cpu.unpark(thread) })
}

/// As [`answer`]; `rouse` is called with the caller's thread. If the attachments of the answer are in error, the call
/// stays in the slot.
#[inline(always)]
fn answer_slot(frame: &mut TrapFrame, rouse: impl FnMut(usize)) -> Result<(), Errno> {
    let thread = current();
    if attachments::has_attachments(frame) {
        let answered =
            thread.reply(|reply| attachments::answer(Answering::Slot(reply), frame, rouse)).ok_or(Errno::ENOENT)?;
        if matches!(answered, Ok(()) | Err(Errno::ECANCELED)) {
            drop(thread.take_reply());
        }
        return answered;
    }
    let reply = thread.take_reply().ok_or(Errno::ENOENT)?;
    // SAFETY: the frame is this thread's.
    let is_answered = reply.answer(unsafe { &*registers(frame) }, rouse);
    if is_answered { Ok(()) } else { Err(Errno::ECANCELED) }
}

/// Answers with the message in the frame and its attachments; the caller keeps the reply, which is used up if this
/// succeeds or fails with ECANCELED.
pub fn answer_with_attachments(reply: Answering<'_>, frame: &mut TrapFrame) -> Result<(), Errno> {
    // SAFETY: `unpark` is called with a thread that does not end during the call.
    attachments::answer(reply, frame, |thread| unsafe { Cpu.unpark(thread) })
}

/// As [`answer`], for a saved call.
pub fn answer_saved(saved: &Saved, frame: &mut TrapFrame) -> Result<(), Errno> {
    // SAFETY: as in `answer`.
    let is_answered = saved.answer(unsafe { &*registers(frame) }, |thread| unsafe { Cpu.unpark(thread) });
    if is_answered { Ok(()) } else { Err(Errno::ECANCELED) }
}
