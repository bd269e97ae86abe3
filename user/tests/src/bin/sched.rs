//! sched: fair shares of one CPU, all CPUs at once, and CPU affinity.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use quire_rt::abi::flags::sig;
use quire_rt::abi::info::CpuInfo;
use quire_rt::abi::nr;
use quire_rt::{Errno, info, process, sched, time};
use user_tests::{Checks, KERNEL, cpu_time, raw, shared_counters, start, until};

quire_rt::entry!(main);

fn main() -> i32 {
    let mut checks = Checks::new();
    affinity(&mut checks);
    sharing(&mut checks);
    spreading(&mut checks);
    preemption(&mut checks);
    shares(&mut checks);
    storm(&mut checks);
    checks.finish()
}

/// The CPUs that this process may use.
fn cpus() -> impl Iterator<Item = u32> {
    let mask = sched::affinity(0).map_or(1, |words| words[0]);
    (0..64).filter(move |cpu| mask >> cpu & 1 == 1)
}

fn affinity(checks: &mut Checks) {
    let before = sched::affinity(0).map_or(1, |words| words[0]);
    checks.ok(
        before != 0 && sched::getcpu().is_ok_and(|cpu| before >> cpu & 1 == 1),
        "a process is on a CPU that it may use",
    );
    let moved =
        cpus().all(|cpu| sched::set_affinity(0, 1 << cpu) == Ok(()) && (0..100).all(|_| sched::getcpu() == Ok(cpu)));
    checks.ok(moved, "it goes to each CPU that it is told to");
    checks.exits(
        || (sched::affinity(0).map_or(0, |words| words[0]).count_ones() != 1) as i32,
        0,
        "a child inherits that",
    );
    let _ = sched::set_affinity(0, before);
    checks.fails(sched::set_affinity(0, 0), Errno::EINVAL, "no CPU at all");
    checks.fails(sched::set_affinity(999_999, 1), Errno::ESRCH, "a nonexistent thread");
    let mask = [0u64; 2];
    checks.fails(
        raw(nr::SCHED_GETAFFINITY, [0, 4, mask.as_ptr() as usize]),
        Errno::EINVAL,
        "a size that is no multiple of 8",
    );
    checks.fails(raw(nr::SCHED_GETAFFINITY, [0, 128, KERNEL]), Errno::EFAULT, "nowhere to put it");
    checks.fails(raw(nr::SCHED_SETAFFINITY, [0, 8, KERNEL]), Errno::EFAULT, "nowhere to get it from");
    checks.eq(sched::affinity(0).map(|words| words[0]), Ok(before), "none of that changed anything");
    sched::yield_now();
    checks.ok(true, "sched_yield returns");
}

/// Starts a child that counts until it is killed.
fn spinner(cpus: u64, counter: &'static AtomicU64, place: &'static AtomicU64) -> i32 {
    start(|| {
        let _ = sched::set_affinity(0, cpus);
        loop {
            place.store(sched::getcpu().map_or(0, |cpu| cpu as u64 + 1), SeqCst);
            for _ in 0..1000 {
                counter.fetch_add(1, SeqCst);
            }
        }
    })
    .unwrap_or(-1)
}

fn end(pids: &[i32]) {
    for pid in pids {
        let _ = process::kill(*pid, sig::KILL);
        let _ = process::waitpid(*pid);
    }
}

/// Whether shares of time come to be even. A host that stops the machine for a while lengthens the turn of whoever runs
/// then; the longer all of them run, the less that weighs.
fn in_the_long_run(is_even: impl FnMut() -> bool) -> bool {
    time::sleep_ms(1000);
    until(is_even)
}

fn sharing(checks: &mut Checks) {
    let counters = shared_counters();
    let last = cpus().last().unwrap_or(0);
    let pids = [0, 1].map(|i| spinner(1 << last, &counters[i], &counters[i + 2]));
    while counters[0].load(SeqCst) == 0 || counters[1].load(SeqCst) == 0 {
        time::sleep_ms(5);
    }
    let before = pids.map(cpu_time);
    let mut share = 0;
    let even = in_the_long_run(|| {
        let done = [0, 1].map(|i| cpu_time(pids[i]) - before[i]);
        share = done[0] * 100 / (done[0] + done[1]).max(1);
        (40..=60).contains(&share)
    });
    end(&pids);
    checks.ok(even, "two spinners on one CPU get 40 to 60 % each");
    if !even {
        quire_rt::println!("# the first got {share} %");
    }
    let on = [2, 3].map(|i| counters[i].load(SeqCst));
    checks.eq(on, [last as u64 + 1; 2], "and both stay there");
}

fn spreading(checks: &mut Checks) {
    if user_tests::is_short() {
        return checks.skip("a CPU for each spinner", "others want the CPUs too");
    }
    let count = sched::cpu_count().min(32) as usize;
    let counters = shared_counters();
    let all = sched::affinity(0).map_or(1, |words| words[0]);
    let pids: [i32; 32] =
        core::array::from_fn(|i| if i < count { spinner(all, &counters[i], &counters[64 + i]) } else { -1 });
    let spread = until(|| {
        let before: [u64; 32] = core::array::from_fn(|i| counters[i].load(SeqCst));
        let running = until(|| (0..count).all(|i| counters[i].load(SeqCst) > before[i]));
        let used = (0..count).fold(0u64, |used, i| used | 1 << counters[64 + i].load(SeqCst));
        running && used.count_ones() as usize == count
    });
    end(&pids[..count]);
    checks.ok(spread, "as many spinners as CPUs run on one each");
}

/// Sleeps of somebody who competes with spinners.
const SLEEPS: u64 = 10;

/// Timer interrupts, on the CPU that has taken most of them.
fn ticks() -> u64 {
    info::records::<CpuInfo>().map(|cpu| cpu.ticks).max().unwrap_or(0)
}

fn preemption(checks: &mut Checks) {
    // More spinners than CPUs: a sleeper must still wake in time.
    let counters = shared_counters();
    let count = (sched::cpu_count() as usize * 2).min(32);
    let pids: [i32; 32] =
        core::array::from_fn(|i| if i < count { spinner(u64::MAX, &counters[i], &counters[64 + i]) } else { -1 });
    time::sleep_ms(50);
    // A slice is 4 ms: a sleep of one and a half takes few of them, however long the host makes them.
    let before = ticks();
    for _ in 0..SLEEPS {
        time::sleep_ms(6);
    }
    let passed = ticks() - before;
    end(&pids[..count]);
    checks.ok(passed < SLEEPS * 20, "a sleeper wakes although every CPU is busy");
    if passed >= SLEEPS * 20 {
        quire_rt::println!("# {passed} ticks of a CPU for {SLEEPS} sleeps");
    }
    let progress = (0..count).all(|i| counters[i].load(SeqCst) > 0);
    checks.ok(progress, "and every spinner had its turn");
}

fn shares(checks: &mut Checks) {
    // All are children of one, which runs on one CPU.
    let counters = shared_counters();
    let count = (sched::cpu_count() as usize * 2).min(32);
    let pids: [i32; 32] =
        core::array::from_fn(|i| if i < count { spinner(u64::MAX, &counters[i], &counters[64 + i]) } else { -1 });
    let (mut least, mut most) = (0, 0);
    let even = in_the_long_run(|| {
        let times = || pids[..count].iter().map(|pid| cpu_time(*pid));
        (least, most) = (times().min().unwrap_or(0), times().max().unwrap_or(0));
        most < least * 2
    });
    end(&pids[..count]);
    checks.ok(even, "twice as many spinners as CPUs share them evenly");
    if !even {
        quire_rt::println!("# the least got {least} ns, the most {most} ns");
    }
}

fn storm(checks: &mut Checks) {
    // Threads that yield while others change their affinity: a CPU may be switching away from the thread that it has to
    // queue.
    let counters = shared_counters();
    let all = sched::affinity(0).map_or(1, |words| words[0]);
    let yielders: [i32; 8] = core::array::from_fn(|i| {
        let yields = || loop {
            sched::yield_now();
            counters[i].fetch_add(1, SeqCst);
        };
        start(yields).unwrap_or(-1)
    });
    let movers: [i32; 2] = core::array::from_fn(|i| {
        let moves = || {
            for step in i.. {
                let cpu = cpus().nth(step * 7 % all.count_ones() as usize).unwrap_or(0);
                let _ = sched::set_affinity(yielders[step % 8], 1 << cpu);
            }
            0
        };
        start(moves).unwrap_or(-1)
    });
    time::sleep_ms(1500);
    let before: [u64; 8] = core::array::from_fn(|i| counters[i].load(SeqCst));
    // (A busy host may take longer.)
    let goes_on = (0..2000).any(|_| {
        time::sleep_ms(20);
        (0..8).all(|i| counters[i].load(SeqCst) > before[i])
    });
    end(&movers);
    end(&yielders);
    checks.ok(goes_on, "threads that yield go on while others move them from CPU to CPU");
}
