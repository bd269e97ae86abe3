//! Names: a file system of a server's (/tmp) by Linux's calls, and what ends at its borders.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;
use core::ffi::CStr;

use quire_rt::abi::flags::{Map, Open, Prot, sig};
use quire_rt::abi::layout::{Timespec, at, dtype, mode};
use quire_rt::abi::nr;
use quire_rt::process::{self, Status};
use quire_rt::{Errno, fs, io};
use user_tests::files::{HERE, close, create, mkdir, open, path, remove, stat};
use user_tests::{Checks, PAGE, RW, child, is_quire, mmap, raw};

quire_rt::entry!(main);

fn main() -> i32 {
    let mut checks = Checks::new();
    if !fs::stat(c"/tmp", 0).is_ok_and(|stat| stat.mode & mode::FMT == mode::DIR) {
        checks.skip("names", "no /tmp here");
        return checks.finish();
    }
    let _ = raw(nr::UMASK, [0o022]);
    let home = format!("/tmp/names.{}\0", process::getpid());
    let home = CStr::from_bytes_until_nul(home.as_bytes()).expect("a name");
    checks.eq(mkdir(home, 0o755), Ok(0), "a directory is made");
    checks.eq(fs::chdir(home), Ok(()), "and entered");
    checks.eq(fs::getcwd().as_deref(), Ok(home.to_bytes()), "getcwd knows it");
    files(&mut checks);
    opening(&mut checks);
    directories(&mut checks);
    renaming(&mut checks);
    links(&mut checks);
    borders(&mut checks, home);
    attributes(&mut checks);
    permissions(&mut checks);
    mappings(&mut checks);
    programs(&mut checks);
    crowds(&mut checks);
    checks.eq(fs::chdir(c"/"), Ok(()), "back to the root");
    checks.eq(remove(home, at::REMOVEDIR), Ok(0), "what was made is gone");
    checks.finish()
}

fn rename(from: &CStr, to: &CStr) -> Result<usize, Errno> {
    rename_with(from, to, 0)
}

fn rename_with(from: &CStr, to: &CStr, flags: usize) -> Result<usize, Errno> {
    raw(nr::RENAMEAT2, [HERE, path(from), HERE, path(to), flags])
}

fn link(from: &CStr, to: &CStr, flags: u32) -> Result<usize, Errno> {
    raw(nr::LINKAT, [HERE, path(from), HERE, path(to), flags as usize])
}

fn symlink(target: &CStr, name: &CStr) -> Result<usize, Errno> {
    raw(nr::SYMLINKAT, [path(target), HERE, path(name)])
}

fn content(name: &CStr) -> Result<Vec<u8>, Errno> {
    fs::File::open(name, Open::empty())?.read_to_end()
}

fn names(of: &CStr) -> Vec<Vec<u8>> {
    fs::read_dir(of).unwrap_or_default().into_iter().map(|entry| entry.name).collect()
}

/// The names in a directory, in their order.
fn joined(of: &CStr) -> Vec<u8> {
    names(of).join(&b' ')
}

fn files(checks: &mut Checks) {
    checks.fails(open(c"f", Open::empty(), 0), Errno::ENOENT, "there is no file yet");
    let fd = open(c"f", Open::CREAT | Open::RDWR, 0o666).expect("a file");
    checks.eq(io::write(fd, b"hello, world"), Ok(12), "write");
    let there = fs::fstat(fd).expect("a record");
    let by_name = stat(c"f").expect("a record");
    checks.eq((there.size, there.mode, there.nlink), (12, mode::REG | 0o644, 1), "its record, by the umask");
    checks.eq((by_name.ino, by_name.dev, by_name.size), (there.ino, there.dev, 12), "its name has the same");
    checks.eq(there.dev, stat(c".").map(|stat| stat.dev).unwrap_or(0), "it is on its directory's device");
    checks.eq(fs::lseek(fd, 7, 0), Ok(7), "lseek");
    let mut word = [0; 5];
    checks.eq((io::read(fd, &mut word), &word), (Ok(5), b"world"), "read");
    close(fd);
    checks.eq(content(c"f").as_deref(), Ok(&b"hello, world"[..]), "it is there when opened again");
    create(c"f", b"less");
    checks.eq(content(c"f").as_deref(), Ok(&b"less"[..]), "O_TRUNC");
    let fd = open(c"f", Open::WRONLY | Open::APPEND, 0).expect("a file");
    checks.eq(io::write(fd, b" more"), Ok(5), "O_APPEND");
    checks.eq(content(c"f").as_deref(), Ok(&b"less more"[..]), "appended");
    checks.fails(io::read(fd, &mut word), Errno::EBADF, "it was opened for writing only");
    checks.eq(raw(nr::TRUNCATE, [path(c"f"), 4]), Ok(0), "truncate");
    checks.eq(fs::fstat(fd).map(|stat| stat.size), Ok(4), "who has it open sees that");
    checks.eq(remove(c"f", 0), Ok(0), "unlink");
    checks.eq(fs::fstat(fd).map(|stat| stat.nlink), Ok(0), "an open file without a name");
    checks.eq(io::write(fd, b"!"), Ok(1), "goes on");
    checks.eq(raw(nr::FSYNC, [fd as usize]), Ok(0), "fsync");
    close(fd);
    checks.fails(stat(c"f"), Errno::ENOENT, "its name is gone");
    checks.eq(raw(nr::MKNODAT, [HERE, path(c"n"), (mode::REG | 0o600) as usize, 0]), Ok(0), "mknod of a file");
    checks.eq(stat(c"n").map(|stat| (stat.mode, stat.size)), Ok((mode::REG | 0o600, 0)), "an empty one");
    checks.eq(remove(c"n", 0), Ok(0), "unlink");
}

fn opening(checks: &mut Checks) {
    create(c"f", b"x");
    checks.fails(open(c"f", Open::CREAT | Open::EXCL, 0o600), Errno::EEXIST, "O_EXCL");
    checks.fails(open(c"f", Open::DIRECTORY, 0), Errno::ENOTDIR, "O_DIRECTORY of a file");
    checks.fails(open(c"f/", Open::empty(), 0), Errno::ENOTDIR, "a slash behind a file");
    checks.fails(open(c"f/x", Open::empty(), 0), Errno::ENOTDIR, "a file as a directory");
    checks.fails(open(c"d/x", Open::CREAT, 0o600), Errno::ENOENT, "in no directory");
    checks.fails(open(c"n/", Open::CREAT, 0o600), Errno::EISDIR, "a file with a slash");
    checks.fails(open(c"x", Open::CREAT | Open::DIRECTORY, 0o600), Errno::EINVAL, "open makes no directories");
    checks.fails(open(c".", Open::WRONLY, 0), Errno::EISDIR, "a directory for writing");
    checks.fails(open(c"", Open::empty(), 0), Errno::ENOENT, "an empty path");
    let long = format!("{}\0", "n".repeat(256));
    let long = CStr::from_bytes_until_nul(long.as_bytes()).expect("a name");
    checks.fails(open(long, Open::CREAT, 0o600), Errno::ENAMETOOLONG, "a name of 256 bytes");
    let longest = format!("{}\0", "n".repeat(255));
    let longest = CStr::from_bytes_until_nul(longest.as_bytes()).expect("a name");
    create(longest, b"");
    checks.eq(remove(longest, 0), Ok(0), "a name of 255 bytes");
    let fd = open(c"f", Open::PATH, 0).expect("a name");
    checks.fails(io::read(fd, &mut [0]), Errno::EBADF, "O_PATH does not read");
    checks.eq(fs::fstat(fd).map(|stat| stat.size), Ok(1), "but has a record");
    close(fd);
    let old = raw(nr::UMASK, [0o077]);
    checks.eq(old, Ok(0o022), "umask answers the former one");
    create(c"g", b"");
    checks.eq(stat(c"g").map(|stat| stat.mode & 0o777), Ok(0o600), "and holds for new files");
    let _ = raw(nr::UMASK, [0o022]);
    let kept = child(|| raw(nr::UMASK, [0]).map_or(1, |mask| (mask != 0o022) as i32));
    checks.eq(kept, Ok(Status::Exited(0)), "a child has the same umask");
    checks.eq((remove(c"f", 0), remove(c"g", 0)), (Ok(0), Ok(0)), "unlink");
}

fn directories(checks: &mut Checks) {
    checks.eq(mkdir(c"d", 0o777), Ok(0), "mkdir");
    checks.fails(mkdir(c"d", 0o777), Errno::EEXIST, "again");
    checks.fails(mkdir(c"d/x/y", 0o777), Errno::ENOENT, "in no directory");
    checks.eq(mkdir(c"d/e/", 0o777), Ok(0), "with a slash");
    checks.eq(stat(c"d").map(|stat| (stat.mode, stat.nlink)), Ok((mode::DIR | 0o755, 3)), "its record");
    checks.fails(remove(c"d", at::REMOVEDIR), Errno::ENOTEMPTY, "rmdir of one that is not empty");
    checks.fails(remove(c"d", 0), Errno::EISDIR, "unlink of a directory");
    for i in 0..300 {
        let name = format!("d/file-{i:03}\0");
        create(CStr::from_bytes_until_nul(name.as_bytes()).expect("a name"), b"");
    }
    checks.eq(names(c"d").len(), 301, "all names are listed");
    let fd = open(c"d", Open::DIRECTORY, 0).expect("a directory");
    let all = fs::read_dir_fd(fd).expect("entries");
    checks.eq(all.len(), 303, "with . and ..");
    let e = all.iter().find(|entry| entry.name == b"e").map(|entry| entry.kind);
    checks.eq(e, Some(dtype::DIR), "a directory's type");
    checks.eq(fs::read_dir_fd(fd).map(|more| more.len()), Ok(0), "then no more");
    checks.eq(fs::lseek(fd, 0, 0), Ok(0), "rewound");
    // What is removed between two calls takes nothing from the rest.
    let mut removed = 0;
    loop {
        let mut buffer = [0u8; 512];
        let len = raw(nr::GETDENTS64, [fd as usize, buffer.as_mut_ptr() as usize, buffer.len()]).unwrap_or(0);
        let mut rest = &buffer[..len];
        if len == 0 {
            break;
        }
        while let Some(header) = rest.first_chunk::<{ dtype::HEADER }>() {
            let len = usize::from(u16::from_le_bytes([header[16], header[17]]));
            let name = CStr::from_bytes_until_nul(&rest[dtype::HEADER..len]).expect("a name");
            if name.to_bytes().starts_with(b"file-") {
                let removal = raw(nr::UNLINKAT, [fd as usize, path(name), 0]);
                removed += usize::from(removal.is_ok());
            }
            rest = &rest[len..];
        }
    }
    checks.eq(removed, 300, "all are met while they are removed");
    checks.fails(
        raw(nr::GETDENTS64, [fd as usize, [0u8; 8].as_mut_ptr() as usize, 8]),
        Errno::EINVAL,
        "no room for a record",
    );
    checks.eq(remove(c"d/e", at::REMOVEDIR), Ok(0), "rmdir");
    checks.fails(remove(c"d/.", at::REMOVEDIR), Errno::EINVAL, "rmdir of .");
    checks.fails(remove(c"d/..", at::REMOVEDIR), Errno::ENOTEMPTY, "rmdir of ..");
    checks.eq(remove(c"d", at::REMOVEDIR), Ok(0), "rmdir of one that is open");
    checks.fails(raw(nr::OPENAT, [fd as usize, path(c"x"), 0o100, 0o600]), Errno::ENOENT, "nothing is made there");
    checks.eq(fs::fstat(fd).map(|stat| stat.mode & mode::FMT), Ok(mode::DIR), "it still is a directory");
    close(fd);
    checks.exits(
        || {
            let made = mkdir(c"gone", 0o755).is_ok() && fs::chdir(c"gone").is_ok();
            let removed = remove(c"../gone", at::REMOVEDIR);
            let elsewhere = (fs::getcwd(), removed);
            (!(made && matches!(elsewhere, (Err(Errno::ENOENT), Err(Errno::ENOENT) | Ok(_))))) as i32
        },
        0,
        "a working directory that is removed",
    );
    let _ = remove(c"gone", at::REMOVEDIR);
}

fn renaming(checks: &mut Checks) {
    create(c"a", b"a");
    create(c"b", b"b");
    checks.eq(rename(c"a", c"b"), Ok(0), "rename over a file");
    checks.eq((content(c"b").as_deref(), stat(c"a").err()), (Ok(&b"a"[..]), Some(Errno::ENOENT)), "replaces it");
    create(c"a", b"A");
    checks.fails(rename_with(c"a", c"b", 1), Errno::EEXIST, "RENAME_NOREPLACE");
    checks.eq(rename_with(c"a", c"b", 2), Ok(0), "RENAME_EXCHANGE");
    checks.eq((content(c"a").as_deref(), content(c"b").as_deref()), (Ok(&b"a"[..]), Ok(&b"A"[..])), "exchanges them");
    checks.fails(rename_with(c"a", c"b", 3), Errno::EINVAL, "both are none");
    checks.fails(rename(c"none", c"b"), Errno::ENOENT, "of nothing");
    checks.eq((mkdir(c"d", 0o755), mkdir(c"d/e", 0o755)), (Ok(0), Ok(0)), "directories");
    checks.fails(rename(c"d", c"d/e/f"), Errno::EINVAL, "into itself");
    checks.fails(rename(c"a", c"d"), Errno::EISDIR, "a file over a directory");
    checks.fails(rename(c"d", c"a"), Errno::ENOTDIR, "a directory over a file");
    checks.fails(rename(c"d/e", c"d"), Errno::ENOTEMPTY, "over a directory with entries");
    let fd = open(c"d/e", Open::DIRECTORY, 0).expect("a directory");
    checks.eq(rename(c"d/e", c"f"), Ok(0), "a directory moves");
    create(c"f/x", b"x");
    let x = raw(nr::OPENAT, [fd as usize, path(c"x"), 0, 0]);
    checks.ok(x.is_ok(), "and is the same one for who has it open");
    close(x.map_or(-1, |fd| fd as i32));
    let up = raw(nr::OPENAT, [fd as usize, path(c"../a"), 0, 0]);
    checks.ok(up.is_ok(), "with .. where it is now");
    close(up.map_or(-1, |fd| fd as i32));
    close(fd);
    checks.eq(rename(c"b", c"f/b"), Ok(0), "into a directory");
    checks.eq(joined(c"f"), b"b x".to_vec(), "there it is");
    checks.fails(rename(c"/tmp/.", c"x"), Errno::EBUSY, "not .");
    let all = [remove(c"f/b", 0), remove(c"f/x", 0), remove(c"a", 0), remove(c"f", 0x200), remove(c"d", 0x200)];
    checks.eq(all, [Ok(0); 5], "removed");
}

fn links(checks: &mut Checks) {
    create(c"a", b"a");
    checks.eq(link(c"a", c"b", 0), Ok(0), "link");
    let (a, b) = (stat(c"a").expect("a"), stat(c"b").expect("b"));
    checks.eq((a.ino, a.nlink, b.nlink), (b.ino, 2, 2), "one file, two names");
    checks.fails(link(c"a", c"b", 0), Errno::EEXIST, "over a name");
    checks.fails(link(c".", c"c", 0), Errno::EPERM, "of a directory");
    checks.eq(rename(c"a", c"b"), Ok(0), "rename of a name over another of the same file");
    checks.eq((stat(c"a").is_ok(), stat(c"b").is_ok()), (true, true), "does nothing");
    checks.eq(remove(c"a", 0), Ok(0), "unlink");
    checks.eq(stat(c"b").map(|stat| stat.nlink), Ok(1), "one name is left");
    checks.eq(symlink(c"b", c"s"), Ok(0), "symlink");
    checks.eq(fs::readlink(c"s").as_deref(), Ok(&b"b"[..]), "readlink");
    checks.fails(fs::readlink(c"b"), Errno::EINVAL, "of a file");
    checks.eq(stat(c"s").map(|stat| (stat.mode & mode::FMT, stat.size)), Ok((mode::LNK, 1)), "its record");
    checks.eq(content(c"s").as_deref(), Ok(&b"a"[..]), "is followed");
    checks.fails(open(c"s", Open::NOFOLLOW, 0), Errno::ELOOP, "O_NOFOLLOW");
    checks.fails(open(c"s", Open::CREAT | Open::EXCL, 0o600), Errno::EEXIST, "O_EXCL does not follow");
    checks.eq(symlink(c"new", c"t"), Ok(0), "a link to nothing");
    checks.fails(content(c"t"), Errno::ENOENT, "leads there");
    create(c"t", b"n");
    checks.eq(content(c"new").as_deref(), Ok(&b"n"[..]), "and what is made by it is made there");
    checks.eq(symlink(c"loop", c"loop"), Ok(0), "a link to itself");
    checks.fails(content(c"loop"), Errno::ELOOP, "has no end");
    checks.eq(symlink(c"/bin", c"bin"), Ok(0), "a link out of the file system");
    checks.ok(fs::stat(c"bin/echo", 0).is_ok() || !is_quire(), "is followed there");
    checks.eq(symlink(c"../..", c"up"), Ok(0), "and one upwards");
    checks.eq(fs::stat(c"up/tmp/.", 0).map(|s| s.ino), fs::stat(c"/tmp", 0).map(|s| s.ino), "through the root");
    let long = format!("{}\0", "x/".repeat(2047));
    let long = CStr::from_bytes_until_nul(long.as_bytes()).expect("a text");
    checks.eq(symlink(long, c"long"), Ok(0), "a long text");
    checks.eq(fs::readlink(c"long").map(|text| text.len()), Ok(4094), "is kept whole");
    checks.fails(content(c"long/x"), Errno::ENAMETOOLONG, "and makes a path too long");
    checks.eq(link(c"s", c"c", 0), Ok(0), "a link of a link");
    checks.eq(stat(c"c").map(|stat| stat.mode & mode::FMT), Ok(mode::LNK), "is a link");
    checks.eq(link(c"s", c"d", at::SYMLINK_FOLLOW), Ok(0), "followed");
    checks.eq(stat(c"d").map(|stat| stat.mode & mode::FMT), Ok(mode::REG), "it is the file");
    for name in [c"b", c"s", c"t", c"new", c"loop", c"bin", c"up", c"long", c"c", c"d"] {
        checks.eq(remove(name, 0), Ok(0), "unlink");
    }
}

/// Where one file system ends and another begins.
fn borders(checks: &mut Checks, home: &CStr) {
    checks.eq(fs::stat(c"..", 0).map(|s| s.ino), fs::stat(c"/tmp", 0).map(|s| s.ino), ".. within");
    checks.eq(fs::stat(c"../..", 0).map(|s| s.ino), fs::stat(c"/", 0).map(|s| s.ino), ".. out of it");
    checks.eq(fs::stat(c"../../tmp/../tmp", 0).map(|s| s.dev), fs::stat(c"/tmp", 0).map(|s| s.dev), "and in again");
    checks.eq(fs::chdir(c"/tmp"), Ok(()), "to the root of it");
    checks.eq(fs::getcwd().as_deref(), Ok(&b"/tmp"[..]), "which getcwd names");
    checks.eq(fs::chdir(c".."), Ok(()), "up");
    checks.eq(fs::getcwd().as_deref(), Ok(&b"/"[..]), "to the root of all");
    checks.eq(fs::chdir(home), Ok(()), "back");
    create(c"f", b"f");
    if is_quire() {
        checks.fails(rename(c"f", c"/bin/f"), Errno::EXDEV, "rename out of the file system");
        checks.fails(rename(c"/bin/echo", c"f"), Errno::EROFS, "rename out of the archive");
        checks.fails(link(c"f", c"/run/f", 0), Errno::EXDEV, "a name in another one");
        checks.fails(mkdir(c"/bin/d", 0o755), Errno::EROFS, "mkdir in the archive");
        checks.fails(mkdir(c"/bin", 0o755), Errno::EEXIST, "over what is there");
        checks.fails(remove(c"/bin/echo", 0), Errno::EROFS, "unlink in the archive");
        checks.fails(open(c"/bin/new", Open::CREAT, 0o644), Errno::EROFS, "a file in the archive");
    }
    checks.fails(remove(c"/tmp", at::REMOVEDIR), Errno::EBUSY, "what is mounted is not removed");
    checks.eq(rename(c"f", c"../../tmp/../tmp/names-moved"), Ok(0), "rename by a way through another");
    checks.eq(remove(c"/tmp/names-moved", 0), Ok(0), "unlink");
}

fn attributes(checks: &mut Checks) {
    create(c"f", b"f");
    checks.eq(raw(nr::FCHMODAT, [HERE, path(c"f"), 0o640]), Ok(0), "chmod");
    checks.eq(stat(c"f").map(|stat| stat.mode), Ok(mode::REG | 0o640), "changes it");
    checks.eq(raw(nr::FCHOWNAT, [HERE, path(c"f"), 7, 8, 0]), Ok(0), "chown");
    checks.eq(stat(c"f").map(|stat| (stat.uid, stat.gid)), Ok((7, 8)), "changes it");
    let times = [Timespec { sec: 1000, nsec: 5 }, Timespec { sec: 2000, nsec: 6 }];
    checks.eq(raw(nr::UTIMENSAT, [HERE, path(c"f"), times.as_ptr() as usize, 0]), Ok(0), "utimensat");
    let record = stat(c"f").expect("a record");
    checks.eq((record.atime.sec, record.mtime.sec, record.mtime.nsec), (1000, 2000, 6), "sets times");
    checks.eq(mkdir(c"d", 0o755), Ok(0), "a directory");
    checks.eq(raw(nr::FCHMODAT, [HERE, path(c"d"), 0o1777]), Ok(0), "its permissions");
    checks.eq(raw(nr::UTIMENSAT, [HERE, path(c"d"), times.as_ptr() as usize, 0]), Ok(0), "and times");
    let record = stat(c"d").expect("a record");
    checks.eq((record.mode & 0o7777, record.mtime.sec), (0o1777, 2000), "change too");
    let before = stat(c"d").map(|stat| stat.mtime.sec).unwrap_or(0);
    create(c"d/x", b"");
    checks.ok(stat(c"d").is_ok_and(|stat| stat.mtime.sec != before), "a new name changes its directory's time");
    let mut record = [0u64; 15];
    checks.eq(raw(nr::STATFS, [path(c"."), record.as_mut_ptr() as usize]), Ok(0), "statfs");
    checks.eq((record[0], record[1]), (0x0102_1994, PAGE as u64), "of a tmpfs");
    checks.ok(record[3] <= record[2] && record[2] > 0, "with a size");
    checks.eq([remove(c"d/x", 0), remove(c"d", 0x200), remove(c"f", 0)], [Ok(0); 3], "removed");
}

fn permissions(checks: &mut Checks) {
    create(c"secret", b"s");
    checks.eq(raw(nr::FCHMODAT, [HERE, path(c"secret"), 0o600]), Ok(0), "a file of root's");
    checks.eq(mkdir(c"closed", 0o700), Ok(0), "a directory of root's");
    create(c"closed/f", b"f");
    checks.eq(mkdir(c"all", 0o777), Ok(0), "a directory");
    checks.eq(raw(nr::FCHMODAT, [HERE, path(c"all"), 0o1777]), Ok(0), "for all, but sticky");
    create(c"all/roots", b"");
    let as_user = |run: fn() -> bool| {
        child(|| {
            let is_user = raw(nr::SETGID, [100]).is_ok() && raw(nr::SETUID, [100]).is_ok();
            !(is_user && run()) as i32
        })
    };
    let yes = Ok(Status::Exited(0));
    checks.eq(as_user(|| open(c"secret", Open::empty(), 0).err() == Some(Errno::EACCES)), yes, "no reading");
    checks.eq(as_user(|| open(c"closed/f", Open::empty(), 0).err() == Some(Errno::EACCES)), yes, "no search");
    checks.eq(as_user(|| fs::chdir(c"closed").err() == Some(Errno::EACCES)), yes, "no entering");
    checks.eq(as_user(|| mkdir(c"d", 0o755).err() == Some(Errno::EACCES)), yes, "no writing to a directory");
    checks.eq(as_user(|| remove(c"all/roots", 0).err() == Some(Errno::EPERM)), yes, "no removal in a sticky one");
    let access = || raw(nr::FACCESSAT, [HERE, path(c"secret"), 4]).err() == Some(Errno::EACCES);
    checks.eq(as_user(access), yes, "access says so");
    let chmod = || raw(nr::FCHMODAT, [HERE, path(c"secret"), 0o666]).err() == Some(Errno::EPERM);
    checks.eq(as_user(chmod), yes, "no chmod of another's file");
    let own = || {
        create(c"all/own", b"own");
        let record = stat(c"all/own");
        record.is_ok_and(|stat| (stat.uid, stat.gid) == (100, 100)) && remove(c"all/own", 0).is_ok()
    };
    checks.eq(as_user(own), yes, "one's own file is one's own");
    let all = [remove(c"all/roots", 0), remove(c"all", 0x200), remove(c"closed/f", 0), remove(c"closed", 0x200)];
    checks.eq(all, [Ok(0); 4], "removed");
    checks.eq(remove(c"secret", 0), Ok(0), "removed");
}

fn mappings(checks: &mut Checks) {
    create(c"m", b"mapped");
    let fd = open(c"m", Open::RDWR, 0).expect("a file");
    let shared = mmap(0, PAGE, RW, Map::SHARED, fd, 0).expect("a mapping");
    let private = mmap(0, PAGE, Prot::READ, Map::PRIVATE, fd, 0).expect("a mapping");
    // SAFETY: both are mapped, and nothing else refers to them.
    unsafe { (shared as *mut u8).write_volatile(b'M') };
    checks.eq(content(c"m").as_deref(), Ok(&b"Mapped"[..]), "a store is read");
    // SAFETY: as above.
    checks.eq(unsafe { (private as *const u8).read_volatile() }, b'M', "and seen by who maps it");
    checks.eq(remove(c"m", 0), Ok(0), "unlink");
    close(fd);
    // SAFETY: as above.
    checks.eq(unsafe { (shared as *const u8).read_volatile() }, b'M', "it lasts while it is mapped");
    for at in [shared, private] {
        let _ = raw(nr::MUNMAP, [at, PAGE]);
    }
}

fn programs(checks: &mut Checks) {
    let Ok(program) = content(c"/bin/true") else {
        return checks.skip("programs", "no /bin/true");
    };
    create(c"true", &program);
    let run = |name: &CStr| {
        child(|| {
            let arguments = [name.as_ptr() as usize, 0];
            let failed = raw(nr::EXECVE, [path(name), arguments.as_ptr() as usize, 0]);
            failed.map_or_else(Errno::get, |_| 0)
        })
    };
    checks.eq(run(c"true"), Ok(Status::Exited(Errno::EACCES.get() as u8)), "a file that is no program");
    checks.eq(raw(nr::FCHMODAT, [HERE, path(c"true"), 0o755]), Ok(0), "chmod +x");
    checks.eq(run(c"true"), Ok(Status::Exited(0)), "a program in memory runs");
    create(c"script", b"#!true\n");
    checks.eq(raw(nr::FCHMODAT, [HERE, path(c"script"), 0o755]), Ok(0), "chmod +x");
    checks.eq(run(c"script"), Ok(Status::Exited(0)), "so does a script with it");
    checks.eq([remove(c"true", 0), remove(c"script", 0)], [Ok(0); 2], "removed");
}

/// Many at once.
fn crowds(checks: &mut Checks) {
    const CHILDREN: usize = 8;
    const ROUNDS: usize = 40;
    let children: Vec<i32> = (0..CHILDREN)
        .filter_map(|n| {
            user_tests::start(|| {
                for round in 0..ROUNDS {
                    let name = format!("c{n}.{round}\0");
                    let name = CStr::from_bytes_until_nul(name.as_bytes()).expect("a name");
                    create(name, name.to_bytes());
                    let is_there = content(name).is_ok_and(|bytes| bytes == name.to_bytes());
                    let moved = rename(name, c"common").is_ok();
                    if !(is_there && moved) {
                        return 1;
                    }
                }
                0
            })
            .ok()
        })
        .collect();
    let good = children.into_iter().filter(|pid| process::waitpid(*pid) == Ok(Status::Exited(0))).count();
    checks.eq(good, CHILDREN, "eight processes at once");
    checks.eq(joined(c"."), b"common".to_vec(), "one file is left");
    checks.eq(remove(c"common", 0), Ok(0), "removed");
    // A caller that is killed in the middle of a call leaves nothing behind.
    for _ in 0..40 {
        let pid = user_tests::start(|| {
            loop {
                create(c"k", b"k");
                let _ = rename(c"k", c"l");
            }
        });
        let Ok(pid) = pid else { continue };
        let _ = raw(nr::SCHED_YIELD, []);
        let _ = raw(nr::KILL, [pid as usize, sig::KILL as usize]);
        let _ = process::waitpid(pid);
    }
    let _ = (remove(c"k", 0), remove(c"l", 0));
    checks.eq(joined(c"."), Vec::new(), "killed callers do no harm");
}
