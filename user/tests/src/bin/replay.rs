//! replay: repeats a random program of the memory manager's oracle with real calls, and compares the outcomes.
//!
//! `replay FILE` runs a script that the oracle printed (the oracle prints the command: `cargo xtask run --add
//! SCRIPT:/replay/script --add …`). Without an argument it runs the script that comes with this program, which the
//! ignored test `print_a_program_for_a_real_machine` made. A line is a call, the number of the process that makes it,
//! arguments in hexadecimal (memory in pages), and behind `=` the outcome; kernel/mm/src/mm/tests/trace.rs writes them.
//!
//! Each process walks through the script, executes its own lines when it is their turn, and publishes whose turn is
//! next in a page that all share. The first process executes no lines: it creates processes that have no parent in the
//! script.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::arch::asm;
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering::*};

use quire_rt::abi::flags::{Map, Open, sig};
use quire_rt::abi::layout::{Rlimit, rlimit};
use quire_rt::abi::nr;
use quire_rt::signal::Info;
use quire_rt::{args, fs, process, sched, signal};
use user_tests::{Checks, PAGE, PAGE as P, raw, shared_counters};

quire_rt::entry!(main);

const BUILT_IN: &str = include_str!("../../data/replay.txt");

/// The oracle's limit for stacks, in pages.
const STACK_LIMIT: u64 = 400;

/// Words of the shared page: the line whose turn it is; the first line with another outcome, from 1, and that outcome.
const TURN: usize = 0;
const WRONG: usize = 1;
const GOT: usize = 2;

/// Marks outcomes of accesses that are signals, as they are kept in [`GOT`].
const SIGNAL: u64 = 1 << 63;

static FAULT: AtomicI32 = AtomicI32::new(0);

/// Records the signal, and resumes after the load or store that caused it.
extern "C" fn skip(signo: i32, info: *const Info, context: *mut u8) {
    // SAFETY: the kernel hands the record of a fault.
    FAULT.store(signo << 8 | unsafe { (*info).code }, Relaxed);
    // The interrupted pc, behind the ucontext's head (176 bytes), the fault's address, x0 to x30 and sp.
    const PC: usize = 176 + 8 + 31 * 8 + 8;
    // SAFETY: the context is a ucontext, whose registers this handler may change.
    unsafe {
        let pc = context.add(PC).cast::<u64>();
        pc.write(pc.read() + 4);
    }
}

/// An access's outcome: the word read, or the signal.
fn touch(addr: usize, write: Option<u64>) -> Result<u64, &'static str> {
    FAULT.store(0, Relaxed);
    let mut word = 0_u64;
    // SAFETY: single loads and stores at addresses of the script's own; where they fault, `skip` goes on behind them.
    unsafe {
        asm!("ldr {word}, [{addr}]", word = inout(reg) word, addr = in(reg) addr);
        if let Some(value) = write {
            // A refused load says nothing about the store, so forget it.
            FAULT.store(0, Relaxed);
            asm!("str {value}, [{addr}]", value = in(reg) value, addr = in(reg) addr);
        }
    }
    let fault = FAULT.load(Relaxed);
    match (fault >> 8, fault & 0xff) {
        (0, _) => Ok(word),
        (signo, 1) if signo == sig::SEGV as i32 => Err("!maperr"),
        (signo, 2) if signo == sig::SEGV as i32 => Err("!accerr"),
        (signo, 2) if signo == sig::BUS as i32 => Err("!adrerr"),
        _ => Err("!another signal"),
    }
}

struct Line<'a> {
    call: &'a str,
    slot: usize,
    args: [usize; 6],
    outcome: &'a str,
}

fn parse(line: &str) -> Option<Line<'_>> {
    let (call, outcome) = line.split_once(" = ")?;
    let mut words = call.split_ascii_whitespace();
    let (call, slot) = (words.next()?, words.next()?.parse().ok()?);
    let mut args = [0; 6];
    for (arg, word) in args.iter_mut().zip(words) {
        *arg = usize::from_str_radix(word, 16).ok()?;
    }
    Some(Line { call, slot, args, outcome })
}

/// The descriptor of one of the oracle's files, from 1.
fn file(number: usize) -> usize {
    let path = [c"/replay/file1", c"/replay/file2", c"/replay/file3"];
    match path.get(number.wrapping_sub(1)).map(|path| fs::open(path, Open::empty())) {
        Some(Ok(fd)) => fd as usize,
        _ => usize::MAX,
    }
}

/// Executes a line; returns the outcome in the script's form.
fn perform(line: &Line<'_>) -> String {
    let a = line.args;
    let done = match line.call {
        "map" => {
            let (fd, offset) =
                if a[3] & Map::ANONYMOUS.bits() as usize != 0 { (usize::MAX, 0) } else { (file(a[4]), a[5]) };
            let done = raw(nr::MMAP, [a[0] * P, a[1] * P, a[2], a[3], fd, offset * P]).map(|at| at / P);
            if fd != usize::MAX {
                let _ = quire_rt::io::close(fd as i32);
            }
            done
        }
        "unmap" => raw(nr::MUNMAP, [a[0] * P, a[1] * P]),
        "protect" => raw(nr::MPROTECT, [a[0] * P, a[1] * P, a[2]]),
        "remap" => raw(nr::MREMAP, [a[0] * P, a[1] * P, a[2] * P, a[3], a[4] * P]).map(|at| at / P),
        "advise" => raw(nr::MADVISE, [a[0] * P, a[1] * P, a[2]]),
        "lock" => raw(nr::MLOCK2, [a[0] * P, a[1] * P, a[2]]),
        "unlock" => raw(nr::MUNLOCK, [a[0] * P, a[1] * P]),
        "sync" => raw(nr::MSYNC, [a[0] * P, a[1] * P, a[2]]),
        "lockall" if a[0] == 0 => raw(nr::MUNLOCKALL, []),
        "lockall" => raw(nr::MLOCKALL, [a[0]]),
        "incore" => {
            let mut core = [0_u8; 1024];
            raw(nr::MINCORE, [a[0] * P, a[1].min(core.len()) * P, core.as_mut_ptr() as usize])
        }
        "read" | "write" => {
            // With fewer CPUs the script runs all the same.
            let _ = sched::set_affinity(0, 1 << a[0]);
            let write = (line.call == "write").then_some(a[2] as u64);
            return match touch(a[1] * P, write) {
                Ok(word) => alloc::format!("{word:x}"),
                Err(refused) => refused.to_string(),
            };
        }
        _ => return "!unknown".to_string(),
    };
    match done {
        Ok(value) => alloc::format!("{value:x}"),
        Err(errno) => alloc::format!("!{}", errno.get()),
    }
}

/// Outcomes as a word, so that they fit the shared page.
fn packed(outcome: &str) -> u64 {
    let mut word = SIGNAL;
    for byte in outcome.bytes().take(7) {
        word = word << 8 | u64::from(byte) | SIGNAL;
    }
    word
}

/// Walks through the script as process `me`, or as the one that makes others (`None`). Returns when the script ends.
fn walk(script: &[&str], shared: &[AtomicU64], mut me: Option<usize>, mut at: usize) {
    while at < script.len() {
        let turn = shared[TURN].load(Acquire) as usize;
        if turn < at {
            sched::yield_now();
            continue;
        }
        if turn >= script.len() {
            return;
        }
        let Some(line) = parse(script[at]) else {
            at += 1;
            if me.is_none() {
                shared[TURN].store(at as u64, Release);
            }
            continue;
        };
        let is_mine = if line.call == "process" { me.is_none() } else { me == Some(line.slot) };
        at += 1;
        if !is_mine {
            continue;
        }
        match line.call {
            "process" | "fork" => {
                let child = if line.call == "fork" { line.args[0] } else { line.slot };
                match process::fork() {
                    Ok(0) => {
                        me = Some(child);
                        continue;
                    }
                    Ok(_) => {}
                    Err(_) => {
                        fail(shared, at, "!fork");
                        return;
                    }
                }
            }
            "exit" => {
                shared[TURN].store(at as u64, Release);
                process::exit_now(0);
            }
            _ => {
                let got = perform(&line);
                if got != line.outcome {
                    fail(shared, at, &got);
                    shared[TURN].store(u64::MAX, Release);
                    return;
                }
            }
        }
        shared[TURN].store(at as u64, Release);
    }
}

fn fail(shared: &[AtomicU64], line: usize, got: &str) {
    shared[GOT].store(packed(got), Relaxed);
    shared[WRONG].store(line as u64, Release);
    shared[TURN].store(u64::MAX, Release);
}

fn main() -> i32 {
    let mut checks = Checks::new();
    let from_file = args().nth(1).map(|path| fs::File::open(path, Open::empty()).and_then(|file| file.read_to_end()));
    let text = match from_file {
        None => BUILT_IN.to_string(),
        Some(Ok(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        Some(Err(error)) => {
            checks.eq(Err(error), Ok(()), "the script can be read");
            return checks.finish();
        }
    };
    let script: Vec<&str> = text.lines().collect();
    let lines = script.iter().filter(|line| parse(line).is_some()).count();
    checks.ok(lines > 0, "there is something to do");
    let shared = shared_counters();
    let _ = signal::ignore(sig::CHLD);
    let _ = signal::handle(sig::SEGV, skip, 0, 0);
    let _ = signal::handle(sig::BUS, skip, 0, 0);
    let _ = process::prlimit(rlimit::STACK, Some(Rlimit { cur: STACK_LIMIT * PAGE as u64, max: rlimit::INFINITY }));
    let _ = process::prlimit(rlimit::MEMLOCK, Some(Rlimit { cur: rlimit::INFINITY, max: rlimit::INFINITY }));
    let first = process::getpid();
    walk(&script, shared, None, 0);
    if process::getpid() != first {
        process::exit_now(0);
    }
    while (shared[TURN].load(Acquire) as usize) < script.len() {
        sched::yield_now();
    }
    let wrong = shared[WRONG].load(Acquire) as usize;
    checks.eq(wrong, 0, "every step has the outcome that the oracle foresaw");
    if wrong != 0 {
        let got = shared[GOT].load(Relaxed);
        let bytes = got.to_be_bytes().map(|byte| byte & 0x7f);
        let got: String = bytes.iter().filter(|byte| **byte != 0).map(|byte| char::from(*byte)).collect();
        quire_rt::println!("# line {wrong}: {}: got {got}", script.get(wrong - 1).copied().unwrap_or(""));
    }
    checks.finish()
}
