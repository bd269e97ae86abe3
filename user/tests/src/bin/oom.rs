//! oom: out of memory, the process that uses most is killed, whether it sleeps or asks for more, and the others go on,
//! with no error from their calls.
//!
//! Filling memory takes time, so this test runs on small machines only.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use quire_rt::abi::flags::{Map, Mremap, Open, madv, sig};
use quire_rt::abi::layout::{PollFd, Timespec, poll};
use quire_rt::abi::nr;
use quire_rt::process::{self, Status};
use quire_rt::{Errno, fs, info, io, time};
use user_tests::{Checks, PAGE, RW, mmap, peek, poke, raw, shared_counters, start};

quire_rt::entry!(main);

/// More memory than this is too much to fill.
const LIMIT: usize = 400 << 20;

/// Maps memory and writes to a part of it, page by page; records its progress. Returns the address.
fn hog(len: usize, progress: &AtomicU64) -> usize {
    let flags = Map::PRIVATE | Map::ANONYMOUS | Map::NORESERVE;
    let at = mmap(0, len, RW, flags, -1, 0).unwrap_or(0);
    for page in 0..len / PAGE {
        poke(at + page * PAGE, page as u8 | 1);
        progress.store(page as u64 + 1, Ordering::Release);
    }
    at
}

fn intact(at: usize, len: usize) -> bool {
    (0..len / PAGE).all(|page| peek(at + page * PAGE) == page as u8 | 1)
}

fn wait_for(progress: &AtomicU64, len: usize) {
    while progress.load(Ordering::Acquire) < (len / PAGE) as u64 {
        time::sleep_ms(5);
    }
}

fn sleep_until(flag: &AtomicU64) {
    while flag.load(Ordering::Acquire) == 0 {
        time::sleep_ms(5);
    }
}

fn main() -> i32 {
    let mut checks = Checks::new();
    let free = info::sysinfo().map_or(usize::MAX, |info| info.freeram as usize * info.mem_unit.max(1) as usize);
    if free > LIMIT {
        checks.skip("out of memory", "there is too much of it");
        return checks.finish();
    }
    if info::counter("nr_swap_total").unwrap_or(0) != 0 {
        checks.skip("out of memory", "there is swap, to which what this writes goes");
        return checks.finish();
    }
    for _ in 0..2 {
        asking(&mut checks, free);
        sleeping(&mut checks, free);
    }
    alone(&mut checks, free);
    calls(&mut checks, free);
    checks.finish()
}

/// Two processes that hold a part each, and one that keeps asking for more.
fn asking(checks: &mut Checks, free: usize) {
    let counters = shared_counters();
    let (small, large) = (free / 8, free / 4);
    let keeper = |slot: usize, len: usize| {
        start(|| {
            let at = hog(len, &counters[slot]);
            sleep_until(&counters[7]);
            !intact(at, len) as i32
        })
    };
    let first = keeper(0, small);
    let second = keeper(1, large);
    wait_for(&counters[0], small);
    wait_for(&counters[1], large);
    let greedy = start(|| {
        hog(4 * free, &counters[2]);
        0
    });
    checks.eq(
        greedy.and_then(process::waitpid),
        Ok(Status::Killed(sig::KILL)),
        "a process that keeps asking for memory is killed",
    );
    checks.ok(counters[2].load(Ordering::Relaxed) > (large / PAGE) as u64, "when it has most");
    counters[7].store(1, Ordering::Release);
    checks.eq(first.and_then(process::waitpid), Ok(Status::Exited(0)), "the smallest goes on");
    checks.eq(second.and_then(process::waitpid), Ok(Status::Exited(0)), "the second goes on");
    end(counters);
}

/// One process that holds most memory and sleeps, and one that asks for one page too many.
fn sleeping(checks: &mut Checks, free: usize) {
    let counters = shared_counters();
    let (most, wanted) = (free / 16 * 9, free / 2);
    let sleeper = start(|| {
        hog(most, &counters[0]);
        sleep_until(&counters[7]);
        0
    });
    wait_for(&counters[0], most);
    let asker = start(|| {
        let at = hog(wanted, &counters[1]);
        !intact(at, wanted) as i32
    });
    checks.eq(
        sleeper.and_then(process::waitpid),
        Ok(Status::Killed(sig::KILL)),
        "the process that holds most is killed, though it sleeps",
    );
    checks.eq(
        asker.and_then(process::waitpid),
        Ok(Status::Exited(0)),
        "the process that asked gets its page and goes on",
    );
    end(counters);
}

/// Several at once, with no other large process.
fn alone(checks: &mut Checks, free: usize) {
    let counters = shared_counters();
    let hogs = [0, 1, 2].map(|slot| {
        start(|| {
            hog(4 * free, &counters[slot]);
            0
        })
    });
    let ends = hogs.map(|hog| hog.and_then(process::waitpid));
    checks
        .ok(ends.iter().all(|end| *end == Ok(Status::Killed(sig::KILL))), "of three that want all, all die in the end");
    end(counters);
}

/// Calls beside a process that asks for all memory, is killed, and comes again: none fails for want of memory.
fn calls(checks: &mut Checks, free: usize) {
    const KILLED: u64 = 6;
    let counters = shared_counters();
    let again = start(|| {
        while counters[7].load(Ordering::Acquire) == 0 {
            let hog = start(|| {
                hog(4 * free, &counters[1]);
                0
            });
            if hog.and_then(process::waitpid) == Ok(Status::Killed(sig::KILL)) {
                counters[0].fetch_add(1, Ordering::AcqRel);
            }
        }
        0
    });
    let mut failed = None;
    while counters[0].load(Ordering::Acquire) < KILLED {
        for (name, call) in CALLS {
            failed = failed.or(call().err().map(|e| (*name, e)));
        }
    }
    counters[7].store(1, Ordering::Release);
    checks.eq(failed, None, "calls beside it wait for its memory");
    checks.eq(again.and_then(process::waitpid), Ok(Status::Exited(0)), "it ends");
    end(counters);
}

type Call = fn() -> Result<(), Errno>;

/// Calls that allocate, each undone at once.
const CALLS: &[(&str, Call)] = &[
    ("pipe", || {
        let (read, write) = io::pipe(0)?;
        let written = io::write(write, &[1; 40_000]);
        io::close(read)?;
        io::close(write)?;
        written.map(|_| ())
    }),
    ("ppoll", || {
        let nothing = [PollFd { fd: -1, events: poll::IN, revents: 0 }; 800];
        let now = Timespec::default();
        raw(nr::PPOLL, [nothing.as_ptr() as usize, nothing.len(), &raw const now as usize, 0, 0]).map(|_| ())
    }),
    ("memfd_create", || {
        let fd = raw(nr::MEMFD_CREATE, [c"".as_ptr() as usize, 0])?;
        let written = io::write(fd as i32, &[1; 40_000]);
        let allocated = raw(nr::FALLOCATE, [fd, 0, 0, 64 * PAGE]);
        io::close(fd as i32)?;
        if written? == 40_000 { allocated.map(|_| ()) } else { Ok(()) }
    }),
    ("openat", || io::close(fs::open(c"/tests/oom", Open::empty())?)),
    ("mlock", || {
        let at = mmap(0, 16 * PAGE, RW, Map::PRIVATE | Map::ANONYMOUS, -1, 0)?;
        let locked = raw(nr::MLOCK, [at, 16 * PAGE]);
        user_tests::munmap(at, 16 * PAGE)?;
        locked.map(|_| ())
    }),
    ("madvise", || {
        let at = mmap(0, 16 * PAGE, RW, Map::PRIVATE | Map::ANONYMOUS, -1, 0)?;
        let split = raw(nr::MADVISE, [at + PAGE, PAGE, madv::DONTFORK as usize]);
        let filled = raw(nr::MADVISE, [at, 16 * PAGE, madv::POPULATE_WRITE as usize]);
        user_tests::munmap(at, 16 * PAGE)?;
        split.and(filled).map(|_| ())
    }),
    ("mremap", || {
        let at = mmap(0, PAGE, RW, Map::PRIVATE | Map::ANONYMOUS, -1, 0)?;
        poke(at, 1);
        let moved = raw(nr::MREMAP, [at, PAGE, 4 << 20, Mremap::MAYMOVE.bits() as usize])?;
        user_tests::munmap(moved, 4 << 20)
    }),
    ("brk", || {
        let end = raw(nr::BRK, [0])?;
        let moved = raw(nr::BRK, [end + 8 * PAGE])?;
        let back = raw(nr::BRK, [end])?;
        if (moved, back) == (end + 8 * PAGE, end) { Ok(()) } else { Err(Errno::ENOMEM) }
    }),
    ("fork", || {
        let status = start(|| 0).and_then(process::waitpid)?;
        if status == Status::Exited(0) { Ok(()) } else { Err(Errno::ECHILD) }
    }),
];

fn end(counters: &'static [AtomicU64; PAGE / 8]) {
    let _ = user_tests::munmap(counters.as_ptr() as usize, PAGE);
}
