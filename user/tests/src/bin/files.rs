//! files: the boot archive: open, read, seek, list, and nonexistent names.

#![no_std]
#![no_main]

use alloc::ffi::CString;
use alloc::vec;
use core::ffi::CStr;

use quire_rt::abi::flags::Open;
use quire_rt::abi::layout::{Iovec, Stat, at, dtype, mode};
use quire_rt::abi::nr;
use quire_rt::{Errno, fs, io};
use user_tests::{Checks, is_quire, raw};

extern crate alloc;

quire_rt::entry!(main);

const FILE: &CStr = c"/tests/files";

fn main() -> i32 {
    let mut checks = Checks::new();
    reading(&mut checks);
    status(&mut checks);
    paths(&mut checks);
    directories(&mut checks);
    checks.finish()
}

fn reading(checks: &mut Checks) {
    let fd = fs::open(FILE, Open::empty()).unwrap_or(-1);
    let size = fs::fstat(fd).map_or(0, |stat| stat.size);
    let mut buffer = [0; 64];
    checks.eq(io::read(fd, &mut buffer), Ok(64), "a file can be read");
    checks.eq(&buffer[..4], b"\x7fELF", "this one is a program");
    checks.eq(fs::lseek(fd, 0, 1), Ok(64), "reading moves the position");
    checks.eq(fs::lseek(fd, 4, 0), Ok(4), "lseek from the start");
    let mut byte = [0];
    checks.eq((io::read(fd, &mut byte), byte[0]), (Ok(1), 2), "what is there: a 64-bit class");
    checks.eq(fs::lseek(fd, -1, 2), Ok(size as u64 - 1), "lseek from the end");
    checks.eq((io::read(fd, &mut buffer), io::read(fd, &mut buffer)), (Ok(1), Ok(0)), "the last byte, then the end");
    checks.eq(fs::lseek(fd, size + 1000, 0), Ok(size as u64 + 1000), "past the end");
    checks.eq(io::read(fd, &mut buffer), Ok(0), "there is nothing");
    checks.fails(fs::lseek(fd, -1, 0), Errno::EINVAL, "before the start");
    checks.fails(fs::lseek(fd, 0, 9), Errno::EINVAL, "from nowhere");
    checks.fails(fs::lseek(900, 0, 0), Errno::EBADF, "without a file");
    checks.eq((fs::pread(fd, &mut buffer[..4], 1), &buffer[..3]), (Ok(4), &b"ELF"[..]), "pread");
    checks.eq(fs::lseek(fd, 0, 1), Ok(size as u64 + 1000), "does not move the position");
    checks.fails(fs::pread(fd, &mut buffer, -1), Errno::EINVAL, "nor takes one before the start");
    let _ = fs::lseek(fd, 0, 0);
    let (mut one, mut two) = ([0u8; 3], [0u8; 5]);
    let pieces = [
        Iovec { base: one.as_mut_ptr() as u64, len: 3 },
        Iovec { base: 0, len: 0 },
        Iovec { base: two.as_mut_ptr() as u64, len: 5 },
    ];
    checks.eq(raw(nr::READV, [fd as usize, pieces.as_ptr() as usize, 3]), Ok(8), "readv");
    checks.ok(&one == b"\x7fEL" && two[0] == b'F', "fills one piece after the other");
    checks.fails(raw(nr::READV, [fd as usize, pieces.as_ptr() as usize, 2000]), Errno::EINVAL, "too many pieces");
    checks.fails(io::write(fd, b"x"), Errno::EBADF, "a file open for reading cannot be written");
    let _ = io::close(fd);
    checks.fails(io::read(fd, &mut buffer), Errno::EBADF, "nor a closed one read");

    let file = fs::File::open(FILE, Open::empty()).and_then(|file| file.read_to_end());
    checks.eq(file.map(|bytes| bytes.len()), Ok(size as usize), "as many bytes as it says");
}

fn status(checks: &mut Checks) {
    let file = fs::stat(FILE, 0).unwrap_or_default();
    checks.eq(file.mode & mode::FMT, mode::REG, "a file is a file");
    checks.ok(file.mode & 0o111 != 0 && file.size > 1000 && file.nlink >= 1, "executable, with a size");
    let dir = fs::stat(c"/tests", 0).unwrap_or_default();
    checks.ok(dir.mode & mode::FMT == mode::DIR && dir.ino != file.ino, "a directory is a directory");
    let fd = fs::open(FILE, Open::empty()).unwrap_or(-1);
    let opened = fs::fstat(fd).unwrap_or_default();
    checks.eq((opened.ino, opened.size, opened.mode), (file.ino, file.size, file.mode), "fstat says the same");
    let mut empty = Stat::default();
    let call = [fd as usize, c"".as_ptr() as usize, &raw mut empty as usize, at::EMPTY_PATH as usize];
    checks.eq((raw(nr::NEWFSTATAT, call), empty.ino), (Ok(0), file.ino), "an empty path with EMPTY_PATH too");
    let access = |path: &CStr, wanted: usize| raw(nr::FACCESSAT, [at::FDCWD as usize, path.as_ptr() as usize, wanted]);
    checks.eq(access(FILE, 5), Ok(0), "faccessat: readable, executable");
    checks.eq(access(c"/dev/null", 6), Ok(0), "a device is readable and writable");
    checks.fails(access(c"/dev/null", 1), Errno::EACCES, "but not executable");
    checks.fails(fs::open(c"/dev/null", Open::CREAT | Open::EXCL), Errno::EEXIST, "a device cannot be made again");
    checks.fails(fs::open(c"/dev/null", Open::DIRECTORY), Errno::ENOTDIR, "nor is it a directory");
    checks.fails(fs::open(c"/bin", Open::CREAT), Errno::EISDIR, "nor a directory made as a file");
    checks.fails(fs::open(c"/bin", Open::TRUNC), Errno::EISDIR, "nor shortened");
    checks.fails(access(c"/nosuch", 0), Errno::ENOENT, "faccessat of nothing");
    checks.fails(access(FILE, 8), Errno::EINVAL, "faccessat for something else");
    if is_quire() {
        checks.fails(access(FILE, 2), Errno::EROFS, "nothing is writable");
        checks.fails(fs::open(FILE, Open::WRONLY), Errno::EROFS, "opening for writing");
        checks.fails(fs::open(c"/new", Open::WRONLY | Open::CREAT), Errno::EROFS, "making a file");
    }
    checks.fails(fs::open(FILE, Open::CREAT | Open::EXCL), Errno::EEXIST, "making one that is there");
    let _ = io::close(fd);
}

fn paths(checks: &mut Checks) {
    let inode = |path: &CStr| fs::stat(path, 0).map(|stat| stat.ino);
    let wanted = inode(FILE);
    for path in [c"//tests/files", c"/tests/./files", c"/bin/../tests//files", c"/../../tests/files", c"/./tests/files"]
    {
        checks.ok(inode(path) == wanted, "another way to say the same path");
    }
    let long = CString::new(vec![b'a'; 300]).unwrap_or_default();
    let longer = CString::new(vec![b'/'; 4096]).unwrap_or_default();
    for (path, wanted, what) in [
        (c"", Errno::ENOENT, "an empty path"),
        (c"/nosuch", Errno::ENOENT, "no such file"),
        (c"/nosuch/files", Errno::ENOENT, "in no such directory"),
        (c"/tests/files/x", Errno::ENOTDIR, "in a file"),
        (c"/tests/files/", Errno::ENOTDIR, "a file with a slash"),
        (c"/tests/files/..", Errno::ENOTDIR, "up from a file"),
        (&long, Errno::ENAMETOOLONG, "a name of 300 bytes"),
        (&longer, Errno::ENAMETOOLONG, "a path of 4096 bytes"),
    ] {
        checks.fails(inode(path), wanted, what);
    }
    checks.eq((fs::chdir(c"/tests"), fs::getcwd()), (Ok(()), Ok(b"/tests".to_vec())), "chdir and getcwd");
    checks.ok(inode(c"files") == wanted && inode(c"../tests/files") == wanted, "relative paths");
    checks.exits(|| (fs::getcwd() != Ok(b"/tests".to_vec())) as i32, 0, "a child starts where its parent is");
    checks.eq((fs::chdir(c".."), fs::getcwd()), (Ok(()), Ok(b"/".to_vec())), "and up");
    checks.fails(fs::chdir(FILE), Errno::ENOTDIR, "chdir to a file");
    checks.fails(fs::chdir(c"/nosuch"), Errno::ENOENT, "chdir to nothing");
    let mut small = [0u8; 1];
    checks.fails(raw(nr::GETCWD, [small.as_mut_ptr() as usize, 1]), Errno::ERANGE, "getcwd without room");
    let dir = fs::open(c"/tests", Open::DIRECTORY).unwrap_or(-1);
    let within = fs::openat(dir, c"files", Open::empty(), 0);
    checks.ok(within.is_ok(), "openat from a directory");
    checks.fails(fs::openat(within.unwrap_or(-1), c"x", Open::empty(), 0), Errno::ENOTDIR, "openat from a file");
    checks.fails(fs::openat(900, c"x", Open::empty(), 0), Errno::EBADF, "openat from nothing");
    checks
        .ok(fs::openat(900, FILE, Open::empty(), 0).and_then(io::close).is_ok(), "an absolute path needs no directory");
    let _ = (io::close(within.unwrap_or(-1)), io::close(dir));
}

fn directories(checks: &mut Checks) {
    let fd = fs::open(c"/bin", Open::DIRECTORY).unwrap_or(-1);
    let mut buffer = [0; 64];
    checks.fails(io::read(fd, &mut buffer), Errno::EISDIR, "a directory cannot be read");
    let entries = fs::read_dir_fd(fd).unwrap_or_default();
    let kind = |name: &[u8]| entries.iter().find(|entry| entry.name == name).map(|entry| entry.kind);
    checks.eq(kind(b"echo"), Some(dtype::REG), "getdents64 lists files");
    checks.eq([kind(b"."), kind(b"..")], [Some(dtype::DIR); 2], "and . and ..");
    let distinct = entries.iter().enumerate().all(|(i, a)| entries[..i].iter().all(|b| a.name != b.name));
    checks.ok(distinct && entries.len() > 10, "each once");
    checks.eq(fs::read_dir_fd(fd).map(|entries| entries.len()), Ok(0), "then comes the end");
    let _ = fs::lseek(fd, 0, 0);
    checks.eq(fs::read_dir_fd(fd), Ok(entries), "lseek starts anew");
    let _ = fs::lseek(fd, 0, 0);
    let tiny = raw(nr::GETDENTS64, [fd as usize, buffer.as_mut_ptr() as usize, 8]);
    checks.fails(tiny, Errno::EINVAL, "a buffer in which no entry fits");
    let _ = io::close(fd);
    checks.fails(fs::read_dir(FILE), Errno::ENOTDIR, "a file is no directory");
    let (read, write) = io::pipe(0).expect("a pipe");
    checks.fails(fs::read_dir_fd(read), Errno::ENOTDIR, "nor is a pipe");
    let _ = (io::close(read), io::close(write));
    let root = fs::read_dir(c"/").unwrap_or_default();
    let has = |name: &[u8]| root.iter().any(|entry| entry.name == name && entry.kind == dtype::DIR);
    checks.ok(has(b"bin") && has(b"tests"), "the root");
    checks.fails(fs::open(c"/bin", Open::WRONLY), Errno::EISDIR, "a directory cannot be opened for writing");
}
