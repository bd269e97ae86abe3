//! locks: record locks of processes and of open files, and flock.

#![no_std]
#![no_main]

use quire_rt::abi::flags::{Clone, Open, sig};
use quire_rt::abi::locks::command::{GETLEASE, GETLK, OFD_GETLK, OFD_SETLK, OFD_SETLKW, SETLEASE, SETLK, SETLKW};
use quire_rt::abi::locks::operation::{EX, MAND, NB, SH, UN};
use quire_rt::abi::locks::{FileLock, RDLCK, UNLCK, WRLCK};
use quire_rt::abi::nr;
use quire_rt::process::{self, Status};
use quire_rt::{Errno, fs, io, signal, thread, time};
use user_tests::files::{create, open, remove};
use user_tests::{Checks, KERNEL, child, raw, start, until_asleep};

quire_rt::entry!(main);

const NAME: &core::ffi::CStr = c"/tmp/locks.test";
const OTHER: &core::ffi::CStr = c"/tmp/locks.other";

fn main() -> i32 {
    let mut checks = Checks::new();
    if quire_rt::args().nth(1).is_some_and(|word| word.to_bytes() == b"held") {
        return held();
    }
    create(NAME, &[7; 100]);
    create(OTHER, &[7; 100]);
    arguments(&mut checks);
    ranges(&mut checks);
    many(&mut checks);
    closing(&mut checks);
    sharing(&mut checks);
    waiting(&mut checks);
    circles(&mut checks);
    open_files(&mut checks);
    whole_files(&mut checks);
    kinds(&mut checks);
    let _ = (remove(NAME, 0), remove(OTHER, 0));
    checks.finish()
}

fn opened() -> i32 {
    open(NAME, Open::RDWR, 0).expect("the file")
}

fn lock_at(kind: i16, start: i64, len: i64) -> FileLock {
    FileLock { kind, start, len, ..FileLock::default() }
}

fn fcntl(fd: i32, command: u32, lock: &mut FileLock) -> Result<usize, Errno> {
    raw(nr::FCNTL, [fd as usize, command as usize, core::ptr::from_mut(lock).addr()])
}

fn set(fd: i32, kind: i16, start: i64, len: i64) -> Result<usize, Errno> {
    fcntl(fd, SETLK, &mut lock_at(kind, start, len))
}

fn set_later(fd: i32, kind: i16, start: i64, len: i64) -> Result<usize, Errno> {
    fcntl(fd, SETLKW, &mut lock_at(kind, start, len))
}

fn set_of_file(fd: i32, kind: i16, start: i64, len: i64) -> Result<usize, Errno> {
    fcntl(fd, OFD_SETLK, &mut lock_at(kind, start, len))
}

fn flock(fd: i32, operation: u32) -> Result<usize, Errno> {
    raw(nr::FLOCK, [fd as usize, operation as usize])
}

/// What is in the way of an exclusive lock of another process from `start` on: kind, place, length, and whether it is
/// this process's.
fn seen_by_another(start: i64, len: i64) -> (i16, i64, i64, bool) {
    let me = process::getpid();
    let (from, to) = io::pipe(0).expect("a pipe");
    let other = user_tests::start(|| {
        let mut lock = lock_at(WRLCK, start, len);
        let done = fcntl(opened(), GETLK, &mut lock);
        let words = [lock.kind as i64, lock.start, lock.len, (lock.pid == me) as i64];
        let bytes = words.map(i64::to_ne_bytes);
        let written = io::write_all(to, bytes.as_flattened());
        (done.is_err() || written.is_err()) as i32
    });
    let mut bytes = [[0; 8]; 4];
    let _ = io::read(from, bytes.as_flattened_mut());
    let _ = (other.and_then(process::waitpid), io::close(from), io::close(to));
    let [kind, start, len, is_mine] = bytes.map(i64::from_ne_bytes);
    (kind as i16, start, len, is_mine != 0)
}

/// What another process gets that tries to set a lock.
fn tried_by_another(kind: i16, start: i64, len: i64) -> i32 {
    let status = child(|| match set(opened(), kind, start, len) {
        Ok(_) => 0,
        Err(e) => e.get(),
    });
    if let Ok(Status::Exited(code)) = status { code.into() } else { -1 }
}

const AGAIN: i32 = Errno::EAGAIN.get();

fn arguments(checks: &mut Checks) {
    let fd = opened();
    checks.fails(set(-1, WRLCK, 0, 1), Errno::EBADF, "no descriptor");
    checks.fails(set(fd, 7, 0, 1), Errno::EINVAL, "no kind of lock");
    checks.fails(set(fd, WRLCK, -1, 1), Errno::EINVAL, "a place before the file");
    checks.fails(set(fd, WRLCK, 5, -6), Errno::EINVAL, "and one that reaches there");
    checks.fails(set(fd, WRLCK, 2, i64::MAX), Errno::EOVERFLOW, "beyond all files");
    checks.eq(set(fd, WRLCK, 1, i64::MAX), Ok(0), "the last byte that there can be");
    checks.fails(fcntl(fd, SETLK, &mut FileLock { whence: 3, ..lock_at(WRLCK, 0, 1) }), Errno::EINVAL, "from nowhere");
    checks.fails(raw(nr::FCNTL, [fd as usize, SETLK as usize, KERNEL]), Errno::EFAULT, "a bad address");
    checks.fails(fcntl(fd, GETLK, &mut lock_at(UNLCK, 0, 1)), Errno::EINVAL, "a look for no lock");
    let mut lock = lock_at(WRLCK, 0, 1);
    checks.eq((fcntl(fd, GETLK, &mut lock), lock.kind), (Ok(0), UNLCK), "one's own lock is not in the way");
    let reader = open(NAME, Open::empty(), 0).unwrap_or(-1);
    let writer = open(NAME, Open::WRONLY, 0).unwrap_or(-1);
    checks.fails(set(reader, WRLCK, 0, 1), Errno::EBADF, "an exclusive lock is for writers");
    checks.fails(set(writer, RDLCK, 0, 1), Errno::EBADF, "and a shared one for readers");
    let name = open(NAME, Open::PATH, 0).unwrap_or(-1);
    checks.fails(set(name, UNLCK, 0, 1), Errno::EBADF, "a name cannot be locked");
    checks.fails(flock(name, SH), Errno::EBADF, "in no way");
    checks.eq(raw(nr::FCNTL, [fd as usize, GETLEASE as usize, 0]), Ok(UNLCK as usize), "nobody has a lease");
    checks.fails(raw(nr::FCNTL, [fd as usize, SETLEASE as usize, RDLCK as usize]), Errno::EINVAL, "or gets one");
    checks.fails(flock(fd, 0), Errno::EINVAL, "no operation");
    checks.fails(flock(fd, SH | EX), Errno::EINVAL, "two of them");
    checks.eq(flock(fd, MAND | SH), Ok(0), "one that Linux ignores");
    checks.fails(flock(-1, SH), Errno::EBADF, "no file");
    let _ = [fd, reader, writer, name].map(io::close);
}

fn ranges(checks: &mut Checks) {
    let fd = opened();
    checks.eq(set(fd, WRLCK, 10, 30), Ok(0), "bytes 10 to 39");
    checks.eq(seen_by_another(0, 0), (WRLCK, 10, 30, true), "others see that");
    checks.eq(seen_by_another(40, 0).0, UNLCK, "and nothing behind");
    checks.eq((tried_by_another(RDLCK, 39, 1), tried_by_another(RDLCK, 40, 1)), (AGAIN, 0), "and are kept out");
    checks.eq(set(fd, UNLCK, 20, 5), Ok(0), "a hole");
    checks.eq(
        (seen_by_another(0, 0), seen_by_another(20, 0)),
        ((WRLCK, 10, 10, true), (WRLCK, 25, 15, true)),
        "two parts",
    );
    checks.eq(tried_by_another(WRLCK, 20, 5), 0, "the hole is free");
    checks.eq(set(fd, RDLCK, 15, 20), Ok(0), "shared across it");
    checks.eq(seen_by_another(0, 0), (WRLCK, 10, 5, true), "the first part");
    checks.eq(seen_by_another(15, 0), (RDLCK, 15, 20, true), "the new one");
    checks.eq(seen_by_another(35, 0), (WRLCK, 35, 5, true), "the last");
    checks.eq((tried_by_another(RDLCK, 15, 20), tried_by_another(WRLCK, 20, 1)), (0, AGAIN), "a shared part is shared");
    checks.eq(set(fd, WRLCK, 15, 20), Ok(0), "exclusive again");
    checks.eq(seen_by_another(0, 0), (WRLCK, 10, 30, true), "it is one");
    checks.eq((set(fd, WRLCK, 40, 0), seen_by_another(0, 0)), (Ok(0), (WRLCK, 10, 0, true)), "neighbours are one, too");
    checks.eq(set(fd, UNLCK, 50, -10), Ok(0), "a range before its place");
    checks.eq(
        (seen_by_another(30, 0), seen_by_another(40, 0)),
        ((WRLCK, 10, 30, true), (WRLCK, 50, 0, true)),
        "bytes 40 to 49",
    );
    let _ = (set(fd, UNLCK, 0, 0), fs::lseek(fd, 60, 0));
    let from = |whence, start| FileLock { whence, ..lock_at(WRLCK, start, 1) };
    checks.eq(fcntl(fd, SETLK, &mut from(1, 3)), Ok(0), "from the position");
    checks.eq(fcntl(fd, SETLK, &mut from(2, -30)), Ok(0), "from the end");
    checks.eq(
        (seen_by_another(0, 0), seen_by_another(64, 0)),
        ((WRLCK, 63, 1, true), (WRLCK, 70, 1, true)),
        "so they are",
    );
    let _ = io::close(fd);
}

fn many(checks: &mut Checks) {
    const COUNT: i64 = 2000;
    let fd = opened();
    let all = (0..COUNT).all(|i| set(fd, WRLCK, i * 2, 1).is_ok());
    checks.ok(all, "a lock on every second byte");
    checks.eq(seen_by_another(COUNT, 0), (WRLCK, COUNT, 1, true), "each by itself");
    checks.eq((tried_by_another(WRLCK, 501, 1), tried_by_another(WRLCK, 502, 1)), (0, AGAIN), "and free between them");
    checks.eq(
        (set(fd, WRLCK, 0, COUNT * 2), seen_by_another(0, 0)),
        (Ok(0), (WRLCK, 0, COUNT * 2, true)),
        "one for all",
    );
    let _ = (set(fd, UNLCK, 0, 0), io::close(fd));
}

fn closing(checks: &mut Checks) {
    let (fd, second) = (opened(), opened());
    let _ = set(fd, WRLCK, 0, 10);
    let _ = io::close(second);
    checks.eq(tried_by_another(WRLCK, 0, 10), 0, "any close of the file unlocks it");
    let _ = (set(fd, WRLCK, 0, 10), io::dup(fd).map(io::close));
    checks.eq(tried_by_another(WRLCK, 0, 10), 0, "of a copy, too");
    let third = opened();
    let _ = (set(fd, WRLCK, 0, 10), io::dup3(1, third, 0));
    checks.eq(tried_by_another(WRLCK, 0, 10), 0, "also by dup3");
    let _ = (set(fd, WRLCK, 0, 10), raw(nr::CLOSE_RANGE, [third as usize, third as usize, 0]));
    checks.eq(tried_by_another(WRLCK, 0, 10), AGAIN, "but not of another file");
    let _ = raw(nr::CLOSE_RANGE, [fd as usize, fd as usize, 0]);
    checks.eq(tried_by_another(WRLCK, 0, 10), 0, "and by close_range");
    let other = start(|| {
        let _ = set(opened(), WRLCK, 0, 10);
        time::sleep_ms(100_000);
        0
    });
    let other = other.unwrap_or(-1);
    until_asleep(other);
    let fd = opened();
    checks.fails(set(fd, WRLCK, 0, 1), Errno::EAGAIN, "another process has it");
    let _ = (process::kill(other, sig::KILL), process::waitpid(other));
    checks.eq(set(fd, WRLCK, 0, 1), Ok(0), "until it ends");
    let _ = io::close(fd);
}

/// fork, exec and shared tables.
fn sharing(checks: &mut Checks) {
    let fd = opened();
    let _ = set(fd, WRLCK, 0, 10);
    checks.exits(|| set(fd, WRLCK, 0, 10).err().map_or(0, Errno::get), AGAIN as u8, "a child has no locks");
    checks.exits(
        || {
            let _ = io::close(fd);
            0
        },
        0,
        "and unlocks nothing when it closes",
    );
    checks.eq(tried_by_another(WRLCK, 0, 1), AGAIN, "so they are there");
    let _ = io::close(fd);
    // A thread with the same descriptors, and a process with them.
    let fd = opened();
    thread::spawn(move || _ = set(fd, WRLCK, 0, 10)).expect("a thread").join();
    checks.eq((set(fd, WRLCK, 0, 10), tried_by_another(RDLCK, 0, 1)), (Ok(0), AGAIN), "threads have the same locks");
    let _ = set(fd, UNLCK, 0, 0);
    let shares = raw(nr::CLONE, [(Clone::FILES.bits() | u64::from(sig::CHLD)) as usize, 0, 0, 0, 0]);
    if shares == Ok(0) {
        process::exit_now(set(fd, WRLCK, 0, 10).is_err() as i32);
    }
    let _ = shares.map(|pid| process::waitpid(pid as i32));
    checks.eq(tried_by_another(WRLCK, 0, 1), AGAIN, "the locks of a table live as long as it does");
    let _ = io::close(fd);
    // A new program.
    let me = quire_rt::args().next().unwrap_or(c"");
    let pid = start(|| {
        let kept = opened();
        let closed = open(OTHER, Open::RDWR | Open::CLOEXEC, 0).unwrap_or(-1);
        let set = (set(kept, WRLCK, 0, 10), set(closed, WRLCK, 0, 10));
        if set != (Ok(0), Ok(0)) {
            return 1;
        }
        let _ = process::execve(me, [me, c"held"], []);
        2
    });
    let pid = pid.unwrap_or(-1);
    until_asleep(pid);
    time::sleep_ms(10);
    until_asleep(pid);
    checks.eq(tried_by_another(WRLCK, 0, 10), AGAIN, "exec keeps locks");
    let other = open(OTHER, Open::RDWR, 0).unwrap_or(-1);
    checks.eq(set(other, WRLCK, 0, 10), Ok(0), "but of files that it closes");
    let _ = (process::kill(pid, sig::KILL), process::waitpid(pid), io::close(other));
    checks.eq(tried_by_another(WRLCK, 0, 10), 0, "they end with the new program");
}

/// The program of [`sharing`], which has locks from before.
fn held() -> i32 {
    time::sleep_ms(100_000);
    0
}

extern "C" fn nothing(_: i32, _: *const signal::Info, _: *mut u8) {}

fn waiting(checks: &mut Checks) {
    let fd = opened();
    let _ = set(fd, WRLCK, 0, 10);
    let waiter = start(|| {
        let fd = opened();
        set_later(fd, WRLCK, 5, 10).is_err() as i32 | (set(fd, RDLCK, 0, 5).is_ok() as i32) << 1
    });
    let waiter = waiter.unwrap_or(-1);
    until_asleep(waiter);
    let _ = set(fd, RDLCK, 0, 5);
    time::sleep_ms(5);
    let _ = set(fd, UNLCK, 5, 5);
    checks.eq(process::waitpid(waiter), Ok(Status::Exited(2)), "a waiter goes on when its range is free");
    let reader = start(|| set_later(opened(), RDLCK, 0, 10).is_err() as i32).unwrap_or(-1);
    checks.eq(process::waitpid(reader), Ok(Status::Exited(0)), "a shared lock needs not wait");
    let _ = set(fd, WRLCK, 0, 10);
    let reader = start(|| set_later(opened(), RDLCK, 0, 10).is_err() as i32).unwrap_or(-1);
    until_asleep(reader);
    let _ = set(fd, RDLCK, 0, 10);
    checks.eq(process::waitpid(reader), Ok(Status::Exited(0)), "a weaker lock lets it go on");
    let _ = set(fd, WRLCK, 0, 10);
    let killed = start(|| set_later(opened(), WRLCK, 0, 10).is_err() as i32).unwrap_or(-1);
    until_asleep(killed);
    let _ = process::kill(killed, sig::KILL);
    checks.eq(process::waitpid(killed), Ok(Status::Killed(sig::KILL)), "a waiter can be killed");
    let interrupted = start(|| {
        let _ = signal::handle(sig::USR1, nothing, 0, 0);
        set_later(opened(), WRLCK, 0, 10).err().map_or(0, Errno::get)
    });
    let interrupted = interrupted.unwrap_or(-1);
    until_asleep(interrupted);
    let _ = process::kill(interrupted, sig::USR1);
    checks.eq(process::waitpid(interrupted), Ok(Status::Exited(Errno::EINTR.get() as u8)), "or interrupted");
    let _ = io::close(fd);
    // Many that wait for each other's turn.
    let fd = opened();
    let _ = fs::pwrite(fd, &[0; 8], 0);
    let workers = [(); 4].map(|()| start(work).unwrap_or(-1));
    let ends = workers.map(process::waitpid);
    let mut sum = [0; 8];
    let _ = fs::pread(fd, &mut sum, 0);
    checks.eq(
        (ends, u64::from_ne_bytes(sum)),
        ([Ok(Status::Exited(0)); 4], 4 * ROUNDS),
        "a lock keeps a counter right",
    );
    let _ = io::close(fd);
}

const ROUNDS: u64 = 100;

fn work() -> i32 {
    let fd = opened();
    for _ in 0..ROUNDS {
        let mut sum = [0; 8];
        let locked = set_later(fd, WRLCK, 0, 8);
        let read = fs::pread(fd, &mut sum, 0);
        let _ = raw(nr::SCHED_YIELD, []);
        let written = fs::pwrite(fd, &(u64::from_ne_bytes(sum) + 1).to_ne_bytes(), 0);
        if locked.is_err() || read != Ok(8) || written != Ok(8) || set(fd, UNLCK, 0, 8).is_err() {
            return 1;
        }
    }
    0
}

fn circles(checks: &mut Checks) {
    let fd = opened();
    let _ = set(fd, WRLCK, 0, 1);
    let waiter = start(|| {
        let fd = opened();
        (set(fd, WRLCK, 1, 1).is_err() || set_later(fd, WRLCK, 0, 1).is_err()) as i32
    });
    let waiter = waiter.unwrap_or(-1);
    until_asleep(waiter);
    checks.fails(set_later(fd, WRLCK, 1, 1), Errno::EDEADLK, "two that would wait for each other");
    let last = start(|| {
        let fd = opened();
        (set(fd, WRLCK, 2, 1).is_err() || set_later(fd, WRLCK, 1, 1).is_err()) as i32
    });
    let last = last.unwrap_or(-1);
    until_asleep(last);
    checks.fails(set_later(fd, WRLCK, 2, 1), Errno::EDEADLK, "three");
    let _ = set(fd, UNLCK, 0, 1);
    checks.eq(set_later(fd, WRLCK, 1, 1), Ok(0), "after one step back");
    let _ = set(fd, UNLCK, 0, 0);
    let ends = [waiter, last].map(process::waitpid);
    checks.eq(ends, [Ok(Status::Exited(0)); 2], "all go on");
    let _ = io::close(fd);
}

fn open_files(checks: &mut Checks) {
    let (fd, second) = (opened(), opened());
    checks.eq(set_of_file(fd, WRLCK, 0, 10), Ok(0), "an open file's lock");
    checks.fails(set_of_file(second, WRLCK, 0, 10), Errno::EAGAIN, "is in the way of another open file");
    checks.fails(set(second, WRLCK, 0, 10), Errno::EAGAIN, "and of the process itself");
    let mut lock = lock_at(WRLCK, 3, 1);
    checks.eq((fcntl(second, GETLK, &mut lock), lock.pid), (Ok(0), -1), "it is no process's");
    checks.eq((lock.start, lock.len), (0, 10), "but has a place");
    let of_process = &mut FileLock { pid: 1, ..lock_at(WRLCK, 0, 1) };
    checks.fails(fcntl(fd, OFD_SETLK, of_process), Errno::EINVAL, "nor names one");
    let _ = io::close(second);
    let copy = io::dup(fd).unwrap_or(-1);
    let _ = io::close(fd);
    checks.eq(tried_by_another(WRLCK, 0, 1), AGAIN, "a copy's close leaves it");
    checks.exits(|| set_of_file(copy, WRLCK, 5, 10).is_err() as i32, 0, "a child has the same open file");
    let third = opened();
    let waiter = start(|| {
        let _ = io::close(copy);
        fcntl(third, OFD_SETLKW, &mut lock_at(RDLCK, 0, 1)).is_err() as i32
    });
    let waiter = waiter.unwrap_or(-1);
    until_asleep(waiter);
    let _ = io::close(copy);
    checks.eq(process::waitpid(waiter), Ok(Status::Exited(0)), "the last close of all unlocks");
    let mut lock = lock_at(WRLCK, 0, 1);
    checks.eq((fcntl(third, OFD_GETLK, &mut lock), lock.kind), (Ok(0), UNLCK), "one's own is not in the way");
    let _ = io::close(third);
}

fn whole_files(checks: &mut Checks) {
    let (a, b) = (opened(), opened());
    checks.eq((flock(a, SH), flock(b, SH | NB)), (Ok(0), Ok(0)), "two shared locks");
    checks.fails(flock(b, EX | NB), Errno::EAGAIN, "are in the way of an exclusive one");
    checks.eq(flock(a, EX | NB), Ok(0), "for which the shared one was given up");
    checks.fails(flock(b, SH | NB), Errno::EAGAIN, "and which is alone");
    checks.eq(set(b, WRLCK, 0, 0), Ok(0), "record locks are something else");
    let _ = set(b, UNLCK, 0, 0);
    checks.exits(|| flock(a, EX | NB).is_err() as i32, 0, "a child has the same open file");
    let waiter = start(|| flock(b, SH).is_err() as i32).unwrap_or(-1);
    until_asleep(waiter);
    let _ = flock(a, SH);
    checks.eq(process::waitpid(waiter), Ok(Status::Exited(0)), "a weaker lock lets others go on");
    let _ = (flock(b, UN), flock(a, EX));
    let waiter = start(|| {
        let _ = io::close(a);
        flock(b, EX).is_err() as i32
    });
    let waiter = waiter.unwrap_or(-1);
    until_asleep(waiter);
    let _ = io::close(a);
    checks.eq(process::waitpid(waiter), Ok(Status::Exited(0)), "so does the last close");
    checks.fails(flock(opened(), EX | NB), Errno::EAGAIN, "what a child has got stays with the open file");
    checks.exits(|| io::close(b).is_err() as i32, 0, "a child that closes");
    let a = opened();
    checks.fails(flock(a, SH | NB), Errno::EAGAIN, "does not unlock");
    let _ = flock(b, UN);
    checks.eq(flock(a, SH | NB), Ok(0), "unlocking does");
    let killed = start(|| flock(b, EX).is_err() as i32).unwrap_or(-1);
    until_asleep(killed);
    let _ = process::kill(killed, sig::KILL);
    checks.eq(process::waitpid(killed), Ok(Status::Killed(sig::KILL)), "a waiter can be killed");
    let _ = (io::close(a), io::close(b));
}

/// What else can be locked.
fn kinds(checks: &mut Checks) {
    let directory = || open(c"/tmp", Open::DIRECTORY, 0).unwrap_or(-1);
    let (a, b) = (directory(), directory());
    checks.eq(flock(a, EX), Ok(0), "a directory");
    checks.fails(flock(b, EX | NB), Errno::EAGAIN, "is one for all");
    let (reader, writer) = io::pipe(0).unwrap_or_default();
    checks.eq((flock(reader, EX), flock(writer, EX | NB)), (Ok(0), Err(Errno::EAGAIN)), "a pipe has two open files");
    let file = raw(nr::MEMFD_CREATE, [c"x".as_ptr() as usize, 0]).unwrap_or(0) as i32;
    checks.eq(set(file, WRLCK, 0, 0), Ok(0), "a memfd");
    checks.exits(|| set(file, RDLCK, 0, 1).err().map_or(0, Errno::get), AGAIN as u8, "that others have, too");
    let _ = [a, b, reader, writer, file].map(io::close);
}
