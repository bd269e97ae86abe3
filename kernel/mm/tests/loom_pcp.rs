//! The per-CPU stacks under loom: all interleavings of a CPU that works on its stack with others that drain it.
//!
//! The protocol's file is compiled into this test with loom's atomics in place of the machine's.

mod atomic {
    pub use loom::sync::atomic::{AtomicU64, Ordering};
}

#[allow(dead_code)]
#[path = "../src/pcp/stack.rs"]
mod stack;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use loom::thread;
use stack::{Chain, Links, Stack};

const PAGES: usize = 4;

/// Records of a few pages, and a byte of each page's contents, which loom watches for races.
struct World {
    next: [AtomicU32; PAGES],
    contents: [UnsafeCell<u8>; PAGES],
    stack: Stack,
}

impl Links for &World {
    fn next(self, page: u32) -> u32 {
        self.next[page as usize].load(Relaxed)
    }
    fn set_next(self, page: u32, next: u32) {
        self.next[page as usize].store(next, Relaxed);
    }
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(World {
            next: std::array::from_fn(|_| AtomicU32::new(0)),
            contents: std::array::from_fn(|_| UnsafeCell::new(0)),
            stack: Stack(AtomicU64::new(0)),
        })
    }

    /// What an owner does with a page: loom fails if another owner does it unordered with this one.
    fn use_page(&self, page: u32) {
        self.contents[page as usize].with_mut(|byte| {
            // SAFETY: the page has one owner at a time, which is what the model checks.
            unsafe { *byte = byte.read().wrapping_add(1) }
        });
    }

    /// Uses all pages of a chain and writes over their links, as the buddy does.
    fn spend(&self, mut chain: Chain) -> Vec<u32> {
        let mut pages = Vec::new();
        while let Some(page) = chain.pop(self) {
            pages.push(page);
        }
        for &page in &pages {
            self.use_page(page);
            self.set_next(page, 0xdead);
        }
        pages
    }
}

fn each_once(mut pages: Vec<u32>, expected: &[u32]) {
    pages.sort_unstable();
    assert_eq!(pages, expected, "every page has one owner");
}

#[test]
fn pages_freed_by_their_cpu_and_drained_from_afar_have_one_owner() {
    loom::model(|| {
        let world = World::new();
        let far = Arc::clone(&world);
        let drainer = thread::spawn(move || far.spend(far.stack.take()));
        let mut mine = Vec::new();
        for page in 0..3 {
            world.use_page(page);
            world.stack.push(&*world, page);
        }
        mine.extend(world.stack.pop(&*world));
        mine.iter().for_each(|&page| world.use_page(page));
        let mut all = drainer.join().unwrap();
        all.extend(mine);
        all.extend(world.spend(world.stack.take()));
        each_once(all, &[0, 1, 2]);
    });
}

#[test]
fn a_pop_that_loses_to_a_drain_takes_nothing_of_it() {
    loom::model(|| {
        let world = World::new();
        let mut chain = Chain::EMPTY;
        (0..3).for_each(|page| chain.push(&*world, page));
        world.stack.fill(chain);
        let far = Arc::clone(&world);
        // What is drained is used, its links overwritten: a pop that trusted them would go astray.
        let drainer = thread::spawn(move || far.spend(far.stack.take()));
        let mut mine: Vec<u32> = Vec::new();
        for _ in 0..2 {
            if let Some(page) = world.stack.pop(&*world) {
                world.use_page(page);
                mine.push(page);
            }
        }
        // A page that comes back to the same stack, between the far CPU's take and now.
        if let Some(page) = mine.pop() {
            world.stack.push(&*world, page);
        }
        let mut all = drainer.join().unwrap();
        all.extend(mine);
        all.extend(world.spend(world.stack.take()));
        each_once(all, &[0, 1, 2]);
    });
}

#[test]
fn two_drains_share_a_stack_without_overlap() {
    loom::model(|| {
        let world = World::new();
        world.stack.push(&*world, 0);
        let drainers: Vec<_> = (0..2)
            .map(|_| {
                let far = Arc::clone(&world);
                thread::spawn(move || far.spend(far.stack.take()))
            })
            .collect();
        world.use_page(1);
        world.stack.push(&*world, 1);
        let mut all: Vec<u32> = drainers.into_iter().flat_map(|drainer| drainer.join().unwrap()).collect();
        all.extend(world.spend(world.stack.take()));
        each_once(all, &[0, 1]);
    });
}

#[test]
fn a_refill_is_seen_whole_from_afar() {
    loom::model(|| {
        let world = World::new();
        let far = Arc::clone(&world);
        let drainer = thread::spawn(move || far.spend(far.stack.take()));
        let mut chain = Chain::EMPTY;
        for page in 0..3 {
            world.use_page(page);
            chain.push(&*world, page);
        }
        world.stack.fill(chain);
        let mut all = drainer.join().unwrap();
        all.extend(world.spend(world.stack.take()));
        each_once(all, &[0, 1, 2]);
    });
}
