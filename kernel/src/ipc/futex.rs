//! Futexes: sleeping on a word of user memory.
//!
//! A word's identity is its address in its address space (private futexes, and words of private memory), or its
//! position in its memory object. Sleepers are in one of [`BUCKETS`] lists, by a hash of the identity. A sleeper enters
//! its bucket before it compares the word, so that a thread that changes the word and then wakes will find it.
//!
//! Programs decide how many threads sleep on a word or share a bucket. A thread that wakes or moves sleepers handles a
//! few under the lock, leaves a bookmark in the list, and passes a point; tickets tell it which sleepers arrived after
//! it began.
//!
//! Addresses and operations are checked before anything changes.

use core::cell::{Cell, OnceCell};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use intrusive_collections::{LinkedList, LinkedListLink, UnsafeRef, intrusive_adapter};
use quire_abi::Errno;
use quire_mm::UserAddr;
use quire_mm::sync::Rank;

use crate::arch::uaccess;
use crate::task::clock::{self, Until};
use crate::task::entity::{Entity, current};
use crate::task::point::{ENTRIES, resched_point};
use crate::task::sched;
use crate::task::wait::{self, Sleep};
use crate::vm::fault::{self, FutexKey};
use crate::vm::{Cpu, SpinLock};

const BUCKETS: usize = 64;

struct Waiter {
    /// Null for a bookmark.
    thread: *const Entity,
    key: KeyCell,
    bits: u32,
    /// Its place in the order of arrival in its bucket; touched under the bucket's lock.
    ticket: Cell<u64>,
    /// A waker has taken it out. Its thread reads this without the lock, and takes the lock before it continues.
    is_woken: AtomicBool,
    link: LinkedListLink,
}

impl Waiter {
    fn new(key: FutexKey, bits: u32) -> Self {
        Self {
            thread: current(),
            key: KeyCell::new(key),
            bits,
            ticket: Cell::new(0),
            is_woken: AtomicBool::new(false),
            link: LinkedListLink::new(),
        }
    }

    fn bookmark() -> Self {
        let nobody = FutexKey { space: usize::MAX, offset: usize::MAX };
        Self { thread: core::ptr::null(), ..Self::new(nobody, 0) }
    }
}

intrusive_adapter!(InBucket = UnsafeRef<Waiter>: Waiter { link => LinkedListLink });

/// Sleepers in the order in which they came.
struct Bucket {
    list: LinkedList<InBucket>,
    next_ticket: u64,
}

// SAFETY: links and nodes are only touched under the bucket's lock; a node is taken out before its frame ends.
unsafe impl Send for Bucket {}

impl Bucket {
    const fn new() -> Self {
        Self { list: LinkedList::new(InBucket::NEW), next_ticket: 0 }
    }

    fn push(&mut self, waiter: UnsafeRef<Waiter>) {
        waiter.ticket.set(self.next_ticket);
        self.next_ticket += 1;
        self.list.push_back(waiter);
    }
}

static TABLE: [SpinLock<Bucket>; BUCKETS] = [const { SpinLock::new(Cpu, Rank::Futex, Bucket::new()) }; BUCKETS];

fn bucket(key: FutexKey) -> &'static SpinLock<Bucket> {
    let mixed = (key.space as u64 ^ key.offset as u64 >> 2).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    &TABLE[(mixed >> 58) as usize]
}

/// The key of a word: EINVAL if it is misaligned, EFAULT if the address cannot belong to a program.
fn key_of(addr: UserAddr, private: bool) -> Result<FutexKey, Errno> {
    if !addr.is_aligned(4) {
        return Err(Errno::EINVAL);
    }
    uaccess::check(addr, 4)?;
    fault::futex_key(current().mm().ok_or(Errno::EFAULT)?, addr, private)
}

/// Sleeps while the word at `addr` is `expected`. EAGAIN if it is not, ETIMEDOUT past `until`, EINTR.
pub fn wait(addr: UserAddr, expected: u32, bits: u32, until: Option<Until>, private: bool) -> Result<(), Errno> {
    if bits == 0 {
        return Err(Errno::EINVAL);
    }
    let key = key_of(addr, private)?;
    let waiter = Waiter::new(key, bits);
    // SAFETY: taken out below, or by a waker, before this frame ends.
    bucket(key).lock().push(unsafe { UnsafeRef::from_raw(&waiter) });
    // Reading may fault, so no lock is held. A waker changes the word before it searches the bucket, so either the new
    // value is seen here, or the waker finds this waiter.
    let result = match uaccess::get::<u32>(addr) {
        Ok(now) if now == expected => {
            let woken = || waiter.is_woken.load(Ordering::SeqCst).then_some(());
            match until {
                None => wait::sleep(Sleep::Interruptible, None, woken),
                Some(Until::Monotonic(at)) => wait::sleep(Sleep::Interruptible, Some(at), woken),
                Some(Until::Real(at)) => clock::sleep_until(at, woken),
            }
        }
        Ok(_) => Err(Errno::EAGAIN),
        Err(e) => Err(e),
    };
    if remove(&waiter) { result } else { Ok(()) }
}

/// Takes a waiter out; returns whether it was still in the list, so that no waker had removed it.
fn remove(waiter: &Waiter) -> bool {
    lock_of(waiter, |bucket| {
        let linked = waiter.link.is_linked();
        if linked {
            // SAFETY: a linked waiter is in the bucket of its key, whose lock is held.
            unsafe { bucket.list.cursor_mut_from_ptr(waiter).remove() };
        }
        linked
    })
}

/// Runs `f` with the lock of the bucket that a waiter is in; requeueing may move it until that lock is held.
fn lock_of<T>(waiter: &Waiter, f: impl FnOnce(&mut Bucket) -> T) -> T {
    loop {
        let lock = bucket(waiter.key.get());
        let mut guard = lock.lock();
        if core::ptr::eq(lock, bucket(waiter.key.get())) {
            return f(&mut guard);
        }
    }
}

/// A waiter's key: changed under the locks of both buckets concerned, read under either or, as a hint for which to
/// lock, under none.
struct KeyCell {
    space: AtomicUsize,
    offset: AtomicUsize,
}

impl KeyCell {
    fn new(key: FutexKey) -> Self {
        Self { space: AtomicUsize::new(key.space), offset: AtomicUsize::new(key.offset) }
    }

    fn get(&self) -> FutexKey {
        FutexKey { space: self.space.load(Ordering::Relaxed), offset: self.offset.load(Ordering::Relaxed) }
    }

    fn set(&self, key: FutexKey) {
        self.space.store(key.space, Ordering::Relaxed);
        self.offset.store(key.offset, Ordering::Relaxed);
    }
}

/// Wakes up to `count` sleepers of a word whose bits overlap `bits`; returns how many.
pub fn wake(addr: UserAddr, count: u32, bits: u32, private: bool) -> Result<usize, Errno> {
    if bits == 0 {
        return Err(Errno::EINVAL);
    }
    Ok(wake_key(key_of(addr, private)?, count, bits))
}

fn wake_key(key: FutexKey, count: u32, bits: u32) -> usize {
    let source = bucket(key).lock();
    if source.list.is_empty() {
        // The common case: no walk needs to be prepared.
        return 0;
    }
    let sweep = Sweep { key, count: count as usize, bits, target: None, moved: 0 };
    sweep.run(Buckets { first: source, second: None, is_swapped: false })
}

/// How many sleepers are woken under one hold of the lock: each enters a run queue, which costs ten times as much as
/// examining it.
const WAKES: usize = 16;

/// A wake or requeue operation on the threads that sleep on a word when it begins.
struct Sweep {
    key: FutexKey,
    /// How many of the sleepers whose bits overlap `bits` to wake.
    count: usize,
    bits: u32,
    /// Where to move others, and how many of them.
    target: Option<FutexKey>,
    moved: usize,
}

/// The buckets of a sweep, locked in the order of their addresses; a waiter is always in one of them.
struct Buckets {
    /// Dropped first: releasing the lock that was taken first unmasks interrupts.
    second: Option<SpinGuard>,
    first: SpinGuard,
    /// Whether waiters move to the first one.
    is_swapped: bool,
}

type SpinGuard = quire_mm::sync::SpinGuard<'static, Bucket, Cpu>;

impl Buckets {
    /// Locks the bucket of a word and the bucket that its sleepers are to be moved to.
    fn of(key: FutexKey, target: Option<FutexKey>) -> Self {
        let source = bucket(key);
        Self::lock(source, target.map_or(source, bucket))
    }

    fn lock(source: &'static SpinLock<Bucket>, destination: &'static SpinLock<Bucket>) -> Self {
        if core::ptr::eq(source, destination) {
            return Self { first: source.lock(), second: None, is_swapped: false };
        }
        let is_swapped = core::ptr::from_ref(destination) < core::ptr::from_ref(source);
        let (first, second) = if is_swapped { (destination, source) } else { (source, destination) };
        let first = first.lock();
        Self { first, second: Some(second.lock_as(Rank::FutexSecond)), is_swapped }
    }

    /// The bucket with the waiters, and the one that they move to: `None` if it is the same.
    fn get(&mut self) -> (&mut Bucket, Option<&mut Bucket>) {
        let first: &mut Bucket = &mut self.first;
        match self.second.as_deref_mut() {
            Some(source) if self.is_swapped => (source, Some(first)),
            destination => (first, destination),
        }
    }
}

impl Sweep {
    /// Returns how many were woken or moved. Even a killed thread completes it: sleepers may belong to other processes.
    fn run(mut self, mut buckets: Buckets) -> usize {
        // Only made if there are more sleepers than one step handles.
        let bookmark = OnceCell::new();
        let mut done = 0;
        let end = buckets.get().0.next_ticket;
        while !self.step(&mut buckets, &bookmark, end, &mut done) {
            drop(buckets);
            let _ = resched_point(Sleep::Killable);
            buckets = Buckets::of(self.key, self.target);
        }
        done
    }

    /// Handles a few sleepers from the bookmark on, or from the first. Returns whether all were handled; if not, the
    /// bookmark marks where to continue.
    fn step(&mut self, buckets: &mut Buckets, bookmark: &OnceCell<Waiter>, end: u64, done: &mut usize) -> bool {
        let (source, mut destination) = buckets.get();
        let list = &mut source.list;
        let mut at = match bookmark.get() {
            Some(bookmark) => {
                // SAFETY: the previous step linked it in this list, whose lock is held.
                let mut at = unsafe { list.cursor_mut_from_ptr(bookmark) };
                at.remove();
                at
            }
            None => list.front_mut(),
        };
        let wakes_end = *done + WAKES;
        for _ in 0..ENTRIES {
            let Some(waiter) = at.get() else { return true };
            if self.count > 0 && *done == wakes_end {
                break;
            }
            if waiter.ticket.get() >= end && !waiter.thread.is_null() || self.count == 0 && self.moved == 0 {
                return true;
            }
            if waiter.key.get() != self.key {
                at.move_next();
            } else if self.count > 0 {
                if waiter.bits & self.bits == 0 {
                    at.move_next();
                    continue;
                }
                let thread = waiter.thread;
                waiter.is_woken.store(true, Ordering::SeqCst);
                at.remove();
                // SAFETY: the waiter was in the bucket, so its thread is inside `wait`, which takes this lock before
                // it returns.
                sched::wake(unsafe { &*thread });
                self.count -= 1;
                *done += 1;
            } else {
                match (&mut destination, self.target) {
                    (Some(destination), Some(target)) => {
                        if let Some(waiter) = at.remove() {
                            waiter.key.set(target);
                            destination.push(waiter);
                        }
                    }
                    (None, Some(target)) => {
                        waiter.key.set(target);
                        at.move_next();
                    }
                    (_, None) => return true,
                }
                self.moved -= 1;
                *done += 1;
            }
        }
        // SAFETY: `run` continues until the bookmark is out again.
        at.insert_before(unsafe { UnsafeRef::from_raw(bookmark.get_or_init(Waiter::bookmark)) });
        false
    }
}

/// Wakes up to `count` sleepers of `from` and moves up to `moved` others to `to`, if the word at `from` is still
/// `expected` (if given): EAGAIN otherwise. Returns how many were woken or moved.
pub fn requeue(
    from: UserAddr,
    to: UserAddr,
    count: u32,
    moved: u32,
    expected: Option<u32>,
    private: bool,
) -> Result<usize, Errno> {
    let (key, target) = (key_of(from, private)?, key_of(to, private)?);
    if let Some(expected) = expected
        && uaccess::get::<u32>(from)? != expected
    {
        return Err(Errno::EAGAIN);
    }
    let sweep = Sweep { key, count: count as usize, bits: u32::MAX, target: Some(target), moved: moved as usize };
    Ok(sweep.run(Buckets::of(key, Some(target))))
}

/// The operation of `FUTEX_WAKE_OP` on a word, and its comparison of the old value.
struct Operation {
    change: u32,
    operand: u32,
    compare: u32,
    than: i32,
}

impl Operation {
    /// Decodes the argument; ENOSYS for an unknown operation or comparison.
    fn decode(op: u32) -> Result<Self, Errno> {
        const SHIFT: u32 = 8;
        let signed = |bits: u32| (bits << 20) as i32 >> 20;
        let mut operand = signed(op >> 12) as u32;
        if op >> 28 & SHIFT != 0 {
            operand = 1 << (operand & 31);
        }
        let (change, compare) = (op >> 28 & 7, op >> 24 & 15);
        if change > 4 || compare > 5 {
            return Err(Errno::ENOSYS);
        }
        Ok(Self { change, operand, compare, than: signed(op) })
    }

    fn apply(&self, old: u32) -> u32 {
        match self.change {
            0 => self.operand,
            1 => old.wrapping_add(self.operand),
            2 => old | self.operand,
            3 => old & !self.operand,
            _ => old ^ self.operand,
        }
    }

    fn holds(&self, old: u32) -> bool {
        let old = old as i32;
        match self.compare {
            0 => old == self.than,
            1 => old != self.than,
            2 => old < self.than,
            3 => old <= self.than,
            4 => old > self.than,
            _ => old >= self.than,
        }
    }
}

/// Changes the word at `second` by `op` and wakes sleepers of both words, at most `counts`: `FUTEX_WAKE_OP` of
/// futex(2).
pub fn wake_op(first: UserAddr, second: UserAddr, counts: [u32; 2], op: u32, private: bool) -> Result<usize, Errno> {
    let (key, second_key) = (key_of(first, private)?, key_of(second, private)?);
    let operation = Operation::decode(op)?;
    let mut old = uaccess::get::<u32>(second)?;
    loop {
        let was = uaccess::cmpxchg(second, old, operation.apply(old))?;
        if was == old {
            break;
        }
        old = was;
    }
    let mut woken = wake_key(key, counts[0], u32::MAX);
    if operation.holds(old) {
        woken += wake_key(second_key, counts[1], u32::MAX);
    }
    Ok(woken)
}
