//! cputimer: what happens after so much CPU time: timers of setitimer and timer_create, RLIMIT_CPU, and the clocks of
//! others.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use quire_rt::abi::flags::{clock, itimer, si, sig, sigev};
use quire_rt::abi::layout::{Itimerspec, Itimerval, Rlimit, Sigevent, Siginfo, Timespec, Timeval, rlimit};
use quire_rt::abi::nr;
use quire_rt::process::{self, Status, waitpid};
use quire_rt::signal::{self, How, Info, handle, mask, set, timed_wait};
use quire_rt::start::args;
use quire_rt::{Errno, thread, time};
use user_tests::{Checks, KERNEL, child, raw, shared_counters, start, until};

quire_rt::entry!(main);

const MS: u64 = 1_000_000;
const FAR: u64 = 1_000_000 * MS;
const RT: u32 = 40;

static COUNT: AtomicU32 = AtomicU32::new(0);

extern "C" fn tally(_: i32, _: *const Info, _: *mut u8) {
    COUNT.fetch_add(1, SeqCst);
}

fn main() -> i32 {
    if args().count() > 1 {
        spin(|| false);
    }
    let mut checks = Checks::new();
    clocks(&mut checks);
    intervals(&mut checks);
    limits(&mut checks);
    let _ = mask(How::Block, set(&[RT]));
    timers(&mut checks);
    others(&mut checks);
    storms(&mut checks);
    checks.finish()
}

/// Uses the CPU until something holds. `false` if it never does.
fn spin(mut holds: impl FnMut() -> bool) -> bool {
    let begin = time::nanoseconds(clock::THREAD_CPUTIME_ID);
    while !holds() {
        (0..1000).for_each(|_| core::hint::spin_loop());
        if time::nanoseconds(clock::THREAD_CPUTIME_ID) - begin > 60_000 * MS {
            return false;
        }
    }
    true
}

fn is_pending(signal: u32) -> bool {
    signal::pending().unwrap_or(0) & set(&[signal]) != 0
}

fn used() -> u64 {
    time::nanoseconds(clock::PROCESS_CPUTIME_ID)
}

/// The number of the clock of a process, or of a thread.
fn clock_of(id: i32, is_thread: bool) -> i32 {
    !id << 3 | if is_thread { 6 } else { 2 }
}

fn clocks(checks: &mut Checks) {
    let (pid, tid) = (process::getpid(), process::gettid());
    for number in [clock_of(0, false), clock_of(pid, false), clock_of(0, true), clock_of(tid, true), !pid << 3] {
        let before = time::nanoseconds(number);
        let grows = spin(|| time::nanoseconds(number) > before);
        checks.ok(before > 0 && grows, "a clock of CPU time by the number of its owner");
        checks.eq(raw(nr::CLOCK_GETRES, [number as usize, 0]), Ok(0), "which there is");
    }
    let user = time::nanoseconds(!pid << 3 | 1);
    checks.ok(user <= used(), "time in the program is not more than all of it");
    let (other, none) = (clock_of(1, true), clock_of(32_000, false));
    for number in [-1, clock_of(0, false) | 1, other, none, clock_of(-5, false), 12, i32::MIN] {
        checks.fails(time::get(number), Errno::EINVAL, "a clock that there is not");
        checks.fails(raw(nr::CLOCK_GETRES, [number as usize, 0]), Errno::EINVAL, "nor for its resolution");
    }
    let pid = start(|| {
        spin(|| false);
        0
    })
    .unwrap_or(-1);
    let theirs = clock_of(pid, false);
    checks.ok(until(|| time::nanoseconds(theirs) > 10 * MS), "the clock of another process runs");
    let _ = (process::kill(pid, sig::KILL), waitpid(pid));
    checks.fails(time::get(theirs), Errno::EINVAL, "to its end");
}

fn value(value: u64, interval: u64) -> Itimerval {
    let time = |ns: u64| Timeval { sec: (ns / 1_000_000_000) as i64, usec: (ns % 1_000_000_000 / 1000) as i64 };
    Itimerval { value: time(value), interval: time(interval) }
}

fn values(timer: &Itimerval) -> (u64, u64) {
    let ns = |time: Timeval| time.sec as u64 * 1_000_000_000 + time.usec as u64 * 1000;
    (ns(timer.value), ns(timer.interval))
}

fn setitimer(which: i32, first: u64, interval: u64) -> Result<(u64, u64), Errno> {
    let (new, mut old) = (value(first, interval), Itimerval::default());
    raw(nr::SETITIMER, [which as usize, &raw const new as usize, &raw mut old as usize]).map(|_| values(&old))
}

fn getitimer(which: i32) -> Result<(u64, u64), Errno> {
    let mut now = Itimerval::default();
    raw(nr::GETITIMER, [which as usize, &raw mut now as usize]).map(|_| values(&now))
}

fn intervals(checks: &mut Checks) {
    for (which, signal) in [(itimer::VIRTUAL, sig::VTALRM), (itimer::PROF, sig::PROF)] {
        checks.eq(getitimer(which), Ok((0, 0)), "a timer of CPU time that does not run");
        let _ = handle(signal, tally, 0, 0);
        let begin = used();
        checks.eq(setitimer(which, 20 * MS, 0), Ok((0, 0)), "is set");
        COUNT.store(0, SeqCst);
        time::sleep_ms(60);
        checks.eq(COUNT.load(SeqCst), 0, "does not expire by sleeping");
        checks.ok(getitimer(which).is_ok_and(|(left, _)| left > 0 && left <= 20 * MS), "has some time left");
        checks.ok(spin(|| COUNT.load(SeqCst) == 1) && used() - begin >= 20 * MS, "and expires by running");
        checks.eq(getitimer(which), Ok((0, 0)), "once");
        let _ = setitimer(which, 5 * MS, 5 * MS);
        checks.ok(spin(|| COUNT.load(SeqCst) >= 5) && used() - begin >= 40 * MS, "an interval goes on and on");
        let left = setitimer(which, 0, 7 * MS).unwrap_or_default();
        checks.ok(left.0 > 0 && left.1 == 5 * MS, "a setting tells of the one before");
        checks.eq(getitimer(which), Ok((0, 0)), "and stops it");
        let _ = setitimer(which, FAR, 3 * MS);
        checks.exits(|| (getitimer(which) != Ok((0, 0))) as i32, 0, "a child has no timer of its parent's");
        let _ = (setitimer(which, 0, 0), signal::default(signal));
        let path = args().next().unwrap_or(c"");
        let status = child(|| {
            let _ = setitimer(which, 30 * MS, 0);
            process::execve(path, [path, c"again"], []);
            1
        });
        checks.eq(status, Ok(Status::Killed(signal)), "exec keeps it");
        checks.fails(raw(nr::GETITIMER, [which as usize, KERNEL]), Errno::EFAULT, "an answer to nowhere");
        let two = || {
            let _ = thread::spawn(|| _ = spin(|| false));
            let _ = setitimer(which, 30 * MS, 0);
            time::sleep_ms(20_000);
        };
        checks.killed(two, signal, "it goes by the time of all threads");
    }
}

fn limit(cur: u64, max: u64) -> Result<Rlimit, Errno> {
    process::prlimit(rlimit::CPU, Some(Rlimit { cur, max }))
}

fn limits(checks: &mut Checks) {
    const NONE: u64 = rlimit::INFINITY;
    let busy = |cur: u64, max: u64| {
        move || {
            let _ = limit(cur, max);
            spin(|| false)
        }
    };
    checks.killed(busy(0, NONE), sig::XCPU, "SIGXCPU at the soft limit");
    checks.killed(busy(0, 0), sig::KILL, "SIGKILL at the hard one");
    let counts = shared_counters();
    let counted = || {
        let _ = handle(sig::XCPU, tally, 0, 0);
        let _ = limit(0, 2);
        spin(|| {
            counts[0].store(COUNT.load(SeqCst).into(), SeqCst);
            counts[1].store(used(), SeqCst);
            false
        })
    };
    COUNT.store(0, SeqCst);
    checks.killed(counted, sig::KILL, "a process that handles SIGXCPU runs to its hard limit");
    checks.eq(counts[0].load(SeqCst), 2, "and gets the signal every second");
    checks.ok(counts[1].load(SeqCst) < 2_100 * MS, "of its CPU time");
    let inherited = || {
        let _ = limit(1, NONE);
        (child(|| spin(|| false) as i32) != Ok(Status::Killed(sig::XCPU))) as i32
    };
    checks.exits(inherited, 0, "a child has its parent's limit, and CPU time of its own");
    let raised = || {
        let _ = limit(1, NONE);
        let _ = limit(NONE, NONE);
        !spin(|| used() > 1_100 * MS) as i32
    };
    checks.exits(raised, 0, "a limit can be lifted");
    let bumped = || {
        let _ = (handle(sig::XCPU, tally, 0, 0), limit(0, 5));
        COUNT.store(0, SeqCst);
        spin(|| COUNT.load(SeqCst) == 1);
        !process::prlimit(rlimit::CPU, None).is_ok_and(|limit| (limit.cur, limit.max) == (1, 5)) as i32
    };
    checks.exits(bumped, 0, "the soft limit goes up by a second, as on Linux");
}

fn create(clock: i32, notify: i32, signal: u32, tid: i32) -> Result<i32, Errno> {
    let mut id = -1i32;
    let event = Sigevent { notify, signo: signal as i32, value: 9, tid, ..Sigevent::default() };
    raw(nr::TIMER_CREATE, [clock as usize, &raw const event as usize, &raw mut id as usize]).map(|_| id)
}

fn timer(clock: i32, signal: u32) -> i32 {
    create(clock, sigev::SIGNAL, signal, 0).unwrap_or(-1)
}

fn settime(id: i32, flags: u32, first: u64, interval: u64) -> Result<(u64, u64), Errno> {
    let new = Itimerspec { value: time::timespec(first), interval: time::timespec(interval) };
    let mut old = Itimerspec::default();
    raw(nr::TIMER_SETTIME, [id as usize, flags as usize, &raw const new as usize, &raw mut old as usize])
        .map(|_| nanoseconds(&old))
}

fn gettime(id: i32) -> Result<(u64, u64), Errno> {
    let mut now = Itimerspec::default();
    raw(nr::TIMER_GETTIME, [id as usize, &raw mut now as usize]).map(|_| nanoseconds(&now))
}

fn nanoseconds(spec: &Itimerspec) -> (u64, u64) {
    let ns = |time: Timespec| time.sec as u64 * 1_000_000_000 + time.nsec as u64;
    (ns(spec.value), ns(spec.interval))
}

fn delete(id: i32) -> Result<usize, Errno> {
    raw(nr::TIMER_DELETE, [id as usize])
}

fn take(signal: u32) -> Siginfo {
    timed_wait(set(&[signal]), Some(20_000 * MS)).unwrap_or_default()
}

fn timers(checks: &mut Checks) {
    for clock in
        [clock::PROCESS_CPUTIME_ID, clock::THREAD_CPUTIME_ID, clock_of(0, false), clock_of(0, true), !0 << 3 | 1]
    {
        let id = timer(clock, RT);
        let begin = time::nanoseconds(clock);
        checks.eq(settime(id, 0, 20 * MS, 0), Ok((0, 0)), "a timer of CPU time");
        time::sleep_ms(60);
        checks.ok(!is_pending(RT) && gettime(id).is_ok_and(|(left, _)| left > 0), "does not expire by sleeping");
        checks.ok(spin(|| is_pending(RT)) && time::nanoseconds(clock) - begin >= 20 * MS, "but by running");
        let info = take(RT);
        checks.eq((info.code, info.fields[0] as i32, info.fields[1]), (si::TIMER, id, 9), "and says which it is");
        checks.eq(gettime(id), Ok((0, 0)), "then it runs no more");
        let begin = time::nanoseconds(clock);
        let _ = settime(id, clock::TIMER_ABSTIME, begin + 10 * MS, 0);
        checks.ok(spin(|| is_pending(RT)) && time::nanoseconds(clock) >= begin + 10 * MS, "a point of CPU time");
        let _ = (take(RT), settime(id, clock::TIMER_ABSTIME, 1, 0));
        checks.ok(spin(|| is_pending(RT)), "one that is past comes at once");
        let _ = (take(RT), settime(id, 0, 2 * MS, 2 * MS));
        let begin = time::nanoseconds(clock);
        let _ = spin(|| time::nanoseconds(clock) > begin + 60 * MS);
        checks.ok(take(RT).fields[0] >> 32 >= 20, "what has expired until the signal is taken is its overrun");
        checks.ok(spin(|| is_pending(RT)), "and the interval goes on");
        checks.eq((delete(id), is_pending(RT)), (Ok(0), false), "until the timer goes with its signal");
    }
    let id = create(clock::PROCESS_CPUTIME_ID, sigev::NONE, 0, 0).unwrap_or(-1);
    let _ = settime(id, 0, 10 * MS, 0);
    checks.ok(gettime(id).is_ok_and(|(left, _)| left > 0), "a timer that tells nobody runs");
    checks.ok(spin(|| gettime(id) == Ok((0, 0))), "to its end");
    let _ = delete(id);
    let ids: [i32; 100] = core::array::from_fn(|_| timer(clock::PROCESS_CPUTIME_ID, RT));
    ids.iter().for_each(|id| _ = settime(*id, 0, 5 * MS, 0));
    let mut taken = 0;
    spin(|| {
        taken += timed_wait(set(&[RT]), Some(0)).is_ok() as u32;
        taken == 100
    });
    checks.eq(taken, 100, "many expire together");
    ids.iter().for_each(|id| _ = delete(*id));
}

fn others(checks: &mut Checks) {
    static STAGE: AtomicU32 = AtomicU32::new(0);
    let Ok(other) = thread::spawn(|| _ = spin(|| STAGE.load(SeqCst) == 1)) else { return checks.ok(false, "a thread") };
    let tid = other.tid() as i32;
    let theirs = timer(clock_of(tid, true), RT);
    let far = timer(clock_of(tid, true), RT);
    let _ = (settime(theirs, 0, 20 * MS, 0), settime(far, 0, FAR, 0));
    checks.eq(take(RT).fields[0] as i32, theirs, "a timer by the CPU time of another thread");
    checks.ok(gettime(far).is_ok_and(|(left, _)| left > 0), "whose clock runs");
    STAGE.store(1, SeqCst);
    other.join();
    // (Whoever joins a thread hears of its end a little earlier.)
    checks.ok(until(|| gettime(far) == Ok((0, 0))), "and nothing is left of it when the thread has ended");
    checks.fails(create(clock_of(tid, true), 0, RT, 0), Errno::EINVAL, "so that there are no new timers either");
    checks.eq((delete(theirs), delete(far)), (Ok(0), Ok(0)), "both go");

    let busy = || spin(|| false) as i32;
    let pid = start(busy).unwrap_or(-1);
    let theirs = timer(clock_of(pid, false), RT);
    let _ = settime(theirs, 0, 20 * MS, 0);
    checks.eq(take(RT).fields[0] as i32, theirs, "a timer by the CPU time of another process");
    let _ = settime(theirs, 0, FAR, 0);
    let _ = (process::kill(pid, sig::KILL), waitpid(pid));
    checks.eq((gettime(theirs), settime(theirs, 0, MS, 0).is_ok()), (Ok((0, 0)), true), "which ends");
    checks.eq(delete(theirs), Ok(0), "before its timer");
}

/// Timers of CPU time that are set, deleted and abandoned while they expire.
fn storms(checks: &mut Checks) {
    let path = args().next().unwrap_or(c"");
    let storm = |seed: u64| {
        let _ = (handle(RT, tally, 0, 0), mask(How::Unblock, set(&[RT])));
        let churn = move || {
            for i in 0..u64::MAX {
                let clocks = [clock::THREAD_CPUTIME_ID, clock::PROCESS_CPUTIME_ID, clock_of(process::getppid(), false)];
                let id = timer(clocks[(i % 3) as usize], RT);
                let _ = settime(id, 0, 1 + (i * 7919 + seed) % 5_000_000, 5 * MS);
                let _ = delete(id - 5);
            }
        };
        if thread::spawn(churn).is_err() {
            return 9;
        }
        for round in 0..2 {
            let _ = setitimer(itimer::PROF, FAR + round, 0);
            let short = thread::spawn(move || {
                let id = timer(clock::THREAD_CPUTIME_ID, RT);
                let _ = settime(id, 0, 1, MS);
                spin(|| time::nanoseconds(clock::THREAD_CPUTIME_ID) > 5 * MS);
            });
            short.into_iter().for_each(thread::Thread::join);
        }
        if seed.is_multiple_of(3) {
            let _ = setitimer(itimer::PROF, 10 * MS, 0);
            process::execve(path, [path, c"again"], []);
        }
        if seed % 3 == 1 {
            time::sleep_ms(20_000);
        }
        7
    };
    let mut right = 0;
    for round in 0..2 {
        let pids: [i32; 3] = core::array::from_fn(|i| start(|| storm(round * 3 + i as u64)).unwrap_or(-1));
        time::sleep_ms(50);
        let _ = process::kill(pids[1], sig::KILL);
        right += (waitpid(pids[0]) == Ok(Status::Killed(sig::PROF))) as u32;
        right += (waitpid(pids[1]) == Ok(Status::Killed(sig::KILL))) as u32;
        right += (waitpid(pids[2]) == Ok(Status::Exited(7))) as u32;
    }
    checks.eq(right, 6, "processes end, exec and are killed while their timers expire");
}
