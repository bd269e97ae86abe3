//! fatal: a signal whose action is to end the process ends it at once, as KILL does, also where only a kill ends a
//! sleep or long work.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use quire_rt::abi::flags::{Map, sig, wait};
use quire_rt::abi::nr;
use quire_rt::process::{Status, gettid, kill, wait4, waitpid};
use quire_rt::sched::yield_now;
use quire_rt::signal::{How, mask, set, timed_wait};
use quire_rt::thread::spawn;
use quire_rt::time;
use user_tests::asm::vfork_sleep;
use user_tests::{Checks, PAGE, RW, mmap, munmap, raw, shared_page, start, until, until_asleep};

quire_rt::entry!(main);

/// A page that children share.
#[repr(C)]
struct Shared {
    /// Threads that are where they should be.
    ready: AtomicU32,
    /// The number of a thread.
    tid: AtomicU32,
}

fn main() -> i32 {
    let mut checks = Checks::new();
    // SAFETY: a fresh page of zeros, which stays mapped; all fields are atomic.
    let shared = unsafe { &*(shared_page() as *const Shared) };
    sleepers(&mut checks);
    threads(&mut checks, shared);
    spared(&mut checks);
    awaited(&mut checks);
    work(&mut checks);
    checks.finish()
}

/// How a child ended, if it ever does; then all processes of its group are ended.
fn ended(pid: i32) -> Option<Status> {
    let mut status = None;
    until(|| {
        status = wait4(pid, wait::WNOHANG).ok().flatten().map(|changed| changed.status);
        status.is_some()
    });
    let _ = kill(-pid, sig::KILL);
    if status.is_none() {
        let _ = waitpid(pid);
    }
    status
}

/// A child that leads a group.
fn group(run: impl FnOnce() -> i32) -> i32 {
    start(|| {
        let _ = quire_rt::process::setpgid(0, 0);
        run()
    })
    .unwrap_or(-1)
}

/// A child that waits for a vfork child, which sleeps.
fn vforker() -> i32 {
    let pid = group(|| {
        vfork_sleep();
        0
    });
    // (As long as other kernels take to get there.)
    until_asleep(pid);
    time::sleep_ms(20);
    pid
}

fn sleepers(checks: &mut Checks) {
    for signal in [sig::TERM, sig::INT, sig::HUP, sig::ALRM, sig::USR1, sig::PIPE, sig::COUNT - 1] {
        let pid = vforker();
        let _ = kill(pid, signal);
        checks.eq(
            ended(pid),
            Some(Status::Killed(signal)),
            "a fatal signal ends a process that waits for a vfork child",
        );
    }
}

/// A thread that waits for a vfork child, among `before` others that block signals and `after` that do not.
fn crowd(shared: &'static Shared, before: u32, after: u32) -> i32 {
    shared.ready.store(0, SeqCst);
    let pid = group(|| {
        let _ = mask(How::Block, set(&[sig::TERM]));
        for _ in 0..before {
            let _ = spawn(|| {
                shared.ready.fetch_add(1, SeqCst);
                time::sleep_ms(100_000);
            });
        }
        let _ = spawn(|| {
            let _ = mask(How::Unblock, set(&[sig::TERM]));
            shared.tid.store(gettid() as u32, SeqCst);
            shared.ready.fetch_add(1, SeqCst);
            vfork_sleep();
        });
        let _ = until(|| shared.ready.load(SeqCst) == before + 1);
        for _ in 0..after {
            let _ = spawn(|| {
                let _ = mask(How::Unblock, set(&[sig::TERM]));
                shared.ready.fetch_add(1, SeqCst);
                time::sleep_ms(100_000);
            });
        }
        time::sleep_ms(100_000);
        0
    });
    let _ = until(|| shared.ready.load(SeqCst) == before + 1 + after);
    time::sleep_ms(50);
    pid
}

fn threads(checks: &mut Checks, shared: &'static Shared) {
    let killed = Some(Status::Killed(sig::TERM));
    for (before, after, what) in [
        (0, 0, "a signal that the first thread blocks ends a thread that waits for a vfork child"),
        (0, 2, "and one that another thread could take"),
        (30, 0, "the only one of many that does not block it"),
    ] {
        let pid = crowd(shared, before, after);
        let _ = kill(pid, sig::TERM);
        checks.eq(ended(pid), killed, what);
    }
    let pid = crowd(shared, 1, 0);
    let tid = shared.tid.load(SeqCst) as usize;
    let _ = raw(nr::TGKILL, [pid as usize, tid, sig::TERM as usize]);
    checks.eq(ended(pid), killed, "a signal to that thread alone ends the process");
}

/// What does not end a sleep that only a kill ends.
fn spared(checks: &mut Checks) {
    for signal in [sig::QUIT, sig::ABRT, sig::SEGV, sig::SYS, sig::XCPU] {
        let pid = vforker();
        let _ = kill(pid, signal);
        time::sleep_ms(50);
        checks.ok(wait4(pid, wait::WNOHANG).ok().flatten().is_none(), "one that dumps core does not end that wait");
        let _ = kill(-pid, sig::KILL);
        let _ = waitpid(pid);
    }
    let pid = group(|| {
        let _ = mask(How::Block, set(&[sig::TERM]));
        vfork_sleep();
        0
    });
    until_asleep(pid);
    time::sleep_ms(20);
    let _ = kill(pid, sig::TERM);
    time::sleep_ms(50);
    checks.ok(wait4(pid, wait::WNOHANG).ok().flatten().is_none(), "nor does one that the thread blocks");
    let _ = kill(-pid, sig::KILL);
    let _ = waitpid(pid);
    let pid = group(|| {
        time::sleep_ms(100_000);
        0
    });
    let _ = kill(pid, sig::STOP);
    let _ = wait4(pid, wait::WUNTRACED);
    let _ = kill(pid, sig::TERM);
    time::sleep_ms(50);
    checks.ok(wait4(pid, wait::WNOHANG).ok().flatten().is_none(), "a stopped process stays stopped");
    let _ = kill(pid, sig::CONT);
    checks.eq(ended(pid), Some(Status::Killed(sig::TERM)), "and ends when it continues");
}

/// Signals that `rt_sigtimedwait` waits for.
fn awaited(checks: &mut Checks) {
    for (how, wanted, what) in [
        (How::Block, Status::Exited(sig::TERM as u8), "a blocked signal that a thread waits for is accepted"),
        (How::Unblock, Status::Killed(sig::TERM), "one that it does not block ends it"),
    ] {
        let pid = group(|| {
            let _ = mask(how, set(&[sig::TERM]));
            timed_wait(set(&[sig::TERM]), None).map_or(0, |info| info.signo)
        });
        until_asleep(pid);
        let _ = kill(pid, sig::TERM);
        checks.eq(ended(pid), Some(wanted), what);
    }
}

/// Long work that a kill cuts short: memory that the parent shares stays in part without pages.
fn work(checks: &mut Checks) {
    const PAGES: usize = 16 << 10;
    const POPULATE_WRITE: usize = 23;
    for signal in [sig::KILL, sig::TERM] {
        let Ok(at) = mmap(0, PAGES * PAGE, RW, Map::SHARED | Map::ANONYMOUS, -1, 0) else {
            checks.skip("a fatal signal ends a process at work", "too little memory");
            continue;
        };
        let mut present = vec![0u8; PAGES];
        let mut count = |pages: usize| {
            let _ = raw(nr::MINCORE, [at, pages * PAGE, present.as_mut_ptr() as usize]);
            present[..pages].iter().filter(|page| **page & 1 != 0).count()
        };
        let pid = group(|| {
            let _ = raw(nr::MADVISE, [at, PAGES * PAGE, POPULATE_WRITE]);
            time::sleep_ms(100_000);
            0
        });
        while count(1) == 0 {
            yield_now();
        }
        let _ = kill(pid, signal);
        checks.eq(waitpid(pid), Ok(Status::Killed(signal)), "a fatal signal ends a process at work");
        checks.ok(count(PAGES) < PAGES, "before the work is done");
        let _ = munmap(at, PAGES * PAGE);
    }
}
