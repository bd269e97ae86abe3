//! tasks: how many processes and threads a control group may have, and a user. A fork bomb leaves room for others, and
//! is ended.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use core::ffi::CStr;
use core::sync::atomic::Ordering::SeqCst;

use quire_rt::abi::flags::sig;
use quire_rt::abi::layout::{Rlimit, rlimit};
use quire_rt::abi::nr;
use quire_rt::process::{self, Status, kill, waitpid};
use quire_rt::thread::spawn;
use quire_rt::{Errno, args, fs, time};
use user_tests::groups::{inside, make, number, path, read, remove, settle, write};
use user_tests::{Checks, child, raw, shared_counters, start, until};

quire_rt::entry!(main);

/// Some user.
const USER: usize = 4711;

fn main() -> i32 {
    match args().nth(1).map(CStr::to_bytes) {
        None => {}
        // `tasks bomb [USER]`: nothing but that.
        Some(b"bomb") => {
            let user = args().nth(2).and_then(|user| user.to_str().ok()?.parse().ok());
            bomb(user.unwrap_or(0))
        }
        Some(_) => return 7,
    }
    let mut checks = Checks::new();
    of_users(&mut checks);
    if fs::stat(c"/sys/fs/cgroup/cgroup.procs", 0).is_err() {
        checks.skip("tasks of control groups", "there are none");
        return checks.finish();
    }
    files(&mut checks);
    limits(&mut checks);
    threads(&mut checks);
    zombies(&mut checks);
    moves(&mut checks);
    bombs(&mut checks);
    settle();
    checks.finish()
}

fn current(group: &str) -> usize {
    number(group, "pids.current", "")
}

/// A child that sleeps until it is killed.
fn sleeper() -> Result<i32, Errno> {
    start(|| {
        time::sleep_ms(600_000);
        0
    })
}

fn end(pid: i32) {
    let _ = kill(pid, sig::KILL);
    let _ = waitpid(pid);
}

fn files(checks: &mut Checks) {
    let _ = make("t");
    checks.eq(read("t", "pids.max").as_deref(), Ok("max\n"), "a group may have as many tasks as there can be");
    checks.eq((current("t"), number("t", "pids.peak", "")), (0, 0), "it has none yet");
    checks.eq(write("t", "pids.max", "12\n"), Ok(()), "it can have a limit");
    checks.eq(read("t", "pids.max").as_deref(), Ok("12\n"), "which it says");
    checks.fails(write("t", "pids.max", "-1"), Errno::EINVAL, "that is a number");
    checks.eq(write("t", "pids.max", "max"), Ok(()), "or none again");
    let _ = remove("t");
}

fn limits(checks: &mut Checks) {
    let _ = make("t");
    let _ = write("t", "cgroup.subtree_control", "+pids");
    let _ = make("t/u");
    let _ = write("t", "pids.max", "4");
    let counts = shared_counters();
    let status = inside("t/u", || {
        let made = [0; 4].map(|_| sleeper());
        let is_full = made[..3].iter().all(Result::is_ok) && made[3] == Err(Errno::EAGAIN);
        let has = current("t") == 4 && current("t/u") == 4;
        counts[0].store(number("t", "pids.events", "max ") as u64, SeqCst);
        made.iter().flatten().for_each(|pid| end(*pid));
        // (Their numbers are free.)
        let again = sleeper();
        again.iter().for_each(|pid| end(*pid));
        i32::from(!is_full) + 2 * i32::from(!has) + 4 * i32::from(again.is_err())
    });
    checks.eq(
        status,
        Ok(Status::Exited(0)),
        "a fork beyond the limit of a group above fails, and one within works again",
    );
    checks.eq(counts[0].load(SeqCst), 1, "that is counted");
    let events = ["pids.events", "pids.events.local"].map(|file| number("t", file, "max "));
    checks.eq(events, [1, 1], "by the group that is at its limit");
    checks.eq(number("t/u", "pids.events", "max "), 0, "and not below");
    checks.eq((current("t"), number("t", "pids.peak", "")), (0, 4), "the peak stays");
    let _ = [remove("t/u"), remove("t")];
}

/// Threads are tasks, until they end; exec ends all but one.
fn threads(checks: &mut Checks) {
    let _ = make("t");
    let _ = write("t", "pids.max", "3");
    let status = inside("t", || {
        let sleeps = || time::sleep_ms(600_000);
        let made = [spawn(sleeps).is_ok(), spawn(sleeps).is_ok(), spawn(sleeps).is_ok()];
        let is_full = made == [true, true, false] && current("t") == 3 && sleeper() == Err(Errno::EAGAIN);
        i32::from(!is_full)
    });
    checks.eq(status, Ok(Status::Exited(0)), "threads count as processes do");
    checks.eq(current("t"), 0, "they go with their process");
    let status = inside("t", || {
        let done = spawn(|| {}).map(|thread| thread.join());
        i32::from(done.is_err() || !until(|| current("t") == 1))
    });
    checks.eq(status, Ok(Status::Exited(0)), "or by themselves");
    let _ = write("t", "pids.max", "max");
    let execs = start(|| {
        let _ = write("t", "cgroup.procs", "0");
        let path = args().next().unwrap_or(c"");
        // (By another thread than the first.)
        let _ = spawn(move || {
            process::execve(path, [path, c"again"], []);
            process::exit_now(9)
        });
        time::sleep_ms(600_000);
        0
    });
    let status = execs.map(|pid| (until(|| info_of_end(pid)), current("t"), waitpid(pid)));
    checks.eq(status, Ok((true, 1, Ok(Status::Exited(7)))), "a thread that execs is the only task of its process");
    checks.eq(current("t"), 0, "which ends");
    let _ = remove("t");
}

/// Whether a child has ended; it stays one that was not waited for.
fn info_of_end(pid: i32) -> bool {
    const P_PID: usize = 1;
    const EXITED_NOHANG_NOWAIT: usize = 4 | 1 | 0x0100_0000;
    let mut info = [0_u32; 32];
    raw(nr::WAITID, [P_PID, pid as usize, info.as_mut_ptr() as usize, EXITED_NOHANG_NOWAIT, 0]).is_ok() && info[0] != 0
}

fn zombies(checks: &mut Checks) {
    let _ = make("t");
    let pid = start(|| i32::from(write("t", "cgroup.procs", "0").is_err())).unwrap_or(-1);
    checks.ok(until(|| info_of_end(pid)), "a process ends in a group");
    checks.eq(current("t"), 1, "and counts until it is waited for");
    checks.eq(number("t", "cgroup.events", "populated "), 0, "though nobody is there");
    checks.eq(remove("t"), Ok(()), "so the group can go");
    checks.eq((make("t"), current("t")), (Ok(()), 0), "another one of its name has nothing of it");
    checks.eq(waitpid(pid), Ok(Status::Exited(0)), "it is waited for");
    let _ = remove("t");
}

fn moves(checks: &mut Checks) {
    let _ = [make("t"), make("u")];
    let _ = write("u", "pids.max", "1");
    let counts = shared_counters();
    let pid = start(|| {
        let _ = write("t", "cgroup.procs", "0");
        let others = [spawn(|| time::sleep_ms(600_000)), spawn(|| time::sleep_ms(600_000))];
        counts[0].store(u64::from(others.iter().all(Result::is_ok)) + 1, SeqCst);
        let _ = until(|| counts[1].load(SeqCst) != 0);
        i32::from(sleeper() != Err(Errno::EAGAIN))
    })
    .unwrap_or(-1);
    checks.ok(until(|| counts[0].load(SeqCst) != 0) && current("t") == 3, "a process of three threads");
    let text = format!("{pid}");
    checks.eq(write("u", "cgroup.procs", &text), Ok(()), "moves to a group that may have one task");
    checks.eq((current("t"), current("u")), (0, 3), "with all its threads");
    counts[1].store(1, SeqCst);
    checks.eq(waitpid(pid), Ok(Status::Exited(0)), "there it forks no more");
    let _ = [remove("t"), remove("u")];
}

fn set_limit(tasks: u64) {
    let _ = process::prlimit(rlimit::NPROC, Some(Rlimit { cur: tasks, max: tasks }));
}

/// RLIMIT_NPROC: the tasks of a user.
fn of_users(checks: &mut Checks) {
    let limit = process::prlimit(rlimit::NPROC, None).map_or(0, |limit| limit.cur);
    checks.ok(limit > 100 && limit < u64::MAX, "how many tasks a user may have depends on memory");
    let status = child(|| {
        let _ = raw(nr::SETUID, [USER]);
        set_limit(3);
        let made = [0; 3].map(|_| sleeper());
        let is_full = made[..2].iter().all(Result::is_ok) && made[2] == Err(Errno::EAGAIN);
        let no_thread = spawn(|| {}).err() == Some(Errno::EAGAIN);
        made[..1].iter().flatten().for_each(|pid| end(*pid));
        let one_more = spawn(|| {}).map(|thread| thread.join()).is_ok();
        made[1..].iter().flatten().for_each(|pid| end(*pid));
        i32::from(!is_full) + 2 * i32::from(!no_thread) + 4 * i32::from(!one_more)
    });
    checks.eq(status, Ok(Status::Exited(0)), "a user has as many tasks as its limit says, threads too");
    let status = child(|| {
        set_limit(0);
        i32::from(child(|| 0) != Ok(Status::Exited(0)))
    });
    checks.eq(status, Ok(Status::Exited(0)), "root has as many as it likes");
    let status = child(|| {
        // The real user counts, and root's privileges do, which the effective one has.
        let _ = raw(nr::SETRESUID, [USER, 0, 0]);
        set_limit(0);
        let as_root = child(|| 0);
        let _ = raw(nr::SETRESUID, [USER, USER, USER]);
        i32::from(as_root != Ok(Status::Exited(0))) + 2 * i32::from(start(|| 0) != Err(Errno::EAGAIN))
    });
    checks.eq(status, Ok(Status::Exited(0)), "whoever is as root is not stopped by a user's limit");
    let status = child(|| {
        // One that becomes a user who has too many already goes on, but execs nothing.
        let first = start(|| {
            let _ = raw(nr::SETUID, [USER]);
            time::sleep_ms(600_000);
            0
        })
        .unwrap_or(-1);
        set_limit(1);
        let again = |_: ()| {
            let path = args().next().unwrap_or(c"");
            match process::execve(path, [path, c"again"], []) {
                Errno::EAGAIN => 11,
                _ => 12,
            }
        };
        let _ = until(|| matches!(as_user(again), Ok(Status::Exited(11))));
        let refused = as_user(again);
        end(first);
        let runs = as_user(again);
        i32::from(refused != Ok(Status::Exited(11))) + 2 * i32::from(runs != Ok(Status::Exited(7)))
    });
    checks.eq(status, Ok(Status::Exited(0)), "and who becomes a user with too many tasks cannot exec");
}

fn as_user(run: impl FnOnce(()) -> i32) -> Result<Status, Errno> {
    child(|| {
        let _ = raw(nr::SETUID, [USER]);
        run(())
    })
}

/// Forks for ever, as do all that it forks.
fn bomb(user: usize) -> ! {
    let _ = raw(nr::SETUID, [user]);
    loop {
        let _ = process::fork();
    }
}

fn bombs(checks: &mut Checks) {
    const MOST: usize = 40;
    for (user, who) in [(0, "root"), (USER, "a user")] {
        let _ = make("t");
        let _ = write("t", "pids.max", "40");
        let first = start(|| {
            if write("t", "cgroup.procs", "0").is_err() {
                return 1;
            }
            bomb(user)
        })
        .unwrap_or(-1);
        let is_full = until(|| current("t") == MOST && number("t", "pids.events", "max ") > 10);
        checks.ok(is_full, &format!("a fork bomb of {who} has what its group may have"));
        checks.eq(child(|| 3), Ok(Status::Exited(3)), "others fork");
        checks.eq(write("t", "cgroup.kill", "1"), Ok(()), "it is killed");
        checks.eq(waitpid(first), Ok(Status::Killed(sig::KILL)), "from the first one");
        checks.ok(until(|| number("t", "cgroup.events", "populated ") == 0), "to the last");
        checks.ok(until(|| current("t") == 0), "and nothing of it is left");
        checks.eq(remove("t"), Ok(()), "but its group, which goes");
    }
    checks.ok(fs::stat(&path("t", ""), 0).is_err(), "is gone");
}
