//! freezer: control groups that are frozen, killed, and watched for that by poll.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use quire_rt::abi::flags::{Clone, Open, sig, wait};
use quire_rt::abi::layout::{PollFd, poll};
use quire_rt::abi::nr;
use quire_rt::process::{self, Status, kill, wait4, waitpid};
use quire_rt::signal::{Info, handle};
use quire_rt::thread::spawn;
use quire_rt::{Errno, fs, io, time};
use user_tests::groups::{inside, make, number, path, read, remove, settle, write};
use user_tests::ready::{look, ppoll};
use user_tests::{Checks, raw, shared_counters, start, until};

quire_rt::entry!(main);

/// However slow the host is.
const LONG: u64 = 60_000_000_000;

/// What is long enough for anybody who runs to be seen to run.
const WHILE_MS: u64 = 60;

type Counters = [AtomicU64; 512];

fn main() -> i32 {
    let mut checks = Checks::new();
    if fs::stat(c"/sys/fs/cgroup/cgroup.procs", 0).is_err() {
        checks.skip("frozen control groups", "there are none");
        return checks.finish();
    }
    let counts = shared_counters();
    freezes(&mut checks, counts);
    sleeps(&mut checks, counts);
    kills(&mut checks, counts);
    moves(&mut checks, counts);
    nested(&mut checks, counts);
    stops(&mut checks, counts);
    vforks(&mut checks, counts);
    kills_all(&mut checks, counts);
    watches(&mut checks);
    settle();
    checks.finish()
}

fn is_frozen(group: &str) -> bool {
    number(group, "cgroup.events", "frozen ") == 1
}

/// Freezes a group, and waits until it is.
fn freeze(group: &str) -> bool {
    write(group, "cgroup.freeze", "1").is_ok() && until(|| is_frozen(group))
}

fn thaw(group: &str) -> Result<(), Errno> {
    write(group, "cgroup.freeze", "0")
}

/// Whether a count grows.
fn runs(count: &AtomicU64) -> bool {
    let before = count.load(SeqCst);
    until(|| count.load(SeqCst) > before)
}

/// Whether it has not grown for a while.
fn rests(count: &AtomicU64) -> bool {
    let before = count.load(SeqCst);
    time::sleep_ms(WHILE_MS);
    count.load(SeqCst) == before
}

fn count_for_ever(count: &AtomicU64) -> ! {
    loop {
        count.fetch_add(1, SeqCst);
    }
}

/// A child in a group that does something for ever.
fn member(group: &str, run: impl FnOnce()) -> i32 {
    let started = start(|| {
        if write(group, "cgroup.procs", "0").is_ok() {
            run();
        }
        1
    });
    started.unwrap_or(-1)
}

fn end(pid: i32) -> Result<Status, Errno> {
    let _ = kill(pid, sig::KILL);
    waitpid(pid)
}

fn freezes(checks: &mut Checks, counts: &'static Counters) {
    let _ = make("f");
    checks.eq(read("f", "cgroup.events").as_deref(), Ok("populated 0\nfrozen 0\n"), "a group is not frozen at first");
    checks.eq(write("f", "cgroup.freeze", "1"), Ok(()), "it can be");
    checks.eq(read("f", "cgroup.events").as_deref(), Ok("populated 0\nfrozen 1\n"), "without processes at once");
    checks.eq((thaw("f"), is_frozen("f")), (Ok(()), false), "and be thawed");
    checks.fails(write("f", "cgroup.freeze", "2"), Errno::ERANGE, "there is no more");
    let pid = member("f", || {
        let _ = spawn(|| count_for_ever(&counts[1]));
        count_for_ever(&counts[0])
    });
    checks.ok(runs(&counts[0]) && runs(&counts[1]), "two threads run in it");
    checks.ok(freeze("f"), "it freezes");
    checks.ok(rests(&counts[0]) && rests(&counts[1]), "and both rest");
    checks.eq(read("f", "cgroup.freeze").as_deref(), Ok("1\n"), "as was asked for");
    checks.eq(thaw("f"), Ok(()), "it thaws");
    checks.ok(runs(&counts[0]) && runs(&counts[1]) && !is_frozen("f"), "and they run");
    let _ = write("f", "cgroup.freeze", "1");
    checks.eq(end(pid), Ok(Status::Killed(sig::KILL)), "a process that freezes can be killed");
    checks.ok(until(|| is_frozen("f")), "the group is frozen still");
    let _ = remove("f");
}

/// A sleep that is frozen ends when it would have, and not by an error.
fn sleeps(checks: &mut Checks, counts: &'static Counters) {
    let _ = make("f");
    let fds = io::pipe(0).unwrap_or((-1, -1));
    let pid = member("f", || {
        counts[2].store(1, SeqCst);
        let slept = time::nanosleep(200_000_000);
        let read = io::read(fds.0, &mut [0]);
        process::exit(i32::from(slept.is_err()) + 2 * i32::from(read != Ok(1)));
    });
    let _ = until(|| counts[2].load(SeqCst) == 1);
    checks.ok(freeze("f"), "a process that sleeps freezes");
    let _ = (thaw("f"), time::sleep_ms(300));
    checks.ok(freeze("f"), "as does one that reads from a pipe");
    let _ = io::write(fds.1, b"x");
    time::sleep_ms(WHILE_MS);
    checks.eq(wait4(pid, wait::WNOHANG).map(|changed| changed.is_some()), Ok(false), "frozen, it reads nothing");
    let _ = thaw("f");
    checks.eq(waitpid(pid), Ok(Status::Exited(0)), "both calls go on afterwards as if nothing had been");
    let _ = (io::close(fds.0), io::close(fds.1));
    let _ = remove("f");
}

static HANDLED: AtomicU64 = AtomicU64::new(0);

extern "C" fn note(_: i32, _: *const Info, _: *mut u8) {
    HANDLED.fetch_add(1, SeqCst);
}

fn kills(checks: &mut Checks, counts: &'static Counters) {
    let _ = make("f");
    let handles = || {
        member("f", || {
            let _ = handle(sig::USR1, note, 0, 0);
            counts[3].store(1, SeqCst);
            while HANDLED.load(SeqCst) == 0 {
                counts[4].fetch_add(1, SeqCst);
            }
            process::exit(5);
        })
    };
    let pid = handles();
    checks.ok(until(|| counts[3].load(SeqCst) == 1) && freeze("f"), "a process with a handler freezes");
    let _ = kill(pid, sig::USR1);
    time::sleep_ms(WHILE_MS);
    checks.ok(is_frozen("f") && rests(&counts[4]), "a signal that is handled waits");
    let _ = thaw("f");
    checks.eq(waitpid(pid), Ok(Status::Exited(5)), "until the group thaws");
    for signal in [sig::KILL, sig::TERM] {
        let pid = handles();
        checks.ok(runs(&counts[4]) && freeze("f"), "it freezes again");
        let _ = kill(pid, signal);
        checks.eq(waitpid(pid), Ok(Status::Killed(signal)), "a signal that ends it does so at once");
        let _ = thaw("f");
    }
    let _ = remove("f");
}

fn moves(checks: &mut Checks, counts: &'static Counters) {
    let _ = make("f");
    checks.ok(freeze("f"), "an empty group is frozen");
    let pid = start(|| count_for_ever(&counts[5])).unwrap_or(-1);
    checks.ok(runs(&counts[5]), "elsewhere a process runs");
    checks.eq(write("f", "cgroup.procs", &format!("{pid}")), Ok(()), "it is moved there");
    checks.ok(until(|| is_frozen("f")) && rests(&counts[5]), "and freezes");
    checks.eq(write("", "cgroup.procs", &format!("{pid}")), Ok(()), "it is moved away");
    checks.ok(runs(&counts[5]) && is_frozen("f"), "and runs");
    let _ = end(pid);
    // A child is as frozen as its parent.
    let _ = thaw("f");
    let pid = member("f", || {
        loop {
            match process::fork() {
                Ok(0) => process::exit_now(0),
                Ok(pid) => _ = waitpid(pid),
                Err(_) => {}
            }
            counts[6].fetch_add(1, SeqCst);
        }
    });
    let mut rounds = 0;
    while rounds < 20 && runs(&counts[6]) && freeze("f") && rests(&counts[6]) && thaw("f").is_ok() {
        rounds += 1;
    }
    checks.eq(rounds, 20, "one that forks and waits all the time freezes whenever it is to");
    let _ = end(pid);
    checks.ok(until(|| number("f", "cgroup.events", "populated ") == 0), "and ends");
    let _ = remove("f");
}

fn nested(checks: &mut Checks, counts: &'static Counters) {
    let _ = ["f", "f/a", "f/a/b", "f/c"].map(make);
    let in_b = member("f/a/b", || count_for_ever(&counts[7]));
    let in_c = member("f/c", || count_for_ever(&counts[8]));
    checks.ok(runs(&counts[7]) && runs(&counts[8]), "processes run in groups of a group");
    checks.ok(freeze("f/a"), "one of these freezes");
    checks.ok(rests(&counts[7]) && runs(&counts[8]), "with all below it, and not the other one");
    checks.eq([is_frozen("f"), is_frozen("f/a/b"), is_frozen("f/c")], [false, true, false], "as they say");
    checks.eq(read("f/a/b", "cgroup.freeze").as_deref(), Ok("0\n"), "nobody has asked that of those below");
    checks.ok(freeze("f") && rests(&counts[8]), "all freeze");
    let _ = thaw("f/a");
    checks.ok(is_frozen("f/a") && rests(&counts[7]), "a group thaws not alone");
    let _ = thaw("f");
    checks.ok(runs(&counts[7]) && runs(&counts[8]), "but with that above");
    let _ = [end(in_b), end(in_c)];
    let _ = ["f/a/b", "f/a", "f/c", "f"].map(remove);
}

/// A process that is stopped counts as frozen, and stays stopped.
fn stops(checks: &mut Checks, counts: &'static Counters) {
    let _ = make("f");
    let pid = member("f", || count_for_ever(&counts[9]));
    checks.ok(runs(&counts[9]), "a process runs");
    let _ = kill(pid, sig::STOP);
    let stopped = wait4(pid, wait::WUNTRACED).ok().flatten().map(|changed| changed.status);
    checks.eq(stopped, Some(Status::Stopped(sig::STOP)), "it is stopped");
    checks.ok(freeze("f"), "and frozen");
    let _ = kill(pid, sig::CONT);
    checks.ok(rests(&counts[9]) && is_frozen("f"), "it is continued, and frozen still");
    let _ = thaw("f");
    checks.ok(runs(&counts[9]), "then it runs");
    let _ = end(pid);
    let _ = remove("f");
}

/// Whoever waits for a vfork child is frozen with it.
fn vforks(checks: &mut Checks, counts: &'static Counters) {
    let _ = make("f");
    let pid = member("f", || {
        let flags = (Clone::VM | Clone::VFORK).bits() as usize | sig::CHLD as usize;
        // (The child uses the parent's stack, and does not return.)
        match raw(nr::CLONE, [flags, 0, 0, 0, 0]) {
            Ok(0) => loop {
                counts[11].fetch_add(1, SeqCst);
            },
            _ => process::exit(0),
        }
    });
    checks.ok(runs(&counts[11]), "a process waits for its vfork child");
    checks.ok(freeze("f") && rests(&counts[11]), "both freeze");
    let _ = thaw("f");
    checks.ok(runs(&counts[11]), "and thaw");
    checks.eq(write("f", "cgroup.kill", "1"), Ok(()), "both are killed");
    checks.eq(waitpid(pid), Ok(Status::Killed(sig::KILL)), "whoever waits");
    checks.ok(until(|| number("f", "cgroup.events", "populated ") == 0), "and the other one");
    let _ = remove("f");
}

fn kills_all(checks: &mut Checks, counts: &'static Counters) {
    let _ = ["f", "f/a", "f/b"].map(make);
    let pids = [
        member("f/a", || {
            let _ = spawn(|| count_for_ever(&counts[12]));
            time::sleep_ms(600_000)
        }),
        member("f/a", || {
            let _ = quire_rt::signal::ignore(sig::TERM);
            count_for_ever(&counts[13])
        }),
        member("f/b", || count_for_ever(&counts[14])),
        start(|| count_for_ever(&counts[15])).unwrap_or(-1),
    ];
    checks.ok((12..16).all(|at| runs(&counts[at])), "processes in groups, and one elsewhere");
    let _ = kill(pids[1], sig::STOP);
    checks.ok(freeze("f/b"), "one is stopped, and one frozen");
    for text in ["0", "2"] {
        checks.fails(write("f", "cgroup.kill", text), Errno::ERANGE, "cgroup.kill takes a 1");
    }
    checks.fails(read("f", "cgroup.kill"), Errno::EACCES, "and is not read");
    checks.fails(write("", "cgroup.kill", "1"), Errno::ENOENT, "nobody kills the root");
    checks.eq(write("f", "cgroup.kill", "1"), Ok(()), "all there are killed");
    let ends = [pids[0], pids[1], pids[2]].map(waitpid);
    checks.ok(ends.iter().all(|end| *end == Ok(Status::Killed(sig::KILL))), "and end");
    checks.ok(runs(&counts[15]), "the one elsewhere runs");
    let _ = end(pids[3]);
    let _ = ["f/a", "f/b", "f"].map(remove);
}

/// cgroup.events in poll: ready before it was read, and when it is another than was read.
fn watches(checks: &mut Checks) {
    let _ = ["f", "f/a"].map(make);
    let fd = fs::open(&path("f", "cgroup.events"), Open::empty()).unwrap_or(-1);
    let events = || PollFd { fd, events: poll::PRI, revents: 0 };
    let told = poll::PRI | poll::ERR;
    checks.eq(look(&mut [events()]), [told], "cgroup.events that was not read is ready, as on Linux");
    checks.ok(again(fd) && look(&mut [events()]) == [0], "once it was read it is not");
    let pid = member("f/a", || time::sleep_ms(600_000));
    let wait = || {
        let mut fds = [events()];
        let _ = ppoll(&mut fds, Some(LONG));
        fds[0].revents
    };
    checks.eq(wait(), told, "when a process comes, below too, poll tells");
    checks.eq(look(&mut [events()]), [told], "until it is read");
    checks.ok(again(fd) && look(&mut [events()]) == [0], "that it is now");
    let _ = write("f", "cgroup.freeze", "1");
    checks.eq((wait(), until(|| is_frozen("f"))), (told, true), "when all are frozen, it tells");
    let _ = (again(fd), thaw("f"));
    checks.eq((wait(), is_frozen("f")), (told, false), "and when they are not");
    let _ = again(fd);
    let _ = end(pid);
    checks.eq(wait(), told, "and when the last process has gone");
    let _ = again(fd);
    checks.eq(["f/a", "f"].map(remove), [Ok(()), Ok(())], "the groups go");
    checks.eq(wait(), told, "of which it tells as well");
    checks.eq(io::read(fd, &mut [0; 8]), Err(Errno::ENODEV), "then there is nothing to read");
    let _ = io::close(fd);
    let _ = make("f");
    let status = inside("f", || 0);
    checks.eq((status, remove("f")), (Ok(Status::Exited(0)), Ok(())), "another one of the name is as new");
}

/// Reads a file from its beginning.
fn again(fd: i32) -> bool {
    let mut text = [0_u8; 64];
    raw(nr::PREAD64, [fd as usize, text.as_mut_ptr() as usize, text.len(), 0]).is_ok_and(|read| read > 10)
}
