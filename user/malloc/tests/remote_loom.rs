//! The cross-thread free path in every interleaving: threads that free into an arena while others hold its lock.
//!
//! The lock and the lock-free list are the allocator's own files, over loom's atomics. (Loom's mutex would not do: in
//! its model a `try_lock` never meets another holder, and so nothing would ever be pushed.) The stand-in for the rest
//! of an arena follows `cache.rs`: a free takes the lock if it is available and uses the list if not; the holder of the
//! lock drains the list first.
#![allow(clippy::undocumented_unsafe_blocks)] // The tests keep to the contracts that they test.
#![allow(dead_code)] // They use a part of those files.

mod atomic {
    pub use loom::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
}

#[path = "../src/lock.rs"]
mod lock;
#[path = "../src/remote.rs"]
mod remote;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use atomic::AtomicU32;
use lock::Lock;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use remote::Remote;

/// What the lock needs of the system.
trait System {
    fn wait(&self, word: &AtomicU32, expected: u32);
    fn wake(&self, word: &AtomicU32);
}

/// Waiting is giving others a turn; waking early is allowed.
struct Turns;

impl System for Turns {
    fn wait(&self, _: &AtomicU32, _: u32) {
        thread::yield_now();
    }

    fn wake(&self, _: &AtomicU32) {}
}

/// A chunk: whoever owns it writes its word; loom reports two that do so at once.
struct Chunk {
    link: UnsafeCell<*mut u8>,
    owner: UnsafeCell<usize>,
}

/// An arena: its free chunks under a lock, and what was left for the lock's holder.
struct Arena {
    state: Lock<State>,
    remote: Remote,
}

struct State {
    free: Vec<*mut u8>,
    /// Written by each holder of the lock; loom reports two at once.
    holder: UnsafeCell<()>,
}

// The test's own discipline, which loom checks, is what makes this right.
unsafe impl Send for Arena {}
unsafe impl Sync for Arena {}
unsafe impl Send for State {}

/// How often a chunk went onto the list, over all interleavings of both tests.
static PUSHED: AtomicUsize = AtomicUsize::new(0);
/// How often a push found that another had come first.
static LINKED_AGAIN: AtomicUsize = AtomicUsize::new(0);

fn chunk(at: *mut u8) -> &'static Chunk {
    unsafe { &*at.cast::<Chunk>() }
}

fn new_chunk() -> usize {
    let new = Chunk { link: UnsafeCell::new(std::ptr::null_mut()), owner: UnsafeCell::new(0) };
    Box::into_raw(Box::new(new)) as usize
}

fn arena() -> Arc<Arena> {
    let state = State { free: Vec::new(), holder: UnsafeCell::new(()) };
    let remote = Remote::new(atomic::AtomicPtr::new(std::ptr::null_mut()));
    Arc::new(Arena { state: Lock::new(AtomicU32::new(0), state), remote })
}

impl Arena {
    /// What a free does: under the lock if it is available, else on the list.
    fn free(&self, at: usize, who: usize) {
        let at = at as *mut u8;
        chunk(at).owner.with_mut(|owner| unsafe { *owner = who });
        let given = self.state.try_with(&Turns, |state| {
            self.drain(state);
            state.free.push(at);
        });
        if given.is_err() {
            PUSHED.fetch_add(1, Relaxed);
            let mut times = 0;
            self.remote.push(at, |next| {
                times += 1;
                chunk(at).link.with_mut(|link| unsafe { *link = next });
            });
            LINKED_AGAIN.fetch_add(times - 1, Relaxed);
        }
    }

    fn drain(&self, state: &mut State) {
        state.holder.with_mut(|_| ());
        if self.remote.is_empty() {
            return;
        }
        let mut at = self.remote.take_all();
        while !at.is_null() {
            // Reads what the pusher wrote, and writes over it: both must be ordered after the push.
            let next = chunk(at).link.with(|link| unsafe { *link });
            chunk(at).owner.with_mut(|owner| unsafe { *owner = 0 });
            state.free.push(at);
            at = next;
        }
    }

    /// What a malloc does.
    fn take(&self) -> Option<usize> {
        self.state.with(&Turns, |state| {
            self.drain(state);
            state.free.pop().map(|at| at as usize)
        })
    }

    fn take_everything(&self) -> Vec<usize> {
        let mut all: Vec<usize> = std::iter::from_fn(|| self.take()).collect();
        all.sort_unstable();
        all
    }
}

fn destroy(chunks: &[usize]) {
    for &at in chunks {
        drop(unsafe { Box::from_raw(at as *mut Chunk) });
    }
}

/// Every interleaving with up to three preemptions.
fn model(test: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(test);
}

/// A thread for each chunk, which frees it in its owner's name.
fn freed_by_others<const N: usize>(arena: &Arc<Arena>, chunks: [(usize, usize); N]) -> [thread::JoinHandle<()>; N] {
    chunks.map(|(at, who)| {
        let arena = arena.clone();
        thread::spawn(move || arena.free(at, who))
    })
}

#[test]
fn nothing_is_lost_and_nothing_comes_twice() {
    model(|| {
        let arena = arena();
        let mut chunks: Vec<usize> = (0..3).map(|_| new_chunk()).collect();
        let threads = freed_by_others(&arena, [(chunks[0], 1), (chunks[1], 2)]);
        arena.free(chunks[2], 3);
        for thread in threads {
            thread.join().unwrap();
        }
        chunks.sort_unstable();
        assert_eq!(arena.take_everything(), chunks);
        destroy(&chunks);
    });
    assert!(PUSHED.load(Relaxed) > 0 && LINKED_AGAIN.load(Relaxed) > 0, "the list was not met");
}

#[test]
fn a_chunk_taken_again_is_its_new_owners_alone() {
    model(|| {
        let arena = arena();
        let first = new_chunk();
        let [other] = freed_by_others(&arena, [(first, 1)]);
        // Takes it as soon as it is there, writes to it as an owner would, and frees it again. The second turn finds
        // what was left on the list during the first.
        for _ in 0..2 {
            if let Some(at) = arena.take() {
                arena.free(at, 2);
            }
        }
        other.join().unwrap();
        assert_eq!(arena.take_everything(), [first]);
        destroy(&[first]);
    });
}

#[test]
fn what_comes_while_the_list_is_taken_is_not_lost() {
    model(|| {
        let arena = arena();
        let mut chunks: Vec<usize> = (0..2).map(|_| new_chunk()).collect();
        let threads = freed_by_others(&arena, [(chunks[0], 1), (chunks[1], 2)]);
        // One comes during the first turn, the other while the second takes the list.
        let mut all: Vec<usize> = (0..2).filter_map(|_| arena.take()).collect();
        for thread in threads {
            thread.join().unwrap();
        }
        all.extend(arena.take_everything());
        all.sort_unstable();
        chunks.sort_unstable();
        assert_eq!(all, chunks);
        destroy(&chunks);
    });
}
