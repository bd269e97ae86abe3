//! wait: how children ended, and which ones a process can wait for.

#![no_std]
#![no_main]

use core::sync::atomic::Ordering::SeqCst;

use quire_rt::abi::flags::{Open, clock, sig, wait};
use quire_rt::abi::nr;
use quire_rt::process::{self, Status, kill, wait4, waitpid};
use quire_rt::{Errno, fs, io, signal, time};
use user_tests::{Checks, PAGE, RW, child, map, munmap, raw, shared_counters, start, until_asleep};

quire_rt::entry!(main);

fn main() -> i32 {
    let mut checks = Checks::new();
    checks.fails(wait4(-1, 0), Errno::ECHILD, "without children there is nothing to wait for");
    checks.fails(wait4(-1, wait::WNOHANG), Errno::ECHILD, "nor to ask for");
    checks.fails(wait4(1, 0), Errno::ECHILD, "process 1 is nobody's child");
    checks.fails(raw(nr::WAIT4, [usize::MAX, 0, 0x40, 0]), Errno::EINVAL, "unknown options");
    let all = [0, 1, 127, 128, 255].iter().all(|status| child(|| *status) == Ok(Status::Exited(*status as u8)));
    checks.ok(all, "exit statuses from 0 to 255");
    checks.exits(|| 0x1234, 0x34, "only their low byte counts");
    let killed = [sig::HUP, sig::INT, sig::QUIT, sig::ABRT, sig::KILL, sig::USR1, sig::PIPE, sig::TERM, 34, 64];
    let all = killed.iter().all(|signal| {
        let status = child(|| {
            let _ = kill(process::getpid(), *signal);
            0
        });
        status == Ok(Status::Killed(*signal))
    });
    checks.ok(all, "the signal that killed");
    choosing(&mut checks);
    zombies(&mut checks);
    interrupted(&mut checks);
    usage(&mut checks);
    parts(&mut checks);
    checks.finish()
}

fn choosing(checks: &mut Checks) {
    // Each ends when it is let go, the last one first.
    let gates = &shared_counters()[..4];
    let wait_at = |gate: usize| {
        while gates[gate].load(SeqCst) == 0 {
            time::sleep_ms(1);
        }
    };
    let pids = [30, 20, 10].map(|status| {
        start(|| {
            wait_at(status / 10);
            if status > 10 {
                gates[status / 10 - 1].store(1, SeqCst);
            }
            status as i32
        })
        .unwrap_or(-1)
    });
    checks.eq(wait4(-1, wait::WNOHANG).map(|changed| changed.is_none()), Ok(true), "WNOHANG does not wait");
    gates[3].store(1, SeqCst);
    checks.eq(waitpid(pids[0]), Ok(Status::Exited(30)), "a certain child, though others end first");
    let others = [0, 1].map(|_| wait4(-1, 0).ok().flatten().map_or(0, |changed| changed.pid));
    checks.ok(others.contains(&pids[1]) && others.contains(&pids[2]), "any child, each once");
    checks.fails(waitpid(pids[0]), Errno::ECHILD, "never again");

    let group = start(|| {
        let _ = process::setpgid(0, 0);
        wait_at(0);
        5
    })
    .unwrap_or(-1);
    let _ = process::setpgid(group, group);
    let other = start(|| 6).unwrap_or(-1);
    checks.eq(process::getpgid(group), Ok(group), "a child in a group of its own");
    gates[0].store(1, SeqCst);
    checks.eq(
        wait4(-group, 0).ok().flatten().map(|changed| changed.pid),
        Some(group),
        "can be waited for by its group",
    );
    checks.eq(wait4(0, 0).ok().flatten().map(|changed| changed.pid), Some(other), "the others by the own group");
    checks.fails(process::setpgid(0, -1), Errno::EINVAL, "a negative group");
    checks.fails(process::setpgid(999_999, 0), Errno::ESRCH, "a nonexistent process");
}

fn zombies(checks: &mut Checks) {
    let pid = start(|| 3).unwrap_or(-1);
    until_asleep(pid);
    checks.eq(kill(pid, 0), Ok(()), "a child that ended is there until it is waited for");
    checks.eq(kill(pid, sig::KILL), Ok(()), "and signals have no effect on it");
    checks.eq(waitpid(pid), Ok(Status::Exited(3)), "its status stays");
    checks.fails(kill(pid, 0), Errno::ESRCH, "then it is gone");
    checks.exits(
        || {
            let _ = signal::ignore(sig::CHLD);
            let _ = start(|| 0);
            (wait4(-1, 0).err() != Some(Errno::ECHILD)) as i32
        },
        0,
        "a parent that ignores SIGCHLD waits for the end, not for a status",
    );
    let pids: [i32; 50] = core::array::from_fn(|i| start(|| i as i32).unwrap_or(-1));
    checks.ok((0..50).all(|i| waitpid(pids[i]) == Ok(Status::Exited(i as u8))), "fifty at once");
}

fn interrupted(checks: &mut Checks) {
    extern "C" fn handler(_: i32, _: *const signal::Info, _: *mut u8) {}
    let _ = signal::handle(sig::USR1, handler, 0, 0);
    let parent = process::getpid();
    let pid = start(|| {
        until_asleep(parent);
        let _ = kill(parent, sig::USR1);
        time::sleep_ms(30);
        4
    })
    .unwrap_or(-1);
    checks.fails(wait4(pid, 0), Errno::EINTR, "a handled signal interrupts the wait");
    checks.eq(waitpid(pid), Ok(Status::Exited(4)), "which can be taken up again");
    let _ = signal::default(sig::USR1);
}

fn usage(checks: &mut Checks) {
    let begin = time::monotonic();
    let pid = start(|| {
        while time::nanoseconds(clock::PROCESS_CPUTIME_ID) < 60_000_000 {}
        0
    })
    .unwrap_or(-1);
    let used = wait4(pid, 0).ok().flatten().map_or(0, |changed| {
        let (user, system) = (changed.usage.utime, changed.usage.stime);
        (user.sec + system.sec) * 1_000_000 + user.usec + system.usec
    });
    let most = (time::monotonic() - begin) as i64 / 1000;
    checks.ok((60_000..=most).contains(&used), "the time that a child used");
    let children = process::getrusage(-1).map_or(0, |usage| usage.utime.usec + usage.stime.usec + usage.utime.sec);
    checks.ok(children > 0, "is added to that of all children");
    let faults = |who| process::getrusage(who).map_or(-1, |usage| usage.minflt);
    let (at, before) = (map(16 * PAGE, RW), [0, 1].map(faults));
    for page in 0..16 {
        // From the end, so that no fault brings in more than its page.
        let word: *mut u64 = core::ptr::with_exposed_provenance_mut(at + (15 - page) * PAGE);
        // SAFETY: the test's own mapping.
        unsafe { word.write_volatile(1) };
    }
    let counted = [0, 1].map(faults);
    checks.ok(counted[0] >= before[0] + 16 && counted[1] >= before[1] + 16, "faults are counted");
}

/// User and system time of a child that runs `step` for a while, in microseconds.
fn times_of(step: impl Fn()) -> Option<[i64; 2]> {
    const LONG: u64 = 300_000_000;
    let child = start(|| {
        while time::nanoseconds(clock::PROCESS_CPUTIME_ID) < LONG {
            step();
        }
        0
    });
    let usage = process::wait4(child.ok()?, 0).ok()??.usage;
    Some([usage.utime, usage.stime].map(|time| time.sec * 1_000_000 + time.usec))
}

fn parts(checks: &mut Checks) {
    let spin = || (0..1_000_000).for_each(|i| _ = core::hint::black_box(i));
    let user = times_of(spin);
    checks.ok(user.is_some_and(|[user, system]| user > 3 * system), "a program's own work is user time");
    let zeros = fs::open(c"/dev/zero", Open::empty()).unwrap_or(-1);
    let buffer = map(1 << 20, RW);
    let system = times_of(|| _ = raw(nr::READ, [zeros as usize, buffer, 1 << 20]));
    let _ = munmap(buffer, 1 << 20);
    checks.ok(system.is_some_and(|[user, system]| system > 3 * user), "what the kernel does for it is system time");
    let _ = io::close(zeros);
}
