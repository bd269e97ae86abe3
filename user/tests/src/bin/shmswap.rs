//! Shared memory and files in memory in swap: pages that go out by MADV_PAGEOUT or because memory is short are what
//! they were, for mappings and for calls.
//!
//! Without swap there is nothing to check. Memory runs short on small machines only.

#![no_std]
#![no_main]

use quire_rt::abi::flags::{Map, falloc, madv};
use quire_rt::abi::nr;
use quire_rt::process::{self, Status};
use quire_rt::{Errno, fs, info, io, mem};
use user_tests::{Checks, PAGE, RW, mmap, munmap, peek, poke, raw, start};

quire_rt::entry!(main);

const PAGES: usize = 32;
const LEN: usize = PAGES * PAGE;

/// More memory than this takes too long to fill.
const LIMIT: usize = 80 << 20;

const SET: usize = 0;
const DATA: usize = 3;
const HOLE: usize = 4;

fn main() -> i32 {
    let mut checks = Checks::new();
    let Ok(system) = info::sysinfo() else { return 1 };
    if system.totalswap == 0 {
        checks.skip("swap", "there is none");
        return checks.finish();
    }
    mappings(&mut checks);
    calls(&mut checks);
    private(&mut checks);
    let free = system.freeram as usize * system.mem_unit.max(1) as usize;
    if free <= LIMIT {
        short(&mut checks, free);
    } else {
        checks.skip("memory that runs short", "there is too much of it");
    }
    checks.finish()
}

fn file(len: usize) -> i32 {
    let fd = raw(nr::MEMFD_CREATE, [c"file".as_ptr() as usize, 0]).expect("a file") as i32;
    raw(nr::FTRUNCATE, [fd as usize, len]).expect("its length");
    fd
}

fn shared(fd: i32, len: usize) -> usize {
    mmap(0, len, RW, Map::SHARED, fd, 0).expect("a mapping")
}

/// What a page has in its first bytes; others are compressible.
fn word(page: usize, round: usize) -> u64 {
    ((page + 1) * 0x1_0001 + round) as u64
}

fn at(at: usize, page: usize) -> *mut u64 {
    core::ptr::with_exposed_provenance_mut(at + page * PAGE)
}

fn fill(start: usize, pages: usize, round: usize) {
    // SAFETY: the test's own mapping.
    (0..pages).for_each(|page| unsafe { at(start, page).add(page % 512).write_volatile(word(page, round)) });
}

fn wrong(start: usize, pages: usize, round: usize) -> usize {
    // SAFETY: as for `fill`.
    let is_right = |page: &usize| unsafe { at(start, *page).add(page % 512).read_volatile() } == word(*page, round);
    (0..pages).filter(|page| !is_right(page)).count()
}

/// Pages that are wrong by a call.
fn wrong_read(fd: i32, pages: usize, round: usize) -> usize {
    let is_right = |page: &usize| {
        let mut bytes = [0; 8];
        let offset = page * PAGE + page % 512 * 8;
        let read = raw(nr::PREAD64, [fd as usize, bytes.as_mut_ptr() as usize, 8, offset]);
        read == Ok(8) && u64::from_ne_bytes(bytes) == word(*page, round)
    };
    (0..pages).filter(|page| !is_right(page)).count()
}

fn page_out(start: usize, len: usize) -> Result<(), Errno> {
    // SAFETY: a mapping of the test's own.
    unsafe { mem::madvise(start, len, madv::PAGEOUT) }
}

/// Pages in memory. As for [`swapped`].
fn resident(start: usize, wanted: usize) -> usize {
    if user_tests::is_short() {
        return wanted;
    }
    let mut pages = [0; PAGES];
    let _ = mem::mincore(start, LEN, &mut pages);
    pages.iter().filter(|page| **page & 1 == 1).count()
}

fn in_swap() -> usize {
    info::sysinfo().map_or(0, |info| (info.totalswap - info.freeswap) as usize * info.mem_unit.max(1) as usize)
}

/// What is in swap that was not before: what is wanted if memory is short, so that others' pages come and go.
fn swapped(before: usize, wanted: usize) -> usize {
    if user_tests::is_short() { wanted } else { in_swap().wrapping_sub(before) }
}

fn mappings(checks: &mut Checks) {
    let start_of = mmap(0, LEN, RW, Map::SHARED | Map::ANONYMOUS, -1, 0).expect("shared memory");
    fill(start_of, PAGES, 1);
    let before = in_swap();
    checks.eq(page_out(start_of, LEN), Ok(()), "shared memory goes out");
    checks.eq((resident(start_of, 0), swapped(before, LEN)), (0, LEN), "all of it");
    let child = start(|| {
        let first = wrong(start_of, PAGES, 1);
        fill(start_of, PAGES, 2);
        i32::from(first != 0 || page_out(start_of, LEN).is_err())
    });
    checks.eq(child.and_then(process::waitpid), Ok(Status::Exited(0)), "a child finds it, and changes it");
    checks.eq((wrong(start_of, PAGES, 2), swapped(before, 0)), (0, 0), "which its parent sees");
    let _ = page_out(start_of, LEN);
    // SAFETY: as for `page_out`.
    let removed = unsafe { mem::madvise(start_of, LEN / 2, madv::REMOVE) };
    checks.eq((removed, swapped(before, LEN / 2)), (Ok(()), LEN / 2), "what is removed leaves swap");
    checks.eq(peek(start_of + PAGE), 0, "and is zeros");
    checks.eq(mem::mlock(start_of, LEN), Ok(()), "it is locked");
    checks.eq((resident(start_of, PAGES), swapped(before, 0)), (PAGES, 0), "so it is back");
    let _ = munmap(start_of, LEN);
    let again = mmap(0, LEN, RW, Map::SHARED | Map::ANONYMOUS, -1, 0).expect("shared memory");
    fill(again, PAGES, 3);
    let _ = page_out(again, LEN);
    let _ = munmap(again, LEN);
    checks.eq(swapped(before, 0), 0, "what nobody maps any more leaves swap");
}

fn calls(checks: &mut Checks) {
    let before = in_swap();
    let fd = file(LEN);
    let start_of = shared(fd, LEN);
    let all_out = |round| {
        fill(start_of, PAGES, round);
        let _ = page_out(start_of, LEN);
        swapped(before, LEN)
    };
    checks.eq(all_out(1), LEN, "a file goes out");
    checks.eq(fs::fstat(fd).map(|stat| stat.blocks), Ok((LEN / 512) as i64), "it has its blocks");
    let seek = |from: usize, whence| raw(nr::LSEEK, [fd as usize, from, whence]);
    checks.eq((seek(0, HOLE), seek(PAGE, DATA)), (Ok(LEN), Ok(PAGE)), "and no hole");
    checks.eq(
        raw(nr::FALLOCATE, [fd as usize, 0, 0, LEN]).map(|_| swapped(before, LEN)),
        Ok(LEN),
        "fallocate has nothing to do",
    );
    checks.eq(wrong_read(fd, PAGES, 1), 0, "it can be read");
    checks.eq((all_out(2), resident(start_of, 0)), (LEN, 0), "it goes out again");
    let write = |bytes: &[u8], to: usize| raw(nr::PWRITE64, [fd as usize, bytes.as_ptr() as usize, bytes.len(), to]);
    checks.eq((write(b"x", 1000), swapped(before, LEN - PAGE)), (Ok(1), LEN - PAGE), "a byte is written");
    checks.eq((peek(start_of + 1000), wrong(start_of, PAGES, 2)), (b'x', 0), "and nothing else");
    let _ = all_out(3);
    checks.eq(
        raw(nr::FALLOCATE, [fd as usize, (falloc::PUNCH_HOLE | falloc::KEEP_SIZE) as usize, PAGE, 3 * PAGE]),
        Ok(0),
        "a hole",
    );
    checks.eq(swapped(before, LEN - 3 * PAGE), LEN - 3 * PAGE, "leaves swap");
    checks.eq(peek(start_of + 3 * PAGE + 24), 0, "and is zeros");
    let cut = 5 * PAGE + 48;
    checks.eq(raw(nr::FTRUNCATE, [fd as usize, cut]).map(|_| swapped(before, 0) <= 5 * PAGE), Ok(true), "it is cut");
    checks.eq(raw(nr::FTRUNCATE, [fd as usize, LEN]), Ok(0), "and longer again");
    checks.eq((peek(start_of + 5 * PAGE + 40), peek(start_of + cut)), (word(5, 3) as u8, 0), "zeros follow the cut");
    fill(start_of, PAGES, 4);
    let _ = page_out(start_of, LEN);
    let (read, to) = io::pipe(0).expect("a pipe");
    let _ = seek(0, SET);
    let sent = raw(nr::SENDFILE, [to as usize, fd as usize, 0, 2 * PAGE]);
    let mut bytes = [0; PAGE];
    let got = (0..2).all(|page: usize| {
        let offset = page * 8;
        io::read(read, &mut bytes) == Ok(PAGE) && bytes[offset..offset + 8] == word(page, 4).to_ne_bytes()
    });
    checks.eq((sent, got), (Ok(2 * PAGE), true), "sendfile");
    let other = file(0);
    let copied = raw(nr::COPY_FILE_RANGE, [fd as usize, 0, other as usize, 0, LEN]);
    // (The position is behind what was sent.)
    checks.eq(copied.is_ok_and(|n| n >= LEN - 2 * PAGE), true, "copy_file_range");
    let _ = page_out(start_of, LEN);
    let _ = munmap(start_of, LEN);
    [fd, other, read, to].into_iter().for_each(|fd| _ = io::close(fd));
    checks.eq(swapped(before, 0), 0, "a file that is closed leaves swap");
}

/// Private copies of pages that are in swap.
fn private(checks: &mut Checks) {
    let before = in_swap();
    let fd = file(LEN);
    let (own, of_file) = (mmap(0, LEN, RW, Map::PRIVATE, fd, 0).expect("a mapping"), shared(fd, LEN));
    fill(of_file, PAGES, 1);
    let _ = page_out(of_file, LEN);
    fill(own, PAGES / 2, 2);
    checks.eq((wrong(own, PAGES / 2, 2), wrong(of_file, PAGES, 1)), (0, 0), "copies of pages in swap");
    checks.eq(
        peek(own + (PAGES - 1) * PAGE + (PAGES - 1) * 8),
        word(PAGES - 1, 1) as u8,
        "and pages that were only read",
    );
    let _ = page_out(of_file, LEN);
    poke(of_file + LEN - 1, 7);
    checks.eq(peek(own + LEN - 1), 7, "which others change");
    let _ = (munmap(own, LEN), munmap(of_file, LEN), io::close(fd));
    checks.eq(swapped(before, 0), 0, "all leave swap");
}

/// A file that is written by calls, and shared memory of two processes, which take more than there is together.
fn short(checks: &mut Checks, free: usize) {
    let pages = free / PAGE * 5 / 8;
    let fd = file(pages * PAGE);
    let start_of = mmap(0, pages * PAGE, RW, Map::SHARED | Map::ANONYMOUS, -1, 0).expect("shared memory");
    let child = start(|| {
        fill(start_of, pages, 1);
        0
    });
    for page in 0..pages {
        let bytes = word(page, 1).to_ne_bytes();
        let offset = page * PAGE + page % 512 * 8;
        let _ = raw(nr::PWRITE64, [fd as usize, bytes.as_ptr() as usize, 8, offset]);
    }
    checks.eq(child.and_then(process::waitpid), Ok(Status::Exited(0)), "a child fills shared memory");
    checks.eq(wrong_read(fd, pages / 2, 1), 0, "a file has its bytes");
    checks.eq(wrong(start_of, pages, 1), 0, "shared memory is what it was");
    let of_file = shared(fd, pages * PAGE);
    checks.eq(wrong(of_file, pages, 1), 0, "and so is the file by a mapping");
    let _ = (munmap(of_file, pages * PAGE), munmap(start_of, pages * PAGE), io::close(fd));
}
