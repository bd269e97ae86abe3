//! slabtop: the kernel's slab caches, largest first, again and again until it is interrupted (Ctrl-C) or `q` and Enter
//! are typed. `-d SECONDS` sets the time between two pictures (default 1); `-o` prints one picture, and so does slabtop
//! without a terminal.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::cmp::Reverse;

use quire_bin::{Options, slab};
use quire_rt::abi::statistics::SlabCacheInfo;
use quire_rt::{eprintln, info, io, print, println, tty};

quire_rt::entry!(main);

/// Lines assumed for a terminal of unknown size.
const ROWS: usize = 24;

fn main() -> i32 {
    let options = match Options::parse_alone("d:o", &[], "slabtop [-d SECONDS] [-o]") {
        Ok(options) => options,
        Err(status) => return status,
    };
    let Some(seconds) = options.value('d').map_or(Some(1u64), quire_bin::number).filter(|seconds| *seconds > 0) else {
        eprintln!("slabtop: -d wants a number of seconds");
        return quire_bin::USAGE;
    };
    if let Err(error) = info::record::<SlabCacheInfo>(0) {
        eprintln!("slabtop: {error}");
        return 1;
    }
    let has_terminal = tty::get(0).is_ok() && tty::get(1).is_ok();
    let once = options.has('o') || !has_terminal;
    loop {
        if !once {
            // Home, and everything below it cleared.
            print!("\x1b[H\x1b[J");
        }
        let rows = if once { usize::MAX } else { tty::size(1).map_or(ROWS, |(_, rows)| rows).saturating_sub(5) };
        show(rows);
        io::flush();
        if once || stopped(seconds) {
            return 0;
        }
    }
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

/// Waits, and returns whether a line with a `q` came meanwhile. Without input it only waits.
fn stopped(seconds: u64) -> bool {
    if !matches!(io::wait_readable(0, seconds * 1000), Ok(true)) {
        return false;
    }
    let mut typed = [0; 64];
    match io::read(0, &mut typed) {
        Ok(n) if n > 0 => typed[..n].contains(&b'q'),
        _ => {
            quire_rt::time::sleep_ms(seconds * 1000);
            false
        }
    }
}
