//! faults: a forbidden access ends the program by the right signal, and affects nothing else.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use quire_rt::abi::flags::{Prot, sig};
use quire_rt::{process, signal};
use user_tests::asm::{self, Trap};
use user_tests::{Checks, KERNEL, PAGE, RW, child, map, mprotect, munmap, peek, poke};

quire_rt::entry!(main);

static CONSTANT: u64 = 7;

fn main() -> i32 {
    let mut checks = Checks::new();
    let text = main as *const () as usize;
    checks.killed(|| peek(0), sig::SEGV, "reading at null");
    checks.killed(|| poke(0, 1), sig::SEGV, "writing at null");
    checks.killed(|| asm::call(0), sig::SEGV, "jumping to null");
    checks.killed(|| peek(PAGE - 1), sig::SEGV, "the rest of the first page");
    checks.killed(|| peek(KERNEL), sig::SEGV, "reading the kernel's half");
    checks.killed(|| poke(KERNEL + 0x20_0000, 1), sig::SEGV, "writing the kernel's half");
    for at in [KERNEL, 0xffff_ffff_8000_0000, 0xffff_0000_0000_0000, 0xffff_ff80_0800_0000, usize::MAX - 7] {
        checks.killed(|| asm::call(at & !3), sig::SEGV, "jumping into the kernel's half");
    }
    checks.killed(|| peek(1 << 48), sig::SEGV, "an address in neither half");
    checks.killed(|| peek(0x00ff_ffff_ffff_ffff), sig::SEGV, "another one");
    checks.killed(|| poke(text, 0), sig::SEGV, "writing own text");
    checks.killed(|| poke(&raw const CONSTANT as usize, 0), sig::SEGV, "writing a constant");
    checks.killed(|| asm::call(&raw const CONSTANT as usize), sig::SEGV, "jumping to a constant");
    for (trap, wanted) in [
        (Trap::Undefined, sig::ILL),
        (Trap::Register, sig::ILL),
        (Trap::MaskInterrupts, sig::ILL),
        (Trap::TableBase, sig::ILL),
        (Trap::Hypervisor, sig::ILL),
        (Trap::InvalidateTlb, sig::ILL),
        (Trap::Breakpoint, sig::TRAP),
    ] {
        let status = child(|| {
            asm::trap(trap);
            0
        });
        checks.eq(status, Ok(process::Status::Killed(wanted)), "an instruction that is not for programs");
    }
    checks.killed(|| asm::call(text + 2), sig::BUS, "a crooked program counter");
    let at = map(PAGE, RW);
    checks.killed(|| asm::load_exclusive(at + 13), sig::BUS, "an exclusive load across 16 bytes");
    poke(at + 3, 5);
    checks.eq(asm::load(at + 3), 5, "a crooked plain load is allowed");
    let _ = munmap(at, PAGE);
    details(&mut checks);
    many(&mut checks);
    checks.finish()
}

static SEEN: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];

extern "C" fn repair(signal: i32, info: *const signal::Info, _: *mut u8) {
    // SAFETY: the kernel hands the handler a record.
    let info = unsafe { *info };
    SEEN[0].store(signal as usize, SeqCst);
    SEEN[1].store(info.code as usize, SeqCst);
    SEEN[2].store(info.addr, SeqCst);
    let _ = mprotect(info.addr & !(PAGE - 1), PAGE, RW);
}

extern "C" fn leave(_: i32, info: *const signal::Info, _: *mut u8) {
    // SAFETY: as above.
    let info = unsafe { *info };
    process::exit_now(info.code + if info.addr == 0x1234 { 10 } else { 0 })
}

/// A handler gets the details of a fault, and can resolve it.
fn details(checks: &mut Checks) {
    let at = map(2 * PAGE, Prot::READ);
    let _ = signal::handle(sig::SEGV, repair, 0, 0);
    poke(at + PAGE + 5, 9);
    checks.eq(SEEN[0].load(SeqCst), sig::SEGV as usize, "a handler is called");
    checks.eq(SEEN[1].load(SeqCst), 2, "it is told that the access was not allowed (SEGV_ACCERR)");
    checks.eq(SEEN[2].load(SeqCst), at + PAGE + 5, "and the address");
    checks.eq(peek(at + PAGE + 5), 9, "when it returns the access is made again");
    let _ = signal::handle(sig::SEGV, leave, 0, 0);
    checks.exits(|| peek(0x1234) as i32, 11, "an address where nothing is mapped (SEGV_MAPERR)");
    let _ = signal::ignore(sig::SEGV);
    checks.killed(|| peek(0), sig::SEGV, "ignoring the signal does not help");
    let _ = signal::handle(sig::SEGV, leave, 0, 0);
    checks.killed(
        || {
            let _ = signal::mask(signal::How::Block, signal::set(&[sig::SEGV]));
            peek(0);
        },
        sig::SEGV,
        "nor does blocking it",
    );
    let _ = signal::default(sig::SEGV);
    let _ = munmap(at, 2 * PAGE);
}

fn many(checks: &mut Checks) {
    let pids: [i32; 16] = core::array::from_fn(|_| user_tests::start(|| peek(0) as i32).unwrap_or(-1));
    let all = pids.iter().all(|pid| process::waitpid(*pid) == Ok(process::Status::Killed(sig::SEGV)));
    checks.ok(all, "sixteen at once, each alone");
}
