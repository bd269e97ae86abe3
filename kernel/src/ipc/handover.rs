//! The hand-over: a call, or an answer with the next receive, that gives the CPU directly to the other side.
//!
//! This is the common case of `message.rs` in one step with interrupts masked, from the exception to the other thread's
//! registers. It applies if the other side waits and runs nowhere, and nothing else has to be done: there is no
//! deadline, no signal, no end of a slice, nothing further to receive. In all other cases nothing has happened yet, and
//! the ordinary path follows.
//!
//! A thread that waits in a hand-over is *parked*: its whole state is its frame, and what it waits for ([`For`]).
//! Whoever claims it completes its call on its behalf, and leaves the kernel with its frame. If anything else wakes it,
//! it resumes in [`trap_resume`], which completes the call like the ordinary path.
//!
//! The record of what a thread waits for belongs to the thread while it runs, and to whoever has claimed it. A thread
//! that has resumed and sleeps again is not parked: whoever claims it then runs it on its own stack.

use core::cell::{Cell, UnsafeCell};
use core::ptr::null_mut;
use core::sync::atomic::Ordering;

use quire_abi::ipc::{options, rights};
use quire_abi::{Errno, nr};
use quire_ipc::{Generation, HandedBack};
use quire_mm::fallible::{AllocError, KArc};
use quire_mm::machine::Threads;

use super::ask::Asking;
use super::attachments;
use super::handles::{Handle, Handles, Target};
use super::message::{self, Call, Endpoint};
use crate::arch::cpu;
use crate::arch::trap::TrapFrame;
use crate::task::entity::state;
use crate::task::sched;
use crate::task::thread::{Thread, current};
use crate::task::wait::{self, Sleep};
use crate::vm::Cpu;

/// The reason why a thread waits.
#[derive(Clone, Copy)]
enum For {
    /// Nothing: it is not parked.
    Nothing,
    /// The answer to its call.
    Answer(Generation),
    /// Something to receive.
    Message,
}

/// A look at a handle.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    number: u32,
    right: u32,
    /// The number of the table's losses at that time.
    losses: u64,
}

impl Seen {
    /// No handle has this number.
    const NOTHING: Self = Self { number: 0, right: 0, losses: 0 };
}

/// The state that a thread needs for messages.
pub struct Messaging {
    /// The record of its calls.
    pub record: KArc<Call>,
    /// Belongs to the thread while it runs, and otherwise to the thread that has claimed it.
    waits_for: Cell<For>,
    parked: UnsafeCell<Parked>,
    /// The thread's link in the list of the endpoint where it is parked.
    receiver: message::Receiver,
    /// The state for calls that the kernel makes on the thread's behalf.
    pub asking: Asking,
}

impl Messaging {
    /// For the current thread, which has neither sent nor received.
    pub fn new() -> Result<Self, AllocError> {
        Ok(Self {
            record: Call::try_new(Cpu.this_thread())?,
            waits_for: Cell::new(For::Nothing),
            parked: UnsafeCell::new(Parked::new()),
            receiver: message::Receiver::reusable(Cpu.this_thread()),
            asking: Asking::new(),
        })
    }

    /// # Safety
    /// The thread is current, and there is no other reference of this kind.
    #[inline]
    #[allow(clippy::mut_from_ref)]
    unsafe fn parked(&self) -> &mut Parked {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.parked.get() }
    }
}

/// What a parked thread waits for, and where.
struct Parked {
    /// Where it waits, or waited last: kept, since it will usually wait there again.
    endpoint: Option<KArc<Endpoint>>,
    /// The lookup that found the endpoint, and the badge.
    seen: Seen,
    badge: u64,
}

impl Parked {
    /// For a thread that has not waited yet.
    const fn new() -> Self {
        Self { endpoint: None, seen: Seen::NOTHING, badge: 0 }
    }
}

/// Drops the current thread's reference to an endpoint, since the thread ends.
pub fn forget(thread: &Thread) {
    let Some(messaging) = thread.former_messaging() else { return };
    // SAFETY: the thread is current.
    let parked = unsafe { messaging.parked() };
    parked.seen = Seen::NOTHING;
    drop(parked.endpoint.take());
}

/// QUIRE_CALL with interrupts masked: returns the frame of the thread that runs in place of this one, or null if the
/// ordinary path must be taken.
#[unsafe(no_mangle)]
extern "C" fn trap_call(frame: &mut TrapFrame) -> *mut TrapFrame {
    call(frame).unwrap_or(null_mut())
}

/// QUIRE_REPLY_RECEIVE, in the same way.
#[unsafe(no_mangle)]
extern "C" fn trap_reply_receive(frame: &mut TrapFrame) -> *mut TrapFrame {
    reply_receive(frame).unwrap_or(null_mut())
}

/// Continues a call whose thread was parked and then woken in the ordinary way.
#[unsafe(no_mangle)]
extern "C" fn trap_resume(frame: *mut TrapFrame) {
    // SAFETY: the frame is this thread's. (Not a reference: others write to it until the wait is over.)
    unsafe { (*frame).x[0] = resume(frame).unwrap_or_else(|e| e.to_ret() as u64) };
}

fn resume(frame: *mut TrapFrame) -> Result<u64, Errno> {
    let messaging = current().messaging()?;
    // SAFETY: the thread is current.
    let parked = unsafe { messaging.parked() };
    let waited_for = messaging.waits_for.replace(For::Nothing);
    match (waited_for, &parked.endpoint) {
        (For::Answer(generation), Some(endpoint)) => message::complete_call(endpoint, generation).map(|()| 0),
        (For::Message, Some(endpoint)) => {
            let receiver = &messaging.receiver;
            // It may sleep again, but then its state is more than its frame.
            receiver.resume();
            let slept = wait::sleep(Sleep::Interruptible, None, || receiver.is_served().then_some(()));
            message::complete_receive(endpoint, receiver, slept)?;
            // SAFETY: the wait is over.
            Ok(unsafe { (*frame).x[0] })
        }
        _ => Err(Errno::EINTR),
    }
}

/// Whether the message in the frame has no deadline, and no options except its length and these.
#[inline]
fn has_only(frame: &TrapFrame, options: u64) -> bool {
    frame.x[9] == 0 && frame.x[10] & !(options::WORDS | options) == 0
}

/// Loads the attachments of the call in the frame. The thread is as in any system call meanwhile: it may sleep.
#[cold]
fn load(frame: &TrapFrame) -> bool {
    cpu::irq_enable();
    let is_loaded = attachments::load(frame).is_ok();
    cpu::irq_disable();
    is_loaded
}

/// The endpoint of a handle with a right, and the handle's badge. The last result is kept, and is valid while the
/// process has lost no handle.
#[inline]
fn find<'a>(thread: &Thread, parked: &'a mut Parked, number: u64, right: u32) -> Option<(&'a KArc<Endpoint>, u64)> {
    let handles = &thread.process().handles;
    let seen = Seen { number: number as u32, right, losses: handles.losses() };
    if parked.seen != seen {
        look_up(handles, parked, &seen)?;
    }
    Some((parked.endpoint.as_ref()?, parked.badge))
}

#[cold]
fn look_up(handles: &Handles, parked: &mut Parked, wanted: &Seen) -> Option<()> {
    let mut former = None;
    let found = handles.with(wanted.number, |handle: &Handle| {
        let endpoint = match &handle.target {
            Target::Sender(endpoint) if wanted.right == rights::SEND => endpoint,
            Target::Receiver(receiving) if wanted.right == rights::RECEIVE => &receiving.0,
            _ => return Err(Errno::EPERM),
        };
        if parked.endpoint.as_ref().is_none_or(|kept| !KArc::ptr_eq(kept, endpoint)) {
            former = parked.endpoint.replace(endpoint.clone());
        }
        Ok((handle.badge, handles.losses()))
    });
    drop(former);
    let (badge, losses) = found.ok()?;
    parked.badge = badge;
    parked.seen = Seen { losses, ..*wanted };
    Some(())
}

/// Announces a sleep if nothing else has to be done.
#[inline]
fn announce(thread: &Thread, kind: Sleep) -> bool {
    thread.state.store(kind.state() | state::RUNNING, Ordering::SeqCst);
    let may_sleep = thread.work.load(Ordering::SeqCst) == 0;
    if !may_sleep {
        sched::cancel();
    }
    may_sleep
}

/// The thread with this name, if it is now this thread's to run.
#[inline]
fn claim(name: usize) -> Option<&'static Thread> {
    // SAFETY: `this_thread` returned the name, and the thread waits while this function runs (`Endpoint::hand_over`,
    // `hand_back`).
    let thread = unsafe { &*core::ptr::with_exposed_provenance::<Thread>(name) };
    sched::claim(thread).then_some(thread)
}

/// Ends the wait of a claimed thread, if it is parked.
#[inline]
fn unpark(claimed: &Thread) -> bool {
    let Some(messaging) = claimed.former_messaging() else { return false };
    !matches!(messaging.waits_for.replace(For::Nothing), For::Nothing)
}

fn call(frame: &mut TrapFrame) -> Option<*mut TrapFrame> {
    let thread = current();
    let messaging = thread.former_messaging()?;
    let may_go = has_only(frame, options::ROOM) || has_only(frame, options::ROOM | options::CARRIES) && load(frame);
    if !may_go {
        return None;
    }
    // SAFETY: the thread is current.
    let parked = unsafe { messaging.parked() };
    let (endpoint, badge) = find(thread, parked, frame.x[0], rights::SEND)?;
    if !announce(thread, Sleep::Killable) {
        return None;
    }
    let mut next = None;
    // SAFETY: the frame is this thread's. If the call is made, this thread is parked and completes it.
    let handed_over = unsafe {
        endpoint.hand_over(&messaging.record, message::registers(frame), badge, |name| {
            next = claim(name);
            next.is_some()
        })
    };
    let (Some(handed_over), Some(next)) = (handed_over, next) else {
        sched::cancel();
        return None;
    };
    messaging.waits_for.set(For::Answer(handed_over.generation));
    let is_parked = handed_over.reply.is_some();
    if let Some(reply) = handed_over.reply {
        unpark(next);
        next.put_reply(reply);
    }
    Some(sched::hand_over(thread, next, is_parked, frame))
}

fn reply_receive(frame: &mut TrapFrame) -> Option<*mut TrapFrame> {
    let thread = current();
    if !has_only(frame, 0) || !thread.has_reply() {
        return None;
    }
    let messaging = thread.former_messaging()?;
    // SAFETY: the thread is current.
    let parked = unsafe { messaging.parked() };
    find(thread, parked, frame.x[0], rights::RECEIVE)?;
    if !announce(thread, Sleep::Interruptible) {
        return None;
    }
    let Some(endpoint) = &parked.endpoint else { return None };
    let reply = thread.take_reply()?;
    // What remains to be done then is a receive, also if the call is restarted.
    continue_as(frame, nr::QUIRE_RECEIVE);
    let receiver = &messaging.receiver;
    receiver.prepare(message::registers(frame));
    let mut next = None;
    // SAFETY: frame and receiver are this thread's. If it waits, it is parked, and leaves when it resumes.
    let handed_back = unsafe {
        endpoint.hand_back(
            reply,
            receiver,
            |name| {
                next = claim(name);
                next.is_some()
            },
            |name| Cpu.unpark(name),
        )
    };
    let used = match handed_back {
        HandedBack::Claimed(used) => used,
        HandedBack::Busy(reply) => {
            thread.put_reply(reply);
            sched::cancel();
            continue_as(frame, nr::QUIRE_REPLY_RECEIVE);
            return None;
        }
        HandedBack::Answered(used) => {
            drop(used);
            sched::cancel();
            return None;
        }
    };
    drop(used.into_record());
    let next = next?;
    messaging.waits_for.set(For::Message);
    let is_parked = unpark(next);
    if is_parked {
        // SAFETY: the frame of the claimed thread, whose call this completes.
        unsafe { (*(*next.context()).frame()).x[0] = 0 };
    }
    Some(sched::hand_over(thread, next, is_parked, frame))
}

/// Turns the call in the frame into another one.
#[inline]
fn continue_as(frame: &mut TrapFrame, number: usize) {
    frame.x[8] = number as u64;
    frame.syscall = number as u64;
}
