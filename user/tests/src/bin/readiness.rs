//! readiness: counters, and waiting for one of several objects by ppoll, pselect6 and epoll.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use quire_rt::abi::flags::{Open, clock, sig};
use quire_rt::abi::layout::{EpollEvent, Iovec, PollFd, Rlimit, Timespec, epoll, poll, rlimit};
use quire_rt::abi::nr;
use quire_rt::process::{self, Status};
use quire_rt::{Errno, fs, io, signal, thread, time};
use user_tests::ready::{add, control, counter, look, ppoll, set, take, wait, wait_to};
use user_tests::{Checks, KERNEL, PAGE, RW, map, munmap, raw, start, until_asleep};

quire_rt::entry!(main);

const IN: u32 = poll::IN as u32;
const OUT: u32 = poll::OUT as u32;
const HUP: u32 = poll::HUP as u32;

fn main() -> i32 {
    let mut checks = Checks::new();
    counters(&mut checks);
    polling(&mut checks);
    selecting(&mut checks);
    closing(&mut checks);
    sets(&mut checks);
    kinds(&mut checks);
    edges(&mut checks);
    lookers(&mut checks);
    ends(&mut checks);
    nesting(&mut checks);
    waking(&mut checks);
    storm(&mut checks);
    checks.finish()
}

const NONBLOCK: u32 = Open::NONBLOCK.bits();

fn counters(checks: &mut Checks) {
    let fd = counter(3, NONBLOCK).expect("a counter");
    checks.eq((add(fd, 4), take(fd)), (Ok(8), Ok(7)), "a read takes all that was added");
    checks.fails(take(fd), Errno::EAGAIN, "and there is nothing left");
    checks.fails(io::write(fd, &[0; 7]), Errno::EINVAL, "a write of less than 8 bytes");
    checks.fails(io::read(fd, &mut [0; 7]), Errno::EINVAL, "a read of less");
    checks.fails(add(fd, u64::MAX), Errno::EINVAL, "a number that never fits");
    checks.eq(add(fd, u64::MAX - 1), Ok(8), "one that does");
    checks.fails(add(fd, 1), Errno::EAGAIN, "but no more then");
    checks.eq(look(&mut [PollFd { fd, events: poll::IN | poll::OUT, revents: 0 }]), [poll::IN], "full: readable only");
    checks.eq(fs::lseek(fd, 5, 0), Ok(0), "it has no position");
    let _ = take(fd);
    let part = |bytes: &[u8]| Iovec { base: bytes.as_ptr() as u64, len: bytes.len() as u64 };
    let (one, two) = (1u64.to_ne_bytes(), 2u64.to_ne_bytes());
    let parts = [part(&one), part(&two)];
    let written = raw(nr::WRITEV, [fd as usize, parts.as_ptr() as usize, 2]);
    checks.eq((written, take(fd)), (Ok(16), Ok(3)), "each part of a vector is a write");
    let halves = [part(&one[..4]), part(&one[4..])];
    checks.fails(raw(nr::WRITEV, [fd as usize, halves.as_ptr() as usize, 2]), Errno::EINVAL, "of 8 bytes");
    checks.fails(io::write(fd, &[1; 9]), Errno::EINVAL, "and no more");
    let and_one = [part(&one), part(&two[..1])];
    let written = raw(nr::WRITEV, [fd as usize, and_one.as_ptr() as usize, 2]);
    checks.eq((written, take(fd)), (Ok(8), Ok(1)), "what comes before a part that is none counts");
    let _ = add(fd, 6);
    let mut buffer = [0xaa; 9];
    checks.eq((io::read(fd, &mut buffer), buffer[0], buffer[8]), (Ok(8), 6, 0xaa), "a read of more gets 8 bytes");
    checks.fails(counter(0, 2), Errno::EINVAL, "unknown flags");
    let _ = io::close(fd);

    let fd = counter(2, 1 | NONBLOCK).expect("a counter");
    checks.eq((take(fd), take(fd)), (Ok(1), Ok(1)), "a semaphore gives one at a time");
    checks.fails(take(fd), Errno::EAGAIN, "as often as there is one");
    let _ = io::close(fd);

    let fd = counter(0, 0).expect("a counter");
    let reader = start(|| (take(fd) != Ok(9)) as i32).unwrap_or(-1);
    until_asleep(reader);
    let _ = add(fd, 9);
    checks.eq(process::waitpid(reader), Ok(Status::Exited(0)), "a reader sleeps until there is something");
    let _ = add(fd, u64::MAX - 1);
    let writer = start(|| (add(fd, 5) != Ok(8)) as i32).unwrap_or(-1);
    until_asleep(writer);
    checks.eq(take(fd), Ok(u64::MAX - 1), "a writer until there is room");
    checks.eq((process::waitpid(writer), take(fd)), (Ok(Status::Exited(0)), Ok(5)), "which then writes");
    let _ = io::close(fd);
}

fn polling(checks: &mut Checks) {
    let (read, write) = io::pipe(0).expect("a pipe");
    let null = fs::open(c"/dev/null", Open::RDWR).unwrap_or(-1);
    let both = poll::IN | poll::OUT;
    let mut fds = [read, write, null, 800, -1].map(|fd| PollFd { fd, events: both, revents: 77 });
    checks.eq(look(&mut fds), [0, poll::OUT, both, poll::NVAL, 0], "each is looked at");
    let _ = io::write(write, b"x");
    fds[0].events = poll::RDNORM;
    fds[1].events = poll::WRNORM;
    checks.eq(look(&mut fds)[..2].to_vec(), [poll::RDNORM, poll::WRNORM].to_vec(), "by other names, too");
    let _ = io::close(write);
    fds[0].events = 0;
    checks.eq(look(&mut fds)[0], poll::HUP, "an end is told unasked");
    let _ = (io::close(read), io::close(null));

    // More than one chunk and one hold of the lock; the last of all becomes ready.
    let all: Vec<i32> = (0..100).map(|_| counter(0, 0).unwrap_or(-1)).collect();
    let mut fds: Vec<PollFd> = all.iter().map(|&fd| PollFd { fd, events: poll::IN, revents: 9 }).collect();
    checks.eq(ppoll(&mut fds, Some(2_000_000)), Ok(0), "none of many is ready in time");
    checks.ok(fds.iter().all(|fd| fd.revents == 0), "and none is told");
    for ready in [99, 0, 40] {
        let pid = start(|| {
            time::sleep_ms(20);
            (add(all[ready], 1) != Ok(8)) as i32
        });
        let found = ppoll(&mut fds, None);
        let right = fds.iter().enumerate().all(|(i, fd)| (fd.revents == poll::IN) == (i == ready));
        checks.ok(found == Ok(1) && right, "the one that becomes ready ends the wait");
        let _ = (take(all[ready]), pid.and_then(process::waitpid));
    }
    all.iter().for_each(|fd| _ = io::close(*fd));
    checks.fails(ppoll(&mut [PollFd::default(); 1100], Some(0)), Errno::EINVAL, "more than there may be open");

    let fd = counter(0, 0).expect("a counter");
    let sleeper = start(|| {
        let _ = signal::handle(sig::USR1, ignore, 0, 0);
        let found = ppoll(&mut [PollFd { fd, events: poll::IN, revents: 0 }], None);
        (found != Err(Errno::EINTR)) as i32
    })
    .unwrap_or(-1);
    until_asleep(sleeper);
    let _ = process::kill(sleeper, sig::USR1);
    checks.eq(process::waitpid(sleeper), Ok(Status::Exited(0)), "a signal ends it");
    let _ = io::close(fd);
}

/// While a thread waits for a pipe and a counter, another one ends or replaces the pipe's descriptor, and then makes
/// the counter or the old pipe ready.
fn closing(checks: &mut Checks) {
    #[derive(Clone, Copy, PartialEq)]
    enum Then {
        Nothing,
        Counter,
        OldPipe,
        Replaced,
    }
    let during = |then: Then, wait: &mut dyn FnMut(i32, i32)| {
        let (read, write) = io::pipe(0).expect("a pipe");
        let (fd, kept) = (counter(0, 0).expect("a counter"), io::dup(read).expect("a copy"));
        let other = thread::spawn(move || {
            // The wait is longer; a slow machine's late start of it changes no result.
            time::sleep_ms(30);
            match then {
                Then::Replaced => _ = io::dup3(fd, read, 0),
                _ => _ = io::close(read),
            }
            match then {
                Then::Nothing => {}
                Then::OldPipe => _ = io::write(write, b"x"),
                Then::Counter | Then::Replaced => _ = add(fd, 1),
            }
        });
        wait(read, fd);
        other.into_iter().for_each(thread::Thread::join);
        [read, write, fd, kept].into_iter().for_each(|fd| _ = io::close(fd));
    };
    let cases = [
        (Then::Nothing, (Ok(1), poll::NVAL, 0), "a descriptor that is closed meanwhile is invalid when the time is up"),
        (Then::Counter, (Ok(2), poll::NVAL, poll::IN), "or when another becomes ready"),
        (Then::OldPipe, (Ok(1), poll::NVAL, 0), "or when its old file does"),
        (Then::Replaced, (Ok(2), poll::IN, poll::IN), "and one that leads elsewhere by now counts as what it leads to"),
    ];
    for (then, wanted, what) in cases {
        let mut got = (Ok(0), 0, 0);
        during(then, &mut |read, fd| {
            let mut fds = [read, fd].map(|fd| PollFd { fd, events: poll::IN, revents: 0 });
            got = (ppoll(&mut fds, Some(200_000_000)), fds[0].revents, fds[1].revents);
        });
        checks.eq(got, wanted, what);
    }
    let mut got = (Ok(0), 0);
    let mut bits = 0u64;
    during(Then::Counter, &mut |read, fd| {
        bits = 1 << read | 1 << fd;
        let mut set = bits;
        let time = time::timespec(200_000_000);
        got.0 = raw(nr::PSELECT6, [64, &raw mut set as usize, 0, 0, &raw const time as usize, 0]);
        got.1 = set;
    });
    checks.eq(got, (Ok(2), bits), "pselect6 reports it as readable");
}

fn selecting(checks: &mut Checks) {
    let fds = [(); 70].map(|()| counter(0, 0).unwrap_or(-1));
    let (low, high) = (fds[0] as usize, fds[69] as usize);
    let set = |fd: usize| {
        let mut words = [0u64; 2];
        words[fd / 64] |= 1 << (fd % 64);
        words
    };
    let union = |a: [u64; 2], b: [u64; 2]| [a[0] | b[0], a[1] | b[1]];
    let _ = add(high as i32, 1);
    let (mut read, mut write) = (union(set(low), set(high)), set(low));
    let zero = Timespec::default();
    let call = |read: &mut [u64; 2], write: &mut [u64; 2]| {
        raw(
            nr::PSELECT6,
            [high + 1, read.as_mut_ptr() as usize, write.as_mut_ptr() as usize, 0, &raw const zero as usize, 0],
        )
    };
    checks.eq(call(&mut read, &mut write), Ok(2), "two bits of three");
    checks.eq((read, write), (set(high), set(low)), "and only those stay");
    let _ = take(high as i32);
    let (mut read, mut write) = (union(set(low), set(high)), [0; 2]);
    checks.eq((call(&mut read, &mut write), read), (Ok(0), [0; 2]), "none is ready");
    let _ = add(high as i32, 1);
    let limits = process::prlimit(rlimit::NOFILE, None).unwrap_or(Rlimit { cur: 1024, max: 4096 });
    let _ = process::prlimit(rlimit::NOFILE, Some(Rlimit { cur: 30, ..limits }));
    let (mut read, mut write) = (set(high), [0; 2]);
    checks.eq((call(&mut read, &mut write), read), (Ok(1), set(high)), "one above a limit that was lowered since");
    let _ = process::prlimit(rlimit::NOFILE, Some(limits));
    fds.iter().for_each(|fd| _ = io::close(*fd));
    let mut gone = set(high);
    checks.fails(call(&mut gone, &mut [0; 2]), Errno::EBADF, "a descriptor that is closed");

    // One set given as all three: it is stored for each of them, and the last one remains.
    let (from, to) = io::pipe(0).expect("a pipe");
    let _ = io::write_all(to, b"x");
    let both = union(set(from as usize), set(to as usize));
    let mut same = both;
    let at = same.as_mut_ptr() as usize;
    let mut all = |third: usize| {
        same = both;
        let found = raw(nr::PSELECT6, [128, at, at, third, &raw const zero as usize, 0]);
        (found, same)
    };
    checks.eq(all(at), (Ok(2), [0; 2]), "of one set given three times the last answer remains");
    checks.eq(all(0), (Ok(2), set(to as usize)), "of one given twice the second");
    let _ = (io::close(from), io::close(to));
}

fn sets(checks: &mut Checks) {
    let set = set();
    let (read, write) = io::pipe(0).expect("a pipe");
    checks.eq(wait(set, 8, 0), Ok(Vec::new()), "an empty set has nothing");
    checks.eq(control(set, epoll::ADD, read, IN, 1), Ok(0), "a file is added");
    checks.fails(control(set, epoll::ADD, read, IN, 1), Errno::EEXIST, "once");
    checks.fails(control(set, epoll::MOD, write, IN, 1), Errno::ENOENT, "one that is not in it is not changed");
    checks.fails(control(set, epoll::DEL, write, IN, 1), Errno::ENOENT, "or removed");
    checks.fails(control(set, epoll::ADD, set, IN, 1), Errno::EINVAL, "a set in itself");
    checks.fails(control(read, epoll::ADD, write, IN, 1), Errno::EINVAL, "something else as a set");
    checks.fails(control(set, 9, write, IN, 1), Errno::EINVAL, "an unknown operation");
    checks.fails(control(set, epoll::ADD, 900, IN, 1), Errno::EBADF, "nothing");
    let file = fs::open(c"/tests/readiness", Open::empty()).unwrap_or(-1);
    checks.fails(control(set, epoll::ADD, file, IN, 1), Errno::EPERM, "a file that is always ready");
    let _ = io::close(file);
    let memory = raw(nr::MEMFD_CREATE, [c"x".as_ptr() as usize, 0]).map_or(-1, |fd| fd as i32);
    checks.fails(control(set, epoll::ADD, memory, IN, 1), Errno::EPERM, "or one in memory");
    let _ = io::close(memory);
    checks.fails(raw(nr::EPOLL_CTL, [set as usize, 1, write as usize, 8]), Errno::EFAULT, "an event that is not there");
    checks.fails(wait(set, 0, 0), Errno::EINVAL, "room for nothing");
    checks.fails(io::read(set, &mut [0; 16]), Errno::EINVAL, "a set is not read");
    checks.fails(raw(nr::EPOLL_CREATE1, [1]), Errno::EINVAL, "unknown flags");

    let begin = time::nanoseconds(clock::MONOTONIC);
    checks.eq(wait(set, 8, 20), Ok(Vec::new()), "nothing comes");
    checks.ok(time::nanoseconds(clock::MONOTONIC) - begin >= 20_000_000, "not before its time");
    let mut event = EpollEvent::default();
    let wait2 = |time: usize, event: &mut EpollEvent| {
        raw(nr::EPOLL_PWAIT2, [set as usize, &raw mut *event as usize, 1, time, 0, 8])
    };
    let (short, wrong) = (time::timespec(1_500_000), Timespec { sec: 0, nsec: 1_000_000_000 });
    let begin = time::nanoseconds(clock::MONOTONIC);
    checks.eq(wait2(&raw const short as usize, &mut event), Ok(0), "nor within a timespec");
    checks.ok(time::nanoseconds(clock::MONOTONIC) - begin >= 1_500_000, "not before that");
    checks.fails(wait2(&raw const wrong as usize, &mut event), Errno::EINVAL, "which must be one");
    checks.fails(wait2(KERNEL, &mut event), Errno::EFAULT, "and be there");
    let _ = io::write(write, b"x");
    checks.eq((wait2(0, &mut event), event.events), (Ok(1), IN), "and without a time for ever");
    checks.eq(wait(set, 8, -1), Ok([(IN, 1)].into()), "what is ready is told");
    checks.eq(wait(set, 8, 0), Ok([(IN, 1)].into()), "and again while it is");
    let _ = control(set, epoll::ADD, write, OUT, 2);
    checks.eq(wait(set, 8, 0), Ok([(IN, 1), (OUT, 2)].into()), "of several all");
    let one = |()| wait(set, 1, 0).map_or(0, |found| found.iter().map(|(_, data)| data).sum());
    checks.eq((one(()) + one(()), one(()) + one(())), (3, 3), "or each in turn");
    let page = map(PAGE, RW);
    let _ = munmap(page, PAGE);
    checks.fails(wait_to(set, page, 8, 0), Errno::EFAULT, "nowhere to put them");
    checks.eq(wait(set, 8, 0), Ok([(IN, 1), (OUT, 2)].into()), "loses none");
    let _ = control(set, epoll::MOD, read, 0, 3);
    checks.eq(wait(set, 8, 0), Ok([(OUT, 2)].into()), "what is not asked for is not told");
    let _ = control(set, epoll::MOD, read, IN, 3);
    checks.eq(wait(set, 8, 0), Ok([(OUT, 2), (IN, 3)].into()), "a change looks again");
    let _ = control(set, epoll::DEL, write, 0, 0);
    checks.eq(wait(set, 8, 0), Ok([(IN, 3)].into()), "what is removed is not told");
    let _ = io::read(read, &mut [0; 8]);
    checks.eq(wait(set, 8, 0), Ok(Vec::new()), "what is ready no more neither");
    let _ = control(set, epoll::MOD, read, 0, 4);
    let _ = io::close(write);
    checks.eq(wait(set, 8, -1), Ok([(HUP, 4)].into()), "an end is told unasked");
    let _ = (io::close(read), io::close(set));
}

fn kinds(checks: &mut Checks) {
    let set = set();
    let (edge, once, both) = (counter(0, 0).unwrap_or(-1), counter(0, 0).unwrap_or(-1), counter(0, 0).unwrap_or(-1));
    let _ = control(set, epoll::ADD, edge, IN | epoll::ET, 1);
    let _ = control(set, epoll::ADD, once, IN | epoll::ONESHOT, 2);
    let _ = control(set, epoll::ADD, both, IN | epoll::ET | epoll::ONESHOT, 3);
    [edge, once, both].iter().for_each(|fd| _ = add(*fd, 1));
    checks.eq(wait(set, 8, 0), Ok([(IN, 1), (IN, 2), (IN, 3)].into()), "the first event of each kind");
    checks.eq(wait(set, 8, 0), Ok(Vec::new()), "is told once");
    [edge, once, both].iter().for_each(|fd| _ = add(*fd, 1));
    checks.eq(wait(set, 8, 0), Ok([(IN, 1)].into()), "the second only by the edge");
    let _ = control(set, epoll::MOD, once, IN | epoll::ONESHOT, 4);
    let _ = control(set, epoll::MOD, both, IN | epoll::ONESHOT, 5);
    checks.eq(wait(set, 8, 0), Ok([(IN, 4), (IN, 5)].into()), "until the others are set again");
    // A failure to store a one-shot event does not use it up.
    let _ = control(set, epoll::MOD, once, IN | epoll::ONESHOT, 6);
    let page = map(PAGE, RW);
    let _ = munmap(page, PAGE);
    let failed = wait_to(set, page, 8, 0);
    checks.eq((failed, wait(set, 8, 0)), (Err(Errno::EFAULT), Ok([(IN, 6)].into())), "nor does a failure");
    checks.fails(control(set, epoll::MOD, once, IN | epoll::EXCLUSIVE, 0), Errno::EINVAL, "exclusive at a change");
    let other = counter(0, 0).unwrap_or(-1);
    let events = IN | epoll::EXCLUSIVE | epoll::ONESHOT;
    checks.fails(control(set, epoll::ADD, other, events, 0), Errno::EINVAL, "exclusive and once");
    checks.eq(control(set, epoll::ADD, other, IN | epoll::EXCLUSIVE, 7), Ok(0), "exclusive");
    checks.fails(control(set, epoll::MOD, other, IN, 0), Errno::EINVAL, "is not changed");
    let _ = add(other, 1);
    checks.eq(wait(set, 8, 0), Ok([(IN, 7)].into()), "but told");
    [edge, once, both, other, set].iter().for_each(|fd| _ = io::close(*fd));
}

/// What is no event, and what is one though nobody has looked since the last.
fn edges(checks: &mut Checks) {
    let (inner, outer) = (set(), set());
    let fd = counter(0, 0).unwrap_or(-1);
    let count = |set: i32| wait(set, 8, 0).map_or(9, |found| found.len());
    let _ = control(outer, epoll::ADD, inner, IN | epoll::ET, 0);
    let _ = control(inner, epoll::ADD, fd, IN, 0);
    let _ = add(fd, 1);
    let first = count(outer);
    let _ = take(fd);
    let _ = add(fd, 1);
    checks.eq((first, count(outer), count(outer)), (1, 1, 0), "each event of an inner set is an edge of it");
    let _ = (io::close(inner), io::close(outer));

    let set = set();
    let _ = take(fd);
    let _ = control(set, epoll::ADD, fd, OUT | epoll::ET, 0);
    let first = count(set);
    let _ = add(fd, 1);
    let second = count(set);
    let _ = take(fd);
    checks.eq((first, second, count(set)), (1, 0, 1), "a write gives no room, a read does");
    let (read, write) = io::pipe(0).expect("a pipe");
    let _ = control(set, epoll::ADD, write, OUT | epoll::ET, 0);
    let first = count(set);
    let _ = io::write(write, b"xx");
    let _ = io::read(read, &mut [0]);
    checks.eq((first, count(set)), (1, 0), "nor does a read of a pipe that is not full");
    [fd, set, read, write].iter().for_each(|fd| _ = io::close(*fd));
}

/// Several look at the same set, of which an item is ready all the time: nobody sees it empty.
fn lookers(checks: &mut Checks) {
    static DONE: AtomicU32 = AtomicU32::new(0);
    let (inner, outer) = (set(), set());
    let fd = counter(1, 0).unwrap_or(-1);
    let _ = control(inner, epoll::ADD, fd, IN, 0);
    let _ = control(outer, epoll::ADD, inner, IN, 0);
    let looker = move || {
        while DONE.load(SeqCst) == 0 {
            let _ = wait(inner, 1, 0);
        }
    };
    let threads: Vec<_> = (0..2).flat_map(|_| thread::spawn(looker)).collect();
    let all = (0..3000).all(|_| {
        look(&mut [PollFd { fd: inner, events: poll::IN, revents: 0 }]) == [poll::IN]
            && wait(outer, 1, 0).is_ok_and(|found| found.len() == 1)
    });
    DONE.store(1, SeqCst);
    threads.into_iter().for_each(thread::Thread::join);
    checks.ok(all, "a set that others look at is not empty meanwhile");
    [fd, inner, outer].iter().for_each(|fd| _ = io::close(*fd));
}

/// Files, sets and descriptors that end.
fn ends(checks: &mut Checks) {
    let set = set();
    let fd = counter(1, 0).unwrap_or(-1);
    let _ = control(set, epoll::ADD, fd, IN, 1);
    let second = io::dup(fd).unwrap_or(-1);
    checks.eq(control(set, epoll::ADD, second, IN, 2), Ok(0), "the same file under another number");
    let _ = io::close(fd);
    checks.eq(wait(set, 8, 0), Ok([(IN, 1), (IN, 2)].into()), "a number that is closed, while the file is open");
    let _ = io::close(second);
    checks.eq(wait(set, 8, 0), Ok(Vec::new()), "a file that is closed leaves");

    let many: Vec<i32> = (0..50).map(|_| counter(1, 0).unwrap_or(-1)).collect();
    many.iter().for_each(|fd| _ = control(set, epoll::ADD, *fd, IN, *fd as u64));
    let mut seen = [0u32; 256];
    for _ in 0..10 {
        wait(set, 20, 0).unwrap_or_default().iter().for_each(|(_, data)| seen[*data as usize & 255] += 1);
    }
    checks.ok(many.iter().all(|fd| (3..=5).contains(&seen[*fd as usize & 255])), "of many, all have their turn");
    let _ = io::close(set);
    many.iter().for_each(|fd| _ = add(*fd, 1));
    checks.ok(many.iter().all(|fd| take(*fd) == Ok(2)), "a set that is closed hurts none of its files");
    many.iter().for_each(|fd| _ = io::close(*fd));
}

fn nesting(checks: &mut Checks) {
    let sets = [(); 6].map(|()| set());
    let fd = counter(0, 0).unwrap_or(-1);
    let _ = control(sets[0], epoll::ADD, fd, IN, 1);
    for i in 1..5 {
        checks.eq(control(sets[i], epoll::ADD, sets[i - 1], IN, i as u64), Ok(0), "a set in a set");
    }
    checks.fails(control(sets[5], epoll::ADD, sets[4], IN, 0), Errno::ELOOP, "too deep");
    checks.fails(control(sets[0], epoll::ADD, sets[2], IN, 0), Errno::ELOOP, "a circle");
    checks.eq(wait(sets[4], 8, 0), Ok(Vec::new()), "no event");
    let waiter = start(|| (wait(sets[4], 8, -1) != Ok([(IN, 4)].into())) as i32).unwrap_or(-1);
    until_asleep(waiter);
    let _ = add(fd, 1);
    checks.eq(process::waitpid(waiter), Ok(Status::Exited(0)), "an event at the bottom wakes who waits at the top");
    checks.eq(look(&mut [PollFd { fd: sets[3], events: poll::IN, revents: 0 }]), [poll::IN], "and polls");
    let _ = take(fd);
    checks.eq(look(&mut [PollFd { fd: sets[3], events: poll::IN, revents: 0 }]), [0], "until it is over");
    let _ = io::close(sets[2]);
    let _ = add(fd, 1);
    checks.eq(wait(sets[4], 8, 0), Ok(Vec::new()), "a set that is closed breaks the chain");
    checks.eq(wait(sets[1], 8, 0), Ok([(IN, 1)].into()), "above itself");
    sets.iter().for_each(|fd| _ = io::close(*fd));
    let _ = io::close(fd);
}

fn waking(checks: &mut Checks) {
    let set = set();
    let fd = counter(0, 1).unwrap_or(-1);
    let _ = control(set, epoll::ADD, fd, IN | epoll::ONESHOT, 1);
    static WOKEN: AtomicU32 = AtomicU32::new(0);
    let wait_once = move || {
        if wait(set, 8, 10_000) == Ok([(IN, 1)].into()) {
            WOKEN.fetch_add(1, SeqCst);
            let _ = control(set, epoll::MOD, fd, IN | epoll::ONESHOT, 1);
            let _ = take(fd);
        }
    };
    let waiters: Vec<_> = (0..4).flat_map(|_| thread::spawn(wait_once)).collect();
    time::sleep_ms(20);
    for _ in 0..4 {
        let _ = add(fd, 1);
    }
    waiters.into_iter().for_each(thread::Thread::join);
    checks.eq(WOKEN.load(SeqCst), 4, "each of several waiters gets an event");

    let blocked = start(|| {
        let _ = signal::handle(sig::USR1, ignore, 0, 0);
        (wait(set, 8, -1) != Err(Errno::EINTR)) as i32
    })
    .unwrap_or(-1);
    let _ = control(set, epoll::DEL, fd, 0, 0);
    until_asleep(blocked);
    let _ = process::kill(blocked, sig::USR1);
    checks.eq(process::waitpid(blocked), Ok(Status::Exited(0)), "a signal ends the wait");
    let _ = (io::close(set), io::close(fd));
}

/// Threads that add, take, watch, forget and close the same files at once: no event is lost, and no item is left.
fn storm(checks: &mut Checks) {
    const ADDED: u64 = 400;
    static TAKEN: AtomicU64 = AtomicU64::new(0);
    static DONE: AtomicU32 = AtomicU32::new(0);
    let set = set();
    let fds = [(); 6].map(|()| counter(0, NONBLOCK).unwrap_or(-1));
    fds.iter().for_each(|fd| _ = control(set, epoll::ADD, *fd, IN | epoll::ET, *fd as u64));
    let adder = move || {
        for i in 0..ADDED as usize {
            let _ = add(fds[i % 6], 1);
        }
        DONE.fetch_add(1, SeqCst);
    };
    let taker = move || {
        while TAKEN.load(SeqCst) < 3 * ADDED {
            let found = wait(set, 4, 5000).unwrap_or_default();
            found.iter().for_each(|(_, fd)| _ = TAKEN.fetch_add(take(*fd as i32).unwrap_or(0), SeqCst));
            if found.is_empty() {
                break;
            }
        }
        // Whoever was first wakes the others.
        let _ = add(fds[0], 1);
    };
    let other = move || {
        while DONE.load(SeqCst) < 3 {
            let own = self::set();
            let copy = io::dup(fds[1]).unwrap_or(-1);
            let _ = control(own, epoll::ADD, fds[0], IN, 0);
            let _ = control(own, epoll::ADD, copy, IN, 0);
            let _ = control(own, epoll::ADD, set, IN, 0);
            let _ = wait(own, 4, 0);
            let _ = control(own, epoll::DEL, fds[0], 0, 0);
            let _ = (io::close(copy), io::close(own));
        }
    };
    let threads: Vec<_> = (0..3)
        .flat_map(|_| thread::spawn(adder))
        .chain((0..2).flat_map(|_| thread::spawn(taker)))
        .chain((0..2).flat_map(|_| thread::spawn(other)))
        .collect();
    threads.into_iter().for_each(thread::Thread::join);
    let left: u64 = fds.iter().map(|fd| take(*fd).unwrap_or(0)).sum();
    // (The last number of the two takers may be among what was taken.)
    let total = TAKEN.load(SeqCst) + left;
    checks.ok((3 * ADDED..=3 * ADDED + 2).contains(&total), "in a storm no event is lost");
    fds.iter().for_each(|fd| _ = io::close(*fd));
    let _ = io::close(set);
}

extern "C" fn ignore(_: i32, _: *const signal::Info, _: *mut u8) {}
