//! The page allocator against a model that records the owner of each frame.

use std::collections::BTreeMap;

use proptest::prelude::*;
use quire_mm::addr::{PAGE_SIZE, Pfn, PhysAddr};
use quire_mm::buddy::PAGEBLOCK_PAGES;
use quire_mm::memblock::RegionKind;
use quire_mm::page::PageState;
use quire_mm::page_alloc::{Gfp, MovableSplit, PageBlock, mem_map_ranges};
use quire_mm::sim::{Sim, SimConfig};
use quire_mm::zone::ZoneKind;

type Block = PageBlock<&'static Sim>;

const MIB: usize = 1 << 20;
const DMA_LIMIT: usize = 1 << 30;
const DMA32_LIMIT: usize = 4 << 30;

/// Two nodes, each with a hole; all four kinds of zone; odd edges and reservations.
fn machine() -> &'static Sim {
    let mut config = SimConfig::new()
        .bank(DMA_LIMIT - 16 * MIB, 24 * MIB + 3 * PAGE_SIZE, 0)
        .bank(DMA_LIMIT + 48 * MIB, 16 * MIB, 1)
        .bank(DMA32_LIMIT - 8 * MIB, 24 * MIB, 0)
        .bank(DMA32_LIMIT + 64 * MIB + 5 * PAGE_SIZE, 20 * MIB, 1)
        .reserve(DMA_LIMIT - 16 * MIB, 3 * MIB + PAGE_SIZE, RegionKind::Kernel)
        .reserve(DMA_LIMIT + 49 * MIB, 17, RegionKind::DeviceTree);
    config.dma_limit = Some(PhysAddr::new(DMA_LIMIT));
    config.movable = MovableSplit::MovableCore(16 * MIB / PAGE_SIZE);
    config.node_of_cpu[1] = 1;
    Sim::boot(&config)
}

#[derive(Clone, Debug)]
enum Op {
    Alloc { cpu: usize, order: u32, gfp: usize },
    Free { cpu: usize, which: usize },
    Drain,
}

const GFPS: [Gfp; 7] = [
    Gfp::KERNEL,
    Gfp::HIGHUSER_MOVABLE,
    Gfp::KERNEL.union(Gfp::RECLAIMABLE),
    Gfp::KERNEL.union(Gfp::DMA),
    Gfp::NOWAIT.union(Gfp::DMA32),
    Gfp::ATOMIC,
    Gfp::HIGHUSER_MOVABLE.union(Gfp::ZERO),
];

fn op() -> impl Strategy<Value = Op> {
    let order = prop_oneof![6 => Just(0), 3 => 1..=4_u32, 1 => 5..=10_u32];
    prop_oneof![
        10 => (0..3_usize, order, 0..GFPS.len()).prop_map(|(cpu, order, gfp)| Op::Alloc { cpu, order, gfp }),
        8 => (0..3_usize, any::<usize>()).prop_map(|(cpu, which)| Op::Free { cpu, which }),
        1 => Just(Op::Drain),
    ]
}

/// Who owns what: start frame to block, and the number written into it.
struct Model {
    sim: &'static Sim,
    owned: BTreeMap<usize, (Block, u64)>,
    next: u64,
    free: usize,
}

impl Model {
    fn alloc(&mut self, order: u32, gfp: Gfp) {
        let Ok(block) = self.sim.pages().alloc_pages(order, gfp) else { return };
        let (start, len) = (block.pfn().0, 1 << order);
        assert!(start.is_multiple_of(len));
        let before = self.owned.range(..start + len).next_back();
        assert!(before.is_none_or(|(&other, (held, _))| other + (1 << held.order()) <= start), "overlap");
        self.check_place(&block, gfp);
        if gfp.contains(Gfp::ZERO) {
            assert!(self.words(&block).all(|(_, word)| word == 0));
        }
        self.next += 1;
        self.mark(&block, self.next);
        self.free -= len;
        self.owned.insert(start, (block, self.next));
    }

    fn check_place(&self, block: &Block, gfp: Gfp) {
        let (start, end) = (block.addr().get(), block.addr().get() + block.size());
        if gfp.contains(Gfp::DMA) {
            assert!(end <= DMA_LIMIT);
        }
        if gfp.contains(Gfp::DMA32) {
            assert!(end <= DMA32_LIMIT);
        }
        let memory = self.sim.memblock();
        assert!(
            memory.free_ranges().any(|free| free.start.get() <= start && end <= free.end.get()),
            "not free at boot"
        );
        let movable = self.sim.pages().zones().filter(|zone| zone.kind() == ZoneKind::Movable).any(|zone| {
            let (first, spanned) = zone.span();
            first.0 <= block.pfn().0 && block.pfn().0 < first.0 + spanned
        });
        assert!(!movable || gfp.contains(Gfp::MOVABLE), "unmovable memory in zone MOVABLE");
    }

    /// The first word of each page.
    fn words(&self, block: &Block) -> impl Iterator<Item = (*mut u64, u64)> {
        let start = block.as_ptr();
        (0..1 << block.order()).map(move |page| {
            // SAFETY: the block is owned, and the direct map reaches all of it.
            unsafe {
                let word = start.add(page * PAGE_SIZE).cast::<u64>();
                (word, word.read())
            }
        })
    }

    fn mark(&self, block: &Block, with: u64) {
        // SAFETY: the block is owned, and the words lie in it.
        self.words(block).for_each(|(word, _)| unsafe { word.write(with) });
    }

    fn free(&mut self, which: usize) {
        let Some(&start) = self.owned.keys().nth(which % self.owned.len().max(1)) else { return };
        let (block, mark) = self.owned.remove(&start).unwrap();
        assert!(self.words(&block).all(|(_, word)| word == mark), "somebody else wrote to an owned page");
        self.free += 1 << block.order();
    }

    fn check(&self) {
        assert_eq!(self.sim.pages().total_free(), self.free);
        assert_eq!(self.sim.pages().validate(), Ok(()));
        self.check_views();
    }

    /// Looked at by page blocks, each owned frame is its owner's, and the others are free or nobody's.
    fn check_views(&self) {
        let (mut free, mut owned) = (0, 0);
        for zone in self.sim.pages().zones() {
            for number in zone.block_numbers().filter(|number| zone.block(*number).is_some()) {
                let (mut next, mut states) = (0, [0; PageState::NUMBERS]);
                let exists = self.sim.pages().look_at_block(number, |run| {
                    assert_eq!(run.at, next, "each frame once");
                    next += run.len;
                    states[run.look.number()] += run.len as u16;
                    let pfn = number * PAGEBLOCK_PAGES + run.at;
                    let owner = self.owned.range(..=pfn).next_back();
                    let owner = owner.filter(|(start, (block, _))| pfn < *start + (1 << block.order()));
                    assert_eq!(run.look.state().is_allocated(), owner.is_some());
                    match owner {
                        Some((start, (block, _))) => {
                            assert_eq!((run.look.order(), run.is_first), (block.order(), pfn == *start));
                            owned += run.len;
                        }
                        None if run.look.state() != PageState::Absent => free += run.len,
                        None => assert_eq!(run.len, 1),
                    }
                });
                assert!(exists && next == PAGEBLOCK_PAGES);
                assert_eq!(self.sim.pages().count_block(number), Some(states));
            }
        }
        assert_eq!(free, self.free);
        assert_eq!(owned, self.owned.values().map(|(block, _)| 1 << block.order()).sum::<usize>());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn agrees_with_a_model_of_owners(ops in proptest::collection::vec(op(), 1..400)) {
        let sim = machine();
        let at_boot: Vec<_> = sim.pages().zones().map(|zone| zone.free_blocks()).collect();
        let mut model = Model { sim, owned: BTreeMap::new(), next: 0, free: sim.pages().total_free() };
        assert_eq!(model.free, sim.summary().managed);
        for op in &ops {
            match *op {
                Op::Alloc { cpu, order, gfp } => {
                    Sim::set_cpu(cpu);
                    model.alloc(order, GFPS[gfp]);
                }
                Op::Free { cpu, which } => {
                    Sim::set_cpu(cpu);
                    model.free(which);
                }
                Op::Drain => sim.pages().drain_all(),
            }
            model.check();
        }
        while !model.owned.is_empty() {
            model.free(0);
        }
        sim.pages().drain_all();
        model.check();
        let now: Vec<_> = sim.pages().zones().map(|zone| zone.free_blocks()).collect();
        assert_eq!(now, at_boot, "everything merges back");
        Sim::set_cpu(0);
    }
}

#[test]
fn every_frame_that_nobody_reserved_is_handed_out() {
    let sim = machine();
    let whole = |range: std::ops::Range<PhysAddr>| {
        (range.end.get() / PAGE_SIZE).saturating_sub(range.start.get().div_ceil(PAGE_SIZE))
    };
    let free: usize = sim.memblock().free_ranges().map(whole).sum();
    let present: usize = sim.memblock().memory().map(|region| whole(region.range)).sum();
    let summary = sim.summary();
    assert_eq!((summary.present, summary.managed, summary.reserved), (present, free, present - free));
    assert_eq!(sim.pages().total_free(), free);
    let mut taken = Vec::new();
    while let Ok(block) = sim.pages().alloc_page(Gfp::HIGHUSER_MOVABLE | Gfp::MEMALLOC) {
        taken.push(block);
    }
    assert_eq!(taken.len(), free, "and every one of them can be had");
    assert_eq!(sim.pages().total_free(), 0);
    assert_eq!(sim.pages().validate(), Ok(()));
}

/// Records exist for the blocks of 4 MiB that memory lies in, and for nothing between.
#[test]
fn holes_have_no_records() {
    let sim = machine();
    assert!(!sim.pages().look_at_block(0, |_| panic!("there is no memory")));
    assert!(!sim.pages().look_at_block(usize::MAX, |_| panic!("there is no memory")));
    let memory = sim.memblock().clone();
    let recorded: Vec<_> = mem_map_ranges(&memory).collect();
    let mib = |range: &std::ops::Range<Pfn>| (range.start.0 / 256, range.end.0.div_ceil(256));
    let wanted = [(1008, 1036), (1072, 1088), (4088, 4112), (4160, 4184)];
    assert_eq!(recorded.iter().map(mib).collect::<Vec<_>>(), wanted);
    let holds = |pfn: usize| recorded.iter().any(|range| (range.start.0..range.end.0).contains(&pfn));
    for region in memory.memory() {
        assert!(holds(region.range.start.pfn().0) && holds(region.range.end.pfn().0 - 1));
    }
}

#[test]
fn pages_by_address_come_and_go() {
    let sim = Sim::with_mib(32);
    let pages = sim.pages();
    let free = pages.total_free();
    for order in [0, 3, 10] {
        let at = pages.get_free_pages(order, Gfp::KERNEL).unwrap();
        assert!(at.addr().is_multiple_of(PAGE_SIZE << order));
        assert_eq!(pages.total_free(), free - (1 << order));
        // SAFETY: the block is ours, and given back once.
        unsafe {
            at.write_bytes(0xff, PAGE_SIZE << order);
            pages.free_address(at, order);
        }
    }
    let zeroed = pages.get_zeroed_page(Gfp::KERNEL).unwrap();
    // SAFETY: the page is ours, and given back once.
    unsafe {
        assert!(std::slice::from_raw_parts(zeroed, PAGE_SIZE).iter().all(|&byte| byte == 0));
        pages.free_address(zeroed, 0);
    }
    assert!(pages.get_free_pages(11, Gfp::KERNEL).is_err(), "no such order");
    assert_eq!(pages.total_free(), free);
}

/// A per-CPU list is filled from whatever there is: single pages do.
#[test]
fn a_refill_needs_no_large_block() {
    let sim = Sim::with_mib(32);
    let pages = sim.pages();
    let gfp = Gfp::HIGHUSER_MOVABLE | Gfp::MEMALLOC | Gfp::NORETRY;
    let all: Vec<_> = std::iter::from_fn(|| pages.alloc_page(gfp).ok()).collect();
    let (kept, freed): (Vec<_>, Vec<_>) = all.into_iter().partition(|block| block.pfn().0 % 2 == 0);
    let count = freed.len();
    drop(freed);
    pages.drain_all();
    assert!(pages.alloc_pages(1, gfp).is_err(), "no two pages are neighbours");
    let again: Vec<_> = std::iter::from_fn(|| pages.alloc_page(gfp).ok()).collect();
    assert_eq!(again.len(), count);
    drop(kept);
}

#[test]
fn frame_0_is_never_given_out() {
    let sim = Sim::boot(&SimConfig::new().bank(0, 8 * MIB, 0));
    let mut taken = Vec::new();
    while let Ok(block) = sim.pages().alloc_page(Gfp::KERNEL | Gfp::MEMALLOC) {
        assert_ne!(block.pfn(), Pfn(0));
        taken.push(block);
    }
    assert_eq!(taken.len() + sim.summary().reserved, 2048);
}

#[test]
fn a_batch_of_mixed_orders_is_freed_at_once() {
    let sim = Sim::with_mib(32);
    let free = sim.pages().total_free();
    let mut list = quire_mm::page_alloc::PageList::new();
    for order in [0, 3, 0, 1, 9, 0] {
        let block = sim.pages().alloc_pages(order, Gfp::KERNEL).unwrap();
        // SAFETY: the block was just allocated, and the list now owns it.
        unsafe { list.push(sim, block.into_raw()) };
    }
    assert_eq!(list.len(), 6);
    // SAFETY: the list owns its blocks, and nobody uses them.
    unsafe { sim.pages().free_batch(&mut list) };
    assert_eq!(sim.pages().total_free(), free);
    assert_eq!(sim.pages().validate(), Ok(()));
}

#[test]
fn compound_blocks_are_found_from_any_of_their_frames() {
    let sim = Sim::with_mib(32);
    let block = sim.pages().alloc_pages(4, Gfp::KERNEL | Gfp::COMP).unwrap();
    let next = sim.pages().alloc_pages(2, Gfp::KERNEL).unwrap();
    for held in [&block, &next] {
        for i in 0..1 << held.order() {
            let pfn = Pfn(held.pfn().0 + i);
            // SAFETY: the frame is allocated, so it has a record.
            assert_eq!(unsafe { quire_mm::page::compound_head(sim, pfn) }, Some(held.pfn()));
        }
    }
}
