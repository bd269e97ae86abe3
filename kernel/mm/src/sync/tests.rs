//! The sleeping lock on host threads that really sleep: a lost wake-up hangs the test.

use std::boxed::Box;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::thread;
use std::vec::Vec;

use super::*;
use crate::sim::Sim;

type Lock<T> = SharedLock<T, &'static Sim>;

fn lock<T>(value: T) -> &'static Lock<T> {
    Box::leak(Box::new(SharedLock::new(Sim::with_mib(16), Rank::AddressSpace, value)))
}

/// Waits until `n` threads are queued, or one waits for readers.
fn until_queued<T>(lock: &Lock<T>, n: usize) {
    while lock.waiters() < n {
        thread::yield_now();
    }
}

#[test]
fn readers_and_writers_exclude_each_other_as_they_should() {
    let lock = lock((0_usize, 0_usize));
    let rounds = 3_000;
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for n in 0..rounds {
                    let mut intent = lock.intend();
                    let seen = intent.0;
                    if n % 7 == 0 {
                        thread::yield_now();
                    }
                    assert_eq!(intent.0, seen, "another writer came in between");
                    let mut write = intent.write();
                    write.0 = seen + 1;
                    if n % 5 == 0 {
                        thread::yield_now();
                    }
                    write.1 = seen + 1;
                }
            });
            scope.spawn(|| {
                for n in 0..rounds {
                    let read = lock.read();
                    let first = read.0;
                    if n % 3 == 0 {
                        thread::yield_now();
                    }
                    assert_eq!((first, first), (read.0, read.1), "a reader saw a change half done");
                }
            });
        }
    });
    assert_eq!(lock.read().0, 3 * rounds);
    assert!(lock.is_open());
}

#[test]
fn sleepers_are_served_one_writer_at_a_time_and_all_readers_at_once() {
    let lock = lock(0_usize);
    let order = AtomicUsize::new(0);
    thread::scope(|scope| {
        let mut intent = lock.intend();
        let write = intent.write();
        let (lock, order) = (&*lock, &order);
        let writers: Vec<_> = (0..2)
            .map(|n| {
                let writer = scope.spawn(move || {
                    *lock.intend().write() += 1;
                    order.fetch_add(1, AcqRel)
                });
                until_queued(lock, n + 1);
                writer
            })
            .collect();
        let readers: Vec<_> = (0..3).map(|_| scope.spawn(move || *lock.read())).collect();
        until_queued(lock, 5);
        drop(write);
        // The intent is still here: readers alone come in.
        for reader in readers {
            assert_eq!(reader.join().unwrap(), 0);
        }
        assert_eq!(order.load(Acquire), 0);
        drop(intent);
        for writer in writers {
            writer.join().unwrap();
        }
    });
    assert_eq!(*lock.read(), 2);
    assert!(lock.is_open());
}

/// Programs determine how many threads wait: a release wakes a few, and those wake the others.
#[test]
fn a_release_wakes_a_few_of_many_readers() {
    const READERS: usize = 60;
    let lock = lock(());
    thread::scope(|scope| {
        let mut intent = lock.intend();
        let write = intent.write();
        for _ in 0..READERS {
            scope.spawn(|| drop(lock.read()));
        }
        until_queued(lock, READERS);
        let before = Sim::unparked();
        drop(write);
        drop(intent);
        let woken = Sim::unparked() - before;
        assert!(woken <= 2 * 16, "{woken} threads woken at once");
    });
    assert!(lock.is_open());
}

#[test]
fn a_writer_that_is_passed_by_once_is_not_passed_by_again() {
    let lock = lock(());
    let had_it = AtomicBool::new(false);
    thread::scope(|scope| {
        let mut intent = lock.intend();
        scope.spawn(|| {
            let _intent = lock.intend();
            had_it.store(true, Release);
        });
        until_queued(lock, 1);
        // Threads that never leave the lock free for long may delay a sleeper, but not for ever.
        while !had_it.load(Acquire) {
            drop(intent);
            intent = lock.intend();
        }
    });
    assert!(lock.is_open());
}

#[test]
fn a_killed_thread_waits_no_longer_and_leaves_no_trace() {
    let lock = lock(());
    let intent = lock.intend();
    thread::scope(|scope| {
        let killed = scope.spawn(|| {
            Sim::kill_after(0);
            lock.intend_killable().is_err()
        });
        assert!(killed.join().unwrap());
        // A thread behind it in the queue is served nevertheless.
        let other = scope.spawn(|| drop(lock.intend()));
        until_queued(lock, 1);
        drop(intent);
        other.join().unwrap();
    });
    assert!(lock.is_open());
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "taken under a spin lock")]
fn a_sleeping_lock_is_not_taken_under_a_spin_lock() {
    let lock = lock(());
    let spin = SpinLock::new(Sim::with_mib(16), Rank::Object, ());
    let _held = spin.lock();
    let _read = lock.read();
}

/// Waiters leave from any position, and the others stay in order.
#[test]
fn waiters_leave_the_queue_in_any_order() {
    use super::queue::{List, Waiter};
    const WAITERS: usize = 5;
    for order in 0..WAITERS.pow(3) {
        let waiters: Vec<Waiter> = (0..WAITERS).map(Waiter::new).collect();
        let last = Waiter::new(WAITERS);
        let mut list = List::EMPTY;
        // SAFETY: the waiters outlive the list's use, and each enters once.
        waiters.iter().for_each(|waiter| unsafe { list.push(waiter) });
        let mut model: Vec<usize> = (0..WAITERS).collect();
        for gone in [order % WAITERS, order / WAITERS % WAITERS, order / WAITERS / WAITERS] {
            // SAFETY: it was in no other list.
            unsafe { list.remove(&waiters[gone]) };
            model.retain(|waiter| *waiter != gone);
            assert_eq!(list.front().map(|waiter| waiter.thread), model.first().copied());
        }
        // SAFETY: as above.
        unsafe { list.push(&last) };
        model.push(WAITERS);
        assert_eq!(list.len(), model.len());
        let mut left = Vec::new();
        while let Some(thread) = list.front().map(|waiter| waiter.thread) {
            left.push(thread);
            list.pop();
        }
        assert_eq!(left, model);
        assert!(list.is_empty());
    }
}
