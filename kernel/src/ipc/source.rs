//! Sources: where threads and epolls wait for an object that can become ready (see `docs/readiness.md`).
//!
//! An object changes its state, then [wakes](Source::wake) the source. A waiter enters the source, then checks the
//! state. Each executes a full barrier between its two steps, so that at least one of them sees what the other has
//! done.
//!
//! The lock ranks as an object's and is held for a few items; no other lock is taken under it.

use core::sync::atomic::{AtomicBool, Ordering, fence};

use intrusive_collections::{Bound, KeyAdapter, RBTree, RBTreeLink, UnsafeRef, intrusive_adapter};
use quire_abi::Errno;
use quire_mm::fallible::KArc;
use quire_mm::sync::Rank;

use super::descriptor::OpenFile;
use super::epoll::{Epoll, Item, Key};
use crate::task::point::resched_point;
use crate::task::wait::{Sleep, WaitQueue};
use crate::vm::{Cpu, SpinLock};

/// How many items are handled under one hold of the lock.
const BATCH: usize = 16;

/// An item's link and key in its source.
pub struct SourceLink(RBTreeLink);

impl SourceLink {
    /// In no source.
    pub const fn new() -> Self {
        Self(RBTreeLink::new())
    }
}

intrusive_adapter!(InSource = UnsafeRef<Item>: Item { source_link.0 => RBTreeLink });

impl<'a> KeyAdapter<'a> for InSource {
    type Key = (Key, u64);
    fn get_key(&self, item: &'a Item) -> (Key, u64) {
        item.place()
    }
}

/// The waiters for one side of an object.
pub struct Source {
    /// Threads, including those that read and write.
    pub sleepers: WaitQueue,
    /// The tree owns its items: it holds a reference to each.
    items: SpinLock<RBTree<InSource>>,
    /// Whether there are items, or have been. Set before an item enters.
    has_items: AtomicBool,
}

impl Source {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self {
            sleepers: WaitQueue::new(),
            items: SpinLock::new(Cpu, Rank::Object, RBTree::new(InSource::NEW)),
            has_items: AtomicBool::new(false),
        }
    }

    /// Wakes all waiters, since the object's readiness has changed by `events`. The caller holds no lock and may sleep.
    #[inline]
    pub fn wake(&self, events: u16) {
        if self.wake_sleepers() {
            self.fire(events);
        }
    }

    /// Only wakes threads; returns whether there may also be items to [notify](Source::fire).
    #[inline]
    pub fn wake_sleepers(&self) -> bool {
        self.sleepers.wake_all();
        // (wake_all begins with the barrier.)
        self.has_items.load(Ordering::Relaxed)
    }

    /// Notifies the epolls of all items, a few at a time. The caller holds no lock and may sleep.
    #[cold]
    pub fn fire(&self, events: u16) {
        let mut last: Option<(Key, u64)> = None;
        loop {
            let mut batch: [Option<KArc<Item>>; BATCH] = [const { None }; BATCH];
            {
                let items = self.items.lock();
                let bound = last.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
                let mut cursor = items.lower_bound(bound);
                for place in &mut batch {
                    let Some(item) = cursor.get() else { break };
                    // SAFETY: the tree owns the item, and its lock is held.
                    *place = unsafe { KArc::upgrade(item) };
                    last = Some(item.place());
                    cursor.move_next();
                }
            }
            let is_full = batch.iter().all(Option::is_some);
            batch.iter().flatten().for_each(|item| item.fire(events));
            drop(batch);
            if !is_full {
                return;
            }
            // A killed thread continues: others wait for this.
            let _ = resched_point(Sleep::Killable);
        }
    }

    /// Enters an item, which then checks its object's state.
    pub fn enter(&self, item: &KArc<Item>) {
        self.has_items.store(true, Ordering::Relaxed);
        KArc::add_owners(item, 1);
        // SAFETY: the tree gets a reference, which is dropped when the item is taken out.
        self.items.lock().insert(unsafe { UnsafeRef::from_raw(KArc::as_ptr(item)) });
        fence(Ordering::SeqCst);
    }

    /// Takes an item out, if it is there.
    pub fn leave(&self, item: &Item) {
        let taken = {
            let mut items = self.items.lock();
            // SAFETY: a linked item is in this tree, since its object has one source.
            if item.source_link.0.is_linked() { unsafe { items.cursor_mut_from_ptr(item).remove() } } else { None }
        };
        release(taken);
    }

    /// Calls `visit` for the epoll of each item. EINTR if the thread is killed.
    pub fn each_owner(&self, visit: &mut dyn FnMut(&KArc<Epoll>) -> Result<(), Errno>) -> Result<(), Errno> {
        let mut last: Option<(Key, u64)> = None;
        loop {
            let owner = {
                let items = self.items.lock();
                let cursor = items.lower_bound(last.as_ref().map_or(Bound::Unbounded, Bound::Excluded));
                let Some(item) = cursor.get() else { return Ok(()) };
                last = Some(item.place());
                item.owner().clone()
            };
            visit(&owner)?;
            resched_point(Sleep::Killable)?;
        }
    }

    /// Removes all items of an open file. The file is about to be dropped, so no more items enter.
    pub fn leave_all(&self, file: &OpenFile) {
        loop {
            let taken = {
                let mut items = self.items.lock();
                let mut cursor = items.lower_bound_mut(Bound::Included(&(Key::first_of(file), 0)));
                if cursor.get().is_some_and(|item| item.place().0.is_of(file)) { cursor.remove() } else { None }
            };
            let Some(item) = taken else { return };
            item.forget();
            release(Some(item));
            let _ = resched_point(Sleep::Killable);
        }
    }
}

/// Drops a tree's reference to an item that was taken out of it.
pub fn release(item: Option<UnsafeRef<Item>>) {
    if let Some(item) = item {
        // SAFETY: the tree owned a reference, and whoever takes the item out drops it.
        unsafe { KArc::drop_owners(UnsafeRef::into_raw(item), 1) }
    }
}
