//! The page allocator compared with buddy_system_allocator's `FrameAllocator`: the same work in one run, from 64 MiB to
//! 4 GiB.
//!
//! Quire's side runs on a machine whose operations cost next to nothing, as they do in the kernel.
//!
//! Half of memory is filled with blocks of mixed orders. Then blocks are freed and allocated at random: a thousand of
//! them, which shows the cost of a larger heap; or all of them, which shows the cost of one record per frame: unlike a
//! tree of free blocks, these outgrow the caches.

// The items that criterion's macros generate have no documentation.
#![allow(missing_docs)]

mod bare;
mod random;
mod side_by_side;

use std::time::Duration;

use bare::Bare;
use buddy_system_allocator::FrameAllocator;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use quire_mm::addr::{PAGE_SIZE, Pfn};
use quire_mm::page_alloc::{Gfp, Machine};
use random::Random;
use side_by_side::print_ratios;

/// An allocator of blocks of frames.
trait Frames {
    fn alloc(&mut self, order: u32) -> Option<usize>;
    fn free(&mut self, frame: usize, order: u32);
}

struct Quire(Bare);

impl Frames for Quire {
    fn alloc(&mut self, order: u32) -> Option<usize> {
        self.0.pages().alloc_raw(order, Gfp::NOWAIT).ok().map(|pfn| pfn.0)
    }
    fn free(&mut self, frame: usize, order: u32) {
        // SAFETY: the benchmark frees what it allocated, once.
        unsafe { self.0.pages().free_pages(Pfn(frame), order) }
    }
}

impl Frames for FrameAllocator<33> {
    fn alloc(&mut self, order: u32) -> Option<usize> {
        FrameAllocator::alloc(self, 1 << order)
    }
    fn free(&mut self, frame: usize, order: u32) {
        self.dealloc(frame, 1 << order);
    }
}

impl Random {
    /// Mostly single pages, sometimes up to 256 KiB.
    fn order(&mut self) -> u32 {
        match self.next() % 16 {
            0..=9 => 0,
            10..=12 => 1 + (self.next() % 2) as u32,
            _ => 3 + (self.next() % 4) as u32,
        }
    }
}

struct Churn<F> {
    frames: F,
    held: Vec<(usize, u32)>,
    random: Random,
}

impl<F: Frames> Churn<F> {
    /// Fills half of memory; frees and allocates `churned` of the blocks.
    fn new(mut frames: F, mib: usize, churned: usize) -> Self {
        let mut random = Random(0x1234_5678_9abc_def1);
        let (mut held, mut pages) = (Vec::new(), 0);
        while pages < (mib << 20) / PAGE_SIZE / 2 {
            let order = random.order();
            let Some(frame) = frames.alloc(order) else { break };
            held.push((frame, order));
            pages += 1 << order;
        }
        // Chosen at random; the others stay.
        for i in 0..churned.min(held.len()) {
            let other = i + random.next() % (held.len() - i);
            held.swap(i, other);
        }
        held.truncate(churned);
        Self { frames, held, random }
    }

    /// Frees one block and allocates another.
    fn step(&mut self) {
        let victim = self.random.next() % self.held.len();
        let (frame, order) = self.held.swap_remove(victim);
        self.frames.free(frame, order);
        let order = self.random.order();
        if let Some(frame) = self.frames.alloc(order) {
            self.held.push((frame, order));
        }
    }
}

const STEPS: usize = 1000;
const WARM_UP: Duration = Duration::from_secs(1);
const MEASUREMENT: Duration = Duration::from_secs(2);

fn churn(c: &mut Criterion) {
    for (name, churned) in [("frames/churn of 1000", 1000), ("frames/churn of all", usize::MAX)] {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(STEPS as u64));
        for mib in [64, 512, 4096] {
            let mut quire = Churn::new(Quire(Bare::with_mib(mib)), mib, churned);
            group.bench_function(BenchmarkId::new("quire", mib), |b| b.iter(|| (0..STEPS).for_each(|_| quire.step())));
            let mut other = FrameAllocator::<33>::new();
            let base = (1 << 30) / PAGE_SIZE;
            other.add_frame(base, base + (mib << 20) / PAGE_SIZE);
            let mut other = Churn::new(other, mib, churned);
            group.bench_function(BenchmarkId::new("buddy_system_allocator", mib), |b| {
                b.iter(|| (0..STEPS).for_each(|_| other.step()));
            });
            print_ratios(
                &format!("{name}, {mib} MiB"),
                &mut [
                    ("quire", Box::new(|| (0..STEPS).for_each(|_| quire.step()))),
                    ("buddy_system_allocator", Box::new(|| (0..STEPS).for_each(|_| other.step()))),
                ],
            );
        }
        group.finish();
    }
}

fn hot_page(c: &mut Criterion) {
    let mut group = c.benchmark_group("frames/hot page");
    let mut pair = |name, frames: &mut dyn Frames| {
        group.bench_function(name, |b| {
            b.iter(|| {
                let frame = frames.alloc(0).expect("there is memory");
                frames.free(frame, 0);
            });
        });
    };
    pair("quire", &mut Quire(Bare::with_mib(512)));
    let mut other = FrameAllocator::<33>::new();
    other.add_frame(1 << 18, (1 << 18) + (1 << 17));
    pair("buddy_system_allocator", &mut other);
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(WARM_UP).measurement_time(MEASUREMENT).without_plots();
    targets = churn, hot_page
}
criterion_main!(benches);
