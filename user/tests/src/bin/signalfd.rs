//! signalfd: signals that are read.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use quire_rt::abi::flags::{Open, cld, si, sig};
use quire_rt::abi::layout::{EpollEvent, PollFd, SignalfdSiginfo, epoll, poll};
use quire_rt::abi::nr;
use quire_rt::process::{self, Status};
use quire_rt::signal::{self, How, mask};
use quire_rt::{Errno, fs, io, thread, time};
use user_tests::ready::{control, counter, look, ppoll, set, wait, wait_to};
use user_tests::{Checks, KERNEL, raw, start, until_asleep};

quire_rt::entry!(main);

const NONBLOCK: u32 = Open::NONBLOCK.bits();
const IN: u32 = poll::IN as u32;
const SIZE: usize = size_of::<SignalfdSiginfo>();
const RT: u32 = 40;

fn main() -> i32 {
    let mut checks = Checks::new();
    let all = signal::set(&[sig::USR1, sig::USR2, sig::CHLD, sig::ALRM, sig::TERM, RT, RT + 1]);
    let _ = mask(How::Block, all);
    arguments(&mut checks);
    records(&mut checks);
    order(&mut checks);
    waiting(&mut checks);
    owners(&mut checks);
    sets(&mut checks);
    storm(&mut checks);
    checks.finish()
}

fn create(fd: i32, signals: &[u32], flags: u32) -> Result<i32, Errno> {
    let mask = signal::set(signals);
    raw(nr::SIGNALFD4, [fd as usize, &raw const mask as usize, 8, flags as usize]).map(|fd| fd as i32)
}

/// Reads up to `most` records.
fn read(fd: i32, most: usize) -> Result<Vec<SignalfdSiginfo>, Errno> {
    let mut records = [SignalfdSiginfo::default(); 8];
    let n = raw(nr::READ, [fd as usize, records.as_mut_ptr() as usize, most * SIZE])?;
    Ok(records[..n / SIZE].to_vec())
}

fn numbers(fd: i32, most: usize) -> Result<Vec<u32>, Errno> {
    read(fd, most).map(|records| records.iter().map(|record| record.signo).collect())
}

fn kill(signal: u32) {
    let _ = process::kill(process::getpid(), signal);
}

fn arguments(checks: &mut Checks) {
    let word = u64::MAX;
    let at = &raw const word as usize;
    let call =
        |fd: i32, at: usize, size: usize, flags: u32| raw(nr::SIGNALFD4, [fd as usize, at, size, flags as usize]);
    checks.fails(call(-1, at, 4, 0), Errno::EINVAL, "a set of another size");
    checks.fails(call(-1, KERNEL, 8, 0), Errno::EFAULT, "a set that is nowhere");
    checks.fails(call(-1, at, 8, 1), Errno::EINVAL, "unknown flags");
    checks.fails(call(-2, at, 8, 0), Errno::EBADF, "no descriptor");
    let other = counter(0, 0).unwrap_or(-1);
    checks.fails(call(other, at, 8, 0), Errno::EINVAL, "another kind of file");
    let fd = create(-1, &[sig::USR1], NONBLOCK).unwrap_or(-1);
    checks.fails(read(fd, 1), Errno::EAGAIN, "there is nothing yet");
    checks.fails(read(fd, 0), Errno::EINVAL, "a read of nothing");
    checks.fails(io::read(fd, &mut [0; SIZE - 1]), Errno::EINVAL, "of less than a record");
    checks.fails(io::write(fd, &[0; SIZE]), Errno::EINVAL, "a write");
    checks.eq(fs::lseek(fd, 5, 0), Ok(0), "it has no position");
    kill(sig::USR1);
    checks.fails(raw(nr::READ, [fd as usize, KERNEL - SIZE, SIZE]), Errno::EFAULT, "a read to nowhere");
    let _ = numbers(fd, 1);
    let _ = (io::close(fd), io::close(other));
}

fn records(checks: &mut Checks) {
    let fd = create(-1, &[sig::USR1, sig::CHLD, sig::ALRM, RT], 0).unwrap_or(-1);
    let (pid, none) = (process::getpid() as u32, SignalfdSiginfo::default());
    kill(sig::USR1);
    let wanted = SignalfdSiginfo { signo: sig::USR1, code: si::USER, pid, ..none };
    checks.eq(read(fd, 8), Ok([wanted].into()), "a signal of kill");
    let _ = raw(nr::TKILL, [process::gettid() as usize, sig::USR1 as usize]);
    let wanted = SignalfdSiginfo { signo: sig::USR1, code: si::TKILL, pid, ..none };
    checks.eq(read(fd, 8), Ok([wanted].into()), "one to the thread");
    let _ = signal::queue(pid as i32, RT, 0x1234_5678_9abc_def0);
    let ptr = 0x1234_5678_9abc_def0;
    let wanted = SignalfdSiginfo { signo: RT, code: si::QUEUE, pid, ptr, int: ptr as i32, ..none };
    checks.eq(read(fd, 8), Ok([wanted].into()), "one with a value");
    let child = start(|| 7).unwrap_or(-1);
    let found = read(fd, 8).unwrap_or_default();
    let found = found.first().map(|found| SignalfdSiginfo { utime: 0, stime: 0, ..*found });
    let wanted = SignalfdSiginfo { signo: sig::CHLD, code: cld::EXITED, pid: child as u32, status: 7, ..none };
    checks.eq(found, Some(wanted), "a child's end");
    let _ = process::waitpid(child);
    let _ = time::set_alarm(1_000_000, 0);
    let wanted = SignalfdSiginfo { signo: sig::ALRM, code: si::KERNEL, ..none };
    checks.eq(read(fd, 8), Ok([wanted].into()), "an alarm");
    let _ = io::close(fd);
}

fn order(checks: &mut Checks) {
    let fd = create(-1, &[sig::USR1, sig::USR2, RT, RT + 1], NONBLOCK).unwrap_or(-1);
    let me = process::getpid();
    let values = |records: Vec<SignalfdSiginfo>| records.iter().map(|r| (r.signo, r.int)).collect::<Vec<_>>();
    for (signal, value) in [(RT + 1, 1), (RT, 2), (RT, 3), (sig::USR2, 4), (sig::USR2, 5)] {
        let _ = signal::queue(me, signal, value);
    }
    let _ = raw(nr::TKILL, [process::gettid() as usize, (RT + 1) as usize]);
    let first = read(fd, 2).map(values);
    checks.eq(first, Ok([(RT + 1, 0), (sig::USR2, 4)].into()), "the thread's own, then the lowest, as many as fit");
    let rest = read(fd, 8).map(values);
    checks.eq(rest, Ok([(RT, 2), (RT, 3), (RT + 1, 1)].into()), "and a queue in its order");
    kill(sig::USR1);
    kill(sig::USR2);
    checks.eq(create(fd, &[sig::USR2], 0), Ok(fd), "the set of a file is changed");
    checks.eq(numbers(fd, 8), Ok([sig::USR2].into()), "and others stay pending");
    checks.eq(signal::pending().map(|set| set & signal::set(&[sig::USR1]) != 0), Ok(true), "for whom it may concern");
    let _ = create(fd, &[sig::USR1, sig::KILL, sig::STOP], 0);
    checks.eq(numbers(fd, 8), Ok([sig::USR1].into()), "which they then do");
    let _ = io::close(fd);
}

fn waiting(checks: &mut Checks) {
    let fd = create(-1, &[sig::USR1, RT], 0).unwrap_or(-1);
    let reader = start(|| (numbers(fd, 8) != Ok([sig::USR1].into())) as i32).unwrap_or(-1);
    until_asleep(reader);
    let _ = process::kill(reader, sig::USR1);
    checks.eq(process::waitpid(reader), Ok(Status::Exited(0)), "a reader sleeps until its process has a signal");
    let poller = start(|| {
        let found = ppoll(&mut [PollFd { fd, events: poll::IN, revents: 0 }], None);
        (found != Ok(1) || numbers(fd, 8) != Ok([RT].into())) as i32
    });
    let poller = poller.unwrap_or(-1);
    until_asleep(poller);
    let _ = process::kill(poller, RT);
    checks.eq(process::waitpid(poller), Ok(Status::Exited(0)), "so does one that polls");
    // A thread's own signal, while it reads.
    let reader = start(|| {
        let reader = thread::spawn(move || process::exit_now((numbers(fd, 8) != Ok([sig::USR1].into())) as i32));
        let tid = reader.map_or(0, |thread| thread.tid());
        time::sleep_ms(30);
        let _ = raw(nr::TKILL, [tid as usize, sig::USR1 as usize]);
        time::sleep_ms(10_000);
        2
    });
    checks.eq(reader.and_then(process::waitpid), Ok(Status::Exited(0)), "or whose thread has one");
    extern "C" fn nothing(_: i32, _: *const signal::Info, _: *mut u8) {}
    let _ = signal::handle(sig::TERM, nothing, 0, 0);
    let reader = start(|| {
        let _ = mask(How::Unblock, signal::set(&[sig::TERM]));
        (numbers(fd, 8) != Err(Errno::EINTR)) as i32
    });
    let reader = reader.unwrap_or(-1);
    until_asleep(reader);
    let _ = process::kill(reader, sig::TERM);
    checks.eq(process::waitpid(reader), Ok(Status::Exited(0)), "another signal's handler ends a read");
    let changed = start(|| {
        let fd = create(-1, &[RT], 0).unwrap_or(-1);
        kill(sig::USR2);
        let reader = thread::spawn(move || process::exit_now((numbers(fd, 8) != Ok([sig::USR2].into())) as i32));
        time::sleep_ms(30);
        let _ = (reader.is_ok(), create(fd, &[sig::USR2], 0));
        time::sleep_ms(10_000);
        2
    });
    checks.eq(changed.and_then(process::waitpid), Ok(Status::Exited(0)), "a set that is changed while somebody reads");
    let _ = io::close(fd);
}

/// Whose signals they are.
fn owners(checks: &mut Checks) {
    let fd = create(-1, &[sig::USR1], NONBLOCK).unwrap_or(-1);
    kill(sig::USR1);
    let poll = || look(&mut [PollFd { fd, events: poll::IN | poll::OUT, revents: 0 }]);
    checks.eq(poll(), [poll::IN], "a signal is readable");
    let child = start(|| (poll() != [0] || numbers(fd, 1) != Err(Errno::EAGAIN)) as i32);
    checks.eq(child.and_then(process::waitpid), Ok(Status::Exited(0)), "but not by a child that has the file");
    let other = thread::spawn(move || {
        let found = look(&mut [PollFd { fd, events: poll::IN, revents: 0 }]);
        let _ = io::write_all(1, if found == [poll::IN] { b"" } else { b"not ok - another thread sees it\n" });
    });
    other.expect("a thread").join();
    checks.eq(numbers(fd, 1), Ok([sig::USR1].into()), "another thread sees it, and takes nothing");
    let _ = raw(nr::TKILL, [process::gettid() as usize, sig::USR1 as usize]);
    let seen = user_tests::shared_counters();
    let other = thread::spawn(move || {
        let found = look(&mut [PollFd { fd, events: poll::IN, revents: 0 }]);
        seen[0].store(1 + u64::from(found[0]), core::sync::atomic::Ordering::SeqCst);
    });
    other.expect("a thread").join();
    checks.eq(seen[0].load(core::sync::atomic::Ordering::SeqCst), 1, "a thread's own is not seen by others");
    checks.eq(numbers(fd, 1), Ok([sig::USR1].into()), "but by itself");
    let _ = io::close(fd);
}

fn sets(checks: &mut Checks) {
    const FDS: usize = 200;
    let many = set();
    let fds: Vec<i32> = (0..FDS).filter_map(|_| create(-1, &[sig::USR1], NONBLOCK).ok()).collect();
    let added = fds.iter().all(|fd| control(many, epoll::ADD, *fd, IN, *fd as u64).is_ok());
    kill(sig::USR1);
    let mut events = [EpollEvent::default(); FDS];
    let found = wait_to(many, events.as_mut_ptr() as usize, FDS, 0);
    checks.eq((added, found), (true, Ok(FDS)), "a look finds the signal by all of them at once");
    let _ = numbers(fds[0], 1);
    kill(sig::USR1);
    checks.eq(look(&mut [PollFd { fd: many, events: poll::IN, revents: 0 }]), [poll::IN], "as does one at their set");
    let _ = numbers(fds[0], 1);
    let _ = (raw(nr::CLOSE, [many as usize]), fds.iter().for_each(|fd| _ = io::close(*fd)));
    let (inner, outer) = (set(), set());
    let fd = create(-1, &[sig::USR1], NONBLOCK).unwrap_or(-1);
    let _ = control(inner, epoll::ADD, fd, IN, 1);
    let _ = control(outer, epoll::ADD, inner, IN, 2);
    checks.eq(wait(inner, 8, 0).map(|found| found.len()), Ok(0), "no signal, no event");
    kill(sig::USR1);
    checks.eq(wait(inner, 8, -1), Ok([(IN, 1)].into()), "a set has it");
    checks.eq(wait(outer, 8, -1), Ok([(IN, 2)].into()), "and a set of sets");
    checks.eq(
        (numbers(fd, 1), wait(outer, 8, 0).map(|f| f.len())),
        (Ok([sig::USR1].into()), Ok(0)),
        "until it is read",
    );
    kill(sig::USR2);
    checks.eq(wait(inner, 8, 10).map(|found| found.len()), Ok(0), "another signal is none");
    let _ = signal::timed_wait(signal::set(&[sig::USR2]), Some(0));
    for which in [inner, outer] {
        // Whoever waits is the process that gets the signal.
        let me = process::getpid();
        let sender = start(move || {
            time::sleep_ms(30);
            process::kill(me, sig::USR1).is_err() as i32
        });
        checks.eq(wait(which, 8, -1).map(|found| found.len()), Ok(1), "a sleeper is woken by another process");
        let _ = (numbers(fd, 1), sender.and_then(process::waitpid));
    }
    let _ = control(inner, epoll::DEL, fd, 0, 0);
    kill(sig::USR1);
    checks.eq(wait(inner, 8, 0).map(|found| found.len()), Ok(0), "what is removed is not told");
    let _ = numbers(fd, 1);
    let _ = control(inner, epoll::ADD, fd, IN | epoll::ET, 3);
    let child = start(|| {
        let fd = create(-1, &[RT], NONBLOCK).unwrap_or(-1);
        let added = control(inner, epoll::ADD, fd, IN, 4).is_ok();
        kill(RT);
        (!added || wait(inner, 8, -1) != Ok([(IN, 4)].into())) as i32
    });
    checks.eq(child.and_then(process::waitpid), Ok(Status::Exited(0)), "a child's file in a set of its parent's");
    checks.eq(wait(inner, 8, 0).map(|found| found.len()), Ok(0), "leaves it with the child");
    let _ = io::close(fd);
    kill(sig::USR1);
    checks.eq(wait(outer, 8, 0).map(|found| found.len()), Ok(0), "a closed file leaves its set");
    let _ = signal::timed_wait(signal::set(&[sig::USR1]), Some(0));
    let _ = (io::close(inner), io::close(outer));
}

/// Senders, and files that come and go.
fn storm(checks: &mut Checks) {
    let me = process::getpid();
    let senders = [(); 2].map(|()| {
        start(move || {
            for i in 0..2000 {
                let _ = signal::queue(me, RT, i);
                if i % 16 == 0 {
                    time::sleep(1000);
                }
            }
            0
        })
    });
    let set = set();
    let mut read = 0;
    for round in 0..400 {
        let fd = create(-1, &[RT], NONBLOCK).unwrap_or(-1);
        let _ = control(set, epoll::ADD, fd, IN | if round % 2 == 0 { epoll::ET } else { 0 }, 0);
        let _ = wait(set, 8, 1);
        read += numbers(fd, 8).map_or(0, |found| found.len());
        let _ = io::close(fd);
    }
    senders.into_iter().for_each(|pid| _ = pid.and_then(process::waitpid));
    let fd = create(-1, &[RT], NONBLOCK).unwrap_or(-1);
    while let Ok(found) = numbers(fd, 8) {
        read += found.len();
    }
    checks.ok(read > 0 && read <= 4000, "signals of a storm are read at most once");
    checks.eq(wait(set, 8, 0).map(|found| found.len()), Ok(0), "and nothing stays in the set");
    let _ = (io::close(fd), io::close(set));
}
