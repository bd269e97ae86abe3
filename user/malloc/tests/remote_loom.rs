//! Every interleaving of the cross-thread free path: threads that free into an arena while others hold its lock.
#![allow(clippy::undocumented_unsafe_blocks)] // The tests keep to the contracts that they test.

mod atomic {
    pub use loom::sync::atomic::{AtomicPtr, Ordering};
}

#[path = "../src/remote.rs"]
mod remote;

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Mutex};
use loom::thread;
use remote::Remote;

/// A chunk: whoever owns it writes its word; loom reports two that do so at once.
struct Chunk {
    link: UnsafeCell<*mut u8>,
    owner: UnsafeCell<usize>,
}

/// An arena: its free chunks under a lock, and what was left for the lock's holder.
struct Arena {
    free: Mutex<Vec<*mut u8>>,
    remote: Remote,
}

// The test's own discipline, which loom checks, is what makes this right.
unsafe impl Send for Arena {}
unsafe impl Sync for Arena {}

fn chunk(at: *mut u8) -> &'static Chunk {
    unsafe { &*at.cast::<Chunk>() }
}

fn new_chunk() -> usize {
    let new = Chunk { link: UnsafeCell::new(std::ptr::null_mut()), owner: UnsafeCell::new(0) };
    Box::into_raw(Box::new(new)) as usize
}

fn arena() -> Arc<Arena> {
    let remote = Remote::new(atomic::AtomicPtr::new(std::ptr::null_mut()));
    Arc::new(Arena { free: Mutex::new(Vec::new()), remote })
}

impl Arena {
    /// What a free does: under the lock if it is to be had, else on the stack.
    fn free(&self, at: usize, who: usize) {
        let at = at as *mut u8;
        chunk(at).owner.with_mut(|owner| unsafe { *owner = who });
        match self.free.try_lock() {
            Ok(mut free) => {
                self.drain(&mut free);
                free.push(at);
            }
            Err(_) => self.remote.push(at, |next| chunk(at).link.with_mut(|link| unsafe { *link = next })),
        }
    }

    fn drain(&self, free: &mut Vec<*mut u8>) {
        if self.remote.is_empty() {
            return;
        }
        let mut at = self.remote.take_all();
        while !at.is_null() {
            // Reads what the pusher wrote, and writes over it: both must be ordered after the push.
            let next = chunk(at).link.with(|link| unsafe { *link });
            chunk(at).owner.with_mut(|owner| unsafe { *owner = 0 });
            free.push(at);
            at = next;
        }
    }

    /// What a malloc does, as often as there is something.
    fn take(&self) -> Option<*mut u8> {
        let mut free = self.free.lock().unwrap();
        self.drain(&mut free);
        free.pop()
    }

    fn take_everything(&self) -> Vec<usize> {
        let mut all: Vec<usize> = std::iter::from_fn(|| self.take().map(|at| at as usize)).collect();
        all.sort_unstable();
        all
    }
}

fn destroy(chunks: &[usize]) {
    for &at in chunks {
        drop(unsafe { Box::from_raw(at as *mut Chunk) });
    }
}

#[test]
fn nothing_is_lost_and_nothing_comes_twice() {
    loom::model(|| {
        let arena = arena();
        let mut chunks: Vec<usize> = (0..3).map(|_| new_chunk()).collect();
        let threads: Vec<_> = [(chunks[0], 1), (chunks[1], 2)]
            .into_iter()
            .map(|(at, who)| {
                let arena = arena.clone();
                thread::spawn(move || arena.free(at, who))
            })
            .collect();
        arena.free(chunks[2], 3);
        for thread in threads {
            thread.join().unwrap();
        }
        chunks.sort_unstable();
        assert_eq!(arena.take_everything(), chunks);
        destroy(&chunks);
    });
}

#[test]
fn a_chunk_taken_again_is_its_new_owners_alone() {
    loom::model(|| {
        let arena = arena();
        let first = new_chunk();
        let other = {
            let arena = arena.clone();
            thread::spawn(move || arena.free(first, 1))
        };
        // Takes it as soon as it is there, writes to it as an owner would, and frees it again.
        if let Some(at) = arena.take() {
            arena.free(at as usize, 2);
        }
        other.join().unwrap();
        assert_eq!(arena.take_everything(), [first]);
        destroy(&[first]);
    });
}
