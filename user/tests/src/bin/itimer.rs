//! itimer: SIGALRM by the clock.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use quire_rt::Errno;
use quire_rt::abi::flags::{itimer, sig};
use quire_rt::abi::layout::{Itimerval, Timeval};
use quire_rt::abi::nr;
use quire_rt::process::{self, Status, waitpid};
use quire_rt::signal::{self, How, Info, handle, mask, set};
use quire_rt::start::args;
use quire_rt::time::{self, set_alarm};
use user_tests::{Checks, KERNEL, child, raw, start};

quire_rt::entry!(main);

const MS: u64 = 1_000_000;

static COUNT: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: i32, _: *const Info, _: *mut u8) {
    COUNT.fetch_add(1, SeqCst);
}

fn main() -> i32 {
    if args().count() > 1 {
        // exec keeps the timer, whose signal ends this sleep.
        time::sleep_ms(10_000);
        return 1;
    }
    let mut checks = Checks::new();
    let asleep = || {
        let _ = set_alarm(20 * MS, 0);
        time::sleep_ms(10_000);
    };
    checks.killed(asleep, sig::ALRM, "an alarm ends a sleeper");
    let busy = || {
        let _ = set_alarm(20 * MS, 0);
        loop {
            core::hint::spin_loop()
        }
    };
    checks.killed(busy, sig::ALRM, "and a runner");
    once_and_again(&mut checks);
    values(&mut checks);
    inherited(&mut checks);
    many(&mut checks);
    checks.finish()
}

fn once_and_again(checks: &mut Checks) {
    let _ = handle(sig::ALRM, count, 0, 0);
    let begin = time::monotonic();
    // Repeatedly: one of them arrives after the pause has begun, however late that is.
    let _ = set_alarm(30 * MS, 30 * MS);
    checks.eq(signal::suspend(0), Errno::EINTR, "an alarm's handler ends a pause");
    checks.ok(time::monotonic() - begin >= 30 * MS, "not early");
    let _ = set_alarm(0, 0);
    COUNT.store(0, SeqCst);
    let _ = set_alarm(10 * MS, 0);
    time::sleep(60 * MS);
    checks.eq((COUNT.swap(0, SeqCst), set_alarm(0, 0)), (1, Ok((0, 0))), "once is once");
    let _ = set_alarm(5 * MS, 5 * MS);
    while COUNT.load(SeqCst) < 5 {
        let _ = signal::suspend(0);
    }
    let before = COUNT.load(SeqCst);
    let left = set_alarm(0, 0).unwrap_or_default();
    // A machine under load may be here after the next signal is sent, and before it is taken: no time is left then.
    let is_sent = left.0 == 0 && COUNT.load(SeqCst) > before;
    let is_running = (1..=5 * MS).contains(&left.0);
    checks.ok((is_running || is_sent) && left.1 == 5 * MS, "an interval goes on and on");
    COUNT.store(0, SeqCst);
    time::sleep_ms(20);
    checks.eq(COUNT.load(SeqCst), 0, "until it is stopped");
    let old = mask(How::Block, set(&[sig::ALRM])).unwrap_or(0);
    let _ = set_alarm(MS, MS);
    time::sleep_ms(30);
    let _ = set_alarm(0, 0);
    let _ = mask(How::Set, old);
    checks.eq(COUNT.load(SeqCst), 1, "a signal that is not taken is one signal");
    let _ = signal::ignore(sig::ALRM);
    let _ = set_alarm(MS, MS);
    time::sleep_ms(10);
    checks.eq(set_alarm(0, 0), Ok((0, MS)), "one that is ignored stops an interval, as on Linux");
    let _ = signal::default(sig::ALRM);
}

fn values(checks: &mut Checks) {
    let call = |number: usize, which: i32, new: usize, old: usize| raw(number, [which as usize, new, old]);
    let time = Itimerval { value: Timeval { sec: 100, usec: 0 }, ..Itimerval::default() };
    let new = &raw const time as usize;
    let mut old = Itimerval::default();
    let at = &raw mut old as usize;
    for which in [3, -1] {
        checks.fails(call(nr::SETITIMER, which, new, 0), Errno::EINVAL, "a nonexistent timer");
        checks.fails(call(nr::GETITIMER, which, at, 0), Errno::EINVAL, "nor to be asked");
    }
    for (sec, usec) in [(-1, 0), (0, -1), (0, 1_000_000), (0, i64::MAX), (i64::MIN, 0)] {
        let bad = Timeval { sec, usec };
        for bad in [Itimerval { value: bad, ..time }, Itimerval { interval: bad, ..time }] {
            let bad = call(nr::SETITIMER, itimer::REAL, &raw const bad as usize, 0);
            checks.fails(bad, Errno::EINVAL, "an invalid time");
        }
    }
    checks.fails(call(nr::SETITIMER, itimer::REAL, KERNEL, 0), Errno::EFAULT, "a time that is nowhere");
    checks.eq(call(nr::GETITIMER, itimer::REAL, at, 0), Ok(0), "getitimer");
    checks.eq(old, Itimerval::default(), "nothing was set by all that");
    let far =
        Itimerval { value: Timeval { sec: i64::MAX, usec: 999_999 }, interval: Timeval { sec: i64::MAX, usec: 0 } };
    checks.eq(call(nr::SETITIMER, itimer::REAL, &raw const far as usize, 0), Ok(0), "a time that never comes");
    checks.eq(call(nr::SETITIMER, itimer::REAL, new, at), Ok(0), "a time");
    checks.ok(old.value.sec > 1 << 32, "the one before");
    checks.eq(call(nr::GETITIMER, itimer::REAL, at, 0), Ok(0), "what is left");
    checks.ok(old.value.sec == 99 && old.interval == Timeval::default(), "is a little less");
    checks.fails(call(nr::GETITIMER, itimer::REAL, KERNEL, 0), Errno::EFAULT, "an answer to nowhere");
    checks.eq(call(nr::SETITIMER, itimer::REAL, 0, at), Ok(0), "no new time stops it, as on Linux");
    checks.eq(set_alarm(0, 0), Ok((0, 0)), "and it is stopped");
}

fn inherited(checks: &mut Checks) {
    let _ = set_alarm(50_000 * MS, 0);
    checks.exits(|| (set_alarm(0, 0) != Ok((0, 0))) as i32, 0, "a child has no timer of its parent's");
    let _ = set_alarm(0, 0);
    let path = args().next().unwrap_or(c"");
    let status = child(|| {
        let _ = set_alarm(50 * MS, 0);
        process::execve(path, [path, c"again"], []);
        1
    });
    checks.eq(status, Ok(Status::Killed(sig::ALRM)), "exec keeps it");
}

/// Many timers at once, some of processes that end before.
fn many(checks: &mut Checks) {
    let pids: [i32; 40] = core::array::from_fn(|i| {
        start(|| {
            let _ = set_alarm(if i % 4 == 3 { 10_000 * MS } else { 30 * MS }, MS);
            if i % 4 == 3 {
                return 3;
            }
            time::sleep_ms(20_000);
            1
        })
        .unwrap_or(-1)
    });
    let right = |i: usize| if i % 4 == 3 { Status::Exited(3) } else { Status::Killed(sig::ALRM) };
    checks.ok((0..40).all(|i| waitpid(pids[i]) == Ok(right(i))), "forty processes with timers");
}
