//! The clock, the sheet of results, and the few operations on memory that the rows share.
//!
//! This program consists of system calls and accesses to raw addresses, so both are safe functions here. The rule is
//! that a row passes only addresses of mappings that it made itself.

use quire_rt::abi::flags::{Map, Prot, madv};
use quire_rt::abi::{PAGE_SIZE, nr};
use quire_rt::{Errno, arch, println, sys};

pub const KIB: usize = 1 << 10;
pub const MIB: usize = 1 << 20;
pub const PAGE: usize = PAGE_SIZE;
/// Read and write.
pub const RW: Prot = Prot::READ.union(Prot::WRITE);

/// What comes of a row.
pub type Outcome<T = ()> = Result<T, Errno>;

/// Where a row's results go.
pub struct Sheet {
    name: &'static str,
}

impl Sheet {
    pub fn new(name: &'static str) -> Sheet {
        Sheet { name }
    }

    /// One line: the row's name with an ending, and what was measured.
    pub fn write(&self, ending: &str, ops: usize, ticks: u64) {
        self.write_as(self.name, ending, ops, ticks);
    }

    /// As [`Sheet::write`], under another name.
    pub fn write_as(&self, name: &str, ending: &str, ops: usize, ticks: u64) {
        let frequency = arch::counter_frequency().max(1);
        let tenths = u128::from(ticks) * 10_000_000_000 / u128::from(frequency) / ops.max(1) as u128;
        println!("{name}{ending} {ops} {ticks} {}.{}", tenths / 10, tenths % 10);
    }

    /// Measures `ops` repetitions, after eight unmeasured ones as a warm-up.
    pub fn each(&self, ops: usize, ending: &str, mut work: impl FnMut() -> Outcome) -> Outcome {
        (0..8).try_for_each(|_| work())?;
        let ticks = time(|| (0..ops).try_for_each(|_| work()))?;
        self.write(ending, ops, ticks);
        Ok(())
    }
}

/// Ticks that some work takes.
#[inline(always)]
pub fn time(work: impl FnOnce() -> Outcome) -> Outcome<u64> {
    let start = arch::counter();
    work()?;
    Ok(arch::counter() - start)
}

/// Any call.
#[inline(always)]
pub fn call<const N: usize>(number: usize, args: [usize; N]) -> Outcome<usize> {
    // SAFETY: by this module's rule the addresses given hold nothing that Rust relies on.
    unsafe { sys::call(number, args) }
}

/// Maps private anonymous memory.
#[inline(always)]
pub fn map(len: usize, prot: Prot, more: Map) -> Outcome<usize> {
    let flags = Map::PRIVATE | Map::ANONYMOUS | more;
    call(nr::MMAP, [0, len, prot.bits() as usize, flags.bits() as usize, usize::MAX, 0])
}

#[inline(always)]
pub fn unmap(at: usize, len: usize) -> Outcome {
    call(nr::MUNMAP, [at, len]).map(drop)
}

/// Whether a row asks for base pages or accepts the kernel's default.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    Base,
    Default,
}

/// Maps an area for touching.
pub fn area(len: usize, pages: Pages) -> Outcome<usize> {
    let at = map(len, RW, Map::empty())?;
    if pages == Pages::Base {
        // A kernel without huge pages may reject this advice.
        let _ = call(nr::MADVISE, [at, len, madv::NOHUGEPAGE as usize]);
    }
    Ok(at)
}

/// Writes a word of each page.
#[inline(always)]
pub fn write_pages(at: usize, len: usize) {
    (0..len).step_by(PAGE).for_each(|offset| write_word(at + offset, offset));
}

/// Reads a word of each page.
#[inline(always)]
pub fn read_pages(at: usize, len: usize) {
    for offset in (0..len).step_by(PAGE) {
        // SAFETY: by this module's rule, a mapping of the row's own.
        unsafe { ((at + offset) as *const usize).read_volatile() };
    }
}

/// Writes one word.
#[inline(always)]
pub fn write_word(at: usize, value: usize) {
    // SAFETY: by this module's rule, a mapping of the row's own.
    unsafe { (at as *mut usize).write_volatile(value) };
}

/// Marsaglia's xorshift64, from the same start in each row.
pub struct Random(u64);

impl Random {
    pub fn new() -> Random {
        Random(88_172_645_463_325_252)
    }

    pub fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 as usize
    }

    /// The numbers below the length in random order.
    pub fn shuffle(&mut self, order: &mut [u32]) {
        order.iter_mut().enumerate().for_each(|(i, slot)| *slot = i as u32);
        for i in (1..order.len()).rev() {
            let j = self.next() % (i + 1);
            order.swap(i, j);
        }
    }
}
