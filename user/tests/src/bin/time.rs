//! time: clocks go forward, sleeps last, and both agree with the counter.

#![no_std]
#![no_main]

use quire_rt::abi::flags::clock;
use quire_rt::abi::layout::{Timespec, Timeval};
use quire_rt::abi::nr;
use quire_rt::{Errno, arch, time};
use user_tests::{Checks, KERNEL, raw};

quire_rt::entry!(main);

const MS: u64 = 1_000_000;

fn main() -> i32 {
    let mut checks = Checks::new();
    clocks(&mut checks);
    sleeping(&mut checks);
    counter(&mut checks);
    checks.finish()
}

fn clocks(checks: &mut Checks) {
    let mut last = time::monotonic();
    let forward = (0..20_000).all(|_| {
        let now = time::monotonic();
        let good = now >= last;
        last = now;
        good
    });
    checks.ok(forward && last > 0, "CLOCK_MONOTONIC never goes back");
    for clock in 0..8 {
        let valid = time::get(clock).is_ok_and(|time| time.sec >= 0 && (0..1_000_000_000).contains(&time.nsec));
        checks.ok(valid, "each of the eight clocks has a time");
    }
    checks.fails(time::get(99), Errno::EINVAL, "an invalid clock");
    let mut resolution = Timespec::default();
    let got = raw(nr::CLOCK_GETRES, [clock::MONOTONIC as usize, &raw mut resolution as usize]);
    checks.ok(
        got == Ok(0) && resolution.sec == 0 && (1..=1000).contains(&resolution.nsec),
        "clock_getres: 1 µs or better",
    );
    let mut now = Timeval::default();
    let before = time::nanoseconds(clock::REALTIME) / 1000;
    let got = raw(nr::GETTIMEOFDAY, [&raw mut now as usize, 0]);
    let after = time::nanoseconds(clock::REALTIME) / 1000;
    let middle = now.sec as u64 * 1_000_000 + now.usec as u64;
    checks.ok(got == Ok(0) && (before..=after).contains(&middle), "gettimeofday lies between two readings of REALTIME");

    let used = time::nanoseconds(clock::PROCESS_CPUTIME_ID);
    let end = time::monotonic() + 50 * MS;
    while time::monotonic() < end {}
    let spun = time::nanoseconds(clock::PROCESS_CPUTIME_ID) - used;
    checks.ok(spun > 5 * MS, "the clock of CPU time runs while the process does");
    // (A host that stops the machine on the way into the sleep stops it for the process.)
    let stands = user_tests::until(|| {
        let used = time::nanoseconds(clock::PROCESS_CPUTIME_ID);
        time::sleep_ms(50);
        time::nanoseconds(clock::PROCESS_CPUTIME_ID) - used < 25 * MS
    });
    checks.ok(stands, "and stands while it sleeps");
}

fn sleeping(checks: &mut Checks) {
    for milliseconds in [1, 20, 100] {
        let begin = time::monotonic();
        let result = time::nanosleep(milliseconds * MS);
        let slept = time::monotonic() - begin;
        checks.ok(result.is_ok() && slept >= milliseconds * MS, "a sleep is not too short");
    }
    checks.ok(time::nanosleep(0).is_ok(), "no time at all");
    for (sec, nsec, what) in
        [(0, 1_000_000_000, "too many nanoseconds"), (0, -1, "negative nanoseconds"), (-1, 0, "negative seconds")]
    {
        let time = Timespec { sec, nsec };
        checks.fails(raw(nr::NANOSLEEP, [&raw const time as usize, 0]), Errno::EINVAL, what);
    }
    checks.fails(raw(nr::NANOSLEEP, [KERNEL, 0]), Errno::EFAULT, "a time that is nowhere");
    let until = time::monotonic() + 30 * MS;
    let at = time::timespec(until);
    let sleep = |clock: i32, at: &Timespec| {
        raw(nr::CLOCK_NANOSLEEP, [clock as usize, clock::TIMER_ABSTIME as usize, at as *const _ as usize, 0])
    };
    let slept = sleep(clock::MONOTONIC, &at);
    checks.ok(slept == Ok(0) && time::monotonic() >= until, "until a certain time");
    checks.eq(sleep(clock::MONOTONIC, &time::timespec(1)), Ok(0), "until one that is past");
    checks.fails(sleep(99, &at), Errno::EINVAL, "by an invalid clock");
}

fn counter(checks: &mut Checks) {
    let frequency = arch::counter_frequency();
    checks.ok((1_000_000..=10_000_000_000).contains(&frequency), "the counter's frequency");
    // The counter is read between two looks at the clock: however far apart those are, it lies between them.
    let read = || (time::monotonic(), arch::counter(), time::monotonic());
    let (before, count_before, past_before) = read();
    time::sleep_ms(100);
    let (after, count_after, past_after) = read();
    let counted = ((count_after - count_before) as u128 * 1_000_000_000 / frequency as u128) as u64;
    let (least, most) = (after - past_before, past_after - before);
    checks.ok((least * 19 / 20..=most * 21 / 20).contains(&counted), "the counter and the clock agree within 5 %");
    let mut last = arch::counter();
    let forward = (0..100_000).all(|_| {
        let now = arch::counter();
        let good = now >= last;
        last = now;
        good
    });
    checks.ok(forward, "the counter never goes back");
}
