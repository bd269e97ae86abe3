//! memtop: all of memory on one screen, again and again until it is interrupted (Ctrl-C) or `q` is typed: what frames are used for, zones and watermarks, free
//! blocks by order, what happens a second, the largest processes and slab caches. `-d SECONDS` sets the time between two pictures (default 1); `-o` prints one
//! picture, with what happened since boot, and so does memtop without a terminal.

#![no_std]
#![no_main]

extern crate alloc;

use quire_bin::{Options, live};
use quire_closeup::overview::{self, COUNTERS, Facts};
use quire_rt::abi::statistics::frame_use;
use quire_rt::{Errno, eprintln, info, print, time};

quire_rt::entry!(main);

fn main() -> i32 {
    let options = match Options::parse_alone("d:o", &[], "memtop [-d SECONDS] [-o]") {
        Ok(options) => options,
        Err(status) => return status,
    };
    if let Err(error) = look() {
        eprintln!("memtop: {error}");
        return 1;
    }
    let mut before = None;
    live::run("memtop", &options, |lines| {
        let Ok(now) = look() else { return };
        print!("{}", overview::picture(&now, before.as_ref(), lines));
        before = Some(now);
    })
}

/// What the kernel says now.
fn look() -> Result<Facts, Errno> {
    Ok(Facts {
        uses: uses()?,
        zones: info::records().collect(),
        pressure: info::record(0)?,
        swap: info::record(0)?,
        counters: info::counters(COUNTERS.map(|(name, _)| name)),
        processes: info::processes(1).collect(),
        slabs: info::records().collect(),
        at: time::monotonic(),
    })
}

/// The frames of all zones by their use.
fn uses() -> Result<[u64; frame_use::COUNT], Errno> {
    let mut sum = [0; frame_use::COUNT];
    for zone in 0.. {
        let mut from = 0;
        loop {
            let part = match info::block_use(zone, from) {
                // No zone, or behind its last page block.
                Err(Errno::ENOENT) if from == 0 => return Ok(sum),
                Err(Errno::ENOENT) => break,
                other => other?,
            };
            let counts = part.counts.iter().take(part.count as usize);
            counts.for_each(|counts| sum.iter_mut().zip(counts).for_each(|(sum, n)| *sum += u64::from(*n)));
            from = part.first as usize + part.count as usize;
        }
    }
    Ok(sum)
}
