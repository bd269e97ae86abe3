//! clone: what children share with the process that makes them, and which waits they are for.

#![no_std]
#![no_main]

use core::ffi::CStr;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use quire_rt::abi::flags::{Clone, sig, wait};
use quire_rt::abi::nr;
use quire_rt::arch::clone_thread;
use quire_rt::process::{self, Status, getpid, kill, wait4};
use quire_rt::signal::{Info, handle};
use quire_rt::start::args;
use quire_rt::sync::futex_wait_shared;
use quire_rt::thread::spawn;
use quire_rt::{Errno, time};
use user_tests::{Checks, PAGE, RW, map, raw, start};

quire_rt::entry!(main);

fn main() -> i32 {
    if args().count() > 1 {
        time::sleep_ms(args().nth(1).map_or(0, |ms| ms.to_str().unwrap_or("").parse().unwrap_or(0)));
        return 0;
    }
    let mut checks = Checks::new();
    waits(&mut checks);
    heirs(&mut checks);
    exit_signals(&mut checks);
    flags(&mut checks);
    cleared(&mut checks);
    directories(&mut checks);
    groups(&mut checks);
    numbers(&mut checks);
    names(&mut checks);
    checks.finish()
}

/// A child that shares memory, with a stack of its own and the flags and the exit signal of `flags`. It must use raw
/// calls alone.
fn beside(flags: usize, entry: extern "C" fn(usize) -> !, word: &AtomicU32) -> i32 {
    let stack = map(4 * PAGE, RW) + 4 * PAGE;
    let flags = flags | Clone::VM.bits() as usize;
    let word = word.as_ptr();
    // SAFETY: the stack is the child's alone, and `entry` does not return.
    unsafe { clone_thread(flags, stack, word, 0, word, entry, 0) as i32 }
}

extern "C" fn end(_: usize) -> ! {
    loop {
        let _ = raw(nr::EXIT_GROUP, [3]);
    }
}

/// A child that copies memory and ends.
fn copy(flags: usize) -> Result<i32, Errno> {
    match raw(nr::CLONE, [flags, 0, 0, 0, 0])? {
        0 => process::exit_now(3),
        pid => Ok(pid as i32),
    }
}

fn waited(pid: i32, options: u32) -> Result<Option<(i32, Status)>, Errno> {
    wait4(pid, options).map(|found| found.map(|changed| (changed.pid, changed.status)))
}

fn waits(checks: &mut Checks) {
    const USR1: usize = sig::USR1 as usize;
    extern "C" fn nothing(_: i32, _: *const Info, _: *mut u8) {}
    let _ = handle(sig::USR1, nothing, 0, 0);
    for signal in [0, USR1, 100, 255] {
        let pid = copy(signal).unwrap_or(-1);
        let ended = Ok(Some((pid, Status::Exited(3))));
        checks.fails(waited(-1, wait::WNOHANG), Errno::ECHILD, "a wait is not for a child with another exit signal");
        checks.fails(waited(pid, wait::WNOHANG), Errno::ECHILD, "nor a wait for it by number");
        checks.fails(waited(0, wait::WNOHANG), Errno::ECHILD, "nor one by group");
        let mut found = waited(pid, wait::WCLONE);
        if found == Err(Errno::EINTR) {
            found = waited(pid, wait::WCLONE);
        }
        checks.eq(found, ended, "__WCLONE is for it");
    }
    for (option, what) in [(wait::WALL, "__WALL is for it"), (wait::WALL | wait::WCLONE, "also beside __WCLONE")] {
        let pid = copy(0).unwrap_or(-1);
        checks.eq(waited(0, option), Ok(Some((pid, Status::Exited(3)))), what);
    }
    let pid = copy(sig::CHLD as usize).unwrap_or(-1);
    for at in [-1, pid, 0] {
        checks.fails(waited(at, wait::WCLONE | wait::WNOHANG), Errno::ECHILD, "__WCLONE is not for a usual child");
    }
    checks.eq(
        waited(-1, wait::WNOTHREAD),
        Ok(Some((pid, Status::Exited(3)))),
        "its only thread's children are a process's",
    );
    let pids = [0, sig::CHLD as usize].map(|signal| copy(signal).unwrap_or(-1));
    let mut found = [0; 2].map(|_| waited(-1, wait::WALL).ok().flatten().map_or(0, |(pid, _)| pid));
    found.sort_unstable();
    checks.eq(found, pids, "__WALL is for both kinds");
    checks.fails(waited(-1, wait::WALL), Errno::ECHILD, "of which then none is left");
}

/// The exit signal of a child that execs, or that another process inherits.
fn heirs(checks: &mut Checks) {
    let pid = match raw(nr::CLONE, [0usize, 0, 0, 0, 0]) {
        Ok(0) => again(c"0"),
        other => other.map_or(-1, |pid| pid as i32),
    };
    let mut found = None;
    for _ in 0..10_000 {
        found = waited(-1, wait::WNOHANG).ok().flatten();
        if found.is_some() {
            break;
        }
        time::sleep_ms(1);
    }
    checks.eq(found, Some((pid, Status::Exited(0))), "a child that execs is a usual child");
    let made = start(|| {
        let flags = Clone::PARENT.bits() as usize | sig::USR2 as usize;
        copy(flags).map_or(1, |_| 0)
    })
    .unwrap_or(-1);
    checks.eq(waited(made, 0), Ok(Some((made, Status::Exited(0)))), "a child makes a sibling");
    checks.eq(
        waited(-1, 0).map(|found| found.map(|(_, status)| status)),
        Ok(Some(Status::Exited(3))),
        "whose exit signal is the child's own",
    );
}

fn again(how: &CStr) -> i32 {
    let path = args().next().unwrap_or(c"");
    process::execve(path, [path, how], []);
    process::exit_now(9)
}

/// clone takes any number of 8 bits as a child's exit signal, of which those that are no signals are never sent; clone3
/// takes signals only. A child whose exit signal is not SIGCHLD is waited for as such.
fn exit_signals(checks: &mut Checks) {
    let by_clone3 = |signal: u64| {
        let mut arguments = [0u64; 8];
        arguments[4] = signal;
        match raw(nr::CLONE3, [arguments.as_ptr() as usize, size_of_val(&arguments)])? {
            0 => process::exit_now(3),
            pid => Ok(pid as i32),
        }
    };
    let ends = |pid: Result<i32, Errno>| -> Result<(Option<Errno>, bool), Errno> {
        let pid = pid?;
        let plain = waited(pid, 0).err();
        Ok((plain, waited(pid, wait::WALL)? == Some((pid, Status::Exited(3)))))
    };
    let not_plain = Ok((Some(Errno::ECHILD), true));
    let _ = quire_rt::signal::ignore(64);
    checks.eq(ends(by_clone3(64)), not_plain, "clone3 takes the last signal");
    for signal in [65, 66, 255, 256, 1 << 32 | 17] {
        checks.fails(by_clone3(signal), Errno::EINVAL, "and nothing above");
    }
    for signal in [64, 65, 255] {
        checks.eq(ends(copy(signal)), not_plain, "clone takes more, without a signal");
    }
    let _ = quire_rt::signal::default(64);
}

fn flags(checks: &mut Checks) {
    let bad = 8;
    let settid = Clone::PARENT_SETTID.bits() as usize | sig::CHLD as usize;
    let pid = match raw(nr::CLONE, [settid, 0, bad, 0, 0]) {
        Ok(0) => process::exit_now(3),
        other => other.map(|pid| pid as i32),
    };
    checks.ok(pid.is_ok(), "a bad address for the child's number is ignored");
    checks.eq(waited(pid.unwrap_or(-1), 0), Ok(Some((pid.unwrap_or(-1), Status::Exited(3)))), "and the child lives");
    static WORD: AtomicU32 = AtomicU32::new(0);
    extern "C" fn leave(_: usize) -> ! {
        loop {
            let _ = raw(nr::EXIT, [0]);
        }
    }
    let thread =
        Clone::THREAD | Clone::SIGHAND | Clone::PARENT | Clone::PARENT_SETTID | Clone::CHILD_CLEARTID | Clone::FS;
    WORD.store(1, SeqCst);
    let made = beside(thread.bits() as usize, leave, &WORD);
    checks.ok(made > 0, "a thread may be made with CLONE_PARENT");
    checks.ok(made > 0 && is_cleared(&WORD), "and ends");
}

/// Waits until the kernel has cleared a word and woken those who sleep on it.
fn is_cleared(word: &AtomicU32) -> bool {
    for _ in 0..20 {
        match word.load(SeqCst) {
            0 => return true,
            value => _ = futex_wait_shared(word, value, Some(500_000_000)),
        }
    }
    false
}

/// The word of `CLONE_CHILD_CLEARTID` when a child that shares memory execs.
fn cleared(checks: &mut Checks) {
    static WORD: AtomicU32 = AtomicU32::new(0);
    extern "C" fn exec(_: usize) -> ! {
        again(c"60000");
        end(0)
    }
    let flags = (Clone::PARENT_SETTID | Clone::CHILD_CLEARTID).bits() as usize | sig::CHLD as usize;
    WORD.store(1, SeqCst);
    let pid = beside(flags, exec, &WORD);
    checks.ok(pid > 0, "a child shares memory");
    checks.ok(is_cleared(&WORD), "at its exec its number is cleared, and who waits for that is woken");
    checks.eq(waited(pid, wait::WNOHANG), Ok(None), "while it lives on");
    let _ = kill(pid, sig::KILL);
    let _ = waited(pid, 0);
}

fn to(path: &CStr) -> Result<usize, Errno> {
    raw(nr::CHDIR, [path.as_ptr() as usize])
}

/// A directory that there is, and that is not the first.
fn elsewhere() -> &'static CStr {
    let exists = |path: &CStr| raw(nr::FACCESSAT, [-100isize as usize, path.as_ptr() as usize, 0, 0]).is_ok();
    if exists(c"/bin") { c"/bin" } else { c"/dev" }
}

fn is_in(directory: &[u8]) -> bool {
    let mut path = [0u8; 64];
    raw(nr::GETCWD, [path.as_mut_ptr() as usize, path.len()]).is_ok_and(|n| &path[..n - 1] == directory)
}

fn directories(checks: &mut Checks) {
    extern "C" fn to_dev(_: usize) -> ! {
        let _ = to(elsewhere());
        end(0)
    }
    static WORD: AtomicU32 = AtomicU32::new(0);
    let other = elsewhere().to_bytes();
    let _ = to(c"/");
    let mut run = |flags: Clone, wanted: &[u8], what: &str| {
        let pid = beside(flags.bits() as usize | sig::CHLD as usize, to_dev, &WORD);
        let _ = waited(pid, 0);
        checks.ok(is_in(wanted), what);
    };
    run(Clone::empty(), b"/", "a child's working directory is its own");
    run(Clone::FS, other, "with CLONE_FS it is the parent's too");
    let _ = to(c"/");
    run(Clone::FS, other, "and so is that of a second one");
    let _ = to(c"/");
    run(Clone::empty(), b"/", "but not that of another without it");
    let pid = match raw(nr::CLONE, [Clone::FS.bits() as usize | sig::CHLD as usize, 0, 0, 0, 0]) {
        Ok(0) => {
            // A child of one that shares it, and then one that has exec'd.
            let pid = match raw(nr::CLONE, [Clone::FS.bits() as usize | sig::CHLD as usize, 0, 0, 0, 0]) {
                Ok(0) => process::exit_now(to(elsewhere()).is_err() as i32),
                other => other.map_or(-1, |pid| pid as i32),
            };
            let _ = waited(pid, 0);
            process::exit_now(!is_in(other) as i32)
        }
        other => other.map_or(-1, |pid| pid as i32),
    };
    checks.eq(waited(pid, 0), Ok(Some((pid, Status::Exited(0)))), "a child's child shares it in its turn");
    checks.ok(is_in(other), "with all of them");
    let _ = to(c"/");
}

fn groups(checks: &mut Checks) {
    let pid = start(|| again(c"60000")).unwrap_or(-1);
    let mut result = Ok(());
    for _ in 0..10_000 {
        result = process::setpgid(pid, pid);
        if result.is_err() {
            break;
        }
        let _ = process::setpgid(pid, process::getpgid(0).unwrap_or(0));
        time::sleep_ms(1);
    }
    checks.eq(result, Err(Errno::EACCES), "a child that has exec'd is not put into another group");
    let _ = kill(pid, sig::KILL);
    let _ = waited(pid, 0);
}

/// Calls that take a process's number also take that of a thread.
fn numbers(checks: &mut Checks) {
    let Ok(thread) = spawn(|| time::sleep_ms(400)) else { return checks.ok(false, "a thread") };
    let tid = thread.tid() as usize;
    checks.ok(kill(tid as i32, 0).is_ok(), "kill takes a thread's number");
    checks.eq(process::getpgid(tid as i32), process::getpgid(0), "getpgid does");
    checks.eq(raw(nr::GETSID, [tid]), raw(nr::GETSID, [0usize]), "getsid does");
    checks.eq(raw(nr::PRLIMIT64, [tid, 7, 0, 0]), Ok(0), "prlimit does");
    checks.eq(process::setpgid(tid as i32, 0), Err(Errno::EINVAL), "setpgid does not");
    thread.join();
    let pid = start(|| {
        let _ = spawn(|| time::sleep_ms(100_000));
        loop {
            let _ = raw(nr::EXIT, [0]);
        }
    })
    .unwrap_or(-1);
    time::sleep_ms(100);
    checks.eq(raw(nr::TGKILL, [pid as usize, pid as usize, 0]), Ok(0), "a first thread that has left keeps its number");
    let _ = kill(pid, sig::KILL);
    let _ = waited(pid, 0);
    checks.eq(
        raw(nr::TGKILL, [getpid() as usize, pid as usize, 0]),
        Err(Errno::ESRCH),
        "until its process is waited for",
    );
}

fn name() -> [u8; 16] {
    let mut name = [0u8; 16];
    let _ = raw(nr::PRCTL, [16, name.as_mut_ptr() as usize]);
    name
}

fn names(checks: &mut Checks) {
    static SEEN: AtomicU32 = AtomicU32::new(0);
    process::set_name(c"first");
    let thread = spawn(|| {
        let inherits = name().starts_with(b"first\0");
        process::set_name(c"second");
        let child = user_tests::child(|| !name().starts_with(b"second\0") as i32);
        let of_child = child == Ok(Status::Exited(0));
        let is_own = name().starts_with(b"second\0");
        SEEN.store(u32::from(inherits) | u32::from(is_own) << 1 | u32::from(of_child) << 2, SeqCst);
    });
    if let Ok(thread) = thread {
        thread.join();
    }
    let seen = SEEN.load(SeqCst);
    checks.ok(seen & 1 != 0, "a thread has the name of the thread that made it");
    checks.ok(seen & 2 != 0, "until it sets another");
    checks.ok(seen & 4 != 0, "which its child inherits");
    checks.ok(name().starts_with(b"first\0"), "and which names no other thread");
}
