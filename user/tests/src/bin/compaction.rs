//! compaction: memory that is free in pieces becomes whole, while programs use the pages between them.

#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;

use quire_rt::abi::flags::madv;
use quire_rt::abi::info::ZoneInfo;
use quire_rt::abi::statistics::{BLOCK_PAGES, BlockFrames, PageBlocks, PageTypeInfo, frame_use};
use quire_rt::process::{self, Status};
use quire_rt::{Errno, info, mem};
use user_tests::{Checks, PAGE, RW, map, munmap, shared_counters, start, until};

quire_rt::entry!(main);

/// Of the scattered memory.
const PAGES: usize = 12 * 1024;

/// log2 of the pages of a page block.
const BLOCK: usize = 9;

fn main() -> i32 {
    let mut checks = Checks::new();
    if !user_tests::is_quire() {
        checks.skip("compaction", "another kernel's blocks are not looked at");
        return checks.finish();
    }
    let free = info::records::<ZoneInfo>().map(|zone| zone.free).sum::<u64>() as usize;
    let pages = PAGES.min((free / 2) & !1);
    blocks(&mut checks);
    scattered(&mut checks, pages);
    in_use(&mut checks, pages);
    checks.finish()
}

fn word(at: usize, page: usize) -> *mut u64 {
    core::ptr::with_exposed_provenance_mut(at + page * PAGE)
}

/// The map of page blocks agrees with what else is said of a zone.
fn blocks(checks: &mut Checks) {
    let agree = || info::records::<ZoneInfo>().enumerate().all(|(number, zone)| is_mapped(number as u32, &zone));
    // (Others allocate and free meanwhile.)
    checks.ok(user_tests::is_short() || until(agree), "the map of page blocks has a zone's free pages and types");
    checks.fails(info::page_blocks(u32::MAX, 0), Errno::ENOENT, "no zone");
    checks.fails(info::page_blocks(0, usize::MAX), Errno::ENOENT, "behind a zone");
    used(checks);
}

/// What frames are used for, counted by page block and one by one, agrees with a zone's free pages, and with memory
/// that this program has.
fn used(checks: &mut Checks) {
    let agree =
        || info::records::<ZoneInfo>().enumerate().all(|(number, zone)| free_of(number as u32) == Some(zone.free));
    checks.ok(user_tests::is_short() || until(agree), "the use of the frames of page blocks has a zone's free pages");
    let agree = || info::records::<ZoneInfo>().enumerate().all(|(number, _)| is_same(number as u32));
    checks.ok(user_tests::is_short() || until(agree), "counted by page block and frame by frame there is the same");
    checks.fails(info::block_use(u32::MAX, 0), Errno::ENOENT, "the use of no zone");
    checks.fails(info::block_use(0, usize::MAX), Errno::ENOENT, "behind a zone");
    for number in [usize::MAX, usize::MAX >> 9] {
        checks.fails(info::record::<BlockFrames>(number), Errno::ENOENT, "frames where there is no memory");
    }
    let at = map(PAGE, RW);
    // SAFETY: the test's own mapping.
    unsafe { word(at, 0).write_volatile(1) };
    let found = info::translation(0, at).map(|found| found.frame.pfn as usize).unwrap_or(0);
    let frames = info::record::<BlockFrames>(found / BLOCK_PAGES as usize).unwrap_or_default();
    let frame = frames.frames[found % BLOCK_PAGES as usize];
    checks.ok(frame & BlockFrames::USE == frame_use::ANON as u32, "a page of mine is anonymous memory there");
    checks
        .ok(frame & BlockFrames::FIRST != 0 && frame >> BlockFrames::ORDER_SHIFT & 0xf == 0, "and a block of its own");
    checks.ok(frame >> BlockFrames::REFERENCES_SHIFT == 1, "with one reference");
    let _ = munmap(at, PAGE);
}

/// The frames of a zone by their use.
fn counts(number: u32) -> Option<[u64; frame_use::COUNT]> {
    let (mut sum, mut from) = ([0; frame_use::COUNT], 0);
    loop {
        match info::block_use(number, from) {
            Ok(part) => {
                let counts = part.counts.iter().take(part.count as usize);
                counts.for_each(|counts| sum.iter_mut().zip(counts).for_each(|(sum, n)| *sum += u64::from(*n)));
                from = part.first as usize + part.count as usize;
            }
            Err(error) => return (error == Errno::ENOENT).then_some(sum),
        }
    }
}

fn free_of(number: u32) -> Option<u64> {
    counts(number).map(|counts| counts[frame_use::FREE])
}

/// Each page block has the same uses frame by frame, in the first pages that a record tells of.
fn is_same(number: u32) -> bool {
    let Ok(part) = info::block_use(number, 0) else { return false };
    (0..part.count as usize).all(|at| {
        let mut counts = [0; frame_use::COUNT];
        let frames = info::record::<BlockFrames>(part.first as usize + at).map(|block| block.frames);
        frames
            .unwrap_or([0; BLOCK_PAGES as usize])
            .iter()
            .for_each(|frame| counts[(frame & BlockFrames::USE) as usize] += 1);
        part.counts[at] == counts || part.counts[at] == [0; frame_use::COUNT]
    })
}

fn is_mapped(number: u32, zone: &ZoneInfo) -> bool {
    let (mut free, mut types, mut from) = (0, [0; 16], 0);
    while let Ok(part) = info::page_blocks(number, from) {
        for word in part.blocks[..part.count as usize].iter().filter(|word| **word != PageBlocks::NONE) {
            free += u64::from(word & PageBlocks::FREE);
            types[usize::from(word >> PageBlocks::TYPE_SHIFT)] += 1;
        }
        from = part.first as usize + part.count as usize;
    }
    let of_zone = |line: &PageTypeInfo| (line.node, line.zone) == (zone.node, zone.name);
    let is_right = |line: PageTypeInfo| types[line.migrate_type as usize] == line.page_blocks;
    free == zone.free && info::records::<PageTypeInfo>().filter(of_zone).all(is_right)
}

/// Page blocks that are free as a whole.
fn whole() -> usize {
    let of_zone = |zone: ZoneInfo| -> u64 {
        zone.blocks.iter().enumerate().skip(BLOCK).map(|(order, blocks)| blocks << (order - BLOCK)).sum()
    };
    info::records::<ZoneInfo>().map(of_zone).sum::<u64>() as usize
}

/// Memory of which every second page was given up.
fn scatter(pages: usize) -> usize {
    let at = map(pages * PAGE, RW);
    for page in 0..pages {
        // SAFETY: the test's own mapping.
        unsafe { word(at, page).write_volatile(page as u64 + 1) };
    }
    for page in (1..pages).step_by(2) {
        // SAFETY: as above.
        let _ = unsafe { mem::madvise(at + page * PAGE, PAGE, madv::DONTNEED) };
    }
    at
}

fn wrong(at: usize, pages: usize) -> usize {
    // SAFETY: as for `scatter`.
    (0..pages).step_by(2).filter(|page| unsafe { word(at, *page).read_volatile() } != *page as u64 + 1).count()
}

fn scattered(checks: &mut Checks, pages: usize) {
    let at = scatter(pages);
    let (before, moved) = (whole(), info::counter("pgmigrate_success"));
    let made = info::compact();
    // (Others allocate and free meanwhile.)
    let possible = (pages / 2) >> BLOCK;
    checks.ok(made.is_ok_and(|made| made >= possible * 3 / 4), "blocks are emptied");
    checks.ok(whole() >= before + possible / 2, "and are free as a whole");
    let has_moved = info::counter("pgmigrate_success") > moved;
    checks.ok(has_moved || user_tests::is_short(), "by moving pages, unless they left memory");
    checks.eq(wrong(at, pages), 0, "which have their contents");
    let _ = munmap(at, pages * PAGE);
}

/// Another process writes to the pages, forks and gives pages up, while they move.
fn in_use(checks: &mut Checks, pages: usize) {
    let counters = shared_counters();
    let child = start(|| {
        let at = scatter(pages);
        let mut round = 0;
        counters[0].fetch_add(1, SeqCst);
        while counters[1].load(SeqCst) == 0 {
            round += 1;
            for page in (0..pages).step_by(2) {
                // SAFETY: the test's own mapping.
                let old = unsafe { word(at, page).read_volatile() };
                if old != page as u64 + round {
                    return 1;
                }
                // SAFETY: as above.
                unsafe { word(at, page).write_volatile(old + 1) };
            }
            let other = start(|| {
                (0..pages).step_by(64).any(|page| {
                    // SAFETY: as above.
                    unsafe { word(at, page).read_volatile() != page as u64 + round + 1 }
                }) as i32
            });
            if other.and_then(process::waitpid) != Ok(Status::Exited(0)) {
                return 2;
            }
            counters[0].fetch_add(1, SeqCst);
        }
        0
    });
    checks.ok(until(|| counters[0].load(SeqCst) != 0), "a program runs");
    for _ in 0..4 {
        let seen = counters[0].load(SeqCst);
        checks.ok(info::compact().is_ok(), "memory is compacted beside it");
        checks.ok(until(|| counters[0].load(SeqCst) > seen), "it goes on");
    }
    counters[1].store(1, SeqCst);
    checks.eq(child.and_then(process::waitpid), Ok(Status::Exited(0)), "it finds what it has written");
}
