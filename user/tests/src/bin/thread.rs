//! thread: several flows of control in one process, and how they wait for each other.

#![no_std]
#![no_main]

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use quire_rt::abi::flags::sig;
use quire_rt::sync::{Mutex, futex_wait, futex_wake};
use quire_rt::thread::{Thread, control, spawn};
use quire_rt::{Errno, process, sched, time};
use user_tests::{Checks, PAGE, RW, map, munmap, peek, poke, until};

extern crate alloc;

quire_rt::entry!(main);

fn main() -> i32 {
    let mut checks = Checks::new();
    basics(&mut checks);
    futexes(&mut checks);
    counting(&mut checks);
    memory(&mut checks);
    ending(&mut checks);
    checks.finish()
}

fn join(threads: Vec<Thread>) {
    threads.into_iter().for_each(Thread::join);
}

fn basics(checks: &mut Checks) {
    let seen = Arc::new([const { AtomicU64::new(0) }; 3]);
    let thread = spawn({
        let seen = seen.clone();
        move || {
            seen[0].store(process::getpid() as u64, SeqCst);
            seen[1].store(process::gettid() as u64, SeqCst);
            seen[2].store(control() as u64, SeqCst);
        }
    });
    match thread {
        Ok(thread) => thread.join(),
        Err(error) => checks.fails(Err::<(), _>(error), Errno::EIO, "a thread starts"),
    }
    checks.eq(seen[0].load(SeqCst), process::getpid() as u64, "a thread is of the same process");
    checks.ok(![0, process::gettid() as u64].contains(&seen[1].load(SeqCst)), "with a number of its own");
    checks.ok(![0, control() as u64].contains(&seen[2].load(SeqCst)), "and a thread pointer of its own");
    let sum = Arc::new(AtomicU64::new(0));
    let threads: Vec<Thread> = (1..=20)
        .filter_map(|i| {
            let sum = sum.clone();
            spawn(move || {
                sum.fetch_add(i, SeqCst);
            })
            .ok()
        })
        .collect();
    checks.eq(threads.len(), 20, "twenty threads");
    join(threads);
    checks.eq(sum.load(SeqCst), 210, "all did their work before join returned");
}

fn futexes(checks: &mut Checks) {
    let word = Arc::new(AtomicU32::new(5));
    checks.fails(futex_wait(&word, 4, None), Errno::EAGAIN, "a futex with another value does not sleep");
    let begin = time::monotonic();
    checks.fails(futex_wait(&word, 5, Some(20_000_000)), Errno::ETIMEDOUT, "a time-out");
    checks.ok(time::monotonic() - begin >= 20_000_000, "is not early");
    checks.eq(futex_wake(&word, 1), Ok(0), "waking nobody");
    let threads: Vec<Thread> = (0..3)
        .filter_map(|_| {
            let word = word.clone();
            spawn(move || while word.load(SeqCst) == 5 && futex_wait(&word, 5, None) != Err(Errno::EAGAIN) {}).ok()
        })
        .collect();
    checks.ok(until(|| futex_wake(&word, 1) == Ok(1)), "waking one of three");
    // (They sleep again until the word changes.)
    checks.ok(until(|| futex_wake(&word, 10) == Ok(3)), "waking all");
    word.store(6, SeqCst);
    let _ = futex_wake(&word, 10);
    join(threads);
}

fn counting(checks: &mut Checks) {
    let total = Arc::new(Mutex::new(0u64));
    let threads: Vec<Thread> = (0..4)
        .filter_map(|_| {
            let total = total.clone();
            spawn(move || {
                for turn in 0..5000 {
                    let mut total = total.lock();
                    let old = *total;
                    if turn % 512 == 0 {
                        sched::yield_now();
                    }
                    *total = old + 1;
                }
            })
            .ok()
        })
        .collect();
    join(threads);
    checks.eq(*total.lock(), 20_000, "a lock on a futex lets one in at a time");
}

fn memory(checks: &mut Checks) {
    let shared = map(64 * PAGE, RW);
    let threads: Vec<Thread> = (0..4)
        .filter_map(|thread| {
            spawn(move || (0..64).for_each(|page| poke(shared + page * PAGE + thread, thread as u8 + 1))).ok()
        })
        .collect();
    join(threads);
    let right = (0..64).all(|page| (0..4).all(|thread| peek(shared + page * PAGE + thread) == thread as u8 + 1));
    checks.ok(right, "four threads touch the same fresh pages, and no write is lost");
    let stop = Arc::new(AtomicU32::new(0));
    let mapper = spawn({
        let stop = stop.clone();
        move || {
            while stop.load(SeqCst) == 0 {
                let at = map(8 * PAGE, RW);
                poke(at + 3 * PAGE, 1);
                let _ = munmap(at, 8 * PAGE);
            }
        }
    });
    let mut right = true;
    for round in 0..300 {
        let at = map(4 * PAGE, RW);
        right &= peek(at) == 0 && peek(at + 3 * PAGE) == 0;
        poke(at, round as u8);
        right &= peek(at) == round as u8;
        let _ = munmap(at, 4 * PAGE);
    }
    stop.store(1, SeqCst);
    let _ = mapper.map(Thread::join);
    checks.ok(right, "one maps and unmaps while another does");
    let _ = munmap(shared, 64 * PAGE);
    let gone = map(PAGE, RW);
    poke(gone, 1);
    checks.killed(
        || {
            // The other thread has the page in its TLB, on another CPU if there is one.
            let reader = spawn(move || {
                loop {
                    peek(gone);
                }
            });
            time::sleep_ms(20);
            let _ = munmap(gone, PAGE);
            let _ = reader.map(Thread::join);
        },
        sig::SEGV,
        "what one thread unmaps is gone for all",
    );
}

fn ending(checks: &mut Checks) {
    checks.exits(
        || {
            let _ = spawn(|| process::exit_now(9));
            loop {
                time::sleep_ms(1000);
            }
        },
        9,
        "a thread that ends the process ends all",
    );
    checks.killed(
        || {
            let _ = spawn(|| {
                peek(0);
            });
            time::sleep_ms(10_000);
        },
        sig::SEGV,
        "a thread that faults ends all",
    );
    checks.exits(
        || {
            let other = spawn(|| {
                loop {
                    time::sleep_ms(1000);
                }
            });
            // The child has this thread alone, so its end is the child's.
            let status = user_tests::child(|| 3);
            let _ = other;
            (status != Ok(process::Status::Exited(3))) as i32
        },
        0,
        "a fork takes the calling thread only",
    );
    #[inline(never)]
    fn recurse(depth: u64) -> u64 {
        let frame = core::hint::black_box([depth; 128]);
        let deeper = if core::hint::black_box(true) { recurse(depth + 1) } else { 0 };
        deeper + core::hint::black_box(&frame)[5]
    }
    checks.killed(
        || {
            let _ = spawn(|| {
                recurse(0);
            });
            time::sleep_ms(10_000);
        },
        sig::SEGV,
        "a thread's stack has a guard page",
    );
    let pid = user_tests::start(|| {
        for _ in 0..3 {
            let _ = spawn(|| {
                loop {
                    core::hint::spin_loop()
                }
            });
        }
        time::sleep_ms(10_000);
        0
    })
    .unwrap_or(-1);
    time::sleep_ms(50);
    let _ = process::kill(pid, sig::KILL);
    checks.eq(process::waitpid(pid), Ok(process::Status::Killed(sig::KILL)), "KILL ends all threads");
}
