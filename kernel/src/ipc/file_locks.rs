//! File locks in the kernel: the locks of each file that has any, and the waits for them (`docs/locks.md`). The rules
//! of the locks themselves are in [`quire_locks`].
//!
//! A file has a [`FileLocks`] as long as it has a lock, or a thread tries to set one. It is found by the file's
//! identity, so that all who have the file open use the same one. While there are locks, it owns itself.
//!
//! Lock order: the records belong to the holder of the mutex, which may sleep and pass points meanwhile. Under the
//! mutex it may take, one at a time and for O(log n) steps, the locks of a part of the table, of the flocks, and of the
//! waits, which all rank as objects. Nothing is allocated or dropped under these. A mutex is held for one operation
//! only, so even threads that must not be interrupted wait for it.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use intrusive_collections::{Bound, KeyAdapter, RBTree, RBTreeLink, UnsafeRef, intrusive_adapter};
use quire_abi::Errno;
use quire_locks::tree::Node;
use quire_locks::{Edge, Flock, Flocks, Lock, Owner, Range, Records, Spare, Waits};
use quire_mm::addr::PAGE_SIZE;
use quire_mm::fallible::KArc;
use quire_mm::sync::Rank;

use super::descriptor::{Object, OpenFile};
use crate::task::mutex::{Mutex, MutexGuard};
use crate::task::point::resched_point;
use crate::task::wait::{Sleep, WaitQueue};
use crate::vm::{Cpu, PAGES, SpinLock};

/// The number of parts of the table: a power of two.
const PARTS: usize = 32;

/// The approximate size of a lock in bytes: two nodes.
const LOCK_SIZE: usize = 256;

/// A file's identity: the same for all who have it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key(u8, u64);

impl Key {
    fn of(object: &Object) -> Self {
        fn at<T>(object: *const T) -> u64 {
            object.addr() as u64
        }
        match object {
            Object::Memory(file) => Self(0, at(KArc::as_ptr(file))),
            Object::Name(name) => match &name.file {
                Some(file) => Self(0, at(KArc::as_ptr(file))),
                None => Self(1, name.place.to_word()),
            },
            Object::Archive(node) => Self(0, at(*node)),
            Object::Pipe(pipe, _) => Self(0, at(KArc::as_ptr(pipe))),
            Object::Console => Self(2, 0),
            Object::Null => Self(2, 1),
            Object::Zero => Self(2, 2),
            Object::EventFd(counter) => Self(0, at(KArc::as_ptr(counter))),
            Object::Epoll(epoll) => Self(0, at(KArc::as_ptr(epoll))),
            Object::TimerFd(timer) => Self(0, at(KArc::as_ptr(timer))),
            Object::SignalFd(signals) => Self(0, at(KArc::as_ptr(signals))),
            Object::PidFd(process) => Self(0, at(KArc::as_ptr(process))),
            Object::Socket(socket) => Self(0, at(KArc::as_ptr(socket))),
        }
    }

    fn part(self) -> &'static SpinLock<RBTree<InTable>> {
        let mixed = self.1.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        &TABLE[(mixed >> 40) as usize % PARTS]
    }
}

intrusive_adapter!(InTable = UnsafeRef<FileLocks>: FileLocks { link => RBTreeLink });

impl<'a> KeyAdapter<'a> for InTable {
    type Key = Key;
    fn get_key(&self, locks: &'a FileLocks) -> Key {
        locks.key
    }
}

static TABLE: [SpinLock<RBTree<InTable>>; PARTS] =
    [const { SpinLock::new(Cpu, Rank::Object, RBTree::new(InTable::NEW)) }; PARTS];

/// Record locks in all.
static RECORDS: AtomicUsize = AtomicUsize::new(0);

/// The proof that a wait still holds: nothing has been unlocked in the file since.
struct Proof {
    file: KArc<FileLocks>,
    generation: u64,
}

impl Proof {
    fn holds(&self) -> bool {
        self.file.generation.load(Ordering::Acquire) == self.generation
    }
}

/// The owners that wait. Only processes: an open file may belong to several processes, so nobody can tell whether it
/// waits for itself.
static WAITS: SpinLock<Waits<Proof>> = SpinLock::new(Cpu, Rank::Object, Waits::new());

static NEXT_WAIT: AtomicU64 = AtomicU64::new(0);
static NEXT_OWNER: AtomicU64 = AtomicU64::new(0);

/// A new owner: for a table of descriptors, and so for a process.
pub fn new_owner() -> Owner {
    Owner(NEXT_OWNER.fetch_add(1, Ordering::Relaxed) << 1 | 1)
}

/// An open file as an owner. Its address is even, and it unlocks everything before it ends.
pub fn owner_of(open: &OpenFile) -> Owner {
    Owner(core::ptr::from_ref(open).addr() as u64)
}

fn is_process(owner: Owner) -> bool {
    owner.0 & 1 == 1
}

/// The state under the mutex.
struct Recorded {
    records: Records,
    /// While there are any.
    own: Option<KArc<FileLocks>>,
}

struct Flocked {
    flocks: Flocks,
    own: Option<KArc<FileLocks>>,
}

/// The locks of a file.
pub struct FileLocks {
    key: Key,
    /// Belongs to the table.
    link: RBTreeLink,
    mutex: Mutex,
    /// The mutex's holder's.
    recorded: UnsafeCell<Recorded>,
    flocked: SpinLock<Flocked>,
    /// Changed when something is unlocked. Written by the mutex's holder.
    generation: AtomicU64,
    /// The threads that wait for record locks, and those that wait for flocks.
    record_sleepers: WaitQueue,
    flock_sleepers: WaitQueue,
}

// SAFETY: `link` is only touched under the lock of the table's part, `recorded` only by the mutex's holder; the rest is
// `Sync`.
unsafe impl Sync for FileLocks {}
// SAFETY: as above.
unsafe impl Send for FileLocks {}

impl Drop for FileLocks {
    fn drop(&mut self) {
        let mut part = self.key.part().lock();
        if self.link.is_linked() {
            // SAFETY: if it is linked, it is in the part of its key, whose lock is held.
            unsafe { part.cursor_mut_from_ptr(self).remove() };
        }
    }
}

fn find_in(part: &RBTree<InTable>, key: Key) -> Option<KArc<FileLocks>> {
    let mut cursor = part.lower_bound(Bound::Included(&key));
    while let Some(found) = cursor.get().filter(|found| found.key == key) {
        // SAFETY: it is in the tree, whose lock the caller holds, and leaves it before its memory is freed.
        if let Some(locks) = unsafe { KArc::upgrade(found) } {
            return Some(locks);
        }
        // (The last owner of this one is gone, and waits for the lock to remove it.)
        cursor.move_next();
    }
    None
}

/// The locks of the file, if it has any.
fn find(object: &Object) -> Option<KArc<FileLocks>> {
    let key = Key::of(object);
    find_in(&key.part().lock(), key)
}

/// The locks of the file, made if there are none. ENOMEM.
pub fn of(object: &Object) -> Result<KArc<FileLocks>, Errno> {
    if let Some(found) = find(object) {
        return Ok(found);
    }
    let key = Key::of(object);
    let new = KArc::try_new(FileLocks {
        key,
        link: RBTreeLink::new(),
        mutex: Mutex::new(),
        recorded: UnsafeCell::new(Recorded { records: Records::new(), own: None }),
        flocked: SpinLock::new(Cpu, Rank::Object, Flocked { flocks: Flocks::new(), own: None }),
        generation: AtomicU64::new(0),
        record_sleepers: WaitQueue::new(),
        flock_sleepers: WaitQueue::new(),
    })?;
    let mut part = key.part().lock();
    if let Some(found) = find_in(&part, key) {
        // (`new` must be dropped without the lock.)
        drop(part);
        return Ok(found);
    }
    // SAFETY: it leaves the tree when it is dropped.
    part.insert(unsafe { UnsafeRef::from_raw(KArc::as_ptr(&new)) });
    Ok(new)
}

/// The records, which are the caller's while it has the mutex.
struct Held<'a> {
    file: &'a KArc<FileLocks>,
    _guard: MutexGuard<'a>,
}

impl<'a> Held<'a> {
    fn take(file: &'a KArc<FileLocks>, cut: Sleep) -> Result<Self, Errno> {
        Ok(Self { file, _guard: file.mutex.lock(cut)? })
    }

    /// Changes the records; returns the result of `change`, and whether waiters may continue. The last part of the
    /// result must be dropped after the mutex is released.
    fn change<T>(&mut self, change: impl FnOnce(&mut Records) -> (T, bool)) -> (T, bool, Option<KArc<FileLocks>>) {
        // SAFETY: this value has the mutex, and is mutably borrowed; nothing below takes another reference.
        let recorded = unsafe { &mut *self.file.recorded.get() };
        let before = recorded.records.len();
        let (result, released) = change(&mut recorded.records);
        let after = recorded.records.len();
        // (Wraps below 0, and back.)
        RECORDS.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
        if released {
            self.file.generation.fetch_add(1, Ordering::Release);
        }
        let gone = if after == 0 { recorded.own.take() } else { None };
        if after > 0 && recorded.own.is_none() {
            recorded.own = Some(self.file.clone());
        }
        (result, released, gone)
    }
}

/// A point between two locks that are replaced. A killed thread continues: an operation must be completed.
fn point() {
    let _ = resched_point(Sleep::Deaf);
}

/// Sets a record lock; if `waits`, sleeps while other locks conflict. EAGAIN, EDEADLK, EINTR; ENOLCK for too many locks
/// in total; ENOMEM.
pub fn set(file: &KArc<FileLocks>, lock: Lock, waits: bool) -> Result<(), Errno> {
    let most = PAGES.total_managed() * PAGE_SIZE / 25 / LOCK_SIZE;
    loop {
        let mut spare = Spare::new()?;
        if RECORDS.load(Ordering::Relaxed) >= most {
            return Err(Errno::ENOLCK);
        }
        let mut held = Held::take(file, Sleep::Killable)?;
        let (result, released, gone) = held.change(|records| match records.set(lock, &mut spare, point) {
            Ok(released) => (Ok(()), released),
            Err(other) => (Err(other.owner), false),
        });
        let generation = file.generation.load(Ordering::Relaxed);
        drop(held);
        drop(gone);
        match result {
            Ok(()) => {
                if released {
                    file.record_sleepers.wake_all();
                }
                return Ok(());
            }
            Err(_) if !waits => return Err(Errno::EAGAIN),
            Err(blocker) => wait(file, lock.owner, blocker, generation)?,
        }
    }
}

/// Waits until something is unlocked in a file where `blocker` had a conflicting lock at `generation`. EDEADLK, EINTR,
/// ENOMEM.
fn wait(file: &KArc<FileLocks>, waiter: Owner, blocker: Owner, generation: u64) -> Result<(), Errno> {
    let proof = Proof { file: file.clone(), generation };
    let serial = NEXT_WAIT.fetch_add(1, Ordering::Relaxed);
    let is_searched = is_process(waiter) && is_process(blocker);
    if is_searched {
        let edge = Node::new(Edge { waiter: (waiter, serial), blocker, proof })?;
        let entered = WAITS.lock().enter(edge, Proof::holds);
        entered.map_err(|_| Errno::EDEADLK)?;
    }
    let has_changed = || (file.generation.load(Ordering::Acquire) != generation).then_some(());
    let result = file.record_sleepers.wait_until(Sleep::Interruptible, None, has_changed);
    if is_searched {
        let left = WAITS.lock().leave((waiter, serial));
        drop(left);
    }
    result
}

/// Unlocks a range. ENOMEM, EINTR.
pub fn release(object: &Object, owner: Owner, range: Range) -> Result<(), Errno> {
    let Some(file) = find(object) else { return Ok(()) };
    release_with(&file, owner, range, &mut Spare::new()?, Sleep::Killable)
}

fn release_with(
    file: &KArc<FileLocks>,
    owner: Owner,
    range: Range,
    spare: &mut Spare,
    cut: Sleep,
) -> Result<(), Errno> {
    let mut held = Held::take(file, cut)?;
    let ((), released, gone) = held.change(|records| ((), records.release(owner, range, spare, point)));
    drop(held);
    drop(gone);
    if released {
        file.record_sleepers.wake_all();
    }
    Ok(())
}

/// Unlocks everything that an owner has locked in a file. (No lock is split, so nothing is allocated.)
pub fn release_all(object: &Object, owner: Owner) {
    if let Some(file) = find(object) {
        let _ = release_with(&file, owner, Range::ALL, &mut Spare::default(), Sleep::Deaf);
    }
}

/// The result of `look` for the records of a file; `None` if it has none.
pub fn look<T>(object: &Object, look: impl FnOnce(&Records) -> Option<T>) -> Result<Option<T>, Errno> {
    let Some(file) = find(object) else { return Ok(None) };
    let held = Held::take(&file, Sleep::Killable)?;
    // SAFETY: the mutex is held until the end.
    let found = look(unsafe { &(*file.recorded.get()).records });
    drop(held);
    Ok(found)
}

/// Tries once to give an open file the lock that it wants; returns whether it has it now.
fn try_flock(file: &KArc<FileLocks>, open: &OpenFile, wanted: Flock) -> bool {
    let mut has = Flock::None;
    let mut state = file.flocked.lock();
    open.exchange_flock(&mut has);
    let (released, taken) = if has == wanted {
        (false, true)
    } else {
        // As flock(2) says, the old lock is released before the new one is set.
        let released = state.flocks.release(&mut has);
        (released, state.flocks.take(&mut has, wanted))
    };
    open.exchange_flock(&mut has);
    let is_empty = state.flocks.is_empty();
    let gone = if is_empty { state.own.take() } else { None };
    if !is_empty && state.own.is_none() {
        state.own = Some(file.clone());
    }
    drop(state);
    drop(gone);
    if released {
        file.flock_sleepers.wake_all();
    }
    taken
}

/// Gives an open file a lock, or removes its lock; if `waits`, sleeps while other locks conflict. EAGAIN, EINTR.
pub fn flock(file: &KArc<FileLocks>, open: &OpenFile, wanted: Flock, waits: bool) -> Result<(), Errno> {
    if waits {
        let attempt = || try_flock(file, open, wanted).then_some(());
        file.flock_sleepers.wait_until(Sleep::Interruptible, None, attempt)
    } else if try_flock(file, open, wanted) {
        Ok(())
    } else {
        Err(Errno::EAGAIN)
    }
}

/// Unlocks everything, since an open file that has or had locks is gone.
#[cold]
pub fn closed(open: &OpenFile) {
    if let Some(file) = find(&open.object) {
        try_flock(&file, open, Flock::None);
        let _ = release_with(&file, owner_of(open), Range::ALL, &mut Spare::default(), Sleep::Deaf);
    }
}
