//! Per-CPU lists of small blocks as callers see them: what is fetched and kept, who is served from them, what is counted.

use quire_mm::Machine;
use quire_mm::addr::{PAGE_SIZE, Pfn};
use quire_mm::buddy::MigrateType;
use quire_mm::page::PageFlags;
use quire_mm::page_alloc::{Gfp, PageBlock, PressureHandler};
use quire_mm::sim::{Sim, SimConfig};

type Block = PageBlock<&'static Sim>;

const GIB: usize = 1 << 30;
/// Orders that have lists.
const ORDERS: core::ops::Range<u32> = 0..4;

fn take(sim: &'static Sim, count: usize, order: u32, gfp: Gfp) -> Vec<Block> {
    (0..count).map(|_| sim.pages().alloc_pages(order, gfp).unwrap()).collect()
}

fn exhaust(sim: &'static Sim, order: u32, gfp: Gfp) -> Vec<Block> {
    std::iter::from_fn(|| sim.pages().alloc_pages(order, gfp).ok()).collect()
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
        assert_eq!(batch(sim, order), (pages >> (order + 1)).max(2), "order {order}");
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
fn compound_blocks_are_marked_though_a_list_has_blocks() {
    let sim = Sim::with_mib(64);
    for order in ORDERS {
        drop(take(sim, 2, order, Gfp::KERNEL));
        assert_ne!(held(sim, 0), 0);
        let block = sim.pages().alloc_pages(order, Gfp::KERNEL | Gfp::COMP).unwrap();
        assert_eq!(block.page().flags().contains(PageFlags::COMPOUND), order > 0);
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
fn who_may_use_the_reserve_for_high_orders_adds_to_it() {
    for order in ORDERS.skip(1) {
        let sim = Sim::with_mib(512);
        let zone = sim.pages().zones().next().unwrap();
        let reserved = || sim.pages().pageblock_types(&zone)[MigrateType::HighAtomic as usize];
        let _all = exhaust(sim, 0, Gfp::KERNEL | Gfp::NORETRY);
        assert_eq!(reserved(), 0);
        let _urgent = sim.pages().alloc_pages(order, Gfp::ATOMIC).unwrap();
        assert_eq!(reserved(), 1, "order {order}");
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
