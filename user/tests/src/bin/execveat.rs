//! execveat; advice about files.

#![no_std]
#![no_main]

use core::ffi::CStr;

use quire_rt::abi::flags::Open;
use quire_rt::abi::nr;
use quire_rt::process::Status;
use quire_rt::start::args;
use quire_rt::{Errno, fs, io};
use user_tests::{Checks, KERNEL, child, raw};

quire_rt::entry!(main);

const HERE: i32 = -100;
const EMPTY: u32 = 0x1000;
const NOFOLLOW: u32 = 0x100;

fn main() -> i32 {
    if args().count() > 1 {
        return 33;
    }
    let mut checks = Checks::new();
    programs(&mut checks);
    advice(&mut checks);
    checks.finish()
}

/// Runs a file with an argument; the errno if it did not start.
fn run(directory: i32, path: &CStr, flags: u32) -> Result<Status, Errno> {
    let argv = [c"x".as_ptr() as usize, c"y".as_ptr() as usize, 0];
    let status = child(|| {
        let call = [directory as usize, path.as_ptr() as usize, argv.as_ptr() as usize, 0, flags as usize];
        raw(nr::EXECVEAT, call).err().map_or(0, |errno| 100 + errno.get())
    });
    match status {
        Ok(Status::Exited(code)) if code > 100 => {
            Err(Errno::from_ret(100 - isize::from(code)).err().unwrap_or(Errno::EIO))
        }
        status => status,
    }
}

fn programs(checks: &mut Checks) {
    let tests = fs::open(c"/tests", Open::DIRECTORY).unwrap_or(-1);
    let me = fs::open(c"/tests/execveat", Open::PATH).unwrap_or(-1);
    let started = Ok(Status::Exited(33));
    checks.eq(run(HERE, c"/tests/execveat", 0), started, "a path");
    checks.eq(run(900, c"/tests/execveat", 0), started, "for which no directory is needed");
    checks.eq(run(tests, c"execveat", 0), started, "a path from a directory");
    checks.eq(run(me, c"", EMPTY), started, "a descriptor");
    checks.eq(run(me, c"", 0), Err(Errno::ENOENT), "if it is said so");
    checks.eq(run(me, c"x", 0), Err(Errno::ENOTDIR), "which is no directory");
    checks.eq(run(900, c"execveat", 0), Err(Errno::EBADF), "a directory that is not open");
    checks.eq(run(tests, c"", EMPTY), Err(Errno::EACCES), "a directory");
    checks.eq(run(tests, c"nothing", 0), Err(Errno::ENOENT), "nothing");
    checks.eq(run(HERE, c"/tests/execveat", 2), Err(Errno::EINVAL), "unknown flags");
    checks.eq(run(HERE, c"/tests/execveat", NOFOLLOW), started, "no link to follow");
    checks.fails(raw(nr::EXECVEAT, [tests as usize, KERNEL, 0, 0, 0]), Errno::EFAULT, "a path that is nowhere");
    let _ = (io::close(tests), io::close(me));
}

fn advice(checks: &mut Checks) {
    let file = fs::open(c"/tests/execveat", Open::empty()).unwrap_or(-1);
    let advise = |fd: i32, len: usize, what: usize| raw(nr::FADVISE64, [fd as usize, 0, len, what]);
    checks.ok((0..6).all(|what| advise(file, 4096, what) == Ok(0)), "advice");
    checks.fails(advise(file, 0, 6), Errno::EINVAL, "that is none");
    checks.fails(advise(file, usize::MAX, 0), Errno::EINVAL, "about less than nothing");
    checks.fails(advise(900, 0, 0), Errno::EBADF, "or about nothing");
    let (read, write) = io::pipe(0).expect("a pipe");
    checks.fails(advise(read, 0, 0), Errno::ESPIPE, "or about a pipe");
    let ahead = |fd: i32| raw(nr::READAHEAD, [fd as usize, 0, 4096]);
    checks.eq(ahead(file), Ok(0), "a file is read ahead");
    checks.fails(ahead(read), Errno::EINVAL, "a pipe is not");
    checks.fails(ahead(write), Errno::EBADF, "nor what is written to");
    let directory = fs::open(c"/tests", Open::DIRECTORY).unwrap_or(-1);
    checks.fails(ahead(directory), Errno::EINVAL, "nor a directory");
    [file, read, write, directory].iter().for_each(|fd| _ = io::close(*fd));
}
