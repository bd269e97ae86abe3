//! siginfo: the information that comes with a signal: its sender, its cause, and its value.

#![no_std]
#![no_main]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use quire_rt::abi::flags::{cld, clock, si, sig};
use quire_rt::abi::layout::{Siginfo, rlimit};
use quire_rt::abi::nr;
use quire_rt::process::{self, kill};
use quire_rt::signal::{How, Info, handle, mask, queue, set, timed_wait};
use quire_rt::{Errno, io, signal, time};
use user_tests::{Checks, PAGE, map, munmap, peek, raw, start, until, until_asleep};

quire_rt::entry!(main);

const RT: u32 = 40;

struct Last(UnsafeCell<Siginfo>);

// SAFETY: the handler writes it while this program's only thread waits for it to have run.
unsafe impl Sync for Last {}

static LAST: Last =
    Last(UnsafeCell::new(Siginfo { signo: 0, errno: 0, code: 0, pad: 0, fields: [0; 4], rest: [0; 10] }));
static COUNT: AtomicU32 = AtomicU32::new(0);

extern "C" fn note(_: i32, info: *const Info, _: *mut u8) {
    // SAFETY: the kernel hands the handler a whole record, of which `Info` is the start.
    unsafe { *LAST.0.get() = *info.cast() };
    COUNT.fetch_add(1, SeqCst);
}

/// The last signal's record, once one has come; a record of zeros if none does.
fn last() -> Siginfo {
    until(|| COUNT.load(SeqCst) != 0);
    COUNT.store(0, SeqCst);
    // SAFETY: the handler has run, or does not.
    unsafe { core::mem::take(&mut *LAST.0.get()) }
}

/// Signal, code and pid of a record.
fn head(info: Siginfo) -> (u32, i32, i32) {
    (info.signo as u32, info.code, info.fields[0] as u32 as i32)
}

fn main() -> i32 {
    let mut checks = Checks::new();
    let me = process::getpid();
    for signal in [sig::USR1, sig::CHLD, sig::PIPE, sig::ALRM, RT] {
        let _ = handle(signal, note, 0, 0);
    }
    let _ = kill(me, sig::USR1);
    let info = last();
    checks.eq(head(info), (sig::USR1, si::USER, me), "kill: SI_USER and the sender");
    checks.eq((info.fields[0] >> 32, info.fields[1], info.errno), (0, 0, 0), "of user 0, and nothing else");
    let _ = raw(nr::TGKILL, [me as usize, process::gettid() as usize, sig::USR1 as usize]);
    checks.eq(head(last()), (sig::USR1, si::TKILL, me), "tgkill: SI_TKILL");
    let pid = start(|| {
        let sent = kill(me, sig::USR1);
        time::sleep_ms(100);
        sent.is_err() as i32
    })
    .unwrap_or(-1);
    checks.eq(head(last()), (sig::USR1, si::USER, pid), "another process");
    let _ = process::waitpid(pid);
    last();
    let _ = time::set_alarm(1_000_000, 0);
    checks.eq(head(last()), (sig::ALRM, si::KERNEL, 0), "an alarm: SI_KERNEL");
    let (read, write) = io::pipe(0).expect("a pipe");
    let _ = io::close(read);
    let _ = io::write(write, b"x");
    checks.eq(head(last()), (sig::PIPE, si::USER, me), "SIGPIPE: as from oneself");
    let _ = io::close(write);
    children(&mut checks);
    faults(&mut checks);
    values(&mut checks, me);
    waiting(&mut checks, me);
    checks.finish()
}

fn children(checks: &mut Checks) {
    let pid = start(|| 42).unwrap_or(-1);
    let info = last();
    checks.eq((head(info), info.fields[1]), ((sig::CHLD, cld::EXITED, pid), 42), "a child's end: its status");
    let _ = process::waitpid(pid);
    let pid = start(|| {
        while time::nanoseconds(clock::PROCESS_CPUTIME_ID) < 30_000_000 {}
        time::sleep_ms(1_000_000);
        0
    })
    .unwrap_or(-1);
    until_asleep(pid);
    let changes = [
        (sig::STOP, cld::STOPPED, sig::STOP, "a stop"),
        (sig::CONT, cld::CONTINUED, sig::CONT, "a continuation"),
        (sig::TERM, cld::KILLED, sig::TERM, "a death by a signal"),
    ];
    for (signal, code, status, what) in changes {
        let _ = kill(pid, signal);
        let info = last();
        checks.eq((head(info), info.fields[1]), ((sig::CHLD, code, pid), status as u64), what);
        if signal == sig::TERM {
            checks.ok(info.fields[2] + info.fields[3] > 0, "with the time that the child used");
        }
    }
    let _ = process::waitpid(pid);
}

fn faults(checks: &mut Checks) {
    let page = map(2 * PAGE, quire_rt::abi::flags::Prot::empty());
    let _ = munmap(page + PAGE, PAGE);
    extern "C" fn tell(_: i32, info: *const Info, _: *mut u8) {
        // SAFETY: as in `note`.
        let info = unsafe { *info };
        process::exit_now(info.code << 6 | (info.addr % PAGE) as i32)
    }
    for (at, code, what) in
        [(page + PAGE + 5, 1, "nothing mapped: SEGV_MAPERR"), (page + 7, 2, "no right: SEGV_ACCERR")]
    {
        checks.exits(
            || {
                let _ = handle(sig::SEGV, tell, 0, 0);
                peek(at) as i32
            },
            (code << 6 | (at % PAGE)) as u8,
            what,
        );
    }
    let _ = munmap(page, PAGE);
}

/// Values, and signals that queue.
fn values(checks: &mut Checks, me: i32) {
    checks.eq(queue(me, sig::USR1, 0x1234_5678_9abc), Ok(()), "a signal with a value");
    let info = last();
    checks.eq((head(info), info.fields[1]), ((sig::USR1, si::QUEUE, me), 0x1234_5678_9abc), "brings it");
    let old = mask(How::Block, set(&[RT, RT + 1, sig::USR1])).unwrap_or(0);
    for i in 0..50 {
        let _ = queue(me, RT + (i % 2) as u32, i);
        let _ = queue(me, sig::USR1, i);
    }
    let got = [RT, RT + 1].map(|signal| (0..25).filter(|_| timed_wait(set(&[signal]), Some(0)).is_ok()).count());
    checks.eq(got, [25, 25], "signals from 32 on are as many as were sent");
    let both = timed_wait(set(&[sig::USR1]), Some(0)).map(|info| info.fields[1]);
    checks.eq(both, Ok(0), "of those below only the first waits");
    checks.fails(timed_wait(set(&[sig::USR1]), Some(0)), Errno::EAGAIN, "and no other");
    let mut in_order = true;
    for i in 0..10 {
        in_order &= queue(me, RT + 1, i).is_ok() && queue(me, RT, i).is_ok();
    }
    for signal in [RT, RT + 1] {
        for i in 0..10 {
            let info = timed_wait(set(&[RT, RT + 1]), Some(0)).unwrap_or_default();
            in_order &= (info.signo as u32, info.fields[1]) == (signal, i);
        }
    }
    checks.ok(in_order, "the lowest first, and of one signal the oldest");
    let limit = process::prlimit(rlimit::SIGPENDING, None).map_or(0, |limit| limit.cur);
    let accepted = (0..=limit).take_while(|i| queue(me, RT, *i).is_ok()).count() as u64;
    checks.ok((32..=limit).contains(&accepted), "there is an end to what may wait");
    checks.fails(queue(me, RT, 0), Errno::EAGAIN, "which the sender is told");
    checks.eq(kill(me, RT), Ok(()), "a signal without a value comes all the same");
    let _ = signal::ignore(RT);
    let _ = handle(RT, note, 0, 0);
    checks.eq(signal::pending().map(|set| set >> (RT - 1) & 1), Ok(0), "ignoring a signal drops what waits");
    let info = Siginfo { signo: sig::USR1 as i32, code: si::USER, ..Siginfo::default() };
    let call = |pid: i32, info: &Siginfo| {
        raw(nr::RT_SIGQUEUEINFO, [pid as usize, sig::USR1 as usize, info as *const _ as usize])
    };
    checks.fails(call(process::getppid(), &info), Errno::EPERM, "nobody passes for kill towards others");
    let strange = Siginfo { code: -77, rest: [1; 10], ..info };
    checks.fails(call(me, &strange), Errno::E2BIG, "a record with more than is known");
    let thread = Siginfo { code: si::QUEUE, fields: [me as u64, 9, 0, 0], ..info };
    let to_thread = [me as usize, process::gettid() as usize, sig::USR1 as usize, &raw const thread as usize];
    checks.eq(raw(nr::RT_TGSIGQUEUEINFO, to_thread), Ok(0), "a value to a thread");
    checks.eq(timed_wait(set(&[sig::USR1]), Some(0)).map(|info| info.fields[1]), Ok(9), "brings it");
    let _ = mask(How::Set, old);
    COUNT.store(0, SeqCst);
}

fn waiting(checks: &mut Checks, me: i32) {
    let old = mask(How::Block, set(&[sig::USR1, sig::CHLD])).unwrap_or(0);
    let begin = time::monotonic();
    checks.fails(timed_wait(set(&[sig::USR1]), Some(20_000_000)), Errno::EAGAIN, "a wait that ends by time");
    checks.ok(time::monotonic() - begin >= 20_000_000, "not early");
    let pid = start(|| {
        time::sleep_ms(30);
        kill(me, sig::USR1).is_err() as i32
    })
    .unwrap_or(-1);
    let info = timed_wait(set(&[sig::USR1]), None).unwrap_or_default();
    checks.eq(head(info), (sig::USR1, si::USER, pid), "a signal that comes during the wait");
    let info = timed_wait(set(&[sig::CHLD]), None).unwrap_or_default();
    checks.eq(head(info), (sig::CHLD, cld::EXITED, pid), "one whose default is to be ignored");
    let _ = process::waitpid(pid);
    let pid = start(|| {
        // Repeatedly: one of them arrives after the wait has begun, however late that is.
        while kill(me, RT).is_ok() {
            time::sleep_ms(30);
        }
        0
    })
    .unwrap_or(-1);
    checks.fails(timed_wait(set(&[sig::USR1]), None), Errno::EINTR, "another signal's handler ends the wait");
    let _ = kill(pid, sig::KILL);
    let _ = process::waitpid(pid);
    let _ = timed_wait(set(&[sig::CHLD]), Some(0));
    checks.fails(
        raw(nr::RT_SIGTIMEDWAIT, [&raw const old as usize, 0, 0, 4]),
        Errno::EINVAL,
        "a set of the wrong size",
    );
    let _ = mask(How::Set, old);
    // SAFETY: no handler runs now.
    let last = unsafe { (*LAST.0.get()).signo };
    checks.eq(last, RT as i32, "and no handler ran for what was waited for");
}
