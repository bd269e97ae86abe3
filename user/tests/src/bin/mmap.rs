//! mmap and munmap: where mappings go, what they hold, and which are refused.

#![no_std]
#![no_main]

use quire_rt::abi::flags::{Map, Open, Prot, sig};
use quire_rt::{Errno, fs, io};
use user_tests::{Checks, KERNEL, PAGE, RW, all, is_quire, map, mmap, mprotect, munmap, peek, poke};

quire_rt::entry!(main);

const ANON: Map = Map::PRIVATE.union(Map::ANONYMOUS);

/// A bit that no flag has.
const UNKNOWN: Map = Map::from_bits_retain(0x20_0000);

fn main() -> i32 {
    let mut checks = Checks::new();
    anonymous(&mut checks);
    placement(&mut checks);
    refused(&mut checks);
    accepted(&mut checks);
    unmapping(&mut checks);
    files(&mut checks);
    checks.finish()
}

fn anonymous(checks: &mut Checks) {
    let at = map(10 * PAGE, RW);
    checks.ok(at.is_multiple_of(PAGE), "a mapping starts at a page");
    checks.ok(all(at, 10 * PAGE, 0), "it is zero");
    (0..10).for_each(|page| poke(at + page * PAGE + page, page as u8));
    checks.ok((0..10).all(|page| peek(at + page * PAGE + page) == page as u8), "it holds what is written");
    let odd = map(PAGE + 1, RW);
    poke(odd + 2 * PAGE - 1, 1);
    checks.eq(peek(odd + 2 * PAGE - 1), 1, "a length is rounded up to pages");
    let none = map(PAGE, Prot::empty());
    checks.killed(|| peek(none), sig::SEGV, "memory without rights cannot be read");
    let read = map(PAGE, Prot::READ);
    checks.eq(peek(read), 0, "read-only memory reads as zero");
    checks.killed(|| poke(read, 1), sig::SEGV, "and cannot be written");
    let write = map(PAGE, Prot::WRITE);
    poke(write, 7);
    checks.eq(peek(write), 7, "what can be written can be read");
    checks.killed(|| user_tests::asm::call(at), sig::SEGV, "memory without EXEC cannot be executed");
    for (start, len) in [(at, 10 * PAGE), (odd, 2 * PAGE), (none, PAGE), (read, PAGE), (write, PAGE)] {
        let _ = munmap(start, len);
    }
    let large = mmap(0, 1 << 30, RW, ANON | Map::NORESERVE, -1, 0).unwrap_or(0);
    poke(large, 1);
    poke(large + (1 << 30) - 1, 2);
    checks.ok(peek(large) == 1 && peek(large + (1 << 29)) == 0, "a gibibyte costs only what is touched");
    checks.eq(munmap(large, 1 << 30), Ok(()), "and goes in one call");
}

fn placement(checks: &mut Checks) {
    let at = map(8 * PAGE, RW);
    poke(at + PAGE, 5);
    checks.eq(munmap(at + 4 * PAGE, PAGE), Ok(()), "a hole");
    checks.eq(mmap(at + 4 * PAGE, PAGE, RW, ANON, -1, 0), Ok(at + 4 * PAGE), "a hint that is free is taken");
    let elsewhere = mmap(at + PAGE, PAGE, RW, ANON, -1, 0);
    checks.ok(
        elsewhere.is_ok_and(|other| !(at..at + 8 * PAGE).contains(&other)) && peek(at + PAGE) == 5,
        "one that is not free is no order",
    );
    let _ = elsewhere.map(|at| munmap(at, PAGE));
    let _ = munmap(at + 4 * PAGE, PAGE);
    checks.eq(mmap(at + 4 * PAGE + 123, PAGE, RW, ANON, -1, 0).map(|at| at % PAGE), Ok(0), "a crooked hint is rounded");
    checks.eq(
        mmap(at, PAGE, RW, ANON | Map::FIXED_NOREPLACE, -1, 0),
        Err(Errno::EEXIST),
        "NOREPLACE keeps what is there",
    );
    checks.eq(mmap(at, 2 * PAGE, RW, ANON | Map::FIXED, -1, 0), Ok(at), "FIXED replaces it");
    checks.ok(all(at, 2 * PAGE, 0), "with zeroes");
    let top = mmap((1 << 48) - PAGE, PAGE, RW, ANON | Map::FIXED_NOREPLACE, -1, 0);
    checks
        .ok(matches!(top, Ok(_) | Err(Errno::ENOMEM | Errno::EEXIST)), "the last page of the lower half has an answer");
    let _ = top.map(|at| munmap(at, PAGE));
    let _ = munmap(at, 8 * PAGE);
}

fn refused(checks: &mut Checks) {
    let at = map(2 * PAGE, RW);
    for (what, got, wanted) in [
        ("length 0", mmap(0, 0, RW, ANON, -1, 0), Errno::EINVAL),
        ("a length that wraps", mmap(0, usize::MAX, RW, ANON, -1, 0), Errno::ENOMEM),
        ("a length beyond the address space", mmap(0, 1 << 60, RW, ANON, -1, 0), Errno::ENOMEM),
        ("neither shared nor private", mmap(0, PAGE, RW, Map::ANONYMOUS, -1, 0), Errno::EINVAL),
        ("FIXED at no page", mmap(at + 1, PAGE, RW, ANON | Map::FIXED, -1, 0), Errno::EINVAL),
        ("FIXED in the kernel's half", mmap(KERNEL, PAGE, RW, ANON | Map::FIXED, -1, 0), Errno::ENOMEM),
        ("FIXED past the end", mmap((1 << 52) - PAGE, 2 * PAGE, RW, ANON | Map::FIXED, -1, 0), Errno::ENOMEM),
        ("a file with no descriptor", mmap(0, PAGE, RW, Map::PRIVATE, -1, 0), Errno::EBADF),
        ("a descriptor that is not open", mmap(0, PAGE, RW, Map::PRIVATE, 900, 0), Errno::EBADF),
        ("an offset that is no page's", mmap(0, PAGE, RW, ANON, -1, 1), Errno::EINVAL),
    ] {
        checks.fails(got, wanted, what);
    }
    if is_quire() {
        // Linux lets root.
        let low = |at: usize, flag: Map| mmap(at, PAGE, RW, ANON | flag, -1, 0);
        checks.fails(low(0, Map::FIXED), Errno::EPERM, "FIXED at 0, for root too");
        checks.fails(low((64 << 10) - PAGE, Map::FIXED_NOREPLACE), Errno::EPERM, "FIXED_NOREPLACE below 64 KiB");
    }
    // The file decides which flags it supports, so there has to be one.
    let fd = fs::open(c"/init", Open::empty()).unwrap_or(-1);
    let unknown = Map::SHARED_VALIDATE | UNKNOWN;
    checks.fails(mmap(0, PAGE, Prot::READ, unknown, fd, 0), Errno::EOPNOTSUPP, "an unknown flag with SHARED_VALIDATE");
    let _ = io::close(fd);
    let (read, write) = io::pipe(0).expect("a pipe");
    checks.fails(mmap(0, PAGE, Prot::READ, Map::PRIVATE, read, 0), Errno::ENODEV, "a pipe");
    checks.fails(mmap(0, PAGE, Prot::READ, Map::PRIVATE, write, 0), Errno::EACCES, "a descriptor that cannot be read");
    let _ = (io::close(read), io::close(write));
    checks.ok(all(at, 2 * PAGE, 0), "a refused call changes nothing");
    let _ = munmap(at, 2 * PAGE);
}

fn accepted(checks: &mut Checks) {
    for (what, flags) in [
        ("NORESERVE", Map::NORESERVE),
        ("STACK", Map::STACK),
        ("DENYWRITE, EXECUTABLE: ignored", Map::DENYWRITE.union(Map::EXECUTABLE)),
        ("POPULATE", Map::POPULATE),
        ("POPULATE, NONBLOCK", Map::POPULATE.union(Map::NONBLOCK)),
        ("LOCKED", Map::LOCKED),
        ("GROWSDOWN", Map::GROWSDOWN),
        ("an unknown flag without SHARED_VALIDATE: ignored", UNKNOWN),
    ] {
        let at = mmap(0, 4 * PAGE, RW, ANON | flags, -1, 0);
        checks.ok(at.is_ok_and(|at| all(at, 4 * PAGE, 0)), what);
        let _ = at.map(|at| munmap(at, 4 * PAGE));
    }
    let at = mmap(0, PAGE, RW, ANON, 0, 0);
    checks.ok(at.is_ok(), "a descriptor beside ANONYMOUS is ignored");
    let _ = at.map(|at| munmap(at, PAGE));
    let populated = mmap(0, 4 * PAGE, RW, ANON | Map::POPULATE, -1, 0).unwrap_or(0);
    let mut resident = [0; 4];
    let known = quire_rt::mem::mincore(populated, 4 * PAGE, &mut resident);
    checks.ok(known.is_ok() && resident.iter().all(|page| page & 1 == 1), "POPULATE brings all pages in");
    let _ = munmap(populated, 4 * PAGE);
}

fn unmapping(checks: &mut Checks) {
    let at = map(8 * PAGE, RW);
    (0..8).for_each(|page| poke(at + page * PAGE, page as u8 + 1));
    checks.fails(munmap(at + 1, PAGE), Errno::EINVAL, "an address that is no page's");
    checks.fails(munmap(at, 0), Errno::EINVAL, "length 0");
    checks.fails(munmap(KERNEL, PAGE), Errno::EINVAL, "the kernel's half");
    checks.fails(munmap(at, usize::MAX - PAGE), Errno::EINVAL, "a range that wraps");
    checks.eq(munmap(at + 2 * PAGE, 1), Ok(()), "one byte stands for its page");
    checks.killed(|| peek(at + 2 * PAGE), sig::SEGV, "which is gone");
    checks.eq(munmap(at + 2 * PAGE, 2 * PAGE), Ok(()), "a range with a hole");
    checks.ok(peek(at + PAGE) == 2 && peek(at + 4 * PAGE) == 5, "its neighbours stay");
    checks.eq(munmap(at + 2 * PAGE, 2 * PAGE), Ok(()), "nothing at all can be unmapped");
    checks.eq(munmap(at, 8 * PAGE), Ok(()), "several mappings at once");
    let gone = (0..8).all(|page| {
        let status = user_tests::child(|| peek(at + page * PAGE) as i32);
        status == Ok(quire_rt::process::Status::Killed(sig::SEGV))
    });
    checks.ok(gone, "and all are gone");

    // Every other page, so that neither areas nor tables can be merged.
    let many = map(512 * PAGE, RW);
    let _ = mprotect(many, PAGE, RW);
    (0..512).for_each(|page| poke(many + page * PAGE, page as u8));
    let cut = (0..512).step_by(2).all(|page| munmap(many + page * PAGE, PAGE) == Ok(()));
    checks.ok(cut, "256 holes");
    checks.ok((1..512).step_by(2).all(|page| peek(many + page * PAGE) == page as u8), "the pages between them stay");
    let filled = (0..512).step_by(2).all(|page| {
        let at = many + page * PAGE;
        mmap(at, PAGE, RW, ANON | Map::FIXED_NOREPLACE, -1, 0) == Ok(at) && peek(at) == 0
    });
    checks.ok(filled, "the holes can be filled again");
    checks.eq(munmap(many, 512 * PAGE), Ok(()), "all 512 at once");
}

fn files(checks: &mut Checks) {
    let Ok(fd) = fs::open(c"/init", Open::empty()) else {
        return checks.skip("files", "there is no /init");
    };
    let size = fs::fstat(fd).map_or(0, |stat| stat.size as usize);
    let mut head = [0; 64];
    let _ = fs::pread(fd, &mut head, 0);
    let at = mmap(0, size, Prot::READ, Map::PRIVATE, fd, 0).unwrap_or(0);
    checks.ok(at != 0 && (0..64).all(|i| peek(at + i) == head[i]), "a file can be mapped");
    let tail = size % PAGE;
    checks.ok(tail == 0 || all(at + size, PAGE - tail, 0), "what follows its end in the page is zero");
    let second = mmap(0, PAGE, Prot::READ, Map::PRIVATE, fd, PAGE).unwrap_or(0);
    checks.ok(second != 0 && (0..PAGE).all(|i| peek(second + i) == peek(at + PAGE + i)), "from an offset, too");
    let copy = mmap(0, PAGE, RW, Map::PRIVATE, fd, 0).unwrap_or(0);
    poke(copy, 0xee);
    let mut again = [0];
    let _ = fs::pread(fd, &mut again, 0);
    checks.ok(peek(copy) == 0xee && peek(at) == head[0] && again[0] == head[0], "writing to a private mapping copies");
    let beyond = mmap(0, PAGE, Prot::READ, Map::PRIVATE, fd, size.next_multiple_of(PAGE)).unwrap_or(0);
    checks.killed(|| peek(beyond), sig::BUS, "a page beyond the file's end is a bus error");
    checks.fails(
        mmap(0, PAGE, RW, Map::SHARED, fd, 0),
        Errno::EACCES,
        "a file that is open for reading cannot be shared for writing",
    );
    let shared = mmap(0, PAGE, Prot::READ, Map::SHARED, fd, 0).unwrap_or(0);
    checks.ok(shared != 0 && peek(shared) == head[0], "for reading it can");
    checks.fails(mprotect(shared, PAGE, RW), Errno::EACCES, "and never becomes writable");
    let _ = io::close(fd);
    checks.eq(peek(at), head[0], "a mapping outlives its descriptor");
    for (start, len) in [(at, size), (second, PAGE), (copy, PAGE), (beyond, PAGE), (shared, PAGE)] {
        let _ = munmap(start, len);
    }
}
