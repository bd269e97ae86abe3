//! pidfd: processes as open files; waitid and clone3 with them.

#![no_std]
#![no_main]

use quire_rt::abi::flags::{Clone, Open, cld, pidfd, si, sig, wait};
use quire_rt::abi::layout::{CloneArgs, PollFd, Rusage, Siginfo, epoll, poll};
use quire_rt::abi::nr;
use quire_rt::process::{self, Status};
use quire_rt::signal::{self, How, mask};
use quire_rt::{Errno, io, thread, time};
use user_tests::ready::{add, control, counter, look, ppoll, set, take, wait as wait_in};
use user_tests::{Checks, KERNEL, PAGE, RW, map, raw, start, until_asleep};

quire_rt::entry!(main);

const NONBLOCK: u32 = Open::NONBLOCK.bits();
const IN: u32 = poll::IN as u32;

fn main() -> i32 {
    let mut checks = Checks::new();
    opening(&mut checks);
    ends(&mut checks);
    sets(&mut checks);
    signals(&mut checks);
    taking(&mut checks);
    waiting(&mut checks);
    cloning(&mut checks);
    checks.finish()
}

fn open(pid: i32, flags: u32) -> Result<i32, Errno> {
    raw(nr::PIDFD_OPEN, [pid as usize, flags as usize]).map(|fd| fd as i32)
}

fn send(fd: i32, signal: u32, info: usize, flags: u32) -> Result<usize, Errno> {
    raw(nr::PIDFD_SEND_SIGNAL, [fd as usize, signal as usize, info, flags as usize])
}

/// A child that sleeps until it is killed.
fn sleeper() -> i32 {
    start(|| {
        time::sleep_ms(100_000);
        1
    })
    .unwrap_or(-1)
}

fn events(fd: i32) -> u16 {
    look(&mut [PollFd { fd, events: poll::IN | poll::OUT | poll::RDNORM, revents: 0 }])[0]
}

fn opening(checks: &mut Checks) {
    let me = process::getpid();
    checks.fails(open(0, 0), Errno::EINVAL, "no process has the number 0");
    checks.fails(open(-1, 0), Errno::EINVAL, "or a negative one");
    checks.fails(open(0x3f_ffff, 0), Errno::ESRCH, "or this one");
    checks.fails(open(me, 1), Errno::EINVAL, "unknown flags");
    let fd = open(me, NONBLOCK).unwrap_or(-1);
    checks.ok(fd >= 0, "a process opens itself");
    checks.eq(raw(nr::FCNTL, [fd as usize, 1]), Ok(1), "exec will close it");
    checks.eq(raw(nr::FCNTL, [fd as usize, 3]).map(|f| f as u32 & NONBLOCK), Ok(NONBLOCK), "it has its flag");
    checks.fails(io::read(fd, &mut [0; 8]), Errno::EINVAL, "it is not read");
    checks.fails(io::write(fd, &[0; 8]), Errno::EINVAL, "nor written");
    checks.eq(events(fd), 0, "nor ready, as long as it lives");
    let other = thread::spawn(move || {
        let wrong = open(process::gettid(), 0) != Err(Errno::EINVAL);
        let _ = io::write_all(1, if wrong { b"not ok - a thread is opened\n" } else { b"" });
    });
    other.expect("a thread").join();
    let _ = io::close(fd);
}

fn ends(checks: &mut Checks) {
    let child = sleeper();
    let fd = open(child, 0).unwrap_or(-1);
    checks.eq(events(fd), 0, "a child that lives");
    let _ = process::kill(child, sig::KILL);
    let mut fds = [PollFd { fd, events: poll::IN, revents: 0 }];
    checks.eq((ppoll(&mut fds, None), fds[0].revents), (Ok(1), poll::IN), "its end is awaited");
    checks.eq(events(fd), poll::IN | poll::RDNORM, "a zombie is readable");
    checks.eq(send(fd, 0, 0, 0), Ok(0), "and can be signalled");
    checks.fails(raw(nr::PIDFD_GETFD, [fd as usize, 0, 0]), Errno::ESRCH, "but has no files");
    let _ = process::waitpid(child);
    checks.eq(events(fd), poll::IN | poll::RDNORM | poll::HUP, "when it was waited for, that is told, too");
    checks.fails(send(fd, 0, 0, 0), Errno::ESRCH, "then it is gone");
    checks.fails(raw(nr::PIDFD_GETFD, [fd as usize, 0, 0]), Errno::ESRCH, "with its files");
    let _ = io::close(fd);
    // One that nobody waits for.
    let _ = signal::ignore(sig::CHLD);
    let child = sleeper();
    let fd = open(child, 0).unwrap_or(-1);
    let _ = process::kill(child, sig::KILL);
    let mut fds = [PollFd { fd, events: 0, revents: 0 }];
    checks.eq((ppoll(&mut fds, None), fds[0].revents), (Ok(1), poll::HUP), "an end that nobody waits for is a hang-up");
    let _ = (signal::default(sig::CHLD), io::close(fd));
}

fn sets(checks: &mut Checks) {
    let set = set();
    let child = sleeper();
    let fd = open(child, 0).unwrap_or(-1);
    let _ = control(set, epoll::ADD, fd, IN, 5);
    checks.eq(wait_in(set, 8, 0).map(|found| found.len()), Ok(0), "no end, no event");
    let killer = start(move || {
        time::sleep_ms(20);
        process::kill(child, sig::KILL).is_err() as i32
    });
    checks.eq(wait_in(set, 8, -1), Ok([(IN, 5)].into()), "an end");
    let _ = control(set, epoll::MOD, fd, epoll::ET, 6);
    let _ = process::waitpid(child);
    checks.eq(wait_in(set, 8, -1), Ok([(poll::HUP as u32, 6)].into()), "and the wait for it");
    let _ = (killer.and_then(process::waitpid), io::close(fd), io::close(set));
}

fn signals(checks: &mut Checks) {
    let set = signal::set(&[sig::USR1, 40]);
    let old = mask(How::Block, set).unwrap_or(0);
    let me = open(process::getpid(), 0).unwrap_or(-1);
    let other = counter(0, 0).unwrap_or(-1);
    checks.fails(send(other, 0, 0, 0), Errno::EBADF, "no pidfd");
    checks.fails(send(900, 0, 0, 0), Errno::EBADF, "nothing");
    checks.fails(send(me, 65, 0, 0), Errno::EINVAL, "no signal");
    checks.fails(send(me, 0, 0, 8), Errno::EINVAL, "unknown flags");
    checks.fails(send(me, 0, 0, 3), Errno::EINVAL, "two scopes");
    checks.fails(send(me, sig::USR1, KERNEL, 0), Errno::EFAULT, "a record that is nowhere");
    let taken = || signal::timed_wait(set, Some(0)).map(|info| (info.signo as u32, info.code, info.fields[1]));
    checks.eq((send(me, sig::USR1, 0, 0), taken()), (Ok(0), Ok((sig::USR1, si::USER, 0))), "a signal");
    let info = Siginfo { signo: 40, code: si::QUEUE, fields: [0, 77, 0, 0], ..Siginfo::default() };
    let at = &raw const info as usize;
    checks.eq((send(me, 40, at, 0), taken()), (Ok(0), Ok((40, si::QUEUE, 77))), "with a record");
    checks.fails(send(me, sig::USR1, at, 0), Errno::EINVAL, "that is of another signal");
    for scope in [pidfd::SIGNAL_THREAD, pidfd::SIGNAL_THREAD_GROUP] {
        checks.eq((send(me, 40, at, scope), taken()), (Ok(0), Ok((40, si::QUEUE, 77))), "to a scope");
    }
    let child = start(|| {
        let _ = process::setpgid(0, 0);
        let grandchild = sleeper();
        let fd = open(process::getpid(), 0).unwrap_or(-1);
        let _ = signal::ignore(sig::TERM);
        let sent = send(fd, sig::TERM, 0, pidfd::SIGNAL_PROCESS_GROUP);
        let _ = signal::default(sig::TERM);
        (sent != Ok(0) || process::waitpid(grandchild) != Ok(Status::Killed(sig::TERM))) as i32
    });
    checks.eq(child.and_then(process::waitpid), Ok(Status::Exited(0)), "to a group");
    let child = sleeper();
    let fd = open(child, 0).unwrap_or(-1);
    let false_info = Siginfo { code: si::USER, ..info };
    checks.fails(send(fd, 40, &raw const false_info as usize, 0), Errno::EPERM, "a record that lies to another");
    checks.eq(send(fd, sig::TERM, 0, 0), Ok(0), "another process is signalled");
    checks.eq(process::waitpid(child), Ok(Status::Killed(sig::TERM)), "and ends");
    [me, other, fd].iter().for_each(|fd| _ = io::close(*fd));
    let _ = mask(How::Set, old);
}

fn taking(checks: &mut Checks) {
    let (read, write) = io::pipe(0).expect("a pipe");
    let child = start(|| {
        let fd = counter(0, 0).unwrap_or(-1);
        let _ = io::write(write, &fd.to_ne_bytes());
        (take(fd) != Ok(42)) as i32
    });
    let child = child.unwrap_or(-1);
    let mut theirs = [0; 4];
    let _ = io::read(read, &mut theirs);
    let theirs = i32::from_ne_bytes(theirs);
    let fd = open(child, 0).unwrap_or(-1);
    let get = |fd: i32, theirs: i32, flags: usize| raw(nr::PIDFD_GETFD, [fd as usize, theirs as usize, flags]);
    checks.fails(get(fd, theirs, 1), Errno::EINVAL, "unknown flags");
    checks.fails(get(read, theirs, 0), Errno::EBADF, "no pidfd");
    checks.fails(get(fd, 900, 0), Errno::EBADF, "no file of theirs");
    let mine = get(fd, theirs, 0).map_or(-1, |fd| fd as i32);
    checks.eq(raw(nr::FCNTL, [mine as usize, 1]), Ok(1), "exec closes what was taken");
    checks.eq(add(mine, 42), Ok(8), "it is the same file");
    checks.eq(process::waitpid(child), Ok(Status::Exited(0)), "as theirs");
    [read, write, fd, mine].iter().for_each(|fd| _ = io::close(*fd));
}

/// (what it returns, signal, code, pid, uid and status of the record).
fn waitid(which: u32, id: i32, options: u32) -> (Result<usize, Errno>, [i32; 5]) {
    let mut info = Siginfo { signo: 99, ..Siginfo::default() };
    let mut usage = Rusage::default();
    let call = [which as usize, id as usize, &raw mut info as usize, options as usize, &raw mut usage as usize];
    let result = raw(nr::WAITID, call);
    let [ids, status, ..] = info.fields;
    (result, [info.signo, info.code, ids as i32, (ids >> 32) as i32, status as i32])
}

fn waiting(checks: &mut Checks) {
    let chld = sig::CHLD as i32;
    let ended = wait::WEXITED;
    checks.eq(waitid(wait::P_ALL, 0, ended), (Err(Errno::ECHILD), [0; 5]), "no child");
    checks.eq(waitid(4, 0, ended).0, Err(Errno::EINVAL), "an unknown kind");
    checks.eq(waitid(wait::P_ALL, 0, 0).0, Err(Errno::EINVAL), "nothing to wait for");
    checks.eq(waitid(wait::P_ALL, 0, ended | 0x100).0, Err(Errno::EINVAL), "an unknown option");
    checks.eq(waitid(wait::P_PID, 0, ended).0, Err(Errno::EINVAL), "a number that is none");
    checks.eq(waitid(wait::P_PID, -1, ended).0, Err(Errno::EINVAL), "a negative one");
    checks.eq(waitid(wait::P_PGID, -1, ended).0, Err(Errno::EINVAL), "or of a group");
    checks.eq(waitid(wait::P_PIDFD, -1, ended).0, Err(Errno::EINVAL), "or a descriptor");
    checks.eq(waitid(wait::P_PIDFD, 900, ended).0, Err(Errno::EBADF), "that is not open");
    checks.eq(waitid(wait::P_PIDFD, 1, ended).0, Err(Errno::EBADF), "or is no process's");
    let me = open(process::getpid(), 0).unwrap_or(-1);
    checks.eq(waitid(wait::P_PIDFD, me, ended).0, Err(Errno::ECHILD), "or no child's");
    let _ = io::close(me);

    let child = sleeper();
    let (fd, quick) = (open(child, 0).unwrap_or(-1), open(child, NONBLOCK).unwrap_or(-1));
    checks.eq(waitid(wait::P_PID, child, ended | wait::WNOHANG), (Ok(0), [0; 5]), "a child that lives");
    checks.eq(waitid(wait::P_PIDFD, quick, ended), (Err(Errno::EAGAIN), [0; 5]), "waited for without sleep");
    checks.eq(waitid(wait::P_PIDFD, quick, ended | wait::WNOHANG), (Ok(0), [0; 5]), "asked for by both");
    let _ = process::kill(child, sig::STOP);
    let stopped = [chld, cld::STOPPED, child, 0, sig::STOP as i32];
    checks.eq(waitid(wait::P_PIDFD, fd, wait::WUNTRACED | wait::WNOWAIT), (Ok(0), stopped), "a stop is looked at");
    checks.eq(waitid(wait::P_PIDFD, quick, ended | wait::WUNTRACED), (Ok(0), stopped), "and taken");
    checks.eq(waitid(wait::P_PID, child, wait::WUNTRACED | wait::WNOHANG), (Ok(0), [0; 5]), "once");
    let _ = process::kill(child, sig::CONT);
    let goes_on = [chld, cld::CONTINUED, child, 0, sig::CONT as i32];
    checks.eq(waitid(wait::P_ALL, 0, wait::WCONTINUED), (Ok(0), goes_on), "a continuation");
    let _ = process::kill(child, sig::TERM);
    let killed = [chld, cld::KILLED, child, 0, sig::TERM as i32];
    checks.eq(waitid(wait::P_PIDFD, fd, ended | wait::WNOWAIT), (Ok(0), killed), "an end is looked at");
    checks.eq(waitid(wait::P_PID, child, wait::WUNTRACED).0, Err(Errno::ECHILD), "after which nothing else comes");
    checks.eq(waitid(wait::P_ALL, 0, wait::WUNTRACED).0, Err(Errno::ECHILD), "from any child");
    checks.eq(waitid(wait::P_PGID, 0, wait::WUNTRACED).0, Err(Errno::ECHILD), "of the group");
    checks.eq(waitid(wait::P_PGID, 0, ended), (Ok(0), killed), "an end is taken");
    checks.eq(waitid(wait::P_PIDFD, fd, ended), (Err(Errno::ECHILD), [0; 5]), "once");
    let _ = (io::close(fd), io::close(quick));
    let child = start(|| 77).unwrap_or(-1);
    let without = raw(nr::WAITID, [wait::P_PID as usize, child as usize, 0, (ended | wait::WNOWAIT) as usize, 0]);
    checks.eq(without, Ok(0), "nobody need be told");
    checks.eq(waitid(wait::P_PID, child, ended), (Ok(0), [chld, cld::EXITED, child, 0, 77]), "a status");
    let bad = start(|| 0).unwrap_or(-1);
    checks.fails(raw(nr::WAITID, [1, bad as usize, KERNEL, ended as usize, 0]), Errno::EFAULT, "a record for nowhere");
    checks.eq(waitid(wait::P_PID, bad, ended).0, Err(Errno::ECHILD), "and the child is gone all the same");
}

/// Makes a child by clone3; answers its number and its pidfd.
fn clone3(args: &CloneArgs, size: usize, child: impl FnOnce() -> i32) -> Result<i32, Errno> {
    match raw(nr::CLONE3, [args as *const CloneArgs as usize, size])? {
        0 => process::exit_now(child()),
        pid => Ok(pid as i32),
    }
}

fn cloning(checks: &mut Checks) {
    let none = CloneArgs { exit_signal: sig::CHLD.into(), ..CloneArgs::default() };
    let size = size_of::<CloneArgs>();
    let call = |args: CloneArgs, size: usize| clone3(&args, size, || 9);
    checks.fails(call(none, 63), Errno::EINVAL, "a record that is too short");
    checks.fails(call(none, PAGE + 1), Errno::E2BIG, "or too long");
    checks.fails(raw(nr::CLONE3, [KERNEL, size]), Errno::EFAULT, "or nowhere");
    checks.fails(call(CloneArgs { flags: 1 << 40, ..none }, size), Errno::EINVAL, "unknown flags");
    checks.fails(call(CloneArgs { flags: 17, ..none }, size), Errno::EINVAL, "a signal among them");
    let detached = Clone::DETACHED.bits();
    checks.fails(call(CloneArgs { flags: detached, ..none }, size), Errno::EINVAL, "an old flag");
    checks.fails(call(CloneArgs { exit_signal: 65, ..none }, size), Errno::EINVAL, "no signal");
    checks.fails(call(CloneArgs { stack: 0x10000, ..none }, size), Errno::EINVAL, "a stack without a size");
    checks.fails(call(CloneArgs { stack_size: 0x10000, ..none }, size), Errno::EINVAL, "a size without a stack");
    let parent = Clone::PARENT.bits();
    checks.fails(call(CloneArgs { flags: parent, ..none }, size), Errno::EINVAL, "a signal to another parent");
    let both = (Clone::VM | Clone::SIGHAND | Clone::CLEAR_SIGHAND).bits();
    checks.fails(call(CloneArgs { flags: both, ..none }, size), Errno::EINVAL, "handlers shared and cleared");

    for size in [64, 80, 88] {
        let child = call(none, size);
        checks.eq(child.and_then(process::waitpid), Ok(Status::Exited(9)), "a child, by each version of the record");
    }
    let long = map(PAGE, RW);
    // SAFETY: fresh memory of the test's own.
    unsafe { *(long as *mut CloneArgs) = none };
    let made = match raw(nr::CLONE3, [long, PAGE]) {
        Ok(0) => process::exit_now(8),
        made => made.map(|pid| pid as i32),
    };
    checks.eq(made.and_then(process::waitpid), Ok(Status::Exited(8)), "a longer record that says nothing more");
    user_tests::poke(long + 200, 1);
    checks.fails(raw(nr::CLONE3, [long, PAGE]), Errno::E2BIG, "one that says more");

    let (mut fd, mut tid) = (-1i32, 0i32);
    let flags = (Clone::PIDFD | Clone::PARENT_SETTID).bits();
    let args = CloneArgs { flags, pidfd: &raw mut fd as u64, parent_tid: &raw mut tid as u64, ..none };
    let child = clone3(&args, size, || 5).unwrap_or(-1);
    // SAFETY: the kernel has written them.
    let (fd, tid) = unsafe { ((&raw const fd).read_volatile(), (&raw const tid).read_volatile()) };
    checks.ok(fd > 2 && tid == child, "a child with its pidfd");
    let wanted = [sig::CHLD as i32, cld::EXITED, child, 0, 5];
    checks.eq(waitid(wait::P_PIDFD, fd, wait::WEXITED), (Ok(0), wanted), "which waits for it");
    let _ = io::close(fd);
    let args = CloneArgs { pidfd: KERNEL as u64, ..args };
    checks.fails(clone3(&args, size, || 5), Errno::EFAULT, "a pidfd for nowhere");
    let next = counter(0, 0).unwrap_or(-1);
    checks.eq(next, fd, "leaves no descriptor");
    let _ = io::close(next);

    let mut fd = -1i32;
    let legacy = |flags: Clone, at: usize| raw(nr::CLONE, [flags.bits() as usize | sig::CHLD as usize, 0, at, 0, 0]);
    let at = &raw mut fd as usize;
    checks.fails(legacy(Clone::PIDFD | Clone::PARENT_SETTID, at), Errno::EINVAL, "clone has one place for both");
    checks.fails(legacy(Clone::PIDFD | Clone::DETACHED, at), Errno::EINVAL, "and an old meaning");
    let child = match legacy(Clone::PIDFD, at) {
        Ok(0) => process::exit_now(6),
        made => made.unwrap_or(0) as i32,
    };
    // SAFETY: as above.
    let fd = unsafe { (&raw const fd).read_volatile() };
    let wanted = [sig::CHLD as i32, cld::EXITED, child, 0, 6];
    checks.eq(waitid(wait::P_PIDFD, fd, wait::WEXITED), (Ok(0), wanted), "clone gives a pidfd, too");
    let _ = io::close(fd);

    extern "C" fn nothing(_: i32, _: *const signal::Info, _: *mut u8) {}
    let _ = signal::handle(sig::USR1, nothing, 0, 0);
    let args = CloneArgs { flags: Clone::CLEAR_SIGHAND.bits(), ..none };
    let child = clone3(&args, size, || {
        let _ = process::kill(process::getpid(), sig::USR1);
        0
    });
    checks.eq(child.and_then(process::waitpid), Ok(Status::Killed(sig::USR1)), "handlers are cleared for a child");
    let _ = signal::default(sig::USR1);
    let sleeper = sleeper();
    let _ = (until_asleep(sleeper), process::kill(sleeper, sig::KILL), process::waitpid(sleeper));
}
