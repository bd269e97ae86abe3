//! What the kernel keeps of servers' names: it is never older than the last change, whoever makes that, and is given
//! only to whoever may have it; a server's consent is needed, and ends with the server.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::vec::Vec;
use core::ffi::CStr;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use quire_rt::abi::flags::{Control, Open, sig};
use quire_rt::abi::ipc::{AttachedHandle, Attachments, rights};
use quire_rt::abi::layout::{Timespec, at, mode};
use quire_rt::abi::names::{DONE, KEPT, NOTHING, op};
use quire_rt::abi::nr;
use quire_rt::ipc::{Message, Patience, Received, Receiver, What};
use quire_rt::process::{self, Status};
use quire_rt::{Errno, fs, handles, io};
use user_tests::files::{HERE, close, create, mkdir, open, path, remove, stat};
use user_tests::{Checks, child, is_quire, raw, shared_counters, start};

quire_rt::entry!(main);

fn main() -> i32 {
    let mut checks = Checks::new();
    if !fs::stat(c"/tmp", 0).is_ok_and(|stat| stat.mode & mode::FMT == mode::DIR) {
        checks.skip("kept", "no /tmp here");
        return checks.finish();
    }
    let _ = raw(nr::UMASK, [0o022]);
    let home = format!("/tmp/kept.{}\0", process::getpid());
    let home = CStr::from_bytes_until_nul(home.as_bytes()).expect("a name");
    checks.eq(mkdir(home, 0o755), Ok(0), "a directory");
    checks.eq(fs::chdir(home), Ok(()), "entered");
    changes(&mut checks);
    directories(&mut checks);
    links(&mut checks);
    users(&mut checks);
    races(&mut checks);
    checks.eq(fs::chdir(c"/"), Ok(()), "back");
    checks.eq(remove(home, at::REMOVEDIR), Ok(0), "what was made is gone");
    if is_quire() && handles::control() != 0 {
        consent(&mut checks);
        lies(&mut checks);
    } else {
        checks.skip("servers of this test", "no right to mount");
    }
    checks.finish()
}

fn rename(from: &CStr, to: &CStr, flags: usize) -> Result<usize, Errno> {
    raw(nr::RENAMEAT2, [HERE, path(from), HERE, path(to), flags])
}

fn link(from: &CStr, to: &CStr) -> Result<usize, Errno> {
    raw(nr::LINKAT, [HERE, path(from), HERE, path(to), 0])
}

fn symlink(target: &CStr, name: &CStr) -> Result<usize, Errno> {
    raw(nr::SYMLINKAT, [path(target), HERE, path(name)])
}

fn chmod(name: &CStr, mode: u32) -> Result<usize, Errno> {
    raw(nr::FCHMODAT, [HERE, path(name), mode as usize])
}

fn is_there(name: &CStr) -> bool {
    // (Twice: what was asked for, then what is kept.)
    let first = stat(name);
    let second = stat(name);
    assert_eq!(first.as_ref().map(|stat| stat.ino).ok(), second.map(|stat| stat.ino).ok());
    first.is_ok()
}

fn names(of: &CStr) -> Vec<u8> {
    let list = || fs::read_dir(of).unwrap_or_default().into_iter().map(|entry| entry.name).collect::<Vec<_>>();
    let first = list();
    assert_eq!(first, list());
    first.join(&b' ')
}

/// Each change of a name shows at once, whatever was known of it before.
fn changes(checks: &mut Checks) {
    checks.ok(!is_there(c"f"), "nothing is there");
    create(c"f", b"1");
    checks.ok(is_there(c"f"), "a file is made");
    checks.ok(!is_there(c"g"), "nothing is there");
    checks.eq(rename(c"f", c"g", 0), Ok(0), "rename");
    checks.eq((is_there(c"f"), is_there(c"g")), (false, true), "moves it");
    create(c"f", b"22");
    let ino = |name: &CStr| (is_there(name), stat(name).map_or(0, |stat| stat.ino));
    let (f, g) = (ino(c"f"), ino(c"g"));
    checks.eq(rename(c"f", c"g", 2), Ok(0), "RENAME_EXCHANGE");
    checks.eq((ino(c"f"), ino(c"g")), (g, f), "exchanges them");
    checks.eq(rename(c"f", c"g", 0), Ok(0), "rename over a file");
    checks.eq((is_there(c"f"), ino(c"g")), (false, g), "replaces it");
    checks.eq(link(c"g", c"h"), Ok(0), "link");
    checks.ok(is_there(c"h") && stat(c"h").is_ok_and(|stat| stat.nlink == 2), "a second name");
    checks.eq(remove(c"g", 0), Ok(0), "unlink");
    checks.eq((is_there(c"g"), stat(c"h").map(|stat| stat.nlink)), (false, Ok(1)), "leaves one");
    checks.eq(chmod(c"h", 0o600), Ok(0), "chmod");
    checks.eq(stat(c"h").map(|stat| stat.mode & 0o777), Ok(0o600), "shows");
    let fd = open(c"h", Open::WRONLY | Open::APPEND, 0).expect("a file");
    checks.eq(io::write(fd, b"+"), Ok(1), "a longer file");
    close(fd);
    checks.eq(stat(c"h").map(|stat| stat.size), Ok(2), "is longer by its name");
    checks.fails(open(c"h", Open::CREAT | Open::EXCL, 0o600), Errno::EEXIST, "O_EXCL of what is known");
    checks.fails(open(c"h/", Open::CREAT, 0o600), Errno::EISDIR, "with a slash");
    checks.fails(open(c"h", Open::DIRECTORY, 0), Errno::ENOTDIR, "no directory");
    checks.fails(stat(c"h/x"), Errno::ENOTDIR, "nor on a way");
    checks.fails(stat(c"h/"), Errno::ENOTDIR, "nor with a slash");
    checks.fails(stat(c"none/x"), Errno::ENOENT, "nothing is on no way");
    checks.fails(fs::readlink(c"h"), Errno::EINVAL, "no link");
    close(open(c"h", Open::CREAT | Open::TRUNC | Open::WRONLY, 0o600).unwrap_or(-1));
    checks.eq(stat(c"h").map(|stat| stat.size), Ok(0), "O_TRUNC of what is known");
    checks.eq(remove(c"h", 0), Ok(0), "unlink");
    checks.ok(!is_there(c"h"), "it is gone");
    checks.eq(raw(nr::MKNODAT, [HERE, path(c"h"), (mode::REG | 0o600) as usize, 0]), Ok(0), "mknod");
    checks.ok(is_there(c"h"), "it is there");
    checks.eq(remove(c"h", 0), Ok(0), "unlink");
    let long = format!("{}\0", "n".repeat(256));
    let long = CStr::from_bytes_until_nul(long.as_bytes()).expect("a name");
    checks.fails(stat(long), Errno::ENAMETOOLONG, "a name of 256 bytes");
    let longest = CStr::from_bytes_until_nul(&long.to_bytes_with_nul()[1..]).expect("a name");
    checks.ok(!is_there(longest), "one of 255 bytes");
    create(longest, b"");
    checks.ok(is_there(longest), "is made");
    checks.eq((remove(longest, 0), is_there(longest)), (Ok(0), false), "and removed");
}

fn directories(checks: &mut Checks) {
    checks.ok(!is_there(c"d"), "no directory");
    checks.eq(mkdir(c"d", 0o755), Ok(0), "mkdir");
    checks.ok(is_there(c"d") && stat(c"d").is_ok_and(|stat| stat.nlink == 2), "it is there");
    checks.eq(names(c"d"), b"".to_vec(), "and empty");
    checks.eq(mkdir(c"d/e", 0o755), Ok(0), "another one in it");
    checks.eq((stat(c"d").map(|stat| stat.nlink), names(c"d")), (Ok(3), b"e".to_vec()), "shows at its parent");
    create(c"d/e/f", b"f");
    checks.ok(is_there(c"d/e/f") && is_there(c"d/./e/../e/f"), "a file in it");
    checks.eq(names(c"d/e"), b"f".to_vec(), "is listed");
    let fd = open(c"d/e", Open::DIRECTORY, 0).expect("a directory");
    checks.eq(rename(c"d", c"D", 0), Ok(0), "the upper one moves");
    checks.eq((is_there(c"d/e/f"), is_there(c"D/e/f")), (false, true), "with all that is in it");
    let at_fd = |name: &CStr| raw(nr::FACCESSAT, [fd as usize, path(name), 0]).is_ok();
    checks.eq((at_fd(c"f"), at_fd(c"../e/f")), (true, true), "the lower one is the same");
    checks.eq(mkdir(c"x", 0o755), Ok(0), "another place");
    checks.eq(rename(c"D/e", c"x/e", 0), Ok(0), "the lower one moves");
    create(c"x/beside", b"");
    checks.eq((at_fd(c"../beside"), at_fd(c"../e/f")), (true, true), "its .. is where it is now");
    checks.eq((is_there(c"D/e"), names(c"D"), names(c"x")), (false, b"".to_vec(), b"beside e".to_vec()), "lists");
    // A list in pieces, of which the rest is asked for after a change.
    let list = open(c"x", Open::DIRECTORY, 0).expect("a directory");
    let mut buffer = [0u8; 64];
    let piece = |buffer: &mut [u8]| raw(nr::GETDENTS64, [list as usize, buffer.as_mut_ptr() as usize, buffer.len()]);
    checks.eq(piece(&mut buffer), Ok(48), "a piece of a list");
    checks.fails(piece(&mut buffer[..20]), Errno::EINVAL, "no room");
    checks.eq(piece(&mut buffer), Ok(56), "and the rest");
    checks.eq(piece(&mut buffer), Ok(0), "its end");
    checks.eq((fs::lseek(list, 0, 0), piece(&mut buffer[..24])), (Ok(0), Ok(24)), "from the beginning");
    checks.eq(remove(c"x/beside", 0), Ok(0), "something is removed");
    checks.eq((piece(&mut buffer[..24]), piece(&mut buffer)), (Ok(24), Ok(24)), "the rest of what is left");
    close(list);
    let times = [Timespec { sec: 1000, nsec: 5 }, Timespec { sec: 2000, nsec: 6 }];
    checks.eq(raw(nr::UTIMENSAT, [HERE, path(c"x"), times.as_ptr() as usize, 0]), Ok(0), "utimensat of a directory");
    checks.eq(stat(c"x").map(|stat| stat.mtime.sec), Ok(2000), "shows");
    checks.eq(chmod(c"x", 0o700), Ok(0), "chmod");
    checks.eq(stat(c"x").map(|stat| stat.mode & 0o777), Ok(0o700), "shows");
    checks.eq(raw(nr::FCHMOD, [fd as usize, 0o711]), Ok(0), "fchmod");
    checks.eq(stat(c"x/e").map(|stat| stat.mode & 0o777), Ok(0o711), "shows");
    checks.eq(remove(c"x/e/f", 0).and(remove(c"x/e", at::REMOVEDIR)), Ok(0), "all is removed");
    checks.eq((is_there(c"x/e"), stat(c"x").map(|stat| stat.nlink)), (false, Ok(2)), "which shows");
    checks.fails(raw(nr::FACCESSAT, [fd as usize, path(c"."), 0]), Errno::ENOENT, "a directory that is gone");
    checks.fails(raw(nr::OPENAT, [fd as usize, path(c"."), 0, 0]), Errno::ENOENT, "is not opened again");
    checks.eq(fs::fstat(fd).map(|stat| stat.nlink), Ok(0), "and has no name");
    checks.fails(raw(nr::FACCESSAT, [fd as usize, path(c"../e"), 0]), Errno::ENOENT, "nor a parent");
    close(fd);
    checks.eq(remove(c"x", 0x200).and(remove(c"D", 0x200)), Ok(0), "removed");
    checks.eq((is_there(c"x"), is_there(c"D")), (false, false), "they are gone");
}

fn links(checks: &mut Checks) {
    create(c"a", b"a");
    create(c"bb", b"bb");
    let size = |name: &CStr| (fs::stat(name, 0).map(|stat| stat.size), fs::stat(name, 0).map(|stat| stat.size));
    checks.eq(symlink(c"a", c"l"), Ok(0), "a link");
    checks.eq((size(c"l"), fs::readlink(c"l").as_deref()), ((Ok(1), Ok(1)), Ok(&b"a"[..])), "leads to a file");
    checks.eq(remove(c"l", 0).and(symlink(c"bb", c"l")), Ok(0), "another one in its place");
    checks.eq((size(c"l"), fs::readlink(c"l").as_deref()), ((Ok(2), Ok(2)), Ok(&b"bb"[..])), "leads to another");
    checks.eq(rename(c"l", c"m", 0), Ok(0), "moved");
    checks.eq((is_there(c"l"), size(c"m")), (false, (Ok(2), Ok(2))), "it leads there still");
    let nlink = |name: &CStr| (is_there(name), stat(name).map_or(0, |stat| stat.nlink));
    checks.eq(nlink(c"m"), (true, 1), "it has one name");
    checks.eq(link(c"m", c"n"), Ok(0), "a second one");
    checks.eq((nlink(c"m"), nlink(c"n")), ((true, 2), (true, 2)), "both know");
    let times = [Timespec { sec: 1000, nsec: 5 }, Timespec { sec: 2000, nsec: 6 }];
    let touched = raw(nr::UTIMENSAT, [HERE, path(c"n"), times.as_ptr() as usize, at::SYMLINK_NOFOLLOW as usize]);
    checks.eq(
        (touched, stat(c"m").map(|stat| stat.mtime.sec)),
        (Ok(0), Ok(2000)),
        "a change by one shows by the other",
    );
    checks.eq(remove(c"n", 0), Ok(0), "one is removed");
    checks.eq((nlink(c"m"), nlink(c"n")), ((true, 1), (false, 0)), "and one is left");
    checks.eq((mkdir(c"d", 0o755), symlink(c"d", c"to-d")), (Ok(0), Ok(0)), "a link to a directory");
    create(c"to-d/f", b"f");
    checks.eq((is_there(c"to-d/f"), is_there(c"d/f"), is_there(c"to-d/../a")), (true, true, true), "on a way");
    checks.eq(remove(c"to-d", 0).and(symlink(c"none", c"to-d")), Ok(0), "it leads nowhere");
    checks.eq((is_there(c"to-d/f"), fs::stat(c"to-d", 0).err()), (false, Some(Errno::ENOENT)), "which shows");
    checks.fails(open(c"to-d", Open::NOFOLLOW, 0), Errno::ELOOP, "O_NOFOLLOW");
    checks.eq(open(c"to-d", Open::CREAT | Open::WRONLY, 0o600).map(close), Ok(()), "made where it leads");
    checks.eq((is_there(c"none"), fs::stat(c"to-d", 0).is_ok()), (true, true), "which shows too");
    let loops = symlink(c"two", c"one").and(symlink(c"one", c"two"));
    checks.eq(
        (loops, fs::stat(c"one", 0).err(), fs::stat(c"one", 0).err()),
        (Ok(0), Some(Errno::ELOOP), Some(Errno::ELOOP)),
        "a loop",
    );
    let out = symlink(c"/bin/..", c"out");
    checks.eq(
        (out, fs::stat(c"out/tmp", 0).is_ok(), fs::stat(c"out/tmp", 0).is_ok()),
        (Ok(0), true, true),
        "out and in again",
    );
    for name in [c"a", c"bb", c"m", c"d/f", c"to-d", c"none", c"one", c"two", c"out"] {
        checks.eq(remove(name, 0), Ok(0), "unlink");
    }
    checks.eq(remove(c"d", at::REMOVEDIR), Ok(0), "rmdir");
}

/// Runs something as another user, who is in a further group.
fn as_user(run: impl FnOnce() -> bool) -> bool {
    let groups = [200u32];
    let status = child(|| {
        let is_user = raw(nr::SETGROUPS, [1, groups.as_ptr() as usize]).is_ok()
            && raw(nr::SETGID, [100]).is_ok()
            && raw(nr::SETUID, [100]).is_ok();
        !(is_user && run()) as i32
    });
    status == Ok(Status::Exited(0))
}

/// Others are given only what they may have, also of what is known already.
fn users(checks: &mut Checks) {
    checks.eq(mkdir(c"d", 0o755).and(mkdir(c"d/e", 0o755)), Ok(0), "directories");
    create(c"d/e/f", b"secret");
    create(c"d/e/g", b"");
    let error =
        |name: &CStr| (stat(name).err(), fs::readlink(name).err(), open(name, Open::empty(), 0).map(close).err());
    let (open_to_all, closed) = ((None, Some(Errno::EINVAL), None), Some(Errno::EACCES));
    checks.ok(is_there(c"d/e/f") && as_user(|| error(c"d/e/f") == open_to_all), "open to all");
    let set = |name: &CStr, mode, group: usize| {
        let owned = raw(nr::FCHOWNAT, [HERE, path(name), 0, group, 0]);
        assert_eq!((owned, chmod(name, mode)), (Ok(0), Ok(0)));
        assert!(is_there(c"d/e/f"));
    };
    set(c"d", 0o700, 0);
    checks.ok(as_user(|| error(c"d/e/f") == (closed, closed, closed)), "a directory above is closed");
    checks.ok(as_user(|| fs::chdir(c"d").err() == closed && fs::chdir(c"d/e").err() == closed), "not to be entered");
    checks.ok(as_user(|| stat(c"d/e/none").err() == closed && stat(c"d").is_ok()), "nor is asked what is not there");
    set(c"d", 0o750, 200);
    checks.ok(as_user(|| error(c"d/e/f") == open_to_all), "open to a group");
    set(c"d", 0o705, 200);
    checks.ok(as_user(|| error(c"d/e/f") == (closed, closed, closed)), "closed to a group");
    set(c"d", 0o755, 0);
    set(c"d/e", 0o754, 0);
    checks.ok(as_user(|| error(c"d/e/f") == (closed, closed, closed)), "a directory with a list but no way");
    checks.ok(as_user(|| names(c"d/e") == b"f g"), "is listed");
    set(c"d/e", 0o711, 0);
    checks
        .ok(as_user(|| error(c"d/e/f") == open_to_all && fs::read_dir(c"d/e").err() == closed), "a way without a list");
    set(c"d/e/f", 0o604, 200);
    checks.ok(as_user(|| stat(c"d/e/f").is_ok() && open(c"d/e/f", Open::empty(), 0).err() == closed), "a closed file");
    set(c"d/e/f", 0o640, 200);
    let writes = |name: &CStr| open(name, Open::WRONLY, 0).map(close).err();
    checks.ok(as_user(|| error(c"d/e/f") == open_to_all && writes(c"d/e/f") == closed), "one to read");
    let trunc = || open(c"d/e/f", Open::TRUNC, 0).map(close).err() == closed;
    checks.ok(as_user(trunc) && stat(c"d/e/f").is_ok_and(|stat| stat.size == 6), "and not to cut");
    set(c"d/e/f", 0o662, 100);
    checks.ok(as_user(|| writes(c"d/e/f").is_none() && error(c"d/e/f") == open_to_all), "one to write");
    let accesses = |wanted: usize| raw(nr::FACCESSAT, [HERE, path(c"d/e/f"), wanted]).err();
    checks.ok(as_user(|| accesses(6).is_none() && accesses(1) == closed), "access says so");
    checks.ok(accesses(7) == closed && accesses(6).is_none(), "root executes what somebody may");
    checks.ok(as_user(|| mkdir(c"d/e/h", 0o755).err() == closed && remove(c"d/e/g", 0).err() == closed), "no changes");
    checks.eq(
        [remove(c"d/e/f", 0), remove(c"d/e/g", 0), remove(c"d/e", 0x200), remove(c"d", 0x200)],
        [Ok(0); 4],
        "removed",
    );
}

/// Runs `look` in three processes while this one repeats `change` with 0, 1, 0, … `look` is told what was last: an
/// answer that does not fit, and during which nothing changed, is a failure.
fn race(change: impl Fn(u64), look: impl Fn(u64) -> bool) -> bool {
    const ROUNDS: u64 = 80;
    let [state, end, ..] = shared_counters();
    change(0);
    let children: Vec<i32> = (0..3)
        .filter_map(|_| {
            start(|| {
                let mut bad = 0;
                while end.load(SeqCst) == 0 {
                    let before = state.load(SeqCst);
                    let fits = look(before / 2 % 2);
                    bad |= i32::from(!fits && before % 2 == 0 && state.load(SeqCst) == before);
                }
                bad
            })
            .ok()
        })
        .collect();
    let mut good = true;
    for round in 1..=ROUNDS {
        state.fetch_add(1, SeqCst);
        change(round % 2);
        state.fetch_add(1, SeqCst);
        good &= look(round % 2);
        if round % 16 == 0 {
            let _ = raw(nr::SCHED_YIELD, []);
        }
    }
    end.store(1, SeqCst);
    children.into_iter().all(|pid| process::waitpid(pid) == Ok(Status::Exited(0))) && good
}

/// What is looked for while it is changed is found as it is.
fn races(checks: &mut Checks) {
    let there = |name: &CStr| stat(name).is_ok();
    create(c"a", b"");
    let shift = |from: &CStr, to: &CStr| _ = rename(from, to, 0);
    let moves = |to: u64| if to == 1 { shift(c"a", c"b") } else { shift(c"b", c"a") };
    checks.ok(race(moves, |to| (there(c"a"), there(c"b")) == (to == 0, to == 1)), "a file that moves");
    checks.eq(remove(c"a", 0), Ok(0), "removed");
    let makes = |to: u64| match to {
        1 => close(open(c"m", Open::CREAT | Open::EXCL, 0o600).unwrap_or(-1)),
        _ => _ = remove(c"m", 0),
    };
    let opens = |to: u64| open(c"m", Open::empty(), 0).map(close).is_ok() == (to == 1);
    checks.ok(race(makes, opens), "a file that comes and goes");
    checks.eq(mkdir(c"d", 0o755).and(mkdir(c"d/e", 0o755)), Ok(0), "directories");
    create(c"d/e/f", b"");
    let shifts = |to: u64| if to == 1 { shift(c"d/e", c"e") } else { shift(c"e", c"d/e") };
    checks.ok(race(shifts, |to| (there(c"d/e/f"), there(c"e/f")) == (to == 0, to == 1)), "a directory that moves");
    let fd = open(c"d/e", Open::DIRECTORY, 0).expect("a directory");
    let up = |to: u64| raw(nr::FACCESSAT, [fd as usize, path(c"../e"), 0]).is_ok() && there(c"e") == (to == 1);
    checks.ok(race(shifts, up), "and knows its ..");
    close(fd);
    let count =
        |to: u64| stat(c"d").is_ok_and(|stat| stat.nlink == 3 - to as u32) && names_once(c"d") == 1 - to as usize;
    checks.ok(race(shifts, count), "its parent counts it");
    let closes = |to: u64| _ = chmod(c"d", if to == 1 { 0o700 } else { 0o755 });
    let enters = |to: u64| {
        if raw(nr::GETEUID, []) == Ok(0) {
            let _ = raw(nr::SETRESUID, [usize::MAX, 100, usize::MAX]);
        }
        let error = stat(c"d/e/f").err();
        let _ = raw(nr::SETRESUID, [usize::MAX, 0, usize::MAX]);
        error == if to == 1 { Some(Errno::EACCES) } else { None }
    };
    checks.ok(race(closes, enters), "a directory that is closed and opened");
    let points = |to: u64| {
        let _ = remove(c"l", 0);
        let _ = symlink(if to == 1 { c"d/e" } else { c"d" }, c"l");
    };
    checks.ok(race(points, |to| there(c"l/f") == (to == 1) && there(c"l/e") == (to == 0)), "a link that changes");
    // Whoever is killed in the middle of a change leaves nothing old behind.
    let mut good = true;
    for _ in 0..60 {
        let Ok(pid) = start(|| {
            loop {
                create(c"k", b"");
                let _ = rename(c"k", c"k2", 0);
                let _ = remove(c"k2", 0);
            }
        }) else {
            continue;
        };
        for _ in 0..8 {
            let _ = (there(c"k"), there(c"k2"));
        }
        let _ = raw(nr::KILL, [pid as usize, sig::KILL as usize]);
        let _ = process::waitpid(pid);
        let listed = |name: &[u8]| fs::read_dir(c".").is_ok_and(|all| all.iter().any(|entry| entry.name == name));
        // (The server may be at work on the last one until it answers the next.)
        let _ = raw(nr::STATFS, [path(c"."), [0u64; 15].as_mut_ptr() as usize]);
        good &= there(c"k") == listed(b"k") && there(c"k2") == listed(b"k2");
        let _ = (remove(c"k", 0), remove(c"k2", 0));
    }
    checks.ok(good, "killed callers leave nothing old behind");
    checks.eq(
        [remove(c"l", 0), remove(c"d/e/f", 0), remove(c"d/e", 0x200), remove(c"d", 0x200)],
        [Ok(0); 4],
        "removed",
    );
}

fn names_once(of: &CStr) -> usize {
    fs::read_dir(of).map_or(9, |all| all.len())
}

/// A directory of the archive for servers of this test.
const MOUNT: &CStr = c"/mnt";

/// How a server of this test answers: words in memory that is shared with it.
struct Script {
    /// Label of an answer to LOOKUP of a name, and to one of the root.
    label: &'static AtomicU64,
    root: &'static AtomicU64,
    /// What is answered: the first two words.
    number: &'static AtomicU64,
    mode: &'static AtomicU64,
    size: &'static AtomicU64,
    /// Whether a file's object comes with it.
    lends: &'static AtomicU64,
    /// How often it was asked.
    asked: &'static AtomicU64,
    /// Whether it is to revoke what it said before it answers the next time.
    revokes: &'static AtomicU64,
}

impl Script {
    fn new() -> Self {
        let [label, root, number, mode, size, lends, asked, revokes, ..] = shared_counters();
        root.store(KEPT, SeqCst);
        Self { label, root, number, mode, size, lends, asked, revokes }
    }

    fn set(&self, label: u64, number: u64, mode: u32, lends: bool) {
        self.label.store(label, SeqCst);
        self.number.store(number, SeqCst);
        self.mode.store(u64::from(mode) | 1 << 32, SeqCst);
        self.lends.store(lends.into(), SeqCst);
    }

    /// How often the server is asked meanwhile.
    fn count<R>(&self, run: impl FnOnce() -> R) -> (R, u64) {
        let before = self.asked.load(SeqCst);
        (run(), self.asked.load(SeqCst) - before)
    }

    /// Serves until it is killed; a child, which is mounted by now.
    fn serve(&self) -> Option<i32> {
        let (reader, writer) = io::pipe(0).ok()?;
        let pid = start(|| {
            close(reader);
            let Ok(receiver) = Receiver::new() else { return 1 };
            let Ok(sender) = receiver.sender(5) else { return 1 };
            if fs::mount(MOUNT, sender, c"script").is_err() {
                return 2;
            }
            close(writer);
            self.answer(receiver)
        });
        close(writer);
        let _ = io::read(reader, &mut [0]);
        close(reader);
        pid.ok()
    }

    fn answer(&self, receiver: Receiver) -> i32 {
        let object = raw(nr::QUIRE_MEMORY, [0o100644, 0, 5]).unwrap_or(0) as u32;
        let mut received = receiver.receive(Patience::Endless);
        loop {
            let Ok(Received { what: What::Call { message, .. }, .. }) = received else { return 3 };
            self.asked.fetch_add(1, SeqCst);
            if self.revokes.swap(0, SeqCst) != 0 && receiver.forget(5).is_err() {
                return 4;
            }
            let mut words = [0; 6];
            let is_root = message.words[4] as u32 == 0;
            let label = if is_root || message.label != op::LOOKUP { self.root } else { self.label }.load(SeqCst);
            if is_root {
                words[1] = u64::from(mode::DIR | 0o755) | 2 << 32;
            } else {
                (words[0], words[1]) = (self.number.load(SeqCst), self.mode.load(SeqCst));
                words[3] = self.size.load(SeqCst);
            }
            let mut attachments = Attachments::default();
            if !is_root && self.lends.load(SeqCst) != 0 {
                attachments.handles[0] = AttachedHandle { number: object, rights: rights::READ };
            }
            let message = Message { label, words };
            received = if attachments.handles[0].number == 0 {
                receiver.reply_receive(&message, Patience::Endless)
            } else {
                receiver.reply_carrying_receive(&message, &attachments, Patience::Endless)
            };
        }
    }
}

fn end(pid: Option<i32>) {
    if let Some(pid) = pid {
        let _ = raw(nr::KILL, [pid as usize, sig::KILL as usize]);
        let _ = process::waitpid(pid);
    }
}

/// What is kept is what the server said may be, for as long as it does not take that back.
fn consent(checks: &mut Checks) {
    checks.eq(handles::grant(Control::MOUNT), Ok(()), "children may mount");
    let script = Script::new();
    let file = mode::REG | 0o644;
    script.set(DONE, 1, file, true);
    script.root.store(DONE, SeqCst);
    let server = script.serve();
    checks.ok(server.is_some(), "a server");
    let look = || stat(c"/mnt/f").map(|stat| stat.ino).is_ok();
    checks.eq(
        (script.count(look), script.count(look)),
        ((true, 1), (true, 1)),
        "without consent it is asked each time",
    );
    script.root.store(KEPT, SeqCst);
    script.set(KEPT, 1, file, true);
    let _ = (look(), look());
    checks.eq(script.count(look), (true, 0), "with consent it is not");
    checks.eq(script.count(|| stat(c"/mnt/f").is_ok() && fs::stat(c"/mnt", 0).is_ok()).1, 0, "nor of the root");
    script.set(NOTHING, 0, 0, false);
    checks.eq(script.count(look), (true, 0), "whatever it would say");
    script.revokes.store(1, SeqCst);
    checks.fails(stat(c"/mnt/g"), Errno::ENOENT, "it is asked for something else");
    checks.eq(script.count(look).0, false, "and has revoked what it had said");
    let _ = (look(), look());
    checks.eq(script.count(look), (false, 0), "that there is nothing is kept too");
    let made = script.count(|| open(c"/mnt/f", Open::CREAT, 0o600).err());
    checks.ok(made.1 > 0, "what may change it asks");
    checks.ok(script.count(look).1 > 0, "and so does the next");
    script.set(KEPT, 0, mode::DIR | 0o755, false);
    script.revokes.store(1, SeqCst);
    let _ = stat(c"/mnt/h");
    checks.eq(stat(c"/mnt/f").map(|stat| stat.mode), Ok(mode::DIR | 0o755), "known as a directory");
    script.set(KEPT, 1, file, true);
    script.revokes.store(1, SeqCst);
    let _ = (stat(c"/mnt/i"), look(), look());
    checks.eq(script.count(look), (true, 0), "known again");
    let opens = |flags| open(c"/mnt/f", flags, 0).map(close).err();
    checks.eq(script.count(|| opens(Open::empty())), (None, 0), "it is opened as it was lent");
    checks.eq(script.count(|| opens(Open::RDWR)), (Some(Errno::EACCES), 1), "and for more the server is asked");
    end(server);
    checks.fails(stat(c"/mnt/f"), Errno::EIO, "nothing is left of a server that ends");
    let server = script.serve();
    script.set(NOTHING, 0, 0, false);
    checks.fails(stat(c"/mnt/f"), Errno::ENOENT, "nor comes it back with the next one");
    end(server);
}

/// A server that lies has its own names wrong, and no others.
fn lies(checks: &mut Checks) {
    let script = Script::new();
    let directory = mode::DIR | 0o755;
    let server = script.serve();
    let lies = [
        ("a number that is none", (KEPT, 1 << 48, directory, false)),
        ("a file without an object", (KEPT, 1, mode::REG | 0o644, false)),
        ("a kind that there is not", (KEPT, 1, 0, false)),
        ("a device", (KEPT, 1, mode::CHR | 0o666, false)),
        ("a link without a text", (KEPT, 1, mode::LNK | 0o777, false)),
        ("an error that there is not", (-5000i64 as u64, 1, directory, false)),
        ("an answer without meaning", (99, 1, directory, false)),
        ("a way up", (2, 0, directory, false)),
        ("a directory that is in itself", (KEPT, 7, directory, false)),
    ];
    for (what, (label, number, mode, lends)) in lies {
        script.set(label, number, mode, lends);
        script.revokes.store(1, SeqCst);
        let _ = stat(c"/mnt/x");
        let answers = [stat(c"/mnt/y").err(), stat(c"/mnt/y/z").err(), fs::stat(c"/mnt/y", 0).err()];
        let _ = (open(c"/mnt/y", Open::CREAT, 0o600).map(close), fs::readlink(c"/mnt/y"));
        let _ = (fs::read_dir(c"/mnt"), mkdir(c"/mnt/y/q", 0o755), rename(c"/mnt/y", c"/mnt/z", 0));
        let _ = (remove(c"/mnt/y", 0), chmod(c"/mnt/y", 0o600), fs::stat(c"/mnt/y/../..", 0));
        checks.ok(answers.len() == 3 && stat(c"/tmp").is_ok(), what);
    }
    script.size.store(u64::MAX, SeqCst);
    script.set(KEPT, 1, mode::LNK | 0o777, false);
    script.revokes.store(1, SeqCst);
    let _ = stat(c"/mnt/x");
    checks.fails(stat(c"/mnt/y"), Errno::EIO, "a link with a text of any length");
    let deep = format!("/mnt{}\0", "/y".repeat(2000));
    script.size.store(0, SeqCst);
    script.set(KEPT, 7, directory, false);
    script.revokes.store(1, SeqCst);
    let _ = stat(c"/mnt/x");
    let deep = CStr::from_bytes_until_nul(deep.as_bytes()).expect("a path");
    checks.ok(fs::stat(deep, 0).is_ok() || fs::stat(deep, 0).is_err(), "a way without an end");
    checks.fails(raw(nr::QUIRE_FORGET, [0, 0]), Errno::EBADF, "revoking needs a receiver");
    end(server);
    checks.fails(stat(c"/mnt/y"), Errno::EIO, "it is gone");
}
