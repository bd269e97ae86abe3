//! Zones, watermarks, fallback order, pressure: which requests get the last pages, and when reclaim is requested.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::*};

use quire_mm::PhysAddr;
use quire_mm::addr::PAGE_SIZE;
use quire_mm::memblock::{MemBlock, RegionKind};
use quire_mm::page_alloc::{
    Config, FaultInjection, Gfp, InitError, MovableSplit, PageAllocator, PageBlock, PressureHandler, Shrinker,
    ZoneBounds,
};
use quire_mm::sim::{Sim, SimConfig};
use quire_mm::zone::ZoneKind;

type Block = PageBlock<&'static Sim>;

const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;

/// Allocates until it fails.
fn exhaust(sim: &'static Sim, order: u32, gfp: Gfp) -> Vec<Block> {
    std::iter::from_fn(|| sim.pages().alloc_pages(order, gfp).ok()).collect()
}

fn zone_of(sim: &'static Sim, block: &Block) -> (usize, ZoneKind) {
    let holds = |start: usize, len: usize| (start..start + len).contains(&block.pfn().0);
    let zone = sim.pages().zones().find(|zone| holds(zone.span().0.0, zone.span().1)).unwrap();
    (zone.node(), zone.kind())
}

/// A bank below 1 GiB, one below 4 GiB, one above.
fn all_kinds() -> SimConfig {
    let mut config =
        SimConfig::new().bank(512 * MIB, 32 * MIB, 0).bank(2 * GIB, 64 * MIB, 0).bank(5 * GIB, 128 * MIB, 0);
    config.dma_limit = Some(PhysAddr::new(GIB));
    config
}

#[test]
fn requests_start_in_the_highest_zone_they_may_use() {
    let mut config = all_kinds();
    config.movable = MovableSplit::MovableCore(64 * MIB / PAGE_SIZE);
    let sim = Sim::boot(&config);
    let cases = [
        (Gfp::KERNEL, ZoneKind::Normal),
        (Gfp::KERNEL | Gfp::DMA32, ZoneKind::Dma32),
        (Gfp::KERNEL | Gfp::DMA, ZoneKind::Dma),
        (Gfp::HIGHUSER_MOVABLE, ZoneKind::Movable),
        (Gfp::USER | Gfp::MOVABLE, ZoneKind::Normal),
    ];
    for (gfp, kind) in cases {
        for order in [0, 3] {
            let block = sim.pages().alloc_pages(order, gfp).unwrap();
            assert_eq!(zone_of(sim, &block), (0, kind), "{gfp:?}");
        }
    }
    let kinds: Vec<_> = sim.pages().zones().map(|zone| zone.kind()).collect();
    assert_eq!(kinds, ZoneKind::ALL);
}

#[test]
fn requests_fall_back_to_lower_zones_but_leave_their_reserve() {
    let sim = Sim::boot(&all_kinds());
    let zones: Vec<_> = sim.pages().zones().collect();
    let (dma, dma32) = (&zones[0], &zones[1]);
    let above_dma = dma32.managed() + zones[2].managed();
    assert_eq!(dma.lowmem_reserve(), [0, dma32.managed() / 256, above_dma / 256, above_dma / 256]);
    let taken = exhaust(sim, 0, Gfp::KERNEL);
    assert!(taken.iter().any(|block| zone_of(sim, block).1 == ZoneKind::Dma));
    let kept = dma.watermarks().min + dma.lowmem_reserve()[ZoneKind::Normal as usize];
    assert!(dma.free() >= kept, "{} < {kept}", dma.free());
    assert!(dma.free() < kept + 64);
    let for_dma = exhaust(sim, 0, Gfp::KERNEL | Gfp::DMA);
    assert!(for_dma.len() + 64 > dma.lowmem_reserve()[ZoneKind::Normal as usize]);
}

/// Two nodes, this CPU on the first.
fn two_nodes() -> SimConfig {
    SimConfig::new().bank(GIB, 32 * MIB, 0).bank(2 * GIB, 64 * MIB, 1)
}

#[test]
fn a_later_zone_serves_at_the_cost_of_the_best() {
    // Large enough for the largest batches: with each comes a walk down the zonelist.
    let large = SimConfig::new().bank(3 * GIB, 128 * MIB, 0);
    let cases =
        [(large.clone().bank(5 * GIB, 128 * MIB, 0), Gfp::KERNEL), (large.bank(5 * GIB, 128 * MIB, 1), Gfp::USER)];
    for (mut config, gfp) in cases {
        config.cpus = 1;
        let sim = Sim::boot(&config);
        let mut held = Vec::new();
        let mut masked_in_zone = Vec::new();
        // `PAGES` pages of each zone, when all better ones are used up; how often interrupts were masked for them.
        const PAGES: usize = 4096;
        for _ in 0..2 {
            let zone = {
                held.push(sim.pages().alloc_page(gfp).unwrap());
                zone_of(sim, held.last().unwrap())
            };
            let before = Sim::times_masked();
            held.extend((0..PAGES).map(|_| sim.pages().alloc_page(gfp).unwrap()));
            masked_in_zone.push(Sim::times_masked() - before);
            assert_eq!(zone_of(sim, held.last().unwrap()), zone);
            // The last zone may end before another one is found.
            while zone_of(sim, held.last().unwrap()) == zone
                && let Ok(block) = sim.pages().alloc_page(gfp)
            {
                held.push(block);
            }
        }
        let [best, later] = masked_in_zone[..] else { unreachable!() };
        assert!(best < PAGES * 11 / 10 && later <= best + PAGES / 40, "{best}, then {later} for {PAGES} pages");
    }
}

#[test]
fn a_zone_that_has_memory_again_serves_after_a_batch() {
    let sim = Sim::boot(&two_nodes());
    let gfp = Gfp::HIGHUSER_MOVABLE;
    let mut held: Vec<Block> = Vec::new();
    let mut local = Vec::new();
    loop {
        let block = sim.pages().alloc_page(gfp).unwrap();
        match zone_of(sim, &block).0 {
            0 => local.push(block),
            _ => break held.push(block),
        }
    }
    // A page of the own node that this CPU frees serves at once.
    let freed = local.pop().unwrap().into_raw();
    // SAFETY: the block was given up just now.
    unsafe { sim.pages().free_pages(freed, 0) };
    held.push(sim.pages().alloc_page(gfp).unwrap());
    assert_eq!(held.last().unwrap().pfn(), freed);
    // Those that another CPU frees serve once what was fetched from the other node is used up, even if it never runs
    // out.
    Sim::set_cpu(1);
    drop(local);
    sim.pages().drain_cpu(1);
    Sim::set_cpu(0);
    let remote = (0..).take_while(|_| zone_of(sim, &sim.pages().alloc_page(gfp).unwrap()).0 == 1).take(1000).count();
    assert!(remote <= 64, "{remote} times a page of the other node");
}

#[test]
fn whatever_zones_lend_each_other_a_request_gets_what_it_may_have() {
    let mut config = SimConfig::new()
        .bank(512 * MIB, 8 * MIB, 0)
        .bank(2 * GIB, 8 * MIB, 0)
        .bank(3 * GIB, 8 * MIB, 1)
        .bank(6 * GIB, 32 * MIB, 1);
    config.dma_limit = Some(PhysAddr::new(GIB));
    config.movable = MovableSplit::MovableCore(8 * MIB / PAGE_SIZE);
    let requests = [
        (Gfp::KERNEL, ZoneKind::Normal),
        (Gfp::KERNEL | Gfp::RECLAIMABLE, ZoneKind::Normal),
        (Gfp::USER | Gfp::MOVABLE, ZoneKind::Normal),
        (Gfp::HIGHUSER_MOVABLE, ZoneKind::Movable),
        (Gfp::KERNEL | Gfp::DMA32, ZoneKind::Dma32),
        (Gfp::HIGHUSER_MOVABLE | Gfp::DMA32, ZoneKind::Dma32),
        (Gfp::KERNEL | Gfp::DMA, ZoneKind::Dma),
    ];
    for seed in 1..=4_u64 {
        // Every other time the first node has the same kinds of zones.
        let sim = Sim::boot(&if seed % 2 == 0 { config.clone().bank(5 * GIB, 8 * MIB, 0) } else { config.clone() });
        let mut expected: BTreeMap<_, _> =
            sim.pages().zones().map(|z| ((z.node(), z.kind() as usize), z.events().0)).collect();
        let before = sim.pages().total_free();
        let mut random = seed;
        let mut next = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % below
        };
        let mut held: Vec<Block> = Vec::new();
        let mut other_nodes = 0;
        for step in 0..100_000 {
            Sim::set_cpu(next(2));
            // Up and down, so that zones are used up, and have memory again.
            let grows = if step / 25_000 % 2 == 0 { 2 } else { 1 };
            if next(3) >= grows && !held.is_empty() {
                drop(held.swap_remove(next(held.len())));
                continue;
            }
            let (gfp, highest) = requests[next(requests.len())];
            let bound = next(4) == 0;
            let gfp = ((gfp - Gfp::RECLAIM) | Gfp::NOWARN) | if bound { Gfp::THISNODE } else { Gfp::empty() };
            let order = if next(8) == 0 { next(4) as u32 } else { 0 };
            let Ok(block) = sim.pages().alloc_pages(order, gfp) else { continue };
            let (node, kind) = zone_of(sim, &block);
            assert!(kind as usize <= highest as usize, "{gfp:?} got a block of {kind:?}");
            *expected.get_mut(&(node, kind as usize)).unwrap() += 1 << order;
            other_nodes += usize::from(node != sim.pages().local_node());
            assert!(!bound || node == sim.pages().local_node(), "{gfp:?} got a block of node {node}");
            held.push(block);
        }
        assert!(other_nodes > 100, "zones were used up");
        drop(held);
        assert_eq!((sim.pages().total_free(), sim.pages().validate()), (before, Ok(())));
        sim.pages().drain_all();
        for zone in sim.pages().zones() {
            let place = (zone.node(), zone.kind() as usize);
            assert_eq!((zone.events().0, zone.free()), (expected[&place], zone.managed()), "{place:?}");
        }
    }
}

#[test]
fn without_a_dma_limit_dma_is_all_below_4_gib() {
    let sim = Sim::boot(&SimConfig::new().bank(2 * GIB, 16 * MIB, 0).bank(5 * GIB, 16 * MIB, 0));
    let block = sim.pages().alloc_page(Gfp::KERNEL | Gfp::DMA).unwrap();
    assert_eq!(zone_of(sim, &block), (0, ZoneKind::Dma32));
    let sim = Sim::boot(&SimConfig::new().bank(5 * GIB, 16 * MIB, 0));
    assert!(sim.pages().alloc_page(Gfp::KERNEL | Gfp::DMA32).is_err());
}

#[test]
fn watermarks_follow_linux_s_formula() {
    // 1 GiB: sqrt(1048576 KiB * 16) = 4096 KiB = 1024 pages, all in one zone.
    let sim = Sim::boot(&SimConfig::new().bank(GIB, GIB, 0));
    let zone = sim.pages().zones().next().unwrap();
    let marks = zone.watermarks();
    assert!(marks.min.abs_diff(1024) <= 1, "{marks:?}");
    assert_eq!((marks.low, marks.high), (marks.min + marks.min / 4 + step(&marks, zone.managed()), marks.high));
    assert_eq!(marks.high - marks.low, marks.low - marks.min);
    sim.pages().set_min_free(8192);
    assert!(zone.watermarks().min.abs_diff(2048) <= 1);
}

/// What a thousandth of the zone adds over a quarter of min.
fn step(marks: &quire_mm::zone::Watermarks, managed: usize) -> usize {
    (managed / 1000).saturating_sub(marks.min / 4)
}

#[test]
fn the_more_urgent_dig_deeper() {
    let sim = Sim::boot(&SimConfig::new().bank(GIB, 64 * MIB, 0));
    let zone = sim.pages().zones().next().unwrap();
    let min = zone.watermarks().min;
    let mut held = Vec::new();
    let mut left = |gfp| {
        held.push(exhaust(sim, 0, gfp));
        zone.free() + zone.per_cpu()
    };
    let near = |left: usize, mark: usize| assert!(left >= mark && left <= mark + 2, "{left} pages left, {mark} kept");
    near(left(Gfp::KERNEL | Gfp::NORETRY), min);
    near(left(Gfp::KERNEL | Gfp::NORETRY | Gfp::HIGH), min - min / 2);
    near(left(Gfp::ATOMIC), (min - min / 2) - (min - min / 2) / 4);
    let unchanged = left(Gfp::KERNEL | Gfp::NORETRY | Gfp::MEMALLOC | Gfp::NOMEMALLOC);
    near(unchanged, (min - min / 2) - (min - min / 2) / 4);
    assert_eq!(left(Gfp::KERNEL | Gfp::NORETRY | Gfp::MEMALLOC), 0);
}

#[test]
fn nodes_are_used_by_distance() {
    let mut config = SimConfig::new().bank(GIB, 16 * MIB, 0).bank(2 * GIB, 16 * MIB, 1).bank(3 * GIB, 16 * MIB, 2);
    config.node_of_cpu[1] = 1;
    let sim = Sim::boot(&config);
    Sim::set_cpu(1);
    let here = sim.pages().alloc_page(Gfp::KERNEL).unwrap();
    assert_eq!(zone_of(sim, &here).0, 1);
    let there = sim.pages().alloc_pages_node(2, 0, Gfp::KERNEL).unwrap();
    assert_eq!(zone_of(sim, &there).0, 2);
    let only_here = exhaust(sim, 0, Gfp::KERNEL | Gfp::NORETRY | Gfp::THISNODE);
    assert!(only_here.iter().all(|block| zone_of(sim, block).0 == 1));
    let next = sim.pages().alloc_page(Gfp::KERNEL).unwrap();
    assert_eq!(zone_of(sim, &next).0, 2, "equally far nodes take turns");
    Sim::set_cpu(0);
}

/// Four nodes in a line, each as far from another as there are steps between them.
#[test]
fn the_nearest_node_helps_out_first() {
    let mut config = SimConfig::new();
    for node in 0..4 {
        config = config.bank((1 + node) * GIB / 2, 16 * MIB, node);
    }
    config.distance = |a, b| 10 + 10 * a.abs_diff(b) as u32;
    config.node_of_cpu = core::array::from_fn(|cpu| cpu as u8 % 4);
    let sim = Sim::boot(&config);
    for (cpu, order) in [(0, [0, 1, 2, 3]), (3, [3, 2, 1, 0]), (2, [2, 3, 1, 0])] {
        Sim::set_cpu(cpu);
        let taken = exhaust(sim, 0, Gfp::KERNEL | Gfp::NORETRY | Gfp::MEMALLOC);
        let mut nodes: Vec<_> = taken.iter().map(|block| zone_of(sim, block).0).collect();
        // First all of each down to its low watermark, then what is below, in the same order.
        nodes.dedup();
        assert!(nodes.len() >= 8 && nodes.chunks(4).all(|turn| turn == order), "{nodes:?}");
    }
    Sim::set_cpu(0);
}

#[test]
fn kernelcore_is_spread_over_the_nodes() {
    let mut config = SimConfig::new().bank(GIB, 64 * MIB, 0).bank(2 * GIB, 16 * MIB, 1).bank(3 * GIB, 64 * MIB, 2);
    config.movable = MovableSplit::KernelCore(72 * MIB / PAGE_SIZE);
    let sim = Sim::boot(&config);
    let present = |node, kind| {
        sim.pages().zones().find(|zone| (zone.node(), zone.kind()) == (node, kind)).map_or(0, |zone| zone.present())
    };
    let pages = |mib: usize| mib * MIB / PAGE_SIZE;
    for (node, kernel, movable) in [(0, 28, 36), (1, 16, 0), (2, 28, 36)] {
        assert_eq!((present(node, ZoneKind::Dma32), present(node, ZoneKind::Movable)), (pages(kernel), pages(movable)));
    }
}

fn sizes(sim: &'static Sim) -> Vec<(ZoneKind, usize)> {
    sim.pages().zones().map(|zone| (zone.kind(), zone.present())).collect()
}

/// As on Linux: what asks for all memory, or for none, gets no zone MOVABLE.
#[test]
fn the_kernel_always_has_a_zone() {
    let all = 64 * MIB / PAGE_SIZE;
    let absurd = [
        MovableSplit::KernelCore(0),
        MovableSplit::KernelCore(all),
        MovableSplit::KernelCore(usize::MAX),
        MovableSplit::MovableCore(all),
        MovableSplit::MovableCore(usize::MAX),
    ];
    for split in absurd {
        let sim = Sim::boot(&SimConfig { movable: split, ..SimConfig::new().bank(GIB, 64 * MIB, 0) });
        assert_eq!(sizes(sim), [(ZoneKind::Dma32, all)], "{split:?}");
        assert!(sim.pages().alloc_page(Gfp::KERNEL).is_ok(), "{split:?}");
    }
}

#[test]
fn a_split_leaves_the_kernel_enough_to_boot() {
    use MovableSplit::{KernelCore, MovableCore};
    let pages = |mib: usize| mib * MIB / PAGE_SIZE;
    let mut memory = MemBlock::new();
    memory.add(PhysAddr::new(GIB)..PhysAddr::new(2 * GIB), 0).unwrap();
    memory.reserve(PhysAddr::new(GIB)..PhysAddr::new(GIB + 36 * MIB), RegionKind::Kernel, "").unwrap();
    // A 16th, and what is reserved.
    let least = KernelCore(pages(64 + 36));
    for split in [KernelCore(1), MovableCore(pages(1020)), KernelCore(pages(99))] {
        assert_eq!(split.bootable(&memory), least, "{split:?}");
    }
    for split in [least, MovableCore(pages(256)), KernelCore(pages(1023)), MovableSplit::None] {
        assert_eq!(split.bootable(&memory), split);
    }
    for split in [KernelCore(0), KernelCore(pages(1024)), MovableCore(pages(1024)), MovableCore(usize::MAX)] {
        assert_eq!(split.bootable(&memory), MovableSplit::None, "{split:?}");
    }
    memory.reserve(PhysAddr::new(GIB)..PhysAddr::new(GIB + 1000 * MIB), RegionKind::Kernel, "").unwrap();
    assert_eq!(MovableCore(pages(8)).bootable(&memory), MovableSplit::None, "there is nothing to spare");
    let both = |kernel, movable| MovableSplit::from_args(kernel, movable, &memory);
    assert_eq!(both(None, Some(0)), MovableSplit::None);
    assert_eq!(both(Some(pages(100)), Some(pages(256))), KernelCore(pages(768)), "the kernel gets the larger part");
    assert_eq!(both(Some(pages(900)), Some(pages(256))), KernelCore(pages(900)));
}

#[test]
fn no_watermark_takes_more_than_a_quarter() {
    for kbytes in [usize::MAX, usize::MAX / 1024, 1 << 21] {
        let config = SimConfig { min_free_kbytes: Some(kbytes), ..SimConfig::new().bank(GIB, 64 * MIB, 0) };
        let sim = Sim::boot(&config);
        let zone = sim.pages().zones().next().unwrap();
        assert_eq!(zone.watermarks().min, zone.managed() / 4, "{kbytes}");
        assert_eq!(sim.pages().set_min_free(kbytes), zone.managed() / 4 * 4);
        assert!(sim.pages().alloc_page(Gfp::KERNEL).is_ok());
    }
}

/// What areas have counts like other memory, but that pages which cannot move get nothing of it.
#[test]
fn contiguous_areas_count_for_the_watermarks() {
    let with = |config: SimConfig| Sim::boot(&config);
    let bank = || SimConfig::new().bank(GIB, GIB, 0);
    let area = |config: SimConfig, mib: usize| config.reserve(2 * GIB - mib * MIB, mib * MIB, RegionKind::Cma);
    let marks = |sim: &'static Sim| sim.pages().zones().next().unwrap().watermarks();
    assert_eq!(marks(with(area(bank(), 896))), marks(with(bank())));
    let sim = with(SimConfig { min_free_kbytes: Some(GIB / 1024), ..area(bank(), 896) });
    let not_lent = sim.pages().total_managed() - 896 * MIB / PAGE_SIZE;
    assert_eq!(marks(sim).min, not_lent / 4);
    // The reserve that a lower zone keeps follows the zone above, which is one area.
    let far = || SimConfig::new().bank(GIB, 128 * MIB, 0).bank(5 * GIB, GIB, 0);
    let reserve = |sim: &'static Sim| sim.pages().zones().next().unwrap().lowmem_reserve();
    assert_eq!(reserve(with(far().reserve(5 * GIB, GIB, RegionKind::Cma))), [0, 0, 1024, 1024]);
}

#[test]
fn a_place_in_one_zone_is_found() {
    let mut memory = MemBlock::new();
    for (start, node) in [(GIB, 0), (5 * GIB, 0), (7 * GIB, 1)] {
        memory.add(PhysAddr::new(start)..PhysAddr::new(start + GIB), node).unwrap();
    }
    memory.reserve(PhysAddr::new(7 * GIB)..PhysAddr::new(8 * GIB), RegionKind::Reserved, "").unwrap();
    let split = MovableSplit::KernelCore(3 * GIB / 2 / PAGE_SIZE);
    let bounds = ZoneBounds::new(&memory, None, split);
    let find = |mib: usize, end: usize| {
        let found = bounds.find(&memory, mib * MIB, 4 * MIB, PhysAddr::new(0)..PhysAddr::new(end));
        found.map(|at| at.get() / MIB)
    };
    // Node 0: 768 MiB are the kernel's, but zone MOVABLE is a part of NORMAL only, which is all movable then.
    assert_eq!(find(1024, usize::MAX), Some(5 * 1024));
    assert_eq!(find(1025, usize::MAX), None);
    assert_eq!(find(512, 4 * GIB), Some(1536));
    let bounds = ZoneBounds::new(&memory, None, MovableSplit::MovableCore(256 * MIB / PAGE_SIZE));
    let find = |mib: usize| bounds.find(&memory, mib * MIB, 4 * MIB, PhysAddr::new(0)..PhysAddr::new(usize::MAX));
    assert_eq!(find(128), Some(PhysAddr::new(6 * GIB - 128 * MIB)), "in zone MOVABLE");
    assert_eq!(find(512), Some(PhysAddr::new(6 * GIB - 256 * MIB - 512 * MIB)), "below it");
}

#[test]
fn high_order_atomic_requests_have_a_reserve() {
    let sim = Sim::boot(&SimConfig::new().bank(GIB, 512 * MIB, 0));
    let first = sim.pages().alloc_pages(3, Gfp::KERNEL).unwrap();
    drop(first);
    let hold = exhaust(sim, 0, Gfp::KERNEL | Gfp::NORETRY);
    let atomic = sim.pages().alloc_pages(2, Gfp::ATOMIC);
    drop(hold);
    assert!(atomic.is_ok());
    assert_eq!(sim.pages().validate(), Ok(()));
}

/// Holds pages, and gives them back when asked.
struct Cache(Mutex<Vec<Block>>);

impl Shrinker for Cache {
    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
    fn scan(&self, target: usize, _: Gfp) -> usize {
        let mut held = self.0.lock().unwrap();
        let keep = held.len() - target.min(held.len());
        held.drain(keep..).count()
    }
}

#[derive(Default)]
struct Handler {
    woken: AtomicUsize,
    killed: AtomicUsize,
    failed: AtomicUsize,
    bad: AtomicUsize,
    /// Frame, offset and value of what was found.
    poison: Mutex<Vec<(quire_mm::addr::Pfn, usize, u8)>>,
    /// What a victim holds.
    victim: Mutex<Vec<Block>>,
}

impl PressureHandler for Handler {
    fn wake_kswapd(&self, _: usize) {
        self.woken.fetch_add(1, Relaxed);
    }
    fn out_of_memory(&self, _: u32, _: Gfp) -> bool {
        self.killed.fetch_add(1, Relaxed);
        self.victim.lock().unwrap().drain(..).count() != 0
    }
    fn report_failure(&self, _: u32, _: Gfp) {
        self.failed.fetch_add(1, Relaxed);
    }
    fn report_bad_page(&self, _: quire_mm::addr::Pfn) {
        self.bad.fetch_add(1, Relaxed);
    }
    fn report_poison(&self, pfn: quire_mm::addr::Pfn, offset: usize, found: u8) {
        self.poison.lock().unwrap().push((pfn, offset, found));
    }
}

fn handled(mib: usize) -> (&'static Sim, &'static Handler) {
    let sim = Sim::with_mib(mib);
    let handler: &Handler = Box::leak(Box::default());
    sim.pages().set_pressure_handler(handler);
    (sim, handler)
}

#[test]
fn shrinkers_are_asked_before_an_allocation_fails() {
    let (sim, handler) = handled(32);
    let hoard = exhaust(sim, 0, Gfp::KERNEL | Gfp::NORETRY);
    let held = hoard.len();
    let cache: &Cache = Box::leak(Box::new(Cache(Mutex::new(hoard))));
    assert!(sim.pages().register_shrinker(cache));
    assert!(sim.pages().alloc_page(Gfp::NOWAIT).is_err(), "who cannot wait does not shrink");
    assert_eq!(cache.count(), held);
    assert!(handler.woken.load(Relaxed) > 0);
    let rest = exhaust(sim, 0, Gfp::KERNEL | Gfp::NOWARN);
    assert_eq!((cache.count(), rest.len()), (0, held), "all that could be reclaimed was");
    assert_eq!(handler.failed.load(Relaxed), 1, "NOWARN failures are not reported");
}

#[test]
fn the_oom_killer_comes_last_and_not_for_everyone() {
    let (sim, handler) = handled(32);
    let hoard = exhaust(sim, 0, Gfp::KERNEL | Gfp::NORETRY);
    assert_eq!(handler.killed.load(Relaxed), 0, "not for NORETRY");
    for gfp in [Gfp::KERNEL | Gfp::RETRY_MAYFAIL, Gfp::NOFS, Gfp::NOIO, Gfp::NOWAIT] {
        assert!(sim.pages().alloc_page(gfp).is_err());
        assert_eq!(handler.killed.load(Relaxed), 0, "not for {gfp:?}");
    }
    assert!(sim.pages().alloc_pages(4, Gfp::KERNEL).is_err());
    assert_eq!(handler.killed.load(Relaxed), 0, "not for large blocks");
    assert!(sim.pages().alloc_page(Gfp::KERNEL).is_err());
    assert_eq!(handler.killed.load(Relaxed), 1);
    *handler.victim.lock().unwrap() = hoard;
    assert!(sim.pages().alloc_page(Gfp::KERNEL).is_ok());
}

#[test]
fn injected_failures_hit_what_they_name() {
    let sim = Sim::with_mib(32);
    let pages = sim.pages();
    pages.inject_failures(FaultInjection::nth(3));
    let results: Vec<_> = (0..6).map(|_| pages.alloc_page(Gfp::KERNEL).is_ok()).collect();
    assert_eq!(results, [true, true, false, true, true, true]);
    assert_eq!(pages.injected_failures(), 1);
    let always = FaultInjection { interval: 1, probability: 100, times: u32::MAX, ..FaultInjection::OFF };
    pages.inject_failures(FaultInjection { min_order: 1, ..always });
    assert!(pages.alloc_page(Gfp::KERNEL).is_ok());
    assert!(pages.alloc_pages(1, Gfp::KERNEL).is_err());
    assert!(pages.alloc_pages(1, Gfp::KERNEL | Gfp::NOFAIL).is_ok());
    pages.inject_failures(FaultInjection { probability: 30, ..always });
    let failed = (0..1000).filter(|_| pages.alloc_page(Gfp::KERNEL).is_err()).count();
    assert!((200..400).contains(&failed), "{failed} of 1000");
    pages.inject_failures(FaultInjection::OFF);
    assert!((0..100).all(|_| pages.alloc_page(Gfp::KERNEL).is_ok()));
    assert_eq!(pages.total_free(), pages.total_managed());
}

#[test]
fn a_page_freed_twice_or_in_use_is_kept_out_of_circulation() {
    let (sim, handler) = handled(32);
    let pages = sim.pages();
    let pfn = pages.alloc_page(Gfp::KERNEL).unwrap().into_raw();
    // SAFETY: the second free breaks the contract: that it is noticed is what this shows.
    unsafe {
        pages.free_pages(pfn, 0);
        pages.free_pages(pfn, 0);
    }
    assert_eq!((handler.bad.load(Relaxed), pages.bad_pages()), (1, 1));
    let held = pages.alloc_page(Gfp::KERNEL).unwrap();
    assert!(held.page().get());
    drop(held);
    assert_eq!((handler.bad.load(Relaxed), pages.bad_pages()), (2, 2));
    assert_eq!(
        pages.total_free() + 1,
        pages.total_managed(),
        "the one that somebody holds is lost, the other is free once"
    );
    assert_eq!(pages.validate(), Ok(()));
}

#[test]
fn a_write_to_free_memory_is_found_with_poison_on() {
    let sim = Sim::boot(&SimConfig { poison: true, ..SimConfig::new().bank(GIB, 16 * MIB, 0) });
    let handler: &Handler = Box::leak(Box::default());
    sim.pages().set_pressure_handler(handler);
    let take_all = || exhaust(sim, 0, Gfp::KERNEL | Gfp::NORETRY);
    let mut all = take_all();
    let (block, never_used) = (all.pop().unwrap(), all.len());
    assert!(never_used > 0 && handler.poison.lock().unwrap().is_empty(), "what boot handed out has the pattern too");
    let (pfn, stale) = (block.pfn(), block.as_ptr());
    // SAFETY: the block is ours.
    unsafe { stale.write_bytes(7, 4096) };
    drop(block);
    drop(all);
    drop(take_all());
    assert!(handler.poison.lock().unwrap().is_empty(), "what was written before the free does not matter");
    // SAFETY: the memory exists; that it is free is the point.
    unsafe { stale.add(100).write(1) };
    drop(take_all());
    assert_eq!(*handler.poison.lock().unwrap(), [(pfn, 100, 1)]);
}

#[test]
fn no_map_memory_and_reserved_memory_are_not_handed_out() {
    let config = SimConfig::new().bank(GIB, 16 * MIB, 0).reserve(GIB + 4 * MIB, 4 * MIB, RegionKind::Initrd);
    let sim = Sim::boot(&config);
    let initrd = PhysAddr::new(GIB + 4 * MIB)..PhysAddr::new(GIB + 8 * MIB);
    let before = sim.pages().total_managed();
    // SAFETY: the range was reserved at boot, and nobody uses it.
    let freed = unsafe { sim.pages().free_reserved(initrd) };
    assert_eq!(freed, 1024);
    assert_eq!((sim.pages().total_managed(), sim.pages().total_free()), (before + 1024, before + 1024));
    assert_eq!(sim.pages().validate(), Ok(()));
}

#[test]
fn what_cannot_boot_says_why() {
    let sim = Sim::with_mib(8);
    let boot = |memory: &mut MemBlock| {
        let pages = Box::leak(Box::new(PageAllocator::new(sim)));
        assert!(pages.alloc_page(Gfp::KERNEL).is_err(), "an allocator without memory says so");
        // SAFETY: each of these configurations is refused before any memory is touched.
        unsafe { pages.init(memory, &Config::default()) }.unwrap_err()
    };
    let range = |start: usize, len: usize| PhysAddr::new(start)..PhysAddr::new(start + len);
    assert_eq!(boot(&mut MemBlock::new()), InitError::NoMemory);
    let mut memory = MemBlock::new();
    memory.add(range(GIB, MIB), 8).unwrap();
    assert_eq!(boot(&mut memory), InitError::TooManyNodes);
    let mut memory = MemBlock::new();
    memory.add(range(1 << 44, MIB), 0).unwrap();
    assert_eq!(boot(&mut memory), InitError::AddressTooHigh);
    let mut memory = MemBlock::new();
    memory.add(range(GIB, MIB), 0).unwrap();
    memory.reserve(range(GIB, MIB), RegionKind::Kernel, "").unwrap();
    assert!(matches!(boot(&mut memory), InitError::MemBlock(_)));
}
