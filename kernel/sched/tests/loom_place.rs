//! A thread's class and its queue under loom: the class changes while the thread moves from one queue to another.

use loom::sync::{Arc, Mutex};
use loom::thread;

mod atomic {
    pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
}

#[allow(dead_code)]
#[path = "../src/place.rs"]
mod place;

use place::Place;

const OLD: u64 = 1;
const NEW: u64 = 2;

/// A thread, and two queues: the value by which each has placed it, if it is there.
struct Queues {
    place: Place,
    placed: [Mutex<Option<u64>>; 2],
}

impl Queues {
    fn enter(&self, at: u32) {
        let mut placed = self.placed[at as usize].lock().unwrap();
        assert_eq!(placed.replace(self.place.enter(at)), None);
    }

    fn leave(&self, at: u32) {
        let mut placed = self.placed[at as usize].lock().unwrap();
        assert!(self.place.is_in(at) && placed.take().is_some());
        self.place.leave();
    }

    fn change(&self) {
        self.place.set_traits(NEW);
        while let Some(at) = self.place.queue_after_change() {
            let mut placed = self.placed[at as usize].lock().unwrap();
            let is_there = self.place.is_in(at);
            assert!(!is_there || placed.is_some(), "a queue takes a thread for its own that it does not have");
            if is_there {
                *placed = Some(self.place.enter(at));
                return;
            }
            drop(placed);
            thread::yield_now();
        }
    }
}

fn queues() -> Arc<Queues> {
    Arc::new(Queues { place: Place::new(OLD), placed: [Mutex::new(None), Mutex::new(None)] })
}

/// Runs `beside` concurrently with a change: afterwards the thread is only in the second queue, by its new class.
fn beside_a_change(before: fn(&Queues), beside: fn(&Queues)) {
    loom::model(move || {
        let queues = queues();
        before(&queues);
        let other = queues.clone();
        let changes = thread::spawn(move || other.change());
        beside(&queues);
        changes.join().unwrap();
        let placed = [0, 1].map(|at: usize| *queues.placed[at].lock().unwrap());
        assert_eq!(placed, [None, Some(NEW)]);
    });
}

#[test]
fn a_thread_that_enters_is_placed_by_its_new_class() {
    beside_a_change(|_| (), |queues| queues.enter(1));
}

#[test]
fn a_thread_that_moves_is_placed_by_its_new_class() {
    beside_a_change(
        |queues| queues.enter(0),
        |queues| {
            queues.leave(0);
            queues.enter(1);
        },
    );
}
