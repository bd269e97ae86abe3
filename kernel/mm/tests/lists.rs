//! Per-CPU lists as those see them who allocate: what they may keep, who gets at it, and that every page is counted.

use quire_mm::Machine;
use quire_mm::buddy::MigrateType;
use quire_mm::memblock::RegionKind;
use quire_mm::page_alloc::{Gfp, PageBlock, ZoneView};
use quire_mm::sim::{Sim, SimConfig};

type Block = PageBlock<&'static Sim>;

const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;
const NO_WATERMARK: Gfp = Gfp::NOWAIT.union(Gfp::MEMALLOC);

fn only_zone(sim: &'static Sim) -> ZoneView<'static, &'static Sim> {
    sim.pages().zones().next().unwrap()
}

fn exhaust(sim: &'static Sim, gfp: Gfp) -> Vec<Block> {
    std::iter::from_fn(|| sim.pages().alloc_page(gfp).ok()).collect()
}

/// Blocks of all orders that have lists.
fn blocks(sim: &'static Sim, each: usize) -> Vec<Block> {
    (0..4).flat_map(|order| (0..each).map(move |_| sim.pages().alloc_pages(order, Gfp::KERNEL).unwrap())).collect()
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
        let _all = exhaust(sim, NO_WATERMARK | Gfp::NORETRY);
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
        let _all = exhaust(sim, Gfp::NOWAIT);
        let before = only_zone(sim).free();
        let _one = sim.pages().alloc_page(gfp).unwrap();
        assert_eq!(only_zone(sim).free(), before - 1, "{gfp:?}");
        assert!(sim.pages().alloc_page(Gfp::NOWAIT).is_err(), "others stay above the watermark");
    }
}

#[test]
fn a_high_order_atomic_request_leaves_a_reserve_behind() {
    for order in [1, 3, 5] {
        let sim = Sim::boot(&SimConfig::new().bank(GIB, GIB, 0));
        let reserve = || -> u64 {
            let blocks = only_zone(sim).free_blocks_of(MigrateType::HighAtomic);
            blocks.iter().enumerate().map(|(order, n)| n << order).sum()
        };
        // Large blocks first: some are left below the watermark.
        let mut _all: Vec<_> = std::iter::from_fn(|| sim.pages().alloc_pages(9, Gfp::NOWAIT).ok()).collect();
        _all.extend(exhaust(sim, Gfp::NOWAIT));
        assert_eq!(reserve(), 0);
        let block = sim.pages().alloc_pages(order, Gfp::ATOMIC).unwrap();
        assert!(reserve() > 0, "order {order}");
        // Single pages are not served from it as long as there are others.
        let before = reserve();
        let _page = sim.pages().alloc_page(Gfp::ATOMIC).unwrap();
        assert_eq!(reserve(), before);
        drop(block);
        assert_eq!(sim.pages().validate(), Ok(()));
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
fn a_compound_page_says_so() {
    use quire_mm::page::PageFlags;
    let sim = Sim::with_mib(32);
    for order in 0..=4 {
        for _ in 0..3 {
            let plain = sim.pages().alloc_pages(order, Gfp::KERNEL).unwrap();
            let compound = sim.pages().alloc_pages(order, Gfp::KERNEL | Gfp::COMP).unwrap();
            assert!(!plain.page().flags().contains(PageFlags::COMPOUND), "order {order}");
            assert_eq!(compound.page().flags().contains(PageFlags::COMPOUND), order > 0, "order {order}");
        }
    }
}
