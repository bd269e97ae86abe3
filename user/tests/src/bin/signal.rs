//! signal: sending, blocking, handling, and interrupted calls.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};

use quire_rt::abi::flags::sig;
use quire_rt::abi::layout::sa;
use quire_rt::abi::nr;
use quire_rt::process::{self, Status, kill};
use quire_rt::signal::{How, Info, handle, mask, set};
use quire_rt::{Errno, io, signal, time};
use user_tests::{Checks, KERNEL, PAGE, RW, asm, child, map, raw, start, until, until_asleep};

quire_rt::entry!(main);

static COUNT: AtomicU32 = AtomicU32::new(0);
static LAST: AtomicU32 = AtomicU32::new(0);
static DEPTH: AtomicU32 = AtomicU32::new(0);
static STACK: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(signal: i32, info: *const Info, _: *mut u8) {
    // SAFETY: the kernel hands the handler a record.
    let right = unsafe { (*info).signo } == signal;
    LAST.store(if right { signal as u32 } else { 0 }, SeqCst);
    COUNT.fetch_add(1, SeqCst);
    STACK.store(&raw const right as usize, SeqCst);
}

/// Sends its own signal twice, and records how deeply it was nested.
extern "C" fn nested(_: i32, _: *const Info, _: *mut u8) {
    let depth = DEPTH.fetch_add(1, SeqCst) + 1;
    LAST.fetch_max(depth, SeqCst);
    if COUNT.fetch_add(1, SeqCst) < 2 {
        me(sig::USR1);
    }
    DEPTH.fetch_sub(1, SeqCst);
}

fn me(signal: u32) {
    let _ = kill(process::getpid(), signal);
}

fn counted() -> u32 {
    COUNT.swap(0, SeqCst)
}

fn main() -> i32 {
    let mut checks = Checks::new();
    sending(&mut checks);
    handling(&mut checks);
    blocking(&mut checks);
    interrupting(&mut checks);
    children(&mut checks);
    defaults(&mut checks);
    registers(&mut checks);
    checks.finish()
}

fn sending(checks: &mut Checks) {
    checks.eq(kill(process::getpid(), 0), Ok(()), "signal 0 asks only");
    checks.fails(kill(999_999, sig::TERM), Errno::ESRCH, "a nonexistent process");
    checks.fails(kill(-999_999, sig::TERM), Errno::ESRCH, "a nonexistent group");
    checks.fails(kill(process::getpid(), 65), Errno::EINVAL, "an invalid signal");
    checks.fails(handle(sig::KILL, count, 0, 0), Errno::EINVAL, "KILL cannot be handled");
    checks.fails(signal::ignore(sig::STOP), Errno::EINVAL, "STOP cannot be ignored");
    checks.fails(handle(65, count, 0, 0), Errno::EINVAL, "nor can an invalid signal");
    checks.fails(raw(nr::RT_SIGACTION, [sig::USR1 as usize, 0, 0, 4]), Errno::EINVAL, "a set of the wrong size");
}

fn handling(checks: &mut Checks) {
    let _ = handle(sig::USR1, count, 0, 0);
    me(sig::USR1);
    checks.eq((counted(), LAST.load(SeqCst)), (1, sig::USR1), "a handler runs before kill returns");
    let own = raw(nr::TGKILL, [process::getpid() as usize, process::gettid() as usize, sig::USR1 as usize]);
    checks.eq((own, counted()), (Ok(0), 1), "a signal to a thread");
    checks.exits(
        || {
            me(sig::USR1);
            counted() as i32
        },
        1,
        "a child inherits handlers",
    );
    let _ = handle(sig::USR1, count, sa::RESETHAND, 0);
    me(sig::USR1);
    checks.eq(counted(), 1, "RESETHAND: once");
    let left = sa::RESETHAND | sa::SIGINFO | sa::RESTORER;
    checks.eq(
        signal::default(sig::USR1).map(|old| (old.handler, old.flags)),
        Ok((0, left)),
        "then the default is back, and the flags stay",
    );
    const UNSUPPORTED: u64 = 0x400;
    let _ = handle(sig::USR1, count, sa::RESTART | UNSUPPORTED | 1 << 20, 0);
    let flags = signal::default(sig::USR1).map(|old| old.flags);
    checks.eq(flags, Ok(sa::RESTART | sa::SIGINFO | sa::RESTORER), "flags that there are not are not read back");
    for (flags, deepest, what) in
        [(sa::NODEFER, 3, "NODEFER: a handler runs within itself"), (0, 1, "otherwise one after the other")]
    {
        let _ = handle(sig::USR1, nested, flags, 0);
        LAST.store(0, SeqCst);
        me(sig::USR1);
        checks.eq((LAST.load(SeqCst), counted()), (deepest, 3), what);
    }
    let _ = signal::ignore(sig::USR1);
    me(sig::USR1);
    checks.eq(counted(), 0, "an ignored signal does nothing");

    let stack = map(8 * PAGE, RW);
    let record = [stack, 0, 8 * PAGE];
    checks.eq(raw(nr::SIGALTSTACK, [record.as_ptr() as usize, 0]), Ok(0), "another stack for handlers");
    let _ = handle(sig::USR1, count, sa::ONSTACK, 0);
    me(sig::USR1);
    checks.ok(counted() == 1 && (stack..stack + 8 * PAGE).contains(&STACK.load(SeqCst)), "ONSTACK uses it");
    let _ = handle(sig::USR1, count, 0, 0);
    me(sig::USR1);
    checks.ok(counted() == 1 && !(stack..stack + 8 * PAGE).contains(&STACK.load(SeqCst)), "the others do not");
    extern "C" fn leave(_: i32, _: *const Info, _: *mut u8) {
        process::exit_now(42)
    }
    checks.exits(
        || {
            let _ = handle(sig::SEGV, leave, sa::ONSTACK, 0);
            endless(1) as i32
        },
        42,
        "so a stack overflow can be handled",
    );
    alternate(checks);
    let off = [0usize, 2, 0];
    let _ = raw(nr::SIGALTSTACK, [off.as_ptr() as usize, 0]);
    let _ = user_tests::munmap(stack, 8 * PAGE);
}

/// Invalid alternate stacks, and one that is disabled while a handler runs on it.
fn alternate(checks: &mut Checks) {
    const AUTODISARM: usize = 1 << 31;
    let set = |record: [usize; 3]| raw(nr::SIGALTSTACK, [record.as_ptr() as usize, 0]);
    for (base, size) in [(usize::MAX - 4095, 0x1_0000), (usize::MAX, usize::MAX), (KERNEL, 8 * PAGE), (0, 8192)] {
        let killed = || {
            let _ = handle(sig::USR1, count, sa::ONSTACK, 0);
            let _ = set([base, 0, size]);
            me(sig::USR1);
        };
        checks.killed(killed, sig::SEGV, "a stack that is nowhere, or wraps: a fault");
    }
    extern "C" fn caught(_: i32, info: *const Info, _: *mut u8) {
        // SAFETY: the kernel hands the handler a record.
        process::exit_now(unsafe { (*info).code })
    }
    checks.exits(
        || {
            let _ = handle(sig::USR1, count, sa::ONSTACK, 0);
            let _ = handle(sig::SEGV, caught, 0, 0);
            let _ = set([usize::MAX - 4095, 0, 0x1_0000]);
            me(sig::USR1);
            1
        },
        0x80,
        "which a handler on the usual stack may catch",
    );
    checks.fails(set([0, 3, 8192]), Errno::EINVAL, "unknown flags");
    checks.fails(set([0, 0, 100]), Errno::ENOMEM, "too small a stack");
    extern "C" fn look(_: i32, _: *const Info, _: *mut u8) {
        let mut now = [0usize; 3];
        let _ = raw(nr::SIGALTSTACK, [0, now.as_mut_ptr() as usize]);
        LAST.store(now[1] as u32, SeqCst);
    }
    let stack = map(8 * PAGE, RW);
    let mut now = [0usize; 3];
    for (flags, inside) in [(0, 1), (AUTODISARM, 2)] {
        let _ = set([stack, flags, 8 * PAGE]);
        let _ = handle(sig::USR1, look, sa::ONSTACK, 0);
        me(sig::USR1);
        let _ = raw(nr::SIGALTSTACK, [0, now.as_mut_ptr() as usize]);
        checks.eq(LAST.load(SeqCst), inside, "a handler sees the stack that it runs on, or none with AUTODISARM");
        checks.eq(now, [stack, flags, 8 * PAGE], "and afterwards it is set as before");
    }
    let _ = user_tests::munmap(stack, 8 * PAGE);
}

#[inline(never)]
fn endless(depth: u64) -> u64 {
    let frame = core::hint::black_box([depth; 64]);
    let deeper = if core::hint::black_box(true) { endless(depth + 1) } else { 0 };
    deeper + core::hint::black_box(&frame)[3]
}

fn blocking(checks: &mut Checks) {
    let _ = handle(sig::USR1, count, 0, 0);
    let old = mask(How::Block, set(&[sig::USR1]));
    me(sig::USR1);
    me(sig::USR1);
    checks.eq((counted(), signal::pending()), (0, Ok(set(&[sig::USR1]))), "a blocked signal waits");
    let _ = mask(How::Set, old.unwrap_or(0));
    checks.eq(counted(), 1, "and comes once when it is unblocked");
    checks.eq(signal::pending(), Ok(0), "then none waits");
    let _ = mask(How::Block, set(&[sig::KILL, sig::STOP]));
    checks.eq(mask(How::Block, 0), Ok(old.unwrap_or(0)), "KILL and STOP cannot be blocked");
    let _ = mask(How::Block, set(&[sig::USR1]));
    me(sig::USR1);
    checks.eq((signal::suspend(0), counted()), (Errno::EINTR, 1), "sigsuspend lets it through");
    checks.eq(mask(How::Set, old.unwrap_or(0)), Ok(set(&[sig::USR1])), "and puts the mask back");
    let how = 9usize;
    checks.fails(
        raw(nr::RT_SIGPROCMASK, [how, &raw const how as usize, 0, 8]),
        Errno::EINVAL,
        "an unknown way to change",
    );
    checks.exits(
        || {
            let _ = mask(How::Block, set(&[sig::USR1]));
            me(sig::USR1);
            child(|| (signal::pending() != Ok(0)) as i32).map_or(9, Status::code)
        },
        0,
        "a child does not inherit what waits",
    );
}

/// Sends USR1 to this process once it sleeps.
fn later() -> i32 {
    let parent = process::getpid();
    start(|| {
        until_asleep(parent);
        kill(parent, sig::USR1).is_err() as i32
    })
    .unwrap_or(-1)
}

/// Longer than anybody sleeps here, in nanoseconds.
const LONG: u64 = 400_000_000_000;

fn interrupting(checks: &mut Checks) {
    let (read, write) = io::pipe(0).expect("a pipe");
    let mut byte = [0];
    let _ = handle(sig::USR1, count, 0, 0);
    let pid = later();
    checks.fails(io::read(read, &mut byte), Errno::EINTR, "a read is interrupted");
    let _ = process::waitpid(pid);
    let _ = handle(sig::USR1, count, sa::RESTART, 0);
    let parent = process::getpid();
    let pid = start(|| {
        until_asleep(parent);
        let _ = kill(parent, sig::USR1);
        time::sleep_ms(30);
        io::write(write, b"x").is_err() as i32
    })
    .unwrap_or(-1);
    counted();
    checks.eq((io::read(read, &mut byte), counted()), (Ok(1), 1), "with RESTART it goes on after the handler");
    let _ = process::waitpid(pid);
    let pid = later();
    let slept = time::nanosleep(LONG);
    checks.eq(slept.map_err(|(error, _)| error), Err(Errno::EINTR), "a sleep is interrupted all the same");
    let rest = slept.err().map_or(0, |(_, rest)| rest.sec * 1_000_000_000 + rest.nsec);
    checks.ok((1..LONG as i64).contains(&rest), "and tells what was left");
    let _ = process::waitpid(pid);
    let _ = signal::ignore(sig::USR1);
    let pid = later();
    checks.ok(time::nanosleep(60_000_000).is_ok(), "an ignored signal does not interrupt");
    let _ = process::waitpid(pid);
    let _ = (io::close(read), io::close(write));
}

fn children(checks: &mut Checks) {
    let _ = handle(sig::CHLD, count, 0, 0);
    counted();
    let _ = child(|| 0);
    checks.eq((counted(), LAST.load(SeqCst)), (1, sig::CHLD), "a child's end is a signal");
    let _ = signal::default(sig::CHLD);
}

fn defaults(checks: &mut Checks) {
    let harmless = [sig::CHLD, sig::URG, sig::WINCH, sig::CONT];
    checks.exits(
        || {
            harmless.iter().for_each(|signal| me(*signal));
            7
        },
        7,
        "CHLD, URG, WINCH and CONT do nothing",
    );
    let pid = start(|| {
        loop {
            time::sleep_ms(1000);
        }
    })
    .unwrap_or(-1);
    time::sleep_ms(10);
    let _ = kill(pid, sig::TERM);
    checks.eq(process::waitpid(pid), Ok(Status::Killed(sig::TERM)), "TERM ends a sleeper");
    let pid = start(|| {
        loop {
            core::hint::spin_loop()
        }
    })
    .unwrap_or(-1);
    time::sleep_ms(10);
    let _ = kill(pid, sig::INT);
    checks.eq(process::waitpid(pid), Ok(Status::Killed(sig::INT)), "INT ends a runner");
    let group = start(|| {
        let _ = process::setpgid(0, 0);
        let _ = start(|| {
            time::sleep_ms(5000);
            0
        });
        time::sleep_ms(5000);
        0
    })
    .unwrap_or(-1);
    checks.ok(until(|| kill(-group, sig::HUP) == Ok(())), "a signal to a group");
    checks.eq(process::waitpid(group), Ok(Status::Killed(sig::HUP)), "reaches its members");
    checks.killed(
        || {
            let _ = handle(sig::USR1, unmappable(), 0, 0);
            me(sig::USR1);
        },
        sig::SEGV,
        "a handler that is nowhere is a fault",
    );
}

/// A handler's address where nothing is mapped.
fn unmappable() -> signal::Handler {
    // SAFETY: never called by Rust code, only installed; the kernel jumps there in a child that ends by it.
    unsafe { core::mem::transmute(KERNEL) }
}

/// A handler that leaves other values in every register it may.
extern "C" fn scramble(_: i32, _: *const Info, _: *mut u8) {
    let (before, mut after) = ([u128::MAX; 32], [0; 32]);
    // SAFETY: both have room for 32 registers.
    unsafe { asm::hold_vectors(before.as_ptr(), after.as_mut_ptr(), 1) };
    asm::set_fpcr(0);
    COUNT.fetch_add(1, SeqCst);
}

fn registers(checks: &mut Checks) {
    let _ = handle(sig::USR1, scramble, 0, 0);
    counted();
    let parent = process::getpid();
    let pid = start(|| {
        time::sleep_ms(30);
        kill(parent, sig::USR1).is_err() as i32
    })
    .unwrap_or(-1);
    let before: [u128; 32] = core::array::from_fn(|i| 0x0123_4567_89ab_cdef_0011_2233_4455_6677 ^ (i as u128) << 60);
    let mut kept = true;
    while COUNT.load(SeqCst) == 0 {
        let mut after = [0; 32];
        // SAFETY: both have room for 32 registers.
        unsafe { asm::hold_vectors(before.as_ptr(), after.as_mut_ptr(), 100_000) };
        kept &= before == after;
    }
    checks.ok(kept, "a handler that uses vector registers is not noticed");
    let _ = process::waitpid(pid);
    checks.eq(asm::call_keeps_registers(nr::GETPID), 0, "a call changes no register but x0");
}
