//! Sleeping until a condition holds. [`sleep`] is the only way in which a thread waits, and handles interrupted sleeps
//! in one place. A [`WaitQueue`] is `sleep` with a list of the threads that wait for an event.
//!
//! Programs decide how many threads wait for one event, and the event may happen in an interrupt or under a spin lock.
//! So no single wake-up wakes them all: the waker wakes [`BATCH`] of them, and each woken thread wakes [`RELAY`] more.
//! Tickets tell which threads waited already when the event happened.

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, Ordering, fence};

use intrusive_collections::{LinkedList, LinkedListLink, UnsafeRef, intrusive_adapter};
use quire_abi::Errno;
use quire_mm::sync::Rank;

use super::entity::{Entity, current, state};
use super::{sched, timer};
use crate::arch;
use crate::vm::{Cpu, SpinLock};

/// What may interrupt a sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleep {
    /// Any signal that the thread does not block.
    Interruptible,
    /// Only the end of the process.
    Killable,
    /// Nothing: for waits that are as short as another thread's critical section.
    Deaf,
}

impl Sleep {
    /// The scheduler's state of a thread that sleeps so.
    pub fn state(self) -> u32 {
        match self {
            Sleep::Interruptible => state::SLEEPING,
            Sleep::Killable | Sleep::Deaf => state::KILLABLE,
        }
    }
}

unsafe extern "Rust" {
    /// Whether a signal or the end of its process interrupts a thread's sleep, or its long work. Defined where signals are.
    #[link_name = "thread_is_interrupted"]
    pub safe fn interrupts(thread: &Entity, sleep: Sleep) -> bool;
}

/// Threads that an event wakes at once.
const BATCH: usize = 16;

/// Threads that each of them wakes in its turn.
const RELAY: usize = 2;

struct Waiter {
    thread: *const Entity,
    /// For a [`Place`]: its poller's mark.
    mark: Option<*const AtomicBool>,
    /// Its place in the order of arrival; touched under the queue's lock.
    ticket: Cell<u64>,
    link: LinkedListLink,
}

intrusive_adapter!(InWait = UnsafeRef<Waiter>: Waiter { link => LinkedListLink });

/// In order of their tickets.
struct Waiters {
    list: LinkedList<InWait>,
    next_ticket: u64,
    /// Waiters with lower tickets are to be woken.
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

    /// Wakes the longest waiter.
    fn wake_first(&mut self) {
        if let Some(waiter) = self.list.pop_front() {
            // SAFETY: the waiter was in the queue, so its thread is still inside `wait_until`, or its poller lives; both
            // take the lock that is held here before that changes.
            unsafe {
                if let Some(mark) = waiter.mark {
                    (*mark).store(true, Ordering::Release);
                }
                sched::wake(&*waiter.thread);
            }
        }
    }

    /// Wakes a few of the threads that waited when the event happened.
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
    /// Whether there are any. Written under the lock; wakers read it first without the lock, since usually nothing
    /// waits.
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

    /// Wakes the longest waiter.
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

    /// Whether there may be waiters for the event that the caller has just caused. A waiter enters the queue before it
    /// checks its condition; the two barriers ensure that one of the two sees the other's store.
    #[inline]
    fn has_waiters(&self) -> bool {
        fence(Ordering::SeqCst);
        self.any.load(Ordering::Relaxed)
    }

    fn note(&self, waiters: &Waiters) {
        self.any.store(!waiters.list.is_empty(), Ordering::Relaxed);
    }

    /// Sleeps until `ready` returns a value. It is called before each sleep, with no lock held. EINTR if the sleep was
    /// interrupted, ETIMEDOUT if `deadline` (nanoseconds since power-on) passed.
    pub fn wait_until<T>(
        &self,
        sleep: Sleep,
        deadline: Option<u64>,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T, Errno> {
        if let Some(value) = ready() {
            return Ok(value);
        }
        let waiter = Waiter { thread: current(), mark: None, ticket: Cell::new(0), link: LinkedListLink::new() };
        let mut has_slept = false;
        let result = self::sleep(sleep, deadline, || {
            // A thread that was woken mostly finds what it waited for, and need not enter again.
            if core::mem::replace(&mut has_slept, true)
                && let Some(value) = ready()
            {
                return Some(value);
            }
            // The sleep is announced: a waker that unlinks the node from here on, perhaps late for an earlier event,
            // also ends the sleep, and the next iteration links the node again.
            self.enter(&waiter);
            ready()
        });
        let was_woken = !self.leave(&waiter);
        if was_woken && result.is_err() {
            // A wake-up for a single thread must not be lost with this one: pass it on.
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

    /// Unlinks the node; returns whether it was still linked.
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

/// A thread that waits in several queues at once, with a [`Place`] in each.
pub struct Poller {
    thread: *const Entity,
    is_woken: AtomicBool,
}

impl Poller {
    /// The calling thread.
    pub fn new() -> Self {
        Self { thread: current(), is_woken: AtomicBool::new(false) }
    }

    /// Forgets events until now; the caller then enters its places and looks at its objects.
    pub fn reset(&self) {
        self.is_woken.store(false, Ordering::Relaxed);
    }

    /// Sleeps until one of the places is taken out of its queue, or has been since [`Poller::reset`]. Errors as of [`sleep`].
    pub fn sleep(&self, deadline: Option<u64>) -> Result<(), Errno> {
        sleep(Sleep::Interruptible, deadline, || self.is_woken.load(Ordering::Acquire).then_some(()))
    }
}

/// A place of a [`Poller`] in a queue.
pub struct Place(Waiter);

impl Place {
    /// In no queue yet.
    ///
    /// # Safety
    /// The place is entered into one queue only. From its first entry on, until it is taken out by [`WaitQueue::leave_place`], neither
    /// it nor the poller nor the queue moves or is dropped. The poller's thread makes all these calls.
    pub unsafe fn new(poller: &Poller) -> Self {
        let mark = Some(&raw const poller.is_woken);
        Self(Waiter { thread: poller.thread, mark, ticket: Cell::new(0), link: LinkedListLink::new() })
    }
}

impl WaitQueue {
    /// Enters a place, unless it is in the queue.
    pub fn enter_place(&self, place: &Place) {
        self.enter(&place.0);
    }

    /// Takes a place out of the queue.
    pub fn leave_place(&self, place: &Place) {
        self.leave(&place.0);
    }
}

/// Sleeps until `ready` returns a value, whatever wakes this thread ([`sched::wake`]). `ready` is called before each
/// sleep, after the sleep is announced, so that no later wake-up is lost; it must not sleep. EINTR if the sleep was
/// interrupted, ETIMEDOUT if `deadline` (nanoseconds since power-on) passed.
pub fn sleep<T>(sleep: Sleep, deadline: Option<u64>, mut ready: impl FnMut() -> Option<T>) -> Result<T, Errno> {
    let thread = current();
    let result = loop {
        sched::prepare(sleep.state());
        if let Some(value) = ready() {
            break Ok(value);
        }
        if interrupts(thread, sleep) {
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

/// Sleeps until `deadline` (nanoseconds since power-on); EINTR if interrupted.
pub fn sleep_until(deadline: u64) -> Result<(), Errno> {
    match sleep(Sleep::Interruptible, Some(deadline), || None::<()>) {
        Err(Errno::ETIMEDOUT) => Ok(()),
        other => other,
    }
}

/// Sleeps until a signal comes; returns EINTR.
pub fn pause() -> Errno {
    match sleep(Sleep::Interruptible, None, || None::<core::convert::Infallible>) {
        Err(e) => e,
        Ok(never) => match never {},
    }
}
