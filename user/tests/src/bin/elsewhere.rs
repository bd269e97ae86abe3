//! elsewhere: the memory of other processes (process_vm_readv, process_vm_writev, process_madvise), and policies of
//! scheduling.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec;

use quire_rt::abi::flags::{pr, sig};
use quire_rt::abi::nr;
use quire_rt::process::{self, Status, waitpid};
use quire_rt::{Errno, time};
use user_tests::{Checks, KERNEL, PAGE, RW, child, map, mprotect, munmap, peek, poke, raw, start, until_asleep};

quire_rt::entry!(main);

fn main() -> i32 {
    let mut checks = Checks::new();
    copies(&mut checks);
    refused(&mut checks);
    advice(&mut checks);
    policies(&mut checks);
    checks.finish()
}

type Part = [usize; 2];

fn process_vm(number: usize, pid: i32, local: &[Part], remote: &[Part]) -> Result<usize, Errno> {
    raw(number, [pid as usize, local.as_ptr() as usize, local.len(), remote.as_ptr() as usize, remote.len(), 0])
}

fn copies(checks: &mut Checks) {
    let pages = map(4 * PAGE, RW);
    (0..4 * PAGE).for_each(|i| poke(pages + i, 1));
    let child = start(|| {
        (0..3 * PAGE).for_each(|i| poke(pages + i, (i % 251) as u8));
        let _ = munmap(pages + 3 * PAGE, PAGE);
        time::sleep_ms(100_000);
        0
    })
    .unwrap_or(-1);
    until_asleep(child);
    let mut got = vec![0u8; 4 * PAGE];
    let to = got.as_mut_ptr() as usize;
    let read = process_vm(nr::PROCESS_VM_READV, child, &[[to, 3 * PAGE]], &[[pages, 3 * PAGE]]);
    checks.eq(read, Ok(3 * PAGE), "the memory of another process is read");
    checks.ok((0..3 * PAGE).all(|i| peek(to + i) == (i % 251) as u8), "as it is there");
    checks.eq(peek(pages), 1, "and not here");
    let parts = [[pages + 5, 3], [pages + PAGE - 1, 2], [pages, 0], [pages + 7, 10]];
    let read = process_vm(nr::PROCESS_VM_READV, child, &[[to, 4], [to + 100, 6]], &parts);
    checks.eq(read, Ok(10), "in parts, as much as both sides have");
    let wanted = [5, 6, 7, ((PAGE - 1) % 251) as u8].map(Some);
    checks.ok((0..4).all(|i| Some(peek(to + i)) == wanted[i]), "in their order");
    checks.eq([0, 1, 5].map(|i| peek(to + 100 + i)), [(PAGE % 251) as u8, 7, 11], "across their ends");
    let read = process_vm(nr::PROCESS_VM_READV, child, &[[to, 2 * PAGE]], &[[pages + 2 * PAGE, 2 * PAGE]]);
    checks.eq(read, Ok(PAGE), "up to where nothing is");
    let read = process_vm(nr::PROCESS_VM_READV, child, &[[to, 1]], &[[pages + 3 * PAGE, 1]]);
    checks.fails(read, Errno::EFAULT, "from where nothing is");
    let write = process_vm(nr::PROCESS_VM_WRITEV, child, &[[to, 8]], &[[pages + PAGE - 4, 8]]);
    (0..8).for_each(|i| poke(to + 200 + i, 0));
    let again = process_vm(nr::PROCESS_VM_READV, child, &[[to + 200, 8]], &[[pages + PAGE - 4, 8]]);
    checks.eq((write, again), (Ok(8), Ok(8)), "it is written");
    checks.ok((0..8).all(|i| peek(to + 200 + i) == peek(to + i)), "and read again");
    checks.ok((0..8).all(|i| peek(pages + PAGE - 4 + i) == 1), "here it has not changed");
    let _ = (process::kill(child, sig::KILL), waitpid(child));
    checks.fails(
        process_vm(nr::PROCESS_VM_READV, child, &[[to, 1]], &[[pages, 1]]),
        Errno::ESRCH,
        "nor of who has ended",
    );
    let _ = mprotect(pages, PAGE, quire_rt::abi::flags::Prot::READ);
    let me = process::getpid();
    let own = process_vm(nr::PROCESS_VM_WRITEV, me, &[[to, 1]], &[[pages, 1]]);
    checks.fails(own, Errno::EFAULT, "what may not be written is not");
    let _ = munmap(pages, 4 * PAGE);
}

fn refused(checks: &mut Checks) {
    let (me, part) = (process::getpid(), [[checks as *const _ as usize, 0]]);
    let flags = raw(nr::PROCESS_VM_READV, [me as usize, 0, 0, 0, 0, 1]);
    checks.fails(flags, Errno::EINVAL, "flags");
    checks.fails(raw(nr::PROCESS_VM_READV, [me as usize, 0, 1025, 0, 0, 0]), Errno::EINVAL, "too many parts");
    checks.fails(raw(nr::PROCESS_VM_READV, [me as usize, KERNEL, 1, 0, 0, 0]), Errno::EFAULT, "parts that are nowhere");
    checks.eq(process_vm(nr::PROCESS_VM_READV, -1, &part, &part), Ok(0), "nothing to copy");
    let other = || {
        let own = 0u8;
        let (at, parent) = ([[&raw const own as usize, 1]], process::getppid());
        let _ = raw(nr::SETRESUID, [1000, 1000, 1000]);
        (process_vm(nr::PROCESS_VM_READV, parent, &at, &at) != Err(Errno::EPERM)) as i32
    };
    checks.exits(other, 0, "a process of another user");
    // A process that was root knows what its new user must not.
    let formerly_root = || {
        let own = 0u8;
        let (at, parent) = ([[&raw const own as usize, 1]], process::getppid());
        (process_vm(nr::PROCESS_VM_READV, parent, &at, &at) != Err(Errno::EPERM)) as i32
    };
    let drops_root = || {
        let _ = raw(nr::SETRESUID, [1000, 1000, 1000]);
        let is_open = raw(nr::PRCTL, [pr::GET_DUMPABLE as usize, 0, 0, 0, 0]);
        (is_open != Ok(0) || child(formerly_root) != Ok(Status::Exited(0))) as i32
    };
    checks.exits(drops_root, 0, "nor one of this user that was root");
}

fn advice(checks: &mut Checks) {
    const COLD: usize = 20;
    let pages = map(2 * PAGE, RW);
    poke(pages, 9);
    let child = start(|| {
        time::sleep_ms(100_000);
        0
    })
    .unwrap_or(-1);
    let fd = raw(nr::PIDFD_OPEN, [child as usize, 0]).unwrap_or(usize::MAX);
    let parts = [[pages, PAGE], [pages + PAGE, PAGE]];
    let advise = |fd: usize, advice: usize, flags: usize| {
        raw(nr::PROCESS_MADVISE, [fd, parts.as_ptr() as usize, 2, advice, flags])
    };
    checks.eq(advise(fd, COLD, 0), Ok(2 * PAGE), "advice about the memory of another process");
    checks.fails(advise(fd, 4, 0), Errno::EINVAL, "but not to drop it");
    checks.fails(advise(fd, COLD, 1), Errno::EINVAL, "nor with flags");
    checks.fails(advise(900, COLD, 0), Errno::EBADF, "nor of nobody");
    let wrong = [[pages + 1, PAGE]];
    checks.fails(raw(nr::PROCESS_MADVISE, [fd, wrong.as_ptr() as usize, 1, COLD, 0]), Errno::EINVAL, "nor of no page");
    let other = || {
        let _ = raw(nr::SETRESUID, [1000, 1000, 1000]);
        (advise(fd, COLD, 0) != Err(Errno::EPERM)) as i32
    };
    checks.exits(other, 0, "nor from another user");
    let _ = process::kill(child, sig::KILL);
    checks.eq(waitpid(child), Ok(Status::Killed(sig::KILL)), "it is alive all the time");
    checks.fails(advise(fd, COLD, 0), Errno::ESRCH, "and has no memory afterwards");
    let _ = (raw(nr::CLOSE, [fd]), munmap(pages, 2 * PAGE));
}

fn policies(checks: &mut Checks) {
    let set = |policy: usize, priority: u32| raw(nr::SCHED_SETSCHEDULER, [0, policy, &raw const priority as usize]);
    checks.eq((raw(nr::SCHED_GETSCHEDULER, [0]), set(0, 0)), (Ok(0), Ok(0)), "the usual policy");
    let mut priority = 9u32;
    let at = &raw mut priority as usize;
    checks.eq(raw(nr::SCHED_GETPARAM, [0, at]), Ok(0), "which has no priorities");
    // SAFETY: the kernel has written it.
    checks.eq(unsafe { (at as *const u32).read_volatile() }, 0, "but 0");
    checks.eq(raw(nr::SCHED_SETPARAM, [0, at]), Ok(0), "which can be set");
    checks.fails(raw(nr::SCHED_GETPARAM, [0, 0]), Errno::EINVAL, "told to somewhere");
    for number in [nr::SCHED_GETSCHEDULER, nr::SCHED_GETPARAM, nr::SCHED_RR_GET_INTERVAL] {
        checks.fails(raw(number, [usize::MAX, at]), Errno::EINVAL, "a number of nobody");
        checks.fails(raw(number, [32_000, at]), Errno::ESRCH, "a thread that there is not");
    }
    let bounds = |policy: usize| (raw(nr::SCHED_GET_PRIORITY_MIN, [policy]), raw(nr::SCHED_GET_PRIORITY_MAX, [policy]));
    checks.eq([1, 2, 0, 3].map(bounds), [(Ok(1), Ok(99)), (Ok(1), Ok(99)), (Ok(0), Ok(0)), (Ok(0), Ok(0))], "bounds");
    checks.fails(bounds(4).0, Errno::EINVAL, "of what Linux has");
    let mut slice = [0u64; 2];
    checks.eq(raw(nr::SCHED_RR_GET_INTERVAL, [0, slice.as_mut_ptr() as usize]), Ok(0), "the slice");
    // SAFETY: the kernel has written it.
    let slice = unsafe { (&raw const slice).read_volatile() };
    checks.ok(slice[0] == 0 && slice[1] > 0, "is some time");
}
