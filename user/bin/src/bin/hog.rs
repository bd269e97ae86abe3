//! hog: uses more memory than is free, again and again, so that other programs' pages must leave and come back. `-s` says how
//! much more, in MiB. It prints how many pages that are once memory is short, goes on until it is killed, and ends by itself if a
//! page has lost its contents.
//!
//! Of four pages one has random contents, the others can be compressed.

#![no_std]
#![no_main]

use quire_bin::{Options, number};
use quire_rt::abi::PAGE_SIZE;
use quire_rt::abi::flags::{Map, Prot};
use quire_rt::{Errno, eprintln, info, io, mem, println};

quire_rt::entry!(main);

/// What it uses more than is free, in MiB.
const MORE: u64 = 8;

/// Pages that are touched between two looks at how many have left.
const STEP: usize = 64;

const WORDS: usize = PAGE_SIZE / 8;
const PER_MIB: u64 = (1 << 20) / PAGE_SIZE as u64;

fn main() -> i32 {
    let options = match Options::parse_alone("s:", &[], "hog [-s MIB]") {
        Ok(options) => options,
        Err(status) => return status,
    };
    let more = options.value('s').map_or(Some(MORE), number);
    let Some(more) = more else {
        eprintln!("hog: not a number");
        return quire_bin::USAGE;
    };
    match run(more * PER_MIB) {
        Ok(page) => eprintln!("hog: page {page} has lost its contents"),
        Err(error) => eprintln!("hog: {error}"),
    }
    1
}

/// Returns the page that was not what was written to it.
fn run(more: u64) -> Result<usize, Errno> {
    let system = info::sysinfo()?;
    if system.totalswap == 0 {
        eprintln!("hog: there is no swap");
        return Err(Errno::ENODEV);
    }
    let most = (system.totalram + system.totalswap) as usize * system.mem_unit as usize;
    let flags = Map::PRIVATE | Map::ANONYMOUS | Map::NORESERVE;
    // SAFETY: without `FIXED`, nothing that is mapped changes.
    let start = unsafe { mem::mmap(0, most, Prot::READ | Prot::WRITE, flags, -1, 0) }?;
    let mut memory = Pages { start, len: 0 };
    let out = || info::counter("pswpout").unwrap_or(u64::MAX);
    let before = out();
    while memory.len + STEP <= most / PAGE_SIZE && out() - before < more {
        (0..STEP).for_each(|_| memory.add());
    }
    println!("{}", memory.len);
    io::flush();
    let mut random = 1_u64;
    loop {
        for page in 0..memory.len {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            for page in [page, random as usize % memory.len] {
                if !memory.touch(page) {
                    return Ok(page);
                }
            }
        }
    }
}

/// Pages of a mapping, of which the first `len` have been written.
struct Pages {
    start: usize,
    len: usize,
}

impl Pages {
    fn at(&self, page: usize) -> *mut u64 {
        core::ptr::with_exposed_provenance_mut(self.start + page * PAGE_SIZE)
    }

    /// Writes to one more.
    fn add(&mut self) {
        let at = self.at(self.len);
        for i in 0..WORDS {
            // SAFETY: a page of the mapping, which nothing else uses.
            unsafe { at.add(i).write_volatile(word(self.len, i)) };
        }
        self.len += 1;
    }

    /// Looks at three words of a page, and writes one of them; whether they were as they should be.
    fn touch(&self, page: usize) -> bool {
        let at = self.at(page);
        let is_right = [0, page % WORDS, WORDS - 1].iter().all(|i| {
            // SAFETY: as for `add`.
            unsafe { at.add(*i).read_volatile() == word(page, *i) }
        });
        if page.is_multiple_of(2) {
            // SAFETY: as for `add`.
            unsafe { at.write_volatile(word(page, 0)) };
        }
        is_right
    }
}

/// What a page has at a place.
fn word(page: usize, i: usize) -> u64 {
    let mixed = (page as u64 * WORDS as u64 + i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    match page % 4 {
        0 => mixed ^ mixed >> 29,
        1 if i.is_multiple_of(4) => mixed,
        _ => page as u64,
    }
}
