//! Moves of pages that are under way, and the threads that wait for them.
//!
//! A thread that meets a migration entry knows only the old frame. It finds the move here, or the move is over. Moves
//! and waiters are records on the stacks of their threads. There are few moves at a time; of waiters a program may have
//! many, so they are woken some at a time. The lock (`Rank::WaitQueue`) protects all of them, and threads are woken
//! under it: a waiter takes it once more before its record ends, so that it is not woken later.
//!
//! A move counts its migration entries, so that the walk that replaces them ends with the last one, however many spaces
//! could have one. The mover counts those that it makes and replaces. A fork counts its copies, under the lock of the
//! parent's table: the mover replaces the original after that, so the number does not reach 0 while a copy is left.
//! Code that removes an entry does not change the number: it may be too large, and then the walk visits all spaces.

use core::cell::{Cell, UnsafeCell};
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::addr::Pfn;
use crate::machine::Machine;
use crate::sync::queue::{List, Waiter};
use crate::sync::{Rank, SpinLock};

/// A move, in the list of all.
pub struct Move {
    old: Pfn,
    /// At least as many migration entries as stand for the page (apart from those that an earlier move of an object's
    /// page has left over).
    entries: AtomicUsize,
    next: Cell<*const Move>,
    waiters: UnsafeCell<List>,
}

impl Move {
    fn of(old: Pfn) -> Self {
        Self { old, entries: AtomicUsize::new(0), next: Cell::new(ptr::null()), waiters: UnsafeCell::new(List::EMPTY) }
    }

    /// Where the page was.
    pub fn old(&self) -> Pfn {
        self.old
    }

    /// Notes that the mover has made an entry a migration entry.
    pub fn entry_made(&self) {
        self.entries.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that the mover has replaced a migration entry.
    pub fn entry_replaced(&self) {
        // (The former number may be 0, for an entry that an earlier move of an object's page has left over.)
        let left = self.entries.load(Ordering::Relaxed);
        if left != 0 {
            self.entries.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether there may be migration entries for the page. For the mover, when it makes no more.
    pub fn has_entries(&self) -> bool {
        self.entries.load(Ordering::Relaxed) != 0
    }
}

/// The first move.
struct First(*const Move);

// SAFETY: the records are accessed under the lock only (`granted` is atomic), and are in the lists while they exist.
unsafe impl Send for First {}

/// Threads that are woken under one hold of the lock.
const BATCH: usize = 16;

/// See the module.
pub struct Moves<M: Machine> {
    machine: M,
    first: SpinLock<First, M>,
}

impl<M: Machine> Moves<M> {
    /// None.
    pub(super) const fn new(machine: M) -> Self {
        Self { machine, first: SpinLock::new(machine, Rank::WaitQueue, First(ptr::null())) }
    }

    /// Does `work`, which moves the page at `old`, and wakes those who wait for it. No other thread moves this page.
    pub fn during<R>(&self, old: Pfn, work: impl FnOnce(&Move) -> R) -> R {
        let this = Move::of(old);
        {
            let mut first = self.first.lock();
            this.next.set(first.0);
            first.0 = &this;
        }
        let _end = End { moves: self, this: &this };
        work(&this)
    }

    /// Notes that a fork has copied a migration entry for `old`; the table with the original is locked.
    pub fn entry_copied(&self, old: Pfn) {
        if let Some(this) = find(&self.first.lock(), old) {
            this.entries.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for the end of the move of the page at `old`, or until the thread is killed. `false` if there is no such
    /// move.
    pub fn wait(&self, old: Pfn) -> bool {
        let waiter = Waiter::new(self.machine.this_thread());
        let list = {
            let first = self.first.lock();
            let Some(found) = find(&first, old) else { return false };
            let list = found.waiters.get();
            // SAFETY: the lock is held, and the waiter leaves before it ends.
            unsafe { (*list).push(&waiter) };
            list
        };
        self.machine.park(true, &mut || waiter.granted.load(Ordering::Acquire));
        let _first = self.first.lock();
        if !waiter.granted.load(Ordering::Acquire) {
            // SAFETY: it is in this list, whose owner does not end before the list is empty; the lock is held.
            unsafe { (*list).remove(&waiter) };
        }
        true
    }

    /// Whether the page at `old` is being moved.
    pub fn is_under_way(&self, old: Pfn) -> bool {
        find(&self.first.lock(), old).is_some()
    }

    fn end(&self, this: &Move) {
        self.forget(this);
        while !self.wake_some(this) {}
    }

    /// Nobody finds it any more.
    fn forget(&self, this: &Move) {
        let mut first = self.first.lock();
        if ptr::eq(first.0, this) {
            first.0 = this.next.get();
        } else {
            // SAFETY: moves in the list exist, and this is one of them.
            let mut at = unsafe { &*first.0 };
            while !ptr::eq(at.next.get(), this) {
                // SAFETY: as above.
                at = unsafe { &*at.next.get() };
            }
            at.next.set(this.next.get());
        }
    }

    /// Wakes some of the threads that wait for it; returns whether none is left.
    fn wake_some(&self, this: &Move) -> bool {
        let _first = self.first.lock();
        // SAFETY: the lock is held.
        let waiters = unsafe { &mut *this.waiters.get() };
        for _ in 0..BATCH {
            let Some(waiter) = waiters.front() else { break };
            // It is on the stack of its thread, which takes the lock before that ends.
            let (waiter, thread) = (ptr::from_ref(waiter), waiter.thread);
            waiters.pop();
            if seeded!(MoveTellsNobody) {
                continue;
            }
            // SAFETY: as said, the record exists as long as the lock is held, and so does the thread.
            unsafe {
                (*waiter).granted.store(true, Ordering::Release);
                self.machine.unpark(thread);
            }
        }
        waiters.is_empty()
    }
}

fn find(first: &First, old: Pfn) -> Option<&Move> {
    let mut at = first.0;
    // SAFETY: moves in the list exist as long as the lock is held.
    while let Some(this) = unsafe { at.as_ref() } {
        if this.old == old {
            return Some(this);
        }
        at = this.next.get();
    }
    None
}

/// Ends a move, also if it panics.
struct End<'a, M: Machine> {
    moves: &'a Moves<M>,
    this: &'a Move,
}

impl<M: Machine> Drop for End<'_, M> {
    fn drop(&mut self) {
        self.moves.end(self.this);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Sim;
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    use std::thread;

    /// Movers and waiters of a few frames, on real threads: no thread misses the end of a move that it found.
    #[test]
    fn every_waiter_learns_of_the_end() {
        const FRAMES: usize = 3;
        const ROUNDS: usize = 2000;
        let sim = Sim::with_mib(16);
        let moves = sim.spaces().moves();
        let (stages, done) = ([const { AtomicUsize::new(0) }; FRAMES], AtomicBool::new(false));
        thread::scope(|scope| {
            let (stages, done) = (&stages, &done);
            let mut movers = std::vec::Vec::new();
            for (frame, stage) in stages.iter().enumerate() {
                movers.push(scope.spawn(move || {
                    Sim::set_cpu(frame);
                    for _ in 0..ROUNDS {
                        moves.during(Pfn(frame), |_| {
                            stage.fetch_add(1, Ordering::SeqCst);
                            thread::yield_now();
                        });
                        thread::yield_now();
                    }
                }));
            }
            for waiter in 0..FRAMES {
                scope.spawn(move || {
                    Sim::set_cpu(FRAMES + waiter);
                    while !done.load(Ordering::SeqCst) {
                        for frame in 0..=FRAMES {
                            let found = moves.wait(Pfn(frame));
                            assert!(!found || frame < FRAMES, "nobody moves frame {frame}");
                        }
                    }
                });
            }
            movers.into_iter().for_each(|mover| mover.join().expect("a mover does not panic"));
            done.store(true, Ordering::SeqCst);
        });
        assert!(stages.iter().all(|stage| stage.load(Ordering::SeqCst) == ROUNDS));
        assert!(moves.first.lock().0.is_null(), "a move that is over is in the list");
    }

    /// A killed thread stops waiting, and its record is out of the list.
    #[test]
    fn a_killed_thread_does_not_wait() {
        let sim = Sim::with_mib(16);
        let moves = sim.spaces().moves();
        moves.during(Pfn(7), |_| {
            moves.during(Pfn(8), |_| {
                Sim::kill_after(0);
                assert!(moves.wait(Pfn(7)) && moves.wait(Pfn(8)));
                Sim::kill_after(usize::MAX);
            });
            assert!(!moves.wait(Pfn(8)), "it is over");
            let first = moves.first.lock();
            // SAFETY: the lock is held.
            assert!(find(&first, Pfn(7)).is_some_and(|this| unsafe { (*this.waiters.get()).is_empty() }));
        });
        assert!(!moves.wait(Pfn(7)));
    }
}
