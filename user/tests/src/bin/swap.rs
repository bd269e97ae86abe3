//! swap: pages that go out by MADV_PAGEOUT or because memory is short keep their contents, whatever these are and
//! whoever maps them.
//!
//! Without swap there is nothing to check. Memory runs short on small machines only.

#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;

use quire_rt::abi::flags::{Map, Prot, madv};
use quire_rt::process::{self, Status};
use quire_rt::{Errno, info, mem, time};
use user_tests::{Checks, PAGE, RW, map, mmap, mprotect, munmap, poke, shared_counters, start, until};

quire_rt::entry!(main);

const PAGES: usize = 64;
const LEN: usize = PAGES * PAGE;
const WORDS: usize = PAGE / 8;

/// More memory than this takes too long to fill.
const LIMIT: usize = 80 << 20;

fn word(page: usize, i: usize) -> u64 {
    let mixed = (page as u64 * 512 + i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = mixed ^ mixed >> 29;
    match page % 4 {
        // Zeros, one word again and again, something between, and what cannot become smaller.
        0 => 0,
        1 => page as u64,
        2 if !i.is_multiple_of(4) => page as u64,
        _ => mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9),
    }
}

fn page(at: usize, page: usize) -> *mut u64 {
    core::ptr::with_exposed_provenance_mut(at + page * PAGE)
}

fn fill(at: usize, pages: usize, kind: impl Fn(usize) -> usize) {
    for n in 0..pages {
        // SAFETY: the test's own mapping.
        (0..WORDS).for_each(|i| unsafe { page(at, n).add(i).write_volatile(word(kind(n), i)) });
    }
}

fn wrong(at: usize, pages: usize, kind: impl Fn(usize) -> usize) -> usize {
    // SAFETY: as for `fill`.
    let is_right = |n: usize| (0..WORDS).all(|i| unsafe { page(at, n).add(i).read_volatile() } == word(kind(n), i));
    (0..pages).filter(|n| !is_right(*n)).count()
}

fn page_out(at: usize, len: usize) -> Result<(), Errno> {
    // SAFETY: a mapping of the test's own.
    unsafe { mem::madvise(at, len, madv::PAGEOUT) }
}

fn resident(at: usize, len: usize) -> usize {
    let mut pages = [0; PAGES];
    let _ = mem::mincore(at, len, &mut pages);
    pages[..len / PAGE].iter().filter(|page| **page & 1 == 1).count()
}

fn main() -> i32 {
    let mut checks = Checks::new();
    let Ok(system) = info::sysinfo() else { return 1 };
    if system.totalswap == 0 {
        checks.skip("swap", "there is none");
        return checks.finish();
    }
    out_and_in(&mut checks);
    major_faults(&mut checks);
    shared_by_fork(&mut checks);
    staying(&mut checks);
    changing(&mut checks);
    let free = system.freeram as usize * system.mem_unit.max(1) as usize;
    if free <= LIMIT {
        short(&mut checks, free);
        if user_tests::is_quire() {
            slow(&mut checks, free);
        }
    } else {
        checks.skip("memory that runs short", "there is too much of it");
    }
    checks.finish()
}

/// Whether a number that other programs, or reclaim, change too is as expected where they do nothing.
fn is_as<T: PartialEq>(got: T, wanted: T) -> bool {
    got == wanted || user_tests::is_short()
}

fn out_and_in(checks: &mut Checks) {
    let at = map(LEN, RW);
    fill(at, PAGES, |n| n);
    let before = info::sysinfo().map_or(0, |info| info.freeswap);
    for round in ["", ", again"] {
        checks.eq(page_out(at, LEN), Ok(()), "pages go out");
        checks.eq(resident(at, LEN), 0, "none is in memory");
        let now = info::sysinfo().map_or(0, |info| info.freeswap);
        checks.ok(is_as(before.wrapping_sub(now) as usize, LEN), "they are in swap");
        checks.eq(wrong(at, PAGES, |n| n), 0, "they come back as they were");
        checks.ok(is_as(resident(at, LEN), PAGES), round);
    }
    let _ = page_out(at, LEN);
    fill(at, PAGES, |n| n + 1);
    checks.eq(wrong(at, PAGES, |n| n + 1), 0, "and can be written");
    let _ = page_out(at, LEN);
    let _ = munmap(at, LEN);
    let now = info::sysinfo().map_or(0, |info| info.freeswap);
    checks.ok(now >= before || user_tests::is_short(), "what is unmapped leaves swap");
}

/// A page that comes back is a major fault of the thread that needs it, and of its process.
fn major_faults(checks: &mut Checks) {
    let of = |who| process::getrusage(who).map_or(-1, |usage| usage.majflt);
    let at = map(LEN, RW);
    fill(at, PAGES, |n| n);
    let before = [0, 1, -1].map(of);
    let _ = page_out(at, LEN);
    checks.ok(is_as([0, 1, -1].map(of), before), "a page that goes out is no fault");
    checks.eq(wrong(at, PAGES, |n| n), 0, "pages come back");
    let expected = [before[0] + PAGES as i64, before[1] + PAGES as i64, before[2]];
    let now = [0, 1, -1].map(of);
    checks.ok(is_as(now, expected), "each one is a major fault");
    let _ = page_out(at, LEN);
    let child = start(|| wrong(at, PAGES, |n| n) as i32).and_then(|child| process::wait4(child, 0));
    let of_child = child.ok().flatten().map_or(-1, |changed| changed.usage.majflt);
    checks.ok(is_as(of_child, PAGES as i64), "a child's are its own");
    let now = [0, 1, -1].map(of);
    let expected = [expected[0], expected[1], expected[2] + PAGES as i64];
    checks.ok(is_as(now, expected), "and of its parent's children");
    let _ = munmap(at, LEN);
}

fn shared_by_fork(checks: &mut Checks) {
    let at = map(LEN, RW);
    fill(at, PAGES, |n| n);
    let _ = page_out(at, LEN);
    let children = [0, 1].map(|odd| {
        start(|| {
            let first = wrong(at, PAGES, |n| n);
            fill(at, PAGES, |n| n + 2 + odd);
            let _ = page_out(at, LEN);
            (first + wrong(at, PAGES, |n| n + 2 + odd) != 0) as i32
        })
    });
    for child in children {
        checks.eq(child.and_then(process::waitpid), Ok(Status::Exited(0)), "a child has its own");
    }
    checks.eq(wrong(at, PAGES, |n| n), 0, "and so has the parent");
    let child = start(|| {
        let _ = page_out(at, LEN);
        !is_as(resident(at, LEN), PAGES) as i32
    });
    checks.eq(child.and_then(process::waitpid), Ok(Status::Exited(0)), "what two processes map stays");
    let _ = munmap(at, LEN);
}

fn staying(checks: &mut Checks) {
    let at = map(LEN, RW);
    fill(at, PAGES, |n| n);
    let _ = page_out(at, LEN);
    let faults = || process::getrusage(1).map_or((-1, -1), |usage| (usage.minflt, usage.majflt));
    let before = faults();
    checks.eq(mem::mlock(at, LEN), Ok(()), "memory is locked");
    checks.ok(is_as(faults(), (before.0, before.1 + PAGES as i64)), "which faults as the program would");
    checks.eq(resident(at, LEN), PAGES, "so it is back");
    checks.fails(page_out(at, LEN), Errno::EINVAL, "and does not go");
    checks.eq(resident(at, LEN), PAGES, "it is still there");
    let _ = munmap(at, LEN);
    let shared = mmap(0, LEN, RW, Map::SHARED | Map::ANONYMOUS, -1, 0).unwrap_or(0);
    fill(shared, PAGES, |n| n);
    checks.eq(page_out(shared, LEN), Ok(()), "shared memory may be asked to go");
    checks.eq(wrong(shared, PAGES, |n| n), 0, "and is unchanged");
    let _ = munmap(shared, LEN);
}

fn changing(checks: &mut Checks) {
    let at = map(LEN, RW);
    fill(at, PAGES, |n| n);
    let _ = page_out(at, LEN);
    checks.eq(mprotect(at, LEN, Prot::READ), Ok(()), "pages in swap become read-only");
    checks.eq(wrong(at, PAGES, |n| n), 0, "and come back");
    checks.killed(|| fill(at, 1, |n| n), quire_rt::abi::flags::sig::SEGV, "they cannot be written");
    let _ = mprotect(at, LEN, RW);
    let _ = page_out(at, LEN);
    let moved = map(LEN, RW);
    // SAFETY: both are the test's own mappings.
    let there = unsafe {
        mem::mremap(at, LEN, LEN, quire_rt::abi::flags::Mremap::MAYMOVE | quire_rt::abi::flags::Mremap::FIXED, moved)
    };
    checks.eq(there, Ok(moved), "pages in swap are moved");
    checks.eq(wrong(moved, PAGES, |n| n), 0, "with their contents");
    let _ = munmap(moved, LEN);
}

/// Pages that kswapd took from programs, and those that were taken by threads that waited for memory.
fn stolen() -> [u64; 2] {
    ["pgsteal_kswapd", "pgsteal_direct"].map(|name| info::counter(name).unwrap_or(0))
}

/// A program that takes memory slowly seldom has to wait for it.
fn slow(checks: &mut Checks, free: usize) {
    let before = stolen();
    let hog = start(|| {
        let pages = free / PAGE * 5 / 4;
        let at = map(pages * PAGE, RW);
        for n in 0..pages {
            poke(at + n * PAGE, 1);
            if n.is_multiple_of(16) {
                time::sleep_ms(1);
            }
        }
        0
    });
    checks.eq(hog.and_then(process::waitpid), Ok(Status::Exited(0)), "a program takes memory slowly");
    let [by_kswapd, by_waiting] = [0, 1].map(|i| stolen()[i] - before[i]);
    checks.ok(by_kswapd > 4 * by_waiting || user_tests::is_short(), "kswapd frees what it needs");
}

/// Two processes that need more memory than there is, three of four pages compressible.
fn short(checks: &mut Checks, free: usize) {
    let before: u64 = stolen().iter().sum();
    let pages = free / PAGE * 3 / 4;
    let filled = &shared_counters()[0];
    let children = [0, 1].map(|number| {
        start(|| {
            let at = map(pages * PAGE, RW);
            let kind = |round: usize| move |n: usize| (n + round) / 8 * 8 + (n + number) % 8 % 3;
            let mut errors = 0;
            for round in 0..3 {
                fill(at, pages, kind(round));
                // Both have theirs at a time.
                filled.fetch_add(1, SeqCst);
                errors += !until(|| filled.load(SeqCst) >= 2) as usize;
                errors += wrong(at, pages, kind(round));
            }
            (errors != 0) as i32
        })
    });
    for child in children {
        checks.eq(child.and_then(process::waitpid), Ok(Status::Exited(0)), "all pages keep their contents");
    }
    checks.ok(!user_tests::is_quire() || stolen().iter().sum::<u64>() > before, "though not all were in memory");
}
