//! Deterministic scheduling of threads: one runs at a time, and a seed decides where another one takes over, so that
//! every outcome can be reproduced.
//!
//! A thread may lose its turn at every operation that others can observe: an access to a table or to memory, TLB
//! maintenance, taking a lock ([`point`]); and it must when it waits for another thread ([`wait`]). For other threads
//! both cost one load of a thread-local variable.

use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::string::String;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::vec::Vec;

use super::mmu::Chance;

/// The number of waits in a row, with no other operation between them, that is a deadlock.
const STUCK: usize = 100_000;

/// A thread's work.
pub type Body<'a> = Box<dyn FnOnce() + Send + 'a>;

struct State {
    /// Whose turn it is.
    turn: usize,
    /// Threads that have not ended; all of them once there are as many as are expected.
    threads: Vec<Option<Thread>>,
    expected: usize,
    chance: Chance,
    /// At how many places, on average, one thread goes on before another one takes over.
    stretch: usize,
    waits: usize,
    /// A thread has panicked: the others end too.
    is_broken: bool,
}

struct Shared(Mutex<State>);

std::thread_local! {
    static TAKES_TURNS: Cell<bool> = const { Cell::new(false) };
    static ME: RefCell<Option<(Arc<Shared>, usize)>> = const { RefCell::new(None) };
}

/// A place where the calling thread may lose its turn.
#[inline]
pub fn point() {
    if TAKES_TURNS.get() {
        pass(false);
    }
}

/// Whether the calling thread takes turns with others.
pub fn are_taken() -> bool {
    TAKES_TURNS.get()
}

/// The calling thread waits for another one to do something, and is to look again.
pub fn wait() {
    if !wait_if_taken() {
        thread::yield_now();
    }
}

/// As [`wait`], if the calling thread takes turns; whether it does.
pub fn wait_if_taken() -> bool {
    let taken = TAKES_TURNS.get();
    if taken {
        pass(true);
    }
    taken
}

fn pass(must: bool) {
    ME.with_borrow(|me| {
        if let Some((shared, me)) = me {
            shared.pass(*me, must);
        }
    });
}

/// Runs bodies side by side, each on a thread of its own, until all have ended. The panic of the first that failed
/// goes on here.
pub fn run(seed: u64, stretch: usize, bodies: Vec<Body<'_>>) {
    let mut chance = Chance::new(seed);
    let turn = chance.below(bodies.len());
    let (threads, expected) = (Vec::new(), bodies.len());
    let state = State { turn, threads, expected, chance, stretch, waits: 0, is_broken: false };
    let shared = Arc::new(Shared(Mutex::new(state)));
    let failed = Mutex::new(None);
    thread::scope(|scope| {
        for (me, body) in bodies.into_iter().enumerate() {
            let (mine, failed) = (shared.clone(), &failed);
            let thread = scope.spawn(move || {
                ME.set(Some((mine.clone(), me)));
                TAKES_TURNS.set(true);
                mine.wait_for_turn(me);
                let done = catch_unwind(AssertUnwindSafe(body));
                TAKES_TURNS.set(false);
                ME.set(None);
                if let Err(panic) = done {
                    let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                    // (Others fail because the first one did.)
                    let is_first = !core::mem::replace(&mut mine.lock().is_broken, true);
                    if is_first || failed.is_none() {
                        *failed = Some(panic);
                    }
                }
                mine.end(me);
            });
            let mut state = shared.lock();
            state.threads.push(Some(thread.thread().clone()));
            if state.threads.len() == expected {
                state.threads.iter().flatten().for_each(Thread::unpark);
            }
        }
    });
    if let Some(panic) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        resume_unwind(panic);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another thread may take over, or must if there is one.
    fn pass(&self, me: usize, must: bool) {
        let mut state = self.lock();
        state.waits = if must { state.waits + 1 } else { 0 };
        if state.waits > STUCK && !state.is_broken && !thread::panicking() {
            state.is_broken = true;
            drop(state);
            panic!("all threads wait");
        }
        let stretch = state.stretch;
        if !state.is_broken && (must || state.chance.one_in(stretch)) {
            state.choose(me);
            if state.turn == me {
                return;
            }
            drop(state);
            self.wait_for_turn(me);
            state = self.lock();
        }
        let is_broken = state.is_broken;
        drop(state);
        if is_broken {
            // Whoever unwinds already is not to fail a second time.
            assert!(thread::panicking(), "another thread has failed");
            thread::yield_now();
        }
    }

    fn wait_for_turn(&self, me: usize) {
        loop {
            let state = self.lock();
            let all_here = state.threads.len() == state.expected;
            if all_here && (state.turn == me || state.is_broken) {
                return;
            }
            drop(state);
            thread::park();
        }
    }

    fn end(&self, me: usize) {
        let mut state = self.lock();
        state.threads[me] = None;
        if state.is_broken {
            state.threads.iter().flatten().for_each(Thread::unpark);
        } else {
            state.choose(me);
        }
    }
}

impl State {
    /// Gives the turn to one of the others, if there are any.
    fn choose(&mut self, me: usize) {
        let others: Vec<usize> =
            (0..self.threads.len()).filter(|other| *other != me && self.threads[*other].is_some()).collect();
        if !others.is_empty() {
            self.turn = others[self.chance.below(others.len())];
            if let Some(thread) = &self.threads[self.turn] {
                thread.unpark();
            }
        }
    }
}

/// What a panic said.
pub fn text_of(panic: &(dyn core::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into())).unwrap_or_default()
}
