//! A page's count under loom: all interleavings of holders that leave, of a holder that freezes the page, and of others
//! that find it by its record.
//!
//! The protocol's file is compiled into this test with loom's atomics in place of the machine's.

mod atomic {
    pub use loom::sync::atomic::{AtomicU64, Ordering, fence};
}

#[allow(dead_code)]
#[path = "../src/page/head.rs"]
mod head;

use head::{Head, ONE_REF, refs_of};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use loom::thread::{self, JoinHandle};

/// States, as numbers that the protocol only compares.
const KERNEL: u64 = 5;
const ANON: u64 = 12;
const FLAG: u64 = 1 << 9;
const ISOLATED: u64 = 1 << 23;

/// One frame: its record's word, its contents, which loom watches for races, and how often it was freed.
struct World {
    head: Head,
    contents: UnsafeCell<u32>,
    freed: AtomicUsize,
}

impl World {
    /// A page with `refs` references.
    fn new(refs: u64) -> Arc<Self> {
        Arc::new(World {
            head: Head(AtomicU64::new(ANON | (refs * ONE_REF))),
            contents: UnsafeCell::new(1),
            freed: AtomicUsize::new(0),
        })
    }

    /// Somebody finds the page by its record, and looks at it while they hold it. Returns what they saw.
    fn find(&self) -> Option<u32> {
        self.head.get_if(ANON).then(|| {
            let seen = self.look();
            self.put();
            seen
        })
    }

    /// Has another thread find the page meanwhile.
    fn found_beside(world: &Arc<Self>) -> JoinHandle<Option<u32>> {
        let far = Arc::clone(world);
        thread::spawn(move || far.find())
    }

    fn look(&self) -> u32 {
        // SAFETY: a holder reads; only one that is alone writes, which is what the model checks.
        self.contents.with(|contents| unsafe { *contents })
    }

    fn write(&self, value: u32) {
        // SAFETY: as above.
        self.contents.with_mut(|contents| unsafe { *contents = value });
    }

    fn put(&self) {
        if self.head.put() {
            self.free();
        }
    }

    /// What whoever took the count to 0 does: the frame's next owner may write to it.
    fn free(&self) {
        assert_eq!(refs_of(self.head.load()), 0);
        self.write(0);
        self.freed.fetch_add(1, Relaxed);
    }

    fn freed(&self) -> usize {
        self.freed.load(Relaxed)
    }
}

/// What unmapping does with the last mapping of a page, beside somebody who found it.
#[test]
fn a_page_is_freed_once_by_whoever_had_it_last() {
    loom::model(|| {
        let world = World::new(1);
        let finder = World::found_beside(&world);
        if world.head.freeze(1) {
            // The invalidation would be here.
            world.free();
        } else {
            world.put();
        }
        assert_ne!(finder.join().unwrap(), Some(0), "a page is found and no longer there");
        assert_eq!(world.freed(), 1);
    });
}

#[test]
fn two_holders_leave_and_a_third_finds() {
    loom::model(|| {
        let world = World::new(2);
        let far = Arc::clone(&world);
        let other = thread::spawn(move || far.put());
        let finder = World::found_beside(&world);
        world.put();
        other.join().unwrap();
        assert_ne!(finder.join().unwrap(), Some(0), "a page is found and no longer there");
        assert_eq!(world.freed(), 1);
    });
}

/// The frame is freed and another page by the time that a finder makes its exchange.
#[test]
fn a_finder_gets_the_next_life_of_a_frame_whole_or_not_at_all() {
    loom::model(|| {
        let world = World::new(1);
        let finder = World::found_beside(&world);
        if world.head.freeze(1) {
            world.free();
            world.head.store(KERNEL | ONE_REF);
            world.write(2);
            world.head.publish(ANON | ONE_REF);
        }
        assert!(matches!(finder.join().unwrap(), None | Some(1 | 2)));
        assert_eq!(refs_of(world.head.load()), 1);
    });
}

/// What moving a page does.
#[test]
fn what_was_done_to_a_frozen_page_is_seen_after_it() {
    loom::model(|| {
        let world = World::new(1);
        let finder = World::found_beside(&world);
        let frozen = world.head.freeze(1);
        if frozen {
            world.write(2);
            world.head.unfreeze(1);
        }
        let seen = finder.join().unwrap();
        assert!(matches!(seen, None | Some(1 | 2)) && (frozen || seen == Some(1)));
        assert_eq!((refs_of(world.head.load()), world.freed()), (1, 0));
    });
}

#[test]
fn flags_and_the_count_do_not_disturb_each_other() {
    loom::model(|| {
        let world = World::new(1);
        let far = Arc::clone(&world);
        let other = thread::spawn(move || far.head.set(FLAG));
        if world.head.freeze(1) {
            world.head.unfreeze(2);
            assert!(!world.head.put());
        }
        world.head.flip(ISOLATED);
        other.join().unwrap();
        assert_eq!(world.head.load(), ANON | ISOLATED | FLAG | ONE_REF);
    });
}

/// fork in two threads: each adds a reference to the one of its entry.
#[test]
fn references_that_are_added_at_once_all_count() {
    loom::model(|| {
        let world = World::new(2);
        let far = Arc::clone(&world);
        let other = thread::spawn(move || assert!(far.head.get()));
        assert!(world.head.get());
        other.join().unwrap();
        assert_eq!(refs_of(world.head.load()), 4);
    });
}

/// One has its own reference, the other has found the page and may give up the first one's too: a mover of an object's
/// page, say, under the object's lock.
#[test]
fn a_page_is_frozen_by_one_at_a_time() {
    loom::model(|| {
        let world = World::new(1);
        let far = Arc::clone(&world);
        let other = thread::spawn(move || {
            let held = far.head.get_if(ANON);
            if held && far.head.freeze(2) {
                far.write(3);
                far.head.unfreeze(2);
            }
            if held {
                far.put();
            }
        });
        if world.head.freeze(1) {
            world.write(2);
            world.head.unfreeze(1);
        }
        other.join().unwrap();
        assert_eq!(refs_of(world.head.load()), 1);
    });
}

/// Two threads that found the page want to take it elsewhere, while its holder leaves: one at a time has it, and a
/// mover that freezes it is alone.
#[test]
fn a_page_is_isolated_by_one_at_a_time() {
    loom::model(|| {
        let world = World::new(1);
        let take = |world: &World| {
            let isolated = world.head.get_and_mark(ANON, ISOLATED);
            if isolated {
                if world.head.freeze(1) {
                    // The holder has left: the page is the mover's.
                    world.head.clear(ISOLATED);
                    world.free();
                    return true;
                }
                world.head.clear(ISOLATED);
                world.put();
            }
            isolated
        };
        let far = Arc::clone(&world);
        let other = thread::spawn(move || take(&far));
        let far = Arc::clone(&world);
        let leaves = thread::spawn(move || far.put());
        take(&world);
        other.join().unwrap();
        leaves.join().unwrap();
        assert_eq!((world.freed(), world.head.load()), (1, ANON));
    });
}

/// The mark alone excludes others, and what one has done under it the next one sees.
#[test]
fn whoever_isolates_a_page_sees_what_the_one_before_did() {
    loom::model(|| {
        let world = World::new(1);
        let count = |world: &World| {
            let isolated = world.head.get_and_mark(ANON, ISOLATED);
            if isolated {
                world.write(world.look() + 1);
                world.head.clear(ISOLATED);
                assert!(!world.head.put());
            }
            u32::from(isolated)
        };
        let far = Arc::clone(&world);
        let other = thread::spawn(move || count(&far));
        let times = count(&world) + other.join().unwrap();
        assert!(times >= 1);
        assert_eq!((world.look(), refs_of(world.head.load())), (1 + times, 1));
    });
}

/// Reclaim moves a page to another list while its last holder frees it, and the frame's next owner writes its record:
/// the change comes before the free, or does not happen.
#[test]
fn a_list_is_not_changed_after_the_free() {
    const LIST: u64 = 0xf << 12;
    const FRESH: u64 = 1 << 12;
    const FREE: u64 = 1;
    loom::model(|| {
        let world = World::new(1);
        let far = Arc::clone(&world);
        let changed = thread::spawn(move || far.head.exchange(LIST, 0, FRESH));
        world.put();
        let list = world.head.load() & LIST;
        world.head.store(FREE);
        let changed = changed.join().unwrap();
        assert_eq!(changed, list == FRESH);
        assert_eq!(world.head.load(), FREE);
    });
}
