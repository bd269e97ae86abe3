//! slabtop: the kernel's slab caches, largest first, again and again until it is interrupted (Ctrl-C) or `q` is
//! typed. `-d SECONDS` sets the time between two pictures (default 1); `-o` prints one picture, and so does slabtop
//! without a terminal.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::cmp::Reverse;

use quire_bin::{Options, live, slab};
use quire_rt::abi::statistics::SlabCacheInfo;
use quire_rt::{eprintln, info, println};

quire_rt::entry!(main);

/// Lines above the caches.
const HEAD: usize = 4;

fn main() -> i32 {
    let options = match Options::parse_alone("d:o", &[], "slabtop [-d SECONDS] [-o]") {
        Ok(options) => options,
        Err(status) => return status,
    };
    if let Err(error) = info::record::<SlabCacheInfo>(0) {
        eprintln!("slabtop: {error}");
        return 1;
    }
    live::run("slabtop", &options, |lines| show(lines.saturating_sub(HEAD)))
}

fn show(rows: usize) {
    let mut caches: Vec<SlabCacheInfo> = info::records().collect();
    caches.sort_by_key(|cache| Reverse((cache.pages, cache.active)));
    let sum = |of: fn(&SlabCacheInfo) -> u64| caches.iter().map(of).sum::<u64>();
    let (active, total) = (sum(|cache| cache.active), sum(|cache| cache.total));
    println!("objects {active} of {total}, slabs {}, {} KiB", sum(|c| c.slabs), quire_bin::kib(sum(|c| c.pages)));
    println!();
    println!("{}", slab::HEADING);
    caches.iter().take(rows).for_each(slab::print);
}
