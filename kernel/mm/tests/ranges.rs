//! Allocation of ranges that the caller specifies, and contiguous memory areas.

use std::sync::Mutex;

use quire_mm::Machine;
use quire_mm::addr::{PAGE_SIZE, Pfn, PhysAddr};
use quire_mm::buddy::MigrateType;
use quire_mm::cma::{AreaError, CmaError, MAX_AREAS};
use quire_mm::memblock::RegionKind;
use quire_mm::page_alloc::{Gfp, MigrateRange, MovableSplit, PageBlock, RangeError};
use quire_mm::sim::{Sim, SimConfig};
use quire_mm::zone::ZoneKind;

type Block = PageBlock<&'static Sim>;

const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;
const BASE: usize = GIB / PAGE_SIZE;

fn exhaust(sim: &'static Sim, gfp: Gfp) -> Vec<Block> {
    std::iter::from_fn(|| sim.pages().alloc_page(gfp | Gfp::NORETRY).ok()).collect()
}

/// 64 MiB with an area of 16 MiB that is not aligned to the largest block.
fn with_area() -> &'static Sim {
    Sim::boot(&SimConfig::new().bank(GIB, 64 * MIB, 0).reserve(GIB + 18 * MIB, 16 * MIB, RegionKind::Cma))
}

const AREA_PAGES: usize = 16 * MIB / PAGE_SIZE;
/// What the area's bitmap takes.
const BITMAP_PAGES: usize = 1;

fn frames(start: usize, len: usize) -> std::ops::Range<Pfn> {
    Pfn(BASE + start)..Pfn(BASE + start + len)
}

#[test]
fn a_free_range_can_be_had_and_given_back() {
    let sim = Sim::with_mib(32);
    let pages = sim.pages();
    let free = pages.total_free();
    for (start, len) in [(1024, 1024), (1, 1), (511, 2), (700, 3000)] {
        let range = frames(start, len);
        assert_eq!(pages.alloc_range(range.clone(), None), Ok(()));
        assert_eq!(pages.total_free(), free - len);
        assert_eq!(pages.validate(), Ok(()));
        assert_eq!(pages.alloc_range(range.clone(), None), Err(RangeError::Busy(Pfn(range.end.0 - 1))));
        let cached = pages.held_by_cpu(0);
        // SAFETY: the range was allocated above.
        unsafe { pages.free_range(range) };
        assert_eq!(pages.held_by_cpu(0), cached, "what comes back together stays together");
        assert_eq!(pages.total_free(), free);
        assert_eq!(pages.validate(), Ok(()));
    }
}

#[test]
fn a_range_in_use_is_left_as_it_was() {
    let sim = Sim::with_mib(32);
    let pages = sim.pages();
    let blocker = pages.alloc_page(Gfp::KERNEL).unwrap();
    let block = blocker.pfn().0 & !511;
    let types: Vec<MigrateType> =
        (0..pages.pageblocks().len()).map(|i| pages.pageblocks().get(Pfn(i * 512)).unwrap().migrate_type()).collect();
    assert_eq!(pages.alloc_range(Pfn(block)..Pfn(block + 512), None), Err(RangeError::Busy(blocker.pfn())));
    for (i, &before) in types.iter().enumerate() {
        assert_eq!(pages.pageblocks().get(Pfn(i * 512)).unwrap().migrate_type(), before);
    }
    assert_eq!(pages.validate(), Ok(()));
    assert_eq!(pages.alloc_range(Pfn(0)..Pfn(1), None), Err(RangeError::BadRange));
    assert_eq!(pages.alloc_range(frames(0, 0), None), Err(RangeError::BadRange));
    assert_eq!(pages.alloc_range(frames(8191, 2), None), Err(RangeError::BadRange), "past the end of memory");
}

#[test]
fn an_area_is_lent_to_movable_pages_only() {
    let sim = with_area();
    let pages = sim.pages();
    assert_eq!(pages.cma_info(0).unwrap().pages, AREA_PAGES);
    assert_eq!(pages.total_free() + BITMAP_PAGES, pages.total_managed());
    for gfp in [Gfp::KERNEL, Gfp::KERNEL | Gfp::RECLAIMABLE, Gfp::ATOMIC, Gfp::KERNEL | Gfp::MEMALLOC] {
        let taken = exhaust(sim, gfp);
        assert!(taken.iter().all(|block| pages.cma_area_of(block.pfn()).is_none()), "{gfp:?}");
    }
    pages.drain_all();
    let movable = exhaust(sim, Gfp::HIGHUSER_MOVABLE);
    let borrowed = movable.iter().filter(|block| pages.cma_area_of(block.pfn()).is_some()).count();
    assert!(borrowed > AREA_PAGES * 9 / 10, "{borrowed} of {AREA_PAGES} pages lent");
    assert!(movable.iter().any(|block| !pages.allows_long_term_pin(block.pfn())));
    assert_eq!(pages.validate(), Ok(()));
}

/// It never moves, so an area that it lay in could never be had.
#[test]
fn the_zero_page_is_not_lent_memory() {
    let config = SimConfig::new().bank(GIB, 64 * MIB, 0);
    let sim = Sim::boot(&config.reserve(GIB + 8 * MIB, 48 * MIB, RegionKind::Cma));
    let page = sim.pages().alloc_page(Gfp::HIGHUSER_MOVABLE).unwrap();
    assert!(sim.pages().cma_area_of(page.pfn()).is_some(), "an area that is most of memory lends the first pages");
    sim.spaces().init(16).unwrap();
    assert_eq!(sim.pages().cma_area_of(sim.spaces().zero_page().pfn()), None);
}

#[test]
fn the_whole_area_can_be_had_when_its_borrowers_are_gone() {
    let sim = with_area();
    let pages = sim.pages();
    let borrowers = exhaust(sim, Gfp::HIGHUSER_MOVABLE);
    assert_eq!(pages.cma_alloc(0, AREA_PAGES, 0, None), Err(CmaError::NoSpace));
    assert_eq!(pages.cma_info(0).unwrap().used, 0);
    drop(borrowers);
    let start = pages.cma_alloc(0, AREA_PAGES, 0, None).unwrap();
    assert_eq!(start, pages.cma_info(0).unwrap().start);
    assert_eq!(pages.cma_alloc(0, 1, 0, None), Err(CmaError::NoSpace));
    // SAFETY: allocated above.
    unsafe { pages.cma_release(0, start, AREA_PAGES) }.unwrap();
    let info = pages.cma_info(0).unwrap();
    assert_eq!((info.used, info.allocated, info.failed), (0, 1, 2));
    assert_eq!(pages.total_free() + BITMAP_PAGES, pages.total_managed());
    assert_eq!(pages.validate(), Ok(()));
}

#[test]
fn places_are_aligned_and_disjoint_and_come_back() {
    let sim = with_area();
    let pages = sim.pages();
    let a = pages.cma_alloc(0, 3, 0, None).unwrap();
    let b = pages.cma_alloc(0, 100, 8, None).unwrap();
    let c = pages.cma_alloc(0, 10, 0, None).unwrap();
    assert!(b.0.is_multiple_of(256));
    assert!(c.0 >= a.0 + 3 && c.0 + 10 <= b.0);
    assert_eq!(pages.cma_info(0).unwrap().used, 113);
    // SAFETY: `b` was allocated above; the others are refused before anything is touched.
    unsafe {
        assert_eq!(pages.cma_release(0, Pfn(a.0 + 1), 20), Err(CmaError::BadRequest));
        assert_eq!(pages.cma_release(0, Pfn(1), 1), Err(CmaError::BadRequest));
        assert_eq!(pages.cma_release(1, a, 3), Err(CmaError::BadRequest));
        pages.cma_release(0, b, 100).unwrap();
    }
    assert_eq!(pages.cma_alloc(0, 100, 8, None), Ok(b));
    assert_eq!(pages.cma_alloc(0, AREA_PAGES + 1, 0, None), Err(CmaError::NoSpace));
    assert_eq!(pages.cma_alloc(0, 0, 0, None), Err(CmaError::BadRequest));
    assert_eq!(pages.cma_alloc(0, usize::MAX, 63, None), Err(CmaError::NoSpace));
    assert_eq!(pages.validate(), Ok(()));
}

/// Moves what it holds, as migration will.
struct Mover {
    sim: &'static Sim,
    held: Mutex<Vec<Block>>,
}

impl MigrateRange for Mover {
    fn migrate(&self, start: Pfn, end: Pfn) -> Result<(), Pfn> {
        for block in self.held.lock().unwrap().iter_mut().filter(|block| (start..end).contains(&block.pfn())) {
            let Ok(new) = self.sim.pages().alloc_page(Gfp::HIGHUSER_MOVABLE) else { return Err(block.pfn()) };
            assert!(!(start..end).contains(&new.pfn()), "isolated pages are handed to nobody");
            self.sim.copy_page(new.addr(), block.addr());
            *block = new;
        }
        Ok(())
    }
}

#[test]
fn borrowers_that_can_move_make_room() {
    let sim = with_area();
    let pages = sim.pages();
    let mut held = exhaust(sim, Gfp::HIGHUSER_MOVABLE);
    for (i, block) in held.iter().enumerate() {
        // SAFETY: the block is owned.
        unsafe { block.as_ptr().cast::<usize>().write(i) };
    }
    // Room elsewhere for what must move.
    let outside = |block: &Block| pages.cma_area_of(block.pfn()).is_none();
    let mut kept = Vec::new();
    let mut dropped = 0;
    for (i, block) in held.drain(..).enumerate() {
        if outside(&block) && dropped < AREA_PAGES + 64 {
            dropped += 1;
        } else {
            kept.push((i, block));
        }
    }
    let (names, blocks): (Vec<_>, Vec<_>) = kept.into_iter().unzip();
    let mover = Mover { sim, held: Mutex::new(blocks) };
    let start = pages.cma_alloc(0, AREA_PAGES, 0, Some(&mover)).unwrap();
    let area = start.addr()..PhysAddr::new(start.addr().get() + AREA_PAGES * PAGE_SIZE);
    for (block, name) in mover.held.lock().unwrap().iter().zip(names) {
        assert!(!area.contains(&block.addr()));
        // SAFETY: the block is owned.
        assert_eq!(unsafe { block.as_ptr().cast::<usize>().read() }, name, "contents move along");
    }
    assert_eq!(pages.validate(), Ok(()));
}

/// Says of a page that it cannot be moved, and what places it was asked to empty.
struct Refuser {
    stays: Pfn,
    asked: Mutex<Vec<std::ops::Range<Pfn>>>,
}

impl MigrateRange for Refuser {
    fn migrate(&self, start: Pfn, end: Pfn) -> Result<(), Pfn> {
        self.asked.lock().unwrap().push(start..end);
        Err(self.stays)
    }
}

#[test]
fn a_page_that_stays_is_in_the_way_once() {
    let sim = with_area();
    let pages = sim.pages();
    let info = pages.cma_info(0).unwrap();
    let stays = Pfn(info.start.0 + info.pages / 2);
    assert_eq!(pages.alloc_range(stays..Pfn(stays.0 + 1), None), Ok(()));
    let refuser = Refuser { stays, asked: Mutex::default() };
    let more_than_half = info.pages / 2 + 1;
    assert_eq!(pages.cma_alloc(0, more_than_half, 0, Some(&refuser)), Err(CmaError::NoSpace));
    assert_eq!(*refuser.asked.lock().unwrap(), [info.start..Pfn(info.start.0 + more_than_half)]);
    // What fits behind it is found, whether somebody says what stays or the allocator finds it busy.
    for migrate in [Some(&refuser as &dyn MigrateRange), None] {
        let place = pages.cma_alloc(0, info.pages / 2 - 1, 9, migrate).unwrap();
        assert_eq!(place, info.start, "the first half is free");
        let (first, second) = (place, pages.cma_alloc(0, info.pages / 2 - 512, 9, migrate).unwrap());
        assert_eq!(second.0, stays.0 + 512, "at the first boundary behind the page that stays");
        // SAFETY: both were allocated above.
        unsafe {
            pages.cma_release(0, first, info.pages / 2 - 1).unwrap();
            pages.cma_release(0, second, info.pages / 2 - 512).unwrap();
        }
    }
    assert_eq!(pages.validate(), Ok(()));
}

/// Wherever pages are in the way, the place that is found is the first that has none: all that are skipped have one.
#[test]
fn no_place_is_skipped_that_could_be_had() {
    let sim = with_area();
    let pages = sim.pages();
    let info = pages.cma_info(0).unwrap();
    let is_busy = |frame: usize| frame % 97 == 5 && frame < 3000 || frame.is_multiple_of(1000);
    for frame in (0..info.pages).filter(|&frame| is_busy(frame)) {
        let pfn = Pfn(info.start.0 + frame);
        assert_eq!(pages.alloc_range(pfn..Pfn(pfn.0 + 1), None), Ok(()));
    }
    for (len, align_order) in [(1, 0), (90, 0), (97, 0), (64, 6), (500, 0), (900, 0), (512, 9), (1000, 0)] {
        let fits = |first: usize| (first..first + len).all(|frame| frame < info.pages && !is_busy(frame));
        let is_aligned = |first: usize| (info.start.0 + first).is_multiple_of(1 << align_order);
        let expected = (0..info.pages).find(|&first| is_aligned(first) && fits(first));
        let found = pages.cma_alloc(0, len, align_order, None);
        assert_eq!(found.ok(), expected.map(|first| Pfn(info.start.0 + first)), "{len} pages, order {align_order}");
        if let Ok(start) = found {
            // SAFETY: allocated above.
            unsafe { pages.cma_release(0, start, len) }.unwrap();
        }
    }
    assert_eq!(pages.validate(), Ok(()));
}

#[test]
fn a_killed_thread_stops_collecting_and_leaves_all_as_it_was() {
    let sim = with_area();
    let pages = sim.pages();
    pages.drain_all();
    let (free, info) = (pages.total_free(), pages.cma_info(0).unwrap());
    let mut cut = 0;
    loop {
        Sim::kill_after(cut);
        let found = pages.cma_alloc(0, AREA_PAGES, 0, None);
        Sim::kill_after(usize::MAX);
        if let Ok(start) = found {
            // SAFETY: allocated just now.
            unsafe { pages.cma_release(0, start, AREA_PAGES) }.unwrap();
            break;
        }
        assert_eq!(found, Err(CmaError::Killed), "killed at point {cut}");
        assert_eq!(pages.total_free(), free);
        assert_eq!(pages.validate(), Ok(()));
        assert_eq!(pages.pageblocks().get(info.start).unwrap().migrate_type(), MigrateType::Cma);
        cut += 1;
    }
    assert!(cut >= 2 * AREA_PAGES / 512, "a point for each page block that is isolated, and for each that is taken");
}

/// While an area is collected, what is free in it is no reason to give away what the watermarks keep.
#[test]
fn isolated_pages_feed_nobody() {
    struct Greedy(&'static Sim, Mutex<Vec<Block>>);
    impl MigrateRange for Greedy {
        fn migrate(&self, start: Pfn, _: Pfn) -> Result<(), Pfn> {
            let (sim, mut taken) = (self.0, self.1.lock().unwrap());
            taken.extend(exhaust(sim, Gfp::NOWAIT));
            taken.extend(exhaust(sim, Gfp::HIGHUSER_MOVABLE));
            let zone = sim.pages().zones().next().unwrap();
            // The watermark is looked at before a batch is taken, which per-CPU lists then hold.
            let (left, min) = (zone.free() + zone.per_cpu(), zone.watermarks().min);
            assert!(left >= min, "{left} pages left while {min} are kept");
            Err(start)
        }
    }
    let sim = with_area();
    let pages = sim.pages();
    let greedy = Greedy(sim, Mutex::new(exhaust(sim, Gfp::NOWAIT)));
    // A guest, so that something must be moved.
    let guest = pages.alloc_page(Gfp::HIGHUSER_MOVABLE).unwrap();
    assert!(pages.cma_area_of(guest.pfn()).is_some());
    assert_eq!(pages.cma_alloc(0, AREA_PAGES, 0, Some(&greedy)), Err(CmaError::NoSpace));
    // What is for the urgent is still there.
    let zone = pages.zones().next().unwrap();
    let urgent = exhaust(sim, Gfp::ATOMIC).len();
    assert!(urgent >= zone.watermarks().min / 2, "{urgent} pages for the urgent");
    assert_eq!(pages.validate(), Ok(()));
}

/// Memory that was set aside and is no area is handed out like other memory; somebody is told why.
#[test]
fn what_cannot_be_an_area_is_not_lost() {
    let config = SimConfig::new().bank(GIB, 96 * MIB, 0).reserve(GIB + 4 * MIB, MIB, RegionKind::Cma);
    let mut config = config.reserve(GIB + 32 * MIB + PAGE_SIZE, 4 * MIB, RegionKind::Cma);
    config = config.reserve(GIB + 72 * MIB, 24 * MIB, RegionKind::Cma);
    config.movable = MovableSplit::MovableCore(16 * MIB / PAGE_SIZE);
    let sim = Sim::boot(&config);
    let area = sim.pages().cma_info(0).unwrap();
    assert_eq!((area.start.addr().get(), area.pages), (GIB + 34 * MIB, 512));
    assert_eq!(sim.pages().cma_info(1), None);
    let (start, why): (Vec<_>, Vec<_>) = sim.refused_areas().iter().map(|(range, why)| (range.start, *why)).unzip();
    assert_eq!(start, [4, 72].map(|mib| PhysAddr::new(GIB + mib * MIB)));
    assert_eq!(why, [AreaError::TooSmall, AreaError::SpansZones]);
    assert_eq!(sim.pages().total_managed(), sim.summary().managed + 29 * MIB / PAGE_SIZE);
    assert_eq!(sim.pages().total_free() + sim.pages().cma_bitmap_pages(), sim.pages().total_managed());
    assert_eq!(sim.pages().validate(), Ok(()));
}

#[test]
fn there_is_room_for_all_areas_that_a_tree_may_have() {
    let areas = |count: usize| {
        let area = |config: SimConfig, i| config.reserve(GIB + 4 * i * MIB, 2 * MIB, RegionKind::Cma);
        Sim::boot(&(1..=count).fold(SimConfig::new().bank(GIB, 512 * MIB, 0), area))
    };
    let sim = areas(73);
    assert!(sim.pages().cma_info(72).is_some() && sim.refused_areas().is_empty());
    let sim = areas(MAX_AREAS + 1);
    assert!(sim.pages().cma_info(MAX_AREAS - 1).is_some() && sim.pages().cma_info(MAX_AREAS).is_none());
    assert!(sim.refused_areas().iter().map(|(_, why)| *why).eq([AreaError::TooMany]));
    assert_eq!(sim.pages().total_managed(), sim.summary().managed + (MAX_AREAS + 1) * 512);
}

#[test]
fn long_term_pins_are_not_for_pages_that_must_move() {
    let mut config = SimConfig::new().bank(GIB, 64 * MIB, 0).reserve(GIB + 16 * MIB, 4 * MIB, RegionKind::Cma);
    config.movable = MovableSplit::MovableCore(16 * MIB / PAGE_SIZE);
    let sim = Sim::boot(&config);
    let pages = sim.pages();
    let zone = pages.zones().find(|zone| zone.kind() == ZoneKind::Movable).unwrap();
    let (movable, managed) = (zone.span(), zone.managed());
    // Every page that there is, by whoever may have it.
    let (mut pinned, mut in_areas, mut in_zone) = (0, 0, 0);
    let all: Vec<_> = [Gfp::HIGHUSER_MOVABLE, Gfp::KERNEL].map(|gfp| exhaust(sim, gfp | Gfp::MEMALLOC)).into();
    for block in all.iter().flatten() {
        let is_lent = pages.cma_area_of(block.pfn()).is_some();
        let must_move = (movable.0.0..movable.0.0 + movable.1).contains(&block.pfn().0);
        in_areas += usize::from(is_lent);
        in_zone += usize::from(must_move);
        let is_pinned = pages.pin_long_term(block.pfn());
        assert_eq!(is_pinned, !is_lent && !must_move, "{:?}", block.pfn());
        if is_pinned {
            assert!(block.page().is_pinned() && !block.page().unpin());
            pinned += 1;
        }
    }
    assert_eq!((in_areas, in_zone), (4 * MIB / PAGE_SIZE, managed));
    assert!(pinned > 40 * MIB / PAGE_SIZE);
}

/// A page that is allocated as one that does not move can be pinned wherever it comes from.
#[test]
fn unmovable_pages_can_always_be_pinned() {
    let sim = with_area();
    for gfp in [Gfp::KERNEL, Gfp::USER, Gfp::HIGHUSER, Gfp::ATOMIC] {
        for block in exhaust(sim, gfp) {
            assert!(sim.pages().pin_long_term(block.pfn()) && !block.page().unpin());
        }
    }
}
