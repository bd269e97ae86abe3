//! extremes: every call with extreme values as arguments. Whatever the answer, the kernel must survive: in the debug
//! build, where arithmetic overflow panics, this finds unchecked sums of user-given values.

#![no_std]
#![no_main]

use quire_rt::abi::flags::{sig, wait};
use quire_rt::abi::layout::{Rlimit, rlimit};
use quire_rt::abi::{PAGE_SIZE, nr};
use quire_rt::process::{self, Status, wait4};
use quire_rt::{io, time};
use user_tests::{Checks, RW, map, poke, raw, start};

quire_rt::entry!(main);

/// Calls that end the program or the machine, whatever their arguments; and the one that makes allocations fail.
const LEFT_OUT: [usize; 12] = [
    nr::EXIT,
    nr::EXIT_GROUP,
    nr::RT_SIGRETURN,
    nr::CLONE,
    nr::REBOOT,
    nr::KILL,
    nr::TKILL,
    nr::TGKILL,
    nr::QUIRE_POWEROFF,
    nr::QUIRE_FAIL_NTH,
    nr::QUIRE_AUDIT,
    nr::QUIRE_SETTING,
];

/// Calls to other processes, which root may harm: somebody else makes them.
const TO_OTHERS: [usize; 8] = [
    nr::PRLIMIT64,
    nr::SCHED_SETAFFINITY,
    nr::SCHED_SETSCHEDULER,
    nr::SCHED_SETPARAM,
    nr::SCHED_SETATTR,
    nr::SETPRIORITY,
    nr::RT_SIGQUEUEINFO,
    nr::RT_TGSIGQUEUEINFO,
];

/// Somebody who has no other process.
const NOBODY: usize = 54_321;

/// Combinations that are tried of each call.
const ROUNDS: usize = 400;

/// Milliseconds after which a child that no alarm wakes is killed.
const PATIENCE: u64 = 3_000;

fn main() -> i32 {
    let mut checks = Checks::new();
    for &number in nr::ALL.iter().filter(|number| !LEFT_OUT.contains(number)) {
        let Ok(pid) = start(|| attack(number)) else { continue };
        let limit = time::monotonic() + PATIENCE * 1_000_000;
        let status = loop {
            match wait4(pid, wait::WNOHANG) {
                Ok(None) if time::monotonic() < limit => time::sleep_ms(1),
                Ok(None) => {
                    let _ = process::kill(pid, sig::KILL);
                }
                Ok(Some(changed)) => break changed.status,
                Err(_) => break Status::Continued,
            }
        };
        let usual = matches!(status, Status::Exited(0) | Status::Killed(sig::ALRM | sig::SEGV | sig::BUS | sig::KILL));
        if !usual {
            checks.eq((number, status), (number, Status::Exited(0)), "a call that ends its program");
        }
    }
    checks.ok(process::getpid() > 1, "the kernel lives");
    checks.finish()
}

/// Makes one call again and again. An alarm interrupts those that sleep.
fn attack(number: usize) -> i32 {
    // The calls must neither reach the terminal nor fill memory.
    for fd in 0..3 {
        let _ = io::close(fd);
    }
    let _ = process::prlimit(rlimit::AS, Some(Rlimit { cur: 64 << 20, max: 64 << 20 }));
    if TO_OTHERS.contains(&number) && raw(nr::SETUID, [NOBODY]).is_err() {
        return 1;
    }
    let page = map(2 * PAGE_SIZE, RW);
    let values = [
        0,
        1,
        2,
        7,
        8,
        page,
        page + PAGE_SIZE - 4,
        page + 2 * PAGE_SIZE - 8,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        1 << 32,
        (1 << 47) - 1,
        1 << 47,
        (1 << 48) - 1,
        1 << 48,
        (1 << 48) - PAGE_SIZE,
        isize::MAX as usize,
        isize::MIN as usize,
        usize::MAX - PAGE_SIZE,
        usize::MAX - PAGE_SIZE + 1,
        usize::MAX - 7,
        usize::MAX - 1,
        usize::MAX,
    ];
    let mut seed = number as u64 * 0x9e37_79b9_7f4a_7c15 + 1;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize
    };
    for _ in 0..ROUNDS {
        let _ = time::set_alarm(20_000_000, 0);
        let args: [usize; 6] = core::array::from_fn(|_| values[next() % values.len()]);
        // The memory that pointers lead to holds extreme values as well.
        for at in [page, page + 8, page + 16, page + PAGE_SIZE, page + 2 * PAGE_SIZE - 8] {
            let value = values[next() % values.len()].to_le_bytes();
            value.iter().enumerate().for_each(|(i, byte)| poke(at + i, *byte));
        }
        let _ = raw(number, args);
    }
    0
}
