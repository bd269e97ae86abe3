//! timerfd: timers that are read.

#![no_std]
#![no_main]

use quire_rt::abi::flags::{Open, clock, sig, tfd};
use quire_rt::abi::layout::{Itimerspec, PollFd, Timespec, epoll, poll};
use quire_rt::abi::nr;
use quire_rt::process::{self, Status};
use quire_rt::{Errno, fs, io, signal, time};
use user_tests::ready::{control, counter, look, ppoll, set, take, wait};
use user_tests::{Checks, KERNEL, raw, start, until_asleep};

quire_rt::entry!(main);

const MS: u64 = 1_000_000;
const NONBLOCK: u32 = Open::NONBLOCK.bits();
const IN: u32 = poll::IN as u32;

fn main() -> i32 {
    let mut checks = Checks::new();
    arguments(&mut checks);
    once(&mut checks);
    intervals(&mut checks);
    waiting(&mut checks);
    sets(&mut checks);
    clock_set(&mut checks);
    many(&mut checks);
    checks.finish()
}

fn timer(clock: i32, flags: u32) -> i32 {
    raw(nr::TIMERFD_CREATE, [clock as usize, flags as usize]).map_or(-1, |fd| fd as i32)
}

fn spec(first: u64, interval: u64) -> Itimerspec {
    Itimerspec { value: time::timespec(first), interval: time::timespec(interval) }
}

/// Sets a timer; answers what was left and the interval.
fn settime(fd: i32, flags: u32, first: u64, interval: u64) -> Result<(u64, u64), Errno> {
    let (new, mut old) = (spec(first, interval), Itimerspec::default());
    let call = [fd as usize, flags as usize, &raw const new as usize, &raw mut old as usize];
    raw(nr::TIMERFD_SETTIME, call).map(|_| values(&old))
}

fn values(spec: &Itimerspec) -> (u64, u64) {
    let ns = |time: Timespec| time.sec as u64 * 1_000_000_000 + time.nsec as u64;
    (ns(spec.value), ns(spec.interval))
}

fn gettime(fd: i32) -> Result<(u64, u64), Errno> {
    let mut now = Itimerspec::default();
    raw(nr::TIMERFD_GETTIME, [fd as usize, &raw mut now as usize]).map(|_| values(&now))
}

fn arguments(checks: &mut Checks) {
    let create = |clock: i32, flags: u32| raw(nr::TIMERFD_CREATE, [clock as usize, flags as usize]);
    for clock in [clock::PROCESS_CPUTIME_ID, clock::MONOTONIC_RAW, clock::REALTIME_COARSE, 10, -1] {
        checks.fails(create(clock, 0), Errno::EINVAL, "a clock without timers");
    }
    checks.fails(create(clock::MONOTONIC, 1), Errno::EINVAL, "unknown flags");
    let all = [clock::REALTIME, clock::MONOTONIC, clock::BOOTTIME, clock::REALTIME_ALARM, clock::BOOTTIME_ALARM];
    let fds = all.map(|clock| timer(clock, NONBLOCK));
    checks.ok(fds.iter().all(|fd| *fd >= 0), "clocks with timers");
    fds.iter().for_each(|fd| _ = io::close(*fd));

    let fd = timer(clock::MONOTONIC, NONBLOCK);
    checks.eq(gettime(fd), Ok((0, 0)), "a new timer does not run");
    checks.fails(io::read(fd, &mut [0; 8]), Errno::EAGAIN, "and has nothing to read");
    checks.fails(io::read(fd, &mut [0; 7]), Errno::EINVAL, "a read of less than 8 bytes");
    checks.fails(io::write(fd, &[0; 8]), Errno::EINVAL, "a write");
    checks.eq(fs::lseek(fd, 5, 0), Ok(0), "it has no position");
    checks.fails(settime(fd, 4, 1, 0), Errno::EINVAL, "unknown flags of a setting");
    let raw_set = |fd: i32, at: usize| raw(nr::TIMERFD_SETTIME, [fd as usize, 0, at, 0]);
    for (sec, nsec) in [(-1, 0), (0, -1), (0, 1_000_000_000)] {
        let wrong = Itimerspec { value: Timespec { sec, nsec }, ..Itimerspec::default() };
        checks.fails(raw_set(fd, &raw const wrong as usize), Errno::EINVAL, "a time that is none");
        let wrong = Itimerspec { interval: Timespec { sec, nsec }, ..Itimerspec::default() };
        checks.fails(raw_set(fd, &raw const wrong as usize), Errno::EINVAL, "an interval that is none");
    }
    checks.fails(raw_set(fd, KERNEL), Errno::EFAULT, "a time that is nowhere");
    checks.fails(raw_set(-1, KERNEL), Errno::EFAULT, "which is looked at first");
    let one = spec(1, 0);
    checks.fails(raw_set(900, &raw const one as usize), Errno::EBADF, "no descriptor");
    let other = counter(0, 0).unwrap_or(-1);
    checks.fails(raw_set(other, &raw const one as usize), Errno::EINVAL, "no timer");
    checks.fails(gettime(other), Errno::EINVAL, "nor to be asked");
    checks.fails(gettime(900), Errno::EBADF, "nor nothing");
    checks.fails(raw(nr::TIMERFD_GETTIME, [fd as usize, KERNEL]), Errno::EFAULT, "an answer to nowhere");
    let _ = (io::close(other), io::close(fd));
}

fn once(checks: &mut Checks) {
    for clock in [clock::MONOTONIC, clock::REALTIME, clock::BOOTTIME] {
        let fd = timer(clock, 0);
        checks.eq(settime(fd, 0, 1_000_000 * MS, 0), Ok((0, 0)), "a span is set");
        let (left, interval) = gettime(fd).unwrap_or_default();
        checks.ok(left > 0 && left <= 1_000_000 * MS && interval == 0, "of which something is left");
        let begin = time::monotonic();
        let _ = settime(fd, 0, 20 * MS, 0);
        checks.eq(take(fd), Ok(1), "a read waits for the one expiration");
        checks.ok(time::monotonic() - begin >= 20 * MS, "not early");
        checks.eq(gettime(fd), Ok((0, 0)), "then the timer runs no more");
        let begin = time::nanoseconds(clock);
        let _ = settime(fd, tfd::ABSTIME, begin + 15 * MS, 0);
        checks.eq(take(fd), Ok(1), "a point of time comes");
        checks.ok(time::nanoseconds(clock) >= begin + 15 * MS, "not early");
        let _ = settime(fd, tfd::ABSTIME, 1, 0);
        checks.eq(take(fd), Ok(1), "one that is past is there at once");
        let _ = io::close(fd);
    }
    let fd = timer(clock::MONOTONIC, NONBLOCK);
    let _ = settime(fd, tfd::ABSTIME, 1, 0);
    checks.eq(look(&mut [PollFd { fd, events: poll::IN | poll::OUT, revents: 0 }]), [poll::IN], "and readable");
    let _ = settime(fd, 0, 1_000_000 * MS, 7);
    checks.fails(take(fd), Errno::EAGAIN, "what nobody has read is lost by a new setting");
    let (left, interval) = settime(fd, 0, 0, 9).unwrap_or_default();
    checks.ok(left > 999_000 * MS && interval == 7, "which tells what was left");
    checks.eq(gettime(fd), Ok((0, 9)), "a timer that is stopped keeps its interval");
    checks.fails(take(fd), Errno::EAGAIN, "and does not expire");
    let far = Itimerspec { value: Timespec { sec: i64::MAX, nsec: 999_999_999 }, ..Itimerspec::default() };
    let set = raw(nr::TIMERFD_SETTIME, [fd as usize, 0, &raw const far as usize, 0]);
    checks.eq((set, take(fd).err()), (Ok(0), Some(Errno::EAGAIN)), "a time that never comes");
    let _ = io::close(fd);
}

fn intervals(checks: &mut Checks) {
    let fd = timer(clock::MONOTONIC, 0);
    let begin = time::monotonic();
    let _ = settime(fd, 0, 10 * MS, 10 * MS);
    let mut count = 0;
    while count < 5 {
        count += take(fd).unwrap_or(1000);
    }
    let passed = time::monotonic() - begin;
    checks.ok(count <= passed / (10 * MS) && count < 1000, "not more expirations than intervals");
    let _ = settime(fd, 0, 2 * MS, 2 * MS);
    time::sleep_ms(41);
    let count = take(fd).unwrap_or(0);
    checks.ok(count >= 20, "one read has all that came");
    let (left, interval) = gettime(fd).unwrap_or_default();
    // (Nothing is left of a timer whose interrupt is under way.)
    checks.ok(left <= 2 * MS && interval == 2 * MS, "and the next is to come");
    time::sleep_ms(9);
    checks.ok(gettime(fd).is_ok_and(|(left, _)| left <= 2 * MS), "a question moves it on");
    checks.ok(take(fd).is_ok_and(|count| count >= 4), "and loses none");
    let _ = settime(fd, tfd::ABSTIME, 1, 1_000_000 * MS);
    checks.ok(take(fd).is_ok_and(|count| count == 1 + time::monotonic() / (1_000_000 * MS)), "from the past on");
    let _ = io::close(fd);
}

fn waiting(checks: &mut Checks) {
    let fd = timer(clock::MONOTONIC, 0);
    let reader = start(|| (take(fd) != Ok(1)) as i32).unwrap_or(-1);
    until_asleep(reader);
    let _ = settime(fd, 0, MS, 0);
    checks.eq(process::waitpid(reader), Ok(Status::Exited(0)), "a timer that is set while somebody reads");
    let poller = start(|| (ppoll(&mut [PollFd { fd, events: poll::IN, revents: 0 }], None) != Ok(1)) as i32);
    let poller = poller.unwrap_or(-1);
    until_asleep(poller);
    let _ = settime(fd, 0, MS, 0);
    checks.eq(process::waitpid(poller), Ok(Status::Exited(0)), "or polls");
    checks.eq(take(fd), Ok(1), "which takes nothing");

    extern "C" fn nothing(_: i32, _: *const signal::Info, _: *mut u8) {}
    let _ = signal::handle(sig::ALRM, nothing, 0, 0);
    let _ = time::set_alarm(10 * MS, 10 * MS);
    checks.fails(take(fd), Errno::EINTR, "a handler ends a read");
    let _ = time::set_alarm(0, 0);
    let _ = (signal::default(sig::ALRM), io::close(fd));
}

fn sets(checks: &mut Checks) {
    let (set, outer) = (set(), set());
    let (fd, edge) = (timer(clock::MONOTONIC, NONBLOCK), timer(clock::REALTIME, NONBLOCK));
    let _ = control(set, epoll::ADD, fd, IN, 1);
    let _ = control(set, epoll::ADD, edge, IN | epoll::ET, 2);
    let _ = control(outer, epoll::ADD, set, IN, 3);
    checks.eq(wait(set, 8, 0).map(|found| found.len()), Ok(0), "no timer, no event");
    let _ = settime(fd, 0, 5 * MS, 0);
    checks.eq(wait(set, 8, -1), Ok([(IN, 1)].into()), "a set waits for a timer");
    checks.eq(wait(outer, 8, -1), Ok([(IN, 3)].into()), "and a set of sets");
    checks.eq((take(fd), wait(set, 8, 0).map(|found| found.len())), (Ok(1), Ok(0)), "until it is read");
    let _ = settime(edge, 0, MS, MS);
    checks.eq(wait(set, 8, -1), Ok([(IN, 2)].into()), "an edge");
    time::sleep_ms(5);
    checks.eq(wait(set, 8, 0).map(|found| found.len()), Ok(0), "is one until it is read");
    let _ = take(edge);
    checks.eq(wait(set, 8, -1), Ok([(IN, 2)].into()), "the next expiration is another");
    let pid = start(|| (wait(outer, 8, -1).is_err()) as i32).unwrap_or(-1);
    let _ = settime(edge, 0, 0, 0);
    let _ = (wait(set, 8, 0), until_asleep(pid));
    let _ = settime(fd, 0, MS, 0);
    checks.eq(process::waitpid(pid), Ok(Status::Exited(0)), "a sleeper in a set of sets is woken");
    let _ = (io::close(fd), io::close(edge), io::close(set), io::close(outer));
}

/// Sets the clock ahead by so much.
fn shift(seconds: i64) -> Result<usize, Errno> {
    let mut now = time::get(clock::REALTIME)?;
    now.sec += seconds;
    raw(nr::CLOCK_SETTIME, [clock::REALTIME as usize, &raw const now as usize])
}

fn clock_set(checks: &mut Checks) {
    let _ = shift(10_000);
    let now = || time::nanoseconds(clock::REALTIME);
    let (plain, cancels) = (timer(clock::REALTIME, NONBLOCK), timer(clock::REALTIME, NONBLOCK));
    let span = timer(clock::REALTIME, NONBLOCK);
    let both = tfd::ABSTIME | tfd::CANCEL_ON_SET;
    let _ = settime(plain, tfd::ABSTIME, now() + 1_000_000 * MS, 0);
    let _ = settime(cancels, both, now() + 1_000_000 * MS, 0);
    let _ = settime(span, tfd::CANCEL_ON_SET, 1_000_000 * MS, 0);
    checks.eq(shift(900), Ok(0), "the clock is set");
    checks.fails(take(plain), Errno::EAGAIN, "a time that is still to come");
    checks.ok(gettime(plain).is_ok_and(|(left, _)| left < 101_000 * MS), "comes earlier");
    checks.ok(gettime(span).is_ok_and(|(left, _)| left > 900_000 * MS), "a span does not");
    checks.fails(take(span), Errno::EAGAIN, "nor is it cancelled");
    checks.eq(look(&mut [PollFd { fd: cancels, events: poll::IN, revents: 0 }]), [poll::IN], "a change is readable");
    checks.fails(take(cancels), Errno::ECANCELED, "once");
    checks.fails(take(cancels), Errno::EAGAIN, "and the timer runs on");
    checks.ok(gettime(cancels).is_ok_and(|(left, _)| left > 0), "to its time");
    let _ = shift(1);
    checks.fails(settime(cancels, both, now() + 1, 0), Errno::ECANCELED, "a setting tells of a change, too");
    time::sleep_ms(1);
    checks.eq(take(cancels), Ok(1), "and is made");
    let _ = (shift(1), settime(cancels, tfd::ABSTIME, now() + 1_000_000 * MS, 0));
    checks.fails(take(cancels), Errno::EAGAIN, "a setting without the flag forgets it");
    let reader = start(|| {
        let fd = timer(clock::REALTIME, 0);
        let _ = settime(fd, both, now() + 1_000_000 * MS, 0);
        (take(fd) != Err(Errno::ECANCELED)) as i32
    });
    let waiter = start(|| {
        let (fd, set) = (timer(clock::REALTIME, 0), set());
        let _ = settime(fd, tfd::ABSTIME, now() + 100_000 * MS, 0);
        let _ = control(set, epoll::ADD, fd, IN, 0);
        let found = wait(set, 8, -1).map_or(0, |found| found.len());
        (found != 1 || take(fd) != Ok(1)) as i32
    });
    let (reader, waiter) = (reader.unwrap_or(-1), waiter.unwrap_or(-1));
    let _ = (until_asleep(reader), until_asleep(waiter));
    let _ = shift(2_000);
    checks.eq(process::waitpid(reader), Ok(Status::Exited(0)), "a reader hears of a change");
    checks.eq(process::waitpid(waiter), Ok(Status::Exited(0)), "a time that is past then comes at once");
    checks.eq(take(plain), Ok(1), "for every timer");
    [plain, cancels, span].iter().for_each(|fd| _ = io::close(*fd));
}

/// Timers that expire while they are closed and set.
fn many(checks: &mut Checks) {
    let set = set();
    let mut rounds = 0;
    for round in 0..200 {
        let fds = [(); 8].map(|()| timer(clock::MONOTONIC, NONBLOCK));
        for (i, &fd) in fds.iter().enumerate() {
            let _ = control(set, epoll::ADD, fd, IN | epoll::ET, i as u64);
            let _ = settime(fd, 0, 1000 + (round * 7919 + i as u64 * 104_729) % 100_000, 20_000);
        }
        let _ = wait(set, 8, 1);
        fds.iter().for_each(|&fd| _ = settime(fd, 0, 10_000, 0));
        rounds += fds.iter().all(|&fd| io::close(fd).is_ok()) as u32;
    }
    checks.eq(rounds, 200, "timers come and go");
    checks.eq(wait(set, 8, 0).map(|found| found.len()), Ok(0), "and leave the set with their files");
    let _ = io::close(set);
}
