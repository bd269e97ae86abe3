//! failmem: memory runs out at every step of the calls that map memory, and of the faults that fill it. A call then
//! fails and leaves the state as it was, or as Linux leaves it; a program that cannot get its page is killed.

#![no_std]
#![no_main]

use core::ffi::CStr;

use quire_rt::Errno;
use quire_rt::abi::flags::{Map, Mremap, Open, Prot, madv};
use quire_rt::abi::layout::at;
use quire_rt::abi::nr;
use quire_rt::start::auxv;
use quire_rt::{fs, io};
use user_tests::failing::{Call, Raw, area, arm, is_available, is_mapped, place};
use user_tests::{Checks, PAGE, RW, all, mmap, mprotect, munmap, peek, poke, raw};

quire_rt::entry!(main);

const NO_MEMORY: &[Errno] = &[Errno::ENOMEM];
const ANONYMOUS: Map = Map::PRIVATE.union(Map::ANONYMOUS);

fn main() -> i32 {
    let mut checks = Checks::new();
    if !is_available() {
        checks.skip("allocations that fail", "this kernel cannot be asked for them");
        return checks.finish();
    }
    checks.eq((arm(1000), arm(0) > 0, arm(0)), (0, true, 0), "what was asked for is told");
    mapping(&mut checks);
    cutting(&mut checks);
    moving(&mut checks);
    advising(&mut checks);
    locking(&mut checks);
    faulting(&mut checks);
    checks.finish()
}

/// A file of the archive, open for reading.
fn file() -> i32 {
    let path = match auxv(at::EXECFN) {
        // SAFETY: the kernel put a terminated string there.
        Some(path) if path != 0 => unsafe { CStr::from_ptr(path as *const core::ffi::c_char) },
        _ => c"/tests/failmem",
    };
    fs::open(path, Open::empty()).expect("this program's file")
}

/// `pages` pages, each filled with a byte.
fn filled(pages: usize) -> usize {
    let at = area(pages, RW);
    (0..pages).for_each(|page| poke(at + page * PAGE, 7));
    at
}

fn is_filled(at: usize, pages: usize) -> bool {
    (0..pages).all(|page| peek(at + page * PAGE) == 7)
}

fn mapping(checks: &mut Checks) {
    let fd = file();
    let kinds = [
        ("mmap", Map::PRIVATE | Map::ANONYMOUS, -1, 1),
        ("mmap of shared memory", Map::SHARED | Map::ANONYMOUS, -1, 2),
        ("mmap of a file", Map::PRIVATE, fd, 1),
        ("mmap of a shared file", Map::SHARED, fd, 1),
        ("mmap of a stack", ANONYMOUS | Map::GROWSDOWN, -1, 1),
        ("mmap, populated", ANONYMOUS | Map::POPULATE, -1, 5),
        ("mmap of shared memory, populated", Map::SHARED | Map::ANONYMOUS | Map::POPULATE, -1, 6),
        ("mmap, locked", ANONYMOUS | Map::LOCKED, -1, 5),
    ];
    for (name, flags, fd, least) in kinds {
        let prot = if fd >= 0 { Prot::READ } else { RW };
        Call { name, errnos: NO_MEMORY, least }.check(
            checks,
            place,
            |at| mmap_call(*at, 4, prot, flags | Map::FIXED_NOREPLACE, fd),
            |at, done| {
                let sound = is_mapped(at, 4) == done.is_ok();
                // Pages that could not be populated come with the first access.
                let sound = sound && (done.is_err() || fd >= 0 || all(at, 4 * PAGE, 0));
                let _ = munmap(at, 4 * PAGE);
                sound
            },
        );
    }
    Call { name: "mmap over something mapped", errnos: NO_MEMORY, least: 2 }.check(
        checks,
        || filled(6),
        |at| mmap_call(at + 2 * PAGE, 2, Prot::READ, ANONYMOUS | Map::FIXED, -1),
        |at, done| {
            let rest = is_filled(at, 2) && is_filled(at + 4 * PAGE, 2);
            let there = if done.is_ok() { all(at + 2 * PAGE, 2 * PAGE, 0) } else { is_filled(at + 2 * PAGE, 2) };
            let _ = munmap(at, 6 * PAGE);
            rest && there
        },
    );
    let _ = io::close(fd);
    // The gap between the program's end and its heap belongs to no area, so the first growth needs a new one.
    let brk = |end: usize| raw(nr::BRK, [end]).unwrap_or(0);
    let start = brk(0);
    Call { name: "brk", errnos: &[], least: 1 }.check(
        checks,
        || brk(start),
        |end| (nr::BRK, [end + 3 * PAGE, 0, 0, 0, 0, 0]),
        |end, done| {
            let sound = done == Ok(brk(0)) && [Ok(end), Ok(end + 3 * PAGE)].contains(&done);
            sound && brk(start) == start
        },
    );
}

/// The call that maps pages.
fn mmap_call(at: usize, pages: usize, prot: Prot, flags: Map, fd: i32) -> Raw {
    (nr::MMAP, [at, pages * PAGE, prot.bits() as usize, flags.bits() as usize, fd as usize, 0])
}

/// Any other call about pages.
fn call(number: usize, at: usize, pages: usize, more: usize) -> Raw {
    (number, [at, pages * PAGE, more, 0, 0, 0])
}

fn cutting(checks: &mut Checks) {
    Call { name: "munmap", errnos: NO_MEMORY, least: 1 }.check(
        checks,
        || filled(6),
        |at| call(nr::MUNMAP, at + 2 * PAGE, 2, 0),
        |at, done| {
            let rest = is_filled(at, 2) && is_filled(at + 4 * PAGE, 2);
            let sound = rest && is_mapped(at + 2 * PAGE, 2) == done.is_err();
            let sound = sound && (done.is_ok() || is_filled(at, 6));
            let _ = munmap(at, 6 * PAGE);
            sound
        },
    );
    for (name, prot) in [("mprotect", Prot::empty()), ("mprotect to read", Prot::READ)] {
        Call { name, errnos: NO_MEMORY, least: 2 }.check(
            checks,
            || filled(6),
            |at| call(nr::MPROTECT, at + 2 * PAGE, 2, prot.bits() as usize),
            |at, done| {
                if done.is_err() {
                    (0..6).for_each(|page| poke(at + page * PAGE, 7));
                }
                let _ = mprotect(at, 6 * PAGE, RW);
                let sound = is_filled(at, 6);
                let _ = munmap(at, 6 * PAGE);
                sound
            },
        );
    }
}

fn moving(checks: &mut Checks) {
    let remap = |at: usize, old: usize, new: usize, flags: Mremap, to: usize| {
        (nr::MREMAP, [at, old * PAGE, new * PAGE, flags.bits() as usize, to, 0])
    };
    Call { name: "mremap that moves", errnos: NO_MEMORY, least: 2 }.check(
        checks,
        || filled(6),
        |at| remap(*at, 4, 5, Mremap::MAYMOVE, 0),
        |at, done| {
            let sound = match done {
                Ok(to) => is_filled(to, 4) && is_filled(at + 4 * PAGE, 2),
                Err(_) => is_filled(at, 6),
            };
            let _ = done.map(|to| munmap(to, 5 * PAGE));
            let _ = munmap(at, 6 * PAGE);
            sound
        },
    );
    Call { name: "mremap to a place of ours", errnos: NO_MEMORY, least: 2 }.check(
        checks,
        || (filled(6), filled(6)),
        |(at, to)| remap(*at, 4, 4, Mremap::MAYMOVE | Mremap::FIXED, to + PAGE),
        |(at, to), done| {
            // The target may have been unmapped by then.
            let sound = if done.is_ok() { is_filled(to, 6) && is_filled(at + 4 * PAGE, 2) } else { is_filled(at, 6) };
            let sound = sound && peek(to) == 7 && peek(to + 5 * PAGE) == 7;
            let _ = munmap(at, 6 * PAGE);
            let _ = munmap(to, 6 * PAGE);
            sound
        },
    );
    Call { name: "mremap that leaves the old range", errnos: NO_MEMORY, least: 2 }.check(
        checks,
        || (filled(4), place()),
        |(at, to)| remap(*at, 4, 4, Mremap::MAYMOVE | Mremap::FIXED | Mremap::DONTUNMAP, *to),
        |(at, to), done| {
            let sound = if done.is_ok() { is_filled(to, 4) && all(at, 4 * PAGE, 0) } else { is_filled(at, 4) };
            let _ = munmap(at, 4 * PAGE);
            let _ = munmap(to, 4 * PAGE);
            sound
        },
    );
    Call { name: "mremap that shrinks", errnos: NO_MEMORY, least: 1 }.check(
        checks,
        || filled(6),
        |at| remap(*at, 4, 2, Mremap::empty(), 0),
        |at, done| {
            let rest = is_filled(at, 2) && is_filled(at + 4 * PAGE, 2);
            let sound = rest && (done.is_ok() || is_filled(at, 6));
            let _ = munmap(at, 6 * PAGE);
            sound
        },
    );
}

fn advising(checks: &mut Checks) {
    let advise = |at: usize, pages: usize, advice: i32| call(nr::MADVISE, at, pages, advice as usize);
    for (name, advice) in [
        ("madvise: not for children", madv::DONTFORK),
        ("madvise: zeros for children", madv::WIPEONFORK),
        ("madvise: at random", madv::RANDOM),
        ("madvise: no huge pages", madv::NOHUGEPAGE),
    ] {
        // The one call that answers another errno than ENOMEM.
        Call { name, errnos: &[Errno::EAGAIN], least: 2 }.check(
            checks,
            || filled(6),
            |at| advise(at + 2 * PAGE, 2, advice),
            |at, _| {
                let sound = is_filled(at, 6);
                let _ = munmap(at, 6 * PAGE);
                sound
            },
        );
    }
    for (name, advice, least) in
        [("madvise: populate to read", madv::POPULATE_READ, 1), ("madvise: populate to write", madv::POPULATE_WRITE, 5)]
    {
        Call { name, errnos: NO_MEMORY, least }.check(
            checks,
            || area(4, RW),
            |at| advise(*at, 4, advice),
            |at, _| {
                let sound = all(at, 4 * PAGE, 0);
                let _ = munmap(at, 4 * PAGE);
                sound
            },
        );
    }
    for (name, advice) in [("madvise: not needed", madv::DONTNEED), ("madvise: free", madv::FREE)] {
        Call { name, errnos: &[], least: 0 }.check(
            checks,
            || filled(6),
            |at| advise(at + 2 * PAGE, 2, advice),
            |at, done| {
                let sound = done.is_ok() && is_filled(at, 2) && is_filled(at + 4 * PAGE, 2);
                let _ = munmap(at, 6 * PAGE);
                sound
            },
        );
    }
}

fn locking(checks: &mut Checks) {
    const ONFAULT: usize = 1;
    let clean = |at: usize, pages: usize, sound: bool| {
        let _ = munmap(at, pages * PAGE);
        sound
    };
    Call { name: "mlock", errnos: &[Errno::ENOMEM, Errno::EAGAIN], least: 5 }.check(
        checks,
        || area(6, RW),
        |at| call(nr::MLOCK, at + PAGE, 4, 0),
        |at, _| clean(at, 6, all(at, 6 * PAGE, 0)),
    );
    Call { name: "mlock2 of what is touched", errnos: NO_MEMORY, least: 2 }.check(
        checks,
        || area(6, RW),
        |at| call(nr::MLOCK2, at + PAGE, 4, ONFAULT),
        |at, _| clean(at, 6, true),
    );
    Call { name: "munlock", errnos: NO_MEMORY, least: 2 }.check(
        checks,
        || {
            let at = filled(6);
            let _ = raw(nr::MLOCK, [at, 6 * PAGE]);
            at
        },
        |at| call(nr::MUNLOCK, at + 2 * PAGE, 2, 0),
        |at, _| clean(at, 6, is_filled(at, 6)),
    );
    Call { name: "mprotect of locked memory, to write", errnos: NO_MEMORY, least: 2 }.check(
        checks,
        || {
            let at = area(6, Prot::READ);
            let _ = raw(nr::MLOCK, [at, 6 * PAGE]);
            at
        },
        |at| call(nr::MPROTECT, at + PAGE, 4, RW.bits() as usize),
        |at, _| clean(at, 6, all(at, 6 * PAGE, 0)),
    );
    const CURRENT: usize = 1;
    const FUTURE: usize = 2;
    Call { name: "mlockall", errnos: NO_MEMORY, least: 4 }.check(
        checks,
        || area(4, RW),
        |_| (nr::MLOCKALL, [CURRENT, 0, 0, 0, 0, 0]),
        |at, done| {
            let _ = raw(nr::MUNLOCKALL, []);
            clean(at, 4, done.is_ok())
        },
    );
    Call { name: "mmap that is locked since all is", errnos: NO_MEMORY, least: 5 }.check(
        checks,
        || {
            let _ = raw(nr::MLOCKALL, [FUTURE]);
            place()
        },
        |at| mmap_call(*at, 4, RW, ANONYMOUS | Map::FIXED_NOREPLACE, -1),
        |at, done| {
            let _ = raw(nr::MUNLOCKALL, []);
            clean(at, 4, is_mapped(at, 4) == done.is_ok())
        },
    );
}

fn faulting(checks: &mut Checks) {
    let fd = file();
    let mapped = |prot: Prot, flags: Map, fd: i32| {
        mmap(place(), 4 * PAGE, prot, flags | Map::FIXED_NOREPLACE, fd, 0).expect("memory for the test")
    };
    let dies = |name, least| Call { name, errnos: &[], least };
    let reads = |at: &usize| peek(*at) == 0;
    let writes = |at: &usize| {
        poke(*at + PAGE, 9);
        peek(*at + PAGE) == 9
    };
    dies("a first read", 2).or_dies(checks, || area(4, RW), reads);
    dies("a first write", 3).or_dies(checks, || area(4, RW), writes);
    dies("a write after a read", 1).or_dies(
        checks,
        || {
            let at = area(4, RW);
            peek(at + PAGE);
            at
        },
        writes,
    );
    dies("a copy on a write", 1).or_dies(checks, || filled(4), writes);
    dies("a read of a file", 2).or_dies(checks, || mapped(Prot::READ, Map::PRIVATE, fd), |at| peek(*at + 1) == b'E');
    dies("a write to a file of one's own", 3).or_dies(checks, || mapped(RW, Map::PRIVATE, fd), writes);
    dies("a read of shared memory", 3).or_dies(checks, || mapped(RW, Map::SHARED | Map::ANONYMOUS, -1), reads);
    dies("a write to shared memory", 3).or_dies(checks, || mapped(RW, Map::SHARED | Map::ANONYMOUS, -1), writes);
    let stack = || mapped(RW, ANONYMOUS | Map::GROWSDOWN, -1);
    dies("a stack that grows", 3).or_dies(checks, stack, |at| {
        poke(*at - 3 * PAGE, 9);
        peek(*at - 3 * PAGE) == 9
    });
    dies("many pages in a row", 20).or_dies(
        checks,
        || area(40, RW),
        |at| {
            (0..40).for_each(|page| poke(*at + page * PAGE, 7));
            is_filled(*at, 40)
        },
    );
    let _ = io::close(fd);
}
