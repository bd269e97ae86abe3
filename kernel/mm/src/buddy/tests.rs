//! The buddy allocator of one zone, in isolation.

use super::*;
use crate::sim::{Sim, SimConfig};

/// A zone of 4 MiB from frame 1024 on, with nothing free, and a way to work on it.
fn empty_zone() -> &'static Sim {
    let sim = Sim::boot(&SimConfig::new().bank(4 << 20, 12 << 20, 0));
    with_area(sim, |area, frames| {
        area.take_range(frames, Pfn(1024), Pfn(4 * 1024 - FRAMES_OF_TABLE));
    });
    sim
}

/// The page block table is one page at the top of memory.
const FRAMES_OF_TABLE: usize = 1;

fn with_area<R>(sim: &'static Sim, work: impl FnOnce(&mut FreeArea, Frames<&'static Sim>) -> R) -> R {
    let pages = sim.pages();
    let zone = pages.zones().next().expect("one zone");
    zone.with_area(|area| work(area, pages.frames()))
}

fn is_free(sim: &'static Sim, pfn: usize, order: u32) -> bool {
    with_area(sim, |_, frames| frames.page(Pfn(pfn)).is_free_block(order))
}

#[test]
fn the_textbook_example_merges_up_to_order_3() {
    let sim = empty_zone();
    let base = 2048;
    let free = |page: usize, order| with_area(sim, |area, frames| area.free_block(frames, Pfn(base + page), order));
    free(10, 0);
    free(8, 1);
    free(12, 2);
    for (page, order) in [(10, 0), (8, 1), (12, 2)] {
        assert!(is_free(sim, base + page, order), "page {page} waits for its buddy");
    }
    free(11, 0);
    assert!(is_free(sim, base + 8, 3));
    with_area(sim, |area, _| {
        assert_eq!(area.free, 8);
        assert_eq!(area.blocks(MigrateType::Movable, 3), 1);
        assert!((0..3).all(|order| area.blocks(MigrateType::Movable, order) == 0));
    });
    // The pairs that were visited, as a buddy bitmap would number them.
    let mut page = 11;
    let visited = [0, 1, 2, 3].map(|order| {
        let pair = buddy_index(page, order);
        page &= page ^ 1 << order;
        pair
    });
    assert_eq!(visited, [5, 2, 1, 0]);
}

#[test]
fn a_split_leaves_one_block_of_each_smaller_order() {
    let sim = empty_zone();
    with_area(sim, |area, frames| {
        area.free_block(frames, Pfn(2048), 10);
        let page = area.take(frames, 0, MigrateType::Movable);
        assert_eq!(page, Some(Pfn(2048)));
        assert!((0..10).all(|order| area.blocks(MigrateType::Movable, order) == 1));
        assert_eq!(area.free, 1023);
        area.free_block(frames, Pfn(2048), 0);
        assert_eq!((area.free, area.blocks(MigrateType::Movable, 10)), (1024, 1));
    });
}

#[test]
fn whole_page_blocks_merge_only_with_their_like() {
    let sim = empty_zone();
    with_area(sim, |area, frames| {
        frames.pageblocks.of(Pfn(2048)).set_migrate_type(MigrateType::Cma);
        area.free_block(frames, Pfn(2048), 9);
        area.free_block(frames, Pfn(2048 + 512), 9);
        assert_eq!(area.blocks(MigrateType::Cma, 9), 1);
        assert_eq!(area.blocks(MigrateType::Movable, 9), 1);
    });
}

#[test]
fn a_thief_takes_the_largest_block_and_its_page_blocks() {
    let sim = empty_zone();
    with_area(sim, |area, frames| {
        area.free_block(frames, Pfn(2048), 10);
        area.free_block(frames, Pfn(3072), 3);
        let wanted = Wanted { list: MigrateType::Unmovable, cma: false, reserves: false };
        assert_eq!(area.allocate(frames, 0, wanted), Some(Pfn(2048)));
        for block in [2048, 2560] {
            assert_eq!(frames.pageblocks.of(Pfn(block)).migrate_type(), MigrateType::Unmovable);
        }
        assert_eq!(area.allocate(frames, 0, wanted), Some(Pfn(2049)), "the next comes from what was stolen");
        assert_eq!(area.blocks(MigrateType::Movable, 3), 1);
    });
}

#[test]
fn a_page_block_changes_hands_only_if_half_of_it_is_free() {
    let unmovable = Wanted { list: MigrateType::Unmovable, cma: false, reserves: false };
    for (order, claimed) in [(7, MigrateType::Movable), (8, MigrateType::Unmovable)] {
        let sim = empty_zone();
        with_area(sim, |area, frames| {
            area.free_block(frames, Pfn(2048), order);
            assert_eq!(area.allocate(frames, 0, unmovable), Some(Pfn(2048)));
            assert_eq!(frames.pageblocks.of(Pfn(2048)).migrate_type(), claimed);
        });
    }
}

#[test]
fn cma_serves_movable_requests_only() {
    let sim = empty_zone();
    with_area(sim, |area, frames| {
        frames.pageblocks.of(Pfn(2048)).set_migrate_type(MigrateType::Cma);
        area.free_block(frames, Pfn(2048), 9);
        for list in [MigrateType::Unmovable, MigrateType::Reclaimable] {
            assert_eq!(area.allocate(frames, 0, Wanted { list, cma: false, reserves: true }), None);
        }
        let movable = Wanted { list: MigrateType::Movable, cma: true, reserves: false };
        assert_eq!(area.allocate(frames, 0, movable), Some(Pfn(2048)));
        assert_eq!(frames.pageblocks.of(Pfn(2048)).migrate_type(), MigrateType::Cma);
    });
}

#[test]
fn a_range_is_cut_out_of_larger_blocks() {
    let sim = empty_zone();
    with_area(sim, |area, frames| {
        area.free_block(frames, Pfn(2048), 10);
        assert_eq!(area.last_busy(frames, Pfn(2051), Pfn(2700)), None);
        area.take_range(frames, Pfn(2051), Pfn(2700));
        assert_eq!(area.free, 1024 - (2700 - 2051));
        assert_eq!(area.last_busy(frames, Pfn(2050), Pfn(2052)), Some(Pfn(2051)));
        assert_eq!(area.last_busy(frames, Pfn(2048), Pfn(2900)), Some(Pfn(2699)));
        assert_eq!(area.last_busy(frames, Pfn(2048), Pfn(2051)), None);
        for pfn in 2051..2700 {
            area.free_block(frames, Pfn(pfn), 0);
        }
        assert_eq!(area.blocks(MigrateType::Movable, 10), 1);
    });
}

#[test]
fn a_run_of_pages_comes_back_as_the_blocks_that_it_makes_up() {
    let sim = empty_zone();
    with_area(sim, |area, frames| {
        for pfn in 2051..2085 {
            frames.page(Pfn(pfn)).make_cached(0);
        }
        area.free_run(frames, Pfn(2051), 2085 - 2051);
        for (pfn, order) in [(2051, 0), (2052, 2), (2056, 3), (2064, 4), (2080, 2), (2084, 0)] {
            assert!(frames.page(Pfn(pfn)).is_free_block(order), "page {pfn}");
        }
        assert_eq!(area.free, 34);
        // Frames inside a block are not heads, so no later merge takes one for a head.
        assert!((2065..2080).all(|pfn| frames.page(Pfn(pfn)).state() == crate::page::PageState::Absent));
        area.free_run(frames, Pfn(2048), 3);
        area.free_run(frames, Pfn(2085), 3072 - 2085);
        assert_eq!(area.blocks(MigrateType::Movable, 10), 1);
    });
}

#[test]
fn runs_use_up_small_blocks_before_they_split_large_ones() {
    let sim = empty_zone();
    with_area(sim, |area, frames| {
        area.free_block(frames, Pfn(2048), 2);
        area.free_block(frames, Pfn(3072), 9);
        let wanted = Wanted { list: MigrateType::Movable, cma: false, reserves: false };
        assert_eq!(area.allocate_run(frames, 0, 63, wanted), Some((Pfn(2048), 4)), "all of the small block");
        assert_eq!(area.allocate_run(frames, 0, 59, wanted), Some((Pfn(3072), 32)), "no more than the limit");
        assert_eq!(area.allocate_run(frames, 0, 1, wanted), Some((Pfn(3104), 1)));
        assert_eq!(area.free, 512 - 33);
    });
}
