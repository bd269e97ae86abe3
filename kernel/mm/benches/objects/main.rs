//! The slab allocator compared with the crates slabmalloc, talc and linked_list_allocator: objects of mixed sizes, the
//! same work in one run, in heaps from 64 MiB to 4 GiB.
//!
//! An eighth of the heap is filled with objects of 8 bytes to 2 KiB, small ones as often as large ones. Then objects
//! are freed and allocated at random: ten thousand of them, which shows the cost of a larger heap, or all of them,
//! which shows the effect of the caches. Objects are freed with their layout, as in Rust. Quire's side runs on a
//! machine whose operations cost next to nothing, as in the kernel; the others run without a lock.

// What criterion's macros make has no documentation.
#![allow(missing_docs)]

#[path = "../page_alloc/bare.rs"]
mod bare;
#[path = "../page_alloc/random.rs"]
mod random;
#[path = "../page_alloc/side_by_side.rs"]
mod side_by_side;

use std::alloc::Layout;
use std::ops::Range;
use std::ptr::NonNull;
use std::time::Duration;

use bare::{Bare, memory};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use linked_list_allocator::Heap as LinkedList;
use quire_mm::addr::PAGE_SIZE;
use quire_mm::page_alloc::Gfp;
use quire_mm::slab::{Backend, Config, KernelHeap};
use random::Random;
use side_by_side::{Contestant, print_ratios};
use slabmalloc::{AllocationError, Allocator, LargeObjectPage, ObjectPage, ZoneAllocator};
use talc::{ErrOnOom, Span, Talc};

/// An allocator of objects.
trait Objects {
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>>;
    /// Frees an object that `alloc` returned for this layout.
    fn free(&mut self, object: NonNull<u8>, layout: Layout);
}

struct Quire(&'static KernelHeap<Bare>);

impl Quire {
    fn new(mib: usize, backend: Backend) -> Self {
        let heap: &'static KernelHeap<Bare> = Box::leak(Box::new(KernelHeap::new(Bare::with_mib(mib))));
        heap.init(Config { backend, seed: 1, ..Config::default() });
        Self(heap)
    }
}

impl Objects for Quire {
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.0.alloc_layout(layout, Gfp::KERNEL)
    }
    fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: the benchmark frees what it allocated, once and with its layout.
        unsafe { self.0.free_layout(object, layout) }
    }
}

impl Objects for LinkedList {
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        self.allocate_first_fit(layout).ok()
    }
    fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: as above.
        unsafe { self.deallocate(object, layout) }
    }
}

impl Objects for Talc<ErrOnOom> {
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        // SAFETY: no layout of the benchmark is empty.
        unsafe { self.malloc(layout) }.ok()
    }
    fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        // SAFETY: as above.
        unsafe { Talc::free(self, object, layout) }
    }
}

/// slabmalloc gets its pages from its user, and never returns any. It gets as many as it requests, which is more than
/// the heap's size.
struct SlabMalloc {
    zones: ZoneAllocator<'static>,
    /// Memory that no page was cut from yet.
    left: Range<usize>,
}

impl SlabMalloc {
    const CHUNK: usize = 64 << 20;

    /// Small pages come from the beginning of a chunk and large ones from the end: nothing is lost between them.
    fn page<T>(&mut self) -> &'static mut T {
        let size = size_of::<T>();
        if self.left.len() < size {
            let start = memory(Self::CHUNK).expose_provenance();
            self.left = start..start + Self::CHUNK;
        }
        let page = if size == PAGE_SIZE { self.left.start } else { (self.left.end - size) & !(size - 1) };
        if page < self.left.start {
            self.left = 0..0;
            return self.page();
        }
        self.left = if size == PAGE_SIZE { page + size..self.left.end } else { self.left.start..page };
        // SAFETY: the page is handed out once and aligned, and the crate documents that a page of zeros is an empty
        // one.
        unsafe { &mut *std::ptr::with_exposed_provenance_mut(page) }
    }
}

impl Objects for SlabMalloc {
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        match self.zones.allocate(layout) {
            Err(AllocationError::OutOfMemory) => {
                // SAFETY: the pages are fresh, aligned to their size, and never freed.
                unsafe {
                    if layout.size() <= ZoneAllocator::MAX_BASE_ALLOC_SIZE {
                        let page = self.page::<ObjectPage<'_>>();
                        self.zones.refill(layout, page).ok()?;
                    } else {
                        let page = self.page::<LargeObjectPage<'_>>();
                        self.zones.refill_large(layout, page).ok()?;
                    }
                }
                self.zones.allocate(layout).ok()
            }
            other => other.ok(),
        }
    }
    fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        self.zones.deallocate(object, layout).expect("it came from here");
    }
}

impl Random {
    fn layout(&mut self) -> Layout {
        let power = 8 << (self.next() % 8);
        Layout::from_size_align(power + self.next() % power, 8).expect("at most 2 KiB")
    }
}

struct Churn<O> {
    objects: O,
    held: Vec<(NonNull<u8>, Layout)>,
    random: Random,
}

impl<O: Objects> Churn<O> {
    /// Fills `mib` MiB; frees and allocates `churned` of the objects.
    fn new(mut objects: O, mib: usize, churned: usize) -> Self {
        let mut random = Random(0x1234_5678_9abc_def1);
        let (mut held, mut bytes) = (Vec::new(), 0);
        while bytes < mib << 20 {
            let layout = random.layout();
            held.push((objects.alloc(layout).expect("there is memory"), layout));
            bytes += layout.size();
        }
        // Wherever they are; the others stay.
        for i in 0..churned.min(held.len()) {
            let other = i + random.next() % (held.len() - i);
            held.swap(i, other);
        }
        held.truncate(churned);
        Self { objects, held, random }
    }

    /// Frees one object and allocates another.
    fn step(&mut self) {
        let victim = self.random.next() % self.held.len();
        let (object, layout) = self.held[victim];
        self.objects.free(object, layout);
        let layout = self.random.layout();
        let object = self.objects.alloc(layout).expect("there is memory");
        // SAFETY: the object is ours and has 8 bytes at least. Whoever allocates writes.
        unsafe { object.cast::<u64>().write(victim as u64) };
        self.held[victim] = (object, layout);
    }
}

const STEPS: usize = 1000;
const WARM_UP: Duration = Duration::from_secs(1);
const MEASUREMENT: Duration = Duration::from_secs(2);

fn churn(c: &mut Criterion) {
    for (name, churned) in [("objects/churn of 10000", 10_000), ("objects/churn of all", usize::MAX)] {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(STEPS as u64));
        for heap in [64, 512, 4096] {
            let mut contestants: Vec<Contestant<'_>> = Vec::new();
            let mut measure = |name, objects: Box<dyn Objects>| {
                let mut churn = Churn::new(objects, heap / 8, churned);
                let mut turn = move || (0..STEPS).for_each(|_| churn.step());
                group.bench_function(BenchmarkId::new(name, heap), |b| b.iter(&mut turn));
                contestants.push((name, Box::new(turn)));
            };
            measure("quire slub", Box::new(Quire::new(heap, Backend::Slub)));
            measure("quire slab", Box::new(Quire::new(heap, Backend::Slab)));
            measure("quire slob", Box::new(Quire::new(heap, Backend::Slob)));
            measure("slabmalloc", Box::new(SlabMalloc { zones: ZoneAllocator::new(), left: 0..0 }));
            let len = heap << 20;
            let mut talc = Talc::new(ErrOnOom);
            // SAFETY: nothing else uses the arena.
            unsafe { talc.claim(Span::from_base_size(memory(len), len)) }.expect("an arena is large enough");
            measure("talc", Box::new(talc));
            // Its free walks a list of all holes: with a hundred thousand holes, a second per thousand steps.
            if heap < 512 {
                let mut list = LinkedList::empty();
                // SAFETY: nothing else uses the arena.
                unsafe { list.init(memory(len), len) };
                measure("linked_list_allocator", Box::new(list));
            }
            print_ratios(&format!("{name}, {heap} MiB"), &mut contestants);
        }
        group.finish();
    }
}

impl Objects for Box<dyn Objects> {
    fn alloc(&mut self, layout: Layout) -> Option<NonNull<u8>> {
        (**self).alloc(layout)
    }
    fn free(&mut self, object: NonNull<u8>, layout: Layout) {
        (**self).free(object, layout);
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10).warm_up_time(WARM_UP).measurement_time(MEASUREMENT).without_plots();
    targets = churn
}
criterion_main!(benches);
