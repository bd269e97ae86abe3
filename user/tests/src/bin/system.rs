//! system: the machine's names, its clock and its log, which anybody may read and root may change.

#![no_std]
#![no_main]

extern crate alloc;

use quire_rt::abi::flags::{clock, sig, syslog};
use quire_rt::abi::layout::{Timespec, Timeval, Utsname};
use quire_rt::abi::nr;
use quire_rt::process::{self, Status};
use quire_rt::{Errno, time};
use user_tests::{Checks, KERNEL, raw, start};

quire_rt::entry!(main);

const S: u64 = 1_000_000_000;
const USER: usize = 1000;
const REFUSED: Result<usize, Errno> = Err(Errno::EPERM);
const NONE: usize = -1isize as usize;

fn main() -> i32 {
    let mut checks = Checks::new();
    names(&mut checks);
    clocks(&mut checks);
    sleepers(&mut checks);
    log(&mut checks);
    checks.finish()
}

/// What a process of an ordinary user gets.
fn as_user(checks: &mut Checks, run: impl FnOnce() -> bool, what: &str) {
    checks.exits(|| (raw(nr::SETUID, [USER]) == Ok(0) && run()) as i32, 1, what);
}

fn uname() -> Option<Utsname> {
    let mut names = Utsname {
        sysname: [0; 65],
        nodename: [0; 65],
        release: [0; 65],
        version: [0; 65],
        machine: [0; 65],
        domainname: [0; 65],
    };
    raw(nr::UNAME, [&raw mut names as usize]).ok().map(|_| names)
}

fn is(field: &[u8; 65], text: &[u8]) -> bool {
    field.starts_with(text) && field[text.len()] == 0
}

fn set_name(number: usize, text: &[u8]) -> Result<usize, Errno> {
    raw(number, [text.as_ptr() as usize, text.len()])
}

fn names(checks: &mut Checks) {
    let before = uname();
    checks.eq(set_name(nr::SETHOSTNAME, b"page"), Ok(0), "the machine gets a name");
    checks.eq(set_name(nr::SETDOMAINNAME, b"quire.test"), Ok(0), "and a domain");
    let both = uname().is_some_and(|names| is(&names.nodename, b"page") && is(&names.domainname, b"quire.test"));
    checks.ok(both, "uname shows both");
    checks.eq(set_name(nr::SETHOSTNAME, &[b'x'; 64]), Ok(0), "64 bytes");
    checks.ok(uname().is_some_and(|names| is(&names.nodename, &[b'x'; 64])), "are shown whole");
    for number in [nr::SETHOSTNAME, nr::SETDOMAINNAME] {
        checks.fails(set_name(number, &[b'x'; 65]), Errno::EINVAL, "65 are too many");
        checks.fails(raw(number, [KERNEL, NONE]), Errno::EINVAL, "less than none");
        checks.fails(raw(number, [KERNEL, 4]), Errno::EFAULT, "a name that is nowhere");
        as_user(checks, || [set_name(number, b"me"), raw(number, [KERNEL, NONE])] == [REFUSED; 2], "root alone may");
    }
    let text = |field: &[u8; 65]| field.iter().position(|byte| *byte == 0).unwrap_or(64);
    if let Some(names) = before {
        let _ = set_name(nr::SETHOSTNAME, &names.nodename[..text(&names.nodename)]);
        let _ = set_name(nr::SETDOMAINNAME, &names.domainname[..text(&names.domainname)]);
    }
    checks.ok(uname().map(|names| names.nodename) == before.map(|names| names.nodename), "it has its name again");
}

fn set_clock(clock: i32, sec: i64, nsec: i64) -> Result<usize, Errno> {
    let time = Timespec { sec, nsec };
    raw(nr::CLOCK_SETTIME, [clock as usize, &raw const time as usize])
}

fn set_day(sec: i64, usec: i64, zone: Option<[i32; 2]>) -> Result<usize, Errno> {
    let time = Timeval { sec, usec };
    let zone = zone.as_ref().map_or(0, |zone| zone.as_ptr() as usize);
    raw(nr::SETTIMEOFDAY, [&raw const time as usize, zone])
}

fn real_seconds() -> i64 {
    (time::nanoseconds(clock::REALTIME) / S) as i64
}

fn clocks(checks: &mut Checks) {
    const NOW: i64 = 1_700_000_000;
    let before = time::monotonic();
    checks.eq(set_clock(clock::REALTIME, NOW, 5), Ok(0), "the clock is set");
    checks.ok((NOW..NOW + 100).contains(&real_seconds()), "and goes on from there");
    checks.ok(time::monotonic() - before < 100 * S, "which the other clock does not mind");
    checks.eq(set_day(NOW + 1000, 1, Some([-60, 1])), Ok(0), "settimeofday");
    let (mut day, mut zone) = (Timeval::default(), [0i32; 2]);
    let got = raw(nr::GETTIMEOFDAY, [&raw mut day as usize, zone.as_mut_ptr() as usize]);
    checks.ok(got == Ok(0) && (NOW + 1000..NOW + 1100).contains(&day.sec), "gettimeofday agrees");
    checks.eq(zone, [-60, 1], "and has the zone");
    let coarse = time::nanoseconds(clock::REALTIME_COARSE) / S;
    checks.ok((NOW as u64 + 1000..NOW as u64 + 1100).contains(&coarse), "so has the coarse clock");
    for (clock, sec, nsec) in [
        (clock::MONOTONIC, NOW, 0),
        (clock::BOOTTIME, NOW, 0),
        (99, NOW, 0),
        (clock::REALTIME, NOW, S as i64),
        (clock::REALTIME, -1, 0),
        (clock::REALTIME, i64::MAX, 0),
        (clock::REALTIME, 0, 0),
    ] {
        checks.fails(set_clock(clock, sec, nsec), Errno::EINVAL, "no clock to set, or no time for it");
    }
    checks.fails(raw(nr::CLOCK_SETTIME, [0, KERNEL]), Errno::EFAULT, "a time that is nowhere");
    checks.fails(set_day(NOW, 1_000_001, None), Errno::EINVAL, "more than a second of microseconds");
    checks.fails(set_day(NOW, 0, Some([901, 0])), Errno::EINVAL, "no zone is so far west");
    checks.ok((NOW + 1000..NOW + 1100).contains(&real_seconds()), "none of that has set it");
    as_user(
        checks,
        || set_clock(clock::REALTIME, NOW, 0) == REFUSED && set_day(NOW, 0, None) == REFUSED,
        "nor may others",
    );
    as_user(checks, || set_clock(clock::REALTIME, -1, 0) == Err(Errno::EINVAL), "who hear first of what is no time");
}

/// Sleeps until a point of the clock end there when the clock is set, too.
fn sleepers(checks: &mut Checks) {
    let until = Timespec { sec: real_seconds() + 1000, nsec: 0 };
    let at = &raw const until as usize;
    let sleeper = start(|| {
        let args = [clock::REALTIME as usize, clock::TIMER_ABSTIME as usize, at, 0];
        (raw(nr::CLOCK_NANOSLEEP, args) != Ok(0)) as i32
    });
    const WAIT_BITSET_REALTIME: usize = 9 | 128 | 256;
    let word = 0u32;
    let waiter = start(|| {
        let args = [&raw const word as usize, WAIT_BITSET_REALTIME, 0, at, 0, u32::MAX as usize];
        (raw(nr::FUTEX, args) != Err(Errno::ETIMEDOUT)) as i32
    });
    time::sleep_ms(50);
    checks.eq(set_clock(clock::REALTIME, until.sec - 500, 0), Ok(0), "the clock is set, not far enough");
    time::sleep_ms(50);
    checks.eq(
        process::wait4(-1, 1).map(|changed| changed.is_some()),
        Ok(false),
        "threads that sleep until later sleep on",
    );
    checks.eq(set_clock(clock::REALTIME, until.sec, 0), Ok(0), "the clock is set to what they wait for");
    for (pid, what) in [(sleeper, "a sleep is over"), (waiter, "so is a futex's time")] {
        let pid = pid.unwrap_or(-1);
        let ended = (0..300).find_map(|_| {
            time::sleep_ms(10);
            process::wait4(pid, 1).ok().flatten().map(|changed| changed.status)
        });
        checks.eq(ended, Some(Status::Exited(0)), what);
        if ended.is_none() {
            let _ = (process::kill(pid, sig::KILL), process::waitpid(pid));
        }
    }
    // As it was.
    let now = time::get(clock::MONOTONIC).unwrap_or_default();
    checks.eq(set_clock(clock::REALTIME, now.sec + 1, 0), Ok(0), "the clock goes back");
}

fn log_call(action: i32, buffer: &mut [u8]) -> Result<usize, Errno> {
    raw(nr::SYSLOG, [action as usize, buffer.as_mut_ptr() as usize, buffer.len()])
}

fn log(checks: &mut Checks) {
    let size = log_call(syslog::SIZE_BUFFER, &mut []).unwrap_or(0);
    checks.ok(size >= 4096, "the log has a size");
    let mut all = alloc::vec![0; size];
    let read = log_call(syslog::READ_ALL, &mut all);
    if read.is_ok_and(|n| n <= 100) {
        return checks.skip("the log", "another program has just cleared it");
    }
    checks.ok(read.is_ok_and(|n| n <= size), "all of it is read");
    let last = all[..read.unwrap_or(0)].last().copied();
    let mut few = [0; 50];
    checks.eq(log_call(syslog::READ_ALL, &mut few), Ok(50), "or the end of it");
    checks.eq(few.last().copied(), last, "which is the same");
    let unread = log_call(syslog::SIZE_UNREAD, &mut []).unwrap_or(0);
    checks.eq(log_call(syslog::READ, &mut few), Ok(50), "what is new is taken");
    let left = log_call(syslog::SIZE_UNREAD, &mut []).unwrap_or(0);
    checks.ok(unread >= 50 && left >= unread - 50, "and is no longer new");
    checks.eq(log_call(syslog::CLEAR, &mut []), Ok(0), "it is cleared");
    let cleared = log_call(syslog::READ_ALL, &mut all);
    checks.ok(cleared.ok() < read.ok() && cleared.is_ok(), "and begins there");
    for action in [syslog::CLOSE, syslog::OPEN, syslog::CONSOLE_OFF, syslog::CONSOLE_ON] {
        checks.eq(log_call(action, &mut []), Ok(0), "what there is to answer nothing else to");
    }
    let level = |level: usize| raw(nr::SYSLOG, [syslog::CONSOLE_LEVEL as usize, 0, level]);
    checks.eq([level(8), level(1), level(7)], [Ok(0); 3], "levels");
    checks.eq([level(0), level(9), level(NONE)], [Err(Errno::EINVAL); 3], "there are eight");
    checks.fails(log_call(11, &mut few), Errno::EINVAL, "an action that is none");
    let read = |buffer: usize, len: usize| raw(nr::SYSLOG, [syslog::READ_ALL as usize, buffer, len]);
    checks.eq([read(0, 5), read(KERNEL, NONE)], [Err(Errno::EINVAL); 2], "no buffer, or less than none of it");
    checks.eq(read(few.as_ptr() as usize, 0), Ok(0), "nothing of it");
    as_user(
        checks,
        || raw(nr::SYSLOG, [syslog::SIZE_BUFFER as usize, 0, 0]) == Ok(size),
        "anybody may ask how large it is",
    );
    as_user(checks, || log_call(syslog::READ_ALL, &mut [0; 64]).is_ok(), "and read it");
    as_user(
        checks,
        || {
            let actions =
                [syslog::READ, syslog::READ_CLEAR, syslog::CLEAR, syslog::CONSOLE_LEVEL, syslog::SIZE_UNREAD, 11];
            actions.iter().all(|action| log_call(*action, &mut [0; 64]) == REFUSED)
        },
        "the rest is root's",
    );
}
