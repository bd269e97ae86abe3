//! signalfd: signals that a program reads.
//!
//! As on Linux, whoever reads or polls one finds its own signals: those of its thread and its process. So waiters enter
//! a [source](DeferredSource) of their process, which senders notify; an epoll's item enters the source of the process
//! that adds it. The file keeps a list of its items, since they may be in the deferred sources of several processes.
//!
//! The list's lock ranks as an object's, and no other lock is taken under it.

use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering, fence};

use intrusive_collections::{LinkedList, LinkedListLink, UnsafeRef, intrusive_adapter};
use quire_abi::Errno;
use quire_abi::layout::poll;
use quire_mm::fallible::KArc;
use quire_mm::sync::Rank;

use super::deferred::DeferredSource;
use super::epoll::Item;
use super::source::release;
use crate::task::point::resched_point;
use crate::task::signal::{self, Info};
use crate::task::thread::current;
use crate::task::wait::Sleep;
use crate::vm::{Cpu, SpinLock};

/// An item's link in the list of its file, if the file is a signalfd.
pub struct FileLink(LinkedListLink);

impl FileLink {
    /// In no list.
    pub const fn new() -> Self {
        Self(LinkedListLink::new())
    }
}

intrusive_adapter!(OfFile = UnsafeRef<Item>: Item { file_link.0 => LinkedListLink });

struct Items(LinkedList<OfFile>);

// SAFETY: links are touched under the lock only.
unsafe impl Send for Items {}

/// A set of signals to read.
pub struct SignalFd {
    mask: AtomicU64,
    /// Items of epolls. The list owns a reference to each.
    items: SpinLock<Items>,
}

/// The source of a process with a signalfd, made when a thread first waits for one.
pub struct SignalSource(AtomicPtr<DeferredSource>);

impl SignalSource {
    /// None.
    pub const fn new() -> Self {
        Self(AtomicPtr::new(core::ptr::null_mut()))
    }

    /// The source, if there is one.
    #[inline]
    pub fn get(&self) -> Option<&DeferredSource> {
        // SAFETY: once it exists, it stays until this is dropped.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    /// A reference to the source, which is made if there is none.
    fn get_or_make(&self) -> Result<KArc<DeferredSource>, Errno> {
        if self.get().is_none() {
            let made = KArc::into_raw(DeferredSource::new()?).cast_mut();
            let none = core::ptr::null_mut();
            if self.0.compare_exchange(none, made, Ordering::AcqRel, Ordering::Acquire).is_err() {
                // SAFETY: `into_raw` returned it, and it was not stored.
                drop(unsafe { KArc::from_raw(made) });
            }
        }
        // SAFETY: it exists, and this owns a reference to it.
        unsafe { KArc::upgrade(self.0.load(Ordering::Acquire)) }.ok_or(Errno::ENOMEM)
    }

    /// Notes that a signal has been sent to the process, or to one of its threads. Called under the table's lock,
    /// perhaps in an interrupt.
    #[inline]
    pub fn notify(&self) {
        // Either a source that is made at the same time is seen here, or its maker, which enters it and then checks,
        // sees the signal.
        fence(Ordering::SeqCst);
        let source = self.0.load(Ordering::Acquire);
        if !source.is_null() {
            notify(source);
        }
    }
}

#[cold]
fn notify(source: *const DeferredSource) {
    // SAFETY: the process owns a reference, and the caller keeps the process alive.
    if let Some(source) = unsafe { KArc::upgrade(source) } {
        DeferredSource::notify(&source);
    }
}

impl Drop for SignalSource {
    fn drop(&mut self) {
        let source = *self.0.get_mut();
        if !source.is_null() {
            // SAFETY: `get_or_make` stored it with a reference, which is dropped here.
            drop(unsafe { KArc::from_raw(source) });
        }
    }
}

/// The source at which the calling process waits. ENOMEM.
pub fn own_source() -> Result<KArc<DeferredSource>, Errno> {
    current().process().signal_source.get_or_make()
}

impl SignalFd {
    /// For these signals.
    pub fn new(mask: u64) -> Result<KArc<Self>, Errno> {
        let items = SpinLock::new(Cpu, Rank::Object, Items(LinkedList::new(OfFile::NEW)));
        Ok(KArc::try_new(Self { mask: AtomicU64::new(mask), items })?)
    }

    /// Changes its set of signals.
    pub fn set_mask(&self, mask: u64) {
        self.mask.store(mask, Ordering::Release);
        current().process().signal_source.notify();
    }

    fn mask(&self) -> u64 {
        self.mask.load(Ordering::Acquire)
    }

    /// Takes a signal. Sleeps until there is one, unless `nonblocking`: EAGAIN.
    pub fn read(&self, nonblocking: bool) -> Result<Info, Errno> {
        let thread = current();
        let attempt = || signal::take_of(thread, thread.process(), self.mask());
        match attempt() {
            Some(info) => Ok(info),
            None if nonblocking => Err(Errno::EAGAIN),
            None => own_source()?.source.sleepers.wait_until(Sleep::Interruptible, None, attempt),
        }
    }

    /// Its events for the calling thread.
    pub fn ready(&self) -> u16 {
        let thread = current();
        let Some(process) = &thread.process else { return 0 };
        if signal::pending(thread, process) & self.mask() != 0 { poll::IN } else { 0 }
    }

    /// Adds an item of this file to the list.
    pub fn enter(&self, item: &KArc<Item>) {
        KArc::add_owners(item, 1);
        // SAFETY: the list gets a reference, which whoever takes the item out drops.
        self.items.lock().0.push_back(unsafe { UnsafeRef::from_raw(KArc::as_ptr(item)) });
    }

    /// Takes an item out of the list, if it is there.
    pub fn leave(&self, item: &Item) {
        let taken = {
            let mut items = self.items.lock();
            // SAFETY: a linked item is in this list.
            if item.file_link.0.is_linked() { unsafe { items.0.cursor_mut_from_ptr(item).remove() } } else { None }
        };
        release(taken);
    }

    /// Removes all items, since its last descriptor is gone.
    pub fn close(&self) {
        loop {
            let taken = self.items.lock().0.pop_front();
            let Some(item) = taken else { return };
            item.leave_source();
            item.forget();
            release(Some(item));
            let _ = resched_point(Sleep::Killable);
        }
    }
}
