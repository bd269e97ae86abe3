//! Sources that may be notified where a thread must not sleep: in an interrupt, or under a spin lock.
//!
//! Sleepers are woken at once, which is O(1). Programs determine the number of epolls that watch a source, so notifying
//! them is left to the notification thread, a thread of the kernel's own.
//!
//! Whoever checks an epoll without waiting must find everything that has happened before: so it [catches up](catch_up)
//! first. The list is served in order, so two numbers tell how far the thread has come.
//!
//! The list of sources that the notification thread must serve ranks as an object; it owns a reference to each of them.

use core::sync::atomic::{AtomicU64, Ordering};

use intrusive_collections::{LinkedList, LinkedListLink, UnsafeRef, intrusive_adapter};
use quire_abi::Errno;
use quire_abi::layout::poll;
use quire_mm::fallible::KArc;
use quire_mm::sync::Rank;

use super::source::Source;
use crate::arch::cpu;
use crate::task::point::resched_point;
use crate::task::thread;
use crate::task::wait::{Sleep, WaitQueue};
use crate::vm::{Cpu, SpinLock};

/// A source of objects that become readable.
pub struct DeferredSource {
    /// The waiters.
    pub source: Source,
    /// Belongs to the list.
    link: LinkedListLink,
}

// SAFETY: the link is only touched under the list's lock; the source is `Sync`.
unsafe impl Sync for DeferredSource {}
// SAFETY: as above.
unsafe impl Send for DeferredSource {}

intrusive_adapter!(InList = UnsafeRef<DeferredSource>: DeferredSource { link => LinkedListLink });

struct List(LinkedList<InList>);

// SAFETY: links are only touched under the lock.
unsafe impl Send for List {}

static PENDING: SpinLock<List> = SpinLock::new(Cpu, Rank::Object, List(LinkedList::new(InList::NEW)));
static WORK: WaitQueue = WaitQueue::new();

/// How many sources were put on the list so far, and for how many of them the epolls were told. The former is written
/// under the list's lock.
static ASKED: AtomicU64 = AtomicU64::new(0);
static TOLD: AtomicU64 = AtomicU64::new(0);
/// Threads that catch up.
static BEHIND: WaitQueue = WaitQueue::new();

impl DeferredSource {
    /// Nobody waits.
    pub fn new() -> Result<KArc<Self>, Errno> {
        Ok(KArc::try_new(Self { source: Source::new(), link: LinkedListLink::new() })?)
    }

    /// Notes that an object has become readable. The caller may be an interrupt handler, and may hold locks of lower
    /// ranks than an object's.
    #[inline]
    pub fn notify(this: &KArc<Self>) {
        if this.source.wake_sleepers() {
            Self::defer(this);
        }
    }

    #[cold]
    fn defer(this: &KArc<Self>) {
        {
            let mut pending = PENDING.lock();
            if this.link.is_linked() {
                return;
            }
            KArc::add_owners(this, 1);
            // SAFETY: the list owns a reference, which whoever takes the source out drops.
            pending.0.push_back(unsafe { UnsafeRef::from_raw(KArc::as_ptr(this)) });
            ASKED.fetch_add(1, Ordering::Release);
        }
        WORK.wake_one();
    }
}

/// Returns when the watching epolls have been told of all earlier notifications. The caller holds no lock, and may
/// sleep; a killed thread does not wait.
#[inline]
pub fn catch_up() {
    let asked = ASKED.load(Ordering::Acquire);
    let is_told = move || (TOLD.load(Ordering::Acquire) >= asked).then_some(());
    if is_told().is_none() {
        let _ = BEHIND.wait_until(Sleep::Killable, None, is_told);
    }
}

/// Starts the notification thread.
pub fn start() -> Result<(), Errno> {
    thread::start_kernel(serve)
}

extern "C" fn serve(_: usize) -> ! {
    cpu::irq_enable();
    loop {
        // (A thread without a process is not interrupted.)
        let first = || PENDING.lock().0.pop_front();
        if let Ok(deferred) = WORK.wait_until(Sleep::Killable, None, first) {
            // SAFETY: the list owned a reference, which belongs to this thread now.
            let deferred = unsafe { KArc::from_raw(UnsafeRef::into_raw(deferred)) };
            deferred.source.fire(poll::IN | poll::RDNORM);
            TOLD.fetch_add(1, Ordering::Release);
            BEHIND.wake_all();
        }
        let _ = resched_point(Sleep::Killable);
    }
}
