//! mlock, mlock2, munlock, mlockall, munlockall and MAP_LOCKED.
//!
//! A privileged process is not bound by RLIMIT_MEMLOCK, so the checks of the limit drop their privilege first.

#![no_std]
#![no_main]

use quire_rt::Errno;
use quire_rt::abi::flags::{Map, Mremap, Prot};
use quire_rt::abi::layout::{Rlimit, rlimit};
use quire_rt::abi::nr;
use quire_rt::{mem, process};
use user_tests::{Checks, KERNEL, PAGE, RW, map, mmap, munmap, poke, raw};

quire_rt::entry!(main);

const ANON: Map = Map::PRIVATE.union(Map::ANONYMOUS);
const ONFAULT: usize = 1;
const CURRENT: usize = 1;
const FUTURE: usize = 2;
const ALL_ONFAULT: usize = 4;

fn mlock2(at: usize, len: usize, flags: usize) -> Result<(), Errno> {
    raw(nr::MLOCK2, [at, len, flags]).map(drop)
}

fn mlockall(flags: usize) -> Result<(), Errno> {
    raw(nr::MLOCKALL, [flags]).map(drop)
}

/// How many of the pages are in memory.
fn resident(at: usize, pages: usize) -> usize {
    let mut vec = [0; 64];
    let known = mem::mincore(at, pages * PAGE, &mut vec);
    if known.is_ok() { vec[..pages].iter().filter(|page| **page & 1 == 1).count() } else { usize::MAX }
}

/// An error as an exit status.
fn number(error: Errno) -> i32 {
    error.get()
}

/// Runs as a process without privilege that may lock `bytes`. Returns what `run` does, as the child's status.
fn limited(bytes: usize, run: impl FnOnce() -> Option<Errno>) -> Result<process::Status, Errno> {
    user_tests::child(|| {
        let bytes = bytes as u64;
        if process::prlimit(rlimit::MEMLOCK, Some(Rlimit { cur: bytes, max: bytes })).is_err() {
            return 255;
        }
        if raw(nr::SETUID, [1000]).is_err() {
            return 254;
        }
        run().map_or(0, number)
    })
}

fn main() -> i32 {
    let mut checks = Checks::new();
    locking(&mut checks);
    refused(&mut checks);
    everything(&mut checks);
    limits(&mut checks);
    checks.finish()
}

fn locking(checks: &mut Checks) {
    let at = map(8 * PAGE, RW);
    checks.eq(mem::mlock(at + PAGE, 3 * PAGE), Ok(()), "mlock");
    checks.eq(resident(at, 8), 3, "brings the pages in, those alone");
    checks.eq(mem::mlock(at + PAGE, 3 * PAGE), Ok(()), "twice");
    checks.eq(mem::munlock(at + PAGE, 3 * PAGE), Ok(()), "munlock");
    checks.eq(mem::munlock(at, 8 * PAGE), Ok(()), "of what is not locked");
    checks.eq(resident(at, 8), 3, "leaves pages where they are");
    checks.eq(mem::mlock(at + 6 * PAGE + 5, 2), Ok(()), "mlock of two bytes");
    checks.eq(resident(at, 8), 4, "locks their page");
    checks.eq(mlock2(at + 5 * PAGE, PAGE, 0), Ok(()), "mlock2 without flags");
    checks.eq(resident(at, 8), 5, "is mlock");
    checks.eq(mlock2(at, 8 * PAGE, ONFAULT), Ok(()), "mlock2 ONFAULT");
    checks.eq(resident(at, 8), 5, "brings nothing in");
    poke(at, 1);
    checks.eq(resident(at, 8), 6, "but what is touched");
    let _ = munmap(at, 8 * PAGE);

    let locked = mmap(0, 4 * PAGE, RW, ANON | Map::LOCKED, -1, 0).unwrap_or(0);
    checks.eq(resident(locked, 4), 4, "MAP_LOCKED brings pages in");
    // SAFETY: the test's own mapping, which moves as a whole.
    let grown = unsafe { mem::mremap(locked, 4 * PAGE, 6 * PAGE, Mremap::MAYMOVE, 0) }.unwrap_or(0);
    checks.eq(resident(grown, 6), 6, "and mremap what it adds to them");
    let _ = munmap(grown, 6 * PAGE);
    let none = map(2 * PAGE, Prot::empty());
    checks.fails(mem::mlock(none, PAGE), Errno::ENOMEM, "memory without rights cannot be brought in");
    let _ = munmap(none, 2 * PAGE);
}

fn refused(checks: &mut Checks) {
    let at = map(4 * PAGE, RW);
    checks.eq(mem::mlock(at, 0), Ok(()), "length 0");
    checks.fails(mem::mlock(at, usize::MAX - 2 * PAGE), Errno::EINVAL, "a range that wraps");
    checks.fails(mem::munlock(at, usize::MAX - 2 * PAGE), Errno::EINVAL, "to unlock, too");
    checks.fails(mlock2(at, PAGE, 2), Errno::EINVAL, "an unknown flag");
    checks.fails(mem::mlock(KERNEL, PAGE), Errno::ENOMEM, "the kernel's half");
    let _ = munmap(at + PAGE, PAGE);
    checks.fails(mem::mlock(at, 4 * PAGE), Errno::ENOMEM, "a hole");
    checks.fails(mem::mlock(at + PAGE, 2 * PAGE), Errno::ENOMEM, "a hole at the beginning");
    checks.fails(mem::munlock(at, 4 * PAGE), Errno::ENOMEM, "a hole cannot be unlocked either");
    let _ = munmap(at, 4 * PAGE);
    for (what, flags) in [("no flag", 0), ("an unknown flag", 8), ("ONFAULT alone", ALL_ONFAULT)] {
        checks.fails(mlockall(flags), Errno::EINVAL, what);
    }
}

fn everything(checks: &mut Checks) {
    // In children, since these calls lock all memory of a process.
    let unlimited = Rlimit { cur: rlimit::INFINITY, max: rlimit::INFINITY };
    let old = map(4 * PAGE, RW);
    let mut in_child = |what: &str, run: &dyn Fn() -> bool| {
        let status = user_tests::child(|| {
            let _ = process::prlimit(rlimit::MEMLOCK, Some(unlimited));
            !run() as i32
        });
        checks.eq(status, Ok(process::Status::Exited(0)), what);
    };
    let now = || mmap(0, 4 * PAGE, RW, ANON, -1, 0).unwrap_or(0);
    in_child("mlockall CURRENT brings in what there is", &|| {
        mlockall(CURRENT).is_ok() && resident(old, 4) == 4 && resident(now(), 4) == 0
    });
    in_child("FUTURE what there will be", &|| {
        mlockall(FUTURE).is_ok() && resident(old, 4) == 0 && resident(now(), 4) == 4
    });
    in_child("both both", &|| mlockall(CURRENT | FUTURE).is_ok() && resident(old, 4) == 4 && resident(now(), 4) == 4);
    in_child("with ONFAULT nothing", &|| {
        mlockall(CURRENT | FUTURE | ALL_ONFAULT).is_ok() && resident(old, 4) == 0 && resident(now(), 4) == 0
    });
    in_child("munlockall ends FUTURE", &|| {
        mlockall(CURRENT | FUTURE).is_ok() && raw(nr::MUNLOCKALL, []).is_ok() && resident(now(), 4) == 0
    });
    in_child("fork's child has no locks", &|| {
        mlockall(FUTURE).is_ok()
            && user_tests::child(|| (resident(now(), 4) != 0) as i32) == Ok(process::Status::Exited(0))
    });
    let _ = munmap(old, 4 * PAGE);
}

fn limits(checks: &mut Checks) {
    let at = map(8 * PAGE, RW);
    let mut check = |bytes: usize, wanted: Option<Errno>, what: &str, run: &dyn Fn() -> Result<(), Errno>| {
        let wanted = wanted.map_or(0, number) as u8;
        checks.eq(limited(bytes, || run().err()), Ok(process::Status::Exited(wanted)), what);
    };
    let none = None;
    check(4 * PAGE, none, "as much as the limit allows", &|| mem::mlock(at, 4 * PAGE));
    check(4 * PAGE, Some(Errno::ENOMEM), "more is ENOMEM", &|| mem::mlock(at, 5 * PAGE));
    check(4 * PAGE, none, "what is locked twice counts once", &|| {
        mem::mlock(at, 3 * PAGE).and_then(|()| mem::mlock(at + PAGE, 3 * PAGE))
    });
    check(4 * PAGE, Some(Errno::ENOMEM), "what is locked counts", &|| {
        mem::mlock(at, 3 * PAGE).and_then(|()| mem::mlock(at + 4 * PAGE, 2 * PAGE))
    });
    check(4 * PAGE, none, "what was unlocked does not", &|| {
        mem::mlock(at, 3 * PAGE).and_then(|()| mem::munlock(at, 3 * PAGE)).and_then(|()| mem::mlock(at, 4 * PAGE))
    });
    check(4 * PAGE, Some(Errno::EAGAIN), "MAP_LOCKED beyond it is EAGAIN", &|| {
        mmap(0, 5 * PAGE, RW, ANON | Map::LOCKED, -1, 0).map(drop)
    });
    check(4 * PAGE, Some(Errno::EAGAIN), "so is mremap of locked memory", &|| {
        mem::mlock(at, 4 * PAGE)?;
        // SAFETY: the test's own mapping.
        unsafe { mem::mremap(at, 4 * PAGE, 5 * PAGE, Mremap::MAYMOVE, 0) }.map(drop)
    });
    check(4 * PAGE, Some(Errno::ENOMEM), "mlockall is ENOMEM", &|| mlockall(CURRENT));
    check(4 * PAGE, Some(Errno::EAGAIN), "FUTURE makes mmap EAGAIN", &|| {
        mlockall(FUTURE)?;
        mmap(0, 5 * PAGE, RW, ANON, -1, 0).map(drop)
    });
    check(0, Some(Errno::EPERM), "with a limit of 0, mlock is EPERM", &|| mem::mlock(at, PAGE));
    check(0, Some(Errno::EPERM), "mlock2, too", &|| mlock2(at, PAGE, ONFAULT));
    check(0, Some(Errno::EPERM), "MAP_LOCKED, too", &|| mmap(0, PAGE, RW, ANON | Map::LOCKED, -1, 0).map(drop));
    check(0, Some(Errno::EPERM), "mlockall, too", &|| mlockall(CURRENT));
    check(0, none, "munlock is not", &|| mem::munlock(at, PAGE));
    check(0, none, "nor munlockall", &|| raw(nr::MUNLOCKALL, []).map(drop));
    let _ = munmap(at, 8 * PAGE);
}
