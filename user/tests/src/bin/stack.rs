//! stack: it grows on access, up to its limit and no further.

#![no_std]
#![no_main]

use core::hint::black_box;

use quire_rt::abi::flags::sig;
use quire_rt::abi::layout::{Rlimit, at, rlimit};
use quire_rt::{process, start::auxv};
use user_tests::{Checks, peek};

quire_rt::entry!(main);

/// Uses at least `bytes` of stack and returns how many calls that took.
#[inline(never)]
fn recurse(bytes: usize) -> usize {
    let frame = black_box([bytes as u8; 4096]);
    let deeper = if bytes > frame.len() { recurse(bytes - frame.len()) } else { 0 };
    // Read after the call, so that the frame must outlive it.
    deeper + (black_box(&frame)[17] == bytes as u8) as usize
}

fn main() -> i32 {
    let mut checks = Checks::new();
    let here = 0u8;
    let stack = &raw const here as usize;
    checks.ok(stack < 1 << 48, "the stack is in the lower half");
    let limit = process::prlimit(rlimit::STACK, None).map_or(0, |limit| limit.cur as usize);
    checks.ok(limit >= 1 << 20, "its limit is a mebibyte or more");
    checks.killed(
        || {
            let _ = process::prlimit(rlimit::STACK, Some(Rlimit { cur: 256 << 10, max: rlimit::INFINITY }));
            black_box(recurse(1 << 20));
        },
        sig::SEGV,
        "a lower limit holds, where the stack is not yet larger",
    );
    let deep = limit.min(8 << 20) / 2;
    checks.eq(recurse(deep), deep.div_ceil(4096), "half the limit can be used");
    checks.eq(recurse(deep), deep.div_ceil(4096), "and again");
    checks.killed(|| black_box(recurse(limit.saturating_mul(2).min(1 << 31))), sig::SEGV, "twice the limit cannot");
    checks.killed(|| black_box(recurse(1 << 31)), sig::SEGV, "recursion without end is a fault");
    checks.exits(|| (recurse(deep) != deep.div_ceil(4096)) as i32, 0, "a child has the same room");
    checks.killed(|| peek(stack - 2 * limit.min(1 << 30)), sig::SEGV, "far below the stack there is nothing");
    checks.killed(|| user_tests::asm::call(stack & !3), sig::SEGV, "the stack is not executable");
    checks.eq(auxv(at::PAGESZ), Some(4096), "the auxiliary vector knows the page size");
    checks.ok(auxv(at::RANDOM).is_some_and(|bytes| bytes != 0), "and has random bytes");
    checks.finish()
}
