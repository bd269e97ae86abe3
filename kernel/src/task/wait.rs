//! Sleeping until something holds: [`sleep`] is the one way in which a thread waits, and the one way out of a sleep
//! that is cut short. A [`WaitQueue`] is `sleep` with a list of those whom an event concerns.
//!
//! How many wait for one event is up to programs, and the event may happen in an interrupt or under a spin lock. So
//! nobody wakes them all by itself: whoever makes the event happen wakes [`BATCH`] of them, and each of those, on its
//! way, wakes [`RELAY`] more. A ticket tells who waited already as it happened.

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, Ordering, fence};

use intrusive_collections::{LinkedList, LinkedListLink, UnsafeRef, intrusive_adapter};
use quire_abi::Errno;
use quire_mm::sync::Rank;

use super::thread::{Thread, current, state};
use super::{sched, signal, timer};
use crate::arch;
use crate::vm::{Cpu, SpinLock};

/// What may cut a sleep short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleep {
    /// Any signal that the thread does not block.
    Interruptible,
    /// Only the end of the process.
    Killable,
    /// Nothing: for waits that are as short as what other threads do with a lock.
    Deaf,
}

impl Sleep {
    fn state(self) -> u32 {
        match self {
            Sleep::Interruptible => state::SLEEPING,
            Sleep::Killable | Sleep::Deaf => state::KILLABLE,
        }
    }
}

/// Threads that an event wakes at once.
const BATCH: usize = 16;

/// Threads that each of them wakes in its turn.
const RELAY: usize = 2;

struct Waiter {
    thread: *const Thread,
    /// Its place in the order of arrival; touched under the queue's lock.
    ticket: Cell<u64>,
    link: LinkedListLink,
}

intrusive_adapter!(InWait = UnsafeRef<Waiter>: Waiter { link => LinkedListLink });

/// In order of their tickets.
struct Waiters {
    list: LinkedList<InWait>,
    next_ticket: u64,
    /// Those with lower tickets are to be woken.
    wake_below: u64,
}

// SAFETY: links and nodes are only touched under the queue's lock; a node is taken out before its stack frame ends.
unsafe impl Send for Waiters {}

impl Waiters {
    const fn new() -> Self {
        Self { list: LinkedList::new(InWait::NEW), next_ticket: 0, wake_below: 0 }
    }

    fn push(&mut self, waiter: &Waiter) {
        waiter.ticket.set(self.next_ticket);
        self.next_ticket += 1;
        // SAFETY: `wait_until` takes the node out before its frame ends.
        self.list.push_back(unsafe { UnsafeRef::from_raw(waiter) });
    }

    /// Wakes the one that has waited longest.
    fn wake_first(&mut self) {
        if let Some(waiter) = self.list.pop_front() {
            // SAFETY: the waiter was in the queue, so its thread is still inside `wait_until`, which takes the
            // lock that is held here before it returns.
            sched::wake(unsafe { &*waiter.thread });
        }
    }

    /// Wakes a few of those that an event concerns.
    fn pass_on(&mut self, count: usize) {
        for _ in 0..count {
            match self.list.front().get() {
                Some(waiter) if waiter.ticket.get() < self.wake_below => self.wake_first(),
                _ => break,
            }
        }
    }
}

/// Threads that wait for the same thing.
pub struct WaitQueue {
    waiters: SpinLock<Waiters>,
    /// Whether there are any. Written under the lock; whoever wakes looks without it first, since mostly nobody waits.
    any: AtomicBool,
}

impl Default for WaitQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl WaitQueue {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self { waiters: SpinLock::new(Cpu, Rank::WaitQueue, Waiters::new()), any: AtomicBool::new(false) }
    }

    /// Wakes the one that has waited longest.
    pub fn wake_one(&self) {
        if self.has_waiters() {
            let mut waiters = self.waiters.lock();
            waiters.wake_first();
            self.note(&waiters);
        }
    }

    /// Wakes all that wait now: the first few at once, and those wake the others. O(1).
    pub fn wake_all(&self) {
        if self.has_waiters() {
            let mut waiters = self.waiters.lock();
            waiters.wake_below = waiters.next_ticket;
            waiters.pass_on(BATCH);
            self.note(&waiters);
        }
    }

    /// Whether somebody may have to hear of what the caller has just done. A waiter enters the queue before it looks
    /// whether that is done; the two barriers see to it that one of the two sees the other.
    #[inline]
    fn has_waiters(&self) -> bool {
        fence(Ordering::SeqCst);
        self.any.load(Ordering::Relaxed)
    }

    fn note(&self, waiters: &Waiters) {
        self.any.store(!waiters.list.is_empty(), Ordering::Relaxed);
    }

    /// Sleeps until `ready` answers something. It is asked before each sleep, with no lock held. EINTR when the
    /// sleep was cut short, ETIMEDOUT when `deadline` (nanoseconds since power-on) passed.
    pub fn wait_until<T>(
        &self,
        sleep: Sleep,
        deadline: Option<u64>,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T, Errno> {
        if let Some(value) = ready() {
            return Ok(value);
        }
        let waiter = Waiter { thread: current(), ticket: Cell::new(0), link: LinkedListLink::new() };
        let result = self::sleep(sleep, deadline, || {
            // The sleep is announced: whoever takes the node out from here on, late for an earlier event perhaps,
            // also ends it, and the next turn puts the node back.
            self.enter(&waiter);
            ready()
        });
        let was_woken = !self.leave(&waiter);
        if was_woken && result.is_err() {
            // A wake-up that was meant for one must not be lost with this one.
            self.wake_one();
        }
        result
    }

    fn enter(&self, waiter: &Waiter) {
        let mut waiters = self.waiters.lock();
        waiters.pass_on(RELAY);
        if !waiter.link.is_linked() {
            waiters.push(waiter);
        }
        self.note(&waiters);
        drop(waiters);
        // See `has_waiters`.
        fence(Ordering::SeqCst);
    }

    /// Takes the node out; answers whether it was still in.
    fn leave(&self, waiter: &Waiter) -> bool {
        let mut waiters = self.waiters.lock();
        let linked = waiter.link.is_linked();
        if linked {
            // SAFETY: a linked node is in this queue, whose lock is held.
            unsafe { waiters.list.cursor_mut_from_ptr(waiter).remove() };
        }
        waiters.pass_on(RELAY);
        self.note(&waiters);
        linked
    }
}

/// Sleeps until `ready` answers something, whatever it is that wakes this thread ([`sched::wake`]). `ready` is asked
/// before each sleep, when the sleep is already announced, so that no wake-up after the question is lost; it must
/// not sleep. EINTR when the sleep was cut short, ETIMEDOUT when `deadline` (nanoseconds since power-on) passed.
pub fn sleep<T>(sleep: Sleep, deadline: Option<u64>, mut ready: impl FnMut() -> Option<T>) -> Result<T, Errno> {
    let thread = current();
    let result = loop {
        sched::prepare(sleep.state());
        if let Some(value) = ready() {
            break Ok(value);
        }
        if signal::interrupts(thread, sleep) {
            break Err(Errno::EINTR);
        }
        match deadline {
            Some(at) if arch::timer::now_ns() >= at => break Err(Errno::ETIMEDOUT),
            Some(at) => {
                timer::arm(thread, at);
                sched::block();
                timer::disarm(thread);
            }
            None => sched::block(),
        }
    };
    sched::cancel();
    result
}

/// Sleeps until `deadline` (nanoseconds since power-on), or until it is cut short: EINTR.
pub fn sleep_until(deadline: u64) -> Result<(), Errno> {
    match sleep(Sleep::Interruptible, Some(deadline), || None::<()>) {
        Err(Errno::ETIMEDOUT) => Ok(()),
        other => other,
    }
}

/// Sleeps until a signal comes. Answers EINTR.
pub fn pause() -> Errno {
    match sleep(Sleep::Interruptible, None, || None::<core::convert::Infallible>) {
        Err(e) => e,
        Ok(never) => match never {},
    }
}
