//! madvise: each advice, what it does to memory, and what it refuses.

#![no_std]
#![no_main]

use quire_rt::Errno;
use quire_rt::abi::flags::{Map, Open, Prot, madv};
use quire_rt::process::{self, Status};
use quire_rt::{fs, io, mem};
use user_tests::{Checks, KERNEL, PAGE, RW, all, map, mmap, mprotect, munmap, peek, poke, raw, start};

quire_rt::entry!(main);

const SHARED: Map = Map::SHARED.union(Map::ANONYMOUS);

fn madvise(at: usize, len: usize, advice: i32) -> Result<(), Errno> {
    // SAFETY: a mapping of the test's own, or a range that is refused.
    unsafe { mem::madvise(at, len, advice) }
}

fn resident(at: usize) -> bool {
    let mut page = [0];
    mem::mincore(at, PAGE, &mut page) == Ok(()) && page[0] & 1 == 1
}

fn main() -> i32 {
    let mut checks = Checks::new();
    ranges(&mut checks);
    dropping(&mut checks);
    locked(&mut checks);
    hints(&mut checks);
    forks(&mut checks);
    populating(&mut checks);
    removing(&mut checks);
    checks.finish()
}

fn ranges(checks: &mut Checks) {
    let at = map(4 * PAGE, RW);
    checks.eq(madvise(at, 4 * PAGE, madv::NORMAL), Ok(()), "a mapping");
    checks.eq(madvise(at, 0, madv::NORMAL), Ok(()), "length 0");
    checks.eq(madvise(PAGE, 0, madv::NORMAL), Ok(()), "length 0 where nothing is mapped");
    checks.eq(madvise(at, 1, madv::NORMAL), Ok(()), "a length is rounded up");
    checks.fails(madvise(at + 1, PAGE, madv::NORMAL), Errno::EINVAL, "an address that is no page's");
    checks.eq(madvise(at, PAGE, madv::DONTDUMP), Ok(()), "DONTDUMP");
    checks.eq(madvise(at, PAGE, madv::DODUMP), Ok(()), "DODUMP");
    checks.fails(madvise(at, usize::MAX - 100, madv::NORMAL), Errno::EINVAL, "a negative length");
    checks.fails(madvise(at, PAGE, 9999), Errno::EINVAL, "an unknown advice");
    checks.fails(madvise(at, 0, 9999), Errno::EINVAL, "even for nothing");
    checks.fails(madvise(KERNEL, PAGE, madv::NORMAL), Errno::ENOMEM, "the kernel's half");
    (0..4).for_each(|page| poke(at + page * PAGE, 1));
    let _ = munmap(at + PAGE, PAGE);
    checks.fails(madvise(at, 4 * PAGE, madv::DONTNEED), Errno::ENOMEM, "a hole is told of");
    checks.ok([0, 2, 3].iter().all(|page| peek(at + page * PAGE) == 0), "after the rest has been done");
    let _ = munmap(at, 4 * PAGE);
}

fn dropping(checks: &mut Checks) {
    let at = map(4 * PAGE, RW);
    (0..4).for_each(|page| poke(at + page * PAGE, 9));
    checks.eq(madvise(at + PAGE, 2 * PAGE, madv::DONTNEED), Ok(()), "DONTNEED");
    checks.ok(!resident(at + PAGE) && resident(at) && resident(at + 3 * PAGE), "takes just those pages away");
    checks.ok(all(at + PAGE, 2 * PAGE, 0) && peek(at) == 9, "which read as zero again");
    poke(at + PAGE, 4);
    checks.eq(peek(at + PAGE), 4, "and can be written");
    checks.eq(madvise(at, 4 * PAGE, madv::FREE), Ok(()), "FREE");
    checks.ok(matches!(peek(at), 0 | 9), "leaves the old contents or zeroes");
    poke(at + 2 * PAGE, 5);
    checks.eq(peek(at + 2 * PAGE), 5, "what is written afterwards stays");
    let _ = munmap(at, 4 * PAGE);

    let shared = mmap(0, 2 * PAGE, RW, SHARED, -1, 0).unwrap_or(0);
    poke(shared, 6);
    checks.eq(madvise(shared, 2 * PAGE, madv::DONTNEED), Ok(()), "DONTNEED of shared memory");
    checks.eq(peek(shared), 6, "keeps its contents");
    checks.fails(madvise(shared, PAGE, madv::FREE), Errno::EINVAL, "FREE is for private anonymous memory");
    let _ = munmap(shared, 2 * PAGE);

    let fd = fs::open(c"/init", Open::empty()).unwrap_or(-1);
    let file = mmap(0, PAGE, RW, Map::PRIVATE, fd, 0).unwrap_or(0);
    let old = peek(file);
    poke(file, !old);
    checks.fails(madvise(file, PAGE, madv::FREE), Errno::EINVAL, "FREE is not for files");
    checks.eq(madvise(file, PAGE, madv::DONTNEED), Ok(()), "DONTNEED of a private copy");
    checks.eq(peek(file), old, "brings the file back");
    let _ = (munmap(file, PAGE), io::close(fd));
}

fn locked(checks: &mut Checks) {
    let at = map(3 * PAGE, RW);
    checks.eq(mem::mlock(at + PAGE, PAGE), Ok(()), "a locked page");
    (0..3).for_each(|page| poke(at + page * PAGE, 2));
    for (what, advice) in
        [("DONTNEED", madv::DONTNEED), ("FREE", madv::FREE), ("COLD", madv::COLD), ("PAGEOUT", madv::PAGEOUT)]
    {
        checks.fails(madvise(at + PAGE, PAGE, advice), Errno::EINVAL, what);
    }
    checks.eq(peek(at + PAGE), 2, "it holds what it held");
    checks.fails(madvise(at, 3 * PAGE, madv::DONTNEED), Errno::EINVAL, "DONTNEED stops at it");
    checks.ok(peek(at) == 0 && peek(at + 2 * PAGE) == 2, "having done what comes before");
    checks.eq(madvise(at, 3 * PAGE, madv::DONTNEED_LOCKED), Ok(()), "DONTNEED_LOCKED works on locked memory");
    checks.ok((0..3).all(|page| peek(at + page * PAGE) == 0), "and takes it too");
    let _ = munmap(at, 3 * PAGE);
}

fn hints(checks: &mut Checks) {
    let at = map(8 * PAGE, RW);
    (0..8).for_each(|page| poke(at + page * PAGE, page as u8 + 1));
    for (what, advice) in [
        ("SEQUENTIAL", madv::SEQUENTIAL),
        ("RANDOM", madv::RANDOM),
        ("WILLNEED", madv::WILLNEED),
        ("HUGEPAGE", madv::HUGEPAGE),
        ("NOHUGEPAGE", madv::NOHUGEPAGE),
        ("COLD", madv::COLD),
        ("PAGEOUT", madv::PAGEOUT),
        ("NORMAL", madv::NORMAL),
    ] {
        checks.eq(madvise(at + PAGE, 2 * PAGE, advice), Ok(()), what);
    }
    checks.ok((0..8).all(|page| peek(at + page * PAGE) == page as u8 + 1), "hints change no contents");
    let _ = munmap(at, 8 * PAGE);
}

fn forks(checks: &mut Checks) {
    let at = map(3 * PAGE, RW);
    (0..3).for_each(|page| poke(at + page * PAGE, 8));
    checks.eq(madvise(at, PAGE, madv::DONTFORK), Ok(()), "DONTFORK");
    checks.eq(madvise(at + PAGE, PAGE, madv::WIPEONFORK), Ok(()), "WIPEONFORK");
    let gone = |at: usize| raw(quire_rt::abi::nr::MSYNC, [at, PAGE, 0]) == Err(Errno::ENOMEM);
    checks.exits(|| gone(at) as i32, 1, "a child does not have the first");
    checks.exits(|| (peek(at + PAGE) + peek(at + 2 * PAGE)) as i32, 8, "and zeroes for the second");
    checks.exits(
        || {
            poke(at + PAGE, 7);
            user_tests::child(|| peek(at + PAGE) as i32).map_or(-1, |status| status.code())
        },
        0,
        "as has its child",
    );
    checks.ok((0..3).all(|page| peek(at + page * PAGE) == 8), "the parent keeps all");
    checks.eq(madvise(at, PAGE, madv::DOFORK), Ok(()), "DOFORK");
    checks.eq(madvise(at + PAGE, PAGE, madv::KEEPONFORK), Ok(()), "KEEPONFORK");
    checks.exits(|| (0..3).map(|page| peek(at + page * PAGE) as i32).sum(), 24, "undo both");
    let shared = mmap(0, PAGE, RW, SHARED, -1, 0).unwrap_or(0);
    checks.fails(madvise(shared, PAGE, madv::WIPEONFORK), Errno::EINVAL, "WIPEONFORK is for private memory");
    checks.eq(madvise(shared, PAGE, madv::DONTFORK), Ok(()), "DONTFORK for any");
    checks.exits(|| gone(shared) as i32, 1, "a child does not have shared memory then either");
    let _ = (munmap(at, 3 * PAGE), munmap(shared, PAGE));
}

fn populating(checks: &mut Checks) {
    let at = map(4 * PAGE, RW);
    checks.eq(madvise(at, 2 * PAGE, madv::POPULATE_READ), Ok(()), "POPULATE_READ");
    checks.ok(resident(at) && resident(at + PAGE) && !resident(at + 2 * PAGE), "brings those pages in");
    checks.eq(madvise(at, 4 * PAGE, madv::POPULATE_WRITE), Ok(()), "POPULATE_WRITE");
    checks.ok(resident(at + 3 * PAGE) && all(at, 4 * PAGE, 0), "too");
    let _ = mprotect(at, PAGE, Prot::READ);
    checks.eq(madvise(at, 4 * PAGE, madv::POPULATE_READ), Ok(()), "read-only memory for reading");
    checks.fails(madvise(at, 4 * PAGE, madv::POPULATE_WRITE), Errno::EINVAL, "but not for writing");
    let _ = mprotect(at, PAGE, Prot::WRITE);
    checks.fails(madvise(at, PAGE, madv::POPULATE_READ), Errno::EINVAL, "nor write-only memory for reading");
    let _ = mprotect(at, PAGE, Prot::empty());
    checks.fails(madvise(at, PAGE, madv::POPULATE_READ), Errno::EINVAL, "nor memory without rights");
    let _ = munmap(at + PAGE, PAGE);
    checks.fails(madvise(at + PAGE, PAGE, madv::POPULATE_READ), Errno::ENOMEM, "nor a hole");
    let _ = munmap(at, 4 * PAGE);
    let fd = fs::open(c"/etc/motd", Open::empty()).unwrap_or(-1);
    let file = mmap(0, 4 * PAGE, Prot::READ, Map::PRIVATE, fd, 0).unwrap_or(0);
    checks.eq(madvise(file, PAGE, madv::POPULATE_READ), Ok(()), "a file");
    checks.fails(madvise(file, 4 * PAGE, madv::POPULATE_READ), Errno::EFAULT, "but not past its end");
    let _ = (munmap(file, 4 * PAGE), io::close(fd));
}

fn removing(checks: &mut Checks) {
    let Ok(at) = mmap(0, 4 * PAGE, RW, SHARED, -1, 0) else { return checks.ok(false, "shared memory") };
    (0..4).for_each(|page| poke(at + page * PAGE, 7));
    let ((is_mapped, mapped), (made, makes)) = (io::pipe(0).unwrap_or((-1, -1)), io::pipe(0).unwrap_or((-1, -1)));
    let sharer = start(|| {
        // It has all pages mapped before the hole is made, and looks afterwards.
        let before = (0..4).all(|page| peek(at + page * PAGE) == 7);
        let _ = (io::write(mapped, b"x"), io::read(made, &mut [0]));
        (!before || !all(at + PAGE, 2 * PAGE, 0) || peek(at) != 7) as i32
    });
    let _ = io::read(is_mapped, &mut [0]);
    checks.eq(madvise(at + PAGE, 2 * PAGE, madv::REMOVE), Ok(()), "REMOVE");
    let _ = io::write(makes, b"x");
    checks.ok(all(at + PAGE, 2 * PAGE, 0) && peek(at) == 7 && peek(at + 3 * PAGE) == 7, "makes a hole of zeros");
    checks.eq(sharer.and_then(process::waitpid), Ok(Status::Exited(0)), "which all see that share the memory");
    let _ = mem::mlock(at, PAGE);
    checks.fails(madvise(at, PAGE, madv::REMOVE), Errno::EINVAL, "not in locked memory");
    let _ = (mem::munlock(at, PAGE), munmap(at + PAGE, PAGE));
    checks.fails(madvise(at, 4 * PAGE, madv::REMOVE), Errno::ENOMEM, "over a hole it goes on");
    checks.ok(peek(at) == 0 && peek(at + 3 * PAGE) == 0, "to the end");
    checks.fails(madvise(map(PAGE, RW), PAGE, madv::REMOVE), Errno::EINVAL, "not in private memory");
}
