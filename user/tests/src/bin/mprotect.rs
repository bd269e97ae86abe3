//! mprotect: rights change, contents do not.

#![no_std]
#![no_main]

use quire_rt::Errno;
use quire_rt::abi::flags::{Prot, sig};
use quire_rt::abi::nr;
use user_tests::{Checks, KERNEL, PAGE, RW, all, map, mprotect, munmap, peek, poke, raw};

quire_rt::entry!(main);

fn main() -> i32 {
    let mut checks = Checks::new();
    let at = map(8 * PAGE, RW);
    (0..8).for_each(|page| poke(at + page * PAGE, page as u8 + 1));

    checks.eq(mprotect(at + PAGE, PAGE, Prot::READ), Ok(()), "to read-only");
    checks.eq(peek(at + PAGE), 2, "it can be read");
    checks.killed(|| poke(at + PAGE, 9), sig::SEGV, "it cannot be written");
    poke(at, 11);
    poke(at + 2 * PAGE, 13);
    checks.ok(peek(at) == 11 && peek(at + 2 * PAGE) == 13, "its neighbours can");
    checks.eq(mprotect(at + PAGE, PAGE, RW), Ok(()), "and back");
    poke(at + PAGE + 1, 3);
    checks.ok(peek(at + PAGE) == 2 && peek(at + PAGE + 1) == 3, "contents stay, writes go on");
    checks.eq(mprotect(at + 3 * PAGE, PAGE, Prot::empty()), Ok(()), "to nothing");
    checks.killed(|| peek(at + 3 * PAGE), sig::SEGV, "it cannot be read");
    checks.eq(mprotect(at + 2 * PAGE, 3 * PAGE, Prot::READ), Ok(()), "over mappings of different rights");
    checks.eq(peek(at + 3 * PAGE), 4, "contents stayed through it all");
    checks.eq(mprotect(at, 8 * PAGE, RW), Ok(()), "all of it");

    checks.fails(mprotect(at + 1, PAGE, RW), Errno::EINVAL, "an address that is no page's");
    checks.eq(mprotect(at, 0, Prot::empty()), Ok(()), "length 0 does nothing");
    checks.fails(mprotect(at, PAGE, Prot::from_bits_retain(0x40)), Errno::EINVAL, "unknown rights");
    checks.fails(mprotect(at, PAGE, RW | Prot::GROWSDOWN | Prot::GROWSUP), Errno::EINVAL, "both directions");
    checks.fails(mprotect(at, PAGE, RW | Prot::GROWSDOWN), Errno::EINVAL, "a direction on what does not grow");
    checks.fails(mprotect(KERNEL, PAGE, Prot::READ), Errno::ENOMEM, "the kernel's half");
    let bits = |bits: usize| raw(nr::MPROTECT, [at + 7 * PAGE, PAGE, bits]);
    checks.eq(bits(0b1011), Ok(0), "atomic operations may be asked for");
    [0x10, 0x20, 0x40, 0x80, 1 << 32 | 1]
        .into_iter()
        .for_each(|no| checks.fails(bits(no), Errno::EINVAL, "an unknown bit"));
    checks.fails(mprotect(at, usize::MAX - PAGE, Prot::READ), Errno::ENOMEM, "a range that wraps");
    let _ = munmap(at + 5 * PAGE, PAGE);
    checks.fails(mprotect(at + 4 * PAGE, 3 * PAGE, Prot::READ), Errno::ENOMEM, "a range with a hole");
    checks.killed(|| poke(at + 4 * PAGE, 1), sig::SEGV, "what stands before the hole has changed");
    poke(at + 6 * PAGE, 1);
    checks.eq(peek(at + 6 * PAGE), 1, "what stands behind it has not");

    let fresh = map(4 * PAGE, Prot::READ);
    checks.ok(all(fresh, 4 * PAGE, 0), "untouched memory reads as zero");
    let _ = mprotect(fresh, 4 * PAGE, RW);
    poke(fresh, 1);
    checks.ok(peek(fresh) == 1 && peek(fresh + PAGE) == 0, "and once writable, is written without a trace elsewhere");
    let other = map(PAGE, Prot::READ);
    checks.eq(peek(other), 0, "zero pages of others are still zero");

    poke(fresh + PAGE, 42);
    checks.exits(
        || {
            let _ = mprotect(fresh, 4 * PAGE, Prot::READ);
            let _ = mprotect(fresh, 4 * PAGE, RW);
            poke(fresh + PAGE, 43);
            peek(fresh + PAGE) as i32
        },
        43,
        "a child that makes shared pages writable again writes to its own copy",
    );
    checks.eq(peek(fresh + PAGE), 42, "the parent keeps its own");
    for round in 0..100 {
        let _ = mprotect(fresh, 4 * PAGE, Prot::READ);
        let _ = mprotect(fresh, 4 * PAGE, RW);
        poke(fresh + 2 * PAGE, round);
    }
    checks.eq(peek(fresh + 2 * PAGE), 99, "a hundred times there and back");
    for (start, len) in [(at, 8 * PAGE), (fresh, 4 * PAGE), (other, PAGE)] {
        let _ = munmap(start, len);
    }
    checks.finish()
}
