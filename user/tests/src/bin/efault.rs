//! efault: a bad pointer in any argument of any call gives EFAULT, and does no harm.

#![no_std]
#![no_main]

use quire_rt::abi::flags::{Open, Prot, sig};
use quire_rt::abi::info::kind;
use quire_rt::abi::layout::{Timespec, at, tty};
use quire_rt::abi::nr::*;
use quire_rt::{Errno, fs, io};
use user_tests::{Checks, KERNEL, PAGE, RW, is_quire, map, munmap, raw};

quire_rt::entry!(main);

fn main() -> i32 {
    let mut checks = Checks::new();
    let (read, write) = io::pipe(0).expect("a pipe");
    let _ = io::write(write, b"something to read");
    let file = fs::open(c"/init", Open::empty()).unwrap_or(-1);
    let dir = fs::open(c"/", Open::DIRECTORY).unwrap_or(-1);
    let fds = [read as usize, write as usize, file as usize, dir as usize];
    let constant = map(PAGE, Prot::READ);
    // The last mapping made, so that nothing takes its place.
    let gone = map(PAGE, RW);
    let _ = munmap(gone, PAGE);
    for (bad, what) in [
        (8, "almost null"),
        (gone, "unmapped"),
        (KERNEL, "the kernel's first page"),
        (0xffff_ffff_8000_0000, "the kernel's image"),
        (usize::MAX - 4095, "the last page"),
        (usize::MAX - 3, "the last bytes"),
        (1 << 55, "in neither half"),
    ] {
        into_kernel(&mut checks, bad, what, fds);
        out_of_kernel(&mut checks, bad, what, fds);
    }
    out_of_kernel(&mut checks, constant, "read-only", fds);
    edges(&mut checks, read, write);
    let mut byte = [0];
    checks.ok(io::read(read, &mut byte) == Ok(1) && byte[0] == b's', "what was in the pipe is still there");
    checks.finish()
}

/// One check for all calls: names those that answer otherwise.
fn all_fault(checks: &mut Checks, calls: &[(&str, Result<usize, Errno>)], what: &str) {
    let mut good = true;
    for (name, answer) in calls {
        if *answer != Err(Errno::EFAULT) {
            quire_rt::println!("# {name} with a pointer that is {what}: {answer:?}");
            good = false;
        }
    }
    checks.ok(good, what);
}

/// Calls that read at the pointer.
fn into_kernel(checks: &mut Checks, bad: usize, what: &str, [_, write, file, _]: [usize; 4]) {
    let cwd = at::FDCWD as usize;
    let name = c"/init".as_ptr() as usize;
    let mut stat = [0u64; 16];
    let vector = [bad, 8];
    all_fault(
        checks,
        &[
            ("write", raw(WRITE, [write, bad, 8])),
            ("writev", raw(WRITEV, [write, bad, 1])),
            ("writev of", raw(WRITEV, [write, vector.as_ptr() as usize, 1])),
            ("openat", raw(OPENAT, [cwd, bad, 0, 0])),
            ("newfstatat", raw(NEWFSTATAT, [cwd, bad, stat.as_mut_ptr() as usize, 0])),
            ("faccessat", raw(FACCESSAT, [cwd, bad, 0])),
            ("readlinkat", raw(READLINKAT, [cwd, bad, stat.as_mut_ptr() as usize, 64])),
            ("chdir", raw(CHDIR, [bad])),
            ("execve", raw(EXECVE, [bad, 0, 0])),
            ("execve with arguments", raw(EXECVE, [name, bad & !7, 0])),
            ("nanosleep", raw(NANOSLEEP, [bad, 0])),
            ("clock_nanosleep", raw(CLOCK_NANOSLEEP, [0, 0, bad, 0])),
            ("rt_sigaction", raw(RT_SIGACTION, [sig::USR1 as usize, bad, 0, 8])),
            ("rt_sigprocmask", raw(RT_SIGPROCMASK, [0, bad, 0, 8])),
            ("rt_sigsuspend", raw(RT_SIGSUSPEND, [bad, 8])),
            ("sigaltstack", raw(SIGALTSTACK, [bad, 0])),
            ("sched_setaffinity", raw(SCHED_SETAFFINITY, [0, 8, bad])),
            ("prlimit64", raw(PRLIMIT64, [0, 7, bad, 0])),
            ("ppoll", raw(PPOLL, [bad, 1, 0, 0, 0])),
            ("futex", raw(FUTEX, [bad & !3, 0, 0, 0])),
            ("lseek and read", raw(LSEEK, [file, 0, 0]).and(raw(READ, [file, bad, 8]))),
        ],
        what,
    );
}

/// Calls that write at the pointer.
fn out_of_kernel(checks: &mut Checks, bad: usize, what: &str, [read, write, file, dir]: [usize; 4]) {
    let cwd = at::FDCWD as usize;
    let root = c"/".as_ptr() as usize;
    let vector = [bad, 8];
    let zero = Timespec::default();
    let calls = [
        ("read of a pipe", raw(READ, [read, bad, 8])),
        ("readv", raw(READV, [read, vector.as_ptr() as usize, 1])),
        ("read of a file", raw(READ, [file, bad, 8])),
        ("pread64", raw(PREAD64, [file, bad, 8, 0])),
        ("pipe2", raw(PIPE2, [bad, 0])),
        ("getdents64", raw(LSEEK, [dir, 0, 0]).and(raw(GETDENTS64, [dir, bad, 512]))),
        ("fstat", raw(FSTAT, [write, bad])),
        ("newfstatat", raw(NEWFSTATAT, [cwd, root, bad, 0])),
        ("getcwd", raw(GETCWD, [bad, 64])),
        ("uname", raw(UNAME, [bad])),
        ("sysinfo", raw(SYSINFO, [bad])),
        ("clock_gettime", raw(CLOCK_GETTIME, [1, bad])),
        ("clock_getres", raw(CLOCK_GETRES, [1, bad])),
        ("gettimeofday", raw(GETTIMEOFDAY, [bad, 0])),
        ("getrandom", raw(GETRANDOM, [bad, 16, 0])),
        ("getcpu", raw(GETCPU, [bad, 0, 0])),
        ("sched_getaffinity", raw(SCHED_GETAFFINITY, [0, 128, bad])),
        ("rt_sigaction", raw(RT_SIGACTION, [sig::USR1 as usize, 0, bad, 8])),
        ("rt_sigprocmask", raw(RT_SIGPROCMASK, [0, 0, bad, 8])),
        ("rt_sigpending", raw(RT_SIGPENDING, [bad, 8])),
        ("prlimit64", raw(PRLIMIT64, [0, 7, 0, bad])),
        ("getrusage", raw(GETRUSAGE, [0, bad])),
        ("mincore", raw(MINCORE, [root & !(PAGE - 1), PAGE, bad])),
        ("ppoll", raw(PPOLL, [bad, 1, &raw const zero as usize, 0, 0])),
        ("sigaltstack", raw(SIGALTSTACK, [0, bad])),
    ];
    all_fault(checks, &calls, what);
    if raw(IOCTL, [0, tty::TCGETS, calls.as_ptr() as usize]).is_ok() {
        all_fault(checks, &[("ioctl", raw(IOCTL, [0, tty::TCGETS, bad]))], what);
    }
    if is_quire() {
        let size = size_of::<quire_rt::abi::info::SystemInfo>();
        let books = size_of::<quire_rt::abi::info::Books>();
        all_fault(
            checks,
            &[
                ("info", raw(QUIRE_INFO, [kind::SYSTEM, 0, bad, size])),
                ("log", raw(QUIRE_LOG, [bad, 64, 0])),
                ("books", raw(QUIRE_BOOKS, [quire_rt::handles::control() as usize, bad, books])),
                (
                    "audit",
                    raw(
                        QUIRE_AUDIT,
                        [quire_rt::handles::control() as usize, bad, size_of::<quire_rt::abi::info::MapAudit>()],
                    ),
                ),
            ],
            what,
        );
    }
}

/// Buffers that start in valid memory and end outside it.
fn edges(checks: &mut Checks, read: i32, write: i32) {
    let two = map(2 * PAGE, RW);
    let _ = munmap(two + PAGE, PAGE);
    let end = two + PAGE;
    checks.fails(raw(UNAME, [end - 100]), Errno::EFAULT, "a record that does not fit before an edge");
    checks.eq(raw(UNAME, [end - 390]), Ok(0), "one that just fits");
    checks.fails(raw(OPENAT, [at::FDCWD as usize, end - 1, 0, 0]), Errno::ENOENT, "an empty path at an edge");
    user_tests::poke(end - 1, b'x');
    checks.fails(raw(OPENAT, [at::FDCWD as usize, end - 1, 0, 0]), Errno::EFAULT, "a path that runs over it");
    let (other_read, other_write) = io::pipe(0).expect("a pipe");
    let wrote = raw(WRITE, [other_write as usize, end - 10, 20]);
    checks
        .ok(matches!(wrote, Ok(0..=10) | Err(Errno::EFAULT)), "a write that runs over it writes no more than there is");
    let _ = io::write(other_write, &[1; 64]);
    let got = raw(READ, [other_read as usize, end - 10, 20]);
    checks.ok(matches!(got, Ok(0..=10) | Err(Errno::EFAULT)), "a read reads no more than there is room");
    checks.eq(raw(WRITE, [other_write as usize, 8, 0]), Ok(0), "no bytes need no address");
    for fd in [other_read, other_write] {
        let _ = io::close(fd);
    }
    let huge = raw(WRITE, [write as usize, two, usize::MAX]);
    checks.ok(huge.is_err() || huge.is_ok_and(|n| n <= PAGE), "a length beyond all memory");
    if let Ok(n) = huge {
        let mut rest = [0; PAGE];
        let _ = (0..n).try_for_each(|_| io::read(read, &mut rest[..1]).map(drop));
    }
    let _ = munmap(two, PAGE);
}
