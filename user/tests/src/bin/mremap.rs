//! mremap: growing, shrinking and moving mappings.

#![no_std]
#![no_main]

use quire_rt::Errno;
use quire_rt::abi::flags::{Map, Mremap, Open, Prot, sig};
use quire_rt::abi::nr;
use quire_rt::{fs, io, mem};
use user_tests::{Checks, KERNEL, PAGE, RW, all, map, mmap, mprotect, munmap, peek, poke, raw};

quire_rt::entry!(main);

const ANON: Map = Map::PRIVATE.union(Map::ANONYMOUS);
const MAY: Mremap = Mremap::MAYMOVE;
const NONE: Mremap = Mremap::empty();

fn mremap(at: usize, old: usize, new: usize, flags: Mremap, to: usize) -> Result<usize, Errno> {
    // SAFETY: mappings of the test's own, or what is refused.
    unsafe { mem::mremap(at, old, new, flags, to) }
}

/// Four pages that know their number, with a free page behind and a mapping after that.
fn four() -> usize {
    let at = map(6 * PAGE, RW);
    let _ = munmap(at + 4 * PAGE, PAGE);
    number(at, 4);
    at
}

fn number(at: usize, pages: usize) {
    (0..pages).for_each(|page| poke(at + page * PAGE + 7, page as u8 + 1));
}

fn numbered(at: usize, pages: usize) -> bool {
    (0..pages).all(|page| peek(at + page * PAGE + 7) == page as u8 + 1)
}

fn is_free(at: usize) -> bool {
    mem::msync(at, PAGE, 0) == Err(Errno::ENOMEM)
}

fn main() -> i32 {
    let mut checks = Checks::new();
    in_place(&mut checks);
    moving(&mut checks);
    fixed(&mut checks);
    keeping(&mut checks);
    kinds(&mut checks);
    refused(&mut checks);
    checks.finish()
}

fn in_place(checks: &mut Checks) {
    let at = four();
    checks.eq(mremap(at, 4 * PAGE, 4 * PAGE, NONE, 0), Ok(at), "the same size changes nothing");
    checks.eq(mremap(at, 4 * PAGE, 5 * PAGE, NONE, 0), Ok(at), "it grows where there is room");
    checks.ok(numbered(at, 4) && all(at + 4 * PAGE, PAGE, 0), "by zeroes");
    checks.fails(mremap(at, 5 * PAGE, 6 * PAGE, NONE, 0), Errno::ENOMEM, "not into its neighbour");
    checks.eq(mremap(at, 5 * PAGE, 2 * PAGE, NONE, 0), Ok(at), "it shrinks");
    checks.ok(numbered(at, 2) && is_free(at + 2 * PAGE) && is_free(at + 4 * PAGE), "and what is behind is gone");
    checks.eq(mremap(at, PAGE + 1, 2 * PAGE + 1, NONE, 0), Ok(at), "lengths are rounded up");
    checks.eq(peek(at + 2 * PAGE), 0, "what comes back is zero");
    let _ = munmap(at, 6 * PAGE);
}

fn moving(checks: &mut Checks) {
    let at = four();
    let to = mremap(at, 4 * PAGE, 16 * PAGE, MAY, 0).unwrap_or(0);
    checks.ok(to != 0 && to != at, "it moves where there is more room");
    checks.ok(numbered(to, 4) && all(to + 4 * PAGE, 12 * PAGE, 0), "with its contents");
    checks.ok((0..4).all(|page| is_free(at + page * PAGE)), "and leaves its place");
    let _ = (munmap(to, 16 * PAGE), munmap(at, 6 * PAGE));

    let at = four();
    let part = mremap(at + PAGE, PAGE, 8 * PAGE, MAY, 0).unwrap_or(0);
    checks.ok(peek(part + 7) == 2 && peek(part + PAGE) == 0, "a part of a mapping moves");
    checks.ok(peek(at + 7) == 1 && is_free(at + PAGE) && peek(at + 2 * PAGE + 7) == 3, "the rest stays");
    let _ = (munmap(part, 8 * PAGE), munmap(at, 6 * PAGE));

    // Enough for whole translation tables, and written here and there.
    const LARGE: usize = 1536 * PAGE;
    let large = map(LARGE + PAGE, RW);
    let _ = munmap(large + LARGE, PAGE);
    (0..1536).step_by(17).for_each(|page| poke(large + page * PAGE, page as u8));
    let to = mremap(large, LARGE, LARGE + (4 << 20), MAY, 0).unwrap_or(0);
    let kept = (0..1536).all(|page| peek(to + page * PAGE) == if page % 17 == 0 { page as u8 } else { 0 });
    checks.ok(kept, "six MiB move");
    checks.exits(|| (peek(to + 34 * PAGE) == 34) as i32, 1, "a child sees them there");
    let _ = munmap(to, LARGE + (4 << 20));
}

fn fixed(checks: &mut Checks) {
    let at = four();
    let to = map(8 * PAGE, RW);
    (0..8).for_each(|page| poke(to + page * PAGE, 0xee));
    let flags = MAY | Mremap::FIXED;
    checks.eq(mremap(at, 4 * PAGE, 4 * PAGE, flags, to + PAGE), Ok(to + PAGE), "FIXED moves it there");
    checks.ok(numbered(to + PAGE, 4) && is_free(at), "whole");
    checks.ok(peek(to) == 0xee && peek(to + 5 * PAGE) == 0xee, "what is around stays");
    checks.eq(mremap(to + PAGE, 4 * PAGE, 2 * PAGE, flags, at), Ok(at), "smaller");
    checks.ok(numbered(at, 2) && is_free(at + 2 * PAGE) && is_free(to + 4 * PAGE), "the rest goes");
    checks.eq(mremap(at, 2 * PAGE, 3 * PAGE, flags, to), Ok(to), "larger");
    checks.ok(numbered(to, 2) && peek(to + 2 * PAGE + 7) == 0, "with zeroes behind");
    for (what, got) in [
        ("FIXED without MAYMOVE", mremap(to, PAGE, PAGE, Mremap::FIXED, at)),
        ("FIXED at no page", mremap(to, PAGE, PAGE, flags, at + 1)),
        ("FIXED onto itself", mremap(to, 2 * PAGE, 2 * PAGE, flags, to + PAGE)),
        ("FIXED over its beginning", mremap(to + PAGE, PAGE, 2 * PAGE, flags, to)),
        ("FIXED in the kernel's half", mremap(to, PAGE, PAGE, flags, KERNEL)),
    ] {
        checks.fails(got, Errno::EINVAL, what);
    }
    checks.ok(numbered(to, 2), "a refused call changes nothing");
    let _ = (munmap(at, 6 * PAGE), munmap(to, 8 * PAGE));
}

fn keeping(checks: &mut Checks) {
    let flags = MAY | Mremap::DONTUNMAP;
    let at = four();
    let to = mremap(at, 4 * PAGE, 4 * PAGE, flags, 0).unwrap_or(0);
    checks.ok(to != 0 && numbered(to, 4), "DONTUNMAP moves the pages");
    checks.ok(all(at, 4 * PAGE, 0), "and leaves zeroes");
    let room = map(6 * PAGE, RW);
    checks.eq(mremap(to, 4 * PAGE, 4 * PAGE, flags | Mremap::FIXED, room), Ok(room), "with FIXED");
    checks.ok(numbered(room, 4) && all(to, 4 * PAGE, 0), "the same");
    for (what, got) in [
        ("DONTUNMAP without MAYMOVE", mremap(room, PAGE, PAGE, Mremap::DONTUNMAP, 0)),
        ("DONTUNMAP and another size", mremap(room, PAGE, 2 * PAGE, flags, 0)),
        ("even within the page", mremap(room, PAGE, PAGE - 1, flags, 0)),
        ("DONTUNMAP to no page", mremap(room, PAGE, PAGE, flags, 1)),
        ("DONTUNMAP onto itself", mremap(room, 2 * PAGE, 2 * PAGE, flags, room + PAGE)),
    ] {
        checks.fails(got, Errno::EINVAL, what);
    }
    let _ = (munmap(room, 6 * PAGE), munmap(to, 4 * PAGE), munmap(at, 6 * PAGE));
}

fn kinds(checks: &mut Checks) {
    let shared = mmap(0, 4 * PAGE, RW, Map::SHARED | Map::ANONYMOUS, -1, 0).unwrap_or(0);
    number(shared, 4);
    let second = mremap(shared, 0, 4 * PAGE, MAY, 0).unwrap_or(0);
    checks.ok(second != shared && numbered(second, 4), "an old size of 0 maps shared memory once more");
    poke(second, 0x77);
    checks.eq(peek(shared), 0x77, "the same memory");
    let grown = mremap(second, 4 * PAGE, 6 * PAGE, MAY, 0).unwrap_or(0);
    checks.ok(numbered(grown, 4), "shared memory grows");
    checks.killed(|| peek(grown + 4 * PAGE), sig::BUS, "but has no pages past its end");
    let _ = (munmap(shared, 4 * PAGE), munmap(grown, 6 * PAGE));

    let fd = fs::open(c"/init", Open::empty()).unwrap_or(-1);
    let file = mmap(0, PAGE, Prot::READ, Map::PRIVATE, fd, PAGE).unwrap_or(0);
    let second = mmap(0, 2 * PAGE, Prot::READ, Map::PRIVATE, fd, PAGE).unwrap_or(0);
    let grown = mremap(file, PAGE, 2 * PAGE, MAY, 0).unwrap_or(0);
    let same = (0..2 * PAGE).all(|at| peek(grown + at) == peek(second + at));
    checks.ok(same, "a file's mapping grows into the file");
    let _ = (munmap(grown, 2 * PAGE), munmap(second, 2 * PAGE), io::close(fd));

    let read = map(2 * PAGE, RW);
    poke(read, 5);
    let _ = mprotect(read, 2 * PAGE, Prot::READ);
    let moved = mremap(read, 2 * PAGE, 64 * PAGE, MAY, 0).unwrap_or(0);
    checks.eq(peek(moved), 5, "read-only memory moves");
    checks.killed(|| poke(moved + 63 * PAGE, 1), sig::SEGV, "and stays read-only, where it is new, too");
    let _ = munmap(moved, 64 * PAGE);
}

fn refused(checks: &mut Checks) {
    let at = four();
    for (what, got, wanted) in [
        ("an address that is no page's", mremap(at + 1, PAGE, PAGE, NONE, 0), Errno::EINVAL),
        ("a new size of 0", mremap(at, PAGE, 0, NONE, 0), Errno::EINVAL),
        ("an old size of 0 of private memory", mremap(at, 0, PAGE, MAY, 0), Errno::EINVAL),
        ("where nothing is mapped", mremap(at + 4 * PAGE, PAGE, PAGE, NONE, 0), Errno::EFAULT),
        ("beyond the mapping's end", mremap(at, 6 * PAGE, 7 * PAGE, MAY, 0), Errno::EFAULT),
        ("a size beyond all", mremap(at, PAGE, 1 << 60, MAY, 0), Errno::ENOMEM),
    ] {
        checks.fails(got, wanted, what);
    }
    checks.fails(raw(nr::MREMAP, [at, PAGE, PAGE, 8, 0]), Errno::EINVAL, "an unknown flag");
    let two = mmap(0, 4 * PAGE, RW, ANON, -1, 0).unwrap_or(0);
    let _ = mprotect(two + 2 * PAGE, 2 * PAGE, Prot::READ);
    checks.fails(mremap(two, 4 * PAGE, 5 * PAGE, MAY, 0), Errno::EFAULT, "two mappings at once");
    checks.ok(numbered(at, 4) && peek(two) == 0, "a refused call changes nothing");
    let _ = (munmap(two, 4 * PAGE), munmap(at, 6 * PAGE));
}
