//! epoll: a set of open files, and those of them that have become ready (see `docs/readiness.md`).
//!
//! The set's lock ranks as an object's and is held for a few items; no other lock is taken under it.

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use intrusive_collections::{
    Bound, KeyAdapter, LinkedList, LinkedListLink, RBTree, RBTreeLink, UnsafeRef, intrusive_adapter,
};
use quire_abi::Errno;
use quire_abi::layout::{EpollEvent, epoll, poll};
use quire_mm::addr::PAGE_SIZE;
use quire_mm::fallible::KArc;
use quire_mm::sync::Rank;

use super::deferred::{self, DeferredSource};
use super::descriptor::{Object, OpenFile};
use super::nesting::{self, Checked};
use super::signalfd::{self, FileLink};
use super::source::{Source, SourceLink, release};
use crate::task::point::{ENTRIES, resched_point};
use crate::task::wait::{Sleep, WaitQueue};
use crate::vm::{Cpu, PAGES, SpinLock};

/// Events that are always reported.
const ALWAYS: u32 = (poll::ERR | poll::HUP) as u32;

/// The bits of an item's events that say how events are reported. An item without other bits is disabled.
const FLAGS: u32 = epoll::ONESHOT | epoll::ET | epoll::EXCLUSIVE | epoll::WAKEUP;

/// Items of all epolls.
static ITEMS: AtomicUsize = AtomicUsize::new(0);

/// The next item's [`Item::serial`].
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// The key of an item: an open file and a number in an epoll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    file: usize,
    epoll: usize,
    fd: i32,
}

impl Key {
    fn new(file: &OpenFile, epoll: &Epoll, fd: i32) -> Self {
        Self { file: core::ptr::from_ref(file).addr(), epoll: core::ptr::from_ref(epoll).addr(), fd }
    }

    /// A key below all keys of a file.
    pub fn first_of(file: &OpenFile) -> Self {
        Self { file: core::ptr::from_ref(file).addr(), epoll: 0, fd: i32::MIN }
    }

    /// Whether it is a key of this file.
    pub fn is_of(&self, file: &OpenFile) -> bool {
        self.file == core::ptr::from_ref(file).addr()
    }
}

/// An open file in an epoll.
pub struct Item {
    key: Key,
    /// Counts all items.
    serial: u64,
    epoll: KArc<Epoll>,
    /// The file's object. (Not the file itself: an item keeps no end of a pipe open.)
    object: Object,
    /// For signals: the source of the process that has added the item, which notifies it.
    deferred: Option<KArc<DeferredSource>>,
    /// The awaited events, and how they are reported. Under the epoll's lock, as the links below.
    events: Cell<u32>,
    data: Cell<u64>,
    set_link: RBTreeLink,
    ready_link: LinkedListLink,
    /// Belongs to the source.
    pub source_link: SourceLink,
    /// The link in the list of a signalfd.
    pub file_link: FileLink,
}

// SAFETY: the cells and the epoll's links are touched under the epoll's lock, the source's link under the source's; the
// rest is immutable.
unsafe impl Send for Item {}
// SAFETY: as above.
unsafe impl Sync for Item {}

intrusive_adapter!(InSet = UnsafeRef<Item>: Item { set_link => RBTreeLink });
intrusive_adapter!(InReady = UnsafeRef<Item>: Item { ready_link => LinkedListLink });

impl<'a> KeyAdapter<'a> for InSet {
    type Key = Key;
    fn get_key(&self, item: &'a Item) -> Key {
        item.key
    }
}

impl Item {
    /// Its key in a source: the item's key, and its age, since it may replace an older item with the same key.
    pub fn place(&self) -> (Key, u64) {
        (self.key, self.serial)
    }

    /// The epoll that it belongs to.
    pub fn owner(&self) -> &KArc<Epoll> {
        &self.epoll
    }

    /// The events of its object that are in `wanted`; none for a disabled item. The caller holds no lock.
    fn ready(&self, wanted: u32) -> u32 {
        u32::from(self.object.ready()) & wanted
    }

    /// Checks the item, since its object may have `events`. The caller holds no lock.
    pub fn fire(&self, events: u16) {
        if self.object.is_of_looker() {
            self.epoll.note(self, self.epoll.wanted(self) & u32::from(events));
        } else {
            self.epoll.consider(self, events.into());
        }
    }

    /// Enters the item into its source, then checks its object.
    fn enter_source(this: &KArc<Self>) {
        match (&this.object, &this.deferred) {
            (Object::SignalFd(signals), Some(deferred)) => {
                signals.enter(this);
                deferred.source.enter(this);
            }
            (object, _) => object.source().into_iter().for_each(|source| source.enter(this)),
        }
    }

    /// Removes the item from its source, if it is there.
    pub fn leave_source(&self) {
        match (&self.object, &self.deferred) {
            (Object::SignalFd(signals), Some(deferred)) => {
                signals.leave(self);
                deferred.source.leave(self);
            }
            (object, _) => object.source().into_iter().for_each(|source| source.leave(self)),
        }
    }

    /// Removes the item from its epoll, since its file is gone.
    pub fn forget(&self) {
        let taken = self.epoll.set.lock().take(self);
        release(taken);
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        ITEMS.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Set {
    /// The tree owns its items: it holds a reference to each.
    items: RBTree<InSet>,
    /// The items that have become ready. They are all in the tree.
    ready: LinkedList<InReady>,
    ready_len: usize,
}

// SAFETY: the links are only touched under the lock.
unsafe impl Send for Set {}

impl Set {
    /// Puts an item on the ready list, unless it has left the set; returns whether it is on the list.
    fn append(&mut self, item: &Item) -> bool {
        if item.set_link.is_linked() && !item.ready_link.is_linked() {
            // SAFETY: the item is in the tree, which owns it, and leaves the list before the tree.
            self.ready.push_back(unsafe { UnsafeRef::from_raw(item) });
            self.ready_len += 1;
        }
        item.ready_link.is_linked()
    }

    fn first_ready(&self) -> Option<KArc<Item>> {
        // SAFETY: the tree owns it.
        self.ready.front().get().and_then(|item| unsafe { KArc::upgrade(item) })
    }

    fn take_ready(&mut self, item: &Item) {
        if item.ready_link.is_linked() {
            // SAFETY: a linked item is in this list.
            unsafe { self.ready.cursor_mut_from_ptr(item).remove() };
            self.ready_len -= 1;
        }
    }

    fn take_first_ready(&mut self) -> Option<KArc<Item>> {
        let item = self.ready.pop_front()?;
        self.ready_len -= 1;
        // SAFETY: the tree owns it.
        unsafe { KArc::upgrade(&raw const *item) }
    }

    /// Takes an item out, if it is there; the caller releases it after releasing the lock.
    fn take(&mut self, item: &Item) -> Option<UnsafeRef<Item>> {
        if !item.set_link.is_linked() {
            return None;
        }
        self.take_ready(item);
        // SAFETY: a linked item is in this tree.
        unsafe { self.items.cursor_mut_from_ptr(item).remove() }
    }

    fn find(&self, key: &Key) -> Option<KArc<Item>> {
        // SAFETY: the tree owns the item.
        self.items.find(key).get().and_then(|item| unsafe { KArc::upgrade(item) })
    }
}

/// A set of open files that a program waits for.
pub struct Epoll {
    set: SpinLock<Set>,
    /// Threads in epoll_wait.
    waiters: WaitQueue,
    /// The waiters for the epoll as an object.
    pub source: Source,
    /// The result of the last check for circles.
    pub checked: Checked,
    /// Whether an item was ever added that the notification thread notifies, or may notify: one whose object is an
    /// epoll.
    has_deferred: AtomicBool,
}

impl Epoll {
    /// An empty set.
    pub fn new() -> Result<KArc<Self>, Errno> {
        let set = Set { items: RBTree::new(InSet::NEW), ready: LinkedList::new(InReady::NEW), ready_len: 0 };
        Ok(KArc::try_new(Self {
            set: SpinLock::new(Cpu, Rank::Object, set),
            waiters: WaitQueue::new(),
            source: Source::new(),
            checked: Checked::new(),
            has_deferred: AtomicBool::new(false),
        })?)
    }

    /// Adds a file under a number. EEXIST, ELOOP, ENOSPC; EPERM for a file that is always ready.
    pub fn add(this: &KArc<Self>, file: &OpenFile, fd: i32, event: EpollEvent) -> Result<(), Errno> {
        if !file.object.has_source() {
            return Err(Errno::EPERM);
        }
        let deferred = if let Object::SignalFd(_) = file.object { Some(signalfd::own_source()?) } else { None };
        if matches!(file.object, Object::SignalFd(_) | Object::TimerFd(_) | Object::Epoll(_)) {
            this.has_deferred.store(true, Ordering::Relaxed);
        }
        let _nesting = match &file.object {
            Object::Epoll(below) => Some(nesting::check(this, below)?),
            _ => None,
        };
        let most = PAGES.total_managed() * PAGE_SIZE / 25 / size_of::<Item>();
        if ITEMS.fetch_add(1, Ordering::Relaxed) >= most {
            ITEMS.fetch_sub(1, Ordering::Relaxed);
            return Err(Errno::ENOSPC);
        }
        // (If this fails, the item is dropped, and with it its count.)
        let item = KArc::try_new(Item {
            key: Key::new(file, this, fd),
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            epoll: this.clone(),
            object: file.object.clone(),
            deferred,
            events: Cell::new(event.events | ALWAYS),
            data: Cell::new(event.data),
            set_link: RBTreeLink::new(),
            ready_link: LinkedListLink::new(),
            source_link: SourceLink::new(),
            file_link: FileLink::new(),
        })?;
        {
            let mut set = this.set.lock();
            if set.items.find(&item.key).get().is_some() {
                return Err(Errno::EEXIST);
            }
            KArc::add_owners(&item, 1);
            // SAFETY: the tree gets a reference, which is dropped when the item is taken out.
            set.items.insert(unsafe { UnsafeRef::from_raw(KArc::as_ptr(&item)) });
        }
        file.note_watched();
        Item::enter_source(&item);
        let is_there = {
            let _set = this.set.lock();
            item.set_link.is_linked()
        };
        if !is_there {
            // Another thread has removed it meanwhile, and did not find it in the source.
            item.leave_source();
        }
        this.consider(&item, u32::MAX);
        Ok(())
    }

    /// Changes the awaited events of a file's item; ENOENT.
    pub fn change(&self, file: &OpenFile, fd: i32, event: EpollEvent) -> Result<(), Errno> {
        let item = {
            let set = self.set.lock();
            let item = set.find(&Key::new(file, self, fd)).ok_or(Errno::ENOENT)?;
            if (item.events.get() | event.events) & epoll::EXCLUSIVE != 0 {
                return Err(Errno::EINVAL);
            }
            item.events.set(event.events | ALWAYS);
            item.data.set(event.data);
            item
        };
        self.consider(&item, u32::MAX);
        Ok(())
    }

    /// Removes a file's item; ENOENT.
    pub fn remove(&self, file: &OpenFile, fd: i32) -> Result<(), Errno> {
        let (item, taken) = {
            let mut set = self.set.lock();
            let item = set.find(&Key::new(file, self, fd)).ok_or(Errno::ENOENT)?;
            let taken = set.take(&item);
            (item, taken)
        };
        release(taken);
        item.leave_source();
        Ok(())
    }

    /// Removes all items, since the last descriptor of the epoll is gone.
    pub fn close(&self) {
        loop {
            let first = {
                let mut set = self.set.lock();
                // SAFETY: the tree owns the item.
                let first = set.items.front().get().and_then(|item| unsafe { KArc::upgrade(item) });
                first.map(|item| (set.take(&item), item))
            };
            let Some((taken, item)) = first else { return };
            release(taken);
            item.leave_source();
            // A killed thread goes on.
            let _ = resched_point(Sleep::Killable);
        }
    }

    /// Puts an item on the ready list if it waits for any of `events` and that event is present; then wakes a waiter
    /// and whoever waits for this epoll, even if the item already was on the list. The caller holds no lock.
    fn consider(&self, item: &Item, events: u32) {
        self.note(item, item.ready(self.wanted(item)) & events);
    }

    fn wanted(&self, item: &Item) -> u32 {
        let _set = self.set.lock();
        item.events.get()
    }

    /// As [`Epoll::consider`], for events that are known to be present. The caller holds no lock.
    fn note(&self, item: &Item, found: u32) {
        if found != 0 && self.set.lock().append(item) {
            self.waiters.wake_one();
            self.source.wake(poll::IN | poll::RDNORM);
        }
    }

    /// Ensures that the ready list reflects everything that has happened before. The caller holds no lock, and may
    /// sleep.
    #[inline]
    pub fn catch_up(&self) {
        if self.has_deferred.load(Ordering::Relaxed) {
            deferred::catch_up();
        }
    }

    /// Sleeps until an item may be ready. ETIMEDOUT at the deadline, EINTR.
    pub fn sleep(&self, deadline: Option<u64>) -> Result<(), Errno> {
        self.waiters.wait_until(Sleep::Interruptible, deadline, || (self.set.lock().ready_len > 0).then_some(()))
    }

    /// Takes the next item of the ready list, and if it is ready, passes its events to `put`. `None` if there is no
    /// item. The caller holds no lock.
    ///
    /// An item that will be reported again stays on the list meanwhile, at its end, so that threads that look at the
    /// same time find it too.
    pub fn take(&self, put: impl FnOnce(EpollEvent) -> Result<(), Errno>) -> Result<Option<Taken>, Errno> {
        let (item, wanted, data, there) = {
            let mut set = self.set.lock();
            let there = set.ready_len;
            let Some(item) = set.take_first_ready() else { return Ok(None) };
            let (wanted, data) = (item.events.get(), item.data.get());
            if wanted & epoll::ONESHOT != 0 {
                // Nobody else may report it.
                item.events.set(wanted & FLAGS);
            } else if wanted & epoll::ET == 0 {
                set.append(&item);
            }
            (item, wanted, data, there)
        };
        let ready = u32::from(item.object.told(item.ready(wanted) as u16));
        let stored = if ready == 0 { Ok(()) } else { put(EpollEvent { events: ready, pad: 0, data }) };
        let is_reported = ready != 0 && stored.is_ok();
        if wanted & epoll::ONESHOT != 0 && !is_reported {
            self.enable(&item, wanted);
        } else if ready == 0 {
            self.leave_ready(&item);
        } else if !is_reported && wanted & epoll::ET != 0 {
            self.consider(&item, u32::MAX);
        }
        stored.map(|()| Some(Taken { there, is_reported }))
    }

    /// Takes an item that was found not to be ready off the ready list. It may have become ready since, so it is
    /// checked again.
    fn leave_ready(&self, item: &Item) {
        self.set.lock().take_ready(item);
        self.consider(item, u32::MAX);
    }

    /// Enables an item that was disabled for a while, unless it has been changed, and checks it, since it may have
    /// missed an event.
    #[cold]
    fn enable(&self, item: &Item, wanted: u32) {
        {
            let _set = self.set.lock();
            if item.events.get() == wanted & FLAGS {
                item.events.set(wanted);
            }
        }
        self.consider(item, u32::MAX);
    }

    /// Wakes another waiter if there are ready items left.
    pub fn pass_on(&self) {
        if self.set.lock().ready_len > 0 {
            self.waiters.wake_one();
        }
    }

    /// Its events as an object. Items that are no longer ready leave the list. The caller holds no lock, and may sleep.
    pub fn ready(&self) -> u16 {
        let mut looked = 0usize;
        loop {
            let (item, wanted) = {
                let set = self.set.lock();
                let Some(item) = set.first_ready() else { return 0 };
                let wanted = item.events.get();
                (item, wanted)
            };
            if item.ready(wanted) != 0 {
                return poll::IN | poll::RDNORM;
            }
            self.leave_ready(&item);
            looked += 1;
            if looked.is_multiple_of(ENTRIES) {
                // A killed thread continues: others wait for the result.
                let _ = resched_point(Sleep::Killable);
            }
        }
    }

    /// Calls `visit` for each epoll that this one watches. EINTR if the thread is killed.
    pub fn each_below(&self, visit: &mut dyn FnMut(&KArc<Epoll>) -> Result<(), Errno>) -> Result<(), Errno> {
        let mut last: Option<Key> = None;
        loop {
            let found = {
                let set = self.set.lock();
                let mut cursor = set.items.lower_bound(last.as_ref().map_or(Bound::Unbounded, Bound::Excluded));
                let mut found = None;
                for _ in 0..ENTRIES {
                    let Some(item) = cursor.get() else { break };
                    last = Some(item.key);
                    if let Object::Epoll(below) = &item.object {
                        found = Some(below.clone());
                        break;
                    }
                    cursor.move_next();
                }
                if found.is_none() && cursor.is_null() {
                    return Ok(());
                }
                found
            };
            if let Some(below) = found {
                visit(&below)?;
            }
            resched_point(Sleep::Killable)?;
        }
    }
}

/// An item that was taken off the ready list.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// How many items were on the list before.
    pub there: usize,
    /// The item was ready, and has been reported.
    pub is_reported: bool,
}
