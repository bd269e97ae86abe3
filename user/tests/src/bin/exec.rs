//! exec: another program in the same process: arguments, environment, and which state is kept.

#![no_std]
#![no_main]

use alloc::ffi::CString;
use alloc::vec;
use alloc::vec::Vec;
use core::ffi::CStr;

use quire_rt::abi::flags::{Open, sig};
use quire_rt::abi::layout::at;
use quire_rt::abi::nr;
use quire_rt::start::auxv;
use quire_rt::thread::spawn;
use quire_rt::{Errno, args, env, fs, io, process, signal};
use user_tests::{Checks, KERNEL, raw};

extern crate alloc;

quire_rt::entry!(main);

/// This program's own path.
fn own() -> &'static CStr {
    match auxv(at::EXECFN) {
        // SAFETY: the kernel put a terminated string there.
        Some(path) if path != 0 => unsafe { CStr::from_ptr(path as *const core::ffi::c_char) },
        _ => c"/tests/exec",
    }
}

fn main() -> i32 {
    let words: Vec<&CStr> = args().collect();
    if words.get(1).is_some_and(|word| *word == c"again") {
        return again(&words);
    }
    let mut checks = Checks::new();
    start_up(&mut checks);
    becoming(&mut checks);
    staying(&mut checks);
    refused(&mut checks);
    checks.finish()
}

fn start_up(checks: &mut Checks) {
    let words = args().count();
    checks.ok(words >= 1, "there is a name");
    let stack = args().next().map_or(0, |name| name.as_ptr() as usize);
    checks.ok(stack != 0 && stack < 1 << 48, "it is on the stack");
    checks.eq(auxv(at::PAGESZ), Some(4096), "AT_PAGESZ");
    checks.ok(auxv(at::PHNUM).is_some_and(|count| (2..20).contains(&count)), "AT_PHNUM");
    checks.eq(auxv(at::PHENT), Some(56), "AT_PHENT");
    checks.eq(auxv(at::MINSIGSTKSZ), Some(4720), "AT_MINSIGSTKSZ is what a handler's frame takes");
    // The headers are the program's own, in its first segment.
    checks.ok(auxv(at::PHDR).is_some_and(|headers| headers == 0x40_0040), "AT_PHDR");
    checks.ok(auxv(at::ENTRY).is_some_and(|entry| entry > 0x40_0000), "AT_ENTRY");
    checks.eq(auxv(at::SECURE), Some(0), "AT_SECURE");
    // Instructions that every program may use: FP is bit 0, ASIMD bit 1.
    checks.eq(auxv(at::HWCAP).map(|bits| bits & 3), Some(3), "AT_HWCAP");
}

/// The second program: its status says what it found.
fn again(words: &[&CStr]) -> i32 {
    match words.get(2).map(|word| word.to_bytes()) {
        Some(b"args") => {
            let wanted: [&[u8]; 6] = [b"own name", b"again", b"args", b"", b"a b\n\xff", b"last"];
            (words.len() != 6 || words.iter().zip(wanted).any(|(got, wanted)| got.to_bytes() != wanted)) as i32
        }
        Some(b"env") => (!env().eq([c"A=1", c"EMPTY=", c"no equals sign"])) as i32,
        Some(b"empty") => (env().count() + words.len() - 3) as i32,
        Some(b"many") => (words.len() - 3) as i32 & 0xff,
        Some(b"pid") => {
            (words.get(3).and_then(|pid| pid.to_str().ok()?.parse().ok()) != Some(process::getpid())) as i32
        }
        Some(b"tid") => (process::gettid() != process::getpid()) as i32,
        Some(b"fds") => {
            // 50 was inherited, 51 closed on exec.
            let mut byte = [0];
            (io::read(50, &mut byte) != Ok(1) || io::read(51, &mut byte) != Err(Errno::EBADF)) as i32
        }
        Some(b"signals") => {
            let old = [sig::USR1, sig::USR2, sig::TERM].map(|signal| signal::default(signal).map(|old| old.handler));
            let blocked = signal::mask(signal::How::Block, 0);
            (old != [Ok(0), Ok(1), Ok(0)] || blocked != Ok(signal::set(&[sig::HUP]))) as i32
        }
        Some(b"big") => (words.get(3).is_none_or(|word| word.count_bytes() != 100_000)) as i32,
        _ => 99,
    }
}

fn run(words: &[&CStr], env: &[&CStr]) -> i32 {
    let error = process::execve(own(), words.iter().copied(), env.iter().copied());
    200 + error.get().min(50)
}

fn becoming(checks: &mut Checks) {
    let words = [c"own name", c"again", c"args", c"", c"a b\n\xff", c"last"];
    checks.exits(|| run(&words, &[]), 0, "arguments arrive as they are");
    let environment = [c"A=1", c"EMPTY=", c"no equals sign"];
    checks.exits(|| run(&[c"x", c"again", c"env"], &environment), 0, "the environment arrives as it is");
    checks.exits(|| run(&[c"x", c"again", c"empty"], &[]), 0, "there need not be any");
    let mut many = vec![c"x", c"again", c"many"];
    many.resize(3 + 250, c"argument");
    checks.exits(|| run(&many, &[]), 250, "many arguments");
    let big = CString::new(vec![b'x'; 100_000]).unwrap_or_default();
    checks.exits(|| run(&[c"x", c"again", c"big", &big], &[]), 0, "a large one");
    checks.exits(
        || {
            let pid = CString::new(alloc::format!("{}", process::getpid())).unwrap_or_default();
            run(&[c"x", c"again", c"pid", &pid], &[])
        },
        0,
        "the process stays the same",
    );
    checks.exits(
        || {
            let Ok(thread) = spawn(|| {
                run(&[c"x", c"again", c"tid"], &[]);
            }) else {
                return 98;
            };
            thread.join();
            97
        },
        0,
        "a second thread that becomes another program is its first thread",
    );
}

fn staying(checks: &mut Checks) {
    checks.exits(
        || {
            let (read, write) = io::pipe(0).unwrap_or((-1, -1));
            let _ = (io::dup3(read, 50, 0), io::dup3(read, 51, Open::CLOEXEC.bits()));
            let _ = io::write(write, b"x");
            run(&[c"x", c"again", c"fds"], &[])
        },
        0,
        "descriptors stay open, those marked CLOEXEC do not",
    );
    extern "C" fn handler(_: i32, _: *const signal::Info, _: *mut u8) {}
    checks.exits(
        || {
            let _ = signal::handle(sig::USR1, handler, 0, 0);
            let _ = signal::ignore(sig::USR2);
            let _ = signal::mask(signal::How::Set, signal::set(&[sig::HUP]));
            run(&[c"x", c"again", c"signals"], &[])
        },
        0,
        "handlers go, ignored and blocked signals stay so",
    );
}

fn refused(checks: &mut Checks) {
    let exec = |path: &CStr| process::execve(path, [path], []);
    let long = CString::new(vec![b'/'; 5000]).unwrap_or_default();
    for (path, wanted, what) in [
        (c"/nosuch", Errno::ENOENT, "no such file"),
        (c"", Errno::ENOENT, "an empty path"),
        (c"/bin/echo/x", Errno::ENOTDIR, "a file taken for a directory"),
        (c"/bin", Errno::EACCES, "a directory"),
        (&long, Errno::ENAMETOOLONG, "a path that is too long"),
    ] {
        checks.eq(exec(path), wanted, what);
    }
    for (path, wanted, what) in [
        (c"/etc/motd", Errno::EACCES, "a file that is not executable"),
        (c"/etc/not-a-program", Errno::ENOEXEC, "an executable that is no program"),
    ] {
        match fs::stat(path, 0) {
            Ok(_) => checks.eq(exec(path), wanted, what),
            Err(_) => checks.skip(what, "the file is missing"),
        }
    }
    let huge = CString::new(vec![b'x'; 200_000]).unwrap_or_default();
    checks.eq(process::execve(own(), [&*huge], []), Errno::E2BIG, "an argument of more than 128 KiB");
    let block = CString::new(vec![b'x'; 100_000]).unwrap_or_default();
    checks.eq(process::execve(own(), vec![&*block; 100], []), Errno::E2BIG, "10 MB of arguments");
    checks.eq(process::execve(own(), [own()], vec![&*block; 100]), Errno::E2BIG, "10 MB of environment");
    let path = own().as_ptr() as usize;
    let vector = [path, KERNEL, 0];
    checks.fails(raw(nr::EXECVE, [KERNEL, 0, 0]), Errno::EFAULT, "a bad path pointer");
    checks.fails(raw(nr::EXECVE, [path, KERNEL, 0]), Errno::EFAULT, "a bad vector");
    checks.fails(raw(nr::EXECVE, [path, vector.as_ptr() as usize, 0]), Errno::EFAULT, "a bad pointer in it");
    checks.ok(args().count() >= 1, "after all that the process is still itself");
}
