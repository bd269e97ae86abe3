//! robust: futexes that a thread held when it ended.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use quire_rt::abi::flags::futex::{OWNER_DIED, WAITERS};
use quire_rt::abi::flags::sig;
use quire_rt::abi::layout::RobustListHead;
use quire_rt::abi::nr;
use quire_rt::start::args;
use quire_rt::sync::futex_wait_shared;
use quire_rt::{Errno, process, time};
use user_tests::{Checks, KERNEL, child, raw, shared_page, start};

quire_rt::entry!(main);

const LOCKS: usize = 100;
const HEAD: usize = size_of::<RobustListHead>();

/// A lock: the list's pointer, then the word.
#[repr(C)]
struct Lock {
    next: AtomicU64,
    word: AtomicU32,
    pad: AtomicU32,
}

/// The contents of the page that all share.
#[repr(C)]
struct Shared {
    head: [AtomicU64; 3],
    locks: [Lock; LOCKS],
}

impl Shared {
    fn at(&self, i: usize) -> u64 {
        &raw const self.locks[i] as u64
    }

    /// Links `count` locks and sets all words to `value`.
    fn link(&self, count: usize, value: u32) {
        let head = self.head.as_ptr() as u64;
        for (i, lock) in self.locks.iter().enumerate() {
            lock.word.store(value, SeqCst);
            lock.next.store(if i + 1 < count { self.at(i + 1) } else { head }, SeqCst);
        }
        self.head[0].store(if count == 0 { head } else { self.at(0) }, SeqCst);
        self.head[1].store(8, SeqCst);
        self.head[2].store(0, SeqCst);
    }

    fn register(&self) {
        let _ = raw(nr::SET_ROBUST_LIST, [self.head.as_ptr() as usize, HEAD]);
    }

    /// Registers the list and has the caller own all words.
    fn own(&self, count: usize, flags: u32) {
        self.link(count, process::gettid() as u32 | flags);
        self.register();
    }

    fn words_are(&self, which: core::ops::Range<usize>, value: u32) -> bool {
        self.locks[which].iter().all(|lock| lock.word.load(SeqCst) == value)
    }
}

fn main() -> i32 {
    if args().count() > 1 {
        return 0;
    }
    let mut checks = Checks::new();
    // SAFETY: a fresh page of zeros, large enough, which stays mapped; all fields are atomic.
    let shared = unsafe { &*(shared_page() as *const Shared) };
    calls(&mut checks, shared);
    ends(&mut checks, shared);
    corrupt(&mut checks, shared);
    checks.finish()
}

fn calls(checks: &mut Checks, shared: &Shared) {
    checks.fails(raw(nr::SET_ROBUST_LIST, [0, HEAD - 1]), Errno::EINVAL, "a head of another length");
    let (mut head, mut len) = (0usize, 0usize);
    let get = |tid: i32, head: &mut usize, len: &mut usize| {
        raw(nr::GET_ROBUST_LIST, [tid as usize, head as *mut _ as usize, len as *mut _ as usize])
    };
    let at = shared.head.as_ptr() as usize;
    shared.link(0, 0);
    checks.eq(raw(nr::SET_ROBUST_LIST, [at, HEAD]), Ok(0), "a list is set");
    checks.eq((get(0, &mut head, &mut len), head, len), (Ok(0), at, HEAD), "and asked for");
    checks.eq(get(process::gettid(), &mut head, &mut len), Ok(0), "by number too");
    checks.fails(get(999_999, &mut head, &mut len), Errno::ESRCH, "a nonexistent thread");
    checks.fails(raw(nr::GET_ROBUST_LIST, [0, KERNEL, KERNEL]), Errno::EFAULT, "an answer to nowhere");
    checks.exits(
        || {
            let (mut head, mut len) = (1, 0);
            let _ = get(0, &mut head, &mut len);
            head as i32
        },
        0,
        "a child has none",
    );
    let _ = raw(nr::SET_ROBUST_LIST, [0, HEAD]);
}

fn ends(checks: &mut Checks, shared: &Shared) {
    checks.exits(
        || {
            shared.own(LOCKS, 0);
            shared.locks[3].word.store(1, SeqCst);
            0
        },
        0,
        "a thread with a hundred locks ends",
    );
    checks.ok(shared.words_are(0..3, OWNER_DIED) && shared.words_are(4..LOCKS, OWNER_DIED), "all are marked");
    checks.eq(shared.locks[3].word.load(SeqCst), 1, "but the one that another thread owns");
    shared.link(0, 0);
    let owner = start(|| {
        shared.own(1, WAITERS);
        time::sleep_ms(80);
        0
    });
    let word = &shared.locks[0].word;
    while word.load(SeqCst) == 0 {
        time::sleep_ms(1);
    }
    // (It may have ended by now.)
    let owned = owner.unwrap_or(0) as u32 | WAITERS;
    let slept = futex_wait_shared(word, owned, Some(5_000_000_000));
    checks.ok(slept == Ok(()) || slept == Err(Errno::EAGAIN), "a waiter on one of them is woken");
    checks.eq(word.load(SeqCst), WAITERS | OWNER_DIED, "and finds it marked");
    let _ = owner.and_then(process::waitpid);
    checks.killed(
        || {
            shared.own(2, 0);
            let _ = process::kill(process::getpid(), sig::KILL);
        },
        sig::KILL,
        "a thread that is killed",
    );
    checks.ok(shared.words_are(0..2, OWNER_DIED), "leaves them marked too");
    let path = args().next().unwrap_or(c"");
    let status = child(|| {
        shared.own(2, 0);
        process::execve(path, [path, c"again"], []);
        1
    });
    checks.eq(status, Ok(process::Status::Exited(0)), "exec ends a program");
    checks.ok(shared.words_are(0..2, OWNER_DIED), "and what it held");
    let pending = |value: u32| {
        let _ = child(|| {
            shared.link(0, if value == 0 { 0 } else { process::gettid() as u32 });
            shared.head[2].store(shared.at(5), SeqCst);
            shared.register();
            0
        });
        shared.locks[5].word.load(SeqCst)
    };
    checks.eq(pending(1), OWNER_DIED, "a lock that was just being taken");
    checks.eq(pending(0), 0, "or just let go of");
}

fn corrupt(checks: &mut Checks, shared: &Shared) {
    let ends = |prepare: &dyn Fn()| {
        child(|| {
            shared.own(3, 0);
            prepare();
            9
        })
    };
    let nine = Ok(process::Status::Exited(9));
    let circle = || shared.locks[2].next.store(shared.at(0), SeqCst);
    checks.eq(ends(&circle), nine, "a list that goes in a circle");
    checks.ok(shared.words_are(0..3, OWNER_DIED), "is walked, and left");
    for next in [1, 8, KERNEL as u64, u64::MAX, 1 << 47, 0xffff_ffff_ffff_fff8] {
        checks.eq(ends(&|| shared.locks[1].next.store(next, SeqCst)), nine, "an entry that is nowhere");
        checks.ok(shared.words_are(0..2, OWNER_DIED), "ends the walk after what is before it");
    }
    for offset in [1, u64::MAX, 1 << 63, (1 << 63) - 8, 2] {
        checks.eq(ends(&|| shared.head[1].store(offset, SeqCst)), nine, "an invalid offset");
    }
    for head in [1, 8, KERNEL, usize::MAX, usize::MAX - 7] {
        checks.eq(ends(&|| assert_eq!(raw(nr::SET_ROBUST_LIST, [head, HEAD]), Ok(0))), nine, "a head that is nowhere");
    }
}
