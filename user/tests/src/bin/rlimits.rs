//! rlimits: RLIMIT_AS, RLIMIT_DATA, RLIMIT_STACK, RLIMIT_SIGPENDING, and the calls that set limits. The test of mlock
//! covers RLIMIT_MEMLOCK.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use quire_rt::Errno;
use quire_rt::abi::flags::{Clone, Map, Mremap, Prot, sig, wait};
use quire_rt::abi::layout::{Rlimit, rlimit};
use quire_rt::abi::nr;
use quire_rt::process::{Status, getpid, gettid, kill, waitpid};
use quire_rt::signal::{How, mask, queue, set, timed_wait};
use quire_rt::{arch, mem, process};
use user_tests::{Checks, KERNEL, PAGE, RW, map, mmap, mprotect, munmap, peek, poke, raw, start, until};

quire_rt::entry!(main);

const ANON: Map = Map::PRIVATE.union(Map::ANONYMOUS);
const MIB: usize = 1 << 20;

fn limit(which: usize, bytes: usize) {
    let _ = process::prlimit(which, Some(Rlimit { cur: bytes as u64, max: rlimit::INFINITY }));
}

/// Runs in a child with a limit. `run` answers whether all is as it should be.
fn under(checks: &mut Checks, which: usize, bytes: usize, what: &str, run: impl FnOnce() -> bool) {
    checks.exits(
        || {
            limit(which, bytes);
            run() as i32
        },
        1,
        what,
    );
}

fn refused<T>(got: Result<T, Errno>) -> bool {
    got.err() == Some(Errno::ENOMEM)
}

fn anon(len: usize, prot: Prot) -> Result<usize, Errno> {
    mmap(0, len, prot, ANON, -1, 0)
}

fn main() -> i32 {
    let mut checks = Checks::new();
    calls(&mut checks);
    address_space(&mut checks);
    data(&mut checks);
    stack(&mut checks);
    shared_space(&mut checks);
    pending_signals(&mut checks);
    checks.finish()
}

fn calls(checks: &mut Checks) {
    let old = process::prlimit(rlimit::AS, None);
    checks.ok(old.is_ok(), "a limit can be read");
    let mut words = [0u64; 2];
    let at = words.as_mut_ptr() as usize;
    checks.eq(raw(nr::GETRLIMIT, [rlimit::AS, at]).map(drop), Ok(()), "by getrlimit, too");
    checks.eq(old.map(|old| [old.cur, old.max]), Ok(words), "the same");
    checks.exits(
        || {
            let new = Rlimit { cur: 1 << 30, max: 1 << 31 };
            let set = process::prlimit(rlimit::AS, Some(new)).is_ok();
            let got = process::prlimit(rlimit::AS, None);
            (set && got.is_ok_and(|got| got.cur == new.cur && got.max == new.max)) as i32
        },
        1,
        "it can be set",
    );
    checks.exits(
        || {
            limit(rlimit::AS, 1 << 30);
            let inherited = || process::prlimit(rlimit::AS, None).is_ok_and(|got| got.cur == 1 << 30) as i32;
            user_tests::child(inherited).map_or(0, |status| status.code())
        },
        1,
        "and a child inherits it",
    );
    let wrong = Rlimit { cur: 2, max: 1 };
    checks.fails(process::prlimit(rlimit::AS, Some(wrong)), Errno::EINVAL, "a soft limit above the hard one");
    checks.fails(process::prlimit(rlimit::COUNT, None), Errno::EINVAL, "a nonexistent limit");
    checks.fails(raw(nr::GETRLIMIT, [rlimit::COUNT, at]), Errno::EINVAL, "for getrlimit");
    checks.fails(raw(nr::PRLIMIT64, [0, rlimit::AS, 0, KERNEL]), Errno::EFAULT, "an answer to the kernel's half");
    checks.fails(raw(nr::PRLIMIT64, [0, rlimit::AS, KERNEL, 0]), Errno::EFAULT, "a limit from there");
    checks.fails(raw(nr::SETRLIMIT, [rlimit::AS, 0x10]), Errno::EFAULT, "or from where nothing is");
    checks.fails(raw(nr::PRLIMIT64, [0x7fff_fff0, rlimit::AS, 0, 0]), Errno::ESRCH, "nobody's");
}

fn address_space(checks: &mut Checks) {
    const LIMIT: usize = 64 * MIB;
    let which = rlimit::AS;
    under(checks, which, LIMIT, "AS: mmap up to it, not beyond", || {
        anon(16 * MIB, RW).is_ok() && refused(anon(64 * MIB, RW)) && anon(16 * MIB, RW).is_ok()
    });
    under(checks, which, LIMIT, "memory without rights counts", || refused(anon(65 * MIB, Prot::empty())));
    under(checks, which, LIMIT, "NORESERVE counts", || refused(mmap(0, 65 * MIB, RW, ANON | Map::NORESERVE, -1, 0)));
    under(checks, which, LIMIT, "shared memory counts", || {
        refused(mmap(0, 65 * MIB, RW, Map::SHARED | Map::ANONYMOUS, -1, 0))
    });
    under(checks, which, LIMIT, "what is unmapped does not", || {
        (0..8).all(|_| anon(24 * MIB, RW).is_ok_and(|at| munmap(at, 24 * MIB).is_ok()))
    });
    under(checks, which, LIMIT, "what MAP_FIXED replaces does not", || {
        anon(40 * MIB, RW).is_ok_and(|at| mmap(at, 40 * MIB, RW, ANON | Map::FIXED, -1, 0) == Ok(at))
    });
    let at = map(MIB, RW);
    under(checks, which, LIMIT, "mremap grows up to it", || {
        // SAFETY: the test's own mapping.
        let grow = |to| unsafe { mem::mremap(at, MIB, to, Mremap::MAYMOVE, 0) };
        refused(grow(65 * MIB)) && grow(16 * MIB).is_ok()
    });
    let _ = munmap(at, MIB);
    under(checks, which, LIMIT, "and DONTUNMAP counts twice", || {
        let flags = Mremap::MAYMOVE | Mremap::DONTUNMAP;
        // SAFETY: the test's own mapping.
        anon(40 * MIB, RW).is_ok_and(|at| refused(unsafe { mem::mremap(at, 40 * MIB, 40 * MIB, flags, 0) }))
    });
    under(checks, which, LIMIT, "brk grows up to it", || {
        // SAFETY: the end only moves above the heap's memory.
        let brk = |end| unsafe { mem::brk(end) };
        let start = brk(0);
        brk(start + 65 * MIB) == start && brk(start + 4 * MIB) == start + 4 * MIB
    });
    under(checks, which, MIB, "what is there already stays", || {
        poke(map_before(), 1);
        refused(anon(MIB, RW))
    });
    let stack = mmap(0, 16 * PAGE, RW, ANON | Map::GROWSDOWN, -1, 0).unwrap_or(0);
    checks.killed(
        || {
            limit(rlimit::AS, PAGE);
            poke(stack - 64 * PAGE, 1);
        },
        sig::SEGV,
        "a stack that cannot grow for it ends the program",
    );
    let _ = munmap(stack, 16 * PAGE);
}

/// An address in memory that is there before any limit.
fn map_before() -> usize {
    static mut PLACE: u8 = 0;
    &raw mut PLACE as usize
}

fn data(checks: &mut Checks) {
    const LIMIT: usize = 16 * MIB;
    let which = rlimit::DATA;
    under(checks, which, LIMIT, "DATA: private writable memory counts", || {
        anon(4 * MIB, RW).is_ok() && refused(anon(17 * MIB, RW))
    });
    under(checks, which, LIMIT, "read-only memory does not", || anon(64 * MIB, Prot::READ).is_ok());
    under(checks, which, LIMIT, "shared memory does not", || {
        mmap(0, 64 * MIB, RW, Map::SHARED | Map::ANONYMOUS, -1, 0).is_ok()
    });
    under(checks, which, LIMIT, "until mprotect makes it writable", || {
        anon(64 * MIB, Prot::READ).is_ok_and(|at| {
            refused(mprotect(at, 32 * MIB, RW)) && mprotect(at, 4 * MIB, RW).is_ok() && peek(at + 5 * MIB) == 0
        })
    });
    under(checks, which, LIMIT, "and no more once it is not", || {
        anon(8 * MIB, RW).is_ok_and(|at| mprotect(at, 8 * MIB, Prot::READ).is_ok()) && anon(12 * MIB, RW).is_ok()
    });
    under(checks, which, LIMIT, "brk counts", || {
        // SAFETY: the end only moves above the heap's memory.
        let brk = |end| unsafe { mem::brk(end) };
        let start = brk(0);
        brk(start + 17 * MIB) == start && brk(start + MIB) == start + MIB
    });
}

fn stack(checks: &mut Checks) {
    /// Touches the pages below an address, one by one downwards.
    fn touch_down(from: usize, pages: usize) -> u8 {
        (1..=pages).map(|page| peek(from - page * PAGE)).fold(0, |a, b| a | b)
    }
    let stack = map(1024 * PAGE, RW);
    let top = stack + 1024 * PAGE;
    let _ = munmap(stack, 1024 * PAGE);
    let at = mmap(top - PAGE, PAGE, RW, ANON | Map::GROWSDOWN, -1, 0).unwrap_or(0);
    checks.eq(at, top - PAGE, "a page that grows down");
    under(checks, rlimit::STACK, 64 * PAGE, "STACK: it grows up to it", || touch_down(at, 63) == 0);
    checks.killed(
        || {
            limit(rlimit::STACK, 64 * PAGE);
            touch_down(at, 64)
        },
        sig::SEGV,
        "and no page more",
    );
    let _ = munmap(at, PAGE);
}

/// What the process that shares this one's space has found; 0 while it runs.
static FOUND: AtomicU32 = AtomicU32::new(0);
static MAY_END: AtomicU32 = AtomicU32::new(0);

/// A process that shares this one's space, and has a limit of its own.
fn beside() -> i32 {
    #[repr(C, align(16))]
    struct Stack([u8; 8 * PAGE]);
    static mut STACK: Stack = Stack([0; 8 * PAGE]);
    extern "C" fn enter(_: usize) -> ! {
        limit(rlimit::AS, 32 * MIB);
        FOUND.store(if refused(anon(64 * MIB, RW)) { 1 } else { 2 }, SeqCst);
        until(|| MAY_END.load(SeqCst) == 1);
        process::exit_now(0)
    }
    FOUND.store(0, SeqCst);
    MAY_END.store(0, SeqCst);
    let flags = Clone::VM.bits() as usize | sig::CHLD as usize;
    let nowhere = core::ptr::null_mut();
    // SAFETY: one process at a time uses the stack, which is 16-byte aligned: callers wait for its end. `enter` does
    // not return, and uses nothing that belongs to this thread; these flags store no number anywhere.
    let pid = unsafe { arch::clone_thread(flags, (&raw mut STACK).add(1) as usize, nowhere, 0, nowhere, enter, 0) };
    until(|| FOUND.load(SeqCst) != 0);
    pid as i32
}

/// Limits and privileges are those of the process that calls, not of the space.
fn shared_space(checks: &mut Checks) {
    let child = beside();
    checks.eq(FOUND.load(SeqCst), 1, "a process that shares a space is held to its own limit");
    let large = anon(64 * MIB, RW);
    checks.ok(large.is_ok_and(|at| munmap(at, 64 * MIB).is_ok()), "and the other one to its own");
    MAY_END.store(1, SeqCst);
    checks.ok(process::waitpid(child).is_ok(), "it ends");
    let large = anon(64 * MIB, RW);
    checks.ok(large.is_ok_and(|at| munmap(at, 64 * MIB).is_ok()), "which changes nothing");
    let as_another = || {
        let child = beside();
        let at = map(MIB, RW);
        limit(rlimit::MEMLOCK, 16 * PAGE);
        let as_root = raw(nr::MLOCK, [at, MIB]).is_ok() && raw(nr::MUNLOCK, [at, MIB]).is_ok();
        let is_other = raw(nr::SETUID, [1000]).is_ok();
        let is_refused = raw(nr::MLOCK, [at, MIB]) == Err(Errno::ENOMEM);
        MAY_END.store(1, SeqCst);
        let _ = process::waitpid(child);
        i32::from(as_root && is_other && is_refused)
    };
    checks.exits(as_another, 1, "who is root no more may lock no more than its limit");
}

/// A user's processes have as many records of pending signals together as each one's limit says. What a signal without
/// a record loses is its sender.
fn pending_signals(checks: &mut Checks) {
    const RT: u32 = 40;
    let accepted = |pid: i32, most: usize| (0..most).take_while(|i| queue(pid, RT, *i as u64).is_ok()).count();
    let take = |signal: u32| timed_wait(set(&[signal]), Some(0)).map(|info| info.fields[0] as u32 as i32);
    let mut user = 5_000;
    let mut with = |limit: usize, what: &str, run: &dyn Fn() -> bool| {
        user += 1;
        under(checks, rlimit::SIGPENDING, limit, what, || {
            // A user of its own for each part: a process of the same user that has just ended may still count.
            let alone = raw(nr::SETUID, [user]).is_ok() && mask(How::Block, !0).is_ok();
            alone && run()
        });
    };
    with(5, "signals queue up to the limit", &|| accepted(getpid(), 10) == 5);
    const MANY: usize = 4000;
    with(MANY, "the limit alone says how many, and each signal's come in order", &|| {
        let other = RT + 1;
        let value = |signal: u32| timed_wait(set(&[signal]), Some(0)).map(|info| info.fields[1] as usize);
        // Two of this one for each of the other.
        let sent = (0..MANY).all(|i| queue(getpid(), if i % 3 == 2 { other } else { RT }, i as u64).is_ok());
        let is_full = queue(getpid(), RT, 0) == Err(Errno::EAGAIN);
        let others = (0..MANY).filter(|i| i % 3 == 2).all(|i| value(other) == Ok(i));
        let all = (0..MANY).filter(|i| i % 3 != 2).all(|i| value(RT) == Ok(i));
        sent && is_full && others && all && [value(RT), value(other)] == [Err(Errno::EAGAIN); 2]
    });
    with(5, "one that is taken makes room", &|| {
        accepted(getpid(), 10) == 5 && take(RT).is_ok() && accepted(getpid(), 10) == 1
    });
    with(5, "those that are dropped make room", &|| {
        let all = accepted(getpid(), 10);
        let _ = (quire_rt::signal::ignore(RT), quire_rt::signal::default(RT));
        all == 5 && accepted(getpid(), 10) == 5
    });
    with(5, "those of a thread count as well", &|| {
        let to_thread = || raw(nr::TGKILL, [getpid() as usize, gettid() as usize, RT as usize]);
        accepted(getpid(), 3) == 3
            && [to_thread(), to_thread()] == [Ok(0), Ok(0)]
            && to_thread() == Err(Errno::EAGAIN)
            && queue(getpid(), RT, 0) == Err(Errno::EAGAIN)
    });
    with(5, "without a value one comes all the same, but nobody knows from whom", &|| {
        accepted(getpid(), 5) == 5 && kill(getpid(), RT + 1).is_ok() && take(RT + 1) == Ok(0)
    });
    with(0, "signals that do not queue come, and from whom", &|| {
        let sent = kill(getpid(), sig::USR1).is_ok() && queue(getpid(), sig::USR2, 7).is_ok();
        sent && accepted(getpid(), 1) == 0 && take(sig::USR1) == Ok(getpid()) && take(sig::USR2) == Ok(0)
    });
    with(5, "all processes of a user count", &|| {
        let child = |run: &dyn Fn() -> bool| start(|| run() as i32).and_then(waitpid) == Ok(Status::Exited(1));
        let me = getpid();
        let by_child = || accepted(getpid(), 10) == 2 && queue(me, RT, 0) == Err(Errno::EAGAIN);
        // (The end of a child is a signal to be recorded; it is taken.) What was sent to the child counts no more when
        // the wait for it returns.
        let again = || child(&by_child) && take(sig::CHLD).is_ok();
        accepted(me, 3) == 3 && (0..50).all(|_| again()) && accepted(me, 10) == 2
    });
    checks.exits(
        || {
            let _ = mask(How::Block, !0);
            let other = start(|| {
                limit(rlimit::SIGPENDING, 5);
                let _ = raw(nr::SETUID, [4322]);
                let _ = kill(getpid(), sig::STOP);
                (0..5).all(|_| take(RT).is_ok()) as i32
            });
            let other = other.unwrap_or(-1);
            let stopped = process::wait4(other, wait::WUNTRACED).is_ok();
            let sent = accepted(other, 10);
            let _ = kill(other, sig::CONT);
            (stopped && sent == 5 && waitpid(other) == Ok(Status::Exited(1))) as i32
        },
        1,
        "and it is the receiver's user and limit that count",
    );
}
