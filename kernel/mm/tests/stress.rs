//! Real threads on the page allocator: CPUs that allocate, free each other's pages, and drain each other's lists.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use quire_mm::addr::{PAGE_SIZE, Pfn};
use quire_mm::page_alloc::{Gfp, PageBlock};
use quire_mm::sim::Sim;

type Block = PageBlock<&'static Sim>;

/// One test at a time: their threads would only wait for each other's.
static ALONE: Mutex<()> = Mutex::new(());

const STEPS: usize = if cfg!(debug_assertions) { 3_000 } else { 200_000 };

/// Marsaglia's xorshift: what a stress test needs.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// Writes its owner's mark into each page, and finds it there again when it is freed.
struct Marked(Block, u64);

impl Marked {
    fn new(block: Block, mark: u64) -> Self {
        let marked = Self(block, mark);
        // SAFETY: the block is owned.
        marked.words().for_each(|word| unsafe { word.write(mark) });
        marked
    }

    fn words(&self) -> impl Iterator<Item = *mut u64> {
        let start = self.0.as_ptr();
        (0..1 << self.0.order()).map(move |page| start.wrapping_add(page * PAGE_SIZE).cast())
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        // SAFETY: the block is owned.
        assert!(self.words().all(|word| unsafe { word.read() } == self.1), "a page with two owners");
    }
}

fn work(sim: &'static Sim, cpu: usize, seed: u64, out: &mpsc::Sender<Marked>, inbox: &mpsc::Receiver<Marked>) {
    Sim::set_cpu(cpu);
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut owned: Vec<Marked> = Vec::new();
    let gfps = [Gfp::KERNEL, Gfp::HIGHUSER_MOVABLE, Gfp::NOWAIT | Gfp::RECLAIMABLE, Gfp::ATOMIC];
    for step in 0..STEPS {
        match random.below(20) {
            0..=9 => {
                let order = if random.below(4) == 0 { random.below(6) as u32 } else { 0 };
                if let Ok(block) = sim.pages().alloc_pages(order, gfps[random.below(gfps.len())]) {
                    owned.push(Marked::new(block, seed << 32 | step as u64));
                }
            }
            10..=15 if !owned.is_empty() => drop(owned.swap_remove(random.below(owned.len()))),
            16 | 17 if !owned.is_empty() => {
                // The neighbour may be done already: then the page comes back and is freed here.
                let _ = out.send(owned.swap_remove(random.below(owned.len())));
            }
            18 => inbox.try_iter().take(8).for_each(drop),
            _ if random.below(50) == 0 => sim.pages().drain_all(),
            _ => {}
        }
        if owned.len() > 400 {
            owned.truncate(200);
        }
    }
    drop(owned);
}

/// `threads` threads on `cpus` CPUs; resource counts balance when they are done.
fn run(mib: usize, cpus: usize, threads: usize) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let sim = Sim::with_mib(mib);
    let free = sim.pages().total_free();
    let blocks: Vec<_> = sim.pages().zones().map(|zone| zone.free_blocks()).collect();
    let (senders, inboxes): (Vec<_>, Vec<_>) = (0..threads).map(|_| mpsc::channel()).unzip();
    thread::scope(|scope| {
        for (i, inbox) in inboxes.into_iter().enumerate() {
            let out = senders[(i + 1) % threads].clone();
            scope.spawn(move || {
                work(sim, i % cpus, i as u64 + 1, &out, &inbox);
                drop(out);
                inbox.try_iter().for_each(drop);
            });
        }
        drop(senders);
    });
    assert_eq!(sim.pages().validate(), Ok(()));
    assert_eq!(sim.pages().total_free(), free);
    while sim.pages().shrink_high_atomic() {}
    sim.pages().drain_all();
    assert_eq!(sim.pages().validate(), Ok(()));
    let now: Vec<_> = sim.pages().zones().map(|zone| zone.free_blocks()).collect();
    assert_eq!(now, blocks, "everything merges back");
}

#[test]
fn four_cpus_and_plenty_of_memory() {
    run(256, 4, 4);
}

#[test]
fn four_cpus_and_too_little_memory() {
    run(12, 4, 4);
}

#[test]
fn threads_that_share_cpus() {
    run(64, 2, 5);
}

#[test]
fn a_range_is_had_while_others_allocate_around_it() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let sim = Sim::with_mib(128);
    let free = sim.pages().total_free();
    let range = Pfn((1 << 18) + 4096)..Pfn((1 << 18) + 4096 + 1500);
    let done = AtomicBool::new(false);
    let had = AtomicUsize::new(0);
    thread::scope(|scope| {
        for cpu in 0..2 {
            let done = &done;
            scope.spawn(move || {
                Sim::set_cpu(cpu);
                while !done.load(Relaxed) {
                    let held: Vec<Block> =
                        (0..100).filter_map(|_| sim.pages().alloc_page(Gfp::HIGHUSER_MOVABLE).ok()).collect();
                    drop(held);
                }
            });
        }
        Sim::set_cpu(2);
        for _ in 0..60 {
            if sim.pages().alloc_range(range.clone(), None).is_ok() {
                had.fetch_add(1, Relaxed);
                // SAFETY: the range was just allocated as single frames, and nobody uses them.
                unsafe { sim.pages().free_range(range.clone()) };
            }
        }
        done.store(true, Relaxed);
    });
    Sim::set_cpu(0);
    assert_ne!(had.load(Relaxed), 0);
    assert_eq!(sim.pages().total_free(), free);
    assert_eq!(sim.pages().validate(), Ok(()));
}
