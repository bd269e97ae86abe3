//! nosys: unassigned system call numbers.

#![no_std]
#![no_main]

use quire_rt::Errno;
use quire_rt::abi::nr::QUIRE_BASE;
use user_tests::{Checks, raw};

quire_rt::entry!(main);

fn main() -> i32 {
    let mut checks = Checks::new();
    for number in [600, 999, 1023, 1024, 0xfff, QUIRE_BASE + 0xfff, 0x1_0000, 0xffff_ffff, 1 << 31] {
        checks.fails(raw(number, [1, 2, 3, 4, 5, 6]), Errno::ENOSYS, "a number that is no call");
    }
    let none = (700..4096).all(|number| raw(number, [0; 6]) == Err(Errno::ENOSYS));
    checks.ok(none, "nothing between Linux's calls and Quire's");
    checks.finish()
}
