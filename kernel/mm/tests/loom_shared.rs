//! The sleeping lock under loom: readers, intending writers and killed waiters in all interleavings. A lost wake-up is
//! a deadlock, which loom reports; reading a value while it is written is a race on its cell.
//!
//! The lock's file is compiled into this test with loom's atomics, and a machine whose threads are loom's.

mod machine {
    /// The calling thread was killed.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Killed;

    /// What the lock asks of the machine.
    pub trait Machine: Copy {
        fn relax(self);
        fn this_thread(self) -> usize;
        fn park(self, killable: bool, ready: &mut dyn FnMut() -> bool) -> bool;
        /// # Safety
        /// `thread` is from `this_thread`, and the thread does not end during the call.
        unsafe fn unpark(self, thread: usize);
    }
}

mod sync {
    use crate::machine::Machine;
    use loom::sync::{Mutex, MutexGuard};

    pub mod atomic {
        pub use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
        /// Every thread that finds the lock taken sleeps.
        pub const LOOKS: u32 = 0;
    }

    #[derive(Clone, Copy)]
    pub enum Rank {
        AddressSpace,
        SleepQueue,
    }

    impl Rank {
        pub fn sleeps(self) -> bool {
            matches!(self, Self::AddressSpace)
        }
    }

    /// The kernel's spin lock, as far as the queue needs it.
    pub struct SpinLock<T, M> {
        value: Mutex<T>,
        _machine: M,
    }

    impl<T, M: Machine> SpinLock<T, M> {
        pub fn new(machine: M, _rank: Rank, value: T) -> Self {
            Self { value: Mutex::new(value), _machine: machine }
        }
        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.value.lock().unwrap()
        }
    }

    pub fn note_taken<M>(_machine: M, _rank: Rank) {}
    pub fn note_released<M>(_machine: M, _rank: Rank) {}
}

#[allow(dead_code)]
#[path = "../src/sync/queue.rs"]
mod queue;
// No look before the sleep: `LOOKS` is 0 here.
#[allow(dead_code, clippy::reversed_empty_ranges)]
#[path = "../src/sync/shared.rs"]
mod shared;

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;
use machine::Machine;
use shared::SharedLock;
use sync::{Rank, SpinLock, atomic, note_released, note_taken};

/// Threads sleep as loom's do.
#[derive(Clone, Copy)]
struct Threads {
    /// Whether whoever may be killed has been.
    killed: bool,
}

impl Machine for Threads {
    fn relax(self) {
        thread::yield_now();
    }
    fn this_thread(self) -> usize {
        ME.with(|me| std::ptr::from_ref::<Sleeper>(me).expose_provenance())
    }
    fn park(self, killable: bool, ready: &mut dyn FnMut() -> bool) -> bool {
        let me = ME.with(|me| *me);
        loop {
            *me.is_asleep.lock().unwrap() = true;
            let is_ready = ready();
            let mut is_asleep = me.is_asleep.lock().unwrap();
            if is_ready || killable && self.killed {
                *is_asleep = false;
                return is_ready;
            }
            while *is_asleep {
                is_asleep = me.woken.wait(is_asleep).unwrap();
            }
        }
    }
    unsafe fn unpark(self, thread: usize) {
        // SAFETY: `this_thread` answered the address of what is never freed.
        let sleeper = unsafe { &*std::ptr::with_exposed_provenance::<Sleeper>(thread) };
        *sleeper.is_asleep.lock().unwrap() = false;
        sleeper.woken.notify_one();
    }
}

/// Whether a thread has announced a sleep. As in the kernel, waking a thread that has not leaves no trace. (The lock
/// stands for the kernel's fences between this and the condition.)
struct Sleeper {
    is_asleep: Mutex<bool>,
    woken: Condvar,
}

loom::thread_local! {
    static ME: &'static Sleeper = Box::leak(Box::new(Sleeper { is_asleep: Mutex::new(false), woken: Condvar::new() }));
}

/// A value whose accesses loom watches.
struct Watched(UnsafeCell<u32>);

// SAFETY: loom fails the test where two threads access it unordered.
unsafe impl Sync for Watched {}
// SAFETY: as above.
unsafe impl Send for Watched {}

impl Watched {
    fn get(&self) -> u32 {
        // SAFETY: loom watches.
        self.0.with(|value| unsafe { *value })
    }
    fn add(&self, n: u32) {
        // SAFETY: loom watches.
        self.0.with_mut(|value| unsafe { *value += n });
    }
}

type Lock = SharedLock<Watched, Threads>;

fn lock(killed: bool) -> Arc<Lock> {
    Arc::new(SharedLock::new(Threads { killed }, Rank::AddressSpace, Watched(UnsafeCell::new(0))))
}

fn write(lock: &Lock) {
    let mut intent = lock.intend();
    let before = intent.get();
    let value = intent.write();
    value.add(1);
    assert_eq!(value.get(), before + 1, "another writer came in between");
    drop(value);
    assert_eq!(intent.get(), before + 1, "another writer did not wait for the end of the intent");
}

fn model(test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(test);
}

#[test]
fn two_writers() {
    model(|| {
        let lock = lock(false);
        let other = thread::spawn({
            let lock = lock.clone();
            move || write(&lock)
        });
        write(&lock);
        other.join().unwrap();
        assert_eq!(lock.read().get(), 2);
    });
}

#[test]
fn a_writer_and_two_readers() {
    model(|| {
        let lock = lock(false);
        let reader = thread::spawn({
            let lock = lock.clone();
            move || {
                let value = lock.read();
                assert_eq!(value.get(), value.get());
            }
        });
        let writer = thread::spawn({
            let lock = lock.clone();
            move || write(&lock)
        });
        let first = lock.read();
        let seen = first.get();
        drop(first);
        assert!(seen <= lock.read().get());
        reader.join().unwrap();
        writer.join().unwrap();
    });
}

#[test]
fn a_reader_comes_in_beside_what_is_left_of_an_intent() {
    model(|| {
        let lock = lock(false);
        let mut intent = lock.intend();
        let value = intent.write();
        let reader = thread::spawn({
            let lock = lock.clone();
            move || lock.read().get()
        });
        value.add(1);
        drop(value);
        assert!(reader.join().unwrap() <= 1);
        drop(intent);
    });
}

#[test]
fn a_writer_that_never_pauses_lets_another_in() {
    model(|| {
        let lock = lock(false);
        let other = thread::spawn({
            let lock = lock.clone();
            move || write(&lock)
        });
        for _ in 0..2 {
            drop(lock.intend());
        }
        other.join().unwrap();
        write(&lock);
        assert_eq!(lock.read().get(), 2);
    });
}

#[test]
fn a_killed_waiter_leaves_the_lock_to_those_behind_it() {
    model(|| {
        let lock = lock(true);
        let intent = lock.intend();
        let killed = thread::spawn({
            let lock = lock.clone();
            move || drop(lock.intend_killable())
        });
        let other = thread::spawn({
            let lock = lock.clone();
            move || write(&lock)
        });
        drop(intent);
        killed.join().unwrap();
        other.join().unwrap();
        write(&lock);
        assert_eq!(lock.read().get(), 2);
    });
}
