//! restart: the effect of a handler on an interrupted call, with and without SA_RESTART (signal(7)).

#![no_std]
#![no_main]

extern crate alloc;

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use quire_rt::abi::flags::{clock, sig};
use quire_rt::abi::layout::{PollFd, poll, sa};
use quire_rt::abi::nr;
use quire_rt::abi::socket::option;
use quire_rt::process::{self, Status, kill, wait4, waitpid};
use quire_rt::signal::{How, Info, handle, mask, set, suspend};
use quire_rt::sync::futex_wait;
use quire_rt::{Errno, io, time};
use user_tests::{Checks, child, raw, start};

quire_rt::entry!(main);

const MS: u64 = 1_000_000;

const UNIX: usize = 1;
const STREAM: usize = 1;
const DATAGRAM: usize = 2;
const SOCKET: usize = 1;

static COUNT: AtomicU32 = AtomicU32::new(0);
static WORD: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: i32, _: *const Info, _: *mut u8) {
    COUNT.fetch_add(1, SeqCst);
}

/// Makes a call while a child sends a handled signal every 30 ms, so that some arrive while the call sleeps, however
/// late that is. After a few the child runs `then`, which says whether to run it again. Returns the call's result, and
/// whether the handler ran.
fn interrupted<T>(flags: u64, call: impl FnOnce() -> T, mut then: impl FnMut() -> bool) -> (T, bool) {
    let _ = handle(sig::USR1, count, flags, 0);
    let parent = process::getpid();
    COUNT.store(0, SeqCst);
    let pid = start(|| {
        for _ in 0..4 {
            time::sleep_ms(30);
            let _ = kill(parent, sig::USR1);
        }
        let mut more = true;
        while more {
            more = then();
            time::sleep_ms(30);
        }
        loop {
            time::sleep_ms(30);
            let _ = kill(parent, sig::USR1);
        }
    })
    .unwrap_or(-1);
    let result = call();
    let _ = kill(pid, sig::KILL);
    let _ = waitpid(pid);
    (result, COUNT.load(SeqCst) > 0)
}

/// Nothing happens but signals.
fn nothing() -> bool {
    false
}

fn main() -> i32 {
    let mut checks = Checks::new();
    let (read, write) = io::pipe(0).expect("a pipe");
    for (flags, wanted) in [(0, Err(Errno::EINTR)), (sa::RESTART, Ok(1))] {
        let feed = || wanted.is_ok() && io::write(write, b"x") != Ok(1);
        checks.eq(interrupted(flags, || io::read(read, &mut [0]), feed), (wanted, true), "read: by SA_RESTART");
    }
    let full = [0u8; 65536];
    checks.eq(io::write(write, &full), Ok(65536), "a full pipe");
    let empty = || io::read(read, &mut [0; 8192]) != Ok(8192);
    checks.eq(interrupted(0, || io::write(write, b"x"), nothing), (Err(Errno::EINTR), true), "write: EINTR");
    checks.eq(interrupted(sa::RESTART, || io::write(write, b"x"), empty), (Ok(1), true), "write: again");
    for (flags, wanted) in [(0, Err(Errno::EINTR)), (sa::RESTART, Ok(Some(Status::Killed(sig::TERM))))] {
        let pid = start(|| {
            time::sleep_ms(100_000);
            5
        })
        .unwrap_or(-1);
        let end = || wanted.is_ok() && kill(pid, sig::TERM) != Ok(());
        checks.eq(
            interrupted(flags, || wait4(pid, 0).map(|child| child.map(|child| child.status)), end),
            (wanted, true),
            "wait4: by SA_RESTART",
        );
        if wanted.is_err() {
            let _ = (kill(pid, sig::KILL), waitpid(pid));
        }
    }
    limited(&mut checks);
    sleeps(&mut checks);
    polls(&mut checks);
    let old = mask(How::Block, set(&[sig::USR1])).unwrap_or(0);
    let slept = interrupted(sa::RESTART, || suspend(old), nothing);
    checks.eq(slept, (Errno::EINTR, true), "sigsuspend: EINTR always");
    checks.eq(mask(How::Set, old), Ok(old | set(&[sig::USR1])), "and the mask is back");
    checks.fails(raw(nr::RESTART_SYSCALL, []), Errno::EINTR, "restart_syscall with nothing to take up");
    checks.finish()
}

/// A call that has waited for a part of its time does not begin anew.
fn limited(checks: &mut Checks) {
    let mut ends = [0_i32; 2];
    let made = raw(nr::SOCKETPAIR, [UNIX, DATAGRAM, 0, ends.as_mut_ptr() as usize]);
    let time = [60_u64, 0];
    let limit = |option: u32| [ends[0] as usize, SOCKET, option as usize, time.as_ptr() as usize, 16];
    let set = [option::RCVTIMEO, option::SNDTIMEO].map(|option| raw(nr::SETSOCKOPT, limit(option)));
    checks.eq((made, set), (Ok(0), [Ok(0); 2]), "a socket that waits for no longer than a minute");
    let read = interrupted(sa::RESTART, || io::read(ends[0], &mut [0]), nothing);
    checks.eq(read, (Err(Errno::EINTR), true), "reading it: SA_RESTART does not begin the minute anew");
    let fill = || (0..10_000).find_map(|_| io::write(ends[0], b"x").err());
    let written = interrupted(sa::RESTART, fill, nothing);
    checks.eq(written, (Some(Errno::EINTR), true), "nor when writing to it");
    moved(checks);
}

/// Such a call that has moved some bytes when its process is stopped says how many when that goes on, and the next one
/// is not affected.
fn moved(checks: &mut Checks) {
    let mut ends = [0_i32; 2];
    let made = raw(nr::SOCKETPAIR, [UNIX, STREAM, 0, ends.as_mut_ptr() as usize]);
    let time = [60_u64, 0];
    let limit = [ends[0] as usize, SOCKET, option::SNDTIMEO as usize, time.as_ptr() as usize, 16];
    let set = raw(nr::SETSOCKOPT, limit);
    let large = alloc::vec![0_u8; 1 << 20];
    let status = child(|| {
        let parent = process::getpid();
        let pid = start(|| {
            for signal in [sig::STOP, sig::CONT].repeat(4) {
                time::sleep_ms(30);
                let _ = kill(parent, signal);
            }
            0
        });
        let is_part = io::write(ends[0], &large).is_ok_and(|moved| (1..large.len()).contains(&moved));
        // This call is interrupted, too.
        let next = pid.and_then(|pid| wait4(pid, 0)).map(|child| child.map(|child| child.status));
        i32::from(!is_part) + 2 * i32::from(next != Ok(Some(Status::Exited(0))))
    });
    checks.eq(
        (made, set, status),
        (Ok(0), Ok(0), Ok(Status::Exited(0))),
        "a part is written, and the next call goes on",
    );
}

fn sleeps(checks: &mut Checks) {
    for flags in [0, sa::RESTART] {
        let sleep = || time::nanosleep(50_000 * MS).map_err(|(error, _)| error);
        checks.eq(interrupted(flags, sleep, nothing), (Err(Errno::EINTR), true), "nanosleep: EINTR always");
        let until = time::timespec(time::monotonic() + 50_000 * MS);
        let absolute = [clock::MONOTONIC as usize, clock::TIMER_ABSTIME as usize, &raw const until as usize, 0];
        let slept = interrupted(flags, || raw(nr::CLOCK_NANOSLEEP, absolute), nothing);
        checks.eq(slept, (Err(Errno::EINTR), true), "clock_nanosleep until a time: EINTR always");
        let timed = interrupted(flags, || futex_wait(&WORD, 0, Some(50_000 * MS)), nothing);
        checks.eq(timed, (Err(Errno::EINTR), true), "a futex with a time-out: EINTR always");
    }
    let untimed = interrupted(0, || futex_wait(&WORD, 0, None), nothing);
    checks.eq(untimed, (Err(Errno::EINTR), true), "a futex without: EINTR");
    // A second signal, without SA_RESTART, ends the call that the first one restarted.
    let parent = process::getpid();
    let second = || kill(parent, sig::USR2).is_ok();
    let _ = handle(sig::USR2, count, 0, 0);
    let twice = interrupted(sa::RESTART, || futex_wait(&WORD, 0, None), second);
    checks.eq(twice, (Err(Errno::EINTR), true), "or again, by SA_RESTART");
}

fn polls(checks: &mut Checks) {
    let left = |time: quire_rt::abi::layout::Timespec| time.sec as u64 * 1000 * MS + time.nsec as u64;
    for flags in [0, sa::RESTART] {
        let mut time = time::timespec(50_000 * MS);
        let at = &raw mut time as usize;
        let polled = interrupted(flags, || raw(nr::PPOLL, [0, 0, at, 0, 8]), nothing);
        checks.eq(polled, (Err(Errno::EINTR), true), "ppoll: EINTR always");
        checks.ok((1..50_000 * MS - MS).contains(&left(time)), "and what is left of the time");
        let mut time = time::timespec(50_000 * MS);
        let at = &raw mut time as usize;
        let selected = interrupted(flags, || raw(nr::PSELECT6, [0, 0, 0, 0, at, 0]), nothing);
        checks.eq(selected, (Err(Errno::EINTR), true), "pselect6: EINTR always");
        checks.ok((1..50_000 * MS - MS).contains(&left(time)), "and what is left of the time");
    }
    let (read, write) = io::pipe(0).expect("a pipe");
    let _ = io::write(write, b"x");
    let (r, w) = (read as usize, write as usize);
    let mut sets = [1u64 << r | 1 << w, 1 << r | 1 << w, 1 << r | 1 << w];
    let [a, b, c] = [0, 1, 2].map(|i| &raw mut sets[i] as usize);
    checks.eq(raw(nr::PSELECT6, [r.max(w) + 1, a, b, c, 0, 0]), Ok(2), "select: one to read, one to write");
    checks.eq(sets, [1 << r, 1 << w, 0], "in its set each");
    let none = [1u64 << 40];
    let at = none.as_ptr() as usize;
    checks.fails(raw(nr::PSELECT6, [64, at, 0, 0, 0, 0]), Errno::EBADF, "an invalid descriptor");
    checks.fails(raw(nr::PSELECT6, [usize::MAX, 0, 0, 0, 0, 0]), Errno::EINVAL, "a negative number of them");
    // A mask that lets USR1 through: a poll that finds something does not let it end the call.
    let old = mask(How::Block, set(&[sig::USR1])).unwrap_or(0);
    let _ = handle(sig::USR1, count, 0, 0);
    COUNT.store(0, SeqCst);
    let _ = kill(process::getpid(), sig::USR1);
    let mut fd = PollFd { fd: read, events: poll::IN, revents: 0 };
    let call = [&raw mut fd as usize, 1, 0, &raw const old as usize, 8];
    checks.eq((raw(nr::PPOLL, call), COUNT.load(SeqCst)), (Ok(1), 0), "a poll with a mask that finds something");
    let none = [0, 0, 0, &raw const old as usize, 8];
    checks.eq((raw(nr::PPOLL, none), COUNT.load(SeqCst)), (Err(Errno::EINTR), 1), "one that does not is interrupted");
    let _ = mask(How::Set, old);
    let _ = (io::close(read), io::close(write));
}
