//! msync: its checks of the range, since there is never anything to write back.

#![no_std]
#![no_main]

use quire_rt::Errno;
use quire_rt::abi::flags::{Map, Msync, Open, Prot};
use quire_rt::{fs, io, mem};
use user_tests::{Checks, KERNEL, PAGE, RW, map, mmap, munmap, peek, poke};

quire_rt::entry!(main);

fn msync(at: usize, len: usize, flags: Msync) -> Result<(), Errno> {
    mem::msync(at, len, flags.bits())
}

fn main() -> i32 {
    let mut checks = Checks::new();
    let shared = mmap(0, 4 * PAGE, RW, Map::SHARED | Map::ANONYMOUS, -1, 0).unwrap_or(0);
    poke(shared, 7);
    for (what, flags) in [
        ("SYNC", Msync::SYNC),
        ("ASYNC", Msync::ASYNC),
        ("INVALIDATE", Msync::INVALIDATE),
        ("SYNC and INVALIDATE", Msync::SYNC | Msync::INVALIDATE),
        ("no flag at all", Msync::empty()),
    ] {
        checks.eq(msync(shared, 4 * PAGE, flags), Ok(()), what);
    }
    checks.eq(peek(shared), 7, "the contents stay");
    checks.eq(msync(shared, 1, Msync::SYNC), Ok(()), "a length is rounded up");
    checks.eq(msync(shared, 0, Msync::SYNC), Ok(()), "length 0");
    checks.eq(msync(PAGE, 0, Msync::SYNC), Ok(()), "length 0 where nothing is mapped");
    checks.fails(msync(shared + 1, PAGE, Msync::SYNC), Errno::EINVAL, "an address that is no page's");
    checks.fails(msync(shared, PAGE, Msync::SYNC | Msync::ASYNC), Errno::EINVAL, "both SYNC and ASYNC");
    checks.fails(mem::msync(shared, PAGE, 8), Errno::EINVAL, "an unknown flag");
    checks.fails(msync(shared, usize::MAX - 2 * PAGE, Msync::SYNC), Errno::ENOMEM, "a range that wraps");
    checks.eq(msync(shared, usize::MAX, Msync::SYNC), Ok(()), "a length that rounds up to 2^64 is 0");
    checks.eq(mem::mlock(shared, usize::MAX), Ok(()), "for mlock, too");
    checks.fails(msync(KERNEL, PAGE, Msync::SYNC), Errno::ENOMEM, "the kernel's half");

    let _ = munmap(shared + PAGE, PAGE);
    checks.fails(msync(shared, 4 * PAGE, Msync::SYNC), Errno::ENOMEM, "a hole, SYNC");
    checks.fails(msync(shared, 4 * PAGE, Msync::ASYNC), Errno::ENOMEM, "a hole, ASYNC");
    checks.fails(msync(shared, 2 * PAGE, Msync::SYNC), Errno::ENOMEM, "a hole at the end");
    checks.fails(msync(shared + PAGE, 2 * PAGE, Msync::SYNC), Errno::ENOMEM, "a hole at the beginning");
    checks.eq(msync(shared + 2 * PAGE, 2 * PAGE, Msync::SYNC), Ok(()), "what follows it");

    checks.eq(mem::mlock(shared + 2 * PAGE, PAGE), Ok(()), "a page is locked");
    let locked = shared + 2 * PAGE;
    checks.eq(msync(locked, PAGE, Msync::SYNC), Ok(()), "SYNC ignores that");
    checks.fails(msync(locked, PAGE, Msync::INVALIDATE), Errno::EBUSY, "INVALIDATE does");
    checks.fails(msync(shared, 4 * PAGE, Msync::SYNC | Msync::INVALIDATE), Errno::EBUSY, "even after a hole");
    checks.fails(
        msync(shared, 4 * PAGE, Msync::ASYNC | Msync::INVALIDATE),
        Errno::EBUSY,
        "and with ASYNC, which then goes past the hole",
    );
    checks.eq(mem::munlock(locked, PAGE), Ok(()), "the page is unlocked");
    checks.eq(msync(locked, PAGE, Msync::INVALIDATE), Ok(()), "and may be invalidated");
    let _ = munmap(shared, 4 * PAGE);

    let private = map(PAGE, RW);
    poke(private, 3);
    checks.eq(msync(private, PAGE, Msync::SYNC | Msync::INVALIDATE), Ok(()), "private memory");
    checks.eq(peek(private), 3, "keeps its contents");
    let _ = munmap(private, PAGE);
    let fd = fs::open(c"/init", Open::empty()).unwrap_or(-1);
    let file = mmap(0, PAGE, Prot::READ, Map::SHARED, fd, 0).unwrap_or(0);
    checks.eq(msync(file, PAGE, Msync::SYNC | Msync::INVALIDATE), Ok(()), "a file");
    let _ = (munmap(file, PAGE), io::close(fd));
    checks.finish()
}
