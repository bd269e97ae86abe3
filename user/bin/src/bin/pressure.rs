//! pressure: memory under pressure as a picture, again and again until it is interrupted (Ctrl-C) or `q` is typed: who waits for memory, how old
//! pages are, what is in swap, what reclaim does. `-d SECONDS` sets the time between two pictures (default 1); `-o` prints one picture, with what
//! happened since boot, and so does pressure without a terminal.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;

use quire_bin::{Options, live};
use quire_closeup::pressure::{self, COUNTERS, Facts};
use quire_rt::abi::info::{NodeInfo, ZoneInfo};
use quire_rt::abi::statistics::ListsInfo;
use quire_rt::{Errno, eprintln, info, print, time};

quire_rt::entry!(main);

fn main() -> i32 {
    let options = match Options::parse_alone("d:o", &[], "pressure [-d SECONDS] [-o]") {
        Ok(options) => options,
        Err(status) => return status,
    };
    if let Err(error) = look() {
        eprintln!("pressure: {error}");
        return 1;
    }
    let mut before = None;
    live::run("pressure", &options, |lines| {
        let Ok(now) = look() else { return };
        let text = pressure::picture(&now, before.as_ref());
        text.lines().take(lines).for_each(|line| print!("{line}\n"));
        before = Some(now);
    })
}

/// What the kernel says now.
fn look() -> Result<Facts, Errno> {
    let system = info::system()?;
    let zones: Vec<ZoneInfo> = info::records().collect();
    let sum = |of: fn(&ZoneInfo) -> u64| zones.iter().map(of).sum();
    let groups: Vec<u64> = info::groups().map(|group| group.key).collect();
    let nodes = info::records::<NodeInfo>().count();
    Ok(Facts {
        memory: [system.managed, system.free],
        watermarks: [sum(|zone| zone.min), sum(|zone| zone.low), sum(|zone| zone.high)],
        pressure: info::record(0)?,
        lists: (0..nodes).filter_map(|node| Some((node as u32, lists(node, &groups)?))).collect(),
        swap: info::record(0)?,
        counters: info::counters(COUNTERS.map(|(name, _)| name)),
        at: time::monotonic(),
    })
}

/// A node's lists: those of no group, and those of all groups.
fn lists(node: usize, groups: &[u64]) -> Option<ListsInfo> {
    let mut sum = info::lists(0, node).ok()?;
    for lists in groups.iter().filter_map(|group| info::lists(*group, node).ok()) {
        pressure::add(&mut sum, &lists);
    }
    Some(sum)
}
