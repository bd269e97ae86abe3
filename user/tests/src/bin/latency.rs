//! latency: operations whose length a program chooses, one kind after the other, work correctly. With the argument
//! `exact`, on a machine that runs deterministically with slices of 10 µs (`slice=10`), there is more of each, and the
//! kernel must have kept the CPU to itself for no longer than it may.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::ffi::CString;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;

use quire_rt::abi::flags::{Map, Open, clock, pr, sig, wait};
use quire_rt::abi::layout::{EpollEvent, Iovec, PollFd, Rlimit, Timespec, at, epoll, poll, rlimit};
use quire_rt::abi::nr;
use quire_rt::process::{self, Status};
use quire_rt::{Errno, args, fs, info, io, println, signal, sync, thread, time};
use user_tests::asm::thread_that_calls;
use user_tests::long;
use user_tests::{Checks, PAGE, RW, child, map, mmap, munmap, poke, raw, start, until, until_asleep};

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
    /// The highest descriptor.
    highest: usize,
    areas: usize,
    bytes: usize,
}

const A_LITTLE: Amount =
    Amount { threads: 50, processes: 10, descriptors: 100, highest: 1000, areas: 100, bytes: 64 << 10 };
const A_LOT: Amount =
    Amount { threads: 2000, processes: 500, descriptors: 4000, highest: 1_000_000, areas: 20_000, bytes: 4 << 20 };

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
    ("children are killed when their parent ends", children_end_with_it),
    ("many descriptors are polled", descriptors_polled),
    ("many items of an epoll are not ready any more", items_looked_at),
    ("many descriptors are copied and closed", descriptors_copied),
    ("descriptors are copied while they change", descriptors_copied_beside),
    ("a descriptor far from the others is closed", far_descriptor_closed),
    ("many handles are passed to a child and end", handles_ended),
    ("threads that block a signal are asked whether they do", blocked_signalled),
    ("many signals with values wait", signals_queued),
    ("many users are sent signals", users_signalled),
    ("a member of many groups asks for a file", groups_searched),
    ("a process of many threads is stopped", threads_stopped),
    ("threads give way to another program", threads_replaced),
    ("a program gets long arguments", arguments_passed),
    ("a program gets many arguments", many_arguments_passed),
    ("data is looked for behind a large hole", hole_passed),
    ("the time of many threads is asked for", threads_timed),
    ("timers of many processes ring together", timers_ring),
    ("a group is waited for among many children", group_waited_for),
    ("groups and sessions are made among many", groups_made),
    ("a process of a large group stops", group_member_stopped),
    ("shared memory ends", shared_memory_ended),
    ("pages of shared memory are counted", shared_memory_counted),
    ("swapped pages end with their process", swapped_pages_ended),
    ("pages far from each other are freed", far_pages_freed),
    ("a space of many areas is copied and ends", areas_ended),
    ("many areas of one page of a file are unmapped", same_page_unmapped),
    ("many areas are written back", |amount| long::areas_synchronised(amount.areas)),
    ("many areas have nothing that could go to swap", |amount| long::nothing_paged_out(amount.areas)),
    ("memory becomes executable", |amount| long::memory_executed(amount.bytes * 2)),
    ("memory in swap is unmapped", |amount| long::swapped_memory_unmapped(amount.bytes * 8)),
    ("many areas are left out of a copy", |amount| long::areas_left_out(amount.areas * 3)),
    ("messages end with their socket", |amount| long::messages_dropped(amount.threads / 2)),
    ("sockets end with their message", |amount| long::sockets_in_flight_dropped(amount.threads / 200 + 1)),
    ("connections end with their listener", |amount| long::connections_dropped(amount.threads / 4)),
    ("a name is looked for behind those that are taken", |amount| long::name_found(amount.threads / 4)),
    ("data is looked for where there was some", |amount| long::far_data_sought(amount.threads)),
    ("a path of many parts is followed", path_followed),
    ("the kernel's books are read and compared", books_compared),
];

fn main() -> i32 {
    if args().nth(1).is_some_and(|word| word.to_bytes() == b"nothing") {
        return 0;
    }
    let exact = args().nth(1).is_some_and(|word| word.to_bytes() == b"exact");
    let amount = if exact { &A_LOT } else { &A_LITTLE };
    let mut checks = Checks::new();
    let mut before = longest();
    for (what, work) in KINDS {
        // (No child has the handle for the last kind.)
        let is_last = *what == KINDS[KINDS.len() - 1].0;
        let good = || work(amount) == Ok(true);
        checks.ok(if is_last { good() } else { child(|| good().into()) == Ok(Status::Exited(1)) }, what);
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
    // A child sees when they sleep: this thread, too, sleeps until it has.
    let parent = process::getpid();
    child(|| (!until_asleep(parent)).into()).map(drop)
}

/// Whether the callers have all ended soon.
fn callers_end() -> bool {
    let threads = || info::process(process::getpid() as u32).map(|p| p.threads);
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
    // Whichever word's list is locked first, it is so one way or the other.
    let back = raw(nr::FUTEX, [second, CMP_REQUEUE, 1, ALL, first, 0])?;
    let woken = sync::futex_wake(&FIRST, ALL as u32)?;
    let counts = [moved, left, back, woken];
    Ok(counts == [amount.threads, 0, amount.threads - 1, amount.threads - 2] && callers_end())
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

fn children_end_with_it(amount: &Amount) -> Result<bool, Errno> {
    let (read, write) = io::pipe(0)?;
    let parent = start(|| {
        let mut group = 0;
        for _ in 0..amount.processes {
            match process::fork() {
                Ok(0) => {
                    let _ = process::setpgid(0, group);
                    let _ = raw(nr::PRCTL, [pr::SET_PDEATHSIG as usize, sig::KILL as usize]);
                    let _ = io::write(write, &[1]);
                    loop {
                        time::sleep_ms(1000);
                    }
                }
                Ok(pid) if group == 0 => group = pid,
                Ok(_) => {}
                Err(_) => return 1,
            }
            let _ = io::read(read, &mut [0]);
        }
        (io::write(write, &group.to_ne_bytes()) != Ok(4)).into()
    })?;
    let ended = process::waitpid(parent);
    let mut group = [0; 4];
    io::read(read, &mut group)?;
    let group = i32::from_ne_bytes(group);
    Ok(ended == Ok(Status::Exited(0)) && until(|| process::kill(-group, 0) == Err(Errno::ESRCH)))
}

/// As many descriptors of a pipe with a byte in it; the last of them.
fn many_descriptors(count: usize) -> Result<i32, Errno> {
    process::prlimit(rlimit::NOFILE, Some(Rlimit { cur: 8192, max: 8192 }))?;
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

fn items_looked_at(amount: &Amount) -> Result<bool, Errno> {
    let last = many_descriptors(amount.descriptors)?;
    let set = raw(nr::EPOLL_CREATE1, [0])?;
    let event = EpollEvent { events: poll::IN.into(), pad: 0, data: 0 };
    let add = |fd: i32| raw(nr::EPOLL_CTL, [set, epoll::ADD as usize, fd as usize, &raw const event as usize]);
    (3..=last).for_each(|fd| _ = add(fd));
    io::read(last, &mut [0])?;
    let watched = PollFd { fd: set as i32, events: poll::IN, revents: 0 };
    let now = Timespec::default();
    let ready = raw(nr::PPOLL, [&raw const watched as usize, 1, &raw const now as usize, 0])?;
    Ok(ready == 0)
}

fn descriptors_copied(amount: &Amount) -> Result<bool, Errno> {
    many_descriptors(amount.descriptors)?;
    Ok(child(|| 0) == Ok(Status::Exited(0)))
}

fn descriptors_copied_beside(amount: &Amount) -> Result<bool, Errno> {
    static DONE: AtomicU32 = AtomicU32::new(0);
    let last = many_descriptors(amount.descriptors)?;
    let changer = thread::spawn(move || {
        while DONE.load(Relaxed) == 0 {
            let _ = io::close(last);
            let _ = io::dup(last - 1);
        }
    })?;
    let copied = (0..10).all(|_| child(|| (io::dup(last - 1).is_err()) as i32) == Ok(Status::Exited(0)));
    DONE.store(1, Relaxed);
    changer.join();
    Ok(copied)
}

fn far_descriptor_closed(amount: &Amount) -> Result<bool, Errno> {
    const HIGHEST: u64 = 1 << 20;
    process::prlimit(rlimit::NOFILE, Some(Rlimit { cur: HIGHEST, max: HIGHEST }))?;
    // (The table grows twice: the second time it has much to move.)
    io::dup3(0, amount.highest as i32 / 2 - 1, 0)?;
    io::dup3(0, amount.highest as i32, 0)?;
    let copied = child(|| (io::dup(amount.highest as i32) != Ok(3)) as i32) == Ok(Status::Exited(0));
    let closed = raw(nr::CLOSE_RANGE, [3, u32::MAX as usize, 0])?;
    Ok(copied && closed == 0 && io::dup(amount.highest as i32) == Err(Errno::EBADF))
}

fn handles_ended(amount: &Amount) -> Result<bool, Errno> {
    for _ in 0..amount.areas {
        raw(nr::QUIRE_ENDPOINT, [])?;
    }
    Ok(child(|| 0) == Ok(Status::Exited(0)))
}

/// Threads that sleep until somebody ends them.
fn idlers(amount: &Amount) -> Result<(), Errno> {
    callers(amount.threads, nr::FUTEX, [FIRST.as_ptr() as usize, WAIT, 0, 0, 0, 0])
}

fn blocked_signalled(amount: &Amount) -> Result<bool, Errno> {
    let set = signal::set(&[sig::USR1]);
    signal::mask(signal::How::Block, set)?;
    idlers(amount)?;
    process::kill(process::getpid(), sig::USR1)?;
    let was_pending = signal::pending()? & set != 0;
    // Goes through all of them as well.
    signal::ignore(sig::USR1)?;
    Ok(was_pending && signal::pending()? & set == 0)
}

const RT: u32 = 40;

/// Blocks signals of which the process may send itself `most`.
fn block_signals(most: usize) -> Result<(), Errno> {
    process::prlimit(rlimit::SIGPENDING, Some(Rlimit { cur: most as u64, max: most as u64 }))?;
    signal::mask(signal::How::Block, signal::set(&[RT, RT + 1]))?;
    Ok(())
}

fn signals_queued(amount: &Amount) -> Result<bool, Errno> {
    block_signals(amount.areas)?;
    for i in 0..amount.areas {
        signal::queue(process::getpid(), RT + i as u32 % 2, i as u64)?;
    }
    let last = signal::queue(process::getpid(), RT, 0);
    let first = signal::timed_wait(signal::set(&[RT + 1]), Some(0)).map(|info| info.fields[1]);
    signal::ignore(RT)?;
    // The others end with the process.
    Ok(last == Err(Errno::EAGAIN) && first == Ok(1) && signal::pending()? == signal::set(&[RT + 1]))
}

fn users_signalled(amount: &Amount) -> Result<bool, Errno> {
    let users = amount.areas / 4;
    block_signals(users)?;
    // Higher and lower ones take turns.
    for i in 0..users {
        let user = if i % 2 == 0 { 1_000_000 - i } else { 10_000 + i };
        raw(nr::SETRESUID, [user, 0, 0])?;
        signal::queue(process::getpid(), RT, i as u64)?;
    }
    signal::ignore(RT)?;
    Ok(signal::pending()? == 0)
}

/// The kernel and the server of /tmp both ask whether the caller is in the file's group.
fn groups_searched(amount: &Amount) -> Result<bool, Errno> {
    const USER: usize = 1000;
    const GROUPS: u32 = 65_536;
    let count = GROUPS.min(amount.areas as u32 * 4);
    let path = c"/tmp/latency";
    let file = fs::open(path, Open::CREAT | Open::RDWR)?;
    raw(nr::FCHMOD, [file as usize, 0o060])?;
    // From the highest to the lowest; the file is of group 0, which is not among them.
    let groups: alloc::vec::Vec<u32> = (1..=count).rev().collect();
    raw(nr::SETGROUPS, [groups.len(), groups.as_ptr() as usize])?;
    raw(nr::SETGID, [USER])?;
    raw(nr::SETRESUID, [USER, USER, 0])?;
    let refused = fs::open(path, Open::RDWR);
    raw(nr::SETRESUID, [0, 0, 0])?;
    raw(nr::FCHOWN, [file as usize, 0, 1])?;
    raw(nr::SETRESUID, [USER, USER, 0])?;
    let opened = fs::open(path, Open::RDWR);
    raw(nr::SETRESUID, [0, 0, 0])?;
    raw(nr::UNLINKAT, [at::FDCWD as usize, path.as_ptr() as usize, 0])?;
    Ok(refused == Err(Errno::EACCES) && opened.is_ok())
}

fn threads_stopped(amount: &Amount) -> Result<bool, Errno> {
    let (read, write) = io::pipe(0)?;
    let pid = start(|| {
        let made = idlers(amount).is_ok() && io::write(write, b"x") == Ok(1);
        time::sleep_ms(100_000);
        made as i32
    })?;
    io::read(read, &mut [0])?;
    let mut good = true;
    for _ in 0..3 {
        process::kill(pid, sig::STOP)?;
        let stopped = process::wait4(pid, wait::WUNTRACED)?.map(|changed| changed.status);
        process::kill(pid, sig::CONT)?;
        let went_on = process::wait4(pid, wait::WCONTINUED)?.map(|changed| changed.status);
        good &= stopped == Some(Status::Stopped(sig::STOP)) && went_on == Some(Status::Continued);
    }
    process::kill(pid, sig::KILL)?;
    Ok(good && process::waitpid(pid) == Ok(Status::Killed(sig::KILL)))
}

fn threads_replaced(amount: &Amount) -> Result<bool, Errno> {
    let become_another = || {
        let _ = idlers(amount);
        process::execve(c"/tests/latency", [c"latency", c"nothing"], []).get()
    };
    Ok(child(become_another) == Ok(Status::Exited(0)))
}

fn arguments_passed(_: &Amount) -> Result<bool, Errno> {
    const LONG: usize = 120_000;
    let long = CString::new([b'x'; LONG]).map_err(|_| Errno::EINVAL)?;
    let become_another = || {
        let arguments = [c"latency", c"nothing", &*long];
        process::execve(c"/tests/latency", arguments, [&*long]).get()
    };
    Ok(child(become_another) == Ok(Status::Exited(0)))
}

fn many_arguments_passed(amount: &Amount) -> Result<bool, Errno> {
    let become_another = || {
        let mut arguments = alloc::vec![c""; amount.areas];
        (arguments[0], arguments[1]) = (c"latency", c"nothing");
        process::execve(c"/tests/latency", arguments, alloc::vec![c""; amount.areas]).get()
    };
    Ok(child(become_another) == Ok(Status::Exited(0)))
}

fn hole_passed(amount: &Amount) -> Result<bool, Errno> {
    const PUNCH: usize = 3;
    const DATA: usize = 3;
    let len = amount.bytes * 16;
    let file = raw(nr::MEMFD_CREATE, [c"hole".as_ptr() as usize, 0])?;
    raw(nr::FTRUNCATE, [file, len + PAGE])?;
    raw(nr::FALLOCATE, [file, 0, 0, len + PAGE])?;
    raw(nr::FALLOCATE, [file, PUNCH, 0, len])?;
    Ok(raw(nr::LSEEK, [file, PAGE, DATA]) == Ok(len) && raw(nr::FALLOCATE, [file, PUNCH, 0, len]) == Ok(0))
}

fn threads_timed(amount: &Amount) -> Result<bool, Errno> {
    idlers(amount)?;
    let mut last = 0;
    Ok((0..10).all(|_| {
        let now = time::nanoseconds(clock::PROCESS_CPUTIME_ID);
        let grew = now > last;
        last = now;
        grew
    }))
}

fn timers_ring(amount: &Amount) -> Result<bool, Errno> {
    let at = time::monotonic() + amount.processes as u64 * 2_000_000;
    for _ in 0..amount.processes {
        start(|| {
            let left = at.saturating_sub(time::monotonic()).max(1000);
            let _ = time::set_alarm(left, 0);
            raw(nr::PPOLL, [0, 0, 0, 0]).is_ok().into()
        })?;
    }
    Ok((0..amount.processes).all(|_| process::waitpid(-1) == Ok(Status::Killed(sig::ALRM))))
}

fn group_waited_for(amount: &Amount) -> Result<bool, Errno> {
    let group = sleepers(amount.processes)?;
    let other = sleepers(1)?;
    let none = process::wait4(-1, wait::WNOHANG | wait::WUNTRACED | wait::WCONTINUED)?.is_none();
    process::kill(other, sig::KILL)?;
    let found = process::wait4(-other, wait::WUNTRACED)?.map(|changed| changed.pid);
    let no_other = process::wait4(-other, 0).map(|_| ()) == Err(Errno::ECHILD);
    process::kill(-group, sig::STOP)?;
    let stopped = (0..amount.processes).all(|_| {
        let changed = process::wait4(-group, wait::WUNTRACED).ok().flatten();
        changed.is_some_and(|changed| changed.status == Status::Stopped(sig::STOP))
    });
    process::kill(-group, sig::KILL)?;
    let ended = (0..amount.processes).all(|_| process::waitpid(-group) == Ok(Status::Killed(sig::KILL)));
    Ok(none && found == Some(other) && no_other && stopped && ended)
}

fn groups_made(amount: &Amount) -> Result<bool, Errno> {
    let group = sleepers(amount.processes)?;
    let session = child(|| (process::setsid() != Ok(process::getpid())) as i32) == Ok(Status::Exited(0));
    let joined = child(|| (process::setpgid(0, group) != Ok(())) as i32) == Ok(Status::Exited(0));
    let no_group = child(|| (process::setpgid(0, process::getppid()) != Err(Errno::EPERM)) as i32);
    process::kill(-group, sig::KILL)?;
    Ok(session && joined && no_group == Ok(Status::Exited(0)))
}

/// It asks whether the group is orphaned: the one that keeps it from that is its last member.
fn group_member_stopped(amount: &Amount) -> Result<bool, Errno> {
    let leader = start(|| {
        let _ = process::setpgid(0, 0);
        let made = (1..amount.processes).all(|_| start(|| raw(nr::PPOLL, [0, 0, 0, 0]).is_ok().into()).is_ok());
        let _ = process::kill(process::getpid(), sig::TSTP);
        (!made).into()
    })?;
    let stopped = process::wait4(leader, wait::WUNTRACED)?.map(|changed| changed.status);
    process::kill(-leader, sig::KILL)?;
    Ok(stopped == Some(Status::Stopped(sig::TSTP)))
}

/// Where it is, and its length.
fn shared_memory(amount: &Amount) -> Result<(usize, usize), Errno> {
    let len = amount.bytes * 4;
    let at = mmap(0, len, RW, Map::SHARED | Map::ANONYMOUS, -1, 0)?;
    (0..len).step_by(PAGE).for_each(|page| poke(at + page, 1));
    Ok((at, len))
}

fn shared_memory_counted(amount: &Amount) -> Result<bool, Errno> {
    let (at, len) = shared_memory(amount)?;
    let (mut from, mut resident) = (at, 0);
    while from < at + len {
        let part = info::area(0, from)?;
        resident += part.resident as usize;
        from = part.to as usize;
    }
    Ok(from == at + len && resident == len / PAGE)
}

/// The last pages of the blocks to which they belong: each merges with all the others of its block.
fn far_pages_freed(amount: &Amount) -> Result<bool, Errno> {
    const APART: usize = 256;
    const DONTNEED: usize = 4;
    let len = amount.bytes * 128;
    let at = mmap(0, len, RW, Map::PRIVATE | Map::ANONYMOUS | Map::POPULATE, -1, 0)?;
    for first in 0..APART {
        for page in (first * PAGE..len).step_by(APART * PAGE) {
            raw(nr::MADVISE, [at + page, PAGE, DONTNEED])?;
        }
    }
    Ok(true)
}

/// Pages that lie beside each other in memory do not in swap: each slot that is given up ends at another place.
fn swapped_pages_ended(amount: &Amount) -> Result<bool, Errno> {
    const APART: usize = 512;
    const PAGEOUT: usize = 21;
    let pages = amount.bytes / 256;
    let at = map(pages * PAGE, RW);
    (0..pages).for_each(|page| poke(at + page * PAGE, page as u8));
    for first in 0..APART {
        for page in (first..pages).step_by(APART) {
            raw(nr::MADVISE, [at + page * PAGE, PAGE, PAGEOUT])?;
        }
    }
    Ok(true)
}

fn shared_memory_ended(amount: &Amount) -> Result<bool, Errno> {
    let (at, len) = shared_memory(amount)?;
    munmap(at, len)?;
    Ok(true)
}

fn areas_ended(amount: &Amount) -> Result<bool, Errno> {
    long::many_areas(amount.areas)?;
    Ok(child(|| 0) == Ok(Status::Exited(0)))
}

/// The file has all of them in one tree.
fn same_page_unmapped(amount: &Amount) -> Result<bool, Errno> {
    let file = raw(nr::MEMFD_CREATE, [c"page".as_ptr() as usize, 0])?;
    raw(nr::FTRUNCATE, [file, PAGE])?;
    let (at, len) = (map(amount.areas * PAGE, RW), amount.areas * PAGE);
    for area in (at..at + len).step_by(PAGE) {
        mmap(area, PAGE, RW, Map::SHARED | Map::FIXED, file as i32, 0)?;
        poke(area, 1);
    }
    munmap(at, len)?;
    Ok(true)
}

/// Many areas, tables, and pages that several processes share.
fn books_compared(amount: &Amount) -> Result<bool, Errno> {
    let at = long::many_areas(amount.areas)?;
    (1..amount.areas).step_by(2).for_each(|page| poke(at + page * PAGE, 1));
    let (read, write) = io::pipe(0)?;
    let children = [(); 10].map(|()| start(|| drain(read, write).is_err().into()));
    children.iter().flatten().for_each(|child| _ = until_asleep(*child));
    let audit = info::books().and_then(|_| info::audit())?;
    io::close(write)?;
    let all_end = children.iter().all(|child| child.and_then(process::waitpid) == Ok(Status::Exited(0)));
    munmap(at, amount.areas * PAGE)?;
    // (They differ while pages leave and come back, and pages that have left are not compared.)
    let agrees = audit.unlisted == 0 && audit.miscounted == 0 && audit.entries >= amount.areas as u64 / 2;
    Ok(all_end && (agrees || user_tests::is_short()))
}

fn path_followed(_: &Amount) -> Result<bool, Errno> {
    // Nearly the longest that a path may be.
    let path = b"bin/../".repeat(4080 / 7);
    let path = alloc::ffi::CString::new([b"/", &path[..]].concat()).map_err(|_| Errno::EINVAL)?;
    Ok((0..4).all(|_| fs::open(&path, Open::empty()).is_ok()))
}
