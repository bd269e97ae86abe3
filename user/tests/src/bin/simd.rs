//! simd: vector registers and floating-point control belong to a thread, whatever else runs.

#![no_std]
#![no_main]

use quire_rt::abi::nr;
use quire_rt::{process, sched, time};
use user_tests::{Checks, asm, child, start};

quire_rt::entry!(main);

/// Holds a pattern of its own in all registers for a while, with calls in between; returns in how many rounds a
/// register had changed.
fn hammer(seed: u128, milliseconds: u64) -> i32 {
    let before: [u128; 32] = core::array::from_fn(|i| {
        seed.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) ^ (i as u128) << 96 | i as u128
    });
    let end = time::monotonic() + milliseconds * 1_000_000;
    let mut wrong = 0;
    while time::monotonic() < end {
        let mut after = [0; 32];
        // SAFETY: both have room for 32 registers.
        unsafe { asm::hold_vectors(before.as_ptr(), after.as_mut_ptr(), 200_000) };
        wrong += (before != after) as i32;
        sched::yield_now();
    }
    wrong.min(100)
}

fn main() -> i32 {
    let mut checks = Checks::new();
    let mask = sched::affinity(0).map_or(1, |words| words[0]);
    let one = 1 << mask.trailing_zeros();
    checks.eq(hammer(1, 50), 0, "registers hold alone");
    let _ = sched::set_affinity(0, one);
    let pids = [3, 5, 7].map(|seed| start(|| hammer(seed, 500)).unwrap_or(-1));
    let statuses = pids.map(|pid| process::waitpid(pid).map_or(-1, process::Status::code));
    checks.eq(statuses, [0; 3], "three programs on one CPU keep theirs");
    let _ = sched::set_affinity(0, mask);
    let pids = [11, 13, 17, 19, 23, 29].map(|seed| start(|| hammer(seed, 500)).unwrap_or(-1));
    let statuses = pids.map(|pid| process::waitpid(pid).map_or(-1, process::Status::code));
    checks.eq(statuses, [0; 6], "and six that may move between CPUs");

    // Round towards zero, flush to zero: bits 22 to 24 of FPCR.
    let (old, new) = (asm::fpcr(), 0b111 << 22);
    asm::set_fpcr(new);
    let inherited = child(|| (asm::fpcr() != new) as i32);
    let other = child(|| {
        asm::set_fpcr(0);
        time::sleep_ms(5);
        (asm::fpcr() != 0) as i32
    });
    let kept = asm::fpcr();
    asm::set_fpcr(old);
    checks.eq(inherited, Ok(process::Status::Exited(0)), "a child inherits FPCR");
    checks.eq((other, kept), (Ok(process::Status::Exited(0)), new), "and changes only its own");
    checks.eq(asm::call_keeps_registers(nr::GETPID), 0, "a quick call keeps the general registers");
    checks.eq(asm::call_keeps_registers(nr::SCHED_YIELD), 0, "a call that may switch keeps them too");
    checks.finish()
}
