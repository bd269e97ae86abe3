//! cma: contiguous memory areas lend their pages to programs. They can be allocated as a whole if there is other memory
//! to which the kernel can move these pages, or swap to make room there, and when the programs have ended.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use quire_rt::abi::flags::Map;
use quire_rt::abi::statistics::CmaInfo;
use quire_rt::process::{self, Status};
use quire_rt::{Errno, info, time};
use user_tests::{Checks, PAGE, RW, mmap, munmap, peek, poke, shared_counters, start};

quire_rt::entry!(main);

/// More memory than this takes too long to fill, in pages.
const LIMIT: u64 = 512 << 20 >> 12;

/// The most areas that a kernel has.
const AREAS: usize = 80;

fn lent(all: u64) -> u64 {
    all - info::counter("nr_free_cma").unwrap_or(all)
}

/// New memory, of which pages are written until three quarters of the areas are lent.
struct Borrowed {
    at: usize,
    /// The pages from here on are left.
    from: usize,
    end: usize,
}

impl Borrowed {
    fn new(pages: usize, all: u64) -> Self {
        let flags = Map::PRIVATE | Map::ANONYMOUS | Map::NORESERVE;
        let at = mmap(0, pages * PAGE, RW, flags, -1, 0).unwrap_or(0);
        let mut end = 0;
        while lent(all) < all * 3 / 4 && end + 64 <= pages {
            (end..end + 64).for_each(|page| poke(at + page * PAGE, page as u8));
            end += 64;
        }
        Borrowed { at, from: 0, end }
    }

    /// Gives as many pages back as the areas have, and some more. What came first lies outside of the areas.
    fn make_room(&mut self, all: u64) -> bool {
        self.from = (all as usize + 1024).min(self.end);
        munmap(self.at, self.from * PAGE).is_ok()
    }

    fn is_intact(&self) -> bool {
        (self.from..self.end).all(|page| peek(self.at + page * PAGE) == page as u8)
    }
}

/// The child's rounds: a rehearsal in which it borrows nothing, and the true one, after which it ends.
fn borrower(pages: usize, all: u64, phase: &AtomicU64) -> i32 {
    let mut is_right = true;
    for round in 0..2 {
        wait_for(phase, round * STEPS + 1);
        let mut borrowed = Borrowed::new(if round == 1 { pages } else { 1 }, all);
        phase.store(round * STEPS + 2, Ordering::Release);
        wait_for(phase, round * STEPS + 3);
        is_right &= borrowed.make_room(all) || round == 0;
        phase.store(round * STEPS + 4, Ordering::Release);
        wait_for(phase, round * STEPS + 5);
        is_right &= borrowed.is_intact();
    }
    i32::from(!is_right)
}

/// Steps of a round, which the two take in turns.
const STEPS: u64 = 5;

fn wait_for(phase: &AtomicU64, wanted: u64) {
    while phase.load(Ordering::Acquire) < wanted {
        time::sleep_ms(2);
    }
}

type Outcomes = [Result<usize, Errno>; AREAS];

/// Tries to take each area as a whole until that succeeds, at most `times` times.
fn try_all(outcomes: &mut [Result<usize, Errno>], times: usize) {
    for _ in 0..times {
        outcomes.iter_mut().enumerate().for_each(|(area, outcome)| *outcome = info::try_cma(area));
        time::sleep_ms(5);
        if outcomes.iter().all(Result::is_ok) {
            return;
        }
    }
}

/// What this process sees of a round: pages lent, and what comes of taking the areas while there is no other memory,
/// when there is some, and after the borrower's end.
#[derive(Clone, Copy)]
struct Seen {
    lent: u64,
    before: Outcomes,
    moved: Outcomes,
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
    let has_swap = info::counter("nr_swap_total").unwrap_or(0) != 0;
    let phase = &shared_counters()[0];
    phase.store(0, Ordering::Release);
    let Ok(child) = start(|| borrower(managed as usize, all, phase)) else {
        checks.ok(false, "a child");
        return checks.finish();
    };
    // The rehearsal brings in all pages that the true round needs here: one that came while the areas are lent would
    // lie in one of them, and stay.
    let nothing = [Ok(0); AREAS];
    let mut seen = [Seen { lent: 0, before: nothing, moved: nothing, after: nothing }; 2];
    for (round, seen) in (0..).zip(&mut seen) {
        phase.store(round * STEPS + 1, Ordering::Release);
        wait_for(phase, round * STEPS + 2);
        seen.lent = lent(all);
        try_all(&mut seen.before[..areas], if has_swap { 20 } else { 1 });
        phase.store(round * STEPS + 3, Ordering::Release);
        wait_for(phase, round * STEPS + 4);
        try_all(&mut seen.moved[..areas], 20);
        phase.store(round * STEPS + 5, Ordering::Release);
        try_all(&mut seen.after[..areas], 400);
    }
    checks.eq(process::waitpid(child), Ok(Status::Exited(0)), "the borrower finds what it has written, and ends");
    let [rehearsal, seen] = seen;
    checks.ok(rehearsal.before[..areas].iter().all(Result::is_ok), "what nobody has borrowed can be taken");
    checks.ok(seen.lent >= all * 3 / 4, "most of the areas was lent to a program");
    if has_swap {
        checks.ok(seen.before[..areas].iter().all(Result::is_ok), "and could be taken: other pages went to swap");
    } else {
        checks.ok(seen.before[..areas].contains(&Err(Errno::EBUSY)), "what it had could not be taken");
    }
    for (area, outcome) in info::records::<CmaInfo>().zip(&seen.moved[..areas]) {
        checks.eq(*outcome, Ok(area.pages as usize), "the whole area, whose pages have moved");
    }
    for (area, outcome) in info::records::<CmaInfo>().zip(&seen.after[..areas]) {
        checks.eq(*outcome, Ok(area.pages as usize), "the whole area, after it");
    }
    checks.finish()
}
