//! cma: contiguous memory areas lend their pages to programs, and can be allocated as a whole when those have ended.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use quire_rt::abi::flags::Map;
use quire_rt::abi::statistics::CmaInfo;
use quire_rt::process::{self, Status};
use quire_rt::{Errno, info, time};
use user_tests::{Checks, PAGE, RW, mmap, poke, shared_counters, start};

quire_rt::entry!(main);

/// More memory than this takes too long to fill, in pages.
const LIMIT: u64 = 512 << 20 >> 12;

/// Areas that are looked at.
const AREAS: usize = 8;

fn lent(all: u64) -> u64 {
    all - info::counter("nr_free_cma").unwrap_or(all)
}

/// Writes to new pages until three quarters of the areas are lent.
fn borrow(pages: usize, all: u64) {
    let flags = Map::PRIVATE | Map::ANONYMOUS | Map::NORESERVE;
    let at = mmap(0, pages * PAGE, RW, flags, -1, 0).unwrap_or(0);
    let mut page = 0;
    while lent(all) < all * 3 / 4 && page + 64 <= pages {
        (page..page + 64).for_each(|page| poke(at + page * PAGE, 1));
        page += 64;
    }
}

/// The child's rounds: a rehearsal in which it borrows nothing, and the true one, after which it ends.
fn borrower(pages: usize, all: u64, phase: &AtomicU64) -> i32 {
    for round in 0..2 {
        wait_for(phase, round * 3 + 1);
        if round == 1 {
            borrow(pages, all);
        }
        phase.store(round * 3 + 2, Ordering::Release);
        wait_for(phase, round * 3 + 3);
    }
    0
}

fn wait_for(phase: &AtomicU64, wanted: u64) {
    while phase.load(Ordering::Acquire) < wanted {
        time::sleep_ms(2);
    }
}

type Outcomes = [Result<usize, Errno>; AREAS];

/// Tries to take each area as a whole until that succeeds, at most so many times.
fn try_all(outcomes: &mut [Result<usize, Errno>], times: usize) {
    for _ in 0..times {
        outcomes.iter_mut().enumerate().for_each(|(area, outcome)| *outcome = info::try_cma(area));
        time::sleep_ms(5);
        if outcomes.iter().all(Result::is_ok) {
            return;
        }
    }
}

/// What this process sees of a round: pages lent, and what comes of taking the areas before and after its end.
#[derive(Clone, Copy)]
struct Seen {
    lent: u64,
    before: Outcomes,
    after: Outcomes,
}

fn main() -> i32 {
    let mut checks = Checks::new();
    let areas = info::records::<CmaInfo>().take(AREAS).count();
    let all: u64 = info::records::<CmaInfo>().take(AREAS).map(|area| area.pages).sum();
    let managed = info::system().map_or(u64::MAX, |system| system.managed);
    checks.fails(info::try_cma(areas), Errno::ENOENT, "a nonexistent area");
    if areas == 0 || managed > LIMIT {
        checks.skip("contiguous memory", if areas == 0 { "there is none" } else { "there is too much memory" });
        return checks.finish();
    }
    let phase = &shared_counters()[0];
    phase.store(0, Ordering::Release);
    let Ok(child) = start(|| borrower(managed as usize, all, phase)) else {
        checks.ok(false, "a child");
        return checks.finish();
    };
    // The rehearsal brings in all pages that the true round needs here: one that came while the areas are lent would
    // lie in one of them, and stay.
    let mut seen = [Seen { lent: 0, before: [Ok(0); AREAS], after: [Ok(0); AREAS] }; 2];
    for (round, seen) in (0..).zip(&mut seen) {
        phase.store(round * 3 + 1, Ordering::Release);
        wait_for(phase, round * 3 + 2);
        seen.lent = lent(all);
        try_all(&mut seen.before[..areas], 1);
        phase.store(round * 3 + 3, Ordering::Release);
        try_all(&mut seen.after[..areas], 400);
    }
    checks.eq(process::waitpid(child), Ok(Status::Exited(0)), "the borrower ends");
    let [rehearsal, seen] = seen;
    checks.ok(rehearsal.before[..areas].iter().all(Result::is_ok), "what nobody has borrowed can be taken");
    checks.ok(seen.lent >= all * 3 / 4, "most of the areas was lent to a program");
    checks.ok(seen.before[..areas].contains(&Err(Errno::EBUSY)), "what it had could not be taken");
    for (area, outcome) in info::records::<CmaInfo>().zip(&seen.after[..areas]) {
        checks.eq(*outcome, Ok(area.pages as usize), "the whole area, after it");
    }
    checks.finish()
}
