//! Files in memory: calls, mappings and seals on what memfd_create makes.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering::SeqCst};

use quire_rt::abi::flags::{Map, Mremap, Open, Prot, falloc, madv, memfd, rwf, seal, sig};
use quire_rt::abi::layout::{Iovec, Rlimit, Stat, mode, rlimit};
use quire_rt::abi::nr;
use quire_rt::{Errno, fs, io, process, signal, thread, time};
use user_tests::{Checks, KERNEL, PAGE, RW, all, is_quire, map, mmap, mprotect, munmap, peek, poke, raw};

quire_rt::entry!(main);

const SET: u32 = 0;
const CUR: u32 = 1;
const END: u32 = 2;
const DATA: u32 = 3;
const HOLE: u32 = 4;

fn main() -> i32 {
    let mut checks = Checks::new();
    making(&mut checks);
    reading_and_writing(&mut checks);
    vectors(&mut checks);
    positions(&mut checks);
    lengths(&mut checks);
    holes(&mut checks);
    mappings(&mut checks);
    ends(&mut checks);
    faults(&mut checks);
    attributes(&mut checks);
    sealing(&mut checks);
    copying(&mut checks);
    limits(&mut checks);
    appending(&mut checks);
    beside(&mut checks);
    checks.finish()
}

fn memfd_with(flags: u32) -> Result<i32, Errno> {
    raw(nr::MEMFD_CREATE, [c"file".as_ptr() as usize, flags as usize]).map(|fd| fd as i32)
}

fn file() -> i32 {
    memfd_with(memfd::ALLOW_SEALING).expect("a file")
}

fn close(fd: i32) {
    let _ = io::close(fd);
}

fn truncate(fd: i32, len: i64) -> Result<usize, Errno> {
    raw(nr::FTRUNCATE, [fd as usize, len as usize])
}

fn allocate(fd: i32, mode: u32, start: i64, len: i64) -> Result<usize, Errno> {
    raw(nr::FALLOCATE, [fd as usize, mode as usize, start as usize, len as usize])
}

fn pread(fd: i32, buffer: &mut [u8], at: usize) -> Result<usize, Errno> {
    raw(nr::PREAD64, [fd as usize, buffer.as_mut_ptr() as usize, buffer.len(), at])
}

fn pwrite(fd: i32, bytes: &[u8], at: usize) -> Result<usize, Errno> {
    raw(nr::PWRITE64, [fd as usize, bytes.as_ptr() as usize, bytes.len(), at])
}

fn seek(fd: i32, to: i64, whence: u32) -> Result<usize, Errno> {
    raw(nr::LSEEK, [fd as usize, to as usize, whence as usize])
}

fn fcntl(fd: i32, what: usize, value: usize) -> Result<usize, Errno> {
    raw(nr::FCNTL, [fd as usize, what, value])
}

fn add_seals(fd: i32, seals: u32) -> Result<usize, Errno> {
    fcntl(fd, 1033, seals as usize)
}

fn seals(fd: i32) -> Result<usize, Errno> {
    fcntl(fd, 1034, 0)
}

fn stat(fd: i32) -> Stat {
    fs::fstat(fd).expect("a record")
}

/// Everything that is in a file.
fn content(fd: i32) -> Vec<u8> {
    let mut bytes = vec![0; stat(fd).size as usize + 10];
    let n = pread(fd, &mut bytes, 0).expect("the content");
    bytes.truncate(n);
    bytes
}

fn shared(fd: i32, len: usize, prot: Prot) -> usize {
    mmap(0, len, prot, Map::SHARED, fd, 0).expect("a shared mapping")
}

fn private(fd: i32, len: usize) -> usize {
    mmap(0, len, RW, Map::PRIVATE, fd, 0).expect("a private mapping")
}

fn making(checks: &mut Checks) {
    let fd = memfd_with(memfd::CLOEXEC).expect("a file");
    checks.eq(fcntl(fd, 1, 0), Ok(1), "memfd_create: closed on exec");
    checks.eq(fcntl(fd, 3, 0).map(|status| status & 3), Ok(2), "it is open for reading and writing");
    close(fd);
    let fd = memfd_with(0).expect("a file");
    checks.eq(fcntl(fd, 1, 0), Ok(0), "or not");
    close(fd);
    checks.fails(memfd_with(0x20), Errno::EINVAL, "an unknown flag");
    checks.fails(memfd_with(memfd::EXEC | memfd::NOEXEC_SEAL), Errno::EINVAL, "both of two opposite ones");
    checks.fails(memfd_with(14 << 26), Errno::EINVAL, "a size of pages without HUGETLB");
    checks.fails(raw(nr::MEMFD_CREATE, [KERNEL, 0]), Errno::EFAULT, "no name");
    let long = [b'x'; 251];
    let named = |len: usize| {
        let mut name = long;
        name[len] = 0;
        raw(nr::MEMFD_CREATE, [name.as_ptr() as usize, 0]).map(|fd| close(fd as i32))
    };
    checks.eq(named(249), Ok(()), "a name of 249 bytes");
    checks.fails(named(250), Errno::EINVAL, "one of 250");
    if is_quire() {
        checks.fails(memfd_with(memfd::HUGETLB), Errno::ENOSYS, "there are no huge pages for files");
    }
}

fn reading_and_writing(checks: &mut Checks) {
    let fd = file();
    let mut buffer = [1; 16];
    checks.eq(io::read(fd, &mut buffer), Ok(0), "an empty file has nothing to read");
    checks.eq(io::write(fd, b"hello world"), Ok(11), "bytes are written");
    checks.eq(io::read(fd, &mut buffer), Ok(0), "the position is behind them");
    checks.eq(pread(fd, &mut buffer, 6), Ok(5), "they are read elsewhere");
    checks.eq(&buffer[..5], b"world", "as they were written");
    checks.eq(pwrite(fd, b"W", 6), Ok(1), "one is written over");
    checks.eq(seek(fd, 0, CUR), Ok(11), "which does not move the position");
    checks.eq(content(fd).as_slice(), b"hello World", "it is another one now");
    checks.eq(pwrite(fd, b"end", 3 * PAGE), Ok(3), "far behind the end");
    let bytes = content(fd);
    checks.ok(bytes.len() == 3 * PAGE + 3 && bytes[11..3 * PAGE].iter().all(|b| *b == 0), "zeros are between");
    checks.eq(stat(fd).blocks, 16, "which take no memory");
    checks.eq((io::write(fd, &[]), pwrite(fd, &[], 1 << 20)), (Ok(0), Ok(0)), "writing nothing");
    checks.eq(stat(fd).size, 3 * PAGE as i64 + 3, "changes nothing");
    checks.fails(pread(fd, &mut buffer, usize::MAX), Errno::EINVAL, "no position is below 0");
    checks.fails(pwrite(fd, b"x", i64::MAX as usize), Errno::EINVAL, "no file is that long");
    checks.fails(pread(fd, &mut buffer, i64::MAX as usize - 3), Errno::EINVAL, "and nothing is read there");
    checks.eq(pread(fd, &mut buffer, i64::MAX as usize - 16), Ok(0), "nothing is before it");
    // Across pages, at all offsets.
    let mut good = true;
    for shift in (0..PAGE + 300).step_by(509) {
        let bytes: Vec<u8> = (0..2 * PAGE + 77).map(|n| (n * 7 + shift) as u8).collect();
        let mut back = vec![0; bytes.len() + 13];
        good &= pwrite(fd, &bytes, shift) == Ok(bytes.len());
        good &= pread(fd, &mut back[13..], shift) == Ok(bytes.len()) && back[13..] == bytes;
    }
    checks.ok(good, "bytes across pages");
    close(fd);
}

fn vectors(checks: &mut Checks) {
    let fd = file();
    let parts = |list: &[&[u8]]| -> Vec<Iovec> {
        list.iter().map(|part| Iovec { base: part.as_ptr() as u64, len: part.len() as u64 }).collect()
    };
    let at = |call: usize, list: &[Iovec], at: usize, flags: u32| {
        raw(call, [fd as usize, list.as_ptr() as usize, list.len(), at, 0, flags as usize])
    };
    let list = parts(&[b"one ", b"", b"two ", b"three"]);
    checks.eq(at(nr::WRITEV, &list, 0, 0), Ok(13), "writev");
    checks.eq(at(nr::PWRITEV, &list[2..3], 0, 0), Ok(4), "pwritev");
    checks.eq(at(nr::PWRITEV2, &list[3..], usize::MAX, 0), Ok(5), "pwritev2 at the position");
    checks.eq(content(fd).as_slice(), b"two two threethree", "what they wrote");
    checks.eq(at(nr::PWRITEV2, &list[..1], 0, rwf::APPEND), Ok(4), "at the end instead");
    checks.eq(at(nr::PWRITEV2, &list[..1], 1, rwf::DSYNC | rwf::HIPRI), Ok(4), "flags that mean nothing here");
    checks.eq(content(fd).as_slice(), b"tone wo threethreeone ", "what they wrote");
    checks.fails(at(nr::PWRITEV2, &list, 0, 0x8000), Errno::EOPNOTSUPP, "an unknown flag");
    checks.fails(at(nr::PREADV2, &list, 0, rwf::NOWAIT), Errno::EOPNOTSUPP, "one that is for other files");
    checks.fails(at(nr::PWRITEV2, &list, 0, rwf::APPEND | rwf::NOAPPEND), Errno::EINVAL, "two opposite ones");
    checks.fails(at(nr::PREADV, &list, usize::MAX, 0), Errno::EINVAL, "preadv has no position -1");
    let (mut first, mut second) = ([0u8; 3], [0u8; 30]);
    let list = [Iovec { base: first.as_mut_ptr() as u64, len: 3 }, Iovec { base: second.as_mut_ptr() as u64, len: 30 }];
    checks.eq(at(nr::PREADV, &list, 4, 0), Ok(18), "preadv");
    checks.ok(&first == b" wo" && second.starts_with(b" threethreeone "), "its parts");
    let _ = seek(fd, 1, SET);
    checks.eq(at(nr::READV, &list, 0, 0), Ok(21), "readv");
    checks.eq(at(nr::PREADV2, &list, usize::MAX, 0), Ok(0), "preadv2 at the position");
    let (read, write) = io::pipe(0).expect("a pipe");
    let on_pipe = |fd: i32, call: usize, at: usize, flags: u32| {
        raw(call, [fd as usize, list.as_ptr() as usize, 1, at, 0, flags as usize])
    };
    checks.fails(on_pipe(read, nr::PREADV2, usize::MAX, rwf::NOWAIT), Errno::EAGAIN, "a pipe that is not waited for");
    checks.fails(on_pipe(write, nr::PWRITEV, 0, 0), Errno::ESPIPE, "and that has no position");
    checks.fails(pwrite(write, b"x", 0), Errno::ESPIPE, "for pwrite either");
    let null = fs::open(c"/dev/null", Open::RDWR).expect("/dev/null");
    checks.eq((pwrite(null, b"x", 7), pread(null, &mut first, 7)), (Ok(1), Ok(0)), "/dev/null has any position");
    [read, write, fd, null].into_iter().for_each(close);
}

fn positions(checks: &mut Checks) {
    let fd = file();
    let _ = pwrite(fd, &[1; PAGE], 2 * PAGE);
    let _ = truncate(fd, 8 * PAGE as i64);
    checks.eq(seek(fd, -1, END), Ok(8 * PAGE - 1), "lseek from the end");
    checks.eq(seek(fd, -1, CUR), Ok(8 * PAGE - 2), "from where it is");
    checks.eq(seek(fd, 1 << 40, SET), Ok(1 << 40), "anywhere");
    checks.eq(seek(fd, i64::MAX, SET), Ok(i64::MAX as usize), "as far as there is");
    checks.fails(seek(fd, -1, SET), Errno::EINVAL, "but not below 0");
    checks.fails(seek(fd, 0, 9), Errno::EINVAL, "an unknown way");
    checks.eq(seek(fd, 0, DATA), Ok(2 * PAGE), "where data begins");
    checks.eq(seek(fd, 2 * PAGE as i64 + 5, DATA), Ok(2 * PAGE + 5), "within it");
    checks.eq(seek(fd, 2 * PAGE as i64 + 5, HOLE), Ok(3 * PAGE), "where it ends");
    checks.eq(seek(fd, 0, HOLE), Ok(0), "a hole at the start");
    checks.eq(seek(fd, 8 * PAGE as i64 - 1, HOLE), Ok(8 * PAGE - 1), "and at the end");
    checks.fails(seek(fd, 3 * PAGE as i64, DATA), Errno::ENXIO, "no data any more");
    checks.fails(seek(fd, 8 * PAGE as i64, HOLE), Errno::ENXIO, "no hole behind the end");
    checks.fails(seek(fd, -1, DATA), Errno::ENXIO, "nor before the start");
    let _ = pwrite(fd, &[1], 8 * PAGE - 1);
    checks.eq(seek(fd, 7 * PAGE as i64, HOLE), Ok(8 * PAGE), "the end is a hole");
    close(fd);
}

fn lengths(checks: &mut Checks) {
    let fd = file();
    let _ = io::write(fd, &[7; 3 * PAGE]);
    checks.eq(truncate(fd, 100), Ok(0), "a file is cut");
    checks.eq((stat(fd).size, stat(fd).blocks), (100, 8), "its pages are gone");
    checks.eq(truncate(fd, 2 * PAGE as i64), Ok(0), "it becomes longer");
    let bytes = content(fd);
    checks.ok(bytes[..100] == [7; 100] && bytes[100..].iter().all(|b| *b == 0), "with zeros");
    checks.fails(truncate(fd, -1), Errno::EINVAL, "no length is below 0");
    let (read, write) = io::pipe(0).expect("a pipe");
    checks.fails(truncate(write, 0), Errno::EINVAL, "a pipe has no length");
    checks.fails(truncate(-1, 0), Errno::EBADF, "nor has nothing");
    checks.eq(truncate(fd, 1 << 40), Ok(0), "a terabyte");
    checks.eq(pwrite(fd, b"x", (1 << 40) - 1), Ok(1), "with a byte at its end");
    checks.eq(stat(fd).blocks, 16, "which takes a page");
    checks.eq(truncate(fd, 0), Ok(0), "all of it goes");
    checks.eq((stat(fd).size, stat(fd).blocks), (0, 0), "and nothing is left");
    [read, write, fd].into_iter().for_each(close);
}

fn holes(checks: &mut Checks) {
    const PUNCH: u32 = falloc::PUNCH_HOLE | falloc::KEEP_SIZE;
    let fd = file();
    let page = PAGE as i64;
    checks.eq(allocate(fd, 0, 0, 4 * page - 10), Ok(0), "fallocate");
    checks.eq((stat(fd).size, stat(fd).blocks), (4 * page - 10, 32), "makes a file longer");
    checks.eq(allocate(fd, falloc::KEEP_SIZE, 6 * page, page), Ok(0), "or not");
    checks.eq((stat(fd).size, stat(fd).blocks), (4 * page - 10, 40), "but pages are there");
    checks.ok(content(fd).iter().all(|b| *b == 0), "of zeros");
    checks.eq(truncate(fd, 4 * page), Ok(0), "a longer file");
    checks.eq(stat(fd).blocks, 40, "keeps them");
    checks.eq(truncate(fd, 4 * page), Ok(0), "one of the same length");
    checks.eq(stat(fd).size, 4 * page, "is as long");
    let _ = pwrite(fd, &[5; 4 * PAGE], 0);
    checks.eq(allocate(fd, PUNCH, 100, 2 * page), Ok(0), "a hole");
    let bytes = content(fd);
    let hole = 100..2 * PAGE + 100;
    checks.ok((0..4 * PAGE).all(|at| bytes[at] == if hole.contains(&at) { 0 } else { 5 }), "is where it was wanted");
    checks.eq(allocate(fd, PUNCH, 10, 20), Ok(0), "within a page");
    let bytes = content(fd);
    checks.ok(bytes[9] == 5 && bytes[10..30] == [0; 20] && bytes[30] == 5, "too");
    checks.eq(allocate(fd, PUNCH, 0, i64::MAX - 4096), Ok(0), "of all there is");
    checks.eq((stat(fd).size, stat(fd).blocks), (4 * page, 0), "the length stays");
    checks.fails(allocate(fd, falloc::PUNCH_HOLE, 0, 1), Errno::EOPNOTSUPP, "a hole that changes the length");
    checks.fails(allocate(fd, 8, 0, page), Errno::EOPNOTSUPP, "no range collapses");
    checks.fails(allocate(fd, 0x20, 0, page), Errno::EOPNOTSUPP, "none is inserted");
    checks.fails(allocate(fd, 0, -1, page), Errno::EINVAL, "below 0");
    checks.fails(allocate(fd, 0, 0, 0), Errno::EINVAL, "of nothing");
    checks.fails(allocate(fd, 0, i64::MAX, 2), Errno::EFBIG, "beyond all files");
    let (read, write) = io::pipe(0).expect("a pipe");
    checks.fails(allocate(write, 0, 0, 1), Errno::ESPIPE, "in a pipe");
    checks.fails(allocate(read, 0, 0, 1), Errno::EBADF, "in what is read only");
    if is_quire() {
        // (tmpfs has no such mode.)
        let _ = pwrite(fd, &[5; 2 * PAGE], 0);
        checks.eq(allocate(fd, falloc::ZERO_RANGE, page + 9, 9 * page), Ok(0), "zeros");
        let bytes = content(fd);
        checks.ok(bytes[..PAGE + 9] == [5; PAGE + 9] && bytes[PAGE + 9..].iter().all(|b| *b == 0), "to the end");
        checks.eq((stat(fd).size, stat(fd).blocks), (10 * page + 9, 88), "which are there");
    }
    [read, write, fd].into_iter().for_each(close);
}

fn mappings(checks: &mut Checks) {
    let fd = file();
    let _ = truncate(fd, 4 * PAGE as i64);
    let (at, own) = (shared(fd, 4 * PAGE, RW), private(fd, 4 * PAGE));
    poke(at + 5, 1);
    let mut byte = [0];
    checks.eq((pread(fd, &mut byte, 5), byte[0]), (Ok(1), 1), "what a mapping stores is read");
    let _ = pwrite(fd, &[2, 2], PAGE - 1);
    checks.eq((peek(at + PAGE - 1), peek(at + PAGE), peek(own + PAGE)), (2, 2, 2), "what is written is mapped");
    poke(own, 9);
    checks.eq((peek(at), pread(fd, &mut byte, 0), byte[0]), (0, Ok(1), 0), "a private mapping's stores are its own");
    let _ = pwrite(fd, &[3], 0);
    checks.eq((peek(own), peek(at)), (9, 3), "and stay");
    let _ = pwrite(fd, &[4], 2 * PAGE);
    checks.eq(peek(own + 2 * PAGE), 4, "a page that it has not stored to is the file's");
    // Another process, and the same one through another mapping and descriptor.
    checks.exits(
        || {
            poke(at + 3 * PAGE, 77);
            (peek(own) != 9) as i32
        },
        0,
        "a child has both",
    );
    checks.eq((pread(fd, &mut byte, 3 * PAGE), byte[0]), (Ok(1), 77), "its stores are in the file");
    let second = io::dup(fd).expect("a descriptor");
    close(fd);
    let again = mmap(0, PAGE, Prot::READ, Map::SHARED, second, 3 * PAGE).expect("a mapping");
    close(second);
    checks.eq(peek(again), 77, "a mapping keeps the file");
    checks.eq(raw(nr::MSYNC, [at, 4 * PAGE, 4]), Ok(0), "msync has nothing to do");
    checks.eq(raw(nr::MADVISE, [at + 3 * PAGE, PAGE, madv::REMOVE as usize]), Ok(0), "MADV_REMOVE makes a hole");
    checks.eq(peek(again), 0, "for all who map it");
    let moved = raw(nr::MREMAP, [at, 4 * PAGE, 8 * PAGE, Mremap::MAYMOVE.bits() as usize]).expect("more");
    checks.eq(peek(moved + PAGE), 2, "a mapping moves");
    let bits = mmap(0, PAGE, Prot::READ | Prot::EXEC, Map::PRIVATE, file(), 0);
    checks.ok(bits.is_ok(), "a file may be mapped to be executed");
    let _ = (munmap(moved, 8 * PAGE), munmap(own, 4 * PAGE), munmap(again, PAGE));
}

fn ends(checks: &mut Checks) {
    let fd = file();
    let _ = io::write(fd, &[6; PAGE + 100]);
    let (at, own) = (shared(fd, 4 * PAGE, RW), private(fd, 4 * PAGE));
    checks.ok(all(at + PAGE + 100, PAGE - 100, 0), "behind the end the last page is zeros");
    checks.killed(|| peek(at + 2 * PAGE), sig::BUS, "beyond it is SIGBUS");
    checks.killed(|| poke(own + 2 * PAGE, 1), sig::BUS, "in a private mapping too");
    let _ = truncate(fd, 3 * PAGE as i64);
    checks.eq((peek(at + 2 * PAGE), peek(own + 2 * PAGE)), (0, 0), "until the file is longer");
    (0..3).for_each(|page| [at, own].iter().for_each(|at| poke(at + page * PAGE, 8)));
    let _ = truncate(fd, PAGE as i64 + 10);
    checks.killed(|| peek(at + 2 * PAGE), sig::BUS, "what is cut off is SIGBUS");
    checks.killed(|| peek(own + 2 * PAGE), sig::BUS, "private copies of it are gone");
    checks.ok(peek(own) == 8 && peek(own + PAGE) == 8, "others stay");
    checks.ok(all(at + PAGE + 10, PAGE - 10, 0), "the rest of the last page is zeros");
    let _ = truncate(fd, 3 * PAGE as i64);
    checks.eq((peek(at + 2 * PAGE), peek(own + 2 * PAGE)), (0, 0), "and what comes back as well");
    if is_quire() {
        // (Linux's tmpfs shows them.)
        let _ = truncate(fd, 50);
        poke(at + 60, 1);
        let _ = truncate(fd, 100);
        checks.eq(content(fd)[60], 0, "stores behind the end do not become part of the file");
        poke(at + 110, 1);
        let _ = pwrite(fd, &[1], 200);
        checks.eq(content(fd)[110], 0, "by a write either");
    }
    let _ = (munmap(at, 4 * PAGE), munmap(own, 4 * PAGE));
    close(fd);
}

fn faults(checks: &mut Checks) {
    let fd = file();
    let at = map(4 * PAGE, RW);
    (0..2 * PAGE).for_each(|n| poke(at + n, n as u8));
    let _ = munmap(at + 2 * PAGE, 2 * PAGE);
    let write = |from: usize, len: usize, to: usize| raw(nr::PWRITE64, [fd as usize, from, len, to]);
    let read = |to: usize, len: usize, from: usize| raw(nr::PREAD64, [fd as usize, to, len, from]);
    let last = at + 2 * PAGE - 70;
    checks.eq(write(last, 1000, 0), Ok(70), "a write up to a missing page");
    checks.eq(content(fd).len(), 70, "is as long as that");
    checks.eq(write(at + PAGE / 2, 4 * PAGE, 50), Ok(PAGE + PAGE / 2), "over several pages");
    checks.eq(stat(fd).size, (PAGE + PAGE / 2 + 50) as i64, "too");
    checks.fails(write(at + 2 * PAGE, 10, 0), Errno::EFAULT, "from nothing");
    checks.fails(write(KERNEL, 10, 0), Errno::EFAULT, "from the kernel");
    checks.fails(write(at + 2 * PAGE, 10, 9 * PAGE), Errno::EFAULT, "far behind the end");
    checks.eq(stat(fd).size, (PAGE + PAGE / 2 + 50) as i64, "makes nothing longer");
    checks.eq(read(last, 1000, 50), Ok(70), "a read up to a missing page");
    checks.fails(read(at + 2 * PAGE, 10, 0), Errno::EFAULT, "to nothing");
    let _ = mprotect(at, PAGE, Prot::READ);
    checks.fails(read(at, 10, 0), Errno::EFAULT, "to what may not be written");
    checks.eq(read(at + PAGE, 10, 0), Ok(10), "beside it");
    let _ = mprotect(at, PAGE, Prot::empty());
    checks.fails(write(at, 10, 0), Errno::EFAULT, "from what may not be read");
    checks.fails(write(at + PAGE - 1, 10, 0), Errno::EFAULT, "not even one byte");
    // Fresh memory.
    let fresh = map(4 * PAGE, RW);
    checks.eq(read(fresh + 100, PAGE, 0), Ok(PAGE), "to memory that was never touched");
    checks.eq(write(fresh + 2 * PAGE, PAGE, 0), Ok(PAGE), "and from it");
    checks.ok(content(fd)[..PAGE].iter().all(|b| *b == 0), "zeros");
    // From the file itself.
    let _ = pwrite(fd, &[9; PAGE], 0);
    let _ = truncate(fd, 2 * PAGE as i64);
    let own = shared(fd, 4 * PAGE, RW);
    checks.eq(write(own, PAGE, PAGE), Ok(PAGE), "from a mapping of the file");
    checks.ok(content(fd)[PAGE..] == [9; PAGE], "which has it twice then");
    checks.eq(write(own + 10, PAGE, 10), Ok(PAGE), "onto itself");
    checks.fails(write(own + 2 * PAGE, 1, 0), Errno::EFAULT, "from behind its end");
    checks.eq(read(own + PAGE, 4 * PAGE, 0), Ok(PAGE), "to there");
    let _ = (munmap(at, 2 * PAGE), munmap(fresh, 4 * PAGE), munmap(own, 4 * PAGE));
    close(fd);
}

fn attributes(checks: &mut Checks) {
    let fd = file();
    let at_first = stat(fd);
    checks.eq(at_first.mode, mode::REG | 0o777, "fstat: a file");
    checks.eq((at_first.nlink, at_first.blksize, at_first.size), (0, PAGE as i32, 0), "without a name");
    checks.ok(at_first.ino != stat(file()).ino, "with a number of its own");
    time::sleep_ms(20);
    let _ = io::write(fd, b"x");
    let written = stat(fd);
    let later = |a: &Stat, b: &Stat| [b.atime != a.atime, b.mtime != a.mtime, b.ctime != a.ctime];
    checks.eq(later(&at_first, &written), [false, true, true], "a write changes times");
    time::sleep_ms(20);
    let _ = pread(fd, &mut [0], 0);
    let read = stat(fd);
    checks.eq(later(&written, &read), [true, false, false], "a read another one");
    time::sleep_ms(20);
    let _ = truncate(fd, 1);
    let cut = stat(fd);
    checks.eq(later(&read, &cut), [false, true, true], "ftruncate those of a write");
    time::sleep_ms(20);
    checks.eq(raw(nr::FCHMOD, [fd as usize, 0o640]), Ok(0), "fchmod");
    let moded = stat(fd);
    checks.eq((moded.mode, later(&cut, &moded)), (mode::REG | 0o640, [false, false, true]), "changes mode and ctime");
    checks.eq(raw(nr::FCHOWN, [fd as usize, 3, usize::MAX]), Ok(0), "fchown");
    checks.eq((stat(fd).uid, stat(fd).gid), (3, at_first.gid), "changes the owner");
    let as_user = |user: usize, call: usize, args: [usize; 3]| {
        move || match raw(nr::SETRESUID, [user, user, user]).and_then(|_| raw(call, args)) {
            Ok(_) => 0,
            Err(Errno::EPERM) => 1,
            Err(_) => 2,
        }
    };
    let f = fd as usize;
    checks.exits(as_user(3, nr::FCHMOD, [f, 0o600, 0]), 0, "the owner may change the mode");
    checks.exits(as_user(4, nr::FCHMOD, [f, 0o600, 0]), 1, "others may not");
    checks.exits(as_user(3, nr::FCHOWN, [f, 4, usize::MAX]), 1, "nor may the owner give it away");
    checks.exits(as_user(3, nr::FCHOWN, [f, 3, usize::MAX]), 0, "but to itself");
    let _ = raw(nr::FCHMOD, [f, 0o6755]);
    let _ = raw(nr::FCHOWN, [f, 5, 5]);
    checks.eq(stat(fd).mode, mode::REG | 0o755, "what a new owner gets lends no rights");
    let _ = raw(nr::FCHMOD, [f, 0o6755]);
    let _ = io::write(fd, b"x");
    checks.eq(stat(fd).mode & 0o7777, 0o6755, "root's writes change no mode");
    checks.exits(as_user(5, nr::PWRITE64, [f, c"x".as_ptr() as usize, 1]), 0, "a user's");
    checks.eq(stat(fd).mode & 0o7777, 0o755, "do");
    close(fd);
}

fn sealing(checks: &mut Checks) {
    let fd = memfd_with(0).expect("a file");
    checks.eq(seals(fd), Ok(seal::SEAL as usize), "a file that was not made to be sealed is");
    checks.fails(add_seals(fd, seal::GROW), Errno::EPERM, "against seals");
    close(fd);
    let (read, write) = io::pipe(0).expect("a pipe");
    checks.fails(seals(read), Errno::EINVAL, "a pipe has none");
    [read, write].into_iter().for_each(close);

    let fd = file();
    checks.eq(seals(fd), Ok(0), "another is not");
    checks.fails(add_seals(fd, 0x40), Errno::EINVAL, "an unknown seal");
    let _ = io::write(fd, &[1; PAGE + 100]);
    checks.eq(add_seals(fd, seal::SHRINK), Ok(0), "SHRINK");
    checks.fails(truncate(fd, 10), Errno::EPERM, "it is not cut");
    checks.eq(truncate(fd, PAGE as i64 + 200), Ok(0), "but becomes longer");
    checks.eq(add_seals(fd, seal::GROW), Ok(0), "GROW");
    checks.fails(truncate(fd, 3 * PAGE as i64), Errno::EPERM, "not any more");
    checks.fails(allocate(fd, 0, 0, 3 * PAGE as i64), Errno::EPERM, "nor by fallocate");
    checks.eq(pwrite(fd, &[2; 300], PAGE - 100), Ok(300), "it is written within");
    checks.fails(pwrite(fd, &[2; PAGE], PAGE - 100), Errno::EPERM, "a write beyond that is refused");
    let at = shared(fd, PAGE, RW);
    checks.fails(add_seals(fd, seal::WRITE), Errno::EBUSY, "WRITE waits for mappings");
    let _ = mprotect(at, PAGE, Prot::READ);
    checks.fails(add_seals(fd, seal::WRITE), Errno::EBUSY, "also for those that may be written later");
    checks.eq(add_seals(fd, seal::FUTURE_WRITE), Ok(0), "FUTURE_WRITE does not");
    let _ = mprotect(at, PAGE, RW);
    poke(at, 5);
    checks.eq(content(fd)[0], 5, "they may still write");
    checks.fails(pwrite(fd, &[1], 0), Errno::EPERM, "but no call");
    checks.fails(mmap(0, PAGE, RW, Map::SHARED, fd, 0), Errno::EPERM, "and no new mapping");
    checks.fails(raw(nr::MADVISE, [at, PAGE, madv::REMOVE as usize]), Errno::EPERM, "nor a hole");
    checks.fails(allocate(fd, 3, 0, PAGE as i64), Errno::EPERM, "made either way");
    let _ = munmap(at, PAGE);
    let own = private(fd, PAGE);
    checks.eq(add_seals(fd, seal::WRITE | seal::SEAL), Ok(0), "WRITE, and no more seals");
    poke(own, 7);
    checks.eq((peek(own), content(fd)[0]), (7, 5), "private mappings write their own");
    let at = shared(fd, PAGE, Prot::READ);
    checks.eq(peek(at), 5, "shared ones read");
    checks.fails(mprotect(at, PAGE, RW), Errno::EACCES, "and never write");
    checks.fails(add_seals(fd, seal::SHRINK), Errno::EPERM, "the seals are sealed");
    checks.eq(seals(fd), Ok(0x1f), "all five");
    let _ = (munmap(at, PAGE), munmap(own, PAGE));
    close(fd);

    let fd = memfd_with(memfd::NOEXEC_SEAL).expect("a file");
    checks.eq((stat(fd).mode & 0o777, seals(fd)), (0o666, Ok(seal::EXEC as usize)), "a file that is not executed");
    checks.fails(raw(nr::FCHMOD, [fd as usize, 0o766]), Errno::EPERM, "and never will be");
    checks.eq(raw(nr::FCHMOD, [fd as usize, 0o600]), Ok(0), "other bits change");
    close(fd);
    let fd = memfd_with(memfd::ALLOW_SEALING | memfd::EXEC).expect("a file");
    checks.eq(add_seals(fd, seal::EXEC), Ok(0), "one that is");
    checks.eq(seals(fd), Ok(0x3e), "is not written any more");
    close(fd);
}

fn copying(checks: &mut Checks) {
    let (from, to) = (file(), file());
    let bytes: Vec<u8> = (0..3 * PAGE + 17).map(|n| (n * 11) as u8).collect();
    let _ = io::write(from, &bytes);
    let copy = |from: i32, at: *mut u64, to: i32, there: *mut u64, len: usize, flags: usize| {
        raw(nr::COPY_FILE_RANGE, [from as usize, at as usize, to as usize, there as usize, len, flags])
    };
    let (mut at, mut there) = (100_u64, PAGE as u64 + 5);
    checks.eq(copy(from, &mut at, to, &mut there, 1 << 20, 0), Ok(bytes.len() - 100), "copy_file_range to the end");
    checks.eq((at, there), (bytes.len() as u64, (PAGE + 5 + bytes.len() - 100) as u64), "advances both positions");
    checks.ok(content(to)[PAGE + 5..] == bytes[100..], "bytes are where they were wanted");
    checks.eq(seek(to, 0, CUR), Ok(0), "and the files' own positions stay");
    let no = core::ptr::null_mut();
    let _ = seek(from, 5, SET);
    checks.eq(copy(from, no, to, no, 10, 0), Ok(10), "from and to the files' own");
    checks.eq((seek(from, 0, CUR), seek(to, 0, CUR)), (Ok(15), Ok(10)), "which advance");
    checks.ok(content(to)[..10] == bytes[5..15], "too");
    checks.fails(copy(from, no, to, no, 10, 1), Errno::EINVAL, "an unknown flag");
    (at, there) = (0, 50);
    checks.fails(copy(from, &mut at, from, &mut there, 60, 0), Errno::EINVAL, "a file onto itself");
    checks.eq(copy(from, &mut at, from, &mut there, 50, 0), Ok(50), "but beside");
    checks.ok(content(from)[50..100] == bytes[..50], "is right");
    let (read, write) = io::pipe(0).expect("a pipe");
    checks.fails(copy(from, no, write, no, 10, 0), Errno::EINVAL, "to a pipe");

    let send = |to: i32, from: i32, at: *mut u64, len: usize| {
        raw(nr::SENDFILE, [to as usize, from as usize, at as usize, len])
    };
    at = PAGE as u64 - 10;
    checks.eq(send(write, from, &mut at, 20), Ok(20), "sendfile to a pipe");
    let mut buffer = [0; 64];
    checks.eq(io::read(read, &mut buffer), Ok(20), "where it is");
    checks.ok(buffer[..20] == bytes[PAGE - 10..PAGE + 10] && at == PAGE as u64 + 10, "as it was");
    for len in [usize::MAX, 1 << 63] {
        checks.fails(send(write, from, &mut at, len), Errno::EINVAL, "a negative count");
    }
    let _ = (truncate(to, 0), seek(to, 3, SET), seek(from, 0, SET));
    checks.eq(send(to, from, no, 2 * PAGE), Ok(2 * PAGE), "to another file");
    checks.eq((seek(from, 0, CUR), seek(to, 0, CUR)), (Ok(2 * PAGE), Ok(2 * PAGE + 3)), "at its position");
    checks.ok(content(to)[3 + 100..] == bytes[100..2 * PAGE], "the same bytes");
    let _ = fcntl(to, 4, Open::APPEND.bits() as usize);
    checks.fails(send(to, from, no, 1), Errno::EINVAL, "not to one that is appended to");
    checks.fails(copy(from, no, to, no, 10, 0), Errno::EBADF, "nor by copy_file_range");
    [from, to, read, write].into_iter().for_each(close);
}

fn limits(checks: &mut Checks) {
    let limited = |run: &dyn Fn() -> i32| {
        let _ = process::prlimit(rlimit::FSIZE, Some(Rlimit { cur: 2 * PAGE as u64, max: 2 * PAGE as u64 }));
        run()
    };
    let fd = file();
    let past = 2 * PAGE;
    checks.killed(|| limited(&|| pwrite(fd, b"x", past).is_ok() as i32), sig::XFSZ, "a write beyond RLIMIT_FSIZE");
    checks.killed(|| limited(&|| truncate(fd, past as i64 + 1).is_ok() as i32), sig::XFSZ, "ftruncate");
    checks.killed(|| limited(&|| allocate(fd, 0, 0, past as i64 + 1).is_ok() as i32), sig::XFSZ, "fallocate");
    let refused = || {
        let _ = signal::ignore(sig::XFSZ);
        limited(&|| (pwrite(fd, b"x", past) != Err(Errno::EFBIG)) as i32)
    };
    checks.exits(refused, 0, "which is EFBIG");
    checks.exits(|| limited(&|| (pwrite(fd, &[1; 300], past - 100) != Ok(100)) as i32), 0, "up to it a write is cut");
    checks.exits(|| limited(&|| (truncate(fd, past as i64) != Ok(0)) as i32), 0, "a file may be as long as that");
    close(fd);
}

fn appending(checks: &mut Checks) {
    const EACH: usize = 200;
    let fd = file();
    let _ = pwrite(fd, b"head", 0);
    let _ = fcntl(fd, 4, Open::APPEND.bits() as usize);
    checks.eq(io::write(fd, b"tail"), Ok(4), "O_APPEND");
    checks.eq((content(fd).as_slice(), seek(fd, 0, CUR)), (&b"headtail"[..], Ok(8)), "goes to the end");
    checks.eq(pwrite(fd, b"!", 0), Ok(1), "pwrite");
    checks.eq(content(fd).as_slice(), b"headtail!", "does so too, as on Linux");
    let _ = truncate(fd, 0);
    // Two processes and their records, across pages.
    let children: Vec<_> = [b'a', b'b']
        .into_iter()
        .filter_map(|who| user_tests::start(|| (0..EACH).any(|_| io::write(fd, &[who; 777]) != Ok(777)) as i32).ok())
        .collect();
    let ended = children.iter().all(|pid| process::waitpid(*pid) == Ok(process::Status::Exited(0)));
    let bytes = content(fd);
    let whole = bytes.len() == 2 * EACH * 777 && bytes.chunks(777).all(|record| record.iter().all(|b| *b == record[0]));
    checks.ok(ended && whole, "records of two processes stay whole");
    close(fd);
}

/// Threads that change one file.
fn beside(checks: &mut Checks) {
    static DONE: AtomicBool = AtomicBool::new(false);
    let fd = file();
    let _ = truncate(fd, 8 * PAGE as i64);
    let at = shared(fd, 8 * PAGE, RW);
    let writer = thread::spawn(move || {
        let bytes = vec![1; 8 * PAGE];
        while !DONE.load(SeqCst) {
            let _ = pwrite(fd, &bytes, 0);
        }
    });
    let reader = thread::spawn(move || {
        let mut bytes = vec![0; 8 * PAGE];
        while !DONE.load(SeqCst) {
            let _ = pread(fd, &mut bytes, 0);
            assert!(bytes.iter().all(|b| *b < 2));
        }
    });
    for _ in 0..300 {
        let _ = truncate(fd, 10);
        let _ = allocate(fd, falloc::PUNCH_HOLE | falloc::KEEP_SIZE, 0, 8 * PAGE as i64);
        let _ = raw(nr::MADVISE, [at, 8 * PAGE, madv::DONTNEED as usize]);
    }
    DONE.store(true, SeqCst);
    for thread in [writer, reader].into_iter().flatten() {
        thread.join();
    }
    let bytes = content(fd);
    checks.ok(bytes.len() == 10 || bytes.len() == 8 * PAGE, "a write is before ftruncate, or after it");
    let _ = truncate(fd, 0);
    checks.eq(stat(fd).blocks, 0, "nothing is left in the end");
    let _ = munmap(at, 8 * PAGE);
    close(fd);
    checks.exits(
        || {
            let fd = file();
            let pid = user_tests::start(|| {
                let bytes = vec![1; 1 << 20];
                loop {
                    let _ = pwrite(fd, &bytes, 0);
                }
            });
            time::sleep_ms(10);
            let killed = pid.and_then(|pid| process::kill(pid, sig::KILL).and_then(|()| process::waitpid(pid)));
            (killed != Ok(process::Status::Killed(sig::KILL)) || pwrite(fd, b"x", 0) != Ok(1)) as i32
        },
        0,
        "a writer that is killed leaves the file to others",
    );
}
