//! execrace: threads that call exec or end the process at the same time.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use quire_rt::process::{self, Status};
use quire_rt::start::args;
use quire_rt::thread::spawn;
use quire_rt::time;
use user_tests::{Checks, child};

quire_rt::entry!(main);

static READY: AtomicU32 = AtomicU32::new(0);

/// Waits until `count` threads are here.
fn meet(count: u32) {
    READY.fetch_add(1, SeqCst);
    while READY.load(SeqCst) < count {
        quire_rt::sched::yield_now();
    }
}

fn again() -> i32 {
    let path = args().next().unwrap_or(c"");
    process::execve(path, [path, c"again"], []);
    9
}

/// How often each status came of `rounds` processes that run `run`.
fn rounds(rounds: usize, run: impl Fn() -> i32) -> (usize, usize, Option<Status>) {
    let (mut new, mut old, mut other) = (0, 0, None);
    for _ in 0..rounds {
        READY.store(0, SeqCst);
        match child(&run) {
            Ok(Status::Exited(42)) => new += 1,
            Ok(Status::Exited(7)) => old += 1,
            status => other = status.ok().or(other),
        }
    }
    (new, old, other)
}

fn main() -> i32 {
    if args().count() > 1 {
        return 42;
    }
    let mut checks = Checks::new();
    let two = || {
        let _ = spawn(|| {
            meet(2);
            again();
        });
        meet(2);
        again();
        // This thread lost the race: it ends before the call returns.
        9
    };
    checks.eq(rounds(40, two), (40, 0, None), "of two threads in exec one wins");
    let five = || {
        for _ in 0..4 {
            let _ = spawn(|| {
                meet(5);
                again();
            });
        }
        meet(5);
        again();
        9
    };
    checks.eq(rounds(20, five), (20, 0, None), "of five too");
    let ends = || {
        let _ = spawn(|| {
            meet(2);
            again();
        });
        meet(2);
        7
    };
    let (new, old, other) = rounds(40, ends);
    checks.eq((new + old, other), (40, None), "against one that ends the process, either wins");
    let starts = || {
        let _ = spawn(|| {
            meet(2);
            loop {
                let _ = spawn(|| time::sleep_ms(1000));
            }
        });
        meet(2);
        again();
        9
    };
    checks.eq(rounds(10, starts), (10, 0, None), "against one that starts threads, exec wins");
    checks.finish()
}
