//! The harness of the test programs: checks that print TAP, children that must end in a certain way, and invalid calls
//! and accesses that a correct program would not make.
//!
//! These programs make calls with wrong arguments and access arbitrary addresses, so [`raw`], [`peek`] and [`poke`] are
//! safe functions here. The rule is that a test passes only addresses of mappings that it made for the purpose, or
//! addresses that the kernel must refuse.

#![no_std]

extern crate alloc;

pub mod asm;
pub mod failing;
pub mod files;
pub mod groups;
pub mod long;
pub mod ready;
pub mod unix;

use core::fmt::Debug;
use core::sync::atomic::AtomicU64;

use quire_rt::abi::flags::{Map, Prot};
use quire_rt::process::{self, Status};
use quire_rt::{Errno, info, mem, println, sys, time};

pub use quire_rt::abi::PAGE_SIZE as PAGE;

/// Read and write.
pub const RW: Prot = Prot::READ.union(Prot::WRITE);

/// An address in the kernel's half, which no process may access.
pub const KERNEL: usize = 0xffff_8000_0000_0000;

/// Counts and prints checks.
#[derive(Default)]
pub struct Checks {
    count: u32,
    failed: u32,
}

impl Checks {
    /// None yet.
    pub fn new() -> Checks {
        Checks::default()
    }

    /// One check.
    pub fn ok(&mut self, passed: bool, what: &str) {
        self.count += 1;
        self.failed += !passed as u32;
        println!("{} {} - {what}", if passed { "ok" } else { "not ok" }, self.count);
    }

    /// One check of a value, which is printed if it is wrong.
    #[track_caller]
    pub fn eq<T: PartialEq + Debug>(&mut self, got: T, wanted: T, what: &str) {
        let passed = got == wanted;
        self.ok(passed, what);
        if !passed {
            let line = core::panic::Location::caller().line();
            println!("# line {line}: got {got:?}, wanted {wanted:?}");
        }
    }

    /// One check that a call failed with this error.
    #[track_caller]
    pub fn fails<T: Debug>(&mut self, got: Result<T, Errno>, wanted: Errno, what: &str) {
        self.eq(got.err(), Some(wanted), what);
    }

    /// One check that a child running `run` ends with this exit status (what `run` returns).
    #[track_caller]
    pub fn exits(&mut self, run: impl FnOnce() -> i32, wanted: u8, what: &str) {
        self.eq(child(run), Ok(Status::Exited(wanted)), what);
    }

    /// One check that this signal ends a child running `run`.
    #[track_caller]
    pub fn killed<T>(&mut self, run: impl FnOnce() -> T, wanted: u32, what: &str) {
        let status = child(|| {
            run();
            0
        });
        self.eq(status, Ok(Status::Killed(wanted)), what);
    }

    /// A check that cannot be made here.
    pub fn skip(&mut self, what: &str, why: &str) {
        self.count += 1;
        println!("ok {} - {what} # SKIP {why}", self.count);
    }

    /// Prints the plan and returns the exit status.
    pub fn finish(self) -> i32 {
        println!("1..{}", self.count);
        (self.failed > 0) as i32
    }
}

/// Runs a function in a child and waits for how it ends.
pub fn child(run: impl FnOnce() -> i32) -> Result<Status, Errno> {
    process::waitpid(start(run)?)
}

/// Starts a child that runs a function.
pub fn start(run: impl FnOnce() -> i32) -> Result<i32, Errno> {
    match process::fork()? {
        0 => process::exit(run()),
        pid => Ok(pid),
    }
}

/// Waits until something holds. `false` if it never does: however slow the host is, it had its time.
pub fn until(mut holds: impl FnMut() -> bool) -> bool {
    (0..20_000).any(|_| {
        let done = holds();
        if !done {
            time::sleep_ms(2);
        }
        done
    })
}

/// Waits until all threads of another process sleep, or it has ended.
pub fn until_asleep(pid: i32) -> bool {
    if !is_quire() {
        // Other kernels have other signs.
        time::sleep_ms(100);
        return true;
    }
    let state = || info::process(pid as u32).map_or(b'Z'.into(), |p| p.state);
    until(|| [b'S', b'Z'].map(u32::from).contains(&state()))
}

/// CPU time of a process so far, in nanoseconds.
pub fn cpu_time(pid: i32) -> u64 {
    info::process(pid as u32).map_or(0, |p| p.cpu_ns)
}

/// Any call with any arguments.
pub fn raw<const N: usize>(number: usize, args: [usize; N]) -> Result<usize, Errno> {
    // SAFETY: by this crate's rule nothing that Rust relies on is at the addresses given.
    unsafe { sys::call(number, args) }
}

/// Reads a byte.
pub fn peek(addr: usize) -> u8 {
    // SAFETY: a volatile read at an address of the test's own, or one that must fault.
    unsafe { (addr as *const u8).read_volatile() }
}

/// Writes a byte.
pub fn poke(addr: usize, value: u8) {
    // SAFETY: a volatile write at an address of the test's own, or one that must fault.
    unsafe { (addr as *mut u8).write_volatile(value) }
}

/// Whether `len` bytes all have this value.
pub fn all(addr: usize, len: usize, value: u8) -> bool {
    (addr..addr + len).all(|at| peek(at) == value)
}

/// Maps a fresh page that children share.
pub fn shared_page() -> usize {
    let flags = (Map::SHARED | Map::ANONYMOUS).bits() as usize;
    raw(quire_rt::abi::nr::MMAP, [0, PAGE, RW.bits() as usize, flags, usize::MAX, 0]).expect("memory for the test")
}

/// Maps fresh private memory.
pub fn map(len: usize, prot: Prot) -> usize {
    mem::mmap_anonymous(len, prot).expect("memory for the test")
}

/// Maps memory anywhere or, with `FIXED`, over a mapping of the test's own.
pub fn mmap(addr: usize, len: usize, prot: Prot, map: Map, fd: i32, offset: usize) -> Result<usize, Errno> {
    // SAFETY: by this crate's rule nothing that Rust relies on is there.
    unsafe { mem::mmap(addr, len, prot, map, fd, offset) }
}

/// Unmaps what the test mapped.
pub fn munmap(addr: usize, len: usize) -> Result<(), Errno> {
    // SAFETY: by this crate's rule nothing that Rust relies on is there.
    unsafe { mem::munmap(addr, len) }
}

/// Changes the protection of what the test mapped.
pub fn mprotect(addr: usize, len: usize, prot: Prot) -> Result<(), Errno> {
    // SAFETY: by this crate's rule nothing that Rust relies on is there.
    unsafe { mem::mprotect(addr, len, prot) }
}

/// Counters in a page that a process shares with the children that it makes later.
pub fn shared_counters() -> &'static [AtomicU64; PAGE / 8] {
    let addr = mmap(0, PAGE, RW, Map::SHARED | Map::ANONYMOUS, -1, 0).expect("shared memory for the test");
    // SAFETY: a fresh page, never unmapped, zero and so valid, and atomic for all who share it.
    unsafe { &*(addr as *const [AtomicU64; PAGE / 8]) }
}

/// Whether memory is short all the time (`selftest --pressure`): pages leave at any moment, so it is not known which
/// are in memory.
pub fn is_short() -> bool {
    quire_rt::env().any(|word| word == c"PRESSURE=1")
}

/// Whether this is Quire and not another kernel with the same calls.
pub fn is_quire() -> bool {
    quire_rt::info::system().is_ok()
}
