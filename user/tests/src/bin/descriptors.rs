//! descriptors: a new descriptor gets the lowest free number, whatever was opened and closed before, up to the limit.

#![no_std]
#![no_main]

use quire_rt::abi::layout::{Rlimit, rlimit};
use quire_rt::abi::nr;
use quire_rt::process::Status;
use quire_rt::{Errno, io, process};
use user_tests::{Checks, child, raw};

quire_rt::entry!(main);

/// The limit that this program gives itself: more than a word of bits for 64 words of bits.
const LIMIT: usize = 4200;
/// The first number that nobody has at the start.
const FIRST: usize = 3;

fn main() -> i32 {
    let mut checks = Checks::new();
    let limit = Rlimit { cur: LIMIT as u64, max: LIMIT as u64 };
    let raised = process::prlimit(rlimit::NOFILE, Some(limit));
    checks.ok(raised.is_ok(), "a limit of 4,200 descriptors");
    lowest(&mut checks);
    ranges(&mut checks);
    checks.finish()
}

fn dup() -> Result<usize, Errno> {
    raw(nr::DUP, [0])
}

fn dup_from(from: usize) -> Result<usize, Errno> {
    const F_DUPFD: usize = 0;
    raw(nr::FCNTL, [0, F_DUPFD, from])
}

fn close(fd: usize) -> bool {
    io::close(fd as i32).is_ok()
}

fn is_open(fd: usize) -> bool {
    const F_GETFD: usize = 1;
    raw(nr::FCNTL, [fd, F_GETFD, 0]).is_ok()
}

fn lowest(checks: &mut Checks) {
    checks.ok((FIRST..LIMIT).all(|fd| dup() == Ok(fd)), "one after the other, up to the limit");
    checks.fails(dup(), Errno::EMFILE, "no more than that");
    let mut pair = [0i32; 2];
    checks.fails(raw(nr::PIPE2, [pair.as_mut_ptr() as usize, 0]), Errno::EMFILE, "nor a pipe");
    checks.ok([4150, 64, 4096, 4095, 3, 2000].into_iter().all(close), "gaps, here and there");
    checks.eq(dup_from(65), Ok(2000), "F_DUPFD: the lowest from a number on");
    checks.eq(dup_from(4097), Ok(4150), "and from one in the last words");
    checks.eq([dup(), dup(), dup(), dup()], [Ok(3), Ok(64), Ok(4095), Ok(4096)], "dup: the lowest of all");
    checks.ok(close(4199), "the last one goes");
    checks.fails(
        raw(nr::PIPE2, [pair.as_mut_ptr() as usize, 0]),
        Errno::EMFILE,
        "one free number is not enough for a pipe",
    );
    checks.eq(dup(), Ok(4199), "and is free again");
    checks.fails(dup_from(LIMIT), Errno::EINVAL, "F_DUPFD from the limit on");
    checks.fails(raw(nr::DUP3, [0, LIMIT, 0]), Errno::EBADF, "dup3 to the limit");
    let has_all = child(|| (FIRST..LIMIT).all(is_open) as i32);
    checks.eq(has_all, Ok(Status::Exited(1)), "a child has them all");
}

fn ranges(checks: &mut Checks) {
    const CLOEXEC: usize = 4;
    const F_GETFD: usize = 1;
    let all = u32::MAX as usize;
    checks.fails(raw(nr::CLOSE_RANGE, [5, 4, 0]), Errno::EINVAL, "close_range: last before first");
    checks.fails(raw(nr::CLOSE_RANGE, [5, 6, 1]), Errno::EINVAL, "close_range: an unknown flag");
    checks.eq(raw(nr::CLOSE_RANGE, [100, 4099, 0]), Ok(0), "close_range");
    checks.ok((FIRST..LIMIT).all(|fd| is_open(fd) != (100..=4099).contains(&fd)), "closes these and no others");
    checks.eq(raw(nr::CLOSE_RANGE, [4100, all, CLOEXEC]), Ok(0), "close_range with CLOEXEC");
    let flags = |fd: usize| raw(nr::FCNTL, [fd, F_GETFD, 0]);
    checks.ok(flags(99) == Ok(0) && (4100..LIMIT).all(|fd| flags(fd) == Ok(1)), "marks these and no others");
    checks.eq(raw(nr::CLOSE_RANGE, [FIRST, all, 0]), Ok(0), "close_range to the end");
    checks.eq(dup(), Ok(FIRST), "leaves none");
    checks.ok(close(FIRST), "but this one");
    let beyond = Rlimit { cur: 1024, max: (1 << 20) + 1 };
    checks.fails(process::prlimit(rlimit::NOFILE, Some(beyond)), Errno::EPERM, "a limit of more than there can be");
}
