//! futexargs: arguments that futex refuses; a refused call changes nothing.

#![no_std]
#![no_main]

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use quire_rt::abi::flags::{Prot, futex};
use quire_rt::abi::layout::Timespec;
use quire_rt::abi::nr;
use quire_rt::sync::futex_wait;
use quire_rt::thread::spawn;
use quire_rt::{Errno, time};
use user_tests::{Checks, KERNEL, PAGE, map, mprotect, munmap, peek, raw, shared_page};

extern crate alloc;

quire_rt::entry!(main);

/// futex with all six arguments.
fn call(word: usize, op: u32, value: i32, time: usize, second: usize, third: u32) -> Result<usize, Errno> {
    raw(nr::FUTEX, [word, op as usize, value as usize, time, second, third as usize])
}

/// The last argument of WAKE_OP.
const fn operation(op: u32, operand: u32, compare: u32, than: u32) -> u32 {
    op << 28 | compare << 24 | (operand & 0xfff) << 12 | than & 0xfff
}

fn main() -> i32 {
    let mut checks = Checks::new();
    for private in [0, futex::PRIVATE] {
        refused(&mut checks, private);
        wake_op(&mut checks, private);
    }
    counts(&mut checks);
    unchanging(&mut checks);
    checks.finish()
}

fn refused(checks: &mut Checks, private: u32) {
    let words = [AtomicU32::new(0), AtomicU32::new(0)];
    let [one, two] = [0, 1].map(|i| words[i].as_ptr() as usize);
    let time = Timespec { sec: 0, nsec: 1_000_000 };
    let soon = &raw const time as usize;
    for op in [futex::REQUEUE, futex::CMP_REQUEUE].map(|op| op | private) {
        checks.fails(call(one, op, -1, 0, two, 0), Errno::EINVAL, "requeue: a negative number to wake");
        checks.fails(call(one, op, 0, usize::MAX, two, 0), Errno::EINVAL, "a negative number to move");
        checks.fails(call(one + 2, op, 0, 0, two, 0), Errno::EINVAL, "a misaligned first word");
        checks.fails(call(one, op, 0, 0, two + 1, 0), Errno::EINVAL, "a misaligned second word");
    }
    checks.fails(call(one, futex::CMP_REQUEUE | private, 0, 0, two, 5), Errno::EAGAIN, "requeue: another value");
    for op in [futex::WAIT, futex::WAIT_BITSET, futex::WAKE, futex::WAKE_BITSET].map(|op| op | private) {
        checks.fails(call(one + 1, op, 0, 0, 0, u32::MAX), Errno::EINVAL, "a misaligned word");
        checks.fails(call(KERNEL, op, 0, 0, 0, u32::MAX), Errno::EFAULT, "the kernel's memory");
    }
    for op in [futex::WAIT_BITSET, futex::WAKE_BITSET].map(|op| op | private) {
        checks.fails(call(one, op, 0, soon, 0, 0), Errno::EINVAL, "no bits");
    }
    let clock = futex::CLOCK_REALTIME | private;
    for op in [futex::WAIT, futex::WAKE, futex::REQUEUE, futex::CMP_REQUEUE, futex::WAKE_OP, futex::WAKE_BITSET] {
        checks.fails(call(one, op | clock, 0, soon, two, 0), Errno::ENOSYS, "a clock where none is asked for");
    }
    let past = call(one, futex::WAIT_BITSET | clock, 0, soon, 0, u32::MAX);
    checks.fails(past, Errno::ETIMEDOUT, "until a time of that clock");
    for nsec in [-1, 1_000_000_000] {
        let bad = Timespec { sec: 0, nsec };
        let bad = call(one, futex::WAIT | private, 1, &raw const bad as usize, 0, 0);
        checks.fails(bad, Errno::EINVAL, "an invalid time, before the word is read");
    }
    checks.fails(call(one, futex::WAIT | private, 0, KERNEL, 0, 0), Errno::EFAULT, "a time that is nowhere");
    for op in [2, 14, 64, 127, 0x200, 0x4000_0000] {
        checks.fails(call(one, op | private, 0, 0, two, 0), Errno::ENOSYS, "an invalid operation");
    }
    for op in [6, 7, 8, 11, 12, 13] {
        checks.fails(call(one, op | private, 0, 0, two, 0), Errno::ENOSYS, "no inheritance of priority");
    }
    checks.eq(words.map(|word| word.load(SeqCst)), [0, 0], "and the words are as they were");
}

fn wake_op(checks: &mut Checks, private: u32) {
    let words = [AtomicU32::new(0), AtomicU32::new(7)];
    let [one, two] = [0, 1].map(|i| words[i].as_ptr() as usize);
    let wake = |one: usize, two: usize, op: u32| call(one, futex::WAKE_OP | private, 1, 1, two, op);
    let add = operation(1, 1, 0, 0);
    checks.fails(wake(one + 2, two, add), Errno::EINVAL, "WAKE_OP: a misaligned first word");
    checks.fails(wake(one, two + 2, add), Errno::EINVAL, "a misaligned second word");
    checks.fails(wake(KERNEL, two, add), Errno::EFAULT, "a first word that is nowhere");
    checks.fails(wake(one, two, operation(5, 1, 0, 0)), Errno::ENOSYS, "an invalid change");
    checks.fails(wake(one, two, operation(1, 1, 6, 0)), Errno::ENOSYS, "an invalid comparison");
    checks.eq(words[1].load(SeqCst), 7, "and the word is as it was");
    let changes = [
        (operation(0, 0xfff, 0, 0), u32::MAX),
        (operation(1, 3, 0, 0), 10),
        (operation(2, 8, 0, 0), 15),
        (operation(3, 2, 0, 0), 5),
        (operation(4, 1, 0, 0), 6),
        (operation(8 | 1, 4, 0, 0), 23),
        (operation(8 | 1, 33, 0, 0), 9),
    ];
    for (op, wanted) in changes {
        words[1].store(7, SeqCst);
        checks.eq((wake(one, two, op), words[1].load(SeqCst)), (Ok(0), wanted), "a change");
    }
}

/// How many waiters a count wakes: at least one, as on Linux.
/// Words that no program can change, or not even read.
fn unchanging(checks: &mut Checks) {
    let time = Timespec { sec: 0, nsec: 1_000_000 };
    let soon = &raw const time as usize;
    for (prot, what) in
        [(Prot::READ, "a shared futex in private memory that is only read"), (Prot::empty(), "without rights")]
    {
        let at = map(PAGE, prot);
        for touched in [false, true] {
            if touched && !prot.is_empty() {
                peek(at);
            }
            checks.fails(call(at, futex::WAIT, 1, soon, 0, 0), Errno::EFAULT, what);
            checks.fails(call(at, futex::WAKE, 1, 0, 0, 0), Errno::EFAULT, what);
        }
        checks.eq(
            call(at, futex::WAKE | futex::PRIVATE, 1, 0, 0, 0),
            Ok(0),
            "a private one is looked up by its address",
        );
        let _ = munmap(at, PAGE);
    }
    let shared = shared_page();
    let _ = mprotect(shared, PAGE, Prot::READ);
    checks.eq(call(shared, futex::WAKE, 1, 0, 0, 0), Ok(0), "in shared memory another process may change it");
    let _ = mprotect(shared, PAGE, Prot::empty());
    checks.fails(call(shared, futex::WAKE, 1, 0, 0, 0), Errno::EFAULT, "but this one must be able to read it");
}

fn counts(checks: &mut Checks) {
    for (count, wanted) in [(0, 1), (-1, 1), (2, 2), (i32::MAX, 3)] {
        let word = Arc::new(AtomicU32::new(0));
        let asleep = Arc::new(AtomicU32::new(0));
        for _ in 0..3 {
            let (word, asleep) = (word.clone(), asleep.clone());
            let _ = spawn(move || {
                asleep.fetch_add(1, SeqCst);
                let _ = futex_wait(&word, 0, None);
                asleep.fetch_sub(1, SeqCst);
            });
        }
        while asleep.load(SeqCst) < 3 {
            time::sleep_ms(1);
        }
        time::sleep_ms(30);
        let at = word.as_ptr() as usize;
        checks.eq(call(at, futex::WAKE | futex::PRIVATE, count, 0, 0, 0), Ok(wanted), "a count of sleepers");
        word.store(1, SeqCst);
        while asleep.load(SeqCst) > 0 {
            let _ = call(at, futex::WAKE | futex::PRIVATE, 10, 0, 0, 0);
            time::sleep_ms(1);
        }
    }
}
