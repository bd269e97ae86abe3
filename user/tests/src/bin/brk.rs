//! brk: the end of the data segment.

#![no_std]
#![no_main]

use quire_rt::abi::flags::{Map, sig};
use quire_rt::abi::layout::{Rlimit, rlimit};
use quire_rt::process;
use user_tests::{Checks, PAGE, RW, all, mmap, munmap, peek, poke};

quire_rt::entry!(main);

fn brk(end: usize) -> usize {
    // SAFETY: the tests move the end only above where it was when they began, where nothing of the heap is; no
    // memory is allocated meanwhile.
    unsafe { quire_rt::mem::brk(end) }
}

fn main() -> i32 {
    let mut checks = Checks::new();
    let start = brk(0);
    checks.ok(start != 0 && brk(0) == start, "a query changes nothing");
    let base = start.next_multiple_of(PAGE);
    let top = base + 16 * PAGE;

    checks.eq(brk(top), top, "the end moves up");
    checks.ok(all(base, 16 * PAGE, 0), "what is new is zero");
    (0..16).for_each(|page| poke(base + page * PAGE, 0xaa));
    checks.eq(brk(base + 4 * PAGE), base + 4 * PAGE, "the end moves down");
    checks.eq(peek(base + 3 * PAGE), 0xaa, "what is left keeps its contents");
    checks.killed(|| peek(base + 4 * PAGE), sig::SEGV, "what is gone faults");
    checks.eq(brk(top), top, "the end moves up again");
    checks.ok(all(base + 4 * PAGE, PAGE, 0) && peek(base + 15 * PAGE) == 0, "what comes back is zero");

    checks.eq(brk(top + 100), top + 100, "the end need not be a page's");
    poke(top + 99, 1);
    poke(top + PAGE - 1, 2);
    checks.eq(peek(top + PAGE - 1), 2, "the rest of its page is there all the same");
    checks.eq(brk(top + 50), top + 50, "the end moves within a page");
    checks.eq(peek(top + PAGE - 1), 2, "and the page stays as it was");

    checks.eq(brk(0x1000), top + 50, "below the start it does not move");
    checks.eq(brk(usize::MAX), top + 50, "nor to where no memory can be");
    checks.eq(brk(1 << 62), top + 50, "nor beyond the address space");

    let block = top + 64 * PAGE;
    let fixed = mmap(block, PAGE, RW, Map::PRIVATE | Map::ANONYMOUS | Map::FIXED_NOREPLACE, -1, 0);
    checks.eq(fixed, Ok(block), "a mapping above the end");
    checks.eq(brk(block + PAGE), top + 50, "the end does not move over a mapping");
    checks.eq(brk(block), top + 50, "nor up to it: a page stays free");
    poke(block, 3);
    checks.eq(peek(block), 3, "which is untouched");
    let _ = munmap(block, PAGE);

    checks.exits(|| (brk(top) != top || peek(base) != 0xaa) as i32, 0, "a child has its parent's segment");
    checks.eq(brk(0), top + 50, "and moves only its own end");
    checks.killed(|| user_tests::asm::call(base), sig::SEGV, "the segment is not executable");

    checks.exits(
        || {
            let _ = process::prlimit(rlimit::DATA, Some(Rlimit { cur: 0x1000, max: rlimit::INFINITY }));
            (brk(top + 256 * PAGE) != top + 50) as i32
        },
        0,
        "RLIMIT_DATA holds",
    );
    checks.eq(brk(start), start, "back to the beginning");
    checks.finish()
}
