//! lazy: pages that are given up by MADV_FREE, pages that will be needed (MADV_WILLNEED), and whole processes that are
//! taken out.
//!
//! MADV_PAGEOUT does at once what pressure does some day. Without swap only what needs none is checked.

#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;

use quire_rt::abi::flags::{Prot, madv};
use quire_rt::abi::nr;
use quire_rt::process::{self, Status};
use quire_rt::{Errno, info, io, mem};
use user_tests::{
    Checks, PAGE, RW, is_quire, is_short, map, mprotect, munmap, peek, poke, raw, shared_counters, start, until,
};

quire_rt::entry!(main);

const PAGES: usize = 64;
const LEN: usize = PAGES * PAGE;

fn advise(at: usize, len: usize, advice: i32) -> Result<(), Errno> {
    // SAFETY: a mapping of the test's own.
    unsafe { mem::madvise(at, len, advice) }
}

fn filled(value: u8) -> usize {
    let at = map(LEN, RW);
    (0..PAGES).for_each(|page| poke(at + page * PAGE, value));
    at
}

fn count(at: usize, value: u8) -> usize {
    (0..PAGES).filter(|page| peek(at + page * PAGE) == value).count()
}

fn resident(at: usize) -> usize {
    let mut pages = [0; PAGES];
    let _ = mem::mincore(at, LEN, &mut pages);
    pages.iter().filter(|page| **page & 1 == 1).count()
}

/// Pages of a mapping that are given up.
fn given_up(at: usize) -> usize {
    if !is_quire() {
        return PAGES;
    }
    let areas = info::areas(0).map_while(Result::ok);
    areas.filter(|area| (area.start..area.end).contains(&(at as u64))).map(|area| area.lazy_free as usize).sum()
}

fn main() -> i32 {
    let mut checks = Checks::new();
    freed(&mut checks);
    across_fork(&mut checks);
    again(&mut checks);
    if info::sysinfo().is_ok_and(|system| system.totalswap != 0) {
        from_swap(&mut checks);
        needed(&mut checks);
        whole_process(&mut checks);
    } else {
        checks.skip("pages in swap", "there is none");
    }
    checks.finish()
}

fn freed(checks: &mut Checks) {
    // Without swap, what was written stays.
    let leaves = info::sysinfo().is_ok_and(|system| system.totalswap != 0) && is_quire() && !is_short();
    let at = filled(9);
    checks.eq(advise(at, LEN, madv::FREE), Ok(()), "pages are given up");
    checks.ok(given_up(at) == PAGES || is_short(), "all of them");
    checks.ok(count(at, 9) == PAGES || is_short(), "their contents stay for now");
    checks.eq(count(at, 9) + count(at, 0), PAGES, "or are zeros");
    (0..PAGES).step_by(2).for_each(|page| poke(at + page * PAGE, 5));
    checks.ok(given_up(at) == PAGES / 2 || is_short() || !is_quire(), "half of them are written, and stay");
    checks.eq(advise(at, LEN, madv::PAGEOUT), Ok(()), "all go");
    checks.ok(resident(at) == 0 || !leaves, "none is in memory");
    checks.eq(count(at, 5), PAGES / 2, "what was written afterwards comes back");
    checks.ok(count(at, 0) == PAGES / 2 || !is_quire(), "the others are zeros");
    (0..PAGES).for_each(|page| poke(at + page * PAGE, 3));
    // Rights that come and go change nothing.
    let _ = advise(at, LEN, madv::FREE);
    let _ = mprotect(at, LEN, Prot::READ);
    let _ = mprotect(at, LEN, RW);
    (0..PAGES / 2).for_each(|page| poke(at + page * PAGE, 4));
    let _ = advise(at, LEN, madv::PAGEOUT);
    checks.eq((0..PAGES / 2).filter(|page| peek(at + page * PAGE) == 4).count(), PAGES / 2, "written after mprotect");
    checks.eq(count(at, 4) + count(at, 3) + count(at, 0), PAGES, "the others are what they were, or zeros");
    // Locking is a promise that they are there.
    (0..PAGES).for_each(|page| poke(at + page * PAGE, 6));
    let _ = advise(at, LEN, madv::FREE);
    if mem::mlock(at, LEN).is_ok() {
        let seen = [6, 0].map(|value| count(at, value));
        let _ = mem::munlock(at, LEN);
        let _ = advise(at, LEN, madv::PAGEOUT);
        checks.eq([6, 0].map(|value| count(at, value)), seen, "what was locked stays as it was then");
    }
    let _ = munmap(at, LEN);
}

/// What was given up before a fork may go for both; nobody loses what it wrote since.
fn across_fork(checks: &mut Checks) {
    let at = filled(9);
    let _ = advise(at, LEN, madv::FREE);
    let children = [1, 2].map(|number| {
        start(|| {
            (0..PAGES / 2).for_each(|page| poke(at + page * PAGE, number));
            let _ = advise(at, LEN, madv::PAGEOUT);
            let is_kept = count(at, number) == PAGES / 2;
            (!is_kept || count(at, 9) + count(at, 0) != PAGES / 2) as i32
        })
    });
    (PAGES / 2..PAGES).for_each(|page| poke(at + page * PAGE, 7));
    let _ = advise(at, LEN, madv::PAGEOUT);
    checks.eq(count(at, 7), PAGES / 2, "the parent has what it wrote");
    for child in children {
        checks.eq(child.and_then(process::waitpid), Ok(Status::Exited(0)), "and so has a child");
    }
    let _ = advise(at, LEN, madv::PAGEOUT);
    checks.eq(count(at, 7), PAGES / 2, "also when that has ended");
    // What a child has too is not given up by the parent alone.
    (0..PAGES).for_each(|page| poke(at + page * PAGE, 8));
    let go = &shared_counters()[0];
    let child = start(|| {
        until(|| go.load(SeqCst) == 1);
        (count(at, 8) != PAGES) as i32
    });
    let _ = advise(at, LEN, madv::FREE);
    let _ = advise(at, LEN, madv::PAGEOUT);
    go.store(1, SeqCst);
    checks.eq(child.and_then(process::waitpid), Ok(Status::Exited(0)), "a child keeps what its parent gives up");
    let _ = munmap(at, LEN);
}

/// Given up, written in part, and gone, again and again.
fn again(checks: &mut Checks) {
    let at = filled(1);
    let mut lost = 0;
    for round in 0..200u32 {
        let value = (round % 250) as u8 + 2;
        let _ = advise(at, LEN, madv::FREE);
        (0..PAGES).step_by(3).for_each(|page| poke(at + page * PAGE, value));
        if round % 4 == 0 {
            let _ = advise(at, LEN, madv::PAGEOUT);
        }
        lost += (0..PAGES).step_by(3).filter(|page| peek(at + page * PAGE) != value).count();
    }
    checks.eq(lost, 0, "over and over");
    let _ = munmap(at, LEN);
}

fn free_swap() -> u64 {
    info::sysinfo().map_or(0, |info| info.freeswap)
}

fn from_swap(checks: &mut Checks) {
    let at = filled(9);
    let _ = advise(at, LEN, madv::PAGEOUT);
    let before = free_swap();
    checks.eq(advise(at, LEN, madv::FREE), Ok(()), "pages in swap are given up");
    checks.ok(free_swap() >= before + LEN as u64 || is_short(), "their slots are free");
    checks.ok(count(at, 0) == PAGES || !is_quire(), "and they are zeros");
    let _ = munmap(at, LEN);
}

fn needed(checks: &mut Checks) {
    let at = filled(9);
    let _ = advise(at, LEN, madv::PAGEOUT);
    let faults = || process::getrusage(1).map_or(-1, |usage| usage.majflt);
    let before = faults();
    checks.eq(advise(at, LEN, madv::WILLNEED), Ok(()), "pages in swap will be needed");
    checks.ok(resident(at) == PAGES || is_short() || !is_quire(), "they are there");
    checks.eq(count(at, 9), PAGES, "as they were");
    checks.ok(faults() == before || is_short() || !is_quire(), "without a major fault");
    let hole = at + PAGES / 2 * PAGE;
    let _ = munmap(hole, PAGE);
    checks.fails(advise(at, LEN, madv::WILLNEED), Errno::ENOMEM, "a hole is told of");
    checks.eq(advise(at, PAGE, madv::WILLNEED), Ok(()), "what is there already");
    let _ = munmap(at, LEN);
}

/// A child that waits is taken out, by the command, and goes on.
fn whole_process(checks: &mut Checks) {
    let shared = shared_counters();
    let child = start(|| {
        let at = filled(77);
        shared[0].store(at as u64, SeqCst);
        let is_told = until(|| shared[1].load(SeqCst) == 1);
        (!is_told || count(at, 77) != PAGES) as i32
    });
    let Ok(pid) = child else { return checks.ok(false, "a child") };
    checks.ok(until(|| shared[0].load(SeqCst) != 0), "a process has memory");
    let at = shared[0].load(SeqCst);
    let swapped = || -> u64 {
        let areas = info::areas(pid as u32).map_while(Result::ok);
        areas.filter(|area| (area.start..area.end).contains(&at)).map(|area| area.swapped).sum()
    };
    if is_quire() {
        let mut digits = [0u8; 12];
        let done = start(|| {
            let name = decimal(pid as u32, &mut digits);
            let _ = process::execve(c"/bin/swapout", [c"swapout", name], core::iter::empty());
            1
        });
        checks.eq(done.and_then(process::waitpid), Ok(Status::Exited(0)), "swapout");
        checks.ok(swapped() == PAGES as u64 || is_short(), "its memory is in swap");
    }
    // The same by the call, whose parts may be refused.
    let fd = raw(nr::PIDFD_OPEN, [pid as usize, 0, 0, 0, 0, 0]).unwrap_or(usize::MAX);
    let call = |parts: &[[usize; 2]], advice: i32| {
        raw(nr::PROCESS_MADVISE, [fd, parts.as_ptr() as usize, parts.len(), advice as usize, 0, 0])
    };
    let at = at as usize;
    checks.eq(call(&[[at, LEN]], madv::WILLNEED), Ok(LEN), "WILLNEED for another process");
    checks.ok(swapped() == 0 || is_short() || !is_quire(), "brings it in");
    checks.eq(call(&[[at, LEN / 2], [at + LEN / 2, LEN / 2]], madv::COLD), Ok(LEN), "COLD in two parts");
    checks.eq(call(&[[at, LEN], [at + 1, PAGE]], madv::PAGEOUT), Ok(LEN), "what is done before a bad part counts");
    checks.fails(call(&[[at + 1, PAGE]], madv::PAGEOUT), Errno::EINVAL, "a bad part alone");
    checks.fails(call(&[[at, LEN]], madv::FREE), Errno::EINVAL, "FREE is for a process's own memory");
    checks.fails(call(&[[at, LEN]], madv::DONTNEED), Errno::EINVAL, "DONTNEED too");
    shared[1].store(1, SeqCst);
    checks.eq(process::waitpid(pid), Ok(Status::Exited(0)), "it goes on with all that it had");
    checks.fails(call(&[[at, LEN]], madv::PAGEOUT), Errno::ESRCH, "a process that has ended");
    let _ = io::close(fd as i32);
}

/// A number as a C string.
fn decimal(mut number: u32, into: &mut [u8; 12]) -> &core::ffi::CStr {
    let mut at = into.len() - 1;
    into[at] = 0;
    loop {
        at -= 1;
        into[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 || at == 0 {
            break;
        }
    }
    core::ffi::CStr::from_bytes_with_nul(&into[at..]).unwrap_or_default()
}
