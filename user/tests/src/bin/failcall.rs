//! failcall: memory runs out at every step of the calls that make processes, threads and open files, move bytes,
//! deliver signals and write to memory that is not present yet.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::ffi::CStr;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use quire_rt::abi::flags::{Clone, Open, Prot, sig};
use quire_rt::abi::info::{self, kind};
use quire_rt::abi::ipc::rights;
use quire_rt::abi::layout::{EpollEvent, PollFd, Sigaction, Timespec, at, epoll, poll, sa};
use quire_rt::abi::nr;
use quire_rt::arch::clone_thread;
use quire_rt::ipc::{self, Message, Patience, Received, Receiver, What};
use quire_rt::process::Status;
use quire_rt::start::auxv;
use quire_rt::{Errno, args, fs, io, process, signal};
use user_tests::failing::{Call, area, arm, is_available};
use user_tests::{Checks, PAGE, RW, all, asm, child, munmap, peek, poke, raw};

quire_rt::entry!(main);

/// The answer of a call whose pointer leads to memory that cannot be allocated.
const FAULT: &[Errno] = &[Errno::EFAULT];
const MEMORY: &[Errno] = &[Errno::ENOMEM];
const FAULT_OR_MEMORY: &[Errno] = &[Errno::EFAULT, Errno::ENOMEM];

/// This program's own path.
fn own() -> &'static CStr {
    match auxv(at::EXECFN) {
        // SAFETY: the kernel put a terminated string there.
        Some(path) if path != 0 => unsafe { CStr::from_ptr(path as *const core::ffi::c_char) },
        _ => c"/tests/failcall",
    }
}

fn main() -> i32 {
    if args().nth(1) == Some(c"armed") {
        // The failure armed before exec is still pending, unless it has happened since.
        return (arm(0) == 0) as i32;
    }
    let mut checks = Checks::new();
    if !is_available() {
        checks.skip("allocations that fail", "this kernel cannot be asked for them");
        return checks.finish();
    }
    processes(&mut checks);
    programs(&mut checks);
    descriptors(&mut checks);
    bytes(&mut checks);
    files(&mut checks);
    signals(&mut checks);
    faults(&mut checks);
    answers(&mut checks);
    messages(&mut checks);
    threads(&mut checks);
    checks.finish()
}

fn processes(checks: &mut Checks) {
    let at = area(4, RW);
    (0..4).for_each(|page| poke(at + page * PAGE, 7));
    let ended =
        |made: Result<usize, Errno>| made.map_or(true, |pid| process::waitpid(pid as i32) == Ok(Status::Exited(7)));
    Call { name: "fork", errnos: &[Errno::ENOMEM, Errno::EAGAIN], least: 20 }.check(
        checks,
        || (),
        |()| (nr::CLONE, [sig::CHLD as usize, 0, 0, 0, 0, 0]),
        |(), made| {
            if made == Ok(0) {
                (0..4).for_each(|page| poke(at + page * PAGE, 9));
                process::exit_now(7);
            }
            // The parent's pages are its own, whether there is a child or not.
            let sound = ended(made) && (0..4).all(|page| peek(at + page * PAGE) == 7);
            (0..4).for_each(|page| poke(at + page * PAGE, 7));
            sound
        },
    );
    let vfork = |n: u32| {
        arm(n);
        (Errno::from_ret(asm::vfork_exit(7)), arm(0))
    };
    Call { name: "vfork", errnos: &[Errno::ENOMEM, Errno::EAGAIN], least: 3 }.check_made(
        checks,
        || (),
        |(), n| vfork(n),
        |(), made| ended(made),
    );
    // The status of an ended child may be lost: its end is reported once.
    Call { name: "wait4", errnos: FAULT, least: 3 }.check(
        checks,
        || {
            let _ = user_tests::start(|| 0);
            area(1, RW)
        },
        |out| (nr::WAIT4, [usize::MAX, *out, 0, 0, 0, 0]),
        |out, _| munmap(out, PAGE).is_ok() && process::wait4(-1, 1).err() == Some(Errno::ECHILD),
    );
    let _ = munmap(at, 4 * PAGE);
}

static END: AtomicU32 = AtomicU32::new(0);

/// The threads of this test sleep until the end. They have no heap, and no thread pointer of their own.
extern "C" fn sleep(_: usize) -> ! {
    while END.load(Ordering::Acquire) == 0 {
        let _ = quire_rt::sync::futex_wait(&END, 0, None);
    }
    loop {
        let _ = raw(nr::EXIT, [0]);
    }
}

/// Makes a thread that sleeps on this stack.
fn start_thread(stack: usize) -> Result<usize, Errno> {
    let flags = Clone::VM | Clone::FS | Clone::FILES | Clone::SIGHAND | Clone::THREAD | Clone::SYSVSEM;
    let none = core::ptr::null_mut();
    // SAFETY: the page below the top is the thread's alone and is never unmapped; `sleep` does not return.
    Errno::from_ret(unsafe { clone_thread(flags.bits() as usize, stack + PAGE, none, 0, none, sleep, 0) })
}

/// A stack for a thread, with its page present.
fn stack() -> usize {
    let at = area(1, RW);
    poke(at + PAGE - 1, 0);
    at
}

/// All threads sleep until the end, and before each that may fail another one is made, so that no kernel stack is ready
/// to be used again.
fn threads(checks: &mut Checks) {
    for _ in 0..20 {
        let _ = start_thread(stack());
    }
    Call { name: "clone of a thread", errnos: &[Errno::ENOMEM, Errno::EAGAIN], least: 2 }.check_made(
        checks,
        || {
            let _ = start_thread(stack());
            stack()
        },
        |stack, n| {
            arm(n);
            (start_thread(*stack), arm(0))
        },
        |_, _| true,
    );
    END.store(1, Ordering::Release);
    let _ = quire_rt::sync::futex_wake(&END, u32::MAX);
}

fn programs(checks: &mut Checks) {
    let path = own();
    let argv = [path.as_ptr() as usize, c"armed".as_ptr() as usize, 0];
    let envp = [c"A=1".as_ptr() as usize, 0];
    let mut failures = 0;
    let mut wrong = None;
    for n in 1..500 {
        let status = child(|| {
            arm(n);
            let answer = raw(nr::EXECVE, [path.as_ptr() as usize, argv.as_ptr() as usize, envp.as_ptr() as usize]);
            let met = arm(0) == 0;
            if met && matches!(answer, Err(Errno::ENOMEM | Errno::EFAULT)) { 1 } else { 100 }
        });
        match status {
            Ok(Status::Exited(0)) => break,
            Ok(Status::Exited(1) | Status::Killed(sig::KILL)) => {}
            other => wrong = wrong.or(Some((n, other))),
        }
        failures = n;
    }
    checks.eq(wrong, None, "execve");
    checks.ok((20..499).contains(&failures), "it met failures");
}

/// A call that cannot be put aside stays where it is. Those that could are not answered before the end, so that their
/// handles need more and more memory.
fn messages(checks: &mut Checks) {
    let receiver = Receiver::new().expect("an endpoint for the test");
    let sender = receiver.sender(0).expect("a sender for the test");
    let _ = ipc::grant(sender.0, rights::SEND);
    let call = || {
        let client = user_tests::start(|| sender.call(&Message::new(1, &[])).map_or(1, |answer| answer.label as i32));
        let is_call = matches!(receiver.receive(Patience::Endless), Ok(Received { what: What::Call { .. }, .. }));
        (client.unwrap_or(0), is_call)
    };
    let mut clients = Vec::new();
    let mut sound = true;
    Call { name: "putting a call aside", errnos: MEMORY, least: 1 }.check_made(
        checks,
        call,
        |_, n| {
            arm(n);
            let saved = receiver.save(1).map(|reply| reply.0 as usize);
            (saved, arm(0))
        },
        |(client, is_call), saved| {
            let saved = saved.or_else(|_| receiver.save(1).map(|reply| reply.0 as usize));
            clients.push((client, saved));
            is_call && saved.is_ok()
        },
    );
    for (client, saved) in clients {
        let answered = saved.and_then(|number| ipc::Reply(number as u32).reply(&Message::new(7, &[])));
        sound &= answered.is_ok() && process::waitpid(client) == Ok(Status::Exited(7));
    }
    checks.ok(sound, "each is answered in the end");
    let _ = (ipc::close(sender.0), ipc::close(receiver.0));
}

/// The lowest descriptor that is free.
fn lowest() -> usize {
    let fd = raw(nr::DUP, [0]).unwrap_or(0);
    let _ = io::close(fd as i32);
    fd
}

fn is_open(fd: usize) -> bool {
    const GETFD: usize = 1;
    raw(nr::FCNTL, [fd, GETFD, 0]).is_ok()
}

/// Opens descriptors until the table, which grows in powers of two, is full at `size`; returns the first.
fn fill(size: usize) -> usize {
    let first = lowest();
    while let Ok(fd) = raw(nr::DUP, [0])
        && fd + 1 < size
    {}
    first
}

fn descriptors(checks: &mut Checks) {
    let path = own().as_ptr() as usize;
    let here = usize::MAX - 99;
    let to = 64;
    Call { name: "dup3", errnos: MEMORY, least: 1 }.check(
        checks,
        || (),
        |()| (nr::DUP3, [0, to, 0, 0, 0, 0]),
        |(), done| done.is_err() || io::close(to as i32).is_ok(),
    );
    // Each starts with the table as the previous one left it after it had succeeded.
    let calls: [(&str, usize, u32, usize, [usize; 6]); 3] = [
        ("openat", 128, 3, nr::OPENAT, [here, path, 0, 0, 0, 0]),
        ("dup", 256, 1, nr::DUP, [0; 6]),
        ("fcntl that duplicates", 512, 1, nr::FCNTL, [0; 6]),
    ];
    for (name, size, least, number, args) in calls {
        Call { name, errnos: MEMORY, least }.check(
            checks,
            || fill(size),
            |_| (number, args),
            |first, done| {
                let sound = done == Ok(size) || done.is_err() && !is_open(size);
                for fd in first..=size {
                    let _ = io::close(fd as i32);
                }
                sound
            },
        );
    }
    Call { name: "pipe2", errnos: &[Errno::ENFILE, Errno::EFAULT], least: 6 }.check(
        checks,
        || (lowest(), area(1, RW)),
        |(_, out)| (nr::PIPE2, [*out, 0, 0, 0, 0, 0]),
        |(free, out), done| {
            if done.is_ok() {
                let _ = (io::close(free as i32), io::close(free as i32 + 1));
            }
            munmap(out, PAGE).is_ok() && lowest() == free
        },
    );
}

/// A pipe with `len` bytes in it.
fn pipe_with(len: usize) -> (i32, i32) {
    let (read, write) = io::pipe(Open::NONBLOCK.bits()).expect("a pipe for the test");
    let _ = io::write(write, &[7; 600][..len]);
    (read, write)
}

/// How many bytes are in a pipe, which ends.
fn drained((read, write): (i32, i32)) -> usize {
    let mut buffer = [0; 1024];
    let n = io::read(read, &mut buffer).unwrap_or(0);
    let _ = io::close(read);
    let _ = io::close(write);
    if buffer[..n].iter().all(|byte| *byte == 7) { n } else { usize::MAX }
}

fn bytes(checks: &mut Checks) {
    Call { name: "read of a pipe", errnos: FAULT, least: 3 }.check(
        checks,
        || (pipe_with(300), area(1, RW)),
        |((read, _), out)| (nr::READ, [*read as usize, *out, 300, 0, 0, 0]),
        |(pipe, out), done| {
            // No byte is lost.
            let left = drained(pipe);
            let sound = done.map_or(left == 300, |n| n == 300 && left == 0 && all(out, n, 7));
            munmap(out, PAGE).is_ok() && sound
        },
    );
    let source = area(1, RW);
    (0..600).for_each(|i| poke(source + i, 7));
    for (name, len, least) in [("write to a pipe", 200, 1), ("write of many bytes to a pipe", 600, 1)] {
        Call { name, errnos: MEMORY, least }.check(
            checks,
            || pipe_with(0),
            |(_, write)| (nr::WRITE, [*write as usize, source, len, 0, 0, 0]),
            |pipe, done| drained(pipe) == done.unwrap_or(0),
        );
    }
    let vector = [source, 100, source, 200];
    Call { name: "writev to a pipe", errnos: MEMORY, least: 1 }.check(
        checks,
        || pipe_with(0),
        |(_, write)| (nr::WRITEV, [*write as usize, vector.as_ptr() as usize, 2, 0, 0, 0]),
        |pipe, done| drained(pipe) == done.unwrap_or(0),
    );
    Call { name: "write of bytes that are not there yet", errnos: FAULT_OR_MEMORY, least: 3 }.check(
        checks,
        || (pipe_with(0), area(1, RW)),
        |((_, write), from)| (nr::WRITE, [*write as usize, *from, 100, 0, 0, 0]),
        |((read, write), from), _| {
            let _ = (io::close(read), io::close(write));
            munmap(from, PAGE).is_ok()
        },
    );
    let file = quire_rt::fs::open(own(), Open::empty()).expect("this program's file") as usize;
    Call { name: "sendfile to a pipe", errnos: MEMORY, least: 1 }.check(
        checks,
        || pipe_with(0),
        |(_, write)| (nr::SENDFILE, [*write as usize, file, 0, 300, 0, 0]),
        |(read, write), done| {
            let sound = io::read(read, &mut [0; 400]).unwrap_or(0) == done.unwrap_or(0);
            let _ = (io::close(read), io::close(write));
            sound
        },
    );
    let _ = io::close(file as i32);
    let _ = munmap(source, PAGE);
}

/// How many faults there were; the code and the address of the last one.
static FAULTS: AtomicU32 = AtomicU32::new(0);
static CODE: AtomicU32 = AtomicU32::new(0);
static ADDRESS: AtomicU64 = AtomicU64::new(0);

/// Records what is known of a fault, and makes the page there writable, so that the store is repeated.
extern "C" fn on_fault(_: i32, info: *const signal::Info, _: *mut u8) {
    // SAFETY: the kernel hands the record of a fault.
    let (code, address) = unsafe { ((*info).code, (*info).addr) };
    CODE.store(code as u32, Ordering::Release);
    ADDRESS.store(address as u64, Ordering::Release);
    arm(0);
    FAULTS.fetch_add(1, Ordering::Release);
    let _ = user_tests::mprotect(address & !(PAGE - 1), PAGE, RW);
}

/// The record of a fault is there whether there is memory or not.
fn faults(checks: &mut Checks) {
    const ACCERR: u32 = 2;
    let run = |n: u32| {
        // (A user who has no other signals pending.)
        let is_other = raw(nr::SETUID, [7000]).is_ok() && signal::handle(sig::SEGV, on_fault, 0, 0).is_ok();
        let at = area(1, RW);
        poke(at, 1);
        let _ = user_tests::mprotect(at, PAGE, Prot::READ);
        CODE.store(0, Ordering::Release);
        // (The allocation that fails is the first, second or third one after the store has faulted.)
        arm(n);
        poke(at, 2);
        let known = (CODE.load(Ordering::Acquire), ADDRESS.load(Ordering::Acquire)) == (ACCERR, at as u64);
        (is_other && known && FAULTS.load(Ordering::Acquire) == 1 && peek(at) == 2) as i32
    };
    (1..4).for_each(|n| checks.exits(|| run(n), 1, "what a handler learns of a fault"));
}

extern "C" fn on_signal(_: i32, _: *const signal::Info, _: *mut u8) {
    HANDLED.store(1, Ordering::Release);
}

static HANDLED: AtomicU32 = AtomicU32::new(0);

fn memfd() -> i32 {
    raw(nr::MEMFD_CREATE, [c"".as_ptr() as usize, 0]).map_or(-1, |fd| fd as i32)
}

/// How long a file is, and how many pages it has; it is closed.
fn extent(fd: i32) -> (usize, usize) {
    let stat = fs::fstat(fd).unwrap_or_default();
    let _ = io::close(fd);
    (stat.size as usize, stat.blocks as usize / (PAGE / 512))
}

fn files(checks: &mut Checks) {
    const PAGES: usize = 8;
    Call { name: "memfd_create", errnos: MEMORY, least: 3 }.check(
        checks,
        || (),
        |()| (nr::MEMFD_CREATE, [c"".as_ptr() as usize, 0, 0, 0, 0, 0]),
        |(), made| made.is_err() || io::close(made.unwrap_or(0) as i32).is_ok(),
    );
    let from = area(PAGES, RW);
    (0..PAGES).for_each(|page| poke(from + page * PAGE, 7));
    // What was written before the failure counts.
    Call { name: "write to a file in memory", errnos: MEMORY, least: PAGES as u32 }.check(
        checks,
        memfd,
        |fd| (nr::PWRITE64, [*fd as usize, from, PAGES * PAGE, 0, 0, 0]),
        |fd, done| {
            let n = done.unwrap_or(0);
            extent(fd) == (n, n / PAGE) && n.is_multiple_of(PAGE)
        },
    );
    Call { name: "fallocate", errnos: MEMORY, least: PAGES as u32 }.check(
        checks,
        memfd,
        |fd| (nr::FALLOCATE, [*fd as usize, 0, 0, PAGES * PAGE, 0, 0]),
        |fd, done| match extent(fd) {
            (0, pages) => done.is_err() && pages < PAGES,
            (len, pages) => done.is_ok() && (len, pages) == (PAGES * PAGE, PAGES),
        },
    );
    Call { name: "read of a file in memory", errnos: FAULT, least: 1 }.check(
        checks,
        || {
            let fd = memfd();
            let _ = raw(nr::PWRITE64, [fd as usize, from, 2 * PAGE, 0]);
            (fd, area(2, RW))
        },
        |(fd, to)| (nr::PREAD64, [*fd as usize, *to, 2 * PAGE, 0, 0, 0]),
        |(fd, to), done| {
            let n = done.unwrap_or(0);
            let right = (0..n.div_ceil(PAGE)).all(|page| peek(to + page * PAGE) == 7);
            right && munmap(to, 2 * PAGE).is_ok() && io::close(fd).is_ok()
        },
    );
    let _ = munmap(from, PAGES * PAGE);
}

fn signals(checks: &mut Checks) {
    let stack = || area(8, RW);
    let deliver = |stack: &usize| {
        // ss_sp, ss_flags, ss_size.
        let alternate = [*stack, 0, 8 * PAGE];
        let set = raw(nr::SIGALTSTACK, [alternate.as_ptr() as usize, 0]);
        let tid = process::gettid() as usize;
        let sent = raw(nr::TGKILL, [process::getpid() as usize, tid, sig::USR1 as usize]);
        set.is_ok() && sent.is_ok() && HANDLED.load(Ordering::Acquire) == 1
    };
    let handled = signal::handle(sig::USR1, on_signal, sa::ONSTACK, 0);
    checks.ok(handled.is_ok(), "there is a handler");
    Call { name: "a handler on a stack that is not there yet", errnos: &[], least: 4 }.or_dies(checks, stack, deliver);
    let _ = signal::default(sig::USR1);
}

/// Calls that write to a page that is not present yet: EFAULT, or the error of another allocation.
fn answers(checks: &mut Checks) {
    let here = usize::MAX - 99;
    let path = own().as_ptr() as usize;
    let folder = quire_rt::fs::open(c"/tests", Open::DIRECTORY).unwrap_or(-1) as usize;
    let file = quire_rt::fs::open(own(), Open::empty()).unwrap_or(-1) as usize;
    let past = Timespec { sec: 0, nsec: 1 };
    let past = &raw const past as usize;
    let action = Sigaction::default();
    let action = &raw const action as usize;
    let control = quire_rt::handles::control() as usize;
    const OUT: usize = usize::MAX - 1;
    let table: &[(&str, usize, [usize; 6], &[Errno])] = &[
        ("read of a file", nr::READ, [file, OUT, 100, 0, 0, 0], FAULT),
        ("pread64", nr::PREAD64, [file, OUT, 100, 0, 0, 0], FAULT),
        ("getdents64", nr::GETDENTS64, [folder, OUT, 600, 0, 0, 0], FAULT_OR_MEMORY),
        ("newfstatat", nr::NEWFSTATAT, [here, path, OUT, 0, 0, 0], FAULT_OR_MEMORY),
        ("fstat", nr::FSTAT, [file, OUT, 0, 0, 0, 0], FAULT),
        ("readlinkat", nr::READLINKAT, [here, path, OUT, 100, 0, 0], MEMORY),
        ("faccessat", nr::FACCESSAT, [here, path, 0, 0, 0, 0], MEMORY),
        ("chdir", nr::CHDIR, [c"/".as_ptr() as usize, 0, 0, 0, 0, 0], MEMORY),
        ("getcwd", nr::GETCWD, [OUT, 100, 0, 0, 0, 0], FAULT_OR_MEMORY),
        ("ppoll", nr::PPOLL, [OUT, 16, past, 0, 8, 0], FAULT_OR_MEMORY),
        ("futex", nr::FUTEX, [OUT, 128, 1, past, 0, 0], FAULT),
        ("futex, shared", nr::FUTEX, [OUT, 0, 1, past, 0, 0], FAULT),
        ("nanosleep", nr::NANOSLEEP, [OUT, OUT, 0, 0, 0, 0], FAULT),
        ("clock_nanosleep", nr::CLOCK_NANOSLEEP, [1, 0, OUT, 0, 0, 0], FAULT),
        ("clock_gettime", nr::CLOCK_GETTIME, [1, OUT, 0, 0, 0, 0], FAULT),
        ("clock_getres", nr::CLOCK_GETRES, [1, OUT, 0, 0, 0, 0], FAULT),
        ("gettimeofday", nr::GETTIMEOFDAY, [OUT, 0, 0, 0, 0, 0], FAULT),
        ("rt_sigaction", nr::RT_SIGACTION, [sig::USR2 as usize, action, OUT, 8, 0, 0], FAULT),
        ("rt_sigprocmask", nr::RT_SIGPROCMASK, [0, 0, OUT, 8, 0, 0], FAULT),
        ("rt_sigpending", nr::RT_SIGPENDING, [OUT, 8, 0, 0, 0, 0], FAULT),
        ("sigaltstack", nr::SIGALTSTACK, [0, OUT, 0, 0, 0, 0], FAULT),
        ("getrusage", nr::GETRUSAGE, [0, OUT, 0, 0, 0, 0], FAULT),
        ("prlimit64", nr::PRLIMIT64, [0, 7, 0, OUT, 0, 0], FAULT),
        ("getrlimit", nr::GETRLIMIT, [7, OUT, 0, 0, 0, 0], FAULT),
        ("uname", nr::UNAME, [OUT, 0, 0, 0, 0, 0], FAULT),
        ("sysinfo", nr::SYSINFO, [OUT, 0, 0, 0, 0, 0], FAULT),
        ("getrandom", nr::GETRANDOM, [OUT, 100, 0, 0, 0, 0], FAULT),
        ("sched_getaffinity", nr::SCHED_GETAFFINITY, [0, 8, OUT, 0, 0, 0], FAULT),
        ("getcpu", nr::GETCPU, [OUT, 0, 0, 0, 0, 0], FAULT),
        ("mincore", nr::MINCORE, [path & !(PAGE - 1), PAGE, OUT, 0, 0, 0], &[Errno::EFAULT, Errno::EAGAIN]),
        ("the kernel's facts", nr::QUIRE_INFO, [kind::SYSTEM, 0, OUT, SYSTEM, 0, 0], FAULT),
        ("the kernel's log", nr::QUIRE_LOG, [OUT, 100, 0, 0, 0, 0], FAULT),
        ("the kernel's books", nr::QUIRE_BOOKS, [control, OUT, BOOKS, 0, 0, 0], FAULT),
        ("the kernel's comparison", nr::QUIRE_AUDIT, [control, OUT, AUDIT, 0, 0, 0], FAULT),
    ];
    for (name, number, args, errnos) in table {
        let least = if args.contains(&OUT) && *number != nr::READLINKAT { 2 } else { 1 };
        Call { name, errnos, least }.check_made(
            checks,
            || area(1, RW),
            |out, n| {
                let (ret, left) = asm::call_armed(n, *number, args.map(|arg| if arg == OUT { *out } else { arg }));
                match Errno::from_ret(ret) {
                    // These fail even with memory: the path is not a link, the word is not 1.
                    Err(Errno::EINVAL) if *number == nr::READLINKAT => (Ok(0), left),
                    Err(Errno::EAGAIN) if *number == nr::FUTEX => (Ok(0), left),
                    answer => (answer, left),
                }
            },
            |out, _| munmap(out, PAGE).is_ok(),
        );
    }
    let _ = (io::close(folder as i32), io::close(file as i32));
    let (read, write) = io::pipe(0).expect("a pipe for the test");
    let mut watched = [PollFd { fd: read, events: poll::IN, revents: 0 }; 40];
    let soon = Timespec { sec: 0, nsec: 1 };
    Call { name: "ppoll that waits", errnos: MEMORY, least: 2 }.check(
        checks,
        || (),
        |()| (nr::PPOLL, [watched.as_mut_ptr() as usize, 40, &raw const soon as usize, 0, 8, 0]),
        |(), _| true,
    );
    let set = raw(nr::EPOLL_CREATE1, [0]).expect("an epoll for the test");
    let event = EpollEvent { events: poll::IN.into(), pad: 0, data: 0 };
    let control = |what: i32| (nr::EPOLL_CTL, [set, what as usize, read as usize, &raw const event as usize, 0, 0]);
    Call { name: "epoll_ctl", errnos: MEMORY, least: 1 }.check(
        checks,
        || (),
        |()| control(epoll::ADD),
        |(), done| {
            let (number, args) = control(epoll::DEL);
            raw(number, args).is_ok() == done.is_ok()
        },
    );
    [read, write, set as i32].iter().for_each(|fd| _ = io::close(*fd));
    for (name, number, least) in [("epoll_create1", nr::EPOLL_CREATE1, 2), ("eventfd2", nr::EVENTFD2, 2)] {
        Call { name, errnos: MEMORY, least }.check(
            checks,
            || (),
            |()| (number, [0; 6]),
            |(), done| done.is_err() || done.is_ok_and(|fd| io::close(fd as i32).is_ok()),
        );
    }
}

const SYSTEM: usize = size_of::<info::SystemInfo>();
const BOOKS: usize = size_of::<info::Books>();
const AUDIT: usize = size_of::<info::MapAudit>();
