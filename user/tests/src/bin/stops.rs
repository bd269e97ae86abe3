//! stops: a stop applies to the whole process, and interrupted calls resume when it continues.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use quire_rt::abi::flags::{clock, sig, wait};
use quire_rt::abi::nr;
use quire_rt::process::{self, Status, kill, wait4, waitpid};
use quire_rt::signal::{Info, handle, set, suspend};
use quire_rt::sync::futex_wait_shared;
use quire_rt::thread::spawn;
use quire_rt::{Errno, io, time};
use user_tests::{Checks, raw, shared_page, start, until_asleep};

quire_rt::entry!(main);

const MS: u64 = 1_000_000;

/// A page that children share.
#[repr(C)]
struct Shared {
    counts: [AtomicU64; 4],
    word: AtomicU32,
}

fn main() -> i32 {
    let mut checks = Checks::new();
    let page = shared_page();
    // SAFETY: a fresh page of zeros, which stays mapped; all fields are atomic.
    let shared = unsafe { &*(page as *const Shared) };
    threads(&mut checks, shared);
    quick(&mut checks, shared);
    sleeps(&mut checks, shared);
    ends(&mut checks);
    masks(&mut checks);
    checks.finish()
}

/// The signal whose handler ran first.
static FIRST: AtomicU32 = AtomicU32::new(0);

extern "C" fn note_first(signal: i32, _: *const Info, _: *mut u8) {
    let _ = FIRST.compare_exchange(0, signal as u32, SeqCst, SeqCst);
}

/// The mask of `rt_sigsuspend` holds for one sleep: when a stop ends that, what the mask has kept back is delivered
/// before the call starts again.
fn masks(checks: &mut Checks) {
    let pid = start(|| {
        for signal in [sig::USR1, sig::USR2] {
            let _ = handle(signal, note_first, 0, 0);
        }
        suspend(set(&[sig::USR2]));
        FIRST.load(SeqCst) as i32
    })
    .unwrap_or(-1);
    time::sleep_ms(20);
    let _ = kill(pid, sig::USR2).and_then(|()| kill(pid, sig::STOP));
    checks.eq(change(pid, wait::WUNTRACED), Some(Status::Stopped(sig::STOP)), "a process stops in rt_sigsuspend");
    let _ = kill(pid, sig::CONT);
    time::sleep_ms(20);
    let _ = kill(pid, sig::USR1);
    checks.eq(waitpid(pid), Ok(Status::Exited(sig::USR2 as u8)), "what its mask kept back comes before the next sleep");
}

fn change(pid: i32, options: u32) -> Option<Status> {
    wait4(pid, options).ok().flatten().map(|changed| changed.status)
}

fn end(pid: i32) {
    let _ = kill(pid, sig::KILL);
    let _ = waitpid(pid);
}

fn threads(checks: &mut Checks, shared: &'static Shared) {
    let pid = start(|| {
        let count = |i: usize| -> i32 {
            loop {
                shared.counts[i].fetch_add(1, SeqCst);
            }
        };
        for i in [1, 2] {
            let _ = spawn(move || {
                count(i);
            });
        }
        let _ = spawn(|| time::sleep_ms(100_000));
        count(0)
    })
    .unwrap_or(-1);
    let counts = || [0, 1, 2].map(|i| shared.counts[i].load(SeqCst));
    while counts().contains(&0) {
        time::sleep_ms(1);
    }
    let _ = kill(pid, sig::STOP);
    checks.eq(change(pid, wait::WUNTRACED), Some(Status::Stopped(sig::STOP)), "a process with four threads stops");
    let before = counts();
    time::sleep_ms(50);
    checks.eq(counts(), before, "none of them runs on");
    checks.eq(change(pid, wait::WUNTRACED | wait::WNOHANG), None, "it is reported once");
    let _ = kill(pid, sig::CONT);
    checks.eq(change(pid, wait::WCONTINUED), Some(Status::Continued), "a continuation is reported");
    let limit = time::monotonic() + 20_000 * MS;
    while (0..3).any(|i| counts()[i] == before[i]) && time::monotonic() < limit {
        time::sleep_ms(1);
    }
    checks.ok((0..3).all(|i| counts()[i] != before[i]), "then all of them go on");
    let _ = kill(pid, sig::STOP);
    checks.eq(change(pid, wait::WUNTRACED), Some(Status::Stopped(sig::STOP)), "it stops again");
    let _ = kill(pid, sig::KILL);
    checks.eq(waitpid(pid), Ok(Status::Killed(sig::KILL)), "KILL ends it where it stands");
}

/// Stops and continuations in quick succession: the last one counts.
fn quick(checks: &mut Checks, shared: &'static Shared) {
    let count = &shared.counts[3];
    let pid = start(|| {
        loop {
            count.fetch_add(1, SeqCst);
        }
    })
    .unwrap_or(-1);
    while count.load(SeqCst) == 0 {
        time::sleep_ms(1);
    }
    for _ in 0..2000 {
        let _ = kill(pid, sig::STOP);
        let _ = kill(pid, sig::CONT);
    }
    let before = count.load(SeqCst);
    let limit = time::monotonic() + 20_000 * MS;
    while count.load(SeqCst) == before && time::monotonic() < limit {
        time::sleep_ms(1);
    }
    checks.ok(count.load(SeqCst) != before, "a continuation after each of 2000 stops leaves it running");
    end(pid);
}

/// Starts a child that sleeps in `sleep`, stops it meanwhile and continues it; returns its exit status. `then` runs
/// between the stop and the end.
fn over_a_stop(sleep: impl FnOnce() -> i32, then: impl FnOnce()) -> Option<Status> {
    let pid = start(sleep).unwrap_or(-1);
    until_asleep(pid);
    let _ = kill(pid, sig::STOP);
    let stopped = change(pid, wait::WUNTRACED);
    time::sleep_ms(20);
    let _ = kill(pid, sig::CONT);
    time::sleep_ms(20);
    then();
    if stopped != Some(Status::Stopped(sig::STOP)) {
        end(pid);
        return stopped;
    }
    waitpid(pid).ok()
}

fn sleeps(checks: &mut Checks, shared: &'static Shared) {
    let fine = Some(Status::Exited(0));
    let begin = time::monotonic();
    let slept = over_a_stop(|| time::nanosleep(200 * MS).is_err() as i32, || {});
    checks.ok(slept == fine && time::monotonic() - begin >= 200 * MS, "nanosleep goes on after a stop");
    let until = time::timespec(time::monotonic() + 200 * MS);
    let absolute = || {
        let call = [clock::MONOTONIC as usize, clock::TIMER_ABSTIME as usize, &raw const until as usize, 0];
        raw(nr::CLOCK_NANOSLEEP, call).is_err() as i32
    };
    checks.eq(over_a_stop(absolute, || {}), fine, "clock_nanosleep until a time goes on too");
    let timed = || {
        let begin = time::monotonic();
        let result = futex_wait_shared(&shared.word, 0, Some(250 * MS));
        let took = time::monotonic() - begin;
        (result != Err(Errno::ETIMEDOUT) || !(250 * MS..20_000 * MS).contains(&took)) as i32
    };
    checks.eq(over_a_stop(timed, || {}), fine, "a futex with a time-out ends by it");
    let untimed = || (futex_wait_shared(&shared.word, 0, None) != Ok(())) as i32;
    let wake = || while quire_rt::sync::futex_wake_shared(&shared.word, 1) == Ok(0) {};
    checks.eq(over_a_stop(untimed, wake), fine, "and one without by a wake-up");
    let (read, write) = io::pipe(0).expect("a pipe");
    let reader = || (io::read(read, &mut [0]) != Ok(1)) as i32;
    checks.eq(over_a_stop(reader, || assert_eq!(io::write(write, b"x"), Ok(1))), fine, "a read goes on");
    let poller = || {
        let time = time::timespec(250 * MS);
        (raw(nr::PPOLL, [0, 0, &raw const time as usize, 0, 8]) != Ok(0)) as i32
    };
    checks.eq(over_a_stop(poller, || {}), fine, "a poll goes on too");
    let selector = || {
        let time = time::timespec(250 * MS);
        (raw(nr::PSELECT6, [0, 0, 0, 0, &raw const time as usize, 0]) != Ok(0)) as i32
    };
    checks.eq(over_a_stop(selector, || {}), fine, "and a select");
    let parent = || {
        let pid = start(|| {
            time::sleep_ms(150);
            0
        });
        pid.and_then(waitpid).map_or(1, Status::code)
    };
    checks.eq(over_a_stop(parent, || {}), fine, "and a wait for a child");
    let waiter = || {
        let old = quire_rt::signal::mask(quire_rt::signal::How::Block, 1 << (sig::USR1 - 1));
        let waited = quire_rt::signal::timed_wait(1 << (sig::USR1 - 1), Some(5_000 * MS));
        (old.is_err() || waited.err() != Some(Errno::EINTR)) as i32
    };
    checks.eq(over_a_stop(waiter, || {}), fine, "sigtimedwait does not: EINTR, as signal(7) says");
    let _ = (io::close(read), io::close(write));
}

fn ends(checks: &mut Checks) {
    checks.exits(
        || {
            // In a session of its own: nobody is left in it who could continue the child.
            let _ = process::setsid();
            let _ = [sig::TSTP, sig::TTIN, sig::TTOU].map(|signal| kill(process::getpid(), signal));
            7
        },
        7,
        "a group without a parent outside it does not stop for the terminal",
    );
    let pid = start(|| {
        let _ = process::setpgid(0, 0);
        let _ = kill(process::getpid(), sig::TSTP);
        7
    })
    .unwrap_or(-1);
    checks.eq(change(pid, wait::WUNTRACED), Some(Status::Stopped(sig::TSTP)), "TSTP stops too");
    checks.eq(kill(pid, sig::TERM), Ok(()), "a signal to a stopped process waits");
    time::sleep_ms(20);
    checks.eq(change(pid, wait::WNOHANG), None, "until it goes on");
    let _ = kill(pid, sig::CONT);
    checks.eq(waitpid(pid), Ok(Status::Killed(sig::TERM)), "and then ends it");
}
