//! mincore: which pages are in memory.

#![no_std]
#![no_main]

use quire_rt::Errno;
use quire_rt::abi::flags::{Map, Open, Prot, madv};
use quire_rt::abi::nr;
use quire_rt::{fs, io, mem};
use user_tests::{Checks, KERNEL, PAGE, RW, map, mmap, mprotect, munmap, peek, poke, raw};

quire_rt::entry!(main);

/// A bit a page, the first page's lowest.
fn core(at: usize, pages: usize) -> Result<u32, Errno> {
    let mut vec = [0xaa; 32];
    mem::mincore(at, pages * PAGE, &mut vec)?;
    Ok((0..pages).map(|page| u32::from(vec[page] & 1) << page).sum())
}

fn main() -> i32 {
    let mut checks = Checks::new();
    let at = map(8 * PAGE, RW);
    checks.eq(core(at, 8), Ok(0), "nothing is in memory that was not touched");
    poke(at + 2 * PAGE, 1);
    peek(at + 5 * PAGE);
    checks.eq(core(at, 8), Ok(0b10_0100), "what was written is, and what was read");
    // SAFETY: the test's own memory.
    let _ = unsafe { mem::madvise(at + 2 * PAGE, PAGE, madv::DONTNEED) };
    checks.eq(core(at, 8), Ok(0b10_0000), "what was given up is not");
    checks.eq(core(at + PAGE, 1), Ok(0), "a part of a mapping");
    let _ = mprotect(at + 4 * PAGE, 2 * PAGE, Prot::empty());
    checks.eq(core(at, 8), Ok(0b10_0000), "rights do not matter");

    let mut vec = [0xaa; 3];
    checks.eq(mem::mincore(at, PAGE + 1, &mut vec), Ok(()), "a length is rounded up");
    checks.ok(vec[0] & 1 == 0 && vec[1] & 1 == 0 && vec[2] == 0xaa, "one byte a page is written, no more");
    checks.eq(mem::mincore(at, 0, &mut vec), Ok(()), "length 0");
    checks.fails(mem::mincore(at + 1, PAGE, &mut vec), Errno::EINVAL, "an address that is no page's");
    let room = vec.as_mut_ptr() as usize;
    checks.fails(raw(nr::MINCORE, [at, usize::MAX / 2, room]), Errno::ENOMEM, "a range beyond everything");
    checks.fails(raw(nr::MINCORE, [KERNEL, PAGE, room]), Errno::ENOMEM, "the kernel's half");
    checks.fails(raw(nr::MINCORE, [at, PAGE, KERNEL]), Errno::EFAULT, "an answer into the kernel's half");
    checks.fails(raw(nr::MINCORE, [at, 1 << 40, KERNEL]), Errno::EFAULT, "which comes before holes");
    checks.fails(
        raw(nr::MINCORE, [at, 1 << 48, map(16 * PAGE, RW)]),
        Errno::ENOMEM,
        "a range that no process can have",
    );
    checks.fails(raw(nr::MINCORE, [at, PAGE, 0x10]), Errno::EFAULT, "an answer to where nothing is mapped");
    let _ = munmap(at + 3 * PAGE, PAGE);
    checks.eq(core(at, 3), Ok(0), "up to a hole");
    checks.eq(core(at, 4), Err(Errno::ENOMEM), "into one");
    checks.eq(core(at + 3 * PAGE, 1), Err(Errno::ENOMEM), "and in one");
    let _ = munmap(at, 8 * PAGE);

    let shared = mmap(0, 3 * PAGE, RW, Map::SHARED | Map::ANONYMOUS, -1, 0).unwrap_or(0);
    checks.exits(
        || {
            poke(shared + PAGE, 1);
            0
        },
        0,
        "a child touches shared memory",
    );
    checks.eq(core(shared, 3), Ok(0b010), "it is in memory for the parent too");
    let _ = munmap(shared, 3 * PAGE);
    let fd = fs::open(c"/init", Open::empty()).unwrap_or(-1);
    let file = mmap(0, 2 * PAGE, Prot::READ, Map::PRIVATE, fd, 0).unwrap_or(0);
    checks.eq(core(file, 2), Ok(0b11), "a file of the boot archive always is");
    let _ = (munmap(file, 2 * PAGE), io::close(fd));
    checks.finish()
}
