//! triggers: waiting in poll for memory pressure, of the machine and of a control group, as Linux's psi.rst has it.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use core::ffi::CStr;

use quire_rt::abi::flags::{Open, sig};
use quire_rt::abi::layout::{PollFd, at, epoll, poll};
use quire_rt::abi::nr;
use quire_rt::process::{self, Status};
use quire_rt::{Errno, fs, io, time};
use user_tests::ready::{control, look, ppoll, set, wait};
use user_tests::{Checks, PAGE, RW, child, map, raw, start};

quire_rt::entry!(main);

const MACHINE: &CStr = c"/proc/pressure/memory";
const BUSY: &CStr = c"/sys/fs/cgroup/busy";
const IDLE: &CStr = c"/sys/fs/cgroup/idle";
const OF_BUSY: &CStr = c"/sys/fs/cgroup/busy/memory.pressure";
const OF_IDLE: &CStr = c"/sys/fs/cgroup/idle/memory.pressure";

/// What each of these files always has.
const ALWAYS: u16 = poll::IN | poll::OUT;
const MS: u64 = 1_000_000;
/// However slow the host is.
const LONG: u64 = 60_000 * MS;
const WINDOW: u64 = 500 * MS;
/// A hundredth of a window of stalls.
const LITTLE: &str = "some 5000 500000";

fn main() -> i32 {
    let mut checks = Checks::new();
    if fs::stat(OF_BUSY, 0).is_ok() || mkdir(BUSY).and(mkdir(IDLE)).is_err() {
        checks.skip("triggers", "there are no control groups");
        return checks.finish();
    }
    texts(&mut checks);
    users(&mut checks);
    events(&mut checks);
    ends(&mut checks);
    let _ = (rmdir(BUSY), rmdir(IDLE));
    checks.finish()
}

fn mkdir(at: &CStr) -> Result<(), Errno> {
    raw(nr::MKDIRAT, [at::FDCWD as usize, at.as_ptr() as usize, 0o755]).map(drop)
}

fn rmdir(at: &CStr) -> Result<(), Errno> {
    raw(nr::UNLINKAT, [at::FDCWD as usize, at.as_ptr() as usize, at::REMOVEDIR as usize]).map(drop)
}

fn open(path: &CStr) -> i32 {
    fs::open(path, Open::RDWR | Open::NONBLOCK).unwrap_or(-1)
}

fn write(fd: i32, text: &str) -> Result<usize, Errno> {
    io::write(fd, text.as_bytes())
}

/// An open file with a trigger.
fn trigger(path: &CStr, text: &str) -> i32 {
    let fd = open(path);
    if write(fd, text) == Ok(text.len()) { fd } else { -1 }
}

const fn asked(fd: i32) -> PollFd {
    PollFd { fd, events: poll::PRI, revents: 0 }
}

/// Waits for the event of a trigger, at most so long.
fn told(fd: i32, ns: u64) -> u16 {
    let mut fds = [asked(fd)];
    let _ = ppoll(&mut fds, Some(ns));
    fds[0].revents
}

fn texts(checks: &mut Checks) {
    for path in [MACHINE, OF_BUSY] {
        let fd = open(path);
        checks.eq(told(fd, 0), poll::PRI | poll::ERR, "a file of pressure without a trigger has an error, as on Linux");
        for text in ["", "some", "most 5000 500000", "some 5000 499999", "some 0 500000", "full 500001 500000"] {
            checks.fails(write(fd, text), Errno::EINVAL, &format!("{text:?} sets none"));
        }
        checks.eq(write(fd, "full 400000 500000\n"), Ok(19), "a threshold and a window do");
        checks.fails(write(fd, LITTLE), Errno::EBUSY, "once");
        checks.fails(write(fd, "nothing"), Errno::EBUSY, "whatever is written then");
        let mut fds = [PollFd { fd, events: ALWAYS, revents: 0 }];
        checks.eq(look(&mut fds), [ALWAYS], "it is read and written as ever");
        let mut text = [0; 16];
        checks.eq(io::read(fd, &mut text).map(|_| text.starts_with(b"some avg10=")), Ok(true), "and says the pressure");
        let _ = io::close(fd);
        let fd = fs::open(path, Open::empty()).unwrap_or(-1);
        checks.fails(write(fd, LITTLE), Errno::EBADF, "a descriptor that only reads takes none");
        let _ = io::close(fd);
    }
    let fd = fs::open(c"/proc/meminfo", Open::empty()).unwrap_or(-1);
    checks.eq(told(fd, 0), 0, "other files have no such events");
    let _ = io::close(fd);
}

fn users(checks: &mut Checks) {
    let status = child(|| {
        let _ = raw(nr::SETUID, [1000]);
        let fd = open(MACHINE);
        let is_short = write(fd, "some 5000 500000") == Err(Errno::EINVAL);
        let is_long = write(fd, "some 5000 2000000") == Ok(17);
        let is_refused = fs::open(OF_BUSY, Open::RDWR).err() == Some(Errno::EACCES);
        i32::from(!is_short) + 2 * i32::from(!is_long) + 4 * i32::from(!is_refused)
    });
    checks.eq(status, Ok(Status::Exited(0)), "others than root wait for the machine, in multiples of two seconds");
}

/// Starts a child in a group that needs twice as much as it may have, all the time.
fn hog() -> i32 {
    const LEN: usize = 8 << 20;
    let limit = |file: &CStr, text: &str| {
        let fd = fs::open(file, Open::WRONLY).unwrap_or(-1);
        let done = write(fd, text);
        let _ = io::close(fd);
        done
    };
    let _ = limit(c"/sys/fs/cgroup/busy/memory.max", "4M");
    let run = || {
        if limit(c"/sys/fs/cgroup/busy/cgroup.procs", "0").is_err() {
            return 1;
        }
        let at = map(LEN, RW);
        loop {
            for page in (at..at + LEN).step_by(PAGE) {
                // SAFETY: the test's own mapping.
                unsafe { core::ptr::with_exposed_provenance_mut::<usize>(page).write_volatile(page) };
            }
        }
    };
    start(run).unwrap_or(-1)
}

fn stop(pid: i32) {
    let _ = process::kill(pid, sig::KILL);
    let _ = process::waitpid(pid);
}

fn events(checks: &mut Checks) {
    let (busy, idle, machine) = (trigger(OF_BUSY, LITTLE), trigger(OF_IDLE, LITTLE), trigger(MACHINE, LITTLE));
    let full = trigger(OF_BUSY, "full 5000 500000\0");
    checks.ok(busy >= 0 && idle >= 0 && machine >= 0 && full >= 0, "triggers of two groups and of the machine");
    checks.eq(told(busy, 300 * MS), 0, "nothing happens while nobody waits for memory");
    let pid = hog();
    let mut fds = [asked(busy), asked(idle)];
    let found = ppoll(&mut fds, Some(LONG));
    let got = (found, fds[0].revents, fds[1].revents);
    checks.eq(got, (Ok(1), poll::PRI, 0), "a group whose threads wait is told of in poll, another one is not");
    checks.eq(told(busy, 0), 0, "once");
    checks.eq(told(machine, LONG), poll::PRI, "the machine has that pressure too");
    checks.eq(told(full, LONG), poll::PRI, "which is full: nobody in the group gets on");
    distances(checks, busy);
    in_epoll(checks, busy);
    let exceptions = [1_u64 << busy, 0];
    let time = time::timespec(LONG);
    let at = exceptions.as_ptr().addr();
    let count = raw(nr::PSELECT6, [busy as usize + 1, 0, 0, at, &raw const time as usize, 0]);
    checks.eq(count, Ok(1), "select has it among what is exceptional");
    stop(pid);
    let _ = told(busy, 2 * WINDOW);
    checks.eq(told(busy, 2 * WINDOW), 0, "when the stalls have ended no event comes any more");
    checks.eq(told(idle, 0), 0, "and the other group has had none");
    // What has ended may begin again.
    let pid = hog();
    checks.eq(told(busy, LONG), poll::PRI, "until there are stalls again");
    stop(pid);
    for fd in [busy, idle, machine, full] {
        let _ = io::close(fd);
    }
}

/// The time from one event to the next, as the kernel sees them, is a window at least.
fn distances(checks: &mut Checks, fd: i32) {
    const EVENTS: u64 = 5;
    let _ = told(fd, LONG);
    let begin = time::monotonic();
    let all = (0..EVENTS).all(|_| told(fd, LONG) == poll::PRI);
    let spent = time::monotonic() - begin;
    // (The first one may have been told late, so the distances behind it count.)
    checks.ok(all && spent >= (EVENTS - 1) * WINDOW, "one event a window at most");
}

fn in_epoll(checks: &mut Checks, fd: i32) {
    const PRI: u32 = poll::PRI as u32;
    let set = set();
    checks.eq(control(set, epoll::ADD, fd, PRI, 7), Ok(0), "a set of files takes it");
    checks.eq(wait(set, 1, 60_000).as_deref(), Ok(&[(PRI, 7)][..]), "and reports the event");
    checks.eq(wait(set, 1, 0).as_deref(), Ok(&[][..]), "once");
    let _ = control(set, epoll::MOD, fd, PRI | epoll::ET, 8);
    checks.eq(wait(set, 1, 60_000).as_deref(), Ok(&[(PRI, 8)][..]), "by its edge too");
    let _ = io::close(set);
}

fn ends(checks: &mut Checks) {
    let fd = trigger(OF_IDLE, LITTLE);
    let waiter = start(|| i32::from(told(fd, LONG) != poll::PRI | poll::ERR)).unwrap_or(-1);
    user_tests::until_asleep(waiter);
    checks.eq(rmdir(IDLE), Ok(()), "a group with triggers can be removed");
    checks.eq(process::waitpid(waiter), Ok(Status::Exited(0)), "and whoever waits is told that it is gone");
    checks.eq(told(fd, 0), poll::PRI | poll::ERR, "for ever");
    checks.fails(write(fd, LITTLE), Errno::EBUSY, "its trigger stays");
    let _ = io::close(fd);
    let _ = mkdir(IDLE);
    let fd = open(OF_IDLE);
    let _ = rmdir(IDLE);
    checks.fails(write(fd, LITTLE), Errno::ENODEV, "none is set for a group that is gone");
    let _ = io::close(fd);
}
