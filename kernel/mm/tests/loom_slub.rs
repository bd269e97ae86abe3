//! SLUB's state word under loom: all interleavings of a CPU that works on its active slab, of others that free into it,
//! and of CPUs that take partial slabs or discard empty ones.
//!
//! The protocol's file is compiled into this test with loom's atomics in place of the machine's.

mod atomic {
    pub use loom::sync::atomic::{AtomicU64, Ordering};
}

#[allow(dead_code)]
#[path = "../src/slab/state.rs"]
mod state;

use loom::cell::UnsafeCell;
use loom::sync::{Arc, Mutex};
use loom::thread;
use state::{Move, State, StateWord};

const OBJECTS: usize = 2;

/// Where the slab is besides its word; under the node's lock.
#[derive(Default)]
struct Lists {
    is_partial: bool,
    is_discarded: bool,
}

/// One slab: its word, its memory (which loom watches for races), and the node's lists.
struct World {
    word: StateWord,
    links: [UnsafeCell<Option<usize>>; OBJECTS],
    lists: Mutex<Lists>,
    /// Whether a slab without an object in use is discarded rather than kept.
    discards: bool,
}

impl World {
    /// A slab with all objects in use.
    fn new(frozen: bool, discards: bool) -> Arc<Self> {
        let full = State::new(0, OBJECTS as u32).with_inuse(OBJECTS as u32).with_frozen(frozen);
        Arc::new(World {
            word: StateWord(loom::sync::atomic::AtomicU64::new(full.0)),
            links: std::array::from_fn(|_| UnsafeCell::new(None)),
            lists: Mutex::new(Lists::default()),
            discards,
        })
    }

    /// What a free does, as in `slub::put`.
    fn free(&self, object: usize) {
        let link = |free: Option<usize>| {
            // SAFETY: the object is the caller's until it is pushed, which is what the model checks.
            self.links[object].with_mut(|link| unsafe { *link = free });
        };
        let pushed = self.word.push(object * 8, 1, link, || self.lists.lock().unwrap());
        let mut pushed = pushed.expect("the object is in use");
        let destination = pushed.destination();
        let Some(lists) = &mut pushed.guard else { return };
        assert!(!lists.is_discarded, "a slab that is gone has no objects");
        match destination {
            Move::Empty { is_listed } if self.discards => {
                assert_eq!(lists.is_partial, is_listed);
                (lists.is_partial, lists.is_discarded) = (false, true);
                // Its memory has another owner now.
                for link in &self.links {
                    // SAFETY: as above.
                    link.with_mut(|link| unsafe { *link = Some(usize::MAX) });
                }
            }
            Move::Join | Move::Empty { is_listed: false } => {
                assert!(!lists.is_partial);
                lists.is_partial = true;
            }
            Move::Stay | Move::Empty { is_listed: true } => {}
        }
    }

    /// The objects of a list that the caller has taken.
    fn walk(&self, first: Option<usize>) -> Vec<usize> {
        let (mut objects, mut at) = (Vec::new(), first);
        while let Some(offset) = at {
            objects.push(offset / 8);
            // SAFETY: the list is the caller's.
            at = self.links[offset / 8].with(|link| unsafe { *link });
        }
        objects
    }

    /// What an allocation does that finds the slab on the partial list.
    fn take_partial(&self) -> Option<Vec<usize>> {
        let mut lists = self.lists.lock().unwrap();
        if !lists.is_partial {
            return None;
        }
        lists.is_partial = false;
        let first = self.word.freeze();
        drop(lists);
        assert!(first.is_some(), "a partial slab has a free object");
        Some(self.walk(first))
    }

    /// What an allocation does that wants objects of more than one partial slab.
    fn empty_out(&self) -> Option<Vec<usize>> {
        let mut lists = self.lists.lock().unwrap();
        if !lists.is_partial {
            return None;
        }
        let first = self.word.empty_out(OBJECTS);
        assert!(first.is_some(), "a partial slab has a free object");
        lists.is_partial = false;
        drop(lists);
        Some(self.walk(first))
    }

    /// Compares the word with the lists when all is quiet.
    fn check(&self) -> State {
        let (state, lists) = (self.word.load(), self.lists.lock().unwrap());
        if !lists.is_discarded {
            assert_eq!(lists.is_partial, !state.is_frozen() && state.free().is_some());
            let free = self.walk(state.free()).len();
            assert_eq!(free + state.inuse() as usize, OBJECTS);
        }
        state
    }
}

#[test]
fn what_is_freed_from_afar_is_taken_or_listed() {
    loom::model(|| {
        let world = World::new(true, false);
        let far = Arc::clone(&world);
        let other = thread::spawn(move || far.free(1));
        let taken = world.word.take_or_thaw();
        let taken = world.walk(taken);
        other.join().unwrap();
        let state = world.check();
        if taken.is_empty() {
            assert_eq!((state.is_frozen(), state.inuse()), (false, 1));
        } else {
            assert_eq!((taken, state.is_frozen(), state.inuse()), (vec![1], true, 2));
        }
    });
}

#[test]
fn two_frees_of_a_full_slab_list_it_once() {
    loom::model(|| {
        let world = World::new(false, false);
        let far = Arc::clone(&world);
        let other = thread::spawn(move || far.free(0));
        world.free(1);
        other.join().unwrap();
        let state = world.check();
        assert_eq!(state.inuse(), 0);
        let mut all = world.walk(state.free());
        all.sort_unstable();
        assert_eq!(all, [0, 1]);
    });
}

#[test]
fn the_last_free_discards_and_nobody_looks_back() {
    loom::model(|| {
        let world = World::new(false, true);
        let far = Arc::clone(&world);
        let other = thread::spawn(move || far.free(0));
        world.free(1);
        other.join().unwrap();
        assert!(world.lists.lock().unwrap().is_discarded);
    });
}

#[test]
fn a_slab_is_taken_or_discarded_and_never_both() {
    loom::model(|| {
        let world = World::new(false, true);
        world.free(0);
        let far = Arc::clone(&world);
        let other = thread::spawn(move || far.free(1));
        let taken = world.take_partial();
        other.join().unwrap();
        let state = world.check();
        match taken {
            // The other's object went to the own list of a slab that was active by then.
            Some(objects) if objects == [0] => assert_eq!((state.is_frozen(), state.inuse()), (true, 1)),
            Some(objects) => panic!("the last object's push discards: {objects:?}"),
            None => assert!(world.lists.lock().unwrap().is_discarded),
        }
    });
}

#[test]
fn a_slab_that_was_emptied_out_is_listed_by_the_next_free() {
    for discards in [false, true] {
        loom::model(move || {
            let world = World::new(false, discards);
            world.free(0);
            let far = Arc::clone(&world);
            let other = thread::spawn(move || far.free(1));
            let taken = world.empty_out();
            other.join().unwrap();
            let state = world.check();
            let is_discarded = world.lists.lock().unwrap().is_discarded;
            match taken {
                Some(objects) if objects.len() == 1 => assert_eq!((objects, state.inuse()), (vec![0], 1)),
                Some(objects) => {
                    // The other's push came first, and kept the slab.
                    assert!(!discards && objects.len() == 2);
                    assert_eq!(state.inuse(), 2);
                }
                None => assert!(is_discarded),
            }
        });
    }
}

#[test]
fn a_thaw_and_a_free_agree_on_the_list() {
    loom::model(|| {
        let world = World::new(true, false);
        let far = Arc::clone(&world);
        let other = thread::spawn(move || far.free(0));
        // What `slub::deactivate` does with a list that has object 1.
        world.free(1);
        {
            let mut lists = world.lists.lock().unwrap();
            if world.word.thaw() {
                assert!(!lists.is_partial);
                lists.is_partial = true;
            }
        }
        other.join().unwrap();
        assert_eq!(world.check().inuse(), 0);
    });
}
