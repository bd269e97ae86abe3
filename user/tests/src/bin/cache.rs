//! cache: what EL0 may read and maintain: counter, cache type, DC ZVA, new code.

#![no_std]
#![no_main]

use quire_rt::abi::flags::Prot;
use quire_rt::arch;
use user_tests::{Checks, PAGE, RW, all, asm, map, mprotect, munmap, peek, poke};

quire_rt::entry!(main);

/// `mov w0, #value` and `ret`.
fn write_function(at: usize, value: u16) {
    let code = [0x5280_0000 | (value as u32) << 5, 0xd65f_03c0];
    for (i, byte) in code.iter().flat_map(|word| word.to_le_bytes()).enumerate() {
        poke(at + i, byte);
    }
    asm::sync_code(at, at + 8);
}

fn main() -> i32 {
    let mut checks = Checks::new();
    let ctr = arch::cache_type();
    let (data, code) = (4usize << (ctr >> 16 & 15), 4usize << (ctr & 15));
    checks.ok((16..=2048).contains(&data) && (16..=2048).contains(&code), "CTR_EL0 gives sizes of cache lines");
    checks.ok(arch::counter_frequency() > 0 && arch::counter() > 0, "CNTFRQ_EL0 and CNTVCT_EL0 can be read");

    let dczid = arch::zero_block();
    checks.ok(dczid & 16 == 0, "DC ZVA is allowed");
    let block = 4usize << (dczid & 15);
    let at = map(2 * PAGE, RW);
    (at..at + 2 * PAGE).for_each(|byte| poke(byte, 0xff));
    asm::zero_block(at + block + 1);
    let exact = all(at, block, 0xff) && all(at + block, block, 0) && all(at + 2 * block, block, 0xff);
    checks.ok(exact, "it zeroes one aligned block");
    let fresh = map(PAGE, RW);
    asm::zero_block(fresh);
    checks.eq(peek(fresh), 0, "also in memory that was never touched");
    let read = map(PAGE, Prot::READ);
    checks.killed(|| asm::zero_block(read), quire_rt::abi::flags::sig::SEGV, "but not in read-only memory");

    let _ = mprotect(at, 2 * PAGE, RW | Prot::EXEC);
    write_function(at, 42);
    checks.eq(asm::call(at), 42, "code that was just written runs");
    let right = (0..200).all(|value| {
        write_function(at, value);
        asm::call(at) == value as u64
    });
    checks.ok(right, "and again, two hundred times in the same place");
    let split = map(PAGE, RW);
    write_function(split, 7);
    let _ = mprotect(split, PAGE, Prot::READ | Prot::EXEC);
    checks.eq(asm::call(split), 7, "written first, made executable then");
    checks.exits(|| asm::call(split) as i32, 7, "a child can run it too");
    checks.exits(
        || {
            write_function(at, 99);
            asm::call(at) as i32
        },
        99,
        "and write its own",
    );
    checks.eq(asm::call(at), 199, "which its parent does not run");
    for (start, len) in [(at, 2 * PAGE), (fresh, PAGE), (read, PAGE), (split, PAGE)] {
        let _ = munmap(start, len);
    }
    checks.finish()
}
