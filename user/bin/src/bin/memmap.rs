//! memmap: the physical memory map: banks of memory and the regions in them, by address.

#![no_std]
#![no_main]

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use quire_bin::Options;
use quire_rt::abi::info::{RegionInfo, region};
use quire_rt::{eprintln, info, println};

extern crate alloc;

quire_rt::entry!(main);

fn main() -> i32 {
    if let Err(status) = Options::none("memmap") {
        return status;
    }
    if let Err(error) = info::record::<RegionInfo>(0) {
        eprintln!("memmap: {error}");
        return 1;
    }
    let mut regions: Vec<RegionInfo> = info::records().collect();
    // A bank is listed before the regions in it, even if both start at the same address.
    regions.sort_by_key(|region| (region.start, region.kind != region::MEMORY, core::cmp::Reverse(region.end)));
    println!("{:>12}   {:>12} {:>10}  what", "first", "last", "size");
    let mut total = 0;
    for region in &regions {
        let bank = region.kind == region::MEMORY;
        let size = region.end.saturating_sub(region.start);
        total += if bank { size } else { 0 };
        println!(
            "{:#012x} - {:#012x} {:>10}  {}{}",
            region.start,
            region.end.saturating_sub(1),
            human(size),
            if bank { "" } else { "  " },
            describe(region)
        );
    }
    println!("{:>41}  in all", human(total));
    0
}

fn describe(region: &RegionInfo) -> String {
    let name = info::text(&region.name);
    let kind = match region.kind {
        region::MEMORY => return format!("memory, node {}", region.node),
        region::RESERVED => "reserved",
        region::NO_MAP => "reserved, never mapped",
        region::CMA => "contiguous memory area",
        region::KERNEL => "kernel",
        region::INITRD => "boot archive",
        region::DEVICE_TREE => "device tree",
        region::MEM_MAP => "page records",
        region::BOOT => "boot allocations",
        _ => "unknown",
    };
    if name.is_empty() { kind.into() } else { format!("{kind}: {name}") }
}

/// A size in the largest unit that divides it, or in KiB, rounded down.
fn human(bytes: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB")] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    if bytes < 1024 { format!("{bytes} B") } else { format!("{} KiB", bytes >> 10) }
}
