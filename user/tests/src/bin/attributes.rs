//! attributes: statx, statfs, extended attributes, fchdir.

#![no_std]
#![no_main]

use core::ffi::CStr;

use quire_rt::abi::flags::Open;
use quire_rt::abi::layout::{Stat, Statfs, Statx, at, mode, statfs};
use quire_rt::abi::nr;
use quire_rt::{Errno, fs, io};
use user_tests::{Checks, KERNEL, is_quire, raw};

quire_rt::entry!(main);

const HERE: i32 = at::FDCWD;
const PATH: &CStr = c"/tests/attributes";

fn main() -> i32 {
    let mut checks = Checks::new();
    extended(&mut checks);
    systems(&mut checks);
    names(&mut checks);
    directory(&mut checks);
    checks.finish()
}

fn statx(directory: i32, path: &CStr, flags: u32, mask: u32) -> Result<Statx, Errno> {
    let mut record = Statx::default();
    let call = [directory as usize, path.as_ptr() as usize, flags as usize, mask as usize, &raw mut record as usize];
    raw(nr::STATX, call).map(|_| record)
}

fn extended(checks: &mut Checks) {
    let stat: Stat = fs::stat(PATH, 0).expect("this program");
    let found = statx(HERE, PATH, 0, Statx::BASIC).expect("this program");
    checks.ok(found.mask & Statx::BASIC == Statx::BASIC, "all is told");
    checks.eq(
        (u32::from(found.mode), found.size, found.ino),
        (stat.mode, stat.size as u64, stat.ino),
        "as stat has it",
    );
    checks.eq((found.mtime, found.nlink), ([stat.mtime.sec, stat.mtime.nsec], stat.nlink), "times, too");
    let null = statx(HERE, c"/dev/null", 0, Statx::BASIC).map(|found| (u32::from(found.mode) & mode::FMT, found.rdev));
    checks.eq(null, Ok((mode::CHR, [1, 3])), "a device");
    let (read, write) = io::pipe(0).expect("a pipe");
    let pipe = statx(read, c"", at::EMPTY_PATH, 0).map(|found| u32::from(found.mode) & mode::FMT);
    checks.eq(pipe, Ok(mode::FIFO), "a descriptor");
    let _ = (io::close(read), io::close(write));
    checks.fails(statx(HERE, c"/nothing", 0, 0), Errno::ENOENT, "nothing");
    checks.fails(statx(HERE, c"", 0, 0), Errno::ENOENT, "an empty path");
    checks.fails(statx(900, c"x", 0, 0), Errno::EBADF, "from a directory that is not open");
    checks.fails(statx(HERE, PATH, 1, 0), Errno::EINVAL, "unknown flags");
    checks.fails(statx(HERE, PATH, 0x6000, 0), Errno::EINVAL, "two that exclude each other");
    checks.eq(statx(HERE, PATH, 0x2000, 0).map(|_| ()), Ok(()), "one of them");
    checks.fails(statx(HERE, PATH, 0, Statx::RESERVED), Errno::EINVAL, "a mask that nobody may use");
    let nowhere = [HERE as usize, PATH.as_ptr() as usize, 0, 0, KERNEL];
    checks.fails(raw(nr::STATX, nowhere), Errno::EFAULT, "a record for nowhere");
}

fn systems(checks: &mut Checks) {
    let mut record = Statfs::default();
    let at = &raw mut record as usize;
    checks.eq(raw(nr::STATFS, [PATH.as_ptr() as usize, at]), Ok(0), "a file system");
    // SAFETY: the kernel has written it.
    let found = unsafe { (at as *const Statfs).read_volatile() };
    checks.eq((found.bsize, found.namelen), (4096, 255), "of pages, with names");
    checks.ok(!is_quire() || found.kind == statfs::RAMFS && found.flags & statfs::RDONLY != 0, "is read only");
    checks.fails(raw(nr::STATFS, [c"/nothing".as_ptr() as usize, at]), Errno::ENOENT, "nothing is on none");
    let (read, write) = io::pipe(0).expect("a pipe");
    checks.eq(raw(nr::FSTATFS, [read as usize, at]), Ok(0), "a pipe");
    // SAFETY: as above.
    checks.eq(unsafe { (at as *const Statfs).read_volatile() }.kind, statfs::PIPEFS, "is on one of its own");
    let _ = (io::close(read), io::close(write));
    checks.fails(raw(nr::FSTATFS, [900, at]), Errno::EBADF, "what is not open");
    checks.fails(raw(nr::STATFS, [PATH.as_ptr() as usize, KERNEL]), Errno::EFAULT, "a record for nowhere");
}

/// Whether there is no attribute, or (on Linux, whose file systems have some) not this one.
fn is_none(got: Result<usize, Errno>) -> bool {
    const ENODATA: i32 = 61;
    got.is_err_and(|error| error == Errno::EOPNOTSUPP || error.get() == ENODATA)
}

fn names(checks: &mut Checks) {
    let get = |call: usize, path: &CStr| raw(call, [path.as_ptr() as usize, c"user.x".as_ptr() as usize, 0, 0]);
    for call in [nr::GETXATTR, nr::LGETXATTR] {
        checks.ok(is_none(get(call, PATH)), "a file has no attributes");
        checks.fails(get(call, c"/nothing"), Errno::ENOENT, "nor has nothing");
    }
    let file = fs::open(PATH, Open::empty()).unwrap_or(-1);
    let none = raw(nr::FGETXATTR, [file as usize, c"user.x".as_ptr() as usize, 0, 0]);
    checks.ok(is_none(none), "nor has a descriptor");
    checks.fails(raw(nr::FGETXATTR, [900, c"user.x".as_ptr() as usize, 0, 0]), Errno::EBADF, "that is open");
    if is_quire() {
        let set = [PATH.as_ptr() as usize, c"user.x".as_ptr() as usize, 0, 0, 0];
        checks.fails(raw(nr::SETXATTR, set), Errno::EROFS, "and gets none");
    }
    let _ = io::close(file);
}

fn directory(checks: &mut Checks) {
    let tests = fs::open(c"/tests", Open::DIRECTORY).unwrap_or(-1);
    checks.fails(raw(nr::FCHDIR, [900]), Errno::EBADF, "a directory that is not open");
    let file = fs::open(PATH, Open::empty()).unwrap_or(-1);
    checks.fails(raw(nr::FCHDIR, [file as usize]), Errno::ENOTDIR, "a file");
    checks.fails(fs::stat(c"attributes", 0), Errno::ENOENT, "what is elsewhere");
    checks.eq(raw(nr::FCHDIR, [tests as usize]), Ok(0), "a directory");
    checks.ok(fs::stat(c"attributes", 0).is_ok(), "is found there");
    let _ = (io::close(tests), io::close(file));
}
