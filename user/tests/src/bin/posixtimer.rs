//! posixtimer: timers that send signals (timer_create).

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::sync::atomic::{AtomicI32, AtomicU32, Ordering::SeqCst};

use quire_rt::abi::flags::{clock, si, sig, sigev};
use quire_rt::abi::layout::{Itimerspec, Sigevent, Siginfo, Timespec, rlimit};
use quire_rt::abi::nr;
use quire_rt::process::{self, Status, waitpid};
use quire_rt::signal::{self, How, Info, handle, mask, set, timed_wait};
use quire_rt::start::args;
use quire_rt::{Errno, thread, time};
use user_tests::{Checks, KERNEL, raw, start, until};

quire_rt::entry!(main);

const MS: u64 = 1_000_000;
const FAR: u64 = 1_000_000 * MS;
const RT: u32 = 40;

static COUNT: AtomicU32 = AtomicU32::new(0);
static TID: AtomicI32 = AtomicI32::new(0);

extern "C" fn tally(_: i32, _: *const Info, _: *mut u8) {
    COUNT.fetch_add(1, SeqCst);
    TID.store(process::gettid(), SeqCst);
}

fn main() -> i32 {
    if args().count() > 1 {
        // exec deletes the timers: none ends this sleep.
        time::sleep_ms(100);
        return 7;
    }
    let mut checks = Checks::new();
    arguments(&mut checks);
    let _ = mask(How::Block, set(&[sig::ALRM, sig::USR1, RT]));
    once(&mut checks);
    intervals(&mut checks);
    silent(&mut checks);
    queues(&mut checks);
    deleted(&mut checks);
    threads(&mut checks);
    ignored(&mut checks);
    inherited(&mut checks);
    charged(&mut checks);
    clock_set(&mut checks);
    many(&mut checks);
    storms(&mut checks);
    checks.finish()
}

fn event(notify: i32, signal: u32, value: u64) -> Sigevent {
    Sigevent { notify, signo: signal as i32, value, ..Sigevent::default() }
}

fn create(clock: i32, event: &Sigevent) -> Result<i32, Errno> {
    let mut id = -1i32;
    raw(nr::TIMER_CREATE, [clock as usize, core::ptr::from_ref(event).addr(), &raw mut id as usize]).map(|_| id)
}

/// A timer that sends a signal with a value.
fn timer(signal: u32, value: u64) -> i32 {
    create(clock::MONOTONIC, &event(sigev::SIGNAL, signal, value)).unwrap_or(-1)
}

fn spec(first: u64, interval: u64) -> Itimerspec {
    Itimerspec { value: time::timespec(first), interval: time::timespec(interval) }
}

fn values(spec: &Itimerspec) -> (u64, u64) {
    let ns = |time: Timespec| time.sec as u64 * 1_000_000_000 + time.nsec as u64;
    (ns(spec.value), ns(spec.interval))
}

/// Sets a timer; answers what was left and the interval.
fn settime(id: i32, flags: u32, first: u64, interval: u64) -> Result<(u64, u64), Errno> {
    let (new, mut old) = (spec(first, interval), Itimerspec::default());
    let call = [id as usize, flags as usize, &raw const new as usize, &raw mut old as usize];
    raw(nr::TIMER_SETTIME, call).map(|_| values(&old))
}

fn gettime(id: i32) -> Result<(u64, u64), Errno> {
    let mut now = Itimerspec::default();
    raw(nr::TIMER_GETTIME, [id as usize, &raw mut now as usize]).map(|_| values(&now))
}

fn overrun(id: i32) -> Result<usize, Errno> {
    raw(nr::TIMER_GETOVERRUN, [id as usize])
}

fn delete(id: i32) -> Result<usize, Errno> {
    raw(nr::TIMER_DELETE, [id as usize])
}

/// Waits for a signal, and takes it.
fn take(signal: u32) -> Siginfo {
    timed_wait(set(&[signal]), Some(20_000 * MS)).unwrap_or_default()
}

/// Takes a signal if it is pending.
fn look(signal: u32) -> Result<Siginfo, Errno> {
    timed_wait(set(&[signal]), Some(0))
}

/// Signal, code, the timer's number and value of a record.
fn head(info: Siginfo) -> (u32, i32, i32, u64) {
    (info.signo as u32, info.code, info.fields[0] as i32, info.fields[1])
}

fn missed(info: Siginfo) -> u64 {
    info.fields[0] >> 32
}

fn is_pending(signal: u32) -> bool {
    signal::pending().unwrap_or(0) & set(&[signal]) != 0
}

fn arguments(checks: &mut Checks) {
    let plain = event(sigev::SIGNAL, RT, 0);
    for clock in [clock::MONOTONIC_RAW, clock::MONOTONIC_COARSE, clock::REALTIME_COARSE] {
        checks.fails(create(clock, &plain), Errno::EOPNOTSUPP, "a clock without timers");
    }
    for clock in [10, 12, 100] {
        checks.fails(create(clock, &plain), Errno::EINVAL, "a clock that there is not");
    }
    for (notify, signal) in [(0, 0), (0, 65), (2, 0), (4, RT), (3, RT), (5, RT), (-1, RT)] {
        let wrong = create(clock::MONOTONIC, &event(notify, signal, 0));
        checks.fails(wrong, Errno::EINVAL, "a signal that there is not, or a way to tell, or a thread");
    }
    let other = Sigevent { tid: 1, ..event(sigev::THREAD_ID, RT, 0) };
    checks.fails(create(clock::MONOTONIC, &other), Errno::EINVAL, "a thread of another process");
    let mut id = 0i32;
    let at = &raw mut id as usize;
    checks.fails(raw(nr::TIMER_CREATE, [10, KERNEL, at]), Errno::EFAULT, "an event that is nowhere");
    let nowhere = raw(nr::TIMER_CREATE, [1, core::ptr::from_ref(&plain).addr(), KERNEL]);
    checks.fails(nowhere, Errno::EFAULT, "a number to nowhere");
    let clocks = [clock::REALTIME, clock::MONOTONIC, clock::BOOTTIME, clock::TAI];
    let ids = clocks.map(|clock| create(clock, &plain).unwrap_or(-1));
    checks.ok(ids.iter().all(|id| *id >= 0) && ids.is_sorted(), "clocks with timers, numbered one by one");
    checks.ok(ids.iter().all(|id| gettime(*id) == Ok((0, 0))), "which do not run yet");
    ids.iter().for_each(|id| _ = delete(*id));
    for id in [ids[0], -1, i32::MAX] {
        checks.fails(gettime(id), Errno::EINVAL, "a timer that there is not");
        checks.fails(settime(id, 0, 1, 0), Errno::EINVAL, "is not set");
        checks.fails(overrun(id), Errno::EINVAL, "has no overrun");
        checks.fails(delete(id), Errno::EINVAL, "and is not deleted");
    }
    let id = timer(RT, 0);
    let raw_set = |at: usize| raw(nr::TIMER_SETTIME, [id as usize, 0, at, 0]);
    for (sec, nsec) in [(-1, 0), (0, -1), (0, 1_000_000_000)] {
        let bad = Timespec { sec, nsec };
        let wrong = Itimerspec { value: bad, ..Itimerspec::default() };
        checks.fails(raw_set(&raw const wrong as usize), Errno::EINVAL, "a time that is none");
        let wrong = Itimerspec { interval: bad, ..Itimerspec::default() };
        checks.fails(raw_set(&raw const wrong as usize), Errno::EINVAL, "an interval that is none");
    }
    checks.fails(raw_set(0), Errno::EINVAL, "no time");
    checks.fails(raw_set(KERNEL), Errno::EFAULT, "a time that is nowhere");
    checks.fails(raw(nr::TIMER_GETTIME, [id as usize, KERNEL]), Errno::EFAULT, "an answer to nowhere");
    checks.eq(overrun(id), Ok(0), "no overrun yet");
    let _ = delete(id);
}

fn once(checks: &mut Checks) {
    let mut id = -1i32;
    let made = raw(nr::TIMER_CREATE, [clock::MONOTONIC as usize, 0, &raw mut id as usize]);
    // SAFETY: the kernel has written it.
    let id = unsafe { (&raw const id).read_volatile() };
    let begin = time::monotonic();
    checks.eq((made, settime(id, 0, 20 * MS, 0)), (Ok(0), Ok((0, 0))), "a timer of no event");
    let info = take(sig::ALRM);
    checks.eq(head(info), (sig::ALRM, si::TIMER, id, id as u64), "sends SIGALRM with its number");
    checks.ok(time::monotonic() - begin >= 20 * MS && missed(info) == 0, "not early");
    checks.eq(gettime(id), Ok((0, 0)), "then it runs no more");
    let _ = delete(id);
    for clock in [clock::MONOTONIC, clock::REALTIME, clock::BOOTTIME] {
        let id = create(clock, &event(sigev::SIGNAL, RT, u64::MAX - 1)).unwrap_or(-1);
        let begin = time::nanoseconds(clock);
        let _ = settime(id, clock::TIMER_ABSTIME, begin + 15 * MS, 0);
        checks.eq(head(take(RT)), (RT, si::TIMER, id, u64::MAX - 1), "a point of time comes");
        checks.ok(time::nanoseconds(clock) >= begin + 15 * MS, "not early");
        let _ = settime(id, clock::TIMER_ABSTIME, 1, 0);
        checks.eq(head(take(RT)).2, id, "one that is past is there at once");
        let _ = settime(id, 0, FAR, 7);
        let (left, interval) = settime(id, 0, 0, 9).unwrap_or_default();
        checks.ok(left > FAR / 2 && left <= FAR && interval == 7, "a setting tells of the one before");
        checks.eq(gettime(id), Ok((0, 0)), "a timer that is stopped has no interval either");
        let _ = delete(id);
    }
    let id = timer(RT, 0);
    let far = Itimerspec { value: Timespec { sec: i64::MAX, nsec: 999_999_999 }, ..Itimerspec::default() };
    checks.eq(raw(nr::TIMER_SETTIME, [id as usize, 0, &raw const far as usize, 0]), Ok(0), "a time that never comes");
    checks.fails(look(RT), Errno::EAGAIN, "does not");
    let _ = delete(id);
}

fn intervals(checks: &mut Checks) {
    let id = timer(RT, 5);
    let begin = time::monotonic();
    let _ = settime(id, 0, 10 * MS, 10 * MS);
    let mut count = 0;
    while count < 5 {
        let info = take(RT);
        count += 1 + missed(info);
        checks.eq(overrun(id), Ok(missed(info) as usize), "the overrun of a signal is that of its timer");
    }
    checks.ok(count <= (time::monotonic() - begin) / (10 * MS), "not more expirations than intervals");
    let _ = settime(id, 0, 2 * MS, 2 * MS);
    time::sleep_ms(42);
    checks.ok(gettime(id).is_ok_and(|(left, interval)| left > 0 && left <= 2 * MS && interval == 2 * MS), "goes on");
    time::sleep_ms(6);
    let info = take(RT);
    checks.ok(missed(info) >= 20, "what has expired until the signal is taken is its overrun");
    checks.ok(overrun(id) == Ok(missed(info) as usize), "which can be asked for");
    let _ = (settime(id, 0, 0, 0), look(RT));
    let _ = settime(id, clock::TIMER_ABSTIME, 1, FAR);
    checks.eq(missed(take(RT)), time::monotonic() / FAR, "from the past on");
    let _ = delete(id);

    let _ = handle(RT, tally, 0, 0);
    let _ = mask(How::Unblock, set(&[RT]));
    let id = timer(RT, 5);
    COUNT.store(0, SeqCst);
    let _ = settime(id, 0, MS, MS);
    checks.ok(until(|| COUNT.load(SeqCst) >= 5), "a handler is called again and again");
    let _ = settime(id, 0, 0, 0);
    COUNT.store(0, SeqCst);
    time::sleep_ms(20);
    checks.eq(COUNT.load(SeqCst), 0, "until the timer is stopped");
    let _ = (delete(id), mask(How::Block, set(&[RT])));
    let busy = || {
        let _ = settime(create(clock::MONOTONIC, &event(sigev::SIGNAL, sig::TERM, 0)).unwrap_or(-1), 0, MS, 0);
        loop {
            core::hint::spin_loop()
        }
    };
    checks.killed(busy, sig::TERM, "a timer ends a runner");
    let killer = || {
        let _ = settime(create(clock::MONOTONIC, &event(sigev::SIGNAL, sig::KILL, 0)).unwrap_or(-1), 0, MS, MS);
        time::sleep_ms(20_000)
    };
    checks.killed(killer, sig::KILL, "even by SIGKILL");
}

fn silent(checks: &mut Checks) {
    let id = create(clock::MONOTONIC, &event(sigev::NONE, 900, 0)).unwrap_or(-1);
    checks.ok(id >= 0, "a timer that tells nobody may name any signal");
    let _ = settime(id, 0, FAR, 0);
    checks.ok(gettime(id).is_ok_and(|(left, _)| left > 0 && left <= FAR), "it runs");
    let _ = settime(id, 0, MS, 0);
    time::sleep_ms(3);
    checks.eq(gettime(id), Ok((0, 0)), "to its end");
    let _ = settime(id, 0, 2 * MS, 5 * MS);
    time::sleep_ms(12);
    checks.ok(gettime(id).is_ok_and(|(left, interval)| left > 0 && left <= 5 * MS && interval == 5 * MS), "and again");
    checks.eq((overrun(id), delete(id)), (Ok(0), Ok(0)), "with no overrun");
}

fn queues(checks: &mut Checks) {
    let ids = [sig::USR1, sig::USR1, RT, RT].map(|signal| timer(signal, 0));
    ids.iter().for_each(|id| _ = settime(*id, 0, MS, 0));
    time::sleep_ms(5);
    until(|| is_pending(RT));
    let got = [take(sig::USR1), take(sig::USR1), take(RT), take(RT)].map(|info| head(info).2);
    checks.ok(got[..2] == ids[..2] && got[2..] == ids[2..], "each timer has a signal of its own, in order");
    checks.ok(look(sig::USR1).is_err() && look(RT).is_err() && !is_pending(RT), "and no more");

    let me = process::getpid();
    let _ = (signal::queue(me, RT, 1), settime(ids[2], 0, MS, 0));
    until(|| gettime(ids[2]) == Ok((0, 0)));
    let _ = signal::queue(me, RT, 2);
    let codes = [take(RT), take(RT), take(RT)].map(|info| (info.code, info.fields[1]));
    checks.eq(codes, [(si::QUEUE, 1), (si::TIMER, 0), (si::QUEUE, 2)], "in order with others of its number");
    let _ = (settime(ids[0], 0, MS, 0), until(|| is_pending(sig::USR1)), process::kill(me, sig::USR1));
    checks.eq((take(sig::USR1).code, look(sig::USR1).is_err()), (si::TIMER, true), "which is pending once");
    let _ = (settime(ids[0], 0, MS, 0), until(|| is_pending(sig::USR1)));
    let _ = settime(ids[0], 0, MS, 0);
    until(|| gettime(ids[0]) == Ok((0, 0)));
    let (info, next) = (take(sig::USR1), look(sig::USR1));
    checks.ok(head(info).2 == ids[0] && next.is_err(), "a timer's signal, too, however often it expires");
    checks.eq(missed(info), 1, "which is overrun");
    ids.iter().for_each(|id| _ = delete(*id));
}

fn deleted(checks: &mut Checks) {
    let ids = [timer(RT, 0), timer(RT, 0)];
    ids.iter().for_each(|id| _ = settime(*id, 0, MS, MS));
    until(|| is_pending(RT));
    time::sleep_ms(5);
    let _ = delete(ids[0]);
    checks.eq((is_pending(RT), head(take(RT)).2), (true, ids[1]), "a timer that goes takes its signal along");
    until(|| is_pending(RT));
    checks.eq((delete(ids[1]), is_pending(RT)), (Ok(0), false), "and the last one of its number the number");
    let _ = process::kill(process::getpid(), sig::USR1);
    let id = timer(sig::USR1, 0);
    let _ = settime(id, 0, MS, 0);
    until(|| gettime(id) == Ok((0, 0)));
    checks.eq((delete(id), take(sig::USR1).code), (Ok(0), si::USER), "but not the signals of others");
    // A stop and a continuation undo each other.
    let stop = timer(sig::TSTP, 0);
    let _ = (mask(How::Block, set(&[sig::TSTP])), settime(stop, 0, MS, 0));
    until(|| is_pending(sig::TSTP));
    let _ = process::kill(process::getpid(), sig::CONT);
    checks.ok(!is_pending(sig::TSTP) && look(sig::TSTP).is_err(), "a continuation drops a stop");
    let _ = settime(stop, 0, MS, 0);
    checks.ok(until(|| is_pending(sig::TSTP)), "until its timer expires again");
    checks.eq(head(take(sig::TSTP)).2, stop, "and it is taken");
    let _ = (delete(stop), mask(How::Unblock, set(&[sig::TSTP])));
}

fn threads(checks: &mut Checks) {
    let thread = process::gettid();
    let _ = handle(RT, tally, 0, 0);
    let to = |tid: i32| create(clock::MONOTONIC, &Sigevent { tid, ..event(sigev::THREAD_ID, RT, 3) }).unwrap_or(-1);
    static STAGE: AtomicU32 = AtomicU32::new(0);
    let other = thread::spawn(move || {
        let _ = mask(How::Unblock, set(&[RT]));
        STAGE.store(1, SeqCst);
        while STAGE.load(SeqCst) == 1 {
            time::sleep_ms(1);
        }
    });
    let Ok(other) = other else { return checks.ok(false, "a thread") };
    until(|| STAGE.load(SeqCst) == 1);
    let tid = other.tid() as i32;
    let (id, own) = (to(tid), to(thread));
    COUNT.store(0, SeqCst);
    let _ = settime(own, 0, MS, 0);
    until(|| gettime(own) == Ok((0, 0)));
    time::sleep_ms(5);
    checks.eq((COUNT.load(SeqCst), head(take(RT)).2), (0, own), "a thread's timer is for that thread alone");
    let _ = settime(id, 0, MS, 0);
    checks.ok(until(|| COUNT.load(SeqCst) == 1) && TID.load(SeqCst) == tid, "whichever that is");
    let _ = settime(id, 0, 20 * MS, MS);
    STAGE.store(2, SeqCst);
    other.join();
    COUNT.store(0, SeqCst);
    time::sleep_ms(40);
    checks.ok(COUNT.load(SeqCst) == 0 && look(RT).is_err(), "a timer of a thread that has ended tells nobody");
    checks.eq((delete(id), delete(own)), (Ok(0), Ok(0)), "and can be deleted");
}

fn ignored(checks: &mut Checks) {
    let _ = (mask(How::Unblock, set(&[RT])), signal::ignore(RT));
    let id = timer(RT, 0);
    let _ = settime(id, 0, MS, MS);
    time::sleep_ms(20);
    checks.ok(gettime(id).is_ok_and(|(left, _)| left > 0 && left <= MS), "an interval whose signal is ignored runs on");
    COUNT.store(0, SeqCst);
    let _ = handle(RT, tally, 0, 0);
    checks.ok(until(|| COUNT.load(SeqCst) > 3), "and sends again once it is not");
    let _ = mask(How::Block, set(&[RT]));
    until(|| is_pending(RT));
    let _ = signal::ignore(RT);
    checks.ok(!is_pending(RT), "an ignored signal is dropped");
    COUNT.store(0, SeqCst);
    let _ = (handle(RT, tally, 0, 0), mask(How::Unblock, set(&[RT])));
    checks.ok(until(|| COUNT.load(SeqCst) > 3), "and its timer goes on, too");
    let _ = (delete(id), mask(How::Block, set(&[RT])));
}

fn inherited(checks: &mut Checks) {
    let id = timer(sig::TERM, 0);
    let _ = settime(id, 0, FAR, 0);
    checks.exits(|| (gettime(id) != Err(Errno::EINVAL)) as i32, 0, "a child has no timer of its parent's");
    checks.ok(gettime(id).is_ok_and(|(left, _)| left > 0), "the parent's runs on");
    let _ = delete(id);
    let path = args().next().unwrap_or(c"");
    let execs = || {
        for i in 0..20 {
            let _ = settime(timer(sig::TERM, 0), 0, 40 * MS, MS + i);
        }
        let _ = settime(timer(RT, 0), 0, 1, 0);
        until(|| is_pending(RT));
        process::execve(path, [path, c"again"], []);
        1
    };
    checks.exits(execs, 7, "exec deletes them");
}

fn charged(checks: &mut Checks) {
    let bounded = || {
        let limit = [30u64, 30];
        let _ = raw(nr::PRLIMIT64, [0, rlimit::SIGPENDING, &raw const limit as usize, 0]);
        let quiet = event(sigev::NONE, 0, 0);
        let mut ids = Vec::new();
        let error = loop {
            match create(clock::MONOTONIC, &quiet) {
                Ok(id) if ids.len() < 100 => ids.push(id),
                Ok(_) => return 1,
                Err(error) => break error,
            }
        };
        let _ = delete(ids[0]);
        let again = create(clock::MONOTONIC, &quiet).is_ok();
        // (The user may have other signals pending elsewhere.)
        !(error == Errno::EAGAIN && (20..=30).contains(&ids.len()) && again) as i32
    };
    for round in ["timers are charged to their user", "and are so no more when their process has ended"] {
        checks.exits(bounded, 0, round);
    }
}

/// Sets the clock ahead by so much.
fn shift(seconds: i64) -> Result<usize, Errno> {
    let mut now = time::get(clock::REALTIME)?;
    now.sec += seconds;
    raw(nr::CLOCK_SETTIME, [clock::REALTIME as usize, &raw const now as usize])
}

fn clock_set(checks: &mut Checks) {
    let new = || create(clock::REALTIME, &event(sigev::SIGNAL, RT, 0)).unwrap_or(-1);
    let (point, span) = (new(), new());
    let now = time::nanoseconds(clock::REALTIME);
    let _ = (settime(point, clock::TIMER_ABSTIME, now + FAR, 0), settime(span, 0, FAR, 0));
    checks.eq(shift(900), Ok(0), "the clock is set");
    checks.ok(gettime(point).is_ok_and(|(left, _)| left > 0 && left < FAR / 8), "a point of time comes earlier");
    checks.ok(gettime(span).is_ok_and(|(left, _)| left > FAR / 2) && look(RT).is_err(), "a span does not");
    let _ = shift(200);
    checks.eq(head(take(RT)).2, point, "what is past then comes at once");
    let _ = (settime(point, 0, 0, 0), look(RT));
    let _ = settime(point, clock::TIMER_ABSTIME, 1, 1);
    checks.eq(missed(take(RT)), i32::MAX as u64, "an overrun has its bound");
    checks.eq((delete(point), delete(span)), (Ok(0), Ok(0)), "and both go");
}

/// Thousands of timers, all due at once, with signals that nobody takes; on a small machine, as many as half of what a
/// user may have.
fn many(checks: &mut Checks) {
    let limit = process::prlimit(rlimit::SIGPENDING, None).map_or(0, |limit| limit.cur);
    let count = (limit / 2).min(2000) as i32;
    let ids: Vec<i32> = (0..count).map(|i| timer(if i % 2 == 0 { RT } else { sig::USR1 }, i as _)).collect();
    checks.ok(ids.iter().all(|id| *id >= 0), "many timers");
    let at = time::monotonic() + 20 * MS;
    ids.iter().for_each(|id| _ = settime(*id, clock::TIMER_ABSTIME, at, 1));
    let last = *ids.last().unwrap_or(&-1);
    time::sleep_ms(30);
    let mut taken = 0;
    while taken < ids.len() && time::monotonic() < at + 20_000 * MS {
        // Each goes on as soon as its signal is taken.
        for signal in [RT, sig::USR1] {
            taken += look(signal).is_ok_and(|info| delete(info.fields[0] as i32).is_ok()) as usize;
        }
    }
    checks.eq(taken, ids.len(), "each sends its signal");
    checks.ok(gettime(last).is_err() && !is_pending(RT) && !is_pending(sig::USR1), "and none is left");
    let busy = || -> i32 {
        let _ = (handle(RT, tally, 0, 0), mask(How::Unblock, set(&[RT])));
        let ids: Vec<i32> = (0..300).map(|i| timer(RT, i)).collect();
        ids.iter().for_each(|id| _ = settime(*id, 0, MS, 1));
        loop {
            time::sleep_ms(30);
        }
    };
    let pids = [(); 4].map(|()| start(busy).unwrap_or(-1));
    time::sleep_ms(50);
    let killed = pids.map(|pid| process::kill(pid, sig::KILL).and_then(|()| waitpid(pid)));
    checks.eq(killed, [Ok(Status::Killed(sig::KILL)); 4], "processes that do nothing but take their signals");
}

/// Timers that are set, deleted and abandoned while they expire.
fn storms(checks: &mut Checks) {
    let path = args().next().unwrap_or(c"");
    let storm = |seed: u64| {
        let _ = (handle(RT, tally, 0, 0), mask(How::Unblock, set(&[RT])));
        let other = thread::spawn(move || {
            for i in 0..u64::MAX {
                let id = timer(RT, i);
                let _ = settime(id, 0, 1 + (i * 7919 + seed) % 50_000, 5 * MS);
                let _ = delete(id - 5);
            }
        });
        let ids = [(); 8].map(|()| timer(RT, 0));
        let end = time::monotonic() + 20 * MS;
        let mut i = 0;
        while time::monotonic() < end {
            i += 1;
            let id = ids[(i % 8) as usize];
            let _ = (settime(id, 0, 1 + (i * 104_729 + seed) % 30_000, i % 5 * MS), gettime(id), overrun(id));
            if i.is_multiple_of(16) {
                let _ = (signal::ignore(RT), handle(RT, tally, 0, 0));
            }
        }
        if other.is_err() {
            return 9;
        }
        if seed.is_multiple_of(3) {
            process::execve(path, [path, c"again"], []);
        }
        if seed % 3 == 1 {
            time::sleep_ms(20_000);
        }
        7
    };
    let mut right = 0;
    for round in 0..3 {
        let pids: [i32; 3] = core::array::from_fn(|i| start(|| storm(round * 3 + i as u64)).unwrap_or(-1));
        time::sleep_ms(30);
        let _ = process::kill(pids[1], sig::KILL);
        right += (waitpid(pids[0]) == Ok(Status::Exited(7))) as u32;
        right += (waitpid(pids[1]) == Ok(Status::Killed(sig::KILL))) as u32;
        right += (waitpid(pids[2]) == Ok(Status::Exited(7))) as u32;
    }
    checks.eq(right, 9, "processes end, exec and are killed while their timers expire");
}
