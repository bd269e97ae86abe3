//! huge: memory that is mapped by blocks of 2 MiB. What programs see is the same with and without; how much of it is
//! mapped so is checked where a block was to be had.

#![no_std]
#![no_main]

use quire_rt::abi::flags::{Prot, madv, pr, sig};
use quire_rt::abi::nr;
use quire_rt::{Errno, info, mem};
use user_tests::{Checks, PAGE, RW, is_quire, is_short, map, mprotect, munmap, peek, poke, raw};

quire_rt::entry!(main);

const HUGE: usize = 2 << 20;
const PAGES: usize = HUGE / PAGE;

fn advise(at: usize, len: usize, advice: i32) -> Result<(), Errno> {
    // SAFETY: a mapping of the test's own.
    unsafe { mem::madvise(at, len, advice) }
}

/// A mapping of so many aligned blocks, which wants huge pages.
fn blocks(count: usize) -> usize {
    let first = aligned(count);
    let _ = advise(first, count * HUGE, madv::HUGEPAGE);
    first
}

/// A mapping of so many aligned blocks.
fn aligned(count: usize) -> usize {
    let at = map((count + 1) * HUGE, RW);
    let first = at.next_multiple_of(HUGE);
    let _ = munmap(at, first - at);
    let _ = munmap(first + count * HUGE, at + HUGE - first);
    first
}

/// Pages of the areas in a range that are mapped by blocks.
fn huge(at: usize, len: usize) -> usize {
    let areas = info::areas(0).map_while(Result::ok);
    let is_in = |start: u64| (at as u64..(at + len) as u64).contains(&start);
    areas.filter(|area| is_in(area.start)).map(|area| area.huge as usize).sum()
}

fn fill(at: usize) {
    (0..PAGES).for_each(|page| poke(at + page * PAGE, page as u8));
}

fn is_filled(at: usize) -> bool {
    (0..PAGES).all(|page| peek(at + page * PAGE) == page as u8)
}

fn main() -> i32 {
    let mut checks = Checks::new();
    let at = blocks(1);
    poke(at, 1);
    // Memory may be in pieces, or short.
    let are_there = is_quire() && huge(at, HUGE) == PAGES;
    if are_there {
        checks.ok(info::counter("nr_anon_transparent_hugepages").is_some_and(|blocks| blocks > 0), "they are counted");
    } else {
        checks.skip("what is mapped by blocks", "there was none");
    }
    let _ = munmap(at, HUGE);
    content(&mut checks, are_there);
    parts(&mut checks);
    forks(&mut checks, are_there);
    refused(&mut checks);
    given_back(&mut checks);
    collapsed(&mut checks);
    checks.finish()
}

/// How much is mapped by blocks, if there are some.
fn holds(are_there: bool, at: usize, pages: usize) -> bool {
    !are_there || huge(at, HUGE) == pages || is_short()
}

fn content(checks: &mut Checks, are_there: bool) {
    let at = blocks(2);
    poke(at + 7 * PAGE, 7);
    checks.ok((0..PAGES).all(|page| peek(at + page * PAGE) == if page == 7 { 7 } else { 0 }), "zeros but for one page");
    checks.ok(holds(are_there, at, PAGES), "one fault brings in one block");
    fill(at);
    checks.ok(is_filled(at), "what was written");
    checks.eq(mprotect(at, HUGE, Prot::READ), Ok(()), "it may not be written");
    checks.ok(is_filled(at) && holds(are_there, at, PAGES), "it is what it was");
    checks.killed(|| poke(at, 1), sig::SEGV, "a store ends the program");
    checks.eq(mprotect(at, HUGE, RW), Ok(()), "it may be written again");
    fill(at);
    checks.ok(is_filled(at), "and is");
    let _ = munmap(at, 2 * HUGE);
}

/// Parts of a block go, or change.
fn parts(checks: &mut Checks) {
    for (what, change) in [
        ("munmap", (|at| munmap(at, PAGE)) as fn(usize) -> Result<(), Errno>),
        ("mprotect", |at| mprotect(at, PAGE, Prot::READ)),
        ("MADV_DONTNEED", |at| advise(at, PAGE, madv::DONTNEED)),
        ("MADV_PAGEOUT", |at| advise(at, PAGE, madv::PAGEOUT)),
        ("MADV_FREE", |at| advise(at, PAGE, madv::FREE)),
    ] {
        let at = blocks(1);
        fill(at);
        checks.eq(change(at + 9 * PAGE), Ok(()), what);
        let others = (0..PAGES).filter(|page| *page != 9);
        checks.ok(others.clone().all(|page| peek(at + page * PAGE) == page as u8), "the other pages stay");
        others.for_each(|page| poke(at + page * PAGE, 3));
        let _ = munmap(at, HUGE);
    }
    let at = blocks(1);
    fill(at);
    checks.eq(munmap(at, HUGE / 2), Ok(()), "half of it is unmapped");
    checks.ok((PAGES / 2..PAGES).all(|page| peek(at + page * PAGE) == page as u8), "the other half stays");
    let _ = munmap(at, HUGE);
}

fn forks(checks: &mut Checks, are_there: bool) {
    let at = blocks(1);
    fill(at);
    let writes = || {
        let is_same = is_filled(at);
        (0..PAGES).step_by(3).for_each(|page| poke(at + page * PAGE, 200));
        let is_own = (0..PAGES).all(|page| peek(at + page * PAGE) == if page % 3 == 0 { 200 } else { page as u8 });
        i32::from(!is_same || !is_own)
    };
    checks.exits(writes, 0, "a child has a copy, and writes its own");
    checks.ok(is_filled(at), "of which its parent sees nothing");
    fill(at);
    checks.ok(is_filled(at) && holds(are_there, at, PAGES), "the parent writes in place when the child is gone");
    checks.exits(|| i32::from(!is_filled(at)), 0, "a child that only reads");
    fill(at);
    checks.ok(is_filled(at), "leaves all as it was");
    let _ = munmap(at, HUGE);
}

/// Where none are wanted.
fn refused(checks: &mut Checks) {
    let at = blocks(1);
    checks.eq(advise(at, HUGE, madv::NOHUGEPAGE), Ok(()), "no huge pages");
    poke(at, 1);
    checks.ok(!is_quire() || huge(at, HUGE) == 0, "and there are none");
    let _ = munmap(at, HUGE);
    let has_none = || {
        let done = raw(nr::PRCTL, [pr::SET_THP_DISABLE as usize, 1, 0, 0, 0]);
        let at = blocks(1);
        poke(at, 1);
        i32::from(done != Ok(0) || is_quire() && huge(at, HUGE) != 0)
    };
    checks.exits(has_none, 0, "nor in a process that refuses them");
}

/// Memory in pages is brought together: with holes, after it was in swap, and beside a child.
fn collapsed(checks: &mut Checks) {
    let at = aligned(1);
    (0..PAGES).step_by(2).for_each(|page| poke(at + page * PAGE, page as u8));
    let _ = advise(at + 8 * PAGE, 16 * PAGE, madv::PAGEOUT);
    let is_same = || (0..PAGES).all(|page| peek(at + page * PAGE) == if page % 2 == 0 { page as u8 } else { 0 });
    let mut done = Err(Errno::EAGAIN);
    checks.exits(
        || {
            let done = advise(at, HUGE, madv::COLLAPSE);
            let is_written = is_same() && done.is_ok() == (huge(at, HUGE) == PAGES || !is_quire() && done.is_ok());
            poke(at + 2 * PAGE, 99);
            i32::from(!is_written && !is_short())
        },
        0,
        "a child brings its memory together",
    );
    checks.ok(is_same(), "which leaves its parent's alone");
    for _ in 0..10 {
        done = advise(at, HUGE, madv::COLLAPSE);
        if done != Err(Errno::EAGAIN) {
            break;
        }
    }
    // There may be no block of frames, or no room for one.
    checks.ok(matches!(done, Ok(()) | Err(Errno::ENOMEM | Errno::EAGAIN)), "memory is brought together");
    checks.ok(is_same(), "and is what it was");
    checks.ok(!is_quire() || done.is_err() || huge(at, HUGE) == PAGES || is_short(), "as one block");
    let _ = munmap(at + PAGE, PAGE);
    checks.fails(advise(at, HUGE, madv::COLLAPSE), Errno::EINVAL, "not with a hole");
    let _ = munmap(at, HUGE);
    let at = aligned(1);
    checks.fails(advise(at + PAGE, HUGE - 2 * PAGE, madv::COLLAPSE), Errno::EINVAL, "nor in parts");
    let _ = advise(at, HUGE, madv::NOHUGEPAGE);
    checks.fails(advise(at, HUGE, madv::COLLAPSE), Errno::EINVAL, "nor where it is refused");
    let _ = munmap(at, HUGE);
}

/// Memory comes and goes many times.
fn given_back(checks: &mut Checks) {
    let mut all = true;
    for round in 0..40u8 {
        let at = blocks(1);
        poke(at + usize::from(round) * PAGE, round);
        all &= peek(at + usize::from(round) * PAGE) == round && peek(at + 100 * PAGE) == 0;
        if round % 2 == 0 {
            all &= advise(at, HUGE, madv::DONTNEED).is_ok() && peek(at + usize::from(round) * PAGE) == 0;
        }
        let _ = munmap(at, HUGE);
    }
    checks.ok(all, "forty blocks, one after the other");
}
