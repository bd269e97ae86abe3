//! Sleeping until something holds: [`sleep`] is the one way in which a thread waits, and the one way out of a sleep
//! that is cut short. A [`WaitQueue`] is `sleep` with a list of those whom an event concerns.

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
}

impl Sleep {
    fn state(self) -> u32 {
        match self {
            Sleep::Interruptible => state::SLEEPING,
            Sleep::Killable => state::KILLABLE,
        }
    }
}

struct Waiter {
    thread: *const Thread,
    link: LinkedListLink,
}

intrusive_adapter!(InWait = UnsafeRef<Waiter>: Waiter { link => LinkedListLink });

struct Waiters(LinkedList<InWait>);

// SAFETY: links and nodes are only touched under the queue's lock; a node is taken out before its stack frame ends.
unsafe impl Send for Waiters {}

/// Threads that wait for the same thing.
pub struct WaitQueue {
    waiters: SpinLock<Waiters>,
}

impl Default for WaitQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl WaitQueue {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self { waiters: SpinLock::new(Cpu, Rank::WaitQueue, Waiters(LinkedList::new(InWait::NEW))) }
    }

    /// Wakes the one that has waited longest.
    pub fn wake_one(&self) {
        let mut waiters = self.waiters.lock();
        if let Some(waiter) = waiters.0.pop_front() {
            // SAFETY: the waiter was in the queue, so its thread is still inside `wait_until`, which takes the
            // lock that is held here before it returns.
            sched::wake(unsafe { &*waiter.thread });
        }
    }

    /// Wakes all. O(waiters).
    pub fn wake_all(&self) {
        let mut waiters = self.waiters.lock();
        while let Some(waiter) = waiters.0.pop_front() {
            // SAFETY: as in `wake_one`.
            sched::wake(unsafe { &*waiter.thread });
        }
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
        let waiter = Waiter { thread: current(), link: LinkedListLink::new() };
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
        if !waiter.link.is_linked() {
            // SAFETY: `wait_until` takes the node out before its frame ends.
            waiters.0.push_back(unsafe { UnsafeRef::from_raw(waiter) });
        }
    }

    /// Takes the node out; answers whether it was still in.
    fn leave(&self, waiter: &Waiter) -> bool {
        let mut waiters = self.waiters.lock();
        let linked = waiter.link.is_linked();
        if linked {
            // SAFETY: a linked node is in this queue, whose lock is held.
            unsafe { waiters.0.cursor_mut_from_ptr(waiter).remove() };
        }
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
