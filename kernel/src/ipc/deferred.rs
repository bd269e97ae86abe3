//! Sources whose notification may begin where a thread must not sleep: in an interrupt, or under a spin lock.
//!
//! Sleepers are woken at once, which is O(1). The number of epolls that watch is up to programs: the rest is deferred
//! to the notification thread, one of the kernel's own.
//!
//! Whoever looks at an epoll without waiting for what comes later must find what has happened before: it [catches
//! up](catch_up). The list is served in order, so two numbers tell how far the thread is.
//!
//! The list of sources that the notification thread is to serve ranks as an object; it owns a count of each.

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
    /// Those who wait.
    pub source: Source,
    /// Belongs to the list.
    link: LinkedListLink,
}

// SAFETY: the link is touched under the list's lock only; the source is `Sync`.
unsafe impl Sync for DeferredSource {}
// SAFETY: as above.
unsafe impl Send for DeferredSource {}

intrusive_adapter!(InList = UnsafeRef<DeferredSource>: DeferredSource { link => LinkedListLink });

struct List(LinkedList<InList>);

// SAFETY: links are touched under the lock only.
unsafe impl Send for List {}

static PENDING: SpinLock<List> = SpinLock::new(Cpu, Rank::Object, List(LinkedList::new(InList::NEW)));
static WORK: WaitQueue = WaitQueue::new();

/// Sources that were put on the list so far, and those whose epolls were told. The first one is written under the
/// list's lock.
static ASKED: AtomicU64 = AtomicU64::new(0);
static TOLD: AtomicU64 = AtomicU64::new(0);
/// Threads that catch up.
static BEHIND: WaitQueue = WaitQueue::new();

impl DeferredSource {
    /// Nobody waits.
    pub fn new() -> Result<KArc<Self>, Errno> {
        Ok(KArc::try_new(Self { source: Source::new(), link: LinkedListLink::new() })?)
    }

    /// An object is readable now. The caller may be an interrupt, and hold locks of lower ranks than an object's.
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
            // SAFETY: it has a count for the list, which whoever takes it out drops.
            pending.0.push_back(unsafe { UnsafeRef::from_raw(KArc::as_ptr(this)) });
            ASKED.fetch_add(1, Ordering::Release);
        }
        WORK.wake_one();
    }
}

/// Returns when the epolls that watch were told of all that was notified before. The caller holds no lock, and may
/// sleep; a killed one does not wait.
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
        // (A thread of no process is not interrupted.)
        let first = || PENDING.lock().0.pop_front();
        if let Ok(deferred) = WORK.wait_until(Sleep::Killable, None, first) {
            // SAFETY: the list had a count, which is this thread's now.
            let deferred = unsafe { KArc::from_raw(UnsafeRef::into_raw(deferred)) };
            deferred.source.fire(poll::IN | poll::RDNORM);
            TOLD.fetch_add(1, Ordering::Release);
            BEHIND.wake_all();
        }
        let _ = resched_point(Sleep::Killable);
    }
}
