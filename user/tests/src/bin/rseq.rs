//! rseq: restartable sequences, and barriers of other threads (membarrier).

#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence};

use quire_rt::abi::flags::{Clone, membarrier as cmd, rseq, sig};
use quire_rt::abi::layout::{Rseq, RseqSection};
use quire_rt::abi::nr;
use quire_rt::process::{self, Status};
use quire_rt::{Errno, signal, thread, time};
use user_tests::{Checks, KERNEL, PAGE, RW, map, munmap, raw, start};

quire_rt::entry!(main);

const SIGNATURE: u32 = 0xd428_bc00;
const LEN: usize = rseq::SIZE as usize;

// rseq_add(record, counters, section, spins): in the section adds 1 to the counter of this CPU, after `spins` rounds of
// a loop; 0 if that was done, 1 if it was aborted.
global_asm!(
    "
    .global rseq_add, rseq_start, rseq_end, rseq_abort
rseq_add:
    ldr     w4, [x0]
    str     x2, [x0, #8]
rseq_start:
    ldr     w5, [x0, #4]
    cmp     w5, w4
    b.ne    rseq_abort
    ldr     x6, [x1, x4, lsl #3]
    mov     x7, x3
1:  subs    x7, x7, #1
    b.hi    1b
    add     x6, x6, #1
    str     x6, [x1, x4, lsl #3]
rseq_end:
    mov     x0, #0
    ret
    .inst   0xd428bc00
rseq_abort:
    mov     x0, #1
    ret
"
);

unsafe extern "C" {
    fn rseq_add(record: *mut Rseq, counters: *const AtomicU64, section: *const RseqSection, spins: u64) -> u64;
    static rseq_start: u8;
    static rseq_end: u8;
    static rseq_abort: u8;
}

fn section() -> RseqSection {
    let [start, end, abort] = [&raw const rseq_start, &raw const rseq_end, &raw const rseq_abort].map(|at| at as u64);
    RseqSection { version: 0, flags: 0, start, len: end - start, abort }
}

fn main() -> i32 {
    let mut checks = Checks::new();
    registering(&mut checks);
    children(&mut checks);
    aborts(&mut checks);
    wrong(&mut checks);
    counters(&mut checks);
    barriers(&mut checks);
    crossing(&mut checks);
    checks.finish()
}

/// A record of the calling thread, in memory of its own.
fn record() -> *mut Rseq {
    map(PAGE, RW) as *mut Rseq
}

fn call(at: *mut Rseq, len: usize, flags: u32, signature: u32) -> Result<usize, Errno> {
    raw(nr::RSEQ, [at as usize, len, flags as usize, signature as usize])
}

fn register(at: *mut Rseq) -> Result<usize, Errno> {
    call(at, LEN, 0, SIGNATURE)
}

fn read(at: *mut Rseq) -> Rseq {
    // SAFETY: the test's own page, which the kernel writes to as well.
    unsafe { at.read_volatile() }
}

fn cpu() -> u32 {
    cpu_and_node().0
}

fn cpu_and_node() -> (u32, u32) {
    let (mut cpu, mut node) = (0u32, 0u32);
    let _ = raw(nr::GETCPU, [&raw mut cpu as usize, &raw mut node as usize]);
    // SAFETY: the kernel has written them.
    unsafe { ((&raw const cpu).read_volatile(), (&raw const node).read_volatile()) }
}

fn pin(cpus: u64) -> bool {
    raw(nr::SCHED_SETAFFINITY, [0, 8, &raw const cpus as usize]).is_ok()
}

fn cpus() -> Vec<u32> {
    let mut mask = 0u64;
    let _ = raw(nr::SCHED_GETAFFINITY, [0, 8, &raw mut mask as usize]);
    // SAFETY: the kernel has written it.
    let mask = unsafe { (&raw const mask).read_volatile() };
    (0..64).filter(|cpu| mask >> cpu & 1 != 0).collect()
}

fn registering(checks: &mut Checks) {
    let at = record();
    checks.fails(call(at, LEN - 1, 0, SIGNATURE), Errno::EINVAL, "a record that is too short");
    checks.fails(register((at as usize + 8) as *mut Rseq), Errno::EINVAL, "or not aligned");
    checks.fails(register(KERNEL as *mut Rseq), Errno::EFAULT, "or not the program's");
    checks.fails(call(at, LEN, 2, SIGNATURE), Errno::EINVAL, "unknown flags");
    checks.fails(call(at, LEN, 1, SIGNATURE), Errno::EINVAL, "nothing to take back");
    checks.eq(register(at), Ok(0), "a record");
    checks.fails(register(at), Errno::EBUSY, "once");
    checks.fails(call(at, LEN, 0, 1), Errno::EPERM, "by the same signature");
    checks.fails(call(at, 64, 0, SIGNATURE), Errno::EINVAL, "and length");
    checks.fails(register(record()), Errno::EINVAL, "not another");
    let all = cpus();
    let mut right = 0;
    for cpu in &all {
        pin(1 << cpu);
        let found = read(at);
        right += (found.cpu == *cpu && found.cpu_start == *cpu && cpu_and_node() == (*cpu, found.node)) as usize;
    }
    checks.eq(right, all.len(), "it says on which CPU the thread is, and on which node");
    pin(all.iter().fold(0, |mask, cpu| mask | 1 << cpu));
    checks.ok(read(at).mm_cid < 64, "and a number among its process's threads");
    checks.fails(call(at, 64, 1, SIGNATURE), Errno::EINVAL, "another length is not taken back");
    checks.fails(call(at, LEN, 1, 1), Errno::EPERM, "nor by another signature");
    checks.fails(call(at, LEN, 3, SIGNATURE), Errno::EINVAL, "nor by unknown flags");
    checks.eq(call(at, LEN, 1, SIGNATURE), Ok(0), "it is taken back");
    checks.eq((read(at).cpu, read(at).cpu_start), (u32::MAX, 0), "and says that it knows no CPU");
    checks.eq(register(at), Ok(0), "until the next time");
    let _ = call(at, LEN, 1, SIGNATURE);
    let _ = munmap(at as usize, PAGE);
}

fn children(checks: &mut Checks) {
    let at = record();
    let _ = register(at);
    checks.exits(|| (register(at) != Err(Errno::EBUSY) || read(at).cpu != cpu()) as i32, 0, "a child has its parent's");
    let other = thread::spawn(|| {
        let own = record();
        let fine = register(own) == Ok(0) && read(own).cpu < 64 && call(own, LEN, 1, SIGNATURE) == Ok(0);
        if !fine {
            process::exit_now(1);
        }
    });
    other.expect("a thread").join();
    checks.ok(true, "a thread has none, and registers its own");
    let shared = (Clone::VM | Clone::VFORK).bits() as usize | sig::CHLD as usize;
    let child = match raw(nr::CLONE, [shared, 0, 0, 0, 0]) {
        Ok(0) => process::exit_now((call(at, LEN, 1, SIGNATURE) != Err(Errno::EINVAL)) as i32),
        made => made.map(|pid| pid as i32),
    };
    checks.eq(child.and_then(process::waitpid), Ok(Status::Exited(0)), "a child in its parent's memory has none");
    let _ = call(at, LEN, 1, SIGNATURE);
    let _ = munmap(at as usize, PAGE);
}

static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn handler(_: i32, _: *const signal::Info, _: *mut u8) {
    HANDLED.fetch_add(1, Ordering::SeqCst);
}

/// Rounds of a loop that take longer than any test.
const FOR_EVER: u64 = 1 << 50;

fn aborts(checks: &mut Checks) {
    let (at, section) = (record(), section());
    let counts = [const { AtomicU64::new(0) }; 64];
    // SAFETY: the record, the section and the counters live as long as the call.
    let add = |spins: u64| unsafe { rseq_add(at, counts.as_ptr(), &section, spins) };
    let _ = register(at);
    // The end of a slice in the section aborts it as well.
    let done = (0..100).find(|_| add(1) == 0);
    checks.ok(done.is_some(), "a section");
    checks.eq(counts[..].iter().map(|n| n.load(Ordering::SeqCst)).sum::<u64>(), 1, "is done once");
    let _ = signal::handle(sig::ALRM, handler, 0, 0);
    // Again and again: the first one may come before the section, and a preemption may abort it too.
    let _ = time::set_alarm(20_000_000, 20_000_000);
    let mut is_aborted = true;
    while HANDLED.load(Ordering::SeqCst) == 0 {
        is_aborted &= add(FOR_EVER) == 1;
    }
    let _ = time::set_alarm(0, 0);
    checks.ok(is_aborted, "a handler aborts one");
    checks.eq(read(at).section, 0, "whose name is taken back");
    let mine = cpus()[0];
    let all = cpus().iter().fold(0, |mask, cpu| mask | 1 << cpu);
    pin(1 << mine);
    let other = start(|| {
        time::sleep_ms(20);
        (0..20).for_each(|_| {
            time::sleep_ms(2);
            (0..100_000).for_each(|i| _ = core::hint::black_box(i));
        });
        0
    });
    checks.eq(add(FOR_EVER), 1, "a preemption aborts one");
    let _ = other.and_then(process::waitpid);
    checks.eq(counts[..].iter().map(|n| n.load(Ordering::SeqCst)).sum::<u64>(), 1, "which then has done nothing");
    pin(all);
    let _ = (signal::default(sig::ALRM), call(at, LEN, 1, SIGNATURE));
    let _ = munmap(at as usize, PAGE);
}

/// Records that say what they may not.
fn wrong(checks: &mut Checks) {
    let good = section();
    let sections = [
        (RseqSection { version: 1, ..good }, "an unknown version"),
        (RseqSection { flags: 1, ..good }, "flags"),
        (RseqSection { abort: good.start, ..good }, "an abort within the section"),
        (RseqSection { abort: good.abort + 4, ..good }, "an abort without the signature"),
        (RseqSection { len: u64::MAX, ..good }, "a length that wraps"),
        (RseqSection { abort: KERNEL as u64, ..good }, "an abort that is not the program's"),
    ];
    let run = |section: *const RseqSection| {
        let at = record();
        let _ = (register(at), signal::handle(sig::ALRM, handler, 0, 0), time::set_alarm(5_000_000, 5_000_000));
        let counts = [const { AtomicU64::new(0) }; 64];
        // SAFETY: as above; a section that is nowhere is for the kernel to refuse.
        unsafe { rseq_add(at, counts.as_ptr(), section, FOR_EVER) };
    };
    for (section, what) in &sections {
        checks.killed(|| run(section), sig::SEGV, what);
    }
    checks.killed(|| run(16 as *const RseqSection), sig::SEGV, "a section that is nowhere");
    let gone = || {
        let at = record();
        let _ = (register(at), munmap(at as usize, PAGE));
        // Whatever moves the thread, or interrupts it, writes to the record.
        let _ = (signal::handle(sig::ALRM, handler, 0, 0), time::set_alarm(5_000_000, 5_000_000));
        (0..FOR_EVER).for_each(|i| _ = core::hint::black_box(i));
    };
    checks.killed(gone, sig::SEGV, "a record that is gone");
}

/// Counts by CPU, without atomic instructions.
fn counters(checks: &mut Checks) {
    const THREADS: usize = 6;
    const ROUNDS: u64 = 5000;
    let counts: &'static [AtomicU64; 64] = Box::leak(Box::new([const { AtomicU64::new(0) }; 64]));
    let threads = [(); THREADS].map(|()| {
        thread::spawn(move || {
            let (at, section) = (record(), section());
            let _ = register(at);
            for i in 0..ROUNDS {
                // SAFETY: as above.
                while unsafe { rseq_add(at, counts.as_ptr(), &section, i % 64 * 8) } != 0 {}
                if i % 1000 == 0 {
                    let _ = raw(nr::SCHED_YIELD, []);
                }
            }
            let _ = call(at, LEN, 1, SIGNATURE);
        })
    });
    threads.into_iter().flatten().for_each(thread::Thread::join);
    let sum: u64 = counts.iter().map(|count| count.load(Ordering::SeqCst)).sum();
    checks.eq(sum, THREADS as u64 * ROUNDS, "no increment is lost");
}

fn barrier(command: u32, flags: u32, cpu: usize) -> Result<usize, Errno> {
    raw(nr::MEMBARRIER, [command as usize, flags as usize, cpu])
}

fn barriers(checks: &mut Checks) {
    checks.eq(barrier(cmd::QUERY, 0, 0), Ok(0x3ff), "all commands are there");
    checks.fails(barrier(cmd::QUERY, 1, 0), Errno::EINVAL, "without flags");
    checks.fails(barrier(1 << 10, 0, 0), Errno::EINVAL, "and no others");
    checks.fails(barrier(3, 0, 0), Errno::EINVAL, "one at a time");
    checks.fails(barrier(cmd::PRIVATE_EXPEDITED, 1, 0), Errno::EINVAL, "one has a flag");
    checks.fails(barrier(cmd::PRIVATE_EXPEDITED_RSEQ, 2, 0), Errno::EINVAL, "which is this");
    checks.eq(barrier(cmd::GLOBAL, 0, 0), Ok(0), "a barrier of all");
    checks.eq(barrier(cmd::GLOBAL_EXPEDITED, 0, 0), Ok(0), "or fast");
    let private = [cmd::PRIVATE_EXPEDITED, cmd::PRIVATE_EXPEDITED_SYNC_CORE, cmd::PRIVATE_EXPEDITED_RSEQ];
    for command in private {
        checks.fails(barrier(command, 0, 0), Errno::EPERM, "one's own is registered first");
    }
    let registrations = || barrier(cmd::GET_REGISTRATIONS, 0, 0);
    checks.eq(registrations(), Ok(0), "nothing is");
    let _ = barrier(cmd::REGISTER_PRIVATE_EXPEDITED_RSEQ, 0, 0);
    let both = cmd::REGISTER_PRIVATE_EXPEDITED_RSEQ | cmd::REGISTER_PRIVATE_EXPEDITED;
    checks.eq(registrations(), Ok(both as usize), "each private one is told as the plain one, too");
    checks.fails(barrier(cmd::PRIVATE_EXPEDITED, 0, 0), Errno::EPERM, "but is not");
    let all =
        [cmd::REGISTER_PRIVATE_EXPEDITED, cmd::REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, cmd::REGISTER_GLOBAL_EXPEDITED];
    checks.ok(all.into_iter().all(|command| barrier(command, 0, 0) == Ok(0)), "all are registered");
    checks.ok(private.into_iter().all(|command| barrier(command, 0, 0) == Ok(0)), "and executed");
    checks.eq(barrier(cmd::PRIVATE_EXPEDITED_RSEQ, cmd::FLAG_CPU, 0), Ok(0), "also for one CPU");
    checks.eq(barrier(cmd::PRIVATE_EXPEDITED_RSEQ, cmd::FLAG_CPU, 5000), Ok(0), "even for none");
    let wanted = registrations();
    checks.exits(|| (registrations() != wanted) as i32, 0, "a child has its parent's registrations");

    // The barrier aborts a section on another CPU.
    let all = cpus();
    if all.len() < 2 {
        checks.skip("a barrier aborts sections", "one CPU");
        return;
    }
    static STATE: AtomicU32 = AtomicU32::new(0);
    let (mine, other) = (all[0], all[1]);
    let runner = thread::spawn(move || {
        pin(1 << other);
        let (at, section) = (record(), section());
        let counts = [const { AtomicU64::new(0) }; 64];
        let _ = register(at);
        STATE.store(1, Ordering::SeqCst);
        // SAFETY: as above.
        unsafe { rseq_add(at, counts.as_ptr(), &section, FOR_EVER) };
        let _ = call(at, LEN, 1, SIGNATURE);
        STATE.store(2, Ordering::SeqCst);
    });
    pin(1 << mine);
    while STATE.load(Ordering::SeqCst) < 2 {
        let _ = barrier(cmd::PRIVATE_EXPEDITED_RSEQ, cmd::FLAG_CPU, other as usize);
        time::sleep(100_000);
    }
    runner.expect("a thread").join();
    pin(all.iter().fold(0, |mask, cpu| mask | 1 << cpu));
    checks.ok(true, "a barrier aborts a section on another CPU");
}

/// Each of two threads stores its word and then reads the other's, one with a compiler's barrier, the other with
/// membarrier: not both find nothing.
fn crossing(checks: &mut Checks) {
    const ROUNDS: u64 = 200;
    static WORDS: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
    let [first, second, round, seen] = &WORDS;
    let other = thread::spawn(move || {
        for i in 1..=ROUNDS {
            while round.load(Ordering::Acquire) < i {
                core::hint::spin_loop();
            }
            first.store(i, Ordering::Relaxed);
            compiler_fence(Ordering::SeqCst);
            let found = second.load(Ordering::Relaxed);
            seen.store(2 * i + u64::from(found == i), Ordering::Release);
        }
    });
    let mut both_missed = 0;
    for i in 1..=ROUNDS {
        round.store(i, Ordering::Release);
        second.store(i, Ordering::Relaxed);
        let _ = barrier(cmd::PRIVATE_EXPEDITED, 0, 0);
        let found = first.load(Ordering::Relaxed) == i;
        while seen.load(Ordering::Acquire) < 2 * i {
            core::hint::spin_loop();
        }
        both_missed += u64::from(!found && seen.load(Ordering::Acquire) == 2 * i);
    }
    other.expect("a thread").join();
    checks.eq(both_missed, 0, "a barrier of all threads stands for one in each");
}
