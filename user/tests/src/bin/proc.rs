//! /proc, and what it is made of: what the kernel says of processes, compared with what is known of them otherwise.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use core::ffi::CStr;

use quire_rt::abi::flags::{Open, sig};
use quire_rt::abi::layout::{Rlimit, at, rlimit};
use quire_rt::abi::nr;
use quire_rt::process::Status;
use quire_rt::signal::{self, How};
use quire_rt::{Errno, args, env, fs, info, io, process, thread};
use user_tests::files::{close, create, open, path, remove};
use user_tests::{Checks, PAGE, RW, child, is_quire, map, raw, start, until};

quire_rt::entry!(main);

/// A program that sleeps until it is killed, given this as its first argument.
const SLEEP: &CStr = c"sleep";

fn main() -> i32 {
    if args().nth(1) == Some(SLEEP) {
        loop {
            quire_rt::time::sleep_ms(100_000);
        }
    }
    let mut checks = Checks::new();
    numbers(&mut checks);
    if fs::stat(c"/proc/self", 0).is_ok() {
        listing(&mut checks);
        program(&mut checks);
        names(&mut checks);
        descriptors(&mut checks);
        opened_again(&mut checks);
        if is_quire() {
            of_more_authority(&mut checks);
        }
        memory(&mut checks);
        counts(&mut checks);
        threads(&mut checks);
        changes(&mut checks);
        others(&mut checks);
        ends(&mut checks);
        long(&mut checks);
        machine(&mut checks);
        settings(&mut checks);
        cpus_and_nodes(&mut checks);
    } else {
        checks.skip("files", "no /proc here");
    }
    checks.finish()
}

/// A child that waits to be killed.
fn sleeper() -> u32 {
    let forever = || {
        loop {
            quire_rt::time::sleep_ms(100_000);
        }
    };
    start(forever).map_or(0, |pid| pid as u32)
}

fn end(pid: u32) {
    let _ = raw(nr::KILL, [pid as usize, sig::KILL as usize]);
    let _ = process::waitpid(pid as i32);
}

fn numbers(checks: &mut Checks) {
    static THREAD: AtomicU32 = AtomicU32::new(0);
    static GO: AtomicU32 = AtomicU32::new(0);
    let me = process::getpid() as u32;
    let first = thread::spawn(|| {
        THREAD.store(raw(nr::GETTID, []).unwrap_or(0) as u32, Ordering::Relaxed);
        let _ = until(|| GO.load(Ordering::Relaxed) != 0);
    });
    let _ = until(|| THREAD.load(Ordering::Relaxed) != 0);
    let tid = THREAD.load(Ordering::Relaxed);
    let (one, two) = (sleeper(), sleeper());
    let pid_from = |pid: u32| info::process_from(pid).map(|process| process.pid);
    checks.ok(me < tid && tid < one && one < two, "numbers rise (and none came round)");
    checks.eq(pid_from(me), Ok(me), "a process is found by its number");
    let next = pid_from(tid).unwrap_or(0);
    checks.ok(tid < next && next <= one, "a thread's number is no process's");
    let next = pid_from(one + 1).unwrap_or(0);
    checks.ok(one < next && next <= two, "the next one");
    checks.eq(info::process(tid).is_none(), true, "no process has it");
    checks.eq(pid_from(0), Ok(1), "the first is init");
    for beyond in [1 << 15, 1 << 22, u32::MAX] {
        checks.fails(pid_from(beyond), Errno::ENOENT, "past the last number");
    }
    end(one);
    let next = pid_from(one).unwrap_or(0);
    checks.ok(one < next && next <= two, "one that was waited for is passed");
    end(two);
    let all: Vec<u32> = info::processes(0).map(|process| process.pid).collect();
    checks.ok(all.is_sorted() && all.contains(&me) && !all.contains(&one), "all by number");
    GO.store(1, Ordering::Relaxed);
    checks.ok(
        first.is_ok_and(|thread| {
            thread.join();
            true
        }),
        "the thread ends",
    );
}

/// The names in /proc that are numbers.
fn listed() -> Vec<u32> {
    numbers_in(c"/proc")
}

fn numbers_in(path: &CStr) -> Vec<u32> {
    let number = |name: Vec<u8>| String::from_utf8(name).ok().and_then(|name| name.parse().ok());
    let names = fs::read_dir(path).unwrap_or_default();
    let mut numbers: Vec<u32> = names.into_iter().filter_map(|entry| number(entry.name)).collect();
    // (The names come in their order as texts.)
    numbers.sort_unstable();
    numbers
}

fn listing(checks: &mut Checks) {
    // More than one answer of the server's has room for.
    let children: Vec<u32> = (0..200).map(|_| sleeper()).collect();
    let seen = listed();
    checks.ok(children.iter().all(|child| seen.contains(child)), "all processes are listed");
    checks.ok(seen.is_sorted_by(|a, b| a < b), "once, by number");
    children.into_iter().for_each(end);
    let seen = listed();
    checks.ok(seen.iter().all(|pid| info::process(*pid).is_some()), "and nobody else");
}

/// The content of a file whose path is made up.
fn read(path: &str) -> Result<Vec<u8>, Errno> {
    let path = format!("{path}\0");
    fs::File::open(CStr::from_bytes_until_nul(path.as_bytes()).unwrap_or_default(), Open::empty())?.read_to_end()
}

fn text(path: &str) -> String {
    read(path).ok().and_then(|text| String::from_utf8(text).ok()).unwrap_or_default()
}

fn link(path: &str) -> Result<String, Errno> {
    let path = format!("{path}\0");
    let link = fs::readlink(CStr::from_bytes_until_nul(path.as_bytes()).unwrap_or_default())?;
    String::from_utf8(link).map_err(|_| Errno::EINVAL)
}

/// The value of a line of status.
fn status_line(of: &str, name: &str) -> String {
    let status = text(&format!("/proc/{of}/status"));
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(|value| String::from(value.trim())).unwrap_or_default()
}

/// A field of stat, by its number in proc(5).
fn stat_field(of: &str, number: usize) -> u64 {
    let stat = text(&format!("/proc/{of}/stat"));
    let behind = stat.rsplit_once(") ").map_or("", |(_, behind)| behind);
    behind.split_whitespace().nth(number - 3).and_then(|field| field.parse().ok()).unwrap_or(u64::MAX)
}

/// A child that runs this program, with further arguments.
fn spawn(more: &[&CStr]) -> u32 {
    let run = || {
        let own = c"/tests/proc";
        let all = [own, SLEEP].into_iter().chain(more.iter().copied());
        let _ = process::execve(own, all, [c"A=1", c"B=2"]);
        1
    };
    let pid = start(run).map_or(0, |pid| pid as u32);
    let _ = until(|| text(&format!("/proc/{pid}/cmdline")).contains("sleep"));
    pid
}

fn program(checks: &mut Checks) {
    let joined = |strings: &mut dyn Iterator<Item = &'static CStr>| -> Vec<u8> {
        strings.flat_map(|text| text.to_bytes_with_nul()).copied().collect()
    };
    checks.eq(read("/proc/self/cmdline"), Ok(joined(&mut args())), "cmdline has the arguments");
    checks.eq(read("/proc/self/environ"), Ok(joined(&mut env())), "environ has the environment");
    let auxv = read("/proc/self/auxv").unwrap_or_default();
    let words: Vec<u64> =
        auxv.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default())).collect();
    let value = |key: u64| words.chunks_exact(2).find(|pair| pair[0] == key).map(|pair| pair[1]);
    checks.ok(value(at::PAGESZ) == Some(PAGE as u64) && value(at::RANDOM) == quire_rt::start::auxv(at::RANDOM), "auxv");
    checks.eq(words.last_chunk(), Some(&[0, 0]), "to its end");
    let child = spawn(&[c"one", c"", c"two words"]);
    checks.eq(
        read(&format!("/proc/{child}/cmdline")),
        Ok(b"/tests/proc\0sleep\0one\0\0two words\0".to_vec()),
        "of another",
    );
    checks.eq(read(&format!("/proc/{child}/environ")), Ok(b"A=1\0B=2\0".to_vec()), "and its environment");
    checks.eq(link(&format!("/proc/{child}/exe")).as_deref(), Ok("/tests/proc"), "exe is the program");
    let (exe, file) = (format!("/proc/{child}/exe\0"), c"/tests/proc");
    let exe = CStr::from_bytes_until_nul(exe.as_bytes()).unwrap_or_default();
    let number = |path: &CStr| fs::stat(path, 0).map(|stat| (stat.dev, stat.ino, stat.size));
    checks.eq(number(exe), number(file), "the very file");
    end(child);
    let again = start(|| {
        let _ = process::execve(c"/proc/self/exe", [c"again", SLEEP, c"x"], []);
        1
    });
    let pid = again.map_or(0, |pid| pid as u32);
    checks.ok(until(|| read(&format!("/proc/{pid}/cmdline")) == Ok(b"again\0sleep\0x\0".to_vec())), "exe is executed");
    checks.eq(link(&format!("/proc/{pid}/exe")).as_deref(), Ok("/tests/proc"), "and is the program again");
    end(pid);
}

fn names(checks: &mut Checks) {
    let me = process::getpid();
    checks.eq(link("/proc/self"), Ok(format!("{me}")), "self");
    checks.eq(link("/proc/thread-self"), Ok(format!("{me}/task/{me}")), "thread-self");
    checks.eq(link("/proc/self/root").as_deref(), Ok("/"), "the root");
    checks.eq(fs::chdir(c"/tmp"), Ok(()), "a directory is entered");
    checks.eq(link("/proc/self/cwd").as_deref(), Ok("/tmp"), "cwd is that");
    create(c"/tmp/proc.f", b"content");
    checks.eq(read("/proc/self/cwd/proc.f"), Ok(b"content".to_vec()), "and leads there");
    checks.eq(read("/proc/self/root/tmp/proc.f"), Ok(b"content".to_vec()), "as does the root");
    checks.eq(link("/proc/self/cwd/../proc/self/comm").is_err(), true, "what is behind it is followed");
    checks.eq(fs::chdir(c"/proc/self/cwd/."), Ok(()), "it can be entered");
    let _ = raw(nr::MKDIRAT, [at::FDCWD as usize, path(c"/tmp/proc.d"), 0o755]);
    checks.eq(fs::chdir(c"/tmp/proc.d"), Ok(()), "another one");
    let _ = remove(c"/tmp/proc.d", at::REMOVEDIR);
    checks.ok(
        link("/proc/self/cwd").is_ok_and(|path| path.starts_with("/tmp/#") && path.ends_with(" (deleted)")),
        "that is removed",
    );
    checks.eq(fs::chdir(c"/proc/self"), Ok(()), "a directory of /proc");
    checks.eq(link("/proc/self/cwd"), Ok(format!("/proc/{me}")), "has its path");
    checks.eq(fs::chdir(c"/"), Ok(()), "back");
    checks.eq(link("/proc/self/cwd").as_deref(), Ok("/"), "to the root");
    let _ = remove(c"/tmp/proc.f", 0);
}

fn descriptors(checks: &mut Checks) {
    create(c"/tmp/proc.f", b"0123456789");
    let file = open(c"/tmp/proc.f", Open::RDWR, 0).unwrap_or(-1);
    let (reader, writer) = io::pipe(Open::CLOEXEC.bits()).unwrap_or((-1, -1));
    let null = open(c"/dev/null", Open::WRONLY, 0).unwrap_or(-1);
    let status = open(c"/proc/self/status", Open::empty(), 0).unwrap_or(-1);
    let directory = open(c"/tests", Open::DIRECTORY, 0).unwrap_or(-1);
    let name = raw(nr::MEMFD_CREATE, [path(c"of mine"), 0]).map_or(-1, |fd| fd as i32);
    let counter = raw(nr::EVENTFD2, [0, 0]).map_or(-1, |fd| fd as i32);
    let shown = |fd: i32| link(&format!("/proc/self/fd/{fd}")).unwrap_or_default();
    let me = process::getpid();
    checks.eq(&shown(file)[..], "/tmp/proc.f", "a file has its path");
    checks.eq(&shown(null)[..], "/dev/null", "a device");
    checks.eq(shown(status), format!("/proc/{me}/status"), "a file of /proc");
    checks.eq(&shown(directory)[..], "/tests", "a directory");
    checks.eq(&shown(name)[..], "/memfd:of mine (deleted)", "a file in memory");
    checks.eq(&shown(counter)[..], "anon_inode:[eventfd]", "a counter");
    let number = fs::fstat(reader).map_or(0, |stat| stat.ino);
    checks.ok(number != 0 && fs::fstat(writer).is_ok_and(|stat| stat.ino == number), "a pipe has a number");
    checks.eq(shown(reader), format!("pipe:[{number}]"), "which is shown");
    let listed = numbers_in(c"/proc/self/fd");
    let all = [file, reader, writer, null, status, directory, name, counter];
    checks.ok(all.iter().all(|fd| listed.contains(&(*fd as u32))), "all are listed");
    checks.eq(listed.len(), (0..64).filter(|fd| fs::fstat(*fd).is_ok()).count() + 1, "and the list itself, no more");
    let mode = |fd: i32| {
        let path = format!("/proc/self/fd/{fd}\0");
        let stat = fs::stat(CStr::from_bytes_until_nul(path.as_bytes()).unwrap_or_default(), at::SYMLINK_NOFOLLOW);
        stat.map_or(0, |stat| stat.mode)
    };
    checks.eq([file, reader, writer].map(mode), [0o120700, 0o120500, 0o120300], "permissions say what they allow");
    let _ = fs::lseek(file, 7, 0);
    let says = text(&format!("/proc/self/fdinfo/{file}"));
    checks.ok(says.starts_with("pos:\t7\n") && says.contains("flags:\t02"), "fdinfo has the position");
    let says = text(&format!("/proc/self/fdinfo/{reader}"));
    checks.ok(says.contains("flags:\t02000000\n") && says.contains(&format!("ino:\t{number}\n")), "and flags");
    let _ = remove(c"/tmp/proc.f", 0);
    let gone = shown(file);
    checks.ok(gone.starts_with("/tmp/#") && gone.ends_with(" (deleted)"), "a file without a name says so");
    all.into_iter().for_each(close);
    checks.fails(link(&format!("/proc/self/fd/{file}")), Errno::ENOENT, "what is closed is gone");
}

/// Nobody acts through init, who has machine control: not even root.
fn of_more_authority(checks: &mut Checks) {
    checks.eq(link("/proc/1/fd/0").as_deref(), Ok("/dev/console"), "root sees what another process has open");
    for flags in [Open::empty(), Open::WRONLY] {
        checks.fails(open(c"/proc/1/fd/0", flags, 0), Errno::EACCES, "and does not get it of one with more rights");
    }
    let other = start(|| raw(nr::PPOLL, [0, 0, 0, 0]).is_ok().into()).unwrap_or(-1);
    let path = format!("/proc/{other}/fd/1\0");
    let opened = open(CStr::from_bytes_until_nul(path.as_bytes()).unwrap_or_default(), Open::WRONLY, 0);
    checks.ok(opened.is_ok(), "of a child it does");
    opened.into_iter().for_each(close);
    let _ = process::kill(other, sig::KILL);
    let _ = process::waitpid(other);
}

fn opened_again(checks: &mut Checks) {
    let again = |fd: i32, flags: Open| {
        let path = format!("/proc/self/fd/{fd}\0");
        open(CStr::from_bytes_until_nul(path.as_bytes()).unwrap_or_default(), flags, 0)
    };
    create(c"/tmp/proc.f", b"0123456789");
    let file = open(c"/tmp/proc.f", Open::empty(), 0).unwrap_or(-1);
    let _ = fs::lseek(file, 5, 0);
    let _ = remove(c"/tmp/proc.f", 0);
    let second = again(file, Open::RDWR).unwrap_or(-1);
    let mut bytes = [0; 4];
    checks.eq(
        io::read(second, &mut bytes).map(|n| (n, bytes)),
        Ok((4, *b"0123")),
        "a removed file opens, at its beginning",
    );
    checks.eq(io::write(second, b"abc"), Ok(3), "for writing too");
    checks.eq(io::read(file, &mut bytes).map(|n| (n, bytes)), Ok((4, *b"bc78")), "it is the very file");
    [file, second].into_iter().for_each(close);
    let (reader, writer) = io::pipe(0).unwrap_or((-1, -1));
    let other = again(reader, Open::WRONLY).unwrap_or(-1);
    close(writer);
    checks.eq(io::write(other, b"by"), Ok(2), "a pipe's other end is opened by the one");
    close(other);
    checks.eq(
        io::read(reader, &mut bytes).map(|n| (n, [bytes[0], bytes[1]])),
        Ok((2, *b"by")),
        "what is written comes",
    );
    checks.eq(io::read(reader, &mut bytes), Ok(0), "and then its end");
    close(reader);
    let counter = raw(nr::EVENTFD2, [0, 0]).map_or(-1, |fd| fd as i32);
    checks.fails(again(counter, Open::RDWR), Errno::ENXIO, "a counter is not opened again");
    close(counter);
    let console = again(1, Open::WRONLY);
    checks.ok(console.is_ok(), "what this is printed to is");
    console.into_iter().for_each(close);
    checks.fails(again(1, Open::DIRECTORY), Errno::ENOTDIR, "which is no directory");
    let archive = open(c"/tests/proc", Open::empty(), 0).unwrap_or(-1);
    let second = again(archive, Open::empty()).unwrap_or(-1);
    checks.eq(fs::fstat(second).map(|stat| stat.ino), fs::fstat(archive).map(|stat| stat.ino), "a file of the archive");
    checks.fails(again(archive, Open::RDWR), Errno::EROFS, "is not written");
    [archive, second].into_iter().for_each(close);
    create(c"/tmp/proc.f", b"x");
    let _ = raw(nr::FCHMODAT, [at::FDCWD as usize, path(c"/tmp/proc.f"), 0o600]);
    let file = open(c"/tmp/proc.f", Open::empty(), 0).unwrap_or(-1);
    let status = child(|| {
        let _ = raw(nr::SETUID, [1000]);
        // (Its own descriptor, and another's file.)
        (again(file, Open::empty()) != Err(Errno::EACCES)).into()
    });
    checks.eq(status, Ok(Status::Exited(0)), "permissions of the file count");
    close(file);
    let _ = remove(c"/tmp/proc.f", 0);
}

fn memory(checks: &mut Checks) {
    const LEN: usize = 5 * PAGE;
    let place = map(LEN, RW);
    let line = format!("{place:08x}-");
    let maps = text("/proc/self/maps");
    let listed = |maps: &str| maps.lines().any(|line_| line_.starts_with(&line) && line_.contains(" rw-p "));
    checks.ok(listed(&maps), "maps has what was mapped");
    checks.ok(maps.lines().any(|line| line.ends_with(" /tests/proc")) && maps.contains("[stack]"), "and the program");
    let areas = info::areas(0).flatten().count();
    checks.ok(maps.lines().count().abs_diff(areas) <= 1, "all areas");
    let mut pieces = Vec::new();
    let file = open(c"/proc/self/maps", Open::empty(), 0).unwrap_or(-1);
    let mut piece = [0; 100];
    while let Ok(n @ 1..) = io::read(file, &mut piece) {
        pieces.extend_from_slice(&piece[..n]);
    }
    close(file);
    checks.ok(pieces.iter().filter(|byte| **byte == b'\n').count().abs_diff(areas) <= 1, "in pieces too");
    let resident = |text: &str| -> u64 {
        let line = |line: &str| line.strip_prefix("Rss:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok();
        text.lines().filter_map(line).sum()
    };
    let (all, sum) = (resident(&text("/proc/self/smaps")), resident(&text("/proc/self/smaps_rollup")));
    let rss = info::process(process::getpid() as u32).map_or(0, |process| process.rss * 4);
    checks.ok(all.abs_diff(sum) <= 64 && sum.abs_diff(rss) <= 64, "smaps and their sum agree with what it has");
    let statm: Vec<u64> = text("/proc/self/statm").split_whitespace().filter_map(|n| n.parse().ok()).collect();
    checks.ok(statm.len() == 7 && statm[1].abs_diff(rss / 4) <= 16, "statm too");
    let _ = raw(nr::MUNMAP, [place, LEN]);
    checks.ok(!listed(&text("/proc/self/maps")), "what was unmapped is gone");
    let kib =
        |name: &str| status_line("self", name).strip_suffix(" kB").and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    checks.ok(
        kib("VmPeak") >= kib("VmSize") && kib("VmHWM") >= kib("VmRSS") && kib("VmRSS") > 0,
        "peaks are above what is",
    );
    checks.eq(kib("RssAnon") + kib("RssFile") + kib("RssShmem") > 0, true, "parts of it");
}

fn counts(checks: &mut Checks) {
    let me = process::getpid();
    checks.eq(status_line("self", "Pid"), format!("{me}"), "its number");
    checks.eq(status_line("self", "PPid"), format!("{}", process::getppid()), "its parent's");
    checks.eq(stat_field("self", 4), process::getppid() as u64, "in stat too");
    checks.eq(&status_line("self", "Threads")[..], "1", "its threads");
    let set = 1 << (sig::USR1 - 1);
    let former = signal::mask(How::Block, set).unwrap_or(0);
    let hex = |name: &str| u64::from_str_radix(&status_line("self", name), 16).unwrap_or(u64::MAX);
    checks.eq(hex("SigBlk"), former | set, "signals that it blocks");
    let _ = process::kill(me, sig::USR1);
    checks.eq((hex("SigPnd") | hex("ShdPnd")) & set, set, "that wait");
    checks.eq(&status_line("self", "SigQ")[..1], "1", "which are counted");
    let _ = signal::ignore(sig::USR1);
    let _ = signal::mask(How::Set, former);
    checks.ok(hex("SigIgn") & set != 0 && (hex("SigPnd") | hex("ShdPnd")) & set == 0, "that it ignores");
    checks.eq(hex("SigCgt") & set, 0, "and does not handle");
    let _ = signal::default(sig::USR1);
    let former = process::prlimit(rlimit::NOFILE, None).unwrap_or_default();
    let _ = process::prlimit(rlimit::NOFILE, Some(Rlimit { cur: 321, ..former }));
    let row = text("/proc/self/limits").lines().find(|line| line.starts_with("Max open files")).map(String::from);
    let row: Vec<String> = row.unwrap_or_default().split_whitespace().skip(3).map(String::from).collect();
    checks.eq(row, [String::from("321"), format!("{}", former.max), String::from("files")].to_vec(), "a limit");
    let _ = process::prlimit(rlimit::NOFILE, Some(former));
    let umask = raw(nr::UMASK, [0o027]).unwrap_or(0);
    checks.eq(&status_line("self", "Umask")[..], "0027", "the umask");
    let _ = raw(nr::UMASK, [umask]);
    checks.ok(
        stat_field("self", 48) <= stat_field("self", 49) && stat_field("self", 26) < stat_field("self", 27),
        "where things are",
    );
    let status = child(|| {
        let _ = raw(nr::SETGROUPS, [2, [7_u32, 8].as_ptr() as usize]);
        let _ = raw(nr::SETRESGID, [11, 12, 13]);
        let _ = raw(nr::SETRESUID, [21, 22, 23]);
        let is = |name: &str, wanted: &str| status_line("self", name) == wanted;
        (!(is("Uid", "21\t22\t23\t22") && is("Gid", "11\t12\t13\t12") && is("Groups", "7 8"))).into()
    });
    checks.eq(status, Ok(Status::Exited(0)), "users and groups");
    checks.eq(text("/proc/self/mounts"), text("/proc/mounts"), "mounts");
    checks.ok(text("/proc/self/mountinfo").lines().any(|line| line.contains(" /tmp rw - tmpfs ")), "with more of them");
}

fn threads(checks: &mut Checks) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    static DONE: AtomicU32 = AtomicU32::new(0);
    let me = process::getpid();
    let thread = thread::spawn(|| {
        process::set_name(c"second (1)");
        NUMBER.store(process::gettid() as u32, Ordering::Relaxed);
        let _ = until(|| DONE.load(Ordering::Relaxed) != 0);
    });
    let _ = until(|| NUMBER.load(Ordering::Relaxed) != 0);
    let tid = NUMBER.load(Ordering::Relaxed);
    checks.eq(&status_line("self", "Threads")[..], "2", "two threads");
    checks.eq(numbers_in(c"/proc/self/task"), [me as u32, tid].to_vec(), "are listed");
    let of = format!("self/task/{tid}");
    checks.eq(&text(&format!("/proc/{of}/comm"))[..], "second (1)\n", "each has a name");
    checks.eq((status_line(&of, "Pid"), status_line(&of, "Tgid")), (format!("{tid}"), format!("{me}")), "and a number");
    checks.ok(text(&format!("/proc/{of}/stat")).starts_with(&format!("{tid} (second (1)) ")), "stat too");
    checks.fails(read(&format!("/proc/{tid}/stat")), Errno::ENOENT, "a thread has no directory of a process");
    let file = format!("/proc/{me}/task/{tid}/comm\0");
    let fd = open(CStr::from_bytes_until_nul(file.as_bytes()).unwrap_or_default(), Open::WRONLY, 0).unwrap_or(-1);
    checks.eq(io::write(fd, b"another"), Ok(7), "its name is changed");
    checks.eq(&text(&format!("/proc/{of}/comm"))[..], "another\n", "it is");
    DONE.store(1, Ordering::Relaxed);
    thread.into_iter().for_each(thread::Thread::join);
    checks.ok(until(|| io::write(fd, b"x") == Err(Errno::ESRCH)), "a thread that has ended has none");
    close(fd);
}

fn changes(checks: &mut Checks) {
    let write = |path: &CStr, bytes: &[u8]| {
        let fd = open(path, Open::WRONLY | Open::TRUNC, 0)?;
        let done = io::write(fd, bytes);
        close(fd);
        done
    };
    let mut name = [0_u8; 16];
    checks.eq(write(c"/proc/self/comm", b"of more than 15 bytes"), Ok(21), "a name is written");
    let _ = raw(nr::PRCTL, [16, name.as_mut_ptr() as usize]);
    checks.eq(&name, b"of more than 15\0", "as much of it as there is room for");
    process::set_name(c"proc");
    checks.eq(&text("/proc/self/comm")[..], "proc\n", "and back");
    checks.fails(write(c"/proc/1/comm", b"x"), Errno::EINVAL, "another's is not");
    checks.fails(write(c"/proc/self/stat", b"x"), Errno::EACCES, "nor what is only told");
    let setting = || {
        raw(nr::QUIRE_SETTING, [0, quire_rt::abi::flags::setting::OOM_SCORE_ADJ, quire_rt::abi::flags::setting::READ])
    };
    let former = text("/proc/self/oom_score_adj");
    let score = || text("/proc/self/oom_score").trim().parse::<u32>().unwrap_or(0);
    let status = child(|| {
        let mut fine = write(c"/proc/self/oom_score_adj", b"200\n") == Ok(4) && setting() == Ok(1200);
        let before = score();
        fine &= write(c"/proc/self/oom_score_adj", b"300") == Ok(3) && score() > before;
        fine &= write(c"/proc/self/oom_score_adj", b"1001") == Err(Errno::EINVAL);
        let _ = raw(nr::SETUID, [1000]);
        let _ = raw(nr::PRCTL, [4, 1]);
        fine &= write(c"/proc/self/oom_score_adj", b"500") == Ok(3);
        fine &= write(c"/proc/self/oom_score_adj", b"300") == Ok(3);
        fine &= write(c"/proc/self/oom_score_adj", b"299") == Err(Errno::EACCES);
        fine &= write(c"/proc/1/oom_score_adj", b"500") == Err(Errno::EACCES);
        (!fine).into()
    });
    checks.eq(status, Ok(Status::Exited(0)), "scores go up, and for others than root not below what root has set");
    checks.eq(text("/proc/self/oom_score_adj"), former, "a child's is its own");
    let status = child(|| {
        let _ = raw(nr::SETUID, [1000]);
        let _ = raw(nr::PRCTL, [4, 1]);
        let mut fine = write(c"/proc/self/oom_score_adj", b"-1") == Err(Errno::EACCES);
        fine &= write(c"/proc/self/oom_score_adj", b"-1000") == Err(Errno::EACCES);
        (!fine).into()
    });
    checks.eq(status, Ok(Status::Exited(0)), "the shell's exemption is no other program's to take");
    let status = child(|| {
        let mut fine = write(c"/proc/self/oom_score_adj", b"-500") == Ok(4);
        fine &= raw(nr::QUIRE_SETTING, [0, quire_rt::abi::flags::setting::OOM_SCORE_ADJ, 1100]) == Ok(500);
        let _ = raw(nr::SETUID, [1000]);
        let _ = raw(nr::PRCTL, [4, 1]);
        fine &= write(c"/proc/self/oom_score_adj", b"200") == Ok(3);
        fine &= write(c"/proc/self/oom_score_adj", b"99") == Err(Errno::EACCES);
        fine &= write(c"/proc/self/oom_score_adj", b"100") == Ok(3);
        (!fine).into()
    });
    checks.eq(status, Ok(Status::Exited(0)), "what root raises by Quire's call stays the least");
}

fn others(checks: &mut Checks) {
    let pid = spawn(&[]);
    let status = child(|| {
        let _ = raw(nr::SETGID, [1000]);
        let _ = raw(nr::SETUID, [1000]);
        let of = |file: &str| format!("/proc/{pid}/{file}");
        let open_files = ["cmdline", "stat", "statm", "status", "limits", "comm", "oom_score", "wchan"];
        let closed = ["environ", "auxv", "maps", "smaps", "smaps_rollup", "fdinfo/0"];
        let listed = |name: &str| {
            let path = format!("/proc/{pid}/{name}\0");
            fs::read_dir(CStr::from_bytes_until_nul(path.as_bytes()).unwrap_or_default()).map(drop)
        };
        let refused = |file: &&str| read(&of(file)) == Err(Errno::EACCES);
        let fine = open_files.iter().all(|file| read(&of(file)).is_ok_and(|text| !text.is_empty()))
            && closed.iter().all(refused)
            && ["exe", "cwd", "root", "fd/0"].iter().all(|name| link(&of(name)) == Err(Errno::EACCES))
            && listed("fd") == Err(Errno::EACCES)
            && listed("task") == Ok(())
            && read(&of("root/tests/proc")) == Err(Errno::EACCES)
            && stat_field(&format!("{pid}"), 48) == 0
            && stat_field(&format!("{pid}"), 26) == 1;
        (!fine).into()
    });
    checks.eq(status, Ok(Status::Exited(0)), "another user sees what all may see");
    end(pid);
}

fn ends(checks: &mut Checks) {
    let pid = sleeper();
    let of = |file: &str| format!("/proc/{pid}/{file}");
    let path = format!("/proc/{pid}/stat\0");
    let stat = open(CStr::from_bytes_until_nul(path.as_bytes()).unwrap_or_default(), Open::empty(), 0).unwrap_or(-1);
    let _ = process::kill(pid as i32, sig::KILL);
    let _ = until(|| info::process(pid).is_none_or(|process| process.state == u32::from(b'Z')));
    checks.ok(status_line(&format!("{pid}"), "State").starts_with('Z'), "a zombie is one");
    checks.eq(read(&of("cmdline")), Ok(Vec::new()), "without arguments");
    checks.eq(read(&of("maps")), Ok(Vec::new()), "without memory");
    checks.fails(link(&of("exe")), Errno::ENOENT, "without a program");
    checks.fails(link(&of("fd/0")), Errno::ENOENT, "without descriptors");
    let _ = process::waitpid(pid as i32);
    checks.fails(io::read(stat, &mut [0; 16]), Errno::ESRCH, "then it is gone");
    checks.fails(read(&of("stat")), Errno::ENOENT, "with all its files");
    close(stat);
    // One that execs all the time, and ends while it is looked at.
    let busy = start(|| {
        let run = || {
            let _ = process::execve(c"/bin/true", [c"true"], [c"A=1"]);
            1
        };
        loop {
            let _ = child(run);
        }
    });
    let busy = busy.map_or(0, |pid| pid as u32);
    let mut odd = 0;
    for _ in 0..100 {
        for pid in listed().into_iter().filter(|pid| *pid > busy) {
            for file in ["cmdline", "environ", "maps", "smaps", "status", "stat", "limits"] {
                let fine = match read(&format!("/proc/{pid}/{file}")) {
                    Ok(text) if file == "cmdline" => {
                        text.is_empty()
                            || text == b"true\0"
                            || text.starts_with(b"/tests/proc\0")
                            || text.starts_with(b"proc\0")
                    }
                    Ok(_) => true,
                    Err(error) => [Errno::ENOENT, Errno::ESRCH].contains(&error),
                };
                odd += u32::from(!fine);
            }
            let _ = link(&format!("/proc/{pid}/exe"));
        }
    }
    checks.eq(odd, 0, "whoever execs and ends is seen before or after");
    end(busy);
}

fn long(checks: &mut Checks) {
    let argument: Vec<u8> = core::iter::repeat_n(b'x', 100_000).chain([0]).collect();
    let argument = CStr::from_bytes_until_nul(&argument).unwrap_or_default();
    let pid = spawn(&[argument]);
    let read = read(&format!("/proc/{pid}/cmdline")).unwrap_or_default();
    checks.eq(
        (read.len(), read.iter().filter(|byte| **byte == b'x').count()),
        (18 + 100_001, 100_000),
        "long arguments are there in full",
    );
    end(pid);
}

/// The number behind a name at the beginning of a line.
fn number_of(text: &str, name: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(name)?.trim_start_matches(':').split_whitespace().next()?.parse().ok();
    text.lines().find_map(value).unwrap_or(u64::MAX)
}

/// Files in memory are counted while they are there. (Other programs and servers have some as well.)
fn shared(checks: &mut Checks) {
    const PAGES: usize = 256;
    let kib = || number_of(&text("/proc/meminfo"), "Shmem");
    let before = kib();
    let file = raw(nr::MEMFD_CREATE, [c"counted".as_ptr() as usize, 0]).unwrap_or(0);
    let made = raw(nr::FALLOCATE, [file, 0, 0, PAGES * PAGE]);
    let there = kib();
    let sysinfo = info::sysinfo().map_or(0, |memory| memory.sharedram / 1024);
    let closed = raw(nr::CLOSE, [file]);
    let grown = (there - before) / 4;
    let is_near = |pages: u64| (PAGES as u64 - 16..PAGES as u64 + 16).contains(&pages);
    let good =
        (made, closed) == (Ok(0), Ok(0)) && is_near(grown) && sysinfo.abs_diff(there) < 64 && kib() < before + 64;
    checks.ok(good || user_tests::is_short(), "memory that is shared, or a file's");
}

fn machine(checks: &mut Checks) {
    let system = info::system().unwrap_or_default();
    let memory = text("/proc/meminfo");
    checks.eq(number_of(&memory, "MemTotal"), system.managed * 4, "memory");
    let sysinfo = info::sysinfo().unwrap_or_default();
    checks.eq(number_of(&memory, "SwapTotal"), sysinfo.totalswap / 1024, "swap");
    shared(checks);
    let before = number_of(&text("/proc/stat"), "processes");
    let _ = child(|| 0);
    let after = number_of(&text("/proc/stat"), "processes");
    checks.ok(before < after && after < u64::MAX, "processes that were made");
    checks.ok(number_of(&text("/proc/stat"), "procs_running") >= 1, "one runs: the server");
    let load = text("/proc/loadavg");
    let fields: Vec<&str> = load.split_whitespace().collect();
    let counts = fields.get(3).and_then(|field| field.split_once('/'));
    let (running, threads) = counts.map_or((0, 0), |(a, b)| (a.parse().unwrap_or(0), b.parse().unwrap_or(0)));
    let own = |text: &str| text.split_once('.').is_some_and(|(a, b)| a.parse::<u32>().is_ok() && b.len() == 2);
    checks.ok(fields.len() == 5 && fields[..3].iter().all(|field| own(field)), "load averages");
    checks.ok(running >= 1 && running <= threads && threads <= 32768_u32, "threads that run, of all");
    let last = start(|| 0);
    let pid = last.unwrap_or(0);
    let shown = text("/proc/loadavg").split_whitespace().last().and_then(|last| last.parse().ok()).unwrap_or(0);
    checks.ok(shown >= pid, "the number that was given last");
    let _ = process::waitpid(pid);
    let zones = text("/proc/zoneinfo");
    let managed: u64 =
        zones.lines().filter_map(|line| line.trim().strip_prefix("managed")?.trim().parse::<u64>().ok()).sum();
    checks.eq(managed, system.managed, "zones have the memory that there is");
    let types = text("/proc/pagetypeinfo");
    checks.ok(types.contains("Unmovable") && types.contains("Number of blocks type"), "page types");
    let slabs = text("/proc/slabinfo");
    let caches =
        info::records::<quire_rt::abi::statistics::SlabCacheInfo>().filter(|cache| cache.object_size != 0).count();
    checks.eq(slabs.lines().count(), caches + 2, "slab caches");
    let areas = text("/proc/vmallocinfo").lines().count();
    checks.ok(areas.abs_diff(info::vmalloc_areas().count()) <= 4, "areas of the kernel");
    let status = child(|| {
        let _ = raw(nr::SETUID, [1000]);
        let closed = ["slabinfo", "vmallocinfo", "pagetypeinfo"];
        (!closed.iter().all(|file| read(&format!("/proc/{file}")) == Err(Errno::EACCES))).into()
    });
    checks.eq(status, Ok(Status::Exited(0)), "which root alone may see");
    checks.ok(text("/proc/swaps").starts_with("Filename"), "swaps");
    checks.ok(text("/proc/cmdline").ends_with('\n'), "the kernel's arguments");
    let online = info::records::<quire_rt::abi::info::CpuInfo>().filter(|cpu| cpu.online == 1).count();
    checks.eq(text("/proc/cpuinfo").matches("processor\t:").count(), online, "CPUs");
    checks.ok(text("/proc/cpuinfo").contains("Features\t: fp asimd "), "and what they have");
    let stat = text("/proc/stat");
    checks.eq(stat.lines().filter(|line| line.starts_with("cpu")).count(), online + 1, "their times");
}

fn settings(checks: &mut Checks) {
    let write = |path: &CStr, bytes: &[u8]| {
        let fd = open(path, Open::WRONLY | Open::CREAT | Open::TRUNC, 0)?;
        let done = io::write(fd, bytes);
        close(fd);
        done
    };
    let uname = || info::uname().unwrap_or_default();
    checks.eq(text("/proc/sys/kernel/hostname").trim_end(), info::text(&uname().nodename), "the machine's name");
    let former = text("/proc/sys/kernel/hostname");
    checks.eq(write(c"/proc/sys/kernel/hostname", b"other\n"), Ok(6), "is changed");
    checks.eq(info::text(&uname().nodename), "other", "it is");
    checks.eq(write(c"/proc/sys/kernel/hostname", former.as_bytes()), Ok(former.len()), "and back");
    checks.eq(text("/proc/sys/kernel/osrelease").trim_end(), info::text(&uname().release), "the release");
    let setting = || info::setting(quire_rt::abi::flags::setting::OVERCOMMIT_RATIO, None).ok();
    let former = setting();
    checks.eq(write(c"/proc/sys/vm/overcommit_ratio", b"61\n"), Ok(3), "a setting is written");
    checks.eq((setting(), text("/proc/sys/vm/overcommit_ratio").trim_end()), (Some(61), "61"), "and holds");
    let back = format!("{}", former.unwrap_or(50));
    let _ = write(c"/proc/sys/vm/overcommit_ratio", back.as_bytes());
    checks.eq(setting(), former, "and back");
    checks.fails(write(c"/proc/sys/vm/overcommit_memory", b"3"), Errno::EINVAL, "not to what makes no sense");
    checks.fails(write(c"/proc/sys/kernel/pid_max", b"3"), Errno::EACCES, "nor what is fixed");
    let status = child(|| {
        let _ = raw(nr::SETUID, [1000]);
        (write(c"/proc/sys/vm/overcommit_ratio", b"61\n") != Err(Errno::EACCES)).into()
    });
    checks.eq(status, Ok(Status::Exited(0)), "nor by others than root");
    let numbers = [("kernel/pid_max", 32768), ("fs/nr_open", 1 << 20), ("vm/max_map_count", 65530)];
    for (file, wanted) in numbers {
        checks.eq(text(&format!("/proc/sys/{file}")).trim_end().parse(), Ok(wanted), file);
    }
    let [one, two] = [text("/proc/sys/kernel/random/uuid"), text("/proc/sys/kernel/random/uuid")];
    checks.ok(one.len() == 37 && one != two && one.as_bytes()[14] == b'4', "each identifier is another");
}

fn cpus_and_nodes(checks: &mut Checks) {
    let cpus: Vec<_> = info::records::<quire_rt::abi::info::CpuInfo>().collect();
    let last = cpus.iter().filter(|cpu| cpu.online == 1).count() - 1;
    let range = if last == 0 { String::from("0\n") } else { format!("0-{last}\n") };
    checks.eq(text("/sys/devices/system/cpu/online"), range, "CPUs online");
    let listed = fs::read_dir(c"/sys/devices/system/cpu").unwrap_or_default();
    let with_number = |name: &[u8]| name.strip_prefix(b"cpu").is_some_and(|rest| !rest.is_empty());
    checks.eq(listed.iter().filter(|entry| with_number(&entry.name)).count(), cpus.len(), "each has a directory");
    let nodes = info::system().map_or(0, |system| system.nodes);
    let mut memory = 0;
    for node in 0..nodes {
        let of = text(&format!("/sys/devices/system/node/node{node}/meminfo"));
        memory += number_of(&of, &format!("Node {node} MemTotal"));
    }
    checks.eq(memory, info::system().map_or(0, |system| system.managed * 4), "nodes have the memory");
    checks.ok(text("/sys/devices/system/node/node0/distance").starts_with("10"), "and a distance");
    checks.eq(text("/sys/devices/system/node/node0/cpulist").is_empty(), false, "and CPUs");
    checks.eq(fs::chdir(c"/sys/devices/system/node/node0"), Ok(()), "a directory is entered");
    checks.eq(fs::getcwd().as_deref(), Ok(&b"/sys/devices/system/node/node0"[..]), "which has a path");
    checks.eq(fs::chdir(c"../../../../.."), Ok(()), "and a way back");
    checks.eq(fs::getcwd().as_deref(), Ok(&b"/"[..]), "to the root");
}
