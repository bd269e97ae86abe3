//! latency: operations whose length a program chooses, one kind after the other, work correctly. With the argument
//! `exact`, on a machine that runs deterministically with slices of 10 µs (`slice=10`), there is more of each, and the
//! kernel must have kept the CPU to itself for no longer than it may.

#![no_std]
#![no_main]

extern crate alloc;

use core::sync::atomic::AtomicU32;

use quire_rt::abi::flags::{Open, clock, sig};
use quire_rt::abi::info::ProcessInfo;
use quire_rt::abi::layout::{Iovec, PollFd, Rlimit, Timespec, poll, rlimit};
use quire_rt::abi::nr;
use quire_rt::process::{self, Status};
use quire_rt::{Errno, args, fs, info, io, println, sync, time};
use user_tests::asm::thread_that_calls;
use user_tests::{Checks, PAGE, RW, child, map, raw, start};

quire_rt::entry!(main);

/// The longest that the kernel may keep interrupts masked, or run without a preemption point, in nanoseconds, which are
/// instructions here. The counters fall short by a slice at most.
const MASKED: u64 = 50_000 - SLICE;
const UNPREEMPTED: u64 = 200_000 - SLICE;
const SLICE: u64 = 10_000;

/// How much of each there is.
struct Amount {
    threads: usize,
    processes: usize,
    descriptors: usize,
    bytes: usize,
}

const A_LITTLE: Amount = Amount { threads: 50, processes: 10, descriptors: 100, bytes: 64 << 10 };
const A_LOT: Amount = Amount { threads: 1000, processes: 200, descriptors: 2000, bytes: 4 << 20 };

/// A kind of work, which ends with the process that does it.
type Work = fn(&Amount) -> Result<bool, Errno>;

const KINDS: &[(&str, Work)] = &[
    ("a vector is read", vector_read),
    ("a file is read", file_read),
    ("a file is sent into a pipe", file_sent),
    ("a vector goes through a pipe", pipe_filled),
    ("the console shows a long text", text_shown),
    ("random bytes are made", random_made),
    ("the log is read", log_read),
    ("threads are woken from a word", sleepers_woken),
    ("threads are moved from word to word", sleepers_moved),
    ("threads whose sleep ends together wake", timers_due),
    ("threads that read a pipe see its end", readers_woken),
    ("threads that poll a pipe see a byte", pollers_woken),
    ("threads end with their process", threads_ended),
    ("a group of processes is killed", group_killed),
    ("everybody gets a signal", everybody_signalled),
    ("children are given to init", children_given_away),
    ("many descriptors are polled", descriptors_polled),
    ("many descriptors are copied and closed", descriptors_copied),
];

fn main() -> i32 {
    let exact = args().nth(1).is_some_and(|word| word.to_bytes() == b"exact");
    let amount = if exact { &A_LOT } else { &A_LITTLE };
    let mut checks = Checks::new();
    let mut before = longest();
    for (what, work) in KINDS {
        let done = child(|| (work(amount) != Ok(true)).into());
        checks.eq(done, Ok(Status::Exited(0)), what);
        if exact {
            let after = longest();
            let is_short = |i: usize, limit| after[i] == before[i] || after[i] < limit;
            checks.ok(is_short(0, MASKED), "  with interrupts masked for no longer than they may be");
            checks.ok(is_short(1, UNPREEMPTED), "  and others get their turn in time");
            println!("# {} masked, {} unpreempted", after[0], after[1]);
            before = after;
        }
    }
    checks.finish()
}

fn longest() -> [u64; 2] {
    ["longest_masked_ns", "longest_unpreempted_ns"].map(|name| info::counter(name).unwrap_or(u64::MAX))
}

fn vector_read(amount: &Amount) -> Result<bool, Errno> {
    let buffer = map(PAGE * 16, RW);
    let part = Iovec { base: buffer as u64, len: PAGE as u64 * 16 };
    let parts = alloc::vec![part; amount.bytes / (PAGE * 16)];
    let zeros = fs::open(c"/dev/zero", Open::empty())?;
    let n = raw(nr::READV, [zeros as usize, parts.as_ptr() as usize, parts.len()])?;
    Ok(n == amount.bytes)
}

fn this_program() -> Result<(i32, usize), Errno> {
    let file = fs::open(c"/tests/latency", Open::empty())?;
    Ok((file, fs::fstat(file)?.size as usize))
}

fn file_read(_: &Amount) -> Result<bool, Errno> {
    let (file, size) = this_program()?;
    let buffer = map(size, RW);
    Ok(raw(nr::READ, [file as usize, buffer, size])? == size && user_tests::peek(buffer + 1) == b'E')
}

fn file_sent(_: &Amount) -> Result<bool, Errno> {
    let (file, size) = this_program()?;
    let (read, write) = io::pipe(0)?;
    let reader = start(|| (drain(read, write) != Ok(size)).into())?;
    let sent = raw(nr::SENDFILE, [write as usize, file as usize, 0, size])?;
    io::close(write)?;
    Ok(sent == size && process::waitpid(reader) == Ok(Status::Exited(0)))
}

/// Reads a pipe to its end; how much there was.
fn drain(read: i32, write: i32) -> Result<usize, Errno> {
    io::close(write)?;
    let mut buffer = [0; 4096];
    let mut all = 0;
    loop {
        match io::read(read, &mut buffer)? {
            0 => return Ok(all),
            n => all += n,
        }
    }
}

fn pipe_filled(amount: &Amount) -> Result<bool, Errno> {
    let parts = amount.bytes / (PAGE * 16);
    let part = Iovec { base: map(PAGE * 16, RW) as u64, len: PAGE as u64 * 16 };
    let vector = alloc::vec![part; parts];
    let (read, write) = io::pipe(0)?;
    let reader = start(|| (drain(read, write) != Ok(amount.bytes)).into())?;
    let written = raw(nr::WRITEV, [write as usize, vector.as_ptr() as usize, parts])?;
    io::close(write)?;
    Ok(written == amount.bytes && process::waitpid(reader) == Ok(Status::Exited(0)))
}

fn text_shown(amount: &Amount) -> Result<bool, Errno> {
    let mut line = [b'.'; 64];
    line[63] = b'\n';
    let text = line.repeat(amount.threads / 4);
    Ok(io::write(1, &text)? == text.len())
}

fn random_made(amount: &Amount) -> Result<bool, Errno> {
    let buffer = map(amount.bytes / 4, RW);
    Ok(raw(nr::GETRANDOM, [buffer, amount.bytes / 4, 0])? == amount.bytes / 4)
}

fn log_read(_: &Amount) -> Result<bool, Errno> {
    let mut buffer = alloc::vec![0; 64 << 10];
    Ok(info::log(&mut buffer, 0)? > 0)
}

/// Threads that make one call and end.
fn callers(count: usize, number: usize, args: [usize; 6]) -> Result<(), Errno> {
    for _ in 0..count {
        thread_that_calls(number, args)?;
    }
    // There is no sign of when they sleep.
    time::sleep_ms(20);
    Ok(())
}

/// Whether the callers have all ended soon.
fn callers_end() -> bool {
    let threads = || info::records::<ProcessInfo>().find(|p| p.pid as i32 == process::getpid()).map(|p| p.threads);
    (0..500).any(|_| {
        time::sleep_ms(10);
        threads() == Some(1)
    })
}

static FIRST: AtomicU32 = AtomicU32::new(0);
static SECOND: AtomicU32 = AtomicU32::new(0);

const WAIT: usize = 128;
const CMP_REQUEUE: usize = 4 | 128;
const ALL: usize = i32::MAX as usize;

fn sleepers_woken(amount: &Amount) -> Result<bool, Errno> {
    callers(amount.threads, nr::FUTEX, [FIRST.as_ptr() as usize, WAIT, 0, 0, 0, 0])?;
    let woken = sync::futex_wake(&FIRST, ALL as u32)?;
    Ok(woken == amount.threads && callers_end())
}

fn sleepers_moved(amount: &Amount) -> Result<bool, Errno> {
    let (first, second) = (FIRST.as_ptr() as usize, SECOND.as_ptr() as usize);
    callers(amount.threads, nr::FUTEX, [first, WAIT, 0, 0, 0, 0])?;
    let moved = raw(nr::FUTEX, [first, CMP_REQUEUE, 1, ALL, second, 0])?;
    let left = sync::futex_wake(&FIRST, ALL as u32)?;
    let woken = sync::futex_wake(&SECOND, ALL as u32)?;
    Ok(moved == amount.threads && left == 0 && woken == amount.threads - 1 && callers_end())
}

fn timers_due(amount: &Amount) -> Result<bool, Errno> {
    let at = time::monotonic() + 100_000_000;
    let at = Timespec { sec: (at / 1_000_000_000) as i64, nsec: (at % 1_000_000_000) as i64 };
    let args = [clock::MONOTONIC as usize, clock::TIMER_ABSTIME as usize, &raw const at as usize, 0, 0, 0];
    callers(amount.threads, nr::CLOCK_NANOSLEEP, args)?;
    Ok(callers_end())
}

fn readers_woken(amount: &Amount) -> Result<bool, Errno> {
    let (read, write) = io::pipe(0)?;
    callers(amount.threads, nr::READ, [read as usize, map(PAGE, RW), 1, 0, 0, 0])?;
    io::close(write)?;
    Ok(callers_end())
}

fn pollers_woken(amount: &Amount) -> Result<bool, Errno> {
    let (read, write) = io::pipe(0)?;
    let watched = PollFd { fd: read, events: poll::IN, revents: 0 };
    callers(amount.threads, nr::PPOLL, [&raw const watched as usize, 1, 0, 0, 0, 0])?;
    io::write(write, b"x")?;
    Ok(callers_end())
}

fn threads_ended(amount: &Amount) -> Result<bool, Errno> {
    callers(amount.threads, nr::FUTEX, [FIRST.as_ptr() as usize, WAIT, 0, 0, 0, 0])?;
    Ok(true)
}

/// Starts children that wait for ever, in a group of their own, whose number it returns.
fn sleepers(count: usize) -> Result<i32, Errno> {
    let mut group = 0;
    for _ in 0..count {
        let pid = start(|| raw(nr::PPOLL, [0, 0, 0, 0]).is_ok().into())?;
        group = if group == 0 { pid } else { group };
        process::setpgid(pid, group)?;
    }
    Ok(group)
}

fn group_killed(amount: &Amount) -> Result<bool, Errno> {
    let group = sleepers(amount.processes)?;
    process::kill(-group, sig::KILL)?;
    Ok((0..amount.processes).all(|_| process::waitpid(-1) == Ok(Status::Killed(sig::KILL))))
}

fn everybody_signalled(amount: &Amount) -> Result<bool, Errno> {
    let group = sleepers(amount.processes)?;
    // This signal has no effect on anybody.
    process::kill(-1, sig::WINCH)?;
    process::kill(-group, sig::KILL)?;
    Ok((0..amount.processes).all(|_| process::waitpid(-1) == Ok(Status::Killed(sig::KILL))))
}

fn children_given_away(amount: &Amount) -> Result<bool, Errno> {
    let (read, write) = io::pipe(0)?;
    let parent = start(|| {
        let group = sleepers(amount.processes).unwrap_or(0);
        (io::write(write, &group.to_ne_bytes()) != Ok(4)).into()
    })?;
    let mut group = [0; 4];
    io::read(read, &mut group)?;
    let ended = process::waitpid(parent);
    process::kill(-i32::from_ne_bytes(group), sig::KILL)?;
    Ok(ended == Ok(Status::Exited(0)))
}

/// As many descriptors of a pipe with a byte in it; the last of them.
fn many_descriptors(count: usize) -> Result<i32, Errno> {
    process::prlimit(rlimit::NOFILE, Some(Rlimit { cur: 4096, max: 4096 }))?;
    let (read, write) = io::pipe(0)?;
    io::write(write, b"x")?;
    (1..count).try_fold(read, |_, _| io::dup(read))
}

fn descriptors_polled(amount: &Amount) -> Result<bool, Errno> {
    let last = many_descriptors(amount.descriptors)?;
    let watched = alloc::vec![PollFd { fd: last, events: poll::IN, revents: 0 }; amount.descriptors];
    let ready = raw(nr::PPOLL, [watched.as_ptr() as usize, watched.len(), 0, 0])?;
    Ok(ready == amount.descriptors && watched.iter().all(|one| one.revents == poll::IN))
}

fn descriptors_copied(amount: &Amount) -> Result<bool, Errno> {
    many_descriptors(amount.descriptors)?;
    Ok(child(|| 0) == Ok(Status::Exited(0)))
}
