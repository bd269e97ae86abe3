//! Per-CPU lists of small blocks as callers see them: which blocks are fetched and kept, which requests they serve,
//! what remains for other CPUs, and the counters.

use quire_mm::addr::{PAGE_SIZE, Pfn};
use quire_mm::buddy::MigrateType;
use quire_mm::memblock::RegionKind;
use quire_mm::page::PageFlags;
use quire_mm::page_alloc::{Gfp, PageBlock, PressureHandler, ZoneView};
use quire_mm::sim::{Sim, SimConfig};

type Block = PageBlock<&'static Sim>;

const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;
const NO_WATERMARK: Gfp = Gfp::NOWAIT.union(Gfp::MEMALLOC);
/// Orders that have lists.
const ORDERS: core::ops::Range<u32> = 0..4;

fn take(sim: &'static Sim, count: usize, order: u32, gfp: Gfp) -> Vec<Block> {
    (0..count).map(|_| sim.pages().alloc_pages(order, gfp).unwrap()).collect()
}

fn exhaust(sim: &'static Sim, order: u32, gfp: Gfp) -> Vec<Block> {
    std::iter::from_fn(|| sim.pages().alloc_pages(order, gfp).ok()).collect()
}

fn only_zone(sim: &'static Sim) -> ZoneView<'static, &'static Sim> {
    sim.pages().zones().next().unwrap()
}

/// Blocks of all orders that have lists.
fn blocks(sim: &'static Sim, each: usize) -> Vec<Block> {
    (0..4).flat_map(|order| (0..each).map(move |_| sim.pages().alloc_pages(order, Gfp::KERNEL).unwrap())).collect()
}

/// Blocks on all lists, if they are of this order alone.
fn held(sim: &'static Sim, order: u32) -> usize {
    sim.pages().zones().map(|zone| zone.per_cpu()).sum::<usize>() >> order
}

/// How many blocks of an order are fetched at once.
fn batch(sim: &'static Sim, order: u32) -> usize {
    sim.pages().drain_all();
    let block = sim.pages().alloc_pages(order, Gfp::KERNEL).unwrap();
    let fetched = held(sim, order) + 1;
    drop(block);
    fetched
}

#[test]
fn a_batch_of_each_order_is_half_as_much_memory_as_one_of_pages() {
    let sim = Sim::with_mib(512);
    let pages = batch(sim, 0);
    assert!(pages >= 32, "{pages} pages at once");
    for order in ORDERS.skip(1) {
        assert_eq!(batch(sim, order), pages >> (order + 1), "order {order}");
    }
}

#[test]
fn a_list_keeps_two_batches_at_most_and_serves_them_before_the_buddy_does() {
    let sim = Sim::with_mib(512);
    let zone = sim.pages().zones().next().unwrap();
    for order in ORDERS {
        let batch = batch(sim, order);
        drop(take(sim, 10 * batch, order, Gfp::KERNEL));
        let kept = held(sim, order);
        assert!(kept > batch && kept <= 2 * batch, "{kept} blocks of order {order}, {batch} a batch");
        let free = zone.free();
        let again = take(sim, kept, order, Gfp::KERNEL);
        assert_eq!((held(sim, order), zone.free()), (0, free), "order {order}");
        drop(again);
        assert_eq!(sim.pages().validate(), Ok(()));
    }
}

#[test]
fn pages_are_counted_whatever_way_they_are_allocated() {
    let sim = Sim::with_mib(256);
    let zone = sim.pages().zones().next().unwrap();
    for (order, gfp) in (0..6).flat_map(|order| [(order, Gfp::KERNEL), (order, Gfp::KERNEL | Gfp::THISNODE)]) {
        let before = zone.events();
        let blocks = take(sim, 30, order, gfp);
        let allocated = before.0 + (30 << order);
        assert_eq!(zone.events(), (allocated, before.1), "order {order}, {gfp:?}");
        drop(blocks);
        assert_eq!(zone.events(), (allocated, before.1 + (30 << order)), "order {order}, {gfp:?}");
    }
}

#[test]
fn what_was_freed_for_one_type_is_not_handed_out_for_another() {
    let sim = Sim::with_mib(256);
    let gfps = [
        (Gfp::KERNEL, MigrateType::Unmovable),
        (Gfp::HIGHUSER_MOVABLE, MigrateType::Movable),
        (Gfp::KERNEL | Gfp::RECLAIMABLE, MigrateType::Reclaimable),
    ];
    for order in ORDERS {
        for (freed, _) in gfps {
            sim.pages().drain_all();
            let batch = batch(sim, order);
            drop(take(sim, 4 * batch, order, freed));
            for (wanted, kind) in gfps.into_iter().filter(|(gfp, _)| *gfp != freed) {
                let block = sim.pages().alloc_pages(order, wanted).unwrap();
                let from = sim.pages().pageblocks().get(block.pfn()).unwrap().migrate_type();
                assert_eq!(from, kind, "order {order}, after frees of {freed:?}");
            }
        }
    }
}

#[test]
fn a_cpu_whose_node_has_no_memory_gets_none_with_thisnode() {
    let mut config = SimConfig::new().bank(GIB, 64 << 20, 0);
    config.node_of_cpu[1] = 1;
    let sim = Sim::boot(&config);
    Sim::set_cpu(1);
    for order in ORDERS {
        // From here on this CPU's lists have blocks of node 0.
        drop(take(sim, 2, order, Gfp::KERNEL));
        assert!(sim.pages().alloc_pages(order, Gfp::KERNEL | Gfp::THISNODE).is_err());
    }
    Sim::set_cpu(0);
}

#[test]
fn a_batch_stops_at_the_watermark() {
    for order in ORDERS {
        let sim = Sim::with_mib(64);
        let zone = sim.pages().zones().next().unwrap();
        let min = zone.watermarks().min;
        let _all = exhaust(sim, order, Gfp::KERNEL | Gfp::NORETRY);
        let left = zone.free() + zone.per_cpu();
        assert!(left >= min && left <= min + (2 << order), "order {order}: {left} pages left, {min} kept");
    }
}

#[test]
fn reclaim_takes_what_other_cpus_lists_hold() {
    for order in ORDERS {
        let sim = Sim::with_mib(64);
        Sim::set_cpu(1);
        let batch = batch(sim, order);
        drop(take(sim, 4 * batch, order, Gfp::KERNEL));
        assert!(sim.pages().held_by_cpu(1) > batch << order);
        Sim::set_cpu(0);
        let _all = exhaust(sim, 0, Gfp::KERNEL | Gfp::NORETRY);
        assert_eq!(sim.pages().held_by_cpu(1), 0, "order {order}");
    }
}

/// Poison found where nobody wrote.
struct NoPoison;

impl PressureHandler for NoPoison {
    fn report_poison(&self, pfn: Pfn, offset: usize, found: u8) {
        panic!("{found:#x} at {offset} of {pfn:?}");
    }
}

#[test]
fn all_pages_of_a_block_are_poisoned_when_it_is_freed() {
    let sim = Sim::boot(&SimConfig { poison: true, ..SimConfig::new().bank(GIB, 16 << 20, 0) });
    sim.pages().set_pressure_handler(&NoPoison);
    for order in 0..6 {
        for block in take(sim, 8, order, Gfp::KERNEL) {
            // SAFETY: the block is this test's.
            unsafe { block.as_ptr().write_bytes(7, PAGE_SIZE << order) };
            // SAFETY: as above; it is freed here, once.
            unsafe { sim.pages().free_pages(block.into_raw(), order) };
            drop(take(sim, 1, order, Gfp::KERNEL));
        }
    }
}

#[test]
fn full_lists_of_all_cpus_are_a_small_part_of_the_zone() {
    for (mib, cpus) in [(128, 1), (128, 4), (1024, 4), (1024, 16)] {
        let mut config = SimConfig::new().bank(GIB, mib * MIB, 0);
        config.cpus = cpus;
        let sim = Sim::boot(&config);
        for cpu in 0..cpus {
            Sim::set_cpu(cpu);
            for gfp in [Gfp::KERNEL, Gfp::HIGHUSER_MOVABLE, Gfp::KERNEL | Gfp::RECLAIMABLE] {
                for order in 0..4 {
                    drop((0..200).map(|_| sim.pages().alloc_pages(order, gfp).unwrap()).collect::<Vec<_>>());
                }
            }
        }
        Sim::set_cpu(0);
        let zone = only_zone(sim);
        assert!(zone.per_cpu() >= cpus * 6 * 15, "lists are in use");
        assert!(zone.per_cpu() <= zone.managed() / 34, "{} pages of {mib} MiB, {cpus} CPUs", zone.per_cpu());
        sim.pages().drain_all();
        assert_eq!((zone.per_cpu(), sim.pages().validate()), (0, Ok(())));
    }
}

#[test]
fn who_cannot_wait_gets_what_lists_hold() {
    for (cpu, order, gfp) in [(0, 0, Gfp::ATOMIC), (1, 0, NO_WATERMARK), (1, 3, NO_WATERMARK)] {
        let sim = Sim::boot(&SimConfig::new().bank(GIB, GIB, 0));
        let some = blocks(sim, 8);
        sim.pages().drain_all();
        let _all = exhaust(sim, 0, NO_WATERMARK | Gfp::NORETRY);
        drop(some);
        assert_eq!((only_zone(sim).free(), only_zone(sim).per_cpu()), (0, 8 * 15));
        Sim::set_cpu(cpu);
        // What can do without leaves the lists alone.
        assert!(sim.pages().alloc_page(Gfp::NOWAIT | Gfp::NORETRY | Gfp::RECLAIMABLE).is_err());
        assert_eq!(only_zone(sim).per_cpu(), 8 * 15);
        let depth = if gfp == Gfp::ATOMIC { Gfp::MEMALLOC } else { Gfp::empty() };
        assert!(sim.pages().alloc_pages(order, gfp | depth | Gfp::RECLAIMABLE).is_ok(), "order {order}, {gfp:?}");
        Sim::set_cpu(0);
    }
}

#[test]
fn who_digs_into_a_reserve_takes_no_more_than_asked_for() {
    for gfp in [NO_WATERMARK, Gfp::ATOMIC] {
        let sim = Sim::boot(&SimConfig::new().bank(GIB, GIB, 0));
        let _all = exhaust(sim, 0, Gfp::NOWAIT);
        let before = only_zone(sim).free();
        let _one = sim.pages().alloc_page(gfp).unwrap();
        assert_eq!(only_zone(sim).free(), before - 1, "{gfp:?}");
        assert!(sim.pages().alloc_page(Gfp::NOWAIT).is_err(), "others stay above the watermark");
    }
}

#[test]
fn every_page_that_comes_or_goes_is_counted_once() {
    let config = SimConfig::new().bank(GIB, 64 * MIB, 0).reserve(GIB + 16 * MIB, 8 * MIB, RegionKind::Cma);
    let sim = Sim::boot(&config);
    let pages = sim.pages();
    let zone = only_zone(sim);
    let mut expected = zone.events();
    let mut comes_and_goes = |what: &str, count: u64, work: &dyn Fn() -> Box<dyn FnOnce()>| {
        let undo = work();
        expected.0 += count;
        assert_eq!(zone.events(), expected, "{what} comes");
        undo();
        expected.1 += count;
        assert_eq!(zone.events(), expected, "{what} goes");
    };
    for order in [0, 1, 2, 3, 4, 9] {
        for _ in 0..3 {
            comes_and_goes(&format!("order {order}"), 1 << order, &|| {
                let block = pages.alloc_pages(order, Gfp::KERNEL).unwrap();
                Box::new(move || drop(block))
            });
        }
    }
    comes_and_goes("contiguous memory", 60, &|| {
        let start = pages.cma_alloc(0, 60, 0, None).unwrap();
        // SAFETY: allocated in the line before.
        Box::new(move || unsafe { pages.cma_release(0, start, 60).unwrap() })
    });
}

#[test]
fn a_high_order_atomic_request_leaves_a_reserve_behind() {
    for order in 1..=5 {
        let sim = Sim::boot(&SimConfig::new().bank(GIB, GIB, 0));
        let reserve = || -> u64 {
            let blocks = only_zone(sim).free_blocks_of(MigrateType::HighAtomic);
            blocks.iter().enumerate().map(|(order, n)| n << order).sum()
        };
        // Large blocks first: some are left below the watermark.
        let mut _all: Vec<_> = exhaust(sim, 9, Gfp::NOWAIT);
        _all.extend(exhaust(sim, 0, Gfp::NOWAIT));
        let reserved = || sim.pages().pageblock_types(&only_zone(sim))[MigrateType::HighAtomic as usize];
        assert_eq!((reserve(), reserved()), (0, 0));
        let block = sim.pages().alloc_pages(order, Gfp::ATOMIC).unwrap();
        assert!(reserve() > 0, "order {order}");
        assert_eq!(reserved(), 1, "order {order}");
        // Single pages are not served from it as long as there are others.
        let before = reserve();
        let _page = sim.pages().alloc_page(Gfp::ATOMIC).unwrap();
        assert_eq!(reserve(), before);
        drop(block);
        assert_eq!(sim.pages().validate(), Ok(()));
    }
}

#[test]
fn a_compound_page_says_so() {
    let sim = Sim::with_mib(32);
    for order in 0..=4 {
        drop(take(sim, 2, order, Gfp::KERNEL));
        assert_ne!(held(sim, 0), 0, "lists have blocks");
        for _ in 0..3 {
            let plain = sim.pages().alloc_pages(order, Gfp::KERNEL).unwrap();
            let compound = sim.pages().alloc_pages(order, Gfp::KERNEL | Gfp::COMP).unwrap();
            assert!(!plain.page().flags().contains(PageFlags::COMPOUND), "order {order}");
            assert_eq!(compound.page().flags().contains(PageFlags::COMPOUND), order > 0, "order {order}");
        }
    }
}
