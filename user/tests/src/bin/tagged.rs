//! tagged: the top byte of an address, which loads and stores ignore and calls do not.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use quire_rt::Errno;
use quire_rt::abi::flags::{Map, Prot, sig};
use quire_rt::abi::nr;
use quire_rt::process;
use quire_rt::signal::{Info, handle};
use user_tests::asm::load_exclusive;
use user_tests::{Checks, PAGE, RW, is_quire, map, mmap, munmap, peek, poke, raw};

quire_rt::entry!(main);

const TAG: usize = 0x5a << 56;

fn main() -> i32 {
    let mut checks = Checks::new();
    accesses(&mut checks);
    calls(&mut checks);
    mappings(&mut checks);
    faults(&mut checks);
    checks.finish()
}

fn accesses(checks: &mut Checks) {
    let at = map(2 * PAGE, RW);
    // Not even the first access of a page needs the plain address.
    poke(at | TAG, 7);
    checks.eq(peek(at), 7, "a store ignores the tag");
    checks.eq(peek(at | 0xff << 56), 7, "a load too");
    checks.eq(peek((at + PAGE) | TAG), 0, "also the first one");
    checks.eq(load_exclusive(at | TAG), 7, "and an exclusive one");
    let copied = user_tests::child(|| {
        poke(at | TAG, 8);
        (peek(at) != 8) as i32
    });
    checks.eq(copied, Ok(process::Status::Exited(0)), "a page that is shared with the parent is copied");
    checks.eq(peek(at), 7, "and the parent's stays as it is");
    let _ = munmap(at, 2 * PAGE);
}

fn calls(checks: &mut Checks) {
    let at = map(PAGE, RW);
    let mut pipe = [0u32; 2];
    let _ = raw(nr::PIPE2, [pipe.as_mut_ptr() as usize, 0]);
    let [from, to] = pipe.map(|fd| fd as usize);
    checks.fails(raw(nr::WRITE, [to, at | TAG, 3]), Errno::EFAULT, "write refuses an address with a tag");
    let _ = raw(nr::WRITE, [to, at, 3]);
    checks.fails(raw(nr::READ, [from, at | TAG, 3]), Errno::EFAULT, "read does");
    checks.fails(raw(nr::CHDIR, [c"/".as_ptr() as usize | TAG]), Errno::EFAULT, "a path with one is refused");
    checks.fails(raw(nr::FUTEX, [at | TAG, 1, 1]), Errno::EFAULT, "and a futex");
    checks.fails(raw(nr::FUTEX, [at | TAG, 0, 1]), Errno::EFAULT, "to sleep on as well");
    checks.fails(raw(nr::GETCWD, [at | TAG, PAGE]), Errno::EFAULT, "and what is to be written");
    if is_quire() {
        checks.fails(raw(nr::PRCTL, [55, 1, 0, 0, 0]), Errno::EINVAL, "calls cannot be made to accept it");
    }
}

fn mappings(checks: &mut Checks) {
    let at = map(4 * PAGE, RW);
    let vector = map(PAGE, RW);
    let tagged = at | TAG;
    checks.eq(raw(nr::MPROTECT, [tagged, PAGE, 1]), Ok(0), "mprotect ignores the tag");
    checks.killed(|| poke(at, 1), sig::SEGV, "and protects");
    checks.eq(raw(nr::MADVISE, [tagged, PAGE, 4]), Ok(0), "madvise ignores it");
    checks.eq(raw(nr::MLOCK, [tagged, PAGE]), Ok(0), "mlock does");
    checks.eq(raw(nr::MUNLOCK, [tagged, PAGE]), Ok(0), "munlock does");
    checks.eq(raw(nr::MSYNC, [tagged, PAGE, 4]), Ok(0), "msync does");
    checks.eq(raw(nr::MINCORE, [tagged, PAGE, vector]), Ok(0), "mincore does");
    checks.fails(raw(nr::MINCORE, [at, PAGE, vector | TAG]), Errno::EFAULT, "but not in its answer's address");
    checks.eq(raw(nr::MREMAP, [tagged, 4 * PAGE, 2 * PAGE, 0, 0]), Ok(at), "mremap ignores that of the old address");
    let fixed = Map::PRIVATE | Map::ANONYMOUS | Map::FIXED;
    checks.fails(mmap(tagged, PAGE, RW, fixed, -1, 0), Errno::ENOMEM, "mmap does not");
    checks.fails(raw(nr::MREMAP, [at, PAGE, PAGE, 3, tagged + PAGE]), Errno::EINVAL, "nor mremap for the new one");
    checks.eq(munmap(tagged, 2 * PAGE), Ok(()), "munmap ignores it");
    checks.killed(|| peek(at), sig::SEGV, "and unmaps");
}

static FAULT: AtomicU64 = AtomicU64::new(0);

extern "C" fn note(_: i32, info: *const Info, _: *mut u8) {
    // SAFETY: the kernel passes its record.
    FAULT.store(unsafe { (*info).addr } as u64, SeqCst);
    // (Then the access is repeated.)
    let _ = user_tests::mprotect(FAULT.load(SeqCst) as usize & !(PAGE - 1), PAGE, RW);
}

fn faults(checks: &mut Checks) {
    let at = map(PAGE, Prot::empty());
    let _ = handle(sig::SEGV, note, 0, 0);
    let _ = peek((at + 5) | TAG);
    checks.eq(FAULT.load(SeqCst) as usize, at + 5, "a fault's address has no tag");
}
